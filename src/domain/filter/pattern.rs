//! What was read before: an object built like an earlier one is not read again.
//!
//! Owns: finding an earlier object of the same build, and the rule when one counts as read by it.
//! Must never: take an object for another: what is not the inside of a string or a number is compared byte for byte, and
//! of those strings that say more than themselves what they say.
//! Look next: `walk`, which asks before it reads an object; `pieces`, which compares.
//!
//! Answers repeat themselves: of a page of Observations nearly all are built alike, and differ in some strings and
//! numbers. An object is built like an earlier one if its bytes are the same but for the inside of strings and numbers
//! (holes): then it has the same members, the same nodes, the same marks, only at other offsets. A string that fills a
//! hole must be plain and a number a number, as everywhere. What stands between holes (pieces) is kept as a tree, so that
//! objects that begin alike are compared once, however many of them there were.
//!
//! Of a build that comes often most strings are always the same: systems, codes, addresses. They are learned as well, in
//! a narrow tree that is asked first; what differs there may still be found in the wide one, where all of them are holes.

use super::facts;
use super::json::{Cursor, offset};
use super::keys::{self, Meaning, Word};
use super::pieces::{Hole, NODES_MAX, NONE, Piece, Pieces};
use super::reference::Bases;
use super::tape::{Mark, NAMELESS, Node, Shape, Tape, View};

/// Texts shorter than this hold too little that comes again.
pub(super) const TEXT_BYTES_MIN: usize = 8 * 1024;
/// An object with fewer quotes is read as quickly as it is compared.
const QUOTES_MIN: usize = 4;
/// Room to begin with, and bytes of text for each more: of the largest Synthea Bundle 1,500 pieces are learned of 200
/// builds, which have 3,500 nodes.
const ROOM: usize = 1 << 10;
const BUILDS: usize = 1 << 7;
const BYTES_A_NOTE: usize = 1 << 8;
const BYTES_A_PIECE: usize = 1 << 9;
const BYTES_A_BUILD: usize = 1 << 12;
/// Pieces and nodes kept, one megabyte and six; then nothing more is learned.
const PIECES_MAX: usize = 1 << 16;
const NOTES_MAX: usize = 1 << 18;
/// Bytes compared in vain, for each byte of the text; then nothing is compared any more.
const EFFORT: usize = 4;
/// What it costs to see that the strings of one say something else, as much as so many bytes.
const SAYING: usize = 512;
/// Bits for what was read.
const SEEN_BITS: u32 = 12;
const SEEN: usize = 1 << SEEN_BITS;
/// So many brackets are open around an entry of a Bundle.
const ENTRY_DEPTH: u16 = 2;
/// An entry is learned when it comes the second time. What is inside comes with it: whether it comes elsewhere, too, is
/// known at the third.
const BEFORE_ENTRY: u8 = 1;
const BEFORE_INSIDE: u8 = 2;
/// What comes again in a build is learned when it was found in the wide tree so often; of the last two times each.
const LESSONS: [u8; 2] = [3, 9];
const LAST_LESSON: u8 = 9;
/// Lists of roots.
const HEADS: usize = 512;

/// What must be the same besides the text.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Setting {
    pub key: u16,
    /// Where in the compartment's paths.
    pub trail: u16,
    pub depth: u16,
    /// How many resources stand around it.
    pub nesting: u16,
}

/// An object that was read, with all that reading it did: half-open ranges of the tape.
#[derive(Clone, Copy)]
pub(super) struct Earlier {
    pub setting: Setting,
    pub bytes: (u32, u32),
    pub nodes: (u32, u32),
    pub records: (u32, u32),
    pub told: (u32, u32),
}

/// An object that later ones may be built like.
#[derive(Clone, Copy)]
struct Pattern {
    earlier: Earlier,
    notes: u32,
    /// How many there are in it.
    quotes: u32,
    checks: (u32, u32),
    tops: (u32, u32),
    /// Another one with the same pieces.
    next: u32,
    /// How often it was found in the wide tree.
    met: u8,
    /// A bit for each node whose string or number was not always the same, as far as they were compared.
    varies: u128,
}

/// Where the pieces of all objects in one setting begin.
#[derive(Clone, Copy)]
struct Root {
    setting: Setting,
    /// A piece of no text, before objects with every hole they may have.
    wide: u32,
    /// The same before objects of which some strings and numbers came again.
    narrow: u32,
    next: u32,
}

