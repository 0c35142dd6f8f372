//! The front door: may this kind of thing be asked at all, and with these parameters?
//!
//! Owns: the order of the questions before upstream is asked, and P4: every element that a criterion, sort
//! key or include reads must be one the caller may see. Must never: make a permit any other way.
//! Look next: `operations`, for history and `$name`; `permit`, which decides each record of the answer.

use super::denial::Denial;
use super::engine::Verdict;
use super::masks::{Desk, Masks, TypeView};
use super::permit::{Hidden, Permit, Reads, Wanted};
use super::scopes::Narrowing;
use super::set::{Action, PolicySet};
use super::situation::{Circumstances, Situation};
use crate::domain::fhir::interaction::{Include, Interaction, Search, Target};
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{self, ElementPath, ResourceType};
use crate::domain::identity::Caller;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// Decides whether an interaction may go upstream.
///
/// # Errors
/// [`Denial`]: the first reason found, in this order: purpose, `fhirUser`, scopes, type, parameters. What is no single question
/// is [`Denial::NothingToDecide`]: the legs of a search over many types and the entries of a Bundle are admitted one
/// by one, and a sealed link as what it continues, once opened (an export's file as the export).
pub fn admit(
    policies: &Arc<PolicySet>,
    masks: &Masks,
    caller: &Caller,
    interaction: &Interaction,
    circumstances: &Circumstances,
) -> Result<Permit, Denial> {
    admit_as(policies, masks, Situation::new(caller, circumstances)?, interaction, circumstances)
}

/// The same for a caller in a situation, which may be a supposed one.
pub(super) fn admit_as(
    policies: &Arc<PolicySet>,
    masks: &Masks,
    mut situation: Situation,
    interaction: &Interaction,
    circumstances: &Circumstances,
) -> Result<Permit, Denial> {
    if policies.needs_fhir_user(&situation.who.roles) && situation.lacks_fhir_user() {
        return Err(Denial::FhirUserMissing);
    }
    if let Interaction::Operation(operation) = interaction {
        situation.operation = super::operations::name(operation);
    }
    let granted = circumstances.emergencies.iter();
    let granted = granted.filter(|(patient, _)| super::emergency::counts_for(interaction, patient));
    situation.emergencies = granted.map(|(patient, grant)| (patient.clone(), grant.clone())).collect();
    let (left, patient) = (situation.who.client_scopes.as_deref(), situation.who.launch_patient.as_deref());
    let narrowing = Narrowing::read(&situation.who.scopes, left, patient)?;
    let desk = Desk::new(Arc::clone(policies), masks.clone(), situation);
    let door = Door { desk: Arc::new(desk), narrowing: Arc::new(narrowing) };
    match interaction {
        Interaction::Read { resource, id, .. } => door.one(Action::Read, *resource, id.as_str(), None),
        Interaction::Vread { resource, id, version, .. } => {
            door.one(Action::Vread, *resource, id.as_str(), Some(version.as_str()))
        }
        Interaction::History(history) => door.history(history),
        Interaction::Search(search) => door.search(search),
        Interaction::Create { resource, if_none_exist } => {
            door.write(Action::Create, *resource, None, if_none_exist.as_ref())
        }
        Interaction::Update { resource, target } => door.write_to(Action::Update, *resource, target),
        Interaction::Patch { resource, target, .. } => door.write_to(Action::Patch, *resource, target),
        Interaction::Delete { resource, target } => door.write_to(Action::Delete, *resource, target),
        Interaction::Operation(operation) => door.operation(operation),
        Interaction::SearchMany { .. }
        | Interaction::NextPage { .. }
        | Interaction::Bundle
        | Interaction::ExportStatus { .. }
        | Interaction::ExportCancel { .. }
        | Interaction::ExportFile { .. }
        | Interaction::Capabilities
        | Interaction::SmartConfiguration => Err(Denial::NothingToDecide),
    }
}

/// One caller at the door.
pub(super) struct Door {
    pub desk: Arc<Desk>,
    pub narrowing: Arc<Narrowing>,
}

impl Door {
    fn one(
        &self,
        action: Action,
        resource: ResourceType,
        id: &str,
        version: Option<&str>,
    ) -> Result<Permit, Denial> {
        let view = self.open(action, 'r', resource)?;
        let (id, version) = (id.to_owned(), version.map(str::to_owned));
        let wanted = Wanted::One { resource, id, version, reads: BTreeSet::new() };
        self.permit(action, action, wanted, Some(&view))
    }

    fn search(&self, search: &Search) -> Result<Permit, Denial> {
        let resource = search.resource_type();
        let view = self.open(Action::Search, 's', resource)?;
        let reads = self.rows(search, &view)?;
        let membership = membership(search, &view)?;
        let wanted = Wanted::Rows { resource: Some(resource), reads };
        let permit = self.permit(Action::Search, Action::Search, wanted, Some(&view))?;
        Ok(Permit { membership, letter: 's', ..permit })
    }

    fn write_to(&self, action: Action, resource: ResourceType, target: &Target) -> Result<Permit, Denial> {
        match target {
            Target::Id(id) => self.write(action, resource, Some(id.as_str()), None),
            Target::Match(search) => self.write(action, resource, None, Some(search)),
        }
    }

