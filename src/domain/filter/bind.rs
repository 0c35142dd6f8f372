//! Gives the scanned tape its FHIR meaning.
//!
//! Owns: which element every value is, that known elements hold the JSON R4 prescribes, where records
//! begin, and what policy is told about each of them.
//! Must never: look at a mask; faults and facts come from the full content, whoever asks.
//! Look next: `facts`, which reads single records; `emit`, which writes them.

use super::data_type::{DataTypes, data_types};
use super::fault::FilterFault;
use super::reference::Bases;
use super::scan::{Node, Shape, children, raw_name};
use super::{Envelope, Record, RootType, facts, text};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::r4::{self, Kind, Primitive, Property, ResourceType, Structure};
use crate::limits;

/// What `emit` must know of a subtree before it may copy it in one piece.
pub(super) struct Mark;

impl Mark {
    /// Holds something that never leaves or is decided one by one: unknown names, empties, nulls,
    /// resources, narrative, signatures, elements that continue elsewhere.
    pub(super) const LOOSE: u8 = 1;
    /// Holds a Reference with a display or an identifier.
    pub(super) const NAMED: u8 = 2;
    /// Holds a Reference to a contained record, or to upstream's own address.
    pub(super) const MOVED: u8 = 4;
    /// This member is the underscore twin of a primitive.
    pub(super) const TWIN: u8 = 8;
    /// This member is `resourceType`.
    pub(super) const ANCHOR: u8 = 16;
    /// Holds an element that continues elsewhere: something below may be kept although no path
    /// through here is.
    pub(super) const WINDS: u8 = 32;

    /// Those that say something of the parents too.
    const RISING: u8 = Self::LOOSE | Self::NAMED | Self::MOVED | Self::WINDS;
}

/// The tape with its meaning.
pub(super) struct Bound<'a> {
    pub body: &'a str,
    pub nodes: Vec<Node>,
    pub records: Vec<Record>,
    pub envelope: Option<Envelope>,
    pub root: RootType,
    pub types: &'static DataTypes,
}

/// Binds a scanned tape.
///
/// # Errors
/// The first known element with the wrong kind of value, or a resource of no known type.
pub(super) fn bind<'a>(
    body: &'a str,
    nodes: Vec<Node>,
    bases: &Bases<'_>,
    sender: Sender,
) -> Result<Bound<'a>, FilterFault> {
    let types = data_types().ok_or(FilterFault::Tables)?;
    let bound = Bound { body, nodes, records: Vec::new(), envelope: None, root: RootType::Bundle, types };
    let mut binder = Binder { bound, bases, sender };
    binder.root()?;
    facts::settle(&mut binder.bound.records);
    Ok(binder.bound)
}

/// Who wrote what is taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Upstream,
    Client,
}

impl Sender {
    /// Bundles that carry answers, or requests. All others are records of their own, stored as they are.
    fn carriers(self) -> &'static [&'static str] {
        match self {
            Self::Upstream => &["searchset", "history", "transaction-response", "batch-response"],
            Self::Client => &["batch", "transaction"],
        }
    }
}

/// Where in a record the binder stands.
#[derive(Clone, Copy)]
struct Place {
    record: Option<usize>,
    /// How many resources stand around this one.
    nesting: usize,
    /// Paths that put the record into a patient's compartment, and which of them still fit.
    compartment: &'static [&'static str],
    fitting: u64,
    /// Segments of the path so far.
    level: usize,
}

impl Place {
    fn child(self, name: &str) -> Self {
        let level = self.level + 1;
        if self.fitting == 0 {
            return Self { level, ..self };
        }
        let fits = |path: &str| path.split('.').nth(level) == Some(name);
        let fitting = self.select(fits);
        Self { fitting, level, ..self }
    }

    fn ends_compartment_path(self) -> bool {
        self.fitting != 0 && self.select(|path| path.split('.').count() == self.level + 1) != 0
    }

