//! Tests of the register of clients, of who acts for whom, and of opaque tokens: the rules are those of JWTs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::authenticate;
use super::super::token::sha256;
use super::*;

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn client(kind: ClientKind) -> Client {
    Client {
        id: "app-1".to_owned(),
        kind,
        purposes: set(&["TREAT", "HPAYMT"]),
        scopes: Some(vec!["user/Observation.rs".to_owned()]),
        roles: None,
        binding: BindingDemand::None,
        second_factor: SecondFactor::Person,
        agreement_expires: Some("2027-01-20".parse().unwrap()),
    }
}

fn ask(client: Client, changes: Value, shown: &Possession<'_>, now: i64) -> Result<Caller, IdentityRefusal> {
    let token = token_with(changes);
    let issuer = issuer().with_clients([client]);
    let caller = authenticate(&Unverified::inspect(&token)?, &issuer, &keys(), shown, at(now))?;
    caller.admitted(at(now))?;
    Ok(caller)
}

fn code(client: Client, changes: Value) -> &'static str {
    ask(client, changes, &Possession::BARE, NOW).map_or_else(|refusal| refusal.code(), |_| "ok")
}

#[test]
fn only_registered_clients_come_where_there_is_a_register() {
    assert_eq!(code(client(ClientKind::StaffApp), json!({})), "ok");
    assert_eq!(code(client(ClientKind::StaffApp), json!({"client_id": "app-2"})), "client-unknown");
    assert_eq!(code(client(ClientKind::StaffApp), json!({"client_id": "APP-1"})), "client-unknown");
    let without = Row { without: vec!["client_id".to_owned()], ..Row::default() }.token();
    let strict = issuer().with_clients([client(ClientKind::StaffApp)]);
    let empty = issuer().with_clients([]);
    for issuer in [&strict, &empty] {
        let unverified = Unverified::inspect(&without).unwrap();
        let caller = authenticate(&unverified, issuer, &keys(), &Possession::BARE, at(NOW)).unwrap();
        assert_eq!(caller.admitted(at(NOW)), Err(ClientRefusal::Unknown.into()));
        assert_eq!(caller.client_scopes(), Some(&[][..]), "who overlooks the refusal gets nothing");
        assert!(caller.roles().is_empty() && caller.purposes() == ["NONE"]);
    }
    let anyone = check(&without, NOW).unwrap();
    assert!(anyone.admitted(at(NOW)).is_ok() && anyone.client_scopes().is_none());
}

/// The contract ends with its last day (NOW is 2027-01-15T08:00:00Z).
#[test]
fn an_agreement_ends() {
    let until = |date: &str| Client {
        agreement_expires: Some(date.parse().unwrap()),
        ..client(ClientKind::SmartApp)
    };
    assert_eq!(at(NOW).to_string(), "2027-01-15T08:00:00Z");
    assert_eq!(code(until("2027-01-15"), json!({})), "ok");
    assert_eq!(code(until("2027-01-14"), json!({})), "client-agreement-ended");
    assert_eq!(code(Client { agreement_expires: None, ..client(ClientKind::StaffApp) }, json!({})), "ok");
}

#[test]
fn an_agreement_s_end_is_seen_on_a_kept_token_too() {
    let token = token_with(json!({"exp": NOW + 86_000, "iat": NOW - 60}));
    let issuer = issuer().with_clients([Client {
        agreement_expires: Some("2027-01-15".parse().unwrap()),
        ..client(ClientKind::SmartApp)
    }]);
    let cache = VerifiedTokens::new();
    let ask = |now: i64| {
        let unverified = Unverified::inspect(&token).unwrap();
        cache
            .authenticate(&unverified, &issuer, &keys(), &Possession::BARE, at(now))
            .unwrap()
            .admitted(at(now))
    };
    assert_eq!(ask(NOW), Ok(()));
    let loose =
        Issuer::new(IssuerSpec { mfa: MfaSpec { max_age_seconds: 86_400, ..spec().mfa }, ..spec() }).unwrap();
    let issuer = loose.with_clients(issuer.clients().cloned());
    let unverified = Unverified::inspect(&token).unwrap();
    let caller =
        cache.authenticate(&unverified, &issuer, &keys(), &Possession::BARE, at(NOW + 16 * 3600)).unwrap();
    assert_eq!(caller.admitted(at(NOW + 16 * 3600)), Err(ClientRefusal::AgreementEnded.into()));
}

