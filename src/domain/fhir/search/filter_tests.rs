//! Tests of `_filter`: its grammar, its one spelling, and that it reads no less than plain parameters do.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::filter::{Filter, Operator};
use super::registry::Registry;
use super::tests::{all_reads, check_prints_to_itself, check_reads, plain_value, resource, search_one};
use crate::domain::fhir::classify::FhirRefusal;
use crate::domain::fhir::r4::{ResourceType, SearchType, search_parameters};

#[test]
fn filters_have_one_spelling() {
    let cases = [
        ("name co \"pet\"", "name co \"pet\""),
        ("name  co   pet ", "name co pet"),
        ("((name co pet))", "name co pet"),
        ("given eq \"peter\" and birthdate ge 2014-10-10", "given eq \"peter\" and birthdate ge 2014-10-10"),
        ("(a eq 1) and (b eq 2 and c eq 3)", "a eq 1 and b eq 2 and c eq 3"),
        ("(a eq 1 or b eq 2) and c eq 3", "(a eq 1 or b eq 2) and c eq 3"),
        ("(a eq 1)and(b eq 2)", "a eq 1 and b eq 2"),
        ("not(a eq 1)", "not (a eq 1)"),
        ("not (a eq 1 or b eq 2) and c eq 3", "not (a eq 1 or b eq 2) and c eq 3"),
        ("not (not (a eq 1))", "not (not (a eq 1))"),
        ("nothing eq 1", "nothing eq 1"),
        ("order eq 1 or android eq 2", "order eq 1 or android eq 2"),
        ("a.b.c eq 1", "a.b.c eq 1"),
        ("a[b eq \"x ]\"].c pr true", "a[b eq \"x ]\"].c pr true"),
        ("a[(b eq x)].c[d eq y].e pr true", "a[b eq x].c[d eq y].e pr true"),
        (r#"a eq "\"\\\/""#, r#"a eq "\"\\/""#),
        ("code eq http://loinc.org|1234-5", "code eq http://loinc.org|1234-5"),
    ];
    for (text, expected) in cases {
        let filter = Filter::parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(filter.to_string(), expected, "{text}");
    }
}

#[test]
fn what_is_not_the_grammar_is_refused() {
    let cases = [
        "",
        " ",
        "a",
        "a eq",
        "a eq ",
        "a EQ 1",
        "a == 1",
        "a eq 1 b eq 2",
        "a eq 1 and",
        "and a eq 1",
        "a eq 1 and b eq 2 or c eq 3",
        "a eq 1 or b eq 2 and c eq 3",
        "a eq 1 AND b eq 2",
        "not a eq 1",
        "(a eq 1",
        "a eq 1)",
        "()",
        "a[b eq 1] eq 2",
        "a[b eq 1]c eq 2",
        "a[].c eq 2",
        "a. eq 1",
        ".a eq 1",
        "a..b eq 1",
        "a:exact eq 1",
        "_has:Observation:patient:code eq x",
        "a eq \"x",
        "a eq \"x\\n\"",
        "a eq \"x\\u0041\"",
        "a eq x\"y",
        "a eq (x",
        "a\teq\t1",
        "a eq \"x\"y",
    ];
    for text in cases {
        assert!(Filter::parse(text).is_none(), "{text}");
    }
}

#[test]
fn filters_are_bounded() {
    let nested = |depth: usize| format!("{}a eq 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(8)).is_some() && Filter::parse(&nested(9)).is_none());
    assert!(Filter::parse(&nested(100_000)).is_none());
    let wide = |leaves: usize| vec!["a eq 1"; leaves].join(" and ");
    assert!(Filter::parse(&wide(32)).is_some() && Filter::parse(&wide(33)).is_none());
    let bracketed = format!("{}a eq 1{}", "a[".repeat(9), "].b eq 1".repeat(9));
    assert!(Filter::parse(&bracketed).is_none());
    let library = resource("Library");
    let chain = "successor.successor.successor.successor.name eq x";
    assert_eq!(search_one(library, "_filter", chain), Err(FhirRefusal::ChainTooLong));
    let many = vec!["successor.name eq x"; 32].join(" and ");
    assert_eq!(search_one(library, "_filter", &many), Err(FhirRefusal::ChainTooLong));
}

fn reads(kind: &str, filter: &str) -> BTreeSet<String> {
    let search = search_one(resource(kind), "_filter", filter).unwrap_or_else(|no| panic!("{filter}: {no}"));
    check_reads(&search);
    check_prints_to_itself(&search, &Registry::empty());
    all_reads(&search)
        .into_iter()
        .map(|(own, path)| format!("{}{path}", if own { "" } else { "> " }))
        .collect()
}

/// T-008: every leaf, on every side of `or` and `not`, along every chain and in every bracket.
#[test]
fn t_008_a_filter_reads_all_its_leaves() {
    let cases: [(&str, &str, &[&str]); 8] = [
        ("Patient", "gender eq male or birthdate ge 2014", &["Patient.gender", "Patient.birthDate"]),
        ("Patient", "not (gender eq male) and active pr true", &["Patient.gender", "Patient.active"]),
        (
            "Account",
            "owner.name co \"x\"",
            &["Account.owner.reference", "> Organization.alias", "> Organization.name"],
        ),
        ("Account", "owner pr false", &["Account.owner", "Account.owner.reference"]),
        ("Account", "type in http://x", &["Account.type", "> ValueSet"]),
        ("Account", "type sb http://x|y", &["Account.type", "> CodeSystem"]),
        (
            // `type` is a parameter of the Organization and of the Account: both are read.
            "Account",
            "owner[type eq x].address co y",
            &["Account.owner.reference", "Account.type", "> Organization.address", "> Organization.type"],
        ),
        (
            // `address` is none of the Account's.
            "Account",
            "owner[address co x].type eq y",
            &["Account.owner.reference", "> Organization.address", "> Organization.type"],
        ),
    ];
    for (kind, filter, expected) in cases {
        let expected: BTreeSet<String> = expected.iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(reads(kind, filter), expected, "{filter}");
    }
}

#[test]
fn names_operators_and_values_are_checked() {
    let refused = [
        "foo eq 1",
        "gender eq male and foo eq 1",
        "general-practitioner.foo eq 1",
        "general-practitioner[foo eq 1].name eq 1",
        "name.family eq x",
        "name[gender eq male].family eq x",
        "birthdate co 2014",
        "birthdate ge soon",
        "birthdate ge ge2014",
        "birthdate pr maybe",
        "gender gt male",
        "name in http://x",
        "name re Patient/1",
        "general-practitioner co x",
        "general-practitioner re \"a b\"",
        "_list eq l1",
        "_filter eq x",
        "_query eq x",
        "_has eq x",
        "_sort eq name",
    ];
    for filter in refused {
        assert!(search_one(resource("Patient"), "_filter", filter).is_err(), "{filter}");
    }
    let near = search_one(resource("Location"), "_filter", "near eq 1|2");
    assert_eq!(near, Err(FhirRefusal::MalformedValue("_filter")));
    let composite = search_one(resource("Observation"), "_filter", "code-value-quantity eq a$1");
    assert_eq!(composite, Err(FhirRefusal::MalformedValue("_filter")));
}

/// Every official parameter can stand in a filter, and reads there what it reads on its own.
#[test]
fn a_comparison_reads_what_its_parameter_reads() {
    for one in ResourceType::all() {
        let single = |kind| !matches!(kind, SearchType::Composite | SearchType::Special);
        for parameter in search_parameters(one).filter(|found| found.understood && single(found.kind)) {
            let value = plain_value(one, parameter);
            let bare = value.trim_start_matches(|first: char| {
                "gelt".contains(first) && parameter.kind != SearchType::String
            });
            let filter = format!("{} eq \"{bare}\"", parameter.code);
            let found = search_one(one, "_filter", &filter);
            let found = found.unwrap_or_else(|no| panic!("{}?_filter={filter}: {no}", one.name()));
            let plain = search_one(one, parameter.code, &value).unwrap();
            assert_eq!(all_reads(&found), all_reads(&plain), "{filter}");
            check_prints_to_itself(&found, &Registry::empty());
        }
    }
}

fn any_filter() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(Operator::ALL.map(|(_, word)| word).to_vec());
    let literal = prop_oneof!["[a-z0-9:/|.-]{1,8}", "\"([ a-z)(\\]é]|\\\\\"|\\\\\\\\){0,6}\""];
    let leaf = ("[a-z_][a-z0-9_-]{0,6}(\\.[a-z]{1,3}){0,2}", operator, literal)
        .prop_map(|(path, operator, literal)| format!("{path} {operator} {literal}"));
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|items| items
                .iter()
                .map(|item| format!("({item})"))
                .collect::<Vec<_>>()
                .join(" and ")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|items| items
                .iter()
                .map(|item| format!("({item})"))
                .collect::<Vec<_>>()
                .join("or")),
            inner.clone().prop_map(|item| format!("not ({item})")),
            inner.prop_map(|item| format!("a[{item}].b pr true")),
        ]
    })
}

proptest! {
    /// T-023 for filters: what is read prints to text that reads as the same and prints the same.
    #[test]
    fn a_filter_prints_to_itself(text in any_filter()) {
        if let Some(filter) = Filter::parse(&text) {
            let printed = filter.to_string();
            let again = Filter::parse(&printed);
            prop_assert!(again.as_ref() == Some(&filter), "{} -> {}", text, printed);
            prop_assert_eq!(again.unwrap().to_string(), printed);
        } else {
            // Only the bounds refuse what the generator makes.
            prop_assert!(text.matches(['(', '[']).count() > 8 || text.matches(' ').count() > 64, "{}", text);
        }
    }

    #[test]
    fn reading_a_filter_never_panics(text in "[a-z_ ()\\[\\]\".\\\\|é0-9]{0,40}") {
        if let Some(filter) = Filter::parse(&text) {
            prop_assert!(Filter::parse(&filter.to_string()).is_some());
        }
        let _ = search_one(resource("Observation"), "_filter", &text);
    }
}
