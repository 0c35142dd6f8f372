//! Laws of the encoding: golden bytes, round trip, bounds, and nothing treacherous on a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::limits::RECORD_PART_BYTES_MAX;

fn time() -> Timestamp {
    "2026-03-01T08:00:00.25Z".parse().unwrap()
}

fn released(id: &str, patients: impl IntoIterator<Item = String>, mask: &Arc<Vec<String>>) -> Released {
    Released {
        reference: format!("Observation/{id}"),
        version: Some("3".to_owned()),
        patients: patients.into_iter().collect(),
        mask: Arc::clone(mask),
    }
}

fn release() -> Decision {
    let mask = Arc::new(vec!["Observation.code".to_owned(), "Observation.status".to_owned()]);
    Decision {
        caller: Some(Caller {
            issuer: "https://idp.example".to_owned(),
            subject: "nurse-1".to_owned(),
            session: "s1".to_owned(),
            token_hash: "ab12".to_owned(),
            application: Some("chart".to_owned()),
            roles: vec!["nurse".to_owned()],
            ..Caller::default()
        }),
        purposes: vec!["TREAT".to_owned()],
        source: Some("192.0.2.7".to_owned()),
        interaction: "search-type".to_owned(),
        request: "GET Observation?patient=p1".to_owned(),
        policies: vec!["nurse-vitals".to_owned()],
        policy_set: Some("c0ffee".to_owned()),
        released: vec![released("o1", ["p1".to_owned()], &mask), released("o2", ["p1".to_owned()], &mask)],
        withheld: 1,
        status: 200,
        ..Decision::new(time(), "req-1".to_owned(), Verdict::Permit)
    }
}

fn written(id: &str, patients: impl IntoIterator<Item = String>, mask: &Arc<Vec<String>>) -> Written {
    let Released { reference, version, patients, mask } = released(id, patients, mask);
    Written { reference, version, patients, mask }
}

/// An update that is about to be sent: entry 2 of a batch.
fn intent() -> Decision {
    let mask = Arc::new(vec!["Observation.value".to_owned()]);
    Decision {
        interaction: "update".to_owned(),
        request: "PUT Observation/o1".to_owned(),
        entry: Some(2),
        written: vec![written("o1", ["p1".to_owned()], &mask)],
        ..Decision::new(time(), "req-3".to_owned(), Verdict::Permit)
    }
}

fn entries(record: &Record) -> Vec<String> {
    encode(record).unwrap().into_iter().map(|part| String::from_utf8(part).unwrap()).collect()
}

fn joined(record: &Record) -> Record {
    let mut assembly = Assembly::default();
    let mut found = None;
    for (sequence, part) in (7..).zip(encode(record).unwrap()) {
        assert!(found.is_none(), "a record ended before its last part");
        assert!(part.len() <= RECORD_PART_BYTES_MAX);
        found = assembly.push(sequence, decode(&part).unwrap()).unwrap();
    }
    assert!(!assembly.is_open());
    let (sequence, record) = found.unwrap();
    assert_eq!(sequence, 7);
    record
}

/// These bytes are the format: they change with a new version number and in no other way.
#[test]
fn golden_bytes() {
    let refusal = Decision {
        reason: Some("token-missing".to_owned()),
        status: 401,
        ..Decision::new(time(), "req-2".to_owned(), Verdict::Refuse)
    };
    let outcome = Outcome {
        time: time(),
        request_id: "req-1".to_owned(),
        entry: None,
        ending: Ending::CutOff,
        sent_bytes: Some(512),
    };
    let control = Control {
        time: time(),
        event: Event::PoliciesLoaded,
        details: BTreeMap::from([("policySet".to_owned(), "c0ffee".to_owned())]),
    };
    let cases = [
        (
            Record::Decision(Box::new(release())),
            r#"{"kind":"release","v":1,"part":1,"parts":1,"requestId":"req-1","time":"2026-03-01T08:00:00.250000Z","head":{"caller":{"issuer":"https://idp.example","subject":"nurse-1","session":"s1","tokenHash":"ab12","application":"chart","roles":["nurse"]},"purposes":["TREAT"],"source":"192.0.2.7","interaction":"search-type","request":"GET Observation?patient=p1","reason":null,"policies":["nurse-vitals"],"policySet":"c0ffee","released":2,"withheld":1,"status":200},"masks":[{"n":0,"kept":["Observation.code","Observation.status"]}],"released":[{"reference":"Observation/o1","version":"3","patients":["p1"],"mask":0},{"reference":"Observation/o2","version":"3","patients":["p1"],"mask":0}]}"#,
        ),
        (
            Record::Decision(Box::new(refusal)),
            r#"{"kind":"refusal","v":1,"part":1,"parts":1,"requestId":"req-2","time":"2026-03-01T08:00:00.250000Z","head":{"caller":null,"purposes":[],"source":null,"interaction":"unknown","request":"","reason":"token-missing","policies":[],"policySet":null,"released":0,"withheld":0,"status":401}}"#,
        ),
        (
            Record::Outcome(outcome),
            r#"{"kind":"outcome","v":1,"requestId":"req-1","time":"2026-03-01T08:00:00.250000Z","ending":"cut-off","sentBytes":512}"#,
        ),
        (
            Record::Control(control),
            r#"{"kind":"control","v":1,"time":"2026-03-01T08:00:00.250000Z","event":"policies-loaded","details":{"policySet":"c0ffee"}}"#,
        ),
    ];
    for (record, golden) in cases {
        assert_eq!(entries(&record), [golden]);
        assert_eq!(joined(&record), record);
    }
}

