//! What must be the same: the text between the holes of objects, kept as a tree.
//!
//! Owns: following an object down the tree, piece by piece, and where each piece of it stands.
//! Must never: know what a piece means; bytes are the same, or they are not.
//! Look next: `pattern`, which says what a hole is, and what becomes of an object that was followed to its end.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64};

use super::json::{self, Cursor, offset};
use super::text;
use crate::limits;

/// An object of more nodes seldom has its like.
pub(super) const NODES_MAX: u32 = 96;
/// Pieces of an object: one more than holes, of which there are fewer than nodes.
const PLACES: usize = 1 << u8::BITS;
/// So many pieces may follow one; no more are learned there.
const BRANCHES_MAX: usize = 32;
/// No piece, no pattern.
pub(super) const NONE: u32 = u32::MAX;

const _: () = assert!((NODES_MAX as usize) < PLACES);

/// What follows a piece of text that must be the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hole {
    Text,
    Number,
    /// The end of the object.
    Nothing,
}

/// Text that must be the same, and the hole behind it.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    from: u32,
    len: u32,
    hole: Hole,
    /// The first of those that may follow; at the end of an object its pattern.
    first: u32,
    /// Another one that may stand here.
    next: u32,
}

impl Piece {
    /// Text that is not in the tree yet.
    pub(super) fn new(from: u32, len: u32, hole: Hole) -> Self {
        Self { from, len, hole, first: NONE, next: NONE }
    }
}

/// All pieces, and where those of the object compared last stand.
pub(super) struct Pieces {
    /// What this processor can do.
    level: Level,
    all: Vec<Piece>,
    places: Box<[u32; PLACES]>,
}

