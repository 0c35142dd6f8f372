//! Verification of a whole audit directory.
//!
//! Owns: the rule that every byte of every file of evidence is accounted for, and the words for what is not.
//! Must never: need the lock, write, or stop at the first fault when more can be said.
//! Look next: `snapshot` for the reading, `docs/audit.md` for what is and what is not found.

mod beside;
mod spans;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::datakeys::{KeyFiles, Ring};
use super::entry::KeyId;
use super::keys::Keys;
use super::layout::{CHECKPOINT, PUBLISHED, SEGMENTS};
use super::reserve::Contents;
use super::reserve::claims::Claims;
use super::segments::Edge;
use super::snapshot::Snapshot;
use super::withheld::{Prunes, Withheld};
use super::witnessed::{Demand, Witnessed};
use crate::domain::audit::{Assembly, Event, Record, decode};
use crate::domain::ledger::{
    Checkpoint, Frontier, Hash, Tile, TileKind, Tiles, leaf_hash, read_bundle, verify, write_entry,
};

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, and the entry where that is known.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.what)
    }
}

/// What to verify.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'r> {
    /// Decrypt and decode every entry too.
    pub decode: bool,
    /// A checkpoint of this log that was kept elsewhere: the log must contain it. Finds a directory that
    /// was put back to an older state as a whole, which nothing inside it can tell.
    pub against: Option<&'r [u8]>,
    /// Who must have cosigned, and how lately.
    pub demand: Demand<'r>,
}

/// The result of a verification.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The log's name.
    pub origin: String,
    /// Its verifier key, as other tools of the family take it.
    pub verifier: String,
    /// Entries in the trail, those behind the checkpoint included.
    pub size: u64,
    /// Root over them, in hexadecimal.
    pub root: String,
    /// Entries the signed checkpoint covers.
    pub checkpoint_size: u64,
    /// Entries whose tiles are published.
    pub published_size: u64,
    /// Records decoded, if that was asked for.
    pub records: u64,
    /// Time of the first and last record in sequence.
    pub times: Option<(Timestamp, Timestamp)>,
    /// What witnesses cosigned last.
    pub witnessed: Vec<Witnessed>,
    /// What is wrong: empty means that nothing was changed.
    pub findings: Vec<Finding>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
    pub(super) resume: Resume,
}

/// What the writer needs to go on from here.
#[derive(Debug, Default)]
pub(super) struct Resume {
    /// Entries that were not read: their hashes were, and are what was signed.
    pub(super) unread: u64,
    pub(super) frontier: Frontier,
    /// The hash tiles as they were at the last bundle boundary before the published size.
    pub(super) tiles: Tiles,
    /// The entries from that boundary on.
    pub(super) entries: Vec<Vec<u8>>,
    /// The signed checkpoint over everything.
    pub(super) note: Vec<u8>,
    /// Whether `checkpoint` already holds it.
    pub(super) is_current: bool,
    /// The segments: first entry, end, bytes of whole frames.
    pub(super) segments: Vec<(u64, u64, usize)>,
    pub(super) torn_bytes: usize,
    pub(super) partial: Vec<Tile>,
    pub(super) key_files: KeyFiles,
    /// The keys that the entries name.
    pub(super) used_keys: BTreeSet<KeyId>,
    /// How the newest entry was sealed: its version and key.
    pub(super) last_sealed: Option<(u8, KeyId)>,
    /// A reserve that holds something, and whether the log took that over.
    pub(super) reserve: Option<(Contents, bool)>,
}

/// More are counted only.
const FINDINGS_MAX: usize = 100;
/// Requests end in another order than they began; a clock that went back further than this is worth a note.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(60);

/// Verifies the directory. Works while it is being written, and after a crash.
///
/// # Errors
/// When the directory cannot be read at all.
pub fn inspect(directory: &Path, keys: &Keys, request: Request<'_>) -> io::Result<Inspection> {
    read(directory, keys, request, Reading::Whole(&mut || Ok(())))
}

/// How much is read.
pub(super) enum Reading<'r> {
    /// Everything; before each bundle this is called, which may rest, or end the verification by an error.
    Whole(&'r mut dyn FnMut() -> io::Result<()>),
    /// What a gate needs to know before it goes on writing.
    Start(Trust),
}

