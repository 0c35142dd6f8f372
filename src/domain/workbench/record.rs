//! Records that policies are tried out on: invented ones, of nobody.
//!
//! Owns: the built-in examples, and taking a record apart as an upstream answer is.
//! Must never: hold anything that could be about a person. Look next: `judge`.

use crate::domain::access::{Disclosure, RecordDenial};
use crate::domain::fhir::facts::Facts;
use crate::domain::filter::{self, Bases, Document, References, Verdict};
use std::collections::BTreeMap;

/// Records by the name that cases give them: those of the directory, before the built-in ones.
#[derive(Clone, Debug, Default)]
pub struct Records(BTreeMap<String, Vec<u8>>);

macro_rules! examples {
    ($($name:literal),* $(,)?) => {
        /// The built-in examples: name and JSON. A case may also name a file of its own.
        pub const EXAMPLES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../../policies/tests/records/", $name, ".json")))),*
        ];
    };
}

examples!(
    "active-medication",
    "advance-directive",
    "allergy",
    "appointment",
    "blood-pressure",
    "claim",
    "diagnosis",
    "discharge-letter",
    "fall-risk",
    "laboratory-result",
    "patient",
    "therapy-note",
);

/// Where the examples pretend to be stored.
const NOWHERE: Bases<'static> =
    Bases { upstream: &["https://record.invalid/fhir"], public: "https://record.invalid/fhir" };

impl Records {
    /// The built-in ones.
    #[must_use]
    pub fn built_in() -> Self {
        Self(EXAMPLES.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect())
    }

    /// One more, or another by this name.
    pub fn add(&mut self, name: &str, json: Vec<u8>) {
        self.0.insert(name.to_owned(), json);
    }

    /// By its name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

/// A record taken apart; what is wrong with it otherwise, as one line.
pub(super) fn open(json: &[u8]) -> Result<Document<'_>, String> {
    let document = filter::parse(json, &NOWHERE).map_err(|fault| format!("is no FHIR R4 record: {fault}"))?;
    match document.records().first() {
        Some(first) if first.container.is_none() => Ok(document),
        Some(_) | None => Err("is no single record".to_owned()),
    }
}

/// Whether the record goes out under these decisions, one for each record in the document.
pub(super) fn goes_out(document: &Document<'_>, decided: &[Result<Disclosure, RecordDenial>]) -> bool {
    let masks: Vec<_> = decided.iter().map(|one| one.as_ref().ok().map(|one| one.mask().clone())).collect();
    let verdicts: Vec<Verdict<'_>> = masks
        .iter()
        .map(|mask| mask.as_ref().map_or(Verdict::Withhold, |mask| Verdict::whole(mask)))
        .collect();
    if !decided.first().is_some_and(Result::is_ok) {
        return false;
    }
    let mut bytes = Vec::new();
    document
        .emit(0, &verdicts, &References::default(), &NOWHERE, &mut bytes)
        .is_ok_and(|emitted| emitted.kept)
}

/// The facts of a record that only its type is told of: what R4 demands is there, and it is about one patient.
pub(super) fn outline(mut facts: Facts, patients: &[String]) -> Facts {
    facts.id = Some("example".to_owned());
    facts.status = facts.status.or_else(|| Some("active".to_owned()));
    facts.patients = patients.iter().cloned().collect();
    facts.mentions.clone_from(&facts.patients);
    facts
}
