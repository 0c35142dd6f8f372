//! A forbid that a missing `fhirUser` would switch off is no forbid (T-188).
//!
//! Owns: which conditions are of that kind, and whom they concern. Must never: depend on the shipped policies.
//! Look next: `expression::holds_by_fhir_user`, the rule.

use super::*;

/// A condition of a forbid, and whether it holds where the caller stands in a relation that the claim proves.
const CONDITIONS: [(&str, bool); 13] = [
    (r#"when { context.relations.contains("self") }"#, true),
    (r#"when { context.purpose == "X" && context.relations.containsAny(["care-team", "launch"]) }"#, true),
    (r#"when { context.purpose == "X" } when { context.relations.containsAll(["encounter"]) }"#, true),
    (r#"unless { !context.relations.contains("self") }"#, true),
    (r#"when { if context.purpose == "X" then context.relations.contains("self") else false }"#, true),
    (r#"when { if context.relations.contains("self") then false else true }"#, true),
    (r#"when { context.relations == ["self"] }"#, true),
    (r#"when { !context.relations.isEmpty() }"#, true),
    (r#"unless { context.relations.contains("self") }"#, false),
    (r#"when { !context.relations.containsAny(["self", "care-team"]) }"#, false),
    (r#"when { !(context.purpose == "X" || context.relations.contains("self")) }"#, false),
    (r#"when { context.relations.contains("launch") }"#, false),
    (r#"when { context.purpose == "HRESCH" }"#, false),
];

fn forbidding(whom: &str, condition: &str) -> Arc<PolicySet> {
    let tested = format!("forbid ({whom}, action in Action::\"view\", resource) {condition};");
    load(&format!("{HOSPITAL}\n@id(\"tested\")\n{tested}")).unwrap()
}

fn is_missing(set: &Arc<PolicySet>, caller: &CallerSpecimen) -> bool {
    let asked = interaction("Patient/p1");
    let outcome = admit(set, &Masks::new(), &caller.caller(), &asked, &circumstances(None));
    matches!(outcome, Err(Denial::FhirUserMissing))
}

#[test]
fn a_forbid_by_relation_is_not_decided_without_the_claim() {
    const NURSE_OF_CLINIC: CallerSpecimen = CallerSpecimen::with_roles(&["nurse", "clinic"]);
    for (condition, concerns) in CONDITIONS {
        let set = forbidding(r#"principal in Role::"nurse""#, condition);
        let named = |fhir_user| CallerSpecimen { fhir_user: Some(fhir_user), ..NURSE_OF_CLINIC };
        let program = CallerSpecimen { subject: "app-1", ..NURSE_OF_CLINIC };
        let cases = [
            ("no claim", NURSE_OF_CLINIC, concerns),
            ("nobody the EMR has relations of", named("Person/1"), concerns),
            ("not an id", named("Practitioner/a b"), concerns),
            ("a practitioner", named("Practitioner/n1"), false),
            ("a patient", named("Patient/p1"), false),
            ("a relative", named("RelatedPerson/r1"), false),
            ("another role", CallerSpecimen::with_roles(&["doctor"]), false),
            ("a program", program, false),
        ];
        for (what, caller, expected) in cases {
            assert_eq!(is_missing(&set, &caller), expected, "{what}: {condition}");
        }
        let everyone = forbidding("principal", condition);
        assert_eq!(is_missing(&everyone, &CallerSpecimen::with_roles(&["doctor"])), concerns, "{condition}");
        let lints = set.lints().iter().filter(|lint| lint.problem.message.contains("fhirUser")).count();
        assert_eq!(lints, usize::from(concerns), "{condition}");
    }
}

#[test]
fn a_permit_by_relation_needs_no_claim_to_stay_shut() {
    assert!(!is_missing(&hospital(), &CallerSpecimen::with_roles(&["patient", "nurse"])));
}
