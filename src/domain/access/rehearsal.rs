//! Questions without a token: what would somebody in this situation see, or write?
//!
//! Owns: the rehearsals, for `policy mask`, tables and tests. Must never: make a permit, or decide in another way
//! than a request is decided. Look next: `masks`, which answers.

use super::denial::{Denial, RecordDenial};
use super::engine::{Engine, Record};
use super::masks::{Desk, Disclosure, Masks, judge};
use super::relation::Relations;
use super::set::{Action, PolicySet};
use super::situation::{About, Situation};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use std::collections::BTreeSet;
use std::fmt;
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

/// Questions about types, asked one after the other.
#[derive(Clone)]
pub struct Rehearsal {
    pub(super) desk: Arc<Desk>,
}

impl Rehearsal {
    /// Questions of somebody in this situation. For `operate` it must name the operation.
    #[must_use]
    pub fn new(policies: &Arc<PolicySet>, situation: &Situation) -> Self {
        Self { desk: Arc::new(Desk::new(Arc::clone(policies), Masks::new(), situation.clone())) }
    }

    /// What they may do with records of a type. `action` is its name in the schema: `read` gives the elements that
    /// may be seen, `update` those that may be written. `None`: no action on records has this name.
    ///
    /// # Errors
    /// [`Denial::PolicyFault`] only.
    #[must_use]
    pub fn ask(&self, action: &str, resource: ResourceType) -> Option<Result<TypeRehearsal, Denial>> {
        let about_records = |known: &Action| !matches!(known, Action::Disclose | Action::Modify);
        let action = Action::ALL.into_iter().filter(about_records).find(|known| known.name() == action)?;
        Some(self.view(action, resource))
    }

    /// What they may do with this record, decided from scratch as a request is. `None`: no action on records has
    /// this name.
    #[must_use]
    pub fn judge(&self, action: &str, facts: &Facts, known: &Relations) -> Option<Trial> {
        let action = Action::ALL.into_iter().find(|known| known.name() == action)?;
        let (set, situation) = (&self.desk.set, &self.desk.situation);
        let relations = situation.relations(About::whole(action, facts), &BTreeSet::new(), known);
        let emergency = situation.emergency(facts, &BTreeSet::new()).is_some();
        let record = Record { facts, relations, emergency };
        let outcome = judge(set, situation, action, &record);
        let objections = match &outcome {
            Ok(_) => Ok(BTreeSet::new()),
            Err(_) => Engine::new(set, situation).and_then(|engine| engine.objections(action, &record)),
        };
        let objections = objections.map(|ids| ids.into_iter().collect()).unwrap_or_default();
        Some(Trial { outcome, objections })
    }

    /// The forbids because of which an element of this record does not pass; none where nothing permits it.
    #[must_use]
    pub fn objections(
        &self,
        action: &str,
        facts: &Facts,
        known: &Relations,
        path: &ElementPath,
    ) -> Vec<String> {
        let action = Action::ALL.into_iter().find(|known| known.name() == action);
        let Some((action, family)) = action.and_then(|action| Some((action, action.elements()?))) else {
            return Vec::new();
        };
        let (set, situation) = (&self.desk.set, &self.desk.situation);
        let relations = situation.relations(About::whole(action, facts), &BTreeSet::new(), known);
        let emergency = situation.emergency(facts, &BTreeSet::new()).is_some();
        let record = Record { facts, relations, emergency };
        let asked =
            Engine::new(set, situation).and_then(|engine| engine.element_objections(family, &record, path));
        asked.map(|ids| ids.into_iter().collect()).unwrap_or_default()
    }

    fn view(&self, action: Action, resource: ResourceType) -> Result<TypeRehearsal, Denial> {
        let view = self.desk.view(action, resource)?;
        Ok(TypeRehearsal {
            open: view.is_open(),
            possible: Arc::clone(&view.possible),
            definite: Arc::clone(&view.definite),
            policies: view.policies.to_vec(),
        })
    }
}

/// A record judged in rehearsal.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What a request would be told.
    pub outcome: Result<Disclosure, RecordDenial>,
    /// The forbids because of which it is refused; none where nothing permits it.
    pub objections: Vec<String>,
}

impl fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rehearsal").field("situation", &self.desk.situation).finish_non_exhaustive()
    }
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
    Rehearsal::new(policies, situation).view(Action::Read, resource)
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
    rehearse_record_known(policies, situation, facts, &Relations::none())
}

/// The same where it is known how they stand to the patients.
///
/// # Errors
/// [`RecordDenial`] as for a real request.
pub fn rehearse_record_known(
    policies: &PolicySet,
    situation: &Situation,
    facts: &Facts,
    known: &Relations,
) -> Result<Disclosure, RecordDenial> {
    let about = About::whole(Action::Read, facts);
    let relations = situation.relations(about, &BTreeSet::new(), known);
    let emergency = situation.emergency(facts, &BTreeSet::new()).is_some();
    judge(policies, situation, Action::Read, &Record { facts, relations, emergency })
}
