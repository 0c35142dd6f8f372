//! RFC 6962 proofs: inclusion (section 2.1.1) and consistency (section 2.1.2).
//!
//! Owns: making them from leaf hashes, and checking them as RFC 9162 sections 2.1.3.2 and 2.1.4.2 describe.
//! Must never: accept a proof with hashes left over or missing.
//! Look next: `tests`, where a second implementation checks what this one makes, and the other way round.

use std::fmt;

use super::tree::{Frontier, Hash, node_hash};

/// The proof does not prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofError;

impl fmt::Display for ProofError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("proof does not hold")
    }
}

impl std::error::Error for ProofError {}

/// The proof that leaf `index` is in the tree over `leaves`; `None` when there is no such leaf.
#[must_use]
pub fn prove_inclusion(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    let mut proof = Vec::new();
    let (mut leaves, mut index) = (leaves.get(..).filter(|all| index < all.len())?, index);
    while leaves.len() > 1 {
        let (left, right) = leaves.split_at_checked(split(leaves.len()))?;
        if index < left.len() {
            proof.push(root(right));
            leaves = left;
        } else {
            proof.push(root(left));
            index -= left.len();
            leaves = right;
        }
    }
    proof.reverse();
    Some(proof)
}

/// The proof that the tree over the first `old` leaves is a prefix of the tree over all `leaves`; `None`
/// unless `0 < old <= leaves.len()`.
#[must_use]
pub fn prove_consistency(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    let (mut leaves, mut old) = (leaves.get(..).filter(|all| 0 < old && old <= all.len())?, old);
    let mut proof = Vec::new();
    let mut whole = true;
    while old < leaves.len() {
        let (left, right) = leaves.split_at_checked(split(leaves.len()))?;
        if old <= left.len() {
            proof.push(root(right));
            leaves = left;
        } else {
            proof.push(root(left));
            old -= left.len();
            leaves = right;
            whole = false;
        }
    }
    if !whole {
        proof.push(root(leaves));
    }
    proof.reverse();
    Some(proof)
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
fn split(length: usize) -> usize {
    (length.saturating_sub(1)).checked_ilog2().map_or(1, |log| 1 << log)
}

fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}
