//! Answers of a chosen size: a page of device readings, each of as many components as it takes.
//!
//! Owns: how many records a page of so many bytes has, and their bytes.
//! Must never: hold anything about a real person, or depend on chance.
//! Look next: `ground`; `hospital`, the charts of scenarios.

use crate::canary::NOTE;
use crate::scenario::Role;
use chartgate_sandbox::emr::Emr;
use serde_json::{Value, json};

/// Records on the largest page that can be asked for.
const RECORDS_MAX: u64 = 1_000;
/// What a record has on a page of up to a megabyte.
const RECORD_BYTES: u64 = 1_000;
/// Address and search mode of an entry.
const ENTRY_BYTES: u64 = 125;
/// Patients of whom such pages are asked for, where there is room for more than one.
const PATIENTS: u32 = 8;
/// An upstream with a larger page than this holds one.
const SHARED_BYTES_MAX: u64 = 1_000_000;

/// Who asks what, of how many patients. A researcher has something withheld in each record: the filter writes all anew.
pub(super) fn question(bytes: u64) -> (Role, String, u32) {
    let patients = if bytes > SHARED_BYTES_MAX { 1 } else { PATIENTS };
    let target = format!("/Observation?patient=Patient/{{patient}}&_count={}", records(bytes));
    (Role::Researcher, target, patients)
}

/// Fills the EMR with a page of so many bytes for each patient.
///
/// # Errors
/// When the sandbox does not take its own records.
pub(super) fn fill(emr: &Emr, bytes: u64) -> Result<(), String> {
    let (_, _, patients) = question(bytes);
    for patient in 1..=patients {
        for number in 1..=records(bytes) {
            emr.put(&reading(patient, number, bytes / records(bytes))).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn records(bytes: u64) -> u64 {
    (bytes / RECORD_BYTES).clamp(1, RECORDS_MAX)
}

/// A record that makes an entry of about so many bytes.
fn reading(patient: u32, number: u64, bytes: u64) -> Vec<u8> {
    let coded = |system: &str, code: &str, display: &str| json!({ "coding": [{ "system": system, "code": code, "display": display }] });
    let component = json!({
        "code": coded("http://loinc.org", "8867-4", "Heart rate"),
        "valueQuantity": { "value": 60 + number % 40, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min" },
    });
    let record = |components: u64| {
        let components: Vec<Value> = (0..components).map(|_| component.clone()).collect();
        let mut record = json!({
            "resourceType": "Observation",
            "id": format!("c{patient}-r{number}"),
            "meta": { "versionId": "1", "lastUpdated": "2026-01-15T08:30:00.000Z" },
            "status": "final",
            "code": coded("http://loinc.org", "85353-1", "Vital signs panel"),
            "subject": { "reference": format!("Patient/c{patient}") },
            "effectiveDateTime": format!("2026-01-{:02}T08:00:00Z", number % 28 + 1),
            "note": [{ "text": format!("{NOTE}{number}: typed by somebody") }],
        });
        if let (Some(record), false) = (record.as_object_mut(), components.is_empty()) {
            record.insert("component".to_owned(), components.into());
        }
        record.to_string().into_bytes()
    };
    let size = |text: &[u8]| text.len() as u64;
    let each = size(component.to_string().as_bytes()) + 1;
    let left = bytes.saturating_sub(ENTRY_BYTES + size(&record(0)));
    record(left / each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_about_as_large_as_was_asked_for() {
        for bytes in [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 80_000_000, 100_000_000] {
            let record = reading(1, 7, bytes / records(bytes));
            let page = (record.len() as u64 + ENTRY_BYTES) * records(bytes);
            assert!(page.abs_diff(bytes) <= bytes / 4, "{page} of {bytes}");
            assert!(bytes < 1_000_000 || page.abs_diff(bytes) <= bytes / 5, "{page} of {bytes}");
            assert!(String::from_utf8(record).unwrap().contains(NOTE));
        }
        let emr = Emr::new();
        fill(&emr, 10_000).unwrap();
        assert_eq!(emr.ids("Observation").len(), 10 * PATIENTS as usize);
    }
}
