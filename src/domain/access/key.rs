//! Cache keys that hold everything a decision used (T-212).
//!
//! Owns: the encoding, in which two different situations never look the same: every field has a tag and a
//! length. Must never: leave out something a policy of the set looks at; [`Uses`] says what that is.
//! Look next: `masks`, the cache.

use super::engine::Record;
use super::expression::{Attribute, Uses};
use super::set::{Action, PolicySet};
use super::situation::Situation;
use crate::domain::fhir::r4::ResourceType;
use std::sync::Arc;

/// Equal exactly if every used input is equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Stands for policy set and situation.
    situated: u64,
    action: Action,
    operation: Option<&'static str>,
    resource: ResourceType,
    /// Of a record: what is used of it.
    record: Option<Vec<u8>>,
}

impl Key {
    /// Its size in bytes, about.
    pub(super) fn len(&self) -> usize {
        size_of::<Self>() + self.record.as_ref().map_or(0, |record| record.len())
    }
}

/// Policy set and situation, as far as they are used: the same for all records of a request, and for most requests of
/// a person.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Situated(Vec<u8>);

/// Keys of one policy set and situation, for which a number stands.
#[derive(Clone)]
pub(super) struct KeyParts {
    situated: u64,
    uses: Arc<Uses>,
}

/// Which action a question is about, and for `operate` which operation. The action also says whether elements
/// are decided outward or inward, so that the two kinds of masks never meet under one key.
pub(super) type Asked = (Action, Option<&'static str>);

impl Situated {
    /// `uses`: what the set uses for these roles.
    pub(super) fn new(set: &PolicySet, situation: &Situation, uses: &Uses) -> Self {
        let mut to = Vec::with_capacity(512);
        text(&mut to, 1, set.hash());
        let urgent = !situation.emergencies.is_empty();
        flags(&mut to, 2, [situation.person, situation.phishing_resistant, urgent]);
        texts(&mut to, 3, &situation.who.roles);
        text(&mut to, 4, &situation.purpose);
        texts(&mut to, 5, situation.who.methods.iter());
        if uses.context.has(Attribute::Scopes) {
            let mut scopes: Vec<&String> = situation.who.scopes.iter().collect();
            scopes.sort();
            scopes.dedup();
            texts(&mut to, 6, scopes);
        }
        if uses.context.has(Attribute::Application) || !situation.person {
            text(&mut to, 7, situation.application());
        }
        if uses.context.has(Attribute::Binding) {
            text(&mut to, 19, situation.who.binding);
        }
        if uses.principal {
            text(&mut to, 8, &situation.who.issuer);
            text(&mut to, 9, &situation.who.subject);
            texts(&mut to, 10, &situation.who.fhir_user);
        }
        for limit in &uses.age_limits {
            field(&mut to, 11, &[situation.age_seconds.cmp(limit) as u8]);
        }
        if uses.age_itself {
            field(&mut to, 12, &situation.age_seconds.to_be_bytes());
        }
        if uses.context.has(Attribute::Now) {
            field(&mut to, 13, &situation.now.as_nanosecond().to_be_bytes());
        }
        if uses.context.has(Attribute::Network) {
            text(&mut to, 14, &situation.network.to_string());
        }
        Self(to)
    }

    /// Its bytes, no two of which are the same for two situations that differ in something used.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl KeyParts {
    /// `situated` stands for one [`Situated`] and never for another.
    pub(super) fn new(situated: u64, uses: Arc<Uses>) -> Self {
        Self { situated, uses }
    }

    /// A question about a whole type.
    pub(super) fn for_type(&self, asked: Asked, resource: ResourceType) -> Key {
        self.key(asked, resource, None)
    }

    /// A question about a record.
    pub(super) fn for_record(&self, asked: Asked, record: &Record<'_>) -> Key {
        let (uses, facts) = (&self.uses, record.facts);
        let reads = |attribute| uses.record.has(attribute);
        let mut to = Vec::with_capacity(128);
        if uses.context.has(Attribute::Relations) {
            field(&mut to, 22, &record.relations.bits().to_be_bytes());
        }
        if uses.context.has(Attribute::Emergency) {
            flags(&mut to, 31, [record.emergency]);
        }
        if uses.context.has(Attribute::Labels) || reads(Attribute::Labels) {
            texts(&mut to, 23, facts.labels.iter());
        }
        if uses.identity || reads(Attribute::Id) {
            texts(&mut to, 24, &facts.id);
        }
        if uses.identity || reads(Attribute::Patients) {
            texts(&mut to, 25, facts.patients.iter());
        }
        if reads(Attribute::Mentions) {
            texts(&mut to, 26, facts.mentions.iter());
        }
        if reads(Attribute::Status) {
            texts(&mut to, 27, &facts.status);
        }
        if reads(Attribute::Category) {
            texts(&mut to, 28, facts.category.iter());
        }
        if reads(Attribute::Code) {
            texts(&mut to, 29, facts.code.iter());
        }
        self.key(asked, facts.resource_type, Some(to))
    }

    fn key(&self, (action, operation): Asked, resource: ResourceType, record: Option<Vec<u8>>) -> Key {
        let operation = operation.filter(|_| action == Action::Operate);
        Key { situated: self.situated, action, operation, resource, record }
    }
}

/// Seven bits a byte, the least first; the last byte alone is below 128. No length is the beginning of another.
fn length(to: &mut Vec<u8>, mut left: usize) {
    loop {
        let [low, ..] = left.to_le_bytes();
        if left < 128 {
            return to.push(low);
        }
        to.push(low | 128);
        left >>= 7;
    }
}

fn bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    length(to, bytes.len());
    to.extend_from_slice(bytes);
}

fn field(to: &mut Vec<u8>, tag: u8, content: &[u8]) {
    to.push(tag);
    bytes(to, content);
}

fn text(to: &mut Vec<u8>, tag: u8, text: &str) {
    field(to, tag, text.as_bytes());
}

fn flags<const N: usize>(to: &mut Vec<u8>, tag: u8, flags: [bool; N]) {
    field(to, tag, &flags.map(u8::from));
}

/// A list in its order: how many there are first, so that neighbours cannot run into each other.
fn texts<'t, I>(to: &mut Vec<u8>, tag: u8, texts: I)
where
    I: IntoIterator<Item = &'t String, IntoIter: ExactSizeIterator>,
{
    let texts = texts.into_iter();
    to.push(tag);
    length(to, texts.len());
    texts.for_each(|text| bytes(to, text.as_bytes()));
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_length_is_the_beginning_of_another() {
        let lengths = (0..300).chain([16_383, 16_384, 16_385, 1 << 21, usize::MAX - 1, usize::MAX]);
        let written = |length| {
            let mut bytes = Vec::new();
            super::length(&mut bytes, length);
            bytes
        };
        let all: Vec<Vec<u8>> = lengths.map(written).collect();
        for (at, one) in all.iter().enumerate() {
            let begun =
                all.iter().enumerate().filter(|(other, bytes)| *other != at && bytes.starts_with(one));
            assert_eq!(begun.count(), 0, "{one:?}");
        }
    }
}
