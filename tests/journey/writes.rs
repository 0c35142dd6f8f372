//! Writing (P5, T-062 to T-089): what a caller could not see is never lost, moved or told, and what they may not write
//! is not written.
//!
//! Owns: create, update, patch and delete, alone; `bundles` has them together.
//! Must never: judge a write by its answer alone: the EMR's record and its log are looked at.
//! Look next: `tests/change.rs`, the merge itself; `src/gateway/write.rs`, the order of the steps.

use std::sync::Arc;
use std::time::Duration;

use chartgate_sandbox::listen::Canned;
use serde_json::{Value, json};

use crate::harness::{Hospital, Reply, run, with_integration};

/// A chart with something in it that each role must not see.
pub(crate) fn patient(id: &str) -> Value {
    json!({
        "resourceType": "Patient", "id": id,
        "meta": {"tag": [{"system": "urn:example:tags", "code": "kept"}]},
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName", "valueString": "SECRET-maiden"}],
        "identifier": [{"system": "urn:example:mrn", "value": format!("mrn-{id}")}],
        "active": true,
        "name": [{"family": "Doors", "given": ["Open"]}],
        "telecom": [{"system": "phone", "value": "555-0001"}],
        "gender": "female", "birthDate": "1980-02-29",
        "_birthDate": {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime", "valueDateTime": "1980-02-29T04:20:00Z"}]},
        "multipleBirthInteger": 3,
        "photo": [{"title": "SECRET-photo"}],
        "maritalStatus": {"text": "SECRET-marital"},
        "contact": [{"name": {"family": "Kin"}, "telecom": [{"value": "555-0002"}]}]
    })
}

pub(crate) fn observation(id: &str, subject: &str) -> Value {
    json!({
        "resourceType": "Observation", "id": id,
        "extension": [{"url": "urn:example:secret", "valueString": "SECRET-extension"}],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "subject": {"reference": subject},
        "effectiveDateTime": "2026-01-05",
        "valueQuantity": {"value": 80.5, "unit": "kg"},
        "note": [{"text": "first"}]
    })
}

/// A record without its id.
pub(crate) fn fresh(mut record: Value) -> String {
    record.as_object_mut().unwrap().remove("id");
    record.as_object_mut().unwrap().remove("extension");
    record.to_string()
}

/// The record of a reply in the trail.
pub(crate) fn record_of(hospital: &Hospital, reply: &Reply) -> Value {
    hospital.check_recorded([reply]).remove(0)
}

/// How an answer ended is written down after it has ended.
pub(crate) async fn check_complete(hospital: &Hospital, reply: &Reply) {
    let ended = || record_of(hospital, reply)["outcome"] == "complete";
    assert!(crate::child::until(std::time::Duration::from_secs(10), ended).await, "{}", reply.what);
}

#[test]
fn a_created_record_is_answered_like_a_read() {
    run(async {
        let hospital = Hospital::doors().await;
        let body = fresh(observation("x", "Patient/p1"));
        let reply = hospital.change("nurse", ("POST", "Observation"), &[], &body).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        let created = reply.json();
        let id = created["id"].as_str().unwrap();
        let base = hospital.stage.base_url();
        assert_eq!(reply.header("location"), Some(format!("{base}/Observation/{id}/_history/1").as_str()));
        assert_eq!(reply.header("etag"), Some("W/\"1\""));
        assert_eq!(created["valueQuantity"]["value"], json!(80.5));
        assert_eq!(hospital.stored("Observation", id)["subject"]["reference"], "Patient/p1");
        let record = record_of(&hospital, &reply);
        assert_eq!(record["interaction"], "create");
        assert_eq!(record["released"][0]["reference"], format!("Observation/{id}"));
        assert_eq!(record["released"][0]["patients"], json!(["p1"]));
        check_complete(&hospital, &reply).await;
    });
}

/// T-076: whatever is preferred, nothing more comes back than a read would give.
#[test]
fn t076_prefer_chooses_among_what_may_be_seen() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("prefer"));
        let view = hospital.change("front-desk", ("GET", "Patient/prefer"), &[], "").await.json();
        for (place, (prefer, body)) in [
            ("return=minimal", "none"),
            ("return=OperationOutcome", "outcome"),
            ("return=representation", "record"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut sent = view.clone();
            sent["telecom"][0]["value"] = json!(format!("555-1{place}"));
            let headers = [("prefer", prefer)];
            let reply =
                hospital.change("front-desk", ("PUT", "Patient/prefer"), &headers, &sent.to_string()).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert!(!reply.text().contains("SECRET-photo") && !reply.text().contains("SECRET-maiden"));
            match body {
                "none" => assert!(reply.body.is_empty(), "{}", reply.text()),
                "outcome" => assert_eq!(reply.json()["resourceType"], "OperationOutcome"),
                _ => {
                    let read = hospital.change("front-desk", ("GET", "Patient/prefer"), &[], "").await;
                    assert_eq!(reply.body, read.body, "a representation is a read");
                    assert_eq!(reply.header("etag"), read.header("etag"));
                }
            }
            let released = record_of(&hospital, &reply)["released"].as_array().unwrap().len();
            assert_eq!(released, usize::from(body == "record"), "{prefer}");
        }
    });
}

