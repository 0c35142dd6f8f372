//! Members that go although the mask keeps them, because of what stands beside them.
//!
//! Owns: names and identifiers of hidden targets, dangling fragments (T-046, T-038), digests of trimmed
//! content (T-058).
//! Must never: keep what a mask drops; a bar only takes away.
//! Look next: `emit`, which asks for every member; `reference`, which reads the texts.

use std::collections::BTreeSet;

use super::Verdict;
use super::bind::Bound;
use super::emit::{Scope, Terms};
use super::reference::named_type;
use crate::domain::fhir::mask::MaskCursor;
use crate::domain::fhir::r4::{Element, ResourceType, Structure};

/// The bars in one object.
#[derive(Clone, Copy, Default)]
pub(super) struct Bars {
    display: bool,
    identifier: bool,
    reference: bool,
    digest: bool,
    data: bool,
    /// The member that holds a URL of ours.
    moves: Option<&'static str>,
}

impl Bars {
    /// What the data type of an object bars inside it. `element` holds the object.
    pub(super) fn of(
        bound: &Bound<'_>,
        terms: Terms<'_>,
        scope: Scope<'_>,
        object: usize,
        structure: Structure,
        element: Option<&Element>,
        cursor: MaskCursor<'_>,
    ) -> Self {
        let types = bound.types;
        let none = Self::default();
        if structure == types.reference {
            return Reference { bound, terms, object, scope, cursor, element }.bars();
        }
        if structure == types.attachment {
            let digest = !(scope.complete || cursor.child("data").keeps() && cursor.child("url").keeps());
            return Self { digest, ..none };
        }
        if structure == types.signature {
            return Self { data: !scope.complete, ..none };
        }
        if structure == types.bundle_entry {
            return Self { moves: Some("fullUrl"), ..none };
        }
        if structure == types.bundle_link {
            return Self { moves: Some("url"), ..none };
        }
        none
    }

    /// This member goes.
    pub(super) fn bar(&self, name: &str) -> bool {
        match name {
            "display" => self.display,
            "identifier" => self.identifier,
            "reference" => self.reference,
            "size" | "hash" => self.digest,
            "data" => self.data,
            _ => false,
        }
    }

    /// This member is a URL that may lie under a base of ours.
    pub(super) fn moves(&self, name: &str) -> bool {
        self.moves == Some(name)
    }
}

struct Reference<'b> {
    bound: &'b Bound<'b>,
    terms: Terms<'b>,
    object: usize,
    scope: Scope<'b>,
    cursor: MaskCursor<'b>,
    element: Option<&'b Element>,
}

impl Reference<'_> {
    fn bars(&self) -> Bars {
        let text = self.bound.says(self.object, "reference");
        let fragment = text.as_deref().and_then(|text| text.strip_prefix('#'));
        Bars {
            display: self.may_be(&self.terms.references.hide_display, text.as_deref()),
            identifier: self.may_be(&self.terms.references.hide_identifier, text.as_deref()),
            reference: fragment.is_some_and(|id| !self.resolves(id)),
            moves: Some("reference"),
            ..Bars::default()
        }
    }

    /// The target is, or may be, of a type among `hidden`. Where neither `type` nor `reference` is
    /// kept the answer must not depend on them, so all types the element allows count.
    fn may_be(&self, hidden: &BTreeSet<ResourceType>, text: Option<&str>) -> bool {
        if hidden.is_empty() {
            return false;
        }
        let by_type = self.bound.says(self.object, "type").and_then(|name| ResourceType::from_name(&name));
        let by_text = text.and_then(|text| named_type(text).or_else(|| self.fragment_type(text)));
        let told = [("type", by_type), ("reference", by_text)];
        let named = told.iter().any(|(_, kind)| kind.is_some_and(|kind| hidden.contains(&kind)));
        let known = told.iter().any(|(name, kind)| kind.is_some() && self.cursor.child(name).keeps());
        named || (!known && self.allows_any(hidden))
    }

    fn allows_any(&self, hidden: &BTreeSet<ResourceType>) -> bool {
        let targets = self.element.map(|element| element.targets).unwrap_or_default();
        targets.is_empty() || targets.iter().any(|target| hidden.contains(target))
    }

    /// The type of the contained record of that id, if both leave.
    fn fragment_type(&self, text: &str) -> Option<ResourceType> {
        let id = text.strip_prefix('#')?;
        let named = |&&record: &&usize| {
            let found = self.bound.records.get(record);
            found.is_some_and(|found| found.facts.id.as_deref() == Some(id)) && self.keeps_id(record)
        };
        let record = self.scope.released.iter().find(named)?;
        self.bound.records.get(*record).map(|record| record.facts.resource_type)
    }

    fn keeps_id(&self, record: usize) -> bool {
        match self.terms.verdicts.get(record) {
            Some(Verdict::Release { mask, .. }) => mask.cursor().child("id").keeps(),
            Some(Verdict::Withhold) | None => false,
        }
    }

    /// A fragment points to a contained record that leaves, or from a contained one to its container.
    fn resolves(&self, id: &str) -> bool {
        self.fragment_type(&format!("#{id}")).is_some() || (id.is_empty() && self.scope.contained)
    }
}
