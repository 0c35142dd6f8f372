//! What may be used once: remembered until it would be refused anyway.
//!
//! Owns: telling the first use of a DPoP proof from every later one (RFC 9449 section 11.1, T-185), over restarts and
//! between all gates of one session store; in memory first, bounded.
//! Must never: forget early to make room, or take a store's silence for a no: what cannot be remembered is refused.
//! Look next: `domain::identity::Proof`, which says what to remember and how long; `edge::sessions`, the store.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::sessions::{SessionStore, StoreError};
use crate::clock;
use crate::limits;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nobody used it before; from now on it is known.
    New,
    /// It was used before, or so long ago that nobody can tell.
    Known,
}

/// It can neither be remembered nor found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRemembered;

impl fmt::Display for NotRemembered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("no more can be remembered at the moment")
    }
}

impl std::error::Error for NotRemembered {}

/// A memory of what may be used once, shared by all gates of a store.
///
/// Of any number of calls with one namespace and key, at the same time or not, here or through another gate, exactly
/// one is told `New`, as long as `until` has not passed.
pub struct Replay {
    here: Mutex<Notes>,
    store: Arc<dyn SessionStore>,
    /// Questions to the store under way: a store that hangs must not take all threads.
    asking: Arc<Semaphore>,
}

#[derive(Default)]
struct Notes {
    /// By the second from which they may be forgotten.
    by_end: BTreeMap<i64, HashSet<(&'static str, [u8; 32])>>,
    kept: usize,
    /// The latest time seen: a clock that goes back brings nothing back.
    latest: i64,
}

impl fmt::Debug for Replay {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Replay").finish_non_exhaustive()
    }
}

impl Replay {
    /// A memory over this store.
    #[must_use]
    pub fn new(store: Arc<dyn SessionStore>) -> Self {
        let asking = Arc::new(Semaphore::new(limits::REPLAYS_ASKED_MAX));
        Self { here: Mutex::default(), store, asking }
    }

    /// Notes the use of `key` in `namespace`; it may be forgotten from `until` on. What is known here is known; all
    /// else is asked of the store, and is on its disk before it counts as new.
    ///
    /// # Errors
    /// [`NotRemembered`] when there is no room, or the store does not answer in time.
    pub async fn remember_once(
        &self,
        namespace: &'static str,
        key: [u8; 32],
        until: Timestamp,
    ) -> Result<Memory, NotRemembered> {
        let here = self.note((namespace, key), until);
        if here != Ok(Memory::New) {
            return here;
        }
        let asked = timeout(limits::STORE_ANSWER_MAX, self.ask(namespace, key, until)).await;
        match asked.map_err(|_| NotRemembered)? {
            Ok(true) => Ok(Memory::New),
            Ok(false) => Ok(Memory::Known),
            Err(error) => {
                tracing::warn!(%error, "what may be used once cannot be remembered");
                Err(NotRemembered)
            }
        }
    }

