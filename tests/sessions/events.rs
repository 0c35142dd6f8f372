//! Back-channel logout and security events over TLS.

use std::time::Duration;

use serde_json::{Value, json};

use crate::town::{Heard, Proxy, Town, USUAL};

const SET: (&str, &str) = ("content-type", "application/secevent+jwt");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const SECRET: (&str, &str) = ("authorization", "Bearer from-the-issuer");
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";

async fn receiver(town: &Town) -> Proxy {
    std::fs::write(town.stage.folder().join("push.secret"), "Bearer from-the-issuer\n").unwrap();
    let events = "[issuer.events]\naudience = \"gate-events\"\nlogout_audience = \"gate-client\"\n\
                  authorization_file = \"push.secret\"\nheartbeat = \"3s\"\n\n";
    town.proxy("receiver", USUAL, events).await
}

impl Town {
    /// A token of the issuer's that is no access token.
    fn event(&self, typ: &str, claims: Value) -> String {
        let forged = self.stage.issuer().forge("nurse", |draft| {
            let issued = draft.claims["iat"].clone();
            draft.claims = claims;
            draft.header.insert("typ".to_owned(), typ.into());
            draft.claims["iss"] = self.stage.issuer().url().into();
            if draft.claims.get("iat").is_none() {
                draft.claims["iat"] = issued;
            }
        });
        forged.unwrap()
    }

    fn about(&self, subject: &str) -> Value {
        json!({"format": "iss_sub", "iss": self.stage.issuer().url(), "sub": subject})
    }

    async fn push(&self, proxy: &Proxy, claims: Value) -> Heard {
        let token = self.event("secevent+jwt", claims);
        self.ask(&proxy.url("/security-events"), "POST", &[SET, SECRET], &token).await
    }

    async fn log_out(&self, proxy: &Proxy, claims: Value) -> Heard {
        let body = format!("logout_token={}", self.event("logout+jwt", claims));
        self.ask(&proxy.url("/backchannel-logout"), "POST", &[FORM], &body).await
    }

    fn login(&self, subject: &str, session: &str) -> String {
        let token = self.stage.issuer().token_with("nurse", |claims| {
            claims["sub"] = subject.into();
            claims["sid"] = session.into();
            claims["auth_time"] = (claims["iat"].as_i64().unwrap() - 5).into();
        });
        token.unwrap()
    }
}

