//! Reads `elements.txt` once into static arrays.
//!
//! Owns: the text's format, and the JSON keys each element answers to. Must never: accept a line it
//! does not fully understand; then the tables stay empty, and a test says which line it was.
//! Look next: `tools/r4-tables/elements.py`, which writes the text.
//!
//! A heading is `kind Name [Base]`; `base Name` headings are templates and no structures. An element
//! is ` name[x] min max flags types…`: `*` repeats, `!` modifier, `S` summary, `-` no flag,
//! `Reference(A|B)` with targets, `@Path` for a content reference.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{Element, Kind, Primitive, Property, ResourceType, Structure};

/// The tables; empty when the text is malformed.
pub(super) static TABLES: LazyLock<Tables> =
    LazyLock::new(|| parse(include_str!("elements.txt")).unwrap_or_default());

/// Everything read from the text.
#[derive(Default)]
pub(super) struct Tables {
    /// Names of the resource types, sorted; the index is the [`ResourceType`].
    pub(super) resources: Vec<&'static str>,
    /// By [`Structure`]; the resource types come first, in the same order.
    pub(super) structures: Vec<Entry>,
    by_name: BTreeMap<&'static str, Structure>,
}

/// One structure.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) elements: &'static [Element],
    pub(super) properties: Properties,
}

/// The number of the line that could not be read; 0 when it is the whole that does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) usize);

type Lines = Vec<(usize, &'static str)>;

/// The entry of a structure.
pub(super) fn entry(structure: Structure) -> Option<&'static Entry> {
    TABLES.structures.get(usize::from(structure.0))
}

/// The structure of this name.
pub(super) fn structure(name: &str) -> Option<Structure> {
    TABLES.by_name.get(name).copied()
}

/// The JSON keys of one structure: an open hash table, at most half full, built once.
///
/// The filter asks for every key of every record, so this is a few nanoseconds and no allocation.
pub(super) struct Properties {
    slots: &'static [Option<(&'static str, Property)>],
    /// One less than the number of slots, which is a power of two.
    mask: usize,
}

impl Properties {
    const EMPTY: Self = Self { slots: &[], mask: 0 };

    /// `None` when two elements answer to one key.
    fn new(keys: &[(&'static str, Property)]) -> Option<Self> {
        let mask = (keys.len() * 2).next_power_of_two() - 1;
        let mut slots = vec![None; mask + 1];
        for (key, property) in keys {
            let mut at = key_hash(key) & mask;
            while let Some(Some((taken, _))) = slots.get(at) {
                if taken == key {
                    return None;
                }
                at = (at + 1) & mask;
            }
            *slots.get_mut(at)? = Some((*key, *property));
        }
        Some(Self { slots: Vec::leak(slots), mask })
    }

    /// What this key stands for. Ends at a free slot: there always is one.
    pub(super) fn find(&self, wanted: &str) -> Option<Property> {
        let mut at = key_hash(wanted) & self.mask;
        while let Some(Some((key, property))) = self.slots.get(at) {
            if *key == wanted {
                return Some(*property);
            }
            at = (at + 1) & self.mask;
        }
        None
    }

    /// All keys, in no order.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'static str, Property)> {
        self.slots.iter().flatten().copied()
    }
}

/// From the first and the last eight bytes: enough to tell R4's names apart nearly always.
/// A collision only costs another comparison.
fn key_hash(key: &str) -> usize {
    let bytes = key.as_bytes();
    let (head, tail) = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => (bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 0),
    };
    let mixed = (head ^ tail.rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::from(u16::try_from(mixed >> 48).unwrap_or_default())
}

/// A heading with the element lines under it.
struct Section {
    line: usize,
    kind: &'static str,
    name: &'static str,
    base: Option<&'static str>,
    body: Lines,
}

pub(super) fn parse(text: &'static str) -> Result<Tables, Malformed> {
    let sections = sections(text)?;
    let (bases, sections): (Vec<_>, Vec<_>) = sections.into_iter().partition(|found| found.kind == "base");
    let bases: BTreeMap<_, _> = bases.into_iter().map(|base| (base.name, base.body)).collect();
    let mut tables = Tables::default();
    for section in &sections {
        tables.declare(section)?;
    }
    for section in &sections {
        tables.define(section, &bases)?;
    }
    Ok(tables)
}

fn sections(text: &'static str) -> Result<Vec<Section>, Malformed> {
    let mut found: Vec<Section> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        if let Some(element) = text.strip_prefix(' ') {
            found.last_mut().ok_or(Malformed(line))?.body.push((line, element));
        } else {
            found.push(heading(line, text).ok_or(Malformed(line))?);
        }
    }
    Ok(found)
}

fn heading(line: usize, text: &'static str) -> Option<Section> {
    let mut words = text.split(' ');
    let section =
        Section { line, kind: words.next()?, name: words.next()?, base: words.next(), body: Vec::new() };
    words.next().is_none().then_some(section)
}