    fn note(&self, key: (&'static str, [u8; 32]), until: Timestamp) -> Result<Memory, NotRemembered> {
        let mut notes = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        notes.note(key, until.as_second(), clock::now().as_second())
    }

    async fn ask(
        &self,
        namespace: &'static str,
        key: [u8; 32],
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let unavailable = |why: &str| StoreError::Unavailable(why.to_owned());
        let room = Arc::clone(&self.asking).acquire_owned().await.map_err(|_| unavailable("no room"))?;
        let (store, name) = (Arc::clone(&self.store), hex(&key));
        // Another gate's clock may be behind the one that rids the store of what has ended.
        let kept = until.checked_add(limits::REPLAY_CLOCKS_APART_MAX).unwrap_or(Timestamp::MAX);
        let asked = tokio::task::spawn_blocking(move || {
            let _room = room;
            store.remember_once(namespace, &name, kept)
        });
        asked.await.map_err(|_| unavailable("it failed"))?
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Notes {
    fn note(&mut self, key: (&'static str, [u8; 32]), until: i64, now: i64) -> Result<Memory, NotRemembered> {
        self.latest = self.latest.max(now);
        self.forget();
        if until <= self.latest {
            return Ok(Memory::Known);
        }
        if self.by_end.get(&until).is_some_and(|keys| keys.contains(&key)) {
            return Ok(Memory::Known);
        }
        if self.kept >= limits::REPLAYS_REMEMBERED_MAX {
            return Err(NotRemembered);
        }
        // One key has one end: both come from the same signed proof.
        self.by_end.entry(until).or_default().insert(key);
        self.kept += 1;
        Ok(Memory::New)
    }

    fn forget(&mut self) {
        let kept = self.by_end.split_off(&self.latest.saturating_add(1));
        let gone = std::mem::replace(&mut self.by_end, kept);
        self.kept -= gone.values().map(HashSet::len).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::sessions::{SqliteStore, StoreKey};

    const PROOFS: &str = "proofs";

    #[test]
    fn a_key_is_new_once_and_in_its_own_namespace() {
        let mut notes = Notes::default();
        let mut note = |name, key, until, now| notes.note((name, [key; 32]), until, now);
        assert_eq!(note(PROOFS, 1, 100, 10), Ok(Memory::New));
        assert_eq!(note(PROOFS, 1, 100, 99), Ok(Memory::Known));
        assert_eq!(note("others", 1, 100, 99), Ok(Memory::New));
        assert_eq!(note(PROOFS, 2, 100, 99), Ok(Memory::New));
    }

    #[test]
    fn what_has_ended_is_forgotten_and_a_clock_that_goes_back_brings_it_not_back() {
        let mut notes = Notes::default();
        assert_eq!(notes.note((PROOFS, [1; 32]), 100, 10), Ok(Memory::New));
        assert_eq!(notes.note((PROOFS, [2; 32]), 300, 100), Ok(Memory::New));
        assert_eq!(notes.kept, 1);
        assert_eq!(notes.note((PROOFS, [1; 32]), 100, 10), Ok(Memory::Known), "replayed by a clock");
    }

    #[test]
    fn a_full_memory_refuses_and_does_not_forget() {
        let mut notes = Notes { kept: limits::REPLAYS_REMEMBERED_MAX - 1, ..Notes::default() };
        assert_eq!(notes.note((PROOFS, [1; 32]), 100, 10), Ok(Memory::New));
        assert_eq!(notes.note((PROOFS, [2; 32]), 100, 10), Err(NotRemembered));
        assert_eq!(notes.note((PROOFS, [1; 32]), 100, 10), Ok(Memory::Known));
    }

    fn gates(path: &std::path::Path) -> [Arc<Replay>; 2] {
        let open = || Arc::new(SqliteStore::open(path, &StoreKey::specimen(), clock::now()).unwrap());
        [Arc::new(Replay::new(open())), Arc::new(Replay::new(open()))]
    }

    fn soon() -> Timestamp {
        clock::now() + jiff::SignedDuration::from_secs(60)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_at_once_through_two_gates_one_is_first() {
        let folder = tempfile::tempdir().unwrap();
        let (gates, until) = (gates(&folder.path().join("s.sqlite")), soon());
        let mut tries = tokio::task::JoinSet::new();
        for number in 0..16 {
            let gate = Arc::clone(&gates[number % 2]);
            tries.spawn(async move { gate.remember_once(PROOFS, [7; 32], until).await });
        }
        let told = tries.join_all().await;
        assert_eq!(told.iter().filter(|told| **told == Ok(Memory::New)).count(), 1, "{told:?}");
        assert!(told.iter().all(Result::is_ok), "{told:?}");
    }

    #[tokio::test]
    async fn a_restart_forgets_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, until) = (folder.path().join("s.sqlite"), soon());
        let [first, _] = gates(&path);
        assert_eq!(first.remember_once(PROOFS, [1; 32], until).await, Ok(Memory::New));
        drop(first);
        let [again, _] = gates(&path);
        assert_eq!(again.remember_once(PROOFS, [1; 32], until).await, Ok(Memory::Known));
        assert_eq!(again.remember_once(PROOFS, [2; 32], until).await, Ok(Memory::New));
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sqlite");
        let [gate, _] = gates(&path);
        rusqlite::Connection::open(&path).unwrap().execute_batch("DROP TABLE once").unwrap();
        assert_eq!(gate.remember_once(PROOFS, [1; 32], soon()).await, Err(NotRemembered));
    }
}