/// Version 2: what writes and streams need. Nothing else is ever written in it.
#[test]
fn golden_bytes_of_version_2() {
    let unit =
        Decision { unit: Some(7), status: 200, ..Decision::new(time(), "req-4".to_owned(), Verdict::Permit) };
    let cases = [
        (
            Record::Intent(Box::new(intent())),
            r#"{"kind":"intent","v":2,"part":1,"parts":1,"requestId":"req-3","time":"2026-03-01T08:00:00.250000Z","head":{"caller":null,"purposes":[],"source":null,"interaction":"update","request":"PUT Observation/o1","reason":null,"policies":[],"policySet":null,"released":0,"withheld":0,"status":0,"written":1,"entry":2},"masks":[{"n":0,"kept":["Observation.value"]}],"written":[{"reference":"Observation/o1","version":"3","patients":["p1"],"mask":0}]}"#,
        ),
        (
            Record::Decision(Box::new(unit)),
            r#"{"kind":"release","v":2,"part":1,"parts":1,"requestId":"req-4","time":"2026-03-01T08:00:00.250000Z","head":{"caller":null,"purposes":[],"source":null,"interaction":"unknown","request":"","reason":null,"policies":[],"policySet":null,"released":0,"withheld":0,"status":200,"unit":7}}"#,
        ),
        (
            Record::Outcome(Outcome::unknown(time(), "req-3".to_owned(), Some(2))),
            r#"{"kind":"outcome","v":2,"requestId":"req-3","time":"2026-03-01T08:00:00.250000Z","ending":"unknown","sentBytes":null,"entry":2}"#,
        ),
    ];
    for (record, golden) in cases {
        assert_eq!(entries(&record), [golden]);
        assert_eq!(joined(&record), record);
    }
}

/// Version 3: more of the caller, and why somebody was let in. Nothing else is ever written in it.
#[test]
fn golden_bytes_of_version_3() {
    let caller = Caller {
        issuer: "i".to_owned(),
        subject: "s".to_owned(),
        client_kind: Some("smart-app".to_owned()),
        binding: Some("dpop".to_owned()),
        actors: vec![Actor { issuer: None, subject: "scribe".to_owned() }],
        ..Caller::default()
    };
    let more =
        Decision { caller: Some(caller), ..Decision::new(time(), "req-6".to_owned(), Verdict::Refuse) };
    let because = Decision {
        basis: vec!["care-team".to_owned(), "emergency".to_owned()],
        emergencies: vec!["g1".to_owned()],
        ..Decision::new(time(), "req-5".to_owned(), Verdict::Permit)
    };
    let cases = [
        (
            more,
            r#"{"kind":"refusal","v":3,"part":1,"parts":1,"requestId":"req-6","time":"2026-03-01T08:00:00.250000Z","head":{"caller":{"issuer":"i","subject":"s","session":"","tokenHash":"","application":null,"roles":[],"clientKind":"smart-app","binding":"dpop","actors":[{"issuer":null,"subject":"scribe"}]},"purposes":[],"source":null,"interaction":"unknown","request":"","reason":null,"policies":[],"policySet":null,"released":0,"withheld":0,"status":0}}"#,
            r#","clientKind":"smart-app","binding":"dpop","actors":[{"issuer":null,"subject":"scribe"}]"#,
        ),
        (
            because,
            r#"{"kind":"release","v":3,"part":1,"parts":1,"requestId":"req-5","time":"2026-03-01T08:00:00.250000Z","head":{"caller":null,"purposes":[],"source":null,"interaction":"unknown","request":"","reason":null,"policies":[],"policySet":null,"released":0,"withheld":0,"status":0,"basis":["care-team","emergency"],"emergencies":["g1"]}}"#,
            r#","basis":["care-team","emergency"],"emergencies":["g1"]"#,
        ),
    ];
    for (decision, golden, added) in cases {
        let record = Record::Decision(Box::new(decision));
        assert_eq!(entries(&record), [golden]);
        assert_eq!(joined(&record), record);
        for (from, to) in [("\"v\":3", "\"v\":2"), (added, "")] {
            let wrong = golden.replace(from, to);
            let joins = |bytes: &str| Assembly::default().push(0, decode(bytes.as_bytes()).ok()?).ok();
            assert!(joins(golden).is_some() && joins(&wrong).is_none(), "{wrong}");
        }
    }
}

