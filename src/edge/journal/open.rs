//! Creating a trail, and opening one after whatever happened to it.
//!
//! Owns: the lock, recovery of the right edge, and starting the threads.
//! Must never: create anything when opening; drop bytes that an answer depended on.
//! Look next: `writer`, whose header says what a crash leaves.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use aws_lc_rs::rand;
use jiff::Timestamp;

use super::datakeys::{Sealer, hex};
use super::entry::PACKED;
use super::inspect::{self, Finding, Inspection, Reading, Request, Resume, Trust};
use super::keys::{KeyError, Keys};
use super::layout::{
    CHECKPOINT, LOCK, PUBLISHED, RESERVE, SEGMENTS, make_directory, replace, segment_path, sync_directory,
};
use super::newest::Newest;
use super::publisher::Publisher;
use super::rotation::settle;
use super::witnessed::Demand;
use super::writer::{Held, Writer, new_segment};
use super::{JournalError, Message, Settings, State, reserve, verifier};
use crate::domain::audit::{self, Control, Event, Record};
use crate::domain::ledger::{Checkpoint, Frontier, Hash, leaf_hash, sign};
use crate::limits::{ENTRIES_READ_AT_OPEN_MIN, SEGMENT_ENTRIES_AT_OPEN_MAX};

/// Why a trail was not opened or created.
#[derive(Debug)]
pub enum OpenError {
    /// The directory does not exist.
    Missing(PathBuf),
    /// The directory exists and is not empty.
    NotEmpty(PathBuf),
    /// Another process holds the lock.
    InUse(PathBuf),
    /// A key cannot be used.
    Key(KeyError),
    /// The key was changed; the new one has this id.
    KeyRotated(String),
    /// The trail does not verify: what was found first, and how much more.
    Damaged(Finding, usize),
    /// Reading or writing failed.
    File(PathBuf, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(
                out,
                "there is no audit trail in `{}`; `chartgate audit init` makes one",
                path.display()
            ),
            Self::NotEmpty(path) => write!(out, "`{}` exists and is not empty", path.display()),
            Self::InUse(path) => write!(out, "the audit trail `{}` is in use", path.display()),
            Self::Key(error) => fmt::Display::fmt(error, out),
            Self::KeyRotated(next) => write!(
                out,
                "the key of the audit trail was changed: `audit.encryption_key` must name the new one, with the id {next}"
            ),
            Self::Damaged(finding, 0) => write!(out, "the audit trail does not verify: {finding}"),
            Self::Damaged(finding, more) => {
                write!(out, "the audit trail does not verify: {finding} (and {more} more)")
            }
            Self::File(path, error) => write!(out, "audit directory `{}`: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<KeyError> for OpenError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

/// Makes the audit directory with a first control record. The keys must exist.
///
/// # Errors
/// [`OpenError::NotEmpty`] when there is something in the directory already.
pub fn create(settings: &Settings, time: Timestamp) -> Result<(), OpenError> {
    let keys = Keys::load(settings)?;
    let directory = &settings.directory;
    let fault = |error: io::Error| OpenError::File(directory.clone(), error);
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(OpenError::NotEmpty(directory.clone()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(directory).map_err(fault)?;
        }
        Err(error) => return Err(fault(error)),
    }
    fill(directory, &keys, time).map_err(fault)
}

/// Writes a log of one entry. The checkpoint comes last: without it nothing opens or verifies.
fn fill(directory: &Path, keys: &Keys, time: Timestamp) -> io::Result<()> {
    let mut name = [0; 16];
    rand::fill(&mut name).map_err(io::Error::other)?;
    let origin = name.iter().fold("chartgate/".to_owned(), |name, byte| format!("{name}{byte:02x}"));
    make_directory(&directory.join(SEGMENTS))?;
    let mut sealer = Sealer::make(directory, &origin, keys, 0, None)?;
    let parts = audit::encode(&created(&origin, keys, time)).map_err(io::Error::other)?;
    let mut frontier = Frontier::default();
    let mut entries = Vec::new();
    for part in &parts {
        let entry = sealer.pack(&origin, frontier.size(), part).map_err(io::Error::other)?;
        frontier.push(leaf_hash(&entry));
        entries.push(entry);
    }
    let note = |size, root| {
        let checkpoint = Checkpoint { origin: origin.clone(), size, root };
        sign(&keys.signer, &checkpoint).map_err(io::Error::other)
    };
    let first = note(frontier.size(), frontier.root())?;
    let frame = super::frame::write(0, &entries, &first).map_err(io::Error::other)?;
    let segment = new_segment(directory, 0)?;
    io::Write::write_all(&mut &segment.file, &frame)?;
    segment.file.sync_all()?;
    // No tiles yet: what is published is the empty tree. Opening brings the tiles up to date.
    replace(&directory.join(PUBLISHED), &note(0, Hash::of(&[]))?)?;
    replace(&directory.join(CHECKPOINT), &first)?;
    sync_directory(directory)?;
    directory.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_directory)
}

fn created(origin: &str, keys: &Keys, time: Timestamp) -> Record {
    let details = BTreeMap::from([
        ("origin".to_owned(), origin.to_owned()),
        ("signingKey".to_owned(), keys.signer.key().verifier(origin)),
        ("encryptionKeyId".to_owned(), keys.encryption_key_id()),
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    Record::Control(Control { time, event: Event::Created, details })
}

/// What a trail is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Writing,
    /// Changing the key, perhaps once more.
    Rotation,
}

impl Purpose {
    /// The newest 65,536 published entries are read before the first answer, and so are the first ones; older ones by
    /// `verifier`, unless every key is about to be wrapped again.
    pub(super) fn trust(self) -> Option<Trust> {
        let trust = Trust { level: 1, newest: ENTRIES_READ_AT_OPEN_MIN };
        (self == Self::Writing).then_some(trust)
    }
}

/// Opens the trail and starts its threads. With `trust`, so much is taken from hash tiles at first.
pub(super) fn start(
    settings: &Settings,
    (purpose, trust): (Purpose, Option<Trust>),
    queue: mpsc::Receiver<Message>,
    state: Arc<State>,
) -> Result<(), OpenError> {
    let directory = settings.directory.clone();
    if !directory.is_dir() {
        return Err(OpenError::Missing(directory));
    }
    let keys = Keys::load(settings)?;
    let fault = |error: io::Error| OpenError::File(settings.directory.clone(), error);
    // A trail that was never made gets no lock file either: nothing is created by opening.
    if !directory.join(CHECKPOINT).exists() && !directory.join(SEGMENTS).exists() {
        return Err(OpenError::Missing(directory));
    }
    let lock = take_lock(&directory)?;
    // A reserve that holds something may have been taken over already: only the records tell.
    let decode = fs::read(directory.join(RESERVE)).is_ok_and(|bytes| reserve::is_used(&bytes));
    let demand = Demand::default();
    let request = Request { decode, against: None, demand };
    let mut at_once = || Ok(());
    let reading = trust.map_or(Reading::Whole(&mut at_once), Reading::Start);
    let found = inspect::read(&directory, &keys, request, reading).map_err(fault)?;
    if let Some((first, more)) = found.findings.split_first() {
        return Err(OpenError::Damaged(first.clone(), more.len()));
    }
    let successor = found.resume.key_files.successor().filter(|next| *next != keys.cipher.id());
    if let Some(next) = successor.filter(|_| purpose == Purpose::Writing) {
        return Err(OpenError::KeyRotated(hex(next)));
    }
    let unread = found.resume.unread;
    // The writer takes the others.
    let behind = (unread > 0).then(|| Keys::load(settings)).transpose()?;
    launch(directory, keys, lock, found, queue, Arc::clone(&state)).map_err(fault)?;
    behind.map_or(Ok(()), |keys| {
        verifier::start(settings.directory.clone(), keys, &state, unread).map_err(fault)
    })
}

fn take_lock(directory: &Path) -> Result<Held, OpenError> {
    let path = directory.join(LOCK);
    let fault = |error: io::Error| OpenError::File(directory.to_owned(), error);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Held::new(path, file).map_err(fault),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(fault(error)),
    }
}

/// Repairs the right edge and starts writer and publisher. Each repair may be repeated: a crash during one
/// leaves what the next opening repairs again.
fn launch(
    directory: PathBuf,
    keys: Keys,
    lock: Held,
    found: Inspection,
    queue: mpsc::Receiver<Message>,
    state: Arc<State>,
) -> io::Result<()> {
    let Inspection { origin, size, published_size, mut resume, .. } = found;
    let (reserve, acknowledged) = (resume.reserve.take(), (size, resume.frontier.root()));
    let (mut segment_first, mut segment_bytes) = repair(&directory, &resume)?;
    settle(&directory, &origin, &keys, &resume.key_files, &resume.used_keys)?;
    let path = directory.join(segment_path(segment_first));
    let file = OpenOptions::new().append(true).open(&path)?;
    let mut segment = Held::new(path, file)?;
    let is_full = size.saturating_sub(segment_first) >= SEGMENT_ENTRIES_AT_OPEN_MAX;
    let begins = is_full || size == segment_first;
    let sealer = sealer(&directory, &origin, &keys, &resume, (size, begins))?;
    if is_full {
        segment = new_segment(&directory, size)?;
        resume.segments.push((size, size, 0));
        (segment_first, segment_bytes) = (size, 0);
    }
    let newest = Arc::new(Mutex::new(Newest::open(&directory)?));
    state.size.store(size, Ordering::Relaxed);
    let publisher = publisher((&directory, &newest), &state, &resume, size, published_size);
    let (news, latest) = mpsc::channel();
    let publisher =
        thread::Builder::new().name("audit-publisher".to_owned()).spawn(move || publisher.run(&latest))?;
    let frontier = resume.frontier;
    let mut writer = Writer {
        directory,
        origin,
        keys,
        sealer,
        next_key: None,
        state,
        frontier,
        lock,
        newest,
        segment,
        segment_first,
        segment_bytes,
        news,
        publisher,
        acknowledged,
        reserve: None,
    };
    if let Some((contents, is_taken_over)) = reserve {
        writer.take_over(&contents, is_taken_over)?;
    }
    thread::Builder::new().name("audit-writer".to_owned()).spawn(move || writer.run(&queue))?;
    Ok(())
}

/// What the next entries are sealed with: the data key of the newest entry, or a new one at the beginning of a segment and in a
/// trail that has none.
fn sealer(
    directory: &Path,
    origin: &str,
    keys: &Keys,
    resume: &Resume,
    (size, begins): (u64, bool),
) -> io::Result<Sealer> {
    let last = resume.last_sealed.filter(|(version, _)| *version == PACKED && !begins);
    let file = last.and_then(|(_, id)| resume.key_files.files.iter().find(|file| file.id == id));
    match file {
        Some(file) => Sealer::hold(directory, file.cipher(origin, keys).map_err(io::Error::other)?),
        None => Sealer::make(directory, origin, keys, size, None),
    }
}

/// Drops a torn tail and brings `checkpoint` up to the last whole frame. Answers the active segment.
fn repair(directory: &Path, resume: &Resume) -> io::Result<(u64, u64)> {
    let missing = || io::Error::other("there is no segment");
    let &(first, _, bytes) = resume.segments.last().ok_or_else(missing)?;
    let bytes = u64::try_from(bytes).map_err(io::Error::other)?;
    if resume.torn_bytes > 0 {
        let file = OpenOptions::new().write(true).open(directory.join(segment_path(first)))?;
        file.set_len(bytes)?;
        file.sync_all()?;
    }
    if !resume.is_current {
        rewrite(&directory.join(segment_path(first)), bytes)?;
        replace(&directory.join(CHECKPOINT), &resume.note)?;
        sync_directory(directory)?;
    }
    Ok((first, bytes))
}

/// Writes a segment's bytes again over themselves, and syncs. A whole frame behind the checkpoint may be in the
/// page cache only, even after an fsync that failed, so syncing what is there could lie; and truncating first
/// could lose what an earlier process acknowledged.
fn rewrite(path: &Path, bytes: u64) -> io::Result<()> {
    let content = fs::read(path)?;
    let whole = usize::try_from(bytes).ok().and_then(|bytes| content.get(..bytes));
    let whole = whole.ok_or_else(|| io::Error::other("the segment shrank while it was opened"))?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, whole)?;
    file.sync_all()
}

/// The publisher as it would be had it run all along.
fn publisher(
    (directory, newest): (&Path, &Arc<Mutex<Newest>>),
    state: &Arc<State>,
    resume: &Resume,
    size: u64,
    published_size: u64,
) -> Publisher {
    let closed = resume.segments.split_last().map_or(&[][..], |(_, closed)| closed);
    let mut publisher = Publisher {
        directory: directory.to_owned(),
        newest: Arc::clone(newest),
        state: Arc::clone(state),
        size: published_size / 256 * 256,
        tiles: resume.tiles.clone(),
        bundle: Vec::new(),
        ready: Vec::new(),
        note: None,
        waiting_bytes: 0,
        partial: resume.partial.clone(),
        closed: closed.iter().map(|(first, end, _)| (*first, *end)).collect::<VecDeque<_>>(),
    };
    publisher.take(&resume.entries, resume.note.clone());
    state.backlog_bytes.store(publisher.waiting_bytes, Ordering::Relaxed);
    if published_size == size {
        publisher.note = None;
        publisher.tell(resume.note.clone());
    }
    publisher
}

/// Failures of opening that a running journal would call out of service.
impl From<OpenError> for JournalError {
    fn from(error: OpenError) -> Self {
        Self::Failed(error.to_string().into())
    }
}
