//! C2SP tlog-tiles: where hashes and entries are stored.
//!
//! Owns: tile coordinates and their paths, entry bundles, and the tiles of a growing tree.
//! Must never: read or write a file.
//! Look next: `edge::journal::publisher`, which writes them; <https://c2sp.org/tlog-tiles>.

use std::fmt;

use super::tree::{Hash, node_hash};
use crate::limits::{ENTRY_BYTES_MAX, TILE_WIDTH};

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Entries, each with a 16-bit length before it.
    Entries,
    /// Hashes of the tree's level `8 * n`.
    Hashes(u8),
}

/// The coordinates of one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// Entries, or hashes of a level.
    pub kind: TileKind,
    /// Its place in the row, from 0.
    pub index: u64,
    /// 256 when full, else how many it holds (1 to 255).
    pub width: u16,
}

/// The levels a tree of 2^64 entries has.
const LEVELS: u8 = 8;
/// [`TILE_WIDTH`] in the types of sizes.
const WIDTH: u64 = 256;
const _: () = assert!(TILE_WIDTH == 256);

impl Tile {
    /// A full tile.
    #[must_use]
    pub fn full(kind: TileKind, index: u64) -> Self {
        Self { kind, index, width: 256 }
    }

    /// Whether it holds all 256.
    #[must_use]
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == WIDTH
    }

    /// The path below the log's directory, such as `tile/0/x001/x234/067` or `tile/entries/000.p/5`.
    #[must_use]
    pub fn path(&self) -> String {
        let row = match self.kind {
            TileKind::Entries => "entries".to_owned(),
            TileKind::Hashes(level) => level.to_string(),
        };
        let mut groups = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups = format!("x{:03}/{groups}", rest % 1000);
            rest /= 1000;
        }
        let partial = if self.is_full() { String::new() } else { format!(".p/{}", self.width) };
        format!("tile/{row}/{groups}{partial}")
    }

    /// The tile with this path, if it is one in its only spelling.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let (row, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let kind = match row {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(level.parse().ok().filter(|level| *level < LEVELS)?),
        };
        let (groups, width) = match rest.split_once(".p/") {
            Some((groups, width)) => (groups, width.parse().ok().filter(|width| *width < 256)?),
            None => (rest, 256),
        };
        let index = groups.split('/').try_fold(0u64, |index, group| {
            let digits: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
            index.checked_mul(1000)?.checked_add(digits)
        })?;
        let tile = Self { kind, index, width };
        (tile.path() == path && width > 0).then_some(tile)
    }

    /// Every tile of a tree of `size` entries: bundles and hash tiles, full ones and the partial one of
    /// each row. Only rows from `first` entries on: full tiles wholly below it are left out.
    pub fn of_tree(first: u64, size: u64) -> impl Iterator<Item = Self> {
        let rows = [TileKind::Entries].into_iter().chain((0..LEVELS).map(TileKind::Hashes));
        rows.flat_map(move |kind| Self::row(kind, first, size))
    }

    fn row(kind: TileKind, first: u64, size: u64) -> impl Iterator<Item = Self> {
        let (begin, length) = (row_length(kind, first), row_length(kind, size));
        let full = (begin / WIDTH..length / WIDTH).map(move |index| Self::full(kind, index));
        let width = u16::try_from(length % WIDTH).unwrap_or_default();
        let partial = (width > 0).then_some(Self { kind, index: length / WIDTH, width });
        full.chain(partial)
    }

    /// How many entries a tree must have for this tile to exist in full width.
    #[must_use]
    pub fn entries_needed(&self) -> u64 {
        let cells = self.index.saturating_mul(WIDTH).saturating_add(u64::from(self.width));
        match self.kind {
            TileKind::Entries => cells,
            TileKind::Hashes(level) => cells.saturating_mul(WIDTH.saturating_pow(u32::from(level))),
        }
    }
}

/// How many cells a row has in a tree of `size` entries.
fn row_length(kind: TileKind, size: u64) -> u64 {
    match kind {
        TileKind::Entries => size,
        TileKind::Hashes(level) => {
            WIDTH.checked_pow(u32::from(level)).and_then(|span| size.checked_div(span)).unwrap_or(0)
        }
    }
}

/// The incomplete tile of every level of a growing tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiles {
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    /// The index of the incomplete tile.
    index: u64,
    hashes: Vec<Hash>,
}

