//! How a caller stands to a patient, and what the EMR's records prove of it.
//!
//! Owns: the closed list of relations that policies may ask for (`context.relations`), and what is known of them for
//! the patients of one answer. Nothing known is no relation. Must never: take a record's word for more than it says,
//! or ask anybody; records and the time are arguments.
//! Look next: `evidence`, the rules of proof; `situation`, which weighs the patients of a record together.

mod evidence;
#[cfg(test)]
mod tests;

pub use evidence::{Evidence, Party, Windows};
pub(super) use evidence::{local, span};

use super::consent::Directives;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One way to stand to a patient. Policies name it by [`Relation::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// The caller is the patient (`fhirUser`).
    Own,
    /// The token was issued for this patient's chart (SMART App Launch, `patient`).
    Launch,
    /// The caller is a RelatedPerson of the patient.
    RelatedPerson,
    /// An active CareTeam of the patient has the caller as a member.
    CareTeam,
    /// The caller takes part in an Encounter of the patient that is under way, planned about now or lately over.
    Encounter,
    /// The caller has an Appointment with the patient about now.
    Appointment,
    /// The caller works for the organisation that manages the patient or provides a present Encounter.
    Organization,
    /// The patient names the caller as general practitioner.
    GeneralPractitioner,
    /// No active Consent of the patient denies this record to the caller.
    NoObjection,
    /// The same, and one permits it.
    Consent,
}

impl Relation {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::Own,
        Self::Launch,
        Self::RelatedPerson,
        Self::CareTeam,
        Self::Encounter,
        Self::Appointment,
        Self::Organization,
        Self::GeneralPractitioner,
        Self::NoObjection,
        Self::Consent,
    ];

    /// The word in policies and audit records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "self",
            Self::Launch => "launch",
            Self::RelatedPerson => "related-person",
            Self::CareTeam => "care-team",
            Self::Encounter => "encounter",
            Self::Appointment => "appointment",
            Self::Organization => "organization",
            Self::GeneralPractitioner => "general-practitioner",
            Self::NoObjection => "no-objection",
            Self::Consent => "consent",
        }
    }

    /// Its bit in [`Held`].
    fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The bits of those that hold where it holds.
    fn bits(self) -> u16 {
        match self {
            Self::Consent => Self::Consent.bit() | Self::NoObjection.bit(),
            other => other.bit(),
        }
    }

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|relation| relation.name() == name)
    }

    /// Whether it takes the token's `fhirUser` to know. Launch is in the claim `patient`; what a patient laid down binds
    /// whoever asks.
    #[must_use]
    pub fn needs_fhir_user(self) -> bool {
        !matches!(self, Self::Launch | Self::NoObjection | Self::Consent)
    }

    /// Whether the EMR has to be asked; the others are in the token.
    #[must_use]
    pub fn is_looked_up(self) -> bool {
        self.lookup().is_some()
    }

    /// The lookup by which it is known: both that come of Consents are known by one.
    #[must_use]
    pub fn lookup(self) -> Option<Self> {
        match self {
            Self::Own | Self::Launch => None,
            Self::NoObjection => Some(Self::Consent),
            other => Some(other),
        }
    }
}

/// Some relations. Two are equal exactly if they are the same relations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Held(u16);

const _: () = assert!(Relation::ALL.len() <= u16::BITS as usize, "a relation has a bit");

impl Held {
    /// One bit for each relation.
    pub(super) fn bits(self) -> u16 {
        self.0
    }

    /// Whether it is among them.
    pub(super) fn has(self, relation: Relation) -> bool {
        self.0 & relation.bit() != 0
    }

    /// Those that are among both.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// These and one more, if there is one.
    pub(super) fn with(self, more: Option<Relation>) -> Self {
        Self(self.0 | more.map_or(0, Relation::bits))
    }

    /// Their names.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        Relation::ALL.into_iter().filter(move |relation| self.has(*relation)).map(Relation::name)
    }
}

impl FromIterator<Relation> for Held {
    fn from_iter<I: IntoIterator<Item = Relation>>(relations: I) -> Self {
        Self(relations.into_iter().fold(0, |bits, relation| bits | relation.bits()))
    }
}

/// What is known, for the patients of one answer. A patient who is not in it stands in no relation.
#[derive(Clone, Default)]
pub struct Relations {
    held: BTreeMap<String, Held>,
    consents: Option<Consents>,
}

/// What patients laid down, to be weighed for each record.
#[derive(Clone)]
struct Consents {
    of: BTreeMap<String, Arc<Directives>>,
    /// The caller with the roles in which they act, if these are known.
    party: Option<Party>,
    at: Timestamp,
}

impl Relations {
    /// Nothing is known.
    #[must_use]
    pub const fn none() -> Self {
        Self { held: BTreeMap::new(), consents: None }
    }

    /// Notes that a relation to this patient (a logical id) holds.
    pub fn note(&mut self, patient: &str, relation: Relation) {
        self.held.entry(patient.to_owned()).or_default().0 |= relation.bits();
    }

    /// Takes on the active Consents of patients (by logical id), none where they have none: who is not among them may
    /// have laid down anything. `party`: the caller with the roles in which they act, if these are known. `at`: now.
    pub fn directed(&mut self, of: BTreeMap<String, Arc<Directives>>, party: Option<Party>, at: Timestamp) {
        self.consents = Some(Consents { of, party, at });
    }

    /// The relations to this patient that the EMR was asked for and that are known to hold, whatever the record is.
    pub(super) fn looked_up(&self, patient: &str) -> Held {
        let known = self.held.get(patient).copied().unwrap_or_default();
        Held(known.0 & !(Relation::Own.bit() | Relation::Launch.bit()))
    }

    /// What this patient laid down, if it is known; with the caller and the time that it was asked for.
    pub(super) fn laid_down(&self, patient: &str) -> Option<(&Directives, Option<&Party>, Timestamp)> {
        let consents = self.consents.as_ref()?;
        Some((consents.of.get(patient)?, consents.party.as_ref(), consents.at))
    }

    /// Whether a relation to this patient is known to hold, whatever the record is.
    #[must_use]
    pub fn holds(&self, patient: &str, relation: Relation) -> bool {
        self.held.get(patient).is_some_and(|known| known.has(relation))
    }
}

/// Who treats whom is patient data.
impl fmt::Debug for Relations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relations({} patients)", self.held.len())
    }
}