    fn select(self, fits: impl Fn(&str) -> bool) -> u64 {
        let numbered = self.compartment.iter().take(64).enumerate();
        let bits = numbered.filter(|(_, path)| fits(path)).map(|(bit, _)| 1 << bit);
        bits.fold(0, |all: u64, bit: u64| all | bit) & self.fitting
    }
}

struct Binder<'a, 'b> {
    bound: Bound<'a>,
    bases: &'b Bases<'b>,
    sender: Sender,
}

impl Binder<'_, '_> {
    fn root(&mut self) -> Result<(), FilterFault> {
        let kind = self.resource_type(0)?;
        let bundle = kind.name() == "Bundle";
        let carrier = bundle && self.carries(0);
        let place = Place { record: None, nesting: 0, compartment: &[], fitting: 0, level: 0 };
        if carrier {
            self.object(0, r4::root(kind), place)?;
        } else {
            self.bound.root = RootType::Single(self.resource(0, place, false)?);
        }
        if bundle {
            self.bound.envelope = Some(facts::envelope(&self.bound));
        }
        Ok(())
    }

    /// The Bundle at this node carries answers or requests.
    fn carries(&self, index: usize) -> bool {
        let kind = self.raw_member(index, "type").and_then(|at| self.bound.text(at));
        kind.is_some_and(|kind| self.sender.carriers().contains(&kind.as_ref()))
    }

    /// What R4 does not know: left out of an answer, not taken from a client.
    fn unknown(&mut self, at: usize) -> Result<u8, FilterFault> {
        match self.sender {
            Sender::Upstream => Ok(self.mark(at, Mark::LOOSE)),
            Sender::Client => Err(FilterFault::Unknown(self.start(at))),
        }
    }

    fn node(&self, index: usize) -> Option<&Node> {
        self.bound.nodes.get(index)
    }

    fn start(&self, index: usize) -> usize {
        self.node(index).map_or(0, |node| node.start as usize)
    }

    fn require(&self, index: usize, shape: Shape) -> Result<(), FilterFault> {
        let fits = self.node(index).is_some_and(|node| node.shape == shape);
        if fits { Ok(()) } else { Err(FilterFault::Type(self.start(index))) }
    }

    /// Marks a node and returns what its parents must know.
    fn mark(&mut self, index: usize, marks: u8) -> u8 {
        if let Some(node) = self.bound.nodes.get_mut(index) {
            node.marks |= marks;
        }
        marks & Mark::RISING
    }

    fn span(&self, index: usize) -> (usize, usize) {
        (index + 1, self.node(index).map_or(0, |node| node.after as usize))
    }

    fn after(&self, index: usize) -> usize {
        self.node(index).map_or(usize::MAX, |node| node.after as usize)
    }

    /// The member of that name, before names are bound.
    fn raw_member(&self, index: usize, name: &str) -> Option<usize> {
        let named = |node: &Node| text::unescape(raw_name(self.bound.body, node)) == name;
        children(&self.bound.nodes, index).find(|(_, node)| named(node)).map(|(at, _)| at)
    }

    fn resource_type(&self, index: usize) -> Result<ResourceType, FilterFault> {
        self.require(index, Shape::Object)?;
        let name = self.raw_member(index, "resourceType").and_then(|at| self.bound.text(at));
        let known = name.and_then(|name| ResourceType::from_name(&name));
        known.ok_or(FilterFault::ResourceType(self.start(index)))
    }

