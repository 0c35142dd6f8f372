//! What runs beside the listeners until the program stops: counts carried over, changes recorded, streams listened for.
//!
//! Owns: these loops. Must never: answer a request.
//! Look next: `app`, which starts them.

use super::care::end_emergencies;
use crate::clock;
use crate::edge::journal::Journal;
use crate::edge::listener::Stop;
use crate::edge::sessions::{self, Change};
use crate::gateway::{self, Gate};
use crate::limits;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Starts all of it.
pub(super) fn spawn(
    watching: &mut JoinSet<()>,
    gate: &Arc<Gate>,
    silent: Arc<RwLock<Vec<String>>>,
    stop: &Stop,
) {
    watching.spawn(count_refreshes(Arc::clone(gate), stop.clone()));
    watching.spawn(end_emergencies(Arc::clone(gate), stop.clone()));
    watching.spawn(listen_for_streams(Arc::clone(gate), silent, stop.clone()));
    let (changes, heard) = mpsc::unbounded_channel();
    watching.spawn(gate.sessions.clone().watch(changes, stop.clone()));
    watching.spawn(record_changes(gate.journal.clone(), heard));
}

/// Carries the keyring's counts over to the metrics, until `stop`.
async fn count_refreshes(gate: Arc<Gate>, mut stop: Stop) {
    let mut known = (0, 0);
    loop {
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(limits::METRICS_CARRY_INTERVAL) => {}
        }
        let (fresh, failed) = gate
            .keyring
            .counts()
            .fold((0, 0), |(fresh, failed), (_, counts)| (fresh + counts.refreshed, failed + counts.failed));
        (known.0..fresh).for_each(|_| gate.telemetry.key_refresh("fresh"));
        (known.1..failed).for_each(|_| gate.telemetry.key_refresh("failed"));
        known = (fresh, failed);
    }
}

/// Records what others revoked or lifted, once it is in force here.
async fn record_changes(journal: Journal, mut heard: mpsc::UnboundedReceiver<Change>) {
    while let Some(change) = heard.recv().await {
        let record = match &change {
            Change::Revoked(revocation) => sessions::record_revoked(revocation, clock::now()),
            Change::Lifted(revocation) => sessions::record_lifted(revocation, clock::now()),
        };
        if let Err(error) = journal.append(&[record]).await {
            tracing::error!(%error, "a revocation made elsewhere could not be recorded");
        }
    }
}

/// Notices event streams without a sign of life, until `stop`.
async fn listen_for_streams(gate: Arc<Gate>, silent: Arc<RwLock<Vec<String>>>, mut stop: Stop) {
    let started = clock::now();
    loop {
        let (looked, at) = (Arc::clone(&gate), clock::now());
        let look = move || gateway::silent_streams(&looked.events, &looked.sessions, started, at);
        if let Ok(Ok(found)) = tokio::task::spawn_blocking(look).await {
            gate.telemetry.sessions(gate.sessions.revoked().all().len(), found.len());
            let mut known = silent.write().unwrap_or_else(PoisonError::into_inner);
            for issuer in found.iter().filter(|issuer| !known.contains(issuer)) {
                tracing::error!(issuer, "no verification event for longer than the heartbeat");
            }
            *known = found;
        }
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(limits::METRICS_CARRY_INTERVAL) => {}
        }
    }
}
