//! Laws over all types, parameters and modifiers: canonical text, valid reads, chains that hide nothing.

use proptest::prelude::*;

use super::question::Search;
use super::registry::Registry;
use super::tests::{
    all_reads, check_prints_to_itself, check_reads, plain_value, resource, search_one, search_text,
};
use crate::domain::fhir::classify::FhirRefusal;
use crate::domain::fhir::r4::{ResourceType, SearchParameter, SearchType, search_parameters};

/// Every modifier with values, of which one fits if the modifier is listed.
const MODIFIERS: [(&str, &[&str]); 12] = [
    (":missing", &["true"]),
    (":exact", &["x"]),
    (":contains", &["x"]),
    (":text", &["x"]),
    (":not", &["http://x|y"]),
    (":above", &["http://x|y", "http://x"]),
    (":below", &["http://x|y", "http://x"]),
    (":in", &["http://x"]),
    (":not-in", &["http://x|1"]),
    (":of-type", &["http://x|MR|1"]),
    (":identifier", &["http://x|1"]),
    (":Patient", &["p1"]),
];

fn understood(resource: ResourceType) -> impl Iterator<Item = &'static SearchParameter> {
    search_parameters(resource).filter(|parameter| parameter.understood)
}

fn references(resource: ResourceType) -> impl Iterator<Item = &'static SearchParameter> {
    understood(resource).filter(|parameter| parameter.kind == SearchType::Reference)
}

/// T-001 to T-004: with a modifier a parameter reads no less than some element, and one text stays one.
#[test]
fn every_modifier_of_every_parameter_reads_and_prints() {
    let mut accepted = 0;
    for resource in ResourceType::all() {
        for parameter in understood(resource) {
            for (modifier, values) in MODIFIERS {
                let name = format!("{}{modifier}", parameter.code);
                let found = values.iter().find_map(|value| search_one(resource, &name, value).ok());
                if let Some(search) = found {
                    accepted += 1;
                    check_reads(&search);
                    check_prints_to_itself(&search, &Registry::empty());
                    check_modifier_reads_the_parameter(resource, parameter, modifier, &search);
                }
            }
        }
    }
    assert!(accepted > 10_000, "{accepted}");
}

/// Only `:identifier` looks elsewhere than the plain parameter: beside the reference, not at it.
fn check_modifier_reads_the_parameter(
    resource: ResourceType,
    parameter: &SearchParameter,
    modifier: &str,
    search: &Search,
) {
    let plain = search_one(resource, parameter.code, &plain_value(resource, parameter)).unwrap();
    let same = all_reads(&plain).is_subset(&all_reads(search));
    assert_eq!(same, modifier != ":identifier", "{}?{}{modifier}", resource.name(), parameter.code);
}

/// Some understood parameter of a type, a different one for each `turn`.
fn some_parameter(resource: ResourceType, turn: usize) -> &'static SearchParameter {
    let all: Vec<_> = understood(resource).collect();
    all[turn % all.len()]
}

fn reads_below(outer: &Search, inner: &Search) -> bool {
    let deep = all_reads(outer);
    all_reads(inner).into_iter().all(|(_, path)| deep.contains(&(false, path)))
}

/// KF-22, T-005: `a:Type.b` reads what `a` reads, and of `Type` what `b` reads.
#[test]
fn kf_22_a_chain_reads_what_each_link_reads() {
    let mut turn = 0;
    for resource in ResourceType::all() {
        for link in references(resource) {
            for target in super::name::target_types(link) {
                turn += 7;
                let end = some_parameter(target, turn);
                let name = format!("{}:{}.{}", link.code, target.name(), end.code);
                let value = plain_value(target, end);
                let chain = search_one(resource, &name, &value).unwrap_or_else(|no| panic!("{name}: {no}"));
                let first = search_one(resource, link.code, "abc").unwrap();
                let last = search_one(target, end.code, &value).unwrap();
                assert!(all_reads(&first).is_subset(&all_reads(&chain)), "{name}");
                assert!(reads_below(&chain, &last), "{name}");
                check_reads(&chain);
            }
        }
    }
    assert!(turn > 7 * 3000, "{turn}");
}

