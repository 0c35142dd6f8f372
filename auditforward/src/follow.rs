//! Reading on in the trail: the records from a sequence number on, as items, as far as they are durable.
//!
//! Owns: where a record begins and ends, what is a gap, and that nothing is handed on which a power cut could take back.
//! Must never: take the trail's lock; pass over an entry in silence; pass over one that only cannot be read at the moment.
//! Look next: `pump`, which sends what is read; `chartgate::edge::journal::Reader`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use chartgate::cli::audit::item::item;
use chartgate::domain::audit::{self, Assembly, Part, Record, Verdict};
use chartgate::domain::ledger::{Hash, Tile, TileKind};
use chartgate::edge::journal::{Found, Reader};
use chartgate::limits::RECORD_PARTS_MAX;
use jiff::Timestamp;
use serde_json::json;

use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, GAP_ENTRIES_MAX, GAP_PATIENCE};

/// How much somebody should be woken by an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// As always.
    Information,
    /// A refusal.
    Warning,
    /// Entries of the trail cannot be read.
    Error,
}

/// What is sent for one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The record's sequence number; with the log's origin, what duplicates are known by.
    pub(crate) sequence: u64,
    /// `release`, `refusal`, `intent`, `outcome`, `control` or `gap`.
    pub(crate) kind: String,
    /// How much it matters.
    pub(crate) level: Level,
    /// The record's time; of a gap there is none.
    pub(crate) time: Option<Timestamp>,
    /// One line of JSON in printable ASCII.
    pub(crate) line: String,
}

/// What is sent at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In sequence.
    pub(crate) items: Vec<Item>,
    /// The entry behind it.
    pub(crate) next: u64,
    /// The leaf hash of the last entry in it, if that could be read.
    pub(crate) last: Option<Hash>,
    /// Entries that are told of as gaps.
    pub(crate) gaps: u64,
}

/// How long an entry has been unreadable.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// The entry and since when.
    waiting: Option<(u64, Instant)>,
    /// Where the last gap ended: one that goes on there is the same.
    gap_end: Option<u64>,
}

impl Patience {
    fn is_over(&mut self, at: u64) -> bool {
        if self.gap_end == Some(at) {
            return true;
        }
        match self.waiting {
            Some((waiting, since)) if waiting == at => since.elapsed() >= GAP_PATIENCE,
            _ => {
                self.waiting = Some((at, Instant::now()));
                false
            }
        }
    }
}

/// A trail being followed.
#[derive(Debug)]
pub(crate) struct Follower<'r, 'k> {
    /// Reads entries.
    pub(crate) reader: &'r mut Reader<'k>,
    /// The trail's directory.
    pub(crate) directory: PathBuf,
    /// One behind the last entry that is durable.
    pub(crate) end: u64,
    /// Whether patients' ids go along.
    pub(crate) patients: bool,
}

impl Follower<'_, '_> {
    /// What comes from entry `from` on; empty at the end.
    ///
    /// # Errors
    /// A sentence, when the very first entry cannot be read and it is too early to call that a gap.
    pub(crate) fn batch(&mut self, from: u64, patience: &mut Patience) -> Result<Batch, String> {
        let mut batch = Batch { next: from, ..Batch::default() };
        let mut bytes = 0;
        while batch.next < self.end && batch.items.len() < BATCH_ITEMS_MAX && bytes < BATCH_BYTES_MAX {
            match self.record(batch.next) {
                Ok(read) => {
                    let item = self.item(batch.next, &read.record);
                    // Larger than what is left: it goes alone, or first.
                    if bytes > 0 && bytes + item.line.len() > BATCH_BYTES_MAX {
                        break;
                    }
                    bytes += item.line.len();
                    batch.items.push(item);
                    (batch.next, batch.last) = (read.end, Some(read.leaf));
                }
                // What came before it goes first.
                Err(_) if !batch.items.is_empty() => break,
                Err(why) => {
                    if !self.is_lost(batch.next) || !patience.is_over(batch.next) {
                        return Err(why);
                    }
                    let end = self.gap_end(batch.next);
                    batch.items.push(gap(batch.next, end, &why));
                    batch.gaps += end - batch.next;
                    (batch.next, batch.last) = (end, None);
                    patience.gap_end = Some(end);
                    break;
                }
            }
        }
        Ok(batch)
    }

