//! Tests of scopes: a table of what each grants, what may not stand together, and the law that nothing widens.

use super::*;
use crate::domain::fhir::facts::Facts;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

fn read_with(scopes: &str, left: Option<&str>, patient: Option<&str>) -> Result<Narrowing, Denial> {
    let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
    Narrowing::read(&list(scopes), left.map(list).as_deref(), patient)
}

fn kind(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

fn letters(narrowing: &Narrowing, resource: &str) -> String {
    "cruds".chars().filter(|letter| narrowing.allows(kind(resource), *letter)).collect()
}

/// One row of `tests/data/scopes/scopes.toml`; its head explains the columns.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    scopes: String,
    left: Option<String>,
    patient: Option<String>,
    of: Option<String>,
    expect: String,
}

#[derive(Deserialize)]
struct Table {
    case: Vec<Row>,
}

#[test]
fn each_scope_of_the_table_grants_as_written() {
    let table: Table = toml::from_str(include_str!("../../../tests/data/scopes/scopes.toml")).unwrap();
    for row in table.case {
        let got = match read_with(&row.scopes, row.left.as_deref(), row.patient.as_deref()) {
            Ok(narrowing) => letters(&narrowing, row.of.as_deref().unwrap_or("Observation")),
            Err(Denial::ScopesMixed) => "mixed".to_owned(),
            Err(Denial::LaunchPatientMissing) => "no patient".to_owned(),
            Err(other) => panic!("{}: {other}", row.name),
        };
        assert_eq!(got, row.expect, "{}: {}", row.name, row.scopes);
    }
}

#[test]
fn patient_scopes_are_about_one_patient_and_others_about_none_in_particular() {
    assert_eq!(read_with("patient/*.rs", None, Some("p1")).unwrap().patient(), Some("p1"));
    assert_eq!(read_with("user/*.rs", None, Some("p1")).unwrap().patient(), None);
    assert_eq!(read_with("openid", None, Some("p1")).unwrap().patient(), None);
}

const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";

fn observation(category: &str) -> Facts {
    let record = serde_json::json!({
        "resourceType": "Observation", "id": "o1", "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": category}]}],
        "subject": {"reference": "Patient/p1"},
    });
    Facts { content: Some(Arc::new(record)), ..Facts::of_type(kind("Observation")) }
}

#[test]
fn a_granular_scope_holds_of_the_record_itself() {
    let scope = format!("user/Observation.rs?category={CATEGORY}|laboratory");
    let narrowing = read_with(&scope, None, None).unwrap();
    let open = |category: &str, letter| narrowing.holds_for(letter, &observation(category));
    assert!(narrowing.judges(kind("Observation"), 'r') && !narrowing.allows_every(kind("Observation"), 'r'));
    assert!(open("laboratory", 'r') && open("laboratory", 's'));
    assert!(!open("vital-signs", 'r') && !open("laboratory", 'u') && !open("laboratory", 'c'));
    let unknown = Facts { content: None, ..observation("laboratory") };
    assert!(!narrowing.holds_for('r', &unknown), "a record nobody looked at");
    let both = read_with(&format!("{scope} user/Observation.r"), None, None).unwrap();
    assert!(both.allows_every(kind("Observation"), 'r') && both.judges(kind("Observation"), 's'));
    assert!(both.holds_for('r', &observation("vital-signs")));
    assert!(!both.holds_for('s', &observation("vital-signs")));
}

