//! Tests of the room: tables of tokens and keys, and the laws of the cache, of time and of MFA.

mod clients;
mod diagnosis;
mod forge;
mod proofs;

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;
use crate::limits;
use forge::{Forge, encode};

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn spec() -> IssuerSpec {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    IssuerSpec {
        url: "https://idp.test".to_owned(),
        audience: "https://fhir.test/fhir".to_owned(),
        algorithms: texts(&["ES256", "ES384", "EdDSA", "RS256", "PS256"]),
        roles_claim: "/roles".to_owned(),
        roles: BTreeMap::from([("hosp-rn".to_owned(), "nurse".to_owned())]),
        purpose_claim: Some("/purpose_of_use".to_owned()),
        mfa: MfaSpec {
            amr: texts(&["mfa", "otp", "hwk"]),
            acr: texts(&["urn:test:aal2", "phr"]),
            max_age_seconds: 3600,
        },
    }
}

fn issuer() -> Issuer {
    Issuer::new(spec()).unwrap()
}

fn keys() -> KeySet {
    KeySet::read(Forge::instance().key_set().as_bytes(), &issuer()).unwrap()
}

fn good_payload() -> Value {
    json!({
        "iss": "https://idp.test", "aud": "https://fhir.test/fhir", "sub": "person-1",
        "iat": NOW - 60, "exp": NOW + 600, "auth_time": NOW - 120, "amr": ["pwd", "otp"],
        "jti": "token-1", "sid": "session-1", "client_id": "app-1", "scope": "openid user/*.rs",
        "roles": ["hosp-rn", "teacher"], "purpose_of_use": "TREAT",
    })
}

/// A good token with some claims changed.
fn token_with(changes: Value) -> String {
    Row { payload: Some(changes.to_string()), ..Row::default() }.token()
}

fn check(token: &str, now: i64) -> Result<Caller, IdentityRefusal> {
    let unverified = Unverified::inspect(token)?;
    authenticate(&unverified, &issuer(), &keys(), &Possession::BARE, at(now))
}

/// One row of `tests/data/tokens/tokens.toml`; its head explains the columns.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Row {
    name: String,
    header: Option<String>,
    header_text: Option<String>,
    header_without: Vec<String>,
    payload: Option<String>,
    payload_text: Option<String>,
    without: Vec<String>,
    key: Option<String>,
    signature: Option<String>,
    form: Option<String>,
    expect: String,
}

fn merge(base: Value, changes: Option<&str>, without: &[String]) -> Value {
    let Value::Object(mut object) = base else { panic!("not an object") };
    let changes: Map<String, Value> = serde_json::from_str(changes.unwrap_or("{}")).unwrap();
    object.extend(changes);
    object.retain(|name, _| !without.contains(name));
    Value::Object(object)
}

impl Row {
    fn token(&self) -> String {
        let key = self.key.as_deref().unwrap_or("ec");
        let header = json!({"alg": Forge::algorithm(key), "typ": "at+jwt", "kid": key});
        let header = merge(header, self.header.as_deref(), &self.header_without).to_string();
        let payload = merge(good_payload(), self.payload.as_deref(), &self.without).to_string();
        let header = encode(self.header_text.clone().unwrap_or(header).as_bytes());
        let payload = encode(self.payload_text.clone().unwrap_or(payload).as_bytes());
        let signature = self.sign(key, format!("{header}.{payload}").as_bytes());
        let other = encode(good_payload().to_string().replace("person-1", "person-2").as_bytes());
        let form = self.form.as_deref().unwrap_or("{h}.{p}.{s}");
        form.replace("{h}", &header)
            .replace("{p}", &payload)
            .replace("{s}", &signature)
            .replace("{other}", &other)
    }

    fn sign(&self, key: &str, message: &[u8]) -> String {
        let forge = Forge::instance();
        let good = forge.sign(key, message);
        match self.signature.as_deref().unwrap_or("good") {
            "good" => encode(&good),
            "zero" => encode(&vec![0; good.len()]),
            "empty" => String::new(),
            "hmac" => encode(&forge.hmac(key, message)),
            "stranger" => encode(&forge.sign("stranger", message)),
            "flipped" => encode(&good.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()),
            "stray-bits" => stray_bits(&encode(&good)),
            other => panic!("no signature {other}"),
        }
    }
}

/// The same bytes with another last character, which lenient decoders accept.
fn stray_bits(text: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.iter().position(|c| Some(*c) == text.bytes().last()).unwrap();
    let mut bent = text.to_owned();
    bent.pop();
    bent.push(char::from(alphabet[last ^ 1]));
    bent
}

