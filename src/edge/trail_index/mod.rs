//! The index of the trail: where to look for the records of a patient, a person, a day.
//!
//! Owns: an SQLite file beside the trail, made from the log, and made again from it at any time.
//! Must never: be the truth (what it finds is decrypted from the log before anybody sees it), write to the trail, or hold a
//! patient, a person, a reference or a request line in clear.
//! Look next: `terms` for what is hashed, `shard` for what is kept, `find` for looking up; `docs/audit.md` for operators.
//!
//! It is bound to its log by the tree: the frontier over every entry it was made from stands in it, and after each update the
//! root must be the one that the newest checkpoint signs. Where it is not, the index is dropped and made anew.

mod find;
mod posting;
mod shard;
mod tables;
mod terms;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use rusqlite::Connection;

use crate::domain::audit::Assembly;
use crate::edge::journal::{Finding, Found, KeyError, Keys, Reader, Settings, derived_secret};
use crate::limits::{INDEX_BYTES_FOR_EACH_CANDIDATE, INDEX_SHARD_ENTRIES_MAX};

pub use find::DayTally;

use shard::Shard;
use tables::State;
use terms::Terms;

/// The file in the audit directory; by its name no evidence (design: section 8).
const FILE: &str = "index.sqlite";

/// Where the index of a trail is when nothing else is said.
#[must_use]
pub fn default_path(trail: &Path) -> PathBuf {
    trail.join(FILE)
}

/// The number of a day in UTC, as [`Index::day`] wants it.
#[must_use]
pub fn day_number(day: Date) -> Option<i64> {
    day.to_zoned(TimeZone::UTC).ok().map(|zoned| shard::day_of(zoned.timestamp()))
}

/// Why the index cannot be used.
#[derive(Debug)]
pub enum IndexError {
    /// There is none: `audit index` makes it.
    Missing,
    /// The file cannot be made.
    File(String),
    /// The file is another program's, or another's of ours.
    Foreign,
    /// SQLite says so.
    Sqlite(rusqlite::Error),
    /// It holds what no index holds.
    Damaged,
    /// The key it is made with cannot be had.
    Key(KeyError),
    /// An entry of the trail cannot be read.
    Trail(Finding),
    /// It holds more entries than the trail it is asked about: that was read earlier, or put back to an older copy.
    Ahead,
    /// The entries do not hash to what the checkpoint signs.
    Unsound,
}

impl fmt::Display for IndexError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => out.write_str("there is no index; `chartgate audit index` makes it"),
            Self::File(why) => write!(out, "the index cannot be made: {why}"),
            Self::Foreign => out.write_str("the file is no index of a trail; it is left alone"),
            Self::Sqlite(error) => write!(out, "the index cannot be used: {error}"),
            Self::Damaged => {
                out.write_str("the index is damaged; `chartgate audit index --rebuild` makes it anew")
            }
            Self::Key(error) => error.fmt(out),
            Self::Trail(finding) => write!(out, "the trail cannot be indexed: {finding}"),
            Self::Ahead => out.write_str("the index holds more than the trail"),
            Self::Unsound => out
                .write_str("the trail's entries do not hash to its checkpoint: run `chartgate audit verify`"),
        }
    }
}

impl std::error::Error for IndexError {}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Finding> for IndexError {
    fn from(finding: Finding) -> Self {
        Self::Trail(finding)
    }
}

/// An index that is open.
#[derive(Debug)]
pub struct Index {
    connection: Connection,
    terms: Terms,
    /// Entries of one shard.
    shard_entries: u64,
    /// What a list may cost for each record in question.
    candidate_bytes: usize,
}

/// What an update did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Updated {
    /// Entries that were read.
    pub entries: u64,
    /// Whether what was there was of no use: of another log, another key or another history.
    pub anew: bool,
}