/// Version 4: the number of the policy set. Nothing else is ever written in it.
#[test]
fn golden_bytes_of_version_4() {
    let decision = Decision {
        policy_set: Some("c0ffee".to_owned()),
        policy_epoch: Some(7),
        status: 200,
        ..Decision::new(time(), "req-7".to_owned(), Verdict::Permit)
    };
    let golden = r#"{"kind":"release","v":4,"part":1,"parts":1,"requestId":"req-7","time":"2026-03-01T08:00:00.250000Z","head":{"caller":null,"purposes":[],"source":null,"interaction":"unknown","request":"","reason":null,"policies":[],"policySet":"c0ffee","released":0,"withheld":0,"status":200,"policyEpoch":7}}"#;
    let record = Record::Decision(Box::new(decision));
    assert_eq!(entries(&record), [golden]);
    assert_eq!(joined(&record), record);
    for (from, to) in [("\"v\":4", "\"v\":3"), (",\"policyEpoch\":7", "")] {
        let wrong = golden.replace(from, to);
        let joins = |bytes: &str| Assembly::default().push(0, decode(bytes.as_bytes()).ok()?).ok();
        assert!(joins(golden).is_some() && joins(&wrong).is_none(), "{wrong}");
    }
}

/// What each version may say, and that all parts of a record are of one version.
#[test]
fn versions_do_not_mix() {
    let intent = &entries(&Record::Intent(Box::new(intent())))[0];
    let release = &entries(&Record::Decision(Box::new(release())))[0];
    let outcome = Record::Outcome(Outcome::unknown(time(), "req-3".to_owned(), None));
    let outcome = &entries(&outcome)[0];
    let control = Control { time: time(), event: Event::Started, details: BTreeMap::new() };
    let control = &entries(&Record::Control(control))[0];
    let cases = [
        intent.replace("\"v\":2", "\"v\":1"),
        intent.replace("\"v\":2", "\"v\":3"),
        intent.replace("\"v\":2", "\"v\":0"),
        intent.replace("\"written\":1", "\"written\":2"),
        intent.replace("\"written\":1,", ""),
        intent.replace("\"mask\":0", "\"mask\":1"),
        intent.replace("\"status\":0,\"written\":1", "\"status\":0,\"written\":1,\"more\":1"),
        intent.replace("\"kind\":\"intent\",\"v\":2", "\"kind\":\"release\",\"v\":1"),
        release.replace("\"v\":1", "\"v\":2"),
        release.replace("\"status\":200", "\"status\":200,\"entry\":0"),
        release.replace("\"status\":200", "\"status\":200,\"unit\":0"),
        release.replace("\"status\":200", "\"status\":200,\"written\":0"),
        outcome.replace("\"v\":1", "\"v\":2"),
        outcome.replace("null", "null,\"entry\":0"),
        control.replace("\"v\":1", "\"v\":2"),
    ];
    for case in cases {
        let read = decode(case.as_bytes()).and_then(|part| Assembly::default().push(0, part));
        assert!(read.is_err(), "{case}");
    }
    let mask = Arc::new(vec!["Observation".to_owned()]);
    let mut long = self::intent();
    long.written = (0..3000).map(|n| written(&format!("o{n}"), [format!("p{n}")], &mask)).collect();
    let parts = entries(&Record::Intent(Box::new(long)));
    for (from, to) in [("\"v\":2", "\"v\":1"), ("\"intent\"", "\"release\"")] {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.push(0, decode(parts[0].as_bytes()).unwrap()), Ok(None));
        let second = decode(parts[1].replace(from, to).as_bytes());
        assert!(second.and_then(|part| assembly.push(1, part)).is_err(), "{to}");
    }
}

