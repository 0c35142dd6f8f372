//! What of the EMR's answer may leave: each record decided on its full content, then filtered.
//!
//! Owns: the way from an answer's bytes to the bytes and the list that the trail will hold.
//! Must never: pass a byte on that the filter did not emit, or let the envelope of a Bundle through: it is
//! built anew from what is visible (T-059).
//! Look next: `domain::filter`, which reads and emits; `domain::access`, which decides.

use super::refusal::Refusal;
use crate::domain::access::{Disclosure, Permit};
use crate::domain::audit;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::ElementPath;
use crate::domain::filter::{self, Bases, Document, References, Verdict};
use crate::domain::narrow::Expected;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What leaves, and what the trail says about it.
#[derive(Default)]
pub(super) struct Release {
    pub(super) body: Vec<u8>,
    pub(super) records: Vec<audit::Released>,
    pub(super) withheld: u64,
    pub(super) policies: BTreeSet<String>,
    /// `meta.versionId` and `meta.lastUpdated` of a single record, where they are disclosed.
    pub(super) version: Option<String>,
    pub(super) last_updated: Option<String>,
    /// A policy could not be evaluated for a record: somebody should look.
    pub(super) alarm: bool,
    masks: Masks,
}

/// The masks of one answer as the trail lists them, each listed once: most records share one.
#[derive(Default)]
pub(super) struct Masks(Vec<(Arc<Mask>, Arc<Vec<String>>)>);

impl Masks {
    fn kept(&mut self, mask: &Arc<Mask>) -> Arc<Vec<String>> {
        if let Some((_, kept)) = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, mask)) {
            return Arc::clone(kept);
        }
        let kept = Arc::new(mask.kept());
        self.0.push((Arc::clone(mask), Arc::clone(&kept)));
        kept
    }
}

/// The EMR's answer, read and decided, before anything of it is emitted.
struct Judged<'a> {
    document: Document<'a>,
    decided: Vec<Option<Disclosure>>,
    references: References,
    bases: Bases<'a>,
}

impl<'a> Judged<'a> {
    fn judge(
        body: &'a [u8],
        bases: Bases<'a>,
        permit: &Permit,
        release: &mut Release,
    ) -> Result<Self, Refusal> {
        let document = filter::parse(body, &bases).map_err(|fault| {
            tracing::warn!(%fault, "the upstream answer is unsound");
            Refusal::AnswerUnsound
        })?;
        let records = document.records();
        let mut decided = Vec::with_capacity(records.len());
        for record in records {
            let container = record.container.and_then(|index| records.get(index)).map(|outer| &outer.facts);
            decided.push(match permit.record(&record.facts, container) {
                Ok(disclosure) => Some(disclosure),
                Err(denial) => {
                    release.alarm |= denial.is_alarm();
                    None
                }
            });
        }
        let references = References {
            hide_display: permit.hidden_names().clone(),
            hide_identifier: permit.hidden_identifiers().clone(),
        };
        Ok(Self { document, decided, references, bases })
    }

    fn facts(&self, index: usize) -> Option<&Facts> {
        self.document.records().get(index).map(|record| &record.facts)
    }

