//! What of the EMR's answer may leave: each record decided on its full content, then filtered.
//!
//! Owns: the way from an answer's bytes to the bytes and the list that the trail will hold.
//! Must never: pass a byte on that the filter did not emit.
//! Look next: `rows`, where many records make a page; `domain::filter`, which reads and emits; `domain::access`,
//! which decides.

use super::refusal::Refusal;
use super::visit::Visit;
use crate::domain::access::{Disclosure, Permit};
use crate::domain::audit;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use crate::domain::fhir::shape::Shape;
use crate::domain::filter::{self, Bases, Document, Envelope, FilterFault, References, RootType, Verdict};
use crate::domain::narrow::Expected;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What leaves, and what the trail says about it.
#[derive(Default)]
pub(super) struct Release {
    pub(super) body: Vec<u8>,
    pub(super) records: Vec<audit::Released>,
    pub(super) withheld: u64,
    pub(super) policies: BTreeSet<String>,
    /// How the caller stands to the patients, where policy asked.
    pub(super) basis: BTreeSet<String>,
    /// Grants of emergency access that records were decided under.
    pub(super) grants: BTreeSet<String>,
    /// Grants under which the records that are let out may stand in the journal's reserve.
    pub(super) reserve: BTreeSet<String>,
    /// A record is let out that may not.
    pub(super) unreserved: bool,
    /// `meta.versionId` and `meta.lastUpdated` of a single record, where they are disclosed.
    pub(super) version: Option<String>,
    pub(super) last_updated: Option<String>,
    /// A policy could not be evaluated for a record: somebody should look.
    pub(super) alarm: bool,
    /// The Binary in the answer goes with a record that the caller sees; any other Binary stays here (T-100).
    binary_is_owned: bool,
    masks: Masks,
}

impl Release {
    /// For an answer that may hold a Binary: the caller sees the record that it goes with.
    pub(super) fn of_owned_binary() -> Self {
        Self { binary_is_owned: true, ..Self::default() }
    }

    /// Takes what another one lists, and gives its bytes.
    pub(super) fn absorb(&mut self, other: Self) -> Vec<u8> {
        self.records.extend(other.records);
        self.policies.extend(other.policies);
        self.basis.extend(other.basis);
        self.grants.extend(other.grants);
        self.reserve.extend(other.reserve);
        self.unreserved |= other.unreserved;
        self.withheld += other.withheld;
        self.alarm |= other.alarm;
        other.body
    }
}

/// The masks of one answer, each made once: most records share one.
#[derive(Default)]
struct Masks {
    shaped: Vec<(Arc<Mask>, Arc<Mask>)>,
}

impl Masks {
    /// What policy permits and the client wants to see (T-034).
    fn shaped(&mut self, policy: &Arc<Mask>, shape: &Shape) -> Arc<Mask> {
        if matches!(shape, Shape::Whole) {
            return Arc::clone(policy);
        }
        if let Some((_, shaped)) = self.shaped.iter().find(|(known, _)| Arc::ptr_eq(known, policy)) {
            return Arc::clone(shaped);
        }
        let wanted = shape.mask(policy.resource_type());
        let shaped = wanted.map_or_else(|| Arc::clone(policy), |wanted| Arc::new(policy.and(&wanted)));
        self.shaped.push((Arc::clone(policy), Arc::clone(&shaped)));
        shaped
    }
}

/// A record's facts, with its content where the permit looks at it.
pub(super) fn facts_for(permit: &Permit, document: &Document<'_>, index: usize) -> Option<Facts> {
    if permit.needs_content() {
        return document.facts_with_content(index);
    }
    document.records().get(index).map(|record| record.facts.clone())
}

/// A record that may leave: what policy said of it, and what of that was asked for.
struct Decided {
    disclosure: Disclosure,
    shown: Arc<Mask>,
}

/// The EMR's answer, read and decided, before anything of it is emitted.
pub(super) struct Judged<'a> {
    document: Document<'a>,
    decided: Vec<Option<Decided>>,
    references: References,
    bases: Bases<'a>,
}

