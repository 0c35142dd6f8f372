//! Batches and transactions (T-053, T-054, T-083 to T-085): every entry is a request of its own.
//!
//! Owns: what a Bundle of requests may and may not do, and that each entry has its record (KF-53).
//! Must never: look at the answer alone: what reached the EMR counts.
//! Look next: `writes`, the same changes alone.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Hospital, Reply, check_recorded, run};
use crate::writes::{observation, patient};

fn bundle(kind: &str, entries: Vec<Value>) -> String {
    json!({"resourceType": "Bundle", "type": kind, "entry": entries}).to_string()
}

fn get(url: &str) -> Value {
    json!({"request": {"method": "GET", "url": url}})
}

fn entry(method: &str, url: &str, mut resource: Value) -> Value {
    if method == "POST" {
        resource.as_object_mut().unwrap().remove("id");
    }
    json!({"resource": resource, "request": {"method": method, "url": url}})
}

/// An Observation that a nurse may write.
fn plain(id: &str) -> Value {
    let mut record = observation(id, "Patient/p1");
    record.as_object_mut().unwrap().remove("extension");
    record
}

async fn ask(hospital: &Hospital, who: &str, body: &str) -> Reply {
    hospital.change(who, ("POST", ""), &[], body).await
}

fn statuses(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let bundle = reply.json();
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["response"]["status"].as_str().unwrap().to_owned()).collect()
}

fn code(entry: &Value) -> &str {
    entry["response"]["outcome"]["issue"][0]["details"]["coding"][0]["code"].as_str().unwrap_or("")
}

/// What a nurse does not see of the charts in use.
fn check_no_secret(reply: &Reply) {
    for secret in ["SECRET-extension", "SECRET-maiden", "SECRET-marital", "mrn-"] {
        assert!(!reply.text().contains(secret), "{secret}: {}", reply.text());
    }
}

/// The records of a Bundle's entries, in their order.
fn entry_records(trail: &[Value], reply: &Reply) -> Vec<Value> {
    let mut records: Vec<Value> = trail
        .iter()
        .filter(|record| record["requestId"] == reply.request_id() && record["decision"].is_string())
        .filter(|record| record["entry"].is_number())
        .cloned()
        .collect();
    records.sort_by_key(|record| record["entry"].as_u64());
    records
}

/// Bodies of changes that reached the EMR and hold `mark`.
fn written(hospital: &Hospital, mark: &str) -> usize {
    let requests = hospital.stage.emr().requests();
    let changes = requests.iter().filter(|one| one.method != "GET");
    changes
        .filter(|one| String::from_utf8_lossy(&one.body).contains(mark) || one.target.contains(mark))
        .count()
}

