//! Operations, binaries and capabilities: who may, who may not, and what comes back.
//!
//! Owns: the closed list of operations (KF-27), and that none of them shows more than a read or a search (KF-26, KF-28).
//! Must never: take an operation's answer for good because its rows look right: what is not there is checked too.
//! Look next: `masks`, what of each record leaves; `paging`, links.

use std::collections::BTreeSet;
use std::fs;

use chartgate::cli::demo::stage::{POLICIES, Script};
use chartgate_sandbox::listen::Canned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Hospital, Reply, run};
use crate::paging::next;

/// `Type/id` of every entry, with its mode.
fn rows(reply: &Reply) -> BTreeSet<(String, String)> {
    let bundle = reply.json();
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let row = |entry: &Value| {
        let (kind, id) = (&entry["resource"]["resourceType"], &entry["resource"]["id"]);
        let mode = entry["search"]["mode"].as_str().unwrap_or_default();
        (format!("{}/{}", kind.as_str().unwrap(), id.as_str().unwrap()), mode.to_owned())
    };
    entries.iter().map(row).collect()
}

fn names(reply: &Reply) -> BTreeSet<String> {
    rows(reply).into_iter().map(|(reference, _)| reference).collect()
}

async fn post(hospital: &Hospital, who: &str, path: &str, body: &Value) -> Reply {
    let bearer = format!("Bearer {}", hospital.token(who));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/fhir+json")];
    hospital.ask("POST", path, &headers, &body.to_string()).await
}

/// T-090: names are exact, at their level only, and what is not listed never reaches the EMR.
#[test]
fn kf_27_every_unknown_operation_is_refused() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let token = hospital.token("physician");
        let unknown = [
            "$stats",
            "$meta",
            "$everything",
            "$Everything",
            "$graph",
            "$document",
            "$summary",
            "$convert",
            "$diff",
            "$cql",
            "$evaluate-measure",
            "$populate",
            "$expunge",
            "$reindex",
            "$lastn",
            "$expand",
            "$lookup",
            "$apply",
            "$match",
            "$translate",
            "$subsumes",
            "$process-message",
            "$submit-data",
            "$transform",
            "$validate-code",
        ];
        let mut replies = Vec::new();
        for name in unknown {
            for place in ["", "Observation/obs-weight/", "Practitioner/"] {
                let reply = hospital.get_with(&token, &format!("{place}{name}")).await;
                replies.push((reply, 403, "operation-not-supported"));
            }
        }
        hospital.check_refusals(&replies);
        assert_eq!(hospital.stage.emr().requests().len(), 0, "the EMR heard of one");
    });
}

/// An operation is a right of its own: reading what it gives is not enough.
#[test]
fn kf_27_a_known_operation_needs_its_own_permission() {
    run(async {
        let hospital = Hospital::shared().await;
        let mut replies = Vec::new();
        for who in ["nurse", "front-desk", "billing-clerk", "researcher"] {
            replies.push((hospital.get(who, "Patient/p1/$everything").await, 403, "type-not-permitted"));
        }
        for who in ["front-desk", "billing-clerk", "researcher", "patient"] {
            let reply = hospital.get(who, "Observation/$lastn?patient=p1&category=laboratory").await;
            replies.push((reply, 403, "type-not-permitted"));
            let body = json!({"resourceType": "Observation"});
            replies.push((
                post(&hospital, who, "Observation/$validate", &body).await,
                403,
                "type-not-permitted",
            ));
        }
        hospital.check_refusals(&replies);
    });
}

