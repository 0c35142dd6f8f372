//! What a connection is doing: which requests are under way, and whether each makes progress.
//!
//! Owns: the clock of each request and the judgement "idle" or "stalled". One stream of an HTTP/2
//! connection can stand still while others move, so each is watched for itself.
//! Must never: end a connection; `listener` does that when told.
//! Look next: `body`, which reports progress.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Shared between a connection and its requests.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Ledger>);

#[derive(Debug)]
struct Ledger {
    opened: Instant,
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    next: u64,
    under_way: BTreeMap<u64, Arc<AtomicU64>>,
    /// Milliseconds after `opened` at which the last request began or ended.
    last: u64,
}

/// One request under way; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Request {
    activity: Activity,
    number: u64,
    progress: Arc<AtomicU64>,
}

/// Where a request notes that it goes on. Kept by whoever works on it; says nothing once the request ended.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    activity: Activity,
    at: Arc<AtomicU64>,
}

/// Why a connection should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing has been under way for long enough.
    Idle,
    /// A request made no progress for too long.
    Stalled,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Ledger { opened: Instant::now(), requests: Mutex::default() }))
    }

    pub(super) fn begin(&self) -> Request {
        let now = self.now();
        let progress = Arc::new(AtomicU64::new(now));
        let number = self.with(|requests| {
            let number = requests.next;
            requests.next += 1;
            requests.under_way.insert(number, Arc::clone(&progress));
            number
        });
        Request { activity: self.clone(), number, progress }
    }

    /// Returns when the connection should end.
    pub(super) async fn watch(&self, idle: Duration, stall: Duration) -> Verdict {
        let pause = idle.min(stall) / 4;
        loop {
            sleep(pause).await;
            if let Some(verdict) = self.judge(millis(idle), millis(stall)) {
                return verdict;
            }
        }
    }

    fn judge(&self, idle: u64, stall: u64) -> Option<Verdict> {
        let now = self.now();
        let old = |then: u64, bound: u64| now.saturating_sub(then) >= bound;
        self.with(|requests| {
            if requests.under_way.is_empty() {
                return old(requests.last, idle).then_some(Verdict::Idle);
            }
            let stalled = requests.under_way.values().any(|then| old(then.load(Ordering::Relaxed), stall));
            stalled.then_some(Verdict::Stalled)
        })
    }

    fn now(&self) -> u64 {
        millis(self.0.opened.elapsed())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Requests) -> T) -> T {
        act(&mut self.0.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Request {
    pub(super) fn progressed(&self) {
        self.progress.store(self.activity.now(), Ordering::Relaxed);
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { activity: self.activity.clone(), at: Arc::clone(&self.progress) }
    }
}

impl Progress {
    pub(super) fn made(&self) {
        self.at.store(self.activity.now(), Ordering::Relaxed);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let now = self.activity.now();
        self.activity.with(|requests| {
            requests.under_way.remove(&self.number);
            requests.last = now;
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
