//! Generated sets of policies: the same at every run, for measuring how cost grows with their number.
//!
//! Owns: the text of a set of so many policies, divided among so many roles. Shared with `loadtest`, which has a gate load them.
//! Must never: depend on chance, or hold a policy that the gate would not load.
//! Look next: `benches/policies.rs`; `loadtest/src/growth`.

use chartgate::domain::fhir::r4::{self, ResourceType};

/// What a role's policies are about, in this order.
const TYPES: [&str; 20] = [
    "Patient",
    "Observation",
    "Condition",
    "Encounter",
    "MedicationRequest",
    "AllergyIntolerance",
    "Procedure",
    "DiagnosticReport",
    "DocumentReference",
    "Immunization",
    "CarePlan",
    "CareTeam",
    "Goal",
    "ServiceRequest",
    "Specimen",
    "Appointment",
    "Coverage",
    "Claim",
    "Consent",
    "Medication",
];

/// Elements named by each policy about elements.
const ELEMENTS: usize = 14;

/// The policies of these numbers: for each role, in turn, one about records of a type and one about its elements; one of
/// fifty is a forbid for everybody.
pub(crate) fn policies(numbers: std::ops::Range<usize>, roles: usize) -> String {
    use std::fmt::Write as _;
    let mut all = String::new();
    for number in numbers {
        let (role, turn) = (number % roles, number / roles);
        let kind = TYPES.get(turn / 2 % TYPES.len()).copied().unwrap_or("Patient");
        let who =
            format!("@id(\"p{number}\") @why(\"a bench (none)\") permit(principal in Role::\"role{role}\"");
        let _infallible = if number % 50 == 49 {
            writeln!(
                all,
                "@id(\"p{number}\") forbid(principal, action == Action::\"disclose\", resource in FHIR::Element::\"{kind}.text\") \
                 when {{ context.labels.contains(\"V{}\") }};",
                number / 50
            )
        } else if turn % 2 == 0 {
            writeln!(
                all,
                "{who}, action in Action::\"view\", resource is FHIR::{kind}) \
                 when {{ context.purpose == \"TREAT\" && context.mfa.age < {} }};",
                3_600 + number
            )
        } else {
            writeln!(all, "{who}, action == Action::\"disclose\", resource in [{}]);", elements(kind, role))
        };
    }
    all
}

/// Some of a type's elements, others for each role, and what its records cannot go without.
fn elements(kind: &str, role: usize) -> String {
    let Some(resource) = ResourceType::from_name(kind) else { return String::new() };
    let known: Vec<&str> = r4::elements(r4::root(resource)).iter().map(|element| element.name).collect();
    let is_always =
        |name: &&&str| matches!(**name, "id" | "status" | "implicitRules" | "modifierExtension" | "active");
    let always = known.iter().filter(is_always);
    let some =
        known.iter().filter(|name| !is_always(name)).cycle().skip(role % known.len().max(1)).take(ELEMENTS);
    let mut names: Vec<String> =
        always.chain(some).map(|name| format!("FHIR::Element::\"{kind}.{name}\"")).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}
