//! Emergency access: for one patient, for a while, with a reason, and for all to see afterwards (T-195, T-196).
//!
//! Owns: how `$break-glass` is asked for, what it opens and what not, and what the trail says of it.
//! Must never: open anything by a header.
//! Look next: `relations`, whose treating relationship it lifts.

use chartgate::cli::demo::stage::Script;
use serde_json::{Value, json};

use crate::harness::{Hospital, Reply, run};
use crate::relations::{TREATING, treating};

pub(crate) const PHYSICIANS: &str = include_str!("../../policies/optional/break-glass/emergency.cedar");
pub(crate) const HEADER: &str = "x-chartgate-emergency";

async fn hospital() -> Hospital {
    let hospital = treating(&[("emergency.cedar", PHYSICIANS)]).await;
    for patient in ["p3", "p4", "p5"] {
        let record = json!({"resourceType": "Observation", "id": format!("btg-{patient}"),
            "meta": {"versionId": "1"}, "status": "final", "code": {"text": "x"},
            "subject": {"reference": format!("Patient/{patient}")}});
        hospital.store(&record);
    }
    hospital
}

pub(crate) fn parameters(patient: &str, more: &[Value]) -> String {
    let mut all = vec![
        json!({"name": "patient", "valueReference": {"reference": format!("Patient/{patient}")}}),
        json!({"name": "reason", "valueString": "found unconscious on the ward"}),
    ];
    all.extend(more.iter().cloned());
    json!({"resourceType": "Parameters", "parameter": all}).to_string()
}

pub(crate) async fn ask(hospital: &Hospital, token: &str, (method, path): (&str, &str), body: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("authorization", bearer.as_str())];
    if !body.is_empty() {
        headers.push(("content-type", "application/fhir+json"));
    }
    hospital.ask(method, path, &headers, body).await
}

pub(crate) async fn break_glass(hospital: &Hospital, token: &str, body: &str) -> Reply {
    ask(hospital, token, ("POST", "$break-glass"), body).await
}

fn part(reply: &Reply, name: &str) -> Value {
    let body = reply.json();
    let parts = body["parameter"].as_array().unwrap();
    parts.iter().find(|part| part["name"] == name).unwrap().clone()
}

/// The same session in every request, logged in so long ago.
pub(crate) fn session(hospital: &Hospital, who: &str, subject: &str, age_seconds: i64) -> String {
    let token = hospital.stage.issuer().token_with(who, |claims| {
        claims["auth_time"] = (claims["auth_time"].as_i64().unwrap() - age_seconds).into();
        claims["sub"] = subject.into();
        claims["sid"] = format!("session-{subject}").into();
    });
    token.unwrap()
}

fn controls(hospital: &Hospital, event: &str) -> Vec<Value> {
    hospital.trail().into_iter().filter(|record| record["event"] == event).collect()
}

#[test]
fn an_emergency_opens_one_chart_and_is_there_to_be_read() {
    run(async {
        let hospital = hospital().await;
        let doctor = session(&hospital, "physician", "doc-1", 10);
        let closed = ask(&hospital, &doctor, ("GET", "Observation/btg-p3"), "").await;
        hospital.check_refusals(&[(closed, 404, "not-found")]);

        let granted = break_glass(&hospital, &doctor, &parameters("p3", &[])).await;
        granted.check_ok();
        let grant = part(&granted, "grant")["valueString"].as_str().unwrap().to_owned();
        let began = controls(&hospital, "emergency-began");
        assert_eq!((began.len(), began[0]["details"]["grant"].as_str()), (1, Some(grant.as_str())));
        assert_eq!(began[0]["details"]["reason"], "found unconscious on the ward");
        assert_eq!(began[0]["details"]["patient"], "p3");

        let open = ask(&hospital, &doctor, ("GET", "Observation/btg-p3"), "").await;
        open.check_ok();
        assert_eq!(open.header(HEADER), Some(grant.as_str()));
        let record = &hospital.check_recorded([&open])[0];
        assert_eq!((&record["basis"], &record["emergencies"]), (&json!(["emergency"]), &json!([grant])));
        let rows = ask(&hospital, &doctor, ("GET", "Observation?patient=p3"), "").await;
        assert_eq!(rows.header(HEADER), Some(grant.as_str()));
        assert!(rows.text().contains("btg-p3"));
        let count = ask(&hospital, &doctor, ("GET", "Observation?patient=p3&_summary=count"), "").await;
        assert_eq!(count.header(HEADER), Some(grant.as_str()), "a count was let out under it");

        it_is_for_nobody_else(&hospital, &doctor).await;
        it_is_never_for_bulk(&hospital, &doctor).await;
        asking_again_is_the_same(&hospital, &doctor, &grant, &granted).await;

        // Ended early: closed at once, and in the trail.
        let end = [json!({"name": "end", "valueBoolean": true})];
        break_glass(&hospital, &doctor, &parameters("p3", &end)).await.check_ok();
        let ended = controls(&hospital, "emergency-ended");
        assert_eq!((ended.len(), ended[0]["details"]["cause"].as_str()), (1, Some("ended")));
        let closed = ask(&hospital, &doctor, ("GET", "Observation/btg-p3"), "").await;
        let again = break_glass(&hospital, &doctor, &parameters("p3", &end)).await;
        hospital.check_refusals(&[(closed, 404, "not-found"), (again, 404, "not-found")]);
    });
}

