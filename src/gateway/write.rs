//! Changes: create, update, patch, delete, and their conditional forms.
//!
//! Owns: the order of a change. The body is read strictly, the current version is fetched and judged, what the caller
//! cannot see is merged back from it, the result is judged again, the intent is written down, and only then the EMR
//! is asked, under `If-Match` (P5). A patch is applied here to what the caller sees, and is an update from then on.
//! Must never: forward a client's body or patch as it came, or ask the EMR to search on the client's behalf without
//! judging the criteria and every row (T-066 to T-070).
//! Look next: `domain::change`, which merges; `conclude`, what is heard of the EMR's answer; `bundle`, where the same
//! steps prepare a transaction.

use super::draft::Draft;
use super::refusal::Refusal;
use super::release::{Judged, Release, facts_for};
use super::reply::Answer;
use super::rows;
use super::visit::Visit;
use super::{conclude, count};
use crate::domain::access::{self, Permit, RecordDenial};
use crate::domain::audit;
use crate::domain::change::{self, ChangeRefusal, Sight, Tree};
use crate::domain::fhir::classify::{Asked, Return, Wishes};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::interaction::{Interaction, PatchFormat, Target};
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use crate::domain::fhir::search::Search;
use crate::domain::fhir::shape::Shape;
use crate::domain::filter::{self, Document, RootType};
use crate::domain::narrow::{self, Change, Expected};
use crate::edge::upstream::UpstreamError;
use crate::limits;
use bytes::Bytes;
use http::StatusCode;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A change that may be sent: judged, merged, with what the trail will say of it.
pub(super) struct Prepared {
    pub(super) permit: Permit,
    pub(super) change: Change,
    pub(super) written: audit::Written,
    /// The client named no version itself: a conflict may be tried again.
    pub(super) may_retry: bool,
}

/// What preparing came to.
pub(super) enum Ready {
    Send(Box<Prepared>),
    /// Nothing needs to be changed: a conditional create found the record that is there.
    Found {
        permit: Box<Permit>,
        resource: ResourceType,
        id: String,
    },
}

/// Answers a change of one record.
pub(super) async fn answer(
    visit: &Visit<'_>,
    asked: &Asked,
    body: &Bytes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let _turn = visit.gate.turns.take(std::iter::once(asked)).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        let prepared = match prepare(visit, asked, body, &BTreeMap::new(), draft).await? {
            Ready::Send(prepared) => prepared,
            Ready::Found { permit, resource, id } => {
                return conclude::found(visit, &permit, resource, &id, &asked.wishes, draft).await;
            }
        };
        let outcome = send(visit, &prepared, &asked.wishes, draft).await;
        let conflict = matches!(outcome, Err(Refusal::Conflict | Refusal::PreconditionFailed));
        if !conflict || !prepared.may_retry {
            return outcome;
        }
        if tries >= limits::WRITE_TRIES_MAX {
            // The client named no version: it was never theirs that failed.
            return Err(Refusal::Conflict);
        }
    }
}

async fn send(
    visit: &Visit<'_>,
    prepared: &Prepared,
    wishes: &Wishes,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    draft.decision.written = vec![prepared.written.clone()];
    let intended = visit.intend(draft).await?;
    let plan = narrow::plan_change(&prepared.change, &prepared.permit).map_err(|_| Refusal::Internal)?;
    let answer = visit.send(&plan, &intended).await.inspect_err(|refusal| {
        draft.unknown =
            matches!(refusal, Refusal::Upstream(error) if !UpstreamError::outcome_is_known(*error));
    })?;
    conclude::single(visit, prepared, answer, wishes, draft).await
}

/// Everything that comes before the intent. `places`: what entries of the same transaction will be called.
pub(super) async fn prepare(
    visit: &Visit<'_>,
    asked: &Asked,
    body: &Bytes,
    places: &BTreeMap<String, String>,
    draft: &mut Draft,
) -> Result<Ready, Refusal> {
    let permit = visit.admit(&asked.interaction, draft)?;
    let writer = Writer { visit, permit, wishes: &asked.wishes, places };
    match &asked.interaction {
        Interaction::Create { resource, if_none_exist } => {
            writer.create(*resource, if_none_exist.as_ref(), body, draft).await
        }
        Interaction::Update { resource, target } => {
            let sent = Sent::read(visit, *resource, body)?;
            match writer.target(target).await? {
                Some(id) => writer.update(*resource, &id, New::Record(Box::new(sent)), draft).await,
                None => writer.create_missing(*resource, sent, draft).await,
            }
        }
        Interaction::Patch { resource, target, format } => {
            writer.check_patch(*resource, *format, body)?;
            let id = writer.target(target).await?.ok_or(Refusal::NotFound)?;
            writer.update(*resource, &id, New::Patch(*format, body.clone()), draft).await
        }
        Interaction::Delete { resource, target } => {
            let id = writer.target(target).await?.ok_or(Refusal::NotFound)?;
            writer.delete(*resource, &id, draft).await
        }
        _ => Err(Refusal::Internal),
    }
}