/// T-091: what names others stays out of a patient's whole record, and so does what only such a record refers to.
#[test]
fn kf_26_everything_is_of_one_patient() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let emr = hospital.stage.emr();
        emr.load_extras().unwrap();
        for id in ["pr-between", "pr-known"] {
            emr.put(
                json!({"resourceType": "Practitioner", "id": id, "name": [{"family": "Test"}]})
                    .to_string()
                    .as_bytes(),
            )
            .unwrap();
        }
        let appointment = |id: &str, who: &[&str]| {
            let actors = who.iter().map(|who| json!({"actor": {"reference": who}, "status": "accepted"}));
            json!({"resourceType": "Appointment", "id": id, "status": "booked", "participant": actors.collect::<Vec<_>>()})
        };
        emr.put(
            appointment("appt-two", &["Patient/p1", "Patient/p2", "Practitioner/pr-between"])
                .to_string()
                .as_bytes(),
        )
        .unwrap();
        emr.put(appointment("appt-one", &["Patient/p1", "Practitioner/pr-known"]).to_string().as_bytes())
            .unwrap();
        let reply = hospital.get("physician", "Patient/p1/$everything").await;
        reply.check_ok();
        let found = rows(&reply);
        let has = |reference: &str, mode: &str| found.contains(&(reference.to_owned(), mode.to_owned()));
        for own in [
            "Patient/p1",
            "Observation/obs-bp",
            "Condition/cond-depression",
            "Appointment/appt-one",
            "List/list-problems",
        ] {
            assert!(has(own, "match"), "{own}: {found:?}");
        }
        for beside in ["Practitioner/pr-known", "Practitioner/pr-nurse", "Organization/org-hospital"] {
            assert!(has(beside, "include"), "{beside}: {found:?}");
        }
        let gone = names(&reply);
        for other in [
            "Appointment/appt-two",
            "Appointment/appt1",
            "Practitioner/pr-between",
            "AllergyIntolerance/allergy-p3",
            "List/list-round",
            "Group/group-ward",
            "Group/group-course",
            "Claim/claim1",
            "Patient/p2",
        ] {
            assert!(!gone.contains(other), "{other}");
        }
        assert!(
            !reply.text().contains("Patient/p2") && !reply.text().contains("\"total\""),
            "{}",
            reply.text()
        );
        modes_are_not_believed(&hospital).await;
        let record = &hospital.check_recorded([&reply])[0];
        assert_eq!(record["interaction"], "operation");
        assert!(record["released"].as_array().unwrap().len() >= found.len());
    });
}

/// An EMR that calls all rows matches makes no difference.
async fn modes_are_not_believed(hospital: &Hospital) {
    let emr = hospital.stage.emr();
    let practitioner = |id: &str| json!({"resourceType": "Practitioner", "id": id});
    let one = serde_json::from_slice::<Value>(&emr.read("Appointment", "appt-one").unwrap()).unwrap();
    let rows_of = [one, practitioner("pr-between"), practitioner("pr-known")];
    let entries: Vec<Value> =
        rows_of.iter().map(|row| json!({"resource": row, "search": {"mode": "match"}})).collect();
    let all_matches = json!({"resourceType": "Bundle", "type": "searchset", "entry": entries}).to_string();
    emr.next_answer("/fhir/Patient/p1/$everything", Canned::fhir(all_matches));
    let told = hospital.get("physician", "Patient/p1/$everything").await;
    let expected = ["Appointment/appt-one", "Practitioner/pr-known"].map(str::to_owned);
    assert_eq!(names(&told), BTreeSet::from(expected), "{}", told.text());
}

/// A foreign id, a missing one and one outside the launch are one and the same (T-161).
#[test]
fn kf_26_everything_of_a_foreign_patient_is_a_missing_one() {
    run(async {
        let hospital = Hospital::shared().await;
        let own = hospital.get("patient", "Patient/p1/$everything").await;
        own.check_ok();
        assert!(
            names(&own).contains("Patient/p1") && names(&own).contains("Observation/obs-hiv"),
            "{:?}",
            names(&own)
        );
        let launch = hospital.stage.issuer().token_with("physician", |claims| {
            claims["scope"] = "launch/patient patient/*.rs".into();
            claims["patient"] = "p1".into();
        });
        let launch = launch.unwrap();
        hospital.get_with(&launch, "Patient/p1/$everything").await.check_ok();
        for token in [hospital.token("patient"), launch] {
            let foreign = hospital.get_with(&token, "Patient/p2/$everything").await;
            let missing = hospital.get_with(&token, "Patient/nobody/$everything").await;
            foreign.check_refusal(404, "not-found");
            assert_eq!(foreign.without_request_id(), missing.without_request_id());
        }
    });
}

