//! Evidence that an interaction may be asked, and the judge of each record that comes back.
//!
//! Owns: [`Permit`], made only by [`super::admit`]. Must never: release a record on anything but its own
//! full content. Look next: `masks`, where decisions are made and kept; `gateway`, which asks here.

use super::denial::{Denial, RecordDenial};
use super::engine::Record;
use super::masks::{Desk, Disclosure, TypeView};
use super::scopes::Narrowing;
use super::set::Action;
use super::situation::in_patient_compartment;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Leave to ask upstream, and the judge of every record of the answer.
#[must_use]
#[derive(Clone)]
pub struct Permit {
    pub(super) desk: Desk,
    pub(super) narrowing: Narrowing,
    pub(super) action: Action,
    pub(super) wanted: Wanted,
    pub(super) view: Arc<TypeView>,
    pub(super) hidden: Hidden,
}

/// What may stand in the answer.
#[derive(Clone)]
pub(super) enum Wanted {
    /// One record.
    One { resource: ResourceType, id: String, version: Option<String> },
    /// Rows of these types; each must disclose these elements, because the question read them.
    Rows { resource: ResourceType, reads: BTreeMap<ResourceType, BTreeSet<ElementPath>> },
}

/// Types whose names or identifiers the caller may not see, so that references must not show them either.
#[derive(Clone, Default)]
pub(super) struct Hidden {
    pub names: BTreeSet<ResourceType>,
    pub identifiers: BTreeSet<ResourceType>,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("action", &self.action)
            .field("resource", &self.resource_type().name())
            .finish_non_exhaustive()
    }
}

impl Permit {
    /// The type read or searched.
    #[must_use]
    pub fn resource_type(&self) -> ResourceType {
        match &self.wanted {
            Wanted::One { resource, .. } | Wanted::Rows { resource, .. } => *resource,
        }
    }

    /// Ids of the policies that permit the type without looking at a record, sorted; empty if all that
    /// permit it look at the record. A released record's own are in [`Disclosure::policies`].
    #[must_use]
    pub fn policies(&self) -> &[String] {
        &self.view.policies
    }

    /// The version of the policies that decided: [`super::PolicySet::hash`].
    #[must_use]
    pub fn policy_hash(&self) -> &str {
        self.desk.set.hash()
    }

    /// The purpose of use that was decided for, `NONE` if none was stated.
    #[must_use]
    pub fn purpose(&self) -> &str {
        &self.desk.situation.purpose
    }

    /// Elements of the type that some record may disclose: an upper bound for `_elements` upstream.
    #[must_use]
    pub fn type_mask(&self) -> &Arc<Mask> {
        &self.view.possible
    }

    /// Whether records may be released or withheld one by one. Then a total, or an included record whose
    /// only referrer was withheld, would tell of what is withheld, and must not be passed on.
    #[must_use]
    pub fn depends_on_records(&self) -> bool {
        let many = matches!(&self.wanted, Wanted::Rows { reads, .. } if reads.len() > 1);
        many || !self.view.settled || self.narrowing.patient().is_some()
    }

    /// The one patient whose records the token is for (SMART launch), if it is limited to one.
    #[must_use]
    pub fn launch_patient(&self) -> Option<&str> {
        self.narrowing.patient()
    }

    /// Types whose `name` the caller may not see: a reference to one must not carry `display`.
    #[must_use]
    pub fn hidden_names(&self) -> &BTreeSet<ResourceType> {
        &self.hidden.names
    }

    /// Types whose `identifier` the caller may not see: a reference to one must not carry `identifier`.
    #[must_use]
    pub fn hidden_identifiers(&self) -> &BTreeSet<ResourceType> {
        &self.hidden.identifiers
    }

    /// Decides one record on its full content. `container`: the facts of the record it is contained in, which
    /// lends it its patients and labels and speaks for whose it is.
    ///
    /// # Errors
    /// [`RecordDenial`]: the record must not leave; whoever asked learns nothing of it.
    pub fn record(&self, facts: &Facts, container: Option<&Facts>) -> Result<Disclosure, RecordDenial> {
        let resource = facts.resource_type;
        if container.is_none() && !self.asked_for(facts) {
            return Err(RecordDenial::NotAsked);
        }
        if self.lacks_status(facts) {
            return Err(RecordDenial::StatusMissing);
        }
        let situation = &self.desk.situation;
        let relations = situation.relations(container.unwrap_or(facts));
        let facts = match container {
            None => Cow::Borrowed(facts),
            Some(container) => Cow::Owned(contained(facts, container)),
        };
        if let Some(patient) = self.narrowing.patient() {
            let compartment = in_patient_compartment(container.map_or(resource, |c| c.resource_type));
            if !situation.within_launch(patient, &facts, compartment) {
                return Err(RecordDenial::OutsideLaunch);
            }
        }
        let record = Record { facts: &facts, relations: &relations };
        let disclosure = self.desk.judge(self.action, &record)?;
        match &self.wanted {
            Wanted::Rows { reads, .. } if container.is_none() => {
                let mut reads = reads.get(&resource).into_iter().flatten();
                let shown = reads.all(|path| disclosure.mask().covers(path));
                if shown { Ok(disclosure) } else { Err(RecordDenial::CriterionWithheld) }
            }
            Wanted::Rows { .. } | Wanted::One { .. } => Ok(disclosure),
        }
    }

    fn asked_for(&self, facts: &Facts) -> bool {
        match &self.wanted {
            Wanted::One { resource, id, version } => {
                let version = version.as_deref();
                facts.resource_type == *resource
                    && facts.id.as_deref() == Some(id)
                    && (version.is_none() || facts.version.as_deref() == version)
            }
            Wanted::Rows { reads, .. } => facts.id.is_some() && reads.contains_key(&facts.resource_type),
        }
    }

    fn lacks_status(&self, facts: &Facts) -> bool {
        let known = self.desk.set.vocabulary.record(facts.resource_type);
        facts.status.is_none() && known.is_none_or(|(_, has)| has.status_required)
    }
}

/// A contained record belongs to its container's patients and carries its labels. Its id is local to the
/// container, so it is no logical id that a policy could mean.
fn contained(facts: &Facts, container: &Facts) -> Facts {
    let mut facts = facts.clone();
    facts.id = None;
    facts.patients.extend(container.patients.iter().cloned());
    facts.mentions.extend(container.mentions.iter().cloned());
    facts.labels.extend(container.labels.iter().cloned());
    facts
}

impl Hidden {
    /// A reference's display and identifier tell the name and number of whoever it points at (T-046). They are
    /// hidden where the caller may not see them in Patient records: for patients, and for those who stand for
    /// one. Names of staff are no secret of the record's.
    pub(super) fn of(desk: &Desk, narrowing: &Narrowing) -> Result<Self, Denial> {
        let Some(patient) = ResourceType::from_name("Patient") else { return Ok(Self::default()) };
        let view = desk.view(Action::Read, patient)?;
        let open = view.is_open() && narrowing.allows(patient, 'r');
        let people = ["Patient", "RelatedPerson", "Person"].into_iter().filter_map(ResourceType::from_name);
        let people: BTreeSet<ResourceType> = people.collect();
        let unless_shown = |element: &str| {
            let shows = ElementPath::parse(element).is_ok_and(|path| open && view.possible.covers(&path));
            if shows { BTreeSet::new() } else { people.clone() }
        };
        Ok(Hidden { names: unless_shown("Patient.name"), identifiers: unless_shown("Patient.identifier") })
    }
}
