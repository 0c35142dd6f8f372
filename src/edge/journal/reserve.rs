//! The reserve: a file of fixed length that takes records when the journal cannot, written in place.
//!
//! Owns: its bytes, and what may stand in it after a crash. Every byte is covered: by a MAC, or by having to be zero.
//! Must never: take for whole what was not acknowledged as whole; take a missing record that was for a crash.
//! Look next: `file`, which writes it in this order; `claims`, what the log says of it; `docs/audit.md`.
//!
//! ```text
//! block 0   magic "cgr1" · generation 16 · length of the file 8 · MAC 32
//! block 1   mark after an odd number of frames   } magic "cgrm" · frames 8 · entries 8 · end 8 · chain 32 · MAC 32
//! block 2   mark after an even number of frames  }
//! block 3…  frames, each from the beginning of a block:
//!           magic "cgrf" · first entry 8 · entries 4 · length of entries 4 · size 8 and root 32 of the log when it
//!           stopped · MAC 32 · entries, each with a 16-bit length · chain 32
//! ```
//! A block is 4096 bytes, numbers are big-endian, and what is not said is zero. The MACs and the chain are HMAC-SHA256
//! with a key derived from the encryption key; the chain begins with block 0 and goes through every frame, and so through
//! the checkpoint that the log had reached. An entry is sealed as in the log, under the name `origin/reserve/generation`.
//!
//! A frame's first 92 bytes are synced before the rest of it, the rest before its mark, and the mark before anybody is
//! answered. Marks and first bytes stand at the beginning of a block, which a disk writes whole or not at all. So a crash
//! leaves, behind the frames that a mark covers: nothing, one unfinished frame whose first bytes are whole, or one whole
//! frame.

pub(super) mod claims;
pub(super) mod file;

use std::fmt;

use aws_lc_rs::{hkdf, hmac};

use crate::domain::ledger::{Hash, read_bundle};
use crate::limits::{RESERVE_BLOCK_BYTES, RESERVE_BYTES_MAX};

const HEADER: &[u8; 4] = b"cgr1";
const MARK: &[u8; 4] = b"cgrm";
const FRAME: &[u8; 4] = b"cgrf";
const GENERATION_BYTES: usize = 16;
const MAC_BYTES: usize = 32;
/// Where the frames begin.
const FRAMES_AT: usize = 3 * RESERVE_BLOCK_BYTES;
const FRAME_BYTES: usize = 4 + 8 + 4 + 4 + 8 + 32;

/// What the bytes of a reserve are authenticated with.
pub(super) struct ReserveKey(hmac::Key);

impl fmt::Debug for ReserveKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ReserveKey")
    }
}

impl ReserveKey {
    /// The key that belongs to an encryption key.
    pub(super) fn new(secret: &[u8; 32]) -> Option<Self> {
        let mut key = [0_u8; 32];
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"chartgate audit reserve");
        let derived =
            salt.extract(secret).expand(&[b"mac"], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
        derived.ok().map(|()| Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    fn mac(&self, what: &[u8; 4], parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(what);
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().try_into().unwrap_or_default()
    }
}

/// Which reserve of a log this is: random for each that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation([u8; GENERATION_BYTES]);

impl fmt::Display for Generation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl Generation {
    /// The name under which entries of this reserve are sealed: they open in no log, and in no other reserve.
    pub(super) fn name(self, origin: &str) -> String {
        format!("{origin}/reserve/{self}")
    }
}

/// How far a reserve is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    frames: u64,
    entries: u64,
    /// One behind the last byte in use, in whole blocks.
    end: u64,
    chain: [u8; MAC_BYTES],
}

/// What a reserve holds.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) generation: Generation,
    /// Sealed entries in order, those behind the last mark included.
    pub(super) entries: Vec<Vec<u8>>,
    /// Size and root of the log when each frame was written.
    pub(super) bases: Vec<(u64, Hash)>,
    /// Bytes of a frame that was not finished.
    pub(super) torn_bytes: usize,
    level: Level,
}

impl Contents {
    /// Whether anything was written into it.
    pub(super) fn is_used(&self) -> bool {
        self.level.frames > 0 || self.torn_bytes > 0
    }

