//! What a record holds beyond a mask, and whom it refers to: questions about a writer's body.
//!
//! Owns: the walk of a bound record along a mask's cursor, with the path it has come.
//! Must never: quote a value; what it returns of a mask's question is an element path.
//! Look next: `emit`, which walks the same way to write.

use std::borrow::Cow;

use super::Bound;
use super::keys::{Known, Word};
use super::marker::{SUBSETTED_CODE, SUBSETTED_SYSTEM};
use super::tape::{Mark, Node, Shape, View};
use crate::domain::fhir::mask::{Mask, MaskCursor};
use crate::domain::fhir::r4::{self, Kind, Structure};

/// What a server writes in `meta`.
const SERVERS: [Word; 2] = [Word::VersionId, Word::LastUpdated];

/// The first element of a record that the mask does not cover.
pub(super) fn outside(bound: &Bound<'_>, record: usize, mask: &Mask) -> Option<String> {
    let record = bound.records().get(record)?;
    let kind = record.facts.resource_type;
    if mask.resource_type() != kind {
        return Some(kind.name().to_owned());
    }
    let place = Place { structure: r4::root(kind), cursor: mask.cursor(), role: Role::Record };
    let extension = bound.types.extension;
    Walk { view: bound.view(), extension }.object(record.node, place, kind.name())
}

/// What the references in a record say. A record inside it lies in its span.
pub(super) fn references<'b>(bound: &'b Bound<'_>, record: usize) -> Vec<Cow<'b, str>> {
    let Some(record) = bound.records().get(record) else { return Vec::new() };
    let reference = bound.types.reference;
    let owned = |key: &Known| key.word == Word::Reference && !key.twin && key.owner == reference;
    let (view, mut found) = (bound.view(), Vec::new());
    each_below(view, record.node, &mut |at, node| {
        if node.key().is_some_and(owned) {
            found.extend(view.text(at));
        }
    });
    found
}

/// Every value inside a container, in the order of the text. Recursion is bounded by `limits::JSON_DEPTH_MAX`.
fn each_below<'b>(view: View<'b>, container: usize, tell: &mut impl FnMut(usize, &'b Node)) {
    for (at, node) in view.children(container) {
        tell(at, node);
        if matches!(node.shape, Shape::Object | Shape::Array) {
            each_below(view, at, tell);
        }
    }
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
    view: View<'b>,
    extension: Structure,
}

impl Walk<'_> {
    fn object(&self, index: usize, place: Place<'_>, path: &str) -> Option<String> {
        self.view.children(index).find_map(|(at, node)| self.member(at, node, place, path))
    }

    fn member(&self, at: usize, node: &Node, place: Place<'_>, path: &str) -> Option<String> {
        if node.marks & Mark::ANCHOR != 0 {
            return None;
        }
        let Some(key) = node.key() else { return Some(path.to_owned()) };
        let (element, structure, twin) = (key.element, key.structure, key.twin);
        if is_servers(place.role, key) && !twin {
            return None;
        }
        if structure == self.extension && key.word == Word::Extension {
            return self.extensions(at, place.cursor, path);
        }
        let inner = place.cursor.fan(place.structure).child(key.bit, element);
        let path = element.rewind.map_or_else(|| format!("{path}.{}", element.name), str::to_owned);
        let primitive = matches!(r4::kind(structure), Kind::Primitive(_));
        // An empty array, and a null, still say something of the element.
        let bare = self.view.each(at).next().is_none();
        if (primitive || bare) && !inner.keeps() {
            return Some(path);
        }
        let role =
            if place.role == Role::Record && key.word == Word::Meta { Role::Meta } else { Role::Inner };
        let tags = place.role == Role::Meta && key.word == Word::Tag;
        let place = Place { structure, cursor: inner, role };
        let items = self.view.each(at).filter(|&item| !(tags && self.is_subsetted(item)));
        match (primitive, twin) {
            (true, true) => items.into_iter().find_map(|item| self.twin(item, inner, &path)),
            (true, false) => None,
            (false, _) => items.into_iter().find_map(|item| self.value(item, place, &path)),
        }
    }

    fn value(&self, item: usize, place: Place<'_>, path: &str) -> Option<String> {
        let decided_as_one = place.structure == self.extension;
        if r4::kind(place.structure) != Kind::Complex || decided_as_one {
            return (place.cursor.whole() != Some(true)).then(|| path.to_owned());
        }
        let marks = self.view.nodes.get(item).map_or(0, |node| node.marks);
        let nothing = place.cursor.whole() == Some(false) && marks & Mark::WINDS == 0;
        let bare = self.view.children(item).next().is_none();
        if (nothing && place.role != Role::Meta) || (bare && !place.cursor.keeps()) {
            return Some(path.to_owned());
        }
        self.object(item, place, path)
    }

    /// `id` and extensions beside a primitive.
    fn twin(&self, item: usize, cursor: MaskCursor<'_>, path: &str) -> Option<String> {
        self.view.children(item).find_map(|(at, node)| match node.key() {
            Some(key) if key.word == Word::Extension => self.extensions(at, cursor, path),
            Some(key) if cursor.child(key.element.name).keeps() => None,
            Some(key) => Some(format!("{path}.{}", key.element.name)),
            None => Some(path.to_owned()),
        })
    }

    /// Extensions are decided by URL, each as one with all that is in it.
    fn extensions(&self, index: usize, owner: MaskCursor<'_>, path: &str) -> Option<String> {
        if self.view.each(index).next().is_none() && !owner.child("extension").keeps() {
            return Some(format!("{path}.extension"));
        }
        self.view.each(index).find_map(|item| {
            let Some(url) = self.view.says(item, Word::Url) else { return Some(format!("{path}.extension")) };
            (!owner.extension(&url).keeps()).then(|| format!("{path}.extension('{url}')"))
        })
    }

    /// The tag that says a record is not the whole record.
    fn is_subsetted(&self, tag: usize) -> bool {
        let says = |word, wanted: &str| self.view.says(tag, word).is_some_and(|text| text == wanted);
        says(Word::System, SUBSETTED_SYSTEM) && says(Word::Code, SUBSETTED_CODE)
    }
}

fn is_servers(role: Role, key: &Known) -> bool {
    match role {
        Role::Record => key.word == Word::Id,
        Role::Meta => SERVERS.contains(&key.word),
        Role::Inner => false,
    }
}
