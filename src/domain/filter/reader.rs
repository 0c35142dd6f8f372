//! A Bundle that comes in pieces, given on entry by entry.
//!
//! Owns: where the parts of a Bundle that carries an answer begin and end, and what is held while one is unfinished.
//! Must never: hold more than one unfinished part, or be less strict than [`super::parse`] on the whole.
//! Look next: `walk`, which each part is given to; `ndjson`, the same for files of lines.
//!
//! Law: the parts, and the fault behind them, are the same for every way of cutting the input.

use super::data_type::data_types;
use super::fault::FilterFault;
use super::json::{Ahead, Cursor, Scratch};
use super::keys::{self, Form, Keys, NOWHERE, Word};
use super::tape::{Tape, View};
use super::walk::{Member, Seen, Sender, Walk};
use super::{Bases, Bound, Document, Entry, Envelope, Held, RootType, facts, text};
use crate::domain::fhir::r4;
use crate::limits;

/// Takes a Bundle apart while it comes.
///
/// The caller says of which `Bundle.type` it must be. A Bundle of any other type, or of none, is a fault: when its type
/// is read, or at its end. So what stands in a document or a message is never taken for an entry of an answer, though a
/// part may have been given before the type is known.
pub struct Reader<'b> {
    bases: Bases<'b>,
    kind: &'b str,
    /// What came and was not given on.
    held: String,
    /// Bytes of a character that is not whole yet.
    broken: Vec<u8>,
    /// Where in `held` the next part begins.
    at: usize,
    /// Bytes from the start of the input to `held`.
    base: usize,
    input: Input,
    place: Place,
    /// Looks for the end of a part that was not whole when it was last tried.
    search: Option<Search>,
    seen: Seen,
    unknown: Vec<String>,
    /// The type and the kind were right.
    is_bundle: bool,
    is_kind: bool,
    scratch: Scratch,
    /// `scratch` knows the strings of `held` from `at` on.
    ready: bool,
    tape: Tape,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
    /// Nothing behind the fault is looked at.
    Faulty(FilterFault),
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    FirstMember,
    NextMember,
    BehindMember,
    FirstEntry,
    NextEntry,
    BehindEntry,
    End,
}

/// One part of a Bundle.
#[expect(clippy::large_enum_variant, reason = "lent for a moment, and nearly always an entry")]
pub enum Part<'r> {
    /// `Bundle.total`, if it is a plain number.
    Total(Option<u64>),
    /// `Bundle.link`: relation and URL.
    Links(Vec<(String, String)>),
    /// One of `Bundle.entry`, with its records; [`Entry::record`] is an index among them.
    Entry(Entry, Document<'r>),
}

/// What one part turned out to be, before it is lent out.
#[expect(clippy::large_enum_variant, reason = "handed on at once, and nearly always an entry")]
enum Told {
    Nothing,
    Total(Option<u64>),
    Links(Vec<(String, String)>),
    Entry(Entry),
}

impl<'b> Reader<'b> {
    /// At the start of a Bundle of this type.
    #[must_use]
    pub fn new(bases: Bases<'b>, kind: &'b str) -> Self {
        Self {
            bases,
            kind,
            held: String::new(),
            broken: Vec::new(),
            at: 0,
            base: 0,
            input: Input::Open,
            place: Place::Start,
            search: None,
            seen: Seen::default(),
            unknown: Vec::new(),
            is_bundle: false,
            is_kind: false,
            scratch: Scratch::default(),
            ready: false,
            tape: Tape::default(),
        }
    }

    /// Takes the next piece of the input. [`Reader::part`] then gives what is whole.
    pub fn push(&mut self, piece: &[u8]) {
        if self.input != Input::Open {
            return;
        }
        self.held.drain(..self.at);
        self.base += self.at;
        if let Some(search) = &mut self.search {
            search.at -= self.at;
        }
        (self.at, self.ready) = (0, false);
        let mut rest = piece;
        while let Some((&byte, behind)) = rest.split_first().filter(|_| !self.broken.is_empty()) {
            rest = behind;
            self.broken.push(byte);
            let joined = std::mem::take(&mut self.broken);
            self.take_in(&joined);
            if self.input != Input::Open {
                return;
            }
        }
        self.take_in(rest);
    }

    /// Nothing more will come.
    pub fn end(&mut self) {
        if self.input != Input::Open {
            return;
        }
        let at = self.base + self.held.len();
        self.input =
            if self.broken.is_empty() { Input::Ended } else { Input::Faulty(FilterFault::Encoding(at)) };
    }

