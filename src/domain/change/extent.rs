//! How much of a place the two masks keep: what the caller saw, and what it may write.
//!
//! Owns: moving both cursors along an element, and telling whole from part where content continues elsewhere.
//! Must never: look at a record; this is about masks and tables.
//! Look next: `merge`, which asks; `filter::emit`, whose steps these must be.

use crate::domain::fhir::mask::MaskCursor;
use crate::domain::fhir::r4::{self, Element, Kind, Structure};

/// How much of an element, with all below it, a mask keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    All,
    Part,
    None,
}

impl Extent {
    fn of(kept: bool) -> Self {
        if kept { Self::All } else { Self::None }
    }
}

/// A place in the two masks and in the record.
#[derive(Clone)]
pub(super) struct Place<'m> {
    /// What the caller may see.
    pub seen: MaskCursor<'m>,
    /// What it may write.
    pub modify: MaskCursor<'m>,
    /// The canonical element path.
    pub path: String,
}

impl<'m> Place<'m> {
    /// The place of an element of `owner`.
    pub(super) fn step(&self, owner: Structure, element: &Element) -> Self {
        Self {
            seen: step(self.seen, owner, element),
            modify: step(self.modify, owner, element),
            path: child_path(&self.path, element),
        }
    }

    /// The place of the extensions with this URL.
    pub(super) fn extension(&self, url: &str) -> Place<'m> {
        Self {
            seen: self.seen.extension(url),
            modify: self.modify.extension(url),
            path: extension_path(&self.path),
        }
    }
}

/// Paths end at an extension: what is inside is decided with it.
fn is_extension_path(path: &str) -> bool {
    path.contains(".extension") || path.contains(".modifierExtension")
}

pub(super) fn extension_path(path: &str) -> String {
    if is_extension_path(path) { path.to_owned() } else { format!("{path}.extension") }
}

pub(super) fn child_path(path: &str, element: &Element) -> String {
    if is_extension_path(path) {
        return path.to_owned();
    }
    element.rewind.map_or_else(|| format!("{path}.{}", element.name), ToOwned::to_owned)
}

/// The cursor on a child element. A content reference continues where its content is defined; where
/// that is not around it, it must be kept here as well.
pub(super) fn step<'m>(cursor: MaskCursor<'m>, owner: Structure, element: &Element) -> MaskCursor<'m> {
    let here = cursor.child(element.name);
    let Some(path) = element.rewind else { return here };
    let around = r4::type_name(owner).strip_prefix(path);
    let recursive = around.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if recursive || here.keeps() { cursor.rewind(path) } else { here }
}

/// How much of a value of this structure is kept.
pub(super) fn extent(cursor: MaskCursor<'_>, structure: Structure) -> Extent {
    match cursor.whole() {
        None => parts(cursor, structure),
        Some(kept) if winds(cursor, structure, kept) => Extent::Part,
        Some(kept) => Extent::of(kept),
    }
}

/// A mixed place may still be of one kind for this structure: `Observation.value.unit` says nothing about
/// strings. Branches of a mask nest finitely.
fn parts(cursor: MaskCursor<'_>, structure: Structure) -> Extent {
    if r4::type_name(structure) == "Extension" || r4::elements(structure).is_empty() {
        return Extent::Part;
    }
    let primitive = matches!(r4::kind(structure), Kind::Primitive(_));
    let own = primitive.then(|| if cursor.keeps() { Extent::All } else { Extent::None });
    let inner = r4::elements(structure).iter().flat_map(|element| {
        let inner = step(cursor, structure, element);
        let undivided = element.rewind.is_some() || inner.whole().is_some();
        element.types.iter().map(move |&one| match inner.whole() {
            Some(kept) if undivided && !winds(inner, one, kept) => Extent::of(kept),
            None if !undivided => extent(inner, one),
            Some(_) | None => Extent::Part,
        })
    });
    let mut all = own.into_iter().chain(inner);
    let first = all.next().unwrap_or(Extent::Part);
    if all.all(|one| one == first) { first } else { Extent::Part }
}

/// Something below continues elsewhere, where it is decided otherwise. Backbone elements nest finitely.
fn winds(cursor: MaskCursor<'_>, structure: Structure, kept: bool) -> bool {
    backbone(structure)
        && r4::elements(structure).iter().any(|element| {
            let inner = step(cursor, structure, element);
            let below = || element.types.iter().any(|&one| winds(inner, one, kept));
            inner.whole() != Some(kept) || (element.rewind.is_none() && below())
        })
}

/// Only backbone elements hold content references, sections and entries.
fn backbone(structure: Structure) -> bool {
    r4::kind(structure) == Kind::Complex && r4::type_name(structure).contains('.')
}

/// The filter takes something out of these unless the whole record leaves: narratives, signature data,
/// resources with decisions of their own.
pub(super) fn holds_conditional(structure: Structure) -> bool {
    let by_kind = matches!(r4::kind(structure), Kind::Resource | Kind::AnyResource);
    let by_name = ["Narrative", "Signature"].contains(&r4::type_name(structure));
    let own = r4::elements(structure).iter().filter(|element| element.rewind.is_none() && !element.choice);
    let below = || own.flat_map(|element| element.types).any(|&one| holds_conditional(one));
    by_kind || by_name || (backbone(structure) && below())
}
