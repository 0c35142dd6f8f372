//! Strict JSON scanner: bytes to a flat tape of spans.
//!
//! Owns: the grammar of RFC 8259, its bounds, and the rule that no object names a member twice.
//! Must never: recurse, allocate per value, or let anything pass that another parser might read
//! differently (duplicate names after unescaping, lone surrogates, trailing data).
//! Look next: `bind`, which gives the tape its FHIR meaning.

use super::fault::FilterFault;
use super::text;
use crate::domain::fhir::r4::{Element, Structure};
use crate::limits;

/// What kind of JSON value a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Array,
    Text,
    Number,
    Boolean,
    Null,
}

/// One JSON value on the tape; a container is followed by what it contains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// First byte of the value.
    pub start: u32,
    /// Byte behind the value.
    pub end: u32,
    /// First byte of the member's name, behind its opening quote; 0 for items and the root.
    pub key: u32,
    /// Bytes of the name as written, between the quotes.
    pub key_len: u16,
    /// The name is written with escapes.
    pub key_escaped: bool,
    pub shape: Shape,
    /// Index of the first node that is not inside this one.
    pub after: u32,
    /// Set by `bind`: the element this member holds; none for what R4 does not know.
    pub element: Option<&'static Element>,
    /// Set by `bind`: the type of the value.
    pub structure: Option<Structure>,
    /// Set by `bind`: marks of `bind::Mark`.
    pub marks: u8,
}

/// Scans one whole JSON text.
///
/// # Errors
/// The first thing that is not strict JSON within the bounds of `limits`.
pub(super) fn scan(body: &str) -> Result<Vec<Node>, FilterFault> {
    if body.len() > limits::DOCUMENT_BYTES_MAX {
        return Err(FilterFault::Size(limits::DOCUMENT_BYTES_MAX));
    }
    let mut scanner = Scanner { body, bytes: body.as_bytes(), at: 0, nodes: Vec::new(), open: Vec::new() };
    scanner.nodes.reserve(body.len() / 16);
    scanner.document()?;
    Ok(scanner.nodes)
}

/// A byte offset on the tape. INVARIANT: `limits::DOCUMENT_BYTES_MAX` fits 32 bits, so this never saturates.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

struct Name {
    start: u32,
    len: u16,
    escaped: bool,
}

const NAMELESS: Name = Name { start: 0, len: 0, escaped: false };

