//! Element paths: the names by which policies, masks and search parameters speak of elements.
//!
//! Owns: which spellings exist, and that one element has one spelling. Must never: accept a path the
//! tables do not know. Look next: `domain::access`, which reads them from policies.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::{Element, Kind, ResourceType, Structure, elements, kind, property, root, type_name};
use crate::limits::{ELEMENT_PATH_BYTES_MAX, ELEMENT_PATH_SEGMENTS_MAX};

const EXTENSION_CALL: &str = ".extension('";
const EXTENSION_END: &str = "')";

/// An element of a resource type by its canonical path: `Patient`, `Patient.name.family`,
/// `Observation.value` (a choice, without `[x]`), `Patient.birthDate.extension('http://…')`.
///
/// Content references have no spelling of their own: `Questionnaire.item.linkId` speaks of every depth.
#[derive(Clone)]
pub struct ElementPath {
    text: Box<str>,
    resource: ResourceType,
    element: Option<&'static Element>,
    /// Where `.extension('` begins, when the path ends with it.
    extension: Option<usize>,
}

/// Why a text is no element path. Holds only what the policy author wrote, within the length bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathError {
    /// Longer, or deeper, than any path may be.
    TooLong,
    /// It holds a control character.
    ControlCharacter,
    /// The first segment is no R4 resource type.
    UnknownType {
        /// What was written.
        given: String,
        /// The nearest name there is.
        nearest: Option<&'static str>,
    },
    /// No such element there.
    UnknownElement {
        /// The path up to it.
        parent: String,
        /// What was written.
        given: String,
        /// The nearest name there is.
        nearest: Option<&'static str>,
    },
    /// The element exists, and is written otherwise.
    Elsewhere {
        /// What was written, up to the element.
        given: String,
        /// Its canonical path.
        canonical: String,
    },
    /// It goes on below an extension or a whole record, which are decided as one.
    Below {
        /// The path of that extension or record.
        parent: String,
    },
    /// `extension('…')` without a URL, or with one that holds spaces or quotes.
    ExtensionUrl,
}

impl ElementPath {
    /// Reads a canonical path.
    ///
    /// # Errors
    /// [`PathError`] says what is wrong, with the nearest or the canonical name.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > ELEMENT_PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if text.contains(char::is_control) {
            return Err(PathError::ControlCharacter);
        }
        let (plain, url) = split_extension(text)?;
        if plain.split('.').count() > ELEMENT_PATH_SEGMENTS_MAX {
            return Err(PathError::TooLong);
        }
        let mut walk = Walk::start(plain)?;
        while let Some(name) = walk.rest.next() {
            walk.step(name)?;
        }
        let (resource, extension) = (walk.resource, url.map(|_| plain.len()));
        if url.is_some() {
            walk.step("extension")?;
        }
        Ok(Self { text: text.into(), resource, element: walk.element, extension })
    }

    /// The path of a whole record.
    #[must_use]
    pub fn root(resource: ResourceType) -> Self {
        Self { text: resource.name().into(), resource, element: None, extension: None }
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The resource type it belongs to.
    #[must_use]
    pub fn resource_type(&self) -> ResourceType {
        self.resource
    }

    /// Its segments: `Patient`, `name`, `family`. `extension('http://…')` is one segment.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let (plain, call) = match self.extension {
            Some(at) => self.text.split_at_checked(at).unwrap_or((&self.text, "")),
            None => (&*self.text, ""),
        };
        plain.split('.').chain(call.strip_prefix('.'))
    }

    /// The URL, when the path ends with `.extension('…')`.
    #[must_use]
    pub fn extension_url(&self) -> Option<&str> {
        let (_, call) = self.text.split_at_checked(self.extension?)?;
        call.strip_prefix(EXTENSION_CALL)?.strip_suffix(EXTENSION_END)
    }

    /// Whether `other` is this element or lies below it. `X.extension` is above `X.extension('…')`.
    #[must_use]
    pub fn is_ancestor_or_self(&self, other: &Self) -> bool {
        let Some(rest) = other.text.strip_prefix(&*self.text) else { return false };
        let call = rest.starts_with('(') && self.text.ends_with(".extension");
        rest.is_empty() || rest.starts_with('.') || call
    }

    /// The element it names; `None` for a whole record. For `extension('…')`: the element `extension`.
    #[must_use]
    pub fn element(&self) -> Option<&'static Element> {
        self.element
    }
}

