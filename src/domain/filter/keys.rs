//! The JSON keys of R4, numbered and compiled once for the walk.
//!
//! Owns: finding what a key stands for in a few loads; which path of elements leads into a patient's compartment;
//! which data types have a meaning of their own.
//! Must never: know a key that `r4::property` does not know, or take one for another.
//! Look next: `walk`, which asks for every member; `domain::fhir::r4`, the tables.

use std::sync::LazyLock;

use super::names::Names;
use super::tape::Mark;
use crate::domain::fhir::r4::{self, Element, Kind, Primitive, Property, ResourceType, Structure};

/// The number of no key.
pub(super) const NONE: u16 = u16::MAX;

/// What one JSON key of one structure stands for, as much as the walk must know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub holds: Holds,
    pub number: u16,
    /// Place of the element among those of its structure.
    pub bit: u8,
    pub twin: bool,
    /// There may be many: the value is an array.
    pub many: bool,
    /// It is one type of a choice.
    pub choice: bool,
    /// The value is one string.
    pub is_text: bool,
    /// It is the member that the meaning of its form is about.
    pub told: bool,
    pub word: Word,
    /// Marks of every member under this key.
    pub marks: u8,
}

impl Default for Key {
    fn default() -> Self {
        let (holds, word) = (Holds::Text, Word::Nothing);
        Self {
            holds,
            number: NONE,
            bit: 0,
            twin: false,
            many: false,
            choice: false,
            is_text: false,
            told: false,
            word,
            marks: 0,
        }
    }
}

/// The same with its place in the tables.
#[derive(Debug)]
pub(super) struct Known {
    pub key: Key,
    pub element: &'static Element,
    /// The structure it stands in.
    pub owner: Structure,
    /// The type of the value; for a twin the primitive.
    pub structure: Structure,
}

impl std::ops::Deref for Known {
    type Target = Key;

    fn deref(&self) -> &Key {
        &self.key
    }
}

/// What the value under a key must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    Number,
    Boolean,
    /// An object of this form.
    Object(u16),
    /// `id` and `extension` of a primitive.
    Twin,
    Resource,
}

/// Names of elements that the filter treats by their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// No element at all.
    Nothing,
    Other,
    Category,
    Code,
    Coding,
    Contained,
    Data,
    Display,
    Div,
    Entry,
    Extension,
    FullUrl,
    Hash,
    Id,
    Identifier,
    IfMatch,
    IfModifiedSince,
    IfNoneExist,
    IfNoneMatch,
    Etag,
    LastModified,
    LastUpdated,
    Link,
    Location,
    Meta,
    Method,
    Mode,
    Reference,
    Relation,
    Request,
    Resource,
    Response,
    Search,
    Security,
    Size,
    Status,
    System,
    Tag,
    Total,
    Type,
    Url,
    Value,
    VersionId,
}

const WORDS: [(&str, Word); 41] = [
    ("category", Word::Category),
    ("code", Word::Code),
    ("coding", Word::Coding),
    ("contained", Word::Contained),
    ("data", Word::Data),
    ("display", Word::Display),
    ("div", Word::Div),
    ("entry", Word::Entry),
    ("extension", Word::Extension),
    ("fullUrl", Word::FullUrl),
    ("hash", Word::Hash),
    ("id", Word::Id),
    ("identifier", Word::Identifier),
    ("ifMatch", Word::IfMatch),
    ("ifModifiedSince", Word::IfModifiedSince),
    ("ifNoneExist", Word::IfNoneExist),
    ("ifNoneMatch", Word::IfNoneMatch),
    ("etag", Word::Etag),
    ("lastModified", Word::LastModified),
    ("lastUpdated", Word::LastUpdated),
    ("link", Word::Link),
    ("location", Word::Location),
    ("meta", Word::Meta),
    ("method", Word::Method),
    ("mode", Word::Mode),
    ("reference", Word::Reference),
    ("relation", Word::Relation),
    ("request", Word::Request),
    ("resource", Word::Resource),
    ("response", Word::Response),
    ("search", Word::Search),
    ("security", Word::Security),
    ("size", Word::Size),
    ("status", Word::Status),
    ("system", Word::System),
    ("tag", Word::Tag),
    ("total", Word::Total),
    ("type", Word::Type),
    ("url", Word::Url),
    ("value", Word::Value),
    ("versionId", Word::VersionId),
];

/// What a data type says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    None,
    Reference,
    Extension,
    Meta,
    Attachment,
    Signature,
    Narrative,
    BundleEntry,
    BundleLink,
}

/// The members an object may have.
#[derive(Debug)]
pub(super) struct Form {
    pub structure: Structure,
    pub meaning: Meaning,
    /// It is a resource: `resourceType` stands in it.
    pub resource: bool,
    /// Bit for each element that must be there.
    pub mandatory: u128,
    /// Of a Reference: the elements that name its target otherwise than by address.
    pub naming: u64,
    /// Of an Extension: the elements of which it must have one.
    pub saying: u64,
    names: Names<Key>,
}

