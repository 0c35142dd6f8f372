//! Reads the facts of records off the bound tape.
//!
//! Owns: which elements policy is told about, and how facts pass between containers and contained.
//! Must never: look at a mask; facts come from the full content.
//! Look next: `bind`, which calls this; `domain::fhir::facts`, the shape.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::bind::{Bound, Mark};
use super::scan::{Node, Shape, children};
use super::{Entry, EntryRequestText, EntryResponse, Envelope, Record, text};

/// DS4P: an element labelled where it stands.
const INLINE_LABEL: &str =
    "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-inline-sec-label";

impl Bound<'_> {
    /// What the string at this node says; none if it is no string.
    pub(super) fn text(&self, index: usize) -> Option<Cow<'_, str>> {
        let node = self.nodes.get(index).filter(|node| node.shape == Shape::Text)?;
        self.body.get(node.start as usize + 1..node.end as usize - 1).map(text::unescape)
    }

    /// Bytes of the value at this node.
    pub(super) fn bytes(&self, index: usize) -> usize {
        self.nodes.get(index).map_or(0, |node| (node.end - node.start) as usize)
    }

    /// The member that holds this element; of a primitive the value, not its twin.
    pub(super) fn member(&self, object: usize, name: &str) -> Option<usize> {
        let holds = |node: &Node| {
            node.marks & Mark::TWIN == 0 && node.element.is_some_and(|element| element.name == name)
        };
        children(&self.nodes, object).find(|(_, node)| holds(node)).map(|(at, _)| at)
    }

    /// What the member that holds this element says, as text.
    pub(super) fn says(&self, object: usize, name: &str) -> Option<Cow<'_, str>> {
        self.text(self.member(object, name)?)
    }

    /// The value at this node, or its items if it is an array.
    fn each(&self, index: usize) -> impl Iterator<Item = usize> {
        let array = self.nodes.get(index).is_some_and(|node| node.shape == Shape::Array);
        let items = children(&self.nodes, index).filter(move |_| array).map(|(at, _)| at);
        items.chain((!array).then_some(index))
    }

    /// Bare code and `system|code` of a Coding.
    fn coding(&self, index: usize, codes: &mut BTreeSet<String>) {
        let Some(code) = self.says(index, "code") else { return };
        if let Some(system) = self.says(index, "system") {
            codes.insert(format!("{system}|{code}"));
        }
        codes.insert(code.into_owned());
    }

    /// The codings of a code, Coding or CodeableConcept, single or repeated.
    fn codes(&self, object: usize, name: &str) -> BTreeSet<String> {
        let mut codes = BTreeSet::new();
        let Some(member) = self.member(object, name) else { return codes };
        for value in self.each(member) {
            if let Some(code) = self.text(value) {
                codes.insert(code.into_owned());
            }
            self.coding(value, &mut codes);
            for coding in self.member(value, "coding").into_iter().flat_map(|member| self.each(member)) {
                self.coding(coding, &mut codes);
            }
        }
        codes
    }
}

/// The labels in `security` of a Meta.
pub(super) fn meta_labels(bound: &Bound<'_>, meta: usize) -> BTreeSet<String> {
    bound.codes(meta, "security")
}

/// The label that an inline label extension holds; nothing for other extensions (T-052).
pub(super) fn inline_labels(bound: &Bound<'_>, extension: usize) -> BTreeSet<String> {
    let labelled = bound.says(extension, "url").is_some_and(|url| url == INLINE_LABEL);
    if labelled { bound.codes(extension, "value") } else { BTreeSet::new() }
}

/// Fills in what stands at the top of a record. References and labels were gathered on the way.
pub(super) fn read(bound: &mut Bound<'_>, record: usize) {
    let Some(index) = bound.records.get(record).map(|record| record.node) else { return };
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    let meta = bound.member(index, "meta");
    let of_meta = |name| owned(meta.and_then(|meta| bound.says(meta, name)));
    let (version, last_updated) = (of_meta("versionId"), of_meta("lastUpdated"));
    let (id, status) = (owned(bound.says(index, "id")), owned(bound.says(index, "status")));
    let (category, code) = (bound.codes(index, "category"), bound.codes(index, "code"));
    let Some(record) = bound.records.get_mut(record) else { return };
    let facts = &mut record.facts;
    // The id of a contained Patient is a fragment, not the logical id of anyone.
    if facts.resource_type.name() == "Patient" && !record.contained {
        facts.patients.extend(id.clone());
    }
    (facts.id, facts.version, facts.last_updated) = (id, version, last_updated);
    (facts.status, facts.category, facts.code) = (status, category, code);
}

