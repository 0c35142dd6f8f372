//! What one caller may have under way at once, so that everybody else keeps their part of the gate (T-249, T-250).
//!
//! Owns: a place for each request of a known caller, from when they are known until the last byte of the answer is taken
//! or given up: an answer that nobody reads holds its place, and so its memory is bounded for each caller.
//! Must never: let one wait for ever, or remember a caller of whom nothing is under way.
//! Look next: `establish`, which takes a place; `reply`, which holds it to the end.

use super::refusal::Refusal;
use crate::domain::identity::Caller;
use crate::limits::{CALLER_REQUESTS_MAX, CALLER_WAIT};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The shares of all callers of whom something is under way.
#[derive(Default)]
pub struct Shares(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By issuer and subject: one subject at two issuers is two people.
    callers: HashMap<(String, String), Weak<Semaphore>>,
    /// So many were left when those of whom nothing is under way were last forgotten.
    left: usize,
}

/// A place, until the last copy of it is dropped.
#[must_use]
#[derive(Clone, Debug)]
pub(super) struct Share(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

impl Shares {
    /// A place for one request of this caller, as soon as there is one.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when there is none for `CALLER_WAIT`.
    pub(super) async fn take(&self, caller: &Caller) -> Result<Share, Refusal> {
        self.take_for((caller.issuer(), caller.subject()), CALLER_WAIT).await
    }

    async fn take_for(&self, who: (&str, &str), wait: Duration) -> Result<Share, Refusal> {
        let share = self.share_of(who);
        let place = timeout(wait, share.acquire_owned()).await.map_err(|_| Refusal::Busy)?;
        place.map(|place| Share(Arc::new(place))).map_err(|_| Refusal::Internal)
    }

    fn share_of(&self, (issuer, subject): (&str, &str)) -> Arc<Semaphore> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget();
        let share = known.callers.entry((issuer.to_owned(), subject.to_owned())).or_default();
        share.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(Semaphore::new(CALLER_REQUESTS_MAX));
            *share = Arc::downgrade(&fresh);
            fresh
        })
    }
}

impl Known {
    /// Forgets those of whom nothing is under way, whenever there may be more of them than of the others.
    fn forget(&mut self) {
        if self.callers.len() > 2 * self.left.max(CALLER_REQUESTS_MAX) {
            self.callers.retain(|_, share| share.strong_count() > 0);
            self.left = self.callers.len();
        }
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn one_caller_leaves_the_others_theirs() {
        let shares = Shares::default();
        let mut held = Vec::new();
        for _ in 0..CALLER_REQUESTS_MAX {
            held.push(shares.take_for(("idp", "greedy"), MOMENT).await.unwrap());
        }
        assert!(matches!(shares.take_for(("idp", "greedy"), MOMENT).await, Err(Refusal::Busy)));
        for other in [("idp", "modest"), ("other-idp", "greedy")] {
            let _share = shares.take_for(other, MOMENT).await.unwrap();
        }
        // A copy holds the place, too; the last one gives it back.
        let copy = held.pop().unwrap();
        let last = copy.clone();
        drop(copy);
        assert!(matches!(shares.take_for(("idp", "greedy"), MOMENT).await, Err(Refusal::Busy)));
        drop(last);
        let _share = shares.take_for(("idp", "greedy"), MOMENT).await.unwrap();
    }

    #[tokio::test]
    async fn who_asks_nothing_is_forgotten() {
        let shares = Shares::default();
        let kept = shares.take_for(("idp", "kept"), MOMENT).await.unwrap();
        for number in 0..10 * CALLER_REQUESTS_MAX {
            let _gone = shares.take_for(("idp", &number.to_string()), MOMENT).await.unwrap();
        }
        let known = shares.0.lock().unwrap().callers.len();
        assert!(known <= 2 * CALLER_REQUESTS_MAX + 1, "{known}");
        assert!(shares.0.lock().unwrap().callers.contains_key(&("idp".to_owned(), "kept".to_owned())));
        drop(kept);
    }
}
