//! A refusal that another login would lift is a challenge for that login (RFC 9470).
//!
//! Owns: that whoever obeys the challenge is let in, and that no challenge tells of a record.
//! Must never: take a challenge for an answer: each is obeyed and asked again.
//! Look next: `src/domain/access/step_up.rs`, the rule and its law.

use chartgate::cli::demo::stage::Script;
use serde_json::{Value, json};

use crate::harness::{Hospital, REFUSAL_SYSTEM, Reply, run};

const STRICT: &str = r#"
@id("fresh-birthdate")
forbid (principal in Role::"nurse", action == Action::"disclose", resource in FHIR::Element::"Patient.birthDate")
when { context.mfa.age > 600 };
@id("strong-conditions")
forbid (principal in Role::"nurse", action in Action::"view", resource is FHIR::Condition)
when { !context.mfa.phishingResistant };
@id("both-for-goals")
forbid (principal in Role::"nurse", action in Action::"view", resource is FHIR::Goal)
when { !(context.mfa.phishingResistant && context.mfa.age < 300) };
@id("fresh-notes")
forbid (principal in Role::"nurse", action == Action::"modify", resource in FHIR::Element::"Observation.note")
when { context.mfa.age > 60 };
@id("fresh-for-restricted")
forbid (principal in Role::"nurse", action in Action::"view", resource is FHIR::Flag)
when { resource.labels.contains("L9") && context.mfa.age > 60 };
"#;

const PREFIX: &str = "Bearer error=\"insufficient_user_authentication\"";

/// A token of a login this long ago, with these methods.
fn token(hospital: &Hospital, age_seconds: i64, resistant: bool) -> String {
    let token = hospital.stage.issuer().token_with("nurse", |claims| {
        claims["auth_time"] = (claims["auth_time"].as_i64().unwrap() - age_seconds).into();
        claims["scope"] = "openid fhirUser user/*.cruds".into();
        if resistant {
            claims["acr"] = "phr".into();
        }
    });
    token.unwrap()
}

async fn ask(hospital: &Hospital, token: &str, (method, path): (&str, &str), body: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("authorization", bearer.as_str())];
    if !body.is_empty() {
        headers.push(("content-type", "application/fhir+json"));
    }
    hospital.ask(method, path, &headers, body).await
}

/// What a challenge asks for: the largest age, and whether it must resist phishing.
fn challenge(reply: &Reply) -> (Option<i64>, bool) {
    let value = reply.header("www-authenticate").unwrap();
    assert!(value.starts_with(PREFIX), "{}: {value}", reply.what);
    let part = |name: &str| value.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
    let resistant = part("acr_values").map(|classes| assert_eq!(classes, "phr phrh"));
    (part("max_age").map(|age| age.parse().unwrap()), resistant.is_some())
}

/// Asked, path, body; what the challenge asks for, and what it says it would open.
type Case<'c> = (&'c str, &'c str, &'c str, (Option<i64>, bool), &'c str);

#[test]
fn who_obeys_the_challenge_is_let_in() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let before = hospital.events("policies-loaded");
        hospital.edit("strict.cedar", Some(STRICT));
        hospital.edited("policies-loaded", before).await;
        let note = r#"{"resourceType":"Observation","status":"final","code":{"text":"x"},
            "subject":{"reference":"Patient/p1"},"note":[{"text":"x"}]}"#;
        let cases: [Case<'_>; 7] = [
            ("GET", "Patient?birthdate=1970-01-01", "", (Some(600), false), "http.birthdate"),
            ("GET", "Patient?_sort=birthdate", "", (Some(600), false), "http._sort=birthdate"),
            ("GET", "Patient/p1?_elements=birthDate", "", (Some(600), false), "Patient.birthDate"),
            ("GET", "Condition?patient=p1", "", (None, true), "Condition"),
            ("GET", "Condition/cond-diabetes", "", (None, true), "Condition"),
            ("GET", "Goal?patient=p1", "", (Some(299), true), "Goal"),
            ("POST", "Observation", note, (Some(60), false), "Observation.note.text"),
        ];
        let weak = token(&hospital, 3600, false);
        let mut replies = Vec::new();
        for (method, path, body, expected, opens) in cases {
            let asked = hospital.stage.emr().requests().len();
            let reply = ask(&hospital, &weak, (method, path), body).await;
            reply.check_refusal(401, "step-up-required");
            assert_eq!(challenge(&reply), expected, "{path}");
            assert_eq!(reply.json()["issue"][0]["expression"], Value::from(vec![opens]), "{path}");
            assert_eq!(reply.json()["issue"][0]["details"]["coding"][0]["system"], REFUSAL_SYSTEM);
            assert_eq!(hospital.stage.emr().requests().len(), asked, "{path}: the EMR was asked");
            replies.push(reply);
            let (age, resistant) = expected;
            // A login as old as it may be, but for the seconds this takes.
            let obedient = token(&hospital, age.map_or(3600, |age| (age - 30).max(0)), resistant);
            let reply = ask(&hospital, &obedient, (method, path), body).await;
            assert!(reply.status < 300, "{path}: {} {:?}", reply.status, reply.body);
        }
        hospital.check_recorded(&replies);
        no_login_helps(&hospital, &weak).await;
        an_entry_of_a_batch_says_as_much(&hospital, &weak).await;
        no_challenge_tells_of_a_record(&hospital, &weak).await;
    });
}

