//! What patients laid down in Consent records: it binds whoever asks, and doubt closes.
//!
//! Owns: that an objection closes reads, searches and writes as the EMR's records say, and opens again.
//! Must never: wait for a cache to age; hospitals here keep what they find for a second.
//! Look next: `src/domain/access/consent/tests.rs`, what which Consent says.

use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use chartgate_sandbox::listen::Canned;
use serde_json::{Value, json};

use crate::emergency::{HEADER, PHYSICIANS, ask, break_glass, parameters, session};
use crate::harness::{Hospital, Reply, run};

const RECORDED: &str = include_str!("../../policies/optional/consent-records/consent-records.cedar");

/// A hospital that heeds Consents and looks every second.
async fn heeding(more: &[(&str, &str)]) -> Hospital {
    let settings = "\n[relations]\nmax_age = \"1s\"\nabsent_max_age = \"1s\"\n";
    let hospital = Hospital::open(Script { more: settings.to_owned(), ..Script::default() }).await;
    for (file, text) in more.iter().chain(&[("consents.cedar", RECORDED)]) {
        let before = hospital.events("policies-loaded");
        hospital.edit(file, Some(text));
        hospital.edited("policies-loaded", before).await;
    }
    for patient in ["p2", "p3"] {
        hospital.store(&observation(patient));
    }
    hospital
}

async fn aged() {
    tokio::time::sleep(Duration::from_millis(2100)).await;
}

fn observation(patient: &str) -> Value {
    json!({"resourceType": "Observation", "id": format!("con-{patient}"), "meta": {"versionId": "1"},
        "status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": format!("Patient/{patient}")}})
}

fn consent(status: &str, provision: &Value) -> Value {
    json!({"resourceType": "Consent", "id": "con", "meta": {"versionId": "1"}, "status": status,
        "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": "Patient/p3"}, "provision": provision})
}

