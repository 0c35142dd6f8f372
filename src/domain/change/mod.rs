//! What a client writes, brought together with what it could not see (P5).
//!
//! Owns: which elements a new or changed record may bring, how withheld elements come back from the current
//! version, what a patch touches and does.
//! Must never: decide who may see or write what (masks arrive as arguments), or lose an element that the
//! writer could neither see nor write. Doubt is refusal.
//! Look next: `merge` (one element), `list` (arrays), `json_patch` and `fhirpath_patch`.
//!
//! The rules, where the issue leaves room:
//!
//! - Whether a change is refused depends on what was sent, on the view and on the masks, never on what is
//!   withheld: the answer to a write must tell no more than a read. The one exception is content that no
//!   mask can show (names R4 does not know, empty values), which may make an array unmergeable.
//! - The narrative of a record that was not shown whole was not shown either. It stays if nothing else
//!   changed; otherwise it would contradict the record and goes, unless the client sends one and may.
//!   The narratives of Composition sections are content, and stay.
//! - Values that say one thing with all their parts (Reference, Coding, Quantity, …) are not put together
//!   from seen and unseen parts: if one was shown in part, and changed, the change is refused. A Reference
//!   that lacks a name only because the target's name is hidden may be replaced; the old name goes with it.
//! - `meta.versionId`, `meta.lastUpdated` and `id` are the server's: whatever is sent, current's stay.
//! - The SUBSETTED tag is ours. It is taken out of what is sent before anything is compared (T-063).

mod accept;
mod extent;
mod fhirpath;
mod fhirpath_patch;
mod json_patch;
mod list;
mod localise;
mod merge;
mod nested;
mod pointing;
mod refusal;
mod tree;
mod written;

use crate::domain::fhir::interaction::PatchFormat;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::filter::References;

pub use nested::Flattened;
pub use refusal::ChangeRefusal;
pub use tree::Tree;

/// What a caller may see of a current record, and was shown.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'s> {
    /// The elements it may see.
    pub mask: &'s Mask,
    /// What hides in references although the mask shows it.
    pub references: &'s References,
    /// The current record as the filter writes it for this caller, SUBSETTED tag and marks included.
    pub view: &'s Tree,
}

/// An element that a patch reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Its canonical element path, readable by `ElementPath::parse`.
    pub path: String,
    /// Whether its value decides about the answer or is copied from.
    pub reads: bool,
    /// Whether it changes.
    pub writes: bool,
}

/// A record that is to be created, as it may be stored: without `id`, `meta.versionId`,
/// `meta.lastUpdated` and SUBSETTED tag.
///
/// # Errors
/// `NotWritable` for the first element that is not wholly writable, `Withheld` for a mark of ours,
/// `Malformed` for another type or an element that R4 does not know.
pub fn accept(resource: ResourceType, sent: &Tree, modify: &Mask) -> Result<Tree, ChangeRefusal> {
    accept::accept(resource, sent, modify)
}

/// A changed record, as it may be stored, for a caller from whom no names in references are hidden and
/// whose `contained` are wholly seen if the mask keeps them. The view is made here. See [`merge_seen`].
///
/// # Errors
/// As [`merge_seen`]; `Withheld` if the caller may not see the current record at all.
pub fn merge(
    resource: ResourceType,
    current: &Tree,
    sent: &Tree,
    seen: &Mask,
    modify: &Mask,
) -> Result<Tree, ChangeRefusal> {
    let view = merge::view(resource, current, seen)?;
    let sight = Sight { mask: seen, references: &References::default(), view: &view };
    merge_seen(resource, current, sent, &sight, modify)
}

/// A changed record, as it may be stored: what was sent, with everything the caller could not see taken
/// from `current`, the EMR's full record. Sending the view back unchanged gives `current`.
///
/// # Errors
/// `NotWritable` for an element that was changed and may not be, `CannotMerge` where it is not certain
/// what belongs to what, `Withheld` for a mark of ours among new content, `Malformed` if the three are not
/// records of `resource` or an element is unknown.
pub fn merge_seen(
    resource: ResourceType,
    current: &Tree,
    sent: &Tree,
    sight: &Sight<'_>,
    modify: &Mask,
) -> Result<Tree, ChangeRefusal> {
    merge::merge(resource, current, sent, sight, modify)
}

/// What was sent for a record of which some elements cannot be sent this way: those that are not in `named` stay as they
/// are in `view`, unless they were sent.
#[must_use]
pub fn completed(sent: Tree, view: &Tree, named: &[&str]) -> Tree {
    sent.completed(view, named)
}

/// A batch without the batches and transactions that stand in its entries, and the places of those entries. `None`: it is
/// no batch, or holds none.
///
/// # Errors
/// `Malformed` or `TooLarge`, as from [`Tree::parse`].
pub fn without_nested(bundle: &[u8]) -> Result<Option<Flattened>, ChangeRefusal> {
    nested::without(bundle)
}

/// The elements a patch reads and writes, from its literal paths alone.
///
/// # Errors
/// `Malformed` if it is no patch of this format or names anything but elements of `resource` in the
/// accepted forms, `TooLarge` beyond the bounds.
pub fn touches(
    resource: ResourceType,
    format: PatchFormat,
    patch: &[u8],
) -> Result<Vec<Touch>, ChangeRefusal> {
    match format {
        PatchFormat::JsonPatch => json_patch::touches(resource, patch),
        PatchFormat::FhirPath => fhirpath_patch::touches(resource, patch),
    }
}

/// The patch applied to what the caller sees of a record.
///
/// # Errors
/// As [`touches`]; `TestFailed` and `NoSuchPlace` by what is in `view`. Nothing is applied in part.
pub fn patch(
    resource: ResourceType,
    format: PatchFormat,
    patch: &[u8],
    view: &Tree,
) -> Result<Tree, ChangeRefusal> {
    match format {
        PatchFormat::JsonPatch => json_patch::apply(resource, patch, view),
        PatchFormat::FhirPath => fhirpath_patch::apply(resource, patch, view),
    }
}

/// Makes every `Reference.reference` under `base` relative (`base` without a trailing slash). Stored
/// Bundles are left alone: their references are resolved through `fullUrl`.
pub fn localise(tree: &mut Tree, base: &str) {
    localise::localise(tree, base);
}

/// Every `reference` text of the record, at any depth.
#[must_use]
pub fn references(tree: &Tree) -> Vec<String> {
    pointing::references(tree)
}

/// Replaces each `reference` text that has another name in `places`: what a reference by search was found to mean, or
/// what an entry of the same transaction is called.
pub fn point(tree: &mut Tree, places: &std::collections::BTreeMap<String, String>) {
    pointing::point(tree, places);
}

/// The elements at the top of the record in which it differs from what it was; all, for a new record.
#[must_use]
pub fn changed(resource: ResourceType, before: Option<&Tree>, after: &Tree) -> Vec<String> {
    written::changed(resource, before, after)
}
