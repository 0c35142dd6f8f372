//! Where strings begin and end, found 64 bytes at a time.
//!
//! Owns: telling a quote from an escaped one, and noticing what a plain string may not hold.
//! Must never: judge; it lists offsets, and `walk` looks at the bytes there.
//! Look next: `walk`, which takes them one by one.
//!
//! Listed are the quotes that begin or end a string, and inside strings every backslash that is not itself escaped
//! and every control character. So a string is plain exactly when its closing quote is the next one listed. Bytes
//! outside of strings must be none of these; `walk` stops at one before what is listed behind it matters.

use wide::u8x16;

/// Bytes looked at together: the bits of a word.
const BLOCK_BYTES: usize = 64;
/// Blocks looked at in one go; their list stays in the nearest cache.
const BLOCKS: usize = 64;
/// Offsets written at once, whether they count or not.
const BATCH: usize = 8;
/// Room for a list: every byte of all blocks, and the offsets that do not count.
const ROOM: usize = BLOCKS * BLOCK_BYTES + BATCH;

/// Behind the last offset there is always this one.
pub(super) const END: usize = u32::MAX as usize;

/// The list, made piece by piece on the way.
pub(super) struct Quotes {
    found: Vec<u32>,
    next: usize,
    count: usize,
    /// Bytes looked at so far.
    scanned: usize,
    /// All ones inside a string.
    inside: u64,
    /// The next byte is escaped: one, or zero.
    escaped: u64,
}

impl Quotes {
    pub(super) fn new() -> Self {
        Self { found: Vec::new(), next: 0, count: 0, scanned: 0, inside: 0, escaped: 0 }
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

    /// Passes over what is listed before `at`.
    pub(super) fn skip_to(&mut self, at: usize, bytes: &[u8]) {
        while self.take(bytes) < at {}
        self.next = self.next.saturating_sub(1);
    }

    #[cold]
    #[inline(never)]
    fn refill(&mut self, bytes: &[u8]) -> bool {
        self.found.resize(ROOM, 0);
        (self.next, self.count) = (0, 0);
        while self.count == 0 && self.scanned < bytes.len() {
            let rest = bytes.get(self.scanned..).unwrap_or_default();
            let mut blocks = rest.chunks_exact(BLOCK_BYTES);
            for block in blocks.by_ref().take(BLOCKS) {
                if let Ok(block) = block.try_into() {
                    self.block(block);
                }
            }
            let tail = blocks.remainder();
            if rest.len() < BLOCK_BYTES * BLOCKS && !tail.is_empty() {
                let mut block = [b' '; BLOCK_BYTES];
                block.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
                self.block(&block);
            }
        }
        self.count > 0
    }

    #[inline(always)]
    fn block(&mut self, block: &[u8; BLOCK_BYTES]) {
        let Bits { quotes, slashes, controls } = Bits::of(block);
        let (quotes, slashes) = if slashes | self.escaped == 0 {
            (quotes, 0)
        } else {
            let escaped = self.escaped_bytes(slashes);
            (quotes & !escaped, slashes & !escaped)
        };
        let inside = prefix_xor(quotes) ^ self.inside;
        self.inside = if inside >> 63 == 1 { u64::MAX } else { 0 };
        self.list(quotes | (inside & (slashes | controls)));
        self.scanned += BLOCK_BYTES;
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
    fn list(&mut self, mut bits: u64) {
        let base = u32::try_from(self.scanned).unwrap_or(u32::MAX);
        let count = self.count + bits.count_ones() as usize;
        while bits != 0 {
            let room = self.found.get_mut(self.count..).and_then(|room| room.first_chunk_mut::<BATCH>());
            let Some(room) = room else { return };
            for at in room.iter_mut() {
                *at = base.wrapping_add(bits.trailing_zeros());
                bits &= bits.wrapping_sub(1);
            }
            self.count += BATCH;
        }
        self.count = count;
    }
}

/// One bit for each byte of a block.
struct Bits {
    quotes: u64,
    slashes: u64,
    controls: u64,
}

impl Bits {
    #[inline(always)]
    fn of(block: &[u8; BLOCK_BYTES]) -> Self {
        let (quote, slash, space) = (u8x16::splat(b'"'), u8x16::splat(b'\\'), u8x16::splat(0x1f));
        let mut bits = Self { quotes: 0, slashes: 0, controls: 0 };
        for (part, shift) in block.as_chunks::<16>().0.iter().zip([0, 16, 32, 48]) {
            let part = u8x16::new(*part);
            bits.quotes |= u64::from(part.simd_eq(quote).to_bitmask()) << shift;
            bits.slashes |= u64::from(part.simd_eq(slash).to_bitmask()) << shift;
            bits.controls |= u64::from(part.min(space).simd_eq(part).to_bitmask()) << shift;
        }
        bits
    }
}

/// Each bit becomes the sum, modulo two, of itself and all below it: ones from each opening quote up to the closing one.
#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
