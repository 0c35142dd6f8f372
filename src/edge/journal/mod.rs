//! The journal: durable, tamper-evident storage of audit records.
//!
//! Owns: the audit directory, its writer and publisher threads, and the receipts that let bytes leave.
//! Must never: acknowledge a record that is not on disk; go on after a failed write; create a trail by opening one.
//! Look next: `writer` for the commit, `publisher` for the tiles, `inspect` for verification, `docs/audit.md`
//! for the layout and for what a crash leaves behind at each step.

mod backup;
mod datakeys;
mod entry;
mod frame;
mod inspect;
mod keys;
mod layout;
mod newest;
mod open;
mod prove;
mod publisher;
mod reader;
mod reserve;
mod retention;
mod rotation;
mod segments;
mod shipment;
mod snapshot;
mod spare;
#[cfg(test)]
mod tests;
mod verifier;
mod withheld;
mod witnessed;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::clock;
use crate::domain::audit::{self, EncodeError, Ending, Outcome, Record};
use crate::edge::telemetry::Telemetry;
use crate::limits::{JOURNAL_QUEUE_KIB_MAX, JOURNAL_QUEUE_WAIT_MS_MAX, JOURNAL_SLOTS_MAX};

pub use backup::{BackupError, back_up, restore, verify_copy};
pub use inspect::{Finding, Inspection, Request, inspect};
pub use keys::{
    KeyError, Keys, KeysMade, derived_secret, generate_encryption_key, generate_missing, keep_secret,
    lasting_seal,
};
pub(in crate::edge) use keys::{make_signing_key, signing_key};
pub use layout::{Presence, presence};
pub(in crate::edge) use layout::{make_directory, replace, sync_directory};
pub use open::{OpenError, create};
pub use prove::{Asked, entries_of_request, prove, verifier};
pub use reader::{Found, Reader};
pub use retention::{Plan, Retained, hold_id, holds, plan, retain};
pub use rotation::Rotated;
pub use shipment::{RightEdge, full_tiles, is_beside};
pub use snapshot::{Entry, read_entries};
pub use witnessed::{Demand, Publication, Witnessed};

/// Where the trail is and which keys it uses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The audit directory; made by [`create`], never by [`Journal::open`].
    pub directory: PathBuf,
    /// Ed25519 key, PKCS#8 PEM.
    pub signing_key: PathBuf,
    /// 32 bytes, base64.
    pub encryption_key: PathBuf,
}

/// Why a record was not made durable. Whatever the reason, nothing may be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalError {
    /// The queue stayed full for `JOURNAL_QUEUE_WAIT_MS_MAX`.
    Busy,
    /// One append is larger than a group commit can be: release the answer in units.
    TooLarge,
    /// The disk is full. The journal is out of service until it is opened again.
    DiskFull,
    /// A write, a sync or a check of the directory failed. Out of service until it is opened again.
    Failed(Arc<str>),
    /// The same, and it happened behind the writing of these very records: they may stand in the trail or not.
    Doubtful,
    /// The journal was closed.
    Closed,
}

impl fmt::Display for JournalError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => out.write_str("audit journal is busy"),
            Self::TooLarge => out.write_str("audit record is too large for one commit"),
            Self::DiskFull => out.write_str("audit disk is full; the journal is out of service"),
            Self::Failed(why) => write!(out, "audit journal is out of service: {why}"),
            Self::Doubtful => out.write_str("audit journal failed; whether the record stands is not known"),
            Self::Closed => out.write_str("audit journal is closed"),
        }
    }
}

impl JournalError {
    /// Whether the journal takes nothing any more, and nothing of what was asked stands in the trail: then the reserve
    /// may take it.
    #[must_use]
    pub fn is_out_of_service(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Failed(_))
    }
}

impl std::error::Error for JournalError {}

/// Proof that records are on disk. Only the writer makes one, after the sync.
#[derive(Debug)]
#[must_use = "a receipt is what lets an answer leave"]
pub struct Receipt {
    sequence: u64,
    kept: Kept,
}

/// Where records are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the log.
    Log,
    /// In the reserve, until the journal is opened again and takes them over.
    Reserve,
}

impl Receipt {
    /// The sequence number (entry index) of the first record it is for, in the log or in the reserve.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where the records are.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept
    }
}

/// How the reserve stands, as `/readyz` and the metrics say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveState {
    /// There is none.
    None,
    /// The journal works, and nothing is in it.
    Ready,
    /// It takes records in the journal's place.
    InUse,
    /// It took records, and takes no more: a write to it failed.
    Broken,
}