#[test]
fn everything_comes_whole_and_in_parts() {
    run(async {
        let hospital = Hospital::shared().await;
        let token = hospital.token("physician");
        let whole = hospital.get_with(&token, "Patient/p1/$everything").await;
        // How it falls into pages would tell of rows that are withheld: it comes whole, whatever the client wishes.
        let page = hospital.get_with(&token, "Patient/p1/$everything?_count=4").await;
        page.check_ok();
        assert_eq!((rows(&page), next(&page)), (rows(&whole), None));
        let part = hospital.get_with(&token, "Patient/p1/$everything?_type=Condition,Immunization").await;
        let kinds: BTreeSet<String> =
            names(&part).iter().map(|name| name.split('/').next().unwrap().to_owned()).collect();
        assert_eq!(kinds, BTreeSet::from(["Condition".to_owned(), "Immunization".to_owned()]));
        let closed = hospital.get_with(&token, "Patient/p1/$everything?_type=Claim").await;
        closed.check_refusal(403, "type-not-permitted");
    });
}

/// The newest of each code among what the caller sees: a withheld newest one leaves no hole (P4).
#[test]
fn kf_28_lastn_is_filtered_like_a_search() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let newer = |id: &str, label: &str, time: &str| {
            json!({"resourceType": "Observation", "id": id, "status": "final",
                "meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": label}]},
                "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category",
                                          "code": "laboratory"}]}],
                "code": {"coding": [{"system": "http://loinc.org", "code": "10839-9"}]},
                "subject": {"reference": "Patient/p1"}, "effectiveDateTime": time})
        };
        let emr = hospital.stage.emr();
        emr.put(newer("obs-new-secret", "R", "2026-02-01").to_string().as_bytes()).unwrap();
        emr.put(newer("obs-old-plain", "N", "2025-02-01").to_string().as_bytes()).unwrap();
        let question = "Observation/$lastn?patient=p1&category=laboratory";
        let (nurse, physician) =
            (hospital.get("nurse", question).await, hospital.get("physician", question).await);
        let troponin = |reply: &Reply| -> Vec<String> {
            names(reply)
                .into_iter()
                .filter(|name| {
                    name.contains("troponin") || name.contains("obs-new") || name.contains("obs-old")
                })
                .collect()
        };
        assert_eq!(troponin(&nurse), ["Observation/obs-troponin"]);
        assert_eq!(troponin(&physician), ["Observation/obs-new-secret"]);
        assert!(
            !names(&nurse).contains("Observation/obs-hiv")
                && names(&physician).contains("Observation/obs-hiv")
        );
        assert_eq!(nurse.json()["total"], names(&nurse).len());
        let two = hospital.get("nurse", &format!("{question}&max=2")).await;
        assert_eq!(troponin(&two), ["Observation/obs-old-plain", "Observation/obs-troponin"]);
        let searched =
            names(&hospital.get("nurse", "Observation?patient=p1&category=laboratory&_count=100").await);
        assert!(names(&two).is_subset(&searched));
        let record = &hospital.check_recorded([&nurse])[0];
        assert_eq!(record["released"].as_array().unwrap().len(), names(&nurse).len());
    });
}

