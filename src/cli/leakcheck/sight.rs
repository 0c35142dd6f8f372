//! What a role may see of a record, by the policies themselves.
//!
//! Owns: asking `access` about each record, at any depth, as the gate would. Must never: ask the gate, whose answers are
//! what is checked; decide anything itself beyond the launch patient's rule.
//! Look next: `twin`, which changes what is not seen.

use crate::domain::access::{PolicySet, Situation, rehearse_record, rehearse_type};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{ElementPath, ResourceType, patient_compartment};
use crate::domain::fhir::texts::Texts;
use crate::domain::filter::{self, Bases, References};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who asks: a role and what its tokens say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The role's name in the policies.
    pub name: String,
    /// HL7 PurposeOfUse code.
    pub purpose: String,
    /// The `fhirUser` claim, `Type/id`.
    pub fhir_user: Option<String>,
    /// The launch patient; with one, only records of this patient are seen.
    pub patient: Option<String>,
}

type Basis = (ResourceType, Texts, Texts, Texts, Texts, Option<String>);

/// A role that looks at records.
pub(super) struct Sight {
    policies: Arc<PolicySet>,
    situation: Situation,
    patient: Option<String>,
    references: References,
    open: BTreeSet<ResourceType>,
    known: RefCell<BTreeMap<Basis, Option<Arc<Mask>>>>,
}

/// What is seen of one record and of those inside it.
pub(super) struct View {
    /// One mask for each record, containers first, in the order of the text; an empty one withholds.
    pub(super) masks: Vec<Arc<Mask>>,
}

impl View {
    /// Something of the record is seen.
    pub(super) fn is_shown(&self) -> bool {
        self.masks.first().is_some_and(|mask| !mask.is_empty())
    }

    /// The same elements of the same records are seen.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let kept = |view: &Self| view.masks.iter().map(|mask| mask.kept()).collect::<Vec<_>>();
        self.masks.len() == other.masks.len() && kept(self) == kept(other)
    }
}

impl Sight {
    pub(super) fn new(policies: &Arc<PolicySet>, role: &Role) -> Result<Self, String> {
        let mut situation = Situation::rehearsal(&[&role.name], &role.purpose);
        if let Some(user) = &role.fhir_user {
            situation = situation.with_fhir_user(user);
        }
        let mut open = BTreeSet::new();
        for resource in ResourceType::all() {
            let rehearsal =
                rehearse_type(policies, &situation, resource).map_err(|denial| denial.to_string())?;
            if rehearsal.open {
                open.insert(resource);
            }
        }
        let references = hidden(policies, &situation);
        let patient = role.patient.clone();
        let known = RefCell::default();
        Ok(Self { policies: Arc::clone(policies), situation, patient, references, open, known })
    }

    /// Types of which some record may be seen.
    pub(super) fn open_types(&self) -> &BTreeSet<ResourceType> {
        &self.open
    }

    /// What references must not tell.
    pub(super) fn references(&self) -> &References {
        &self.references
    }

    /// `None` when this is no record that the gate could release.
    pub(super) fn look(&self, text: &[u8]) -> Option<View> {
        let bases = Bases { upstream: &[], public: "https://leakcheck.invalid/fhir" };
        let document = filter::parse(text, &bases).ok()?;
        let records = document.records();
        let facts = |record: &filter::Record| match record.container.and_then(|at| records.get(at)) {
            None => record.facts.clone(),
            Some(container) => inside(&record.facts, &container.facts),
        };
        let masks = records.iter().map(|record| {
            let facts = facts(record);
            self.mask(&facts).unwrap_or_else(|| Arc::new(Mask::new(facts.resource_type, [])))
        });
        Some(View { masks: masks.collect() })
    }

    fn mask(&self, facts: &Facts) -> Option<Arc<Mask>> {
        if !self.open.contains(&facts.resource_type) || !self.within_launch(facts) {
            return None;
        }
        let basis = (
            facts.resource_type,
            facts.labels.clone(),
            facts.patients.clone(),
            facts.category.clone(),
            facts.code.clone(),
            facts.status.clone(),
        );
        if let Some(mask) = self.known.borrow().get(&basis) {
            return mask.clone();
        }
        let found = rehearse_record(&self.policies, &self.situation, facts).ok();
        let mask = found.map(|disclosure| Arc::clone(disclosure.mask()));
        self.known.borrow_mut().insert(basis, mask.clone());
        mask
    }

    /// As `access::permit` has it for `patient/` scopes.
    fn within_launch(&self, facts: &Facts) -> bool {
        let Some(patient) = &self.patient else { return true };
        let only = |ids: &BTreeSet<String>| ids.iter().all(|id| id == patient);
        let belongs =
            facts.resource_type.name() == "Patient" || !patient_compartment(facts.resource_type).is_empty();
        only(&facts.patients) && if belongs { !facts.patients.is_empty() } else { only(&facts.mentions) }
    }
}

/// A contained record is its container's patient's, and as sensitive; its id means nothing outside.
fn inside(facts: &Facts, container: &Facts) -> Facts {
    let mut facts = facts.clone();
    facts.id = None;
    facts.patients.join(&container.patients);
    facts.mentions.join(&container.mentions);
    facts.labels.join(&container.labels);
    facts
}

/// As `access::permit` has it: names and identifiers of patients, and of those who stand for one, where the role may
/// not see a Patient's.
fn hidden(policies: &Arc<PolicySet>, situation: &Situation) -> References {
    let patient = ResourceType::from_name("Patient");
    let view = patient.and_then(|patient| rehearse_type(policies, situation, patient).ok());
    let unless_shown = |path: &str| {
        let shows = view.as_ref().is_some_and(|view| {
            view.open && ElementPath::parse(path).is_ok_and(|path| view.possible.covers(&path))
        });
        let people = ["Patient", "RelatedPerson", "Person"].into_iter().filter(|_| !shows);
        people.filter_map(ResourceType::from_name).collect()
    };
    References {
        hide_display: unless_shown("Patient.name"),
        hide_identifier: unless_shown("Patient.identifier"),
    }
}
