//! Where strings begin and end, found 64 bytes at a time.
//!
//! Owns: telling a quote from an escaped one, and noticing what a plain string may not hold.
//! Must never: judge; it lists offsets, and `walk` looks at the bytes there.
//! Look next: `walk`, which takes them one by one.
//!
//! Listed are the quotes that begin or end a string, and inside strings every backslash that is not itself escaped
//! and every control character. So a string is plain exactly when its closing quote is the next one listed. Bytes
//! outside of strings must be none of these; `walk` stops at one before what is listed behind it matters.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64};

use super::json::offset;

/// Bytes looked at together: the bits of a word.
const BLOCK_BYTES: usize = 64;
/// Blocks looked at in one go, at most; their list stays in the nearest cache.
const BLOCKS: usize = 128;
/// The same behind a jump, where another one may follow soon; then twice as many each time.
const BLOCKS_FIRST: usize = 2;
/// Offsets written at once, whether they count or not.
const BATCH: usize = 8;
/// Room for what one block adds to a list: every byte of it, and the offsets that do not count.
const BLOCK_ROOM: usize = BLOCK_BYTES + BATCH;
/// Room for a list: every byte of all blocks, and the offsets that do not count.
const ROOM: usize = BLOCKS * BLOCK_BYTES + BATCH;

/// Behind the last offset there is always this one.
pub(super) const END: usize = u32::MAX as usize;

/// The list, made piece by piece on the way.
pub(super) struct Quotes {
    /// What this processor can do.
    level: Level,
    found: Vec<u32>,
    next: usize,
    count: usize,
    /// How many were taken from lists before this one.
    passed: usize,
    /// Up to where bytes were looked at.
    scanned: usize,
    /// Blocks to be looked at next.
    blocks: usize,
    /// All ones inside a string.
    inside: u64,
    /// The next byte is escaped: one, or zero.
    escaped: u64,
}

impl Quotes {
    pub(super) fn new() -> Self {
        Self {
            level: Level::new(),
            found: Vec::new(),
            next: 0,
            count: 0,
            passed: 0,
            scanned: 0,
            blocks: BLOCKS_FIRST,
            inside: 0,
            escaped: 0,
        }
    }