#[test]
fn validation_is_told_in_our_own_words() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let good = json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}});
        let reply = post(&hospital, "nurse", "Observation/$validate", &good).await;
        reply.check_ok();
        let fine = json!([{"severity": "information", "code": "informational"}]);
        assert_eq!(reply.json()["issue"], fine);
        let wrapped = json!({"resourceType": "Parameters", "parameter": [
            {"name": "mode", "valueCode": "create"},
            {"name": "resource", "resource": {"resourceType": "Observation", "code": {"text": "x"}}}]});
        let reply = post(&hospital, "nurse", "Observation/$validate", &wrapped).await;
        reply.check_ok();
        let missing =
            json!([{"severity": "error", "code": "required", "expression": ["Observation.status"]}]);
        assert_eq!(reply.json()["issue"], missing);
        let outcome = r#"{"resourceType":"OperationOutcome","issue":[
            {"severity":"error","code":"not-found","diagnostics":"CANARY"},
            {"severity":"error","code":"invalid","diagnostics":"CANARY","expression":["Observation.subject"]},
            {"severity":"warning","code":"value","details":{"text":"CANARY"},"location":["CANARY"]}]}"#;
        hospital.stage.emr().next_answer("/fhir/Observation/$validate", Canned::fhir(outcome));
        let reply = post(&hospital, "nurse", "Observation/$validate", &good).await;
        assert_eq!(reply.json()["issue"], json!([{"severity": "warning", "code": "value"}]));
        hospital.stage.emr().next_answer("/fhir/Observation/$validate", Canned::fhir("CANARY"));
        let unsound = post(&hospital, "nurse", "Observation/$validate", &good).await;
        let profile = json!({"resourceType": "Parameters", "parameter": [{"name": "profile", "valueUri": "http://x.test"}]});
        let refused = [
            (unsound, 502, "upstream-answer-unsound"),
            (
                post(&hospital, "nurse", "Observation/$validate", &json!({"resourceType": "Patient"})).await,
                400,
                "body-of-other-type",
            ),
            (
                post(&hospital, "nurse", "Observation/$validate", &profile).await,
                400,
                "parameter-not-supported",
            ),
            (
                post(&hospital, "nurse", "Patient/$validate", &json!({"resourceType": "Patient"})).await,
                403,
                "type-not-permitted",
            ),
            (
                post(
                    &hospital,
                    "nurse",
                    "Observation/$validate",
                    &json!({"resourceType": "Observation", "x": 1}),
                )
                .await,
                400,
                "body-unsound",
            ),
        ];
        hospital.check_refusals(&refused);
    });
}

#[test]
fn terminology_is_for_everyone_who_may_come_in() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        hospital.stage.emr().load_extras().unwrap();
        let system = "http://hospital.example/fhir/CodeSystem/wards";
        for who in ["nurse", "billing-clerk", "patient"] {
            let set = "http://hospital.example/fhir/ValueSet/glucose";
            for path in [format!("ValueSet/$expand?url={set}"), "ValueSet/vs-glucose/$expand".to_owned()] {
                let expanded = hospital.get(who, &path).await;
                expanded.check_ok();
                assert_eq!(
                    expanded.json()["expansion"]["contains"][0]["code"],
                    "2339-0",
                    "{who}: {}",
                    expanded.text()
                );
            }
            let found = hospital.get(who, &format!("CodeSystem/$lookup?system={system}&code=m1")).await;
            found.check_ok();
            assert!(found.text().contains("Ward M1"), "{who}: {}", found.text());
        }
        let nothing =
            hospital.get("nurse", &format!("CodeSystem/$lookup?system={system}&code=nonsense")).await;
        let no_set = hospital.get("nurse", "ValueSet/nonsense/$expand").await;
        let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [
            {"request": {"method": "GET", "url": "ValueSet/vs-glucose/$expand"}},
            {"request": {"method": "GET", "url": "Patient/p1/$everything"}},
            {"request": {"method": "GET", "url": "Observation/$stats"}}]});
        let batch = post(&hospital, "nurse", "", &batch).await.json();
        let status =
            |place: usize| batch["entry"][place]["response"]["status"].as_str().unwrap()[..3].to_owned();
        assert_eq!([status(0), status(1), status(2)], ["200", "403", "403"], "{batch}");
        hospital.check_refusals(&[(nothing, 404, "not-found"), (no_set, 404, "not-found")]);
    });
}

