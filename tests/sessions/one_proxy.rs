//! One proxy: what operators see and order, and what outlives a kill.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::town::{Town, USUAL};

const OVER: (u16, &str) = (401, "session-revoked");

#[tokio::test(flavor = "multi_thread")]
async fn operators_list_and_end_sessions() {
    let town = Town::open().await;
    let proxy = town.proxy("one", USUAL, "").await;
    let (nurse, physician) = (town.token("nurse"), town.token("physician"));
    for token in [&nurse, &physician, &nurse] {
        assert_eq!(town.read(&proxy, token).await.status, 200);
    }
    let sessions = proxy.sessions();
    assert_eq!(sessions.len(), 2, "{sessions:#?}");
    let first = &sessions[0];
    let names: Vec<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["id", "issuer", "subject", "application", "began", "lastActive", "authenticatedAt"];
    assert_eq!(names, expected);
    assert_eq!(first["issuer"], town.stage.issuer().url());
    let id = first["id"].as_str().unwrap();
    assert!(!String::from_utf8_lossy(nurse.as_bytes()).contains(id));

    assert_eq!(proxy.operations("DELETE", "/session/0123", "").0, 404);
    assert_eq!(proxy.operations("PUT", &format!("/session/{id}"), "").0, 405);
    assert_eq!(proxy.operations("POST", "/revocation", "{}").0, 400);
    assert_eq!(proxy.operations("DELETE", "/revocation/0123", "").0, 404);
    let (status, body) = proxy.operations("DELETE", &format!("/session/{id}"), "");
    assert_eq!(status, 201, "{body}");
    let heard = town.read(&proxy, &nurse).await;
    assert_eq!((heard.status, heard.code.as_str()), OVER, "{}", heard.text);
    assert_eq!(town.read(&proxy, &physician).await.status, 200);
    assert_eq!(proxy.sessions().len(), 1);

    // Recorded before it was answered, with whom it was about.
    let recorded = proxy.recorded("revoked");
    assert_eq!(recorded.len(), 1, "{recorded:#?}");
    let details = &recorded[0]["details"];
    assert_eq!(
        (&details["kind"], &details["origin"], &details["reason"]),
        (&json!("session"), &json!("operations"), &json!("ended by an operator"))
    );
    let revocation = details["id"].as_str().unwrap();
    assert_eq!(proxy.operations("DELETE", &format!("/revocation/{revocation}"), "").0, 204);
    assert_eq!(town.read(&proxy, &nurse).await.status, 200, "lifted");
    assert_eq!(proxy.recorded("revocation-lifted").len(), 1);
    let verified = proxy.run(&["audit", "verify"]);
    assert!(verified.0, "the session store is no evidence: {}", verified.1);
}

/// What was acknowledged is in force after `kill -9`; what a command orders while nothing runs, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_forgets_no_revocation() {
    let town = Town::open().await;
    let mut proxy = town.proxy("killed", USUAL, "").await;
    let (nurse, physician) = (town.token("nurse"), town.token("physician"));
    assert_eq!(town.read(&proxy, &nurse).await.status, 200);
    let user = format!("{}|{}", town.stage.issuer().url(), subject(&nurse));
    proxy.revoke(&json!({"user": user, "reason": "left the hospital", "untilLifted": true}));
    proxy.kill();
    let session = ["session", "revoke", "--client", "clinic-app", "--reason", "compromised", "--json"];
    let (good, said) = proxy.run(&session);
    assert!(good, "{said}");
    proxy.start().await;
    let heard = town.read(&proxy, &nurse).await;
    assert_eq!((heard.status, heard.code.as_str()), OVER, "{}", heard.text);
    let again = town.token("nurse");
    assert_eq!(town.read(&proxy, &again).await.status, 401, "until lifted: a new login too");
    let client = town.stage.issuer().token_with("physician", |claims| {
        claims["client_id"] = "clinic-app".into();
        claims["azp"] = "clinic-app".into();
    });
    assert_eq!(town.read(&proxy, &client.unwrap()).await.code, "session-revoked");
    assert_eq!(town.read(&proxy, &physician).await.status, 200);

    // The command while the proxy runs: noticed within a second, and recorded.
    let list = proxy.run(&["session", "revocations", "--json"]).1;
    let all: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(all.len(), 2, "{list}");
    let id = all.iter().find(|one| one["kind"] == "user").unwrap()["id"].as_str().unwrap().to_owned();
    let (good, said) = proxy.run(&["session", "lift", &id]);
    assert!(good, "{said}");
    town.until(&proxy, &again, (200, ""), Duration::from_secs(1)).await;
    assert!(!proxy.run(&["session", "lift", &id]).0, "there is none any more");
    let (good, said) = proxy.run(&["session", "list"]);
    assert!(good && said.contains("sessions"), "{said}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let lifted = proxy.recorded("revocation-lifted");
    assert_eq!((lifted.len(), &lifted[0]["details"]["origin"]), (1, &json!("operations")), "{lifted:#?}");
}

