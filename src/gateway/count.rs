//! Looking at rows without showing them: how many there are, and which ones.
//!
//! Owns: counts and conditions, by visible rows only (T-016, T-066 to T-069). Must never: let a row out, or count one
//! that is withheld.
//! Look next: `rows`, which shows them.

use super::links::in_compartment;
use super::page;
use super::refusal::Refusal;
use super::release::{Judged, Release};
use super::rows::{Leg, Listing, Mode};
use super::visit::Visit;
use crate::domain::access::Permit;
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::search::Search;
use crate::domain::fhir::shape::Shape;
use crate::domain::narrow::{self, Plan};
use crate::limits;
use serde_json::json;
use std::collections::BTreeSet;

/// How many rows are visible: by the EMR's own count where none can be withheld, else by looking at each.
///
/// # Errors
/// [`Refusal::TooManyToCount`] when there are more pages than one answer may ask for.
pub(super) async fn count(
    visit: &Visit<'_>,
    listing: &Listing<'_>,
    release: &mut Release,
) -> Result<(), Refusal> {
    let rows = match listing.legs.as_slice() {
        [Leg { question: Interaction::Search(search), permit, .. }] if !listing.refills() => {
            let plan = narrow::plan_count(search, permit).map_err(|_| Refusal::Internal)?;
            let body = visit.ask(&plan).await?;
            let judged = Judged::judge(visit, &body, permit, &Shape::Whole, release).await?;
            judged.envelope().and_then(|envelope| envelope.total).ok_or(Refusal::AnswerUnsound)?
        }
        legs => {
            let mut rows = 0;
            look(visit, legs, |_| {
                rows += 1;
                true
            })
            .await?;
            rows
        }
    };
    let link = json!([{ "relation": "self", "url": visit.gate.public.question_url(listing.question) }]);
    let bundle = json!({ "resourceType": "Bundle", "type": "searchset", "total": rows, "link": link });
    release.body.extend_from_slice(bundle.to_string().as_bytes());
    Ok(())
}

/// The ids of the visible records that a search matches; two are enough to say that there are several. Rows the caller
/// may not see do not count: a condition must not tell of them (T-066 to T-069).
///
/// # Errors
/// [`Refusal::TooManyToCount`] when too many withheld rows stand before the second visible one.
pub(super) async fn visible_ids(
    visit: &Visit<'_>,
    search: &Search,
    judge: Permit,
) -> Result<Vec<String>, Refusal> {
    let legs = [Leg { place: 0, question: Interaction::Search(search.clone()), permit: judge }];
    let mut ids = BTreeSet::new();
    look(visit, &legs, |reference| {
        ids.extend(reference.split_once('/').map(|(_, id)| id.to_owned()));
        ids.len() < 2
    })
    .await?;
    Ok(ids.into_iter().collect())
}

/// Looks at the visible rows of all legs, until `wants_more` says no.
async fn look(
    visit: &Visit<'_>,
    legs: &[Leg],
    mut wants_more: impl FnMut(String) -> bool,
) -> Result<(), Refusal> {
    let mut asked = 0;
    for leg in legs {
        let mut link: Option<String> = None;
        loop {
            if asked >= limits::REFILL_REQUESTS_MAX {
                return Err(Refusal::TooManyToCount);
            }
            asked += 1;
            let body = visit.ask(&look_plan(visit, leg, link.as_deref())?).await?;
            let mut scratch = Release::default();
            let judged = Judged::judge(visit, &body, &leg.permit, &Shape::Whole, &mut scratch).await?;
            let envelope = judged.envelope().ok_or(Refusal::AnswerUnsound)?;
            let verdicts = judged.verdicts();
            for entry in envelope.entries.iter().filter(|entry| Mode::of(entry) == Some(Mode::Match)) {
                let Some(index) = entry.record else { continue };
                scratch.body.clear();
                let shown = judged.write(index, &verdicts, &mut scratch.body)
                    && in_compartment(leg, &scratch.body, judged.public());
                if shown && !wants_more(judged.reference(index)) {
                    return Ok(());
                }
            }
            link = envelope.links.iter().find(|(relation, _)| relation == "next").map(|(_, url)| url.clone());
            if link.is_none() {
                break;
            }
        }
    }
    Ok(())
}

pub(super) fn look_plan(visit: &Visit<'_>, leg: &Leg, link: Option<&str>) -> Result<Plan, Refusal> {
    match link {
        Some(link) => page::plan(link, leg, &visit.gate.upstream_base, visit.gate.public.as_str()),
        None => narrow::plan_rows(&leg.question, &leg.permit, Some(limits::COUNT_PAGE_ROWS))
            .map_err(|_| Refusal::Internal),
    }
}
