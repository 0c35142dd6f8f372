//! Bodies of writers, and the questions asked of them.
//!
//! Owns: envelopes of requests and answers, nesting, `raw`, and a second opinion on `outside`.
//! Must never: repeat what `tests/data/filter/sent.toml` and `outside.toml` say.
//! Look next: `tests/filter.rs`.

use super::*;
use chartgate::domain::filter::{EntryRequestText, EntryResponse, RootType, pretty};

#[test]
fn a_transaction_is_an_envelope_of_requests() {
    let body = r##"{"resourceType":"Bundle","type":"transaction","entry":[
        {"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","id":"x","contained":[{"resourceType":"Practitioner","id":"c"}]},
         "request":{"method":"PUT","url":"Patient?identifier=a\u007cb","ifMatch":"W/\"3\"","ifNoneMatch":"*",
          "ifModifiedSince":"2020-01-01T00:00:00Z","ifNoneExist":"identifier=1"}},
        {"request":{"method":"DELETE","url":"Patient\/2"}},
        {"resource":{"resourceType":"Bundle","type":"document"},"request":{"url":"Bundle"}}]}"##;
    let document = filter::parse_sent(body.as_bytes(), &BASES).unwrap();
    assert_eq!(document.root_type(), RootType::Bundle);
    let envelope = document.bundle().unwrap();
    assert_eq!(envelope.kind, "transaction");
    let requests: Vec<EntryRequestText> =
        envelope.entries.iter().map(|entry| entry.request.clone().unwrap()).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!((requests[0].method.as_str(), requests[0].url.as_str()), ("PUT", "Patient?identifier=a|b"));
    assert_eq!((&requests[0].if_match, &requests[0].if_none_match), (&text("W/\"3\""), &text("*")));
    assert_eq!(requests[0].if_modified_since, text("2020-01-01T00:00:00Z"));
    assert_eq!(requests[0].if_none_exist, text("identifier=1"));
    assert_eq!((requests[1].method.as_str(), requests[1].url.as_str()), ("DELETE", "Patient/2"));
    assert_eq!((requests[2].method.as_str(), requests[2].url.as_str()), ("", "Bundle"));
    let records: Vec<_> = envelope.entries.iter().map(|entry| entry.record).collect();
    assert_eq!(records, [Some(0), None, Some(2)]);
    let containers: Vec<_> = document.records().iter().map(|one| one.container).collect();
    assert_eq!(containers, [None, Some(0), None]);
    assert_eq!(document.raw(2), br#"{"resourceType":"Bundle","type":"document"}"#);
    assert_eq!(document.raw(9), b"");
    assert!(!format!("{:?} {:?}", requests, envelope).contains("identifier"));
}

#[test]
fn other_bundles_of_a_client_are_records() {
    for kind in ["collection", "document", "message", "searchset", "history", "batch-response", "Batch"] {
        let body = format!(
            r#"{{"resourceType":"Bundle","type":"{kind}","entry":[{{"resource":{{"resourceType":"Patient"}}}}]}}"#
        );
        let document = filter::parse_sent(body.as_bytes(), &BASES).unwrap();
        assert_eq!(document.root_type(), RootType::Single(0), "{kind}");
        assert_eq!(document.records()[1].container, Some(0), "{kind}");
        assert_eq!(document.raw(0), body.as_bytes(), "{kind}");
    }
}