impl Tiles {
    /// Adds a leaf; answers the hash tiles it completes, lowest level first, with their bytes.
    pub fn push(&mut self, leaf: Hash) -> Vec<(Tile, Vec<u8>)> {
        self.carry(0, leaf)
    }

    /// Adds what a full hash tile of `level` says, without the tiles below it: `256 ^ (level + 1)` entries. Answers the tiles it
    /// completes, itself the first; nothing, and nothing is added, where it is not full or the tree does not end where it begins.
    pub fn push_tile(&mut self, level: u8, hashes: &[Hash]) -> Option<Vec<(Tile, Vec<u8>)>> {
        let below = usize::from(level);
        let is_boundary = self.rows.iter().take(below + 1).all(|row| row.hashes.is_empty());
        if !is_boundary || hashes.len() != TILE_WIDTH || level >= LEVELS {
            return None;
        }
        if self.rows.len() < below {
            self.rows.resize_with(below, Row::default);
        }
        for (row, distance) in self.rows.iter_mut().take(below).rev().zip(1..) {
            row.index = row.index.saturating_add(WIDTH.saturating_pow(distance));
        }
        Some(hashes.iter().flat_map(|hash| self.carry(level, *hash)).collect())
    }

    /// Adds a hash to the row `first`, and what it completes to those above.
    fn carry(&mut self, first: u8, hash: Hash) -> Vec<(Tile, Vec<u8>)> {
        let mut completed = Vec::new();
        let mut carry = Some(hash);
        for level in first..LEVELS {
            let Some(hash) = carry.take() else { break };
            let place = usize::from(level);
            if self.rows.len() <= place {
                self.rows.push(Row::default());
            }
            let Some(row) = self.rows.get_mut(place) else { break };
            row.hashes.push(hash);
            if row.hashes.len() == TILE_WIDTH {
                completed.push((Tile::full(TileKind::Hashes(level), row.index), bytes_of(&row.hashes)));
                carry = perfect_root(std::mem::take(&mut row.hashes));
                row.index = row.index.saturating_add(1);
            }
        }
        completed
    }

    /// The leaves of the incomplete tile of the lowest level: those behind the last full one.
    #[must_use]
    pub fn last_leaves(&self) -> &[Hash] {
        self.rows.first().map_or(&[], |row| &row.hashes)
    }

    /// The incomplete tiles as they are now, with their bytes.
    #[must_use]
    pub fn partial(&self) -> Vec<(Tile, Vec<u8>)> {
        let rows = (0..LEVELS).zip(&self.rows).filter(|(_, row)| !row.hashes.is_empty());
        rows.map(|(level, row)| {
            let width = u16::try_from(row.hashes.len()).unwrap_or_default();
            (Tile { kind: TileKind::Hashes(level), index: row.index, width }, bytes_of(&row.hashes))
        })
        .collect()
    }
}

fn bytes_of(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(Hash::as_bytes).copied().collect()
}

/// The root over so many hashes as a power of two.
pub(super) fn perfect_root(mut level: Vec<Hash>) -> Option<Hash> {
    while level.len() > 1 {
        level = level
            .chunks(2)
            .filter_map(|pair| pair.first().zip(pair.last()))
            .map(|(left, right)| node_hash(left, right))
            .collect();
    }
    level.first().copied()
}

/// Why a bundle could not be read or an entry not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleError {
    /// The entry is longer than a 16-bit length can say.
    TooLong,
    /// The bundle ends inside an entry.
    CutShort,
}

impl fmt::Display for BundleError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLong => "entry is longer than 65,535 bytes",
            Self::CutShort => "bundle ends inside an entry",
        })
    }
}

impl std::error::Error for BundleError {}

/// Appends `entry` with its big-endian 16-bit length to `bundle`.
///
/// # Errors
/// [`BundleError::TooLong`]; nothing is appended then.
pub fn write_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), BundleError> {
    let length = u16::try_from(entry.len()).map_err(|_| BundleError::TooLong)?;
    debug_assert!(entry.len() <= ENTRY_BYTES_MAX);
    bundle.extend(length.to_be_bytes());
    bundle.extend(entry);
    Ok(())
}

/// The entries of a bundle, in order.
///
/// # Errors
/// [`BundleError::CutShort`] when bytes are left over.
pub fn read_bundle(bundle: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    let mut rest = bundle;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<2>().ok_or(BundleError::CutShort)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or(BundleError::CutShort)?;
        entries.push(entry);
        rest = after;
    }
    Ok(entries)
}