async fn it_is_for_nobody_else(hospital: &Hospital, doctor: &str) {
    // Another patient, another session of the same person, another person, and somebody who says so in a header.
    let second = hospital.stage.issuer().token_with("physician", |claims| {
        claims["sub"] = "doc-1".into();
        claims["sid"] = "another session".into();
    });
    let other = session(hospital, "physician", "doc-2", 10);
    let mut refused = vec![
        (ask(hospital, doctor, ("GET", "Observation/btg-p4"), "").await, 404, "not-found"),
        (ask(hospital, &second.unwrap(), ("GET", "Observation/btg-p3"), "").await, 404, "not-found"),
        (ask(hospital, &other, ("GET", "Observation/btg-p3"), "").await, 404, "not-found"),
    ];
    for (name, value) in [(HEADER, "true"), ("category", "BTG"), ("x-purpose-of-use", "TREAT")] {
        let bearer = format!("Bearer {other}");
        let headers = [("authorization", bearer.as_str()), (name, value)];
        refused.push((hospital.ask("GET", "Observation/btg-p3", &headers, "").await, 404, "not-found"));
    }
    hospital.check_refusals(&refused);
    // What is open anyway does not rest on it.
    let own = ask(hospital, doctor, ("GET", "Observation/obs-weight"), "").await;
    own.check_ok();
    assert_eq!(own.header(HEADER), None);
    let person = ask(hospital, doctor, ("GET", "Patient/p3"), "").await;
    assert_eq!((person.status, person.header(HEADER)), (200, None));
}

async fn it_is_never_for_bulk(hospital: &Hospital, doctor: &str) {
    for path in ["Observation?_id=btg-p3", "Observation?patient=p3,p4", "Observation/_history", "Observation"]
    {
        let reply = ask(hospital, doctor, ("GET", path), "").await;
        reply.check_ok();
        assert!(!reply.text().contains("\"id\":\"btg-p3\""), "{path}");
        assert_eq!(reply.header(HEADER), None, "{path}");
    }
}

/// No standing access: asking again gives what is in force, and does not lengthen it.
pub(crate) async fn asking_again_is_the_same(
    hospital: &Hospital,
    doctor: &str,
    grant: &str,
    granted: &Reply,
) {
    let long = [json!({"name": "duration", "valueDuration": {"value": 4, "code": "h"}})];
    let again = break_glass(hospital, doctor, &parameters("p3", &long)).await;
    assert_eq!(part(&again, "grant")["valueString"], grant);
    assert_eq!(part(&again, "until"), part(granted, "until"));
    assert_eq!(controls(hospital, "emergency-began").len(), 1);
}

