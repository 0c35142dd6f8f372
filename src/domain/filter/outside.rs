//! What a record holds beyond a mask, and whom it refers to: questions about a writer's body.
//!
//! Owns: the walk of a bound record along a mask's cursor, with the path it has come.
//! Must never: quote a value; what it returns of a mask's question is an element path.
//! Look next: `emit`, which walks the same way to write.

use std::borrow::Cow;

use super::bind::{Bound, Mark};
use super::emit::step;
use super::marker::{SUBSETTED_CODE, SUBSETTED_SYSTEM};
use super::scan::{Node, Shape, children};
use crate::domain::fhir::mask::{Mask, MaskCursor};
use crate::domain::fhir::r4::{self, Element, Kind, Structure};

/// What a server writes in `meta`.
const SERVERS: [&str; 2] = ["versionId", "lastUpdated"];

/// The first element of a record that the mask does not cover.
pub(super) fn outside(bound: &Bound<'_>, record: usize, mask: &Mask) -> Option<String> {
    let record = bound.records.get(record)?;
    let kind = record.facts.resource_type;
    if mask.resource_type() != kind {
        return Some(kind.name().to_owned());
    }
    let place = Place { structure: r4::root(kind), cursor: mask.cursor(), role: Role::Record };
    Walk { bound }.object(record.node, place, kind.name())
}

/// What the references in a record say. A record inside it lies in its span.
pub(super) fn references<'b>(bound: &'b Bound<'_>, record: usize) -> Vec<Cow<'b, str>> {
    let Some(record) = bound.records.get(record) else { return Vec::new() };
    let Some(reference) = r4::property(bound.types.reference, "reference") else { return Vec::new() };
    let is_it = |node: &Node| {
        node.marks & Mark::TWIN == 0
            && node.element.is_some_and(|element| std::ptr::eq(element, reference.element))
    };
    let end = bound.nodes.get(record.node).map_or(0, |node| node.after as usize);
    let nodes = bound.nodes.iter().enumerate().take(end).skip(record.node);
    nodes.filter(|(_, node)| is_it(node)).filter_map(|(at, _)| bound.text(at)).collect()
}

/// What an object is to the record whose mask is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Record,
    Meta,
    Inner,
}

#[derive(Clone, Copy)]
struct Place<'m> {
    structure: Structure,
    cursor: MaskCursor<'m>,
    role: Role,
}

struct Walk<'b> {
    bound: &'b Bound<'b>,
}

impl Walk<'_> {
    fn object(&self, index: usize, place: Place<'_>, path: &str) -> Option<String> {
        children(&self.bound.nodes, index).find_map(|(at, node)| self.member(at, node, place, path))
    }

    fn member(&self, at: usize, node: &Node, place: Place<'_>, path: &str) -> Option<String> {
        if node.marks & Mark::ANCHOR != 0 {
            return None;
        }
        let (Some(element), Some(structure)) = (node.element, node.structure) else {
            return Some(path.to_owned());
        };
        let twin = node.marks & Mark::TWIN != 0;
        if is_servers(place.role, element) && !twin {
            return None;
        }
        if structure == self.bound.types.extension && element.name == "extension" {
            return self.extensions(at, place.cursor, path);
        }
        let inner = step(place.cursor, place.structure, element);
        let path = element.rewind.map_or_else(|| format!("{path}.{}", element.name), str::to_owned);
        let primitive = matches!(r4::kind(structure), Kind::Primitive(_));
        // An empty array, and a null, still say something of the element.
        let bare = self.each(at).next().is_none();
        if (primitive || bare) && !inner.keeps() {
            return Some(path);
        }
        let role =
            if place.role == Role::Record && element.name == "meta" { Role::Meta } else { Role::Inner };
        let tags = place.role == Role::Meta && element.name == "tag";
        let place = Place { structure, cursor: inner, role };
        let items = self.each(at).filter(|&item| !(tags && self.is_subsetted(item)));
        match (primitive, twin) {
            (true, true) => items.into_iter().find_map(|item| self.twin(item, inner, &path)),
            (true, false) => None,
            (false, _) => items.into_iter().find_map(|item| self.value(item, place, &path)),
        }
    }

    /// The value at a node, or the items of its array.
    fn each(&self, index: usize) -> impl Iterator<Item = usize> {
        let array = self.shape(index) == Some(Shape::Array);
        let items = children(&self.bound.nodes, index).filter(move |_| array).map(|(at, _)| at);
        items.chain((!array).then_some(index))
    }

    fn shape(&self, index: usize) -> Option<Shape> {
        self.bound.nodes.get(index).map(|node| node.shape)
    }

    fn value(&self, item: usize, place: Place<'_>, path: &str) -> Option<String> {
        let decided_as_one = place.structure == self.bound.types.extension;
        if r4::kind(place.structure) != Kind::Complex || decided_as_one {
            return (place.cursor.whole() != Some(true)).then(|| path.to_owned());
        }
        let marks = self.bound.nodes.get(item).map_or(0, |node| node.marks);
        let nothing = place.cursor.whole() == Some(false) && marks & Mark::WINDS == 0;
        let bare = children(&self.bound.nodes, item).next().is_none();
        if (nothing && place.role != Role::Meta) || (bare && !place.cursor.keeps()) {
            return Some(path.to_owned());
        }
        self.object(item, place, path)
    }

    /// `id` and extensions beside a primitive.
    fn twin(&self, item: usize, cursor: MaskCursor<'_>, path: &str) -> Option<String> {
        children(&self.bound.nodes, item).find_map(|(at, node)| match node.element {
            Some(element) if element.name == "extension" => self.extensions(at, cursor, path),
            Some(element) if cursor.child(element.name).keeps() => None,
            Some(element) => Some(format!("{path}.{}", element.name)),
            None => Some(path.to_owned()),
        })
    }

    /// Extensions are decided by URL, each as one with all that is in it.
    fn extensions(&self, index: usize, owner: MaskCursor<'_>, path: &str) -> Option<String> {
        if self.each(index).next().is_none() && !owner.child("extension").keeps() {
            return Some(format!("{path}.extension"));
        }
        self.each(index).find_map(|item| {
            let Some(url) = self.bound.says(item, "url") else { return Some(format!("{path}.extension")) };
            (!owner.extension(&url).keeps()).then(|| format!("{path}.extension('{url}')"))
        })
    }

    /// The tag that says a record is not the whole record.
    fn is_subsetted(&self, tag: usize) -> bool {
        let says = |name, wanted: &str| self.bound.says(tag, name).is_some_and(|text| text == wanted);
        says("system", SUBSETTED_SYSTEM) && says("code", SUBSETTED_CODE)
    }
}

fn is_servers(role: Role, element: &Element) -> bool {
    match role {
        Role::Record => element.name == "id",
        Role::Meta => SERVERS.contains(&element.name),
        Role::Inner => false,
    }
}
