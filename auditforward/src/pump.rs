//! One receiver of items: read on, send, wait for the confirmation, and only then move the cursor.
//!
//! Owns: the order of these steps, which is what makes it at least once whoever is killed when.
//! Must never: move a cursor before the confirmation; stop because something is wrong (it waits, and says so).
//! Look next: `follow`, `syslog`, `otlp`; `state` for the cursor.

use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use chartgate::clock;
use chartgate::domain::audit::escape;
use chartgate::edge::journal::{self, Keys, Reader};

use crate::follow::{Batch, Follower, Item, Patience, durable_end};
use crate::limits::LOOK_INTERVAL;
use crate::otlp::OtlpSender;
use crate::pace::{Backoff, Stop};
use crate::settings::Start;
use crate::state::{Ailment, Cursor, State};
use crate::syslog::SyslogSender;

/// Why a receiver does not get on.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// One line, no patient data.
    pub(crate) what: String,
    /// How long the receiver asked to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

impl Trouble {
    /// The receiver failed.
    pub(crate) fn receiver(what: impl Into<String>) -> Self {
        Self { what: what.into(), retry_after: None }
    }

    /// The trail cannot be read, or our own state not be written.
    pub(crate) fn ours(what: impl Into<String>) -> Self {
        Self { what: what.into(), retry_after: None }
    }
}

/// Who takes items.
#[derive(Debug)]
pub(crate) enum Sender {
    /// Over RFC 5425.
    Syslog(SyslogSender),
    /// Over OTLP/HTTP.
    Otlp(Box<OtlpSender>),
}

impl Sender {
    /// Sends and waits for the confirmation; answers how many items the receiver refused for good.
    async fn send(&mut self, origin: &str, items: &[Item]) -> Result<u64, Trouble> {
        match self {
            Self::Syslog(sender) => sender.send(origin, items).await.map(|()| 0),
            Self::Otlp(sender) => sender.send(origin, items).await,
        }
    }

    fn patients(&self) -> bool {
        match self {
            Self::Syslog(sender) => sender.patients(),
            Self::Otlp(sender) => sender.patients(),
        }
    }

    /// What is sent again once the receiver failed: a confirmation of a kind that can be forgotten.
    fn again_entries(&self) -> u64 {
        match self {
            Self::Syslog(_) => crate::limits::SYSLOG_AGAIN_ENTRIES,
            Self::Otlp(_) => 0,
        }
    }
}

/// One receiver at work.
#[derive(Debug)]
pub(crate) struct Pump<'s> {
    /// Its name.
    pub(crate) name: &'s str,
    /// Where it begins when it has no cursor.
    pub(crate) start: Start,
    /// How it is spoken to.
    pub(crate) sender: Sender,
    /// The trail.
    pub(crate) trail: journal::Settings,
    /// Where its cursor is.
    pub(crate) state: &'s State,
    /// The places between deliveries that may be gone back to, oldest first.
    marks: VecDeque<Mark>,
    patience: Patience,
    /// The checkpoint when everything was sent.
    seen: Option<Vec<u8>>,
}

/// A place a receiver had confirmed everything before.
#[derive(Debug)]
struct Mark {
    next: u64,
    last: Option<String>,
}

impl<'s> Pump<'s> {
    pub(crate) fn new(
        name: &'s str,
        start: Start,
        sender: Sender,
        trail: journal::Settings,
        state: &'s State,
    ) -> Self {
        let (marks, patience) = (VecDeque::new(), Patience::default());
        Self { name, start, sender, trail, state, marks, patience, seen: None }
    }

    /// Until `stop`.
    pub(crate) async fn run(&mut self, mut stop: Stop) {
        let (mut backoff, mut ailment) = (Backoff::default(), Complaint::new(self.name, self.state));
        let mut watch = stop.clone();
        while !stop.is_requested() {
            let done = tokio::select! {
                () = watch.requested() => return,
                done = self.round(&stop) => done,
            };
            let wait = match done {
                Ok(()) => {
                    backoff.reset();
                    ailment.is_over();
                    LOOK_INTERVAL
                }
                Err(trouble) => {
                    ailment.is(&trouble.what);
                    backoff.after_failure(trouble.retry_after)
                }
            };
            stop.wait(wait).await;
        }
    }

    /// Sends everything there is.
    async fn round(&mut self, stop: &Stop) -> Result<(), Trouble> {
        let checkpoint = fs::read(self.trail.directory.join("checkpoint")).ok();
        if checkpoint.is_some() && checkpoint == self.seen {
            return Ok(());
        }
        let end = durable_end(&self.trail.directory).map_err(Trouble::ours)?;
        let keys = Keys::load(&self.trail).map_err(|error| Trouble::ours(error.to_string()))?;
        let reader = Reader::open(&self.trail.directory, &keys);
        let mut reader = reader.map_err(|finding| Trouble::ours(finding.to_string()))?.reading_on();
        let (origin, size) = (reader.checkpoint().origin.clone(), reader.checkpoint().size);
        let mut cursor = self.begin(&origin, end)?;
        check_history(&cursor, &mut reader, &origin, size)?;
        let end = end.min(size);
        while cursor.next < end && !stop.is_requested() {
            let batch = {
                let directory = self.trail.directory.clone();
                let patients = self.sender.patients();
                let mut follower = Follower { reader: &mut reader, directory, end, patients };
                follower.batch(cursor.next, &mut self.patience).map_err(Trouble::ours)?
            };
            match self.sender.send(&origin, &batch.items).await {
                Ok(rejected) => self.advance(&mut cursor, &batch, rejected)?,
                Err(trouble) => {
                    self.step_back(&mut cursor)?;
                    return Err(trouble);
                }
            }
        }
        if cursor.next >= end {
            self.seen = checkpoint;
        }
        Ok(())
    }