/// Passes facts along: labels and patients down to what is contained, labels and mentions up.
/// Siblings do not colour each other. Containers stand before what they contain.
pub(super) fn settle(records: &mut [Record]) {
    let mut inner: Vec<(BTreeSet<String>, BTreeSet<String>)> =
        records.iter().map(|record| (record.facts.labels.clone(), record.facts.mentions.clone())).collect();
    for index in 0..records.len() {
        let container = records.get(index).and_then(|record| record.container);
        let Some(outer) = container.and_then(|container| records.get(container)) else { continue };
        let (patients, labels) = (outer.facts.patients.clone(), outer.facts.labels.clone());
        if let Some(record) = records.get_mut(index) {
            record.facts.patients.extend(patients);
            record.facts.labels.extend(labels);
        }
    }
    for index in (0..records.len()).rev() {
        let Some((labels, mentions)) = inner.get(index).cloned() else { continue };
        let container = records.get(index).and_then(|record| record.container);
        if let Some(outer) = container.and_then(|container| inner.get_mut(container)) {
            outer.0.extend(labels.iter().cloned());
            outer.1.extend(mentions.iter().cloned());
        }
        if let Some(record) = records.get_mut(index) {
            record.facts.labels.extend(labels);
            record.facts.mentions.extend(mentions);
        }
    }
}

/// The envelope of the Bundle at the root.
pub(super) fn envelope(bound: &Bound<'_>) -> Envelope {
    let text = |object, name| bound.says(object, name).map(Cow::into_owned);
    let items = |name| bound.member(0, name).into_iter().flat_map(|member| bound.each(member));
    let link = |at| Some((text(at, "relation")?, text(at, "url")?));
    let entry = |at| Entry {
        full_url: text(at, "fullUrl"),
        mode: bound.member(at, "search").and_then(|search| text(search, "mode")),
        record: bound.member(at, "resource").and_then(|resource| bound.record_at(resource)),
        request: bound.member(at, "request").map(|request| entry_request(bound, request)),
        response: bound.member(at, "response").map(|response| entry_response(bound, response)),
    };
    let total = bound.member(0, "total").and_then(|at| bound.nodes.get(at));
    let total = total.and_then(|node| bound.body.get(node.start as usize..node.end as usize));
    Envelope {
        kind: text(0, "type").unwrap_or_default(),
        total: total.and_then(|total| total.parse().ok()),
        links: items("link").filter_map(link).collect(),
        entries: items("entry").map(entry).collect(),
    }
}

fn entry_request(bound: &Bound<'_>, request: usize) -> EntryRequestText {
    let text = |name| bound.says(request, name).map(Cow::into_owned);
    EntryRequestText {
        method: text("method").unwrap_or_default(),
        url: text("url").unwrap_or_default(),
        if_none_exist: text("ifNoneExist"),
        if_match: text("ifMatch"),
        if_none_match: text("ifNoneMatch"),
        if_modified_since: text("ifModifiedSince"),
    }
}

fn entry_response(bound: &Bound<'_>, response: usize) -> EntryResponse {
    let text = |name| bound.says(response, name).map(Cow::into_owned);
    EntryResponse {
        status: text("status").unwrap_or_default(),
        location: text("location"),
        etag: text("etag"),
        last_modified: text("lastModified"),
    }
}

impl Bound<'_> {
    /// The record whose object stands at this node. Records are numbered in the order of the tape.
    pub(super) fn record_at(&self, node: usize) -> Option<usize> {
        self.records.binary_search_by_key(&node, |record| record.node).ok()
    }
}
