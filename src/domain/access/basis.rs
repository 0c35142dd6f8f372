//! What a decision rested on: the relations and the emergency that the policies behind it asked about.
//!
//! Owns: what each policy asks about how the caller stands to a patient, and which of that was so.
//! Must never: decide; an explanation that is wrong must not be able to let anything out.
//! Look next: `expression`, which reads it off the conditions; `set`, which knows the policies of a question.

use super::engine::Record;
use super::relation::Relation;
use std::collections::BTreeSet;

/// The word for emergency access among what a decision rested on.
pub(super) const EMERGENCY: &str = "emergency";

/// What one policy asks about how the caller stands to the patient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asks {
    /// Relations by name.
    pub relations: BTreeSet<String>,
    /// `context.relations` in some other form: any of them.
    pub any_relation: bool,
    /// `context.emergency`.
    pub emergency: bool,
    /// It forbids where a relation holds that only `fhirUser` can prove: without the claim it would never hold.
    pub forbids_by_fhir_user: bool,
}

impl Asks {
    /// Which of it is so for this record.
    pub(super) fn present(&self, record: &Record<'_>) -> impl Iterator<Item = String> {
        let asked = |name: &&str| self.any_relation || self.relations.contains(*name);
        let emergency = self.emergency && record.emergency;
        let relations = record.relations.names().filter(asked).map(str::to_owned);
        relations.chain(emergency.then(|| EMERGENCY.to_owned()))
    }

    /// The relations that it can depend on.
    pub(super) fn known(&self) -> BTreeSet<Relation> {
        match self.any_relation {
            true => Relation::ALL.into(),
            false => self.relations.iter().filter_map(|name| Relation::from_name(name)).collect(),
        }
    }

    /// A name that no relation has: it never holds.
    pub(super) fn unknown(&self) -> Option<&String> {
        self.relations.iter().find(|name| Relation::from_name(name).is_none())
    }
}