#[test]
fn purposes_and_roles_are_those_in_both() {
    let purposes = |changes: Value| {
        let caller = ask(client(ClientKind::StaffApp), changes, &Possession::BARE, NOW)?;
        Ok::<_, IdentityRefusal>(caller.purposes().join(" "))
    };
    assert_eq!(purposes(json!({})).unwrap(), "TREAT");
    assert_eq!(purposes(json!({"purpose_of_use": ["HPAYMT", "HRESCH", "TREAT"]})).unwrap(), "HPAYMT TREAT");
    assert_eq!(purposes(json!({"purpose_of_use": []})).unwrap(), "HPAYMT TREAT");
    let refused = purposes(json!({"purpose_of_use": "HRESCH"})).unwrap_err();
    assert_eq!(refused.code(), "client-purpose-not-allowed");
    let some = Client { roles: Some(set(&["nurse"])), ..client(ClientKind::StaffApp) };
    let caller = ask(some, json!({}), &Possession::BARE, NOW).unwrap();
    assert_eq!(caller.roles(), &set(&["nurse"]));
    assert_eq!(caller.client_scopes().unwrap(), ["user/Observation.rs"]);
    assert_eq!(caller.client_kind(), Some(ClientKind::StaffApp));
}

/// T-198: a program's client is no way in for people, nor the other way round.
#[test]
fn programs_and_people_do_not_share_clients() {
    let program = || client(ClientKind::BackendService);
    let alone = |mut more: Value| {
        more["sub"] = json!("app-1");
        if more.get("roles").is_none() {
            more["roles"] = json!([]);
        }
        more
    };
    assert_eq!(code(program(), alone(json!({}))), "ok");
    assert_eq!(code(program(), json!({"roles": []})), "client-used-by-person");
    assert_eq!(code(program(), alone(json!({"roles": ["hosp-rn"]}))), "client-used-by-person");
    assert_eq!(code(program(), alone(json!({"fhirUser": "Practitioner/x"}))), "client-used-by-person");
    let own = Client { roles: Some(set(&["integration"])), ..program() };
    assert_eq!(code(own.clone(), alone(json!({"roles": ["integration"]}))), "ok");
    assert_eq!(code(own, alone(json!({"roles": ["integration", "hosp-rn"]}))), "client-used-by-person");
    for kind in [ClientKind::SmartApp, ClientKind::StaffApp] {
        assert_eq!(code(client(kind), alone(json!({}))), "client-without-person");
        assert_eq!(code(client(kind), json!({})), "ok");
    }
}

#[test]
fn a_demanded_binding_is_demanded() {
    let certificate = sha256(b"own");
    let bound = json!({"cnf": {"x5t#S256": encode(&certificate)}});
    let shown = Possession::new(Scheme::Bearer, Some(certificate), None);
    let with = |binding| Client { binding, ..client(ClientKind::SmartApp) };
    let code = |binding, changes: &Value| {
        ask(with(binding), changes.clone(), &shown, NOW).map_or_else(|refusal| refusal.code(), |_| "ok")
    };
    for (demand, unbound, mtls) in [
        (BindingDemand::None, "ok", "ok"),
        (BindingDemand::Mtls, "client-token-unbound", "ok"),
        (BindingDemand::Dpop, "client-token-unbound", "client-token-unbound"),
        (BindingDemand::Any, "client-token-unbound", "ok"),
    ] {
        assert_eq!(code(demand, &json!({})), unbound, "{}", demand.name());
        assert_eq!(code(demand, &bound), mtls, "{}", demand.name());
    }
}

