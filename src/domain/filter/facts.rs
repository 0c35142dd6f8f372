//! Reads the facts of records off the bound tape.
//!
//! Owns: which elements policy is told about, and how facts pass between containers and contained.
//! Must never: look at a mask; facts come from the full content.
//! Look next: `walk`, which calls this; `domain::fhir::facts`, the shape.

use std::borrow::Cow;

use super::keys::Word;
use super::reference::Bases;
use super::tape::{Told, View};
use super::{Entry, EntryRequestText, EntryResponse, Envelope, Record};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::texts::Texts;
use crate::limits;

/// DS4P: an element labelled where it stands.
const INLINE_LABEL: &str =
    "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-inline-sec-label";

/// Bare code and `system|code` of a Coding.
fn coding(view: View<'_>, index: usize, codes: &mut Texts) {
    let Some(code) = view.says(index, Word::Code) else { return };
    if let Some(system) = view.says(index, Word::System) {
        codes.insert(format!("{system}|{code}"));
    }
    codes.insert(code.into_owned());
}

/// The codings in a member that holds a code, Coding or CodeableConcept, single or repeated.
pub(super) fn codes(view: View<'_>, member: usize, codes: &mut Texts) {
    for value in view.each(member) {
        if let Some(code) = view.text(value) {
            codes.insert(code.into_owned());
        }
        coding(view, value, codes);
        for each in view.member(value, Word::Coding).into_iter().flat_map(|member| view.each(member)) {
            coding(view, each, codes);
        }
    }
}

/// The URL at this node is that of an inline label (T-052).
pub(super) fn is_inline_label(view: View<'_>, url: usize) -> bool {
    view.text(url).is_some_and(|url| url == INLINE_LABEL)
}

/// Sets that records share: what was gathered of a value, by its text.
#[derive(Default)]
pub(super) struct Sets {
    /// The patient referred to last, alone.
    patient: Texts,
    codes: Vec<(u32, u32, Texts)>,
}

/// So many sets of codes are found again.
const SETS: usize = 256;

impl Sets {
    fn one(&mut self, patient: &str) -> Texts {
        if self.patient.first().is_none_or(|known| known != patient) {
            self.patient = Texts::from_iter([patient.to_owned()]);
        }
        self.patient.clone()
    }

    fn codes(&mut self, view: View<'_>, member: usize) -> Texts {
        if self.codes.is_empty() {
            self.codes = vec![(0, 0, Texts::new()); SETS];
        }
        let (Some(node), raw) = (view.nodes.get(member), view.raw(member)) else { return Texts::new() };
        let Some(known) = self.codes.get_mut(place(raw)) else { return Texts::new() };
        if view.text.as_bytes().get(known.0 as usize..known.1 as usize) != Some(raw) {
            let mut found = Texts::new();
            codes(view, member, &mut found);
            *known = (node.start, node.end, found);
        }
        known.2.clone()
    }
}

/// Where the set of a value is kept: told by its length and by what stands towards its ends, where codings differ.
fn place(raw: &[u8]) -> usize {
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let middle = raw.get(raw.len() / 2..).and_then(|half| half.first_chunk());
    let end = raw.get(..raw.len().saturating_sub(8)).and_then(|rest| rest.last_chunk());
    let mixed = word(middle) ^ word(end).rotate_left(23) ^ raw.len() as u64;
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as usize
}

/// Adds what a value inside a record says of it.
pub(super) fn take(view: View<'_>, told: Told, bases: &Bases<'_>, sets: &mut Sets, facts: &mut Facts) {
    match told {
        Told::Labels(member) => codes(view, member as usize, &mut facts.labels),
        Told::Patient { reference, in_compartment } => {
            let Some(text) = view.text(reference as usize) else { return };
            let Some((_, id)) = bases.record(&text) else { return };
            let patient = sets.one(id);
            if in_compartment {
                facts.patients.join(&patient);
            }
            facts.mentions.join(&patient);
        }
    }
}

/// Finds what stands at the top of a record and is said of it: where, and which element. References and labels are
/// gathered on the way.
pub(super) fn top(view: View<'_>, record: usize, mut found: impl FnMut(usize, Word)) {
    for (at, word) in view.members(record) {
        match word {
            Word::Id | Word::Status | Word::Category | Word::Code => found(at, word),
            Word::Meta => {
                let said = |word| view.member(at, word).map(|at| (at, word));
                let said = [said(Word::VersionId), said(Word::LastUpdated)];
                said.into_iter().flatten().for_each(|(at, word)| found(at, word));
            }
            _ => {}
        }
    }
}

/// Adds one thing that stands at the top of a record.
pub(super) fn say(view: View<'_>, at: usize, word: Word, record: &mut Record, sets: &mut Sets) {
    let (facts, contained) = (&mut record.facts, record.contained);
    let text = || view.text(at).map(Cow::into_owned);
    match word {
        Word::Id => {
            facts.id = text();
            // The id of a contained Patient is a fragment, not the logical id of anyone.
            if facts.resource_type.name() == "Patient" && !contained {
                facts.patients.extend(facts.id.clone());
            }
        }
        Word::Status => facts.status = text(),
        Word::Category => facts.category = sets.codes(view, at),
        Word::Code => facts.code = sets.codes(view, at),
        Word::VersionId => facts.version = text(),
        Word::LastUpdated => facts.last_updated = text(),
        _ => {}
    }
}

