//! Tests of includes, of declared parameters and queries, of compartments and of criteria alone.

use super::form::decode_into;
use super::question::{Compartment, Include, Search};
use super::read_criteria;
use super::registry::{DeclarationError, Registry};
use super::tests::{all_reads, base, check_prints_to_itself, check_reads, resource, search_one, search_text};
use crate::domain::fhir::classify::FhirRefusal;
use crate::domain::fhir::interaction::LogicalId;
use crate::domain::fhir::r4::{ElementPath, ResourceType, SearchType};

fn names(types: &[ResourceType]) -> String {
    types.iter().map(|one| one.name()).collect::<Vec<_>>().join(" ")
}

fn shown(include: &Include) -> String {
    let arrow = if include.reverse() { "<-" } else { "->" };
    format!("{} {arrow} {}", include.source().name(), names(include.targets()))
}

/// T-032: an iterated include may start where another one ends, and nowhere else.
#[test]
fn iterated_includes_start_from_types_in_the_answer() {
    let cases: [(&str, &str, &[&str]); 7] = [
        ("Observation", "_include=Observation:encounter", &["Observation -> Encounter"]),
        (
            "Observation",
            "_include=Observation:encounter&_include:iterate=Encounter:service-provider",
            &["Observation -> Encounter", "Encounter -> Organization"],
        ),
        (
            "Observation",
            "_include:iterate=Organization:partof&_include:iterate=Encounter:service-provider&_include=Observation:encounter",
            &["Observation -> Encounter", "Encounter -> Organization", "Organization -> Organization"],
        ),
        ("Organization", "_include:iterate=Organization:partof", &["Organization -> Organization"]),
        ("Patient", "_revinclude=Provenance:target", &["Provenance <- Patient"]),
        (
            "Patient",
            "_revinclude=Encounter:subject&_revinclude:iterate=Provenance:target",
            &["Encounter <- Patient", "Provenance <- Encounter Patient Provenance"],
        ),
        (
            "Patient",
            "_revinclude=Encounter:subject&_revinclude:iterate=Provenance:target:Encounter",
            &["Encounter <- Patient", "Provenance <- Encounter"],
        ),
    ];
    for (kind, query, expected) in cases {
        let empty = Registry::empty();
        let search = search_text(resource(kind), query, &empty).unwrap_or_else(|no| panic!("{query}: {no}"));
        let mut found: Vec<String> = search.includes().iter().map(shown).collect();
        let mut expected: Vec<&str> = expected.to_vec();
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected, "{query}");
        check_prints_to_itself(&search, &empty);
        assert_eq!(search.canonical_query().matches(":iterate").count(), query.matches(":iterate").count());
    }
}

#[test]
fn includes_that_cannot_be_judged_are_refused() {
    let cases = [
        "_include=*",
        "_include=Observation:*",
        "_include:iterate=*",
        "_revinclude=*:*",
        "_include:recurse=Observation:has-member",
        "_include:ITERATE=Observation:has-member",
        "_include:=Observation:has-member",
        "_include:iterate:iterate=Observation:has-member",
        "_include=Encounter:service-provider",
        "_include:iterate=Encounter:service-provider",
        "_include=Observation:encounter&_include=Encounter:service-provider",
        "_include=Observation:patient&_include:iterate=Encounter:service-provider",
        "_include=Observation:code",
        "_include=Observation:encounter:Patient",
        "_include=Observation",
        "_include=Observation:encounter:",
        "_revinclude=Encounter:service-provider",
        "_revinclude:iterate=Encounter:service-provider",
        "_revinclude=Provenance:target:Patient",
        "_Include=Observation:encounter",
    ];
    for query in cases {
        assert!(search_text(resource("Observation"), query, &Registry::empty()).is_err(), "{query}");
    }
    let many = vec!["_include=Observation:encounter"; 17].join("&");
    let refused = search_text(resource("Observation"), &many, &Registry::empty());
    assert_eq!(refused, Err(FhirRefusal::TooManyParameters));
}

