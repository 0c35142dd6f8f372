//! Single entries of a trail, found by their index without listing or reading the rest.
//!
//! Owns: where an entry stands: in a full bundle, found by name, or in a segment.
//! Must never: take the lock, write, or call a trail sound: only the newest note's signature is looked at (`inspect` checks all).
//! Look next: `snapshot`, which reads everything; `edge::trail_index`, which says which entries to read.
//!
//! `published` says which bundles are there, so that no directory of tiles has to be listed. Segments are removed only after
//! `published` was replaced; if it was replaced while the segments were read, they are read again.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::datakeys::Ring;
use super::frame::{self, Next};
use super::inspect::Finding;
use super::keys::Keys;
use super::layout::{CHECKPOINT, PUBLISHED, Place, SEGMENTS, WITHHELD, classify, segment_path};
use super::newest;
use super::snapshot::{PAUSE, READINGS_MAX, read_if_there};
use super::withheld::{Withheld, leaves};
use crate::domain::audit::{Assembly, Part, Record, decode};
use crate::domain::ledger::{Checkpoint, Hash, Tile, TileKind, leaf_hash, read_bundle, verify};
use crate::limits::{READER_BUNDLES_HELD_MAX, RECORD_PARTS_MAX};

/// A trail open for reading single entries, as it was at one moment.
#[derive(Debug)]
pub struct Reader<'k> {
    directory: PathBuf,
    ring: Ring<'k>,
    /// The newest signed checkpoint.
    checkpoint: Checkpoint,
    bundles: u64,
    edge: Skimmed,
    /// The bundles that were read last, the newest at the end.
    held: VecDeque<(u64, Vec<Vec<u8>>)>,
    held_max: usize,
    keys: &'k Keys,
    withheld: Withheld,
    /// The hashes of the bundle that was asked for last and is withheld.
    hashes: Option<(u64, Vec<Hash>)>,
}

/// What stands at a place of the log.
#[derive(Debug)]
pub enum Found {
    /// The part of a record. Decrypting proved it for its place.
    Part(Box<Part>),
    /// It is not what was written there.
    Wrong(Finding),
    /// It was withheld by a recorded prune. Its hash is there.
    Withheld,
}

/// An entry as stored.
enum Stored {
    Entry(String, Vec<u8>),
    Withheld(Hash),
}

/// The entries of the segments; their notes are not verified but for the last.
#[derive(Debug, Default)]
struct Skimmed {
    start: u64,
    segments: Vec<(u64, Vec<u8>)>,
    /// Segment and bytes of each entry.
    entries: Vec<(usize, Range<usize>)>,
    note: Option<Vec<u8>>,
    finding: Option<Finding>,
}