#[derive(Deserialize)]
struct Table<R> {
    case: Vec<R>,
}

#[test]
fn each_token_of_the_table_is_judged_as_written() {
    let table: Table<Row> = toml::from_str(include_str!("../../../tests/data/tokens/tokens.toml")).unwrap();
    let wrong: Vec<String> = table
        .case
        .iter()
        .filter_map(|row| {
            let got = check(&row.token(), NOW).map_or_else(|refusal| refusal.code(), |_| "ok");
            (got != row.expect).then(|| format!("{}: {got}, expected {}", row.name, row.expect))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for id in (168..=181).chain([186]) {
        assert!(table.case.iter().any(|row| row.name.starts_with(&format!("T-{id} "))), "no row for T-{id}");
    }
}

/// One row of `tests/data/tokens/keys.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct KeyRow {
    name: String,
    kind: Option<String>,
    set: Option<String>,
    without: Vec<String>,
    document: Option<String>,
    expect: String,
}

impl KeyRow {
    fn document(&self) -> String {
        let Some(kind) = &self.kind else { return self.document.clone().unwrap() };
        let jwk = merge(Forge::instance().jwk(kind), self.set.as_deref(), &self.without);
        json!({ "keys": [jwk] }).to_string()
    }
}

#[test]
fn each_key_of_the_table_is_judged_as_written() {
    let table: Table<KeyRow> = toml::from_str(include_str!("../../../tests/data/tokens/keys.toml")).unwrap();
    for row in table.case {
        let got = match KeySet::read(row.document().as_bytes(), &issuer()) {
            Ok(set) if set.is_empty() => "skipped",
            Ok(_) => "usable",
            Err(KeySetError::TooLarge) => "too large",
            Err(KeySetError::Malformed) => "malformed",
            Err(KeySetError::DuplicateKeyId) => "duplicate",
            Err(KeySetError::PrivateKey) => "private",
        };
        assert_eq!(got, row.expect, "{}", row.name);
    }
}

#[test]
fn a_key_set_is_bounded() {
    let long = format!("{{\"keys\":[]}}{}", " ".repeat(limits::KEY_SET_BYTES_MAX));
    assert_eq!(KeySet::read(long.as_bytes(), &issuer()).unwrap_err(), KeySetError::TooLarge);
    let many = json!({ "keys": vec![json!({"kty": "EC"}); limits::KEY_SET_KEYS_MAX + 1] }).to_string();
    assert_eq!(KeySet::read(many.as_bytes(), &issuer()).unwrap_err(), KeySetError::TooLarge);
}

#[test]
fn a_key_without_algorithm_is_for_one_only() {
    let mut jwk = Forge::instance().jwk("rsa");
    jwk.as_object_mut().unwrap().remove("alg");
    let keys = KeySet::read(json!({ "keys": [jwk] }).to_string().as_bytes(), &issuer()).unwrap();
    let as_ps = Row { key: Some("ps".into()), header: Some("{\"kid\":\"rsa\"}".into()), ..Row::default() };
    let as_rs = Row { key: Some("rsa".into()), ..Row::default() };
    let judge = |row: Row| {
        let token = row.token();
        authenticate(&Unverified::inspect(&token).unwrap(), &issuer(), &keys, &Possession::BARE, at(NOW))
            .map(|_| ())
    };
    assert_eq!(judge(as_rs), Ok(()));
    assert_eq!(judge(as_ps), Err(IdentityRefusal::KeyMismatch));
}

#[test]
fn t186_sizes_are_checked_before_anything_else() {
    let long = "a".repeat(limits::TOKEN_BYTES_MAX + 1);
    assert_eq!(check(&long, NOW).unwrap_err(), IdentityRefusal::TokenTooLarge);
    let padding = "x".repeat(limits::TOKEN_HEADER_BYTES_MAX);
    let row = Row { header: Some(json!({"pi.x": padding}).to_string()), ..Row::default() };
    assert_eq!(check(&row.token(), NOW).unwrap_err(), IdentityRefusal::TokenTooLarge);
    let crowd = vec!["r"; limits::TOKEN_LIST_MAX + 1];
    let expected = IdentityRefusal::ClaimMalformed { claim: "roles" };
    assert_eq!(check(&token_with(json!({"roles": crowd})), NOW).unwrap_err(), expected);
    let long_name = "s".repeat(limits::TOKEN_NAME_BYTES_MAX + 1);
    let expected = IdentityRefusal::ClaimMalformed { claim: "sub" };
    assert_eq!(check(&token_with(json!({"sub": long_name})), NOW).unwrap_err(), expected);
}

#[test]
fn a_caller_says_what_the_token_said() {
    let caller = check(
        &token_with(json!({
            "fhirUser": "https://other.test/r4/Patient/p2", "patient": "p2", "amr": ["pwd", "hwk"],
            "acr": "urn:test:aal2", "azp": "app-1",
        })),
        NOW,
    )
    .unwrap();
    assert_eq!((caller.issuer(), caller.subject()), ("https://idp.test", "person-1"));
    assert_eq!(caller.roles().iter().map(String::as_str).collect::<Vec<_>>(), ["nurse", "teacher"]);
    assert_eq!(caller.application(), Some("app-1"));
    assert_eq!(caller.fhir_user(), Some("Patient/p2"));
    assert_eq!(caller.launch_patient(), Some("p2"));
    assert_eq!(caller.scopes(), ["openid", "user/*.rs"]);
    assert_eq!(caller.purposes(), ["TREAT"]);
    assert_eq!(caller.session(), "session-1");
    assert_eq!(caller.expires_at(), at(NOW + 600));
    assert!(caller.mfa().phishing_resistant() && caller.mfa().methods().contains("hwk"));
    assert_eq!(caller.mfa().acr(), Some("urn:test:aal2"));
    assert_eq!(caller.mfa().age_seconds(at(NOW)), 120);
}

#[test]
fn the_session_is_sid_else_jti_else_the_hash() {
    let session = |without: &[&str]| {
        let without = without.iter().map(|name| (*name).to_owned()).collect();
        let caller = check(&Row { without, ..Row::default() }.token(), NOW).unwrap();
        (caller.session().to_owned(), caller.token_hash().to_owned())
    };
    assert_eq!(session(&[]).0, "session-1");
    assert_eq!(session(&["sid"]).0, "token-1");
    let (session, hash) = session(&["sid", "jti"]);
    assert_eq!(session, hash);
    assert!(hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()));
}

