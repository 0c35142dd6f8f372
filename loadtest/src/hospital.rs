//! The charts that scenarios ask for: synthetic, and each with values that somebody must not see.
//!
//! Owns: the records of patients `c1` to `cN`, with a canary in everything that a role has withheld.
//! Must never: hold anything about a real person, or depend on chance: the same call gives the same bytes.
//! Look next: `canary`, which says what is withheld from whom.

use crate::canary::{MAIDEN, MAIL, NAME, NOTE, NUMBER, ROAD, THERAPY};
use chartgate_sandbox::emr::{Emr, LoadError};
use serde_json::{Value, json};

/// Fills the EMR with the charts of this many patients, some 80 records each.
///
/// # Errors
/// When the sandbox does not take its own records.
pub(crate) fn fill(emr: &Emr, patients: u32) -> Result<(), LoadError> {
    for number in 1..=patients {
        for record in chart(number) {
            emr.put(record.to_string().as_bytes())?;
        }
    }
    Ok(())
}

/// How many vital signs, laboratory values and doses a chart has.
const VITALS: u32 = 24;
const VALUES: u32 = 16;
const DOSES: u32 = 10;

fn chart(number: u32) -> Vec<Value> {
    let of = |count: u32, record: fn(u32, u32) -> Value| (1..=count).map(move |at| record(number, at));
    let mut records = vec![patient(number), therapy(number), coverage(number)];
    records.extend(of(2, encounter));
    records.extend(of(6, condition));
    records.extend(of(2, allergy));
    records.extend(of(1, flag));
    records.extend(of(6, order));
    records.extend(of(DOSES, dose));
    records.extend(of(VITALS, vital));
    records.extend(of(VALUES, value));
    records.extend(of(2, report));
    records.extend(of(2, procedure));
    records.extend(of(3, immunization));
    records.extend(of(1, plan));
    records.extend(of(3, claim));
    records
}

fn record(kind: &str, id: &str, labels: &[&str], body: Value) -> Value {
    let mut record = json!({
        "resourceType": kind,
        "id": id,
        "meta": { "versionId": "1", "lastUpdated": "2026-01-15T08:30:00.000Z" },
    });
    let labels: Vec<Value> = labels
        .iter()
        .map(|code| json!({ "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": code }))
        .collect();
    if let (Some(meta), false) = (record.get_mut("meta").and_then(Value::as_object_mut), labels.is_empty()) {
        meta.insert("security".to_owned(), labels.into());
    }
    if let (Some(record), Value::Object(body)) = (record.as_object_mut(), body) {
        record.extend(body);
    }
    record
}

fn whose(number: u32) -> Value {
    json!({ "reference": format!("Patient/c{number}") })
}

fn coded(system: &str, code: &str, display: &str) -> Value {
    json!({ "coding": [{ "system": system, "code": code, "display": display }] })
}

fn day(at: u32) -> String {
    format!("2026-01-{:02}", at % 28 + 1)
}

fn patient(number: u32) -> Value {
    let body = json!({
        "extension": [{
            "url": "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName",
            "valueString": format!("{MAIDEN}{number}"),
        }],
        "identifier": [{ "use": "usual", "system": "urn:example:mrn", "value": format!("{NUMBER}{number}") }],
        "active": true,
        "name": [{ "use": "official", "family": format!("{NAME}-c{number}"), "given": ["Test"] }],
        "telecom": [{ "system": "email", "value": format!("{MAIL}{number}@beispiel.example") }],
        "gender": "unknown",
        "birthDate": format!("19{:02}-03-{:02}", number % 80 + 10, number % 28 + 1),
        "address": [{ "use": "home", "line": [format!("{number} {ROAD}")], "city": "Sampletown", "state": "ZZ" }],
        "communication": [{ "language": coded("urn:ietf:bcp:47", "en", "English") }],
        "generalPractitioner": [{ "reference": "Practitioner/pr-physician" }],
    });
    record("Patient", &format!("c{number}"), &[], body)
}