    fn resource(&mut self, index: usize, outer: Place, contained: bool) -> Result<usize, FilterFault> {
        let kind = self.resource_type(index)?;
        let (start, bytes) = (self.start(index), self.bound.bytes(index));
        if outer.nesting >= limits::RECORD_DEPTH_MAX {
            return Err(FilterFault::Nesting(start));
        }
        let nested = index > 0 && outer.record.is_none() && kind.name() == "Bundle" && self.carries(index);
        if self.sender == Sender::Client && nested {
            return Err(FilterFault::Nesting(start));
        }
        if bytes > limits::RECORD_BYTES_MAX {
            return Err(FilterFault::Size(start));
        }
        let record = self.bound.records.len();
        let facts = Facts::of_type(kind);
        self.bound.records.push(Record { facts, container: outer.record, contained, node: index });
        let compartment = r4::patient_compartment(kind);
        let nesting = outer.nesting + 1;
        let inside = Place { record: Some(record), nesting, compartment, fitting: u64::MAX, level: 0 };
        self.object(index, r4::root(kind), inside)?;
        facts::read(&mut self.bound, record);
        Ok(record)
    }

    fn object(&mut self, index: usize, structure: Structure, place: Place) -> Result<u8, FilterFault> {
        self.require(index, Shape::Object)?;
        let (mut at, end) = self.span(index);
        let mut marks = if at == end { Mark::LOOSE } else { 0 };
        while at < end {
            marks |= self.member(at, structure, place)?;
            at = self.after(at);
        }
        self.one_of_each_choice(index)?;
        marks |= self.meaning(index, structure, place);
        Ok(self.mark(index, marks))
    }

    fn member(&mut self, at: usize, owner: Structure, place: Place) -> Result<u8, FilterFault> {
        let body = self.bound.body;
        let Some(node) = self.node(at) else { return Ok(0) };
        let name = text::unescape(raw_name(body, node));
        let Some(property) = r4::property(owner, &name) else {
            let anchor = name == "resourceType" && r4::kind(owner) == Kind::Resource;
            return if anchor { Ok(self.mark(at, Mark::ANCHOR)) } else { self.unknown(at) };
        };
        if let Some(node) = self.bound.nodes.get_mut(at) {
            node.element = Some(property.element);
            node.structure = Some(property.structure);
        }
        let mut marks = if property.twin { Mark::TWIN } else { 0 };
        if let Some(path) = property.element.rewind {
            // What it continues at may be decided otherwise than what stands around it, unless it is that.
            marks |= Mark::WINDS | if path == r4::type_name(owner) { 0 } else { Mark::LOOSE };
        }
        let place = place.child(property.element.name);
        marks |= if property.element.many {
            self.array(at, property, place)?
        } else {
            self.value(at, property, place)?
        };
        Ok(self.mark(at, marks))
    }

    fn array(&mut self, index: usize, property: Property, place: Place) -> Result<u8, FilterFault> {
        self.require(index, Shape::Array)?;
        let (mut at, end) = self.span(index);
        let mut marks = if at == end { Mark::LOOSE } else { 0 };
        let nullable = matches!(r4::kind(property.structure), Kind::Primitive(_));
        while at < end {
            let null = self.node(at).is_some_and(|node| node.shape == Shape::Null);
            marks |= if null && nullable { Mark::LOOSE } else { self.value(at, property, place)? };
            at = self.after(at);
        }
        Ok(marks)
    }

    fn value(&mut self, index: usize, property: Property, place: Place) -> Result<u8, FilterFault> {
        if property.twin {
            return self.twin(index, place);
        }
        let shape = match r4::kind(property.structure) {
            Kind::Resource | Kind::AnyResource => {
                self.resource(index, place, property.element.name == "contained")?;
                return Ok(Mark::LOOSE);
            }
            Kind::Complex => return self.object(index, property.structure, place),
            Kind::Primitive(Primitive::Boolean) => Shape::Boolean,
            Kind::Primitive(Primitive::Number) => Shape::Number,
            Kind::Primitive(Primitive::Text | Primitive::Xhtml) => Shape::Text,
        };
        self.require(index, shape)?;
        Ok(0)
    }