/// KF-21, T-006: `_has` reads the record's identity, the reference that points at it, and what is asked of
/// the other record.
#[test]
fn kf_21_a_reverse_chain_reads_what_each_link_reads() {
    let mut turn = 0;
    for source in ResourceType::all() {
        for link in references(source) {
            let targets = super::name::target_types(link);
            turn += 5;
            let target = targets[turn % targets.len()];
            let end = some_parameter(source, turn);
            let (name, value) =
                (format!("_has:{}:{}:{}", source.name(), link.code, end.code), plain_value(source, end));
            let reverse = search_one(target, &name, &value).unwrap_or_else(|no| panic!("{name}: {no}"));
            let first = search_one(source, link.code, "abc").unwrap();
            let last = search_one(source, end.code, &value).unwrap();
            assert!(reads_below(&reverse, &first) && reads_below(&reverse, &last), "{name}");
            assert!(all_reads(&reverse).contains(&(true, format!("{}.id", target.name()))), "{name}");
            check_reads(&reverse);
        }
    }
    assert!(turn > 5 * 500, "{turn}");
}

/// KF-43, T-011, T-022: what the tables do not name is refused, whatever it looks like.
#[test]
fn kf_43_an_unknown_parameter_is_refused() {
    let names = [
        "foo",
        "birthDate",
        "BIRTHDATE",
        "birthdate ",
        " birthdate",
        "birthdate\u{a0}",
        "_ID",
        "_lastupdated",
        "_in",
        "_score",
        "near",
        "_has:Observation:patient",
        "_HAS:Observation:patient:code",
        "_has:observation:patient:code",
        "_has:Observation:encounter:code",
        "_has:Observation:patient:foo",
        "general-practitioner.foo",
        "general-practitioner:Patient.name",
        "general-practitioner.",
        ".name",
        "name.family",
        "name:",
        "name:exact:exact",
        "_list:missing",
        "_list.name",
        "_text:exact",
        "_content:missing",
        "_containedType",
        "_type",
        "_id.name",
    ];
    for name in names {
        assert!(search_one(resource("Patient"), name, "x").is_err(), "{name}");
    }
}

/// T-009: text of a record may repeat any of its elements, so all of it counts as read.
#[test]
fn t_009_full_text_reads_the_whole_record() {
    for one in ResourceType::all() {
        for code in ["_text", "_content"] {
            let Ok(search) = search_one(one, code, "x") else {
                assert!(code == "_text" && ["Binary", "Bundle", "Parameters"].contains(&one.name()));
                continue;
            };
            let hop = &search.criteria()[0].hops()[0];
            assert_eq!(hop.reads().iter().map(|path| path.as_str()).collect::<Vec<_>>(), [one.name()]);
        }
    }
    let chained = search_one(resource("Observation"), "subject:Patient._content", "x").unwrap();
    assert!(all_reads(&chained).contains(&(false, "Patient".to_owned())));
}

/// T-012, T-025: membership in a List reads the List's entries and the record's identity.
#[test]
fn t_012_list_membership_reads_the_list() {
    let expected =
        |reads: &[(bool, &str)]| reads.iter().map(|(own, path)| (*own, (*path).to_owned())).collect();
    let plain = search_one(resource("Patient"), "_list", "l1").unwrap();
    let reads = [(true, "Patient.id"), (false, "List.id"), (false, "List.entry")];
    assert_eq!(all_reads(&plain), expected(&reads));
    let chained = search_one(resource("Observation"), "subject:Patient._list", "l1").unwrap();
    let mut deep: std::collections::BTreeSet<_> = expected(&reads[1..]);
    deep.extend([(false, "Patient.id".to_owned()), (true, "Observation.subject.reference".to_owned())]);
    assert_eq!(all_reads(&chained), deep);
    let itself = search_one(resource("List"), "_list", "l1").unwrap();
    assert_eq!(all_reads(&itself), expected(&[(true, "List.id"), (false, "List.id"), (false, "List.entry")]));
    for value in ["$current-problems", "List/l1", "", "a b", "l1|l2", "https://fhir.test/List/l1"] {
        assert!(search_one(resource("Patient"), "_list", value).is_err(), "{value}");
    }
}

/// The same question in the public base's own words and in relative ones is one search.
#[test]
fn references_under_the_public_base_become_relative() {
    let cases = [
        ("Observation", "subject", "https://fhir.test/Patient/1", "Patient/1"),
        ("Observation", "subject", "Patient/2,https://fhir.test/Patient/1", "Patient/2,Patient/1"),
        ("Observation", "subject", "https://fhir.test.evil/Patient/1", "https://fhir.test.evil/Patient/1"),
        ("Observation", "subject", "https://fhir.test/Foo/1", "https://fhir.test/Foo/1"),
        ("Observation", "has-member.subject", "https://fhir.test/Patient/1", "Patient/1"),
        (
            "DocumentReference",
            "relationship",
            "https://fhir.test/DocumentReference/1$x",
            "DocumentReference/1$x",
        ),
        ("Observation", "_filter", "subject re https://fhir.test/Patient/1", "subject re Patient/1"),
        ("Observation", "code", "https://fhir.test/Patient/1|x", "https://fhir.test/Patient/1|x"),
    ];
    for (kind, name, value, expected) in cases {
        let search = search_one(resource(kind), name, value).unwrap_or_else(|no| panic!("{name}: {no}"));
        assert_eq!(search.criteria()[0].value(), expected, "{name}");
    }
}