    /// The cursor, or a first one.
    fn begin(&self, origin: &str, end: u64) -> Result<Cursor, Trouble> {
        if let Some(cursor) = self.state.cursor(self.name).map_err(Trouble::ours)? {
            return Ok(cursor);
        }
        let next = match self.start {
            Start::Beginning => 0,
            Start::Now => end,
        };
        let origin = origin.to_owned();
        let cursor = Cursor { origin, next, last: None, confirmed: None, gaps: 0, rejected: 0, edge: None };
        self.state.keep(self.name, &cursor).map_err(Trouble::ours)?;
        Ok(cursor)
    }

    /// The receiver has it: from here on a crash of ours costs nothing. Before, what was sent is sent again.
    fn advance(&mut self, cursor: &mut Cursor, batch: &Batch, rejected: u64) -> Result<(), Trouble> {
        if self.marks.is_empty() {
            self.marks.push_back(Mark { next: cursor.next, last: cursor.last.clone() });
        }
        cursor.next = batch.next;
        cursor.last = batch.last.map(|leaf| leaf.to_string());
        cursor.confirmed = Some(clock::now());
        cursor.gaps += batch.gaps;
        cursor.rejected += rejected;
        self.state.keep(self.name, cursor).map_err(Trouble::ours)?;
        self.marks.push_back(Mark { next: cursor.next, last: cursor.last.clone() });
        let oldest = cursor.next.saturating_sub(self.sender.again_entries());
        while self.marks.get(1).is_some_and(|second| second.next <= oldest) {
            self.marks.pop_front();
        }
        if batch.gaps > 0 {
            tracing::error!(
                receiver = self.name,
                entries = batch.gaps,
                "entries of the trail cannot be read: told as a gap"
            );
        }
        Ok(())
    }

    /// The receiver failed: what it confirmed a little earlier, it may have lost with its memory.
    fn step_back(&mut self, cursor: &mut Cursor) -> Result<(), Trouble> {
        let is_forgetful = self.sender.again_entries() > 0;
        let oldest = self.marks.drain(..).next();
        let Some(mark) = oldest.filter(|mark| is_forgetful && mark.next < cursor.next) else {
            return Ok(());
        };
        self.seen = None;
        (cursor.next, cursor.last) = (mark.next, mark.last);
        self.state.keep(self.name, cursor).map_err(Trouble::ours)
    }
}

/// The trail must be the one that was forwarded, and must not have lost anything of it.
pub(crate) fn check_history(
    cursor: &Cursor,
    reader: &mut Reader<'_>,
    origin: &str,
    size: u64,
) -> Result<(), Trouble> {
    if cursor.origin != origin {
        let what = format!("the trail is `{origin}`, and `{}` was forwarded before", cursor.origin);
        return Err(Trouble::ours(what));
    }
    if cursor.next > size {
        let what = format!(
            "the trail has {size} entries, and {} were forwarded: it was put back to an older state",
            cursor.next
        );
        return Err(Trouble::ours(what));
    }
    let (Some(last), Some(before)) = (&cursor.last, cursor.next.checked_sub(1)) else { return Ok(()) };
    match reader.entry(before) {
        Ok((leaf, _)) if leaf.to_string() != *last => {
            let what =
                format!("entry {before} is not the one that was forwarded: the trail has another history");
            Err(Trouble::ours(what))
        }
        // What cannot be read any more cannot be compared; it was forwarded.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What is wrong, said once in the log and kept for `status`.
#[derive(Debug)]
pub(crate) struct Complaint<'s> {
    name: &'s str,
    state: &'s State,
    current: Option<Ailment>,
}

impl<'s> Complaint<'s> {
    pub(crate) fn new(name: &'s str, state: &'s State) -> Self {
        state.tell(name, None);
        Self { name, state, current: None }
    }

    /// Something is wrong.
    pub(crate) fn is(&mut self, what: &str) {
        let what = escape(what);
        if self.current.as_ref().is_some_and(|current| current.what == what) {
            return;
        }
        tracing::warn!(receiver = self.name, %what, "not forwarded; it will be tried again");
        let since = self.current.as_ref().map_or_else(clock::now, |current| current.since);
        let ailment = Ailment { since, what };
        self.state.tell(self.name, Some(&ailment));
        self.current = Some(ailment);
    }

    /// Nothing is wrong any more.
    pub(crate) fn is_over(&mut self) {
        if self.current.take().is_some() {
            tracing::info!(receiver = self.name, "forwarding again");
            self.state.tell(self.name, None);
        }
    }
}