/// T-062 and T-063, KF-49: a masked view, changed in one place and put back, loses nothing; with our mark or without.
#[test]
fn t062_t063_a_round_trip_of_a_masked_view_loses_nothing() {
    run(async {
        let hospital = Hospital::doors().await;
        for (place, with_tag) in [true, false].into_iter().enumerate() {
            let id = format!("round-{place}");
            hospital.store(&patient(&id));
            let before = hospital.stored("Patient", &id);
            let path = format!("Patient/{id}");
            let view = hospital.change("front-desk", ("GET", &path), &[], "").await;
            assert!(view.text().contains("SUBSETTED") && !view.text().contains("SECRET-photo"));
            let mut sent = view.json();
            if !with_tag {
                sent["meta"].as_object_mut().unwrap().remove("tag");
            }
            sent["telecom"][0]["value"] = json!("555-9999");
            let reply = hospital.change("front-desk", ("PUT", &path), &[], &sent.to_string()).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let mut after = hospital.stored("Patient", &id);
            assert_eq!(after["telecom"][0]["value"], "555-9999");
            assert_eq!(after["meta"]["tag"], before["meta"]["tag"], "the EMR's tags, without ours");
            after["telecom"] = before["telecom"].clone();
            after["meta"] = before["meta"].clone();
            assert_eq!(after, before, "{with_tag}");
            let whole = hospital.change("integration", ("GET", &path), &[], "").await;
            assert!(whole.text().contains("SECRET-photo") && whole.text().contains("SECRET-maiden"));
        }
    });
}

/// The same for a nurse, whose view of an Observation lacks its extensions; numbers keep their text (P3).
#[test]
fn t062_a_nurses_round_trip_keeps_extensions_and_numbers() {
    run(async {
        let hospital = Hospital::doors().await;
        let stored = observation("round-nurse", "Patient/p1").to_string().replace("80.5", "80.500");
        hospital.stage.emr().put(stored.as_bytes()).unwrap();
        let view = hospital.change("nurse", ("GET", "Observation/round-nurse"), &[], "").await;
        assert!(!view.text().contains("SECRET"));
        let sent = view.text().replace("\"first\"", "\"second\"");
        let reply = hospital.change("nurse", ("PUT", "Observation/round-nurse"), &[], &sent).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let bytes = hospital.stage.emr().read("Observation", "round-nurse").unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(
            text.contains("SECRET-extension") && text.contains("80.500") && text.contains("second"),
            "{text}"
        );
        assert!(!text.contains("SUBSETTED"), "{text}");
        let record = record_of(&hospital, &reply);
        assert!(record.to_string().contains("Observation.note"), "{record}");
    });
}

/// What is refused without a change: role, request, body, and the code.
type Refused = (&'static str, &'static str, &'static str, fn(&mut Value), u16, &'static str);

