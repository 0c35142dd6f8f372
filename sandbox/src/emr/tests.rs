//! Tests of the EMR: search semantics as a table, paging, byte fidelity, versions, transactions, faults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use serde_json::Value;

use super::*;
use crate::charts;
use crate::web::{exchange, query as encode_query};

pub(super) fn charted() -> Emr {
    let emr = Emr::new();
    charts::load(&emr).unwrap();
    emr
}

/// The ids of a search through the library, in order; included ones after a `+`.
pub(super) fn found(emr: &Emr, resource_type: &str, question: &str) -> String {
    let asked = crate::web::pairs(question);
    let bundle =
        query::search(&emr.store(), "http://h/fhir", &query::Scope::of_type(resource_type), &asked, true);
    let bundle = match bundle {
        Ok(bundle) => bundle,
        Err(refused) => return format!("refused: {}", refused.0),
    };
    let bundle: Value = serde_json::from_slice(&bundle).unwrap();
    let Some(entries) = bundle["entry"].as_array() else { return String::new() };
    let name = |entry: &Value| {
        let mark = if entry["search"]["mode"] == "include" { "+" } else { "" };
        format!("{mark}{}", entry["resource"]["id"].as_str().unwrap())
    };
    entries.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// Type, question, and the ids it finds.
const QUESTIONS: &[(&str, &str, &str)] = &[
    // Strings: start, case, whole words of a name, exact, contains.
    ("Patient", "family=beis", "p1 p5"),
    ("Patient", "family:exact=beispiel", ""),
    ("Patient", "family:exact=Beispiel", "p1 p5"),
    ("Patient", "name:contains=PIEL", "p1 p5"),
    ("Patient", "name=piel", ""),
    ("Patient", "given=Testa,Placida", "p1 p2"),
    ("Patient", "given=J%C3%BCrg", "p1"),
    ("Patient", "address-city=othe", "p2 p3 p4 p5 p6"),
    ("Patient", "address=12%20Example", "p1"),
    // Tokens.
    ("Patient", "identifier=urn:example:mrn|0000-1111", "p1"),
    ("Patient", "identifier=0000-1111", "p1"),
    ("Patient", "identifier=urn:example:other|0000-1111", ""),
    ("Patient", "identifier=urn:example:national-id|", "p1"),
    ("Patient", "gender=male", "p3 p6"),
    ("Patient", "gender:not=female", "p3 p4 p5 p6"),
    ("Patient", "phone=555-0123", "p1"),
    ("Patient", "phone=testa@beispiel.example", ""),
    ("Patient", "email=testa@beispiel.example", "p1"),
    ("Patient", "_id=p2,p3,p2", "p2 p3"),
    ("Patient", "_security=V", "p6"),
    ("Condition", "_security=http://terminology.hl7.org/CodeSystem/v3-ActCode|PSY", "cond-depression"),
    ("Condition", "clinical-status=active&patient=p1", "cond-diabetes cond-depression"),
    ("Condition", "code:text=diabetes", "cond-diabetes cond-p2"),
    ("Patient", "deceased:missing=true", "p2 p3 p4 p5"),
    ("Patient", "general-practitioner:missing=false", "p1 p2"),
    // Dates: partial values are ranges.
    ("Patient", "birthdate=1980", "p1"),
    ("Patient", "birthdate=1980-02-29", "p1"),
    ("Patient", "birthdate=1980-02-28", ""),
    ("Patient", "birthdate=ge1992", "p3 p4 p5"),
    ("Patient", "birthdate=lt1980", "p2 p6"),
    ("Patient", "birthdate=gt1960&birthdate=le1980-12-31", "p1 p2"),
    ("Patient", "birthdate=ne1992", "p1 p2 p4 p5 p6"),
    ("Encounter", "date=ge2026-02", "enc2"),
    ("Encounter", "date=2026-01-10", "enc1"),
    // A wider value does not equal a narrower one, and a stay without an end has none.
    ("Patient", "birthdate=1992-06", ""),
    ("Encounter", "date=2026-01", "enc1"),
    ("Encounter", "date=eb2026-01-11", "enc1"),
    ("Observation", "date=2026-01-14T21:45%2B01:00&patient=p1", "obs-troponin obs-potassium"),
    ("Observation", "date=2026-01-14T20:45:00Z", "obs-troponin obs-potassium"),
    ("Patient", "_lastUpdated=gt2026-01-31", "p1"),
    // References in every form.
    ("Encounter", "patient=p1", "enc1 enc2"),
    ("Encounter", "patient=Patient/p1", "enc1 enc2"),
    ("Encounter", "subject=http://elsewhere.example/fhir/Patient/p1", "enc1 enc2"),
    ("Encounter", "subject:Patient=p1", "enc1 enc2"),
    ("Encounter", "subject:Group=p1", ""),
    ("Encounter", "patient=Group/p1", ""),
    ("Appointment", "patient=p2", "appt1"),
    ("Appointment", "patient=pr-nurse", ""),
    ("Appointment", "practitioner=pr-nurse", "appt1"),
    ("CareTeam", "participant=Practitioner/pr-nurse", "team1"),
    // Quantities.
    ("Observation", "value-quantity=0.01|http://unitsofmeasure.org|ng/mL", "obs-troponin"),
    ("Observation", "value-quantity=gt2||ng/mL", "obs-p6-troponin"),
    ("Observation", "value-quantity=100", "obs-wrong"),
    ("Observation", "code=8867-4&value-quantity=le64", "obs-p4-heartrate"),
    ("Observation", "component-value-quantity=ge128", "obs-bp"),
    ("Observation", "combo-code=8480-6", "obs-bp"),
    // Chains.
    ("Observation", "code=4548-4&patient.family=Exemplo", "obs-p2-hba1c"),
    ("Observation", "code=4548-4&subject:Patient.birthdate=1980-02-29", "obs-hba1c"),
    ("Patient", "_has:Observation:patient:code=2339-0", "p1 p2"),
    ("Patient", "_has:Condition:subject:_security=PSY", "p1"),
    // Order.
    ("Patient", "_sort=birthdate", "p6 p2 p1 p3 p4 p5"),
    ("Patient", "_sort=-birthdate", "p5 p4 p3 p1 p2 p6"),
    ("Patient", "_sort=family,-birthdate", "p5 p1 p2 p3 p4 p6"),
    ("Patient", "_sort=-gender,_id", "p5 p4 p3 p6 p1 p2"),
    // Includes.
    ("Encounter", "_id=enc1&_include=Encounter:subject", "enc1 +p1"),
    ("Encounter", "_id=enc1&_include=Encounter:*", "enc1 +pr-physician +p1 +org-hospital"),
    ("Encounter", "_id=enc1&_include=Encounter:subject:Group", "enc1"),
    ("Patient", "_id=p2&_revinclude=Condition:subject", "p2 +cond-p2"),
    (
        "Claim",
        "_include=Claim:patient&_include:iterate=Patient:general-practitioner",
        "claim1 +p1 +pr-physician",
    ),
    ("Claim", "_include=Claim:patient&_include=Patient:general-practitioner", "claim1 +p1"),
    // Faults.
    ("Patient", "shoe-size=43", "refused: unknown search parameter shoe-size"),
    ("Patient", "birthdate=yesterday", "refused: search parameter birthdate not understood"),
    ("Patient", "family:near=x", "refused: search parameter family:near not understood"),
    ("Patient", "_cursor=%25", "refused: cursor not understood"),
    ("Patient", "_sort=shoe-size", "refused: unknown search parameter _sort"),
    ("Vehicle", "_id=1", ""),
];

#[test]
fn search_semantics() {
    let emr = charted();
    for (resource_type, question, expected) in QUESTIONS {
        assert_eq!(found(&emr, resource_type, question), *expected, "{resource_type}?{question}");
    }
}

#[test]
fn bytes_stay_as_loaded() {
    let emr = Emr::new();
    let whole = "{ \"resourceType\":\"Observation\", \"valueQuantity\":{\"value\": 0.010},\"id\":\"a\",\r\n\"note\":\"\\u00e9\\/\",\"meta\":{\"lastUpdated\":\"2026-01-01T00:00:00Z\",\"versionId\":\"7\"},\"z\":1E2 }";
    assert_eq!(emr.put(whole.as_bytes()).unwrap().version, "7");
    assert_eq!(emr.read("Observation", "a").unwrap(), whole.as_bytes(), "both stamps there: untouched");
    emr.set_time(Some("2026-05-05T05:05:05.5Z".parse().unwrap()));
    let cases = [
        (
            r#"{"z":0.010,"resourceType":"Basic" ,"a":"\u00e9"}"#,
            r#"{"z":0.010,"resourceType":"Basic","id":"s1","meta":{"versionId":"1","lastUpdated":"2026-05-05T05:05:05.500Z"} ,"a":"\u00e9"}"#,
        ),
        (
            r#"{"resourceType":"Basic","id":"b","meta": { "tag":[] },"x":1.0}"#,
            r#"{"resourceType":"Basic","id":"b","meta": {"versionId":"1","lastUpdated":"2026-05-05T05:05:05.500Z", "tag":[] },"x":1.0}"#,
        ),
        (
            r#"{"resourceType":"Basic","id":"b","meta":{}}"#,
            r#"{"resourceType":"Basic","id":"b","meta":{"versionId":"2","lastUpdated":"2026-05-05T05:05:05.500Z"}}"#,
        ),
        (
            r#"{"resourceType":"Basic","meta":{"versionId":"2"},"id":"b"}"#,
            r#"{"resourceType":"Basic","meta":{"lastUpdated":"2026-05-05T05:05:05.500Z","versionId":"3"},"id":"b"}"#,
        ),
    ];
    for (given, expected) in cases {
        let stored = emr.put(given.as_bytes()).unwrap();
        let (name, id) = stored.reference.split_once('/').unwrap();
        assert_eq!(emr.read(name, id).unwrap(), expected.as_bytes());
    }
    assert_eq!(emr.ids("Basic"), ["s1", "b"]);
}

#[test]
fn broken_resources_are_not_taken() {
    let emr = Emr::new();
    for broken in [
        "",
        "[]",
        "{}",
        "{\"resourceType\":1}",
        "{\"resourceType\":\"Basic\",\"id\":\"a/b\"}",
        "{\"resourceType\":\"basic\"}",
        "{\"resourceType\":\"Basic\",\"id\":\"a\",\"id\":\"b\"}",
        "{\"resourceType\":\"Basic\"",
    ] {
        assert_eq!(emr.put(broken.as_bytes()), Err(LoadError::NotAResource), "{broken}");
    }
    assert_eq!(emr.load_transaction(b"{\"resourceType\":\"Patient\"}"), Err(LoadError::NotABundle));
    let half = br#"{"resourceType":"Bundle","type":"transaction","entry":[
        {"resource":{"resourceType":"Basic","id":"a"},"request":{"method":"PUT","url":"Basic/a"}},
        {"request":{"method":"DELETE","url":"Basic/a"}}]}"#;
    assert_eq!(emr.load_transaction(half), Err(LoadError::UnsupportedEntry));
    assert!(emr.census().is_empty(), "nothing of a broken bundle is stored");
}