#[test]
fn phishing_resistance_is_claimed_by_few_values_only() {
    let resistant = |changes: Value| check(&token_with(changes), NOW).unwrap().mfa().phishing_resistant();
    assert!(!resistant(json!({"amr": ["pwd", "otp"]})));
    assert!(!resistant(json!({"amr": ["mfa", "fpt"]})));
    assert!(resistant(json!({"amr": ["hwk"]})));
    assert!(resistant(json!({"amr": ["mfa", "phrh"]})));
    assert!(resistant(json!({"amr": [], "acr": "phr"})));
}

#[test]
fn the_challenges_are_those_of_the_rfcs() {
    assert_eq!(IdentityRefusal::Expired.challenge(Scheme::Bearer), "Bearer error=\"invalid_token\"");
    assert_eq!(IdentityRefusal::TokenMissing.challenge(Scheme::Bearer), "Bearer error=\"invalid_token\"");
    let refusal = check(&token_with(json!({"amr": ["pwd"]})), NOW).unwrap_err();
    assert_eq!(
        refusal.challenge(Scheme::Bearer),
        "Bearer error=\"insufficient_user_authentication\", acr_values=\"phr urn:test:aal2\", max_age=\"3600\""
    );
    let without_acr = StepUp { acr_values: String::new(), max_age_seconds: 60 };
    assert_eq!(
        IdentityRefusal::MfaTooOld(without_acr).challenge(Scheme::Bearer),
        "Bearer error=\"insufficient_user_authentication\", max_age=\"60\""
    );
}

#[test]
fn settings_report_every_problem() {
    let bad = IssuerSpec {
        url: "idp.test?x".into(),
        audience: String::new(),
        algorithms: vec!["HS256".into(), "none".into(), "rs256".into()],
        roles_claim: "roles".into(),
        roles: BTreeMap::from([(String::new(), "nurse".into())]),
        purpose_claim: Some("/a~2".into()),
        mfa: MfaSpec { amr: vec!["pwd".into(), "a b".into()], acr: vec!["\"".into()], max_age_seconds: 0 },
    };
    let problems = Issuer::new(bad).unwrap_err().join("\n");
    for part in [
        "url:",
        "audience:",
        "`HS256`",
        "`none`",
        "`rs256`",
        "roles_claim:",
        "roles:",
        "purpose_claim:",
        "`pwd` alone",
        "mfa: values",
        "mfa.max_age:",
    ] {
        assert!(problems.contains(part), "{part} missing in:\n{problems}");
    }
    let nothing = IssuerSpec { mfa: MfaSpec { amr: vec![], acr: vec![], max_age_seconds: 60 }, ..spec() };
    assert!(Issuer::new(nothing).is_err());
}

