//! The shipped policies as six people, asked record by record.
//!
//! Owns: which mask a record gets under a role, and which names references hide, as the gate would have it.
//! Must never: decide anything itself. Decisions are remembered by what they may depend on (type, labels, whether the
//! record is the caller's own), and every so often one is asked again to see that nothing else matters.
//! Look next: `domain::access`, which decides.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chartgate::app::load_policies;
use chartgate::domain::access::{PolicySet, Situation, rehearse_record, rehearse_type};
use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::mask::Mask;
use chartgate::domain::fhir::r4::{ElementPath, ResourceType};
use chartgate::domain::fhir::texts::Texts;
use chartgate::domain::filter::{Document, References};

/// One decision in this many is asked anew although it is remembered.
const ASK_AGAIN_EVERY: usize = 61;

const ROLES: [(&str, &str); 6] = [
    ("physician", "TREAT"),
    ("nurse", "TREAT"),
    ("front-desk", "HOPERAT"),
    ("billing-clerk", "HPAYMT"),
    ("researcher", "HRESCH"),
    ("patient", "PATRQT"),
];

type Decisions = BTreeMap<(ResourceType, Texts, bool), Option<Arc<Mask>>>;

/// A shipped role.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    policies: Arc<PolicySet>,
    situation: Situation,
    references: References,
    decisions: RefCell<(Decisions, usize)>,
}

/// A role that looks, as itself or as the patient a record is about.
pub(crate) struct Sight<'r> {
    pub(crate) name: &'static str,
    pub(crate) references: References,
    role: &'r Role,
    situation: Situation,
    own: Option<String>,
}

/// The six.
pub(crate) fn shipped() -> Vec<Role> {
    let policies = load_policies(&Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")).unwrap();
    let policies = Arc::new(policies);
    let role = |(name, purpose): (&'static str, &str)| {
        let situation = Situation::rehearsal(&[name], purpose);
        let references = hidden(&policies, &situation);
        Role { name, policies: Arc::clone(&policies), situation, references, decisions: RefCell::default() }
    };
    ROLES.into_iter().map(role).collect()
}

/// As `access::permit` has it: names and identifiers of patients, and of those who stand for one, where the role may
/// not see a Patient's.
fn hidden(policies: &Arc<PolicySet>, situation: &Situation) -> References {
    let kind = |name: &str| ResourceType::from_name(name).unwrap();
    let view = rehearse_type(policies, situation, kind("Patient")).unwrap();
    let unless_shown = |path: &str| {
        let shows = view.open && view.possible.covers(&ElementPath::parse(path).unwrap());
        let people = ["Patient", "RelatedPerson", "Person"].into_iter().filter(|_| !shows);
        people.map(kind).collect()
    };
    References {
        hide_display: unless_shown("Patient.name"),
        hide_identifier: unless_shown("Patient.identifier"),
    }
}

impl Role {
    /// Somebody of this role.
    pub(crate) fn sight(&self) -> Sight<'_> {
        self.sight_of(None)
    }

    /// Somebody of this role; a patient is this one.
    pub(crate) fn sight_of(&self, patient: Option<&str>) -> Sight<'_> {
        let own = patient.filter(|_| self.name == "patient").map(str::to_owned);
        let situation = match &own {
            Some(id) => self.situation.clone().with_fhir_user(&format!("Patient/{id}")),
            None => self.situation.clone(),
        };
        Sight { name: self.name, references: self.references.clone(), role: self, situation, own }
    }
}

impl Sight<'_> {
    /// The mask of each record, `None` where it is withheld.
    pub(crate) fn masks(&self, document: &Document<'_>) -> Vec<Option<Arc<Mask>>> {
        let records = document.records();
        let facts = records.iter().map(|record| match record.container {
            None => record.facts.clone(),
            Some(container) => inside(&record.facts, &records[container].facts),
        });
        facts.map(|facts| self.mask(&facts)).collect()
    }

    fn mask(&self, facts: &Facts) -> Option<Arc<Mask>> {
        let own = self.own.as_ref().is_some_and(|own| {
            let about = facts.patients.iter().eq([own]);
            if facts.resource_type.name() == "Patient" { facts.id.as_ref() == Some(own) } else { about }
        });
        let key = (facts.resource_type, facts.labels.clone(), own);
        let (known, asked) = &mut *self.role.decisions.borrow_mut();
        *asked += 1;
        if let Some(mask) = known.get(&key) {
            if *asked % ASK_AGAIN_EVERY == 0 {
                let kept = |mask: &Option<Arc<Mask>>| mask.as_ref().map(|mask| mask.kept());
                assert_eq!(
                    kept(mask),
                    kept(&self.ask(facts)),
                    "{} {}",
                    self.name,
                    facts.resource_type.name()
                );
            }
            return mask.clone();
        }
        let mask = self.ask(facts);
        known.insert(key, mask.clone());
        mask
    }

    fn ask(&self, facts: &Facts) -> Option<Arc<Mask>> {
        let found = rehearse_record(&self.role.policies, &self.situation, facts);
        match found {
            Ok(disclosure) => Some(Arc::clone(disclosure.mask())),
            Err(denial) => {
                assert!(!denial.is_alarm(), "{}: {denial}", self.name);
                None
            }
        }
    }
}

/// A contained record is its container's patient's, and as sensitive; its id means nothing outside.
fn inside(facts: &Facts, container: &Facts) -> Facts {
    let mut facts = facts.clone();
    facts.id = None;
    facts.patients.extend(container.patients.iter().cloned());
    facts.mentions.extend(container.mentions.iter().cloned());
    facts.labels.extend(container.labels.iter().cloned());
    facts
}
