//! What one caller may have under way at once, so that everybody else keeps their part of the gate (T-249, T-250).
//!
//! Owns: a place for each request of a known caller, from when they are known until the last byte of the answer is taken
//! or given up: an answer that nobody reads holds its place, and so its memory is bounded for each caller. And whose turn it is on
//! the processors where an answer is long work: half of them are a caller's at most, unless nobody else asks anything these
//! seconds.
//! Must never: let one wait for a place for ever, or remember a caller of whom nothing is under way.
//! Look next: `establish`, which takes a place; `reply`, which holds it to the end; `release`, which works on answers.

use super::refusal::Refusal;
use crate::domain::identity::Caller;
use crate::limits::{CALLER_REQUESTS_MAX, CALLER_WAIT, COMPANY_MS};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// The shares of all callers of whom something is under way.
pub struct Shares {
    known: Mutex<Known>,
    processors: Arc<Semaphore>,
    /// Of them, a caller's at once.
    turns: usize,
    company: Arc<Company>,
}

/// Whether several callers ask.
#[derive(Debug)]
struct Company {
    /// Of so many something is under way.
    present: AtomicUsize,
    begin: Instant,
    /// When there were last several, in milliseconds since `begin`; 0: never.
    met_ms: AtomicU64,
}

impl Default for Company {
    fn default() -> Self {
        Self { present: AtomicUsize::new(0), begin: Instant::now(), met_ms: AtomicU64::new(0) }
    }
}

impl Company {
    /// One more, of whom nothing was under way.
    fn come(&self) {
        self.met(self.present.fetch_add(1, Ordering::Relaxed).saturating_add(1));
    }

    /// One less.
    fn go(&self) {
        self.met(self.present.fetch_sub(1, Ordering::Relaxed));
    }

    fn met(&self, present: usize) {
        if present > 1 {
            self.met_ms.store(self.elapsed_ms(), Ordering::Relaxed);
        }
    }

    /// Whether somebody else asks or asked lately: who comes next has to be heard before it is known who they are.
    fn is_there(&self) -> bool {
        let met = self.met_ms.load(Ordering::Relaxed);
        let was_there = met > 0 && self.elapsed_ms().saturating_sub(met) < COMPANY_MS;
        was_there || self.present.load(Ordering::Relaxed) > 1
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[derive(Default)]
struct Known {
    /// By issuer and subject: one subject at two issuers is two people.
    callers: HashMap<(String, String), Weak<Own>>,
    /// So many were left when those of whom nothing is under way were last forgotten.
    left: usize,
}

/// One caller's.
#[derive(Debug)]
struct Own {
    places: Arc<Semaphore>,
    turns: Semaphore,
    company: Arc<Company>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.company.go();
    }
}

/// A place, until the last copy of it is dropped.
#[must_use]
#[derive(Clone, Debug)]
pub(super) struct Share(Arc<Held>);

#[derive(Debug)]
struct Held {
    #[expect(dead_code, reason = "held, not read")]
    place: OwnedSemaphorePermit,
    own: Arc<Own>,
    processors: Arc<Semaphore>,
}

/// A turn on the processors, until it is dropped. Nothing may be waited for meanwhile.
#[must_use]
#[derive(Default)]
pub(super) struct Turn<'s>(#[expect(dead_code, reason = "held, not read")] [Option<SemaphorePermit<'s>>; 2]);

impl Share {
    /// A turn for long work, as soon as fewer are at it than there are processors. A caller waits among all
    /// others with so many requests as may be at it at once, and so everybody comes to their turn whoever asks how much.
    pub(super) async fn turn(&self) -> Turn<'_> {
        if !self.0.own.company.is_there() {
            return Turn::default();
        }
        // Neither is ever closed.
        let own = self.0.own.turns.acquire().await.ok();
        Turn([own, self.0.processors.acquire().await.ok()])
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self::on(available_parallelism().map_or(1, std::num::NonZero::get))
    }
}

impl Shares {
    /// On a machine with so many processors.
    fn on(processors: usize) -> Self {
        let (turns, processors) = ((processors / 2).max(1), Arc::new(Semaphore::new(processors)));
        Self { known: Mutex::default(), processors, turns, company: Arc::default() }
    }

    /// A place for one request of this caller, as soon as there is one.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when there is none for `CALLER_WAIT`.
    pub(super) async fn take(&self, caller: &Caller) -> Result<Share, Refusal> {
        self.take_for((caller.issuer(), caller.subject()), CALLER_WAIT).await
    }