fn paths(texts: &[&str]) -> Vec<ElementPath> {
    texts.iter().map(|text| ElementPath::parse(text).unwrap()).collect()
}

fn declared() -> Registry {
    let (mut registry, patient) = (Registry::empty(), resource("Patient"));
    let ward = paths(&["Patient.extension('urn:ward')"]);
    registry.declare(patient, "mrn", SearchType::Token, &paths(&["Patient.identifier"]), &[]).unwrap();
    registry.declare(patient, "ward", SearchType::Reference, &ward, &[resource("Location")]).unwrap();
    let seen = paths(&["Observation.performer"]);
    registry
        .declare(resource("Observation"), "seen-by", SearchType::Reference, &seen, &[resource("Patient")])
        .unwrap();
    registry.declare_query(patient, "frequent", &paths(&["Patient.birthDate", "Encounter.period"])).unwrap();
    registry
}

/// T-011: a declared parameter is used as an official one is: alone, in chains, reversed, sorted, included.
#[test]
fn t_011_declared_parameters_read_what_was_declared() {
    let cases = [
        ("Patient", "mrn=x", "+Patient.identifier"),
        ("Patient", "mrn:not=x", "+Patient.identifier"),
        ("Patient", "mrn:of-type=http://x%7CMR%7C1", "+Patient.identifier"),
        ("Observation", "seen-by:Patient.mrn=x", "-Patient.identifier +Observation.performer.reference"),
        ("Observation", "seen-by.mrn=x", "-Patient.identifier +Observation.performer.reference"),
        (
            "Patient",
            "_has:Observation:seen-by:code=x",
            "-Observation.code -Observation.performer.reference +Patient.id",
        ),
        ("Patient", "ward:Location.name=x", "-Location.alias -Location.name +Patient.extension('urn:ward')"),
        ("Patient", "_filter=mrn%20eq%20x", "+Patient.identifier"),
        ("Patient", "_query=frequent", "-Encounter.period +Patient.birthDate +Patient.id"),
        ("Patient", "_sort=mrn", ""),
        ("Patient", "_include=Patient:ward", ""),
    ];
    let registry = declared();
    for (kind, query, expected) in cases {
        let search =
            search_text(resource(kind), query, &registry).unwrap_or_else(|no| panic!("{query}: {no}"));
        let reads = all_reads(&search).into_iter();
        let reads: Vec<String> =
            reads.map(|(own, path)| format!("{}{path}", if own { "+" } else { "-" })).collect();
        assert_eq!(reads.join(" "), expected, "{query}");
        check_reads(&search);
        check_prints_to_itself(&search, &registry);
        assert!(search_text(resource(kind), query, &Registry::empty()).is_err(), "{query}");
    }
    for query in [
        "_query=other",
        "_query=frequent&_query=frequent",
        "_query=FREQUENT",
        "mrn.name=x",
        "_query:x=frequent",
    ] {
        assert!(search_text(resource("Patient"), query, &registry).is_err(), "{query}");
    }
    assert!(search_text(resource("Observation"), "_query=frequent", &registry).is_err());
    assert!(search_text(resource("Observation"), "mrn=x", &registry).is_err());
}

/// Code, type, paths, targets, and what is wrong with them.
type Declaration<'d> = (&'d str, SearchType, &'d [&'d str], &'d [ResourceType], DeclarationError);

