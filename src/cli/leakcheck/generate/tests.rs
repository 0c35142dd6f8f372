//! Every kind is asked, every parameter comes up, and a seed gives the same requests.

use super::super::values::Values;
use super::*;
use crate::domain::fhir::r4::SearchType;
use serde_json::json;
use std::collections::BTreeSet;

/// Two records, one of which is seen, and what they say.
fn worlds() -> Worlds {
    let record = |name: &str, id: &str, family: &str| json!({ "resourceType": name, "id": id, "meta": { "versionId": "1" }, "name": [{ "family": family }] });
    let known = |id: &str, shown: bool, texts: [Option<Value>; 2]| Known {
        resource: ResourceType::from_name("Patient").unwrap(),
        id: id.to_owned(),
        versions: vec!["1".to_owned()],
        shown,
        texts,
    };
    let [one, two, three] = [("p1", "Knownone"), ("p1", "Knowntwo"), ("p6", "Hiddenone")]
        .map(|(id, name)| record("Patient", id, name));
    let mut values = Values::default();
    [&one, &two, &three].into_iter().for_each(|record| values.gather(record));
    let known = vec![known("p1", true, [Some(one), Some(two)]), known("p6", false, [Some(three), None])];
    Worlds { steps: Default::default(), known, values, differing: 2 }
}

fn asks(seed: u64, count: usize) -> Vec<Ask> {
    let (worlds, views) = (worlds(), BTreeMap::new());
    let open = ["Patient"].into_iter().filter_map(ResourceType::from_name).collect();
    let mut generator = Generator::new(Ground { worlds: &worlds, open: &open, views: &views }, seed, "nurse");
    (0..count).map(|_| generator.next()).collect()
}

#[test]
fn every_kind_is_asked_in_a_short_run() {
    let kinds: BTreeSet<Kind> = asks(1, 100).iter().map(|ask| ask.kind).collect();
    let missing: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !kinds.contains(kind)).collect();
    assert_eq!(missing, [Kind::Page], "pages are followed, not asked");
}

#[test]
fn a_seed_gives_the_same_requests() {
    assert_eq!(asks(4, 300), asks(4, 300));
    assert_ne!(asks(4, 300), asks(5, 300));
}

#[test]
fn every_parameter_of_every_type_comes_up() {
    let total: usize = ResourceType::all().map(|resource| r4::search_parameters(resource).count()).sum();
    assert!(total > 1_400, "{total}");
    // A search takes the next parameter; 45 of a hundred requests are searches.
    let mut asked: BTreeSet<String> = BTreeSet::new();
    for ask in asks(2, total * 100 / 45 + 100) {
        let pairs = match &ask.body {
            super::super::ask::Body::Form(pairs) => pairs.clone(),
            _ => Vec::new(),
        };
        asked.extend(ask.query.into_iter().chain(pairs).map(|(name, _)| name));
    }
    for (name, what) in [
        ("birthdate", "of the open type"),
        ("_include", "includes"),
        ("_revinclude", "includes from behind"),
        ("_sort", "order"),
        ("_summary", "shape"),
        ("_elements", "shape"),
        ("_total", "counts"),
        ("_filter", "the filter language"),
    ] {
        assert!(asked.contains(name), "{what}: {name}");
    }
    let like = |mark: &str| asked.iter().filter(|name| name.contains(mark)).count();
    for (mark, least) in
        [("_has:", 20), (".", 100), (":missing", 50), (":not", 20), (":exact", 10), (":identifier", 5)]
    {
        assert!(like(mark) >= least, "{mark}: {}", like(mark));
    }
    let codes: BTreeSet<&str> = ResourceType::all()
        .flat_map(r4::search_parameters)
        .filter(|one| one.kind != SearchType::Reference)
        .map(|one| one.code)
        .collect();
    let plain = |code: &&&str| asked.iter().any(|name| name.split(':').next() == Some(**code));
    let found = codes.iter().filter(plain).count();
    assert!(found * 4 > codes.len() * 3, "{found} of {}", codes.len());
}

#[test]
fn values_of_what_is_not_seen_are_asked_for() {
    let lines: String = asks(3, 4_000).iter().map(|ask| ask.curl()).collect();
    for name in ["Knowntwo", "Hiddenone"] {
        assert!(lines.contains(name), "{name}");
    }
}
