//! Waiting: after a failure longer and longer, and never beyond a request to stop.
//!
//! Owns: the back-off, its jitter and its bound; the word to stop.
//! Must never: let a receiver keep us waiting longer than `RETRY_AFTER_MAX`.
//! Look next: `pump`.

use std::time::Duration;

use aws_lc_rs::rand;
use tokio::sync::watch;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, RETRY_AFTER_MAX};

/// How long to wait after failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure: what the receiver asked for, or else between half and all of a time that doubles.
    pub(crate) fn after_failure(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        // Jitter on top of what was asked, too: many gates may have been told the same.
        asked.map_or(Duration::ZERO, |asked| asked.min(RETRY_AFTER_MAX)) + doubled / 2 + part_of(doubled / 2)
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random part of `whole`; all of it where no random number can be had.
fn part_of(whole: Duration) -> Duration {
    let mut byte = [0; 1];
    if rand::fill(&mut byte).is_err() {
        return whole;
    }
    whole * u32::from(byte[0]) / 255
}

/// Whether to stop.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// One who says it.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

/// A stopper and the one who listens.
pub(crate) fn stop_signal() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Everybody stops.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether it was said.
    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Until it is said, or nobody is left to say it.
    pub(crate) async fn requested(&mut self) {
        let _gone_counts_as_well = self.0.wait_for(|stop| *stop).await;
    }

    /// Waits so long, or until it is said.
    pub(crate) async fn wait(&mut self, time: Duration) {
        tokio::select! {
            () = self.requested() => {}
            () = tokio::time::sleep(time) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_and_have_a_bound() {
        let mut backoff = Backoff::default();
        let mut bound = BACKOFF_MIN;
        for _ in 0..40 {
            let wait = backoff.after_failure(None);
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} {bound:?}");
            bound = (bound * 2).min(BACKOFF_MAX);
        }
        let asked = Duration::from_secs(20);
        assert!(backoff.after_failure(Some(asked)) >= asked);
        assert!(backoff.after_failure(Some(Duration::MAX)) <= RETRY_AFTER_MAX + BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.after_failure(None) <= BACKOFF_MIN);
    }
}