#[test]
fn large_records_are_split_and_joined() {
    let masks: Vec<Arc<Vec<String>>> = (0..3)
        .map(|mask| Arc::new((0..900).map(|path| format!("Observation.element{mask}.{path}")).collect()))
        .collect();
    let mut decision = release();
    decision.released =
        (0..20_000).map(|n| released(&format!("o{n}"), [format!("p{n}")], &masks[n % masks.len()])).collect();
    decision.released.push(released("group", (0..3000).map(|n| format!("p{n}")), &masks[0]));
    decision.written =
        (0..20_000).map(|n| written(&format!("w{n}"), [format!("p{n}")], &masks[n % masks.len()])).collect();
    decision.written.push(written("group", (0..3000).map(|n| format!("p{n}")), &masks[1]));
    for record in [Record::Decision(Box::new(decision.clone())), Record::Intent(Box::new(decision))] {
        assert!(encode(&record).unwrap().len() > 20);
        assert_eq!(joined(&record), record);
    }
}

#[test]
fn an_answer_of_a_hundred_thousand_records_fits() {
    let mask = Arc::new(vec!["Observation".to_owned()]);
    let mut decision = release();
    decision.released =
        (0..100_000).map(|n| released(&format!("{n:064}"), [format!("{n:064}")], &mask)).collect();
    assert!(encode(&Record::Decision(Box::new(decision.clone()))).is_ok_and(|parts| parts.len() < 400));
    decision.released.extend(decision.released.clone());
    assert_eq!(encode(&Record::Decision(Box::new(decision))), Err(EncodeError::TooLarge));
}

#[test]
fn nothing_a_client_sends_makes_a_refusal_unrecordable() {
    for filler in ["\u{1}", "\"", "a", "\u{1f600}", "\\"] {
        let long = filler.repeat(200_000);
        let many = vec![long.clone(); 500];
        let decision = Decision {
            caller: Some(Caller {
                issuer: long.clone(),
                subject: long.clone(),
                session: long.clone(),
                token_hash: long.clone(),
                application: Some(long.clone()),
                roles: many.clone(),
                client_kind: Some(long.clone()),
                binding: Some(long.clone()),
                actors: vec![Actor { issuer: Some(long.clone()), subject: long.clone() }; 50],
            }),
            purposes: many.clone(),
            source: Some(long.clone()),
            interaction: long.clone(),
            request: long.clone(),
            reason: Some(long.clone()),
            policies: many,
            policy_set: Some(long.clone()),
            ..Decision::new(time(), long, Verdict::Refuse)
        };
        let record = Record::Decision(Box::new(decision));
        let parts = encode(&record).unwrap();
        assert_eq!(parts.len(), 1);
        assert!(parts[0].len() <= RECORD_PART_BYTES_MAX, "{}", parts[0].len());
        let cut = joined(&record);
        assert_eq!(joined(&cut), cut, "cutting is idempotent");
    }
}

#[test]
fn parts_out_of_order_are_refused() {
    let mask = Arc::new(vec!["Observation".to_owned()]);
    let mut decision = release();
    decision.released = (0..3000).map(|n| released(&format!("o{n}"), [format!("p{n}")], &mask)).collect();
    let parts = encode(&Record::Decision(Box::new(decision))).unwrap();
    assert!(parts.len() >= 3);
    let orders: [&[usize]; 5] = [&[1], &[0, 2], &[0, 0], &[0, 1, 1], &[0, 1, 2, 3, 3]];
    for order in orders {
        let mut assembly = Assembly::default();
        let refused = order.iter().any(|place| {
            let part = decode(parts.get(*place).unwrap_or(&parts[0])).unwrap();
            assembly.push(0, part).is_err()
        });
        assert!(refused, "{order:?}");
    }
}

#[test]
fn what_encode_would_not_write_is_not_decoded() {
    let golden = &entries(&Record::Decision(Box::new(release())))[0];
    let cases = [
        golden.replace("\"v\":1", "\"v\":5"),
        golden.replace("\"v\":1", "\"v\":1,\"more\":true"),
        golden.replace("\"withheld\":1", "\"withheld\":1,\"value\":\"x\""),
        golden.replace("release\"", "unheard\""),
        golden.replace("\"requestId\":\"req-1\",", ""),
        golden.strip_suffix('}').unwrap().to_owned(),
        String::new(),
    ];
    for case in cases {
        assert!(decode(case.as_bytes()).is_err(), "{case}");
    }
    let no_mask = golden.replace("\"mask\":0", "\"mask\":4");
    assert!(Assembly::default().push(0, decode(no_mask.as_bytes()).unwrap()).is_err());
    let miscounted = golden.replace("\"released\":2", "\"released\":3");
    assert!(Assembly::default().push(0, decode(miscounted.as_bytes()).unwrap()).is_err());
}

