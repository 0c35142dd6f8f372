//! Members that go although the mask keeps them, because of what stands beside them.
//!
//! Owns: names and identifiers of hidden targets, dangling fragments (T-046, T-038), digests of trimmed
//! content (T-058), URLs that lead past us (T-102).
//! Must never: keep what a mask drops; a bar only takes away.
//! Look next: `emit`, which asks for every member; `reference`, which reads the texts.

use std::collections::BTreeSet;

use super::Bound;
use super::emit::{Object, Scope, Terms};
use super::keys::{Meaning, Word};
use super::reference::named_type;
use crate::domain::fhir::r4::ResourceType;

/// The bars in one object.
#[derive(Clone, Copy, Default)]
pub(super) struct Bars {
    display: bool,
    identifier: bool,
    reference: bool,
    digest: bool,
    data: bool,
    url: bool,
    /// The member that holds a URL of ours.
    moves: Option<Word>,
}

impl Bars {
    /// What the data type of an object bars inside it.
    #[inline]
    pub(super) fn of(bound: &Bound<'_>, terms: Terms<'_>, scope: Scope<'_>, object: Object<'_>) -> Self {
        let none = Self::default();
        match object.form.meaning {
            Meaning::None | Meaning::Extension | Meaning::Meta | Meaning::Narrative => none,
            Meaning::Reference => Reference { bound, terms, object, scope }.bars(),
            Meaning::Attachment => {
                let kept = |name| object.cursor.child(name).keeps();
                let url = !scope.complete && leads_past(bound, terms, object);
                let digest = !(scope.complete || (kept("data") && kept("url") && !url));
                Self { digest, url, moves: Some(Word::Url), ..none }
            }
            Meaning::Signature => Self { data: !scope.complete, ..none },
            Meaning::BundleEntry => Self { moves: Some(Word::FullUrl), ..none },
            Meaning::BundleLink => Self { moves: Some(Word::Url), ..none },
        }
    }

    /// This member goes.
    #[inline]
    pub(super) fn bar(&self, word: Word) -> bool {
        match word {
            Word::Display => self.display,
            Word::Identifier => self.identifier,
            Word::Reference => self.reference,
            Word::Size | Word::Hash => self.digest,
            Word::Data => self.data,
            Word::Url => self.url,
            _ => false,
        }
    }

    /// This member is a URL that may lie under a base of ours.
    #[inline]
    pub(super) fn moves(&self, word: Word) -> bool {
        self.moves == Some(word)
    }
}

/// The Attachment's URL leads past us (T-102).
fn leads_past(bound: &Bound<'_>, terms: Terms<'_>, attachment: Object<'_>) -> bool {
    let url = bound.view().says(attachment.index, Word::Url);
    url.is_some_and(|url| terms.bases.leads_past(&url))
}

struct Reference<'b> {
    bound: &'b Bound<'b>,
    terms: Terms<'b>,
    object: Object<'b>,
    scope: Scope<'b>,
}

impl Reference<'_> {
    fn bars(&self) -> Bars {
        let text = self.bound.view().says(self.object.index, Word::Reference);
        let fragment = text.as_deref().and_then(|text| text.strip_prefix('#'));
        Bars {
            display: self.may_be(&self.terms.references.hide_display, text.as_deref()),
            identifier: self.may_be(&self.terms.references.hide_identifier, text.as_deref()),
            reference: fragment.is_some_and(|id| !self.resolves(id)),
            moves: Some(Word::Reference),
            ..Bars::default()
        }
    }

    /// The target is, or may be, of a type among `hidden`. Where neither `type` nor `reference` is
    /// kept the answer must not depend on them, so all types the element allows count.
    fn may_be(&self, hidden: &BTreeSet<ResourceType>, text: Option<&str>) -> bool {
        if hidden.is_empty() {
            return false;
        }
        let by_type = self
            .bound
            .view()
            .says(self.object.index, Word::Type)
            .and_then(|name| ResourceType::from_name(&name));
        let by_text = text.and_then(|text| named_type(text).or_else(|| self.fragment_type(text)));
        let told = [("type", by_type), ("reference", by_text)];
        let named = told.iter().any(|(_, kind)| kind.is_some_and(|kind| hidden.contains(&kind)));
        let known = told.iter().any(|(name, kind)| kind.is_some() && self.object.cursor.child(name).keeps());
        named || (!known && self.allows_any(hidden))
    }

    fn allows_any(&self, hidden: &BTreeSet<ResourceType>) -> bool {
        let targets = self.object.key.map(|key| key.element.targets).unwrap_or_default();
        targets.is_empty() || targets.iter().any(|target| hidden.contains(target))
    }

    /// The type of the contained record of that id, if both leave.
    fn fragment_type(&self, text: &str) -> Option<ResourceType> {
        let id = text.strip_prefix('#')?;
        let record = self.scope.released.of_id(id)?;
        self.bound.records().get(record).map(|record| record.facts.resource_type)
    }

    /// A fragment points to a contained record that leaves, or from a contained one to its container.
    fn resolves(&self, id: &str) -> bool {
        self.fragment_type(&format!("#{id}")).is_some() || (id.is_empty() && self.scope.contained)
    }
}