    /// A write, with the search that decides which record it is for, or whether there is one: its criteria read
    /// what a search by them would (T-066 to T-069, KF-35).
    fn write(
        &self,
        action: Action,
        resource: ResourceType,
        target: Option<&str>,
        criteria: Option<&Search>,
    ) -> Result<Permit, Denial> {
        let letter = match action {
            Action::Create => 'c',
            Action::Delete => 'd',
            _ => 'u',
        };
        let view = self.open(action, letter, resource)?;
        if criteria.is_some_and(|search| search.resource_type() != resource) {
            return Err(Denial::TypeNotPermitted { resource });
        }
        let matching = criteria.map(|search| self.search(search)).transpose()?.map(Box::new);
        let may_create = match action {
            Action::Create => true,
            Action::Update => {
                let creates = self.desk.view(Action::Create, resource)?;
                creates.is_open() && self.narrowing.allows(resource, 'c')
            }
            _ => false,
        };
        let readable = self.narrowing.allows(resource, 'r');
        let target = target.map(str::to_owned);
        let wanted = Wanted::Output { resource, reads: Reads::new(), readable, target };
        Ok(Permit { matching, may_create, ..self.permit(action, Action::Read, wanted, Some(&view))? })
    }

    /// The permit, with nothing special about it. `view`: of the action, where there is one type.
    pub(super) fn permit(
        &self,
        action: Action,
        shown_by: Action,
        wanted: Wanted,
        view: Option<&TypeView>,
    ) -> Result<Permit, Denial> {
        let mut permit = Permit {
            desk: Arc::clone(&self.desk),
            narrowing: Arc::clone(&self.narrowing),
            action,
            shown_by,
            letter: 'r',
            wanted,
            basis: None,
            policies: view.map_or_else(|| Arc::from([]), |view| Arc::clone(&view.policies)),
            settled: view.is_some_and(|view| view.settled),
            show: nothing(None)?,
            modify: nothing(None)?,
            matching: None,
            membership: Vec::new(),
            may_create: false,
            hidden: Hidden::of(&self.desk, &self.narrowing)?,
            known: None,
        };
        if let Some(resource) = permit.resource_type() {
            let shown = self.desk.view(shown_by, resource)?;
            permit.settled &= shown.settled;
            permit.show = Arc::clone(&shown.possible);
            permit.modify = match view.filter(|_| action.elements() == Some(Action::Modify)) {
                Some(view) => Arc::clone(&view.possible),
                None => nothing(Some(resource))?,
            };
        }
        Ok(permit)
    }

    /// The type itself: its scope, then policy.
    pub(super) fn open(
        &self,
        action: Action,
        letter: char,
        resource: ResourceType,
    ) -> Result<Arc<TypeView>, Denial> {
        if !self.narrowing.allows(resource, letter) {
            return Err(Denial::ScopeInsufficient { resource });
        }
        let view = self.desk.view(action, resource)?;
        if view.is_open() { Ok(view) } else { Err(Denial::TypeNotPermitted { resource }) }
    }

    /// What each row must disclose, by type. An element that no row could disclose is refused here.
    pub(super) fn rows(&self, search: &Search, view: &TypeView) -> Result<Reads, Denial> {
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
        if !self.narrowing.allows_every(resource, 's') || self.narrowing.patient().is_some() {
            return Ok(false);
        }
        let view = self.desk.view(Action::Search, resource)?;
        Ok(view.verdict == Verdict::Yes && covers(&view.definite, reads))
    }

    /// The referring element must be visible, also where the referring record is itself one that an include adds
    /// (`:iterate`), and at least one type that may be added must be open; rows of the others are withheld one by
    /// one.
    fn include(&self, include: &Include, reads: &mut Reads) -> Result<(), Denial> {
        let source = self.open(Action::Search, 's', include.source())?;
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
            match self.open(Action::Search, 's', *target) {
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

/// The elements by which a record may be in the compartment searched and which some record discloses. Being in the
/// answer tells that one of them names the owner, so without any the compartment says what is withheld.
fn membership(search: &Search, view: &TypeView) -> Result<Vec<ElementPath>, Denial> {
    let Some(compartment) = search.compartment() else { return Ok(Vec::new()) };
    let owner = compartment.owner();
    let paths = r4::compartment(owner, search.resource_type()).unwrap_or_default();
    let seen = |path: &ElementPath| {
        let reference = ElementPath::parse(&format!("{path}.reference"));
        view.possible.covers(path) || reference.is_ok_and(|reference| view.possible.covers(&reference))
    };
    let paths: Vec<ElementPath> =
        paths.iter().filter_map(|path| ElementPath::parse(path).ok()).filter(seen).collect();
    if paths.is_empty() {
        return Err(Denial::CriterionWithheld { parameter: owner.name().to_owned() });
    }
    Ok(paths)
}

pub(super) fn covers(mask: &Mask, reads: &[ElementPath]) -> bool {
    !reads.is_empty() && reads.iter().all(|path| mask.covers(path))
}

/// The mask that lets nothing pass; of any type where none is meant.
fn nothing(resource: Option<ResourceType>) -> Result<Arc<Mask>, Denial> {
    static NOTHING: LazyLock<BTreeMap<ResourceType, Arc<Mask>>> = LazyLock::new(|| {
        ResourceType::all().map(|resource| (resource, Arc::new(Mask::new(resource, [])))).collect()
    });
    let mask = match resource {
        Some(resource) => NOTHING.get(&resource),
        None => NOTHING.values().next(),
    };
    mask.cloned().ok_or(Denial::NothingToDecide)
}