/// A node of an object, and in which pieces it begins and ends, counted from the beginning of the object. Its offsets
/// are counted from these pieces.
#[derive(Clone, Copy)]
struct Note {
    node: Node,
    first: u8,
    last: u8,
}

/// What stands at the top of a record in an object: of which one, at which node, both counted from the first.
#[derive(Clone, Copy)]
pub(super) struct Top {
    pub record: u32,
    pub node: u32,
    pub word: Word,
}

/// A string that says more than itself, and what it must say.
#[derive(Clone, Copy)]
struct Check {
    node: u32,
    meaning: Meaning,
    says: Says,
}

/// What `walk` makes of a URL besides copying it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Says {
    fragment: bool,
    moves: bool,
    past: bool,
    patient: bool,
}

impl Says {
    fn of(meaning: Meaning, text: &str, bases: &Bases<'_>) -> Self {
        let reference = meaning == Meaning::Reference;
        Self {
            fragment: reference && text.starts_with('#'),
            moves: bases.moves(text),
            past: !reference && bases.leads_past(text),
            patient: reference && bases.record(text).is_some_and(|(kind, _)| kind.name() == "Patient"),
        }
    }
}

/// The objects read so far that later ones may be like.
pub(super) struct Patterns {
    /// For each key the first of its roots, which it may share with others.
    heads: Vec<u32>,
    roots: Vec<Root>,
    pieces: Pieces,
    all: Vec<Pattern>,
    notes: Vec<Note>,
    checks: Vec<Check>,
    tops: Vec<Top>,
    /// How often each number of nodes and quotes came under a key, many to one.
    seen: Vec<u8>,
    /// Bytes that may still be compared in vain.
    effort: usize,
}

/// An earlier object that another one is built like.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pattern: u32,
    /// Where it is to be learned what of it comes again.
    narrow: Option<u32>,
}

impl Found {
    /// What of it comes again is to be learned.
    #[inline(always)]
    pub(super) fn is_met(self) -> bool {
        self.narrow.is_some()
    }
}

impl Patterns {
    /// For a text of that many bytes; none where it would not pay.
    pub(super) fn new(text_bytes: usize) -> Self {
        let pays = text_bytes >= TEXT_BYTES_MIN;
        let room = |least: usize, bytes_each: usize| if pays { least + text_bytes / bytes_each } else { 0 };
        Self {
            heads: if pays { vec![NONE; HEADS] } else { Vec::new() },
            roots: Vec::with_capacity(room(BUILDS, BYTES_A_BUILD)),
            pieces: Pieces::new(room(ROOM, BYTES_A_PIECE)),
            all: Vec::with_capacity(room(BUILDS, BYTES_A_BUILD)),
            notes: Vec::with_capacity(room(ROOM, BYTES_A_NOTE)),
            checks: Vec::new(),
            tops: Vec::new(),
            seen: if pays { vec![0; SEEN] } else { Vec::new() },
            effort: text_bytes.saturating_mul(EFFORT),
        }
    }

    /// Where objects in that setting begin.
    #[inline(always)]
    fn root(&self, setting: Setting) -> Option<Root> {
        let mut at = *self.heads.get(usize::from(setting.key) % HEADS)?;
        loop {
            let root = *self.roots.get(at as usize)?;
            if root.setting == setting {
                return Some(root);
            }
            at = root.next;
        }
    }

