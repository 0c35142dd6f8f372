//! Tests of the explanations: each fault alone and several together, and that they agree with the door.

use super::super::claims;
use super::*;

fn findings(token: &str) -> Vec<Finding> {
    let (issuer, keys) = (issuer(), keys());
    diagnose(token, &[Trusted { issuer: &issuer, keys: Some(&keys) }], at(NOW))
}

fn codes(token: &str) -> Vec<&'static str> {
    findings(token).into_iter().map(|finding| finding.code).collect()
}

/// A good token without some claims.
fn without(claims: &[&str]) -> String {
    Row { without: claims.iter().map(|claim| (*claim).to_owned()).collect(), ..Row::default() }.token()
}

fn with_header(changes: Value) -> String {
    Row { header: Some(changes.to_string()), ..Row::default() }.token()
}

#[test]
fn each_fault_alone_is_found_alone_and_explained() {
    let of = token_with;
    let cases: Vec<(String, &[&str], &[&str])> = vec![
        (of(json!({})), &[], &[]),
        (without(&["amr"]), &["mfa-missing"], &["neither `amr` nor `acr`", "`otp`", "`urn:test:aal2`"]),
        (of(json!({"amr": ["pwd"]})), &["mfa-missing"], &["`amr` is `pwd`, and there is no `acr`"]),
        (without(&["auth_time"]), &["mfa-too-old"], &["no `auth_time`"]),
        (of(json!({"auth_time": NOW - 7260})), &["mfa-too-old"], &["2 h 1 min old", "`max_age` is 1 h"]),
        (of(json!({"auth_time": NOW + 90})), &["token-claim-malformed"], &["1 min 30 s in the future"]),
        (
            of(json!({"aud": ["a", "b"]})),
            &["token-audience-refused"],
            &["`a`, `b`", "https://fhir.test/fhir"],
        ),
        (
            of(json!({"iss": "https://else.test"})),
            &["token-issuer-unknown"],
            &["`https://else.test`; configured"],
        ),
        (of(json!({"iss": "https://idp.test/"})), &["token-issuer-unknown"], &["slash at the end"]),
        (of(json!({"exp": NOW - 40, "iat": NOW - 90})), &["token-expired"], &["expired 40 s ago"]),
        (of(json!({"nbf": NOW + 3600})), &["token-not-yet-valid"], &["another 1 h"]),
        (of(json!({"iat": NOW + 60})), &["token-issued-in-future"], &["1 min in the future"]),
        (of(json!({"exp": NOW + 864_000})), &["token-lifetime-refused"], &["10 days 1 min"]),
        (of(json!({"nonce": "n"})), &["token-of-another-kind"], &["`nonce`"]),
        (of(json!({"roles": []})), &["token-without-roles"], &["an empty list stands at `/roles`"]),
        (without(&["roles"]), &["token-without-roles"], &["nothing stands at `/roles`", "`amr`", "`scope`"]),
        (of(json!({"roles": 7})), &["token-claim-malformed"], &["`/roles`"]),
        (without(&["sub"]), &["token-claim-missing"], &["`sub`"]),
        (without(&["sid"]), &["token-without-session"], &["no `sid`"]),
        (of(json!({"cnf": {"x5t#S256": encode(&[7; 32])}})), &["token-bound-to-certificate"], &["mTLS"]),
        (of(json!({"cnf": {"jkt": encode(&[7; 32])}})), &["token-bound-to-key"], &["DPoP"]),
        (of(json!({"cnf": {"kid": "x"}})), &["token-sender-constrained"], &["`x5t#S256`"]),
        (with_header(json!({"typ": "logout+jwt"})), &["token-type-refused"], &["`logout+jwt`"]),
        (with_header(json!({"kid": "gone"})), &["token-key-unknown"], &["`gone`", "5 usable"]),
        (with_header(json!({"kid": "rsa"})), &["token-key-mismatch"], &["ES256", "RS256"]),
        (with_header(json!({"jku": "x", "crit": []})), &["token-header-parameter-refused"], &["crit, jku"]),
        (with_header(json!({"alg": "none"})), &["token-algorithm-refused"], &["`none`"]),
        ("a.b.c.d.e".to_owned(), &["token-not-compact"], &["encrypted"]),
        ("2YotnFZFEjr1zCsicMWpAA".to_owned(), &["token-not-compact"], &["opaque"]),
        ("x".repeat(limits::TOKEN_BYTES_MAX + 1), &["token-too-large"], &["bytes"]),
    ];
    for (token, expected, words) in cases {
        let found = findings(&token);
        let got: Vec<&str> = found.iter().map(|finding| finding.code).collect();
        assert_eq!(got, expected, "{found:#?}");
        let text: String = found.iter().map(|one| format!("{} / {}\n", one.explanation, one.hint)).collect();
        for word in words {
            assert!(text.contains(word), "`{word}` is missing in {text}");
        }
    }
}