impl<'k> Reader<'k> {
    /// Opens the trail as it is now.
    ///
    /// # Errors
    /// When the directory cannot be read, names no log of this key, or has a hole.
    pub fn open(directory: &Path, keys: &'k Keys) -> Result<Self, Finding> {
        let fault =
            |error: io::Error| Finding { place: "audit directory".to_owned(), what: error.to_string() };
        for _ in 0..READINGS_MAX {
            let published = read_if_there(&directory.join(PUBLISHED)).map_err(fault)?;
            let checkpoint = newest::read(directory).map_err(fault)?;
            match Skimmed::read(directory) {
                Ok(edge) if read_if_there(&directory.join(PUBLISHED)).map_err(fault)? == published => {
                    return Self::begin(directory, keys, published, checkpoint, edge);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory.is_dir() => {}
                Err(error) => return Err(fault(error)),
            }
            std::thread::sleep(PAUSE);
        }
        Err(fault(io::Error::other("the directory changed too fast to be read")))
    }

    fn begin(
        directory: &Path,
        keys: &'k Keys,
        published: Option<Vec<u8>>,
        checkpoint: Option<Vec<u8>>,
        edge: Skimmed,
    ) -> Result<Self, Finding> {
        let note = |name: &str, bytes: Option<Vec<u8>>| {
            let found = |what: String| Finding { place: name.to_owned(), what };
            let bytes = bytes.ok_or_else(|| found("is missing".to_owned()))?;
            verify(keys.signer.key(), &bytes).map_err(|error| found(error.to_string()))
        };
        let published = note(PUBLISHED, published)?;
        let mut newest = note(CHECKPOINT, checkpoint)?;
        if edge.note.is_some() {
            let last = note(SEGMENTS, edge.note.clone())?;
            if last.size >= newest.size {
                newest = last;
            }
        }
        let bundles = published.size / 256;
        let end = edge.end().max(bundles * 256);
        if edge.start > bundles * 256 || newest.size != end || newest.origin != published.origin {
            let what = format!("entries do not reach from bundle {bundles} to {}", newest.size);
            return Err(edge.finding.unwrap_or(Finding { place: SEGMENTS.to_owned(), what }));
        }
        let withheld = Withheld::load(directory, &newest.origin, keys)
            .map_err(|error| Finding { place: WITHHELD.to_owned(), what: error.to_string() })?;
        Ok(Self {
            directory: directory.to_owned(),
            ring: Ring::new(directory, &newest.origin, keys),
            checkpoint: newest,
            bundles,
            edge,
            held: VecDeque::new(),
            held_max: READER_BUNDLES_HELD_MAX,
            keys,
            withheld,
            hashes: None,
        })
    }

    /// What tells one state of what is withheld from another: an index that was made before a prune knows too much.
    #[must_use]
    pub fn withheld(&self) -> String {
        self.withheld.bundles.to_string()
    }

    /// The same reader, holding one bundle only: enough for who reads on and on.
    #[must_use]
    pub fn reading_on(mut self) -> Self {
        self.held_max = 1;
        self
    }

    /// The newest signed checkpoint, which covers every entry that can be read here.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What is wrong with the segments, beyond which nothing was read.
    #[must_use]
    pub fn finding(&self) -> Option<&Finding> {
        self.edge.finding.as_ref()
    }

    /// The leaf hash of an entry, and the part of a record in it.
    ///
    /// # Errors
    /// When the entry cannot be read at all, and nothing says that it is withheld.
    pub fn entry(&mut self, sequence: u64) -> Result<(Hash, Found), Finding> {
        let (place, entry) = match self.stored(sequence)? {
            Stored::Entry(place, entry) => (place, entry),
            Stored::Withheld(leaf) => return Ok((leaf, Found::Withheld)),
        };
        let leaf = leaf_hash(&entry);
        let part = self.ring.open(sequence, &entry);
        let part = part.map_err(|error| error.to_string());
        let part = part.and_then(|part| decode(&part).map_err(|error| error.to_string()));
        let wrong = |what| Found::Wrong(Finding { place: format!("{place}, entry {sequence}"), what });
        Ok((leaf, part.map_or_else(wrong, |part| Found::Part(Box::new(part)))))
    }

    /// The record whose first part is the entry `sequence`, proved by decrypting all its parts. Nothing, when it is withheld.
    ///
    /// # Errors
    /// When it cannot be read, or no record begins there.
    pub fn record(&mut self, sequence: u64) -> Result<Option<Record>, Finding> {
        let mut assembly = Assembly::default();
        let parts = u64::try_from(RECORD_PARTS_MAX).unwrap_or(u64::MAX);
        for at in (sequence..self.checkpoint.size).take_while(|at| at - sequence < parts) {
            let part = match self.entry(at)?.1 {
                Found::Part(part) => *part,
                Found::Wrong(finding) => return Err(finding),
                Found::Withheld => return Ok(None),
            };
            let wrong = |what: String| Finding { place: format!("entry {at}"), what };
            let joined = assembly.push(at, part).map_err(|error| wrong(error.to_string()))?;
            match joined {
                Some((first, record)) if first == sequence => return Ok(Some(record)),
                Some(_) => break,
                None => {}
            }
        }
        let what = "no record begins there, or it does not end";
        Err(Finding { place: format!("entry {sequence}"), what: what.to_owned() })
    }

    /// An entry as stored, with the file it is in.
    fn stored(&mut self, sequence: u64) -> Result<Stored, Finding> {
        if sequence >= self.bundles * 256 {
            let gone =
                || Finding { place: SEGMENTS.to_owned(), what: format!("entry {sequence} is missing") };
            let (name, entry) = self.edge.entry(sequence).ok_or_else(gone)?;
            return Ok(Stored::Entry(name, entry.to_vec()));
        }
        let index = sequence / 256;
        let tile = Tile::full(TileKind::Entries, index);
        if !self.held.iter().any(|(held, _)| *held == index) {
            if let Some(leaf) = self.withheld_leaf(sequence, tile)? {
                return Ok(Stored::Withheld(leaf));
            }
            self.held.push_back((index, self.read_bundle(tile)?));
            if self.held.len() > self.held_max {
                self.held.pop_front();
            }
        }
        let place = usize::try_from(sequence % 256).unwrap_or_default();
        let held = self.held.iter().rev().find(|(held, _)| *held == index);
        let entry = held.and_then(|(_, entries)| entries.get(place).cloned());
        let short = || Finding { place: tile.path(), what: format!("entry {sequence} is missing") };
        Ok(Stored::Entry(tile.path(), entry.ok_or_else(short)?))
    }

    /// The hash of an entry whose bundle is gone because it is withheld.
    fn withheld_leaf(&mut self, sequence: u64, tile: Tile) -> Result<Option<Hash>, Finding> {
        let found = |error: io::Error| Finding { place: tile.path(), what: error.to_string() };
        if self.hashes.as_ref().is_none_or(|(bundle, _)| *bundle != tile.index) {
            if self.directory.join(tile.path()).exists() {
                return Ok(None);
            }
            if !self.withheld.covers(tile) {
                // A prune may have come in between.
                let origin = &self.checkpoint.origin;
                self.withheld = Withheld::load(&self.directory, origin, self.keys).map_err(found)?;
            }
            if !self.withheld.covers(tile) {
                return Ok(None);
            }
            self.hashes = Some((tile.index, leaves(&self.directory, tile.index).map_err(found)?));
        }
        let place = usize::try_from(sequence % 256).unwrap_or_default();
        Ok(self.hashes.as_ref().and_then(|(_, hashes)| hashes.get(place).copied()))
    }

    fn read_bundle(&self, tile: Tile) -> Result<Vec<Vec<u8>>, Finding> {
        let found = |what: String| Finding { place: tile.path(), what };
        let bytes = fs::read(self.directory.join(tile.path())).map_err(|error| found(error.to_string()))?;
        let entries = read_bundle(&bytes).map_err(|error| found(error.to_string()))?;
        Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
    }
}

impl Skimmed {
    fn read(directory: &Path) -> io::Result<Self> {
        let mut firsts = Vec::new();
        for entry in fs::read_dir(directory.join(SEGMENTS))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Place::Segment(first) = classify(&format!("{SEGMENTS}/{name}")) {
                firsts.push(first);
            }
        }
        firsts.sort_unstable();
        let mut skimmed = Self { start: firsts.first().copied().unwrap_or_default(), ..Self::default() };
        for (place, first) in firsts.iter().enumerate() {
            let bytes = fs::read(directory.join(segment_path(*first)))?;
            skimmed.segments.push((*first, bytes));
            if !skimmed.skim(place, place + 1 == firsts.len()) {
                break;
            }
        }
        Ok(skimmed)
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }

    fn entry(&self, sequence: u64) -> Option<(String, &[u8])> {
        let place = usize::try_from(sequence.checked_sub(self.start)?).ok()?;
        let (segment, range) = self.entries.get(place)?;
        let (first, bytes) = self.segments.get(*segment)?;
        Some((segment_path(*first), bytes.get(range.clone())?))
    }

    /// Reads the frames of the segment at `place`; answers whether the next one may be read.
    fn skim(&mut self, place: usize, is_last: bool) -> bool {
        let Some((first, bytes)) = self.segments.get(place) else { return false };
        let (mut next, mut offset) = (self.end(), 0);
        let found = |at: usize, what: &str| {
            Some(Finding { place: segment_path(*first), what: format!("byte {at}: {what}") })
        };
        if *first != next {
            self.finding = found(0, "entries are missing before it");
            return false;
        }
        loop {
            match frame::read(bytes.get(offset..).unwrap_or_default(), next) {
                Next::End => return true,
                Next::Torn if is_last => return true,
                Next::Torn => {
                    self.finding = found(offset, "ends inside a frame, but another segment follows")
                }
                Next::Foreign(what) => self.finding = found(offset, what),
                Next::Frame(frame) => {
                    let body = offset + frame::HEADER_BYTES;
                    if let Ok(entries) = read_bundle(frame.body) {
                        let ranges = ranges(body, &entries);
                        self.entries.extend(ranges.into_iter().map(|range| (place, range)));
                        next = next.saturating_add(u64::try_from(entries.len()).unwrap_or(u64::MAX));
                        self.note = Some(frame.note.to_vec());
                        offset += frame.bytes;
                        continue;
                    }
                    self.finding = found(offset, "the frame's entries cannot be told apart");
                }
            }
            return false;
        }
    }
}

/// Where the entries of a frame stand, whose first length is at `at`.
fn ranges(at: usize, entries: &[&[u8]]) -> Vec<Range<usize>> {
    let mut begin = at;
    let place = |entry: &&[u8]| {
        let range = begin + 2..begin + 2 + entry.len();
        begin = range.end;
        range
    };
    entries.iter().map(place).collect()
}