/// T-064, T-077 to T-079, KF-46, KF-47: elements that are withheld or not writable, and records that would become
/// someone else's.
const REFUSED_UPDATES: &[Refused] = &[
    (
        "a withheld element, blind",
        "front-desk",
        "Patient",
        |r| r["photo"] = json!([{"title": "mine"}]),
        403,
        "element-not-writable",
    ),
    (
        "a withheld extension, blind",
        "front-desk",
        "Patient",
        |r| r["extension"] = json!([{"url": "urn:x", "valueString": "y"}]),
        403,
        "element-not-writable",
    ),
    (
        "a visible element that is not writable",
        "front-desk",
        "Patient",
        |r| r["deceasedBoolean"] = json!(true),
        403,
        "element-not-writable",
    ),
    (
        "a label added",
        "front-desk",
        "Patient",
        |r| r["meta"]["security"] = json!([{"code": "R"}]),
        403,
        "element-not-writable",
    ),
    (
        "a link to merge by",
        "front-desk",
        "Patient",
        |r| r["link"] = json!([{"other": {"reference": "Patient/p2"}, "type": "replaces"}]),
        403,
        "element-not-writable",
    ),
    (
        "an element of the type that is not writable",
        "patient",
        "Patient",
        |r| r["name"] = json!([{"family": "Other"}]),
        403,
        "element-not-writable",
    ),
    ("another id", "front-desk", "Patient", |r| r["id"] = json!("other"), 400, "body-of-other-id"),
    ("another type", "front-desk", "Patient", |r| r["resourceType"] = json!("Person"), 400, "*"),
    ("an unknown element", "front-desk", "Patient", |r| r["nonsense"] = json!(1), 400, "body-unsound"),
    (
        "a type that R4 does not have there",
        "front-desk",
        "Patient",
        |r| r["active"] = json!("yes"),
        400,
        "body-unsound",
    ),
    (
        "a label removed",
        "physician",
        "Observation",
        |r| {
            r["meta"].as_object_mut().unwrap().remove("security");
        },
        403,
        "element-not-writable",
    ),
    (
        "a label lowered",
        "physician",
        "Observation",
        |r| {
            r["meta"]["security"] =
                json!([{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}])
        },
        403,
        "element-not-writable",
    ),
];

#[test]
fn t077_t078_what_may_not_be_written_is_refused() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("refused"));
        let mut labelled = observation("refused", "Patient/p1");
        labelled["meta"] = json!({"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]});
        hospital.store(&labelled);
        let mut replies = Vec::new();
        for (name, who, kind, change, status, code) in REFUSED_UPDATES {
            let id = if *who == "patient" { "p1" } else { "refused" };
            let path = format!("{kind}/{id}");
            let before = hospital.stored(kind, id);
            let mut sent = hospital.change(who, ("GET", &path), &[], "").await.json();
            change(&mut sent);
            let mut reply = hospital.change(who, ("PUT", &path), &[], &sent.to_string()).await;
            reply.what = format!("{name}: {}", reply.what);
            assert_eq!(
                (reply.status, *code == "*" || reply.code() == *code),
                (*status, true),
                "{}: {}",
                reply.what,
                reply.text()
            );
            assert!(!reply.text().contains("SECRET") && !reply.text().contains("Doors"), "{}", reply.text());
            assert_eq!(hospital.stored(kind, id), before, "{name}: it was changed");
            let code = reply.code();
            reply.check_refusal(*status, &code);
            replies.push(reply);
        }
        hospital.check_recorded(&replies);
    });
}

/// T-079, KF-03, KF-46, KF-47: a record can neither be taken from another patient nor given to one, and a new one is about
/// the launch patient alone.
#[test]
fn t079_a_record_does_not_change_hands() {
    run(async {
        let hospital = Hospital::doors().await;
        let answers = |subject: &str| {
            json!({"resourceType": "QuestionnaireResponse", "status": "completed", "subject": {"reference": subject},
                "author": {"reference": "Patient/p1"}})
        };
        let own = hospital
            .change("patient", ("POST", "QuestionnaireResponse"), &[], &answers("Patient/p1").to_string())
            .await;
        assert_eq!(own.status, 201, "{}", own.text());
        let mut replies = Vec::new();
        let mut second = answers("Patient/p1");
        second["source"] = json!({"reference": "Patient/p2"});
        let mut nested = answers("Patient/p1");
        nested["contained"] = json!([{"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/p2"}}]);
        nested["basedOn"] = json!([{"reference": "#o"}]);
        for body in [
            answers("Patient/p2"),
            second,
            nested,
            answers(&format!("{}/Patient/p2", hospital.stage.base_url())),
        ] {
            let reply =
                hospital.change("patient", ("POST", "QuestionnaireResponse"), &[], &body.to_string()).await;
            reply.check_refusal(403, "write-not-permitted");
            replies.push(reply);
        }
        // The compartment's owner is not the only one who is asked: what was hers stays hers.
        hospital.store(&observation("moved", "Patient/p6"));
        let mut labelled = observation("moved-label", "Patient/p1");
        labelled["meta"] = json!({"security": [{"code": "R"}]});
        hospital.store(&labelled);
        let path = ("PUT", "Observation/moved-label");
        let reply =
            hospital.change("nurse", path, &[], &observation("moved-label", "Patient/p1").to_string()).await;
        reply.check_refusal(404, "not-found");
        replies.push(reply);
        hospital.check_recorded(&replies);
        assert_eq!(hospital.stored("Observation", "moved-label")["meta"]["security"][0]["code"], "R");
    });
}

