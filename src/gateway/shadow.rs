//! A candidate set asked beside the requests, by a thread of its own.
//!
//! Owns: the bounded queue between requests and that thread, and what is counted.
//! Must never: make a request wait, change an answer, or go on after its end.
//! Look next: `access::Candidate`, which compares; `app::shadow`, which begins and ends it.

use crate::clock;
use crate::domain::access::{Candidate, Circumstances, Comparison, Permit};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::interaction::Interaction;
use crate::domain::identity::Caller;
use crate::domain::workbench::Tally;
use crate::edge::telemetry::Telemetry;
use crate::limits::{SHADOW_QUEUE_MAX, SHADOW_RECORDS_WAITING_MAX};
use jiff::Timestamp;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How often the thread looks whether it is over.
const LOOK: Duration = Duration::from_millis(500);

/// A candidate, and what came of asking it.
pub struct Shadow {
    until: Timestamp,
    is_on: AtomicBool,
    candidate: RwLock<Option<Arc<Candidate>>>,
    tally: Mutex<Tally>,
    is_new: AtomicBool,
    dropped: AtomicU64,
    waiting: AtomicUsize,
    queue: SyncSender<Job>,
    telemetry: Telemetry,
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("until", &self.until).finish_non_exhaustive()
    }
}

enum Job {
    Question {
        caller: Arc<Caller>,
        question: Box<Interaction>,
        circumstances: Box<Circumstances>,
        before: (bool, Vec<String>),
    },
    /// Records with the place of what each is contained in.
    Records { permit: Box<Permit>, facts: Vec<(Facts, Option<usize>)> },
}

impl Job {
    fn records(&self) -> usize {
        match self {
            Self::Question { .. } => 0,
            Self::Records { facts, .. } => facts.len(),
        }
    }
}

impl Shadow {
    /// Starts the thread; nothing is asked before there is a candidate.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(until: Timestamp, telemetry: Telemetry) -> io::Result<Arc<Self>> {
        let (queue, jobs) = sync_channel(SHADOW_QUEUE_MAX);
        let shadow = Arc::new(Self {
            until,
            is_on: AtomicBool::new(false),
            candidate: RwLock::default(),
            tally: Mutex::default(),
            is_new: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            queue,
            telemetry,
        });
        // Weak: the thread ends with whoever holds the shadow.
        let held = Arc::downgrade(&shadow);
        let work = move || {
            loop {
                let job = jobs.recv_timeout(LOOK);
                let Some(shadow) = held.upgrade() else { return };
                if !shadow.take(job, &jobs) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("policy-shadow".to_owned()).spawn(work)?;
        Ok(shadow)
    }

    /// From now on this candidate is asked, and counting begins anew. False when the time for it is over.
    pub fn ask(&self, candidate: Candidate) -> bool {
        if self.is_over() {
            return false;
        }
        *self.candidate.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(candidate));
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = Tally::default();
        self.is_on.store(true, Ordering::Release);
        self.telemetry.shadow_on(true);
        true
    }

    /// From now on nothing is asked; whether something was.
    pub fn end(&self) -> bool {
        self.telemetry.shadow_on(false);
        self.is_on.swap(false, Ordering::AcqRel)
    }

    /// When it ends by itself.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        clock::now() >= self.until
    }

    /// The candidate's hash while it is asked.
    #[must_use]
    pub fn candidate(&self) -> Option<String> {
        let candidate = self.candidate.read().unwrap_or_else(PoisonError::into_inner);
        candidate.as_ref().filter(|_| self.is_on()).map(|candidate| candidate.hash().to_owned())
    }

    /// The hash of the candidate that was asked last.
    #[must_use]
    pub fn last_candidate(&self) -> String {
        let candidate = self.candidate.read().unwrap_or_else(PoisonError::into_inner);
        candidate.as_ref().map(|candidate| candidate.hash().to_owned()).unwrap_or_default()
    }

    /// What came of it so far, and how many questions were not put.
    #[must_use]
    pub fn tally(&self) -> (Tally, u64) {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (tally, self.dropped.load(Ordering::Relaxed))
    }

    /// Whether a difference of a kind that was not known came up since this was asked last.
    pub fn take_news(&self) -> bool {
        self.is_new.swap(false, Ordering::AcqRel)
    }

    /// A question was answered, or refused.
    pub(super) fn question(
        &self,
        caller: &Arc<Caller>,
        question: &Interaction,
        circumstances: &Circumstances,
        permit: Option<&Permit>,
    ) {
        if !self.is_on() {
            return;
        }
        let before = (permit.is_some(), permit.map(|permit| permit.policies().to_vec()).unwrap_or_default());
        self.put(Job::Question {
            caller: Arc::clone(caller),
            question: Box::new(question.clone()),
            circumstances: Box::new(circumstances.clone()),
            before,
        });
    }

    /// Records were decided under this permit. Those whose content scopes look at are not asked about.
    pub(super) fn records<'f>(
        &self,
        permit: &Permit,
        records: impl Iterator<Item = (&'f Facts, Option<usize>)>,
    ) {
        if !self.is_on() || permit.needs_content() {
            return;
        }
        let facts = records.map(|(facts, container)| (facts.clone(), container)).collect();
        self.put(Job::Records { permit: Box::new(permit.clone()), facts });
    }

    fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    fn put(&self, job: Job) {
        let records = job.records();
        let waiting = self.waiting.fetch_add(records, Ordering::AcqRel);
        let fits = waiting + records <= SHADOW_RECORDS_WAITING_MAX;
        if !fits || self.queue.try_send(job).is_err() {
            self.waiting.fetch_sub(records, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.telemetry.shadow_dropped();
        }
    }

    /// Whether there may be more.
    fn take(&self, job: Result<Job, RecvTimeoutError>, jobs: &Receiver<Job>) -> bool {
        let mut next = match job {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        while let Some(job) = next {
            self.waiting.fetch_sub(job.records(), Ordering::AcqRel);
            // What is left in the queue after the end is not asked any more.
            let candidate = self.candidate.read().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(candidate) = candidate.filter(|_| self.is_on()) {
                self.compare(&candidate, &job);
            }
            next = jobs.try_recv().ok();
        }
        true
    }

    fn compare(&self, candidate: &Candidate, job: &Job) {
        match job {
            Job::Question { caller, question, circumstances, before: (before, by) } => {
                self.note(&candidate.question(caller, question, circumstances, (*before, by)));
            }
            Job::Records { permit, facts } => {
                for (record, container) in facts {
                    let container = container.and_then(|at| facts.get(at)).map(|(facts, _)| facts);
                    self.note(&candidate.record(permit, record, container));
                }
            }
        }
    }

    fn note(&self, comparison: &Comparison) {
        self.telemetry.shadow_asked(comparison.is_different());
        if self.tally.lock().unwrap_or_else(PoisonError::into_inner).note(comparison) {
            self.is_new.store(true, Ordering::Release);
        }
    }
}
