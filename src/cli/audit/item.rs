//! One record for a program that follows the trail: told when it is written, not when its request has ended.
//!
//! Owns: what such an item holds, with patients and without.
//! Must never: say of an answer that is under way how it ended; let through, where patients are left out, a field that could name one.
//! Look next: `page`, whose fields these are; the member `auditforward`, which sends them.

use serde_json::{Map, Value, json};

use super::page::as_json;
use super::told::Told;
use crate::domain::audit::{Record, Verdict};

/// What a record says without naming a patient; anything else is left out. Not here: `request` and `details`, which may hold
/// patients' ids in any form.
const WITHOUT_PATIENTS: &[&str] = &[
    "sequence",
    "time",
    "requestId",
    "issuer",
    "subject",
    "interaction",
    "decision",
    "reason",
    "policies",
    "outcome",
    "kind",
    "entry",
    "unit",
    "session",
    "tokenHash",
    "application",
    "roles",
    "clientKind",
    "binding",
    "actors",
    "purposes",
    "source",
    "policySet",
    "policyEpoch",
    "basis",
    "emergencies",
    "withheld",
    "status",
    "sentBytes",
    "event",
];

/// The object `audit search --json` prints of a record, but for how its request ended: of a release and an intent `outcome` is
/// null, and the trail's `outcome` records are items of their own, with the same `requestId`.
///
/// With `patients` false, records released and written are named by their type alone, and request lines and the details of
/// control records are left out.
#[must_use]
pub fn item(sequence: u64, record: &Record, patients: bool) -> Value {
    let mut item = as_json(sequence, record, &Told::default());
    let Value::Object(object) = &mut item else { return item };
    let is_open = match record {
        Record::Intent(_) => true,
        Record::Decision(decision) => decision.verdict == Verdict::Permit,
        Record::Outcome(_) | Record::Control(_) => false,
    };
    if is_open {
        object.insert("outcome".to_owned(), Value::Null);
        object.remove("outcomeTime");
        object.remove("sentBytes");
    }
    if !patients {
        leave_patients_out(object);
    }
    item
}

fn leave_patients_out(object: &mut Map<String, Value>) {
    for list in ["released", "written"] {
        if let Some(Value::Array(items)) = object.get(list) {
            let types = items.iter().map(|item| json!({"type": type_of(item), "mask": item.get("mask")}));
            let types = types.collect();
            object.insert(list.to_owned(), Value::Array(types));
        }
    }
    object.retain(|name, _| {
        WITHOUT_PATIENTS.contains(&name.as_str()) || name == "released" || name == "written"
    });
}

/// The part of a reference before its id.
fn type_of(item: &Value) -> &str {
    let reference = item.get("reference").and_then(Value::as_str).unwrap_or_default();
    reference.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::domain::audit::{Control, Decision, Ending, Event, Outcome, Released, Written};

    const PATIENT: &str = "zaphod-7";

    fn decision(verdict: Verdict) -> Decision {
        let mut decision = Decision::new(Timestamp::UNIX_EPOCH, "r1".to_owned(), verdict);
        decision.request = format!("GET Observation?patient={PATIENT}");
        let mask = Arc::new(vec!["Observation.code".to_owned()]);
        decision.released = vec![Released {
            reference: format!("Observation/{PATIENT}-o1"),
            version: Some(format!("v-{PATIENT}")),
            patients: BTreeSet::from([PATIENT.to_owned()]),
            mask: Arc::clone(&mask),
        }];
        decision.written = vec![Written {
            reference: format!("Patient/{PATIENT}"),
            version: None,
            patients: BTreeSet::from([PATIENT.to_owned()]),
            mask,
        }];
        decision
    }

    fn records() -> Vec<Record> {
        let details = BTreeMap::from([("filter patient".to_owned(), PATIENT.to_owned())]);
        vec![
            Record::Decision(Box::new(decision(Verdict::Permit))),
            Record::Decision(Box::new(decision(Verdict::Refuse))),
            Record::Intent(Box::new(decision(Verdict::Permit))),
            Record::Control(Control { time: Timestamp::UNIX_EPOCH, event: Event::TrailRead, details }),
        ]
    }

    #[test]
    fn what_is_under_way_has_no_outcome_yet() {
        let outcomes: Vec<Value> =
            records().iter().map(|record| item(1, record, true)["outcome"].clone()).collect();
        assert_eq!(outcomes, [Value::Null, json!("refused"), Value::Null, Value::Null]);
        let ended = Record::Outcome(Outcome {
            time: Timestamp::UNIX_EPOCH,
            request_id: "r1".to_owned(),
            entry: None,
            ending: Ending::CutOff,
            sent_bytes: Some(9),
        });
        let ended = item(2, &ended, false);
        assert_eq!(
            (&ended["outcome"], &ended["sentBytes"], &ended["requestId"]),
            (&json!("cut-off"), &json!(9), &json!("r1"))
        );
    }

    #[test]
    fn no_patient_is_named_where_they_are_left_out() {
        for record in records() {
            assert!(item(1, &record, true).to_string().contains(PATIENT));
            let without = item(1, &record, false);
            assert!(!without.to_string().contains(PATIENT), "{without}");
            assert_eq!(without["sequence"], 1);
        }
        let without = item(1, &records()[0], false);
        assert_eq!(without["released"], json!([{"type": "Observation", "mask": ["Observation.code"]}]));
        assert_eq!(without["written"][0]["type"], "Patient");
    }
}
