//! Tests of the issuer: tokens verified with another library, the login with both factors, rotation, outages.

use std::net::SocketAddr;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

use super::*;
use crate::web::{exchange, query};

const AUDIENCE: &str = "https://gate.example/fhir";

fn offline() -> Issuer {
    Issuer::offline("http://127.0.0.1:9", AUDIENCE).unwrap()
}

/// Verifies as a resource server does: key by `kid` from the JWKS, algorithm of that key, issuer, audience, expiry.
fn verify(issuer: &Issuer, jwks: &Value, token: &str) -> Option<Value> {
    let jwks: JwkSet = serde_json::from_value(jwks.clone()).unwrap();
    let header = decode_header(token).ok()?;
    let key = jwks.find(&header.kid?)?;
    let algorithm = match key.common.key_id.as_deref() {
        Some(kid) if kid.contains("-ec-") => Algorithm::ES256,
        _ => Algorithm::RS256,
    };
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[issuer.audience()]);
    validation.set_issuer(&[issuer.url()]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.leeway = 0;
    decode(token, &DecodingKey::from_jwk(key).unwrap(), &validation).ok().map(|data| data.claims)
}

#[test]
fn good_tokens_verify_and_say_who() {
    let issuer = offline();
    let cases = [
        ("nurse", "hosp-rn", "TREAT", Some("Practitioner/pr-nurse"), None),
        ("physician", "hosp-md", "TREAT", Some("Practitioner/pr-physician"), None),
        ("front-desk", "hosp-reg", "HOPERAT", None, None),
        ("billing-clerk", "hosp-billing", "HPAYMT", None, None),
        ("researcher", "hosp-research", "HRESCH", None, None),
        ("patient", "portal-patient", "PATRQT", Some("Patient/p1"), Some("p1")),
    ];
    assert_eq!(issuer.personas().len(), cases.len());
    for (name, role, purpose, fhir_user, patient) in cases {
        let token = issuer.token(name).unwrap();
        let claims = verify(&issuer, &issuer.jwks(), &token).unwrap();
        assert_eq!(claims["roles"], json!([role]));
        assert_eq!(claims["purpose_of_use"], purpose);
        assert_eq!(claims.get("fhirUser").and_then(Value::as_str), fhir_user);
        assert_eq!(claims.get("patient").and_then(Value::as_str), patient);
        assert_eq!(claims["amr"], json!(["pwd", "otp", "mfa"]));
        assert!(claims["auth_time"].is_i64() && claims["jti"].is_string() && claims["azp"].is_string());
        assert_eq!(decode_header(&token).unwrap().typ.as_deref(), Some("at+jwt"));
        let role = ROLE_NAMES.iter().find(|(raw, _)| *raw == role).unwrap().1;
        assert_eq!(role, name, "personas are called like the role they have");
    }
    assert!(matches!(issuer.token("nobody"), Err(IssuerError::NoSuchPersona)));
}

