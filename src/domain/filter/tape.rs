//! The tape: one answer as a flat list of values.
//!
//! Owns: what is remembered of each value, and how one steps from value to value.
//! Must never: hold text; offsets lead back to the bytes.
//! Look next: `walk`, which writes it; `emit`, which reads it.

use std::borrow::Cow;

use super::json::offset;
use super::keys::{self, Known, Word};
use super::{Record, text};

/// What kind of JSON value a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Array,
    /// A string without escapes: what it says is what stands there.
    Text,
    /// A string with escapes.
    Escaped,
    Number,
    Boolean,
    Null,
    /// A value under a name R4 does not know, whatever it is. What is inside it is not on the tape.
    Unknown,
}

/// What `emit` must know of a subtree before it may copy it in one piece.
pub(super) struct Mark;

impl Mark {
    /// Holds something that never leaves or is decided one by one: unknown names, empties, nulls,
    /// resources, narrative, signatures, elements that continue elsewhere.
    pub(super) const LOOSE: u8 = 1;
    /// Holds a Reference with a display or an identifier.
    pub(super) const NAMED: u8 = 2;
    /// Holds a Reference to a contained record, or a URL under upstream's own address.
    pub(super) const MOVED: u8 = 4;
    /// This member is the underscore twin of a primitive.
    pub(super) const TWIN: u8 = 8;
    /// This member is `resourceType`.
    pub(super) const ANCHOR: u8 = 16;
    /// Holds an element that continues elsewhere: something below may be kept although no path
    /// through here is.
    pub(super) const WINDS: u8 = 32;

    /// Holds an Attachment whose URL leads past us.
    pub(super) const FOREIGN: u8 = 64;

    /// This member says more than itself: it decides what becomes of others, or is one of [`Told`].
    pub(super) const TELLS: u8 = 128;

    /// Those that say something of the parents too.
    pub(super) const RISING: u8 = Self::LOOSE | Self::NAMED | Self::MOVED | Self::WINDS | Self::FOREIGN;
}

/// No text begins with a name, and no name stands where its value does.
pub(super) const NAMELESS: u32 = 0;

/// One JSON value on the tape; a container is followed by what it contains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// First byte of the value.
    pub start: u32,
    /// Byte behind the value.
    pub end: u32,
    /// Bytes from the opening quote of the member's name to the value; [`NAMELESS`] for items and the root.
    pub lead: u32,
    /// How many nodes it is, with those inside.
    pub nodes: u32,
    /// Number of the member's [`Known`]; `keys::NONE` for items, the root, and what R4 does not know.
    pub key: u16,
    /// Marks of [`Mark`].
    pub marks: u8,
    pub shape: Shape,
}

impl Node {
    /// Opening quote of the member's name; for items and the root where the value begins.
    pub(super) fn name(&self) -> usize {
        self.start.wrapping_sub(self.lead) as usize
    }

    /// The element this member holds; none for items and for what R4 does not know.
    pub(super) fn key(&self) -> Option<&'static Known> {
        keys::key(self.key)
    }

    pub(super) fn is_twin(&self) -> bool {
        self.marks & Mark::TWIN != 0
    }

    /// This member is the value, not the twin, of that element.
    pub(super) fn is(&self, word: Word) -> bool {
        !self.is_twin() && self.key().is_some_and(|key| key.word == word)
    }
}

/// Values and records, in the order of the text.
#[derive(Default)]
pub(super) struct Tape {
    pub nodes: Vec<Node>,
    pub records: Vec<Record>,
    /// What facts were gathered from, with the record it was told of.
    pub told: Vec<(Option<usize>, Told)>,
    /// How many builds have two records or more.
    builds: u32,
}

impl Tape {
    /// The build of a record, which has its like.
    pub(super) fn build(&mut self, record: usize) -> Option<u32> {
        let record = self.records.get_mut(record)?;
        if record.build.is_none() {
            record.build = Some(self.builds);
            self.builds += 1;
        }
        record.build
    }