#[test]
fn t_053_t_054_what_a_client_nests_is_bounded() {
    let bundle = |inner: &str| {
        format!(r#"{{"resourceType":"Bundle","type":"document","entry":[{{"resource":{inner}}}]}}"#)
    };
    let parameters = |inner: &str| {
        format!(
            r#"{{"resourceType":"Parameters","parameter":[{{"name":"a","part":[{{"name":"b","resource":{inner}}}]}}]}}"#
        )
    };
    let batch = |inner: &str| {
        format!(r#"{{"resourceType":"Bundle","type":"batch","entry":[{{"resource":{inner}}}]}}"#)
    };
    let fault = |body: String| filter::parse_sent(body.as_bytes(), &BASES).err().map(fault_name);
    for wrap in [&bundle as &dyn Fn(&str) -> String, &parameters] {
        let nested =
            |levels| (0..levels).fold(r#"{"resourceType":"Patient"}"#.to_owned(), |one, _| wrap(&one));
        assert_eq!((fault(nested(5)), fault(nested(6)).as_deref()), (None, Some("Nesting")));
        // The envelope itself is none of them.
        assert_eq!((fault(batch(&nested(5))), fault(batch(&nested(6))).as_deref()), (None, Some("Nesting")));
    }
}

#[test]
fn answers_to_entries_are_read() {
    let body = r#"{"resourceType":"Bundle","type":"transaction-response","total":7,"entry":[
        {"response":{"status":"201 Created","location":"Patient/1/_history/1","etag":"W/\"1\"","lastModified":"2020-01-01T00:00:00Z",
          "outcome":{"resourceType":"OperationOutcome","issue":[]}}},
        {"response":{"status":"204","odd":1}},{}]}"#;
    let document = filter::parse(body.as_bytes(), &BASES).unwrap();
    let envelope = document.bundle().unwrap();
    let text = |text: &str| Some(text.to_owned());
    let first = EntryResponse {
        status: "201 Created".to_owned(),
        location: text("Patient/1/_history/1"),
        etag: text("W/\"1\""),
        last_modified: text("2020-01-01T00:00:00Z"),
    };
    let second = EntryResponse { status: "204".to_owned(), ..EntryResponse::default() };
    let found: Vec<_> = envelope.entries.iter().map(|entry| entry.response.clone()).collect();
    assert_eq!(found, [Some(first), Some(second), None]);
    assert_eq!(envelope.entries[0].record, None, "an outcome is not the entry's resource");
    assert_eq!(envelope.total, Some(7));
    for (total, expected) in [("0", Some(0)), ("1e2", None), ("-1", None), ("1.0", None)] {
        let body = format!(r#"{{"resourceType":"Bundle","type":"searchset","total":{total}}}"#);
        let document = filter::parse(body.as_bytes(), &BASES).unwrap();
        assert_eq!(document.bundle().unwrap().total, expected, "{total}");
    }
}

/// The official examples are what writers send.
#[test]
fn every_example_may_be_sent_and_shown() {
    for (path, text) in examples() {
        let document = filter::parse_sent(text.as_bytes(), &BASES);
        assert!(document.is_ok(), "{}: {:?}", path.display(), document.err());
        let shown = String::from_utf8(pretty(text.as_bytes())).unwrap();
        assert!(Tree::parse(&shown).unwrap() == Tree::parse(&text).unwrap(), "{}", path.display());
    }
}

/// Something of the record is not permitted, said plainly.
fn holds_more(oracle: &Oracle, tree: &Tree, owner: Structure, path: &[String], role: &str) -> bool {
    tree.members().iter().any(|(name, value)| {
        if role == "record" && name == "resourceType" {
            return false;
        }
        let Some(property) = r4::property(owner, name) else { return true };
        let element = property.element;
        let servers = match role {
            "record" => element.name == "id",
            "meta" => ["versionId", "lastUpdated"].contains(&element.name) && !property.twin,
            _ => false,
        };
        if servers {
            return false;
        }
        if element.name == "extension" {
            return more_extensions(oracle, value, &oracle::below(path, "extension"));
        }
        let inner = oracle.step(path, owner, element);
        let keeps = oracle.keeps(&inner);
        match r4::kind(property.structure) {
            Kind::Primitive(_) if !keeps => true,
            Kind::Primitive(_) if property.twin => {
                value.items().iter().any(|twin| more_beside(oracle, twin, &inner))
            }
            Kind::Primitive(_) => false,
            Kind::Resource | Kind::AnyResource => !keeps,
            Kind::Complex if value.items().is_empty() => !keeps,
            Kind::Complex if r4::type_name(property.structure) == "Extension" => !keeps,
            Kind::Complex => value.items().iter().any(|item| {
                let role = if role == "record" && element.name == "meta" { "meta" } else { "" };
                let bare = item.members().is_empty() && !keeps;
                let ours = path.len() == 2
                    && path[1] == "meta"
                    && element.name == "tag"
                    && item.says("code").as_deref() == Some("SUBSETTED");
                !ours && (bare || holds_more(oracle, item, property.structure, &inner, role))
            }),
        }
    })
}

fn more_extensions(oracle: &Oracle, extensions: &Tree, path: &[String]) -> bool {
    let more = |item: &Tree| {
        item.says("url").is_none_or(|url| !oracle.keeps(&oracle::below(path, &format!("extension('{url}')"))))
    };
    extensions.items().iter().any(more) || (extensions.items().is_empty() && !oracle.keeps(path))
}

fn more_beside(oracle: &Oracle, twin: &Tree, path: &[String]) -> bool {
    twin.members().iter().any(|(name, value)| match name.as_str() {
        "extension" => more_extensions(oracle, value, &oracle::below(path, "extension")),
        "id" => !oracle.keeps(&oracle::below(path, "id")),
        _ => true,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: SEED, ..ProptestConfig::default() })]

    /// Of a mask that covers the record there is nothing outside, and of any other there is; the path is one of R4's.
    #[test]
    fn t_063_nothing_is_written_beyond_a_mask(seed in any::<u64>()) {
        let (text, mut dice) = made(seed);
        prop_assume!(is_record(&text));
        let tree = Tree::parse(&text).unwrap();
        let kind = tree.resource_type().unwrap();
        let document = filter::parse(text.as_bytes(), &BASES).unwrap();
        for _ in 0..6 {
            let mut decisions = random_decisions(&tree, &mut dice);
            if dice.one_in(2) {
                decisions.values_mut().for_each(|keep| *keep = true);
            }
            let oracle = oracle(decisions);
            let masks = masks(&oracle.decisions);
            let Some(mask) = masks.get(&kind) else { continue };
            let found = document.outside(0, mask);
            let expected = holds_more(&oracle, &tree, r4::root(kind), &[kind.name().to_owned()], "record");
            prop_assert_eq!(found.is_some(), expected, "{:?} of {} under {:?}", found, text, oracle.decisions);
            if let Some(path) = found {
                prop_assert!(ElementPath::parse(&path).is_ok(), "{}", path);
            }
        }
    }

    /// What `parse_sent` takes, `parse` takes in the same way; what it refuses for its names, holds unknown ones.
    #[test]
    fn sent_is_a_stricter_reading(seed in any::<u64>()) {
        let (text, _) = made(seed);
        let read = filter::parse(text.as_bytes(), &BASES);
        match filter::parse_sent(text.as_bytes(), &BASES) {
            Ok(sent) => {
                let read = read.map_err(|fault| TestCaseError::fail(fault.to_string()))?;
                prop_assert!(!text.contains("\"unknown"), "{}", text);
                for (one, other) in sent.records().iter().zip(read.records()) {
                    prop_assert_eq!(&one.facts, &other.facts);
                }
            }
            Err(FilterFault::Unknown(at)) => prop_assert!(text.is_char_boundary(at)),
            Err(fault) => prop_assert_eq!(read.err(), Some(fault)),
        }
    }
}
