//! What runs beside the requests: following what others revoke, writing down activity, clearing out.
//!
//! Owns: how soon a revocation made elsewhere is in force here, and how long the store may be silent.
//! Must never: lose a change between two looks.
//! Look next: `app`, which runs it and records what changes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::live::Live;
use super::store::StoreError;
use super::{Sessions, locked};
use crate::clock;
use crate::domain::identity::{Revocation, RevocationIndex, SessionKey};
use crate::edge::listener::Stop;
use crate::limits;

/// What somebody else revoked or lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// In force here from now on.
    Revoked(Revocation),
    /// Not in force here any more.
    Lifted(Revocation),
}

impl Sessions {
    /// Follows the store until `stop`; what changes goes to `changes`, in force already. A look every
    /// `limits::REVOCATION_POLL`; the last activity is written down at the end.
    pub async fn watch(self, changes: mpsc::UnboundedSender<Change>, mut stop: Stop) {
        *self.0.changes.lock().unwrap_or_else(PoisonError::into_inner) = Some(changes);
        let mut cleared = Instant::now();
        loop {
            let stopping = tokio::select! {
                () = stop.requested() => true,
                () = tokio::time::sleep(limits::REVOCATION_POLL) => false,
            };
            let clears = cleared.elapsed() >= limits::STORE_PRUNE_INTERVAL;
            let sessions = self.clone();
            let looked = tokio::task::spawn_blocking(move || sessions.round(clears, stopping)).await;
            if clears {
                cleared = Instant::now();
            }
            if !matches!(looked, Ok(Ok(()))) {
                self.note_silence(looked.ok().and_then(Result::err));
            }
            if stopping {
                // Whoever records changes has heard them all.
                locked(&self.0.changes).take();
                return;
            }
        }
    }

    /// One look: what is revoked, what is to be written down, what can go.
    fn round(&self, clears: bool, all: bool) -> Result<(), StoreError> {
        self.note_changes()?;
        let now = self.no_earlier_than_before(clock::now());
        self.write_down(now, all)?;
        if clears {
            let before = now.checked_sub(self.0.settings.limits.absolute).unwrap_or(Timestamp::UNIX_EPOCH);
            self.0.store.prune(now, before)?;
        }
        Ok(())
    }

    /// Puts in force what changed and tells of it.
    pub(super) fn note_changes(&self) -> Result<(), StoreError> {
        let found = self.read_revoked()?;
        let listener = locked(&self.0.changes).clone();
        for change in found {
            if let Some(listener) = &listener {
                // Whoever recorded changes is gone when the program ends.
                let _at_the_end = listener.send(change);
            }
        }
        Ok(())
    }

    /// Reads what is revoked, if it changed, and puts it in force; gives what changed by somebody else's hand.
    pub(super) fn read_revoked(&self) -> Result<Vec<Change>, StoreError> {
        let mut known = locked(&self.0.reading);
        let state = self.0.store.state()?;
        self.0.high_water.fetch_max(state.high_water.as_microsecond(), Ordering::AcqRel);
        let mut changes = Vec::new();
        if state.sequence != *known {
            let fresh = self.0.store.revocations()?;
            changes = self.differences(&self.revoked(), &fresh, *known < 0);
            let index = Arc::new(RevocationIndex::new(fresh));
            *self.0.revoked.write().unwrap_or_else(PoisonError::into_inner) = index;
            self.0.epoch.fetch_add(1, Ordering::AcqRel);
            *known = state.sequence;
        }
        *locked(&self.0.heard) = Instant::now();
        if self.0.silent.swap(false, Ordering::AcqRel) {
            tracing::warn!("the session store answers again");
        }
        Ok(changes)
    }

    fn differences(&self, old: &RevocationIndex, fresh: &[Revocation], first: bool) -> Vec<Change> {
        if first {
            return Vec::new();
        }
        let now = self.no_earlier_than_before(Timestamp::UNIX_EPOCH);
        let mut own = locked(&self.0.own);
        let mine = own.clone();
        let theirs = |one: &&Revocation| !mine.contains(&one.id);
        let is_in = |all: &[Revocation], one: &Revocation| all.iter().any(|other| other.id == one.id);
        let added = fresh.iter().filter(|one| !is_in(old.all(), one)).filter(theirs);
        // What was cleared out because it cannot matter any more was not lifted by anybody.
        let spent = |one: &&Revocation| one.expires_at().is_some_and(|end| end <= now);
        let gone = old.all().iter().filter(|one| !is_in(fresh, one)).filter(theirs).filter(|one| !spent(one));
        let changes = added.cloned().map(Change::Revoked).chain(gone.cloned().map(Change::Lifted)).collect();
        own.retain(|id| !old.all().iter().any(|one| one.id == *id) || fresh.iter().any(|one| one.id == *id));
        changes
    }

    /// Writes down the last activity of sessions whose written one is old enough, or of all.
    pub(super) fn write_down(&self, now: Timestamp, all: bool) -> Result<(), StoreError> {
        let interval = self.write_interval();
        let due: Vec<(SessionKey, Arc<Live>)> =
            locked(&self.0.unwritten).extract_if(|_, live| all || live.is_due(now, interval)).collect();
        if due.is_empty() {
            return Ok(());
        }
        let active: Vec<(SessionKey, Timestamp)> =
            due.iter().map(|(key, live)| (key.clone(), live.take())).collect();
        let written = self.0.store.touch(&active, now);
        for ((key, live), (_, at)) in due.into_iter().zip(active) {
            match &written {
                Ok(()) => live.wrote(at),
                Err(_) if live.put_back() => {
                    locked(&self.0.unwritten).insert(key, live);
                }
                Err(_) => {}
            }
        }
        written
    }

    fn write_interval(&self) -> SignedDuration {
        let longest =
            SignedDuration::try_from(limits::ACTIVITY_WRITE_INTERVAL).unwrap_or(SignedDuration::ZERO);
        (self.0.settings.limits.idle / 20).min(longest)
    }

    /// Says so once, and wakes answers that are on their way, when the store has been silent for too long.
    pub(super) fn note_silence(&self, error: Option<StoreError>) {
        if let Some(error) = error {
            tracing::warn!(%error, "the session store could not be asked");
        }
        if !self.is_heard() && !self.0.silent.swap(true, Ordering::AcqRel) {
            tracing::error!("the session store is silent: nobody is let in");
            self.0.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }
}
