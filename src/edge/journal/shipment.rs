//! The trail's evidence for a copy elsewhere, as `checkpoint` signs it: full tiles, which never change, and the right edge.
//!
//! Owns: which bytes, added to the full tiles of `published`, make a directory that `audit verify` accepts.
//! Must never: take the lock; list the tiles of a long trail; write.
//! Look next: `backup`, which copies the whole at once; the member `auditforward`, which ships this.
//!
//! The order of reading is `snapshot`'s: what witnesses cosigned first, `published` and `checkpoint` before the segments, and
//! everything again when `published` was replaced meanwhile. Frames that no checkpoint covers yet are left out: a power cut could
//! take them back.

use std::fs;
use std::io;
use std::path::Path;

use super::frame::{self, Next};
use super::inspect::Finding;
use super::keys::Keys;
use super::layout::{
    CHECKPOINT, DATA_KEYS, PUBLISHED, Place, SEGMENTS, WITHHELD, WITNESSED, classify, segment_path,
};
use super::newest;
use super::snapshot::{PAUSE, READINGS_MAX, read_if_there};
use crate::domain::ledger::{Checkpoint, Tile, verify};

/// All of a copy that is not a full tile.
#[derive(Debug)]
pub struct RightEdge {
    /// What `checkpoint` signs.
    pub log: Checkpoint,
    /// The size that `published` signs: up to there the tiles belong to it.
    pub published: u64,
    /// Files below the trail's directory with their content: what lies beside the log and may change while it stands still (what
    /// witnesses cosigned, wrapped data keys, what is withheld, [`is_beside`]); partial tiles, the frames from the last full bundle on, and at the end `published`
    /// and `checkpoint`. The two sizes determine all but the first.
    pub files: Vec<(String, Vec<u8>)>,
}

impl RightEdge {
    /// Reads the edge as it is now. May run while the trail is written.
    ///
    /// # Errors
    /// When the directory cannot be read, names no log of this key, or lacks what `published` signs.
    pub fn read(directory: &Path, keys: &Keys) -> Result<Self, Finding> {
        let fault = |error: io::Error| found("audit directory", error.to_string());
        for _ in 0..READINGS_MAX {
            match Raw::read(directory) {
                Ok(raw) if read_if_there(&directory.join(PUBLISHED)).map_err(fault)? == raw.published => {
                    return raw.edge(directory, keys);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory.is_dir() => {}
                Err(error) => return Err(fault(error)),
            }
            std::thread::sleep(PAUSE);
        }
        Err(fault(io::Error::other("the directory changed too fast to be read")))
    }
}

/// Whether a file of an edge may change while the log stands still.
#[must_use]
pub fn is_beside(name: &str) -> bool {
    name == WITHHELD
        || BESIDE.iter().any(|folder| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
}

/// The folders whose files lie beside the log.
const BESIDE: &[&str] = &[WITNESSED, DATA_KEYS];

/// The full tiles that a tree of `size` entries has and one of `first` had not.
pub fn full_tiles(first: u64, size: u64) -> impl Iterator<Item = Tile> {
    Tile::of_tree(first, size).filter(Tile::is_full)
}

fn found(place: &str, what: impl Into<String>) -> Finding {
    Finding { place: place.to_owned(), what: what.into() }
}

/// The files as they were read; not yet judged.
struct Raw {
    beside: Vec<(String, Vec<u8>)>,
    published: Option<Vec<u8>>,
    checkpoint: Option<Vec<u8>>,
    segments: Vec<(u64, Vec<u8>)>,
}

impl Raw {
    fn read(directory: &Path) -> io::Result<Self> {
        let mut beside = Vec::new();
        for folder in BESIDE {
            for name in names(directory, folder)? {
                if !matches!(classify(&name), Place::NotEvidence) {
                    let bytes = fs::read(directory.join(&name))?;
                    beside.push((name, bytes));
                }
            }
        }
        beside.extend(read_if_there(&directory.join(WITHHELD))?.map(|bytes| (WITHHELD.to_owned(), bytes)));
        let published = read_if_there(&directory.join(PUBLISHED))?;
        let checkpoint = newest::read(directory)?;
        let mut segments = Vec::new();
        for name in names(directory, SEGMENTS)? {
            if let Place::Segment(first) = classify(&name) {
                segments.push((first, fs::read(directory.join(&name))?));
            }
        }
        segments.sort_by_key(|(first, _)| *first);
        Ok(Self { beside, published, checkpoint, segments })
    }

    fn edge(self, directory: &Path, keys: &Keys) -> Result<RightEdge, Finding> {
        let read = |name: &str, note: &Option<Vec<u8>>| {
            let note = note.as_deref().ok_or_else(|| found(name, "is missing"))?;
            let log = verify(keys.signer.key(), note).map_err(|error| found(name, error.to_string()))?;
            Ok((log, note.to_vec()))
        };
        let (published, published_note) = read(PUBLISHED, &self.published)?;
        let (newest, newest_note) = read(CHECKPOINT, &self.checkpoint)?;
        // A power cut can leave the checkpoint before; the gate's next start brings it up to date.
        let is_behind = newest.size < published.size;
        let (log, note) =
            if is_behind { (published.clone(), published_note.clone()) } else { (newest, newest_note) };
        let mut files = self.beside.clone();
        for tile in Tile::of_tree(published.size / 256 * 256, published.size).filter(|tile| !tile.is_full()) {
            let bytes = fs::read(directory.join(tile.path()));
            files.push((tile.path(), bytes.map_err(|error| found(&tile.path(), error.to_string()))?));
        }
        files.extend(self.frames(published.size / 256 * 256, log.size)?);
        files.push((PUBLISHED.to_owned(), published_note));
        files.push((CHECKPOINT.to_owned(), note));
        Ok(RightEdge { log, published: published.size, files })
    }

    /// The frames with entries from `floor` on, up to `size`; each run under the name of its first entry.
    fn frames(&self, floor: u64, size: u64) -> Result<Vec<(String, Vec<u8>)>, Finding> {
        let mut files = Vec::new();
        for (place, (first, bytes)) in self.segments.iter().enumerate() {
            let follows = self.segments.get(place + 1).is_some_and(|(next, _)| *next <= floor);
            if follows || *first > size {
                continue;
            }
            let (begin, frames) = cut(*first, bytes, floor, size)?;
            files.push((segment_path(begin), frames.to_vec()));
        }
        if files.is_empty() {
            return Err(found(SEGMENTS, format!("the segment with entry {floor} is missing")));
        }
        Ok(files)
    }
}

/// From the frame that holds entry `floor` on (the last one when none does) to the end of entry `size`: its first entry, and
/// the bytes.
fn cut(first: u64, bytes: &[u8], floor: u64, size: u64) -> Result<(u64, &[u8]), Finding> {
    let (mut next, mut offset) = (first, 0_usize);
    let mut begin = (first, 0_usize);
    while let Next::Frame(frame) = frame::read(bytes.get(offset..).unwrap_or_default(), next) {
        let after = next.saturating_add(u64::from(frame.count));
        if after > size {
            break;
        }
        if next <= floor {
            begin = (next, offset);
        }
        (next, offset) = (after, offset + frame.bytes);
    }
    let run = bytes.get(begin.1..offset);
    run.map(|run| (begin.0, run)).ok_or_else(|| found(&segment_path(first), "cannot be cut"))
}

/// What lies in `folder`, by its path from the trail's directory; nothing where there is no such folder.
fn names(directory: &Path, folder: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(format!("{folder}/{}", entry?.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(names)
}