impl ReserveState {
    /// `none`, `ready`, `in-use` or `broken`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ready => "ready",
            Self::InUse => "in-use",
            Self::Broken => "broken",
        }
    }
}

/// A place in the journal, reserved with a release, in which the answer's outcome will be written. It never
/// waits and never fails for want of room. Dropped without [`Slot::finish`] it records `cut-off`: the
/// request's task was cancelled because the client left.
#[must_use = "the outcome of a release must be recorded"]
pub struct Slot {
    request_id: String,
    reserve: bool,
    place: Option<(mpsc::Sender<Message>, OwnedSemaphorePermit)>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Slot").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl Slot {
    /// Records how it ended. `sent_bytes`: body bytes handed to the client's connection.
    pub fn finish(mut self, time: Timestamp, ending: Ending, sent_bytes: Option<u64>) {
        self.speak(time, ending, sent_bytes);
    }

    fn speak(&mut self, time: Timestamp, ending: Ending, sent_bytes: Option<u64>) {
        let Some((queue, permit)) = self.place.take() else { return };
        let request_id = std::mem::take(&mut self.request_id);
        let outcome = Record::Outcome(Outcome { time, request_id, entry: None, ending, sent_bytes });
        // An outcome is one short part: its texts are bounded. If the journal has failed or closed there is
        // nobody to tell; the release then stands without an outcome, which reads as `unknown`.
        if let Ok(parts) = audit::encode(&outcome) {
            let (reserve, room) = (self.reserve, Some(permit));
            let _gone = queue.send(Message::Append(Append { parts, done: None, room, reserve }));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.speak(clock::now(), Ending::CutOff, None);
    }
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries in the trail.
    pub size: u64,
    /// Entries written since the journal was opened.
    pub entries: u64,
    /// Group commits since then.
    pub commits: u64,
    /// Appends that failed since then.
    pub failures: u64,
    /// How long the last commit took, in microseconds.
    pub last_commit_micros: u64,
    /// Bytes of entries that wait for their tiles.
    pub backlog_bytes: u64,
    /// Older entries whose bytes were not verified yet since the journal was opened.
    pub unverified: u64,
}

/// The open journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    state: Arc<State>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Journal").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the trail: takes its lock, verifies all of a short trail, and of a long one every hash tile above the entries and the
    /// newest of those; drops a torn tail that no answer depended on, and starts the writer. Blocks for as long as that takes. What was
    /// passed over is verified from then on, and puts the journal out of service if anything is wrong with it.
    ///
    /// # Errors
    /// [`OpenError`] when the directory is missing, in use, not by these keys, or does not verify.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        Self::open_for(settings, open::Purpose::Writing)
    }

    /// The same, to change the key by [`Journal::rotate_key`]: also where that was done before, and the new key was lost before
    /// the configuration named it.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_to_rotate(settings: &Settings) -> Result<Self, OpenError> {
        Self::open_for(settings, open::Purpose::Rotation)
    }

    fn open_for(settings: &Settings, purpose: open::Purpose) -> Result<Self, OpenError> {
        Self::open_trusting(settings, (purpose, purpose.trust()))
    }

    fn open_trusting(
        settings: &Settings,
        purpose: (open::Purpose, Option<inspect::Trust>),
    ) -> Result<Self, OpenError> {
        let (sender, receiver) = mpsc::channel();
        let state = Arc::new(State::default());
        open::start(settings, purpose, receiver, Arc::clone(&state))?;
        Ok(Self {
            queue: sender,
            room: Arc::new(Semaphore::new(usize::try_from(JOURNAL_QUEUE_KIB_MAX).unwrap_or(1))),
            slots: Arc::new(Semaphore::new(JOURNAL_SLOTS_MAX)),
            state,
        })
    }

    /// Writes `records` in one group commit. Returns when they are on disk.
    ///
    /// # Errors
    /// [`JournalError`]; none of the records may be relied on then.
    pub async fn append(&self, records: &[Record]) -> Result<Receipt, JournalError> {
        let answer = self.try_append(records, false).await;
        if answer.is_err() {
            self.state.failures.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Writes a release (and what else belongs to it) and reserves the place for its outcome, which will
    /// carry `request_id`.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub async fn release(
        &self,
        request_id: &str,
        records: &[Record],
    ) -> Result<(Receipt, Slot), JournalError> {
        let slot = wait(Arc::clone(&self.slots).acquire_owned()).await;
        let slot = slot.inspect_err(|_| {
            self.state.failures.fetch_add(1, Ordering::Relaxed);
        })?;
        let receipt = self.append(records).await?;
        let place = Some((self.queue.clone(), slot));
        Ok((receipt, Slot { request_id: request_id.to_owned(), reserve: false, place }))
    }

    /// Writes a release into the reserve, after [`Journal::release`] said that the journal is out of service
    /// ([`JournalError::is_out_of_service`]). For answers that policy lets leave like this and for no others.
    ///
    /// # Errors
    /// As [`Journal::append`], and why the journal is out of service where the reserve cannot take it: there is none, it
    /// is full, its own write failed, or the journal's fault is none of writing.
    pub async fn release_in_reserve(
        &self,
        request_id: &str,
        records: &[Record],
    ) -> Result<(Receipt, Slot), JournalError> {
        let slot = wait(Arc::clone(&self.slots).acquire_owned()).await?;
        let receipt = self.try_append(records, true).await?;
        let place = Some((self.queue.clone(), slot));
        Ok((receipt, Slot { request_id: request_id.to_owned(), reserve: true, place }))
    }

    /// The same for what has no answer of its own, such as the beginning of an emergency.
    ///
    /// # Errors
    /// As [`Journal::release_in_reserve`].
    pub async fn append_in_reserve(&self, records: &[Record]) -> Result<Receipt, JournalError> {
        self.try_append(records, true).await
    }

    /// Has a reserve of so many bytes stand ready, or none: makes it, or removes an unused one, and says so in the trail.
    ///
    /// # Errors
    /// [`JournalError::Failed`] when it cannot be made; as [`Journal::append`].
    pub async fn keep_reserve(&self, bytes: Option<u64>) -> Result<(), JournalError> {
        let (done, kept) = oneshot::channel();
        self.queue.send(Message::Reserve(bytes, done)).map_err(|_| JournalError::Closed)?;
        kept.await.map_err(|_| JournalError::Closed)?
    }

    /// Has the key in the file `next` open the trail from now on, in the place of the configured one, and says so in the trail.
    ///
    /// # Errors
    /// [`JournalError::Failed`] when it cannot be done, or only in part: then the configured key still opens the trail.
    pub async fn rotate_key(&self, next: &std::path::Path) -> Result<Rotated, JournalError> {
        let next = keys::outer_key(next).map_err(|error| JournalError::Failed(error.to_string().into()))?;
        let (done, rotated) = oneshot::channel();
        let message = Message::RotateKey(Box::new(next), done);
        self.queue.send(message).map_err(|_| JournalError::Closed)?;
        rotated.await.map_err(|_| JournalError::Closed)?
    }

    /// How the reserve stands.
    #[must_use]
    pub fn reserve(&self) -> ReserveState {
        self.state.reserve()
    }

    /// Whether appends are being taken.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.state.failure().is_none() && !self.room.is_closed()
    }

    /// From now on every group commit is told to `telemetry`; only the first call counts.
    pub fn report_to(&self, telemetry: Telemetry) {
        let _first_stays = self.state.telemetry.set(telemetry);
        self.state.tell_unverified();
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state.counters()
    }

    /// The newest state of the log whose tiles are all there, now and from now on; what witnesses are shown.
    #[must_use]
    pub fn publications(&self) -> watch::Receiver<Option<Arc<Publication>>> {
        self.state.publications.subscribe()
    }

    /// Refuses further appends, writes what is queued, brings the tiles up to date and releases the lock.
    /// Outcomes of slots that finish later are lost: close after the last answer ended.
    ///
    /// # Errors
    /// The failure that put the journal out of service, if one did.
    pub async fn close(&self) -> Result<(), JournalError> {
        self.room.close();
        let (done, ended) = oneshot::channel();
        if self.queue.send(Message::Close(done)).is_ok() {
            // The sender is dropped without a word when another close came first.
            let _closed = ended.await;
        }
        self.check()
    }

    async fn try_append(&self, records: &[Record], reserve: bool) -> Result<Receipt, JournalError> {
        let mut parts = Vec::with_capacity(records.len());
        for record in records {
            parts.extend(audit::encode(record).map_err(|error| match error {
                EncodeError::TooLarge => JournalError::TooLarge,
                EncodeError::Unwritable => JournalError::Failed(error.to_string().into()),
            })?);
        }
        if parts.is_empty() {
            // A receipt for nothing would let something leave; and a frame of nothing is no frame.
            return Err(JournalError::Failed("nothing was given to record".into()));
        }
        let kib = parts.iter().map(Vec::len).sum::<usize>() / 1024 + 1;
        let kib = u32::try_from(kib).map_err(|_| JournalError::TooLarge)?;
        if kib > JOURNAL_QUEUE_KIB_MAX / 2 {
            return Err(JournalError::TooLarge);
        }
        if !reserve {
            self.check()?;
        }
        let room = wait(Arc::clone(&self.room).acquire_many_owned(kib)).await?;
        let (done, receipt) = oneshot::channel();
        let message = Message::Append(Append { parts, done: Some(done), room: Some(room), reserve });
        self.queue.send(message).map_err(|_| JournalError::Closed)?;
        receipt.await.map_err(|_| JournalError::Closed)?
    }

    /// That appends are being taken.
    ///
    /// # Errors
    /// Why they are not.
    pub fn in_service(&self) -> Result<(), JournalError> {
        if self.room.is_closed() { Err(JournalError::Closed) } else { self.check() }
    }

    fn check(&self) -> Result<(), JournalError> {
        self.state.failure().cloned().map_or(Ok(()), Err)
    }
}