/// T-092: what is asked by POST is the same question as by GET, to the last byte, and is asked of the EMR by GET.
#[test]
#[expect(clippy::too_many_lines, reason = "cases as data")]
fn an_operation_asked_by_post_is_the_same_question() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        hospital.stage.emr().load_extras().unwrap();
        let url = "http://hospital.example/fhir/ValueSet/glucose";
        let system = "http://hospital.example/fhir/CodeSystem/wards";
        let cases = [
            (
                "physician",
                "Patient/p1/$everything",
                vec![("_type", json!("Observation")), ("_count", json!(3))],
            ),
            ("physician", "Patient/p1/$everything", vec![]),
            ("physician", "Patient/p3/$everything", vec![("start", json!("2020-01-01"))]),
            ("nurse", "Patient/p1/$everything", vec![("_type", json!("Observation"))]),
            (
                "nurse",
                "Observation/$lastn",
                vec![("patient", json!("p1")), ("category", json!("laboratory")), ("max", json!(2))],
            ),
            ("nurse", "ValueSet/$expand", vec![("url", json!(url))]),
            ("nurse", "ValueSet/vs-glucose/$expand", vec![("filter", json!("glu"))]),
            ("nurse", "CodeSystem/$lookup", vec![("system", json!(system)), ("code", json!("m1"))]),
        ];
        for (who, path, parameters) in cases {
            let query: Vec<String> = parameters
                .iter()
                .map(|(name, value)| {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    format!("{name}={}", crate::harness::encoded(&text))
                })
                .collect();
            let list: Vec<Value> = parameters
                .iter()
                .map(|(name, value)| match value {
                    Value::String(_) => json!({"name": name, "valueString": value}),
                    _ => json!({"name": name, "valueInteger": value}),
                })
                .collect();
            let resource = json!({"resourceType": "Parameters", "parameter": list});
            let got = hospital.get(who, format!("{path}?{}", query.join("&")).trim_end_matches('?')).await;
            hospital.stage.emr().clear_requests();
            let posted = post(&hospital, who, path, &resource).await;
            let methods: BTreeSet<String> =
                hospital.stage.emr().requests().iter().map(|asked| asked.method.clone()).collect();
            assert!(
                methods.is_empty() || methods == BTreeSet::from(["GET".to_owned()]),
                "{path}: {methods:?}"
            );
            let batch = json!({"resourceType": "Bundle", "type": "batch",
                "entry": [{"resource": resource, "request": {"method": "POST", "url": path}}]});
            let batch = post(&hospital, who, "", &batch).await;
            if got.status == 200 {
                let page = |reply: &Reply| {
                    let mut body = reply.json();
                    // A sealed link is another one each time.
                    body.as_object_mut().unwrap().remove("link");
                    body.pointer_mut("/expansion/timestamp").map(Value::take);
                    body
                };
                assert_eq!(page(&posted), page(&got), "{who} {path}");
                let mut inside = batch.json()["entry"][0]["resource"].clone();
                inside.as_object_mut().unwrap().remove("link");
                inside.pointer_mut("/expansion/timestamp").map(Value::take);
                assert_eq!(inside, page(&got), "{who} {path}");
            } else {
                assert_eq!((posted.status, posted.code()), (got.status, got.code()), "{who} {path}");
            }
            let records = hospital.check_recorded([&got, &posted]);
            assert_eq!(records[0]["request"], records[1]["request"], "{path}");
            assert_eq!(records[0]["released"], records[1]["released"], "{path}");
        }
        let body = json!({"resourceType": "Parameters", "parameter": [{"name": "_count", "part": []}]});
        let refused = post(&hospital, "physician", "Patient/p1/$everything", &body).await;
        let unknown = json!({"resourceType": "Parameters", "parameter": [{"name": "x", "valueCode": "y"}]});
        let unknown = post(&hospital, "physician", "Patient/p1/$everything", &unknown).await;
        let large = json!({"resourceType": "Parameters",
            "parameter": [{"name": "x", "valueString": "y".repeat(chartgate::limits::FORM_BYTES_MAX)}]});
        let large = post(&hospital, "physician", "Patient/p1/$everything", &large).await;
        hospital.check_refusals(&[
            (refused, 400, "malformed-parameters"),
            (unknown, 400, "unknown-parameter"),
            (large, 413, "body-too-large"),
        ]);
    });
}

