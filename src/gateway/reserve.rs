//! What becomes of an answer while the journal takes no records: refused, unless policy lets its record stand in the
//! reserve.
//!
//! Owns: that the reserve is asked only after the journal said that it is out of service and holds nothing of the answer,
//! and only for what was decided under emergency access by a policy with `@journal("reserve")` (T-216).
//! Must never: let a change, a refusal or anything else leave by the reserve.
//! Look next: `edge::journal::spare`, which writes it; `domain::access::checks`, which policies may say so.

use super::Gate;
use super::draft::Draft;
use super::reply::Answer;
use crate::domain::audit::Record;
use crate::edge::journal::{JournalError, Receipt, Slot};

/// Writes the record of an answer down, durably. An answer whose record stands in the reserve says on which grants it
/// rests.
///
/// # Errors
/// Nothing may leave then.
pub(super) async fn record(
    gate: &Gate,
    draft: Draft,
    answer: &mut Answer,
    refused: bool,
) -> Result<(Receipt, Option<Slot>), JournalError> {
    let request_id = draft.decision.request_id.clone();
    let spare = draft.in_reserve().filter(|_| !refused);
    let records = draft.records();
    if refused {
        return gate.journal.append(&records).await.map(|receipt| (receipt, None));
    }
    let recorded = match (gate.journal.release(&request_id, &records).await, spare) {
        (Err(error), Some(spare)) if error.is_out_of_service() => {
            answer.rests_on(&spare.decision.emergencies);
            Box::pin(gate.journal.release_in_reserve(&request_id, &spare.records())).await
        }
        (recorded, _) => recorded,
    };
    recorded.map(|(receipt, slot)| (receipt, Some(slot)))
}

/// The same for a control record about an emergency that is to begin.
///
/// # Errors
/// It does not begin then.
pub(super) async fn append(
    gate: &Gate,
    record: Record,
    may_use_reserve: bool,
) -> Result<Receipt, JournalError> {
    let record = [record];
    match gate.journal.append(&record).await {
        Err(error) if may_use_reserve && error.is_out_of_service() => {
            gate.journal.append_in_reserve(&record).await
        }
        recorded => recorded,
    }
}
