//! Histories (T-086 to T-088, KF-32, KF-33): every version is judged, and by what the record is now as well.
//!
//! Owns: instance, type and system history, and vread. Must never: compare with another page of the gate's own alone.
//! Look next: `rows`, where searches are.

use serde_json::{Value, json};

use crate::harness::{Hospital, Reply, run};
use crate::paging::next;
use crate::writes::{observation, patient};

fn versions(reply: &Reply) -> Vec<(String, String)> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let bundle = reply.json();
    assert_eq!(bundle["type"], "history");
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let version = |entry: &Value| {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
        (text("/request/method"), text("/resource/meta/versionId"))
    };
    entries.iter().map(version).collect()
}

fn labelled(mut record: Value, code: &str) -> Value {
    record["meta"] = json!({"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": code}]});
    record
}

#[test]
fn t086_every_version_is_masked() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("hist"));
        let mut second = patient("hist");
        second["telecom"][0]["value"] = json!("555-2");
        second.as_object_mut().unwrap().remove("photo");
        hospital.store(&second);
        let history = hospital.get("physician", "Patient/hist/_history").await;
        assert_eq!(
            versions(&history),
            [("PUT".to_owned(), "2".to_owned()), ("POST".to_owned(), "1".to_owned())].map(
                |(method, version)| (
                    if version == "1" { versions(&history)[1].0.clone() } else { method },
                    version
                )
            )
        );
        assert!(history.text().contains("SECRET-photo"), "the first version is shown to who may see it");
        let nurse = hospital.get("nurse", "Patient/hist/_history").await;
        assert_eq!(versions(&nurse).len(), 2);
        for secret in ["SECRET-maiden", "SECRET-marital", "mrn-hist", "555-2", "555-0001"] {
            assert!(!nurse.text().contains(secret), "{secret}: {}", nurse.text());
        }
        for entry in nurse.json()["entry"].as_array().unwrap() {
            assert_eq!(entry["fullUrl"], format!("{}/Patient/hist", hospital.stage.base_url()));
        }
        let first = hospital.get("nurse", "Patient/hist/_history/1").await;
        first.check_ok();
        assert_eq!(first.header("etag"), Some("W/\"1\""));
        assert!(!first.text().contains("SECRET-maiden"));
        let records = hospital.check_recorded([&history, &nurse, &first]);
        assert_eq!(records[1]["interaction"], "history-instance");
        assert_eq!(records[1]["released"].as_array().unwrap().len(), 2);
        let no_right = hospital.get("front-desk", "Patient/hist/_history").await;
        no_right.check_refusal(403, "type-not-permitted");
    });
}

/// KF-33: a label that was added later holds for what was before; one that was removed holds for its versions.
#[test]
fn kf33_a_restriction_holds_for_all_versions() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&observation("hist-now", "Patient/p1"));
        hospital.store(&labelled(observation("hist-now", "Patient/p1"), "R"));
        hospital.store(&labelled(observation("hist-once", "Patient/p1"), "R"));
        hospital.store(&observation("hist-once", "Patient/p1"));
        let once = hospital.get("nurse", "Observation/hist-once/_history").await;
        assert_eq!(versions(&once).into_iter().map(|(_, version)| version).collect::<Vec<_>>(), ["2"]);
        hospital.get("nurse", "Observation/hist-once/_history/2").await.check_ok();
        let withheld = [
            hospital.get("nurse", "Observation/hist-once/_history/1").await,
            hospital.get("nurse", "Observation/hist-now/_history/1").await,
            hospital.get("nurse", "Observation/hist-now/_history/2").await,
            hospital.get("nurse", "Observation/never/_history/1").await,
            hospital.get("nurse", "Observation/hist-now/_history").await,
            hospital.get("nurse", "Observation/never/_history").await,
        ];
        for reply in &withheld {
            reply.check_refusal(404, "not-found");
            assert_eq!(reply.without_request_id(), withheld[0].without_request_id(), "{}", reply.what);
        }
        let all = hospital.get("nurse", "Observation/_history?_count=500").await;
        assert!(!all.text().contains("hist-now"), "{}", all.text());
        assert!(all.text().contains("hist-once"));
        assert_eq!(versions(&hospital.get("physician", "Observation/hist-now/_history").await).len(), 2);
        hospital.check_recorded(&withheld);
    });
}

/// T-087 and T-088: that something was deleted is told to whoever may see what it was.
#[test]
fn t087_t088_deletions() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&observation("hist-gone", "Patient/p1"));
        hospital.stage.emr().delete("Observation", "hist-gone");
        hospital.store(&labelled(observation("hist-gone-hidden", "Patient/p1"), "R"));
        hospital.stage.emr().delete("Observation", "hist-gone-hidden");
        let gone = hospital.get("nurse", "Observation/hist-gone/_history").await;
        let methods: Vec<String> = versions(&gone).into_iter().map(|(method, _)| method).collect();
        assert_eq!(methods.len(), 2, "{}", gone.text());
        assert_eq!(methods[0], "DELETE");
        let hidden = hospital.get("nurse", "Observation/hist-gone-hidden/_history").await;
        let never = hospital.get("nurse", "Observation/hist-never/_history").await;
        hidden.check_refusal(404, "not-found");
        assert_eq!(hidden.without_request_id(), never.without_request_id());
        for path in ["Observation/hist-gone", "Observation/hist-gone-hidden", "Observation/hist-never"] {
            hospital.get("nurse", path).await.check_refusal(404, "not-found");
        }
        let all = hospital.get("nurse", "Observation/_history?_count=500").await;
        assert!(!all.text().contains("hist-gone-hidden"), "{}", all.text());
        assert!(all.text().contains("hist-gone\""), "{}", all.text());
    });
}

/// KF-32: the system's history is for those who see every type it spans, and filtered row by row.
#[test]
fn kf32_type_and_system_history() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&observation("hist-type", "Patient/p1"));
        let mut refused = Vec::new();
        for (who, path) in [
            ("front-desk", "_history"),
            ("front-desk", "Patient/_history"),
            ("researcher", "Observation/_history"),
            ("billing-clerk", "_history?_since=2020-01-01T00:00:00Z"),
        ] {
            let reply = hospital.get(who, path).await;
            reply.check_refusal(403, "type-not-permitted");
            refused.push(reply);
        }
        hospital.check_recorded(&refused);
        for who in ["nurse", "physician", "patient", "integration"] {
            let token = hospital.writer(who);
            let first = hospital.get_with(&token, "_history?_count=20").await;
            assert!(versions(&first).len() <= 20, "{who}");
            let bundle = first.json();
            assert!(bundle.get("total").is_none() || who == "integration", "{who}");
            for entry in bundle["entry"].as_array().into_iter().flatten() {
                let kind = entry["resource"]["resourceType"].as_str().unwrap_or("");
                assert!(who != "nurse" || kind != "Claim");
            }
            if let Some(link) = next(&first) {
                assert!(versions(&hospital.get_with(&token, &link).await).len() <= 20, "{who}");
            }
        }
        let since = hospital.get("nurse", "Observation/_history?_since=2999-01-01T00:00:00Z").await;
        assert!(versions(&since).is_empty());
        let patient = hospital.get("patient", "Observation/_history?_count=500").await;
        for entry in patient.json()["entry"].as_array().into_iter().flatten() {
            let subject = entry["resource"]["subject"]["reference"].as_str();
            assert!(subject.is_none_or(|subject| subject.ends_with("/p1")), "{entry}");
        }
    });
}