/// The shipped policies open no Binary. These do: whole for two roles, trimmed for a third.
const BINARIES: &str = r#"
@id("test-binary-records")
permit (principal, action in Action::"view", resource is FHIR::Binary)
when { principal in Role::"nurse" || principal in Role::"physician" || principal in Role::"front-desk" || principal in Role::"researcher" };
@id("test-binary-elements")
permit (principal, action == Action::"disclose", resource in FHIR::Element::"Binary")
when { principal in Role::"nurse" || principal in Role::"physician" || principal in Role::"front-desk" };
@id("test-binary-trimmed")
permit (principal in Role::"researcher", action == Action::"disclose", resource in [FHIR::Element::"Binary.data", FHIR::Element::"Binary.contentType", FHIR::Element::"Binary.id"]);
@id("test-document-records")
permit (principal in Role::"front-desk", action in Action::"view", resource is FHIR::DocumentReference);
@id("test-document-elements")
permit (principal in Role::"front-desk", action == Action::"disclose", resource in [FHIR::Element::"DocumentReference.id", FHIR::Element::"DocumentReference.status", FHIR::Element::"DocumentReference.content.attachment.url"]);
"#;

async fn hospital_with_binaries() -> (TempDir, Hospital) {
    let folder = TempDir::new().unwrap();
    for (name, text) in POLICIES.iter().chain(&[("binaries.cedar", BINARIES)]) {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let script = Script { policies: Some(folder.path().to_owned()), ..Script::default() };
    let hospital = Hospital::open(script).await;
    let emr = hospital.stage.emr();
    emr.load_extras().unwrap();
    let html =
        |id: &str| json!({"resourceType": "Binary", "id": id, "contentType": "text/html", "data": "PGI+"});
    emr.put(html("bin-html").to_string().as_bytes()).unwrap();
    let mut guarded = html("bin-guarded");
    guarded["securityContext"] = json!({"reference": "Patient/p6"});
    emr.put(guarded.to_string().as_bytes()).unwrap();
    let document = json!({"resourceType": "DocumentReference", "id": "doc-html", "status": "current",
        "subject": {"reference": "Patient/p2"}, "content": [{"attachment": {"url": "Binary/bin-html"}}]});
    emr.put(document.to_string().as_bytes()).unwrap();
    (folder, hospital)
}

/// T-100: a Binary leaves beside a record that the caller sees; otherwise it is a missing one.
#[test]
fn a_binary_follows_the_record_that_owns_it() {
    run(async {
        let (_folder, hospital) = hospital_with_binaries().await;
        let cases = [
            // In the context of a patient whom both see.
            ("bin-letter", "nurse physician"),
            // A document of restricted psychiatry.
            ("bin-photo", "physician"),
            // A document of which the front desk sees the address alone, and nurses nothing.
            ("bin-html", "physician"),
            // In the context of a patient whose record is very restricted.
            ("bin-guarded", "physician"),
            ("bin-alone", ""),
            ("bin-missing", ""),
        ];
        for (id, who_sees) in cases {
            for who in ["nurse", "physician", "front-desk", "researcher"] {
                let reply = hospital.get(who, &format!("Binary/{id}")).await;
                let sees =
                    who_sees.split(' ').any(|one| one == who) || (who == "front-desk" && id == "bin-letter");
                if sees {
                    reply.check_ok();
                    let stored: Value =
                        serde_json::from_slice(&hospital.stage.emr().read("Binary", id).unwrap()).unwrap();
                    assert_eq!(reply.json()["data"], stored["data"], "{who} {id}");
                } else {
                    let missing = hospital.get(who, "Binary/bin-none").await;
                    reply.check_refusal(404, "not-found");
                    assert_eq!(reply.without_request_id(), missing.without_request_id(), "{who} {id}");
                }
            }
        }
        // An EMR that skips a parameter it does not know (T-019) does not make a document an owner.
        let emr = hospital.stage.emr();
        let document: Value =
            serde_json::from_slice(&emr.read("DocumentReference", "doc-html").unwrap()).unwrap();
        let any = json!({"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": document}]})
            .to_string();
        emr.next_answer("/fhir/DocumentReference", Canned::fhir(any));
        hospital.get("physician", "Binary/bin-alone").await.check_refusal(404, "not-found");
        let reply = hospital.get("physician", "Binary/bin-html").await;
        let record = &hospital.check_recorded([&reply])[0];
        let released = record["released"].as_array().unwrap();
        assert_eq!(released[0]["reference"], "Binary/bin-html");
        assert_eq!(
            (&released[0]["patients"], &released[1]["reference"]),
            (&json!(["p2"]), &json!("DocumentReference/doc-html"))
        );
    });
}

