//! A consistent view of an audit directory that another process may be writing.
//!
//! Owns: the order in which files are read, and reading entries in sequence.
//! Must never: take the lock; write anything; judge what it reads (`inspect` does).
//! Look next: `publisher`, whose order of writing this order of reading answers.
//!
//! Full tiles never change. All the rest, the right edge, is read at once and read again if `published` was
//! replaced meanwhile. Inside one reading the order matters: the checkpoint before the segments, so that the
//! segments hold at least what it covers; the names of tiles before the names of segments, so that no tile
//! is seen whose entries are not; what witnesses cosigned before all of that. Segments and partial tiles are removed only after `published` was
//! replaced, and a file that vanishes between listing and reading means: once more.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::datakeys::Ring;
use super::entry::KeyId;
use super::inspect::Finding;
use super::keys::Keys;
use super::layout::{
    CHECKPOINT, DATA_KEYS, PUBLISHED, Place, RESERVE, SEGMENTS, WITHHELD, WITNESSED, classify, segment_path,
};
use super::newest;
use super::reserve;
use super::segments::{Edge, Segment};
use super::withheld::Withheld;
use crate::domain::audit::{Part, decode};
use crate::domain::ledger::{Tile, TileKind, read_bundle, verify};
use crate::limits::{AUDIT_FILES_MAX, KEY_FILE_BYTES_MAX};

/// What the directory held at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) directory: PathBuf,
    pub(super) checkpoint: Option<Vec<u8>>,
    pub(super) published: Option<Vec<u8>>,
    pub(super) segments: Vec<Segment>,
    /// Every tile by name, full and partial.
    pub(super) tiles: BTreeSet<Tile>,
    /// The content of the partial ones.
    pub(super) partial: Vec<(Tile, Vec<u8>)>,
    /// The reserve, if there is one.
    pub(super) reserve: Option<Vec<u8>>,
    /// What is withheld.
    pub(super) withheld: Option<Vec<u8>>,
    /// The files of data keys: the key they are named after, content.
    pub(super) data_keys: Vec<(KeyId, Vec<u8>)>,
    /// Cosigned checkpoints: name, the key in it, content.
    pub(super) witnessed: Vec<(String, [u8; 32], Vec<u8>)>,
    /// Files that have no business here.
    pub(super) unknown: Vec<String>,
}

/// How often the right edge is read before giving up, and the pause between.
pub(super) const READINGS_MAX: u32 = 400;
pub(super) const PAUSE: Duration = Duration::from_millis(10);

impl Snapshot {
    pub(super) fn take(directory: &Path) -> io::Result<Self> {
        for _ in 0..READINGS_MAX {
            match Self::read(directory) {
                Ok(snapshot) if snapshot.is_still(directory)? => return Ok(snapshot),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory.is_dir() => {}
                Err(error) => return Err(error),
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::Error::other("the directory changed too fast to be read"))
    }

    /// Whether the right edge is as it was read. A reserve in use names what the log held when it stopped.
    fn is_still(&self, directory: &Path) -> io::Result<bool> {
        let used = self.reserve.as_deref().is_some_and(reserve::is_used);
        let published = read_if_there(&directory.join(PUBLISHED))?;
        Ok(published == self.published && (!used || newest::read(directory)? == self.checkpoint))
    }

    fn read(directory: &Path) -> io::Result<Self> {
        let mut snapshot = Self { directory: directory.to_owned(), ..Self::default() };
        // Before everything else: what a witness has seen, the rest must hold.
        snapshot.read_witnessed()?;
        snapshot.published = read_if_there(&directory.join(PUBLISHED))?;
        snapshot.checkpoint = newest::read(directory)?;
        let mut segments = BTreeSet::new();
        let mut names = Vec::new();
        // Tiles first, segments last: see the header.
        let mut rest: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(directory)? {
            rest.push(entry?.path());
        }
        rest.sort_by_key(|path| path.ends_with(SEGMENTS));
        for path in rest {
            list(directory, &path, &mut names)?;
        }
        for name in names {
            match classify(&name) {
                Place::Checkpoint
                | Place::Published
                | Place::Reserve
                | Place::Withheld
                | Place::Witnessed(_)
                | Place::NotEvidence => {}
                Place::Segment(first) => {
                    segments.insert(first);
                }
                Place::Tile(tile) => {
                    snapshot.tiles.insert(tile);
                }
                // Read below, behind the entries.
                Place::DataKey(_) => {}
                Place::Unknown => snapshot.unknown.push(name),
            }
        }
        // Behind the names of tiles: it names what is missing before that goes.
        snapshot.withheld = read_if_there(&directory.join(WITHHELD))?;
        for first in segments {
            let bytes = fs::read(directory.join(segment_path(first)))?;
            snapshot.segments.push(Segment { first, bytes });
        }
        for tile in snapshot.tiles.iter().filter(|tile| !tile.is_full()) {
            snapshot.partial.push((*tile, fs::read(directory.join(tile.path()))?));
        }
        // Behind the segments: a key's file is there before its first entry is.
        snapshot.read_keys()?;
        // Last: what it says of the log is true of the log before it.
        snapshot.reserve = read_if_there(&directory.join(RESERVE))?;
        Ok(snapshot)
    }

    fn read_keys(&mut self) -> io::Result<()> {
        let mut names = Vec::new();
        let folder = self.directory.join(DATA_KEYS);
        if folder.is_dir() {
            list(&self.directory, &folder, &mut names)?;
        }
        names.sort();
        for name in names {
            if let Place::DataKey(id) = classify(&name) {
                self.data_keys.push((id, read_small(&self.directory.join(&name), KEY_FILE_BYTES_MAX)?));
            }
        }
        Ok(())
    }

    fn read_witnessed(&mut self) -> io::Result<()> {
        let mut names = Vec::new();
        let folder = self.directory.join(WITNESSED);
        if folder.is_dir() {
            list(&self.directory, &folder, &mut names)?;
        }
        names.sort();
        for name in names {
            if let Place::Witnessed(key) = classify(&name) {
                let bytes = fs::read(self.directory.join(&name))?;
                self.witnessed.push((name, key, bytes));
            }
        }
        Ok(())
    }

    /// How many full bundles there are without a gap, from the first on; those that are withheld are none.
    pub(super) fn bundles(&self, withheld: &Withheld) -> u64 {
        let is_there = |index: &u64| {
            let tile = Tile::full(TileKind::Entries, *index);
            self.tiles.contains(&tile) || withheld.covers(tile)
        };
        (0..).take_while(is_there).fold(0, |count, _| count + 1)
    }

    /// The content of a tile.
    pub(super) fn read_tile(&self, tile: Tile) -> io::Result<Vec<u8>> {
        fs::read(self.directory.join(tile.path()))
    }
}

/// The first bytes of a file: one more than it may have.
pub(super) fn read_small(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds every file below `path` to `names`. What is neither file nor directory gets a name no place has.
fn list(root: &Path, path: &Path, names: &mut Vec<String>) -> io::Result<()> {
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
            continue;
        }
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        names.push(if kind.is_file() { name } else { format!("{name} (not a regular file)") });
        if names.len() > AUDIT_FILES_MAX {
            return Err(io::Error::other("too many files"));
        }
    }
    Ok(())
}

