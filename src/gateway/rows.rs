//! Answers of many rows: searchsets and histories, page by page.
//!
//! Owns: the page a client gets. Its envelope is built anew from what is visible (T-059), it is refilled from the
//! EMR's following pages where rows are withheld, and it has a `next` only where a visible row follows, so that
//! neither fullness nor the number of pages tells of withheld rows (T-017), up to `REFILL_REQUESTS_MAX`. A long page
//! leaves in units, whose ends depend on what is shown alone.
//! Must never: let a row through that policy did not decide, or a total that counts withheld rows (T-016).
//! Look next: `release`, which decides each row; `page`, how a place in the rows is sealed into a link.

use super::draft::Draft;
use super::entries::{append_entry, deleted, push_item, split, version_members};
use super::intake::Intake;
use super::links::{self, Shown, in_compartment};
use super::outlet::Outlet;
use super::page::{self, Cursor};
use super::refusal::Refusal;
use super::release::{Judged, Release};
use super::standing;
use super::visit::Visit;
use super::{binary, operation};
use crate::domain::access::Permit;
use crate::domain::fhir::interaction::{HistoryScope, Interaction};
use crate::domain::fhir::shape::Shape;
use crate::domain::filter::{Entry, Envelope, Verdict};
use crate::domain::narrow::{self, Plan};
use crate::limits;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// One of the questions that a list of rows answers: a search of one type, or a history.
pub(super) struct Leg {
    /// Its place among all legs of the question, so that links stay true when policies change.
    pub(super) place: usize,
    pub(super) question: Interaction,
    pub(super) permit: Permit,
}

/// A list of rows to be answered.
pub(super) struct Listing<'q> {
    /// The whole question, as the client asked it; links are made of it.
    pub(super) question: &'q Interaction,
    pub(super) legs: Vec<Leg>,
    pub(super) cursor: Cursor,
    pub(super) shape: &'q Shape,
    /// Rows on a page, where the client said.
    pub(super) count: Option<usize>,
}

impl Listing<'_> {
    /// Whether rows may be withheld one by one, so that pages have to be refilled.
    pub(super) fn refills(&self) -> bool {
        let withholds = |leg: &Leg| match operation::is_everything(leg) {
            true => !links::shows_all(leg),
            false => may_withhold(&leg.permit) || binary::is_asked(&leg.question),
        };
        self.legs.len() > 1 || self.legs.iter().any(withholds)
    }

    fn is_history(&self) -> bool {
        matches!(self.question, Interaction::History(_))
    }

    /// The `Bundle.type` of the answer, and of the EMR's.
    fn kind(&self) -> &'static str {
        if self.is_history() { "history" } else { "searchset" }
    }

    /// Whether rows may leave before the last one is read: nothing but matches, in the EMR's order.
    fn passes(&self) -> bool {
        !self.legs.iter().any(|leg| links::includes(leg) || operation::is_everything(leg))
    }

    fn leg(&self, place: usize) -> Option<&Leg> {
        self.legs.iter().find(|leg| leg.place >= place)
    }

    /// The request for the rows at `at`. Where pages are refilled their length is ours to say: one row more than the
    /// client's page has, so that most pages need no second request to know whether a row follows.
    fn plan(&self, visit: &Visit<'_>, leg: &Leg, at: &Cursor) -> Result<Plan, Refusal> {
        match &at.link {
            Some(link) => page::plan(link, leg, &visit.gate.upstream_base, visit.gate.public.as_str()),
            None => {
                let rows = self.refills().then(|| self.page_rows().saturating_add(1));
                narrow::plan_rows(&leg.question, &leg.permit, rows).map_err(|_| Refusal::Internal)
            }
        }
    }

    /// Each record of a type's or the system's history costs a look at how it stands: such pages stay short.
    fn page_rows(&self) -> usize {
        if self.legs.iter().any(operation::is_everything) {
            return usize::MAX;
        }
        let wanted = self.count.unwrap_or(limits::PAGE_ROWS_DEFAULT);
        if self.is_history() { wanted.min(limits::PAGE_ROWS_DEFAULT) } else { wanted }
    }
}

/// Whether some record that policy lets the caller ask about may be withheld: because it depends on the record, or
/// because a modifier element that is not permitted withholds the record that has it (P7).
pub(super) fn may_withhold(permit: &Permit) -> bool {
    permit.depends_on_records() || !permit.type_mask().keeps_modifiers()
}

