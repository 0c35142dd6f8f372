//! Whether a caller may see a record as it stands: what every version of it is judged by besides itself.
//!
//! Owns: the look at the current version, or at the last one of a record that was deleted, before any version or the
//! deletion is told (T-086, T-087, KF-33): a restriction that came later holds for what was before it.
//! Must never: release anything; what is read here is judged and forgotten.
//! Look next: `rows`, whose histories ask here; `answer`, whose vread does.

use super::refusal::Refusal;
use super::release::{Judged, Release};
use super::visit::Visit;
use crate::domain::access::Permit;
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::shape::Shape;
use crate::domain::narrow::{self, Expected};

/// Rows of a history that hold its newest version: a deletion, and what it deleted.
const NEWEST_ROWS: usize = 2;

/// Whether the record may be read as it is now, or, if it was deleted, as it was last.
///
/// # Errors
/// [`Refusal`] when the EMR cannot be asked or a policy cannot be evaluated; never that the record is withheld.
pub(super) async fn stands(visit: &Visit<'_>, resource: ResourceType, id: &str) -> Result<bool, Refusal> {
    let address = format!("{}/{id}", resource.name());
    let Some((_, permit)) = admitted(visit, &address)? else { return Ok(false) };
    let Some(current) = visit.fetch(&permit, resource, id).await? else {
        return stood(visit, &format!("{address}/_history")).await;
    };
    let mut scratch = Release::default();
    let judged = Judged::judge(visit, &current, &permit, &Shape::Whole, &mut scratch).await?;
    let expected = Expected::Record { resource, id: id.to_owned(), version: None };
    if !judged.facts(0).is_some_and(|facts| expected.is(facts)) {
        return Err(Refusal::AnswerUnsound);
    }
    Ok(judged.write(0, &judged.verdicts(), &mut scratch.body))
}

/// The newest version in a record's history.
async fn stood(visit: &Visit<'_>, address: &str) -> Result<bool, Refusal> {
    let Some((question, permit)) = admitted(visit, address)? else { return Ok(false) };
    let plan = narrow::plan_rows(&question, &permit, Some(NEWEST_ROWS)).map_err(|_| Refusal::Internal)?;
    let rows = match visit.ask(&plan).await {
        Ok(rows) => rows,
        Err(Refusal::NotFound) => return Ok(false),
        Err(refusal) => return Err(refusal),
    };
    let mut scratch = Release::default();
    let judged = Judged::judge(visit, &rows, &permit, &Shape::Whole, &mut scratch).await?;
    let newest =
        judged.envelope().and_then(|envelope| envelope.entries.iter().find_map(|entry| entry.record));
    Ok(newest.is_some_and(|index| judged.write(index, &judged.verdicts(), &mut scratch.body)))
}

fn admitted(visit: &Visit<'_>, address: &str) -> Result<Option<(Interaction, Permit)>, Refusal> {
    let question = visit.asked_by(address)?;
    match visit.admits(&question) {
        Ok(permit) => Ok(Some((question, permit))),
        Err(refusal) if refusal.is_alarm() => Err(refusal),
        Err(_) => Ok(None),
    }
}