impl Key {
    /// The bit of its element, set.
    #[inline(always)]
    pub(super) fn mask(&self) -> u128 {
        1 << (self.bit & 127)
    }

    /// A value of a primitive, or its twin: what may be null in an array.
    #[inline]
    pub(super) fn is_primitive(&self) -> bool {
        matches!(self.holds, Holds::Text | Holds::Number | Holds::Boolean | Holds::Twin)
    }
}

impl Form {
    /// What the `len` bytes from `start` stand for in this form; they hold no escapes.
    #[inline(always)]
    pub(super) fn key(&self, bytes: &[u8], start: usize, len: usize) -> Option<&Key> {
        self.names.find(bytes, start, len)
    }
}

/// Everything compiled.
pub(super) struct Keys {
    keys: Vec<Known>,
    /// By [`Structure`].
    forms: Vec<Form>,
    /// The form of the underscore twins.
    pub twin: Form,
    kinds: Names<u16>,
    all_kinds: Vec<ResourceType>,
    trails: Vec<Trail>,
    /// Where the trails of a resource type begin, by its structure.
    starts: Vec<u16>,
}

/// A step on the way to a Reference that puts a record into a patient's compartment.
#[derive(Debug, Default)]
struct Trail {
    ends: bool,
    next: Vec<(u8, u16)>,
}

/// Off every trail.
pub(super) const NOWHERE: u16 = 0;

static KEYS: LazyLock<Option<Keys>> = LazyLock::new(compile);

/// The keys; none if the tables lack something the filter is built on.
pub(super) fn keys() -> Option<&'static Keys> {
    KEYS.as_ref()
}

/// The key of that number.
#[inline]
pub(super) fn key(number: u16) -> Option<&'static Known> {
    if number == NONE {
        return None;
    }
    KEYS.as_ref()?.keys.get(usize::from(number))
}

/// The form of a structure.
pub(super) fn form(structure: Structure) -> Option<&'static Form> {
    KEYS.as_ref()?.forms.get(structure.index())
}

