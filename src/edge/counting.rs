//! Refusals beyond a budget: counted, and the counts written into the trail (T-232).
//!
//! Owns: when a count begins, is written and ends, and [`Counted`], which lets the answer to a counted refusal leave.
//! Must never: make one before the record from which on refusals are counted is durable, or while the journal is out of
//! service; be told of anything but refusals.
//! Look next: `domain::audit::Window`, which decides; `gateway::noise`; docs/decisions/0013 for the argument.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex as Turn, OnceCell};

use super::journal::{Journal, JournalError};
use super::listener::Stop;
use super::telemetry::Telemetry;
use crate::clock;
use crate::domain::audit::{Budget, Control, Noted, Record, Refused, Source, Window};
use crate::limits::{REFUSALS_INTERVAL, REFUSALS_LOOK_INTERVAL};

/// Counts refusals.
pub struct Counting {
    journal: Journal,
    telemetry: Telemetry,
    budget: Budget,
    interval: Duration,
    now: Mutex<Now>,
    /// What is closed and not written yet; whoever writes it holds the turn.
    unwritten: Turn<Vec<Record>>,
}

/// The window that is open, if any: none after the end.
struct Now {
    window: Option<Window>,
    /// By the first request of each count: whether the record with which it began is durable.
    began: BTreeMap<String, Arc<OnceCell<()>>>,
}

/// Evidence that a refusal is counted under a record that is durable.
#[derive(Debug)]
#[must_use = "it is what lets the answer leave"]
pub struct Counted {
    _made_by_counting_alone: (),
}

/// What is to be done for a refusal.
#[derive(Debug)]
pub enum Entry {
    /// Record it by itself.
    Alone,
    /// It is counted.
    Counted(Counted),
}

impl fmt::Debug for Counting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Counting").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl Counting {
    /// Begins to count, into `journal`.
    #[must_use]
    pub fn new(journal: Journal, telemetry: Telemetry, budget: Budget) -> Self {
        Self::every(REFUSALS_INTERVAL, journal, telemetry, budget)
    }

    fn every(interval: Duration, journal: Journal, telemetry: Telemetry, budget: Budget) -> Self {
        let window = Some(Window::new(budget, clock::now()));
        let now = Mutex::new(Now { window, began: BTreeMap::new() });
        Self { journal, telemetry, budget, interval, now, unwritten: Turn::default() }
    }

    /// Takes a refusal that released and wrote nothing. Waits, where a count begins with it, until that is durable.
    ///
    /// # Errors
    /// The trail cannot be written: the refusal must not be answered as one.
    pub async fn refused(&self, refused: Refused<'_>) -> Result<Entry, JournalError> {
        let (opening, began) = {
            let mut now = self.lock();
            let Some(window) = &mut now.window else { return Ok(Entry::Alone) };
            let Noted::Counted(opening) = window.note(refused) else { return Ok(Entry::Alone) };
            let began = now.began.entry(key(&opening)).or_default();
            (opening, Arc::clone(began))
        };
        self.telemetry.refusal_counted();
        self.begin(&opening, &began).await?;
        // A count that can no longer be written would be none.
        self.journal.in_service()?;
        Ok(Entry::Counted(Counted { _made_by_counting_alone: () }))
    }

    /// Whether one more of the documents that anybody may have can go to `source`, which has records of its own.
    pub fn may_have_document(&self, source: &Source) -> bool {
        self.lock().window.as_mut().is_none_or(|window| window.may_have_document(source))
    }

    /// Writes counts at the end of each window, until `stop`.
    pub async fn run(self: Arc<Self>, mut stop: Stop) {
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(REFUSALS_LOOK_INTERVAL.min(self.interval)) => {}
            }
            if self.is_over(clock::now()) {
                let _told_by_the_log = self.turn(true).await;
            }
        }
    }

    /// Writes the last counts. What is refused from now on has a record of its own.
    ///
    /// # Errors
    /// They could not be written.
    pub async fn finish(&self) -> Result<(), JournalError> {
        self.turn(false).await
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(&self, opening: &Control, began: &OnceCell<()>) -> Result<(), JournalError> {
        let write = || async {
            let _receipt = self.journal.append(&[Record::Control(opening.clone())]).await?;
            tracing::warn!(
                "refusals of one source are counted from now on: see `refusals-counting` in the trail"
            );
            Ok(())
        };
        began.get_or_try_init(write).await.copied()
    }

    /// A clock that went back ends a window, too.
    fn is_over(&self, now: Timestamp) -> bool {
        let interval = SignedDuration::try_from(self.interval).unwrap_or(SignedDuration::MAX);
        let began = self.lock().window.as_ref().map(Window::began);
        began.is_some_and(|began| now < began || now.duration_since(began) >= interval)
    }

    /// Closes the window and writes its counts. While those before are not written the window stays open, so that no more
    /// than one window's wait.
    async fn turn(&self, goes_on: bool) -> Result<(), JournalError> {
        let mut unwritten = self.unwritten.lock().await;
        self.write(&mut unwritten).await?;
        let now = clock::now();
        let (window, began) = {
            let mut open = self.lock();
            let next = goes_on.then(|| Window::new(self.budget, now));
            (std::mem::replace(&mut open.window, next), std::mem::take(&mut open.began))
        };
        let Some(window) = window else { return Ok(()) };
        for (opening, closings) in window.close(now) {
            // A refusal of this count may still be on its way to write the beginning: the end must not come before it.
            if let Some(began) = began.get(&key(&opening))
                && let Err(error) = self.begin(&opening, began).await
            {
                tracing::error!(%error, "a count of refusals could not be begun in the trail");
            }
            unwritten.extend(closings.into_iter().map(Record::Control));
        }
        self.write(&mut unwritten).await
    }

    async fn write(&self, unwritten: &mut Vec<Record>) -> Result<(), JournalError> {
        if unwritten.is_empty() {
            return Ok(());
        }
        let written = self.journal.append(unwritten).await;
        let _receipt =
            written.inspect_err(|error| tracing::error!(%error, "counts of refusals are not written"))?;
        unwritten.clear();
        Ok(())
    }
}

/// What tells one count from another.
fn key(opening: &Control) -> String {
    opening.refusals().map_or_else(String::new, |refusals| refusals.first.to_owned())
}

#[cfg(test)]
#[path = "counting_tests.rs"]
mod tests;