#[test]
fn all_faults_of_one_token_are_found() {
    let row = Row {
        header: Some(json!({"typ": "foo", "kid": "gone", "jwk": {}}).to_string()),
        payload: Some(
            json!({"aud": "x", "iss": "https://else.test", "amr": ["pwd"], "exp": NOW - 60}).to_string(),
        ),
        without: vec!["auth_time".to_owned(), "roles".to_owned(), "sid".to_owned()],
        ..Row::default()
    };
    let expected = [
        "token-header-parameter-refused",
        "token-type-refused",
        "token-issuer-unknown",
        "token-key-unknown",
        "token-expired",
        "token-lifetime-refused",
        "token-audience-refused",
        "mfa-missing",
        "mfa-too-old",
        "token-without-roles",
        "token-without-session",
    ];
    assert_eq!(codes(&row.token()), expected);
}

/// The law: something is refused exactly when the door refuses, and the door's own reason is among the findings.
#[test]
fn explanations_agree_with_the_door_on_the_whole_table() {
    let table: Table<Row> =
        toml::from_str(include_str!("../../../../tests/data/tokens/tokens.toml")).unwrap();
    for row in table.case {
        let token = row.token();
        let found = findings(&token);
        let refused = found.iter().any(|finding| finding.weight == Weight::Refused);
        let bound = found.iter().any(|finding| finding.code.starts_with("token-bound"));
        match check(&token, NOW) {
            Ok(_) => assert!(!refused, "{}: {found:#?}", row.name),
            Err(_) => assert!(refused || bound, "{}: nothing found", row.name),
        }
    }
}

#[test]
fn clients_are_judged_without_naming_a_subject() {
    let client = Client {
        id: "other".to_owned(),
        kind: ClientKind::SmartApp,
        purposes: ["TREAT".to_owned()].into(),
        scopes: None,
        roles: None,
        binding: BindingDemand::None,
        second_factor: SecondFactor::Person,
        agreement_expires: None,
    };
    let (issuer, keys) = (issuer().with_clients([client]), keys());
    let trusted = [Trusted { issuer: &issuer, keys: Some(&keys) }];
    let found = diagnose(&token_with(json!({})), &trusted, at(NOW));
    assert_eq!(found[0].code, "client-unknown");
    assert!(found[0].explanation.contains("`app-1`"), "{found:?}");
    let found = diagnose(&token_with(json!({"sub": "app-1"})), &trusted, at(NOW));
    assert!(!format!("{found:?}").contains("app-1"), "{found:?}");
}

#[test]
fn no_keys_is_said_and_the_rest_is_still_looked_at() {
    let issuer = issuer();
    let found =
        diagnose(&token_with(json!({"aud": "x"})), &[Trusted { issuer: &issuer, keys: None }], at(NOW));
    let codes: Vec<&str> = found.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["issuer-keys-unavailable", "token-audience-refused"]);
}

#[test]
fn faults_of_form_are_those_of_the_door() {
    for claim in ["iss", "sub", "aud", "iat", "exp", "jti", "sid", "scope", "amr", "acr", "auth_time", "act"]
    {
        let Value::Object(mut payload) = good_payload() else { panic!("not an object") };
        assert_eq!(claims::faults(&payload), []);
        payload.insert(claim.to_owned(), json!({"x": 1}));
        assert_eq!(claims::faults(&payload).len(), 1, "{claim}");
        assert_eq!(claims::Claims::read(&payload).err(), claims::faults(&payload).pop());
    }
}

#[test]
fn each_published_key_has_its_reason() {
    let forge = Forge::instance();
    let with = |key: &str, name: &str, value: Value| {
        let mut jwk = forge.jwk(key);
        jwk[name] = value;
        jwk
    };
    let mut nameless = forge.jwk("ec");
    nameless.as_object_mut().unwrap().remove("kid");
    let cases = [
        (forge.jwk("ec"), "EC P-256", KeyFate::Usable(Algorithm::ES256)),
        (forge.jwk("rsa"), "RSA 2048", KeyFate::Usable(Algorithm::RS256)),
        (forge.jwk("rsa1024"), "RSA 1024", KeyFate::TooShort),
        (with("ec", "use", json!("enc")), "EC P-256", KeyFate::OtherPurpose),
        (nameless, "EC P-256", KeyFate::Nameless),
        (with("rsa", "alg", json!("RS512")), "RSA 2048", KeyFate::NotAllowed),
        (json!({"kty": "oct", "kid": "s", "k": "AAAA"}), "oct", KeyFate::Symmetric),
        (with("ec", "crv", json!("P-521")), "EC P-521", KeyFate::Unknown),
    ];
    for (jwk, kind, fate) in cases {
        let published = published_keys(json!({ "keys": [jwk] }).to_string().as_bytes(), &issuer()).unwrap();
        assert_eq!((published[0].kind.as_str(), published[0].fate), (kind, fate));
    }
}

proptest! {
    #[test]
    fn nothing_of_the_person_is_ever_shown(sub in "[a-z]{12}", patient in "[A-Z]{12}", bad in any::<bool>()) {
        let token = token_with(json!({
            "sub": &sub, "patient": &patient, "fhirUser": format!("Patient/{patient}"), "act": {"sub": &sub},
            "aud": if bad { "x" } else { "https://fhir.test/fhir" }, "amr": if bad { json!([]) } else { json!(["otp"]) },
            "roles": [],
        }));
        let said = format!("{:?}", findings(&token));
        prop_assert!(!said.contains(&sub) && !said.contains(&patient));
        prop_assert!(token.split('.').all(|part| !said.contains(part)));
    }
}
