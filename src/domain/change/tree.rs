//! A JSON tree that keeps its text.
//!
//! Owns: reading and printing without rewriting a number, a string or a name (T-124 to T-126), and when two
//! values are the same.
//! Must never: be laxer than RFC 8259, or show a value in `Debug`.
//! Look next: `merge`, which builds new trees out of old ones; `filter`, which read the same bytes before.

use std::borrow::Cow;
use std::fmt;

use super::ChangeRefusal;
use crate::domain::fhir::r4::ResourceType;
use crate::limits;

/// One JSON object, a record. Members keep their order; names, numbers and strings keep their text.
/// Two trees are equal if they hold the same members, in any order of names: strings by what they say,
/// numbers by their text.
#[derive(Clone, PartialEq, Eq)]
pub struct Tree {
    pub(super) root: Node,
}

/// One JSON value.
#[derive(Clone)]
pub(super) enum Node {
    Object(Vec<Member>),
    Array(Vec<Node>),
    /// A string with its quotes, a number, `true`, `false` or `null`, as written.
    Scalar(Box<str>),
}

/// One member of an object.
#[derive(Clone)]
pub(super) struct Member {
    /// The name as written, between its quotes.
    raw: Box<str>,
    /// What it says, if it is written with escapes.
    plain: Option<Box<str>>,
    pub value: Node,
}

/// Nothing, as an object.
pub(super) const EMPTY: &[Member] = &[];

impl Tree {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// [`ChangeRefusal::Malformed`] if it is anything else, [`ChangeRefusal::TooLarge`] beyond the bounds
    /// `RECORD_BYTES_MAX`, `STRING_BYTES_MAX`, `KEY_BYTES_MAX`, `NUMBER_BYTES_MAX` and `JSON_DEPTH_MAX`.
    pub fn parse(body: &[u8]) -> Result<Self, ChangeRefusal> {
        match Node::parse(body)? {
            root @ Node::Object(_) => Ok(Self { root }),
            Node::Array(_) | Node::Scalar(_) => Err(ChangeRefusal::Malformed),
        }
    }

    /// The same text, without white space between tokens.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.root.write(&mut out);
        out
    }

    /// What `resourceType` says, if R4 knows it.
    #[must_use]
    pub fn resource_type(&self) -> Option<ResourceType> {
        self.root.resource_type()
    }

    /// What `id` says.
    #[must_use]
    pub fn id(&self) -> Option<Cow<'_, str>> {
        self.root.says("id")
    }

    /// With the members of `below` that it lacks, but for those named and their underscore twins.
    pub(super) fn completed(mut self, below: &Self, named: &[&str]) -> Self {
        if let Node::Object(members) = &mut self.root {
            let has = |name: &str| members.iter().any(|member| member.name() == name);
            let stays = |name: &str| named.contains(&name.strip_prefix('_').unwrap_or(name));
            let lacking = |member: &&Member| !has(member.name()) && !stays(member.name());
            let mut more: Vec<Member> = below.root.members().iter().filter(lacking).cloned().collect();
            members.append(&mut more);
        }
        self
    }

    /// The same record under this logical id, for an update that creates.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        if let Node::Object(members) = &mut self.root {
            members.retain(|member| member.name() != "id");
            let place = members.iter().position(|member| member.name() == "resourceType");
            members.insert(place.map_or(0, |at| at + 1), Member::new("id", Node::text(id)));
        }
        self
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("members", &self.root.members().len()).finish_non_exhaustive()
    }
}

impl Member {
    pub(super) fn new(name: &str, value: Node) -> Self {
        let quoted = quote(name);
        let raw = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default();
        let plain = (raw != name).then(|| name.into());
        Self { raw: raw.into(), plain, value }
    }

    /// The same name for another value.
    pub(super) fn with(&self, value: Node) -> Self {
        Self { raw: self.raw.clone(), plain: self.plain.clone(), value }
    }

    pub(super) fn name(&self) -> &str {
        self.plain.as_deref().unwrap_or(&self.raw)
    }
}

impl Node {
    /// Reads one JSON text of any kind.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ChangeRefusal> {
        if body.len() > limits::RECORD_BYTES_MAX {
            return Err(ChangeRefusal::TooLarge);
        }
        let text = std::str::from_utf8(body).map_err(|_| ChangeRefusal::Malformed)?;
        let mut reader = Reader { text, at: 0 };
        let node = reader.value(0)?;
        reader.space();
        if reader.at == text.len() { Ok(node) } else { Err(ChangeRefusal::Malformed) }
    }

    pub(super) fn text(plain: &str) -> Self {
        Self::Scalar(quote(plain).into())
    }

    pub(super) fn null() -> Self {
        Self::Scalar("null".into())
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(text) if &**text == "null")
    }

    /// Holds nothing: `{}` or `[]`.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Object(members) => members.is_empty(),
            Self::Array(items) => items.is_empty(),
            Self::Scalar(_) => false,
        }
    }

    /// The members of an object; none of anything else.
    pub(super) fn members(&self) -> &[Member] {
        if let Self::Object(members) = self { members } else { EMPTY }
    }

    /// The items of an array; of anything else the value itself.
    pub(super) fn items(&self) -> &[Self] {
        if let Self::Array(items) = self { items } else { std::slice::from_ref(self) }
    }

    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        self.members().iter().find(|member| member.name() == name).map(|member| &member.value)
    }

    /// What a string says.
    pub(super) fn as_text(&self) -> Option<Cow<'_, str>> {
        let Self::Scalar(text) = self else { return None };
        let inner = text.strip_prefix('"')?.strip_suffix('"')?;
        if !inner.contains('\\') {
            return Some(Cow::Borrowed(inner));
        }
        serde_json::from_str(text).ok().map(Cow::Owned)
    }

    /// What the member of that name says.
    pub(super) fn says(&self, name: &str) -> Option<Cow<'_, str>> {
        self.member(name)?.as_text()
    }

    pub(super) fn resource_type(&self) -> Option<ResourceType> {
        ResourceType::from_name(&self.says("resourceType")?)
    }

    /// Levels of objects and arrays, itself included.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Object(members) => 1 + members.iter().map(|one| one.value.depth()).max().unwrap_or(0),
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Scalar(_) => 0,
        }
    }

    /// Bytes when printed.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Object(members) => {
                let members = members.iter().map(|one| one.raw.len() + 3 + one.value.size() + 1);
                members.sum::<usize>().max(1) + 1
            }
            Self::Array(items) => items.iter().map(|one| one.size() + 1).sum::<usize>().max(1) + 1,
            Self::Scalar(text) => text.len(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Scalar(text) => out.extend_from_slice(text.as_bytes()),
            Self::Array(items) => {
                out.push(b'[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (place, member) in members.iter().enumerate() {
                    out.extend_from_slice(if place > 0 { b",\"" } else { b"\"" });
                    out.extend_from_slice(member.raw.as_bytes());
                    out.extend_from_slice(b"\":");
                    member.value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(one), Self::Object(_)) => {
                one.len() == other.members().len()
                    && one.iter().all(|member| other.member(member.name()) == Some(&member.value))
            }
            (Self::Array(one), Self::Array(two)) => one == two,
            (Self::Scalar(one), Self::Scalar(two)) => one == two || self.says_what(other),
            (Self::Object(_) | Self::Array(_) | Self::Scalar(_), _) => false,
        }
    }
}