struct Scanner<'a> {
    body: &'a str,
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    /// Containers not yet closed, outermost first.
    open: Vec<usize>,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), FilterFault> {
        self.space();
        self.value(NAMELESS)?;
        while let Some(&container) = self.open.last() {
            self.next_in(container)?;
        }
        self.space();
        if self.at < self.bytes.len() { Err(FilterFault::Trailing(self.at)) } else { Ok(()) }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn bad<T>(&self) -> Result<T, FilterFault> {
        Err(FilterFault::Grammar(self.at))
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), FilterFault> {
        if self.peek() != Some(byte) {
            return self.bad();
        }
        self.at += 1;
        Ok(())
    }

    /// One step inside an open container: its end, or its next item or member.
    fn next_in(&mut self, container: usize) -> Result<(), FilterFault> {
        self.space();
        let object = self.nodes.get(container).is_some_and(|node| node.shape == Shape::Object);
        if self.peek() == Some(if object { b'}' } else { b']' }) {
            return self.close(container, object);
        }
        if self.nodes.len() > container + 1 {
            self.expect(b',')?;
            self.space();
        }
        if object { self.member() } else { self.value(NAMELESS) }
    }

    fn member(&mut self) -> Result<(), FilterFault> {
        if self.peek() != Some(b'"') {
            return self.bad();
        }
        let (start, escaped) = (self.at + 1, self.string(limits::KEY_BYTES_MAX)?);
        let len = u16::try_from(self.at - 1 - start).map_err(|_| FilterFault::Size(start))?;
        self.space();
        self.expect(b':')?;
        self.space();
        self.value(Name { start: offset(start), len, escaped })
    }

    fn close(&mut self, container: usize, object: bool) -> Result<(), FilterFault> {
        self.at += 1;
        self.open.pop();
        let (end, after) = (offset(self.at), offset(self.nodes.len()));
        if let Some(node) = self.nodes.get_mut(container) {
            node.end = end;
            node.after = after;
        }
        if object { self.distinct(container) } else { Ok(()) }
    }

    fn value(&mut self, name: Name) -> Result<(), FilterFault> {
        let start = self.at;
        let shape = match self.peek() {
            Some(b'{') => self.enter(Shape::Object)?,
            Some(b'[') => self.enter(Shape::Array)?,
            Some(b'"') => {
                self.string(limits::STRING_BYTES_MAX)?;
                Shape::Text
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.literal("true", Shape::Boolean)?,
            Some(b'f') => self.literal("false", Shape::Boolean)?,
            Some(b'n') => self.literal("null", Shape::Null)?,
            _ => return self.bad(),
        };
        self.nodes.push(Node {
            start: offset(start),
            end: offset(self.at),
            key: name.start,
            key_len: name.len,
            key_escaped: name.escaped,
            shape,
            after: offset(self.nodes.len() + 1),
            element: None,
            structure: None,
            marks: 0,
        });
        Ok(())
    }

    /// Opens a container whose node is pushed next.
    fn enter(&mut self, shape: Shape) -> Result<Shape, FilterFault> {
        if self.open.len() >= limits::JSON_DEPTH_MAX {
            return Err(FilterFault::Depth(self.at));
        }
        self.open.push(self.nodes.len());
        self.at += 1;
        Ok(shape)
    }

    fn literal(&mut self, word: &str, shape: Shape) -> Result<Shape, FilterFault> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return self.bad();
        }
        self.at += word.len();
        Ok(shape)
    }

    /// RFC 8259 section 6: no leading zero, no bare point, no plus sign.
    fn number(&mut self) -> Result<Shape, FilterFault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if self.at - start > limits::NUMBER_BYTES_MAX {
            return Err(FilterFault::Size(start));
        }
        Ok(Shape::Number)
    }

    fn digits(&mut self) -> Result<(), FilterFault> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.bad() } else { Ok(()) }
    }

    /// From the opening quote past the closing one. True if there are escapes inside.
    fn string(&mut self, bytes_max: usize) -> Result<bool, FilterFault> {
        let start = self.at + 1;
        let mut escaped = false;
        self.at = start;
        loop {
            self.at += text::plain_run(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.bad(),
            }
        }
        if self.at - start > bytes_max {
            return Err(FilterFault::Size(start));
        }
        self.at += 1;
        Ok(escaped)
    }

    fn escape(&mut self) -> Result<(), FilterFault> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                let Some(unit) = text::code_unit(rest) else { return self.bad() };
                self.at += if text::is_leading_surrogate(unit) {
                    self.trailing_surrogate()?
                } else if text::is_trailing_surrogate(unit) {
                    return Err(FilterFault::Surrogate(self.at));
                } else {
                    6
                };
            }
            _ => return self.bad(),
        }
        Ok(())
    }

    /// Length of a surrogate pair that begins here.
    fn trailing_surrogate(&self) -> Result<usize, FilterFault> {
        let rest = self.bytes.get(self.at + 6..).unwrap_or_default();
        match text::code_unit(rest) {
            Some(unit) if text::is_trailing_surrogate(unit) => Ok(12),
            _ => Err(FilterFault::Surrogate(self.at)),
        }
    }

    /// No name twice (T-117), compared after unescaping (T-118).
    fn distinct(&self, container: usize) -> Result<(), FilterFault> {
        /// Up to here comparing each with each is quicker than sorting.
        const FEW: usize = 12;
        let twice = match children(&self.nodes, container).nth(FEW) {
            None => self.any_pair_equal(container),
            Some(_) => self.any_equal_sorted(container),
        };
        let at = self.nodes.get(container).map_or(0, |node| node.start as usize);
        if twice { Err(FilterFault::Duplicate(at)) } else { Ok(()) }
    }

    fn any_pair_equal(&self, container: usize) -> bool {
        let mut members = children(&self.nodes, container);
        while let Some((_, one)) = members.next() {
            if members.clone().any(|(_, other)| self.same_name(one, other)) {
                return true;
            }
        }
        false
    }

    fn same_name(&self, one: &Node, other: &Node) -> bool {
        if !one.key_escaped && !other.key_escaped {
            return one.key_len == other.key_len && raw_name(self.body, one) == raw_name(self.body, other);
        }
        text::unescape(raw_name(self.body, one)) == text::unescape(raw_name(self.body, other))
    }

    fn any_equal_sorted(&self, container: usize) -> bool {
        let mut names: Vec<_> = children(&self.nodes, container)
            .map(|(_, node)| text::unescape(raw_name(self.body, node)))
            .collect();
        names.sort_unstable();
        names.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
    }
}

/// The member's name as written, between its quotes.
pub(super) fn raw_name<'a>(body: &'a str, node: &Node) -> &'a str {
    let start = node.key as usize;
    body.get(start..start + usize::from(node.key_len)).unwrap_or_default()
}

/// The members or items of a container, with their places on the tape.
pub(super) fn children(nodes: &[Node], container: usize) -> Children<'_> {
    let end = nodes.get(container).map_or(0, |node| node.after as usize);
    Children { nodes, at: container + 1, end }
}

/// Iterator of [`children`].
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
        self.at = node.after as usize;
        Some((index, node))
    }
}