/// T-065, T-163: a record that is missing, withheld or not yours is one and the same 404 to whoever changes it.
#[test]
fn t065_t163_changes_of_what_is_not_yours_sound_alike() {
    run(async {
        let hospital = Hospital::doors().await;
        let mut withheld = observation("hidden-write", "Patient/p1");
        withheld["meta"] = json!({"security": [{"code": "R"}]});
        hospital.store(&withheld);
        hospital.store(&observation("deleted-write", "Patient/p1"));
        hospital.stage.emr().delete("Observation", "deleted-write");
        let patch = r#"[{"op":"replace","path":"/status","value":"amended"}]"#;
        let patch_type = [("content-type", "application/json-patch+json")];
        for ids in [["hidden-write", "never-write", "deleted-write"]] {
            for version in [None, Some("W/\"1\""), Some("W/\"77\"")] {
                let mut heard = Vec::new();
                for id in ids {
                    let path = format!("Observation/{id}");
                    let mut headers: Vec<(&str, &str)> =
                        version.map(|tag| ("if-match", tag)).into_iter().collect();
                    let body = observation(id, "Patient/p1");
                    let mut body = body;
                    body.as_object_mut().unwrap().remove("extension");
                    let put = hospital.change("nurse", ("PUT", &path), &headers, &body.to_string()).await;
                    headers.extend(patch_type);
                    let patched = hospital.change("nurse", ("PATCH", &path), &headers, patch).await;
                    for reply in [put, patched] {
                        reply.check_refusal(404, "not-found");
                        heard.push(reply.without_request_id());
                    }
                }
                assert!(heard.windows(2).all(|pair| pair[0] == pair[1]), "{heard:#?}");
            }
        }
        // Deletion, as someone who may delete what they see: a launch patient's view of the integration role.
        let token = hospital.stage.issuer().token_with("patient", |claims| {
            claims["roles"] = json!(["integration"]);
            claims["purpose_of_use"] = json!("TREAT");
            claims["scope"] = json!("launch/patient patient/*.cruds");
        });
        let bearer = format!("Bearer {}", token.unwrap());
        let mut heard = Vec::new();
        for id in ["obs-p2-glucose", "never-write", "deleted-write"] {
            let headers = [("authorization", bearer.as_str())];
            let reply = hospital.ask("DELETE", &format!("Observation/{id}"), &headers, "").await;
            reply.check_refusal(404, "not-found");
            heard.push(reply.without_request_id());
        }
        assert!(heard.windows(2).all(|pair| pair[0] == pair[1]), "{heard:#?}");
        hospital.stored("Observation", "obs-p2-glucose");
    });
}

/// An update creates where nothing can be withheld from whoever asks, and only then.
#[test]
fn t065_update_as_create_is_for_those_who_see_all() {
    run(async {
        let hospital = Hospital::doors().await;
        let body = observation("as-created", "Patient/p1").to_string();
        let reply = hospital.change("integration", ("PUT", "Observation/as-created"), &[], &body).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        assert_eq!(hospital.stored("Observation", "as-created")["id"], "as-created");
        let again = hospital.change("integration", ("PUT", "Observation/as-created"), &[], &body).await;
        assert_eq!(again.status, 200, "{}", again.text());
        let named = hospital
            .change(
                "integration",
                ("PUT", "Observation/as-named"),
                &[("if-match", "W/\"1\"")],
                &body.replace("as-created", "as-named"),
            )
            .await;
        named.check_refusal(404, "not-found");
    });
}

