//! Recording who read the trail: slips that reading commands left are taken up into it.
//!
//! Owns: when that is done: at the start, every minute, and before the trail is closed.
//! Must never: remove a slip whose record is not durable.
//! Look next: `edge::readings`.

use crate::clock;
use crate::edge::journal::{self, Journal};
use crate::edge::listener::Stop;
use crate::edge::readings;
use crate::limits;

/// Takes slips up until `stop`, and once more then.
pub(super) async fn record(journal: Journal, trail: journal::Settings, mut stop: Stop) {
    loop {
        take_up(&journal, &trail).await;
        tokio::select! {
            () = stop.requested() => break,
            () = tokio::time::sleep(limits::READINGS_INTERVAL) => {}
        }
    }
    take_up(&journal, &trail).await;
}

async fn take_up(journal: &Journal, trail: &journal::Settings) {
    let place = trail.clone();
    let taken = tokio::task::spawn_blocking(move || readings::take_up(&place, clock::now())).await;
    let Ok(Ok(taken)) = taken else {
        tracing::warn!("readings of the trail could not be looked for");
        return;
    };
    if taken.records.is_empty() {
        return;
    }
    match journal.append(&taken.records).await {
        Ok(_receipt) => taken.forget(),
        Err(error) => {
            tracing::error!(%error, "readings of the trail could not be recorded; they stay on their slips")
        }
    }
}