/// Allowed, refused and malformed entries side by side: each has its answer, in order, and its record.
#[test]
fn kf53_a_batch_is_answered_and_recorded_entry_by_entry() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("batch"));
        hospital.store(&observation("batch", "Patient/p1"));
        let mut hidden = observation("batch-hidden", "Patient/p1");
        hidden["meta"] = json!({"security": [{"code": "R"}]});
        hospital.store(&hidden);
        let entries = vec![
            get("Patient/batch"),
            get("Claim?status=active"),
            entry("POST", "Observation", plain("x")),
            entry("PUT", "Observation/batch", plain("batch")),
            get("Observation/batch-hidden"),
            get("Observation/never"),
            json!({"request": {"method": "DELETE", "url": "Observation/batch"}}),
            json!({"request": {"method": "FROBNICATE", "url": "Observation/batch"}}),
            json!({"request": {"method": "GET", "url": "Observation?nonsense=1"}}),
            json!({"request": {"method": "POST", "url": "Observation"}}),
            get("metadata"),
            get("https://elsewhere.example/fhir/Patient/p1"),
            get("../Patient/p1"),
            get("Patient?_count=1&_elements=name"),
            json!({"request": {"method": "GET", "url": "Observation/batch", "ifNoneMatch": "W/\"1\""}}),
            get("$export"),
        ];
        let count = entries.len();
        let reply = ask(&hospital, "nurse", &bundle("batch", entries)).await;
        let answered = reply.json();
        assert_eq!(answered["type"], "batch-response", "{}", reply.text());
        let statuses = statuses(&reply);
        let expected = [
            "200", "403", "201", "200", "404", "404", "403", "4", "400", "400", "200", "4", "4", "200",
            "200", "4",
        ];
        assert_eq!(statuses.len(), count);
        for (place, (status, expected)) in statuses.iter().zip(expected).enumerate() {
            assert!(
                status.starts_with(expected),
                "{place}: {status} instead of {expected}: {}",
                answered["entry"][place]
            );
        }
        // Filtered like a read, and what is withheld sounds like what is not there.
        check_no_secret(&reply);
        assert_eq!(answered["entry"][0]["resource"]["name"][0]["family"], "Doors");
        assert_eq!(code(&answered["entry"][4]), code(&answered["entry"][5]));
        let location = answered["entry"][2]["response"]["location"].as_str().unwrap();
        assert!(location.starts_with(hospital.stage.base_url()), "{location}");
        assert!(hospital.stored("Observation", "batch").to_string().contains("SECRET-extension"), "merged");
        // KF-36: the shape holds in here as well.
        let row = &answered["entry"][13]["resource"]["entry"][0]["resource"];
        assert!(row["name"].is_array() && row["gender"].is_null() && row["contact"].is_null(), "{row}");
        let trail = hospital.trail();
        check_recorded(&trail, [&reply]);
        let records = entry_records(&trail, &reply);
        assert_eq!(records.len(), count, "one record for each entry");
        for (record, entry) in records.iter().zip(answered["entry"].as_array().unwrap()) {
            let refused = entry["response"]["status"].as_str().unwrap() >= "400";
            assert_eq!(record["decision"], if refused { "refuse" } else { "permit" }, "{record}");
            assert_eq!(record["reason"].as_str().unwrap_or(""), code(entry), "{record}");
        }
        assert_eq!(records[0]["released"][0]["reference"], "Patient/batch");
        assert_eq!(
            (&records[2]["interaction"], &records[3]["interaction"]),
            (&json!("create"), &json!("update"))
        );
        assert_eq!(records[1]["released"], json!([]));
    });
}

/// T-083: one refused entry refuses all; nothing reaches the EMR, and every entry's record says so.
#[test]
fn t083_one_refused_entry_refuses_a_transaction() {
    run(async {
        let hospital = Hospital::doors().await;
        let mut marked = plain("x");
        marked["note"] = json!([{"text": "atomic-mark"}]);
        let good = entry("POST", "Observation", marked);
        let mut secret = plain("x");
        secret["extension"] = json!([{"url": "urn:x", "valueString": "y"}]);
        let refused = [
            (json!({"request": {"method": "DELETE", "url": "Observation/obs-weight"}}), 403),
            (entry("PUT", "Observation/never-there", plain("never-there")), 404),
            (entry("POST", "Observation", secret), 403),
            (entry("POST", "Claim", json!({"resourceType": "Claim"})), 403),
            (entry("POST", "Observation", json!({"resourceType": "Observation", "nonsense": 1})), 400),
            (get("Claim?status=active"), 403),
            (get("Observation?nonsense=1"), 400),
            (json!({"request": {"method": "FROBNICATE", "url": "Observation"}}), 0),
            (json!({"fullUrl": "urn:uuid:0"}), 400),
        ];
        let mut replies = Vec::new();
        for (bad, status) in refused {
            for entries in [vec![good.clone(), bad.clone()], vec![bad.clone(), good.clone()]] {
                let mut reply = ask(&hospital, "nurse", &bundle("transaction", entries)).await;
                reply.what = bad.to_string();
                assert!(
                    reply.status >= 400 && (status == 0 || reply.status == status),
                    "{bad}: {}",
                    reply.text()
                );
                let code = reply.code();
                reply.check_refusal(reply.status, &code);
                replies.push(reply);
            }
        }
        assert_eq!(written(&hospital, "atomic-mark"), 0, "a part was written");
        let trail = hospital.trail();
        check_recorded(&trail, &replies);
        for reply in replies.iter().filter(|reply| !reply.what.contains("nonsense\":1")) {
            let records = entry_records(&trail, reply);
            assert_eq!(records.len(), 2, "{}: {records:?}", reply.what);
            assert!(records.iter().all(|record| record["decision"] == "refuse"), "{records:?}");
            assert!(records.iter().all(|record| record["reason"] == reply.code().as_str()), "{records:?}");
            assert!(records.iter().all(|record| record["released"] == json!([])), "{records:?}");
        }
    });
}