/// The record in a client's body.
struct Sent {
    tree: Tree,
    facts: Facts,
}

/// What an existing record is to become.
enum New {
    Record(Box<Sent>),
    Patch(PatchFormat, Bytes),
}

impl Sent {
    fn read(visit: &Visit<'_>, resource: ResourceType, body: &Bytes) -> Result<Self, Refusal> {
        let bases = visit.bases();
        let document = filter::parse_sent(body, &bases).map_err(Refusal::BodyUnsound)?;
        // A batch or transaction at the root is a request, not a record that could be stored.
        let stored = matches!(document.root_type(), RootType::Single(_));
        let facts = document.records().first().filter(|_| stored).map(|record| record.facts.clone());
        let facts = facts.filter(|facts| facts.resource_type == resource).ok_or(Refusal::OtherType)?;
        let tree = Tree::parse(document.raw(0)).map_err(Refusal::Change)?;
        Ok(Self { tree, facts })
    }
}

struct Writer<'w> {
    visit: &'w Visit<'w>,
    permit: Permit,
    wishes: &'w Wishes,
    places: &'w BTreeMap<String, String>,
}

impl Writer<'_> {
    async fn create(
        self,
        resource: ResourceType,
        if_none_exist: Option<&Search>,
        body: &Bytes,
        draft: &mut Draft,
    ) -> Result<Ready, Refusal> {
        let sent = Sent::read(self.visit, resource, body)?;
        let mut unless = None;
        if let Some(search) = if_none_exist {
            // Who sees all hears the same from the EMR as from us; nobody else may have it answer them (T-066).
            unless = self.sees_all().then(|| search.canonical_query());
            match self.matches(search).await?.as_slice() {
                [] => {}
                [id] => {
                    return Ok(Ready::Found { permit: Box::new(self.permit), resource, id: id.clone() });
                }
                _ => return Err(Refusal::MultipleMatches),
            }
        }
        let mut ready = self.create_as(resource, None, sent, draft).await?;
        if let Ready::Send(prepared) = &mut ready {
            prepared.change.only_unless(unless);
        }
        Ok(ready)
    }

    /// A conditional update that found nothing: a create, if policy allows that too (R4 http.html, conditional update).
    async fn create_missing(
        self,
        resource: ResourceType,
        sent: Sent,
        draft: &mut Draft,
    ) -> Result<Ready, Refusal> {
        if !self.permit.may_create() {
            return Err(Refusal::NotFound);
        }
        let Some(id) = sent.facts.id.clone() else {
            return self.create_as(resource, None, sent, draft).await;
        };
        // An id of the client's own: never over a record that is there, whether it is visible or not.
        if self.sees_all() && self.visit.fetch(&self.permit, resource, &id).await?.is_some() {
            return Err(Refusal::Conflict);
        }
        self.update_missing(resource, &id, New::Record(Box::new(sent)), draft).await
    }

    /// Whether no record of the type can be withheld from this caller. Who does not see all must not learn from a
    /// create at an id of their choice that there is no record they do not see (T-065).
    fn sees_all(&self) -> bool {
        !rows::may_withhold(&self.permit)
    }

    async fn create_as(
        self,
        resource: ResourceType,
        id: Option<String>,
        mut sent: Sent,
        draft: &mut Draft,
    ) -> Result<Ready, Refusal> {
        self.point(&mut sent.tree, draft).await?;
        let image = sent.tree.print();
        let modify = self.judge_after(&image, None, true, draft).await?;
        let mut tree = change::accept(resource, &sent.tree, &modify).map_err(Refusal::Change)?;
        let patients = self.patients(&image)?;
        if let Some(id) = &id {
            tree = tree.with_id(id);
        }
        let reference = match &id {
            Some(id) => format!("{}/{id}", resource.name()),
            None => resource.name().to_owned(),
        };
        let mask = Arc::new(change::changed(resource, None, &tree));
        let written = audit::Written { reference, version: None, patients, mask };
        let change = Change::Create { resource, id, unless: None, body: Bytes::from(tree.print()) };
        Ok(Ready::Send(Box::new(Prepared { permit: self.permit, change, written, may_retry: false })))
    }

    /// The one record a change is for. For criteria: the one visible match, none, or a refusal for several. Where none
    /// is visible, no version that the client may have named is there (RFC 9110, 13.1.1), whether or not one is withheld.
    async fn target(&self, target: &Target) -> Result<Option<String>, Refusal> {
        match target {
            Target::Id(id) => Ok(Some(id.as_str().to_owned())),
            Target::Match(search) => match self.matches(search).await?.as_slice() {
                [] if self.wishes.if_match.is_some() => Err(Refusal::PreconditionFailed),
                [] => Ok(None),
                [id] => Ok(Some(id.clone())),
                _ => Err(Refusal::MultipleMatches),
            },
        }
    }

    /// The visible records that criteria match: none, one, or two for several.
    async fn matches(&self, search: &Search) -> Result<Vec<String>, Refusal> {
        let judge = self.permit.matching().ok_or(Refusal::Internal)?.clone();
        count::visible_ids(self.visit, search, judge).await
    }

    /// What the patch itself reads and writes must be open for the type, before anything is asked (T-071 to T-073).
    fn check_patch(&self, resource: ResourceType, format: PatchFormat, patch: &[u8]) -> Result<(), Refusal> {
        self.check_touches(resource, format, patch, self.permit.type_mask(), self.permit.may_modify())
    }

    fn check_touches(
        &self,
        resource: ResourceType,
        format: PatchFormat,
        patch: &[u8],
        seen: &Mask,
        modify: &Mask,
    ) -> Result<(), Refusal> {
        for touch in change::touches(resource, format, patch).map_err(Refusal::Change)? {
            let within = |mask: &Mask| ElementPath::parse(&touch.path).is_ok_and(|path| mask.covers(&path));
            if touch.reads && !within(seen) {
                return Err(Refusal::Change(ChangeRefusal::Withheld(touch.path)));
            }
            if touch.writes && !within(modify) {
                return Err(Refusal::Change(ChangeRefusal::NotWritable(touch.path)));
            }
        }
        Ok(())
    }

    async fn update(
        self,
        resource: ResourceType,
        id: &str,
        new: New,
        draft: &mut Draft,
    ) -> Result<Ready, Refusal> {
        if let New::Record(sent) = &new
            && sent.facts.id.as_deref().is_some_and(|sent| sent != id)
        {
            return Err(Refusal::OtherId);
        }
        let Some(current) = self.visit.fetch(&self.permit, resource, id).await? else {
            return self.update_missing(resource, id, new, draft).await;
        };
        // Whoever may change a Binary has to be merged with it; what is shown of it afterwards is another matter.
        let mut release = Release::of_owned_binary();
        let judged = Judged::judge(self.visit, &current, &self.permit, &Shape::Whole, &mut release).await?;
        let before = judged.facts_for(&self.permit, 0).ok_or(Refusal::AnswerUnsound)?;
        let expected = Expected::Record { resource, id: id.to_owned(), version: None };
        if !expected.is(&before) {
            return Err(Refusal::AnswerUnsound);
        }
        // Whoever cannot see a record hears of it what they would hear of none (T-163).
        let seen = Arc::clone(judged.seen(0).ok_or(Refusal::NotFound)?);
        let knowing = self.knowing([&before]).await;
        let change = knowing.change(Some(&before), Some(&before), None).map_err(missing)?;
        let mut full = Tree::parse(&current).map_err(|_| Refusal::AnswerUnsound)?;
        self.localise(&mut full);
        let mut view = Vec::new();
        if !judged.write(0, &judged.verdicts(), &mut view) {
            return Err(Refusal::NotFound);
        }
        self.check_version(&judged)?;
        let mut view = Tree::parse(&view).map_err(|_| Refusal::Internal)?;
        self.localise(&mut view);
        let mut sent = match new {
            // Content alone says nothing of the rest of a Binary: its labels and its context stay.
            New::Record(sent) if self.wishes.content.is_some() => {
                change::completed(sent.tree, &view, &["data", "contentType"])
            }
            New::Record(sent) => sent.tree,
            New::Patch(format, patch) => {
                self.check_touches(resource, format, &patch, &seen, change.modify())?;
                let patched = change::patch(resource, format, &patch, &view).map_err(Refusal::Change)?;
                filter::parse_sent(&patched.print(), &self.visit.bases()).map_err(Refusal::BodyUnsound)?;
                patched
            }
        };
        self.point(&mut sent, draft).await?;
        let sight = Sight { mask: &seen, references: judged.references(), view: &view };
        let proposed = change::merge_seen(resource, &full, &sent, &sight, change.modify());
        let proposed = proposed.map_err(Refusal::Change)?;
        let image = proposed.print();
        let contained = format!("{}.contained", resource.name());
        let nests = change::changed(resource, Some(&full), &proposed).contains(&contained);
        let modify = self.judge_after(&image, Some(&before), nests, draft).await?;
        // What the after-image lets in counts as well: a change of labels or subject must not widen it (T-078, T-079).
        let merged = change::merge_seen(resource, &full, &sent, &sight, &modify).map_err(Refusal::Change)?;
        let mut patients = self.patients(&image)?;
        patients.extend(before.patients.iter().cloned());
        let mask = Arc::new(change::changed(resource, Some(&full), &merged));
        let written = audit::Written {
            reference: format!("{}/{id}", resource.name()),
            version: before.version.clone(),
            patients,
            mask,
        };
        let change = Change::Update {
            resource,
            id: id.to_owned(),
            version: before.version,
            body: Bytes::from(merged.print()),
        };
        let may_retry = self.wishes.if_match.is_none();
        Ok(Ready::Send(Box::new(Prepared { permit: self.permit, change, written, may_retry })))
    }

    /// An update of a record that is not there: a create at that id, where policy allows it and nothing can be
    /// withheld (T-065).
    async fn update_missing(
        self,
        resource: ResourceType,
        id: &str,
        new: New,
        draft: &mut Draft,
    ) -> Result<Ready, Refusal> {
        match new {
            New::Record(sent)
                if self.permit.may_create() && self.sees_all() && self.wishes.if_match.is_none() =>
            {
                self.create_as(resource, Some(id.to_owned()), *sent, draft).await
            }
            New::Record(_) | New::Patch(..) => Err(Refusal::NotFound),
        }
    }

    async fn delete(self, resource: ResourceType, id: &str, draft: &mut Draft) -> Result<Ready, Refusal> {
        let current = self.visit.fetch(&self.permit, resource, id).await?.ok_or(Refusal::NotFound)?;
        let mut release = Release::of_owned_binary();
        let judged = Judged::judge(self.visit, &current, &self.permit, &Shape::Whole, &mut release).await?;
        let before = &judged.facts_for(&self.permit, 0).ok_or(Refusal::AnswerUnsound)?;
        let expected = Expected::Record { resource, id: id.to_owned(), version: None };
        if !expected.is(before) {
            return Err(Refusal::AnswerUnsound);
        }
        if !judged.write(0, &judged.verdicts(), &mut release.body) {
            return Err(Refusal::NotFound);
        }
        let change = self.knowing([before]).await.change(Some(before), None, None).map_err(missing)?;
        self.rests_on(&change, draft);
        self.check_version(&judged)?;
        let written = audit::Written {
            reference: format!("{}/{id}", resource.name()),
            version: before.version.clone(),
            patients: (*before.patients).clone(),
            mask: Arc::new(vec![resource.name().to_owned()]),
        };
        let change = Change::Delete { resource, id: id.to_owned(), version: before.version.clone() };
        let may_retry = self.wishes.if_match.is_none();
        Ok(Ready::Send(Box::new(Prepared { permit: self.permit, change, written, may_retry })))
    }

    /// The client's own `If-Match`, judged after the record was found to be theirs to change, and on the version that
    /// they see (T-089).
    fn check_version(&self, judged: &Judged<'_>) -> Result<(), Refusal> {
        let wanted = self.wishes.if_match.as_ref().map(|version| version.as_str());
        let (shown, _) = judged.shown_version(0);
        let same = wanted.is_none_or(|wanted| shown.as_deref() == Some(wanted));
        if same { Ok(()) } else { Err(Refusal::PreconditionFailed) }
    }

    /// The permit that knows how the caller stands to everybody these records are about or name.
    async fn knowing<'f>(&self, facts: impl IntoIterator<Item = &'f Facts>) -> Permit {
        let known = self.visit.relations(&self.permit, facts).await;
        known.map_or_else(|| self.permit.clone(), |known| self.permit.knowing(known))
    }

    fn rests_on(&self, change: &access::Change, draft: &mut Draft) {
        draft.decided_by(change.policies());
        draft.rests_on(change.basis());
        self.visit.used(change.grant());
        draft.decision.emergencies = self.visit.emergencies();
    }

    /// Judges what is about to be stored, with everything contained in it; gives what may be written of it.
    async fn judge_after(
        &self,
        image: &[u8],
        before: Option<&Facts>,
        nests: bool,
        draft: &mut Draft,
    ) -> Result<Arc<Mask>, Refusal> {
        let bases = self.visit.bases();
        // What was sent has been read strictly; what the EMR holds beside it may have elements of its own.
        let document = filter::parse(image, &bases).map_err(Refusal::BodyUnsound)?;
        let root = facts_for(&self.permit, &document, 0).ok_or(Refusal::Internal)?;
        let knowing = self.knowing(before.into_iter().chain([&root])).await;
        let change = knowing.change(before, Some(&root), None).map_err(refused)?;
        if nests {
            judge_contained(&knowing, &document)?;
        }
        self.rests_on(&change, draft);
        Ok(Arc::clone(change.modify()))
    }

    fn patients(&self, image: &[u8]) -> Result<std::collections::BTreeSet<String>, Refusal> {
        let bases = self.visit.bases();
        let document = filter::parse(image, &bases).map_err(Refusal::BodyUnsound)?;
        Ok(document.records().first().map(|record| (*record.facts.patients).clone()).unwrap_or_default())
    }

    /// References to records of ours are compared, and stored, without a base.
    fn localise(&self, tree: &mut Tree) {
        change::localise(tree, self.visit.gate.public.as_str());
        change::localise(tree, &self.visit.gate.upstream_base);
    }

    /// Makes references local, and resolves those by search with the caller's own eyes (T-070, KF-34).
    async fn point(&self, tree: &mut Tree, draft: &mut Draft) -> Result<(), Refusal> {
        self.localise(tree);
        let mut found = self.places.clone();
        for text in change::references(tree).into_iter().filter(|text| text.contains('?')) {
            if found.contains_key(&text) {
                continue;
            }
            let (resource, search) = self.visit.reference_search(&text)?;
            let judge = self.visit.admit(&Interaction::Search(search.clone()), draft)?;
            let ids = count::visible_ids(self.visit, &search, judge).await?;
            let [id] = ids.as_slice() else { return Err(Refusal::ReferenceUnresolved) };
            found.insert(text, format!("{}/{id}", resource.name()));
        }
        change::point(tree, &found);
        Ok(())
    }
}

