//! Two proxies on one store: what one does, the other knows within a second.

use std::time::{Duration, Instant};

use chartgate_sandbox::issuer::ProofKey;
use serde_json::{Value, json};

use crate::town::{KEY, Postgres, Proxy, Town, USUAL, free_port};

const OVER: (u16, &str) = (401, "session-revoked");
const SECOND: Duration = Duration::from_secs(1);

async fn pair(town: &Town, store: &str) -> (Proxy, Proxy) {
    let session = format!("{USUAL}{store}");
    (town.proxy("east", &session, "").await, town.proxy("west", &session, "").await)
}

/// Every kind of revocation: at once where it is ordered, within a second at the other, and lifted likewise.
async fn revocations_travel(town: &Town, (east, west): (&Proxy, &Proxy), name: &str) {
    let issuer = town.stage.issuer().url().to_owned();
    let mut slowest = Duration::ZERO;
    for kind in ["token", "hash", "session", "user", "client", "issuer"] {
        let token = town.stage.issuer().token_with("nurse", |claims| {
            claims["sub"] = format!("nurse-{kind}").into();
            claims["jti"] = format!("token-{kind}-{name}").into();
        });
        let token = token.unwrap();
        for proxy in [east, west] {
            let heard = town.read(proxy, &token).await;
            assert_eq!(heard.status, 200, "{name} {kind}: {}", heard.text);
        }
        let what = match kind {
            "token" => json!({"token": format!("token-{kind}-{name}")}),
            "hash" => json!({"token": sha256(&token)}),
            "session" => {
                let sessions = west.sessions();
                let own = |view: &&Value| view["subject"] == format!("nurse-{kind}");
                json!({"session": sessions.iter().find(own).unwrap()["id"]})
            }
            "user" => json!({"user": format!("{issuer}|nurse-{kind}")}),
            "client" => json!({"client": client_of(&token)}),
            _ => json!({ "issuer": issuer }),
        };
        let mut order = what;
        order["reason"] = "test".into();
        let id = east.revoke(&order);
        let ordered = Instant::now();
        let here = town.read(east, &token).await;
        assert_eq!((here.status, here.code.as_str()), OVER, "{name} {kind}");
        town.until(west, &token, OVER, SECOND).await;
        slowest = slowest.max(ordered.elapsed());
        assert_eq!(west.operations("DELETE", &format!("/revocation/{id}"), "").0, 204, "{name} {kind}");
        town.until(east, &token, (200, ""), SECOND).await;
    }
    eprintln!("{name}: a revocation was in force at the other proxy after {slowest:?} at the slowest");
    // Each trail says what was in force there.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for proxy in [east, west] {
        let recorded = proxy.recorded("revoked");
        assert_eq!(recorded.len(), 6, "{name} {:?}: {recorded:#?}", proxy.config);
        assert_eq!(proxy.recorded("revocation-lifted").len(), 6, "{name}");
    }
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn client_of(token: &str) -> String {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    claims["azp"].as_str().unwrap().to_owned()
}

/// A person's second session through one proxy ends the first through the other.
async fn places_are_shared(town: &Town, (east, west): (&Proxy, &Proxy), name: &str) {
    let tokens: Vec<String> = (0..3).map(|_| town.token("physician")).collect();
    for (token, proxy) in tokens.iter().zip([east, west, east]) {
        assert_eq!(town.read(proxy, token).await.status, 200, "{name}");
    }
    town.until(west, &tokens[0], (401, "session-superseded"), SECOND).await;
    assert_eq!(town.read(east, &tokens[0]).await.code, "session-superseded", "{name}");
    assert_eq!(town.read(east, &tokens[1]).await.status, 200, "{name}");
    let ended = west.recorded("revoked");
    assert_eq!(ended.iter().filter(|one| one["details"]["origin"] == "concurrency").count(), 1, "{name}");
}