#[test]
fn a_declaration_must_be_one() {
    use DeclarationError::{Code, Kind, NoPath, NoReference, Official, OtherType, Repeated, Targets};
    let (patient, group) = (resource("Patient"), [resource("Group")]);
    let cases: [Declaration<'_>; 12] = [
        ("", SearchType::Token, &["Patient.gender"], &[], Code),
        ("_x", SearchType::Token, &["Patient.gender"], &[], Code),
        ("x:y", SearchType::Token, &["Patient.gender"], &[], Code),
        ("x.y", SearchType::Token, &["Patient.gender"], &[], Code),
        ("gender", SearchType::Token, &["Patient.gender"], &[], Official),
        ("mrn", SearchType::Token, &["Patient.gender"], &[], Repeated),
        ("x", SearchType::Composite, &["Patient.gender"], &[], Kind),
        ("x", SearchType::Special, &["Patient.gender"], &[], Kind),
        ("x", SearchType::Token, &[], &[], NoPath),
        ("x", SearchType::Token, &["Patient.gender", "Group.code"], &[], OtherType),
        ("x", SearchType::Reference, &["Patient.gender"], &[], NoReference),
        ("x", SearchType::Token, &["Patient.gender"], &group, Targets),
    ];
    for (code, kind, reads, targets, expected) in cases {
        let error = declared().declare(patient, code, kind, &paths(reads), targets);
        assert_eq!(error, Err(expected), "{code} {kind:?}");
    }
    assert_eq!(declared().declare_query(patient, "frequent", &paths(&["Patient"])), Err(Repeated));
    assert_eq!(declared().declare_query(patient, "x", &[]), Err(NoPath));
}

/// T-027 to T-029: a compartment search is the type search with one more condition, for member types alone.
#[test]
fn compartments_hold_the_types_of_their_definition() {
    let compartment = |owner: &str, member: &str| {
        let id = LogicalId::parse("1").unwrap();
        Compartment::holding(resource(owner), id, resource(member))
    };
    let found = compartment("Patient", "Observation").unwrap();
    assert_eq!((found.owner().name(), found.id().as_str()), ("Patient", "1"));
    assert_eq!(format!("{found:?}"), "Patient/…");
    for (owner, member) in [("Patient", "Practitioner"), ("Group", "Patient"), ("Observation", "Patient")] {
        assert!(compartment(owner, member).is_none(), "{owner} {member}");
    }
    let mut pairs = Vec::new();
    decode_into(&mut pairs, "code=x").unwrap();
    let with = |owner: Option<Compartment>| {
        super::read_search(resource("Observation"), owner, &pairs, &base(), &Registry::empty()).unwrap()
    };
    let (inside, everywhere) = (with(compartment("Patient", "Observation")), with(None));
    assert!(inside != everywhere, "the compartment is part of the question");
    assert_eq!(inside.canonical_query(), everywhere.canonical_query());
    assert_eq!(inside.compartment(), compartment("Patient", "Observation").as_ref());
}

fn criteria(query: &str) -> Result<Search, FhirRefusal> {
    let mut pairs = Vec::new();
    decode_into(&mut pairs, query)?;
    read_criteria(resource("Patient"), &pairs, &base(), &Registry::empty())
}

/// Conditional headers find records: nothing else may stand in them, and something must.
#[test]
fn criteria_alone_find_records() {
    let search = criteria("identifier=http://x%7C1&name:exact=y").unwrap();
    assert_eq!(search.canonical_question(), "identifier=http://x%7C1&name:exact=y");
    assert_eq!(
        search,
        search_text(resource("Patient"), "identifier=http://x%7C1&name:exact=y", &Registry::empty()).unwrap()
    );
    let refused = [
        "",
        "_count=1",
        "name=x&_count=1",
        "_sort=name",
        "_include=Patient:link",
        "_revinclude=Observation:subject",
        "_include:iterate=Patient:link",
        "_total=none",
        "_summary=true",
        "_elements=id",
        "_contained=false",
        "_format=json",
        "_pretty=true",
        "foo=x",
    ];
    for query in refused {
        assert!(criteria(query).is_err(), "{query}");
    }
    assert_eq!(
        search_one(resource("Patient"), "_format", "json"),
        Err(FhirRefusal::ParameterNotSupported("_format"))
    );
}
