//! Refusals that may be counted instead of recorded one by one, when there are too many (T-232).
//!
//! Owns: which those are: what released nothing, wrote nothing, and is no part of a batch; and whose they are.
//! Must never: have anything else counted, or answer one that is neither recorded nor counted.
//! Look next: `edge::counting`, which counts; `reserve`, which records everything else.

use super::Gate;
use super::draft::Draft;
use super::refusal::Refusal;
use super::reply::Answer;
use super::reserve;
use crate::domain::audit::{Record, Refused, Source};
use crate::edge::counting::{Counted, Entry};
use crate::edge::journal::{JournalError, Receipt, Slot};

/// What lets an answer leave.
pub(super) enum Evidence {
    /// Its record is durable.
    Recorded(Receipt, Option<Slot>),
    /// It is a refusal, and counted.
    Counted(Counted),
}

/// Writes the record of an answer down, durably, or has it counted.
///
/// # Errors
/// Nothing may leave then.
pub(super) async fn record(
    gate: &Gate,
    draft: Draft,
    answer: &mut Answer,
    refused: bool,
) -> Result<Evidence, JournalError> {
    if refused
        && draft.may_be_counted()
        && let Entry::Counted(counted) = count(gate, &draft, draft.decision.reason.as_deref()).await?
    {
        return Ok(Evidence::Counted(counted));
    }
    let (receipt, slot) = reserve::record(gate, draft, answer, refused).await?;
    Ok(Evidence::Recorded(receipt, slot))
}

/// The same for an event that was refused with `code`: its record is `records`.
///
/// # Errors
/// As [`record`].
pub(super) async fn record_event(
    gate: &Gate,
    draft: &Draft,
    code: Option<&str>,
    records: &[Record],
) -> Result<Evidence, JournalError> {
    if let Some(code) = code
        && let Entry::Counted(counted) = count(gate, draft, Some(&format!("event:{code}"))).await?
    {
        return Ok(Evidence::Counted(counted));
    }
    gate.journal.append(records).await.map(|receipt| Evidence::Recorded(receipt, None))
}

/// Lets one of the documents that anybody may have go to this source, or refuses it: each is recorded, twice, and nobody is
/// established who could be asked to stop.
///
/// # Errors
/// [`Refusal::Busy`], which may be counted.
pub(super) fn document(gate: &Gate, draft: &Draft) -> Result<(), Refusal> {
    let is_known = draft.decision.caller.is_some();
    if is_known || gate.counting.may_have_document(&source(draft)) { Ok(()) } else { Err(Refusal::Busy) }
}

async fn count(gate: &Gate, draft: &Draft, code: Option<&str>) -> Result<Entry, JournalError> {
    let (source, code) = (source(draft), code.unwrap_or("unknown"));
    let (request_id, time) = (draft.decision.request_id.as_str(), draft.began);
    gate.counting.refused(Refused { source: &source, code, request_id, time }).await
}

fn source(draft: &Draft) -> Source {
    match &draft.decision.caller {
        Some(caller) => Source::Known { issuer: caller.issuer.clone(), subject: caller.subject.clone() },
        None => Source::stranger(draft.address),
    }
}