    /// Appends what is whole characters.
    fn take_in(&mut self, bytes: &[u8]) {
        match simdutf8::compat::from_utf8(bytes) {
            Ok(text) => self.held.push_str(text),
            Err(error) => {
                let (valid, rest) = bytes.split_at_checked(error.valid_up_to()).unwrap_or_default();
                self.held.push_str(std::str::from_utf8(valid).unwrap_or_default());
                match error.error_len() {
                    None => self.broken = rest.to_vec(),
                    Some(_) => {
                        self.input = Input::Faulty(FilterFault::Encoding(self.base + self.held.len()));
                    }
                }
            }
        }
    }

    /// The next part that is whole; nothing if more must come first, or at the end (see [`Reader::is_done`]).
    ///
    /// # Errors
    /// [`FilterFault`] as from [`super::parse`]; `Bundle` if it is not the Bundle that was asked for; `Size` also for a
    /// part over `limits::PART_BYTES_MAX`. Nothing may be released from then on, and every call fails in the same way.
    pub fn part(&mut self) -> Result<Option<Part<'_>>, FilterFault> {
        let told = match self.advance() {
            Ok(told) => told,
            Err(fault) => {
                self.input = Input::Faulty(fault);
                self.search = None;
                (self.at, self.place) = (self.held.len(), Place::Start);
                return Err(fault);
            }
        };
        Ok(match told {
            None | Some(Told::Nothing) => None,
            Some(Told::Total(total)) => Some(Part::Total(total)),
            Some(Told::Links(links)) => Some(Part::Links(links)),
            Some(Told::Entry(entry)) => {
                let types = data_types().ok_or(FilterFault::Tables)?;
                let (tape, root) = (Held::Lent(&self.tape), RootType::Bundle);
                let bound = Bound { text: &self.held, tape, root, envelope: None, types };
                Some(Part::Entry(entry, Document { bound }))
            }
        })
    }

    /// The Bundle came whole, and nothing but white space behind it.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.place == Place::End && self.input == Input::Ended && self.at == self.held.len()
    }

    fn advance(&mut self) -> Result<Option<Told>, FilterFault> {
        loop {
            let rest = self.held.as_bytes().get(self.at..).unwrap_or_default();
            self.at += rest.iter().take_while(|byte| b" \n\r\t".contains(byte)).count();
            let Some(&byte) = self.held.as_bytes().get(self.at) else { return self.out_of_input() };
            let next = match (self.place, byte) {
                (Place::Start, b'{') => Place::FirstMember,
                (Place::BehindMember, b',') => Place::NextMember,
                (Place::FirstMember | Place::BehindMember, b'}') => self.close()?,
                (Place::BehindEntry, b',') => Place::NextEntry,
                (Place::FirstEntry | Place::BehindEntry, b']') => Place::BehindMember,
                (Place::FirstMember | Place::NextMember, b'"') => match self.member()? {
                    Some(Told::Nothing) => continue,
                    told => return Ok(told),
                },
                (Place::FirstEntry | Place::NextEntry, _) => return self.entry(),
                (Place::End, _) => return Err(FilterFault::Trailing(self.base + self.at)),
                (Place::Start, 0xef) if self.is_marked() => return Err(FilterFault::ByteOrderMark),
                _ => return Err(FilterFault::Grammar(self.base + self.at)),
            };
            self.place = next;
            self.at += 1;
        }
    }

    fn is_marked(&self) -> bool {
        self.base == 0 && self.held.starts_with('\u{feff}')
    }

    fn out_of_input(&self) -> Result<Option<Told>, FilterFault> {
        match self.input {
            Input::Faulty(fault) => Err(fault),
            Input::Ended if self.place != Place::End => Err(FilterFault::Grammar(self.base + self.at)),
            Input::Open | Input::Ended => Ok(None),
        }
    }

    fn close(&self) -> Result<Place, FilterFault> {
        let asked_for = self.is_bundle && self.is_kind;
        if asked_for { Ok(Place::End) } else { Err(FilterFault::Bundle(self.base + self.at)) }
    }

    fn keys() -> Result<(&'static Keys, &'static Form, &'static Form), FilterFault> {
        let form = |name| r4::structure(name).and_then(keys::form);
        let all = keys::keys().zip(form("Bundle")).zip(form("Bundle.entry"));
        all.map(|((keys, bundle), entry)| (keys, bundle, entry)).ok_or(FilterFault::Tables)
    }

    // --- parts ----------------------------------------------------------------------------------

    /// A member of the Bundle, or the start of its entries.
    fn member(&mut self) -> Result<Option<Told>, FilterFault> {
        let mut ahead = Ahead::new(self.held.as_bytes(), self.at);
        let entries = ahead
            .name()
            .is_some_and(|name| self.held.get(name).is_some_and(|name| text::unescape(name) == "entry"));
        if entries && ahead.is_at(b'[') {
            return self.open_entries(ahead.at);
        }
        let Some(told) = self.walked(Self::walk_member)? else { return Ok(None) };
        self.place = Place::BehindMember;
        Ok(Some(told))
    }

    /// Checks the name, which was only looked at so far.
    fn open_entries(&mut self, bracket: usize) -> Result<Option<Told>, FilterFault> {
        let (_, bundle, _) = Self::keys()?;
        let mut cursor = self.cursor();
        let named = cursor.name();
        let at = cursor.at;
        self.scratch = cursor.into_scratch();
        named.map_err(|fault| fault.behind(self.base))?;
        if at != bracket {
            return Err(FilterFault::Grammar(self.base + at));
        }
        if bundle.key(b"entry", 0, 5).is_none_or(|entry| self.seen.is_again(entry)) {
            return Err(FilterFault::Duplicate(0));
        }
        (self.at, self.place, self.ready) = (at + 1, Place::FirstEntry, true);
        self.search = None;
        Ok(Some(Told::Nothing))
    }

    fn entry(&mut self) -> Result<Option<Told>, FilterFault> {
        let told = self.walked(Self::walk_entry)?;
        if told.is_some() {
            self.place = Place::BehindEntry;
        }
        Ok(told)
    }

    fn cursor(&mut self) -> Cursor<'_> {
        let scratch = std::mem::take(&mut self.scratch);
        let mut cursor = Cursor::new(&self.held, self.at, scratch, self.ready);
        cursor.depth = if matches!(self.place, Place::FirstEntry | Place::NextEntry) { 2 } else { 1 };
        cursor.depth_around = cursor.depth;
        cursor
    }

    /// Tries to walk over a part; nothing if it is not whole. It is tried when it begins, and again when its end is
    /// there, so that a part is walked over twice at most.
    fn walked(
        &mut self,
        walk: impl Fn(&mut Self) -> Result<Told, FilterFault>,
    ) -> Result<Option<Told>, FilterFault> {
        if self.search.is_none() {
            let before = (self.seen, self.unknown.len(), self.is_bundle, self.is_kind);
            let at = self.at;
            match walk(self) {
                Ok(told) if self.ends_here() && self.at - at <= limits::PART_BYTES_MAX => {
                    return Ok(Some(told));
                }
                _ => {}
            }
            (self.seen, self.is_bundle, self.is_kind) = (before.0, before.2, before.3);
            self.unknown.truncate(before.1);
            (self.at, self.ready) = (at, false);
            self.search = Some(Search::new(at));
        }
        let whole = self.search.as_mut().is_none_or(|search| search.finds_end(self.held.as_bytes()));
        let found = self.search.as_ref().map_or(self.at, |search| search.at);
        if found - self.at > limits::PART_BYTES_MAX {
            return Err(FilterFault::Size(self.base + self.at));
        }
        if !whole && self.input == Input::Open {
            return Ok(None);
        }
        self.search = None;
        let told = walk(self);
        match self.input {
            // The part was cut off by it.
            Input::Faulty(fault) if !whole => Err(fault),
            Input::Open | Input::Ended | Input::Faulty(_) => told.map(Some),
        }
    }

    /// What was walked over does not go on with what is to come, as a number may.
    fn ends_here(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.held.as_bytes().get(at));
        self.at < self.held.len() || !before.is_some_and(u8::is_ascii_digit)
    }

    fn walk_member(&mut self) -> Result<Told, FilterFault> {
        let (keys, bundle, _) = Self::keys()?;
        self.tape.clear();
        let (bases, base, start) = (self.bases, self.base, self.at);
        let mut tape = std::mem::take(&mut self.tape);
        let mut seen = self.seen;
        let mut walk = Walk::new(self.cursor(), keys, &bases, Sender::Upstream, &mut tape);
        let done = walk
            .bundle_member(bundle, &mut seen)
            .map_err(|fault| walk.cursor.fault_at(start).unwrap_or(fault));
        let (at, name) = (walk.cursor.at, walk.name_at(start));
        let scratch = walk.cursor.into_scratch();
        (self.scratch, self.tape) = (scratch, tape);
        if done.is_err() && name.as_deref().is_some_and(|name| self.knows(bundle, name)) {
            return Err(FilterFault::Duplicate(0));
        }
        done.map_err(|fault| fault.behind(base))?;
        (self.seen, self.at, self.ready) = (seen, at, true);
        self.told_by_member(name)
    }

    /// A member of that name came before.
    fn knows(&self, bundle: &Form, name: &str) -> bool {
        let key = bundle.key(name.as_bytes(), 0, name.len());
        let mut seen = self.seen;
        key.is_some_and(|key| seen.is_again(key))
    }

    fn told_by_member(&mut self, name: Option<String>) -> Result<Told, FilterFault> {
        let view = View { text: &self.held, nodes: &self.tape.nodes };
        let place = self.base + self.at;
        let Some(key) = self.tape.nodes.first().and_then(|node| node.key()) else {
            let name = name.unwrap_or_default();
            if name == "resourceType" {
                let bundle = std::str::from_utf8(view.raw(0)).is_ok_and(|raw| {
                    raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')).map(text::unescape).as_deref()
                        == Some("Bundle")
                });
                self.is_bundle = bundle;
                if !bundle {
                    return Err(FilterFault::ResourceType(place));
                }
            }
            if self.unknown.contains(&name) {
                return Err(FilterFault::Duplicate(0));
            }
            if self.unknown.len() >= limits::BUNDLE_UNKNOWN_MEMBERS_MAX {
                return Err(FilterFault::Size(place));
            }
            self.unknown.push(name);
            return Ok(Told::Nothing);
        };
        if key.twin {
            return Ok(Told::Nothing);
        }
        let mut envelope = Envelope::default();
        facts::tell(view, &[], 0, key.word, &mut envelope);
        match key.word {
            Word::Type if envelope.kind != self.kind => Err(FilterFault::Bundle(place)),
            Word::Type => {
                self.is_kind = true;
                Ok(Told::Nothing)
            }
            Word::Total => Ok(Told::Total(envelope.total)),
            Word::Link => Ok(Told::Links(envelope.links)),
            _ => Ok(Told::Nothing),
        }
    }

    fn walk_entry(&mut self) -> Result<Told, FilterFault> {
        let (keys, _, entry) = Self::keys()?;
        let (bases, base, start) = (self.bases, self.base, self.at);
        let mut tape = std::mem::take(&mut self.tape);
        tape.clear();
        let mut walk = Walk::new(self.cursor(), keys, &bases, Sender::Upstream, &mut tape);
        let done = walk.object(Member::NAMELESS, entry, NOWHERE);
        let done = done.map_err(|fault| walk.cursor.fault_at(start).unwrap_or(fault));
        let at = walk.cursor.at;
        let scratch = walk.cursor.into_scratch();
        (self.scratch, self.tape) = (scratch, tape);
        done.map_err(|fault| fault.behind(base))?;
        (self.at, self.ready) = (at, true);
        facts::settle(&mut self.tape.records);
        let view = View { text: &self.held, nodes: &self.tape.nodes };
        Ok(Told::Entry(facts::entry(view, &self.tape.records, 0)))
    }
}

impl std::fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Total(_) => "Total",
            Self::Links(_) => "Links",
            Self::Entry(..) => "Entry",
        })
    }
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("read", &(self.base + self.at)).finish_non_exhaustive()
    }
}

/// Looks for the end of a part, byte by byte, from where it last stopped: brackets balance outside of strings.
struct Search {
    at: usize,
    depth: usize,
    inside: bool,
    escaped: bool,
}

impl Search {
    fn new(at: usize) -> Self {
        Self { at, depth: 0, inside: false, escaped: false }
    }

    /// Whether the end is there; `at` is then behind it.
    fn finds_end(&mut self, bytes: &[u8]) -> bool {
        while let Some(&byte) = bytes.get(self.at) {
            if self.inside {
                self.at += 1;
                self.inside = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                continue;
            }
            match byte {
                // What closes the Bundle or its entries, or divides them, is not part of this part.
                b'}' | b']' | b',' if self.depth == 0 => return true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth == 1 => {
                    self.at += 1;
                    return true;
                }
                b'}' | b']' => self.depth -= 1,
                b'"' => self.inside = true,
                _ => {}
            }
            self.at += 1;
        }
        false
    }
}