/// Waits for room, but not for ever.
async fn wait(
    room: impl Future<Output = Result<OwnedSemaphorePermit, tokio::sync::AcquireError>>,
) -> Result<OwnedSemaphorePermit, JournalError> {
    match tokio::time::timeout(Duration::from_millis(JOURNAL_QUEUE_WAIT_MS_MAX), room).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(JournalError::Closed),
        Err(_) => Err(JournalError::Busy),
    }
}

/// What the writer is asked to do.
enum Message {
    Append(Append),
    /// A reserve of so many bytes is to stand ready, or none.
    Reserve(Option<u64>, oneshot::Sender<Result<(), JournalError>>),
    /// Data keys are to be wrapped for another key.
    RotateKey(Box<entry::Cipher>, oneshot::Sender<Result<Rotated, JournalError>>),
    Close(oneshot::Sender<()>),
}

/// Encoded records that wait for a commit.
struct Append {
    parts: Vec<Vec<u8>>,
    /// Who waits; nobody for outcomes.
    done: Option<oneshot::Sender<Result<Receipt, JournalError>>>,
    /// Held until the commit, so that the queue stays bounded.
    room: Option<OwnedSemaphorePermit>,
    /// The reserve may take it when the journal cannot.
    reserve: bool,
}

/// Why the journal is out of service.
#[derive(Debug)]
struct Failure {
    error: JournalError,
    /// The disk would not take what was written. Where somebody touched the files instead, nothing is written anywhere.
    of_writing: bool,
}