    /// The record that begins at `from`.
    fn record(&mut self, from: u64) -> Result<Read, String> {
        let mut assembly = Assembly::default();
        let parts = u64::try_from(RECORD_PARTS_MAX).unwrap_or(u64::MAX);
        for at in (from..self.end).take_while(|at| at - from < parts) {
            let (leaf, part) = self.part(at)?;
            let joined = assembly.push(at, part).map_err(|error| format!("entry {at}: {error}"))?;
            if let Some((_, record)) = joined {
                return Ok(Read { record, end: at.saturating_add(1), leaf });
            }
        }
        Err(format!("the record at entry {from} does not end"))
    }

    fn item(&self, sequence: u64, record: &Record) -> Item {
        let value = item(sequence, record, self.patients);
        let kind = value.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
        let level = match record {
            Record::Decision(decision) if decision.verdict == Verdict::Refuse => Level::Warning,
            Record::Decision(_) | Record::Intent(_) | Record::Outcome(_) | Record::Control(_) => {
                Level::Information
            }
        };
        Item { sequence, kind, level, time: Some(record.time()), line: ascii(&audit::json(&value)) }
    }

    /// Whether an entry that cannot be read never will be: its bundle is gone, or is there and is not what was written.
    /// Everything else, a disk that does not answer for one, is waited for.
    fn is_lost(&self, sequence: u64) -> bool {
        let bundle = self.directory.join(Tile::full(TileKind::Entries, sequence / 256).path());
        match fs::read(bundle) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Where records begin again.
    fn gap_end(&mut self, from: u64) -> u64 {
        let end = self.end.min(from.saturating_add(GAP_ENTRIES_MAX));
        let mut at = from.saturating_add(1);
        while at < end && !self.begins(at) {
            at += 1;
        }
        at
    }

    fn begins(&mut self, at: u64) -> bool {
        self.part(at).is_ok_and(|(_, part)| Assembly::default().push(at, part).is_ok())
    }

    /// What stands in an entry, and its leaf hash; or why that cannot be read.
    fn part(&mut self, at: u64) -> Result<(Hash, Part), String> {
        let (leaf, found) = self.reader.entry(at).map_err(|finding| finding.to_string())?;
        match found {
            Found::Part(part) => Ok((leaf, *part)),
            Found::Wrong(finding) => Err(finding.to_string()),
            Found::Withheld => Err(format!("entry {at} was withheld by a prune")),
        }
    }
}

struct Read {
    record: Record,
    end: u64,
    leaf: Hash,
}

fn gap(from: u64, end: u64, why: &str) -> Item {
    let line = json!({"sequence": from, "kind": "gap", "from": from, "to": end - 1, "why": why});
    let line = ascii(&audit::json(&line));
    Item { sequence: from, kind: "gap".to_owned(), level: Level::Error, time: None, line }
}

/// One behind the last entry that the checkpoint file covers: what stands behind it was perhaps not synced yet, and a power cut
/// could put another record in its place. The signature is looked at by the reader.
pub(crate) fn durable_end(directory: &Path) -> Result<u64, String> {
    let path = directory.join("checkpoint");
    let fault = |what: String| format!("`{}`: {what}", path.display());
    let note = fs::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
    let size = note.lines().nth(1).and_then(|size| size.parse().ok());
    size.ok_or_else(|| fault("is no checkpoint".to_owned()))
}

/// JSON with everything beyond printable ASCII as `\u` escapes: what is not ASCII stands inside strings only.
fn ascii(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        if character == ' ' || character.is_ascii_graphic() {
            plain.push(character);
        } else {
            for unit in character.encode_utf16(&mut units) {
                plain.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    proptest! {
        /// T-226: whatever a client wrote, one line of printable ASCII, and the same value.
        #[test]
        fn a_line_is_ascii_and_says_the_same(text in any::<String>()) {
            let value = json!({"request": text});
            let line = ascii(&audit::json(&value));
            prop_assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }
    }

    #[test]
    fn a_gap_names_its_entries() {
        let item = gap(5, 9, "it\u{202e} is\ngone");
        assert_eq!(item.line, r#"{"sequence":5,"kind":"gap","from":5,"to":8,"why":"it\u202e is\ngone"}"#);
    }

    #[test]
    fn patience_is_for_one_place_and_a_gap_that_goes_on_needs_none() {
        let mut patience = Patience::default();
        assert!(!patience.is_over(7));
        assert!(!patience.is_over(8));
        patience.waiting = Instant::now().checked_sub(GAP_PATIENCE).map(|since| (8, since));
        assert!(patience.is_over(8));
        patience.gap_end = Some(300);
        assert!(patience.is_over(300) && !patience.is_over(301));
    }
}
