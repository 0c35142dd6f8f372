//! Tests of search parsing: every official parameter, every modifier, and the laws.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::form::{Pair, decode_into};
use super::modifier::Modifier;
use super::read_search;
use super::registry::Registry;
use super::value::SearchValue;
use crate::domain::fhir::classify::{FhirRefusal, Head, asked, classify};
use crate::domain::fhir::interaction::{Interaction, Search};
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::r4::{
    ElementPath, ResourceType, SearchParameter, SearchType, search_parameter, search_parameters,
};

pub(super) fn base() -> PublicBase {
    PublicBase::parse("https://fhir.test").unwrap()
}

pub(super) fn resource(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

pub(super) fn search_one(resource: ResourceType, name: &str, value: &str) -> Result<Search, FhirRefusal> {
    let pair = Pair { name: name.to_owned(), value: value.to_owned() };
    read_search(resource, None, &[pair], &base(), &Registry::empty())
}

/// The search of a query text.
pub(super) fn search_text(
    resource: ResourceType,
    query: &str,
    registry: &Registry,
) -> Result<Search, FhirRefusal> {
    let mut pairs = Vec::new();
    decode_into(&mut pairs, query)?;
    read_search(resource, None, &pairs, &base(), registry)
}

/// The law of canonical text: it reads as the search it was printed from, and prints as itself.
#[track_caller]
pub(super) fn check_prints_to_itself(search: &Search, registry: &Registry) {
    let text = search.canonical_question();
    let again = search_text(search.resource_type(), &text, registry);
    let again = again.unwrap_or_else(|refusal| panic!("{text}: {refusal}"));
    assert!(again == *search && again.canonical_question() == text, "{text}");
}

/// Each hop reads something, and only elements of its own type; the first is of the searched type.
#[track_caller]
pub(super) fn check_reads(search: &Search) {
    for criterion in search.criteria() {
        let hops = criterion.hops();
        assert_eq!(hops[0].resource(), search.resource_type(), "{}", criterion.name());
        for hop in hops {
            assert!(!hop.reads().is_empty(), "{}", criterion.name());
            for path in hop.reads() {
                assert_eq!(path.resource_type(), hop.resource(), "{}", criterion.name());
                assert_eq!(ElementPath::parse(path.as_str()).as_ref(), Ok(path), "{}", criterion.name());
            }
        }
    }
}

/// All that a search reads: hop 0 apart from the same type further along.
pub(super) fn all_reads(search: &Search) -> BTreeSet<(bool, String)> {
    let hops = search.criteria().iter().flat_map(|criterion| criterion.hops().iter().enumerate());
    hops.flat_map(|(place, hop)| hop.reads().iter().map(move |path| (place == 0, path.to_string()))).collect()
}

pub(super) fn plain_value(resource: ResourceType, parameter: &SearchParameter) -> String {
    let component = |code: &&str| plain_value(resource, search_parameter(resource, code).unwrap());
    match parameter.kind {
        SearchType::Number => "1.5".to_owned(),
        SearchType::Date => "ge2020-01-31".to_owned(),
        SearchType::String => "peter".to_owned(),
        SearchType::Token => "http://x|y".to_owned(),
        SearchType::Reference => "abc".to_owned(),
        SearchType::Quantity => "lt5||mg".to_owned(),
        SearchType::Uri => "http://x".to_owned(),
        SearchType::Special => "1|2".to_owned(),
        SearchType::Composite => parameter.components.iter().map(component).collect::<Vec<_>>().join("$"),
    }
}

/// All parameters of all types: each is read, with its elements, and prints to a query that reads as
/// itself. Only `_query` is refused, by name, since no query is declared.
#[test]
fn every_official_parameter_is_understood_or_refused_by_name() {
    let (mut understood, mut refused) = (0, 0);
    for resource in ResourceType::all() {
        for parameter in search_parameters(resource) {
            let value = plain_value_or_any(resource, parameter);
            let found = search_one(resource, parameter.code, &value);
            if parameter.understood || parameter.code == "_filter" {
                understood += 1;
                check_understood(resource, parameter, found);
            } else {
                refused += 1;
                let named = FhirRefusal::ParameterNotSupported(parameter.code);
                assert_eq!(found.unwrap_err(), named, "{}", resource.name());
            }
        }
    }
    assert!(understood > 3000 && refused == 146, "{understood} understood, {refused} refused");
}

fn plain_value_or_any(resource: ResourceType, parameter: &SearchParameter) -> String {
    match (parameter.understood, parameter.code) {
        (true, _) => plain_value(resource, parameter),
        (false, "_filter") => "_id eq x".to_owned(),
        (false, _) => "x".to_owned(),
    }
}

fn check_understood(resource: ResourceType, parameter: &SearchParameter, found: Result<Search, FhirRefusal>) {
    let name = format!("{}?{}", resource.name(), parameter.code);
    let search = found.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
    assert_eq!(search.criteria().len(), 1, "{name}");
    check_reads(&search);
    check_prints_to_itself(&search, &Registry::empty());
}

#[test]
fn every_sortable_parameter_sorts_and_every_reference_includes() {
    for resource in ResourceType::all() {
        for parameter in search_parameters(resource).filter(|parameter| parameter.understood) {
            let sorted = search_one(resource, "_sort", &format!("-{}", parameter.code));
            let whole = super::name::reads_whole(resource, parameter);
            let sortable = !whole && !matches!(parameter.kind, SearchType::Composite | SearchType::Special);
            assert_eq!(sorted.is_ok(), sortable, "{}?{}", resource.name(), parameter.code);
            if let Ok(search) = sorted {
                assert!(!search.sort()[0].reads().is_empty());
            }
            let value = format!("{}:{}", resource.name(), parameter.code);
            let included = search_one(resource, "_include", &value);
            assert_eq!(included.is_ok(), parameter.kind == SearchType::Reference, "{value}");
            if let Ok(search) = included {
                let include = &search.includes()[0];
                assert!(!include.reads().is_empty() && !include.added().is_empty(), "{value}");
            }
        }
    }
}

#[test]
fn no_official_code_collides_with_the_grammar() {
    for resource in ResourceType::all() {
        for parameter in search_parameters(resource) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            assert!(parameter.code.bytes().all(plain), "{}", parameter.code);
        }
    }
}