/// What is taken from hash tiles instead of entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    /// The row of the tiles that are read: the entries below a full one are passed over.
    pub(super) level: u8,
    /// So many published entries, the newest, are read whatever stands in tiles.
    pub(super) newest: u64,
}

/// [`inspect`], of as much as `reading` says.
pub(super) fn read(
    directory: &Path,
    keys: &Keys,
    request: Request<'_>,
    reading: Reading<'_>,
) -> io::Result<Inspection> {
    let snapshot = Snapshot::take(directory)?;
    let edge = Edge::read(&snapshot.segments, keys.signer.key());
    let mut walk = Walk::new(&snapshot, &edge, keys, request.decode);
    walk.begin(request.against);
    walk.read_bundles(reading)?;
    walk.read_edge();
    walk.finish(request.demand);
    Ok(walk.report)
}

/// One pass over all entries in sequence.
struct Walk<'w> {
    snapshot: &'w Snapshot,
    edge: &'w Edge<'w>,
    keys: &'w Keys,
    ring: Ring<'w>,
    key_files: KeyFiles,
    decode: bool,
    /// The bundle boundary at or below the published size.
    floor: u64,
    /// The end of the bundles that are there without a gap, withheld ones among them.
    bundled: u64,
    /// Roots that were signed, by size, with the place that says so.
    marks: BTreeMap<u64, Vec<(String, Hash)>>,
    /// Partial tiles, by the size at which they were right.
    partial: BTreeMap<u64, Vec<(Tile, &'w [u8])>>,
    tiles: Tiles,
    bundle: Vec<u8>,
    assembly: Assembly,
    clock_back: u64,
    latest: Option<Timestamp>,
    /// The stream of entries has a hole: nothing behind it can be verified.
    is_broken: bool,
    reserve: Option<Contents>,
    claims: Claims,
    /// What may be missing, as the file says and a record must.
    withheld: Withheld,
    prunes: Prunes,
    report: Inspection,
}

impl<'w> Walk<'w> {
    fn new(snapshot: &'w Snapshot, edge: &'w Edge<'w>, keys: &'w Keys, decode: bool) -> Self {
        let mut partial: BTreeMap<u64, Vec<(Tile, &[u8])>> = BTreeMap::new();
        for (tile, bytes) in &snapshot.partial {
            partial.entry(tile.entries_needed()).or_default().push((*tile, bytes));
        }
        let report = Inspection { findings: edge.findings.clone(), ..Inspection::default() };
        Self {
            snapshot,
            edge,
            keys,
            ring: Ring::new(&snapshot.directory, "", keys),
            key_files: KeyFiles::default(),
            decode,
            floor: 0,
            bundled: 0,
            marks: BTreeMap::new(),
            partial,
            tiles: Tiles::default(),
            bundle: Vec::new(),
            assembly: Assembly::default(),
            clock_back: 0,
            latest: None,
            is_broken: false,
            reserve: None,
            claims: Claims::default(),
            withheld: Withheld::default(),
            prunes: Prunes::default(),
            report,
        }
    }