/// The same condition on all types: each record by what it means for its type, and none of a type that lacks it.
#[test]
fn a_granular_scope_of_all_types_holds_of_each_record() {
    let of = |name: &str, record: serde_json::Value| Facts {
        content: Some(Arc::new(record)),
        ..Facts::of_type(kind(name))
    };
    let security = serde_json::json!({"security": [{"system": "http://x.test", "code": "N"}]});
    let marked =
        |name: &str| of(name, serde_json::json!({"resourceType": name, "id": "x", "meta": security}));
    let bare = |name: &str| of(name, serde_json::json!({"resourceType": name, "id": "x"}));
    let narrowing = read_with("user/*.rs?_security=http://x.test|N", None, None).unwrap();
    assert!(narrowing.is_granular());
    for name in ["Patient", "Observation", "Practitioner", "Binary"] {
        assert!(narrowing.judges(kind(name), 'r') && !narrowing.allows_every(kind(name), 'r'), "{name}");
        assert!(narrowing.holds_for('r', &marked(name)) && !narrowing.holds_for('r', &bare(name)), "{name}");
        assert!(!narrowing.holds_for('u', &marked(name)), "{name}");
    }
    let narrowing = read_with(&format!("user/*.r?category={CATEGORY}|laboratory"), None, None).unwrap();
    assert!(narrowing.holds_for('r', &observation("laboratory")));
    assert!(!narrowing.holds_for('r', &observation("vital-signs")));
    // A patient has no category, whatever is written in one.
    let patient = of("Patient", observation("laboratory").content.unwrap().as_ref().clone());
    assert!(!narrowing.allows(kind("Patient"), 'r') && !narrowing.holds_for('r', &patient));
}

#[test]
fn a_client_s_condition_counts_beside_the_token_s() {
    let left = format!("user/Observation.rs?category={CATEGORY}|laboratory patient/*.rs");
    let narrowing = read_with("user/*.cruds", Some(&left), None).unwrap();
    assert_eq!(letters(&narrowing, "Observation"), "rs");
    assert_eq!(letters(&narrowing, "Patient"), "");
    assert!(narrowing.holds_for('r', &observation("laboratory")));
    assert!(!narrowing.holds_for('r', &observation("vital-signs")));
}

#[test]
fn clinical_scopes_are_told_from_others() {
    for scope in [
        "openid",
        "launch/patient",
        "offline_access",
        "user/*.rs",
        "patient/Patient.read",
        "system/*.cruds",
        "user/*.rs?category=x",
    ] {
        assert!(is_scope(scope), "{scope}");
    }
    for scope in ["user/*.sr", "user/Nothing.rs", "patient/", "user/*.rs?nonsense=x", "user/Observation.rs?"]
    {
        assert!(!is_scope(scope), "{scope}");
    }
}

fn any_permission() -> impl Strategy<Value = String> {
    let subset = prop::collection::btree_set(0_usize..5, 1..=5);
    subset.prop_map(|places: BTreeSet<usize>| {
        places.into_iter().map(|place| char::from(b"cruds"[place])).collect()
    })
}

