//! One walk over FHIR JSON: grammar, elements, records and facts.
//!
//! Owns: which element every value is, that known elements hold the JSON R4 prescribes, and where records begin.
//! Must never: look at a mask; faults and facts come from the full content, whoever asks.
//! Look next: `json`, the grammar; `meaning`, what data types say; `facts`, which reads single records; `emit`, which
//! writes them.
//!
//! Recursion is bounded by `limits::JSON_DEPTH_MAX`.

use super::facts::Sets;
use super::fault::FilterFault;
use super::json::{self, Cursor, offset};
use super::keys::{self, Form, Holds, Key, Keys, Known, Meaning, NOWHERE, Word};
use super::pattern::{Earlier, Found, Patterns, Setting};
use super::reference::Bases;
use super::tape::{self, Mark, Node, Shape, Tape, View};
use super::{Record, RootType, facts, text};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::r4::{self, ResourceType};
use crate::limits;

/// Who wrote what is taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Upstream,
    Client,
}

impl Sender {
    /// Bundles that carry answers, or requests. All others are records of their own, stored as they are.
    pub(super) fn carriers(self) -> &'static [&'static str] {
        match self {
            Self::Upstream => &["searchset", "history", "transaction-response", "batch-response"],
            Self::Client => &["batch", "transaction"],
        }
    }
}

/// Takes a whole text apart.
///
/// # Errors
/// The first thing that is not strict JSON, wherever it stands; else the first known element with the wrong kind of
/// value, or resource of no known type.
pub(super) fn whole(
    text: &str,
    bases: &Bases<'_>,
    sender: Sender,
    tape: &mut Tape,
) -> Result<RootType, FilterFault> {
    if text.len() > limits::DOCUMENT_BYTES_MAX {
        return Err(FilterFault::Size(limits::DOCUMENT_BYTES_MAX));
    }
    let keys = keys::keys().ok_or(FilterFault::Tables)?;
    let place = Place { record: None, nesting: 0 };
    let patterns = Patterns::new(text.len());
    let mut walk =
        Walk { cursor: Cursor::new(text), tape, keys, bases, sender, place, patterns, sets: Sets::default() };
    walk.cursor.space();
    let root = walk.root().and_then(|root| walk.cursor.end().map(|()| root));
    root.map_err(|fault| json::fault(text).unwrap_or(fault))
}

/// Where in a record the walk stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub record: Option<usize>,
    /// How many resources stand around this one.
    nesting: usize,
}

/// A walk under way.
pub(super) struct Walk<'w, 'c> {
    pub cursor: Cursor<'c>,
    pub tape: &'w mut Tape,
    pub keys: &'static Keys,
    pub bases: &'w Bases<'w>,
    sender: Sender,
    pub place: Place,
    patterns: Patterns,
    pub sets: Sets,
}

/// Which elements of an object were there.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    /// A bit for each element: its values, then their twins.
    elements: [u64; 4],
    /// Members that are of a choice.
    choices: u32,
    /// Node of the member that the form's meaning is about.
    pub told: usize,
}

impl Seen {
    /// The element was there before; from now on it was.
    #[inline(always)]
    fn is_again(&mut self, key: &Key) -> bool {
        let place = usize::from(key.bit >> 6) + 2 * usize::from(key.twin);
        let Some(word) = self.elements.get_mut(place & 3) else { return true };
        let bit = 1_u64 << (key.bit & 63);
        let again = *word & bit != 0;
        *word |= bit;
        again
    }

    /// One of the elements was there. None of them stands behind the 64th.
    pub(super) fn has(&self, elements: u64) -> bool {
        self.elements.first().is_some_and(|seen| seen & elements != 0)
    }
}

impl Walk<'_, '_> {
    fn root(&mut self) -> Result<RootType, FilterFault> {
        let start = self.cursor.at;
        let kind = self.resource_type()?;
        if kind.name() == "Bundle" && self.carries(start) {
            let form = self.keys.form_of(r4::root(kind)).ok_or(FilterFault::Tables)?;
            self.object(Member::NAMELESS, form, NOWHERE)?;
            return Ok(RootType::Bundle);
        }
        self.resource(Member::NAMELESS, false)?;
        Ok(RootType::Single(0))
    }

