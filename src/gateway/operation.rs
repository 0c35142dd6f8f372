//! Operations: each one that is served has its own treatment of what goes in and what comes out (T-090).
//!
//! Owns: how `$everything`, `$lastn`, `$validate`, `$expand` and `$lookup` are answered, and whose records a patient's
//! whole record may hold. Must never: answer an operation that is not listed here (KF-27), or let a record out that a
//! read of it would not (KF-28).
//! Look next: `rows`, which judges each row; `newest`, `$lastn` for callers who do not see every row;
//! `domain::access`, what each operation asks of policy.

use super::answer;
use super::draft::Draft;
use super::emergency;
use super::links;
use super::newest;
use super::page::Cursor;
use super::refusal::Refusal;
use super::release::{self, Judged, Release, facts_for};
use super::reply::Answer;
use super::rows::Leg;
use super::visit::Visit;
use crate::domain::access::Permit;
use crate::domain::change::{self, Tree};
use crate::domain::fhir::classify::FhirRefusal;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::findings;
use crate::domain::fhir::interaction::{Interaction, Operation};
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::shape::Shape;
use crate::domain::filter::{self, Document};
use crate::domain::narrow;
use crate::limits;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

/// Answers an operation; an export has its own ways.
pub(super) async fn answer(
    visit: &Visit<'_>,
    question: &Interaction,
    operation: &Operation,
    body: &Bytes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    match operation {
        Operation::Everything { .. } => answer::list(visit, question, Cursor::default(), None, draft).await,
        Operation::LastN { search, max } => {
            let permit = visit.admit(question, draft)?;
            if permit.depends_on_records() {
                newest::answer(visit, question, search, *max, permit, draft).await
            } else {
                answer::list(visit, question, Cursor::default(), None, draft).await
            }
        }
        Operation::Validate { resource } => validate(visit, question, *resource, body, draft).await,
        Operation::Expand { .. } => output(visit, question, "ValueSet", draft).await,
        Operation::Lookup { .. } => output(visit, question, "Parameters", draft).await,
        Operation::BreakGlass => emergency::answer(visit, question, body, draft).await,
        Operation::Export { .. } => Err(Refusal::Internal),
    }
}

/// The record that an answer rests on must be one that the caller may read and have operated on; otherwise the answer
/// is that of a missing one.
pub(super) async fn check_basis(visit: &Visit<'_>, permit: &Permit) -> Result<(), Refusal> {
    let Some((resource, id)) = permit.basis() else { return Ok(()) };
    let current = visit.fetch(permit, resource, id).await?.ok_or(Refusal::NotFound)?;
    let bases = visit.bases();
    let document = filter::parse(&current, &bases).map_err(|_| Refusal::AnswerUnsound)?;
    let facts = facts_for(permit, &document, 0).ok_or(Refusal::AnswerUnsound)?;
    let knowing = visit.relations(permit, [&facts]).await.map(|known| permit.knowing(known));
    knowing
        .as_ref()
        .unwrap_or(permit)
        .rests_on(&facts)
        .map_err(|denial| if denial.is_alarm() { Refusal::PolicyFault } else { Refusal::NotFound })
}

/// The rows of a patient's whole record.
pub(super) fn is_everything(leg: &Leg) -> bool {
    patient(leg).is_some()
}

/// In a patient's whole record: whether a row is in the patient's own compartment. `None` elsewhere.
pub(super) fn is_of_patient(leg: &Leg, facts: Option<&Facts>) -> Option<bool> {
    let patient = patient(leg)?;
    Some(facts.is_some_and(|facts| facts.patients.contains(patient)))
}

pub(super) fn patient(leg: &Leg) -> Option<&str> {
    match &leg.question {
        Interaction::Operation(Operation::Everything { patient, .. }) => Some(patient.as_str()),
        _ => None,
    }
}