#[test]
fn an_emergency_has_conditions() {
    run(async {
        let hospital = hospital().await;
        let doctor = session(&hospital, "physician", "doc-3", 10);
        // Policy: not for nurses. The login: fresh.
        let nurse = session(&hospital, "nurse", "nurse-3", 10);
        let nurse = break_glass(&hospital, &nurse, &parameters("p3", &[])).await;
        let stale = session(&hospital, "physician", "doc-3", 900);
        let stale = break_glass(&hospital, &stale, &parameters("p3", &[])).await;
        let challenge = "Bearer error=\"insufficient_user_authentication\", max_age=\"300\"";
        assert_eq!(stale.header("www-authenticate"), Some(challenge));
        let long = [json!({"name": "duration", "valueDuration": {"value": 5, "code": "h"}})];
        let long = break_glass(&hospital, &doctor, &parameters("p3", &long)).await;
        let batch = r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"POST","url":"$break-glass"}}]}"#;
        let batch = ask(&hospital, &doctor, ("POST", ""), batch).await;
        assert!(!batch.text().contains("\"grant\""), "{}", batch.text());
        let unread = break_glass(&hospital, &doctor, r#"{"resourceType":"Parameters"}"#).await;
        hospital.check_refusals(&[
            (nurse, 403, "type-not-permitted"),
            (stale, 401, "step-up-required"),
            (long, 400, "emergency-not-understood"),
            (unread, 400, "emergency-not-understood"),
        ]);
        assert_eq!(controls(&hospital, "emergency-began").len(), 0);

        // Whether there is such a patient does not show.
        let asked = hospital.stage.emr().requests().len();
        let there = break_glass(&hospital, &doctor, &parameters("p3", &[])).await;
        let nobody = break_glass(&hospital, &doctor, &parameters("no-such-patient", &[])).await;
        assert_eq!(hospital.stage.emr().requests().len(), asked, "the EMR was asked");
        let names = |reply: &Reply| -> Vec<Value> {
            reply.json()["parameter"].as_array().unwrap().iter().map(|part| part["name"].clone()).collect()
        };
        assert_eq!((there.status, names(&there)), (nobody.status, names(&nobody)));
        // The third is the last within the hour; another person has their own.
        break_glass(&hospital, &doctor, &parameters("p4", &[])).await.check_ok();
        let fourth = break_glass(&hospital, &doctor, &parameters("p5", &[])).await;
        let wait: u64 = fourth.header("retry-after").unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&wait), "{wait}");
        hospital.check_refusals(&[(fourth, 429, "emergency-too-often")]);
        let other = session(&hospital, "physician", "doc-4", 10);
        break_glass(&hospital, &other, &parameters("p5", &[])).await.check_ok();
    });
}