/// New records that refer to each other, one that is found by its condition, a merged update, a patch, and a read.
#[test]
fn a_transaction_is_judged_merged_and_answered_in_order() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("trans"));
        let mut there = observation("trans-found", "Patient/trans");
        there["identifier"] = json!([{"system": "urn:example:cond", "value": "trans-found"}]);
        hospital.store(&there);
        hospital.store(&observation("trans-put", "Patient/trans"));
        hospital.store(&observation("trans-patch", "Patient/trans"));
        let (first, second) = (
            "urn:uuid:11111111-1111-4111-8111-111111111111",
            "urn:uuid:22222222-2222-4222-8222-222222222222",
        );
        let mut new = entry("POST", "Observation", plain("x"));
        new["fullUrl"] = json!(first);
        let mut member = plain("x");
        member["hasMember"] = json!([{"reference": first}, {"reference": second}]);
        let mut found = entry("POST", "Observation", plain("x"));
        found["fullUrl"] = json!(second);
        found["request"]["ifNoneExist"] = json!("identifier=urn:example:cond|trans-found");
        let mut put = plain("trans-put");
        put["note"] = json!([{"text": "by transaction"}]);
        put["subject"]["reference"] = json!("Patient/trans");
        let patch = json!({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [
            {"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": "Observation.status"}, {"name": "value", "valueCode": "amended"}]}]});
        let entries = vec![
            get("Observation/trans-put"),
            entry("POST", "Observation", member),
            found,
            entry("PUT", "Observation/trans-put", put),
            new,
            entry("PATCH", "Observation/trans-patch", patch),
            get("Patient/trans"),
        ];
        let reply = ask(&hospital, "nurse", &bundle("transaction", entries)).await;
        assert_eq!(statuses(&reply), ["200", "201", "200", "200", "201", "200", "200"], "{}", reply.text());
        let answered = reply.json();
        assert_eq!(answered["type"], "transaction-response");
        check_no_secret(&reply);
        assert_eq!(answered["entry"][0]["resource"]["note"][0]["text"], "by transaction", "reads come last");
        let id_at = |place: usize| {
            let location = answered["entry"][place]["response"]["location"].as_str().unwrap().to_owned();
            let rest = location
                .strip_prefix(&format!("{}/Observation/", hospital.stage.base_url()))
                .unwrap()
                .to_owned();
            rest.split('/').next().unwrap().to_owned()
        };
        assert_eq!(id_at(2), "trans-found");
        let members = hospital.stored("Observation", &id_at(1));
        assert_eq!(members["hasMember"][0]["reference"], format!("Observation/{}", id_at(4)));
        assert_eq!(members["hasMember"][1]["reference"], "Observation/trans-found");
        let merged = hospital.stored("Observation", "trans-put");
        assert!(
            merged.to_string().contains("SECRET-extension") && merged.to_string().contains("by transaction")
        );
        let patched = hospital.stored("Observation", "trans-patch");
        assert!(
            patched["status"] == "amended" && patched.to_string().contains("SECRET-extension"),
            "{patched}"
        );
        let trail = hospital.trail();
        assert_eq!(check_recorded(&trail, [&reply])[0]["interaction"], "transaction");
        let records = entry_records(&trail, &reply);
        let codes: Vec<&str> = records.iter().map(|record| record["interaction"].as_str().unwrap()).collect();
        assert_eq!(codes, ["read", "create", "create", "update", "create", "patch", "read"]);
        assert!(records.iter().all(|record| record["decision"] == "permit"));
        assert_eq!(records[0]["released"].as_array().unwrap().len(), 1);
    });
}