    /// The earlier object that the one at the cursor is built like; then the cursor stands behind it, else where it
    /// stood.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        setting: Setting,
        cursor: &mut Cursor<'_>,
        tape: &Tape,
        bases: &Bases<'_>,
    ) -> Option<Found> {
        let root = self.root(setting)?;
        self.find_below(root, cursor, tape, bases)
    }

    #[inline(never)]
    fn find_below(
        &mut self,
        root: Root,
        cursor: &mut Cursor<'_>,
        tape: &Tape,
        bases: &Bases<'_>,
    ) -> Option<Found> {
        if let Some(pattern) = self.find_from(root.narrow, cursor, tape, bases) {
            return Some(Found { pattern, narrow: None });
        }
        let pattern = self.find_from(root.wide, cursor, tape, bases)?;
        let learns = self.all.get(pattern as usize)?.met < LAST_LESSON && !self.is_full();
        Some(Found { pattern, narrow: learns.then_some(root.narrow) })
    }

    #[inline(always)]
    fn find_from(
        &mut self,
        root: u32,
        cursor: &mut Cursor<'_>,
        tape: &Tape,
        bases: &Bases<'_>,
    ) -> Option<u32> {
        if self.effort == 0 {
            return None;
        }
        let start = cursor.at;
        if let Some(first) = self.pieces.compare(root, cursor, &mut self.effort)
            && let Some((pattern, quotes)) = self.that_says_the_same(first, cursor.text, tape, bases)
        {
            cursor.quotes.jump(cursor.at, quotes as usize);
            return Some(pattern);
        }
        self.effort = self.effort.saturating_sub(cursor.at - start);
        cursor.at = start;
        None
    }

    /// Of the objects with the same pieces the one whose telling strings say what those compared last say, with how many
    /// quotes it has.
    fn that_says_the_same(
        &mut self,
        mut pattern: u32,
        text: &str,
        tape: &Tape,
        bases: &Bases<'_>,
    ) -> Option<(u32, u32)> {
        while self.effort > 0
            && let Some(known) = self.all.get(pattern as usize)
        {
            if self.says_the_same(known, text, tape, bases) {
                return Some((pattern, known.quotes));
            }
            pattern = known.next;
            self.effort = self.effort.saturating_sub(SAYING);
        }
        None
    }

    fn says_the_same(&self, pattern: &Pattern, text: &str, tape: &Tape, bases: &Bases<'_>) -> bool {
        let (from, to) = pattern.checks;
        let checks = self.checks.get(from as usize..to as usize).unwrap_or_default();
        checks.iter().all(|check| {
            let known = tape.nodes.get((pattern.earlier.nodes.0 + check.node) as usize);
            let note = self.notes.get((pattern.notes + check.node) as usize);
            let (Some(known), Some(note)) = (known, note) else { return false };
            let start = note.node.start.wrapping_add(self.pieces.place(note.first));
            let end = note.node.end.wrapping_add(self.pieces.place(note.last));
            let raw = |start: u32, end: u32| text.as_bytes().get(start as usize..end as usize);
            let says = |now| Says::of(check.meaning, now, bases) == check.says;
            raw(start, end) == raw(known.start, known.end)
                || text.get(start as usize + 1..(end as usize).saturating_sub(1)).is_some_and(says)
        })
    }

    /// What stands at the top of its records.
    pub(super) fn tops(&self, found: Found) -> &[Top] {
        let (from, to) = self.all.get(found.pattern as usize).map_or((0, 0), |pattern| pattern.tops);
        self.tops.get(from as usize..to as usize).unwrap_or_default()
    }

    /// Writes the nodes of the object compared last, of which `found` was found. Gives the earlier one.
    #[inline(always)]
    pub(super) fn copy(&self, found: Found, lead: u32, tape: &mut Tape) -> Option<Earlier> {
        let base = tape.nodes.len();
        let Pattern { earlier, notes, .. } = self.all.get(found.pattern as usize)?;
        let from = *notes as usize;
        let to = from + (earlier.nodes.1 - earlier.nodes.0) as usize;
        let places = self.pieces.places();
        let place = |piece: u8| places.get(usize::from(piece)).copied().unwrap_or(0);
        let notes = self.notes.get(from..to).unwrap_or_default();
        // Sums of offsets into one text: none can be too large.
        tape.nodes.extend(notes.iter().map(move |Note { node, first, last }| Node {
            start: node.start.wrapping_add(place(*first)),
            end: node.end.wrapping_add(place(*last)),
            ..*node
        }));
        if let Some(node) = tape.nodes.get_mut(base) {
            node.lead = lead;
        }
        Some(*earlier)
    }

    /// Nothing more is learned.
    fn is_full(&self) -> bool {
        self.pieces.len() >= PIECES_MAX || self.notes.len() >= NOTES_MAX
    }

    /// Remembers an object that was read, with so many quotes in it.
    #[inline(always)]
    pub(super) fn keep(
        &mut self,
        earlier: Earlier,
        quotes: usize,
        text: &str,
        tape: &Tape,
        bases: &Bases<'_>,
    ) {
        let few = earlier.nodes.1 - earlier.nodes.0 <= NODES_MAX;
        if quotes < QUOTES_MIN || !few || self.is_full() || self.heads.is_empty() {
            return;
        }
        if self.may_have_been(earlier, quotes)
            && let Some(root) = self.root(earlier.setting).or_else(|| self.new_root(earlier.setting))
        {
            self.learn(root.wide, earlier, u128::MAX, text, tape, bases);
        }
    }

    /// Remembers what came again in an object that was found, so that it is compared in one piece with what stands
    /// around it.
    #[inline(never)]
    pub(super) fn narrow(
        &mut self,
        found: Found,
        now: Earlier,
        text: &str,
        tape: &Tape,
        bases: &Bases<'_>,
    ) -> Option<()> {
        let (narrow, pattern) = (found.narrow?, self.all.get_mut(found.pattern as usize)?);
        pattern.met += 1;
        let is_last = LESSONS.contains(&pattern.met);
        if !is_last && !LESSONS.contains(&(pattern.met + 1)) {
            return None;
        }
        let nodes = |(from, to): (u32, u32)| tape.nodes.get(from as usize..to as usize);
        let value = |node: &Node| text.as_bytes().get(node.start as usize..node.end as usize);
        let (before, again) = (nodes(pattern.earlier.nodes)?, nodes(now.nodes)?);
        let differ = before.iter().zip(again).zip(0..).filter(|((one, other), _)| {
            matches!(one.shape, Shape::Text | Shape::Number) && value(one) != value(other)
        });
        pattern.varies = differ.fold(pattern.varies, |all, (_, bit)| all | 1_u128 << (bit & 127));
        let varies = pattern.varies;
        if is_last { self.learn(narrow, now, varies, text, tape, bases) } else { None }
    }

    /// One of so many nodes and quotes was read before, as often as it takes; from now on once more. What comes once is
    /// not worth learning.
    fn may_have_been(&mut self, earlier: Earlier, quotes: usize) -> bool {
        let nodes = u64::from(earlier.nodes.1 - earlier.nodes.0);
        let mixed = u64::from(earlier.setting.key) << 32 ^ nodes << 16 ^ quotes as u64;
        let place = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - SEEN_BITS);
        let seen = usize::try_from(place).ok().and_then(|place| self.seen.get_mut(place));
        let enough = if earlier.setting.depth > ENTRY_DEPTH { BEFORE_INSIDE } else { BEFORE_ENTRY };
        seen.is_some_and(|seen| {
            let before = *seen;
            *seen = before.saturating_add(1);
            before >= enough
        })
    }

    /// Where `varies` has a bit a string or number is a hole. None if it cannot be compared: it holds escapes, or there
    /// are too many.
    #[inline(never)]
    fn learn(
        &mut self,
        root: u32,
        earlier: Earlier,
        varies: u128,
        text: &str,
        tape: &Tape,
        bases: &Bases<'_>,
    ) -> Option<()> {
        let (start, end) = earlier.bytes;
        let nodes = tape.nodes.get(earlier.nodes.0 as usize..earlier.nodes.1 as usize)?;
        if memchr::memchr(b'\\', text.as_bytes().get(start as usize..end as usize)?).is_some() {
            return None;
        }
        let (base, checks) = (self.notes.len(), self.checks.len());
        let mut parent = root;
        let mut lesson = Lesson { text, varies, from: start, quotes: 0, holes: 0, fixed: 0 };
        self.pieces.stands(0, start);
        for (index, node) in (0_u32..).zip(nodes) {
            let first = lesson.holes;
            let hole = lesson.hole(index, node);
            if let Some(hole) = hole {
                let quote = u32::from(hole == Hole::Text);
                parent = self.pieces.branch(parent, lesson.piece(node.start + quote, hole), text)?;
                if node.marks & Mark::TELLS != 0 {
                    self.checks.push(check(index, node, text, bases)?);
                }
                lesson.go_on(node.end - quote);
                self.pieces.stands(lesson.holes, lesson.from);
            }
            self.note(node, first, lesson.holes);
        }
        let end = self.pieces.branch(parent, lesson.piece(end, Hole::Nothing), text)?;
        self.close(base, lesson.holes)?;
        let checks = (offset(checks), offset(self.checks.len()));
        let next = self.pieces.lead_to(end, offset(self.all.len()))?;
        let tops = self.learn_tops(earlier, text, tape);
        self.all.push(Pattern {
            earlier,
            notes: offset(base),
            quotes: lesson.quotes,
            checks,
            tops,
            next,
            met: 0,
            varies: 0,
        });
        Some(())
    }

    /// What is said at the top of its records.
    fn learn_tops(&mut self, earlier: Earlier, text: &str, tape: &Tape) -> (u32, u32) {
        let (view, before) = (View { text, nodes: &tape.nodes }, offset(self.tops.len()));
        let (from, to) = earlier.records;
        for (number, record) in (0..).zip(tape.records.get(from as usize..to as usize).unwrap_or_default()) {
            facts::top(view, record.node, |at, word| {
                self.tops.push(Top { record: number, node: offset(at) - earlier.nodes.0, word });
            });
        }
        (before, offset(self.tops.len()))
    }

    /// A node that begins and, if it holds no others, ends in these pieces.
    #[inline(always)]
    fn note(&mut self, node: &Node, first: u8, last: u8) {
        let (from, to) = (self.pieces.place(first), self.pieces.place(last));
        let (start, end) = (node.start - from, node.end.wrapping_sub(to));
        let node = Node { start, end, ..*node };
        self.notes.push(Note { node, first, last });
    }

    /// Nodes that hold others end where the last of these does.
    fn close(&mut self, base: usize, holes: u8) -> Option<()> {
        for index in base..self.notes.len() {
            let Note { node, last: begun, .. } = *self.notes.get(index)?;
            if !matches!(node.shape, Shape::Object | Shape::Array) {
                continue;
            }
            let last = self.notes.get(index + node.nodes as usize).map_or(holes, |after| after.first);
            let moved = self.pieces.place(begun).wrapping_sub(self.pieces.place(last));
            let end = node.end.wrapping_add(moved);
            let note = self.notes.get_mut(index)?;
            (note.node.end, note.last) = (end, last);
        }
        Some(())
    }

    fn new_root(&mut self, setting: Setting) -> Option<Root> {
        let (wide, narrow) = (self.pieces.root(), self.pieces.root());
        let head = self.heads.get_mut(usize::from(setting.key) % HEADS)?;
        let next = std::mem::replace(head, offset(self.roots.len()));
        let root = Root { setting, wide, narrow, next };
        self.roots.push(root);
        Some(root)
    }
}

