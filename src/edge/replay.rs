//! What may be used once: remembered until it would be refused anyway.
//!
//! Owns: telling the first use of a DPoP proof from every later one (RFC 9449 section 11.1, T-185), in memory and
//! bounded. [`Replay`] is the seam for a store that several gates share.
//! Must never: forget early to make room: what cannot be remembered is refused.
//! Look next: `domain::identity::Proof`, which says what to remember and how long.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

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

/// The answer of [`Replay::remember_once`], which may take a journey to a store.
pub type Remembering<'r> = Pin<Box<dyn Future<Output = Result<Memory, NotRemembered>> + Send + 'r>>;

/// A memory of what may be used once.
///
/// Of any number of calls with one namespace and key, at the same time or not, exactly one is told `New`, as long as
/// `until` has not passed. A store that several gates share must hold that across all of them.
pub trait Replay: fmt::Debug + Send + Sync {
    /// Notes the use of `key` in `namespace`; it may be forgotten from `until` on.
    fn remember_once(&self, namespace: &'static str, key: [u8; 32], until: Timestamp) -> Remembering<'_>;
}

/// A memory of this process alone.
#[derive(Default)]
pub struct Remembered(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    /// By the second from which they may be forgotten.
    by_end: BTreeMap<i64, HashSet<(&'static str, [u8; 32])>>,
    kept: usize,
    /// The latest time seen: a clock that goes back brings nothing back.
    latest: i64,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl Replay for Remembered {
    fn remember_once(&self, namespace: &'static str, key: [u8; 32], until: Timestamp) -> Remembering<'_> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = notes.note((namespace, key), until.as_second(), clock::now().as_second());
        Box::pin(std::future::ready(told))
    }
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

    #[test]
    fn of_many_at_once_one_is_first() {
        let memory = Remembered::default();
        let until = clock::now() + jiff::SignedDuration::from_secs(60);
        let news: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let told = memory.remember_once(PROOFS, [7; 32], until);
                        let told =
                            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(told);
                        usize::from(told == Ok(Memory::New))
                    })
                })
                .collect();
            tries.into_iter().map(|told| told.join().unwrap()).sum()
        });
        assert_eq!(news, 1);
    }
}
