//! Who? Tokens good, bad and forged, through the door (T-168 to T-187), sessions, purposes and scopes.
//!
//! Owns: who is let in, end to end.
//! Must never: accept a refusal without its record.
//! Look next: `tests/data/tokens`, where the same is checked without a socket.

use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use chartgate_sandbox::issuer::{Draft, Outage, Signing};
use futures::all;
use serde_json::{Value, json};

use crate::child::{operations_of, until};
use crate::harness::{Hospital, Reply, run};

mod futures {
    use std::future::Future;

    use tokio::task::JoinSet;

    /// Runs all at once and keeps their order.
    pub(super) async fn all<T: Send + 'static>(
        tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
    ) -> Vec<T> {
        let mut set = JoinSet::new();
        for (place, task) in tasks.into_iter().enumerate() {
            set.spawn(async move { (place, task.await) });
        }
        let mut done = set.join_all().await;
        done.sort_by_key(|(place, _)| *place);
        done.into_iter().map(|(_, value)| value).collect()
    }
}

const INVALID: &str = "Bearer error=\"invalid_token\"";
const STEP_UP: &str = "Bearer error=\"insufficient_user_authentication\", \
                       acr_values=\"urn:example:aal2\", max_age=\"43200\"";

fn with_acr() -> Script {
    let amr = r#"amr = ["mfa", "otp"]"#;
    let both = format!("{amr}\nacr = [\"urn:example:aal2\"]");
    Script { replace: vec![(amr.to_owned(), both)], ..Script::default() }
}

