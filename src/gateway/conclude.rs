//! What is heard of a change: the EMR's answer to it, read, judged and put into our own words.
//!
//! Owns: status, `Location` and representation of a changed record. A representation is a read: it is filtered like one
//! (T-076). Must never: pass on the EMR's text, or call a change done or not done when nobody knows.
//! Look next: `write`, what came before.

use super::draft::Draft;
use super::refusal::Refusal;
use super::release::{self, Release};
use super::reply::{Answer, entity_headers};
use super::visit::Visit;
use super::write::{self, Prepared};
use crate::domain::access::Permit;
use crate::domain::fhir::classify::{Return, Wishes};
use crate::domain::fhir::interaction::is_id;
use crate::domain::fhir::outcome::done;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::shape::Shape;
use crate::domain::filter;
use crate::domain::narrow::{Change, Expected};
use crate::edge::upstream;
use crate::limits;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

/// What the EMR said of one change.
pub(super) struct Told {
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
    pub(super) body: Bytes,
}

/// The answer to a change that was sent alone.
pub(super) async fn single(
    visit: &Visit<'_>,
    prepared: &Prepared,
    answer: upstream::Answer,
    wishes: &Wishes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    check_status(answer.status, draft).map_err(|refusal| match refusal {
        // The condition was said to the EMR as well, and held when we looked.
        Refusal::PreconditionFailed if prepared.change.unless().is_some() => Refusal::MultipleMatches,
        other => other,
    })?;
    let (status, location) = (answer.status, answer.location().map(str::to_owned));
    // From here on the change is made: what goes wrong now leaves its outcome unknown to the client.
    let body = answer.body.read(limits::UPSTREAM_ANSWER_BYTES_MAX).await.map_err(|error| {
        draft.unknown = true;
        Refusal::Upstream(error)
    })?;
    told(visit, prepared, Told { status, location, body }, wishes, draft).await
}

/// The answer to one change, alone or in a transaction.
pub(super) async fn told(
    visit: &Visit<'_>,
    prepared: &Prepared,
    told: Told,
    wishes: &Wishes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let resource = match &prepared.change {
        Change::Delete { .. } => return Ok(Answer::empty(StatusCode::NO_CONTENT)),
        Change::Create { resource, .. } | Change::Update { resource, .. } => *resource,
    };
    let place = place(visit, prepared, resource, &told).ok_or_else(|| {
        draft.unknown = true;
        Refusal::AnswerUnsound
    })?;
    // Somebody else's record came in between, by another way than through us: the condition found it.
    let was_there = prepared.change.unless().is_some() && told.status == StatusCode::OK;
    if was_there {
        draft.decision.written.clear();
    }
    if let Some(written) = draft.decision.written.first_mut() {
        written.reference = format!("{}/{}", resource.name(), place.id);
        written.version.clone_from(&place.version);
    }
    let status = match told.status {
        StatusCode::CREATED => StatusCode::CREATED,
        _ if was_there => StatusCode::OK,
        _ if matches!(prepared.change, Change::Create { .. }) => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let shown = shown(visit, &prepared.permit, resource, &place, told.body).await?;
    Ok(heard(visit, status, resource, &place, shown, wishes, draft))
}

/// A conditional create that found its record.
pub(super) async fn found(
    visit: &Visit<'_>,
    permit: &Permit,
    resource: ResourceType,
    id: &str,
    wishes: &Wishes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let place = Place { id: id.to_owned(), version: None };
    let shown = shown(visit, permit, resource, &place, Bytes::new()).await?;
    Ok(heard(visit, StatusCode::OK, resource, &place, shown, wishes, draft))
}

/// Statuses that are not success. A fault of the EMR's own leaves it unknown whether the change was made.
pub(super) fn check_status(status: StatusCode, draft: &mut Draft) -> Result<(), Refusal> {
    match status {
        taken if write::is_taken(taken) => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Refusal::NotFound),
        StatusCode::CONFLICT => Err(Refusal::Conflict),
        StatusCode::PRECONDITION_FAILED => Err(Refusal::PreconditionFailed),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refusal::AnswerUnsound),
        refused if refused.is_client_error() => Err(Refusal::WriteRefusedUpstream),
        _ => {
            draft.unknown = true;
            Err(Refusal::AnswerUnsound)
        }
    }
}

