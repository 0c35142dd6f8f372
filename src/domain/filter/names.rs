//! Names looked up in raw bytes: a hash table that compares sixteen bytes at once.
//!
//! Owns: the hash, and comparing a name in place.
//! Must never: take one name for another; a hash that collides costs a comparison, no more.
//! Look next: `keys`, which builds one table for each structure.

/// Bytes of a name that are compared as one number.
const HEAD_BYTES: usize = 16;

/// A name and what it stands for, or a place for one: then it has no length. Small, since these are what the walk
/// keeps in the nearest cache.
#[derive(Clone, Copy, Debug)]
struct Slot<V> {
    head: u128,
    value: V,
    len: u8,
}

/// An open hash table from names, at most half full.
#[derive(Debug)]
pub(super) struct Names<V> {
    slots: Box<[Slot<V>]>,
    /// What is behind the head of each long name, in the order of `slots`.
    tails: Box<[&'static [u8]]>,
    shift: u32,
}

impl<V: Copy + Default> Names<V> {
    /// None if one name stands there twice, or is none.
    pub(super) fn new(pairs: &[(&'static str, V)]) -> Option<Self> {
        let size = (pairs.len().max(1) * 2 + 1).next_power_of_two();
        let free = Slot { head: 0, value: V::default(), len: 0 };
        let (slots, tails) = (vec![free; size].into(), vec![[].as_slice(); size].into());
        let mut table = Self { slots, tails, shift: 64 - size.trailing_zeros() };
        for &(name, value) in pairs {
            let (head, len) = (head(name.as_bytes(), 0, name.len()), name.len());
            if table.find(name.as_bytes(), 0, len).is_some() || len == 0 {
                return None;
            }
            let mut at = slot(head, len, table.shift);
            while table.slots.get(at).is_some_and(|taken| taken.len != 0) {
                at = (at + 1) & (size - 1);
            }
            *table.slots.get_mut(at)? = Slot { head, value, len: u8::try_from(len).ok()? };
            *table.tails.get_mut(at)? = name.as_bytes().get(HEAD_BYTES..).unwrap_or_default();
        }
        Some(table)
    }

    /// What the name stands for that the `len` bytes from `start` are. Ends at a free slot: there always is one.
    #[inline(always)]
    pub(super) fn find(&self, bytes: &[u8], start: usize, len: usize) -> Option<&V> {
        let head = head(bytes, start, len);
        let mut at = slot(head, len, self.shift);
        loop {
            let slot = self.slots.get(at)?;
            if slot.head == head
                && usize::from(slot.len) == len
                && (len <= HEAD_BYTES || self.ends(at, bytes, start))
            {
                return if len == 0 { None } else { Some(&slot.value) };
            }
            if slot.len == 0 {
                return None;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[inline(never)]
    fn ends(&self, at: usize, bytes: &[u8], start: usize) -> bool {
        let tail = self.tails.get(at).copied().unwrap_or_default();
        bytes.get(start + HEAD_BYTES..).is_some_and(|rest| rest.starts_with(tail))
    }
}

/// Where to look first.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of the head, and few bits of the hash")]
fn slot(head: u128, len: usize, shift: u32) -> usize {
    let mixed = head as u64 ^ ((head >> 64) as u64).rotate_left(29) ^ len as u64;
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> shift) as usize
}

/// For each length the bytes of a head that count.
const MASKS: [u128; HEAD_BYTES + 1] = masks();

#[expect(clippy::indexing_slicing, reason = "computed when compiling")]
const fn masks() -> [u128; HEAD_BYTES + 1] {
    let mut masks = [u128::MAX; HEAD_BYTES + 1];
    let mut len = 0;
    while len < HEAD_BYTES {
        masks[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    masks
}

/// The first bytes as one number, the missing ones zero.
#[inline(always)]
fn head(bytes: &[u8], start: usize, len: usize) -> u128 {
    let chunk = bytes.get(start..).and_then(|rest| rest.first_chunk::<HEAD_BYTES>());
    let whole = chunk.map_or_else(|| short_head(bytes, start), |chunk| u128::from_le_bytes(*chunk));
    whole & MASKS.get(len).copied().unwrap_or(u128::MAX)
}

/// The same near the end of the bytes.
#[cold]
#[inline(never)]
fn short_head(bytes: &[u8], start: usize) -> u128 {
    let rest = bytes.get(start..).unwrap_or_default();
    rest.iter().take(HEAD_BYTES).rev().fold(0, |all, &byte| all << 8 | u128::from(byte))
}