/// T-004: the whole matrix, type of parameter by modifier.
#[test]
fn modifiers_are_listed_per_type() {
    let all = [
        "missing",
        "exact",
        "contains",
        "text",
        "not",
        "above",
        "below",
        "in",
        "not-in",
        "of-type",
        "identifier",
        "Patient",
        "phonetic",
        "iterate",
        "",
        "MISSING",
    ];
    let matrix: [(SearchType, &[&str]); 9] = [
        (SearchType::Number, &["missing"]),
        (SearchType::Date, &["missing"]),
        (SearchType::Quantity, &["missing"]),
        (SearchType::String, &["missing", "exact", "contains"]),
        (SearchType::Token, &["missing", "text", "not", "above", "below", "in", "not-in", "of-type"]),
        (SearchType::Reference, &["missing", "above", "below", "identifier", "Patient"]),
        (SearchType::Uri, &["missing", "above", "below"]),
        (SearchType::Composite, &[]),
        (SearchType::Special, &[]),
    ];
    for (kind, listed) in matrix {
        assert_eq!(Modifier::parse(None, kind), Some(Modifier::Absent));
        for text in all {
            let known = Modifier::parse(Some(text), kind).is_some();
            assert_eq!(known, listed.contains(&text), "{kind:?} :{text}");
        }
    }
}

fn hops(line: &str) -> Vec<String> {
    let Ok(Interaction::Search(search)) = asked(&format!("GET /{line}")) else { panic!("{line}") };
    let shown = search.criteria()[0].hops().iter().map(|hop| {
        let reads: Vec<&str> = hop.reads().iter().map(|path| path.as_str()).collect();
        format!("{}: {}", hop.resource().name(), reads.join(" "))
    });
    shown.collect()
}

#[track_caller]
fn check_hops(line: &str, expected: &[&str]) {
    assert_eq!(hops(line), expected, "{line}");
}

