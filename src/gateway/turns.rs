//! One after the other: changes under the same condition.
//!
//! Owns: that of two conditional creates with the same criteria the second looks only when the first is stored, so that
//! one record is made. Must never: let one wait for ever, or hold the turn of a request that is over.
//! Look next: `write`, which takes a turn before it looks; `docs/interactions.md`, what holds across several gates.

use super::refusal::Refusal;
use crate::domain::fhir::classify::Asked;
use crate::domain::fhir::interaction::{Interaction, Target};
use crate::limits::{TURN_WAIT, TURNS_MAX};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::timeout;

/// Conditions under which something is being changed. They hold patient data, and are not shown.
#[derive(Default)]
pub struct Turns {
    under_way: Mutex<HashMap<String, Weak<Turn<()>>>>,
}

/// The turns of one request, until it is dropped.
#[must_use]
pub(super) struct Held(#[expect(dead_code, reason = "held, not read")] Vec<OwnedMutexGuard<()>>);

impl Turns {
    /// Waits until nobody else changes anything under the conditions of these requests.
    ///
    /// # Errors
    /// [`Refusal::Busy`] after `TURN_WAIT`, or when too many conditions are under way.
    pub(super) async fn take<'a>(
        &self,
        requests: impl Iterator<Item = &'a Asked> + Send,
    ) -> Result<Held, Refusal> {
        // In one order for all, so that no two requests wait for each other.
        let conditions: BTreeSet<String> = requests.filter_map(condition).collect();
        let turns = self.turns(conditions)?;
        let all = async {
            let mut held = Vec::with_capacity(turns.len());
            for turn in turns {
                held.push(turn.lock_owned().await);
            }
            Held(held)
        };
        timeout(TURN_WAIT, all).await.map_err(|_| Refusal::Busy)
    }

    fn turns(&self, conditions: BTreeSet<String>) -> Result<Vec<Arc<Turn<()>>>, Refusal> {
        if conditions.is_empty() {
            return Ok(Vec::new());
        }
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, turn| turn.strong_count() > 0);
        if under_way.len() + conditions.len() > TURNS_MAX {
            return Err(Refusal::Busy);
        }
        let turn = |condition: String| {
            let known = under_way.get(&condition).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let fresh = Arc::new(Turn::new(()));
                under_way.insert(condition, Arc::downgrade(&fresh));
                fresh
            })
        };
        Ok(conditions.into_iter().map(turn).collect())
    }
}

/// The condition of a request that creates a record where none matches.
fn condition(asked: &Asked) -> Option<String> {
    let search = match &asked.interaction {
        Interaction::Create { if_none_exist: Some(search), .. }
        | Interaction::Update { target: Target::Match(search), .. } => search,
        _ => return None,
    };
    Some(format!("{}?{}", search.resource_type().name(), search.canonical_query()))
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}