type Change = fn(&mut Draft<'_>);

fn remove(draft: &mut Draft<'_>, claim: &str) {
    draft.claims.as_object_mut().unwrap().remove(claim);
}

fn ago(draft: &Draft<'_>, claim: &str, seconds: i64) -> Value {
    json!(draft.claims[claim].as_i64().unwrap() - seconds)
}

/// Name, what is wrong, and the code; all are 401 with `invalid_token`.
const FORGERIES: &[(&str, Change, &str)] = &[
    ("alg none", |d| d.sign_with(Signing::None), "token-not-compact"),
    ("alg none, but a signature", |d| set(d, "alg", json!("none")), "token-algorithm-refused"),
    ("HS256 with the public key", |d| d.sign_with(Signing::HmacWithPublicKey), "token-algorithm-refused"),
    ("a key of nobody", |d| d.sign_with(Signing::Unpublished), "token-key-unknown"),
    ("a strange key under a known kid", |d| d.sign_with(Signing::Impostor), "token-signature-invalid"),
    ("alg of another key", |d| set(d, "alg", json!("ES256")), "token-key-mismatch"),
    ("alg None in capitals", |d| set(d, "alg", json!("NONE")), "token-algorithm-refused"),
    ("no kid", |d| drop(d.header.remove("kid")), "token-key-id-refused"),
    ("a key in the header", |d| set(d, "jwk", json!({"kty": "RSA"})), "token-header-parameter-refused"),
    (
        "a key URL in the header",
        |d| set(d, "jku", json!("http://127.0.0.1:1/jwks")),
        "token-header-parameter-refused",
    ),
    ("crit", |d| set(d, "crit", json!(["exp"])), "token-header-parameter-refused"),
    ("an ID token's typ", |d| set(d, "typ", json!("id+jwt")), "token-type-refused"),
    ("no typ", |d| drop(d.header.remove("typ")), "token-type-refused"),
    ("another audience", |d| d.claims["aud"] = json!("https://other.example"), "token-audience-refused"),
    (
        "audience with a slash",
        |d| {
            d.claims["aud"] = json!(format!("{}/", d.claims["aud"].as_str().unwrap()));
        },
        "token-audience-refused",
    ),
    ("no audience", |d| remove(d, "aud"), "token-claim-missing"),
    ("another issuer", |d| d.claims["iss"] = json!("https://other.example"), "token-issuer-unknown"),
    (
        "issuer with a slash",
        |d| {
            d.claims["iss"] = json!(format!("{}/", d.claims["iss"].as_str().unwrap()));
        },
        "token-issuer-unknown",
    ),
    ("expired", |d| d.claims["exp"] = ago(d, "iat", 60), "token-expired"),
    (
        "expired, as it should be",
        |d| {
            d.claims["exp"] = ago(d, "iat", 60);
            d.claims["iat"] = ago(d, "iat", 600);
        },
        "token-expired",
    ),
    ("no expiry", |d| remove(d, "exp"), "token-claim-missing"),
    ("expiry as text", |d| d.claims["exp"] = json!("4102444800"), "token-claim-malformed"),
    ("not yet valid", |d| d.claims["nbf"] = ago(d, "iat", -600), "token-not-yet-valid"),
    (
        "issued in the future",
        |d| {
            d.claims["iat"] = ago(d, "iat", -600);
        },
        "token-issued-in-future",
    ),
    ("lives for ever", |d| d.claims["exp"] = ago(d, "iat", -900_000), "token-lifetime-refused"),
    ("nobody's", |d| remove(d, "sub"), "token-claim-missing"),
    (
        "somebody for nobody in particular",
        |d| d.claims["act"] = json!({"iss": "other"}),
        "token-claim-malformed",
    ),
    ("bound to a key", |d| d.claims["cnf"] = json!({"jkt": "x"}), "token-sender-constrained"),
];

fn set(draft: &mut Draft<'_>, name: &str, value: Value) {
    draft.header.insert(name.to_owned(), value);
}

/// Name, what is wrong, and the code; all are 401 with a challenge to step up.
const WEAK: &[(&str, Change, &str)] = &[
    (
        "password only",
        |d| {
            d.claims["amr"] = json!(["pwd"]);
            d.claims["acr"] = json!("urn:example:aal1");
        },
        "mfa-missing",
    ),
    (
        "no word of it",
        |d| {
            remove(d, "amr");
            remove(d, "acr");
        },
        "mfa-missing",
    ),
    ("long ago", |d| d.claims["auth_time"] = ago(d, "iat", 13 * 3600), "mfa-too-old"),
    ("nobody knows when", |d| remove(d, "auth_time"), "mfa-too-old"),
];

#[test]
fn no_token_that_is_not_good_comes_through_the_door() {
    run(async {
        let hospital = Hospital::open(with_acr()).await;
        let (good, mut replies) = (hospital.token("nurse"), Vec::new());
        for (name, authorization, code) in headers(&good) {
            let given: Vec<(&str, &str)> =
                authorization.iter().map(|a| ("authorization", a.as_str())).collect();
            let mut reply = hospital.ask("GET", "Patient/p1", &given, "").await;
            reply.what = name.to_owned();
            assert_eq!(reply.header("www-authenticate"), Some(INVALID), "{name}");
            replies.push((reply, 401, code));
        }
        for (cases, challenge) in [(FORGERIES, INVALID), (WEAK, STEP_UP)] {
            for (name, change, code) in cases {
                let token = hospital.stage.issuer().forge("nurse", change).unwrap();
                let mut reply = hospital.get_with(&token, "Patient/p1").await;
                reply.what = (*name).to_owned();
                assert_eq!(reply.header("www-authenticate"), Some(challenge), "{name}");
                assert!(
                    !reply.text().contains(token.split('.').nth(1).unwrap()),
                    "{name}: token in the answer"
                );
                replies.push((reply, 401, code));
            }
        }
        hospital.check_refusals(&replies);
        assert!(hospital.stage.emr().requests().is_empty(), "the EMR was asked");
        let es256 = hospital.stage.issuer().forge("nurse", |draft| draft.sign_with(Signing::Es256)).unwrap();
        for token in [good, es256] {
            hospital.get_with(&token, "Patient/p1").await.check_ok();
        }
    });
}

/// Authorization headers that hold no good token.
fn headers(good: &str) -> Vec<(&'static str, Vec<String>, &'static str)> {
    let (head, rest) = good.split_once('.').unwrap();
    let signature = rest.rsplit('.').next().unwrap();
    let payload = &rest[..rest.len() - signature.len() - 1];
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{head}.{payload}.{other}{}", &signature[1..]);
    vec![
        ("none", vec![], "token-missing"),
        ("empty", vec![String::new()], "authorization-malformed"),
        ("basic", vec!["Basic bnVyc2U6bnVyc2U=".into()], "authorization-malformed"),
        ("no token", vec!["Bearer ".into()], "authorization-malformed"),
        ("two headers", vec![format!("Bearer {good}"), format!("Bearer {good}")], "authorization-malformed"),
        ("two tokens", vec![format!("Bearer {good} {good}")], "authorization-malformed"),
        ("a comma list", vec![format!("Bearer {good}, Bearer {good}")], "authorization-malformed"),
        ("not a token", vec!["Bearer something".into()], "token-not-compact"),
        ("five parts", vec![format!("Bearer {good}.a.b")], "token-not-compact"),
        ("padding", vec![format!("Bearer {good}=")], "token-not-compact"),
        ("too large", vec![format!("Bearer {}", "a".repeat(8_500))], "token-too-large"),
        ("a letter changed", vec![format!("Bearer {forged}")], "token-signature-invalid"),
        ("not JSON", vec!["Bearer e30x.e30.AAAA".into()], "token-header-malformed"),
    ]
}

/// T-182: a rotated key comes in, unknown kids do not flood, and an issuer that is down does not close the door.
#[test]
fn keys_rotate_and_issuers_fail_without_harm() {
    run(async {
        let hospital = Hospital::open(with_acr()).await;
        let issuer = hospital.stage.issuer();
        hospital.get("nurse", "Patient/p1").await.check_ok();
        let before = issuer.hits("/jwks");
        let unknown = issuer.forge("nurse", |d| d.sign_with(Signing::Unpublished)).unwrap();
        let flood = all((0..50).map(|_| {
            let (client, base, token) =
                (hospital.client.clone(), hospital.stage.base_url().to_owned(), unknown.clone());
            async move {
                let bearer = format!("Bearer {token}");
                crate::harness::ask(&client, &base, "GET", "Patient/p1", &[("authorization", &bearer)], "")
                    .await
            }
        }));
        let flood: Vec<(Reply, u16, &str)> =
            flood.await.into_iter().map(|reply| (reply, 401, "token-key-unknown")).collect();
        hospital.check_refusals(&flood);
        assert!(
            issuer.hits("/jwks") <= before + 2,
            "unknown kids made {} fetches",
            issuer.hits("/jwks") - before
        );

        for outage in [Outage::Unavailable, Outage::Disconnect, Outage::Hang] {
            issuer.set_outage(Some(outage));
            hospital.get("nurse", "Patient/p1").await.check_ok();
        }
        issuer.set_outage(None);

        issuer.rotate().unwrap();
        let rotated = hospital.token("nurse");
        let mut reply = hospital.get_with(&rotated, "Patient/p1").await;
        for _ in 0..80 {
            if reply.status == 200 {
                break;
            }
            reply.check_refusal(401, "token-key-unknown");
            tokio::time::sleep(Duration::from_millis(500)).await;
            reply = hospital.get_with(&rotated, "Patient/p1").await;
        }
        reply.check_ok();
        let old = issuer.forge("nurse", |d| d.sign_with(Signing::Previous)).unwrap();
        hospital.get_with(&old, "Patient/p1").await.check_ok();
    });
}

/// Without keys nobody can be known: 503, and not ready.
#[test]
fn without_the_issuers_keys_nobody_is_served() {
    run(async {
        // The issuer's address is right, but nothing listens where its keys should be.
        let jwks = "algorithms = [\"RS256\", \"ES256\"]\njwks_uri = \"http://127.0.0.1:1/jwks\"".to_owned();
        let replace = vec![("algorithms = [\"RS256\", \"ES256\"]".to_owned(), jwks)];
        let hospital = Hospital::open(Script { replace, ..Script::default() }).await;
        let reply = hospital.get("nurse", "Patient/p1").await;
        hospital.check_refusals(&[(reply, 503, "issuer-keys-unavailable")]);
        assert!(operations_of(&hospital.stage, "/readyz").starts_with("HTTP/1.1 503"));
        assert!(operations_of(&hospital.stage, "/healthz").starts_with("HTTP/1.1 200"));
        hospital.ask("GET", "metadata", &[], "").await.check_ok();
    });
}

#[test]
fn sessions_end_when_quiet() {
    run(async {
        let replace = vec![("idle_timeout = \"15m\"".to_owned(), "idle_timeout = \"1s\"".to_owned())];
        let hospital = Hospital::open(Script { replace, ..Script::default() }).await;
        let token = hospital.token("nurse");
        hospital.get_with(&token, "Patient/p1").await.check_ok();
        tokio::time::sleep(Duration::from_millis(3_100)).await;
        let reply = hospital.get_with(&token, "Patient/p1").await;
        assert_eq!(reply.header("www-authenticate"), Some(INVALID));
        let again = hospital.get_with(&token, "Patient/p1").await;
        hospital.check_refusals(&[(reply, 401, "session-idle"), (again, 401, "session-idle")]);
        hospital.get("nurse", "Patient/p1").await.check_ok();
        let twelve = |d: &mut Draft<'_>| d.claims["auth_time"] = ago(d, "iat", 12 * 3600 + 5);
        let old = hospital.stage.issuer().forge("nurse", twelve).unwrap();
        let reply = hospital.get_with(&old, "Patient/p1").await;
        assert_eq!(reply.status, 401, "{}", reply.code());
    });
}

/// Scopes narrow and never widen (T-188, T-189); a purpose is chosen among what the token allows.
#[test]
fn scopes_and_purposes_only_narrow() {
    run(async {
        let hospital = Hospital::shared().await;
        let cases: &[(&str, &str, &str, u16, &str)] = &[
            ("nurse", "user/Observation.rs", "Observation/obs-weight", 200, ""),
            ("nurse", "user/Observation.rs", "Patient/p1", 403, "scope-insufficient"),
            ("nurse", "user/Patient.s", "Patient/p1", 403, "scope-insufficient"),
            ("nurse", "user/Patient.r", "Patient?gender=female", 403, "scope-insufficient"),
            (
                "nurse",
                "user/Patient.rs",
                "Patient?_revinclude=Observation:subject",
                403,
                "scope-insufficient",
            ),
            ("nurse", "user/patient.rs", "Patient/p1", 403, "scope-insufficient"),
            ("nurse", "user/Patient.sr", "Patient/p1", 403, "scope-insufficient"),
            ("nurse", "user/*.rs patient/*.rs", "Patient/p1", 403, "scopes-mixed"),
            ("nurse", "patient/*.rs", "Patient/p1", 403, "launch-patient-missing"),
            ("nurse", "openid", "Patient/p1", 200, ""),
            ("front-desk", "user/*.cruds system", "Condition?patient=p1", 403, "type-not-permitted"),
            ("nurse", "user/Patient.cruds user/Coverage.cruds", "Coverage/cov1", 403, "type-not-permitted"),
        ];
        let (mut refused, mut released) = (Vec::new(), Vec::new());
        for (who, scope, path, status, code) in cases {
            let token =
                hospital.stage.issuer().token_with(who, |claims| claims["scope"] = json!(scope)).unwrap();
            let mut reply = hospital.get_with(&token, path).await;
            reply.what = format!("{who} with `{scope}`: {path}");
            assert_eq!(reply.status, *status, "{}: {:?}", reply.what, reply.body);
            if *status == 200 { released.push(reply) } else { refused.push((reply, *status, *code)) }
        }
        hospital.check_refusals(&refused);
        hospital.check_recorded(&released);
        launch_patient_binds(&hospital).await;
        purposes_choose(&hospital).await;
    });
}

/// A physician's `patient/` scopes leave one patient.
async fn launch_patient_binds(hospital: &Hospital) {
    let token = hospital.stage.issuer().token_with("physician", |claims| {
        claims["scope"] = json!("patient/*.rs");
        claims["patient"] = json!("p2");
    });
    let token = token.unwrap();
    hospital.get_with(&token, "Patient/p2").await.check_ok();
    let other = hospital.get_with(&token, "Patient/p1").await;
    let found = hospital.get_with(&token, "Observation?_count=200").await;
    let bundle = found.json();
    assert!(bundle["entry"].as_array().unwrap().len() >= 2);
    for entry in bundle["entry"].as_array().unwrap() {
        assert_eq!(entry["resource"]["subject"]["reference"], "Patient/p2");
    }
    hospital.check_refusals(&[(other, 404, "not-found")]);
}

async fn purposes_choose(hospital: &Hospital) {
    let token = hospital.stage.issuer().token_with("physician", |claims| {
        claims["purpose_of_use"] = json!(["TREAT", "ETREAT"]);
    });
    let bearer = format!("Bearer {}", token.unwrap());
    let ask = async |purposes: &[&str]| {
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(purposes.iter().map(|purpose| ("x-purpose-of-use", *purpose)));
        hospital.ask("GET", "Patient/p1", &headers, "").await
    };
    let chosen = ask(&["ETREAT"]).await;
    chosen.check_ok();
    assert_eq!(hospital.check_recorded([&chosen])[0]["purposes"], json!(["ETREAT"]));
    hospital.check_refusals(&[
        (ask(&[]).await, 403, "purpose-ambiguous"),
        (ask(&["HRESCH"]).await, 403, "purpose-not-allowed"),
        (ask(&["treat"]).await, 403, "purpose-not-allowed"),
        (ask(&["TREAT", "ETREAT"]).await, 400, "repeated-header"),
    ]);
}

/// Readiness needs keys, policies and journal, and says which is missing.
#[test]
fn the_operations_listener_tells_and_leaks_nothing() {
    run(async {
        let hospital = Hospital::shared().await;
        let ready = until(Duration::from_secs(15), || {
            operations_of(&hospital.stage, "/readyz").starts_with("HTTP/1.1 200")
        });
        assert!(ready.await, "{}", operations_of(&hospital.stage, "/readyz"));
        let token = hospital.token("nurse");
        hospital.get_with(&token, "Patient/p1").await.check_ok();
        hospital
            .get_with(&token, "Patient?identifier=0000-1111")
            .await
            .check_refusal(403, "criterion-withheld");
        let metrics = operations_of(&hospital.stage, "/metrics");
        assert!(metrics.contains("chartgate_refusals_total{code=\"criterion-withheld\"}"), "{metrics}");
        assert!(
            metrics.contains(
                "chartgate_requests_total{interaction=\"read\",decision=\"permit\",status=\"2xx\"}"
            )
        );
        for secret in ["0000-1111", "Beispiel", "p1", "nurse", &token] {
            assert!(!metrics.contains(secret), "metrics say {secret}");
        }
        assert!(operations_of(&hospital.stage, "/Patient/p1").starts_with("HTTP/1.1 404"));
    });
}
