//! Which policies may let an answer stand in the journal's reserve, and which answers then may.
//!
//! Owns: `@journal`. Must never: depend on the shipped policies.
//! Look next: `checks::journal`, the rule; `gateway::reserve`, which uses it.

use super::*;

/// A policy's annotation, effect, actions and condition, and what it is refused for, if it is.
const POLICIES: [(&str, &str, &str, &str, Option<&str>); 13] = [
    ("reserve", "permit", r#"action in Action::"view""#, "when { context.emergency }", None),
    ("reserve", "permit", r#"action in Action::"view""#, "when { context.emergency == true }", None),
    (
        "reserve",
        "permit",
        r#"action in Action::"view""#,
        r#"when { context.purpose == "X" && context.emergency }"#,
        None,
    ),
    (
        "reserve",
        "permit",
        r#"action in Action::"view""#,
        r#"when { context.purpose == "X" } when { context.emergency }"#,
        None,
    ),
    (
        "reserve",
        "permit",
        r#"action == Action::"operate""#,
        r#"when { context.operation == "$break-glass" }"#,
        None,
    ),
    ("reserve", "permit", r#"action in Action::"view""#, "", Some("speaks of others too")),
    (
        "reserve",
        "permit",
        r#"action in Action::"view""#,
        "when { !context.emergency }",
        Some("speaks of others too"),
    ),
    (
        "reserve",
        "permit",
        r#"action in Action::"view""#,
        "unless { context.emergency }",
        Some("speaks of others too"),
    ),
    (
        "reserve",
        "permit",
        r#"action in Action::"view""#,
        r#"when { context.emergency || context.purpose == "X" }"#,
        Some("speaks of others too"),
    ),
    (
        "reserve",
        "permit",
        r#"action == Action::"operate""#,
        r#"when { context.operation == "$everything" }"#,
        Some("speaks of others too"),
    ),
    (
        "reserve",
        "permit",
        r#"action == Action::"operate""#,
        r#"when { context.operation != "$break-glass" }"#,
        Some("speaks of others too"),
    ),
    (
        "reserve",
        "forbid",
        r#"action in Action::"view""#,
        "when { context.emergency }",
        Some("speaks of others too"),
    ),
    ("log", "permit", r#"action in Action::"view""#, "when { context.emergency }", Some("not `\"log\"`")),
];

#[test]
fn only_a_permit_for_emergencies_may_name_the_reserve() {
    for (value, effect, action, condition, refused) in POLICIES {
        let policy = format!(
            "@journal(\"{value}\")\n{effect} (principal in Role::\"nurse\", {action}, resource) {condition};"
        );
        let found = load(&format!("{HOSPITAL}\n@id(\"tested\")\n{policy}"));
        let said = found.err().map(|problems| problems[0].to_string());
        match refused {
            None => assert_eq!(said, None, "{policy}"),
            Some(text) => {
                assert!(said.as_ref().is_some_and(|said| said.contains(text)), "{policy}: {said:?}")
            }
        }
    }
}

const URGENT: &str = r#"
@id("urgent")
@journal("reserve")
permit (principal in Role::"nurse", action in Action::"view", resource is FHIR::Observation)
when { context.emergency };
@id("urgent-patients")
permit (principal in Role::"nurse", action in Action::"view", resource is FHIR::Patient)
when { context.emergency };
@id("less-in-an-emergency")
forbid (principal in Role::"nurse", action == Action::"disclose", resource in FHIR::Element::"Observation.code")
when { context.emergency && context.labels.contains("LESS") };
"#;

fn asked(target: &str, granted: &[(&str, &str)]) -> Permit {
    let set = load(&format!("{HOSPITAL}{URGENT}")).unwrap();
    let mut circumstances = circumstances(None);
    circumstances.emergencies =
        granted.iter().map(|(patient, grant)| ((*patient).to_owned(), (*grant).to_owned())).collect();
    admit(&set, &Masks::new(), &NURSE.caller(), &interaction(target), &circumstances).unwrap()
}

/// Under a grant, by a policy that says so, and with no more than the emergency lets out.
#[test]
fn a_record_may_stand_in_the_reserve_under_its_grant_alone() {
    let (p1, both) = (&[("p1", "g1")][..], &[("p1", "g1"), ("p2", "g2")][..]);
    let cases = [
        ("Observation", &["p1"][..], &[][..], p1, Some("g1")),
        ("Observation", &["p2"], &[], both, Some("g2")),
        ("Observation", &["p1"], &[], &[], None),
        ("Observation", &["p2"], &[], p1, None),
        ("Observation", &["p1", "p2"], &[], both, None),
        // The policy that holds for patients does not say so.
        ("Patient", &["p1"], &[], p1, None),
        // Without the emergency there is more: the emergency does not cover it.
        ("Observation", &["p1"], &["LESS"], p1, None),
    ];
    for (name, patients, labels, granted, expected) in cases {
        let id = if name == "Patient" { "p1" } else { "o1" };
        let permit = asked(&format!("{name}/{id}"), granted);
        let disclosure = permit.record(&facts(name, id, patients, labels), None).unwrap();
        assert_eq!(disclosure.reserve(), expected, "{name} {patients:?} {labels:?} {granted:?}");
        // The nurse sees all this anyway, so that nothing of it rests on the grant.
        assert_eq!(disclosure.grant(), None);
    }
}

#[test]
fn nothing_to_see_may_stand_there_too() {
    let (p1, both) = (&[("p1", "g1")][..], &[("p1", "g1"), ("p2", "g2")][..]);
    let cases = [
        ("Observation?patient=p1", p1, Some("g1")),
        ("Observation?patient=p1", both, Some("g1")),
        ("Observation?patient=p2", p1, None),
        ("Observation?code=x", p1, None),
        ("Observation?patient=p1", &[], None),
        ("Patient?_id=p1", p1, None),
    ];
    for (target, granted, expected) in cases {
        assert_eq!(asked(target, granted).reserve_of_nothing(), expected, "{target} {granted:?}");
    }
}