/// T-089: a version is judged after the right to the record, and a conflict is tried again a few times only.
#[test]
fn t089_versions_and_conflicts() {
    run(async {
        let hospital = Hospital::doors().await;
        let emr = hospital.stage.emr();
        hospital.store(&observation("conflict", "Patient/p1"));
        let path = "Observation/conflict";
        let view = hospital.change("nurse", ("GET", path), &[], "").await;
        let sent = view.text().replace("\"first\"", "\"second\"");
        let wrong = hospital.change("nurse", ("PUT", path), &[("if-match", "W/\"9\"")], &sent).await;
        wrong.check_refusal(412, "version-mismatch");
        let right = hospital.change("nurse", ("PUT", path), &[("if-match", "W/\"1\"")], &sent).await;
        assert_eq!(right.status, 200, "{}", right.text());
        assert_eq!(right.header("etag"), Some("W/\"2\""));
        // Somebody else was quicker, once: it is merged again with what they wrote.
        let current = || Canned::fhir(emr.read("Observation", "conflict").unwrap());
        let address = "/fhir/Observation/conflict";
        emr.next_answer(address, current());
        emr.next_answer(address, Canned::status(412).body("CANARY"));
        let sent = right.text().replace("\"second\"", "\"third\"");
        let reply = hospital.change("nurse", ("PUT", path), &[], &sent).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(hospital.stored("Observation", "conflict")["note"][0]["text"], "third");
        record_of(&hospital, &reply);
        // Always: given up, and told as a conflict.
        for _ in 0..8 {
            emr.next_answer(address, current());
            emr.next_answer(address, Canned::status(412).body("CANARY"));
        }
        let reply = hospital.change("nurse", ("PUT", path), &[], &sent.replace("third", "fourth")).await;
        reply.check_refusal(409, "conflict");
        assert!(!reply.text().contains("CANARY"));
        let tried = emr
            .requests()
            .iter()
            .filter(|one| {
                one.method == "PUT"
                    && one.target == address
                    && String::from_utf8_lossy(&one.body).contains("fourth")
            })
            .count();
        assert_eq!(tried, chartgate::limits::WRITE_TRIES_MAX);
        let record = record_of(&hospital, &reply);
        assert_ne!(record["outcome"], "unknown", "{record}");
    });
}

/// T-066 to T-069, KF-35: a condition is a search with the caller's eyes: none, one and several visible matches, and
/// what is withheld does not count.
#[test]
#[expect(clippy::too_many_lines, reason = "cases as data")]
fn t066_t069_conditions_see_what_their_sender_sees() {
    run(async {
        let hospital = Hospital::doors().await;
        let with_identifier = |id: &str, value: &str| {
            let mut record = observation(id, "Patient/p1");
            record["identifier"] = json!([{"system": "urn:example:cond", "value": value}]);
            record
        };
        hospital.store(&with_identifier("cond-one", "one"));
        hospital.store(&with_identifier("cond-two-a", "two"));
        hospital.store(&with_identifier("cond-two-b", "two"));
        let mut hidden = with_identifier("cond-hidden", "hidden");
        hidden["meta"] = json!({"security": [{"code": "R"}]});
        hospital.store(&hidden);
        let body = |value: &str| fresh(with_identifier("x", value));
        let criteria = |value: &str| format!("identifier=urn:example:cond%7C{value}");
        // Create.
        for (value, status, code) in
            [("none", 201, ""), ("one", 200, ""), ("two", 412, "multiple-matches"), ("hidden", 201, "")]
        {
            let condition = criteria(value);
            let headers = [("if-none-exist", condition.as_str())];
            let reply = hospital.change("nurse", ("POST", "Observation"), &headers, &body(value)).await;
            assert_eq!((reply.status, reply.code().as_str()), (status, code), "{value}: {}", reply.text());
            if value == "one" {
                assert_eq!(reply.json()["id"], "cond-one");
                assert!(!reply.text().contains("SECRET"));
            }
            record_of(&hospital, &reply);
        }
        // A condition on what may not be read is refused, and the EMR not asked.
        for condition in ["_has:Provenance:target:agent=upstream-mark", "subject.identifier=upstream-mark"] {
            let reply = hospital
                .change("nurse", ("POST", "Observation"), &[("if-none-exist", condition)], &body("q"))
                .await;
            assert!([400, 403].contains(&reply.status), "{}", reply.text());
        }
        assert_eq!(hospital.upstream_saw("upstream-mark"), 0);
        // Update, patch and delete.
        let patch = [("content-type", "application/json-patch+json")];
        let amend = r#"[{"op":"replace","path":"/status","value":"amended"}]"#;
        for (value, put, patched) in [("none2", 201, 404), ("one", 200, 200), ("two", 412, 412)] {
            let path = format!("Observation?{}", criteria(value));
            let reply = hospital.change("nurse", ("PATCH", &path), &patch, amend).await;
            assert_eq!(reply.status, patched, "PATCH {value}: {}", reply.text());
            let reply = hospital.change("nurse", ("PUT", &path), &[], &body(value)).await;
            assert_eq!(reply.status, put, "PUT {value}: {}", reply.text());
        }
        let stored = hospital.stored("Observation", "cond-one");
        assert!(stored.to_string().contains("SECRET-extension"), "{stored}");
        for (value, status) in [("never", 404), ("two", 412), ("one", 204)] {
            let path = format!("Observation?{}", criteria(value));
            let reply = hospital.change("integration", ("DELETE", &path), &[], "").await;
            assert_eq!(reply.status, status, "DELETE {value}: {}", reply.text());
        }
        assert!(hospital.stage.emr().read("Observation", "cond-one").is_none());
        assert!(hospital.stage.emr().read("Observation", "cond-hidden").is_some());
        // An id of the client's own never goes over a record that is there.
        let path = format!("Observation?{}", criteria("nobody"));
        let own = hospital
            .change("integration", ("PUT", &path), &[], &with_identifier("cond-two-a", "nobody").to_string())
            .await;
        own.check_refusal(409, "conflict");
        let own = hospital
            .change(
                "nurse",
                ("PUT", &path),
                &[],
                &{
                    let mut r = with_identifier("cond-hidden", "nobody");
                    r.as_object_mut().unwrap().remove("extension");
                    r
                }
                .to_string(),
            )
            .await;
        own.check_refusal(404, "not-found");
        assert_eq!(hospital.stored("Observation", "cond-hidden")["meta"]["security"][0]["code"], "R");
    });
}

