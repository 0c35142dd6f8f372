//! The audit directory: names, and writing files so that they last.
//!
//! Owns: which file name means what; durable replacement of a file; directory syncs.
//! Must never: write a file in place; make the audit directory itself (`open::create` does).
//! Look next: `docs/audit.md`.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::entry::KeyId;
use crate::domain::ledger::Tile;

/// The signed checkpoint of the newest commit.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The signed checkpoint for which every tile is there.
pub(super) const PUBLISHED: &str = "published";
/// The lock file; not evidence.
pub(super) const LOCK: &str = "journal.lock";
/// The directory of cosigned checkpoints, one file for each witness.
pub(super) const WITNESSED: &str = "witness";
/// What is withheld, where something is.
pub(super) const WITHHELD: &str = "withheld";
/// The directory of wrapped data keys.
pub(super) const DATA_KEYS: &str = "keys";
/// The directory of segments.
pub(super) const SEGMENTS: &str = "segment";

/// The reserve: records that the journal could not take, where that was provided for.
pub(super) const RESERVE: &str = "reserve";

/// What a path in the audit directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Checkpoint,
    Published,
    Reserve,
    Withheld,
    /// The segment that begins with this entry.
    Segment(u64),
    Tile(Tile),
    /// The file of a wrapped data key.
    DataKey(KeyId),
    /// What the witness with this public key cosigned last.
    Witnessed([u8; 32]),
    /// By its name not evidence.
    NotEvidence,
    Unknown,
}

/// Whether a trail can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// There is none.
    Missing,
    /// Its lock is not for this user, or cannot be opened; why.
    LockRefused(io::ErrorKind),
    /// It is there.
    There,
}

/// Looks whether there is a trail in `directory` that this user could open. Takes no lock and makes no file.
#[must_use]
pub fn presence(directory: &Path) -> Presence {
    if !directory.join(CHECKPOINT).is_file() {
        return Presence::Missing;
    }
    match OpenOptions::new().write(true).open(directory.join(LOCK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Presence::LockRefused(error.kind()),
        // Without a lock file the next opening makes one.
        Ok(_) | Err(_) => Presence::There,
    }
}

/// What the file at `path`, relative to the audit directory, is.
pub(super) fn classify(path: &str) -> Place {
    let name = path.rsplit('/').next().unwrap_or(path);
    if path == CHECKPOINT {
        Place::Checkpoint
    } else if path == PUBLISHED {
        Place::Published
    } else if path == RESERVE {
        Place::Reserve
    } else if path == WITHHELD {
        Place::Withheld
    } else if let Some(first) = segment_first(path) {
        Place::Segment(first)
    } else if let Some(tile) = Tile::from_path(path) {
        Place::Tile(tile)
    } else if let Some(id) = super::datakeys::id_of(path) {
        Place::DataKey(id)
    } else if let Some(key) = super::witnessed::key_of(path) {
        Place::Witnessed(key)
    } else if is_not_evidence(name) {
        Place::NotEvidence
    } else {
        Place::Unknown
    }
}

/// The names the contract excludes: design.md section 8.
fn is_not_evidence(name: &str) -> bool {
    let contains = ["lock", "index", "sqlite", ".db"].iter().any(|word| name.contains(word));
    contains || [".tmp", ".pid"].iter().any(|ending| name.ends_with(ending))
}

/// The name of the segment that begins with entry `first`.
pub(super) fn segment_path(first: u64) -> String {
    format!("{SEGMENTS}/{first:020}")
}

fn segment_first(path: &str) -> Option<u64> {
    let digits = path.strip_prefix(SEGMENTS)?.strip_prefix('/')?;
    let first = digits.parse().ok()?;
    (segment_path(first) == path).then_some(first)
}

/// Opens a new file for its owner only; a file that is there already is an error.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// Writes `bytes` beside `path` and syncs them; the caller renames. Answers the open file.
pub(super) fn stage(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(staged(path))?;
    file.write_all(bytes)?;
    // Synced before the rename, or a power cut could leave the name with no content (XFS and others).
    file.sync_data()?;
    Ok(file)
}

/// Where [`stage`] writes.
pub(super) fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Replaces the file at `path` by `bytes`, whole or not at all. The name lasts after [`sync_directory`].
pub(in crate::edge) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    stage(path, bytes)?;
    fs::rename(staged(path), path)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes names in `directory` last.
pub(in crate::edge) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes a directory for its owner only.
pub(in crate::edge) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Makes the directories between `root` and the file `relative`, and adds every directory in which a new
/// name appeared, or will, to `changed`.
pub(super) fn make_parents(root: &Path, relative: &str, changed: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut parent = root.to_owned();
    let names: Vec<&str> = relative.split('/').collect();
    for name in names.split_last().map_or(&[][..], |(_, directories)| directories) {
        let child = parent.join(name);
        match make_directory(&child) {
            Ok(()) => {
                changed.insert(parent);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        parent = child;
    }
    changed.insert(parent);
    Ok(())
}