/// One decrypted entry of a trail.
#[derive(Debug)]
pub struct Entry {
    /// Its index in the log.
    pub sequence: u64,
    /// Its content, or what is wrong with it.
    pub part: Result<Part, Finding>,
}

/// Reads every entry in sequence, those behind the last checkpoint included. Decrypts, which proves each
/// entry for itself; does not verify the tree.
///
/// # Errors
/// When the directory cannot be read, or names no log of this key.
pub fn read_entries(
    directory: &Path,
    keys: &Keys,
    each: &mut dyn FnMut(Entry) -> io::Result<()>,
) -> Result<(), Finding> {
    let fault = |place: &str| {
        let place = place.to_owned();
        move |error: io::Error| Finding { place, what: error.to_string() }
    };
    let snapshot = Snapshot::take(directory).map_err(fault("audit directory"))?;
    let origin = origin(&snapshot, keys)?;
    let ring = Ring::new(directory, &origin, keys);
    let mut withheld = withheld(&snapshot, &origin, keys)?;
    let mut open = |place: &str, sequence: u64, entry: &[u8]| {
        let part = ring.open(sequence, entry).map_err(|error| error.to_string());
        let part = part.and_then(|part| decode(&part).map_err(|error| error.to_string()));
        let part = part.map_err(|what| Finding { place: format!("{place}, entry {sequence}"), what });
        each(Entry { sequence, part }).map_err(fault("output"))
    };
    let mut next = 0;
    for index in 0..snapshot.bundles(&withheld) {
        let tile = Tile::full(TileKind::Entries, index);
        let Some(bytes) = read_if_there(&directory.join(tile.path())).map_err(fault(&tile.path()))? else {
            if !withheld.covers(tile) {
                // A prune may have come in between.
                withheld = Withheld::load(directory, &origin, keys).map_err(fault(WITHHELD))?;
            }
            if !withheld.covers(tile) {
                return Err(Finding { place: tile.path(), what: "is missing".to_owned() });
            }
            next += 256;
            continue;
        };
        let entries =
            read_bundle(&bytes).map_err(|error| Finding { place: tile.path(), what: error.to_string() })?;
        for entry in entries {
            open(&tile.path(), next, entry)?;
            next += 1;
        }
    }
    let edge = Edge::read(&snapshot.segments, keys.signer.key());
    if edge.start > next {
        let what = format!("entries from {next} to {} are missing", edge.start);
        return Err(Finding { place: "tile/entries".to_owned(), what });
    }
    for sequence in next..edge.end() {
        let entry = edge.entry(sequence).unwrap_or_default();
        open(&edge.name_of(sequence), sequence, entry)?;
    }
    edge.findings.into_iter().next().map_or(Ok(()), Err)
}

fn withheld(snapshot: &Snapshot, origin: &str, keys: &Keys) -> Result<Withheld, Finding> {
    let read = snapshot.withheld.as_deref().map(|bytes| Withheld::read(bytes, origin, keys));
    let found = |what: &str| Finding { place: WITHHELD.to_owned(), what: what.to_owned() };
    read.transpose().map_err(found).map(Option::unwrap_or_default)
}

/// The log's name, from whichever signed note can be read.
fn origin(snapshot: &Snapshot, keys: &Keys) -> Result<String, Finding> {
    let notes = [&snapshot.checkpoint, &snapshot.published];
    let mut read = notes.into_iter().flatten().map(|note| verify(keys.signer.key(), note));
    let first = read.next();
    match first {
        Some(Ok(checkpoint)) => Ok(checkpoint.origin),
        Some(Err(error)) => match read.next() {
            Some(Ok(checkpoint)) => Ok(checkpoint.origin),
            _ => Err(Finding { place: CHECKPOINT.to_owned(), what: error.to_string() }),
        },
        None => Err(Finding { place: CHECKPOINT.to_owned(), what: "is missing".to_owned() }),
    }
}
