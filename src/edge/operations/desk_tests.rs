//! Who may order what, and what an order becomes.
use super::desk::{Access, Desk, OrderText, Secret};
use crate::clock;
use crate::domain::identity::{Reach, RevocationOrigin};
use crate::edge::sessions::{SqliteStore, StoreKey};
use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, HeaderValue};

#[test]
fn beyond_loopback_somebody_must_show_something() {
    let secret = || Some(Secret("s3cret".to_owned()));
    let access = |bearer: Option<Secret>, client_certificates, loopback| Access {
        bearer,
        client_certificates,
        loopback,
    };
    let bearer = |text: &'static str| (AUTHORIZATION, HeaderValue::from_static(text));
    let page = (ORIGIN, HeaderValue::from_static("https://evil.test"));
    let cases = [
        ("loopback", access(None, false, true), vec![], false, true),
        ("loopback from a page", access(None, false, true), vec![page.clone()], false, false),
        ("elsewhere", access(None, false, false), vec![], false, false),
        ("elsewhere, an unasked certificate", access(None, false, false), vec![], true, false),
        ("elsewhere, the token", access(secret(), false, false), vec![bearer("Bearer s3cret")], false, true),
        ("another token", access(secret(), false, false), vec![bearer("Bearer s3cres")], false, false),
        ("a longer token", access(secret(), false, false), vec![bearer("Bearer s3cret2")], false, false),
        ("no scheme", access(secret(), false, false), vec![bearer("s3cret")], false, false),
        (
            "twice",
            access(secret(), false, false),
            vec![bearer("Bearer s3cret"), bearer("Bearer s3cret")],
            false,
            false,
        ),
        (
            "the token from a page",
            access(secret(), false, true),
            vec![bearer("Bearer s3cret"), page],
            false,
            false,
        ),
        ("loopback demands the token too", access(secret(), false, true), vec![], false, false),
        ("a certificate", access(None, true, false), vec![], true, true),
        ("no certificate", access(None, true, true), vec![], false, false),
        ("either of two", access(secret(), true, false), vec![], true, true),
    ];
    for (name, access, headers, certificate, expected) in cases {
        let mut map = HeaderMap::new();
        headers.into_iter().for_each(|(name, value)| {
            map.append(name, value);
        });
        assert_eq!(access.allows(&map, certificate), expected, "{name}");
    }
    let shown = format!("{:?}", Secret("s3cret".to_owned()));
    assert!(!shown.contains("s3cret"), "{shown}");
    fn is_debug<T: std::fmt::Debug>() {}
    is_debug::<Desk>();
}

#[test]
fn an_order_names_one_thing_and_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        SqliteStore::open(&folder.path().join("s.sqlite"), &StoreKey::specimen(), clock::now()).unwrap();
    let cases = [
        (r#"{"token": "t", "reason": "lost"}"#, Ok(("token", true))),
        (r#"{"user": "https://i|s", "reason": "left"}"#, Ok(("user", false))),
        (r#"{"user": "https://i|s", "reason": "left", "untilLifted": true}"#, Ok(("user", true))),
        (r#"{"client": "app", "reason": "broken"}"#, Ok(("client", true))),
        (r#"{"issuer": "https://i", "reason": "stolen"}"#, Ok(("issuer", true))),
        (r#"{"user": "s", "reason": "left"}"#, Err("issuer|subject")),
        (r#"{"user": "https://i|", "reason": "left"}"#, Err("no token could")),
        (r#"{"session": "0123", "reason": "left"}"#, Err("no such session")),
        (r#"{"token": "t", "client": "app", "reason": "lost"}"#, Err("exactly one")),
        (r#"{"reason": "lost"}"#, Err("exactly one")),
        (r#"{"token": "t", "reason": " "}"#, Err("a reason")),
        (r#"{"token": "", "reason": "lost"}"#, Err("no token could")),
    ];
    for (text, expected) in cases {
        let order: OrderText = serde_json::from_str(text).unwrap();
        let order = order.read(&store, RevocationOrigin::Operations, clock::now());
        match (order, expected) {
            (Ok(order), Ok((kind, lifted))) => {
                assert_eq!(
                    (order.target.kind(), order.reach == Reach::UntilLifted),
                    (kind, lifted),
                    "{text}"
                );
            }
            (Err(fault), Err(part)) => assert!(fault.to_string().contains(part), "{text}: {fault}"),
            (order, expected) => panic!("{text}: {order:?} instead of {expected:?}"),
        }
    }
    for text in ["{}", r#"{"reason": "x", "tokens": "t"}"#, r#"{"reason": 7, "token": "t"}"#, "[]"] {
        assert!(serde_json::from_str::<OrderText>(text).is_err(), "{text}");
    }
}
