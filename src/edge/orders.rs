//! Orders on their way to the gate that writes the trail: holds, prunes, and which older policies may come back.
//!
//! Owns: the slips that commands leave in the trail's directory while a gate has its lock, sealed, and carrying orders out,
//! whoever has the journal open.
//! Must never: prune without a policy, or under another one than whoever ordered it meant; take a slip for carried out before
//! its record is durable.
//! Look next: `readings`, slips of the same kind; `journal::retain`; `app::readings`, which takes both up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::readings::{is_slip, write_slip};
use crate::domain::access::{Release, Versions};
use crate::domain::audit::{Control, Event, Hold, Keep, Record, lifted};
use crate::edge::journal::{Journal, Keys, Retained, Settings, lasting_seal, plan, retain};
use crate::limits::ORDER_BYTES_MAX;

const BEFORE: &str = "order-";
const FOR: &[u8] = b"the gate, orders";
const PURPOSE: &str = "orders for the trail";
const HOLD: &str = "hold-added";
const LIFT: &str = "hold-lifted";
const RETAIN: &str = "retain";
const ROLLBACK: &str = "policies-rollback";

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    what: String,
    details: BTreeMap<String, String>,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// A hold is in force, or not any more; or an older version of the policies may be taken.
    Recorded,
    /// Entries are withheld, or there was nothing to do.
    Retained(Retained),
}

impl Order {
    /// Put a hold in force.
    #[must_use]
    pub fn hold(hold: &Hold, now: Timestamp) -> Self {
        Self::of(HOLD, hold.record(now))
    }

    /// Lift one.
    #[must_use]
    pub fn lift(id: &str, reason: &str, operator: &str, now: Timestamp) -> Self {
        Self::of(LIFT, lifted(id, reason, operator, now))
    }

    /// Let one older version of the signed policies be taken again.
    #[must_use]
    pub fn rollback(release: &Release, reason: &str, operator: &str) -> Self {
        Self { what: ROLLBACK.to_owned(), details: Versions::rollback(release, reason, operator) }
    }

    /// The version that it lets be taken again, if it is such an order.
    #[must_use]
    pub fn allows(&self) -> Option<Release> {
        Versions::rolled_back(&self.details).filter(|_| self.what == ROLLBACK)
    }

    /// Withhold what is older than this policy allows to keep.
    #[must_use]
    pub fn retain(keep: Keep, operator: &str) -> Self {
        let details = [("policy", keep.to_string()), ("operator", operator.to_owned())];
        let details = details.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        Self { what: RETAIN.to_owned(), details }
    }

    fn of(what: &str, record: Record) -> Self {
        let details = match record {
            Record::Control(control) => control.details,
            Record::Intent(_) | Record::Decision(_) | Record::Outcome(_) => BTreeMap::new(),
        };
        Self { what: what.to_owned(), details }
    }

    /// Carries it out with the journal that is open. `policy`: the one of this configuration.
    ///
    /// # Errors
    /// A sentence that says why it was not, or not in full.
    pub async fn carry_out(
        &self,
        journal: &Journal,
        trail: &Settings,
        policy: Option<Keep>,
        now: Timestamp,
    ) -> Result<Done, String> {
        let event = match self.what.as_str() {
            HOLD => Event::HoldAdded,
            LIFT => Event::HoldLifted,
            ROLLBACK => Event::PoliciesRollback,
            RETAIN => return self.retain_now(journal, trail, policy, now).await.map(Done::Retained),
            _ => return Err("the order is of a kind that is not known".to_owned()),
        };
        let record = Record::Control(Control { time: now, event, details: self.details.clone() });
        let recorded = journal.append(&[record]).await;
        recorded.map(|_receipt| Done::Recorded).map_err(|error| error.to_string())
    }

    async fn retain_now(
        &self,
        journal: &Journal,
        trail: &Settings,
        policy: Option<Keep>,
        now: Timestamp,
    ) -> Result<Retained, String> {
        let Some(keep) = policy else {
            return Err(
                "there is no `[audit.retention]`: nothing is withheld without a written policy".to_owned()
            );
        };
        if self.details.get("policy").is_none_or(|ordered| *ordered != keep.to_string()) {
            return Err("the policy of the order is not the one the gate was started with".to_owned());
        }
        let place = trail.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let keys = Keys::load(&place).map_err(|error| error.to_string())?;
            plan(&place.directory, &keys, keep, now).map_err(|finding| finding.to_string())
        });
        let plan = planned.await.map_err(|error| error.to_string())??;
        let operator = self.details.get("operator").cloned().unwrap_or_default();
        retain(journal, trail, plan, &operator, now).await
    }

    /// Leaves it for the gate, which has the lock. Gives the slip, which is there until the order was carried out or refused.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub fn leave(&self, trail: &Settings) -> Result<PathBuf, String> {
        let seal = lasting_seal(trail, PURPOSE).map_err(|error| error.to_string())?;
        let text = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        let slip = seal.seal(&text, FOR, Timestamp::MAX).map_err(|_| "it could not be sealed".to_owned())?;
        let written = write_slip(&trail.directory, BEFORE, &slip);
        written.map_err(|error| format!("`{}`: {error}", trail.directory.display()))
    }
}

/// The orders that lie in the directory, with their slips. What is no order of ours is `None`.
///
/// # Errors
/// When the directory cannot be read.
pub fn waiting(trail: &Settings, now: Timestamp) -> io::Result<Vec<(PathBuf, Option<Order>)>> {
    let mut slips = Vec::new();
    for entry in fs::read_dir(&trail.directory)? {
        let path = entry?.path();
        if is_slip(&path, BEFORE) {
            slips.push(path);
        }
    }
    if slips.is_empty() {
        return Ok(Vec::new());
    }
    slips.sort();
    let seal = lasting_seal(trail, PURPOSE).map_err(io::Error::other)?;
    let read = |path: &Path| {
        let file = fs::symlink_metadata(path).ok()?;
        if !file.is_file() || file.len() > ORDER_BYTES_MAX {
            return None;
        }
        let text = fs::read_to_string(path).ok()?;
        serde_json::from_slice(&seal.open(text.trim(), FOR, now).ok()?).ok()
    };
    Ok(slips.into_iter().map(|path| (path.clone(), read(&path))).collect())
}
