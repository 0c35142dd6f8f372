//! The writer: one thread, one group commit after the other.
//!
//! Owns: the active segment, and the only place where receipts are made.
//! Must never: acknowledge before the sync; try a failed write again (a failed fsync may have dropped pages: a
//! second one would lie); go on when the files under it were touched.
//! Look next: `publisher` for the tiles, `open` for recovery, `spare` for what happens out of service.
//!
//! One commit, and what a crash leaves after each step:
//!
//! 1. The frame (entries, and the signed checkpoint over the log with them) is appended to the segment. Crash:
//!    a torn frame, or a whole one. Nobody was answered. Recovery drops a torn one and keeps a whole one, which
//!    then is the record of a release that did not happen: too much evidence is no harm.
//! 2. The segment is synced. From here on the records survive everything.
//! 3. The checkpoint is written beside its name, over the one before the last (`newest`).
//! 4. Lock, data key, segment and checkpoint are looked up by name: they must still be the files we hold.
//! 5. The two checkpoints change places. Nothing of that is synced: after a kill the new one is there
//!    (so a cut tail is found by its size), after a power cut it may be an earlier one, and recovery takes the
//!    newer checkpoint from the frame, which is synced and signed. So acknowledging depends on step 2 alone.
//! 6. Everyone in the batch is answered.
//!
//! When step 1 fails nothing of the batch stands, and the reserve may take it; behind step 1 nobody knows (`Doubtful`).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::datakeys::Sealer;
use super::entry::Cipher;
use super::keys::Keys;
use super::layout::{SEGMENTS, create_file, segment_path, sync_directory};
use super::newest::{self, Newest};
use super::publisher::{News, bytes_of};
use super::reserve::file::Reserve;
use super::{Append, JournalError, Kept, Message, Receipt, State, frame};
use crate::domain::ledger::{Checkpoint, Frontier, Hash, leaf_hash, sign};
use crate::limits::{COMMIT_BYTES_MAX, OUTCOME_LINGER_MS, PUBLISH_BACKLOG_BYTES_MAX, SEGMENT_BYTES_MAX};

/// A file we hold and the name it must have.
pub(super) struct Held {
    path: PathBuf,
    pub(super) file: File,
    mode: u32,
}

impl Held {
    pub(super) fn new(path: PathBuf, file: File) -> io::Result<Self> {
        let mode = file.metadata()?.mode();
        Ok(Self { path, file, mode })
    }