#[test]
fn debug_and_display_show_no_secret() {
    let token = token_with(json!({"sub": "SECRET-SUBJECT", "patient": "SECRET-PATIENT"}));
    let unverified = Unverified::inspect(&token).unwrap();
    let caller = check(&token, NOW).unwrap();
    let refusal = check(&token, NOW + 100_000).unwrap_err();
    let cache = VerifiedTokens::new();
    cache.authenticate(&unverified, &issuer(), &keys(), &Possession::BARE, at(NOW)).unwrap();
    let shown = format!("{unverified:?} {caller:?} {refusal:?} {refusal} {cache:?} {:?}", keys());
    let pieces: Vec<&str> = token.split('.').chain(["SECRET"]).collect();
    for piece in pieces {
        assert!(!shown.contains(piece), "{shown}");
    }
}

#[test]
fn a_kept_token_is_checked_again_at_every_use() {
    let cache = VerifiedTokens::new();
    let token = token_with(json!({"exp": NOW + 7200}));
    let unverified = Unverified::inspect(&token).unwrap();
    let ask = |issuer: &Issuer, keys: &KeySet, now: i64| {
        cache.authenticate(&unverified, issuer, keys, &Possession::BARE, at(now))
    };
    let first = ask(&issuer(), &keys(), NOW).unwrap();
    let second = ask(&issuer(), &keys(), NOW + 1).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second), "not kept");

    // Known by its text alone, and checked like one that was taken apart.
    let seen = cache.recall(&token).unwrap();
    assert_eq!((seen.issuer(), seen.key_id()), (unverified.issuer(), unverified.key_id()));
    let again = |issuer: &Issuer, now: i64| cache.again(&seen, issuer, &keys(), &Possession::BARE, at(now));
    assert!(std::sync::Arc::ptr_eq(&first, &again(&issuer(), NOW + 1).unwrap().unwrap()));
    assert_eq!(again(&issuer(), NOW + 9_000).unwrap().unwrap_err(), IdentityRefusal::Expired);
    assert!(cache.recall(&token).is_none(), "what is over is forgotten");
    let first = ask(&issuer(), &keys(), NOW).unwrap();
    let others = Issuer::new(IssuerSpec { audience: "https://new.test".into(), ..spec() }).unwrap();
    assert!(again(&others, NOW).is_none(), "other settings: to be verified anew");
    assert!(std::sync::Arc::ptr_eq(&first, &ask(&issuer(), &keys(), NOW).unwrap()));
    let changed = token.replacen('e', "E", 1);
    assert!(cache.recall(&changed).is_none() && cache.recall(&format!("{token}A")).is_none());

    let only_ed = json!({"keys": [Forge::instance().jwk("ed")]}).to_string();
    let without_key = KeySet::read(only_ed.as_bytes(), &issuer()).unwrap();
    assert_eq!(ask(&issuer(), &without_key, NOW).unwrap_err(), IdentityRefusal::KeyUnknown);

    let mut replaced = Forge::instance().jwk("ec");
    let point = replaced["x"].clone();
    replaced["y"] = point;
    let replaced = json!({ "keys": [replaced] }).to_string();
    let replaced = KeySet::read(replaced.as_bytes(), &issuer()).unwrap();
    assert_eq!(ask(&issuer(), &replaced, NOW).unwrap_err(), IdentityRefusal::SignatureInvalid);

    let stricter = Issuer::new(IssuerSpec { audience: "https://new.test".into(), ..spec() }).unwrap();
    assert_eq!(ask(&stricter, &keys(), NOW).unwrap_err(), IdentityRefusal::AudienceRefused);

    let too_old = ask(&issuer(), &keys(), NOW - 120 + 3601).unwrap_err();
    assert_eq!(too_old.code(), "mfa-too-old");
    let token = token_with(json!({}));
    let unverified = Unverified::inspect(&token).unwrap();
    cache.authenticate(&unverified, &issuer(), &keys(), &Possession::BARE, at(NOW)).unwrap();
    let expired =
        cache.authenticate(&unverified, &issuer(), &keys(), &Possession::BARE, at(NOW + 630)).unwrap_err();
    assert_eq!(expired, IdentityRefusal::Expired);
}

