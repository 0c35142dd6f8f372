//! For which questions emergency access to a patient counts.
//!
//! Owns: the rule that it is never for bulk (T-195): a question must be about one record, or name the patient. Which
//! records it then covers is decided record by record. Must never: take a client's word for an emergency (T-196); a
//! grant comes from the gateway, which gave it.
//! Look next: `situation`, what is covered; `permit`, where it counts only if without it there would be less.

use crate::domain::fhir::interaction::{HistoryScope, Interaction, Operation, Search, Target};

/// Whether a grant for this patient (a logical id) counts for this question.
pub(super) fn counts_for(question: &Interaction, patient: &str) -> bool {
    match question {
        Interaction::Read { .. } | Interaction::Vread { .. } | Interaction::Create { .. } => true,
        Interaction::Update { target, .. }
        | Interaction::Patch { target, .. }
        | Interaction::Delete { target, .. } => match target {
            Target::Id(_) => true,
            Target::Match(search) => names(search, patient),
        },
        Interaction::History(history) => matches!(history.scope(), HistoryScope::Instance(..)),
        Interaction::Search(search) | Interaction::Operation(Operation::LastN { search, .. }) => {
            names(search, patient)
        }
        Interaction::Operation(Operation::Everything { patient: asked, .. }) => asked.as_str() == patient,
        Interaction::Operation(_)
        | Interaction::SearchMany { .. }
        | Interaction::NextPage { .. }
        | Interaction::Bundle
        | Interaction::ExportStatus { .. }
        | Interaction::ExportCancel { .. }
        | Interaction::ExportFile { .. }
        | Interaction::Capabilities
        | Interaction::SmartConfiguration => false,
    }
}

/// Whether a search asks for records of this patient alone: in their compartment, or by a criterion of its own with
/// this one value.
fn names(search: &Search, patient: &str) -> bool {
    let within = search.compartment();
    if within.is_some_and(|within| within.owner().name() == "Patient" && within.id().as_str() == patient) {
        return true;
    }
    let own = search.resource_type().name() == "Patient";
    let full = format!("Patient/{patient}");
    search.criteria().iter().any(|criterion| {
        let value = criterion.value();
        match criterion.name() {
            "_id" => own && value == patient,
            "patient" | "subject" | "patient:Patient" | "subject:Patient" => {
                value == patient || value == full
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fhir::classify::asked;

    #[test]
    fn an_emergency_is_never_for_bulk() {
        let cases = [
            ("GET /Observation/o1", true),
            ("GET /Patient/p9", true),
            ("GET /Patient/p1/_history", true),
            ("GET /Patient/_history", false),
            ("GET /_history", false),
            ("GET /Observation?patient=p1", true),
            ("GET /Observation?patient=Patient/p1&code=x", true),
            ("GET /Observation?subject:Patient=p1", true),
            ("GET /Observation?patient=p1,p2", false),
            ("GET /Observation?patient=p2", false),
            ("GET /Observation?patient:missing=false", false),
            ("GET /Observation?subject.name=x", false),
            ("GET /Observation?code=x", false),
            ("GET /Observation?_id=p1", false),
            ("GET /Patient?_id=p1", true),
            ("GET /Patient?_id=p1,p2", false),
            ("GET /Patient?name=x", false),
            ("GET /Patient/p1/Observation", true),
            ("GET /Patient/p2/Observation", false),
            ("GET /Encounter/p1/Observation", false),
            ("GET /Patient/p1/$everything", true),
            ("GET /Patient/p2/$everything", false),
            ("GET /Observation/$lastn?patient=p1&category=x", true),
            ("GET /Observation/$lastn?patient=p2&category=x", false),
            ("GET /$export", false),
            ("GET /Patient/$export", false),
            ("GET /Group/g1/$export", false),
        ];
        for (line, expected) in cases {
            assert_eq!(counts_for(&asked(line).unwrap(), "p1"), expected, "{line}");
        }
    }
}