    /// How many nodes, records and things told there are.
    #[inline(always)]
    pub(super) fn lens(&self) -> [u32; 3] {
        [offset(self.nodes.len()), offset(self.records.len()), offset(self.told.len())]
    }

    /// What came since there were so many.
    #[inline(always)]
    pub(super) fn since(&self, [nodes, records, told]: [u32; 3]) -> [(u32, u32); 3] {
        let [last_node, last_record, last_told] = self.lens();
        [(nodes, last_node), (records, last_record), (told, last_told)]
    }
}

/// A value that says something of the record around it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// A reference at this node to one of our Patients; it may put the record into the compartment.
    Patient { reference: u32, in_compartment: bool },
    /// Labels in the member at this node.
    Labels(u32),
}

impl Told {
    /// The same so many nodes further on.
    pub(super) fn further(self, nodes: u32) -> Self {
        match self {
            Self::Patient { reference, in_compartment } => {
                Self::Patient { reference: reference + nodes, in_compartment }
            }
            Self::Labels(member) => Self::Labels(member + nodes),
        }
    }
}

/// A tape with the text it was made of.
#[derive(Clone, Copy)]
pub(super) struct View<'v> {
    pub text: &'v str,
    pub nodes: &'v [Node],
}

impl<'v> View<'v> {
    /// What the string at this node says; none if it is no string.
    pub(super) fn text(self, index: usize) -> Option<Cow<'v, str>> {
        let node = self.nodes.get(index)?;
        let inside = || self.text.get(node.start as usize + 1..node.end as usize - 1);
        match node.shape {
            Shape::Text => inside().map(Cow::Borrowed),
            Shape::Escaped => inside().map(text::unescape),
            _ => None,
        }
    }

    /// The bytes of the value at this node.
    pub(super) fn raw(self, index: usize) -> &'v [u8] {
        let span = |node: &Node| self.text.as_bytes().get(node.start as usize..node.end as usize);
        self.nodes.get(index).and_then(span).unwrap_or_default()
    }

    /// The members or items of a container, with their places on the tape.
    pub(super) fn children(self, container: usize) -> Children<'v> {
        let (at, end) =
            (container + 1, self.nodes.get(container).map_or(0, |node| container + node.nodes as usize));
        Children { nodes: self.nodes, at, end }
    }

    /// Those members of an object that R4 knows, without twins: their places on the tape, and which elements they hold.
    pub(super) fn members(self, object: usize) -> impl Iterator<Item = (usize, Word)> {
        let word = |node: &Node| node.key().filter(|key| !key.twin).map(|key| key.word);
        self.children(object).filter_map(move |(at, node)| Some((at, word(node)?)))
    }

    /// The member that holds this element; of a primitive the value, not its twin.
    pub(super) fn member(self, object: usize, word: Word) -> Option<usize> {
        self.children(object).find(|(_, node)| node.is(word)).map(|(at, _)| at)
    }

    /// What the member that holds this element says, as text.
    pub(super) fn says(self, object: usize, word: Word) -> Option<Cow<'v, str>> {
        self.text(self.member(object, word)?)
    }

    /// The value at this node, or its items if it is an array.
    pub(super) fn each(self, index: usize) -> impl Iterator<Item = usize> {
        let array = self.nodes.get(index).is_some_and(|node| node.shape == Shape::Array);
        let items = self.children(index).filter(move |_| array).map(|(at, _)| at);
        items.chain((!array).then_some(index))
    }
}

/// Iterator of [`View::children`].
#[derive(Clone, Debug)]
pub(super) struct Children<'t> {
    nodes: &'t [Node],
    at: usize,
    end: usize,
}

impl<'t> Iterator for Children<'t> {
    type Item = (usize, &'t Node);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let (index, node) = (self.at, self.nodes.get(self.at)?);
        self.at += node.nodes as usize;
        Some((index, node))
    }
}