#[test]
fn a_deletion_is_recorded_and_done() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&observation("deleted", "Patient/p1"));
        let not = hospital.change("nurse", ("DELETE", "Observation/deleted"), &[], "").await;
        not.check_refusal(403, "type-not-permitted");
        let wrong = hospital
            .change("integration", ("DELETE", "Observation/deleted"), &[("if-match", "W/\"9\"")], "")
            .await;
        wrong.check_refusal(412, "version-mismatch");
        let done = hospital.change("integration", ("DELETE", "Observation/deleted"), &[], "").await;
        assert_eq!((done.status, done.body.len()), (204, 0));
        assert!(hospital.stage.emr().read("Observation", "deleted").is_none());
        let record = record_of(&hospital, &done);
        assert_eq!(record["interaction"], "delete");
        assert!(record.to_string().contains("Observation/deleted"), "{record}");
        let again = hospital.change("integration", ("DELETE", "Observation/deleted"), &[], "").await;
        again.check_refusal(404, "not-found");
    });
}

/// T-161: what the EMR says of a change it does not make, or whose end nobody knows.
/// T-089, KF-35: a version named beside criteria is that of the one visible match. Where none is visible it is not there,
/// whether one is withheld or not.
#[test]
fn t089_a_version_may_be_named_beside_criteria() {
    run(async {
        let hospital = Hospital::doors().await;
        let with_identifier = |id: &str, value: &str| {
            let mut record = observation(id, "Patient/p1");
            record["identifier"] = json!([{"system": "urn:example:match", "value": value}]);
            record
        };
        hospital.store(&with_identifier("match-one", "one"));
        let mut hidden = with_identifier("match-hidden", "hidden");
        hidden["meta"] = json!({"security": [{"code": "R"}]});
        hospital.store(&hidden);
        let path = |value: &str| format!("Observation?identifier=urn:example:match%7C{value}");
        let amend = r#"[{"op":"replace","path":"/status","value":"amended"}]"#;
        let bodies = |value: &str| {
            [
                ("PUT", "application/fhir+json", fresh(with_identifier("x", value))),
                ("PATCH", "application/json-patch+json", amend.to_owned()),
                ("DELETE", "", String::new()),
            ]
        };
        let send = async |who: &str, method: &str, kind: &str, value: &str, version: &str, body: &str| {
            let mut headers = vec![("if-match", version)];
            headers.extend((!kind.is_empty()).then_some(("content-type", kind)));
            hospital.change(who, (method, &path(value)), &headers, body).await
        };
        for (place, (method, kind, body)) in bodies("one").into_iter().enumerate() {
            let (now, later) = (format!("W/\"{}\"", place + 1), format!("W/\"{}\"", place + 2));
            let who = if method == "DELETE" { "integration" } else { "nurse" };
            for wrong in [later.as_str(), "W/\"9\""] {
                let reply = send(who, method, kind, "one", wrong, &body).await;
                reply.check_refusal(412, "version-mismatch");
            }
            let right = send(who, method, kind, "one", &now, &body).await;
            assert!([200, 204].contains(&right.status), "{method}: {} {}", right.status, right.text());
        }
        assert!(hospital.stage.emr().read("Observation", "match-one").is_none());
        // What is withheld sounds like what is not there, in each version, and is not changed.
        for (method, kind, body) in bodies("hidden").into_iter().filter(|(method, ..)| *method != "DELETE") {
            let nobody = send("nurse", method, kind, "nobody", "W/\"1\"", &body).await;
            nobody.check_refusal(412, "version-mismatch");
            for version in ["W/\"1\"", "W/\"2\""] {
                let reply = send("nurse", method, kind, "hidden", version, &body).await;
                assert_eq!(reply.without_request_id(), nobody.without_request_id(), "{method} {version}");
            }
        }
        assert_eq!(hospital.stored("Observation", "match-hidden")["meta"]["versionId"], "1");
    });
}