fn judge_contained(permit: &Permit, document: &Document<'_>) -> Result<(), Refusal> {
    let records = document.records();
    for (index, record) in records.iter().enumerate() {
        let Some(container) = record.container.and_then(|outer| records.get(outer)) else { continue };
        let change = permit.change(None, Some(&record.facts), Some(&container.facts)).map_err(refused)?;
        if let Some(path) = document.outside(index, change.modify()) {
            return Err(Refusal::Change(ChangeRefusal::NotWritable(path)));
        }
    }
    Ok(())
}

/// A record that is there but not the caller's to change sounds like one that is not (T-163).
fn missing(denial: RecordDenial) -> Refusal {
    if denial.is_alarm() {
        tracing::error!("a policy could not be evaluated for a record that was to be changed");
    }
    Refusal::NotFound
}

/// What the caller sent may be told to be refused.
fn refused(denial: RecordDenial) -> Refusal {
    if denial.is_alarm() { Refusal::PolicyFault } else { Refusal::WriteDenied }
}

/// What a client wants to hear of a change.
pub(super) fn wants_record(wishes: &Wishes) -> bool {
    matches!(wishes.prefer, Return::Unstated | Return::Representation)
}

/// A status that says the EMR took the change.
pub(super) fn is_taken(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT)
}