    fn find(&mut self, place: impl Into<String>, what: impl Into<String>) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding { place: place.into(), what: what.into() });
        }
    }

    /// Reads the signed notes and the names.
    fn begin(&mut self, against: Option<&[u8]>) {
        let checkpoint = self.read_note(CHECKPOINT, self.snapshot.checkpoint.as_deref());
        let published = self.read_note(PUBLISHED, self.snapshot.published.as_deref());
        self.report.checkpoint_size = checkpoint.as_ref().map_or(0, |note| note.size);
        self.report.published_size = published.as_ref().map_or(0, |note| note.size);
        self.floor = self.report.published_size / 256 * 256;
        if let Some(origin) = checkpoint.or(published).map(|note| note.origin) {
            self.report.verifier = self.keys.signer.key().verifier(&origin);
            self.report.origin = origin;
        }
        if let Some(kept) = against {
            self.read_note("the checkpoint kept elsewhere", Some(kept));
        }
        self.read_witnessed();
        for (name, checkpoint, _) in &self.edge.frames {
            self.mark(name, checkpoint);
        }
        for name in &self.snapshot.unknown {
            self.find(name, "does not belong to the trail");
        }
        self.read_keys();
        self.read_withheld();
        // Counted once: it is as long as the trail.
        self.bundled = self.snapshot.bundles(&self.withheld) * 256;
        self.read_reserve();
        self.check_names();
        self.check_size();
    }

    fn read_note(&mut self, name: &str, note: Option<&[u8]>) -> Option<Checkpoint> {
        let read = note.map(|note| verify(self.keys.signer.key(), note));
        match read {
            Some(Ok(checkpoint)) => {
                self.mark(name, &checkpoint);
                return Some(checkpoint);
            }
            Some(Err(error)) => self.find(name, error.to_string()),
            None => self.find(name, "is missing"),
        }
        None
    }

    /// A state that a witness has seen must be a beginning of this log, whoever demands it or not.
    fn read_witnessed(&mut self) {
        for (name, key, bytes) in &self.snapshot.witnessed {
            match Witnessed::read(*key, bytes, self.keys.signer.key()) {
                Ok(read) => {
                    self.mark(name, read.checkpoint());
                    self.report.witnessed.push(read);
                }
                Err(error) => self.find(name, error.to_string()),
            }
        }
    }

    fn mark(&mut self, name: &str, checkpoint: &Checkpoint) {
        if !self.report.origin.is_empty() && checkpoint.origin != self.report.origin {
            self.find(name, "is the checkpoint of another log");
        }
        self.marks.entry(checkpoint.size).or_default().push((name.to_owned(), checkpoint.root));
    }

    /// Every published tile must be there, and no tile beyond the entries.
    fn check_names(&mut self) {
        let tiles = &self.snapshot.tiles;
        for tile in Tile::of_tree(0, self.report.published_size) {
            if !tiles.contains(&tile) && !self.withheld.covers(tile) {
                self.find(tile.path(), "is missing");
            }
        }
        let end = self.edge.end().max(self.bundled);
        for tile in tiles.iter().filter(|tile| tile.entries_needed() > end) {
            self.find(tile.path(), "is for more entries than there are");
        }
    }

    /// Everything that was signed for must be there.
    fn check_size(&mut self) {
        let end = self.edge.end();
        if self.report.checkpoint_size < self.report.published_size {
            // `published` is replaced after `checkpoint`, and the directory is synced then.
            self.find(CHECKPOINT, "is older than `published`");
        }
        let bundled = self.bundled;
        if self.edge.start > bundled {
            let missing = format!("entries from {bundled} to {} are missing", self.edge.start);
            self.find("tile/entries", missing);
        }
        if self.edge.start > self.floor && self.edge.start <= bundled {
            self.find(SEGMENTS, format!("the segment with entry {} is missing", self.floor));
        }
        let beyond: Vec<(u64, String)> = self
            .marks
            .range(end.saturating_add(1)..)
            .flat_map(|(size, names)| names.iter().map(|(name, _)| (*size, name.clone())))
            .collect();
        for (size, name) in beyond {
            let missing = format!("entries from {end} to {size} are missing: `{name}` covers them");
            self.find(SEGMENTS, missing);
        }
    }

    fn push_leaf(&mut self, leaf: Hash) -> io::Result<()> {
        self.report.resume.frontier.push(leaf);
        for (tile, bytes) in self.tiles.push(leaf) {
            self.check_full(tile, &bytes)?;
        }
        Ok(())
    }

    fn read_bundles(&mut self, mut reading: Reading<'_>) -> io::Result<()> {
        self.check_at(0);
        while !self.is_broken && self.report.resume.frontier.size() < self.bundled {
            match &mut reading {
                Reading::Whole(before) => before()?,
                Reading::Start(trust) => {
                    if self.pass_over(*trust)? {
                        continue;
                    }
                }
            }
            self.read_bundle(self.report.resume.frontier.size() / 256)?;
        }
        Ok(())
    }

    fn read_bundle(&mut self, index: u64) -> io::Result<()> {
        let tile = Tile::full(TileKind::Entries, index);
        if !self.snapshot.tiles.contains(&tile) {
            return self.read_hashes(index);
        }
        let bytes = self.snapshot.read_tile(tile)?;
        let place = tile.path();
        let entries = read_bundle(&bytes).map_err(|error| error.to_string());
        let whole = entries.and_then(|entries| match entries.len() {
            256 => Ok(entries),
            count => Err(format!("holds {count} entries, not 256")),
        });
        let entries = match whole {
            Ok(entries) => entries,
            Err(what) => {
                self.find(place, what);
                self.is_broken = true;
                return Ok(());
            }
        };
        for (entry, sequence) in entries.into_iter().zip(index * 256..) {
            self.check_twin(&place, sequence, entry);
            self.push(&place, sequence, entry)?;
        }
        Ok(())
    }

    /// An entry that is in a bundle and still in a segment must be the same in both.
    fn check_twin(&mut self, bundle: &str, sequence: u64, entry: &[u8]) {
        if self.edge.entry(sequence).is_none_or(|twin| twin == entry) {
            return;
        }
        let segment = self.edge.name_of(sequence);
        let is_true = self.ring.open(sequence, entry).is_ok();
        let (changed, other) = if is_true { (segment.as_str(), bundle) } else { (bundle, segment.as_str()) };
        let what = format!("differs from the same entry in `{other}`");
        self.find(format!("{changed}, entry {sequence}"), what);
    }

    fn read_edge(&mut self) {
        let next = self.report.resume.frontier.size();
        if self.is_broken || next < self.edge.start {
            self.is_broken = true;
            return;
        }
        for sequence in next..self.edge.end() {
            let Some(entry) = self.edge.entry(sequence) else { return };
            let place = self.edge.name_of(sequence);
            if let Err(error) = self.push(&place, sequence, entry) {
                self.find(place, error.to_string());
            }
        }
    }

    /// Takes the next entry.
    fn push(&mut self, place: &str, sequence: u64, entry: &[u8]) -> io::Result<()> {
        self.push_leaf(leaf_hash(entry))?;
        if write_entry(&mut self.bundle, entry).is_err() {
            self.find(format!("{place}, entry {sequence}"), "is too long");
        }
        self.judge_key(place, sequence, entry);
        // The record of a prune, too: without it nothing may be missing.
        if self.decode || sequence == 0 || sequence == self.withheld.sequence {
            self.read_record(place, sequence, entry);
        }
        if sequence >= self.floor {
            self.report.resume.entries.push(entry.to_vec());
        }
        let size = sequence.saturating_add(1);
        if size.is_multiple_of(256) {
            self.check_early(Tile::full(TileKind::Entries, size / 256 - 1))?;
        }
        self.check_at(size);
        Ok(())
    }

    /// Compares a full hash tile with the one that was stored, if one was.
    fn check_full(&mut self, tile: Tile, bytes: &[u8]) -> io::Result<()> {
        if !self.snapshot.tiles.contains(&tile) {
            return Ok(());
        }
        let stored = self.snapshot.read_tile(tile)?;
        if stored != bytes {
            let cell = stored.chunks(32).zip(bytes.chunks(32)).take_while(|(is, should)| is == should);
            let cell = u64::try_from(cell.count()).unwrap_or_default();
            let first = Tile { index: 0, width: 1, ..tile }.entries_needed();
            let sequence = (tile.index * 256 + cell).saturating_mul(first);
            self.find(tile.path(), format!("does not match the entries, from entry {sequence} on"));
        }
        Ok(())
    }

    /// A bundle that a crashed publication wrote, while one before it is missing, must hold these entries too.
    fn check_early(&mut self, bundle: Tile) -> io::Result<()> {
        let is_early = bundle.entries_needed() > self.bundled && self.snapshot.tiles.contains(&bundle);
        if is_early && self.snapshot.read_tile(bundle)? != self.bundle {
            self.find(bundle.path(), "does not match the entries");
        }
        Ok(())
    }

    /// Checks what was signed or stored for the tree of this size.
    fn check_at(&mut self, size: u64) {
        if let Some(marks) = self.marks.remove(&size) {
            let root = self.report.resume.frontier.root();
            for (name, signed) in marks.into_iter().filter(|(_, signed)| *signed != root) {
                self.find(name, format!("root over the first {size} entries is {root}, signed is {signed}"));
            }
        }
        for (tile, stored) in self.partial.remove(&size).unwrap_or_default() {
            let is_right = match tile.kind {
                TileKind::Entries => stored == self.bundle,
                TileKind::Hashes(_) => {
                    self.tiles.partial().iter().any(|(other, bytes)| *other == tile && bytes == stored)
                }
            };
            if !is_right {
                self.find(tile.path(), "does not match the entries");
            }
        }
        if size.is_multiple_of(256) {
            self.bundle.clear();
        }
        if size == self.floor {
            self.report.resume.tiles = self.tiles.clone();
        }
    }

    /// Decrypts and decodes.
    fn read_record(&mut self, place: &str, sequence: u64, entry: &[u8]) {
        let part = self.ring.open(sequence, entry);
        let part = part.map_err(|error| error.to_string());
        let part = part.and_then(|part| decode(&part).map_err(|error| error.to_string()));
        let record =
            part.and_then(|part| self.assembly.push(sequence, part).map_err(|error| error.to_string()));
        match record {
            Ok(Some((_, record))) => self.take_record(sequence, &record),
            Ok(None) => {}
            Err(what) => self.find(format!("{place}, entry {sequence}"), what),
        }
    }

    fn take_record(&mut self, sequence: u64, record: &Record) {
        self.report.records += 1;
        let time = record.time();
        if self.latest.is_some_and(|latest| time < latest - CLOCK_SLACK) {
            self.clock_back += 1;
        }
        self.latest = self.latest.max(Some(time));
        self.report.times = Some((self.report.times.map_or(time, |(first, _)| first), time));
        if let Record::Control(control) = record
            && let Some(what) = self.claims.learn(control)
        {
            self.find(format!("entry {sequence}"), what);
        }
        if let Record::Control(control) = record
            && let Err(what) = self.prunes.learn(sequence, control, &self.withheld)
        {
            self.find(format!("entry {sequence}"), what);
        }
        if sequence == 0 && !is_creation_of(&self.report.origin, record) {
            self.find("entry 0", "is not the creation of this trail");
        }
    }

    fn finish(&mut self, demand: Demand<'_>) {
        let frontier = &self.report.resume.frontier;
        self.report.size = frontier.size();
        self.report.root = frontier.root().to_string();
        if self.decode && !self.is_broken && self.assembly.is_open() {
            self.find(SEGMENTS, "the last record is not complete");
        }
        let unread = self.is_broken && self.report.findings.is_empty();
        if unread || self.report.size < self.edge.end() {
            self.find(SEGMENTS, format!("entries from {} on could not be verified", self.report.size));
        }
        let latest = self.report.times.map(|(_, last)| last);
        let missing = demand.missing(&self.report.witnessed, self.report.size, latest);
        missing.into_iter().for_each(|finding| self.find(finding.place, finding.what));
        self.note_edge();
        self.judge_withheld();
        self.judge_reserve();
        let resume = &mut self.report.resume;
        resume.key_files = std::mem::take(&mut self.key_files);
        resume.segments = self.edge.ends.clone();
        resume.torn_bytes = self.edge.torn_bytes;
        resume.partial = self.snapshot.partial.iter().map(|(tile, _)| *tile).collect();
        let checkpoint = self.snapshot.checkpoint.as_deref().unwrap_or_default();
        let last = self.edge.frames.last().filter(|(_, last, _)| last.size > self.report.checkpoint_size);
        resume.note = last.map_or(checkpoint, |(_, _, note)| note).to_vec();
        resume.is_current = resume.note == checkpoint;
    }

    fn note_edge(&mut self) {
        let notes = &mut self.report.notes;
        let beyond = self.report.size.saturating_sub(self.report.checkpoint_size);
        if beyond > 0 {
            notes.push(format!(
                "{beyond} entries stand behind the checkpoint, in whole signed frames: written just now, or before a crash"
            ));
        }
        if self.edge.torn_bytes > 0 {
            notes.push(format!(
                "{} bytes of an unfinished frame stand at the end: being written now, or left by a crash; no answer depended on them",
                self.edge.torn_bytes
            ));
        }
        if self.clock_back > 0 {
            notes.push(format!("the clock went back before {} records", self.clock_back));
        }
    }
}

/// Whether `record` is the first of the log named `origin`.
fn is_creation_of(origin: &str, record: &Record) -> bool {
    match record {
        Record::Control(control) => {
            control.event == Event::Created
                && control.details.get("origin").is_some_and(|named| named == origin)
        }
        Record::Intent(_) | Record::Decision(_) | Record::Outcome(_) => false,
    }
}