fn logout(jti: &str, claims: Value) -> Value {
    let mut all = json!({
        "aud": "gate-client", "jti": jti, "events": {"http://schemas.openid.net/event/backchannel-logout": {}}
    });
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_at_the_issuer_ends_the_session_here() {
    let town = Town::open().await;
    let proxy = receiver(&town).await;
    let (one, two, other) = (town.login("a", "s1"), town.login("a", "s2"), town.login("b", "s3"));
    for token in [&one, &two, &other] {
        assert_eq!(town.read(&proxy, token).await.status, 200);
    }
    let heard = town.log_out(&proxy, logout("l1", json!({"sub": "a", "sid": "s1"}))).await;
    assert_eq!((heard.status, heard.text.as_str()), (200, ""));
    assert_eq!(town.read(&proxy, &one).await.code, "session-revoked");
    assert_eq!(town.read(&proxy, &two).await.status, 200, "one session, not all");
    let heard = town.log_out(&proxy, logout("l2", json!({"sub": "a"}))).await;
    assert_eq!(heard.status, 200);
    assert_eq!(town.read(&proxy, &two).await.code, "session-revoked");
    assert_eq!(town.read(&proxy, &other).await.status, 200);
    // What nobody here has heard of is answered alike: no oracle.
    assert_eq!(town.log_out(&proxy, logout("l3", json!({"sub": "nobody", "sid": "none"}))).await.status, 200);
    // The same token again has no effect again.
    assert_eq!(town.log_out(&proxy, logout("l2", json!({"sub": "b"}))).await.status, 200);
    assert_eq!(town.read(&proxy, &other).await.status, 200);

    let refused = town.log_out(&proxy, logout("l4", json!({"sub": "b", "nonce": "n"}))).await;
    assert_eq!(refused.status, 400);
    let said: Value = serde_json::from_str(&refused.text).unwrap();
    assert_eq!(said["error"], "invalid_request");
    assert_eq!(town.read(&proxy, &other).await.status, 200);
    let taken = proxy.recorded("event-taken");
    let means: Vec<&Value> = taken.iter().map(|one| &one["details"]["means"]).collect();
    assert_eq!(means, ["session-ended", "user-signed-out", "session-ended", "user-signed-out"]);
    assert_eq!(taken[3]["details"]["again"], "true");
    assert_eq!(proxy.recorded("event-refused").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_events_are_pushed_and_taken() {
    let town = Town::open().await;
    let proxy = receiver(&town).await;
    let token = town.login("c", "s1");
    assert_eq!(town.read(&proxy, &token).await.status, 200);
    let event = |jti: &str, name: String, subject: &str| json!({"aud": "gate-events", "jti": jti, "sub_id": town.about(subject), "events": {name: {}}});
    let heard = town.push(&proxy, event("e1", format!("{RISC}account-disabled"), "c")).await;
    assert_eq!((heard.status, heard.text.as_str()), (202, ""));
    assert_eq!(town.read(&proxy, &token).await.code, "session-revoked");
    let later = town.stage.issuer().token_with("nurse", |claims| claims["sub"] = "c".into()).unwrap();
    assert_eq!(town.read(&proxy, &later).await.code, "session-revoked", "disabled until enabled");
    // Somebody who copied an event cannot use it twice.
    assert_eq!(town.push(&proxy, event("e2", format!("{RISC}account-enabled"), "c")).await.status, 202);
    assert_eq!(town.read(&proxy, &later).await.status, 200);
    assert_eq!(town.push(&proxy, event("e3", format!("{RISC}account-disabled"), "c")).await.status, 202);
    assert_eq!(town.push(&proxy, event("e2", format!("{RISC}account-enabled"), "c")).await.status, 202);
    assert_eq!(town.read(&proxy, &later).await.code, "session-revoked", "a copy of e2 opens nothing");

    // A change of credentials ends what stood on the old ones.
    let old = town.login("d", "s4");
    assert_eq!(town.read(&proxy, &old).await.status, 200);
    let mut change = event("e4", format!("{CAEP}credential-change"), "d");
    let login = jiff::Timestamp::now().as_second() - 3;
    change["events"][format!("{CAEP}credential-change")] = json!({"event_timestamp": login});
    assert_eq!(town.push(&proxy, change).await.status, 202);
    assert_eq!(town.read(&proxy, &old).await.code, "session-revoked");
    let new = town.stage.issuer().token_with("nurse", |claims| claims["sub"] = "d".into()).unwrap();
    assert_eq!(town.read(&proxy, &new).await.status, 200, "a later login stands");

    // Events that mean nothing here are taken and recorded.
    assert_eq!(
        town.push(&proxy, event("e5", format!("{CAEP}assurance-level-change"), "d")).await.status,
        202
    );
    let taken = proxy.recorded("event-taken");
    assert_eq!(taken.last().unwrap()["details"]["means"], "unknown-event");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_the_issuer_ends_nothing() {
    let town = Town::open().await;
    let proxy = receiver(&town).await;
    let token = town.login("e", "s1");
    assert_eq!(town.read(&proxy, &token).await.status, 200);
    let claims = || {
        let events = json!({format!("{RISC}account-disabled"): {}});
        json!({"aud": "gate-events", "jti": "f1", "sub_id": town.about("e"), "events": events})
    };
    let set = town.event("secevent+jwt", claims());
    let url = proxy.url("/security-events");
    let other = ("authorization", "Bearer from-somebody");
    let cases: [(&str, &[(&str, &str)], &str, &str); 5] = [
        ("no secret", &[SET], &set, "authentication_failed"),
        ("another secret", &[SET, other], &set, "authentication_failed"),
        ("another media type", &[("content-type", "application/jwt"), SECRET], &set, "invalid_request"),
        ("an access token", &[SET, SECRET], &token, "invalid_request"),
        ("nothing", &[SET, SECRET], "", "invalid_request"),
    ];
    for (name, headers, body, code) in cases {
        let heard = town.ask(&url, "POST", headers, body).await;
        let said: Value = serde_json::from_str(&heard.text).unwrap();
        assert_eq!((heard.status, said["err"].as_str()), (400, Some(code)), "{name}: {}", heard.text);
        assert!(said["description"].is_string(), "{name}");
    }
    // An event is no access token, and a logout token no event.
    assert_eq!(town.read(&proxy, &set).await.code, "token-type-refused");
    let logout_token = town.event("logout+jwt", logout("f2", json!({"sub": "e"})));
    assert_eq!(town.ask(&url, "POST", &[SET, SECRET], &logout_token).await.status, 400);
    assert_eq!(town.read(&proxy, &token).await.status, 200);
    // Nothing is taken under the FHIR base, by another method, or where no issuer sends events.
    for (url, method) in [
        (proxy.url("/fhir/security-events"), "POST"),
        (proxy.url("/security-events"), "GET"),
        (proxy.url("/security-events/"), "POST"),
        (proxy.url("/security-events?x=1"), "POST"),
    ] {
        let heard = town.ask(&url, method, &[SET, SECRET], &set).await;
        assert!(
            heard.status >= 400 && heard.text.contains("OperationOutcome"),
            "{method} {url}: {}",
            heard.text
        );
    }
    assert_eq!(town.read(&proxy, &token).await.status, 200);
    let plain = town.proxy("plain", USUAL, "").await;
    let heard = town.ask(&plain.url("/security-events"), "POST", &[SET, SECRET], &set).await;
    assert!(heard.text.contains("OperationOutcome"), "{}", heard.text);
    assert_eq!(town.push(&proxy, claims()).await.status, 202);
    assert_eq!(town.read(&proxy, &token).await.code, "session-revoked", "the same from the issuer itself");
}

/// T-194: a stream that went silent is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_is_noticed() {
    let town = Town::open().await;
    let proxy = receiver(&town).await;
    let silent = |proxy: &Proxy| proxy.operations("GET", "/readyz", "").1.contains(town.stage.issuer().url());
    let began = std::time::Instant::now();
    while !silent(&proxy) {
        assert!(began.elapsed() < Duration::from_secs(15), "nobody noticed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(proxy.operations("GET", "/readyz", "").0, 200, "nobody waits for it");
    assert!(proxy.operations("GET", "/metrics", "").1.contains("chartgate_silent_event_streams 1"));
    let name = "https://schemas.openid.net/secevent/ssf/event-type/verification";
    let verification = json!({"aud": "gate-events", "jti": "v1", "events": {name: {"state": "x"}},
        "sub_id": {"format": "opaque", "id": "stream"}});
    assert_eq!(town.push(&proxy, verification).await.status, 202);
    let began = std::time::Instant::now();
    while silent(&proxy) {
        assert!(began.elapsed() < Duration::from_secs(8), "the verification was not noticed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