fn rows(reply: &Reply) -> Vec<String> {
    reply.check_ok();
    let body = reply.json();
    let entries = body["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned()).collect()
}

fn asked(hospital: &Hospital) -> usize {
    let requests = hospital.stage.emr().requests();
    requests.iter().filter(|request| request.target.contains("Consent?patient=")).count()
}

#[test]
fn an_objection_closes_until_it_is_withdrawn() {
    run(async {
        let hospital = heeding(&[]).await;
        // Nobody laid anything down: open, and the trail says on what it rests.
        let free = hospital.get("nurse", "Observation/con-p3").await;
        free.check_ok();
        assert_eq!(hospital.check_recorded([&free])[0]["basis"], json!(["no-objection"]));
        hospital.store(&consent("active", &json!({"type": "deny"})));
        aged().await;
        let before = asked(&hospital);
        let list = hospital.get("nurse", "Observation?_id=con-p2,con-p3").await;
        assert_eq!(rows(&list), ["con-p2"], "another patient's stays");
        assert_eq!(asked(&hospital), before + 1, "one search for all patients of the page");
        let refused = [
            (hospital.get("nurse", "Observation/con-p3").await, 404, "not-found"),
            (hospital.get("physician", "Observation/con-p3").await, 404, "not-found"),
            (hospital.get("nurse", "Observation/none-such").await, 404, "not-found"),
        ];
        hospital.check_refusals(&refused);
        assert_eq!(asked(&hospital), before + 1, "what was found lately counts for everybody");
        hospital.get("nurse", "Patient/p3").await.check_ok();
        // A write is judged alike.
        let mut more = observation("p3");
        more.as_object_mut().unwrap().remove("id");
        let written = hospital.change("nurse", ("POST", "Observation"), &[], &more.to_string()).await;
        hospital.check_refusals(&[(written, 403, "write-not-permitted")]);
        // It speaks of somebody else, of other records, or is over: open again.
        let other =
            json!({"type": "deny", "actor": [{"reference": {"reference": "Practitioner/pr-physician"}}]});
        let class = json!([{"system": "http://hl7.org/fhir/resource-types", "code": "Condition"}]);
        for (record, nurse, physician) in [
            (consent("active", &other), 200, 404),
            (consent("active", &json!({"type": "deny", "class": class})), 200, 200),
            (consent("active", &json!({"type": "deny", "documentType": class})), 404, 404),
            (consent("inactive", &json!({"type": "deny"})), 200, 200),
        ] {
            hospital.store(&record);
            aged().await;
            let found = [
                hospital.get("nurse", "Observation/con-p3").await.status,
                hospital.get("physician", "Observation/con-p3").await.status,
            ];
            assert_eq!(found, [nurse, physician], "{record}");
        }
    });
}

/// A token that does not say who in the EMR its bearer is does not get around a Consent.
#[test]
fn who_is_not_known_is_bound_as_well() {
    run(async {
        let hospital = heeding(&[]).await;
        hospital.store(&consent(
            "active",
            &json!({"type": "deny",
            "actor": [{"reference": {"reference": "Practitioner/somebody"}}]}),
        ));
        let without = hospital.stage.issuer().token_with("nurse", |claims| {
            claims.as_object_mut().unwrap().remove("fhirUser");
        });
        let without = without.unwrap();
        let closed = hospital.get_with(&without, "Observation/con-p3").await;
        hospital.check_refusals(&[(closed, 404, "not-found")]);
        hospital.get_with(&without, "Observation/con-p2").await.check_ok();
        hospital.get("nurse", "Observation/con-p3").await.check_ok();
    });
}

/// While the EMR cannot be asked, or answers with what is nobody's, nothing is open; an emergency is.
#[test]
fn doubt_closes_and_an_emergency_opens() {
    run(async {
        let hospital = heeding(&[("emergency.cedar", PHYSICIANS)]).await;
        let mut foreign = consent("active", &json!({"type": "permit"}));
        foreign["patient"] = json!({"reference": "Group/g1"});
        let entry = json!({"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": foreign}]});
        for canned in [Canned::status(500), Canned::fhir(entry.to_string()), Canned::fhir("{")] {
            hospital.stage.emr().next_answer("/fhir/Consent", canned);
            let closed = hospital.get("physician", "Observation/con-p2").await;
            hospital.check_refusals(&[(closed, 404, "not-found")]);
            // What failed is not kept.
            hospital.get("physician", "Observation/con-p2").await.check_ok();
            aged().await;
        }
        hospital.store(&consent("active", &json!({"type": "deny"})));
        let doctor = session(&hospital, "physician", "doc-consent", 10);
        let closed = ask(&hospital, &doctor, ("GET", "Observation/con-p3"), "").await;
        hospital.check_refusals(&[(closed, 404, "not-found")]);
        break_glass(&hospital, &doctor, &parameters("p3", &[])).await.check_ok();
        let open = ask(&hospital, &doctor, ("GET", "Observation/con-p3"), "").await;
        open.check_ok();
        assert!(open.header(HEADER).is_some());
        assert_eq!(hospital.check_recorded([&open])[0]["basis"], json!(["emergency"]));
    });
}

/// Where the lookup is switched off, nothing is known and the policy closes.
#[test]
fn a_lookup_that_is_off_is_no_consent() {
    run(async {
        let settings = "\n[relations]\nlookups = [\"care-team\"]\n";
        let hospital = Hospital::open(Script { more: settings.to_owned(), ..Script::default() }).await;
        let before = hospital.events("policies-loaded");
        hospital.edit("consents.cedar", Some(RECORDED));
        hospital.edited("policies-loaded", before).await;
        let closed = hospital.get("nurse", "Observation/obs-weight").await;
        hospital.check_refusals(&[(closed, 404, "not-found")]);
        assert_eq!(asked(&hospital), 0);
    });
}

/// More than can be weighed, of one patient or of a page, is as good as nothing known (five pages of 200; 50 of a patient).
#[test]
fn too_many_are_not_known() {
    run(async {
        let hospital = heeding(&[]).await;
        let store = |number: usize| {
            let mut record = consent("active", &json!({"type": "permit"}));
            record["id"] = json!(format!("con-{number}"));
            hospital.store(&record);
        };
        let list = async || rows(&hospital.get("nurse", "Observation?_id=con-p2,con-p3").await);
        for (more, expected) in
            [(0..50, vec!["con-p2", "con-p3"]), (50..51, vec!["con-p2"]), (51..1001, vec![])]
        {
            more.for_each(store);
            aged().await;
            let mut found = list().await;
            found.sort();
            assert_eq!(found, expected);
        }
    });
}