/// Releases one page of rows.
///
/// # Errors
/// [`Refusal::AnswerUnsound`] when the EMR answers with something else than rows.
pub(super) async fn page(
    visit: &Visit<'_>,
    listing: &Listing<'_>,
    mut outlet: Option<&mut Outlet>,
    draft: &Draft,
    release: &mut Release,
) -> Result<(), Refusal> {
    // The head of an answer says whether it rests on a grant, which is known at its end.
    let passes = outlet.as_deref().is_some_and(Outlet::passes) && listing.passes() && !visit.may_be_urgent();
    let mut sheet = Sheet::new(listing, passes);
    sheet.check_instance(visit).await?;
    let mut at = listing.cursor.clone();
    let mut asked = 0;
    while let Some(leg) = listing.leg(at.leg) {
        if leg.place > at.leg {
            at = Cursor::start(leg.place);
        }
        if asked >= limits::REFILL_REQUESTS_MAX {
            sheet.next = Some(at);
            break;
        }
        asked += 1;
        let plan = listing.plan(visit, leg, &at)?;
        let mut intake = if passes {
            Intake::open(visit, &plan, listing.kind()).await?
        } else {
            Intake::whole(visit, &plan).await?
        };
        let mut taken = Taken::All;
        let mut before = 0;
        while let Some(body) = intake.next(visit).await? {
            let judged = Judged::judge(visit, &body, &leg.permit, listing.shape, release).await?;
            sheet.look_up(visit, &judged, leg).await?;
            let turn = visit.turn(body.len()).await;
            taken = sheet.take(&judged, leg, &mut at, before, release)?;
            drop(turn);
            before += judged.envelope().map_or(0, |envelope| envelope.entries.len());
            for unit in std::mem::take(&mut sheet.units) {
                let Some(outlet) = outlet.as_deref_mut() else { return Err(Refusal::Internal) };
                outlet.unit(draft, unit).await?;
            }
            if matches!(taken, Taken::Full) {
                break;
            }
        }
        if let Some(frame) = intake.frame() {
            taken = sheet.follow(&frame);
        }
        match taken {
            Taken::Full => {
                sheet.next = Some(at);
                break;
            }
            Taken::More(link) => {
                at = Cursor { leg: leg.place, link: Some(link), skip: 0 };
                if !sheet.refills {
                    sheet.next = Some(at);
                    break;
                }
            }
            Taken::All => at = Cursor::start(leg.place + 1),
        }
    }
    let instance = matches!(listing.question, Interaction::History(history)
        if matches!(history.scope(), HistoryScope::Instance(..)));
    if instance && sheet.rows == 0 && sheet.next.is_none() && listing.cursor.is_start() {
        // A record of which no version is shown sounds like one that never was (T-088).
        return Err(Refusal::NotFound);
    }
    if let Some(leg) = listing.legs.iter().find(|leg| sheet.refills && operation::is_everything(leg)) {
        let lacking: Vec<String> = sheet.lacking.difference(&sheet.visible).cloned().collect();
        sheet.included = operation::bring(visit, leg, listing.shape, lacking, release).await?;
    }
    sheet.close(visit, release);
    Ok(())
}

/// What became of one page of the EMR's.
enum Taken {
    /// The client's page is full, and a visible row follows at the cursor.
    Full,
    /// All rows were looked at; the EMR has more behind this link.
    More(String),
    /// All rows were looked at, and there are no more.
    All,
}

/// The client's page while it is written.
struct Sheet<'l> {
    listing: &'l Listing<'l>,
    /// Whether rows may be withheld, so that pages are put together here.
    refills: bool,
    matches: Vec<u8>,
    included: Vec<(String, Vec<u8>)>,
    /// Rows shown as matches, or as versions.
    rows: usize,
    /// `Type/id` of the rows that are shown.
    visible: BTreeSet<String>,
    /// The rows of a patient's whole record, by reference.
    unordered: BTreeMap<String, Vec<u8>>,
    /// What they refer to, as they are shown.
    lacking: BTreeSet<String>,
    /// Of a history whose rows may be withheld: which records may be seen as they stand.
    standing: BTreeMap<String, bool>,
    total: Option<u64>,
    next: Option<Cursor>,
    /// Rows may leave in units, before the page is whole.
    passes: bool,
    /// Units that are full, each with its records.
    units: Vec<Release>,
    /// The first unit was made, so that what follows continues it.
    has_begun: bool,
}