/// An entry has no headers: its outcome holds the same challenge that the request alone is answered with.
async fn an_entry_of_a_batch_says_as_much(hospital: &Hospital, weak: &str) {
    let paths = ["Goal?patient=p1", "Patient/p1", "Patient?identifier=x"];
    let entries = paths.map(|url| json!({"request": {"method": "GET", "url": url}}));
    let body = json!({"resourceType": "Bundle", "type": "batch", "entry": entries}).to_string();
    let reply = ask(hospital, weak, ("POST", ""), &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let alone = ask(hospital, weak, ("GET", paths[0]), "").await;
    let challenge = alone.header("www-authenticate").unwrap();
    let expected = json!([{"url": "https://chartgate.dev/challenge", "valueString": challenge}]);
    let told = reply.json();
    let response = |place: usize| &told["entry"][place]["response"];
    assert_eq!((&response(0)["status"], &response(0)["outcome"]["extension"]), (&json!("401"), &expected));
    assert_eq!(response(1)["status"], "200");
    assert_eq!(response(2)["status"], "403");
    assert!(response(2)["outcome"].get("extension").is_none(), "no login helps");
}

async fn no_login_helps(hospital: &Hospital, weak: &str) {
    let refused = |path| async move { ask(hospital, weak, ("GET", path), "").await };
    hospital.check_refusals(&[
        (refused("Claim?patient=p1").await, 403, "type-not-permitted"),
        (refused("Patient?identifier=x").await, 403, "criterion-withheld"),
    ]);
    // Not asked for by name, it is left out as ever.
    let whole = refused("Patient/p1").await;
    whole.check_ok();
    assert!(whole.json().get("birthDate").is_none());
    // Asked for by name beside what no login opens: what a login opens is what is told.
    let both = refused("Patient/p1?_elements=birthDate,identifier").await;
    both.check_refusal(401, "step-up-required");
    assert_eq!(both.json()["issue"][0]["expression"], Value::from(vec!["Patient.birthDate"]));
}

/// A record that only a fresh login would show sounds like none.
async fn no_challenge_tells_of_a_record(hospital: &Hospital, weak: &str) {
    let flag = r#"{"resourceType":"Flag","id":"flag-l9","meta":{"versionId":"1","security":[{"code":"L9"}]},
        "status":"active","code":{"text":"x"},"subject":{"reference":"Patient/p1"}}"#;
    hospital.stage.emr().put(flag.as_bytes()).unwrap();
    let hidden = ask(hospital, weak, ("GET", "Flag/flag-l9"), "").await;
    let missing = ask(hospital, weak, ("GET", "Flag/flag-none"), "").await;
    assert_eq!(hidden.without_request_id(), missing.without_request_id());
    hospital.check_refusals(&[(hidden, 404, "not-found"), (missing, 404, "not-found")]);
    let fresh = token(hospital, 0, false);
    ask(hospital, &fresh, ("GET", "Flag/flag-l9"), "").await.check_ok();
}