#[test]
fn what_shapes_an_answer_is_read_once_and_stays_here() {
    let empty = Registry::empty();
    let patient = resource("Patient");
    let good = [
        ("name=x&_total=accurate", "name=x&_total=accurate", "name=x&_total=accurate"),
        ("_elements=gender,id&name=x", "name=x", "name=x&_elements=gender,id"),
        ("_summary=count&_total=none", "_total=none", "_total=none&_summary=count"),
        ("_summary=false&_contained=false", "", ""),
        (
            "_sort=-name,birthdate&_count=2000",
            "_sort=-name,birthdate&_count=1000",
            "_sort=-name,birthdate&_count=1000",
        ),
    ];
    for (text, upstream, question) in good {
        let search = search_text(patient, text, &empty).unwrap_or_else(|no| panic!("{text}: {no}"));
        assert_eq!(search.canonical_query(), upstream, "{text}");
        assert_eq!(search.canonical_question(), question, "{text}");
        check_prints_to_itself(&search, &empty);
    }
    let bad = [
        ("_total=exact", FhirRefusal::MalformedValue("_total")),
        ("_total=none&_total=none", FhirRefusal::RepeatedParameter("_total")),
        ("_summary=maybe", FhirRefusal::MalformedValue("_summary")),
        ("_summary=true&_summary=true", FhirRefusal::RepeatedParameter("_summary")),
        ("_elements=id&_elements=id", FhirRefusal::RepeatedParameter("_elements")),
        ("_elements=foo", FhirRefusal::MalformedValue("_elements")),
        ("_elements=id&_summary=true", FhirRefusal::MalformedValue("_elements")),
        ("_contained=true", FhirRefusal::ParameterNotSupported("_contained")),
        ("_contained=both", FhirRefusal::ParameterNotSupported("_contained")),
        ("_contained=no", FhirRefusal::MalformedValue("_contained")),
        ("_containedType=contained", FhirRefusal::ParameterNotSupported("_containedType")),
        ("_sort=_text", FhirRefusal::MalformedValue("_sort")),
    ];
    for (text, expected) in bad {
        assert_eq!(search_text(patient, text, &empty), Err(expected), "{text}");
    }
}

/// A chain of typed links, as far as there are references to follow.
fn chain(start: ResourceType, turns: &[usize]) -> (String, ResourceType) {
    let (mut name, mut here) = (String::new(), start);
    for turn in turns {
        let links: Vec<_> = references(here).collect();
        let Some(link) = links.get(turn % links.len().max(1)) else { break };
        let targets = super::name::target_types(link);
        here = targets[turn / 7 % targets.len()];
        name += &format!("{}:{}.", link.code, here.name());
    }
    (name, here)
}

proptest! {
    /// At any depth within the bound: a longer chain reads what its tail reads.
    #[test]
    fn deep_chains_read_what_their_tails_read(start in 0_usize..146, turns in prop::collection::vec(0_usize..9999, 1..4), end in 0_usize..99) {
        let start = ResourceType::all().nth(start).unwrap();
        let (name, last) = chain(start, &turns);
        let end = some_parameter(last, end);
        let value = plain_value(last, end);
        let search = search_one(start, &format!("{name}{}", end.code), &value).unwrap();
        check_reads(&search);
        check_prints_to_itself(&search, &Registry::empty());
        let tail = search_one(last, end.code, &value).unwrap();
        prop_assert!(name.is_empty() || reads_below(&search, &tail));
    }

    /// Several parameters at once, in any order: one text, one search.
    #[test]
    fn order_of_criteria_does_not_matter(kind in 0_usize..146, mut turns in prop::collection::vec(0_usize..99, 1..6)) {
        let kind = ResourceType::all().nth(kind).unwrap();
        let ask = |turns: &[usize]| {
            let pairs: Vec<String> = turns.iter().map(|turn| {
                let one = some_parameter(kind, *turn);
                let value = plain_value(kind, one).replace('|', "%7C").replace('$', "%24");
                format!("{}={value}", one.code)
            }).collect();
            search_text(kind, &pairs.join("&"), &Registry::empty()).unwrap()
        };
        let search = ask(&turns);
        check_prints_to_itself(&search, &Registry::empty());
        turns.reverse();
        prop_assert_eq!(search.canonical_question(), ask(&turns).canonical_question());
    }
}