/// `A.b.extension('u')` into `A.b` and `u`.
fn split_extension(text: &str) -> Result<(&str, Option<&str>), PathError> {
    let Some((plain, call)) = text.split_once(EXTENSION_CALL) else { return Ok((text, None)) };
    let url = call.strip_suffix(EXTENSION_END).ok_or(PathError::ExtensionUrl)?;
    let odd = |c: char| c.is_whitespace() || c == '\'';
    if url.is_empty() || url.contains(odd) { Err(PathError::ExtensionUrl) } else { Ok((plain, Some(url))) }
}

/// The way down a path. A choice may be any of several structures at once.
struct Walk<'t> {
    rest: std::str::Split<'t, char>,
    resource: ResourceType,
    done: String,
    types: Vec<Structure>,
    element: Option<&'static Element>,
}

impl<'t> Walk<'t> {
    fn start(text: &'t str) -> Result<Self, PathError> {
        let mut rest = text.split('.');
        let name = rest.next().unwrap_or_default();
        let resource = ResourceType::from_name(name).ok_or_else(|| PathError::UnknownType {
            given: name.to_owned(),
            nearest: nearest(name, ResourceType::all().map(ResourceType::name)),
        })?;
        Ok(Self { rest, resource, done: name.to_owned(), types: vec![root(resource)], element: None })
    }

    fn step(&mut self, name: &str) -> Result<(), PathError> {
        if self.types.iter().any(|one| kind(*one) == Kind::AnyResource || type_name(*one) == "Extension") {
            return Err(PathError::Below { parent: self.done.clone() });
        }
        let found = self.children().find(|element| element.name == name);
        let element = found.ok_or_else(|| self.unknown(name))?;
        if let Some(canonical) = element.rewind {
            return Err(self.elsewhere(name, canonical.to_owned()));
        }
        self.done = format!("{}.{name}", self.done);
        self.types = element.types.to_vec();
        self.element = Some(element);
        Ok(())
    }

    fn children(&self) -> impl Iterator<Item = &'static Element> {
        self.types.iter().flat_map(|one| elements(*one))
    }

    fn elsewhere(&self, name: &str, canonical: String) -> PathError {
        let rest: String = self.rest.clone().map(|segment| format!(".{segment}")).collect();
        PathError::Elsewhere { given: format!("{}.{name}", self.done), canonical: canonical + &rest }
    }

    fn unknown(&self, name: &str) -> PathError {
        let key = name.strip_suffix("[x]").unwrap_or(name);
        let by_name = self.children().find(|element| element.name == key);
        let by_key = || self.types.iter().find_map(|one| property(*one, key)).map(|found| found.element);
        if let Some(element) = by_name.or_else(by_key) {
            return self.elsewhere(name, format!("{}.{}", self.done, element.name));
        }
        PathError::UnknownElement {
            parent: self.done.clone(),
            given: name.to_owned(),
            nearest: nearest(name, self.children().map(|element| element.name)),
        }
    }
}

/// The name with the fewest edits from `given`, when few enough to be a slip.
fn nearest(given: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let most = (given.chars().count() / 3).max(1);
    let scored = names.map(|name| (edits(given, name), name));
    scored.filter(|(edits, _)| *edits <= most).min().map(|(_, name)| name)
}

/// Levenshtein's distance; letter case costs nothing.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.chars().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        let mut next = vec![left];
        for (b, up) in other.iter().zip(row.iter().skip(1).copied()) {
            let changed = diagonal + usize::from(!a.eq_ignore_ascii_case(b));
            left = changed.min(up + 1).min(left + 1);
            diagonal = up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

impl fmt::Display for ElementPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ElementPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ElementPath({})", self.text)
    }
}

impl PartialEq for ElementPath {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ElementPath {}

impl PartialOrd for ElementPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ElementPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for ElementPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(
                f,
                "element path is longer than {ELEMENT_PATH_BYTES_MAX} bytes or {ELEMENT_PATH_SEGMENTS_MAX} segments"
            ),
            Self::ControlCharacter => f.write_str("element path holds a control character"),
            Self::UnknownType { given, nearest } => {
                write!(f, "`{given}` is no R4 resource type{}", Hint(*nearest))
            }
            Self::UnknownElement { parent, given, nearest } => {
                write!(f, "`{parent}` has no element `{given}`{}", Hint(*nearest))
            }
            Self::Elsewhere { given, canonical } => write!(f, "`{given}` is written `{canonical}`"),
            Self::Below { parent } => write!(f, "`{parent}` is decided as a whole: nothing can follow it"),
            Self::ExtensionUrl => {
                f.write_str("an extension is written extension('url'), at the end, without spaces")
            }
        }
    }
}

impl std::error::Error for PathError {}

struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, ", did you mean `{name}`?"))
    }
}
