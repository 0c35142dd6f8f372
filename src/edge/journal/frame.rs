//! One frame of a segment: the entries of one group commit and the checkpoint after them.
//!
//! Owns: the frame's bytes, and telling a frame that was cut off by a crash from one that was changed.
//! Must never: call a frame torn unless what is there is a true beginning of a frame.
//! Look next: `segments`, which reads frames in order; `writer`, which writes them.
//!
//! ```text
//! magic    4 bytes  "cgf1"
//! first    8 bytes  index of the first entry; all numbers are big-endian
//! count    4 bytes  entries
//! body     4 bytes  length of the entries
//! note     4 bytes  length of the note
//! check    8 bytes  beginning of SHA-256 over the 24 bytes before
//! entries           each with a 16-bit length, as in a tlog-tiles bundle
//! note              the signed checkpoint of the log after this frame
//! ```
//! The check protects the lengths, so that a changed length cannot make a whole frame look torn. The entries
//! need none: the root in the signed note covers them.

use crate::domain::ledger::{BundleError, Hash, write_entry};

pub(super) const HEADER_BYTES: usize = 32;
const MAGIC: &[u8; 4] = b"cgf1";

/// A frame as it stands in a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) count: u32,
    /// The entries with their lengths.
    pub(super) body: &'a [u8],
    pub(super) note: &'a [u8],
    /// Length of the whole frame.
    pub(super) bytes: usize,
}

/// What stands at the beginning of some bytes of a segment.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// Nothing: the segment ends here.
    End,
    /// A frame, whole.
    Frame(Frame<'a>),
    /// The true beginning of a frame, and then the segment ends.
    Torn,
    /// Something no writer left here.
    Foreign(&'static str),
}

/// A frame's bytes.
pub(super) fn write(first: u64, entries: &[Vec<u8>], note: &[u8]) -> Result<Vec<u8>, BundleError> {
    let mut body = Vec::with_capacity(entries.iter().map(|entry| entry.len() + 2).sum());
    for entry in entries {
        write_entry(&mut body, entry)?;
    }
    let length = |length: usize| u32::try_from(length).map_err(|_| BundleError::TooLong);
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len() + note.len());
    frame.extend(MAGIC);
    frame.extend(first.to_be_bytes());
    frame.extend(length(entries.len())?.to_be_bytes());
    frame.extend(length(body.len())?.to_be_bytes());
    frame.extend(length(note.len())?.to_be_bytes());
    frame.extend(check(&frame));
    frame.extend(body);
    frame.extend(note);
    Ok(frame)
}

/// Reads the frame at the beginning of `bytes`, which must begin with entry `first`.
pub(super) fn read(bytes: &[u8], first: u64) -> Next<'_> {
    if bytes.is_empty() {
        return Next::End;
    }
    let expected: Vec<u8> = MAGIC.iter().copied().chain(first.to_be_bytes()).collect();
    if !bytes.iter().zip(&expected).all(|(is, should)| is == should) {
        return Next::Foreign("not a frame, or not the next one");
    }
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return Next::Torn };
    let Some((fields, sum)) = header.split_at_checked(HEADER_BYTES - 8) else { return Next::Torn };
    if check(fields) != *sum {
        return Next::Foreign("frame header was changed");
    }
    let (count, body, note) = (number(fields, 12), number(fields, 16), number(fields, 20));
    let (Ok(body_bytes), Ok(note_bytes)) = (usize::try_from(body), usize::try_from(note)) else {
        return Next::Foreign("frame header is impossible");
    };
    let Some((body, rest)) = rest.split_at_checked(body_bytes) else { return Next::Torn };
    let Some((note, _)) = rest.split_at_checked(note_bytes) else { return Next::Torn };
    Next::Frame(Frame { count, body, note, bytes: HEADER_BYTES + body_bytes + note_bytes })
}

fn number(fields: &[u8], at: usize) -> u32 {
    let field = fields.get(at..).and_then(|rest| rest.first_chunk::<4>());
    field.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn check(fields: &[u8]) -> [u8; 8] {
    Hash::of(&[fields]).as_bytes().first_chunk().copied().unwrap_or_default()
}