fn any_scope() -> impl Strategy<Value = String> {
    let resource = prop_oneof![Just("*"), Just("Observation"), Just("Patient"), Just("Condition")];
    let query = prop_oneof![
        3 => Just(String::new()),
        1 => Just(format!("?category={CATEGORY}|laboratory")),
        1 => Just("?status=final".to_owned()),
        1 => Just("?nonsense=x".to_owned()),
    ];
    (resource, any_permission(), query)
        .prop_map(|(kind, letters, query)| format!("user/{kind}.{letters}{query}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever a client's list is, beside it no more is open than without it.
    #[test]
    fn a_clients_list_never_widens(
        scopes in prop::collection::vec(any_scope(), 1..4),
        left in prop::collection::vec(any_scope(), 0..4),
        category in prop_oneof![Just("laboratory"), Just("vital-signs")],
    ) {
        let (scopes, left) = (scopes.join(" "), left.join(" "));
        let token = read_with(&scopes, None, None).unwrap();
        let both = read_with(&scopes, Some(&left), None).unwrap();
        let facts = observation(category);
        for letter in "cruds".chars() {
            for name in ["Observation", "Patient", "Condition"] {
                prop_assert!(token.allows(kind(name), letter) || !both.allows(kind(name), letter));
                prop_assert!(token.allows_every(kind(name), letter) || !both.allows_every(kind(name), letter));
            }
            prop_assert!(token.holds_for(letter, &facts) || !both.holds_for(letter, &facts));
            prop_assert!(token.allows(facts.resource_type, letter) || !token.holds_for(letter, &facts));
        }
    }

    /// One more condition never opens a record that was closed.
    #[test]
    fn a_condition_never_widens(letters in any_permission(), category in prop_oneof![Just("laboratory"), Just("survey")]) {
        let plain = read_with(&format!("user/Observation.{letters}"), None, None).unwrap();
        let scope = format!("user/Observation.{letters}?category={CATEGORY}|laboratory");
        let narrow = read_with(&scope, None, None).unwrap();
        let more = read_with(&format!("{scope}&status=preliminary"), None, None).unwrap();
        let facts = observation(category);
        for letter in "cruds".chars() {
            let [plain, narrow, more] = [&plain, &narrow, &more].map(|one| one.holds_for(letter, &facts));
            prop_assert!(plain || !narrow);
            prop_assert!(narrow || !more);
        }
    }

    /// A condition on all types opens nothing that the scope without it does not, beside whatever else is granted; and
    /// for each type what the same condition on that type alone opens.
    #[test]
    fn a_condition_on_all_types_never_widens(
        others in prop::collection::vec(any_scope(), 0..3),
        letters in any_permission(),
        query in prop_oneof![
            Just(format!("category={CATEGORY}|laboratory")),
            Just("status=final".to_owned()),
            Just("_security=N".to_owned()),
            Just("_id=o1".to_owned()),
            Just("birthdate=2000".to_owned()),
            Just("code:not=x".to_owned()),
            Just("nonsense=x".to_owned()),
        ],
        category in prop_oneof![Just("laboratory"), Just("vital-signs")],
    ) {
        let others = others.join(" ");
        let read = |scope: String| read_with(&format!("{scope} {others}"), None, None).unwrap();
        let (plain, all) = (read(format!("user/*.{letters}")), read(format!("user/*.{letters}?{query}")));
        let facts = observation(category);
        for letter in "cruds".chars() {
            for name in ["Observation", "Patient", "Condition", "Practitioner"] {
                let one = read(format!("user/{name}.{letters}?{query}"));
                prop_assert!(plain.allows(kind(name), letter) || !all.allows(kind(name), letter));
                prop_assert!(plain.allows_every(kind(name), letter) || !all.allows_every(kind(name), letter));
                prop_assert_eq!(one.allows(kind(name), letter), all.allows(kind(name), letter));
                prop_assert_eq!(one.allows_every(kind(name), letter), all.allows_every(kind(name), letter));
            }
            let one = read(format!("user/Observation.{letters}?{query}"));
            prop_assert!(plain.holds_for(letter, &facts) || !all.holds_for(letter, &facts));
            prop_assert_eq!(one.holds_for(letter, &facts), all.holds_for(letter, &facts));
        }
    }

    #[test]
    fn a_permission_is_its_letters_in_order_and_no_other(text in "[cruds]{0,6}") {
        let sorted: BTreeSet<usize> = text.chars().map(|letter| "cruds".find(letter).unwrap()).collect();
        let canonical: String = sorted.into_iter().map(|place| char::from(b"cruds"[place])).collect();
        let narrowing = read_with(&format!("user/Observation.{text}"), None, None).unwrap();
        let expected = if text == canonical { text.clone() } else { String::new() };
        prop_assert_eq!(letters(&narrowing, "Observation"), expected);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[ -~]{0,60}", resource in "[A-Za-z*]{0,12}", tail in "[ -~]{0,40}") {
        let _ = read_with(&text, Some(&tail), Some("p1"));
        let _ = read_with(&format!("user/{resource}.{tail}"), None, None);
        let _ = is_scope(&format!("patient/Observation.rs?{tail}"));
    }
}

#[test]
fn content_that_is_no_record_is_closed() {
    let narrowing = read_with("user/Observation.rs?status=final", None, None).unwrap();
    for content in [
        Value::Null,
        serde_json::json!([]),
        serde_json::json!({"resourceType": "Patient", "status": "final"}),
    ] {
        let facts = Facts { content: Some(Arc::new(content)), ..Facts::of_type(kind("Observation")) };
        assert!(!narrowing.holds_for('r', &facts));
    }
}