impl Eq for Node {}

impl Node {
    fn says_what(&self, other: &Self) -> bool {
        let (one, two) = (self.as_text(), other.as_text());
        one.is_some() && one == two
    }
}

/// A JSON string that says this.
fn quote(plain: &str) -> String {
    serde_json::Value::from(plain).to_string()
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Takes this byte if it comes next, behind white space.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Result<(), ChangeRefusal> {
        if self.take(byte) { Ok(()) } else { Err(ChangeRefusal::Malformed) }
    }

    /// Recursion is bounded by `JSON_DEPTH_MAX`.
    fn value(&mut self, depth: usize) -> Result<Node, ChangeRefusal> {
        self.space();
        match self.peek() {
            Some(b'{' | b'[') if depth >= limits::JSON_DEPTH_MAX => Err(ChangeRefusal::TooLarge),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => Ok(Node::Scalar(self.string(limits::STRING_BYTES_MAX)?.into())),
            Some(b'-' | b'0'..=b'9') => Ok(Node::Scalar(self.number()?.into())),
            _ => ["true", "false", "null"]
                .into_iter()
                .find(|word| self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)))
                .map(|word| {
                    self.at += word.len();
                    Node::Scalar(word.into())
                })
                .ok_or(ChangeRefusal::Malformed),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node, ChangeRefusal> {
        self.expect(b'[')?;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Node::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            if self.take(b']') {
                return Ok(Node::Array(items));
            }
            self.expect(b',')?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node, ChangeRefusal> {
        self.expect(b'{')?;
        let mut members = Vec::new();
        if self.take(b'}') {
            return Ok(Node::Object(members));
        }
        loop {
            members.push(self.member(depth)?);
            if self.take(b'}') {
                break;
            }
            self.expect(b',')?;
        }
        let mut names: Vec<&str> = members.iter().map(Member::name).collect();
        names.sort_unstable();
        let twice = names.windows(2).any(|pair| matches!(pair, [one, two] if one == two));
        if twice { Err(ChangeRefusal::Malformed) } else { Ok(Node::Object(members)) }
    }

    fn member(&mut self, depth: usize) -> Result<Member, ChangeRefusal> {
        self.space();
        let quoted = self.string(limits::KEY_BYTES_MAX)?;
        let raw = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default();
        let plain = if raw.contains('\\') { Some(unquote(quoted)?.into()) } else { None };
        self.expect(b':')?;
        Ok(Member { raw: raw.into(), plain, value: self.value(depth)? })
    }

    /// A string with its quotes.
    fn string(&mut self, bytes_max: usize) -> Result<&'t str, ChangeRefusal> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(ChangeRefusal::Malformed);
        }
        let mut escaped = false;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                None | Some(0..=0x1f) => return Err(ChangeRefusal::Malformed),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let quoted = self.text.get(start..self.at).ok_or(ChangeRefusal::Malformed)?;
        if quoted.len() > bytes_max + 2 {
            return Err(ChangeRefusal::TooLarge);
        }
        if escaped {
            unquote(quoted)?;
        }
        Ok(quoted)
    }

    /// RFC 8259 section 6: no leading zero, no bare point, no plus sign.
    fn number(&mut self) -> Result<&'t str, ChangeRefusal> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let first = self.peek();
        let digits = self.digits()?;
        if first == Some(b'0') && digits > 1 {
            return Err(ChangeRefusal::Malformed);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        if self.at - start > limits::NUMBER_BYTES_MAX {
            return Err(ChangeRefusal::TooLarge);
        }
        self.text.get(start..self.at).ok_or(ChangeRefusal::Malformed)
    }

    /// At least one digit; how many there were.
    fn digits(&mut self) -> Result<usize, ChangeRefusal> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(ChangeRefusal::Malformed) } else { Ok(self.at - start) }
    }
}

/// What a quoted string says; refuses bad escapes and half surrogates.
fn unquote(quoted: &str) -> Result<String, ChangeRefusal> {
    serde_json::from_str(quoted).map_err(|_| ChangeRefusal::Malformed)
}