fn kind(word: &str) -> Option<Kind> {
    Some(match word {
        "resource" => Kind::Resource,
        "any" => Kind::AnyResource,
        "complex" => Kind::Complex,
        "boolean" => Kind::Primitive(Primitive::Boolean),
        "number" => Kind::Primitive(Primitive::Number),
        "text" => Kind::Primitive(Primitive::Text),
        "xhtml" => Kind::Primitive(Primitive::Xhtml),
        _ => return None,
    })
}

impl Tables {
    /// Gives a section its number, so that elements can name structures that come later.
    fn declare(&mut self, section: &Section) -> Result<(), Malformed> {
        let malformed = || Malformed(section.line);
        let kind = kind(section.kind).ok_or_else(malformed)?;
        let structure = Structure(u16::try_from(self.structures.len()).map_err(|_| malformed())?);
        if kind == Kind::Resource {
            let sorted = self.resources.last().is_none_or(|last| *last < section.name);
            let together = self.resources.len() == self.structures.len();
            if !sorted || !together || self.resources.len() > usize::from(u8::MAX) {
                return Err(malformed());
            }
            self.resources.push(section.name);
        }
        self.structures.push(Entry {
            name: section.name,
            kind,
            elements: &[],
            properties: Properties::EMPTY,
        });
        self.by_name.insert(section.name, structure).map_or(Ok(()), |_| Err(malformed()))
    }

    fn define(&mut self, section: &Section, bases: &BTreeMap<&str, Lines>) -> Result<(), Malformed> {
        let inherited = match section.base {
            Some(base) => bases.get(base).ok_or(Malformed(section.line))?.as_slice(),
            None => &[],
        };
        let lines = inherited.iter().chain(&section.body);
        let elements = lines
            .map(|(line, text)| self.element(text).ok_or(Malformed(*line)))
            .collect::<Result<Vec<_>, _>>()?;
        let elements: &'static [Element] = Vec::leak(elements);
        let properties = self.properties(elements).ok_or(Malformed(section.line))?;
        let at = self.by_name.get(section.name).ok_or(Malformed(section.line))?;
        let entry = self.structures.get_mut(usize::from(at.0)).ok_or(Malformed(section.line))?;
        entry.elements = elements;
        entry.properties = properties;
        Ok(())
    }

    fn element(&self, text: &'static str) -> Option<Element> {
        let mut words = text.split(' ');
        let (name, min, max, flags) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (name, choice) = name.strip_suffix("[x]").map_or((name, false), |name| (name, true));
        let mut element = Element {
            name,
            min: min.parse().ok()?,
            many: ["1", "*"].contains(&max).then_some(max == "*")?,
            modifier: flags.contains('!'),
            summary: flags.contains('S'),
            choice,
            types: &[],
            targets: &[],
            rewind: None,
        };
        let mut types = Vec::new();
        for word in words {
            types.push(self.element_type(word, &mut element)?);
        }
        element.types = Vec::leak(types);
        let counted = if choice { !element.types.is_empty() } else { element.types.len() == 1 };
        (counted && ["-", "!", "S", "!S"].contains(&flags)).then_some(element)
    }

    fn element_type(&self, word: &'static str, element: &mut Element) -> Option<Structure> {
        if let Some(path) = word.strip_prefix('@') {
            element.rewind = Some(path);
            return self.by_name.get(path).copied();
        }
        let Some((name, targets)) = word.split_once('(') else { return self.by_name.get(word).copied() };
        let targets: Option<Vec<_>> =
            targets.strip_suffix(')')?.split('|').map(|t| self.resource(t)).collect();
        element.targets = Vec::leak(targets?);
        self.by_name.get(name).copied()
    }

    fn resource(&self, name: &str) -> Option<ResourceType> {
        u8::try_from(self.resources.binary_search(&name).ok()?).ok().map(ResourceType)
    }

    /// `None` when two elements answer to one key.
    fn properties(&self, elements: &'static [Element]) -> Option<Properties> {
        let mut found = Vec::new();
        for element in elements {
            for structure in element.types.iter().copied() {
                let entry = self.structures.get(usize::from(structure.0))?;
                let key = if element.choice { choice_key(element.name, entry.name)? } else { element.name };
                found.push((key, Property { element, structure, twin: false }));
                if has_twin(entry) {
                    let key: &'static str = String::leak(format!("_{key}"));
                    found.push((key, Property { element, structure, twin: true }));
                }
            }
        }
        Properties::new(&found)
    }
}

/// `value` and `dateTime` make `valueDateTime`.
fn choice_key(name: &str, type_name: &str) -> Option<&'static str> {
    let first = type_name.chars().next()?.to_ascii_uppercase();
    let rest = type_name.get(1..)?;
    Some(String::leak(format!("{name}{first}{rest}")))
}

/// R4 primitives carry `id` and `extension` in a twin; the strings that `id` and `Extension.url` are,
/// and `xhtml`, do not.
fn has_twin(entry: &Entry) -> bool {
    let plain = ["System.String", "xhtml"].contains(&entry.name);
    matches!(entry.kind, Kind::Primitive(_)) && !plain
}