    async fn take_for(&self, who: (&str, &str), wait: Duration) -> Result<Share, Refusal> {
        let own = self.own(who);
        let place =
            timeout(wait, Arc::clone(&own.places).acquire_owned()).await.map_err(|_| Refusal::Busy)?;
        let place = place.map_err(|_| Refusal::Internal)?;
        Ok(Share(Arc::new(Held { place, own, processors: Arc::clone(&self.processors) })))
    }

    fn own(&self, (issuer, subject): (&str, &str)) -> Arc<Own> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget();
        let share = known.callers.entry((issuer.to_owned(), subject.to_owned())).or_default();
        share.upgrade().unwrap_or_else(|| {
            let places = Arc::new(Semaphore::new(CALLER_REQUESTS_MAX));
            let company = Arc::clone(&self.company);
            company.come();
            let fresh = Arc::new(Own { places, turns: Semaphore::new(self.turns), company });
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
    async fn long_work_of_one_leaves_half_to_others() {
        for (processors, all, of_one) in [(1, 1, 1), (2, 2, 1), (3, 3, 1), (8, 8, 4)] {
            let shares = Shares::on(processors);
            let greedy = shares.take_for(("idp", "greedy"), MOMENT).await.unwrap();
            // Nobody else asks: there is nobody to leave anything to.
            let mut alone = Vec::new();
            for _ in 0..2 * processors {
                alone.push(timeout(MOMENT, greedy.turn()).await.unwrap());
            }
            let somebody = shares.take_for(("idp", "somebody"), MOMENT).await.unwrap();
            let mut held = Vec::new();
            for _ in 0..of_one {
                held.push(timeout(MOMENT, greedy.turn()).await.unwrap());
            }
            assert!(timeout(MOMENT, greedy.turn()).await.is_err(), "{processors}");
            let mut others = Vec::new();
            for number in of_one..all {
                others.push(shares.take_for(("idp", &number.to_string()), MOMENT).await.unwrap());
            }
            let mut theirs = Vec::new();
            for other in &others {
                theirs.push(timeout(MOMENT, other.turn()).await.unwrap());
            }
            let last = shares.take_for(("idp", "last"), MOMENT).await.unwrap();
            assert!(timeout(MOMENT, last.turn()).await.is_err(), "{processors}");
            drop(held.pop());
            let _turn = timeout(MOMENT, last.turn()).await.unwrap();
            // Who was there lately may come again.
            drop((somebody, theirs));
            drop(others);
            assert!(shares.company.is_there());
        }
    }

    /// However many requests of one caller wait, another one's is behind as many of them as may be at work at once.
    #[tokio::test]
    async fn a_crowd_of_one_is_one() {
        let shares = Shares::on(1);
        let crowd: Vec<Share> = {
            let mut crowd = Vec::new();
            for _ in 0..CALLER_REQUESTS_MAX {
                crowd.push(shares.take_for(("idp", "greedy"), MOMENT).await.unwrap());
            }
            crowd
        };
        let modest = shares.take_for(("idp", "modest"), MOMENT).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let work = |share: Share, name: &'static str| {
            let order = Arc::clone(&order);
            tokio::spawn(async move {
                let _turn = share.turn().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                order.lock().unwrap().push(name);
            })
        };
        let mut tasks: Vec<_> = crowd.into_iter().map(|share| work(share, "greedy")).collect();
        tokio::task::yield_now().await;
        tasks.push(work(modest, "modest"));
        for task in tasks {
            task.await.unwrap();
        }
        let place = order.lock().unwrap().iter().position(|name| *name == "modest");
        assert!(place.is_some_and(|place| place <= 2), "{place:?}");
    }

    #[tokio::test]
    async fn who_asks_nothing_is_forgotten() {
        let shares = Shares::default();
        let kept = shares.take_for(("idp", "kept"), MOMENT).await.unwrap();
        for number in 0..10 * CALLER_REQUESTS_MAX {
            let _gone = shares.take_for(("idp", &number.to_string()), MOMENT).await.unwrap();
        }
        let known = shares.known.lock().unwrap().callers.len();
        assert!(known <= 2 * CALLER_REQUESTS_MAX + 1, "{known}");
        assert!(shares.known.lock().unwrap().callers.contains_key(&("idp".to_owned(), "kept".to_owned())));
        drop(kept);
    }
}