    /// The underscore twin of a primitive: `id` and `extension`, nothing else.
    fn twin(&mut self, index: usize, place: Place) -> Result<u8, FilterFault> {
        self.require(index, Shape::Object)?;
        let types = self.bound.types;
        let (mut at, end) = self.span(index);
        let mut marks = if at == end { Mark::LOOSE } else { 0 };
        while at < end {
            let body = self.bound.body;
            let name = self.node(at).map(|node| text::unescape(raw_name(body, node))).unwrap_or_default();
            let (element, structure) = match name.as_ref() {
                "id" => (types.id, types.id_structure),
                "extension" => (types.extensions, types.extension),
                _ => {
                    marks |= self.unknown(at)?;
                    at = self.after(at);
                    continue;
                }
            };
            if let Some(node) = self.bound.nodes.get_mut(at) {
                node.element = Some(element);
                node.structure = Some(structure);
            }
            let property = Property { element, structure, twin: false };
            let place = place.child(element.name);
            let inner = if element.many {
                self.array(at, property, place)?
            } else {
                self.value(at, property, place)?
            };
            marks |= self.mark(at, inner);
            at = self.after(at);
        }
        Ok(self.mark(index, marks))
    }

    /// R4 allows one type of a choice at a time; two readers could prefer different ones.
    fn one_of_each_choice(&self, index: usize) -> Result<(), FilterFault> {
        let mut seen: Vec<(&str, Structure)> = Vec::new();
        for (_, node) in children(&self.bound.nodes, index) {
            let (Some(element), Some(structure)) = (node.element, node.structure) else { continue };
            if !element.choice {
                continue;
            }
            if seen.iter().any(|&(name, other)| name == element.name && other != structure) {
                return Err(FilterFault::Type(node.start as usize));
            }
            seen.push((element.name, structure));
        }
        Ok(())
    }

    /// What a data type says by itself: whom it refers to, how it is labelled, how freely it is copied.
    fn meaning(&mut self, index: usize, structure: Structure, place: Place) -> u8 {
        let types = self.bound.types;
        if structure == types.reference {
            return self.reference(index, place);
        }
        if structure == types.extension {
            return self.extension(index, place);
        }
        if structure == types.meta {
            let record = place.record.and_then(|record| self.bound.records.get(record));
            let labels = record.map(|_| facts::meta_labels(&self.bound, index)).unwrap_or_default();
            if let Some(facts) = self.facts(place) {
                facts.labels.extend(labels);
            }
        }
        let always = [types.narrative, types.signature, types.bundle_entry, types.bundle_link];
        if always.contains(&structure) { Mark::LOOSE } else { 0 }
    }

    fn facts(&mut self, place: Place) -> Option<&mut Facts> {
        place.record.and_then(|record| self.bound.records.get_mut(record)).map(|record| &mut record.facts)
    }

    fn reference(&mut self, index: usize, place: Place) -> u8 {
        let named = self.bound.member(index, "display").or(self.bound.member(index, "identifier"));
        let mut marks = if named.is_some() { Mark::NAMED } else { 0 };
        let Some(text) = self.bound.member(index, "reference").and_then(|at| self.bound.text(at)) else {
            return marks;
        };
        if text.starts_with('#') || self.bases.publish(&text).is_some() {
            marks |= Mark::MOVED;
        }
        let named = self.bases.record(&text).filter(|(kind, _)| kind.name() == "Patient");
        let patient = named.map(|(_, id)| id.to_owned());
        let in_compartment = place.ends_compartment_path();
        if let (Some(id), Some(facts)) = (patient, self.facts(place)) {
            if in_compartment {
                facts.patients.insert(id.clone());
            }
            facts.mentions.insert(id);
        }
        marks
    }

    fn extension(&mut self, index: usize, place: Place) -> u8 {
        let labels = facts::inline_labels(&self.bound, index);
        if let Some(facts) = self.facts(place) {
            facts.labels.extend(labels);
        }
        let says = |name| self.bound.member(index, name).is_some();
        if says("url") && (says("value") || says("extension")) { 0 } else { Mark::LOOSE }
    }
}
