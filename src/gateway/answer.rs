//! One interaction, answered: the part of the journey that is the same for a request and for an entry of a batch.
//!
//! Owns: which steps an interaction takes. Must never: answer without a permit, or send.
//! Look next: `rows` for lists, `write` for changes, `bundle` for batches and transactions.

use super::draft::Draft;
use super::outlet::Outlet;
use super::page::{self, Cursor};
use super::refusal::Refusal;
use super::release::{self, Release};
use super::reply::{Answer, entity_headers};
use super::rows::{self, Leg, Listing};
use super::visit::Visit;
use super::{binary, bundle, count, export, operation, standing, write};
use crate::domain::fhir::classify::{Asked, IfNoneMatch, Wishes};
use crate::domain::fhir::interaction::{Interaction, Operation};
use crate::domain::fhir::search::Search;
use crate::domain::fhir::shape::Shape;
use crate::domain::narrow;
use crate::limits;
use bytes::Bytes;
use http::StatusCode;

/// Answers one question in the name of a caller; what it lets out or changes is noted in `draft`. Where there is an
/// `outlet`, a long list begins to leave through it.
///
/// # Errors
/// Every early end is a [`Refusal`]; nothing but a list's units is sent here.
pub(super) async fn question(
    visit: &Visit<'_>,
    asked: &Asked,
    body: &Bytes,
    outlet: Option<&mut Outlet>,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    // A read is kept small; whatever else may be asked waits elsewhere than in the journey's own room.
    match &asked.interaction {
        Interaction::Read { resource, .. } | Interaction::Vread { resource, .. }
            if resource.name() == "Binary" =>
        {
            Box::pin(binary::answer(visit, asked, draft)).await
        }
        Interaction::Read { shape, .. } | Interaction::Vread { shape, .. } => {
            record(visit, asked, shape, draft).await
        }
        Interaction::Search(_) | Interaction::SearchMany { .. } | Interaction::History(_) => {
            Box::pin(list(visit, &asked.interaction, Cursor::default(), outlet, draft)).await
        }
        Interaction::NextPage { resource, token } => {
            let (question, cursor) = page::open(visit, *resource, token)?;
            Box::pin(list(visit, &question, cursor, outlet, draft)).await
        }
        Interaction::Create { .. }
        | Interaction::Update { .. }
        | Interaction::Patch { .. }
        | Interaction::Delete { .. } => Box::pin(write::answer(visit, asked, body, draft))
            .await
            .map_err(|refusal| visit.reconsidered_change(&asked.interaction, refusal)),
        Interaction::Bundle => Box::pin(bundle::answer(visit, &asked.wishes, body, draft)).await,
        Interaction::Operation(Operation::Export { .. }) => {
            Box::pin(export::kick_off(visit, asked, draft)).await
        }
        Interaction::ExportStatus { token } => Box::pin(export::status(visit, token, draft)).await,
        Interaction::ExportCancel { token } => Box::pin(export::cancel(visit, token, draft)).await,
        Interaction::ExportFile { token } => Box::pin(export::file(visit, token, &asked.wishes, draft)).await,
        Interaction::Operation(asked_for) => {
            Box::pin(operation::answer(visit, &asked.interaction, asked_for, body, draft)).await
        }
        // Alone they were answered at the door; a batch's entry comes here.
        Interaction::Capabilities | Interaction::SmartConfiguration => {
            super::public_document(visit.gate, asked, draft).await?.ok_or(Refusal::Internal)
        }
    }
}

/// A read or a vread.
async fn record(
    visit: &Visit<'_>,
    asked: &Asked,
    shape: &Shape,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let permit = visit.admit(&asked.interaction, draft)?;
    visit.check_named(&asked.interaction, &permit)?;
    if let Interaction::Vread { resource, id, .. } = &asked.interaction
        && permit.depends_on_records()
        && !Box::pin(standing::stands(visit, *resource, id.as_str())).await?
    {
        return Err(Refusal::NotFound);
    }
    let plan = narrow::plan(&asked.interaction, &permit).map_err(|_| Refusal::Internal)?;
    let answered = visit.ask(&plan).await?;
    let mut release = Release::default();
    let outcome = release::single(visit, &answered, plan.expected(), &permit, shape, &mut release).await;
    visit.gate.telemetry.filtered(answered.len() as u64, release.body.len() as u64);
    let unchanged = outcome.is_ok() && is_unchanged(&asked.wishes, &release);
    draft.releases(&mut release, outcome.is_ok() && !unchanged);
    outcome?;
    let headers = entity_headers(release.version.as_deref(), release.last_updated.as_deref());
    let (status, body) =
        if unchanged { (StatusCode::NOT_MODIFIED, Vec::new()) } else { (StatusCode::OK, release.body) };
    Ok(Answer::fhir(status, body).with(headers))
}

