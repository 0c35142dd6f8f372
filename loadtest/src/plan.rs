//! What is asked: the kinds of request, by whom, and what must be true of the answers.
//!
//! Owns: the workloads and the callers' tokens.
//! Must never: ask for anything that the gate would refuse: every refusal here is a miss.
//! Look next: `load`, which asks; `baseline`, which chooses the order.

use chartgate_sandbox::charts;
use chartgate_sandbox::emr::Emr;
use chartgate_sandbox::issuer::Issuer;
use clap::ValueEnum;
use http::HeaderValue;
use serde_json::{Value, json};
use std::ops::RangeInclusive;

/// Patients in the crowd; all of them together are a Bundle of about 1 MB.
const PATIENTS: u32 = 500;
/// Patients with observations, so many each that they are a Bundle of about 100 KB.
const CHARTED: u32 = 16;
const OBSERVATIONS: u32 = 141;
/// As many patients again, with so many each that they are a Bundle of about 50 KB.
const PAGED: u32 = 70;
/// Different people who ask; each connection is one of them.
const CALLERS: usize = 64;
/// In every record of the crowd's patients, and withheld from nurses.
const CANARY: &[u8] = b"@beispiel.example";

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One patient, of whom a nurse sees a part
    #[value(name = "2kb")]
    Read,
    /// Half as many vital signs of one patient, of which a nurse sees everything
    #[value(name = "50kb")]
    Page,
    /// All vital signs of one patient, of which a nurse sees everything
    #[value(name = "100kb")]
    Chart,
    /// Many patients, of each of whom a nurse sees a part
    #[value(name = "1mb")]
    Ward,
}

impl Workload {
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Page, Self::Chart, Self::Ward];

    /// What the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read 2 KB",
            Self::Page => "search 50 KB",
            Self::Chart => "search 100 KB",
            Self::Ward => "search 1 MB",
        }
    }

    /// The requests in turn, as paths.
    pub(crate) fn paths(self) -> Vec<String> {
        match self {
            Self::Read => (100..164).map(|n| format!("/fhir/Patient/c{n}")).collect(),
            Self::Page => observations(CHARTED + 1..=2 * CHARTED, PAGED),
            Self::Chart => observations(1..=CHARTED, OBSERVATIONS),
            Self::Ward => vec![format!("/fhir/Patient?gender=unknown&_count={PATIENTS}")],
        }
    }

    fn records(self) -> Option<usize> {
        let records = match self {
            Self::Read => return None,
            Self::Page => PAGED,
            Self::Chart => OBSERVATIONS,
            Self::Ward => PATIENTS,
        };
        usize::try_from(records).ok()
    }

    /// Whether the gate's answer is complete and holds nothing that is withheld.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(self, body: &[u8]) -> Result<(), String> {
        let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if body.windows(CANARY.len()).any(|part| part == CANARY) {
            return Err("a withheld e-mail address crossed".to_owned());
        }
        let entries = value.get("entry").and_then(Value::as_array).map(Vec::len);
        if entries != self.records() {
            return Err(format!("{entries:?} records came instead of {:?}", self.records()));
        }
        Ok(())
    }
}

/// Searches for so many observations of each of these patients.
fn observations(patients: RangeInclusive<u32>, count: u32) -> Vec<String> {
    patients.map(|n| format!("/fhir/Observation?patient=Patient/c{n}&_count={count}")).collect()
}

/// Fills the EMR with what the workloads ask for.
///
/// # Errors
/// When the sandbox does not take its own records.
pub(crate) fn fill(emr: &Emr) -> Result<(), String> {
    // Those who come first are replaced by themselves, with more observations.
    for (patients, observations) in [(PATIENTS, 0), (2 * CHARTED, PAGED), (CHARTED, OBSERVATIONS)] {
        charts::load_crowd(emr, patients, observations).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// `Authorization` of nurses with sessions of their own.
///
/// # Errors
/// When the issuer cannot sign.
pub(crate) fn callers(issuer: &Issuer) -> Result<Vec<HeaderValue>, String> {
    let one = |number: usize| {
        let subject = json!(format!("nurse-{number}"));
        let token = issuer.token_with("nurse", |claims| {
            if let Some(claims) = claims.as_object_mut() {
                claims.insert("sub".to_owned(), subject);
            }
        });
        let token = token.map_err(|error| error.to_string())?;
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| error.to_string())
    };
    (0..CALLERS).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let bundle = |records: u32, inside: &str| {
            let entries: Vec<Value> = (0..records).map(|_| json!({ "resource": inside })).collect();
            json!({ "entry": entries }).to_string()
        };
        let cases = [
            (Workload::Read, r#"{"id":"c1"}"#.to_owned(), true),
            (Workload::Read, r#"{"value":"crowd1@beispiel.example"}"#.to_owned(), false),
            (Workload::Read, "{".to_owned(), false),
            (Workload::Page, bundle(PAGED, "x"), true),
            (Workload::Page, bundle(OBSERVATIONS, "x"), false),
            (Workload::Chart, bundle(OBSERVATIONS, "x"), true),
            (Workload::Chart, bundle(OBSERVATIONS - 1, "x"), false),
            (Workload::Ward, bundle(PATIENTS, "x"), true),
            (Workload::Ward, bundle(PATIENTS, "crowd1@beispiel.example"), false),
            (Workload::Ward, "{}".to_owned(), false),
        ];
        for (workload, body, good) in cases {
            assert_eq!(workload.check(body.as_bytes()).is_ok(), good, "{workload:?}");
        }
    }

    #[test]
    fn sizes_are_what_the_names_say() {
        let emr = Emr::new();
        fill(&emr).unwrap();
        // An entry's `fullUrl` and `search` take some 120 bytes.
        let size = |name: &str, id: &str| emr.read(name, id).unwrap().len();
        let bundle = |record: usize, records: u32| (record + 120) * records as usize;
        assert!((1_800..2_300).contains(&size("Patient", "c100")));
        assert!((46_000..54_000).contains(&bundle(size("Observation", "c17-o1"), PAGED)));
        assert!(emr.read("Observation", &format!("c17-o{}", PAGED + 1)).is_none(), "a page has no next one");
        assert!((92_000..108_000).contains(&bundle(size("Observation", "c1-o1"), OBSERVATIONS)));
        assert!((920_000..1_080_000).contains(&bundle(size("Patient", "c100"), PATIENTS)));
    }
}