impl Pieces {
    /// With room for so many.
    pub(super) fn new(room: usize) -> Self {
        Self { level: Level::new(), all: Vec::with_capacity(room), places: Box::new([0; PLACES]) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Where the pieces of the object compared last stand.
    #[inline(always)]
    pub(super) fn places(&self) -> &[u32; PLACES] {
        &self.places
    }

    /// Where that one does.
    #[inline(always)]
    pub(super) fn place(&self, piece: u8) -> u32 {
        self.places.get(usize::from(piece)).copied().unwrap_or(0)
    }

    /// It stands there.
    #[inline(always)]
    pub(super) fn stands(&mut self, piece: u8, at: u32) {
        if let Some(place) = self.places.get_mut(usize::from(piece)) {
            *place = at;
        }
    }

    /// A piece of no text, where objects begin.
    pub(super) fn root(&mut self) -> u32 {
        let root = offset(self.all.len());
        self.all.push(Piece::new(0, 0, Hole::Nothing));
        root
    }

    /// The end of an object leads to that pattern from now on. Gives what it led to.
    pub(super) fn lead_to(&mut self, end: u32, pattern: u32) -> Option<u32> {
        let end = self.all.get_mut(end as usize)?;
        Some(std::mem::replace(&mut end.first, pattern))
    }

    /// Compares from the cursor on, and moves it. At the end of an object: its pattern.
    /// What is looked at of pieces that do not fit is taken off `effort`.
    #[inline(always)]
    pub(super) fn compare(&mut self, root: u32, cursor: &mut Cursor<'_>, effort: &mut usize) -> Option<u32> {
        let level = self.level;
        dispatch!(level, simd => self.compare_with(simd, root, cursor, effort))
    }

    #[inline(always)]
    fn compare_with<S: Simd>(
        &mut self,
        simd: S,
        root: u32,
        cursor: &mut Cursor<'_>,
        effort: &mut usize,
    ) -> Option<u32> {
        let bytes = cursor.bytes;
        let (mut parent, mut at) = (root, self.all.get(root as usize)?.first);
        let mut stand = cursor.at;
        for place in &mut *self.places {
            *place = offset(stand);
            let mut piece = self.all.get(at as usize)?;
            match fits(simd, piece, stand, bytes) {
                Ok(further) => stand = further,
                Err(cost) => {
                    cursor.at = stand;
                    *effort = effort.saturating_sub(cost);
                    (at, stand) = another(simd, &mut self.all, (parent, at), stand, bytes, effort)?;
                    piece = self.all.get(at as usize)?;
                }
            }
            if piece.hole == Hole::Nothing {
                cursor.at = stand;
                return Some(piece.first);
            }
            (parent, at) = (at, piece.first);
        }
        None
    }

    /// The same piece behind that one: known, or new. It is looked at first from now on.
    pub(super) fn branch(&mut self, parent: u32, piece: Piece, text: &str) -> Option<u32> {
        let first = self.all.get(parent as usize)?.first;
        let (mut at, mut count) = (first, 0);
        while let Some(known) = self.all.get(at as usize) {
            let same = known.hole == piece.hole && known.len == piece.len;
            let (one, other, len) = (known.from as usize, piece.from as usize, piece.len as usize);
            if same && same_slowly(text.as_bytes(), one, other, len).is_ok() {
                to_front(&mut self.all, parent, at);
                return Some(at);
            }
            (at, count) = (known.next, count + 1);
        }
        if count >= BRANCHES_MAX {
            return None;
        }
        let new = offset(self.all.len());
        self.all.push(Piece { next: first, ..piece });
        self.all.get_mut(parent as usize)?.first = new;
        Some(new)
    }
}

/// The text there is that piece, and what follows fills the hole. Gives where one stands behind both; else how many
/// bytes were looked at in vain, never zero.
#[inline(always)]
fn fits<S: Simd>(simd: S, piece: &Piece, stand: usize, bytes: &[u8]) -> Result<usize, usize> {
    same(simd, bytes, piece.from as usize, stand, piece.len as usize)?;
    let at = stand.wrapping_add(piece.len as usize);
    match piece.hole {
        Hole::Text => closing_quote(simd, bytes, at),
        Hole::Number => behind_number(bytes, at).ok_or(BLOCK_BYTES),
        Hole::Nothing => Ok(at),
    }
}

/// Bytes looked at together: the bits of a word.
const BLOCK_BYTES: usize = 64;

/// Two stretches of the same text are equal; else how many bytes it took to see that.
#[inline(always)]
fn same<S: Simd>(simd: S, bytes: &[u8], one: usize, other: usize, len: usize) -> Result<(), usize> {
    let mut passed = 0;
    loop {
        let (Some(a), Some(b)) =
            (block(bytes, one.wrapping_add(passed)), block(bytes, other.wrapping_add(passed)))
        else {
            return same_slowly(bytes, one, other, len);
        };
        let equal = u8x64::from_slice(simd, a).simd_eq(u8x64::from_slice(simd, b)).to_bitmask();
        let left = len.wrapping_sub(passed);
        passed = passed.wrapping_add(BLOCK_BYTES);
        if left < BLOCK_BYTES {
            return if !equal & ((1 << left) - 1) == 0 { Ok(()) } else { Err(passed) };
        }
        if equal != u64::MAX {
            return Err(passed);
        }
    }
}

#[inline(always)]
fn block(bytes: &[u8], at: usize) -> Option<&[u8; BLOCK_BYTES]> {
    bytes.get(at..at.wrapping_add(BLOCK_BYTES))?.first_chunk()
}

/// The same at the end of the text.
#[cold]
#[inline(never)]
fn same_slowly(bytes: &[u8], one: usize, other: usize, len: usize) -> Result<(), usize> {
    let stretch = |at: usize| bytes.get(at..)?.get(..len);
    let same = stretch(one).is_some_and(|one| stretch(other) == Some(one));
    if same { Ok(()) } else { Err(len + BLOCK_BYTES) }
}

/// Where the string ends that goes on there, if it is plain and not too long; else how many bytes it took to see that.
#[inline(always)]
fn closing_quote<S: Simd>(simd: S, bytes: &[u8], start: usize) -> Result<usize, usize> {
    let mut at = start;
    loop {
        let Some(block) = block(bytes, at) else {
            at = at.wrapping_add(text::plain_run(bytes.get(at..).unwrap_or_default()));
            break;
        };
        let text = u8x64::from_slice(simd, block);
        let ends = text.simd_eq(b'"') | text.simd_eq(b'\\') | text.simd_lt(b' ');
        let ends = ends.to_bitmask();
        if ends != 0 {
            at = at.wrapping_add(ends.trailing_zeros() as usize);
            break;
        }
        at = at.wrapping_add(BLOCK_BYTES);
    }
    let len = at.wrapping_sub(start);
    let is_plain = bytes.get(at) == Some(&b'"') && len <= limits::STRING_BYTES_MAX;
    if is_plain { Ok(at) } else { Err(len.wrapping_add(BLOCK_BYTES)) }
}

/// Apart, since most holes are strings.
#[inline(never)]
fn behind_number(bytes: &[u8], at: usize) -> Option<usize> {
    json::number(bytes, at).ok()
}

/// Another piece beside that one fits, which stands behind its parent. Each that does not costs what was looked at.
#[inline(always)]
fn another<S: Simd>(
    simd: S,
    pieces: &mut [Piece],
    (parent, mut at): (u32, u32),
    stand: usize,
    bytes: &[u8],
    effort: &mut usize,
) -> Option<(u32, usize)> {
    while *effort > 0 {
        at = pieces.get(at as usize)?.next;
        match fits(simd, pieces.get(at as usize)?, stand, bytes) {
            Ok(further) => {
                to_front(pieces, parent, at);
                return Some((at, further));
            }
            Err(cost) => *effort = effort.saturating_sub(cost),
        }
    }
    None
}

/// What was found is looked at first the next time.
#[inline(never)]
fn to_front(pieces: &mut [Piece], parent: u32, found: u32) {
    let (Some(before), Some(next)) = (pieces.get(parent as usize), pieces.get(found as usize)) else {
        return;
    };
    let (first, next) = (before.first, next.next);
    let mut before = first;
    while let Some(piece) = pieces.get_mut(before as usize).filter(|piece| piece.next != found) {
        before = piece.next;
    }
    // None stands before the first.
    let Some(piece) = pieces.get_mut(before as usize) else { return };
    piece.next = next;
    if let Some(piece) = pieces.get_mut(found as usize) {
        piece.next = first;
    }
    if let Some(parent) = pieces.get_mut(parent as usize) {
        parent.first = found;
    }
}
