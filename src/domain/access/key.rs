//! Cache keys that hold everything a decision used (T-212).
//!
//! Owns: the encoding, in which two different situations never look the same: every field has a tag and a
//! length. Must never: leave out something a policy of the set looks at; [`Uses`] says what that is.
//! Look next: `masks`, the cache.

use super::engine::Record;
use super::set::{Action, PolicySet};
use super::situation::Situation;
use crate::domain::fhir::r4::ResourceType;
use std::collections::BTreeSet;

/// Equal exactly if every used input is equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(Box<[u8]>);

impl Key {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A key under construction.
#[derive(Clone)]
pub(super) struct KeyParts(Vec<u8>);

/// Which action a question is about, and for `operate` which operation. The action also says whether elements
/// are decided outward or inward, so that the two kinds of masks never meet under one key.
pub(super) type Asked = (Action, Option<&'static str>);

impl KeyParts {
    /// Policy set and situation: the same for all records of a request.
    pub(super) fn of_situation(set: &PolicySet, situation: &Situation) -> Self {
        let uses = &set.uses;
        let mut parts = Self(Vec::with_capacity(512));
        parts.text(1, set.hash());
        parts.flags(2, [situation.person, situation.phishing_resistant, situation.emergency]);
        parts.texts(3, &situation.roles);
        parts.text(4, &situation.purpose);
        parts.texts(5, &situation.methods);
        if uses.context.contains("scopes") {
            parts.texts(6, &situation.scopes);
        }
        if uses.context.contains("application") || !situation.person {
            parts.text(7, &situation.application);
        }
        if uses.context.contains("binding") {
            parts.text(19, situation.binding);
        }
        if uses.principal {
            parts.text(8, &situation.issuer);
            parts.text(9, &situation.subject);
            parts.texts(10, &situation.fhir_user);
        }
        for limit in &uses.age_limits {
            parts.field(11, &[situation.age_seconds.cmp(limit) as u8]);
        }
        if uses.age_itself {
            parts.field(12, &situation.age_seconds.to_be_bytes());
        }
        if uses.context.contains("now") {
            parts.field(13, &situation.now.as_nanosecond().to_be_bytes());
        }
        if uses.context.contains("network") {
            parts.text(14, &situation.network.to_string());
        }
        parts
    }

    /// A question about a whole type.
    pub(super) fn for_type(&self, asked: Asked, resource: ResourceType) -> Key {
        let mut parts = self.clone();
        parts.asked(asked);
        parts.text(21, resource.name());
        Key(parts.0.into())
    }

    /// A question about a record.
    pub(super) fn for_record(&self, set: &PolicySet, asked: Asked, record: &Record<'_>) -> Key {
        let (uses, facts) = (&set.uses, record.facts);
        let reads = |attribute: &str| uses.record.contains(attribute);
        let mut parts = self.clone();
        parts.asked(asked);
        parts.text(21, facts.resource_type.name());
        if uses.context.contains("relations") {
            parts.texts(22, record.relations);
        }
        if uses.context.contains("labels") || reads("labels") {
            parts.texts(23, &facts.labels);
        }
        if uses.identity || reads("id") {
            parts.texts(24, &facts.id);
        }
        if uses.identity || reads("patients") {
            parts.texts(25, &facts.patients);
        }
        if reads("mentions") {
            parts.texts(26, &facts.mentions);
        }
        if reads("status") {
            parts.texts(27, &facts.status);
        }
        if reads("category") {
            parts.texts(28, &facts.category);
        }
        if reads("code") {
            parts.texts(29, &facts.code);
        }
        Key(parts.0.into())
    }

    fn asked(&mut self, (action, operation): Asked) {
        self.text(20, action.name());
        if let (Action::Operate, Some(operation)) = (action, operation) {
            self.text(30, operation);
        }
    }

    fn field(&mut self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, tag: u8, text: &str) {
        self.field(tag, text.as_bytes());
    }

    fn flags<const N: usize>(&mut self, tag: u8, flags: [bool; N]) {
        self.field(tag, &flags.map(u8::from));
    }

    /// A list: its length first, so that neighbours cannot run into each other.
    fn texts<'t>(&mut self, tag: u8, texts: impl IntoIterator<Item = &'t String>) {
        let texts: BTreeSet<&String> = texts.into_iter().collect();
        self.field(tag, &(texts.len() as u64).to_be_bytes());
        texts.into_iter().for_each(|text| self.text(tag, text));
    }
}