/// Where a changed record lives.
struct Place {
    id: String,
    version: Option<String>,
}

/// By the record in the answer, else by `Location`, else by what was sent.
fn place(visit: &Visit<'_>, prepared: &Prepared, resource: ResourceType, told: &Told) -> Option<Place> {
    let sent = match &prepared.change {
        Change::Update { id, .. } | Change::Delete { id, .. } => Some(id.clone()),
        Change::Create { id, .. } => id.clone(),
    };
    let bases = visit.bases();
    let document = filter::parse(&told.body, &bases).ok();
    let facts = document.as_ref().and_then(|document| document.records().first()).map(|record| &record.facts);
    let named = facts
        .filter(|facts| facts.resource_type == resource)
        .and_then(|facts| Some(Place { id: facts.id.clone()?, version: facts.version.clone() }));
    let located = || located(resource, told.location.as_deref()?);
    let place = named.or_else(located).or_else(|| Some(Place { id: sent.clone()?, version: None }))?;
    // An answer about another record than the one that was sent is no answer (T-129).
    let same = sent.is_none_or(|sent| sent == place.id);
    same.then_some(place)
}

/// `…/Type/id` or `…/Type/id/_history/version`, under whatever base.
fn located(resource: ResourceType, location: &str) -> Option<Place> {
    let mut steps: Vec<&str> = location.split('/').collect();
    let version = match steps.as_slice() {
        [.., "_history", version] => {
            let version = (*version).to_owned();
            steps.truncate(steps.len().saturating_sub(2));
            Some(version)
        }
        _ => None,
    };
    match steps.as_slice() {
        [.., name, id] if *name == resource.name() && is_id(id) => {
            Some(Place { id: (*id).to_owned(), version })
        }
        _ => None,
    }
}

/// The changed record as the caller may see it; nothing when they may not.
async fn shown(
    visit: &Visit<'_>,
    permit: &Permit,
    resource: ResourceType,
    place: &Place,
    body: Bytes,
) -> Result<Release, Refusal> {
    let expected = Expected::Record { resource, id: place.id.clone(), version: place.version.clone() };
    let told = if body.is_empty() { None } else { Some(body) };
    let mut release = Release::default();
    if let Some(body) = &told
        && release::single(body, visit.bases(), &expected, permit, &Shape::Whole, &mut release).is_ok()
    {
        return Ok(release);
    }
    let mut release = Release::default();
    // The change is made whatever becomes of its representation.
    if let Ok(Some(current)) = visit.fetch(permit, resource, &place.id).await {
        let outcome =
            release::single(&current, visit.bases(), &expected, permit, &Shape::Whole, &mut release);
        if outcome.is_err() {
            release.body.clear();
            release.records.clear();
        }
    }
    Ok(release)
}

/// Status, validators and body, as the client wished (R4 http.html, Prefer).
fn heard(
    visit: &Visit<'_>,
    status: StatusCode,
    resource: ResourceType,
    place: &Place,
    mut release: Release,
    wishes: &Wishes,
    draft: &mut Draft,
) -> Answer {
    let mut url = visit.gate.public.record_url(resource, &place.id);
    if let Some(version) = &release.version {
        url.push_str("/_history/");
        url.push_str(version);
    }
    let headers = entity_headers(release.version.as_deref(), release.last_updated.as_deref());
    let shows = write::wants_record(wishes) && !release.body.is_empty();
    draft.releases(&mut release, shows);
    let mut answer = match wishes.prefer {
        _ if shows => Answer::fhir(status, release.body),
        Return::OperationOutcome => Answer::fhir(status, done(&draft.decision.request_id)),
        Return::Unstated | Return::Representation | Return::Minimal => Answer::empty(status),
    }
    .with(headers);
    if let Ok(value) = HeaderValue::try_from(url) {
        answer.headers.insert(header::LOCATION, value);
    }
    answer
}