/// Passes facts along: labels and patients down to what is contained, labels and mentions up.
/// Siblings do not colour each other. Containers stand before what they contain.
///
/// # Errors
/// The record at which more was passed down than `limits::INHERITED_TEXTS_MAX`: what each of many is given of much
/// would not fit into memory.
pub(super) fn settle(records: &mut [Record]) -> Result<(), usize> {
    if records.iter().all(|record| record.container.is_none()) {
        return Ok(());
    }
    let mut inherited = 0;
    let mut inner: Vec<(Texts, Texts)> =
        records.iter().map(|record| (record.facts.labels.clone(), record.facts.mentions.clone())).collect();
    for index in 0..records.len() {
        let container = records.get(index).and_then(|record| record.container);
        let Some(outer) = container.and_then(|container| records.get(container)) else { continue };
        let (patients, labels) = (outer.facts.patients.clone(), outer.facts.labels.clone());
        if let Some(record) = records.get_mut(index) {
            inherited += inherit(&mut record.facts.patients, &patients);
            inherited += inherit(&mut record.facts.labels, &labels);
        }
        if inherited > limits::INHERITED_TEXTS_MAX {
            return Err(index);
        }
    }
    for index in (0..records.len()).rev() {
        let Some((labels, mentions)) = inner.get(index).cloned() else { continue };
        let container = records.get(index).and_then(|record| record.container);
        if let Some(outer) = container.and_then(|container| inner.get_mut(container)) {
            outer.0.join(&labels);
            outer.1.join(&mentions);
        }
        if let Some(record) = records.get_mut(index) {
            record.facts.labels.join(&labels);
            record.facts.mentions.join(&mentions);
        }
    }
    Ok(())
}

/// Joins what is passed down, and tells how many texts that copied: none where there was nothing, for then it is shared.
fn inherit(own: &mut Texts, passed: &Texts) -> usize {
    let before = own.len();
    own.join(passed);
    if before == 0 { 0 } else { own.len() - before }
}

/// The envelope of the Bundle at the root.
pub(super) fn envelope(view: View<'_>, records: &[Record]) -> Envelope {
    let mut envelope = Envelope::default();
    for (at, word) in view.members(0) {
        tell(view, records, at, word, &mut envelope);
    }
    envelope
}

/// What one member of a Bundle says.
fn tell(view: View<'_>, records: &[Record], at: usize, word: Word, envelope: &mut Envelope) {
    let text = |object, word| view.says(object, word).map(Cow::into_owned);
    let link = |at| Some((text(at, Word::Relation)?, text(at, Word::Url)?));
    match word {
        Word::Type => envelope.kind = view.text(at).unwrap_or_default().into_owned(),
        Word::Total => {
            envelope.total = std::str::from_utf8(view.raw(at)).ok().and_then(|total| total.parse().ok());
        }
        Word::Link => envelope.links = view.each(at).filter_map(link).collect(),
        Word::Entry => {
            // There seldom are entries without records.
            envelope.entries = Vec::with_capacity(records.len());
            envelope.entries.extend(view.each(at).map(|at| entry(view, records, at)));
        }
        _ => {}
    }
}

/// One entry of a Bundle.
fn entry(view: View<'_>, records: &[Record], at: usize) -> Entry {
    let mut entry = Entry::default();
    for (at, word) in view.members(at) {
        match word {
            Word::FullUrl => entry.full_url = view.text(at).map(Cow::into_owned),
            Word::Search => entry.mode = view.says(at, Word::Mode).map(Cow::into_owned),
            Word::Resource => entry.record = record_at(records, at),
            Word::Request => entry.request = Some(entry_request(view, at)),
            Word::Response => entry.response = Some(entry_response(view, at)),
            _ => {}
        }
    }
    entry
}

fn entry_request(view: View<'_>, request: usize) -> EntryRequestText {
    let mut told = EntryRequestText::default();
    for (at, word) in view.members(request) {
        let text = || view.text(at).map(Cow::into_owned);
        match word {
            Word::Method => told.method = text().unwrap_or_default(),
            Word::Url => told.url = text().unwrap_or_default(),
            Word::IfNoneExist => told.if_none_exist = text(),
            Word::IfMatch => told.if_match = text(),
            Word::IfNoneMatch => told.if_none_match = text(),
            Word::IfModifiedSince => told.if_modified_since = text(),
            _ => {}
        }
    }
    told
}

fn entry_response(view: View<'_>, response: usize) -> EntryResponse {
    let mut told = EntryResponse::default();
    for (at, word) in view.members(response) {
        let text = || view.text(at).map(Cow::into_owned);
        match word {
            Word::Status => told.status = text().unwrap_or_default(),
            Word::Location => told.location = text(),
            Word::Etag => told.etag = text(),
            Word::LastModified => told.last_modified = text(),
            _ => {}
        }
    }
    told
}

/// The record whose object stands at this node. Records are numbered in the order of the tape.
pub(super) fn record_at(records: &[Record], node: usize) -> Option<usize> {
    records.binary_search_by_key(&node, |record| record.node).ok()
}