fn subject(token: &str) -> String {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    claims["sub"].as_str().unwrap().to_owned()
}

/// T-192, T-272: a proxy whose store is gone does not take tokens whose revocation it may have lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_is_no_clean_slate() {
    let town = Town::open().await;
    let mut proxy = town.proxy("lost", USUAL, "").await;
    let old = town.token("nurse");
    assert_eq!(town.read(&proxy, &old).await.status, 200);
    proxy.kill();
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", proxy.store().display());
        let _not_there = fs::remove_file(path);
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    proxy.start().await;
    let heard = town.read(&proxy, &old).await;
    assert_eq!((heard.status, heard.code.as_str()), (401, "session-unknown"), "{}", heard.text);
    assert_eq!(town.read(&proxy, &town.token("nurse")).await.status, 200);
    // A file that is no store stops the start.
    proxy.kill();
    fs::write(proxy.store(), "this is no store, and long enough to be looked at as one").unwrap();
    let (good, said) = proxy.run(&["serve"]);
    assert!(!good && said.contains("session store"), "{said}");
}

/// Nobody is let in while nobody can say what was revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_store_refuses_everyone() {
    let town = Town::open().await;
    let proxy = town.proxy("silent", USUAL, "").await;
    let token = town.token("nurse");
    assert_eq!(town.read(&proxy, &token).await.status, 200);
    let away = proxy.store().with_extension("sqlite-away");
    fs::rename(proxy.store(), &away).unwrap();
    town.until(&proxy, &token, (503, "sessions-unavailable"), Duration::from_secs(8)).await;
    let (status, body) = proxy.operations("GET", "/readyz", "");
    assert!(status == 503 && body.contains("\"sessions\":false"), "{status} {body}");
    fs::rename(&away, proxy.store()).unwrap();
    town.until(&proxy, &token, (200, ""), Duration::from_secs(2)).await;
    assert_eq!(proxy.operations("GET", "/readyz", "").0, 200);
}

/// Beyond a configured token nobody else is heard, on loopback too.
#[tokio::test(flavor = "multi_thread")]
async fn the_desk_demands_what_it_was_told_to() {
    let town = Town::open().await;
    fs::write(town.stage.folder().join("desk.token"), "open-sesame\n").unwrap();
    let config = town.stage.config_file();
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\nbearer_token_file = \"desk.token\"",
    );
    fs::write(&config, text).unwrap();
    let proxy = town.proxy("desk", USUAL, "").await;
    for path in ["/session", "/revocation", "/session/1", "/revocation/1"] {
        let (status, body) = proxy.operations("GET", path, "");
        assert_eq!(status, 403, "{path}: {body}");
    }
    assert_eq!(
        proxy.operations("GET", "/session HTTP/1.1\r\nAuthorization: Bearer open-sesame\r\nX:", "").0,
        200
    );
    assert_eq!(proxy.operations("GET", "/healthz", "").0, 200);
}