    /// The same file, behind another name.
    pub(super) fn at(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// Whether the name still leads to this file, with this length and unchanged permissions.
    pub(super) fn check(&self, length: Option<u64>) -> io::Result<()> {
        // A name that is gone is no fault of writing: the error carries no number of the operating system's.
        let named = fs::symlink_metadata(&self.path).map_err(|error| self.lost(&error))?;
        let held = self.file.metadata().map_err(|error| self.lost(&error))?;
        let is_same = (held.dev(), held.ino()) == (named.dev(), named.ino());
        let is_whole = length.is_none_or(|length| named.len() == length);
        if is_same && is_whole && named.mode() == self.mode {
            return Ok(());
        }
        Err(io::Error::other(format!("`{}` was changed by someone else", self.path.display())))
    }

    fn lost(&self, error: &io::Error) -> io::Error {
        io::Error::other(format!("`{}` cannot be looked up: {error}", self.path.display()))
    }
}

/// The writer's state.
pub(super) struct Writer {
    pub(super) directory: PathBuf,
    pub(super) origin: String,
    pub(super) keys: Keys,
    /// What entries are sealed with: a data key for each segment.
    pub(super) sealer: Sealer,
    /// The key that data keys are wrapped for too, once `rotation` has wrapped those that were there.
    pub(super) next_key: Option<Cipher>,
    pub(super) state: Arc<State>,
    pub(super) frontier: Frontier,
    pub(super) lock: Held,
    pub(super) newest: Arc<Mutex<Newest>>,
    pub(super) segment: Held,
    pub(super) segment_first: u64,
    pub(super) segment_bytes: u64,
    pub(super) news: Sender<News>,
    pub(super) publisher: JoinHandle<()>,
    /// Size and root of the log as it was last acknowledged.
    pub(super) acknowledged: (u64, Hash),
    /// What takes records when the log cannot.
    pub(super) reserve: Option<Reserve>,
}

/// A commit that failed.
struct CommitFault {
    error: io::Error,
    /// Its bytes had been handed to the disk: they may stand in the log.
    written: bool,
}

impl From<io::Error> for CommitFault {
    fn from(error: io::Error) -> Self {
        Self { error, written: false }
    }
}

/// How often the files are looked at when nothing is written.
const LOOK: Duration = Duration::from_secs(1);

impl Writer {
    /// Runs until it is told to close or every handle is gone.
    pub(super) fn run(mut self, queue: &Receiver<Message>) {
        let (mut closing, mut next) = (None, None);
        while closing.is_none() {
            match next.take().map_or_else(|| queue.recv_timeout(LOOK), Ok) {
                Ok(Message::Append(first)) => {
                    let (batch, other) = gather(first, queue);
                    next = other;
                    self.commit_or_fail(batch);
                }
                Ok(Message::Reserve(bytes, done)) => {
                    let _nobody_waits = done.send(self.keep_reserve(bytes));
                }
                Ok(Message::RotateKey(next, done)) => {
                    let _nobody_waits = done.send(self.rotate_key(*next));
                }
                Ok(Message::Close(done)) => closing = Some(done),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let Self { news, publisher, lock, newest, .. } = self;
        drop(news);
        let _panicked = publisher.join();
        newest::hold(&newest).clear();
        drop(lock);
        if let Some(done) = closing {
            let _nobody_waits = done.send(());
        }
    }

    /// Notices what was done to the files while nothing was written, so that readiness tells.
    fn look(&self) {
        let reserve = self.reserve.as_ref().map_or(Ok(()), Reserve::check);
        if let Err(error) = self.check_files().and(reserve) {
            self.state.fail("audit directory", &error);
        }
    }

    /// Answers everyone in the batch: committed, kept in the reserve, or neither.
    fn commit_or_fail(&mut self, batch: Vec<Append>) {
        if self.state.failure().is_none() {
            let sequence = self.frontier.size();
            let committed = self.commit(&batch).map(|()| (sequence, Kept::Log)).map_err(|fault| {
                self.state.fail("commit", &fault.error);
                if fault.written { JournalError::Doubtful } else { failure("commit", &fault.error) }
            });
            return answer(batch, committed);
        }
        let (spare, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|append| append.reserve);
        answer(rest, Err(self.failed()));
        if !spare.is_empty() {
            let kept = self.write_reserve(&spare);
            answer(spare, kept.map(|sequence| (sequence, Kept::Reserve)));
        }
    }

    /// Why nothing is committed any more.
    pub(super) fn failed(&self) -> JournalError {
        self.state.failure().cloned().unwrap_or(JournalError::Closed)
    }

    fn commit(&mut self, batch: &[Append]) -> Result<(), CommitFault> {
        let begin = Instant::now();
        let first = self.frontier.size();
        let entries = self.seal(batch)?;
        let (size, root) = (self.frontier.size(), self.frontier.root());
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root };
        let note = sign(&self.keys.signer, &checkpoint).map_err(io::Error::other)?;
        let frame = frame::write(first, &entries, &note).map_err(io::Error::other)?;
        self.segment.file.write_all(&frame)?;
        self.acknowledge(&frame, entries, note, begin)
            .map_err(|error| CommitFault { error, written: true })?;
        self.acknowledged = (size, root);
        Ok(())
    }

    /// A commit of one append that nobody waits for.
    pub(super) fn commit_one(&mut self, append: Append) -> io::Result<()> {
        self.commit(&[append]).map_err(|fault| fault.error)
    }

    /// The steps of a commit behind the writing of its frame.
    fn acknowledge(
        &mut self,
        frame: &[u8],
        entries: Vec<Vec<u8>>,
        note: Vec<u8>,
        begin: Instant,
    ) -> io::Result<()> {
        self.segment.file.sync_data()?;
        self.segment_bytes += bytes_of(frame);
        newest::hold(&self.newest).replace(note.clone(), |newest| self.check_with(newest))?;
        self.count(&entries, begin);
        self.tell(News::Committed { entries, note })?;
        if self.segment_bytes > SEGMENT_BYTES_MAX { self.rotate() } else { Ok(()) }
    }

    /// Encrypts every part for its place, and adds it to the tree.
    fn seal(&mut self, batch: &[Append]) -> io::Result<Vec<Vec<u8>>> {
        let mut entries = Vec::new();
        for part in batch.iter().flat_map(|append| &append.parts) {
            let index = self.frontier.size();
            let entry = self.sealer.pack(&self.origin, index, part).map_err(io::Error::other)?;
            self.frontier.push(leaf_hash(&entry));
            entries.push(entry);
        }
        Ok(entries)
    }

    fn check_files(&self) -> io::Result<()> {
        self.check_with(&newest::hold(&self.newest))
    }

    fn check_with(&self, newest: &Newest) -> io::Result<()> {
        self.lock.check(None)?;
        self.sealer.check()?;
        self.segment.check(Some(self.segment_bytes))?;
        newest.check()
    }

    fn count(&self, entries: &[Vec<u8>], begin: Instant) {
        let state = &self.state;
        state.size.store(self.frontier.size(), Ordering::Relaxed);
        state.entries.fetch_add(entries.len() as u64, Ordering::Relaxed);
        state.commits.fetch_add(1, Ordering::Relaxed);
        let took = begin.elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        state.last_commit_micros.store(micros, Ordering::Relaxed);
        if let Some(telemetry) = state.telemetry.get() {
            telemetry.journal_commit(entries.len() as u64, took);
        }
        let bytes: u64 = entries.iter().map(|entry| bytes_of(entry)).sum();
        state.backlog_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Hands news to the publisher; waits while it is too far behind, so that memory stays bounded.
    fn tell(&self, news: News) -> io::Result<()> {
        while self.state.backlog_bytes.load(Ordering::Relaxed) > PUBLISH_BACKLOG_BYTES_MAX {
            if self.state.failure().is_some() {
                return Err(io::Error::other("the publisher failed"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.news.send(news).map_err(|_| io::Error::other("the publisher is gone"))
    }

    /// Closes the segment and begins the next one, with a data key of its own.
    fn rotate(&mut self) -> io::Result<()> {
        let end = self.frontier.size();
        self.sealer = Sealer::make(&self.directory, &self.origin, &self.keys, end, self.next_key.as_ref())?;
        let next = new_segment(&self.directory, end)?;
        let first = std::mem::replace(&mut self.segment_first, end);
        self.segment = next;
        self.segment_bytes = 0;
        self.tell(News::Closed { first, end })
    }
}

/// A new, empty segment whose name lasts.
pub(super) fn new_segment(directory: &Path, first: u64) -> io::Result<Held> {
    let path = directory.join(segment_path(first));
    let file = create_file(&path)?;
    sync_directory(&directory.join(SEGMENTS))?;
    Held::new(path, file)
}

/// Answers those who wait for a batch. `kept`: the number of its first record, and where they are.
fn answer(batch: Vec<Append>, kept: Result<(u64, Kept), JournalError>) {
    let mut before = 0_u64;
    for append in batch {
        let receipt =
            kept.clone().map(|(sequence, kept)| Receipt { sequence: sequence.saturating_add(before), kept });
        before = before.saturating_add(append.parts.len() as u64);
        if let Some(done) = append.done {
            // The one who asked may have left: the record stands all the same.
            let _left = done.send(receipt);
        }
        drop(append.room);
    }
}

/// Everything that is waiting, up to the bound of one commit, and what else was asked behind it. While it is only outcomes,
/// for which nobody waits, more is waited for: the next release takes them along instead of waiting for a commit of theirs.
fn gather(first: Append, queue: &Receiver<Message>) -> (Vec<Append>, Option<Message>) {
    let size = |append: &Append| append.parts.iter().map(Vec::len).sum::<usize>();
    let until = Instant::now() + Duration::from_millis(OUTCOME_LINGER_MS);
    let (mut bytes, mut waits) = (size(&first), first.done.is_some());
    let mut batch = vec![first];
    while bytes < COMMIT_BYTES_MAX {
        let linger = if waits { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        match queue.recv_timeout(linger) {
            Ok(Message::Append(append)) => {
                bytes += size(&append);
                waits |= append.done.is_some();
                batch.push(append);
            }
            Ok(other) => return (batch, Some(other)),
            Err(_) => break,
        }
    }
    (batch, None)
}

/// What callers are told after `error`: a full disk is told apart.
pub(super) fn failure(place: &str, error: &io::Error) -> JournalError {
    let is_full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    if is_full { JournalError::DiskFull } else { JournalError::Failed(format!("{place}: {error}").into()) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    fn append(done: bool) -> Append {
        Append { parts: vec![vec![0]], done: done.then(|| oneshot::channel().0), room: None, reserve: false }
    }

    /// How many are committed together, and how long they waited for more.
    fn gathered(first: bool, behind: Vec<Message>) -> (usize, bool, Duration) {
        let (sender, queue) = mpsc::channel();
        behind.into_iter().for_each(|message| sender.send(message).unwrap());
        let begin = Instant::now();
        let (batch, other) = gather(append(first), &queue);
        (batch.len(), other.is_some(), begin.elapsed())
    }

    #[test]
    fn outcomes_wait_for_a_release_and_for_nothing_else() {
        let linger = Duration::from_millis(OUTCOME_LINGER_MS);
        let (count, _, waited) = gathered(false, vec![Message::Append(append(false))]);
        assert!(count == 2 && waited >= linger, "{count} after {waited:?}");
        let close = || Message::Close(oneshot::channel().0);
        for (first, behind, count) in [
            (false, vec![Message::Append(append(false)), Message::Append(append(true)), close()], 3),
            (false, vec![close()], 1),
            (true, vec![Message::Append(append(false)), close()], 2),
        ] {
            let (gathered, is_closing, _) = gathered(first, behind);
            assert_eq!((gathered, is_closing), (count, true));
        }
    }
}
