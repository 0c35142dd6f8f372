//! What a witness remembers: the latest cosigned state of every log, in one file.
//!
//! Owns: the file, its lock, and that a state is on disk before anyone is told of it (T-223).
//! Must never: make the file by opening it; go on after a write that failed; let a state go back.
//! Look next: `domain::ledger::judge`, which decides the next state.
//!
//! ```text
//! chartgate witness state 1
//! 1042 CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I= chartgate/0b1c…
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::ledger::{Hash, Known, Refusal};
use crate::edge::journal::{make_directory, replace, sync_directory};
use crate::limits::WITNESS_STATE_BYTES_MAX;

const HEADER: &str = "chartgate witness state 1";

/// Why a witness's state cannot be had.
#[derive(Debug)]
pub enum StoreError {
    /// There is none: `witness init` makes it.
    Missing(PathBuf),
    /// There is one already.
    Exists(PathBuf),
    /// Another witness uses it.
    InUse(PathBuf),
    /// Not what a witness wrote.
    Damaged(PathBuf),
    /// Reading or writing failed.
    File(PathBuf, io::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => {
                write!(
                    out,
                    "there is no witness state `{}`; `chartgate witness init` makes one",
                    path.display()
                )
            }
            Self::Exists(path) => write!(out, "the witness state `{}` is there already", path.display()),
            Self::InUse(path) => write!(out, "the witness state `{}` is in use", path.display()),
            Self::Damaged(path) => write!(out, "`{}` is not the state of a witness", path.display()),
            Self::File(path, error) => write!(out, "witness state `{}`: {error}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {}

/// Why a state was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The rules say no.
    Refused(Refusal),
    /// A write failed, now or before: what is on disk is not known, so nothing is cosigned until the next start.
    Broken,
}

/// The open state. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    _lock: File,
    /// `None` after a write that failed.
    states: Mutex<Option<BTreeMap<String, Known>>>,
}

/// Makes an empty state in a directory of its own, which is made too.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let fault = |error: io::Error| StoreError::File(path.to_owned(), error);
    if path.exists() {
        return Err(StoreError::Exists(path.to_owned()));
    }
    match make_directory(folder(path)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fault(error)),
        Ok(()) | Err(_) => {}
    }
    write(path, &BTreeMap::new()).map_err(fault)
}

impl Store {
    /// Opens the state and takes its lock.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let fault = |error: io::Error| StoreError::File(path.to_owned(), error);
        if !path.exists() {
            return Err(StoreError::Missing(path.to_owned()));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let mut options = OpenOptions::new();
        let lock =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(PathBuf::from(name));
        let lock = lock.map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(fault(error)),
        }
        let bytes = fs::read(path).map_err(fault)?;
        let states = read(&bytes).ok_or_else(|| StoreError::Damaged(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), _lock: lock, states: Mutex::new(Some(states)) })
    }

    /// Judges by the state of `origin`, makes the next one durable, and calls `then` with it before anyone else is heard.
    /// One request at a time: what is checked is what is replaced.
    pub(super) fn advance<T>(
        &self,
        origin: &str,
        judge: impl FnOnce(Known) -> Result<Known, Refusal>,
        then: impl FnOnce() -> T,
    ) -> Result<T, Fault> {
        let mut guard = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let states = guard.as_mut().ok_or(Fault::Broken)?;
        let known = states.get(origin).copied().unwrap_or_else(Known::nothing);
        let next = judge(known).map_err(Fault::Refused)?;
        if next != known {
            states.insert(origin.to_owned(), next);
            if let Err(error) = write(&self.path, states) {
                tracing::error!(%error, "the witness state cannot be written; nothing is cosigned any more");
                *guard = None;
                return Err(Fault::Broken);
            }
        }
        Ok(then())
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces the file whole, synced before its name is, and its name before anyone is told.
fn write(path: &Path, states: &BTreeMap<String, Known>) -> io::Result<()> {
    let mut text = format!("{HEADER}\n");
    for (origin, known) in states {
        let root = STANDARD.encode(known.root.as_bytes());
        writeln!(text, "{} {root} {origin}", known.size).map_err(io::Error::other)?;
    }
    if text.len() > WITNESS_STATE_BYTES_MAX {
        return Err(io::Error::other("too many logs"));
    }
    replace(path, text.as_bytes())?;
    sync_directory(folder(path))
}

fn read(bytes: &[u8]) -> Option<BTreeMap<String, Known>> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= WITNESS_STATE_BYTES_MAX)?;
    let mut lines = text.strip_suffix('\n')?.split('\n');
    lines.next().filter(|line| *line == HEADER)?;
    let mut states = BTreeMap::new();
    for line in lines {
        let mut parts = line.splitn(3, ' ');
        let size: u64 = parts.next()?.parse().ok()?;
        let root = Hash::from_slice(&STANDARD.decode(parts.next()?).ok()?)?;
        let twice = states.insert(parts.next()?.to_owned(), Known { size, root });
        if twice.is_some() {
            return None;
        }
    }
    Some(states)
}