/// Conditional read, judged here and on what the caller sees (T-153; R4 http.html, conditional read).
pub(super) fn is_unchanged(wishes: &Wishes, release: &Release) -> bool {
    match &wishes.if_none_match {
        IfNoneMatch::Any => true,
        IfNoneMatch::Versions(known) => {
            release.version.as_ref().is_some_and(|version| known.iter().any(|k| k.as_str() == version))
        }
        IfNoneMatch::None => {
            let since = wishes.if_modified_since.as_deref().and_then(super::reply::read_http_date);
            let updated = release.last_updated.as_deref().and_then(super::reply::read_instant);
            since.zip(updated).is_some_and(|(since, updated)| updated <= since)
        }
    }
}

/// A searchset or a history.
pub(super) async fn list(
    visit: &Visit<'_>,
    question: &Interaction,
    cursor: Cursor,
    mut outlet: Option<&mut Outlet>,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let legs = legs(visit, question, draft).await?;
    let (shape, count) = match question {
        Interaction::Search(search) => (search.shape(), search.count()),
        Interaction::SearchMany { legs, .. } => {
            (legs.first().map_or(&Shape::Whole, Search::shape), legs.first().and_then(Search::count))
        }
        Interaction::History(history) => (history.shape(), history.count()),
        Interaction::Operation(Operation::LastN { search, .. }) => (search.shape(), None),
        Interaction::Operation(Operation::Everything { count, .. }) => {
            // What belongs to nobody is shown beside what refers to it, so a page is as long as may be.
            (&Shape::Whole, Some(count.unwrap_or(limits::SEARCH_COUNT_MAX)))
        }
        _ => return Err(Refusal::Internal),
    };
    let count = count.and_then(|count| usize::try_from(count).ok());
    let listing = Listing { question, legs, cursor, shape, count };
    let mut release = Release::default();
    let outcome = match shape {
        Shape::Count => count::count(visit, &listing, &mut release).await,
        _ => rows::page(visit, &listing, outlet.as_deref_mut(), draft, &mut release).await,
    };
    if let Some(outlet) = outlet.filter(|outlet| outlet.has_begun()) {
        outcome?;
        outlet.unit(draft, release).await?;
        return Ok(Answer::empty(StatusCode::OK));
    }
    visit.gate.telemetry.filtered(0, release.body.len() as u64);
    if let (true, [only]) = (release.records.is_empty(), listing.legs.as_slice())
        && *shape != Shape::Count
    {
        // That there is nothing to see is an answer too, and in an emergency a good one.
        release.reserve.extend(only.permit.reserve_of_nothing().map(str::to_owned));
    }
    draft.releases(&mut release, outcome.is_ok());
    outcome?;
    Ok(Answer::fhir(StatusCode::OK, release.body))
}

/// The searches behind a question, each with its permit. A type that nobody named and the caller may not ask about is
/// left out; one that was named is refused (T-012).
async fn legs(visit: &Visit<'_>, question: &Interaction, draft: &mut Draft) -> Result<Vec<Leg>, Refusal> {
    match question {
        Interaction::SearchMany { legs, named } => {
            let (mut open, mut refused) = (Vec::new(), None);
            for (place, search) in legs.iter().enumerate() {
                let question = Interaction::Search(search.clone());
                match visit.admit(&question, draft) {
                    Ok(permit) => open.push(Leg { place, question, permit }),
                    Err(refusal) if *named || refusal.is_alarm() => return Err(refusal),
                    Err(refusal) => refused = Some(refusal),
                }
            }
            match refused {
                Some(refusal) if open.is_empty() => Err(refusal),
                Some(_) | None => Ok(open),
            }
        }
        _ => {
            let permit = visit.admit(question, draft)?;
            visit.check_named(question, &permit)?;
            operation::check_basis(visit, &permit).await?;
            Ok(vec![Leg { place: 0, question: question.clone(), permit }])
        }
    }
}