#[test]
fn one_authorization_header_is_taken_and_nothing_else() {
    let cases: [(&[&str], &str); 10] = [
        (&["Bearer a.b.c"], "a.b.c"),
        (&["bearer a.b.c"], "a.b.c"),
        (&[], "token-missing"),
        (&["Bearer a.b.c", "Bearer a.b.c"], "authorization-malformed"),
        (&["Bearer"], "authorization-malformed"),
        (&["Bearer "], "authorization-malformed"),
        (&["Bearer  a.b.c"], "authorization-malformed"),
        (&["Bearer a.b.c x"], "authorization-malformed"),
        (&["DPoP a.b.c"], "a.b.c"),
        (&["Basic YTpi"], "authorization-malformed"),
    ];
    for (values, expected) in cases {
        let got = credentials(values.iter().map(|value| value.as_bytes()));
        let got = got.map(|given| given.token);
        assert_eq!(got.unwrap_or_else(|refusal| refusal.code()), expected, "{values:?}");
    }
    assert!(credentials([&b"Bearer \xff"[..]]).is_err());
    let scheme = |text: &str| credentials([text.as_bytes()]).unwrap().scheme;
    assert_eq!([scheme("bearer t"), scheme("dPoP t")], [Scheme::Bearer, Scheme::Dpop]);
}

#[test]
fn the_specimen_for_other_rooms_is_plausible() {
    let caller = specimen::CallerSpecimen::with_roles(&["nurse"]).caller();
    assert!(caller.roles().contains("nurse") && caller.mfa().authenticated_at().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn flipping_any_byte_refuses(key in 0_usize..4, place in any::<prop::sample::Index>(), other in any::<u8>()) {
        let key = ["ec", "ec384", "ed", "rsa"][key];
        let token = Row { key: Some(key.to_owned()), ..Row::default() }.token();
        let mut bytes = token.clone().into_bytes();
        let place = place.index(bytes.len());
        prop_assume!(bytes[place] != other);
        bytes[place] = other;
        if let Ok(changed) = String::from_utf8(bytes) {
            prop_assert!(check(&changed, NOW).is_err());
        }
    }

    #[test]
    fn less_mfa_evidence_never_yields_more(
        methods in prop::collection::vec(prop::sample::select(vec!["pwd", "otp", "hwk", "mfa", "sms"]), 0..4),
        acr in prop::option::of(prop::sample::select(vec!["urn:test:aal1", "urn:test:aal2", "phr"])),
        age in 0_i64..8000,
        dropped in 0_usize..4,
    ) {
        let mut full = json!({"amr": methods, "auth_time": NOW - age});
        if let Some(acr) = acr {
            full["acr"] = json!(acr);
        }
        let mut fewer = methods.clone();
        fewer.truncate(methods.len().saturating_sub(dropped));
        let less = json!({"amr": fewer, "auth_time": NOW - age});
        let judge = |payload: &Value| check(&token_with(payload.clone()), NOW);
        if let Ok(caller) = judge(&less) {
            let more = judge(&full);
            prop_assert!(more.is_ok());
            prop_assert!(!caller.mfa().phishing_resistant() || more.unwrap().mfa().phishing_resistant());
        }
    }

    #[test]
    fn once_expired_always_expired(life in 1_i64..86_400, early in 0_i64..200_000, later in 0_i64..200_000) {
        let token = token_with(json!({"iat": NOW, "exp": NOW + life, "auth_time": NOW}));
        let cache = VerifiedTokens::new();
        let unverified = Unverified::inspect(&token).unwrap();
        let (issuer, keys) = (issuer(), keys());
        let ask = |now: i64| cache.authenticate(&unverified, &issuer, &keys, &Possession::BARE, at(now)).map(|_| ());
        let direct = |now: i64| authenticate(&unverified, &issuer, &keys, &Possession::BARE, at(now)).map(|_| ());
        let first = ask(NOW + early);
        prop_assert_eq!(&first, &direct(NOW + early));
        let second = ask(NOW + early + later);
        prop_assert_eq!(&second, &direct(NOW + early + later), "cache and fresh check differ");
        prop_assert!(first.is_ok() || second.is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        fuzz_token(&bytes);
        let _ = KeySet::read(&bytes, &issuer());
    }

    #[test]
    fn no_json_in_a_token_makes_it_panic(header in "\\{(\"(alg|typ|kid|crit)\":(\"ES256\"|\"at\\+jwt\"|1|null),?){0,4}\\}", payload in "[\\PC]{0,200}") {
        fuzz_token(format!("{}.{}.AAAA", encode(header.as_bytes()), encode(payload.as_bytes())).as_bytes());
        let good = encode(br#"{"alg":"ES256","typ":"at+jwt","kid":"ec"}"#);
        fuzz_token(format!("{good}.{}.AAAA", encode(payload.as_bytes())).as_bytes());
    }
}