#[test]
fn transactions_resolve_temporary_addresses() {
    let emr = Emr::new();
    let bundle = r#"{"resourceType":"Bundle","type":"transaction","entry":[
      {"fullUrl":"urn:uuid:aa-1","resource":{"resourceType":"Patient","identifier":[{"system":"s","value":"1"}]},"request":{"method":"POST","url":"Patient"}},
      {"fullUrl":"urn:uuid:aa-2","resource":{"resourceType":"Observation","subject":{"reference" : "urn:uuid:aa-1"},
        "identifier":[{"value":"urn:uuid:aa-1"}],"note":"\"reference\": \"urn:uuid:aa-1\"","performer":[{"reference":"Patient?identifier=s|1"}],
        "focus":{"reference":"urn:uuid:unknown"}},"request":{"method":"POST","url":"Observation"}}]}"#;
    assert_eq!(emr.load_transaction(bundle.as_bytes()).unwrap(), 2);
    let text = String::from_utf8(emr.read("Observation", "aa-2").unwrap().to_vec()).unwrap();
    assert!(text.contains(r#""subject":{"reference" : "Patient/aa-1"}"#), "{text}");
    assert!(text.contains(r#"{"value":"urn:uuid:aa-1"}"#), "an identifier is no reference: {text}");
    assert!(text.contains(r#""note":"\"reference\": \"urn:uuid:aa-1\"""#), "{text}");
    assert!(text.contains(r#""focus":{"reference":"urn:uuid:unknown"}"#), "{text}");
    assert_eq!(found(&emr, "Observation", "subject=aa-1"), "aa-2");
    // The patient was not there yet when the conditional reference was read.
    assert!(text.contains("Patient?identifier=s|1"));
    let later = bundle.replace("aa-2", "aa-3");
    emr.load_transaction(later.as_bytes()).unwrap();
    let text = String::from_utf8(emr.read("Observation", "aa-3").unwrap().to_vec()).unwrap();
    assert!(text.contains(r#""performer":[{"reference":"Patient/aa-1"}]"#), "{text}");
    let alone = r#"{"resourceType":"Bundle","type":"transaction","entry":[{"resource":{"resourceType":"Basic","id":"b",
      "subject":{"reference":"urn:uuid:aa-1"}},"request":{"method":"PUT","url":"Basic/b"}}]}"#;
    emr.load_transaction(alone.as_bytes()).unwrap();
    assert_eq!(found(&emr, "Basic", "subject=Patient/aa-1"), "b", "addresses of earlier bundles are known");
}

#[test]
fn synthea_bundles_load() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/synthea-r4");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED synthea_bundles_load: {} is not there", folder.display());
        return;
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    // The hospitals and practitioners first, then two patients.
    files.sort_by_key(|path| !path.file_name().unwrap().to_string_lossy().contains("Information"));
    let emr = Emr::new();
    for file in files.iter().take(4) {
        assert!(emr.load_transaction(&std::fs::read(file).unwrap()).unwrap() > 10);
    }
    assert_eq!(emr.ids("Patient").len(), 2);
    for id in emr.ids("Patient") {
        let encounters = found(&emr, "Encounter", &format!("patient={id}&_count=1000"));
        assert!(!encounters.is_empty());
    }
    for (name, _) in emr.census() {
        for id in emr.ids(&name) {
            let text = String::from_utf8(emr.read(&name, &id).unwrap().to_vec()).unwrap();
            assert!(!text.contains("\"reference\": \"urn:uuid:"), "{name}/{id} has an unresolved reference");
            let _: Value = serde_json::from_str(&text).unwrap();
        }
    }
}

pub(super) async fn served(emr: &Emr) -> (Server, String) {
    let server = serve(emr, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let base = format!("http://{}/fhir", server.local_addr());
    (server, base)
}

pub(super) async fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    exchange(method, url, headers, body.to_owned()).await.unwrap()
}

pub(super) fn json(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

#[tokio::test]
async fn pages_cover_every_hit_once() {
    let emr = charted();
    let (_server, base) = served(&emr).await;
    let mut url = format!("{base}/Observation?_sort=-date&_count=4");
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let bundle = json(&ask("GET", &url, &[], "").await);
        assert_eq!(bundle["total"], 14);
        pages += 1;
        for entry in bundle["entry"].as_array().unwrap() {
            let id = entry["resource"]["id"].as_str().unwrap().to_owned();
            assert_eq!(entry["fullUrl"], format!("{base}/Observation/{id}"));
            seen.push(id);
        }
        let links = bundle["link"].as_array().unwrap();
        let Some(next) = links.iter().find(|link| link["relation"] == "next") else { break };
        url = next["url"].as_str().unwrap().to_owned();
        assert!(url.starts_with(&format!("{base}/Observation?_cursor=")), "{url}");
    }
    assert_eq!(pages, 4);
    let all = found(&emr, "Observation", "_sort=-date&_count=100");
    assert_eq!(seen.join(" "), all);
}

#[tokio::test]
async fn records_leave_as_they_lie() {
    let emr = charted();
    let (_server, base) = served(&emr).await;
    let stored = emr.read("Patient", "p1").unwrap();
    let answer = ask("GET", &format!("{base}/Patient/p1"), &[], "").await;
    assert_eq!(answer.body(), &stored);
    assert_eq!(answer.headers()["etag"], "W/\"3\"");
    assert_eq!(answer.headers()["last-modified"], "Sun, 01 Feb 2026 09:15:30 GMT");
    assert_eq!(answer.headers()["content-type"], "application/fhir+json;charset=utf-8");
    let bundle = ask("GET", &format!("{base}/Patient?_id=p1"), &[], "").await;
    assert!(bundle.body().windows(stored.len()).any(|window| window == stored), "the same bytes in a Bundle");
    let unchanged = ask("GET", &format!("{base}/Patient/p1"), &[("if-none-match", "W/\"3\"")], "").await;
    assert_eq!(unchanged.status(), 304);
}

#[tokio::test]
async fn versions_are_kept() {
    let emr = charted();
    let (_server, base) = served(&emr).await;
    let url = format!("{base}/Patient/p1");
    let first = ask("GET", &format!("{url}/_history/1"), &[], "").await;
    assert!(String::from_utf8_lossy(first.body()).contains("Former Road"));
    assert_eq!(ask("GET", &format!("{url}/_history/9"), &[], "").await.status(), 404);
    assert_eq!(json(&ask("GET", &format!("{url}/_history"), &[], "").await)["total"], 3);

    let body = "{\"resourceType\":\"Patient\",\"id\":\"p1\",\"birthDate\":\"1999\"}";
    let stale = ask("PUT", &url, &[("if-match", "W/\"1\"")], body).await;
    assert_eq!(stale.status(), 412);
    let stored = ask("PUT", &url, &[("if-match", "W/\"3\"")], body).await;
    assert_eq!((stored.status().as_u16(), json(&stored)["meta"]["versionId"].as_str()), (200, Some("4")));
    assert_eq!(found(&emr, "Patient", "birthdate=1980"), "", "the index follows the current version");
    assert_eq!(found(&emr, "Patient", "birthdate=1999"), "p1");

    assert_eq!(ask("DELETE", &url, &[], "").await.status(), 204);
    assert_eq!(ask("GET", &url, &[], "").await.status(), 410);
    assert_eq!(ask("GET", &format!("{url}/_history/4"), &[], "").await.status(), 200);
    assert_eq!(found(&emr, "Patient", "_id=p1"), "");
    assert_eq!(found(&emr, "Encounter", "patient.name=beispiel"), "");
    assert_eq!(ask("PUT", &url, &[], body).await.status(), 201, "brought back");
}

#[tokio::test]
async fn creating_and_conditions() {
    let emr = Emr::new();
    let (_server, base) = served(&emr).await;
    let body = "{\"resourceType\":\"Patient\",\"id\":\"mine\",\"identifier\":[{\"value\":\"1\"}]}";
    let created = ask("POST", &format!("{base}/Patient"), &[], body).await;
    assert_eq!(created.status(), 201);
    assert_eq!(created.headers()["location"], format!("{base}/Patient/s1/_history/1"));
    assert_eq!(json(&created)["id"], "s1", "the server names the record");
    let again = ask("POST", &format!("{base}/Patient"), &[("if-none-exist", "identifier=1")], body).await;
    assert_eq!((again.status().as_u16(), json(&again)["id"].as_str()), (200, Some("s1")));
    assert_eq!(ask("PUT", &format!("{base}/Patient/other"), &[], body).await.status(), 400);
    assert_eq!(ask("POST", &format!("{base}/Observation"), &[], body).await.status(), 400);
    assert_eq!(ask("PATCH", &format!("{base}/Patient/s1"), &[], "[]").await.status(), 415);
    let bundle = r#"{"resourceType":"Bundle","type":"transaction","entry":[{"resource":{"resourceType":"Basic","id":"x"},"request":{"method":"POST","url":"Basic"}}]}"#;
    let answer = json(&ask("POST", &base, &[], bundle).await);
    assert_eq!(answer["entry"][0]["response"]["location"], "Basic/s2/_history/1");
}

#[tokio::test]
async fn search_by_form_and_strictness() {
    let emr = charted();
    let (_server, base) = served(&emr).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = encode_query(&[("family", "Beispiel")]);
    let bundle = json(&ask("POST", &format!("{base}/Patient/_search?gender=female"), &form, &body).await);
    assert_eq!(bundle["total"], 1, "query and body are merged");
    let lenient = ask("GET", &format!("{base}/Patient?shoe-size=43"), &[], "").await;
    assert_eq!(json(&lenient)["total"], 6, "unknown parameters are ignored");
    let strict = [("prefer", "handling=strict")];
    let strict = ask("GET", &format!("{base}/Patient?shoe-size=43"), &strict, "").await;
    assert_eq!(
        (strict.status().as_u16(), json(&strict)["resourceType"].as_str()),
        (400, Some("OperationOutcome"))
    );
    let count = json(&ask("GET", &format!("{base}/Patient?_summary=count"), &[], "").await);
    assert_eq!((count["total"].as_u64(), count.get("entry")), (Some(6), None));
    let uncounted = json(&ask("GET", &format!("{base}/Patient?_total=none"), &[], "").await);
    assert!(uncounted.get("total").is_none());
    let metadata = json(&ask("GET", &format!("{base}/metadata"), &[], "").await);
    assert_eq!(metadata["fhirVersion"], "4.0.1");
    assert_eq!(ask("GET", &format!("{base}/Patient/none"), &[], "").await.status(), 404);
}

#[tokio::test]
async fn requests_are_logged_as_they_came() {
    let emr = charted();
    let (_server, base) = served(&emr).await;
    ask("POST", &format!("{base}/Patient/_search?a=%20b"), &[("x-test", "1")], "c=d").await;
    let requests = emr.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].target, "/fhir/Patient/_search?a=%20b");
    assert_eq!((requests[0].method.as_str(), requests[0].header("x-test")), ("POST", Some("1")));
    assert_eq!(requests[0].body, "c=d");
    assert!(!format!("{:?}", requests[0]).contains("c=d"), "no contents in debug text");
    emr.clear_requests();
    emr.set_recording(false);
    ask("GET", &format!("{base}/Patient/p1"), &[], "").await;
    assert_eq!((emr.requests().len(), emr.served()), (0, 2));
}

#[tokio::test]
async fn faults_on_demand() {
    let emr = charted();
    let (_server, base) = served(&emr).await;
    let url = format!("{base}/Patient/p1");
    emr.next_answer("/fhir/Patient/p1", Canned::status(302).header("location", "http://evil.example/"));
    emr.next_answer("/fhir/Patient/p1", Canned::fhir("{\"resourceType\":"));
    emr.next_answer("*", Canned::fhir("ab").body_after(Duration::from_millis(60), "cd"));
    emr.next_answer("/fhir/Patient/p1", Canned::fhir("half").header("content-length", "100").cut_off());
    assert_eq!(ask("GET", &url, &[], "").await.headers()["location"], "http://evil.example/");
    assert_eq!(ask("GET", &url, &[], "").await.body(), "{\"resourceType\":");
    assert!(exchange("GET", &url, &[], "").await.is_err(), "cut off");
    emr.next_answer("/fhir/Patient/p2", Canned::fhir("half").cut_off());
    let chunked = exchange("GET", &format!("{base}/Patient/p2"), &[], "").await;
    assert!(chunked.is_err(), "cut off without a content length");
    let start = Instant::now();
    assert_eq!(ask("GET", &url, &[], "").await.body(), "abcd");
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(ask("GET", &url, &[], "").await.status(), 200, "then the real one again");
    emr.next_answer("/fhir/Patient/p1", Canned::fhir("a").stall());
    let stalled = tokio::time::timeout(Duration::from_millis(100), exchange("GET", &url, &[], ""));
    assert!(stalled.await.is_err(), "a stalled answer does not end");
}

#[tokio::test]
async fn only_loopback_is_served() {
    let refused = serve(&Emr::new(), SocketAddr::from(([0, 0, 0, 0], 0))).await;
    assert!(matches!(refused, Err(ServeError::NotLoopback(_))));
}

#[tokio::test]
async fn a_stopped_server_is_gone() {
    let emr = charted();
    let (server, base) = served(&emr).await;
    assert_eq!(ask("GET", &format!("{base}/Patient/p1"), &[], "").await.status(), 200);
    server.shutdown().await;
    assert!(exchange("GET", &format!("{base}/Patient/p1"), &[], "").await.is_err());
}
