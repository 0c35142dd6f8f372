//! RFC 6962 proofs: inclusion (section 2.1.1) and consistency (section 2.1.2).
//!
//! Owns: making them from the hashes of tiles, and checking them as RFC 9162 sections 2.1.3.2 and 2.1.4.2 describe.
//! Must never: accept a proof with hashes left over or missing.
//! Look next: `tests`, where a second implementation checks what this one makes, and the other way round.

use std::fmt;

use super::tile::{Tile, TileKind, perfect_root};
use super::tree::{Hash, node_hash};

/// The proof does not prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofError;

impl fmt::Display for ProofError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("proof does not hold")
    }
}

impl std::error::Error for ProofError {}

/// The roots of complete subtrees of a log: `read(level, index)` is the one over the `2^level` leaves from
/// `index << level` on. [`subtree`] makes one from tiles.
pub type Subtrees<'r> = dyn FnMut(u8, u64) -> Option<Hash> + 'r;

/// The proof that leaf `index` is in the tree of `size` entries; `None` when there is no such leaf, or a subtree cannot
/// be had.
#[must_use]
pub fn prove_inclusion(read: &mut Subtrees<'_>, index: u64, size: u64) -> Option<Vec<Hash>> {
    if index >= size {
        return None;
    }
    let mut proof = Vec::new();
    let (mut begin, mut end) = (0, size);
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(range_root(read, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(read, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Some(proof)
}

/// The proof that the tree of `old` entries is a prefix of the tree of `size`; `None` unless `0 < old <= size`, or when a
/// subtree cannot be had.
#[must_use]
pub fn prove_consistency(read: &mut Subtrees<'_>, old: u64, size: u64) -> Option<Vec<Hash>> {
    if old == 0 || old > size {
        return None;
    }
    let mut proof = Vec::new();
    let (mut begin, mut end, mut whole) = (0, size, true);
    while old < end {
        let middle = begin + split(end - begin);
        if old <= middle {
            proof.push(range_root(read, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(read, begin, middle)?);
            begin = middle;
            whole = false;
        }
    }
    if !whole {
        proof.push(range_root(read, begin, end)?);
    }
    proof.reverse();
    Some(proof)
}

/// The root over the leaves from `begin` to `end`, a range as RFC 6962 cuts them: it begins at a multiple of the
/// largest power of two below its length.
fn range_root(read: &mut Subtrees<'_>, begin: u64, end: u64) -> Option<Hash> {
    let length = end.checked_sub(begin).filter(|length| *length > 0)?;
    if length.is_power_of_two() {
        let level = length.trailing_zeros();
        return read(u8::try_from(level).ok()?, begin >> level);
    }
    let middle = begin + split(length);
    let left = range_root(read, begin, middle)?;
    Some(node_hash(&left, &range_root(read, middle, end)?))
}

/// The root of a complete subtree, out of the full hash tiles where they are, and out of `leaf` where they are not yet.
/// `tile` gives a full tile's bytes; what it gives is believed, so a proof made from it must be checked.
pub fn subtree(
    level: u8,
    index: u64,
    tile: &mut dyn FnMut(Tile) -> Option<Vec<u8>>,
    leaf: &mut dyn FnMut(u64) -> Option<Hash>,
) -> Option<Hash> {
    let below = level % 8;
    let first = index.checked_shl(u32::from(below)).filter(|first| first >> below == index)?;
    if let Some(bytes) = tile(Tile::full(TileKind::Hashes(level / 8), first / 256)) {
        let skipped = usize::try_from(first % 256).ok()?;
        let cells: Vec<Hash> =
            bytes.chunks(32).skip(skipped).take(1 << below).filter_map(Hash::from_slice).collect();
        return (cells.len() == 1 << below).then(|| perfect_root(cells))?;
    }
    if level == 0 {
        return leaf(index);
    }
    let left = index.checked_mul(2)?;
    let one = subtree(level - 1, left, tile, leaf)?;
    Some(node_hash(&one, &subtree(level - 1, left + 1, tile, leaf)?))
}

/// Checks that `leaf` is entry `index` of the tree with `size` entries and this `root`.
///
/// # Errors
/// [`ProofError`] when it is not proven.
pub fn check_inclusion(
    proof: &[Hash],
    index: u64,
    leaf: Hash,
    size: u64,
    root: Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError);
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            climb_to_right_child(&mut node, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == root { Ok(()) } else { Err(ProofError) }
}

/// Checks that the tree of `old` entries is a prefix of the tree of `new` entries.
///
/// # Errors
/// [`ProofError`] when it is not proven.
pub fn check_consistency(proof: &[Hash], old: (u64, Hash), new: (u64, Hash)) -> Result<(), ProofError> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size > new_size {
        return Err(ProofError);
    }
    if old_size == new_size {
        return if proof.is_empty() && old_root == new_root { Ok(()) } else { Err(ProofError) };
    }
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let mut path = proof.iter();
    let start = if old_size.is_power_of_two() { old_root } else { *path.next().ok_or(ProofError)? };
    let (mut old_hash, mut new_hash) = (start, start);
    for sibling in path {
        if last == 0 {
            return Err(ProofError);
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            climb_to_right_child(&mut node, &mut last);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 && old_hash == old_root && new_hash == new_root { Ok(()) } else { Err(ProofError) }
}

/// On the right edge, levels on which the node is a lone left child have no sibling: skip them.
fn climb_to_right_child(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}

/// The largest power of two smaller than `length`, for `length` of at least 2.
fn split(length: u64) -> u64 {
    length.saturating_sub(1).checked_ilog2().map_or(1, |log| 1 << log)
}
