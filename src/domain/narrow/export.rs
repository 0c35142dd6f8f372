//! The upstream requests of a bulk export: kick-off, status, end, files.
//!
//! Owns: which types an export asks for, and which places an EMR may name for its status and files.
//! Must never: leave the choice of types to the EMR, or take a record's own address for an export's.
//! Look next: `gateway::export`, which follows an export; `gateway::stream`, which reads its files.

use http::Method;

use super::{Expected, Plan, PlanError, fits};
use crate::domain::access::Permit;
use crate::domain::fhir::interaction::{Interaction, Operation};
use crate::domain::fhir::r4::ResourceType;
use crate::limits::EXPORT_PLACE_BYTES_MAX;

/// Bulk Data Access IG 1.0.1, kick-off request: both headers are asked for.
const ASYNCHRONOUS: &str = "respond-async";
const NDJSON: &str = "_outputFormat=application%2Ffhir%2Bndjson";

/// What is asked at a place that an export has at the EMR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportStep {
    /// How far it is, or its manifest.
    Status,
    /// That it end.
    Cancel,
    /// A file of its output.
    File,
}

/// Builds the kick-off of a permitted export: for the types that the permit opens and no others, whatever the client
/// left to be chosen.
///
/// # Errors
/// [`PlanError::NoUpstream`] for anything but an export, or if no type is open; [`PlanError::OtherPermit`].
pub fn plan_export(question: &Interaction, permit: &Permit) -> Result<Plan, PlanError> {
    fits(question, permit)?;
    let Interaction::Operation(Operation::Export { level, since, type_filters, .. }) = question else {
        return Err(PlanError::NoUpstream);
    };
    let types: Vec<ResourceType> = permit.types().into_iter().collect();
    if types.is_empty() {
        return Err(PlanError::NoUpstream);
    }
    let (level, since, type_filters) = (level.clone(), since.clone(), type_filters.clone());
    let asked = Interaction::Operation(Operation::Export { level, types, since, type_filters });
    let mut plan = Plan::get(format!("{}&{NDJSON}", asked.address()), Expected::Export);
    plan.prefer = Some(ASYNCHRONOUS);
    Ok(plan)
}

/// Builds a request to a place of a permitted export. `place` is what the EMR named, as path and query below its
/// base, without dot segments.
///
/// # Errors
/// [`PlanError::OtherPlace`] for a place that no export has; [`PlanError::OtherPermit`].
pub fn plan_export_step(
    question: &Interaction,
    permit: &Permit,
    place: &str,
    step: ExportStep,
) -> Result<Plan, PlanError> {
    fits(question, permit)?;
    if !is_place(place, step) {
        return Err(PlanError::OtherPlace);
    }
    let expected = if step == ExportStep::File { Expected::ExportFile } else { Expected::Export };
    let mut plan = Plan::get(place.to_owned(), expected);
    if step == ExportStep::Cancel {
        plan.method = Method::DELETE;
    }
    Ok(plan)
}

/// Servers keep files as `Binary` or elsewhere. A status below a type would be a record, which we must not be made
/// to delete: an operation on one (`$…`) is none.
fn is_place(place: &str, step: ExportStep) -> bool {
    let sound =
        place.len() <= EXPORT_PLACE_BYTES_MAX && place.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    let path = place.split('?').next().unwrap_or_default();
    let mut segments = path.split('/');
    let first = segments.next().unwrap_or_default();
    let record =
        ResourceType::from_name(first).is_some() && !segments.any(|segment| segment.starts_with('$'));
    sound && !path.is_empty() && (step == ExportStep::File || !record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_has_places_of_its_own() {
        for (place, status, file) in [
            ("export-jobs/1", true, true),
            ("$export-poll-status?_jobId=a", true, true),
            ("Patient/$export-status/1", true, true),
            ("Binary/b1", false, true),
            ("Patient/p1", false, true),
            ("Patient", false, true),
            ("Patient?name=x", false, true),
            ("", false, false),
            ("?job=1", false, false),
            ("jobs/1#x", false, false),
            ("jobs/1 2", false, false),
            ("jobs/\u{e9}", false, false),
        ] {
            assert_eq!(is_place(place, ExportStep::Status), status, "{place}");
            assert_eq!(is_place(place, ExportStep::Cancel), status, "{place}");
            assert_eq!(is_place(place, ExportStep::File), file, "{place}");
        }
        assert!(!is_place(&"j".repeat(EXPORT_PLACE_BYTES_MAX + 1), ExportStep::Status));
    }
}
