//! Security events and logout tokens, good and bad: cases are data in `tests/data/events`.

use std::collections::BTreeMap;

use chartgate::domain::identity::event::{
    EventKind, EventRefusal, Meaning, SecurityEvent, UnverifiedEvent, validate,
};
use chartgate::domain::identity::{Issuer, IssuerSpec, KeySet, MfaSpec};
use chartgate_sandbox::issuer::{self, Signing};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

const URL: &str = "https://idp.test";
const EVENTS: &str = "https://gate.test/events";
const CLIENT: &str = "gate-client";
const ISSUED: i64 = 1_800_000_000;

#[derive(serde::Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    header: Option<String>,
    #[serde(default)]
    claims: Option<String>,
    #[serde(default)]
    signing: Option<String>,
    #[serde(default)]
    means: Vec<String>,
    #[serde(default)]
    refused: Option<(String, String)>,
}

fn good(kind: EventKind) -> (&'static str, Value) {
    match kind {
        EventKind::Security => (
            "secevent+jwt",
            json!({
                "iss": URL, "aud": EVENTS, "iat": ISSUED, "jti": "event-1",
                "sub_id": {"format": "iss_sub", "iss": URL, "sub": "person-1"},
                "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {}}
            }),
        ),
        EventKind::Logout => (
            "logout+jwt",
            json!({
                "iss": URL, "aud": CLIENT, "iat": ISSUED, "exp": ISSUED + 120, "jti": "logout-1",
                "sub": "person-1", "sid": "sid-7",
                "events": {"http://schemas.openid.net/event/backchannel-logout": {}}
            }),
        ),
    }
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let members = into.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn signing(name: Option<&str>) -> Signing {
    match name {
        None => Signing::Rs256,
        Some("Unpublished") => Signing::Unpublished,
        Some("Impostor") => Signing::Impostor,
        Some("HmacWithPublicKey") => Signing::HmacWithPublicKey,
        Some("None") => Signing::None,
        Some(other) => panic!("no signing {other}"),
    }
}

fn forge(issuer: &issuer::Issuer, kind: EventKind, case: &Case) -> String {
    let (typ, mut claims) = good(kind);
    let patch = |text: &Option<String>| text.as_deref().map(|text| serde_json::from_str(text).unwrap());
    if let Some(patch) = patch(&case.claims) {
        merge(&mut claims, &patch);
    }
    let header_patch: Option<Value> = patch(&case.header);
    let forged = issuer.forge("nurse", |draft| {
        draft.sign_with(signing(case.signing.as_deref()));
        draft.claims = claims;
        let mut header = Value::Object(std::mem::take(&mut draft.header));
        header["typ"] = typ.into();
        header_patch.iter().for_each(|patch| merge(&mut header, patch));
        draft.header = header.as_object().cloned().unwrap_or_else(Map::new);
    });
    forged.unwrap()
}

fn settings() -> Issuer {
    Issuer::new(IssuerSpec {
        url: URL.to_owned(),
        audience: "https://gate.test/fhir".to_owned(),
        algorithms: vec!["RS256".to_owned(), "ES256".to_owned()],
        roles_claim: "/roles".to_owned(),
        roles: BTreeMap::new(),
        purpose_claim: None,
        mfa: MfaSpec { amr: vec!["otp".to_owned()], acr: Vec::new(), max_age_seconds: 3600 },
    })
    .unwrap()
}

fn judge(
    token: &str,
    kind: EventKind,
    settings: &Issuer,
    keys: &KeySet,
) -> Result<SecurityEvent, EventRefusal> {
    let event = UnverifiedEvent::inspect(token, kind)?;
    let audience = if kind == EventKind::Logout { CLIENT } else { EVENTS };
    validate(&event, settings, audience, keys, Timestamp::from_second(ISSUED + 60).unwrap())
}

fn said(meaning: &Meaning) -> String {
    let (name, at) = match meaning {
        Meaning::EndSession { session, at } => (session, at),
        Meaning::EndUser { subject, at }
        | Meaning::DisableUser { subject, at }
        | Meaning::EnableUser { subject, at } => (subject, at),
        Meaning::RevokeToken { token, at } => (token, at),
        Meaning::Verification | Meaning::Unknown => return meaning.code().to_owned(),
    };
    format!("{} {name} {}", meaning.code(), at.as_second())
}

fn check(kind: EventKind, text: &str) {
    let issuer = issuer::Issuer::offline(URL, "https://gate.test/fhir").unwrap();
    let settings = settings();
    let keys = KeySet::read(issuer.jwks().to_string().as_bytes(), &settings).unwrap();
    let cases: Cases = toml::from_str(text).unwrap();
    for case in &cases.case {
        let token = forge(&issuer, kind, case);
        match (judge(&token, kind, &settings, &keys), &case.refused) {
            (Ok(event), None) => {
                let said: Vec<String> = event.meanings().iter().map(said).collect();
                assert_eq!(said, case.means, "{}", case.name);
                let shown = format!("{event:?}");
                assert!(!shown.contains("person") && !shown.contains("sid-7"), "{}: {shown}", case.name);
            }
            (Err(refusal), Some((code, part))) => {
                assert_eq!(refusal.code(), code, "{}: {refusal}", case.name);
                assert!(refusal.to_string().contains(part.as_str()), "{}: {refusal}", case.name);
            }
            (found, _) => panic!("{}: {found:?}", case.name),
        }
    }
}

#[test]
fn security_events() {
    check(EventKind::Security, include_str!("../data/events/security.toml"));
}

#[test]
fn logout_tokens() {
    check(EventKind::Logout, include_str!("../data/events/logout.toml"));
}

/// KF-01: any bit of the signature or of what is signed.
#[test]
fn a_flipped_bit_is_refused() {
    let issuer = issuer::Issuer::offline(URL, "https://gate.test/fhir").unwrap();
    let settings = settings();
    let keys = KeySet::read(issuer.jwks().to_string().as_bytes(), &settings).unwrap();
    let case: Case = toml::from_str("name = \"good\"").unwrap();
    let token = forge(&issuer, EventKind::Security, &case);
    assert!(judge(&token, EventKind::Security, &settings, &keys).is_ok());
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(judge(&changed, EventKind::Security, &settings, &keys).is_err(), "byte {at}");
    }
}