#[test]
fn terminals_get_no_treachery() {
    let attack = "a\u{1b}[2J\r\n\u{202e}b\u{200b}\u{7f}\u{9b}31m\u{e0041}";
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii() && !c.is_ascii_control());
    assert!(is_plain(&escape(attack)), "{}", escape(attack));
    let line = json(&serde_json::json!({ "subject": attack }));
    assert!(is_plain(&line), "{line}");
    let back: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(back["subject"], attack);
    assert_eq!(escape("Zoë \\u{1b}"), "Zoë \\\\u{1b}");
}

#[test]
fn debug_shows_no_patient() {
    let mut decision = release();
    decision.request = "GET Patient?name=CANARY".to_owned();
    decision.released[0].reference = "Observation/CANARY".to_owned();
    decision.released[0].patients.insert("CANARY".to_owned());
    decision.written = vec![written("CANARY", ["CANARY".to_owned()], &Arc::default())];
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        decision.released[0],
        decision.written[0],
        Record::Intent(Box::new(decision.clone())),
        Record::Decision(Box::new(decision.clone()))
    );
    assert!(!shown.contains("CANARY"), "{shown}");
}

prop_compose! {
    fn any_released()(
        reference in ".{0,40}",
        version in proptest::option::of("[0-9]{1,3}"),
        patients in proptest::collection::btree_set("[a-z0-9]{1,8}", 0..5),
        mask in proptest::collection::vec("[A-Z][a-z.]{0,20}", 0..4),
    ) -> Released {
        Released { reference, version, patients, mask: Arc::new(mask) }
    }
}

proptest! {
    #[test]
    fn decoding_what_was_encoded_gives_it_back(
        seconds in 0i64..4_000_000_000,
        micros in 0i32..1_000_000,
        id in "[!-~]{1,40}",
        texts in proptest::collection::vec(".{0,60}", 5),
        policy in ".{0,20}",
        roles in proptest::collection::vec(".{0,20}", 0..5),
        is_known in any::<bool>(),
        is_permit in any::<bool>(),
        withheld in any::<u64>(),
        status in any::<u16>(),
        released in proptest::collection::vec(any_released(), 0..30),
        written in proptest::collection::vec(any_released(), 0..10),
        places in any::<(Option<u32>, Option<u32>)>(),
        is_intent in any::<bool>(),
    ) {
        let time = Timestamp::new(seconds, micros * 1000).unwrap();
        let verdict = if is_permit || is_intent { Verdict::Permit } else { Verdict::Refuse };
        let as_written = |Released { reference, version, patients, mask }| {
            Written { reference, version, patients, mask }
        };
        let decision = Decision {
            caller: is_known.then(|| Caller {
                issuer: texts[0].clone(),
                subject: texts[1].clone(),
                roles: roles.clone(),
                ..Caller::default()
            }),
            purposes: roles,
            request: texts[2].clone(),
            interaction: texts[3].clone(),
            reason: is_permit.then(|| texts[4].clone()),
            policies: vec![policy],
            withheld,
            status,
            entry: places.0,
            unit: places.1,
            released,
            written: written.into_iter().map(as_written).collect(),
            ..Decision::new(time, id.clone(), verdict)
        };
        let decision = Box::new(decision);
        let record = if is_intent { Record::Intent(decision) } else { Record::Decision(decision) };
        prop_assert_eq!(joined(&record), record);
        let outcome = Record::Outcome(Outcome::unknown(time, id, places.0));
        prop_assert_eq!(joined(&outcome), outcome);
    }

    #[test]
    fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(part) = decode(&bytes) {
            let _any = Assembly::default().push(0, part);
        }
    }
}

#[test]
fn an_item_keeps_its_patients_apart_from_the_next() {
    let mask = Arc::new(Vec::new());
    let mut decision = release();
    decision.released = vec![
        released("same", ["p1".to_owned()], &mask),
        released("same", ["p2".to_owned()], &mask),
        Released { patients: BTreeSet::new(), ..released("none", [], &mask) },
    ];
    let record = Record::Decision(Box::new(decision));
    assert_eq!(joined(&record), record);
}