/// Kept apart from the record: for the therapist who wrote it, who is none of the people here.
fn therapy(number: u32) -> Value {
    let body = json!({
        "status": "final",
        "code": coded("http://loinc.org", "11488-4", "Consult note"),
        "subject": whose(number),
        "valueString": format!("{THERAPY}{number}"),
    });
    record("Observation", &format!("c{number}-therapy"), &["PSYTHPN"], body)
}

fn coverage(number: u32) -> Value {
    let body = json!({
        "status": "active",
        "beneficiary": whose(number),
        "payor": [{ "reference": "Organization/payer" }],
    });
    record("Coverage", &format!("c{number}-cov"), &[], body)
}

fn encounter(number: u32, at: u32) -> Value {
    let body = json!({
        "status": if at == 1 { "in-progress" } else { "finished" },
        "class": { "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP" },
        "subject": whose(number),
        "period": { "start": format!("{}T08:00:00Z", day(at)) },
        "reasonCode": [{ "text": format!("{NOTE} admitted") }],
    });
    record("Encounter", &format!("c{number}-e{at}"), &[], body)
}

fn condition(number: u32, at: u32) -> Value {
    let body = json!({
        "clinicalStatus": coded("http://terminology.hl7.org/CodeSystem/condition-clinical", "active", "Active"),
        "code": coded("http://snomed.info/sct", "38341003", "Hypertensive disorder"),
        "subject": whose(number),
        "recordedDate": day(at),
        "note": [{ "text": format!("{NOTE}{at}: seen on the round, to be watched, family informed") }],
    });
    record("Condition", &format!("c{number}-c{at}"), &[], body)
}

fn allergy(number: u32, at: u32) -> Value {
    let body = json!({
        "clinicalStatus": coded(
            "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "active", "Active"
        ),
        "criticality": "high",
        "code": coded("http://snomed.info/sct", "91936005", "Allergy to penicillin"),
        "patient": whose(number),
        "note": [{ "text": format!("{NOTE} told by the patient") }],
    });
    record("AllergyIntolerance", &format!("c{number}-a{at}"), &[], body)
}

fn flag(number: u32, at: u32) -> Value {
    let body = json!({
        "status": "active",
        "code": coded("http://snomed.info/sct", "129839007", "At risk for falls"),
        "subject": whose(number),
    });
    record("Flag", &format!("c{number}-f{at}"), &[], body)
}

fn order(number: u32, at: u32) -> Value {
    let body = json!({
        "status": if at.is_multiple_of(3) { "stopped" } else { "active" },
        "intent": "order",
        "medicationCodeableConcept": coded("http://www.nlm.nih.gov/research/umls/rxnorm", "314076", "Lisinopril 10 MG"),
        "subject": whose(number),
        "authoredOn": day(at),
        "note": [{ "text": format!("{NOTE} with breakfast") }],
        "dosageInstruction": [{ "text": "one a day", "timing": { "repeat": { "frequency": 1, "period": 1, "periodUnit": "d" } } }],
    });
    record("MedicationRequest", &format!("c{number}-m{at}"), &[], body)
}

fn dose(number: u32, at: u32) -> Value {
    let body = json!({
        "status": "completed",
        "medicationCodeableConcept": coded("http://www.nlm.nih.gov/research/umls/rxnorm", "314076", "Lisinopril 10 MG"),
        "subject": whose(number),
        "effectiveDateTime": format!("{}T09:00:00Z", day(at)),
    });
    record("MedicationAdministration", &format!("c{number}-d{at}"), &[], body)
}

fn observation(number: u32, id: &str, category: &str, code: Value, amount: Value, at: u32) -> Value {
    let body = json!({
        "status": "final",
        "category": [coded("http://terminology.hl7.org/CodeSystem/observation-category", category, category)],
        "code": code,
        "subject": whose(number),
        "effectiveDateTime": format!("{}T{:02}:00:00Z", day(at), at % 24),
        "valueQuantity": amount,
        "note": [{ "text": format!("{NOTE}{at}") }],
    });
    record("Observation", id, &[], body)
}