    /// The next offset; [`END`] when there is none.
    #[inline(always)]
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        if self.next >= self.count && !self.refill(bytes) {
            return END;
        }
        let at = self.found.get(self.next).map_or(END, |at| *at as usize);
        self.next += 1;
        at
    }

    /// The next four, if there are as many.
    #[inline(always)]
    pub(super) fn four(&mut self, bytes: &[u8]) -> Option<&[u32; 4]> {
        if self.next + 4 > self.count {
            self.look_ahead(bytes);
        }
        self.found.get(self.next..self.count)?.first_chunk()
    }

    #[cold]
    #[inline(never)]
    fn look_ahead(&mut self, bytes: &[u8]) {
        while self.next + 4 > self.count && self.refill(bytes) {}
    }

    /// Takes so many that were looked at.
    #[inline(always)]
    pub(super) fn took(&mut self, many: usize) {
        self.next += many;
    }

    /// How many were taken.
    #[inline(always)]
    pub(super) fn taken(&self) -> usize {
        self.passed + self.next
    }

    /// Goes on at a place outside of strings. What was not looked at yet need not be, up to there: it counts as so many
    /// taken.
    #[inline(always)]
    pub(super) fn jump(&mut self, at: usize, many: usize) {
        if at <= self.scanned {
            let listed = self.found.get(self.next..self.count).unwrap_or_default();
            self.next += listed.partition_point(|one| (*one as usize) < at);
        } else {
            self.passed += self.next + many;
            (self.next, self.count, self.scanned) = (0, 0, at);
            (self.inside, self.escaped, self.blocks) = (0, 0, BLOCKS_FIRST);
        }
    }

    /// Passes over what is listed before `at`.
    pub(super) fn skip_to(&mut self, at: usize, bytes: &[u8]) {
        while self.take(bytes) < at {}
        self.next = self.next.saturating_sub(1);
    }

    /// Lists further, behind those that were not taken yet.
    #[cold]
    #[inline(never)]
    fn refill(&mut self, bytes: &[u8]) -> bool {
        self.found.copy_within(self.next.min(self.count)..self.count, 0);
        let left = self.count.saturating_sub(self.next);
        let room = bytes.len().saturating_sub(self.scanned).next_multiple_of(BLOCK_BYTES) + BATCH;
        if self.found.len() < left + room.min(ROOM) {
            self.found.resize(left + room.min(ROOM), 0);
        }
        self.passed += self.count - left;
        (self.next, self.count) = (0, left);
        while self.count == left && self.scanned < bytes.len() {
            let rest = bytes.get(self.scanned..).unwrap_or_default();
            let (blocks, tail) = rest.as_chunks::<BLOCK_BYTES>();
            let level = self.level;
            let many = self.blocks.min(blocks.len());
            self.blocks = (2 * self.blocks).min(BLOCKS);
            if let Some(blocks) = blocks.get(..many).filter(|blocks| !blocks.is_empty()) {
                dispatch!(level, simd => self.list_blocks(simd, blocks));
            } else {
                let mut block = [b' '; BLOCK_BYTES];
                block.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
                dispatch!(level, simd => self.list_blocks(simd, &[block]));
            }
        }
        self.count > left
    }

    #[inline(always)]
    fn list_blocks<S: Simd>(&mut self, simd: S, blocks: &[[u8; BLOCK_BYTES]]) {
        let mut base = offset(self.scanned);
        for block in blocks {
            self.block(simd, block, base);
            base = base.wrapping_add(u64::BITS);
        }
        self.scanned += blocks.len() * BLOCK_BYTES;
    }

    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, block: &[u8; BLOCK_BYTES], base: u32) {
        let text = u8x64::from_slice(simd, block);
        let quotes = text.simd_eq(b'"').to_bitmask();
        let slashes = text.simd_eq(b'\\');
        let odd = slashes | text.simd_lt(b' ');
        // Where nothing is odd all that counts is whether the block ends inside a string.
        if !odd.any_true() && self.escaped == 0 {
            self.inside ^= (u64::from(quotes.count_ones()) & 1).wrapping_neg();
            self.list(quotes, base);
        } else {
            self.odd_block(quotes, slashes.to_bitmask(), odd.to_bitmask(), base);
        }
    }

    /// The same where there are backslashes or control characters; white space, if they stand outside of strings.
    #[inline(always)]
    fn odd_block(&mut self, quotes: u64, slashes: u64, odd: u64, base: u32) {
        let inside = prefix_xor(quotes) ^ self.inside;
        // What is odd outside of strings escapes nothing.
        if odd & (inside | quotes) | self.escaped == 0 {
            self.inside = if inside >> 63 == 1 { u64::MAX } else { 0 };
            self.list(quotes, base);
        } else {
            self.escaping_block(quotes, slashes, odd, base);
        }
    }

    /// The same where they stand inside of strings.
    #[cold]
    #[inline(never)]
    fn escaping_block(&mut self, quotes: u64, slashes: u64, odd: u64, base: u32) {
        let escaped = self.escaped_bytes(slashes);
        let quotes = quotes & !escaped;
        let inside = prefix_xor(quotes) ^ self.inside;
        self.inside = if inside >> 63 == 1 { u64::MAX } else { 0 };
        self.list(quotes | (inside & odd & !(slashes & escaped)), base);
    }

    /// Bit for each byte that a backslash before it escapes.
    #[cold]
    #[inline(never)]
    fn escaped_bytes(&mut self, mut slashes: u64) -> u64 {
        let mut escaped = self.escaped;
        slashes &= !escaped;
        self.escaped = 0;
        while slashes != 0 {
            let slash = slashes & slashes.wrapping_neg();
            let next = slash << 1;
            if next == 0 {
                self.escaped = 1;
            }
            escaped |= next;
            slashes &= !(slash | next);
        }
        escaped
    }

    #[inline(always)]
    fn list(&mut self, mut bits: u64, base: u32) {
        let count = self.count;
        let room = self.found.get_mut(count..).and_then(|room| room.first_chunk_mut::<BLOCK_ROOM>());
        let Some(room) = room else { return };
        self.count = count + bits.count_ones() as usize;
        for batch in room.as_chunks_mut::<BATCH>().0 {
            if bits == 0 {
                break;
            }
            for at in batch {
                *at = base.wrapping_add(bits.trailing_zeros());
                bits &= bits.wrapping_sub(1);
            }
        }
    }
}

/// Each bit becomes the sum, modulo two, of itself and all below it: ones from each opening quote up to the closing one.
#[inline(always)]
pub(super) fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
