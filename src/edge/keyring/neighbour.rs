//! One issuer as we know it: its last good keys, and when to ask again.
//!
//! Owns: single flight, the minimum interval, and the age at which keys are no longer trusted.
//! Must never: let a request start a fetch that another request, or a client that leaves, could multiply
//! or stop.
//! Look next: `fetch.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::fetch::Fetcher;
use super::{FetchError, KeyringCounts, KeyringError, Pace};
use crate::domain::fhir::capabilities::IssuerEndpoints;
use crate::domain::identity::{Issuer, KeySet};

pub(super) struct Neighbour {
    issuer: Issuer,
    fetcher: Fetcher,
    pace: Pace,
    known: RwLock<Known>,
    /// Held by the one fetch under way.
    flight: Mutex<()>,
    refreshed: AtomicU64,
    failed: AtomicU64,
    held_back: AtomicU64,
}

/// What the last fetches brought.
#[derive(Clone, Default)]
struct Known {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// From its discovery document, if it was read.
    endpoints: Option<Arc<IssuerEndpoints>>,
    /// When the last attempt ended, well or not.
    attempted: Option<Instant>,
}

impl Neighbour {
    pub(super) fn new(issuer: Issuer, fetcher: Fetcher, pace: Pace) -> Self {
        Self {
            issuer,
            fetcher,
            pace,
            known: RwLock::default(),
            flight: Mutex::new(()),
            refreshed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    pub(super) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// What its discovery document said last.
    pub(super) fn endpoints(&self) -> Option<Arc<IssuerEndpoints>> {
        self.known().endpoints
    }

    /// The keys, refreshed first if they lack `kid` and it is time.
    pub(super) async fn key_set(self: &Arc<Self>, kid: &str) -> Result<Arc<KeySet>, KeyringError> {
        match self.usable() {
            Some(keys) if keys.contains(kid) => return Ok(keys),
            Some(_) | None => self.refresh_if_due().await,
        }
        self.usable().ok_or(KeyringError::Unavailable)
    }

    /// For ever: refresh, wait. Without keys the wait is short, so that we are ready soon after the issuer.
    pub(super) async fn refresh_for_ever(self: Arc<Self>) {
        loop {
            {
                let _flight = self.flight.lock().await;
                self.refresh().await;
            }
            let without_keys = self.usable().is_none();
            tokio::time::sleep(if without_keys { self.pace.retry_interval_min } else { self.pace.period })
                .await;
        }
    }

    pub(super) fn counts(&self) -> KeyringCounts {
        let keys = self.usable();
        KeyringCounts {
            refreshed: self.refreshed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            held_back: self.held_back.load(Ordering::Relaxed),
            keys: keys.as_ref().map_or(0, |keys| keys.len()),
            skipped: keys.as_ref().map_or(0, |keys| keys.skipped()),
            usable: keys.is_some(),
        }
    }

    /// The last good keys, unless they are too old.
    fn usable(&self) -> Option<Arc<KeySet>> {
        let known = self.known();
        let (keys, fetched) = known.keys?;
        (fetched.elapsed() <= self.pace.stale_max).then_some(keys)
    }

    /// Whether the last attempt is long enough ago.
    fn is_due(&self) -> bool {
        let interval =
            if self.usable().is_some() { self.pace.interval_min } else { self.pace.retry_interval_min };
        self.known().attempted.is_none_or(|at| at.elapsed() >= interval)
    }

    /// In a task of its own: a client that sends an unknown `kid` and leaves must not stop the refresh the
    /// others wait for, having used up the interval.
    async fn refresh_if_due(self: &Arc<Self>) {
        if !self.is_due() && self.flight.try_lock().is_ok() {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let neighbour = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _flight = neighbour.flight.lock().await;
            // Whoever waited for another's flight finds it done.
            if neighbour.is_due() {
                neighbour.refresh().await;
            }
        });
        // A task that was cancelled at shutdown leaves the keys as they were.
        let _ = task.await;
    }

    /// INVARIANT: the caller holds `flight`.
    ///
    /// The attempt is noted when it is over: those who waited for a fetch that timed out must find it fresh,
    /// or each would start another and the last would wait for all of them.
    async fn refresh(&self) {
        let fetched = tokio::time::timeout(self.pace.timeout, self.fetcher.fetch(&self.issuer)).await;
        let fetched = fetched.unwrap_or(Err(FetchError::TimedOut));
        let now = Instant::now();
        self.write(|known| known.attempted = Some(now));
        match fetched {
            Ok((keys, endpoints)) => {
                let keys = Arc::new(keys);
                self.write(|known| {
                    known.keys = Some((keys, now));
                    known.endpoints = endpoints.map(Arc::new);
                });
                self.refreshed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(issuer = self.issuer.url(), %error, "keys could not be refreshed");
            }
        }
    }

    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }
}