fn vital(number: u32, at: u32) -> Value {
    let code = coded("http://loinc.org", "8867-4", "Heart rate");
    let amount = json!({ "value": 60 + at % 40, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min" });
    observation(number, &format!("c{number}-v{at}"), "vital-signs", code, amount, at)
}

fn value(number: u32, at: u32) -> Value {
    let code = coded("http://loinc.org", "2823-3", "Potassium");
    let amount =
        json!({ "value": 4.0, "unit": "mmol/L", "system": "http://unitsofmeasure.org", "code": "mmol/L" });
    observation(number, &format!("c{number}-l{at}"), "laboratory", code, amount, at)
}

fn report(number: u32, at: u32) -> Value {
    let body = json!({
        "status": "final",
        "code": coded("http://loinc.org", "24323-8", "Comprehensive metabolic panel"),
        "subject": whose(number),
        "effectiveDateTime": day(at),
        "result": [{ "reference": format!("Observation/c{number}-l{at}") }],
        "conclusion": format!("{NOTE} unremarkable"),
    });
    record("DiagnosticReport", &format!("c{number}-r{at}"), &[], body)
}

fn procedure(number: u32, at: u32) -> Value {
    let body = json!({
        "status": "completed",
        "code": coded("http://snomed.info/sct", "40701008", "Echocardiography"),
        "subject": whose(number),
        "performedDateTime": day(at),
        "note": [{ "text": format!("{NOTE} without difficulty") }],
    });
    record("Procedure", &format!("c{number}-p{at}"), &[], body)
}

fn immunization(number: u32, at: u32) -> Value {
    let body = json!({
        "status": "completed",
        "vaccineCode": coded("http://hl7.org/fhir/sid/cvx", "140", "Influenza"),
        "patient": whose(number),
        "occurrenceDateTime": format!("202{at}-10-01"),
    });
    record("Immunization", &format!("c{number}-i{at}"), &[], body)
}

fn plan(number: u32, at: u32) -> Value {
    let body = json!({
        "status": "active",
        "intent": "plan",
        "subject": whose(number),
        "description": format!("{NOTE} walk every day"),
    });
    record("CarePlan", &format!("c{number}-plan{at}"), &[], body)
}

fn claim(number: u32, at: u32) -> Value {
    let code = |code: &str| coded("http://terminology.hl7.org/CodeSystem/ex-claim", code, code);
    let item = |sequence: u32| json!({ "sequence": sequence, "productOrService": code("1205"), "net": { "value": 135.57, "currency": "USD" } });
    let body = json!({
        "status": "active",
        "type": code("institutional"),
        "use": "claim",
        "patient": whose(number),
        "created": day(at),
        "provider": { "reference": "Organization/hospital" },
        "priority": code("normal"),
        "insurance": [{ "sequence": 1, "focal": true, "coverage": { "reference": format!("Coverage/c{number}-cov") } }],
        "item": (1..=8).map(item).collect::<Vec<Value>>(),
        "total": { "value": 1084.56, "currency": "USD" },
    });
    record("Claim", &format!("c{number}-claim{at}"), &[], body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::withheld_from;
    use crate::scenario::Role;

    #[test]
    fn every_canary_is_planted_so_that_it_can_be_missed() {
        let all: String = chart(7).iter().map(Value::to_string).collect();
        for role in [Role::Nurse, Role::Physician, Role::FrontDesk, Role::BillingClerk, Role::Researcher] {
            for canary in withheld_from(role) {
                assert!(all.contains(canary), "{role:?} {canary}");
            }
        }
    }

    #[test]
    fn charts_are_the_same_every_time_and_load() {
        assert_eq!(chart(3), chart(3));
        let emr = Emr::new();
        fill(&emr, 2).unwrap();
        assert_eq!(emr.ids("Patient"), ["c1", "c2"]);
        assert_eq!(emr.census().iter().map(|(_, count)| count).sum::<usize>(), 2 * chart(1).len());
    }
}