/// Why a row is in a searchset. An `outcome` holds the EMR's own words and goes no further (T-162).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Match,
    Include,
}

impl Mode {
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        match entry.mode.as_deref() {
            None | Some("match") => Some(Self::Match),
            Some("include") => Some(Self::Include),
            Some(_) => None,
        }
    }

    /// The same, but in a patient's whole record what belongs to nobody is there because a record of theirs refers
    /// to it, whatever the EMR calls it. What belongs to the patient and is outside of the period asked for may be there
    /// because a withheld record refers to it: the gate brings what is shown refers to itself.
    fn here(leg: &Leg, judged: &Judged<'_>, entry: &Entry) -> Option<Self> {
        let facts = entry.record.and_then(|index| judged.facts(index));
        let named = Self::of(entry)?;
        match operation::is_of_patient(leg, facts) {
            None => Some(named),
            Some(true) if named == Self::Include && !links::shows_all(leg) => None,
            Some(true) => Some(Self::Match),
            Some(false) => Some(Self::Include),
        }
    }
}

impl<'l> Sheet<'l> {
    fn new(listing: &'l Listing<'l>, passes: bool) -> Self {
        Self {
            listing,
            refills: listing.refills(),
            matches: Vec::new(),
            included: Vec::new(),
            rows: 0,
            visible: BTreeSet::new(),
            unordered: BTreeMap::new(),
            lacking: BTreeSet::new(),
            standing: BTreeMap::new(),
            total: None,
            next: None,
            passes,
            units: Vec::new(),
            has_begun: false,
        }
    }

    /// The history of a record that may not be seen as it stands is that of none, whatever rows are asked for.
    async fn check_instance(&mut self, visit: &Visit<'_>) -> Result<(), Refusal> {
        let Interaction::History(history) = self.listing.question else { return Ok(()) };
        let HistoryScope::Instance(resource, id) = history.scope() else { return Ok(()) };
        if !self.refills {
            return Ok(());
        }
        let stands = standing::stands(visit, *resource, id.as_str()).await?;
        self.standing.insert(format!("{}/{}", resource.name(), id.as_str()), stands);
        if stands { Ok(()) } else { Err(Refusal::NotFound) }
    }

    /// How the records of a history's page stand, where one can be withheld.
    async fn look_up(&mut self, visit: &Visit<'_>, judged: &Judged<'_>, leg: &Leg) -> Result<(), Refusal> {
        if !self.listing.is_history() || !self.refills {
            return Ok(());
        }
        for entry in judged.envelope().map(|envelope| envelope.entries.as_slice()).unwrap_or_default() {
            let named = match entry.record {
                Some(index) => judged.seen(index).is_some().then(|| judged.reference(index)),
                None => deleted(entry),
            };
            let Some(reference) = named.filter(|reference| !self.standing.contains_key(reference)) else {
                continue;
            };
            let Some((resource, id)) = split(&reference).filter(|(one, _)| leg.permit.types().contains(one))
            else {
                continue;
            };
            let stands = standing::stands(visit, resource, id).await?;
            self.standing.insert(reference, stands);
        }
        Ok(())
    }

    /// Whether the versions of this record may be shown, each by its own verdict.
    fn stands(&self, reference: &str) -> bool {
        !self.listing.is_history() || !self.refills || self.standing.get(reference).copied().unwrap_or(false)
    }

    /// Takes what is visible of one batch of the EMR's page, `before` rows into it, from `at.skip` on; moves `at` to where it
    /// stopped.
    fn take(
        &mut self,
        judged: &Judged<'_>,
        leg: &Leg,
        at: &mut Cursor,
        before: usize,
        release: &mut Release,
    ) -> Result<Taken, Refusal> {
        let envelope = judged.envelope().filter(|envelope| envelope.kind == self.listing.kind());
        let envelope = envelope.ok_or(Refusal::AnswerUnsound)?;
        let verdicts = judged.verdicts();
        let mut leading = Vec::new();
        let mut full = false;
        for (place, entry) in envelope.entries.iter().enumerate().skip(at.skip.saturating_sub(before)) {
            if Mode::here(leg, judged, entry) != Some(Mode::Match) {
                continue;
            }
            let page_is_full = self.refills && self.rows >= self.listing.page_rows();
            if page_is_full {
                if self.would_show(judged, leg, entry, &verdicts) {
                    at.skip = before + place;
                    full = true;
                    break;
                }
                release.withheld += 1;
                continue;
            }
            leading.extend(self.show_row(judged, leg, entry, &verdicts, release));
            self.fill_unit(release);
        }
        if !self.passes {
            self.show_includes(judged, envelope, leading, &verdicts, leg, release);
        }
        if full { Ok(Taken::Full) } else { Ok(self.follow(envelope)) }
    }

