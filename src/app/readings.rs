//! Slips for the gate: who read the trail is recorded in it, and what is ordered about keeping it is carried out.
//!
//! Owns: when that is done: at the start, every minute, and before the trail is closed.
//! Must never: remove a slip whose record is not durable, or an order that may yet be carried out.
//! Look next: `edge::readings`, `edge::orders`.

use super::policies::Standing;
use crate::clock;
use crate::domain::audit::Keep;
use crate::edge::journal::{self, Journal};
use crate::edge::listener::Stop;
use crate::edge::{orders, readings};
use crate::limits;
use std::sync::Arc;

/// Takes slips up until `stop`, and once more then.
pub(super) async fn record(
    journal: Journal,
    trail: journal::Settings,
    (policy, standing): (Option<Keep>, Arc<Standing>),
    mut stop: Stop,
) {
    loop {
        take_up(&journal, &trail).await;
        carry_out(&journal, &trail, policy, &standing).await;
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

/// Carries out what was ordered while the gate runs. An order that is refused goes too: whoever left it sees that nothing
/// was recorded.
async fn carry_out(journal: &Journal, trail: &journal::Settings, policy: Option<Keep>, standing: &Standing) {
    let place = trail.clone();
    let waiting = tokio::task::spawn_blocking(move || orders::waiting(&place, clock::now())).await;
    let Ok(Ok(waiting)) = waiting else {
        tracing::warn!("orders about the trail could not be looked for");
        return;
    };
    for (slip, order) in waiting {
        let done = match order {
            Some(order) => {
                let done = order.carry_out(journal, trail, policy, clock::now()).await;
                if let (Ok(_recorded), Some(release)) = (&done, order.allows()) {
                    standing.allow(release);
                }
                done
            }
            None => Err("it was not sealed for this gate".to_owned()),
        };
        match done {
            Ok(done) => tracing::info!(?done, "an order about the trail was carried out"),
            // It stays for the next start, which can write.
            Err(_) if !journal.ready() => return,
            Err(why) => tracing::error!(why, "an order about the trail was not carried out"),
        }
        if let Err(error) = std::fs::remove_file(&slip) {
            tracing::warn!(error = %error.kind(), "the slip of an order could not be removed; it will be carried out again");
        }
    }
}
