//! What? Requests as nobody should send them (T-113 to T-116, T-136 to T-160), and methods that change things.
//!
//! Owns: bad input on the client's side; P5 and P6 at the door.
//! Must never: let a case pass whose request reached the EMR.
//! Look next: `tests/data/journey/wire.toml` and `requests.toml`, the cases.

use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use serde::Deserialize;
use serde_json::Value;

use crate::harness::{Hospital, REFUSAL_SYSTEM, cases, run};
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
    let wire: WireCases = cases("wire.toml");
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let (token, ca) = (hospital.token("physician"), hospital.stage.ca_file());
        let port = hospital.stage.running().unwrap().address().port();
        let (mut recorded, mut wrong) = (Vec::new(), Vec::new());
        for case in &wire.case {
            let text = fill(&case.send, port, &token);
            let heard = wire::exchange(&ca, port, text.as_bytes(), Duration::from_millis(1_500)).await;
            match check(case, &heard) {
                Ok(refusals) => recorded.extend(refusals),
                Err(complaint) => wrong.push(format!("{}: {complaint}", case.name)),
            }
            if !hospital.stage.emr().requests().is_empty() {
                wrong.push(format!("{}: the EMR was asked", case.name));
                hospital.stage.emr().clear_requests();
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let trail = hospital.trail();
        for (name, request_id, code) in recorded {
            let records: Vec<&Value> =
                trail.iter().filter(|r| r["requestId"] == request_id.as_str()).collect();
            let [record] = records.as_slice() else { panic!("{name}: {} records", records.len()) };
            assert_eq!((&record["decision"], &record["reason"]), (&"refuse".into(), &code.into()), "{name}");
        }
        // The door still works, and the same words in a good order are answered.
        let good = fill(
            "GET /fhir/Patient/p1 HTTP/1.1\nHost: {host}\nAuthorization: Bearer {token}\nConnection: close\n\n",
            port,
            &token,
        );
        let heard = wire::exchange(&ca, port, good.as_bytes(), Duration::from_secs(10)).await;
        assert_eq!(heard.answers[0].status, 200);
    });
}

fn fill(send: &str, port: u16, token: &str) -> String {
    let long = "x".repeat(40_000);
    let many: String = (0..70).map(|n| format!("X-Many-{n}: 1\n")).collect();
    let text = send.replace("{host}", &format!("localhost:{port}")).replace("{port}", &port.to_string());
    let text = text.replace("{token}", token).replace("{long}", &long).replace("{many}", &many);
    text.replace("\\x00", "\0")
        .replace("\\t", "\t")
        .replace('\n', "\r\n")
        .replace("\\r\r\n", "\r")
        .replace("\\n\r\n", "\n")
}

/// Every answer refuses; gives name, request id and code of those that must be recorded.
fn check(case: &WireCase, heard: &Heard) -> Result<Vec<(String, String, String)>, String> {
    let statuses: Vec<u16> = heard.answers.iter().map(|answer| answer.status).collect();
    if statuses.is_empty() && !(case.status.contains(&0) && heard.closed) {
        return Err("nothing was answered".to_owned());
    }
    let mut recorded = Vec::new();
    for answer in &heard.answers {
        if !case.status.contains(&answer.status) || answer.body.contains("Beispiel") {
            return Err(format!("{statuses:?} {:.300}", answer.body));
        }
        if answer.body.is_empty() && case.code.is_none() {
            continue;
        }
        let outcome: Value = serde_json::from_str(&answer.body).map_err(|_| answer.head.clone())?;
        let coding = &outcome["issue"][0]["details"]["coding"][0];
        let code = coding["code"].as_str().unwrap_or_default();
        if coding["system"] != REFUSAL_SYSTEM || case.code.as_deref().is_some_and(|expected| expected != code)
        {
            return Err(format!("{statuses:?} {code}"));
        }
        let id = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: "))
            .ok_or("no request id")?;
        recorded.push((case.name.clone(), id.to_owned(), code.to_owned()));
    }
    Ok(recorded)
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
    let requests: RequestCases = cases("requests.toml");
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let (mut replies, mut wrong) = (Vec::new(), Vec::new());
        for case in &requests.case {
            let bearer = format!("Bearer {}", hospital.token(&case.who));
            let mut headers = vec![("authorization", bearer.as_str())];
            headers.extend(case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let body = case.body.replace("{64K}", &"x".repeat(66_000));
            let reply = hospital.ask(&case.method, &case.path, &headers, &body).await;
            let code = reply.code();
            let asked = !hospital.stage.emr().requests().is_empty();
            hospital.stage.emr().clear_requests();
            if asked || reply.status != case.status || (case.code != "*" && case.code != code) {
                wrong.push(format!(
                    "{} {:.60}: {} {code}, EMR asked: {asked}",
                    reply.what, case.body, reply.status
                ));
            } else {
                replies.push((reply, code));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let replies: Vec<_> =
            replies.iter().map(|(reply, code)| (reply.clone(), reply.status, code.as_str())).collect();
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