#[test]
fn a_criterion_lists_all_it_reads() {
    check_hops("Patient?birthdate=1980", &["Patient: Patient.birthDate"]);
    check_hops("Patient?birthdate:missing=true", &["Patient: Patient.birthDate"]);
    check_hops("Patient?_security=R", &["Patient: Patient.meta.security"]);
    check_hops("Patient?_id=1", &["Patient: Patient.id"]);
    check_hops("Account?owner=1", &["Account: Account.owner.reference"]);
    check_hops("Account?owner:missing=true", &["Account: Account.owner Account.owner.reference"]);
    check_hops(
        "Account?owner:identifier=x",
        &["Account: Account.owner.identifier", "Organization: Organization.identifier"],
    );
    check_hops("Account?owner:below=1", &["Account: Account.owner.reference", "Organization: Organization"]);
    check_hops("Account?type:in=http://x", &["Account: Account.type", "ValueSet: ValueSet"]);
    check_hops("Account?type:below=x", &["Account: Account.type", "CodeSystem: CodeSystem"]);
}

/// T-005, T-006: every hop of a chain is listed; the searched type comes first and stays apart.
#[test]
fn chains_list_every_hop() {
    check_hops(
        "Account?subject:Patient.birthdate=1980",
        &["Account: Account.subject.reference", "Patient: Patient.birthDate"],
    );
    check_hops(
        "Patient?general-practitioner:Organization.partof:Organization.name=x",
        &[
            "Patient: Patient.generalPractitioner.reference",
            "Organization: Organization.alias Organization.name Organization.partOf.reference",
        ],
    );
    check_hops(
        "Patient?link:Patient.birthdate=1980",
        &["Patient: Patient.link.other.reference", "Patient: Patient.birthDate"],
    );
    check_hops(
        "Patient?_has:Account:patient:status=active",
        &["Patient: Patient.id", "Account: Account.status Account.subject.reference"],
    );
    check_hops(
        "Account?subject:Patient._has:Group:member:_id=g",
        &[
            "Account: Account.subject.reference",
            "Group: Group.id Group.member.entity.reference",
            "Patient: Patient.id",
        ],
    );
}

/// An untyped chain looks into every type that the reference may lead to.
#[test]
fn an_untyped_chain_lists_all_types() {
    let found = hops("Account?subject.name=x");
    let types: Vec<&str> = found.iter().filter_map(|hop| hop.split(':').next()).collect();
    let named = ["Account", "HealthcareService", "Location", "Organization", "Patient"];
    for name in named {
        assert!(types.contains(&name), "{name} in {types:?}");
    }
}

/// T-007: whatever a component reads on its own, the composite reads too.
#[test]
fn composites_read_all_components() {
    let mut composites = 0;
    let registry = Registry::empty();
    for resource in ResourceType::all() {
        let names = super::name::Names { resource, registry: &registry };
        let understood = search_parameters(resource).filter(|parameter| parameter.understood);
        for composite in understood.filter(|parameter| parameter.kind == SearchType::Composite) {
            composites += 1;
            let reads = names.reads(resource, composite).unwrap();
            assert!(composite.components.len() > 1, "{}", composite.code);
            for code in composite.components {
                let component = search_parameter(resource, code).unwrap();
                let parts = names.reads(resource, component).unwrap();
                assert!(parts.is_subset(&reads), "{}?{}: {code}", resource.name(), composite.code);
            }
        }
    }
    assert!(composites > 20, "{composites}");
}

/// Untyped chains branch; neither one name nor many together may multiply without end.
#[test]
fn chains_fan_out_within_bounds() {
    let library = resource("Library");
    let wide = "successor.successor.successor.successor.name";
    assert_eq!(search_one(library, wide, "x"), Err(FhirRefusal::ChainTooLong));
    assert!(search_one(resource("Observation"), "focus.focus.status", "final").is_ok());
    let pair = Pair { name: "successor.name".to_owned(), value: "x".to_owned() };
    let many = vec![pair; 64];
    assert_eq!(
        read_search(library, None, &many, &base(), &Registry::empty()),
        Err(FhirRefusal::ChainTooLong)
    );
    let nested = "_has:Observation:patient:".repeat(9) + "code";
    assert!(search_one(resource("Patient"), &nested, "x").is_err());
}