/// No other door lets a Binary out.
#[test]
fn a_binary_has_one_door() {
    run(async {
        let (_folder, hospital) = hospital_with_binaries().await;
        let mark = "RGVhciBjb2xsZWFndWUs";
        let token = hospital.token("physician");
        assert!(hospital.get_with(&token, "Binary/bin-letter").await.text().contains(mark));
        for path in [
            "Binary",
            "Binary?_id=bin-letter",
            "?_type=Binary",
            "Binary/_history",
            "Binary/bin-letter/_history",
            "Binary?_summary=count",
        ] {
            let reply = hospital.get_with(&token, path).await;
            assert!(
                !reply.text().contains(mark) && !reply.text().contains(r#""id":"bin-letter""#),
                "{path}: {}",
                reply.text()
            );
            assert!(!reply.text().contains("\"total\":1"), "{path}: {}", reply.text());
        }
        let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [
            {"request": {"method": "GET", "url": "Binary/bin-alone"}}, {"request": {"method": "GET", "url": "Binary/bin-letter"}}]});
        let batch = post(&hospital, "physician", "", &batch).await.json();
        assert!(batch["entry"][0]["response"]["status"].as_str().unwrap().starts_with("404"), "{batch}");
        assert_eq!(batch["entry"][1]["resource"]["id"], "bin-letter", "{batch}");
    });
}

/// T-101: content leaves as bytes that no browser runs.
/// A Binary sent as its content is judged and stored as the resource that it stands for.
#[test]
fn a_binary_may_be_sent_as_its_content() {
    run(async {
        let hospital = Hospital::open(crate::harness::with_integration()).await;
        let emr = hospital.stage.emr();
        let headers = [("content-type", "application/pdf"), ("x-security-context", "Patient/p1")];
        let made = hospital.change("integration", ("POST", "Binary"), &headers, "%PDF-1 \u{1}").await;
        assert_eq!(made.status, 201, "{}", made.text());
        let id = emr.ids("Binary").into_iter().next_back().unwrap();
        let stored = hospital.stored("Binary", &id);
        assert_eq!(
            (&stored["contentType"], &stored["data"], &stored["securityContext"]),
            (&json!("application/pdf"), &json!("JVBERi0xIAE="), &json!({"reference": "Patient/p1"}))
        );
        // The labels and the context are not the content's to change.
        let mut labelled = stored.clone();
        labelled["meta"] = json!({"security": [{"code": "R"}]});
        emr.put(labelled.to_string().as_bytes()).unwrap();
        let path = format!("Binary/{id}");
        let text = [("content-type", "text/plain; charset=iso-8859-1")];
        let changed = hospital.change("integration", ("PUT", &path), &text, "hello").await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        let stored = hospital.stored("Binary", &id);
        assert_eq!(
            (&stored["contentType"], &stored["data"], &stored["securityContext"]["reference"]),
            (&json!("text/plain; charset=iso-8859-1"), &json!("aGVsbG8="), &json!("Patient/p1"))
        );
        assert_eq!(stored["meta"]["security"][0]["code"], "R");
        let records = hospital.check_recorded([&made, &changed]);
        let written = records[1]["written"][0]["reference"].as_str().unwrap();
        assert!(written.starts_with(&path), "{written}");
        // Whoever may not write a Binary may not write it this way.
        let refused = hospital.change("nurse", ("POST", "Binary"), &headers, "x").await;
        let large = "x".repeat(chartgate::limits::BINARY_CONTENT_BYTES_MAX + 1);
        let large = hospital.change("integration", ("POST", "Binary"), &headers, &large).await;
        let resource = [("content-type", "application/json")];
        let resource = hospital.change("integration", ("POST", "Binary"), &resource, "hello").await;
        hospital.check_refusals(&[
            (refused, 403, "type-not-permitted"),
            (large, 413, "body-too-large"),
            (resource, 400, "body-unsound"),
        ]);
    });
}

