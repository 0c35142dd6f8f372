//! One session in memory.
//!
//! Owns: its times, changed without a lock. Must never: let a time go back.
//! Look next: `mod.rs`, which asks; `watch`, which writes them down.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use crate::domain::identity::Session;

/// How soon the store is asked again about a session that is over: a client that keeps trying must not make us ask
/// for each of its requests.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// Times in microseconds since 1970.
#[derive(Debug)]
pub(super) struct Live {
    authenticated_at: i64,
    last_active: AtomicI64,
    written: AtomicI64,
    looked: AtomicI64,
    /// Whether it is among those to be written down.
    waits: AtomicBool,
}

impl Live {
    /// As it is kept, with the login it is known by.
    pub(super) fn of(session: &Session, authenticated_at: Timestamp) -> Self {
        let last_active = session.last_active.as_microsecond();
        Self {
            authenticated_at: authenticated_at.as_microsecond(),
            last_active: AtomicI64::new(last_active),
            written: AtomicI64::new(last_active),
            looked: AtomicI64::new(i64::MIN),
            waits: AtomicBool::new(false),
        }
    }

    pub(super) fn authenticated_at(&self) -> Timestamp {
        time(self.authenticated_at)
    }

    pub(super) fn last_active(&self) -> Timestamp {
        time(self.last_active.load(Ordering::Acquire))
    }

    /// Notes activity; true when somebody must see to its being written down.
    pub(super) fn active(&self, now: Timestamp) -> bool {
        self.last_active.fetch_max(now.as_microsecond(), Ordering::AcqRel);
        !self.waits.swap(true, Ordering::AcqRel)
    }

    /// Notes activity that the store knows of.
    pub(super) fn was_active(&self, at: Timestamp) {
        self.last_active.fetch_max(at.as_microsecond(), Ordering::AcqRel);
        self.written.fetch_max(at.as_microsecond(), Ordering::AcqRel);
    }

    /// Takes over what is known of the same session by an older login.
    pub(super) fn keep_activity(&self, older: &Self) {
        self.last_active.fetch_max(older.last_active.load(Ordering::Acquire), Ordering::AcqRel);
    }

    pub(super) fn may_look_again(&self, now: Timestamp) -> bool {
        let (now, pause) = (now.as_microsecond(), LOOK_AGAIN.as_micros());
        let looked = self.looked.load(Ordering::Acquire);
        let due = i128::from(now) - i128::from(looked) >= pause;
        due && self.looked.compare_exchange(looked, now, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether what is written is this old.
    pub(super) fn is_due(&self, now: Timestamp, interval: SignedDuration) -> bool {
        now.duration_since(time(self.written.load(Ordering::Acquire))) >= interval
    }

    /// What to write down; further activity waits anew.
    pub(super) fn take(&self) -> Timestamp {
        self.waits.store(false, Ordering::Release);
        self.last_active()
    }

    /// It could not be written down: true when it is not waiting anyway.
    pub(super) fn put_back(&self) -> bool {
        !self.waits.swap(true, Ordering::AcqRel)
    }

    pub(super) fn wrote(&self, at: Timestamp) {
        self.written.fetch_max(at.as_microsecond(), Ordering::AcqRel);
    }
}

/// INVARIANT: every number here came from a time, so the fallback is never taken; it is the quietest answer.
fn time(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