#[test]
fn forged_tokens_do_not_verify() {
    let issuer = offline();
    let jwks = issuer.jwks();
    let forge = |change: fn(&mut Draft<'_>)| issuer.forge("nurse", change).unwrap();
    assert!(verify(&issuer, &jwks, &forge(|draft| draft.sign_with(Signing::Es256))).is_some());
    let bad: &[fn(&mut Draft<'_>)] = &[
        |draft| draft.sign_with(Signing::None),
        |draft| draft.sign_with(Signing::HmacWithPublicKey),
        |draft| draft.sign_with(Signing::Unpublished),
        |draft| draft.sign_with(Signing::Impostor),
        |draft| draft.claims["aud"] = json!("https://other.example"),
        |draft| draft.claims["iss"] = json!("https://other.example"),
        |draft| draft.claims["exp"] = json!(now() - 100),
        |draft| {
            draft.claims.as_object_mut().unwrap().remove("sub");
        },
        |draft| {
            draft.header.insert("kid".to_owned(), json!("unknown"));
        },
        |draft| {
            draft.header.insert("alg".to_owned(), json!("ES256"));
        },
    ];
    for (at, change) in bad.iter().enumerate() {
        assert!(verify(&issuer, &jwks, &forge(*change)).is_none(), "forgery {at}");
    }
    // The confusion is a real one: whoever takes the public key for a secret would accept it.
    let confused = forge(|draft| draft.sign_with(Signing::HmacWithPublicKey));
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&[AUDIENCE]);
    let secret = DecodingKey::from_secret(issuer.public_pem().unwrap().as_bytes());
    assert!(decode::<Value>(&confused, &secret, &validation).is_ok());
    assert!(DecodingKey::from_rsa_pem(issuer.public_pem().unwrap().as_bytes()).is_ok());
    let changed = issuer.token_with("nurse", |claims| claims["roles"] = json!(["hosp-md"])).unwrap();
    assert_eq!(verify(&issuer, &jwks, &changed).unwrap()["roles"], json!(["hosp-md"]));
}

#[test]
fn keys_rotate() {
    let issuer = offline();
    let before = issuer.token("nurse").unwrap();
    let old_jwks = issuer.jwks();
    issuer.rotate().unwrap();
    let after = issuer.token("nurse").unwrap();
    assert!(verify(&issuer, &old_jwks, &after).is_none(), "old key set does not know the new key");
    assert!(verify(&issuer, &issuer.jwks(), &before).is_some(), "still published");
    assert!(verify(&issuer, &issuer.jwks(), &after).is_some());
    issuer.retire();
    assert!(verify(&issuer, &issuer.jwks(), &before).is_none());
    let late = issuer.forge("nurse", |draft| draft.sign_with(Signing::Previous)).unwrap();
    assert!(verify(&issuer, &issuer.jwks(), &late).is_none());
    assert!(verify(&issuer, &old_jwks, &late).is_some());
}

async fn started() -> (Issuer, Server) {
    Issuer::start(SocketAddr::from(([127, 0, 0, 1], 0)), AUDIENCE).await.unwrap()
}

#[tokio::test]
async fn logging_in_with_both_factors() {
    let (issuer, _server) = started().await;
    let nurse = issuer.persona("nurse").unwrap();
    let tokens = login(issuer.url(), nurse, nurse.password, Some(&nurse.code())).await.unwrap();
    let claims = verify(&issuer, &issuer.jwks(), &tokens.access).unwrap();
    assert_eq!(
        (claims["amr"].clone(), claims["acr"].clone()),
        (json!(["pwd", "otp", "mfa"]), json!(ACR_TWO_FACTORS))
    );
    assert_eq!(claims["scope"], nurse.scope);
    assert!(tokens.id.is_some());
    assert!(!format!("{tokens:?}").contains(&tokens.access));

    let single = login(issuer.url(), nurse, nurse.password, None).await.unwrap();
    let claims = verify(&issuer, &issuer.jwks(), &single.access).unwrap();
    assert_eq!((claims["amr"].clone(), claims["acr"].clone()), (json!(["pwd"]), json!(ACR_PASSWORD)));
}

#[tokio::test]
async fn wrong_factors_give_no_token() {
    let (issuer, _server) = started().await;
    let nurse = issuer.persona("nurse").unwrap();
    let other = issuer.persona("physician").unwrap();
    let stale = nurse.code_at(now_seconds() - 600);
    let wrong = if nurse.code() == "000000" { "111111" } else { "000000" };
    for (password, code) in [
        ("wrong", nurse.code()),
        ("", nurse.code()),
        (other.password, nurse.code()),
        (nurse.password, wrong.to_owned()),
        (nurse.password, stale),
        (nurse.password, other.code()),
        (nurse.password, "x".to_owned()),
    ] {
        let refused = login(issuer.url(), nurse, password, Some(&code)).await;
        assert!(matches!(refused, Err(LoginError::Refused)), "{password} {code}");
    }
}

fn authorization(challenge: &str, redirect_uri: &str) -> Vec<(&'static str, String)> {
    vec![
        ("response_type", "code".to_owned()),
        ("client_id", "ward-app".to_owned()),
        ("redirect_uri", redirect_uri.to_owned()),
        ("scope", "openid".to_owned()),
        ("state", "<\"&".to_owned()),
        ("code_challenge", challenge.to_owned()),
        ("code_challenge_method", "S256".to_owned()),
    ]
}

#[tokio::test]
async fn codes_are_bound_and_used_once() {
    let (issuer, _server) = started().await;
    let url = format!("{}/authorize", issuer.url());
    let verifier = "v".repeat(43);
    let challenge = base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()));
    for (challenge, redirect) in [
        ("", "http://127.0.0.1/cb"),
        (&challenge, "https://evil.example/cb"),
        (&challenge, "http://evil.example/cb"),
    ] {
        let asked = query(&authorization(challenge, redirect));
        let page = exchange("GET", &format!("{url}?{asked}"), &[], "").await.unwrap();
        assert_eq!(page.status(), 400, "{redirect}");
    }
    let asked = authorization(&challenge, "http://127.0.0.1/cb");
    let page = exchange("GET", &format!("{url}?{}", query(&asked)), &[], "").await.unwrap();
    assert!(String::from_utf8_lossy(page.body()).contains("value=\"&lt;&quot;&amp;\""), "escaped");

    for (verifier, redirect, expected) in [
        ("w".repeat(43), "http://127.0.0.1/cb", 400),
        (verifier.clone(), "http://127.0.0.1/other", 400),
        (verifier, "http://127.0.0.1/cb", 200),
    ] {
        let nurse = issuer.persona("nurse").unwrap();
        let mut form = asked.clone();
        form.extend([
            ("user", "nurse".to_owned()),
            ("password", nurse.password.to_owned()),
            ("code", nurse.code()),
        ]);
        let back = exchange("POST", &url, &[], query(&form)).await.unwrap();
        let location = back.headers()["location"].to_str().unwrap().to_owned();
        let back = crate::web::pairs(location.split_once('?').unwrap().1);
        let code = crate::web::field(&back, "code").unwrap();
        let redeem = query(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("client_id", "ward-app"),
            ("code_verifier", &verifier),
        ]);
        let token_url = format!("{}/token", issuer.url());
        let answer = exchange("POST", &token_url, &[], redeem.clone()).await.unwrap();
        assert_eq!(answer.status().as_u16(), expected);
        let again = exchange("POST", &token_url, &[], redeem).await.unwrap();
        assert_eq!(again.status(), 400, "a code is good once");
    }
}