/// A program has no second factor of a person; only where the register says so, and only for a bound token.
#[test]
fn a_program_stands_by_its_key_only_where_the_register_says_so() {
    let certificate = sha256(b"own");
    let shown = Possession::new(Scheme::Bearer, Some(certificate), None);
    let program = |second_factor| Client { second_factor, ..client(ClientKind::BackendService) };
    let bare = json!({"sub": "app-1", "roles": [], "amr": [], "cnf": {"x5t#S256": encode(&certificate)}});
    let judge = |client: Client, changes: &Value, without: &[&str]| {
        let row = Row {
            payload: Some(changes.to_string()),
            without: without.iter().map(|claim| (*claim).to_owned()).collect(),
            ..Row::default()
        };
        let (token, issuer) = (row.token(), issuer().with_clients([client]));
        let caller = authenticate(&Unverified::inspect(&token)?, &issuer, &keys(), &shown, at(NOW))?;
        caller.admitted(at(NOW))?;
        Ok::<_, IdentityRefusal>(caller.mfa().age_seconds(at(NOW)))
    };
    let code =
        |client, changes: &Value| judge(client, changes, &["auth_time"]).map_err(|refusal| refusal.code());
    assert_eq!(code(program(SecondFactor::BoundKey), &bare), Ok(60), "the token's own age");
    assert_eq!(code(program(SecondFactor::Person), &bare), Err("mfa-missing"));
    let mut unbound = bare.clone();
    unbound.as_object_mut().unwrap().remove("cnf");
    assert_eq!(code(program(SecondFactor::BoundKey), &unbound), Err("mfa-missing"));
    let mut person = bare.clone();
    person["sub"] = json!("person-1");
    assert_eq!(code(program(SecondFactor::BoundKey), &person), Err("mfa-missing"));
    let app = Client { second_factor: SecondFactor::BoundKey, ..client(ClientKind::SmartApp) };
    assert_eq!(code(app, &bare), Err("mfa-missing"));
}

#[test]
fn actors_are_known_the_present_one_first() {
    let chain = json!({"act": {"sub": "scribe", "act": {"sub": "app", "iss": "https://b.test"}}});
    let caller = check(&token_with(chain), NOW).unwrap();
    let names: Vec<_> = caller.actors().iter().map(|actor| (actor.issuer(), actor.subject())).collect();
    assert_eq!(names, [(None, "scribe"), (Some("https://b.test"), "app")]);
    assert_eq!(caller.actor().map(Actor::subject), Some("scribe"));
    assert_eq!(caller.subject(), "person-1", "policies decide about the subject");
    assert!(check(&token_with(json!({})), NOW).unwrap().actor().is_none());
}

/// One row of `tests/data/tokens/introspection.toml`; its head explains the columns.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct AnswerRow {
    name: String,
    answer: Option<String>,
    answer_text: Option<String>,
    without: Vec<String>,
    expect: String,
}

#[test]
fn each_answer_about_a_token_is_judged_as_written() {
    let table: Table<AnswerRow> =
        toml::from_str(include_str!("../../../../tests/data/tokens/introspection.toml")).unwrap();
    for row in table.case {
        let mut answer = good_payload();
        answer["active"] = json!(true);
        let answer = merge(answer, row.answer.as_deref(), &row.without).to_string();
        let answer = row.answer_text.unwrap_or(answer);
        let read = Introspection::read(answer.as_bytes(), token_digest("opaque"), &issuer());
        let got = match read.map(|said| said.authenticate(&issuer(), &Possession::BARE, at(NOW))) {
            None => "not an answer",
            Some(Ok(caller)) => {
                assert_eq!(caller.token_hash(), hexadecimal_of("opaque"));
                "ok"
            }
            Some(Err(refusal)) => refusal.code(),
        };
        assert_eq!(got, row.expect, "{}", row.name);
    }
}

fn hexadecimal_of(token: &str) -> String {
    sha256(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_answer_is_kept_no_longer_than_the_token_is_good() {
    let read = |text: &str| Introspection::read(text.as_bytes(), [0; 32], &issuer()).unwrap().expires_at();
    assert_eq!(read(&format!(r#"{{"active":true,"exp":{NOW}}}"#)), Some(at(NOW)));
    assert_eq!(read(&format!(r#"{{"active":false,"exp":{NOW}}}"#)), None);
    assert_eq!(read(r#"{"active":true,"exp":"soon"}"#), None);
}

#[test]
fn what_looks_like_a_jwt_is_not_asked_about() {
    for token in
        ["abc", "a.b", "2YotnFZFEjr1zCsicMWpAA", "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.a.gxU", "a+/=="]
    {
        assert!(is_opaque(token), "{token}");
    }
    let long = "a".repeat(limits::OPAQUE_TOKEN_BYTES_MAX + 1);
    for token in ["", "a.b.c", "a.b.c.d.e", "a b", "a\"b", "a%20b", "\u{e9}", long.as_str()] {
        assert!(!is_opaque(token), "{token}");
    }
}