    /// The Bundle that begins at this offset carries answers or requests.
    fn carries(&self, start: usize) -> bool {
        let kind = json::look_up(self.cursor.text, start, "type").map(text::unescape);
        kind.is_some_and(|kind| self.sender.carriers().contains(&kind.as_ref()))
    }

    #[cold]
    #[inline(never)]
    fn wrong<T>(&self) -> Result<T, FilterFault> {
        Err(FilterFault::Type(self.cursor.at))
    }

    pub(super) fn view(&self) -> View<'_> {
        View { text: self.cursor.text, nodes: &self.tape.nodes }
    }

    // --- nodes ----------------------------------------------------------------------------------

    #[inline(always)]
    fn push(&mut self, member: Member, start: usize, shape: Shape) -> usize {
        let index = self.tape.nodes.len();
        self.tape.nodes.push(Node {
            start: offset(start),
            end: offset(self.cursor.at),
            lead: member.lead(start),
            nodes: 1,
            key: member.key,
            marks: member.marks,
            shape,
        });
        index
    }

    /// Closes a container: behind its bracket. Gives the marks that its parent must know.
    #[inline(always)]
    fn close(&mut self, index: usize, marks: u8) -> u8 {
        self.cursor.leave();
        let (end, nodes) = (offset(self.cursor.at), offset(self.tape.nodes.len() - index));
        match self.tape.nodes.get_mut(index) {
            Some(node) => {
                (node.end, node.nodes) = (end, nodes);
                node.marks |= marks;
                node.marks & Mark::RISING
            }
            None => Mark::LOOSE,
        }
    }

    // --- objects --------------------------------------------------------------------------------

    fn object(&mut self, member: Member, form: &Form, trail: u16) -> Result<u8, FilterFault> {
        if self.cursor.peek() != b'{' {
            return self.wrong();
        }
        let (start, open) = (self.cursor.at, self.cursor.names_open());
        let index = self.push(member, start, Shape::Object);
        self.cursor.enter()?;
        let mut seen = Seen::default();
        let mut marks = 0;
        if self.cursor.peek() == b'}' {
            marks = Mark::LOOSE;
        } else {
            loop {
                marks |= self.member(form, trail, &mut seen)?;
                if !self.cursor.more(b'}')? {
                    break;
                }
            }
        }
        let marks = self.close(index, marks);
        self.cursor.distinct(open, start)?;
        if seen.choices > 1 {
            self.one_of_each_choice(index)?;
        }
        if form.meaning == Meaning::None {
            return Ok(marks);
        }
        let more = self.meaning(form, index, seen, trail);
        if let Some(node) = self.tape.nodes.get_mut(index) {
            node.marks |= more;
        }
        Ok(marks | more)
    }

    #[inline(always)]
    fn member(&mut self, form: &Form, trail: u16, seen: &mut Seen) -> Result<u8, FilterFault> {
        let Some(&[opening, closing, next, end]) = self.cursor.quotes.four(self.cursor.bytes) else {
            return self.rough_member(form, trail, seen);
        };
        let (opening, closing, next, end) = (opening as usize, closing as usize, next as usize, end as usize);
        if opening != self.cursor.at || !self.cursor.is_plain_name(closing) {
            return self.rough_member(form, trail, seen);
        }
        let Some(key) = form.key(self.cursor.bytes, opening + 1, closing - opening - 1) else {
            return self.rough_member(form, trail, seen);
        };
        let start = closing + 2;
        self.cursor.at = start;
        self.known(key, seen)?;
        let member = Member { name: offset(opening), key: key.number, marks: key.marks };
        if key.is_text && next == start && self.cursor.is_plain_text(next, end) {
            self.cursor.quotes.took(4);
            self.cursor.at = end + 1;
            self.push(member, start, Shape::Text);
            return Ok(member.marks & Mark::RISING);
        }
        self.cursor.quotes.took(2);
        self.cursor.space();
        self.member_value(member, key, trail)
    }

    /// An element that must not be there twice.
    #[inline(always)]
    fn known(&mut self, key: &Key, seen: &mut Seen) -> Result<(), FilterFault> {
        if seen.is_again(key) {
            // Two types of one choice; or one key twice, which is then found as a fault of the JSON.
            return self.wrong();
        }
        seen.choices += u32::from(key.choice);
        if key.told {
            seen.told = self.tape.nodes.len();
        }
        Ok(())
    }

    #[inline(never)]
    fn rough_member(&mut self, form: &Form, trail: u16, seen: &mut Seen) -> Result<u8, FilterFault> {
        let (opening, closing) = self.cursor.name()?;
        let key = if self.cursor.escaped {
            self.escaped_key(form, opening, closing)
        } else {
            form.key(self.cursor.bytes, opening + 1, closing - opening - 1)
        };
        let Some(key) = key else { return self.unknown(form, opening, closing) };
        self.known(key, seen)?;
        self.member_value(Member { name: offset(opening), key: key.number, marks: key.marks }, key, trail)
    }

    #[inline(always)]
    fn member_value(&mut self, member: Member, key: &Key, trail: u16) -> Result<u8, FilterFault> {
        let trail = self.keys.follow(trail, key.bit);
        if key.many { self.array(member, key, trail) } else { self.value(member, key, trail) }
    }

    #[cold]
    #[inline(never)]
    fn escaped_key<'f>(&self, form: &'f Form, opening: usize, closing: usize) -> Option<&'f Key> {
        let name = text::unescape(self.cursor.text.get(opening + 1..closing)?);
        form.key(name.as_bytes(), 0, name.len())
    }

    /// `resourceType`, or what R4 does not know: left out of an answer, not taken from a client.
    #[inline(never)]
    fn unknown(&mut self, form: &Form, opening: usize, closing: usize) -> Result<u8, FilterFault> {
        let name = self.cursor.text.get(opening + 1..closing).map(text::unescape);
        self.cursor.remember(opening, closing);
        let anchor = form.resource && name.is_some_and(|name| name == "resourceType");
        if !anchor && self.sender == Sender::Client {
            return Err(FilterFault::Unknown(self.cursor.at));
        }
        let start = self.cursor.at;
        self.cursor.any()?;
        let marks = if anchor { Mark::ANCHOR } else { Mark::LOOSE };
        self.push(Member { name: offset(opening), key: keys::NONE, marks }, start, Shape::Unknown);
        Ok(marks & Mark::RISING)
    }

    #[inline(never)]
    fn array(&mut self, member: Member, key: &Key, trail: u16) -> Result<u8, FilterFault> {
        if self.cursor.peek() != b'[' {
            return self.wrong();
        }
        let index = self.push(member, self.cursor.at, Shape::Array);
        self.cursor.enter()?;
        let mut marks = 0;
        if self.cursor.peek() == b']' {
            marks = Mark::LOOSE;
        } else {
            loop {
                marks |= if self.cursor.peek() == b'n' && key.is_primitive() {
                    self.null()?
                } else {
                    self.value(Member::NAMELESS, key, trail)?
                };
                if !self.cursor.more(b']')? {
                    break;
                }
            }
        }
        Ok(self.close(index, marks))
    }

    /// An object, which is not read if it is built like an earlier one.
    #[inline(always)]
    fn object_again(
        &mut self,
        member: Member,
        key: &Key,
        trail: u16,
        read: impl FnOnce(&mut Self) -> Result<u8, FilterFault>,
    ) -> Result<u8, FilterFault> {
        let narrow = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let (depth, nesting) = (narrow(self.cursor.depth()), narrow(self.place.nesting));
        let setting = Setting { key: key.number, trail, depth, nesting };
        let start = self.cursor.at;
        let (quotes, before) = (self.cursor.quotes.taken(), self.tape.lens());
        if let Some(found) = self.patterns.find(setting, &mut self.cursor, self.tape, self.bases) {
            let marks = self.again(member, found, start)?;
            if found.is_met() {
                self.narrow(found, setting, start, before);
            }
            return Ok(marks);
        }
        let marks = read(self)?;
        let quotes = self.cursor.quotes.taken() - quotes;
        let [nodes, records, told] = self.tape.since(before);
        // Whether a client's record may stand in another one is asked each time.
        if self.sender == Sender::Upstream || records.0 == records.1 {
            let bytes = (offset(start), offset(self.cursor.at));
            let earlier = Earlier { setting, bytes, nodes, records, told };
            self.patterns.keep(earlier, quotes, self.cursor.text, self.tape, self.bases);
        }
        Ok(marks)
    }

    /// What comes again in objects of one build is remembered.
    #[cold]
    #[inline(never)]
    fn narrow(&mut self, found: Found, setting: Setting, start: usize, before: [u32; 3]) {
        let ([nodes, records, told], bytes) =
            (self.tape.since(before), (offset(start), offset(self.cursor.at)));
        let now = Earlier { setting, bytes, nodes, records, told };
        self.patterns.narrow(found, now, self.cursor.text, self.tape, self.bases);
    }

    /// What reading an object would have done that is built like an earlier one. The cursor is behind it.
    #[inline(never)]
    fn again(&mut self, member: Member, found: Found, start: usize) -> Result<u8, FilterFault> {
        let (node, record) = (self.tape.nodes.len(), self.tape.records.len());
        let earlier = self.patterns.copy(found, member.lead(start), self.tape).ok_or(FilterFault::Tables)?;
        let further = node - earlier.nodes.0 as usize;
        let (from, to) = (earlier.records.0 as usize, earlier.records.1 as usize);
        // What stands outside of the earlier object stands outside of this one.
        let (first, outer) = (from, self.place.record);
        let moved = move |at: usize| if at < first { outer } else { Some(at - first + record) };
        for at in from..to {
            let build = self.tape.build(at);
            let Some(known) = self.tape.records.get(at) else { continue };
            let facts = Facts::of_type(known.facts.resource_type);
            let (container, contained) = (known.container.and_then(moved), known.contained);
            let node = known.node + further;
            self.tape.records.push(Record { facts, container, contained, node, build });
            self.bounded(node)?;
        }
        for at in earlier.told.0..earlier.told.1 {
            let Some((known, told)) = self.tape.told.get(at as usize).copied() else { continue };
            self.tells(known.and_then(moved), told.further(offset(further)));
        }
        let view = View { text: self.cursor.text, nodes: &self.tape.nodes };
        for top in self.patterns.tops(found) {
            if let Some(record) = self.tape.records.get_mut(record + top.record as usize) {
                facts::say(view, node + top.node as usize, top.word, record, &mut self.sets);
            }
        }
        Ok(self.tape.nodes.get(node).map_or(Mark::LOOSE, |node| node.marks & Mark::RISING))
    }

    /// A record is not too long.
    fn bounded(&self, node: usize) -> Result<(), FilterFault> {
        let start = |node: &Node| node.start as usize;
        match self.tape.nodes.get(node) {
            Some(node) if node.end - node.start > offset(limits::RECORD_BYTES_MAX) => {
                Err(FilterFault::Size(start(node)))
            }
            _ => Ok(()),
        }
    }

    fn null(&mut self) -> Result<u8, FilterFault> {
        let start = self.cursor.at;
        self.cursor.literal("null")?;
        self.push(Member::NAMELESS, start, Shape::Null);
        Ok(Mark::LOOSE)
    }

    #[inline(always)]
    fn value(&mut self, member: Member, key: &Key, trail: u16) -> Result<u8, FilterFault> {
        let start = self.cursor.at;
        let shape = match key.holds {
            Holds::Text => {
                if self.cursor.peek() != b'"' {
                    return self.wrong();
                }
                self.cursor.string(limits::STRING_BYTES_MAX)?;
                if self.cursor.escaped { Shape::Escaped } else { Shape::Text }
            }
            Holds::Object(form) => {
                return self.object_again(member, key, trail, |walk| {
                    let form = walk.keys.form(form).ok_or(FilterFault::Tables)?;
                    walk.object(member, form, trail)
                });
            }
            Holds::Number => {
                if !matches!(self.cursor.peek(), b'-' | b'0'..=b'9') {
                    return self.wrong();
                }
                self.cursor.number()?;
                Shape::Number
            }
            Holds::Boolean => {
                let word = match self.cursor.peek() {
                    b't' => "true",
                    b'f' => "false",
                    _ => return self.wrong(),
                };
                self.cursor.literal(word)?;
                Shape::Boolean
            }
            Holds::Twin => return self.object(member, &self.keys.twin, NOWHERE),
            Holds::Resource => {
                let contained = key.word == Word::Contained;
                return self.object_again(member, key, trail, |walk| walk.resource(member, contained));
            }
        };
        self.push(member, start, shape);
        Ok(member.marks & Mark::RISING)
    }

    /// R4 allows one type of a choice at a time; two readers could prefer different ones.
    #[cold]
    fn one_of_each_choice(&self, index: usize) -> Result<(), FilterFault> {
        let mut seen: Vec<&Known> = Vec::new();
        for (_, node) in self.view().children(index) {
            let Some(key) = node.key().filter(|key| key.choice) else { continue };
            if seen.iter().any(|other| other.bit == key.bit && other.structure != key.structure) {
                return Err(FilterFault::Type(node.start as usize));
            }
            seen.push(key);
        }
        Ok(())
    }

    // --- records --------------------------------------------------------------------------------

    /// The type of the resource that begins here.
    fn resource_type(&self) -> Result<ResourceType, FilterFault> {
        let start = self.cursor.at;
        if self.cursor.peek() != b'{' {
            return self.wrong();
        }
        let known = self.first_member_type(start).or_else(|| {
            let name = text::unescape(json::look_up(self.cursor.text, start, "resourceType")?);
            self.keys.kind(name.as_bytes(), 0, name.len())
        });
        known.ok_or(FilterFault::ResourceType(start))
    }

    /// It nearly always stands first, without white space.
    fn first_member_type(&self, start: usize) -> Option<ResourceType> {
        const FIRST: &[u8] = b"{\"resourceType\":\"";
        let rest = self.cursor.bytes.get(start..)?.strip_prefix(FIRST)?;
        let len = rest.iter().take(64).position(|byte| !byte.is_ascii_alphabetic())?;
        if rest.get(len) != Some(&b'"') {
            return None;
        }
        self.keys.kind(self.cursor.bytes, start + FIRST.len(), len)
    }

    #[inline(never)]
    fn resource(&mut self, member: Member, contained: bool) -> Result<u8, FilterFault> {
        let (start, outer) = (self.cursor.at, self.place);
        let kind = self.resource_type()?;
        let nested = || outer.record.is_none() && kind.name() == "Bundle" && self.carries(start);
        if outer.nesting >= limits::RECORD_DEPTH_MAX || (self.sender == Sender::Client && nested()) {
            return Err(FilterFault::Nesting(start));
        }
        let record = self.tape.records.len();
        let (facts, node) = (Facts::of_type(kind), self.tape.nodes.len());
        self.tape.records.push(Record { facts, container: outer.record, contained, node, build: None });
        self.place = Place { record: Some(record), nesting: outer.nesting + 1 };
        let form = self.keys.form_of(r4::root(kind)).ok_or(FilterFault::Tables)?;
        self.object(member, form, self.keys.trail(kind))?;
        self.bounded(node)?;
        self.place = outer;
        let view = View { text: self.cursor.text, nodes: &self.tape.nodes };
        if let Some(record) = self.tape.records.get_mut(record) {
            facts::top(view, node, |at, word| facts::say(view, at, word, record, &mut self.sets));
        }
        Ok(Mark::LOOSE)
    }
}

/// A member, or an item, before its value.
#[derive(Clone, Copy)]
struct Member {
    name: u32,
    key: u16,
    marks: u8,
}

impl Member {
    const NAMELESS: Self = Self { name: tape::NAMELESS, key: keys::NONE, marks: 0 };

    /// From its name to its value, which begins there.
    #[inline(always)]
    fn lead(self, start: usize) -> u32 {
        if self.name == tape::NAMELESS { tape::NAMELESS } else { offset(start) - self.name }
    }
}