impl<'a> Judged<'a> {
    /// Reads an answer and decides each record in it.
    ///
    /// # Errors
    /// [`Refusal::AnswerUnsound`] if it is not one sound FHIR resource.
    pub(super) async fn judge(
        visit: &'a Visit<'_>,
        body: &'a [u8],
        permit: &Permit,
        shape: &Shape,
        release: &mut Release,
    ) -> Result<Self, Refusal> {
        let turn = visit.turn(body.len()).await;
        let document = read(body, &visit.bases())?;
        // What is waited for is waited for by others at work.
        drop(turn);
        let known = visit.relations(permit, document.records().iter().map(|record| &record.facts)).await;
        let knowing = known.map(|known| permit.knowing(known));
        let permit = knowing.as_ref().unwrap_or(permit);
        let _turn = visit.turn(body.len()).await;
        if let Some(shadow) = visit.gate.shadow.get() {
            shadow.records(permit, document.records().iter().map(|record| (&record.facts, record.container)));
        }
        let judged = Self::decide(document, visit.bases(), |_| Some(permit), shape, release);
        visit.used(release.grants.iter().map(String::as_str));
        Ok(judged)
    }

    /// As [`Self::judge`] for records outside anybody's visit: a line of a bulk answer. The permit knows already how the
    /// caller stands to its patients, as far as it is known.
    pub(super) fn judge_line(
        body: &'a [u8],
        bases: Bases<'a>,
        permit: &Permit,
        release: &mut Release,
    ) -> Result<Self, Refusal> {
        Ok(Self::decide(read(body, &bases)?, bases, |_| Some(permit), &Shape::Whole, release))
    }