impl Keys {
    pub(super) fn form(&'static self, number: u16) -> Option<&'static Form> {
        self.forms.get(usize::from(number))
    }

    pub(super) fn form_of(&'static self, structure: Structure) -> Option<&'static Form> {
        self.forms.get(structure.index())
    }

    /// The resource type whose name the `len` bytes from `start` are.
    pub(super) fn kind(&self, bytes: &[u8], start: usize, len: usize) -> Option<ResourceType> {
        self.all_kinds.get(usize::from(*self.kinds.find(bytes, start, len)?)).copied()
    }

    /// Where a record of this type begins.
    pub(super) fn trail(&self, kind: ResourceType) -> u16 {
        self.starts.get(r4::root(kind).index()).copied().unwrap_or(NOWHERE)
    }

    /// One element further.
    #[inline(always)]
    pub(super) fn follow(&self, trail: u16, bit: u8) -> u16 {
        if trail == NOWHERE {
            return NOWHERE;
        }
        self.step_on(trail, bit)
    }

    #[inline(never)]
    fn step_on(&self, trail: u16, bit: u8) -> u16 {
        let next = self.trails.get(usize::from(trail)).map(|trail| trail.next.as_slice()).unwrap_or_default();
        next.iter().find(|(step, _)| *step == bit).map_or(NOWHERE, |(_, next)| *next)
    }

    /// A Reference here puts the record into the compartment.
    pub(super) fn ends(&self, trail: u16) -> bool {
        self.trails.get(usize::from(trail)).is_some_and(|trail| trail.ends)
    }
}

fn word(name: &str) -> Word {
    WORDS.iter().find(|(known, _)| *known == name).map_or(Word::Other, |(_, word)| *word)
}

fn meaning(structure: Structure) -> Meaning {
    match r4::type_name(structure) {
        "Reference" => Meaning::Reference,
        "Extension" => Meaning::Extension,
        "Meta" => Meaning::Meta,
        "Attachment" => Meaning::Attachment,
        "Signature" => Meaning::Signature,
        "Narrative" => Meaning::Narrative,
        "Bundle.entry" => Meaning::BundleEntry,
        "Bundle.link" => Meaning::BundleLink,
        _ => Meaning::None,
    }
}

/// The member that a meaning is about.
fn told(meaning: Meaning) -> Word {
    match meaning {
        Meaning::Reference => Word::Reference,
        Meaning::Extension | Meaning::Attachment => Word::Url,
        Meaning::Meta => Word::Security,
        Meaning::None
        | Meaning::Signature
        | Meaning::Narrative
        | Meaning::BundleEntry
        | Meaning::BundleLink => Word::Nothing,
    }
}

fn compile() -> Option<Keys> {
    let mut keys = Vec::new();
    let mut forms = Vec::new();
    for structure in r4::structures() {
        forms.push(form_with(structure, r4::properties(structure).collect(), &mut keys)?);
    }
    let extension = r4::structure("Extension")?;
    let of_twins = |name| Some((name, r4::property(extension, name)?));
    let twin = vec![of_twins("id")?, of_twins("extension")?];
    let twin = form_with(extension, twin, &mut keys)?;
    let twin = Form { mandatory: 0, meaning: Meaning::None, ..twin };
    let all_kinds: Vec<_> = ResourceType::all().collect();
    let kinds: Vec<_> = all_kinds.iter().zip(0..).map(|(kind, number)| (kind.name(), number)).collect();
    let (kinds, starts) = (Names::new(&kinds)?, vec![NOWHERE; all_kinds.len()]);
    let trails = vec![Trail::default()];
    let mut all = Keys { keys, forms, twin, kinds, all_kinds, trails, starts };
    for kind in ResourceType::all() {
        all.lay_trails(kind)?;
    }
    Some(all)
}

fn form_with(
    structure: Structure,
    properties: Vec<(&'static str, Property)>,
    keys: &mut Vec<Known>,
) -> Option<Form> {
    let elements = r4::elements(structure);
    let mut names = Vec::new();
    for (name, property) in properties {
        let number = u16::try_from(keys.len()).ok().filter(|number| *number != NONE)?;
        let bit = elements.iter().position(|element| element.name == property.element.name)?;
        let bit = u8::try_from(bit).ok().filter(|bit| *bit < 128)?;
        let key = compiled(structure, property, number, bit)?;
        keys.push(Known { key, element: property.element, owner: structure, structure: property.structure });
        names.push((name, key));
    }
    let bits = |wanted: &dyn Fn(&Element) -> bool| {
        elements
            .iter()
            .zip(0_u32..128)
            .filter(|(one, _)| wanted(one))
            .fold(0_u128, |all, (_, bit)| all | 1 << bit)
    };
    let mandatory = bits(&|one| one.min > 0);
    let (meaning, resource) = (meaning(structure), r4::kind(structure) == Kind::Resource);
    let named =
        |words: &[Word]| u64::try_from(bits(&|one| words.contains(&word(one.name)))).unwrap_or_default();
    let naming = if meaning == Meaning::Reference { named(&[Word::Display, Word::Identifier]) } else { 0 };
    let saying = if meaning == Meaning::Extension { named(&[Word::Value, Word::Extension]) } else { 0 };
    let names = Names::new(&names)?;
    Some(Form { structure, meaning, resource, mandatory, naming, saying, names })
}

fn compiled(owner: Structure, property: Property, number: u16, bit: u8) -> Option<Key> {
    let Property { element, structure, twin } = property;
    let holds = match r4::kind(structure) {
        _ if twin => Holds::Twin,
        Kind::Resource | Kind::AnyResource => Holds::Resource,
        Kind::Complex => Holds::Object(u16::try_from(structure.index()).ok()?),
        Kind::Primitive(Primitive::Boolean) => Holds::Boolean,
        Kind::Primitive(Primitive::Number) => Holds::Number,
        Kind::Primitive(Primitive::Text | Primitive::Xhtml) => Holds::Text,
    };
    let mut marks = if twin { Mark::TWIN } else { 0 };
    if let Some(path) = element.rewind {
        // What it continues at may be decided otherwise than what stands around it, unless it is that.
        marks |= Mark::WINDS | if path == r4::type_name(owner) { 0 } else { Mark::LOOSE };
    }
    let Element { name, many, choice, .. } = *element;
    let (word, is_text) = (word(name), holds == Holds::Text && !many);
    let told = !twin && word == told(meaning(owner));
    if !twin && (told || matches!(word, Word::Tag | Word::System)) {
        marks |= Mark::TELLS;
    }
    Some(Key { holds, number, bit, twin, many, choice, is_text, told, word, marks })
}

impl Keys {
    /// The trails of one type, from the paths of the official compartment.
    fn lay_trails(&mut self, kind: ResourceType) -> Option<()> {
        let paths = r4::patient_compartment(kind);
        if paths.is_empty() {
            return Some(());
        }
        let start = self.new_trail()?;
        *self.starts.get_mut(r4::root(kind).index())? = start;
        for path in paths {
            let (mut at, mut structure) = (start, r4::root(kind));
            for name in path.split('.').skip(1) {
                let bit = r4::elements(structure).iter().position(|element| element.name == name)?;
                structure = *r4::elements(structure).get(bit)?.types.first()?;
                at = self.trail_step(at, u8::try_from(bit).ok()?)?;
            }
            self.trails.get_mut(usize::from(at))?.ends = true;
        }
        Some(())
    }

    fn trail_step(&mut self, from: u16, bit: u8) -> Option<u16> {
        let known = self.follow(from, bit);
        if known != NOWHERE {
            return Some(known);
        }
        let new = self.new_trail()?;
        self.trails.get_mut(usize::from(from))?.next.push((bit, new));
        Some(new)
    }

    fn new_trail(&mut self) -> Option<u16> {
        self.trails.push(Trail::default());
        u16::try_from(self.trails.len() - 1).ok()
    }
}