/// It outlives a restart, and ends with the person's revocation.
#[test]
fn an_emergency_lasts_as_long_as_its_session() {
    run(async {
        let mut hospital = hospital().await;
        let doctor = session(&hospital, "physician", "doc-9", 10);
        break_glass(&hospital, &doctor, &parameters("p3", &[])).await.check_ok();
        hospital.stage.stop().await.unwrap();
        hospital.stage.start().await.unwrap();
        let mut status = 0;
        for _ in 0..50 {
            status = ask(&hospital, &doctor, ("GET", "Observation/btg-p3"), "").await.status;
            if status == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(status, 200, "a restart ended it");
        let user = format!("{}|doc-9", hospital.stage.issuer().url());
        let more = ["--user", &user, "--reason", "left the house"];
        let (done, _, err) = chartgate(&["session", "revoke", "--config"], &hospital, &more);
        assert!(done, "{err}");
        let over = crate::child::until(std::time::Duration::from_secs(20), || {
            !controls(&hospital, "emergency-ended").is_empty()
        });
        assert!(over.await, "its end is not in the trail");
        assert_eq!(controls(&hospital, "emergency-ended")[0]["details"]["cause"], "revoked");
        let refused = ask(&hospital, &doctor, ("GET", "Observation/btg-p3"), "").await;
        assert_eq!(refused.status, 401);
    });
}

#[test]
fn an_emergency_ends_by_itself() {
    run(async {
        let hospital = hospital().await;
        let doctor = session(&hospital, "physician", "doc-5", 10);
        let minute = [json!({"name": "duration", "valueDuration": {"value": 60, "code": "s"}})];
        break_glass(&hospital, &doctor, &parameters("p3", &minute)).await.check_ok();
        ask(&hospital, &doctor, ("GET", "Observation/btg-p3"), "").await.check_ok();
        let over = crate::child::until(std::time::Duration::from_secs(90), || {
            !controls(&hospital, "emergency-ended").is_empty()
        });
        assert!(over.await, "its end is not in the trail");
        assert_eq!(controls(&hospital, "emergency-ended")[0]["details"]["cause"], "expired");
        let closed = ask(&hospital, &doctor, ("GET", "Observation/btg-p3"), "").await;
        hospital.check_refusals(&[(closed, 404, "not-found")]);
    });
}

/// The queue of a reviewer: what was opened, and who may say what they think of it.
#[test]
fn an_emergency_is_reviewed_by_somebody_else() {
    run(async {
        let settings = "\n[emergency]\nreviewers = [\"physician\", \"billing-clerk\"]\n";
        let hospital = Hospital::open(Script { more: settings.to_owned(), ..Script::default() }).await;
        for (file, text) in [("emergency.cedar", PHYSICIANS), ("treating.cedar", TREATING)] {
            let before = hospital.events("policies-loaded");
            hospital.edit(file, Some(text));
            hospital.edited("policies-loaded", before).await;
        }
        hospital.store(&json!({"resourceType": "Observation", "id": "btg-p3", "meta": {"versionId": "1"},
            "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/p3"}}));
        let doctor = session(&hospital, "physician", "doc-6", 10);
        let granted = break_glass(&hospital, &doctor, &parameters("p3", &[])).await;
        let grant = part(&granted, "grant")["valueString"].as_str().unwrap().to_owned();
        ask(&hospital, &doctor, ("GET", "Observation/btg-p3"), "").await.check_ok();
        let listed = list(&hospital);
        assert_eq!(listed["opened"], json!(["Observation/btg-p3"]));
        assert_eq!((&listed["grant"], &listed["reviewed"]), (&json!(grant), &json!(false)));
        assert_eq!(listed["reason"], "found unconscious on the ward");

        let other = session(&hospital, "physician", "doc-7", 10);
        let clerk = session(&hospital, "billing-clerk", "clerk-7", 10);
        let nurse = session(&hospital, "nurse", "nurse-7", 10);
        let stale = session(&hospital, "physician", "doc-8", 900);
        let unknown = "0".repeat(32);
        for (token, grant, status, code) in [
            (&doctor, &grant, 403, "review-of-own-access"),
            (&nurse, &grant, 403, "review-not-permitted"),
            (&stale, &grant, 401, "step-up-required"),
            (&other, &unknown, 404, "review-of-unknown-grant"),
        ] {
            let (found, body) =
                review(&hospital, token, grant, r#"{"finding":"justified","note":"seen"}"#).await;
            assert_eq!(found, status, "{body}");
            assert!(body.contains(code), "{body}");
        }
        let (status, _) = review(&hospital, &other, &grant, r#"{"finding":"fine","note":"seen"}"#).await;
        assert_eq!(status, 400);
        assert_eq!(list(&hospital)["reviewed"], false);
        let good = r#"{"finding":"not-justified","note":"no emergency in the chart"}"#;
        let (status, _) = review(&hospital, &clerk, &grant, good).await;
        assert_eq!(status, 200);
        let reviews = list(&hospital)["reviews"].clone();
        assert_eq!(
            (&reviews[0]["subject"], &reviews[0]["finding"]),
            (&json!("clerk-7"), &json!("not-justified"))
        );
        the_list_is_readable(&hospital, &grant);
        the_command_reviews(&hospital, &other, &grant);
    });
}

/// `chartgate emergency list --json`, the only line of it.
fn list(hospital: &Hospital) -> Value {
    let (status, out, err) = chartgate(&["emergency", "list", "--json", "--config"], hospital, &[]);
    assert!(status, "{err}");
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

/// What people read: the same, without what a terminal would obey.
fn the_list_is_readable(hospital: &Hospital, grant: &str) {
    let (done, out, err) = chartgate(&["emergency", "list", "--config"], hospital, &[]);
    assert!(done, "{err}");
    for part in [
        grant,
        "doc-6 opened Patient/p3: found unconscious on the ward",
        "    Observation/btg-p3",
        "not-justified by clerk-7",
        "1 emergencies, 0 of them not reviewed",
    ] {
        assert!(out.contains(part), "{part} is not in:\n{out}");
    }
    let (done, out, _) = chartgate(&["emergency", "list", "--open", "--config"], hospital, &[]);
    assert!(done && out.starts_with("0 emergencies"), "{out}");
}

fn the_command_reviews(hospital: &Hospital, token: &str, grant: &str) {
    let file = hospital.stage.folder().join("reviewer.token");
    std::fs::write(&file, token).unwrap();
    let operations = format!("http://{}", hospital.stage.running().unwrap().operations_address());
    let more = [
        "--reviewer-token-file",
        file.to_str().unwrap(),
        "--finding",
        "justified",
        "--note",
        "called to the ward",
        "--operations",
        &operations,
    ];
    let (status, out, err) = chartgate(&["emergency", "review", grant, "--config"], hospital, &more);
    assert!(status, "{err}");
    assert!(out.contains("recorded: justified"), "{out}");
    assert_eq!(list(hospital)["reviews"].as_array().unwrap().len(), 2);
    let (status, _, err) = chartgate(&["emergency", "review", &"0".repeat(32), "--config"], hospital, &more);
    assert!(!status && err.contains("no such grant"), "{err}");
}

fn chartgate(arguments: &[&str], hospital: &Hospital, more: &[&str]) -> (bool, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_chartgate"))
        .args(arguments)
        .arg(hospital.stage.config_file())
        .args(more)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Sends a review to the operations listener, which is plain HTTP on loopback here.
async fn review(hospital: &Hospital, token: &str, grant: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = hospital.stage.running().unwrap().operations_address();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /emergency/{grant}/review HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}