/// An object that is being learned.
struct Lesson<'t> {
    text: &'t str,
    /// A bit for each node that may be a hole.
    varies: u128,
    /// Where the next piece begins.
    from: u32,
    /// Quotes so far.
    quotes: u32,
    holes: u8,
    /// Up to this node everything must be the same.
    fixed: u32,
}

impl Lesson<'_> {
    /// The hole that a node is, which is the object's own at zero.
    #[inline(always)]
    fn hole(&mut self, index: u32, node: &Node) -> Option<Hole> {
        self.quotes += if node.lead == NAMELESS || index == 0 { 0 } else { 2 };
        let free = index >= self.fixed && self.varies >> (index & 127) & 1 == 1;
        match node.shape {
            Shape::Text if free && (node.marks & Mark::TELLS == 0 || !is_fixed(node)) => {
                self.quotes += 2;
                Some(Hole::Text)
            }
            Shape::Number if free => Some(Hole::Number),
            Shape::Text | Shape::Escaped => {
                self.quotes += 2;
                None
            }
            Shape::Unknown => {
                self.quotes += quotes_in(self.text, node);
                None
            }
            // Whether a tag is SUBSETTED decides what else is written.
            Shape::Object | Shape::Array if node.marks & Mark::TELLS != 0 => {
                self.fixed = self.fixed.max(index + node.nodes);
                None
            }
            Shape::Object | Shape::Array | Shape::Number | Shape::Boolean | Shape::Null => None,
        }
    }

    fn piece(&self, to: u32, hole: Hole) -> Piece {
        let (from, len) = (self.from, to - self.from);
        Piece::new(from, len, hole)
    }

    /// Behind a hole.
    fn go_on(&mut self, from: u32) {
        self.from = from;
        self.holes += 1;
    }
}

#[cold]
fn quotes_in(text: &str, node: &Node) -> u32 {
    let bytes = text.as_bytes().get(node.start as usize..node.end as usize).unwrap_or_default();
    offset(memchr::memchr_iter(b'"', bytes).count())
}

/// The data type around a member that says more than itself.
fn around(node: &Node) -> Option<Meaning> {
    keys::form(node.key()?.owner).map(|form| form.meaning)
}

/// The URL of an extension: what the extension is decided by. And a code system, which comes with the build.
fn is_fixed(node: &Node) -> bool {
    node.is(Word::System) || around(node) == Some(Meaning::Extension)
}

fn check(index: u32, node: &Node, text: &str, bases: &Bases<'_>) -> Option<Check> {
    let meaning = around(node)?;
    let says = Says::of(meaning, text.get(node.start as usize + 1..node.end as usize - 1)?, bases);
    Some(Check { node: index, meaning, says })
}