    /// What was decided of each record, in the filter's form.
    fn verdicts(&self) -> Vec<Verdict<'_>> {
        let decided = self.decided.iter().map(Option::as_ref);
        decided.map(|d| d.map_or(Verdict::Withhold, |d| Verdict::whole(d.mask()))).collect()
    }

    /// Emits one record into `release`, with what it contains; `false` when it is withheld.
    fn emit(&self, index: usize, verdicts: &[Verdict<'_>], release: &mut Release) -> bool {
        let emitted = self.document.emit(index, verdicts, &self.references, &self.bases, &mut release.body);
        if emitted.is_err() {
            release.withheld += 1;
            return false;
        }
        self.note(index, release);
        true
    }

    /// Lists a released record, and those inside it, for the trail. What is inside a record follows it.
    fn note(&self, index: usize, release: &mut Release) {
        let inside = |at: &usize| *at == index || self.is_inside(*at, index);
        for at in (index..self.decided.len()).take_while(inside) {
            let record = self.document.records().get(at);
            let disclosure =
                self.decided.get(at).and_then(Option::as_ref).filter(|_| self.leaves_with_container(at));
            let Some((record, disclosure)) = record.zip(disclosure) else { continue };
            release.policies.extend(disclosure.policies().iter().cloned());
            release.records.push(audit::Released {
                reference: self.reference(at),
                version: record.facts.version.clone(),
                patients: record.facts.patients.clone(),
                mask: release.masks.kept(disclosure.mask()),
            });
        }
    }

    /// A contained record leaves only where its container shows what it contains, and never from a contained one.
    fn leaves_with_container(&self, at: usize) -> bool {
        let records = self.document.records();
        let Some(record) = records.get(at).filter(|record| record.contained) else { return true };
        let Some(outer) = record.container else { return true };
        let mask = self.decided.get(outer).and_then(Option::as_ref).map(Disclosure::mask);
        let shows = mask.is_some_and(|mask| mask.cursor().child("contained").keeps());
        shows && !records.get(outer).is_some_and(|outer| outer.contained)
    }

    fn is_inside(&self, at: usize, outer: usize) -> bool {
        let mut container = self.document.records().get(at).and_then(|record| record.container);
        while let Some(index) = container {
            if index == outer {
                return true;
            }
            container = self.document.records().get(index).and_then(|record| record.container);
        }
        false
    }

    /// `Type/id`; for a contained record the containing one's, then `#id`.
    fn reference(&self, index: usize) -> String {
        let Some(record) = self.document.records().get(index) else { return String::new() };
        let id = record.facts.id.as_deref().unwrap_or("");
        match record.container {
            Some(outer) => format!("{}#{id}", self.reference(outer)),
            None => format!("{}/{id}", record.facts.resource_type.name()),
        }
    }
}

/// Releases the one record that was asked for.
///
/// # Errors
/// [`Refusal::NotFound`] when it is withheld; [`Refusal::AnswerUnsound`] when it is not what was asked for.
pub(super) fn single(
    body: &[u8],
    bases: Bases<'_>,
    expected: &Expected,
    permit: &Permit,
    release: &mut Release,
) -> Result<(), Refusal> {
    let judged = Judged::judge(body, bases, permit, release)?;
    let facts = judged.facts(0).ok_or(Refusal::AnswerUnsound)?;
    if !is_expected(facts, expected) {
        return Err(Refusal::AnswerUnsound);
    }
    if !judged.emit(0, &judged.verdicts(), release) {
        return Err(Refusal::NotFound);
    }
    let mask = judged.decided.first().and_then(Option::as_ref).map(Disclosure::mask);
    let shows = |element: &str| {
        let path = ElementPath::parse(&format!("{}.meta.{element}", facts.resource_type.name()));
        path.is_ok_and(|path| mask.is_some_and(|mask| mask.covers(&path)))
    };
    release.version = facts.version.clone().filter(|_| shows("versionId"));
    release.last_updated = facts.last_updated.clone().filter(|_| shows("lastUpdated"));
    Ok(())
}

/// Releases the visible records of a searchset in an envelope of our own. `link` turns the EMR's `next`
/// into the public one; `self_link` is what was asked.
///
/// # Errors
/// [`Refusal::AnswerUnsound`] when it is not a searchset.
pub(super) fn searchset(
    body: &[u8],
    bases: Bases<'_>,
    permit: &Permit,
    self_link: &str,
    next: impl Fn(&str) -> Option<String>,
    release: &mut Release,
) -> Result<(), Refusal> {
    let judged = Judged::judge(body, bases, permit, release)?;
    let envelope = judged.document.bundle().filter(|envelope| envelope.kind == "searchset");
    let envelope = envelope.ok_or(Refusal::AnswerUnsound)?;
    let mut links = vec![json!({ "relation": "self", "url": self_link })];
    let upstream_next = envelope.links.iter().find(|(relation, _)| relation == "next");
    if let Some(url) = upstream_next.and_then(|(_, url)| next(url)) {
        links.push(json!({ "relation": "next", "url": url }));
    }
    let links = Value::Array(links);
    release.body.extend_from_slice(br#"{"resourceType":"Bundle","type":"searchset","link":"#);
    release.body.extend_from_slice(links.to_string().as_bytes());
    let verdicts = judged.verdicts();
    let mut page = Page {
        judged: &judged,
        verdicts: &verdicts,
        release,
        visible: BTreeSet::new(),
        referred: BTreeSet::new(),
        follows: false,
        entries: 0,
    };
    let rows = |wanted| {
        let row = |entry: &filter::Entry| entry.record.zip(search_mode(entry.mode.as_deref()));
        envelope.entries.iter().filter_map(row).filter(move |(_, mode)| *mode == wanted)
    };
    page.follows = rows(Mode::Include).next().is_some();
    rows(Mode::Match).for_each(|(index, _)| page.show_match(index));
    rows(Mode::Include).for_each(|(index, _)| page.show_include(index));
    let entries = page.entries;
    // R4 has no empty arrays: without a visible record there is no `entry`.
    release.body.extend_from_slice(if entries > 0 { b"]}" } else { b"}" });
    Ok(())
}

/// The entries of a searchset while they are written.
struct Page<'p, 'a> {
    judged: &'p Judged<'a>,
    verdicts: &'p [Verdict<'p>],
    release: &'p mut Release,
    /// `Type/id` of the matches that are shown, and what they refer to as they are shown.
    visible: BTreeSet<String>,
    referred: BTreeSet<String>,
    entries: usize,
    /// Whether there are includes, so that references matter.
    follows: bool,
}