/// T-068: of two conditional creates at once one makes the record, and the other finds it.
#[test]
fn t068_a_condition_that_is_met_twice_at_once_makes_one_record() {
    run(async {
        let hospital = Hospital::open(with_integration()).await;
        let emr = hospital.stage.emr();
        let record = |value: &str| {
            let mut record = observation("x", "Patient/p1");
            record["identifier"] = json!([{"system": "urn:example:race", "value": value}]);
            fresh(record)
        };
        let made = |value: &str| {
            let all = emr.ids("Observation");
            let has =
                |id: &String| String::from_utf8_lossy(&emr.read("Observation", id).unwrap()).contains(value);
            all.iter().filter(|id| has(id)).count()
        };
        emr.set_delay(Duration::from_millis(150));
        for who in ["nurse", "integration"] {
            let value = format!("race-{who}");
            let condition = format!("identifier=urn:example:race%7C{value}");
            let headers = [("if-none-exist", condition.as_str())];
            let body = record(&value);
            let path = format!("Observation?{condition}");
            let once = || hospital.change(who, ("POST", "Observation"), &headers, &body);
            let (one, two, three) =
                tokio::join!(once(), once(), hospital.change(who, ("PUT", &path), &[], &body));
            let mut statuses = [one.status, two.status, three.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 200, 201], "{who}: {} {} {}", one.text(), two.text(), three.text());
            assert_eq!(made(&value), 1, "{who}");
            // Only for whom nothing can be withheld is the EMR told of the condition.
            let told = emr.requests().iter().filter(|asked| asked.header("if-none-exist").is_some()).count();
            assert_eq!(told, usize::from(who == "integration" && three.status != 201), "{who}");
        }
        emr.set_delay(Duration::ZERO);
        // A record that came to the EMR by another way, in between: it is found, and nothing was written.
        let condition = "identifier=urn:example:race%7Cbetween";
        let nothing = json!({"resourceType": "Bundle", "type": "searchset", "total": 0});
        emr.next_answer("/fhir/Observation", Canned::fhir(nothing.to_string()));
        let there = record("between").replacen('{', "{\"id\":\"between\",", 1);
        emr.next_answer("/fhir/Observation", Canned::fhir(there));
        let reply = hospital
            .change(
                "integration",
                ("POST", "Observation"),
                &[("if-none-exist", condition)],
                &record("between"),
            )
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let written = record_of(&hospital, &reply);
        assert_eq!(written["written"].as_array().map_or(0, Vec::len), 0, "{written}");
    });
}

