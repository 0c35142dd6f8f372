//! The front door: may this kind of thing be asked at all, and with these parameters?
//!
//! Owns: the order of the questions before upstream is asked, and P4: every element that a criterion, sort
//! key or include reads must be one the caller may see. Must never: make a permit any other way.
//! Look next: `permit`, which decides each record of the answer.

use super::denial::{Denial, RecordDenial};
use super::engine::{Record, Verdict};
use super::masks::{Desk, Disclosure, Masks, TypeView, judge};
use super::permit::{Hidden, Permit, Wanted};
use super::scopes::Narrowing;
use super::set::{Action, PolicySet};
use super::situation::{Circumstances, Situation};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::interaction::{Include, Interaction, Search};
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use crate::domain::identity::Caller;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Decides whether an interaction may go upstream.
///
/// # Errors
/// [`Denial`]: the first reason found, in this order: purpose, scopes, type, parameters. A page link must be
/// opened and classified as the search it continues; shut, it is [`Denial::NothingToDecide`].
pub fn admit(
    policies: &Arc<PolicySet>,
    masks: &Masks,
    caller: &Caller,
    interaction: &Interaction,
    circumstances: &Circumstances,
) -> Result<Permit, Denial> {
    let situation = Situation::new(caller, circumstances)?;
    let (action, resource) = match interaction {
        Interaction::Read { resource, .. } => (Action::Read, *resource),
        Interaction::Vread { resource, .. } => (Action::Vread, *resource),
        Interaction::Search(search) => (Action::Search, search.resource_type()),
        Interaction::NextPage { .. }
        | Interaction::Capabilities
        | Interaction::SmartConfiguration
        | Interaction::History(_)
        | Interaction::SearchMany { .. }
        | Interaction::Create { .. }
        | Interaction::Update { .. }
        | Interaction::Patch { .. }
        | Interaction::Delete { .. }
        | Interaction::Bundle
        | Interaction::Operation(_)
        | Interaction::ExportStatus { .. }
        | Interaction::ExportCancel { .. }
        | Interaction::ExportFile { .. } => {
            return Err(Denial::NothingToDecide);
        }
    };
    let narrowing = Narrowing::read(&situation.scopes, situation.launch_patient.as_deref())?;
    let door = Door { desk: Desk::new(Arc::clone(policies), masks.clone(), situation), narrowing };
    let view = door.open(action, resource)?;
    let wanted = match interaction {
        Interaction::Vread { resource, id, version, .. } => Wanted::One {
            resource: *resource,
            id: id.as_str().to_owned(),
            version: Some(version.as_str().to_owned()),
        },
        Interaction::Read { resource, id, .. } => {
            Wanted::One { resource: *resource, id: id.as_str().to_owned(), version: None }
        }
        Interaction::Search(search) => Wanted::Rows { resource, reads: door.rows(search, &view)? },
        Interaction::NextPage { .. }
        | Interaction::Capabilities
        | Interaction::SmartConfiguration
        | Interaction::History(_)
        | Interaction::SearchMany { .. }
        | Interaction::Create { .. }
        | Interaction::Update { .. }
        | Interaction::Patch { .. }
        | Interaction::Delete { .. }
        | Interaction::Bundle
        | Interaction::Operation(_)
        | Interaction::ExportStatus { .. }
        | Interaction::ExportCancel { .. }
        | Interaction::ExportFile { .. } => {
            return Err(Denial::NothingToDecide);
        }
    };
    let hidden = Hidden::of(&door.desk, &door.narrowing)?;
    Ok(Permit { desk: door.desk, narrowing: door.narrowing, action, wanted, view, hidden })
}

struct Door {
    desk: Desk,
    narrowing: Narrowing,
}

type Reads = BTreeMap<ResourceType, BTreeSet<ElementPath>>;