    /// Decides each record, where each entry of a Bundle has a permit of its own, or none. `permits` takes the place
    /// of an entry.
    fn decide<'p>(
        document: Document<'a>,
        bases: Bases<'a>,
        permits: impl Fn(usize) -> Option<&'p Permit>,
        shape: &Shape,
        release: &mut Release,
    ) -> Self {
        let records = document.records();
        let places = entry_places(&document);
        let mut decided = Vec::with_capacity(records.len());
        let mut references = References::default();
        let mut known: Option<&Permit> = None;
        for (record, place) in records.iter().zip(places) {
            let Some(permit) = permits(place) else {
                decided.push(None);
                continue;
            };
            if !known.replace(permit).is_some_and(|known| std::ptr::eq(known, permit)) {
                references.hide_display.extend(permit.hidden_names().iter().copied());
                references.hide_identifier.extend(permit.hidden_identifiers().iter().copied());
            }
            let container = record.container.and_then(|index| records.get(index)).map(|outer| &outer.facts);
            if record.facts.resource_type.name() == "Binary" && !release.binary_is_owned {
                decided.push(None);
                continue;
            }
            let whole = permit.needs_content().then(|| document.facts_with_content(decided.len())).flatten();
            decided.push(match permit.record(whole.as_ref().unwrap_or(&record.facts), container) {
                Ok(disclosure) => {
                    release.grants.extend(disclosure.grant().map(str::to_owned));
                    let shown = release.masks.shaped(disclosure.mask(), shape);
                    Some(Decided { disclosure, shown })
                }
                Err(denial) => {
                    release.alarm |= denial.is_alarm();
                    None
                }
            });
        }
        Self { document, decided, references, bases }
    }

    /// A record's facts for a further decision under this permit.
    pub(super) fn facts_for(&self, permit: &Permit, index: usize) -> Option<Facts> {
        facts_for(permit, &self.document, index)
    }

    pub(super) fn facts(&self, index: usize) -> Option<&Facts> {
        self.document.records().get(index).map(|record| &record.facts)
    }

    /// Whether the answer is one record, and not an envelope of several.
    pub(super) fn is_single(&self) -> bool {
        self.document.root_type() == RootType::Single(0)
    }

    pub(super) fn envelope(&self) -> Option<&Envelope> {
        self.document.bundle()
    }

    pub(super) fn public(&self) -> &str {
        self.bases.public
    }

    /// What references must not tell.
    pub(super) fn references(&self) -> &References {
        &self.references
    }

    /// A record's own bytes, whole: for looking at what the caller is known to see of it.
    pub(super) fn raw(&self, index: usize) -> &[u8] {
        self.document.raw(index)
    }

    /// What policy alone lets out of a record.
    pub(super) fn seen(&self, index: usize) -> Option<&Arc<Mask>> {
        self.decided.get(index).and_then(Option::as_ref).map(|decided| decided.disclosure.mask())
    }

    /// What was decided of each record, in the filter's form.
    pub(super) fn verdicts(&self) -> Vec<Verdict<'_>> {
        self.decided
            .iter()
            .map(|decided| match decided {
                Some(Decided { disclosure, shown }) => {
                    Verdict::Release { mask: shown, complete: disclosure.mask().is_total() }
                }
                None => Verdict::Withhold,
            })
            .collect()
    }

    /// Emits one record into `release`, with what it contains; `false` when it is withheld.
    pub(super) fn emit(&self, index: usize, verdicts: &[Verdict<'_>], release: &mut Release) -> bool {
        if !self.write(index, verdicts, &mut release.body) {
            release.withheld += 1;
            return false;
        }
        self.note(index, release);
        true
    }

    /// Writes one record as it would leave, without letting it out; `false` when it is withheld.
    pub(super) fn write(&self, index: usize, verdicts: &[Verdict<'_>], out: &mut Vec<u8>) -> bool {
        self.document.emit(index, verdicts, &self.references, &self.bases, out).is_ok()
    }

    /// Lists a released record, and those inside it, for the trail. What is inside a record follows it.
    pub(super) fn note(&self, index: usize, release: &mut Release) {
        let inside = |at: &usize| *at == index || self.is_inside(*at, index);
        let reserve =
            self.decided.get(index).and_then(Option::as_ref).and_then(|one| one.disclosure.reserve());
        release.reserve.extend(reserve.map(str::to_owned));
        release.unreserved |= reserve.is_none();
        for at in (index..self.decided.len()).take_while(inside) {
            let record = self.document.records().get(at);
            let decided =
                self.decided.get(at).and_then(Option::as_ref).filter(|_| self.leaves_with_container(at));
            let Some((record, decided)) = record.zip(decided) else { continue };
            join(&mut release.policies, decided.disclosure.policies());
            join(&mut release.basis, decided.disclosure.basis());
            release.records.push(audit::Released {
                reference: self.reference(at),
                version: record.facts.version.clone(),
                patients: (*record.facts.patients).clone(),
                mask: Arc::clone(decided.shown.kept_shared()),
            });
        }
    }

    /// A contained record leaves only where its container shows what it contains, and never from a contained one.
    fn leaves_with_container(&self, at: usize) -> bool {
        let records = self.document.records();
        let Some(record) = records.get(at).filter(|record| record.contained) else { return true };
        let Some(outer) = record.container else { return true };
        let mask = self.decided.get(outer).and_then(Option::as_ref).map(|decided| &decided.shown);
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
    pub(super) fn reference(&self, index: usize) -> String {
        let Some(record) = self.document.records().get(index) else { return String::new() };
        let id = record.facts.id.as_deref().unwrap_or("");
        match record.container {
            Some(outer) => format!("{}#{id}", self.reference(outer)),
            None => [record.facts.resource_type.name(), "/", id].concat(),
        }
    }

    /// Whether an element of a record's meta is shown.
    pub(super) fn shows_meta(&self, index: usize, element: &str) -> bool {
        let Some(decided) = self.decided.get(index).and_then(Option::as_ref) else { return false };
        let name = decided.shown.resource_type().name();
        let path = ElementPath::parse(&format!("{name}.meta.{element}"));
        path.is_ok_and(|path| decided.shown.covers(&path))
    }

    /// `meta.versionId` and `meta.lastUpdated` of a record, where they are shown.
    pub(super) fn shown_version(&self, index: usize) -> (Option<String>, Option<String>) {
        let facts = self.facts(index);
        let version = facts.and_then(|facts| facts.version.clone());
        let updated = facts.and_then(|facts| facts.last_updated.clone());
        (
            version.filter(|_| self.shows_meta(index, "versionId")),
            updated.filter(|_| self.shows_meta(index, "lastUpdated")),
        )
    }
}

/// The patients whose relation to the caller the decision on a line can depend on; nobody's where it cannot be read,
/// which its judge says.
pub(super) fn concerned(body: &[u8], bases: &Bases<'_>, permit: &Permit) -> BTreeSet<String> {
    let document = filter::parse(body, bases);
    document.map(|all| permit.concerns(all.records().iter().map(|record| &record.facts))).unwrap_or_default()
}

fn read<'a>(body: &'a [u8], bases: &Bases<'_>) -> Result<Document<'a>, Refusal> {
    filter::parse(body, bases).map_err(unsound)
}

/// Adds what is not there yet: most records of an answer name the same.
fn join(all: &mut BTreeSet<String>, more: &[String]) {
    for one in more {
        if !all.contains(one) {
            all.insert(one.clone());
        }
    }
}

/// What the EMR sent cannot be taken apart: the log says why, and nobody outside hears it.
pub(super) fn unsound(fault: FilterFault) -> Refusal {
    tracing::warn!(%fault, "the upstream answer is unsound");
    Refusal::AnswerUnsound
}

/// For each record the place of the entry it stands in; 0 where there are no entries.
fn entry_places(document: &Document<'_>) -> Vec<usize> {
    let mut places = vec![0; document.records().len()];
    let entries = document.bundle().map(|envelope| envelope.entries.as_slice()).unwrap_or_default();
    for (place, entry) in entries.iter().enumerate() {
        if let Some(slot) = entry.record.and_then(|index| places.get_mut(index)) {
            *slot = place;
        }
    }
    let containers: Vec<Option<usize>> = document.records().iter().map(|record| record.container).collect();
    for (index, container) in containers.into_iter().enumerate() {
        // Containers come first, so theirs is known.
        let inherited = container.and_then(|outer| places.get(outer).copied());
        if let (Some(place), Some(slot)) = (inherited, places.get_mut(index)) {
            *slot = place;
        }
    }
    places
}

/// Releases the one record that was asked for.
///
/// # Errors
/// [`Refusal::NotFound`] when it is withheld; [`Refusal::AnswerUnsound`] when it is not what was asked for.
pub(super) async fn single(
    visit: &Visit<'_>,
    body: &[u8],
    expected: &Expected,
    permit: &Permit,
    shape: &Shape,
    release: &mut Release,
) -> Result<(), Refusal> {
    let judged = Judged::judge(visit, body, permit, shape, release).await?;
    let facts = judged.facts(0).ok_or(Refusal::AnswerUnsound)?;
    if !expected.is(facts) {
        return Err(Refusal::AnswerUnsound);
    }
    if !judged.emit(0, &judged.verdicts(), release) {
        return Err(Refusal::NotFound);
    }
    (release.version, release.last_updated) = judged.shown_version(0);
    Ok(())
}

/// Releases the one resource that an operation gives back.
///
/// # Errors
/// As [`single`].
pub(super) async fn output(
    visit: &Visit<'_>,
    body: &[u8],
    resource: ResourceType,
    permit: &Permit,
    release: &mut Release,
) -> Result<(), Refusal> {
    let judged = Judged::judge(visit, body, permit, &Shape::Whole, release).await?;
    let facts = judged.facts(0).ok_or(Refusal::AnswerUnsound)?;
    if facts.resource_type != resource || judged.envelope().is_some() {
        return Err(Refusal::AnswerUnsound);
    }
    if judged.emit(0, &judged.verdicts(), release) { Ok(()) } else { Err(Refusal::NotFound) }
}