    /// What the EMR says beside its rows: how many there are, and whether more follow.
    fn follow(&mut self, envelope: &Envelope) -> Taken {
        self.total = envelope.total;
        let next = envelope.links.iter().find(|(relation, _)| relation == "next");
        next.map_or(Taken::All, |(_, link)| Taken::More(link.clone()))
    }

    /// Puts the rows so far aside as a unit when there are enough of them: by what is shown alone.
    fn fill_unit(&mut self, release: &mut Release) {
        if !self.passes || self.matches.len() < limits::LIST_UNIT_BYTES {
            return;
        }
        let mut unit = std::mem::take(release);
        unit.body = self.opened();
        self.units.push(unit);
    }

    /// The rows so far, behind those of the units before, or behind the beginning of the Bundle.
    fn opened(&mut self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.matches.len() + 64);
        let begun = std::mem::replace(&mut self.has_begun, true);
        if !begun {
            let kind = self.listing.kind();
            body.extend_from_slice(
                format!(r#"{{"resourceType":"Bundle","type":"{kind}","entry":["#).as_bytes(),
            );
        } else if !self.matches.is_empty() {
            body.push(b',');
        }
        body.append(&mut self.matches);
        body
    }

    fn would_show(&self, judged: &Judged<'_>, leg: &Leg, entry: &Entry, verdicts: &[Verdict<'_>]) -> bool {
        let mut scratch = Vec::new();
        match entry.record {
            Some(index) => {
                self.stands(&judged.reference(index))
                    && judged.write(index, verdicts, &mut scratch)
                    && in_compartment(leg, &scratch, judged.public())
                    && links::is_of_one(leg, &scratch, judged.public())
            }
            None => self.shown_deletion(entry, leg).is_some(),
        }
    }

    /// Shows one match or one version, unless it is withheld; gives it as it is shown.
    fn show_row(
        &mut self,
        judged: &Judged<'_>,
        leg: &Leg,
        entry: &Entry,
        verdicts: &[Verdict<'_>],
        release: &mut Release,
    ) -> Option<Shown> {
        let Some(index) = entry.record else {
            match self.shown_deletion(entry, leg) {
                Some(reference) => self.show_deletion(&reference, judged.public()),
                None => release.withheld += 1,
            }
            return None;
        };
        let reference = judged.reference(index);
        let mut record = Vec::with_capacity(judged.raw(index).len());
        let is_shown = self.stands(&reference)
            && judged.write(index, verdicts, &mut record)
            && in_compartment(leg, &record, judged.public())
            && links::is_of_one(leg, &record, judged.public());
        if !is_shown {
            release.withheld += 1;
            return None;
        }
        judged.note(index, release);
        let tail = if self.listing.is_history() {
            version_members(judged, index, entry)
        } else {
            r#","search":{"mode":"match"}"#.to_owned()
        };
        if self.refills && operation::is_everything(leg) {
            // The EMR's order may be that of references that are withheld.
            let item = self.unordered.entry(reference.clone()).or_default();
            item.clear();
            append_entry(item, judged.public(), &reference, &record, &tail);
        } else {
            append_entry(&mut self.matches, judged.public(), &reference, &record, &tail);
        }
        self.rows += 1;
        if self.passes {
            return None;
        }
        self.visible.insert(reference.clone());
        // Read again only where it may lead to others.
        if links::includes(leg) { Shown::read(reference, record) } else { None }
    }

    /// Shows what the includes of the question bring to the rows that are shown (T-033). What the EMR gave as a match of the
    /// same page but stands on another page of the client's is included as well: had the EMR's page been ours, it would
    /// have included it.
    fn show_includes(
        &mut self,
        judged: &Judged<'_>,
        envelope: &Envelope,
        mut leading: Vec<Shown>,
        verdicts: &[Verdict<'_>],
        leg: &Leg,
        release: &mut Release,
    ) {
        if operation::is_everything(leg) && self.refills {
            // What the EMR adds and in which order may be due to withheld rows: the gate asks for it itself.
            leading.iter().for_each(|shown| shown.names(judged.public(), &mut self.lacking));
            return;
        }
        if !links::includes(leg) {
            return;
        }
        let mut waiting = Vec::new();
        for index in
            envelope.entries.iter().filter(|one| Mode::of(one).is_some()).filter_map(|one| one.record)
        {
            let mut record = Vec::new();
            let reference = judged.reference(index);
            let is_shown = !self.visible.contains(&reference)
                && judged.write(index, verdicts, &mut record)
                && links::is_of_one(leg, &record, judged.public());
            waiting.extend(Shown::read(reference, record).filter(|_| is_shown).map(|shown| (index, shown)));
        }
        let complete = operation::is_everything(leg) && !self.refills;
        let mut from_match = true;
        while !leading.is_empty() {
            let is_led_to = |candidate: &Shown| {
                complete
                    || leading
                        .iter()
                        .any(|from| links::leads(leg, from, candidate, from_match, judged.public()))
            };
            let (led_to, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, one)| is_led_to(one));
            waiting = rest;
            leading = Vec::with_capacity(led_to.len());
            for (index, shown) in led_to {
                judged.note(index, release);
                self.included.push((shown.reference.clone(), shown.bytes.clone()));
                leading.push(shown);
            }
            from_match = false;
        }
    }

    /// That a record was deleted is told to whoever may see what it was last (T-087).
    fn shown_deletion(&self, entry: &Entry, leg: &Leg) -> Option<String> {
        let reference = deleted(entry).filter(|reference| self.stands(reference))?;
        let (resource, _) = split(&reference)?;
        leg.permit.types().contains(&resource).then_some(reference)
    }

    fn show_deletion(&mut self, reference: &str, public: &str) {
        let entry = json!({
            "fullUrl": format!("{public}/{reference}"),
            "request": { "method": "DELETE", "url": reference },
            "response": { "status": "204" },
        });
        push_item(&mut self.matches, entry.to_string().as_bytes());
        self.rows += 1;
    }

    /// The Bundle: envelope, links, rows. R4 has no empty arrays: without a visible row there is no `entry`.
    fn close(mut self, visit: &Visit<'_>, release: &mut Release) {
        let public = &visit.gate.public;
        let mut links =
            vec![json!({ "relation": "self", "url": public.question_url(self.listing.question) })];
        let next = self.next.as_ref();
        if let Some(url) = next.and_then(|cursor| page::seal_next(visit, self.listing.question, cursor)) {
            links.push(json!({ "relation": "next", "url": url }));
        }
        let links = Value::Array(links);
        let total = self.total.filter(|_| !self.refills).map(|total| format!(r#","total":{total}"#));
        let total = total.unwrap_or_default();
        if self.has_begun {
            // What was known only at the end stands there: the order of members means nothing (RFC 8259 section 4).
            release.body = self.opened();
            release.body.extend_from_slice(format!(r#"]{total},"link":{links}}}"#).as_bytes());
            return;
        }
        let out = &mut release.body;
        let kind = self.listing.kind();
        out.extend_from_slice(
            format!(r#"{{"resourceType":"Bundle","type":"{kind}"{total},"link":{links}"#).as_bytes(),
        );
        for item in std::mem::take(&mut self.unordered).into_values() {
            push_item(&mut self.matches, &item);
        }
        if self.refills && !self.listing.legs.iter().all(links::shows_all) {
            // The order of what an EMR adds may be that of rows that are withheld.
            self.included.sort();
        }
        let mut brought = BTreeSet::new();
        for (reference, record) in std::mem::take(&mut self.included) {
            // A page put together from several may be brought a record twice, or as a match as well.
            if !self.visible.contains(&reference) && brought.insert(reference.clone()) {
                let tail = r#","search":{"mode":"include"}"#;
                append_entry(&mut self.matches, public.as_str(), &reference, &record, tail);
            }
        }
        let mut listed = HashSet::with_capacity(release.records.len());
        let is_new: Vec<bool> = release
            .records
            .iter()
            .map(|record| listed.insert((&record.reference, &record.version)))
            .collect();
        let mut is_new = is_new.into_iter();
        release.records.retain(|_| is_new.next().unwrap_or(true));
        if !self.matches.is_empty() {
            out.reserve(self.matches.len() + 64);
            out.extend_from_slice(br#","entry":["#);
            out.extend_from_slice(&self.matches);
            out.push(b']');
        }
        out.push(b'}');
    }
}