impl Door {
    /// The type itself: its scope, then policy.
    fn open(&self, action: Action, resource: ResourceType) -> Result<Arc<TypeView>, Denial> {
        if !self.narrowing.allows(resource, letter(action)) {
            return Err(Denial::ScopeInsufficient { resource });
        }
        let view = self.desk.view(action, resource)?;
        if view.is_open() { Ok(view) } else { Err(Denial::TypeNotPermitted { resource }) }
    }

    /// What each row must disclose, by type. An element that no row could disclose is refused here.
    fn rows(&self, search: &Search, view: &TypeView) -> Result<Reads, Denial> {
        let resource = search.resource_type();
        let mut reads = Reads::from([(resource, BTreeSet::new())]);
        for criterion in search.criteria() {
            let refused = || Denial::CriterionWithheld { parameter: criterion.name().to_owned() };
            let (first, beyond) = criterion.hops().split_first().ok_or_else(refused)?;
            if first.resource() != resource || !covers(&view.possible, first.reads()) {
                return Err(refused());
            }
            for hop in beyond {
                if !self.sees_always(hop.resource(), hop.reads())? {
                    return Err(refused());
                }
            }
            reads.entry(resource).or_default().extend(first.reads().iter().cloned());
        }
        for key in search.sort() {
            if !covers(&view.possible, key.reads()) {
                return Err(Denial::CriterionWithheld { parameter: format!("_sort={}", key.name()) });
            }
            reads.entry(resource).or_default().extend(key.reads().iter().cloned());
        }
        for include in search.includes() {
            self.include(include, &mut reads)?;
        }
        Ok(reads)
    }

    /// A type reached by a chain or `_has` is looked into without being shown, so no record of it can be
    /// judged: everything read there must be open for every record of the type.
    fn sees_always(&self, resource: ResourceType, reads: &[ElementPath]) -> Result<bool, Denial> {
        if !self.narrowing.allows(resource, 's') || self.narrowing.patient().is_some() {
            return Ok(false);
        }
        let view = self.desk.view(Action::Search, resource)?;
        Ok(view.verdict == Verdict::Yes && covers(&view.definite, reads))
    }

    /// The referring element must be visible, and at least one type that may be added must be open; rows of
    /// the others are withheld one by one.
    fn include(&self, include: &Include, reads: &mut Reads) -> Result<(), Denial> {
        let source = self.open(Action::Search, include.source())?;
        if !covers(&source.possible, include.reads()) {
            let name = if include.reverse() { "_revinclude" } else { "_include" };
            return Err(Denial::CriterionWithheld { parameter: name.to_owned() });
        }
        reads.entry(include.source()).or_default().extend(include.reads().iter().cloned());
        if include.reverse() {
            return Ok(());
        }
        let mut refusal = Denial::TypeNotPermitted { resource: include.source() };
        let mut any = false;
        for target in include.targets() {
            match self.open(Action::Search, *target) {
                Ok(_) => {
                    reads.entry(*target).or_default();
                    any = true;
                }
                Err(fault @ Denial::PolicyFault { .. }) => return Err(fault),
                Err(denial) => refusal = denial,
            }
        }
        if any { Ok(()) } else { Err(refusal) }
    }
}

fn covers(mask: &Mask, reads: &[ElementPath]) -> bool {
    !reads.is_empty() && reads.iter().all(|path| mask.covers(path))
}

/// SMART's letter for the interaction.
fn letter(action: Action) -> char {
    match action {
        Action::Read | Action::Vread | Action::Disclose => 'r',
        Action::Search => 's',
    }
}

/// What the policies say about one type before any record is seen, for `policy mask` and tables.
#[derive(Clone, Debug)]
pub struct TypeRehearsal {
    /// Some record may be released.
    pub open: bool,
    /// Elements that some record may disclose.
    pub possible: Arc<Mask>,
    /// Elements that every record discloses.
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
    let desk = Desk::new(Arc::clone(policies), Masks::new(), situation.clone());
    let view = desk.view(Action::Read, resource)?;
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
