//! Questions without a token: what would somebody in this situation see, or write?
//!
//! Owns: the rehearsals, for `policy mask`, tables and tests. Must never: make a permit, or decide in another way
//! than a request is decided. Look next: `masks`, which answers.

use super::denial::{Denial, RecordDenial};
use super::engine::Record;
use super::masks::{Desk, Disclosure, Masks, judge};
use super::set::{Action, PolicySet};
use super::situation::Situation;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::ResourceType;
use std::sync::Arc;

/// What the policies say about one type before any record is seen, for `policy mask` and tables.
#[derive(Clone, Debug)]
pub struct TypeRehearsal {
    /// For some record the action is permitted.
    pub open: bool,
    /// Elements that some record lets pass, outward or inward as the action has it.
    pub possible: Arc<Mask>,
    /// Elements that every record lets pass.
    pub definite: Arc<Mask>,
    /// Policies that permit without looking at a record.
    pub policies: Vec<String>,
}

/// Asks about a type without a token: what would somebody in this situation see?
///
/// # Errors
/// [`Denial::PolicyFault`] only.
pub fn rehearse_type(
    policies: &Arc<PolicySet>,
    situation: &Situation,
    resource: ResourceType,
) -> Result<TypeRehearsal, Denial> {
    rehearse(policies, situation, Action::Read, resource)
}

/// The same for an action by its name in the schema: `update` gives the elements that may be written. For
/// `operate` the situation must name the operation. `None`: no action on records has this name.
///
/// # Errors
/// [`Denial::PolicyFault`] only.
pub fn rehearse_action(
    policies: &Arc<PolicySet>,
    situation: &Situation,
    action: &str,
    resource: ResourceType,
) -> Option<Result<TypeRehearsal, Denial>> {
    let about_records = |known: &Action| !matches!(known, Action::Disclose | Action::Modify);
    let action = Action::ALL.into_iter().filter(about_records).find(|known| known.name() == action)?;
    Some(rehearse(policies, situation, action, resource))
}

fn rehearse(
    policies: &Arc<PolicySet>,
    situation: &Situation,
    action: Action,
    resource: ResourceType,
) -> Result<TypeRehearsal, Denial> {
    let desk = Desk::new(Arc::clone(policies), Masks::new(), situation.clone());
    let view = desk.view(action, resource)?;
    Ok(TypeRehearsal {
        open: view.is_open(),
        possible: Arc::clone(&view.possible),
        definite: Arc::clone(&view.definite),
        policies: view.policies.to_vec(),
    })
}

/// Asks about a record without a token, from scratch: what would somebody in this situation see of it?
///
/// # Errors
/// [`RecordDenial`] as for a real request.
pub fn rehearse_record(
    policies: &PolicySet,
    situation: &Situation,
    facts: &Facts,
) -> Result<Disclosure, RecordDenial> {
    let relations = situation.relations(facts);
    judge(policies, situation, Action::Read, &Record { facts, relations: &relations })
}