/// Why a row is in a searchset. An `outcome` holds the EMR's own words and goes no further (T-162).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Match,
    Include,
}

impl Page<'_, '_> {
    fn show_match(&mut self, index: usize) {
        let Some(record) = self.write(index, "match") else { return };
        self.visible.insert(self.judged.reference(index));
        collect_references(&record, self.judged.bases.public, &mut self.referred);
    }

    /// An included row is shown only beside a match that leads to it: otherwise it would tell of a match that is
    /// withheld, or of a reference that is (T-033).
    fn show_include(&mut self, index: usize) {
        let before = (self.release.body.len(), self.release.records.len(), self.entries);
        let Some(record) = self.write(index, "include") else { return };
        let mut refers = BTreeSet::new();
        collect_references(&record, self.judged.bases.public, &mut refers);
        let is_led_to = self.referred.contains(&self.judged.reference(index));
        if !is_led_to && refers.is_disjoint(&self.visible) {
            self.release.body.truncate(before.0);
            self.release.records.truncate(before.1);
            self.entries = before.2;
            self.release.withheld += 1;
        }
    }

    /// Writes one entry, and gives its record as it is shown (null where nobody asks); nothing when it is withheld.
    fn write(&mut self, index: usize, mode: &str) -> Option<Value> {
        let before = self.release.body.len();
        let url = json!(format!("{}/{}", self.judged.bases.public, self.judged.reference(index)));
        let opening = if self.entries == 0 { r#","entry":["# } else { "," };
        let head = format!(r#"{opening}{{"fullUrl":{url},"resource":"#);
        self.release.body.extend_from_slice(head.as_bytes());
        let start = self.release.body.len();
        if !self.judged.emit(index, self.verdicts, self.release) {
            self.release.body.truncate(before);
            return None;
        }
        let shown = self.release.body.get(start..).filter(|_| self.follows).unwrap_or_default();
        let record = serde_json::from_slice(shown).unwrap_or(Value::Null);
        let tail = format!(r#","search":{{"mode":"{mode}"}}}}"#);
        self.release.body.extend_from_slice(tail.as_bytes());
        self.entries += 1;
        Some(record)
    }
}

fn search_mode(mode: Option<&str>) -> Option<Mode> {
    match mode {
        None | Some("match") => Some(Mode::Match),
        Some("include") => Some(Mode::Include),
        Some(_) => None,
    }
}

/// Every `Reference.reference` of a record as `Type/id`: without our base and without a version.
fn collect_references(value: &Value, public: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| match member {
            Value::String(text) if name == "reference" => {
                let local =
                    text.strip_prefix(public).map_or(text.as_str(), |rest| rest.trim_start_matches('/'));
                found.insert(local.split("/_history/").next().unwrap_or(local).to_owned());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            Value::Array(_) | Value::Object(_) => collect_references(member, public, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, public, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The record is the one asked for: type, id and version (T-128, T-129).
fn is_expected(facts: &Facts, expected: &Expected) -> bool {
    let Expected::Record { resource, id, version } = expected else { return false };
    let version_fits = version.as_deref().is_none_or(|asked| facts.version.as_deref() == Some(asked));
    facts.resource_type == *resource && facts.id.as_deref() == Some(id) && version_fits
}