#[test]
fn what_the_emr_answers_is_told_in_our_words() {
    run(async {
        let script = crate::harness::with_integration();
        let script = chartgate::cli::demo::stage::Script {
            replace: vec![("timeout = \"10s\"".to_owned(), "timeout = \"1s\"".to_owned())],
            ..script
        };
        let hospital = Hospital::open(script).await;
        let outcome = r#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid","diagnostics":"CANARY at row 7"}]}"#;
        let words = |status: u16| {
            Canned::status(status).header("content-type", "application/fhir+json").body(outcome)
        };
        let body = fresh(observation("x", "Patient/p1"));
        let cases: Vec<(Canned, u16, &str, bool)> = vec![
            (words(422), 422, "write-refused-upstream", false),
            (words(400), 422, "write-refused-upstream", false),
            (words(409), 409, "conflict", false),
            (words(403), 502, "upstream-answer-unsound", false),
            (words(500), 502, "upstream-answer-unsound", true),
            (words(503), 502, "upstream-answer-unsound", true),
            (Canned::status(302).header("location", "http://CANARY/"), 502, "upstream-redirected", true),
            (Canned::status(201).stall(), 504, "upstream-timed-out", true),
            (
                Canned::fhir("{\"resourceType\":\"Obs")
                    .body_after(std::time::Duration::from_millis(50), "x")
                    .cut_off(),
                502,
                "upstream-cut-off",
                true,
            ),
            (words(200), 502, "upstream-answer-unsound", true),
            (
                Canned::fhir(
                    observation("other", "Patient/p1").to_string().replace("Observation", "Patient"),
                ),
                502,
                "upstream-answer-unsound",
                true,
            ),
        ];
        for (place, (canned, status, code, unknown)) in cases.into_iter().enumerate() {
            hospital.stage.emr().next_answer("/fhir/Observation", canned);
            let mut reply = hospital.change("nurse", ("POST", "Observation"), &[], &body).await;
            reply.what = format!("{place}: {code}");
            reply.check_refusal(status, code);
            assert!(!reply.text().contains("CANARY"), "{place}");
            let record = record_of(&hospital, &reply);
            assert_eq!(record["outcome"] == "unknown", unknown, "{place} {code}: {record}");
        }
        hospital.stage.emr().set_delay(std::time::Duration::from_secs(3));
        let reply = hospital.change("nurse", ("POST", "Observation"), &[], &body).await;
        hospital.stage.emr().set_delay(std::time::Duration::ZERO);
        reply.check_refusal(504, "upstream-timed-out");
        assert_eq!(record_of(&hospital, &reply)["outcome"], "unknown");
    });
}

/// P2 for writes: what is about to be changed is in the trail before the EMR hears of it.
#[test]
fn p2_the_intent_is_durable_before_the_emr_is_asked() {
    run(async {
        let hospital = Arc::new(Hospital::open(crate::harness::with_integration()).await);
        hospital.stage.emr().set_delay(std::time::Duration::from_millis(700));
        let other = Arc::clone(&hospital);
        let body = fresh(observation("x", "Patient/p1"));
        let asked =
            tokio::spawn(async move { other.change("nurse", ("POST", "Observation"), &[], &body).await });
        let posted = || {
            hospital
                .stage
                .emr()
                .requests()
                .iter()
                .any(|one| one.method == "POST" && one.target == "/fhir/Observation")
        };
        assert!(crate::child::until(std::time::Duration::from_secs(10), posted).await);
        let before = hospital.trail();
        let reply = asked.await.unwrap();
        assert_eq!(reply.status, 201, "{}", reply.text());
        let intent = before.iter().find(|record| record["requestId"] == reply.request_id());
        let intent = intent.unwrap_or_else(|| panic!("no intent: {before:?}"));
        assert!(
            intent.to_string().contains("Observation.valueQuantity")
                || intent.to_string().contains("Observation.value"),
            "{intent}"
        );
        assert_eq!(intent["outcome"], "unknown", "{intent}");
        check_complete(&hospital, &reply).await;
        // No record, no write.
        hospital.stage.emr().set_delay(std::time::Duration::ZERO);
        let trail = hospital.stage.folder().join("audit");
        std::fs::rename(&trail, hospital.stage.folder().join("gone")).unwrap();
        let before = hospital.stage.emr().ids("Observation").len();
        let body = fresh(observation("x", "Patient/p1"));
        let refused = hospital.change("nurse", ("POST", "Observation"), &[], &body).await;
        refused.check_refusal(503, "audit-unavailable");
        assert_eq!(hospital.stage.emr().ids("Observation").len(), before, "written without a record");
    });
}