impl Index {
    /// Opens the index of a trail, and makes the file where there is none.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn create(path: &Path, trail: &Settings) -> Result<Self, IndexError> {
        let key = derived_secret(trail, "index of the trail").map_err(IndexError::Key)?;
        Ok(Self {
            connection: tables::open(path)?,
            terms: Terms::new(&key),
            shard_entries: INDEX_SHARD_ENTRIES_MAX,
            candidate_bytes: INDEX_BYTES_FOR_EACH_CANDIDATE,
        })
    }

    /// Opens the index of a trail that is there.
    ///
    /// # Errors
    /// [`IndexError::Missing`] and others.
    pub fn open(path: &Path, trail: &Settings) -> Result<Self, IndexError> {
        if path.is_file() { Self::create(path, trail) } else { Err(IndexError::Missing) }
    }

    /// Brings the index up to date, and opens the trail as far as it goes.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn current<'k>(
        &mut self,
        trail: &Settings,
        keys: &'k Keys,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(Reader<'k>, Updated), IndexError> {
        let mut anew = false;
        for is_first in [true, false] {
            let mut reader = Reader::open(&trail.directory, keys)?;
            match self.update(&mut reader, tell) {
                Ok(updated) => return Ok((reader, Updated { anew: updated.anew || anew, ..updated })),
                // Another program may have read more of the trail meanwhile. If not, the trail was put back.
                Err(IndexError::Ahead) if is_first => {}
                Err(IndexError::Ahead) => {
                    self.clear()?;
                    anew = true;
                }
                Err(error) => return Err(error),
            }
        }
        let mut reader = Reader::open(&trail.directory, keys)?;
        let updated = self.update(&mut reader, tell)?;
        Ok((reader, Updated { anew: updated.anew || anew, ..updated }))
    }

    /// From now on what is looked up is of one moment, whatever other programs add.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn freeze(&self) -> Result<(), IndexError> {
        Ok(self.connection.execute_batch("BEGIN")?)
    }

    /// Drops what is indexed.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn clear(&mut self) -> Result<(), IndexError> {
        tables::empty(&self.connection)
    }

    /// Brings the index up to the trail as `reader` sees it. `tell` hears how far it has come.
    ///
    /// # Errors
    /// [`IndexError`]; what was indexed before stays, unless it was of no use.
    pub fn update(
        &mut self,
        reader: &mut Reader<'_>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Updated, IndexError> {
        let mut updated = Updated::default();
        loop {
            let state = self.state(reader, &mut updated)?;
            let (from, end) = (state.frontier.size(), reader.checkpoint().size);
            if from < end || state.frontier.root() != reader.checkpoint().root {
                let read = if from < end { self.advance(&state, reader)? } else { None };
                match read {
                    Some(entries) => updated.entries += entries,
                    // Another program came first, or this is another history: once more, or not at all.
                    None if self.state(reader, &mut updated)? != state => {}
                    None if from > 0 && !updated.anew => {
                        self.clear()?;
                        updated.anew = true;
                    }
                    None => {
                        self.clear()?;
                        return Err(IndexError::Unsound);
                    }
                }
                tell(updated.entries);
                continue;
            }
            return Ok(updated);
        }
    }

    /// Where the index stands in this log: at its beginning, when what is there is of no use.
    fn state(&mut self, reader: &Reader<'_>, updated: &mut Updated) -> Result<State, IndexError> {
        let log = reader.checkpoint();
        // An index made before a prune knows of what is withheld now: it is of no use.
        let key = [self.terms.fingerprint(), self.terms.mark(&reader.withheld())].concat();
        let empty = State::empty(&log.origin, &key);
        let Some(state) = State::read(&self.connection)? else { return Ok(empty) };
        if state.origin == empty.origin && state.key == empty.key {
            return if state.frontier.size() <= log.size { Ok(state) } else { Err(IndexError::Ahead) };
        }
        self.clear()?;
        updated.anew = true;
        Ok(empty)
    }

    /// Indexes one shard behind `state`. `None` when nothing was written: the entries end in another root than the
    /// checkpoint's, or the index is not at `state` any more.
    fn advance(&mut self, state: &State, reader: &mut Reader<'_>) -> Result<Option<u64>, IndexError> {
        let (from, end) = (state.frontier.size(), reader.checkpoint().size);
        let mut next = state.clone();
        let mut shard = Shard::new(from);
        let mut assembly = Assembly::default();
        let mut at = from;
        // A record is not divided between shards.
        while at < end && (at - from < self.shard_entries || assembly.is_open()) {
            let (leaf, part) = reader.entry(at)?;
            next.frontier.push(leaf);
            match part {
                Found::Part(part) => match assembly.push(at, *part) {
                    Ok(Some((first, record))) => shard.add(first, &record, &mut self.terms),
                    Ok(None) => {}
                    Err(error) => {
                        shard.fault(at, Finding { place: format!("entry {at}"), what: error.to_string() });
                    }
                },
                Found::Wrong(finding) => shard.fault(at, finding),
                Found::Withheld => {}
            }
            at += 1;
        }
        if at == end && next.frontier.root() != reader.checkpoint().root {
            return Ok(None);
        }
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let is_here = match State::read(&transaction)? {
            Some(now) => now == *state,
            None => from == 0,
        };
        if !is_here {
            return Ok(None);
        }
        shard.write(&transaction, at)?;
        next.write(&transaction)?;
        transaction.commit()?;
        Ok(Some(at - from))
    }
}
