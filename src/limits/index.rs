//! Bounds of the index of the trail, and of what is read by it.
//!
//! Owns: how much is held and looked at. Must never: decide what is found.
//! Look next: `edge::trail_index`.

use std::time::Duration;

/// Bundles a reader holds: a decision and its outcome are seldom further apart than a few.
pub const READER_BUNDLES_HELD_MAX: usize = 8;
/// Terms held while an index is made: names that come again. About 20 MiB.
pub const INDEX_TERMS_HELD_MAX: usize = 200_000;
/// Entries in one shard of the index: what is held in memory while it is written, about 150 MiB.
pub const INDEX_SHARD_ENTRIES_MAX: u64 = 262_144;
/// Entries whose earliest and latest time are kept together: a search by time looks at no more than these too many.
pub const INDEX_SPAN_ENTRIES: u64 = 1_024;
/// Records one search looks up by the index; where more may match, the trail is read from its beginning to its end.
pub const INDEX_CANDIDATES_MAX: usize = 50_000;
/// A list of sequence numbers is read if it has at most this many bytes for each record still in question: looking at a
/// record costs about as much as reading this many bytes.
pub const INDEX_BYTES_FOR_EACH_CANDIDATE: usize = 2_048;

/// How often slips of readings are taken up: equal ones become one record, so a program that reads in a loop makes one a minute.
pub const READINGS_INTERVAL: Duration = Duration::from_secs(60);
/// Slips taken up at once; more wait for the next round.
pub const READINGS_IN_ROUND_MAX: usize = 1_000;
/// One slip: a few dozen texts at their longest, sealed and in base64. What is longer was not left by a reading command.
pub const READING_SLIP_BYTES_MAX: u64 = 64 * 1024;
/// One text of a reading, such as a value that was searched for.
pub const READING_TEXT_BYTES_MAX: usize = 256;