#[test]
fn raw_content_is_not_run_by_browsers() {
    run(async {
        let (_folder, hospital) = hospital_with_binaries().await;
        let bearer = format!("Bearer {}", hospital.token("physician"));
        let ask = |path: &'static str, accept: &'static str| {
            let headers = [("authorization", bearer.clone()), ("accept", accept.to_owned())];
            let hospital = &hospital;
            async move {
                let headers: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                hospital.ask("GET", path, &headers, "").await
            }
        };
        for (path, accept, sent) in [
            ("Binary/bin-letter", "text/plain", "text/plain"),
            ("Binary/bin-photo", "image/*", "image/png"),
            ("Binary/bin-html", "text/html", "application/octet-stream"),
        ] {
            let reply = ask(path, accept).await;
            reply.check_ok();
            assert_eq!(reply.header("content-type"), Some(sent), "{path}");
            assert_eq!(reply.header("content-disposition"), Some("attachment"));
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(reply.header("content-security-policy"), Some("sandbox; default-src 'none'"));
        }
        assert_eq!(ask("Binary/bin-html", "text/html").await.body, "<b>");
        ask("Binary/bin-alone", "text/plain").await.check_refusal(404, "not-found");
    });
}

#[test]
fn the_capability_statement_is_what_both_serve() {
    run(async {
        let hospital = Hospital::shared().await;
        let reply = hospital.ask("GET", "metadata", &[], "").await;
        reply.check_ok();
        let text = reply.text();
        let _valid: fhirkit::r4::CapabilityStatement = fhirkit::from_json_strict(&text).unwrap();
        assert!(!text.contains("sandbox EMR") && !text.contains("synthetic data"), "{text}");
        let statement = reply.json();
        let resources = statement["rest"][0]["resource"].as_array().unwrap();
        let of = |name: &str| resources.iter().find(|resource| resource["type"] == name).unwrap();
        let codes = |list: &Value, member: &str| -> BTreeSet<String> {
            list.as_array().unwrap().iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
        };
        assert!(codes(&of("Patient")["interaction"], "code").contains("patch"));
        assert!(codes(&of("Patient")["operation"], "name").contains("everything"));
        assert!(!codes(&of("Subscription")["interaction"], "code").contains("create"));
        assert!(codes(&statement["rest"][0]["interaction"], "code").contains("transaction"));
        let services = &statement["rest"][0]["security"]["service"];
        assert_eq!(services[0]["coding"][0]["code"], "SMART-on-FHIR");
        // Whoever asks again and again does not make us ask the EMR.
        hospital.ask("GET", "metadata", &[], "").await.check_ok();
        assert_eq!(
            hospital.stage.emr().requests().iter().filter(|one| one.target.ends_with("/metadata")).count(),
            1
        );
    });
}

#[test]
fn an_emr_that_says_nothing_is_promised_little() {
    run(async {
        let script = Script { upstream: Some("http://127.0.0.1:9/fhir".to_owned()), ..Script::default() };
        let hospital = Hospital::open(script).await;
        let reply = hospital.ask("GET", "metadata", &[], "").await;
        reply.check_ok();
        let statement = reply.json();
        let patient = json!([{"code": "read"}, {"code": "search-type"}]);
        let resources = statement["rest"][0]["resource"].as_array().unwrap();
        assert!(resources.iter().all(|resource| resource["interaction"] == patient));
        assert_eq!(statement["rest"][0].get("operation"), None);
    });
}