/// The records outside the patient's compartment that the rows of their whole record refer to, each read in the caller's
/// name as if they had asked for it; those that may not be read are left out.
pub(super) async fn bring(
    visit: &Visit<'_>,
    leg: &Leg,
    shape: &Shape,
    references: Vec<String>,
    release: &mut Release,
) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
    let types = leg.permit.types();
    let mut brought = Vec::new();
    for reference in references {
        let kind = reference.split('/').next().and_then(ResourceType::from_name);
        let Some(kind) = kind.filter(|kind| types.contains(kind) && kind.name() != "Patient") else {
            continue;
        };
        if brought.len() >= limits::EVERYTHING_BROUGHT_MAX {
            return Err(Refusal::TooManyToCount);
        }
        visit.peer.progressed();
        let Ok(question @ Interaction::Read { .. }) = visit.asked_by(&reference) else { continue };
        let Ok(permit) = visit.admits(&question) else { continue };
        let Some(id) = reference.split('/').nth(1) else { continue };
        let Some(current) = visit.fetch(&permit, kind, id).await? else { continue };
        let mut scratch = Release::default();
        let judged = Judged::judge(visit, &current, &permit, shape, &mut scratch).await?;
        let is_shown = judged.emit(0, &judged.verdicts(), &mut scratch);
        if is_shown && links::is_of_one(leg, &scratch.body, judged.public()) {
            brought.push((reference, release.absorb(scratch)));
        }
    }
    Ok(brought)
}

/// What the EMR makes for the answer: judged and filtered as a record of its type.
async fn output(
    visit: &Visit<'_>,
    question: &Interaction,
    resource: &str,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let resource = ResourceType::from_name(resource).ok_or(Refusal::Internal)?;
    let permit = visit.admit(question, draft)?;
    let plan = narrow::plan(question, &permit).map_err(|_| Refusal::Internal)?;
    let answered = visit.ask(&plan).await?;
    let mut release = Release::default();
    let outcome = release::output(visit, &answered, resource, &permit, &mut release).await;
    visit.gate.telemetry.filtered(answered.len() as u64, release.body.len() as u64);
    draft.releases(&mut release, outcome.is_ok());
    outcome?;
    Ok(Answer::fhir(StatusCode::OK, release.body))
}

/// Whether the body could be created, in the EMR's opinion and our words.
async fn validate(
    visit: &Visit<'_>,
    question: &Interaction,
    resource: ResourceType,
    body: &Bytes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let permit = visit.admit(question, draft)?;
    let bases = visit.bases();
    let document = filter::parse_sent(body, &bases).map_err(Refusal::BodyUnsound)?;
    let index = to_validate(&document, resource)?;
    let mut tree = Tree::parse(document.raw(index)).map_err(Refusal::Change)?;
    change::localise(&mut tree, visit.gate.public.as_str());
    let plan = narrow::plan_validate(resource, Bytes::from(tree.print()), &permit);
    let found = visit.findings(&plan.map_err(|_| Refusal::Internal)?).await?;
    // Strict first: what the filter would not read is not interpreted either.
    let sound = filter::parse(&found, &bases).is_ok();
    let said = findings::restate(resource, &found).filter(|_| sound).ok_or(Refusal::AnswerUnsound)?;
    Ok(Answer::fhir(StatusCode::OK, said))
}

/// The record in the body: the body itself, or the part `resource` of `Parameters` (T-092).
fn to_validate(document: &Document<'_>, resource: ResourceType) -> Result<usize, Refusal> {
    let records = document.records();
    let root = records.first().ok_or(Refusal::OtherType)?;
    if root.facts.resource_type == resource {
        return Ok(0);
    }
    if root.facts.resource_type.name() != "Parameters" || document.bundle().is_some() {
        return Err(Refusal::OtherType);
    }
    check_parameters(document.raw(0))?;
    let inside = |index: &usize| {
        records.get(*index).is_some_and(|record| record.container == Some(0) && !record.contained)
    };
    let mut found = (1..records.len()).filter(inside);
    match (found.next(), found.next()) {
        (Some(index), None) if records.get(index).is_some_and(|r| r.facts.resource_type == resource) => {
            Ok(index)
        }
        _ => Err(Refusal::OtherType),
    }
}

/// One `resource`, and at most a `mode` that says `create`: the same that the URL may say.
fn check_parameters(body: &[u8]) -> Result<(), Refusal> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::OtherType)?;
    for parameter in body.get("parameter").and_then(Value::as_array).into_iter().flatten() {
        let refused = match parameter["name"].as_str() {
            Some("resource") => continue,
            Some("mode") if parameter["valueCode"] == "create" => continue,
            Some("mode") => "mode",
            Some("profile") => "profile",
            Some(_) | None => return Err(Refusal::Fhir(FhirRefusal::UnknownParameter)),
        };
        return Err(Refusal::Fhir(FhirRefusal::ParameterNotSupported(refused)));
    }
    Ok(())
}
