//! RFC 6962 tree hashing.
//!
//! Owns: leaf and node hashes (section 2.1) and the frontier, the few hashes from which a root is computed.
//! Must never: keep more than one hash per level.
//! Look next: `tile` for the hashes that are stored.

use std::fmt;

use aws_lc_rs::digest;

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// A hash from its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A hash from a slice, if it has 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// SHA-256 of the concatenation of `pieces`.
    #[must_use]
    pub fn of(pieces: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for piece in pieces {
            context.update(piece);
        }
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

/// Lower-case hexadecimal.
impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The hash of one entry: `SHA-256(0x00 || entry)`.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Hash::of(&[&[0], entry])
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash::of(&[&[1], left.as_bytes(), right.as_bytes()])
}

/// The right edge of a growing tree: the roots of its complete subtrees, largest first, one for each bit
/// that is set in its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    subtrees: Vec<Hash>,
}

impl Frontier {
    /// How many leaves were added.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A frontier from what [`Frontier::size`] and [`Frontier::subtrees`] said of it, if they go together.
    #[must_use]
    pub fn from_parts(size: u64, subtrees: Vec<Hash>) -> Option<Self> {
        let is_whole = u32::try_from(subtrees.len()) == Ok(size.count_ones());
        is_whole.then_some(Self { size, subtrees })
    }

    /// The roots of the complete subtrees, largest first.
    #[must_use]
    pub fn subtrees(&self) -> &[Hash] {
        &self.subtrees
    }

    /// Adds the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.join(0, leaf);
    }

    /// Adds the next `2 ^ level` leaves, of which only the root is known. Answers whether it did: not where the tree ends inside
    /// such a subtree.
    #[must_use]
    pub fn push_subtree(&mut self, level: u32, root: Hash) -> bool {
        let fits = level < u64::BITS && self.size.trailing_zeros() >= level;
        if fits {
            self.join(level, root);
        }
        fits
    }

    fn join(&mut self, level: u32, root: Hash) {
        let mut hash = root;
        // Every trailing one bit of the old size is a complete subtree that this one completes to a larger one.
        for _ in 0..(self.size >> level).trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.subtrees.push(hash);
        self.size = self.size.saturating_add(1 << level);
    }

    /// The root of the tree so far; SHA-256 of nothing for the empty tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(&smallest) = subtrees.next() else { return Hash::of(&[]) };
        subtrees.fold(smallest, |right, left| node_hash(left, &right))
    }
}
