//! The right edge: the segments of a snapshot, read frame by frame.
//!
//! Owns: which entries the segments hold, and what is wrong with them.
//! Must never: skip over a fault; everything behind one is unread.
//! Look next: `inspect`, which joins this with the bundles.

use super::frame::{self, Next};
use super::inspect::Finding;
use super::layout::{SEGMENTS, segment_path};
use crate::domain::ledger::{Checkpoint, LogKey, read_bundle, verify};

/// The bytes of one segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) bytes: Vec<u8>,
}

/// What the segments hold.
#[derive(Debug, Default)]
pub(super) struct Edge<'s> {
    /// Index of the first entry.
    pub(super) start: u64,
    pub(super) entries: Vec<&'s [u8]>,
    /// The checkpoint after each frame, with the name of its segment and its bytes.
    pub(super) frames: Vec<(String, Checkpoint, &'s [u8])>,
    /// End of each segment that was read, in entries, with the bytes of its whole frames.
    pub(super) ends: Vec<(u64, u64, usize)>,
    /// Bytes behind the last whole frame.
    pub(super) torn_bytes: usize,
    pub(super) findings: Vec<Finding>,
}

impl<'s> Edge<'s> {
    /// Reads `segments`, which are in order.
    pub(super) fn read(segments: &'s [Segment], key: &LogKey) -> Self {
        let mut edge = Self { start: segments.first().map_or(0, |first| first.first), ..Self::default() };
        if segments.is_empty() {
            edge.find("segment", "there is no segment");
        }
        for (place, segment) in segments.iter().enumerate() {
            let is_last = place + 1 == segments.len();
            if !edge.read_segment(segment, is_last, key) {
                break;
            }
        }
        edge
    }

    /// One behind the last entry.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }

    /// The entry with this index.
    pub(super) fn entry(&self, index: u64) -> Option<&'s [u8]> {
        let place = usize::try_from(index.checked_sub(self.start)?).ok()?;
        self.entries.get(place).copied()
    }

    /// The segment that holds this entry.
    pub(super) fn name_of(&self, index: u64) -> String {
        let read = self.ends.iter().find(|(_, end, _)| index < *end);
        read.map_or_else(|| SEGMENTS.to_owned(), |(first, ..)| segment_path(*first))
    }

    fn find(&mut self, place: &str, what: &str) {
        self.findings.push(Finding { place: place.to_owned(), what: what.to_owned() });
    }

    /// Answers whether the next segment may be read.
    fn read_segment(&mut self, segment: &'s Segment, is_last: bool, key: &LogKey) -> bool {
        let name = segment_path(segment.first);
        if segment.first != self.end() {
            self.find(
                &name,
                &format!("entries from {} to {} are missing before it", self.end(), segment.first),
            );
            return false;
        }
        let mut offset = 0;
        loop {
            let rest = segment.bytes.get(offset..).unwrap_or_default();
            let fault = match frame::read(rest, self.end()) {
                Next::End => break,
                Next::Frame(frame) => match self.take(&name, &frame, key) {
                    Ok(()) => {
                        offset += frame.bytes;
                        continue;
                    }
                    Err(fault) => fault,
                },
                Next::Torn if is_last => {
                    self.torn_bytes = rest.len();
                    break;
                }
                Next::Torn => "ends inside a frame, but another segment follows".to_owned(),
                Next::Foreign(what) => what.to_owned(),
            };
            self.find(&name, &format!("byte {offset}, entry {}: {fault}", self.end()));
            return false;
        }
        self.ends.push((segment.first, self.end(), offset));
        true
    }

    fn take(&mut self, name: &str, frame: &frame::Frame<'s>, key: &LogKey) -> Result<(), String> {
        let entries = read_bundle(frame.body).map_err(|error| error.to_string())?;
        if frame.count == 0 || u32::try_from(entries.len()) != Ok(frame.count) {
            return Err("frame holds another number of entries than it says".to_owned());
        }
        let checkpoint = verify(key, frame.note).map_err(|error| error.to_string())?;
        if checkpoint.size != self.end().saturating_add(u64::from(frame.count)) {
            return Err("checkpoint in the frame is for another size".to_owned());
        }
        self.entries.extend(entries);
        self.frames.push((name.to_owned(), checkpoint, frame.note));
        Ok(())
    }
}