#[test]
fn dates_are_checked_to_the_day() {
    let good = [
        "2020",
        "2020-12",
        "2020-02-29",
        "0001-01-01",
        "2020-01-01T00:00",
        "2020-01-01T23:59:60Z",
        "2020-01-01T10:00:00.5-05:00",
    ];
    let bad = [
        "",
        "20",
        "02020",
        "0000",
        "2020-13",
        "2020-00",
        "2100-02-29",
        "2020-1-1",
        "2020-01-01T",
        "2020-01T10:00",
        "2020-01-01T10",
        "2020-01-01T10:60",
        "2020-01-01T10:00:00.",
        "2020-01-01T10:00z",
        "2020-01-01T10:00+15:00",
        "2020-01-01-01",
        "2020-01-01T10:00:00:00",
        "２０２０",
    ];
    for text in good {
        assert!(super::date::is_date(text), "{text}");
    }
    for text in bad {
        assert!(!super::date::is_date(text), "{text}");
    }
}

fn any_line() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("Patient"),
        Just("Observation"),
        Just("/"),
        Just("?"),
        Just("&"),
        Just("="),
        Just(":"),
        Just("."),
        Just("_has:"),
        Just("_has:Observation:patient:"),
        Just("subject"),
        Just("name"),
        Just("code"),
        Just("_sort"),
        Just("_include"),
        Just("%2C"),
        Just("%"),
        Just("\\"),
        Just(","),
        Just("|"),
        Just("$"),
        Just("~page"),
        Just("_history"),
        Just("ge2020"),
        Just("é"),
        Just("#"),
        Just("_count"),
        Just("1"),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn ask(target: &str, form: Option<&[u8]>) -> Result<Interaction, FhirRefusal> {
    let mut headers = http::HeaderMap::new();
    let form_type = http::HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(http::header::CONTENT_TYPE, form_type);
    let method = if form.is_some() { "POST" } else { "GET" };
    let head = Head { method, target, authority: Some("fhir.test"), headers: &headers };
    classify(&head, form, &base(), &Registry::empty()).map(|asked| asked.interaction)
}

/// Percent-encodes every byte of names and values, or only what must be.
fn spell(pairs: &[(String, String)], all: bool) -> String {
    let encode = |text: &String| -> String {
        text.bytes()
            .map(|byte| {
                if all || !byte.is_ascii_alphanumeric() {
                    format!("%{byte:02x}")
                } else {
                    char::from(byte).to_string()
                }
            })
            .collect()
    };
    pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect::<Vec<_>>()
        .join("&")
}

proptest! {
    #[test]
    fn classify_never_panics_and_canonical_is_stable(target in any_line()) {
        if let Ok(Interaction::Search(search)) = ask(&target, None) {
            let again = ask(&format!("/{}?{}", search.resource_type().name(), search.canonical_question()), None);
            prop_assert_eq!(again, Ok(Interaction::Search(search)));
        }
    }

    #[test]
    fn classify_never_panics_on_any_text(target in "\\PC*", form in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ask(&target, None);
        let _ = ask("/Patient/_search", Some(&form));
    }

    #[test]
    fn decoding_never_panics(text in ".*") {
        let _ = decode_into(&mut Vec::new(), &text);
    }

    /// T-023: what is read prints to text that reads as the same.
    #[test]
    fn values_print_to_themselves(text in "[a|$,\\\\ é0-9]{0,20}") {
        if let Some(value) = SearchValue::parse(&text) {
            let printed = value.to_string();
            prop_assert_eq!(&printed, &text, "one spelling each");
            prop_assert!(SearchValue::parse(&printed).is_some_and(|again| again == value));
        }
    }

    /// Two spellings, URL or form, any order: one interaction or one refusal.
    #[test]
    fn spellings_do_not_matter(
        mut pairs in prop::collection::vec(
            ("(name|birthdate|name:exact|_count|link:Patient\\.name|foo)", "[a-z0-9|,é+& ]{0,6}"), 1..4),
        cut in 0_usize..4,
    ) {
        let plain = ask(&format!("/Patient?{}", spell(&pairs, false)), None);
        let encoded = ask(&format!("/Patient?{}", spell(&pairs, true)), None);
        prop_assert_eq!(&plain, &encoded);
        let (url, body) = pairs.split_at(cut.min(pairs.len()));
        let (url, body) = (format!("/Patient/_search?{}", spell(url, true)), spell(body, false));
        prop_assert_eq!(&plain, &ask(&url, Some(body.as_bytes())));
        pairs.reverse();
        let reversed = ask(&format!("/Patient?{}", spell(&pairs, true)), None);
        prop_assert_eq!(plain.is_ok(), reversed.is_ok());
        if plain.is_ok() {
            prop_assert_eq!(plain, reversed);
        }
    }
}