/// KF-47, T-085: a name inside the Bundle for a record that is there is judged as that record.
#[test]
fn t085_names_inside_a_transaction_hide_nobody() {
    run(async {
        let hospital = Hospital::doors().await;
        let name = "urn:uuid:33333333-3333-4333-8333-333333333333";
        let mut other = entry("POST", "Patient", json!({"resourceType": "Patient", "active": true}));
        other["fullUrl"] = json!(name);
        other["request"]["ifNoneExist"] = json!("_id=p2");
        let answers = json!({"resourceType": "QuestionnaireResponse", "status": "completed", "subject": {"reference": name}});
        let bearer = hospital.stage.issuer().token_with("patient", |claims| {
            claims["roles"] = json!(["integration"]);
            claims["purpose_of_use"] = json!("TREAT");
            claims["scope"] = json!("launch/patient patient/*.cruds");
        });
        let bearer = format!("Bearer {}", bearer.unwrap());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/fhir+json")];
        let body = bundle("transaction", vec![other, entry("POST", "QuestionnaireResponse", answers)]);
        let reply = hospital.ask("POST", "", &headers, &body).await;
        assert_eq!(reply.status, 403, "{}", reply.text());
        assert_eq!(written(&hospital, name), 0);
    });
}

#[test]
fn what_is_no_bundle_of_requests_is_refused() {
    run(async {
        let hospital = Hospital::doors().await;
        let many: Vec<Value> =
            (0..=chartgate::limits::BUNDLE_ENTRIES_MAX).map(|_| get("Patient/p1")).collect();
        let twice = vec![
            entry("PUT", "Observation/obs-weight", plain("obs-weight")),
            entry("PUT", "Observation/obs-weight", plain("obs-weight")),
        ];
        let cases = [
            (bundle("batch", many.clone()), 413, "bundle-too-long"),
            (bundle("transaction", many), 413, "bundle-too-long"),
            (bundle("collection", vec![]), 400, "bundle-not-understood"),
            (bundle("searchset", vec![]), 400, "bundle-not-understood"),
            (json!({"resourceType": "Bundle"}).to_string(), 400, "*"),
            (json!({"resourceType": "Patient"}).to_string(), 400, "bundle-not-understood"),
            (bundle("transaction", twice), 400, "bundle-not-understood"),
            ("[]".to_owned(), 400, "body-unsound"),
            // T-084: a Bundle of requests inside one.
            (
                bundle(
                    "transaction",
                    vec![
                        get("Patient/p1"),
                        entry("POST", "", json!({"resourceType": "Bundle", "type": "transaction"})),
                    ],
                ),
                400,
                "*",
            ),
        ];
        let mut replies = Vec::new();
        for (body, status, code) in &cases {
            let reply = ask(&hospital, "integration", body).await;
            assert_eq!(
                (reply.status, *code == "*" || reply.code() == *code),
                (*status, true),
                "{body:.80}: {}",
                reply.text()
            );
            replies.push(reply);
        }
        hospital.check_recorded(&replies);
        for kind in ["batch", "transaction"] {
            let empty =
                ask(&hospital, "nurse", &json!({"resourceType": "Bundle", "type": kind}).to_string()).await;
            assert_eq!((empty.status, &empty.json()["type"]), (200, &json!(format!("{kind}-response"))));
        }
    });
}