/// Activity through the other proxy keeps a session alive, and nothing else does.
async fn activity_is_shared(town: &Town, (east, west): (&Proxy, &Proxy), name: &str) {
    let token = town.token("nurse");
    assert_eq!(town.read(west, &token).await.status, 200, "{name}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        assert_eq!(town.read(east, &token).await.status, 200, "{name}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let heard = town.read(west, &token).await;
    assert_eq!(heard.status, 200, "{name}: active through the other: {}", heard.text);
    tokio::time::sleep(Duration::from_millis(4_600)).await;
    assert_eq!(town.read(east, &token).await.code, "session-idle", "{name}");
    assert_eq!(town.read(west, &token).await.code, "session-idle", "{name}");
}

/// A proof that one gate took is refused by the gate that takes its place, with a trail of its own (T-185, T-272).
async fn proofs_are_shared(town: &Town, store: &str, name: &str) {
    let (port, session) = (free_port(), format!("{USUAL}{store}"));
    let mut first = town.proxy_at(port, "first", &session, "").await;
    let key = ProofKey::new().unwrap();
    let jkt = key.thumbprint();
    let token = town.stage.issuer().token_with("nurse", |claims| claims["cnf"] = json!({ "jkt": jkt }));
    let token = token.unwrap();
    let (url, authorization) = (first.url("/fhir/Patient/p1"), format!("DPoP {token}"));
    // Made by a clock that is ahead, so that a slow start of the second gate does not make it stale.
    let proof = || {
        key.proof_with("GET", &url, &token, |_, claims| {
            claims["iat"] = json!(claims["iat"].as_i64().unwrap() + 25);
        })
        .unwrap()
    };
    let ask = async |proof: &str| {
        let headers = [("authorization", authorization.as_str()), ("dpop", proof)];
        town.ask(&url, "GET", &headers, "").await
    };
    let used = proof();
    let heard = ask(&used).await;
    assert_eq!(heard.status, 200, "{name}: {}", heard.text);
    assert_eq!(ask(&used).await.code, "dpop-proof-replayed", "{name}");
    first.kill();
    let second = town.proxy_at(port, "second", &session, "").await;
    let heard = ask(&used).await;
    assert_eq!((heard.status, heard.code.as_str()), (401, "dpop-proof-replayed"), "{name}: {}", heard.text);
    assert_eq!(ask(&proof()).await.status, 200, "{name}");
    drop(second);
}

const POLICIES: [(&str, &str); 2] = [
    (
        "treating.cedar",
        include_str!("../../policies/optional/treating-relationship/treating-relationship.cedar"),
    ),
    ("emergency.cedar", include_str!("../../policies/optional/break-glass/emergency.cedar")),
];

/// Emergency access that one gate grants opens at the other within a second, and is over there as soon when either ends
/// it or its session is revoked (T-193, T-195).
async fn emergencies_are_shared(store: &str, name: &str) {
    let town = Town::open().await;
    for (file, text) in POLICIES {
        std::fs::write(town.stage.folder().join("policies").join(file), text).unwrap();
    }
    let record = json!({"resourceType": "Observation", "id": "btg-p3", "meta": {"versionId": "1"},
        "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/p3"}});
    town.stage.emr().put(record.to_string().as_bytes()).unwrap();
    let (east, west) = pair(&town, store).await;
    let token = town.stage.issuer().token_with("physician", |claims| {
        claims["sub"] = "doctor-of-emergencies".into();
        claims["sid"] = "session-of-emergencies".into();
    });
    let bearer = format!("Bearer {}", token.unwrap());
    let see = async |proxy: &Proxy| {
        let url = proxy.url("/fhir/Observation/btg-p3");
        town.ask(&url, "GET", &[("authorization", &bearer)], "").await.status
    };
    let until = async |proxy: &Proxy, status: u16| {
        let began = Instant::now();
        while see(proxy).await != status {
            assert!(began.elapsed() < SECOND, "{name}: no {status} within a second");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let order = async |proxy: &Proxy, end: bool| {
        let body = json!({"resourceType": "Parameters", "parameter": [
            {"name": "patient", "valueReference": {"reference": "Patient/p3"}},
            {"name": "reason", "valueString": "found unconscious on the ward"},
            {"name": "end", "valueBoolean": end}]});
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/fhir+json")];
        let heard = town.ask(&proxy.url("/fhir/$break-glass"), "POST", &headers, &body.to_string()).await;
        assert_eq!(heard.status, 200, "{name}: {}", heard.text);
    };
    assert_eq!((see(&east).await, see(&west).await), (404, 404), "{name}");
    // Whichever begins it, either ends it.
    for (first, second) in [(&east, &west), (&west, &east)] {
        order(first, false).await;
        assert_eq!(see(first).await, 200, "{name}");
        until(second, 200).await;
        order(second, true).await;
        assert_eq!(see(second).await, 404, "{name}");
        until(first, 404).await;
    }
    order(&east, false).await;
    until(&west, 200).await;
    let sessions = west.sessions();
    let own = sessions.iter().find(|view| view["subject"] == "doctor-of-emergencies").unwrap();
    east.revoke(&json!({"session": own["id"], "reason": "test"}));
    until(&west, 401).await;
}

async fn all(name: &str, store: &str, town: &Town) {
    let (east, west) = pair(town, store).await;
    revocations_travel(town, (&east, &west), name).await;
    drop((east, west));
    let session = format!("idle_timeout = \"4s\"\nabsolute_timeout = \"12h\"\nconcurrent = 2\n{store}");
    let (east, west) = (town.proxy("north", &session, "").await, town.proxy("south", &session, "").await);
    places_are_shared(town, (&east, &west), name).await;
    activity_is_shared(town, (&east, &west), name).await;
    drop((east, west));
    proofs_are_shared(town, store, name).await;
    emergencies_are_shared(store, name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_one_file() {
    let town = Town::open().await;
    let path = town.stage.folder().join("shared.sqlite");
    all("one SQLite file", &format!("store = {:?}\n{KEY}", path.display().to_string()), &town).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_one_database() {
    let Some(server) = Postgres::start("on_one_database", None) else { return };
    let town = Town::open().await;
    let url_file = server.url_file(town.stage.folder(), "").display().to_string();
    all("one PostgreSQL", &format!("postgres = {{ url_file = {url_file:?} }}\n{KEY}"), &town).await;
}

/// The database goes away: nobody is let in, `/readyz` says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_refuses_everyone() {
    let Some(server) = Postgres::start("a_database_that_goes_away", None) else { return };
    let town = Town::open().await;
    let url_file = server.url_file(town.stage.folder(), "").display().to_string();
    let proxy =
        town.proxy("alone", &format!("{USUAL}postgres = {{ url_file = {url_file:?} }}\n{KEY}"), "").await;
    let token = town.token("nurse");
    assert_eq!(town.read(&proxy, &token).await.status, 200);
    drop(server);
    town.until(&proxy, &token, (503, "sessions-unavailable"), Duration::from_secs(12)).await;
    assert_eq!(proxy.operations("GET", "/readyz", "").0, 503);
    let order = json!({"client": "app", "reason": "test"}).to_string();
    assert_eq!(proxy.operations("POST", "/revocation", &order).0, 503, "nothing is acknowledged");
}
