//! What must be the same: the text between the holes of objects, kept as a tree.
//!
//! Owns: following an object down the tree, piece by piece, and where each piece of it stands.
//! Must never: know what a piece means; bytes are the same, or they are not.
//! Look next: `pattern`, which says what a hole is, and what becomes of an object that was followed to its end.

use super::json::{self, Cursor, offset};
use super::names;

/// An object of more nodes seldom has its like.
pub(super) const NODES_MAX: u32 = 96;
/// Pieces of an object, one more than holes, of which there are fewer than nodes; and [`UNMOVED`].
const PLACES: usize = 1 << u8::BITS;
/// The last place: no piece stands there, it is always zero.
pub(super) const UNMOVED: u8 = u8::MAX;
/// So many pieces may follow one; no more are learned there.
const BRANCHES_MAX: usize = 32;
/// No piece, no pattern.
pub(super) const NONE: u32 = u32::MAX;
/// Quotes listed before an object is compared: a name and a string for each node. Only what R4 does not know can hold
/// more, and is then not found.
const QUOTES_AHEAD: usize = 4 * NODES_MAX as usize;

const _: () = assert!(NODES_MAX < UNMOVED as u32);

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
    /// Quotes in it.
    quotes: u32,
    hole: Hole,
    /// The first of those that may follow; at the end of an object its pattern.
    first: u32,
    /// Another one that may stand here.
    next: u32,
}

impl Piece {
    /// Text that is not in the tree yet.
    pub(super) fn new(from: u32, len: u32, quotes: u32, hole: Hole) -> Self {
        Self { from, len, quotes, hole, first: NONE, next: NONE }
    }
}

/// How far an object was compared: up to this byte, and so many quotes.
#[derive(Clone, Copy)]
struct Stand {
    at: usize,
    quotes: usize,
}

/// All pieces, and where those of the object compared last stand.
pub(super) struct Pieces {
    all: Vec<Piece>,
    places: Box<[u32; PLACES]>,
}

impl Pieces {
    /// With room for so many.
    pub(super) fn new(room: usize) -> Self {
        Self { all: Vec::with_capacity(room), places: Box::new([0; PLACES]) }
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
        self.all.push(Piece::new(0, 0, 0, Hole::Nothing));
        root
    }

    /// The end of an object leads to that pattern from now on. Gives what it led to.
    pub(super) fn lead_to(&mut self, end: u32, pattern: u32) -> Option<u32> {
        let end = self.all.get_mut(end as usize)?;
        Some(std::mem::replace(&mut end.first, pattern))
    }

    /// Compares from the cursor on, and moves it. At the end of an object: the pattern, and how many quotes were in it.
    /// Each piece that does not fit takes its length off `effort`.
    #[inline(never)]
    pub(super) fn compare(
        &mut self,
        root: u32,
        cursor: &mut Cursor<'_>,
        effort: &mut usize,
    ) -> Option<(u32, usize)> {
        cursor.quotes.ahead(QUOTES_AHEAD, cursor.bytes);
        let (bytes, listed) = (cursor.bytes, cursor.quotes.listed());
        let (mut parent, mut at) = (root, self.all.get(root as usize)?.first);
        let mut stand = Stand { at: cursor.at, quotes: 0 };
        let [places @ .., _] = &mut *self.places;
        for place in places {
            *place = offset(stand.at);
            let mut piece = self.all.get(at as usize)?;
            if let Some(further) = fits(piece, stand, bytes, listed) {
                stand = further;
            } else {
                cursor.at = stand.at;
                (at, stand) = another(&mut self.all, (parent, at), stand, bytes, listed, effort)?;
                piece = self.all.get(at as usize)?;
            }
            if piece.hole == Hole::Nothing {
                cursor.at = stand.at;
                return Some((piece.first, stand.quotes));
            }
            (parent, at) = (at, piece.first);
        }
        None
    }

    /// The same piece behind that one: known, or new.
    pub(super) fn branch(&mut self, parent: u32, piece: Piece, text: &str) -> Option<u32> {
        let first = self.all.get(parent as usize)?.first;
        let (mut at, mut count) = (first, 0);
        while let Some(known) = self.all.get(at as usize) {
            let same = known.hole == piece.hole && known.len == piece.len;
            let (one, other, len) = (known.from as usize, piece.from as usize, piece.len as usize);
            if same && names::same(text.as_bytes(), one, other, len) {
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

/// The text there is that piece, and what follows fills the hole. Gives where one stands behind both.
#[inline(always)]
fn fits(piece: &Piece, stand: Stand, bytes: &[u8], listed: &[u32]) -> Option<Stand> {
    if !names::same(bytes, piece.from as usize, stand.at, piece.len as usize) {
        return None;
    }
    let at = stand.at.wrapping_add(piece.len as usize);
    let quotes = stand.quotes.wrapping_add(piece.quotes as usize);
    match piece.hole {
        Hole::Text => {
            let closing = *listed.get(quotes)? as usize;
            json::is_plain_text(bytes, at, closing).then_some(Stand { at: closing, quotes })
        }
        Hole::Number => behind_number(bytes, at).map(|at| Stand { at, quotes }),
        Hole::Nothing => Some(Stand { at, quotes }),
    }
}

/// Apart, since most holes are strings.
#[inline(never)]
fn behind_number(bytes: &[u8], at: usize) -> Option<usize> {
    json::number(bytes, at).ok()
}

/// Another piece beside that one fits, which stands behind its parent. Each that does not, that one too, costs its length.
#[inline(never)]
fn another(
    pieces: &mut [Piece],
    (parent, mut at): (u32, u32),
    stand: Stand,
    bytes: &[u8],
    listed: &[u32],
    effort: &mut usize,
) -> Option<(u32, Stand)> {
    while *effort > 0 {
        let piece = pieces.get(at as usize)?;
        *effort = effort.saturating_sub(piece.len as usize);
        at = piece.next;
        if let Some(further) = fits(pieces.get(at as usize)?, stand, bytes, listed) {
            to_front(pieces, parent, at);
            return Some((at, further));
        }
    }
    None
}

/// What was found is looked at first the next time.
fn to_front(pieces: &mut [Piece], parent: u32, found: u32) {
    let Some(next) = pieces.get(found as usize).map(|piece| piece.next) else { return };
    let Some(first) =
        pieces.get_mut(parent as usize).map(|parent| std::mem::replace(&mut parent.first, found))
    else {
        return;
    };
    let mut before = first;
    while let Some(piece) = pieces.get_mut(before as usize) {
        if piece.next == found {
            piece.next = next;
            break;
        }
        before = piece.next;
    }
    if let Some(piece) = pieces.get_mut(found as usize) {
        piece.next = first;
    }
}
