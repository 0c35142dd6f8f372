//! A copy of the trail, of one moment, and putting one back.
//!
//! Owns: which bytes make a whole trail as `published` signs it, and that nothing is put in place before it was verified.
//! Must never: take the lock; copy over a trail that is there; copy keys.
//! Look next: `inspect`, which judges the copy; `docs/audit.md`, what a backup is not.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Settings;
use super::datakeys;
use super::inspect::{Finding, Inspection, Request, inspect};
use super::keys::{KeyError, Keys};
use super::layout::{
    CHECKPOINT, PUBLISHED, SEGMENTS, WITHHELD, create_file, make_directory, make_parents, segment_path,
    sync_directory,
};
use super::segments::Edge;
use super::snapshot::Snapshot;
use super::withheld::Withheld;
use super::witnessed::Demand;
use crate::domain::ledger::{Tile, verify};

/// Why nothing was copied or put in place.
#[derive(Debug)]
pub enum BackupError {
    /// There is something at the place already.
    NotEmpty(PathBuf),
    /// A key cannot be used.
    Key(KeyError),
    /// It does not verify: what was found first, and how much more.
    Damaged(Finding, usize),
    /// Reading or writing failed.
    File(PathBuf, io::Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmpty(path) => write!(out, "`{}` exists and is not empty", path.display()),
            Self::Key(error) => error.fmt(out),
            Self::Damaged(finding, more) => write!(out, "it does not verify: {finding} (and {more} more)"),
            Self::File(path, error) => write!(out, "`{}`: {error}", path.display()),
        }
    }
}

impl std::error::Error for BackupError {}

/// Copies the trail, as far as it is published, into `to`, and verifies the copy: every byte, every entry decrypted. May run
/// while the trail is written.
///
/// # Errors
/// [`BackupError`]; a copy that does not verify stays for who wants to look at it.
pub fn back_up(trail: &Settings, to: &Path) -> Result<Inspection, BackupError> {
    let keys = Keys::load(trail).map_err(BackupError::Key)?;
    let fault = |error: io::Error| BackupError::File(trail.directory.clone(), error);
    let snapshot = Snapshot::take(&trail.directory).map_err(fault)?;
    make_empty(to)?;
    copy(&snapshot, &keys, to).map_err(fault)?;
    verified(to, &keys, None)
}

/// Verifies the copy in `from`: every byte, every entry decrypted. `against`: a checkpoint that was kept elsewhere.
///
/// # Errors
/// [`BackupError`].
pub fn verify_copy(trail: &Settings, from: &Path, against: Option<&[u8]>) -> Result<Inspection, BackupError> {
    let keys = Keys::load(trail).map_err(BackupError::Key)?;
    verified(from, &keys, against)
}

/// Puts the copy in `from` where the trail of these settings should be, which must not exist. It is verified before, as a copy
/// beside its place, and gets its name at the very end.
///
/// # Errors
/// [`BackupError`]; nothing is in place then.
pub fn restore(trail: &Settings, from: &Path, against: Option<&[u8]>) -> Result<Inspection, BackupError> {
    let place = &trail.directory;
    if place.symlink_metadata().is_ok() {
        return Err(BackupError::NotEmpty(place.clone()));
    }
    let keys = Keys::load(trail).map_err(BackupError::Key)?;
    verified(from, &keys, against)?;
    let mut staged = place.as_os_str().to_owned();
    staged.push(".restoring");
    let staged = PathBuf::from(staged);
    let fault = |error: io::Error| BackupError::File(staged.clone(), error);
    let snapshot = Snapshot::take(from).map_err(|error| BackupError::File(from.to_owned(), error))?;
    make_empty(&staged)?;
    copy(&snapshot, &keys, &staged).map_err(fault)?;
    // What lies there now is what was verified, or it gets no name.
    let found = verified(&staged, &keys, against)?;
    fs::rename(&staged, place).map_err(fault)?;
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), sync_directory).map_err(fault)?;
    Ok(found)
}

fn verified(directory: &Path, keys: &Keys, against: Option<&[u8]>) -> Result<Inspection, BackupError> {
    let found = inspect(directory, keys, Request { decode: true, against, demand: Demand::default() });
    let found = found.map_err(|error| BackupError::File(directory.to_owned(), error))?;
    match found.findings.split_first() {
        None => Ok(found),
        Some((first, more)) => Err(BackupError::Damaged(first.clone(), more.len())),
    }
}

/// Makes `directory` where there is none; one that holds something is left alone.
fn make_empty(directory: &Path) -> Result<(), BackupError> {
    let fault = |error: io::Error| BackupError::File(directory.to_owned(), error);
    match fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::NotEmpty(directory.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_directory(directory).map_err(fault),
        Err(error) => Err(fault(error)),
    }
}

/// Writes what `published` signs: its tiles, the frames up to it, and itself as the newest checkpoint, last.
fn copy(snapshot: &Snapshot, keys: &Keys, to: &Path) -> io::Result<()> {
    let missing = |name: &str| io::Error::other(format!("`{name}` is missing"));
    let note = snapshot.published.as_deref().ok_or_else(|| missing(PUBLISHED))?;
    let log = verify(keys.signer.key(), note).map_err(io::Error::other)?;
    let mut changed = BTreeSet::from([to.to_owned()]);
    let withheld = Withheld::load(&snapshot.directory, &log.origin, keys)?;
    for tile in Tile::of_tree(0, log.size) {
        if !snapshot.tiles.contains(&tile) && withheld.covers(tile) {
            continue;
        }
        make_parents(to, &tile.path(), &mut changed)?;
        let kept = snapshot.partial.iter().find(|(partial, _)| *partial == tile);
        match kept {
            Some((_, bytes)) => write(&to.join(tile.path()), bytes)?,
            None => write(&to.join(tile.path()), &snapshot.read_tile(tile)?)?,
        }
    }
    for (id, bytes) in &snapshot.data_keys {
        make_parents(to, &datakeys::path(*id), &mut changed)?;
        write(&to.join(datakeys::path(*id)), bytes)?;
    }
    if let Some(bytes) = &snapshot.withheld {
        write(&to.join(WITHHELD), bytes)?;
    }
    make_directory(&to.join(SEGMENTS))?;
    for (first, bytes) in segments(snapshot, keys, log.size) {
        write(&to.join(segment_path(first)), bytes)?;
    }
    changed.insert(to.join(SEGMENTS));
    for directory in &changed {
        sync_directory(directory)?;
    }
    write(&to.join(PUBLISHED), note)?;
    write(&to.join(CHECKPOINT), note)?;
    sync_directory(to)
}

/// The segments, each as far as its frames are for entries below `size`.
fn segments<'s>(snapshot: &'s Snapshot, keys: &Keys, size: u64) -> Vec<(u64, &'s [u8])> {
    let edge = Edge::read(&snapshot.segments, keys.signer.key());
    let whole = |first: u64| {
        let (mut next, mut end) = (first, 0_usize);
        let segment = snapshot.segments.iter().find(|segment| segment.first == first)?;
        while let super::frame::Next::Frame(frame) =
            super::frame::read(segment.bytes.get(end..).unwrap_or_default(), next)
        {
            let after = next.saturating_add(u64::from(frame.count));
            if after > size {
                break;
            }
            (next, end) = (after, end + frame.bytes);
        }
        segment.bytes.get(..end)
    };
    let firsts = edge.ends.iter().map(|(first, ..)| *first).filter(|first| *first <= size);
    firsts.filter_map(|first| Some((first, whole(first)?))).collect()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = create_file(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}