#[tokio::test]
async fn outages_and_counts() {
    let (issuer, _server) = started().await;
    let url = format!("{}/jwks", issuer.url());
    let answer = exchange("GET", &url, &[], "").await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(answer.body()).unwrap(), issuer.jwks());
    issuer.set_outage(Some(Outage::Unavailable));
    assert_eq!(exchange("GET", &url, &[], "").await.unwrap().status(), 503);
    issuer.set_outage(Some(Outage::Disconnect));
    assert!(exchange("GET", &url, &[], "").await.is_err());
    issuer.set_outage(Some(Outage::Hang));
    assert!(tokio::time::timeout(Duration::from_millis(100), exchange("GET", &url, &[], "")).await.is_err());
    issuer.set_outage(None);
    issuer.next_answer("/jwks", Canned::status(200).body("{\"keys\":["));
    assert_eq!(exchange("GET", &url, &[], "").await.unwrap().body(), "{\"keys\":[");
    assert_eq!(exchange("GET", &url, &[], "").await.unwrap().status(), 200);
    assert_eq!(issuer.hits("/jwks"), 6);
    let refused = Issuer::start(SocketAddr::from(([192, 0, 2, 1], 0)), AUDIENCE).await;
    assert!(matches!(refused, Err(IssuerError::Serve(ServeError::NotLoopback(_)))));
}

#[test]
fn secrets_stay_out_of_debug_text() {
    let issuer = offline();
    let nurse = issuer.persona("nurse").unwrap();
    let shown = format!("{nurse:?} {issuer:?}");
    assert!(!shown.contains(nurse.password) && !shown.contains(&nurse.totp_secret()));
    // 20 bytes are 32 base32 letters, and an authenticator app gets the same code from them.
    let secret = totp_rs::Secret::try_from_base32(nurse.totp_secret()).unwrap();
    let app = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    assert_eq!(app.generate(1_000_000_000).to_string(), nurse.code_at(1_000_000_000));
}