/// What the threads and the handles share.
#[derive(Debug, Default)]
struct State {
    failure: OnceLock<Failure>,
    reserve: AtomicU8,
    telemetry: OnceLock<Telemetry>,
    publications: watch::Sender<Option<Arc<Publication>>>,
    size: AtomicU64,
    entries: AtomicU64,
    commits: AtomicU64,
    failures: AtomicU64,
    last_commit_micros: AtomicU64,
    backlog_bytes: AtomicU64,
    unverified: AtomicU64,
}

impl State {
    /// Puts the journal out of service for good; the first reason stays. `place`: what was under way.
    fn fail(&self, place: &str, error: &io::Error) {
        // Our own faults, and those of `Held::check`, have no number of the operating system's.
        let of_writing = error.raw_os_error().is_some() || error.kind() == io::ErrorKind::WriteZero;
        let error = writer::failure(place, error);
        let _first_stays = self.failure.set(Failure { error, of_writing });
    }

    /// Says how many entries the verifier has still to read.
    fn tell_unverified(&self) {
        if let Some(telemetry) = self.telemetry.get() {
            telemetry.journal_unverified(self.unverified.load(Ordering::Relaxed));
        }
    }

    fn failure(&self) -> Option<&JournalError> {
        self.failure.get().map(|failure| &failure.error)
    }

    fn set_reserve(&self, state: ReserveState) {
        self.reserve.store(state as u8, Ordering::Relaxed);
    }

    fn reserve(&self) -> ReserveState {
        let number = self.reserve.load(Ordering::Relaxed);
        let all = [ReserveState::None, ReserveState::Ready, ReserveState::InUse, ReserveState::Broken];
        all.into_iter().find(|state| *state as u8 == number).unwrap_or(ReserveState::None)
    }

    fn counters(&self) -> Counters {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counters {
            size: read(&self.size),
            entries: read(&self.entries),
            commits: read(&self.commits),
            failures: read(&self.failures),
            last_commit_micros: read(&self.last_commit_micros),
            backlog_bytes: read(&self.backlog_bytes),
            unverified: read(&self.unverified),
        }
    }
}
