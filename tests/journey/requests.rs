//! What? Requests as nobody should send them (T-113 to T-116, T-136 to T-160), and methods that change things.
//!
//! Owns: issue 2, "Bad input" on the client's side; P5 and P6 at the door.
//! Must never: let a case pass whose request reached the EMR.
//! Look next: `tests/data/journey/wire.toml` and `requests.toml`, the cases.

use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use serde::Deserialize;
use serde_json::Value;

use crate::harness::{Hospital, REFUSAL_SYSTEM, run};
use crate::wire::{self, Heard};

#[derive(Deserialize)]
struct WireCases {
    case: Vec<WireCase>,
}

/// Bytes as they are sent, `{host}` and `{token}` filled in, line ends as CRLF.
#[derive(Deserialize)]
struct WireCase {
    name: String,
    send: String,
    /// Statuses that are fine; 0 is closing without an answer.
    status: Vec<u16>,
    /// The refusal code, where the gate itself answers.
    code: Option<String>,
}

#[test]
fn p6_bytes_that_mean_two_things_are_refused() {
    let cases: WireCases = toml::from_str(include_str!("../data/journey/wire.toml")).unwrap();
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let (token, ca) = (hospital.token("physician"), hospital.stage.ca_file());
        let port = hospital.stage.running().unwrap().address().port();
        let mut recorded = Vec::new();
        for case in &cases.case {
            let text = fill(&case.send, port, &token);
            let heard = wire::exchange(&ca, port, text.as_bytes(), Duration::from_millis(1_500)).await;
            recorded.extend(check(case, &heard));
            assert!(hospital.stage.emr().requests().is_empty(), "{}: the EMR was asked", case.name);
        }
        let trail = hospital.trail();
        for (name, request_id, code) in recorded {
            let records: Vec<&Value> = trail.iter().filter(|r| r["requestId"] == request_id.as_str()).collect();
            let [record] = records.as_slice() else { panic!("{name}: {} records", records.len()) };
            assert_eq!((&record["decision"], &record["reason"]), (&"refuse".into(), &code.into()), "{name}");
        }
        // The door still works, and the same words in a good order are answered.
        let good = fill("GET /fhir/Patient/p1 HTTP/1.1\nHost: {host}\nAuthorization: Bearer {token}\nConnection: close\n\n", port, &token);
        let heard = wire::exchange(&ca, port, good.as_bytes(), Duration::from_secs(10)).await;
        assert_eq!(heard.answers[0].status, 200);
    });
}

fn fill(send: &str, port: u16, token: &str) -> String {
    let long = "x".repeat(40_000);
    let many: String = (0..70).map(|n| format!("X-Many-{n}: 1\n")).collect();
    let text = send.replace("{host}", &format!("localhost:{port}")).replace("{port}", &port.to_string());
    let text = text.replace("{token}", token).replace("{long}", &long).replace("{many}", &many);
    text.replace("\\x00", "\0").replace("\\t", "\t").replace('\n', "\r\n").replace("\\r\r\n", "\r").replace("\\n\r\n", "\n")
}

/// Every answer refuses; gives the request ids of those that must be recorded.
fn check(case: &WireCase, heard: &Heard) -> Vec<(String, String, String)> {
    let statuses: Vec<u16> = heard.answers.iter().map(|answer| answer.status).collect();
    if statuses.is_empty() {
        assert!(case.status.contains(&0) && heard.closed, "{}: nothing was answered", case.name);
    }
    let mut recorded = Vec::new();
    for answer in &heard.answers {
        assert!(case.status.contains(&answer.status), "{}: {statuses:?} {}", case.name, answer.body);
        assert!(!answer.body.contains("Beispiel"), "{}: a record came", case.name);
        if answer.body.is_empty() {
            assert!(case.code.is_none(), "{}: an answer without a code, {}", case.name, answer.head);
            continue;
        }
        let outcome: Value = serde_json::from_str(&answer.body).unwrap();
        let coding = &outcome["issue"][0]["details"]["coding"][0];
        assert_eq!(coding["system"], REFUSAL_SYSTEM, "{}", case.name);
        let code = coding["code"].as_str().unwrap();
        assert_eq!(case.code.as_deref().unwrap_or(code), code, "{}", case.name);
        let id = answer.head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        recorded.push((case.name.clone(), id.to_owned(), code.to_owned()));
    }
    recorded
}

#[derive(Deserialize)]
struct RequestCases {
    case: Vec<RequestCase>,
}

#[derive(Deserialize)]
struct RequestCase {
    #[serde(default = "physician")]
    who: String,
    #[serde(default = "get")]
    method: String,
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    status: u16,
    code: String,
}

fn physician() -> String {
    "physician".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

/// P5 and P6 over HTTP/2, as applications ask: nothing that changes, and nothing that is not understood.
#[test]
fn p5_p6_writes_and_doubt_are_refused_before_the_emr_is_asked() {
    let cases: RequestCases = toml::from_str(include_str!("../data/journey/requests.toml")).unwrap();
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let mut replies = Vec::new();
        for case in &cases.case {
            let bearer = format!("Bearer {}", hospital.token(&case.who));
            let mut headers = vec![("authorization", bearer.as_str())];
            headers.extend(case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let body = case.body.replace("{64K}", &"x".repeat(66_000));
            let reply = hospital.ask(&case.method, &case.path, &headers, &body).await;
            assert_eq!(
                (reply.status, reply.code()),
                (case.status, case.code.clone()),
                "{} {}", reply.what, case.body
            );
            replies.push((reply, case.status, case.code.as_str()));
            assert!(hospital.stage.emr().requests().is_empty(), "{} {}: the EMR was asked", case.method, case.path);
        }
        hospital.check_refusals(&replies);
    });
}

/// What anyone may read, and nothing else.
#[test]
fn two_documents_are_public() {
    run(async {
        let hospital = Hospital::shared().await;
        let metadata = hospital.ask("GET", "metadata", &[], "").await;
        metadata.check_ok();
        assert_eq!(metadata.json()["resourceType"], "CapabilityStatement");
        assert_eq!(metadata.json()["fhirVersion"], "4.0.1");
        assert!(metadata.text().contains(hospital.stage.base_url()));
        assert!(!metadata.text().contains("Chartgate sandbox EMR"), "the EMR's own statement came through");
        let smart = hospital.ask("GET", ".well-known/smart-configuration", &[], "").await;
        smart.check_ok();
        assert_eq!(smart.header("content-type"), Some("application/json"));
        let records = hospital.check_recorded([&metadata, &smart]);
        assert_eq!(records[0]["interaction"], "capabilities");
        let mut refused = Vec::new();
        for path in ["Patient/p1", "Patient", "", "metadata/x", "metadata?x=y", "$meta", "nonsense"] {
            refused.push((hospital.ask("GET", path, &[], "").await, 401, "token-missing"));
        }
        hospital.check_refusals(&refused);
    });
}