    /// The chain over everything that it holds, in hexadecimal.
    pub(super) fn chain(&self) -> String {
        hex(&self.level.chain)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the bytes of a reserve show that it was written into: without a key, and without judging it.
pub(super) fn is_used(bytes: &[u8]) -> bool {
    bytes.get(FRAMES_AT..).is_some_and(|frames| !is_zero(frames))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The next beginning of a block.
fn whole_blocks(bytes: usize) -> usize {
    bytes.next_multiple_of(RESERVE_BLOCK_BYTES)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    field.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn short_number(bytes: &[u8], at: usize) -> usize {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    field.and_then(|bytes| usize::try_from(u32::from_be_bytes(*bytes)).ok()).unwrap_or(usize::MAX)
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

/// Block 0.
fn header(key: &ReserveKey, origin: &str, generation: Generation, bytes: u64) -> Vec<u8> {
    let mut header = HEADER.to_vec();
    header.extend(generation.0);
    header.extend(bytes.to_be_bytes());
    let mac = key.mac(HEADER, &[origin.as_bytes(), &header]);
    header.extend(mac);
    header
}

/// The level of a reserve that nothing was written into. `header`: its first bytes.
fn empty(key: &ReserveKey, header: &[u8]) -> Level {
    let end = u64::try_from(FRAMES_AT).unwrap_or(u64::MAX);
    Level { frames: 0, entries: 0, end, chain: key.mac(b"cgr0", &[header]) }
}

/// A mark for `level` in the place for odd numbers (1) or even ones (0).
fn mark(key: &ReserveKey, generation: Generation, place: u8, level: &Level) -> Vec<u8> {
    let mut mark = MARK.to_vec();
    for number in [level.frames, level.entries, level.end] {
        mark.extend(number.to_be_bytes());
    }
    mark.extend(level.chain);
    let mac = key.mac(MARK, &[&generation.0, &[place], &mark]);
    mark.extend(mac);
    mark
}

/// Where the mark after so many frames stands: its place, and the byte.
fn place_of(frames: u64) -> (u8, u64) {
    let block = |blocks: usize| u64::try_from(blocks * RESERVE_BLOCK_BYTES).unwrap_or(u64::MAX);
    if frames.is_multiple_of(2) { (0, block(2)) } else { (1, block(1)) }
}

/// The first 92 bytes of a frame.
fn frame(
    key: &ReserveKey,
    generation: Generation,
    level: &Level,
    (count, body_bytes): (u32, u32),
    (size, root): (u64, Hash),
) -> Vec<u8> {
    let mut frame = FRAME.to_vec();
    frame.extend(level.entries.to_be_bytes());
    frame.extend(count.to_be_bytes());
    frame.extend(body_bytes.to_be_bytes());
    frame.extend(size.to_be_bytes());
    frame.extend(root.as_bytes());
    let mac = key.mac(FRAME, &[&generation.0, &frame]);
    frame.extend(mac);
    frame
}

/// The level after a frame.
fn after(key: &ReserveKey, level: &Level, frame: &[u8], count: u64, body: &[u8]) -> Option<Level> {
    let bytes = whole_blocks(frame.len().checked_add(body.len())?.checked_add(MAC_BYTES)?);
    Some(Level {
        frames: level.frames.checked_add(1)?,
        entries: level.entries.checked_add(count)?,
        end: level.end.checked_add(u64::try_from(bytes).ok()?)?,
        chain: key.mac(b"cgrn", &[&level.chain, frame, body]),
    })
}

/// Reads a reserve of the log `origin`.
///
/// # Errors
/// What is wrong with it: it was changed, or is of another log.
pub(super) fn read(bytes: &[u8], origin: &str, key: &ReserveKey) -> Result<Contents, String> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let (first, rest) = bytes.split_at_checked(RESERVE_BLOCK_BYTES).ok_or("is too short")?;
    let generation = Generation(chunk(first, HEADER.len()));
    let should = header(key, origin, generation, length);
    if length > RESERVE_BYTES_MAX || !is_padded(first, &should) {
        return Err("its first block was changed, its length too, or it is of another log".to_owned());
    }
    let (odd, rest) = rest.split_at_checked(RESERVE_BLOCK_BYTES).ok_or("is too short")?;
    let (even, _) = rest.split_at_checked(RESERVE_BLOCK_BYTES).ok_or("is too short")?;
    let mut reader = Reader::new(bytes, key, generation, empty(key, &should));
    reader.frames()?;
    reader.check_marks(odd, even)?;
    let level = reader.levels.last().copied().ok_or("is empty")?;
    let Reader { entries, bases, torn_bytes, .. } = reader;
    Ok(Contents { generation, entries, bases, torn_bytes, level })
}

/// Whether a block begins like this and is zero behind it.
fn is_padded(block: &[u8], content: &[u8]) -> bool {
    block.strip_prefix(content).is_some_and(is_zero)
}

struct Reader<'r> {
    bytes: &'r [u8],
    key: &'r ReserveKey,
    generation: Generation,
    /// After each number of whole frames, from none on.
    levels: Vec<Level>,
    entries: Vec<Vec<u8>>,
    bases: Vec<(u64, Hash)>,
    torn_bytes: usize,
}

impl<'r> Reader<'r> {
    fn new(bytes: &'r [u8], key: &'r ReserveKey, generation: Generation, empty: Level) -> Self {
        let (levels, entries, bases) = (vec![empty], Vec::new(), Vec::new());
        Self { bytes, key, generation, levels, entries, bases, torn_bytes: 0 }
    }

    /// Reads whole frames, and at most one that was not finished; behind them everything must be zero.
    fn frames(&mut self) -> Result<(), String> {
        while let Some(level) = self.levels.last().copied() {
            let at = usize::try_from(level.end).map_err(|_| "is too long")?;
            let rest = self.bytes.get(at..).unwrap_or_default();
            if is_zero(rest) {
                return Ok(());
            }
            let place = format!("byte {at}, entry {}", level.entries);
            let Some(end) = self.frame(&level, rest).map_err(|what| format!("{place}: {what}"))? else {
                continue;
            };
            return match rest.get(end..).is_some_and(is_zero) {
                true => Ok(()),
                false => Err(format!("{place}: something stands behind an unfinished frame")),
            };
        }
        Ok(())
    }

    /// Takes the frame at the beginning of `rest`; gives where an unfinished one would end.
    fn frame(&mut self, level: &Level, rest: &[u8]) -> Result<Option<usize>, &'static str> {
        let (head, tail) = rest.split_at_checked(FRAME_BYTES + MAC_BYTES).ok_or("not a frame")?;
        let (count, body_bytes) = (short_number(head, 12), short_number(head, 16));
        let counts = u32::try_from(count).ok().zip(u32::try_from(body_bytes).ok()).ok_or("not a frame")?;
        let base = (number(head, 20), Hash::new(chunk(head, 28)));
        if frame(self.key, self.generation, level, counts, base) != head {
            return Err("not a frame, or not the next one");
        }
        let (body, tail) = tail.split_at_checked(body_bytes).ok_or("frame is longer than the reserve")?;
        let (chain, _) = tail.split_at_checked(MAC_BYTES).ok_or("frame is longer than the reserve")?;
        let next = after(self.key, level, head, u64::from(counts.0), body).ok_or("frame is impossible")?;
        let used = head.len() + body.len() + chain.len();
        if next.chain != chain {
            self.torn_bytes = used;
            return Ok(Some(used));
        }
        let entries = read_bundle(body).map_err(|_| "frame holds no entries")?;
        let padding = rest.get(used..whole_blocks(used)).ok_or("frame is longer than the reserve")?;
        if entries.len() != count || count == 0 || !is_zero(padding) {
            return Err("frame holds something else than it says");
        }
        self.entries.extend(entries.into_iter().map(<[u8]>::to_vec));
        self.bases.push(base);
        self.levels.push(next);
        Ok(None)
    }

    /// The marks must be those after the last two numbers of frames that were acknowledged.
    fn check_marks(&self, odd: &[u8], even: &[u8]) -> Result<(), String> {
        let read = |place: u8, block: &[u8]| {
            let mut fits = self.levels.iter().rev().filter(|level| {
                // The first mark for odd numbers stands for none.
                (level.frames == 0 || place_of(level.frames).0 == place)
                    && is_padded(block, &mark(self.key, self.generation, place, level))
            });
            fits.next().map(|level| level.frames)
        };
        match (read(1, odd), read(0, even)) {
            (Some(0), Some(0)) => Ok(()),
            (Some(one), Some(other)) if one.abs_diff(other) == 1 => Ok(()),
            _ => Err("its marks were changed, or frames that they cover".to_owned()),
        }
    }
}