/// T-084: a Bundle of requests in an entry of a batch is that entry's fault, whatever the entry asks; the others are
/// answered. A validation is a request like any other.
#[test]
fn t084_one_entry_of_a_batch_is_refused_alone() {
    run(async {
        let hospital = Hospital::doors().await;
        let inner = |kind: &str| {
            let secret = entry("POST", "Observation", plain("NESTED-MARK"));
            json!({"resourceType": "Bundle", "type": kind, "entry": [secret]})
        };
        let sound = plain("x");
        let body = bundle(
            "batch",
            vec![
                get("Patient/p1"),
                entry("POST", "", inner("batch")),
                entry("POST", "Bundle", inner("transaction")),
                entry("POST", "Patient/p1/$everything", inner("batch")),
                entry("POST", "Observation/$validate", sound),
                get("Patient/p1"),
            ],
        );
        let reply = ask(&hospital, "integration", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let found: Vec<String> = statuses(&reply).into_iter().map(|status| status[..3].to_owned()).collect();
        assert_eq!(found, ["200", "403", "403", "403", "200", "200"], "{}", reply.text());
        let entries = reply.json();
        for place in 1..4 {
            assert_eq!(code(&entries["entry"][place]), "nested-not-supported", "{place}");
        }
        assert_eq!(entries["entry"][4]["resource"]["resourceType"], "OperationOutcome", "{}", reply.text());
        assert_eq!(hospital.upstream_saw("NESTED-MARK"), 0);
        let records = entry_records(&hospital.trail(), &reply);
        assert_eq!(records.len(), 6);
        assert_eq!(records[1]["reason"], "nested-not-supported");
        let empty = json!({"request": {"method": "POST", "url": "Observation/$validate"}});
        let reply = ask(&hospital, "integration", &bundle("batch", vec![empty])).await;
        assert_eq!(code(&reply.json()["entry"][0]), "bundle-not-understood", "{}", reply.text());
        let transaction = vec![get("Patient/p1"), entry("POST", "", inner("batch"))];
        let reply = ask(&hospital, "integration", &bundle("transaction", transaction)).await;
        reply.check_refusal(400, "body-unsound");
    });
}

/// What the EMR says of a transaction; nobody knows whether it was made when it does not say so.
#[test]
fn a_transaction_that_the_emr_does_not_answer_well_is_unknown() {
    run(async {
        use chartgate_sandbox::listen::Canned;
        let hospital = Arc::new(Hospital::open(crate::harness::with_integration()).await);
        let body = bundle("transaction", vec![entry("POST", "Observation", plain("x"))]);
        let cases = [
            (Canned::status(422).body("CANARY"), 422, "write-refused-upstream", false),
            (Canned::status(500).body("CANARY"), 502, "upstream-answer-unsound", true),
            (
                Canned::fhir(r#"{"resourceType":"Bundle","type":"transaction-response"}"#),
                502,
                "upstream-answer-unsound",
                true,
            ),
            (
                Canned::fhir(
                    r#"{"resourceType":"Bundle","type":"searchset","entry":[{"response":{"status":"201"}}]}"#,
                ),
                502,
                "upstream-answer-unsound",
                true,
            ),
            (
                Canned::fhir(
                    r#"{"resourceType":"Bundle","type":"transaction-response","entry":[{"response":{"status":"422 CANARY"}}]}"#,
                ),
                502,
                "upstream-answer-unsound",
                true,
            ),
        ];
        for (canned, status, code, unknown) in cases {
            hospital.stage.emr().next_answer("/fhir", canned);
            let reply = ask(&hospital, "nurse", &body).await;
            reply.check_refusal(status, code);
            assert!(!reply.text().contains("CANARY"), "{}", reply.text());
            let trail = hospital.trail();
            let whole = check_recorded(&trail, [&reply]).remove(0);
            assert_eq!(whole["outcome"] == "unknown", unknown, "{whole}");
            let records = entry_records(&trail, &reply);
            assert_eq!((records.len(), records[0]["outcome"] == "unknown"), (1, unknown), "{records:?}");
        }
        // A conflict is tried again: then it is done.
        hospital.stage.emr().next_answer("/fhir", Canned::status(409));
        let reply = ask(&hospital, "nurse", &body).await;
        assert_eq!(statuses(&reply), ["201"]);
        for _ in 0..8 {
            hospital.stage.emr().next_answer("/fhir", Canned::status(412));
        }
        let reply = ask(&hospital, "nurse", &body).await;
        reply.check_refusal(409, "conflict");
    });
}
