//! Evidence that an interaction may be asked, and the judge of each record that comes back or is written.
//!
//! Owns: [`Permit`], made only by [`super::admit`]. Must never: release or change a record on anything but its
//! own full content. Look next: `masks`, where decisions are made and kept; `gateway`, which asks here.

use super::denial::{Denial, RecordDenial};
use super::engine::Record;
use super::masks::{Change, Desk, Disclosure};
use super::relation::{Relation, Relations};
use super::scopes::Narrowing;
use super::set::Action;
use super::situation::{About, in_patient_compartment, subjects};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::mask::Mask;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Leave to ask upstream, and the judge of every record of the answer.
#[must_use]
#[derive(Clone)]
pub struct Permit {
    pub(super) desk: Arc<Desk>,
    pub(super) narrowing: Arc<Narrowing>,
    /// What was asked.
    pub(super) action: Action,
    /// As what each record of the answer is judged: a write's representation is read.
    pub(super) shown_by: Action,
    /// The letter of scopes under which each record of the answer must be left open.
    pub(super) letter: char,
    pub(super) wanted: Wanted,
    /// A record that the whole answer rests on.
    pub(super) basis: Option<Basis>,
    pub(super) policies: Arc<[String]>,
    /// Every record gets the same answer.
    pub(super) settled: bool,
    /// Elements outward, over all records of the type.
    pub(super) show: Arc<Mask>,
    /// Elements inward, over all records of the type.
    pub(super) modify: Arc<Mask>,
    /// The search that a conditional header or URL asks.
    pub(super) matching: Option<Box<Permit>>,
    /// Elements of which one must name the owner of the compartment searched.
    pub(super) membership: Vec<ElementPath>,
    pub(super) may_create: bool,
    pub(super) hidden: Hidden,
    /// How the caller stands to the patients of what is being judged; nobody knows until they are known.
    pub(super) known: Option<Arc<Relations>>,
}

/// What may stand in the answer.
#[derive(Clone)]
pub(super) enum Wanted {
    /// One record; without a version, any version of it. Each must disclose these elements.
    One { resource: ResourceType, id: String, version: Option<String>, reads: BTreeSet<ElementPath> },
    /// Rows of these types; each must disclose these elements, because the question read them.
    Rows { resource: Option<ResourceType>, reads: Reads },
    /// What a write or an operation gives back, whatever its id. `readable`: the scopes let it be read.
    /// `target`: the record written, if the request names it.
    Output { resource: ResourceType, reads: Reads, readable: bool, target: Option<String> },
    /// No record at all.
    Nothing { resource: ResourceType },
}

/// Elements that a question reads, by type.
pub(super) type Reads = BTreeMap<ResourceType, BTreeSet<ElementPath>>;

/// A record without which there is no answer: the patient of `$everything`, the group of an export.
#[derive(Clone)]
pub(super) struct Basis {
    pub resource: ResourceType,
    pub id: String,
    /// What the question reads of it.
    pub reads: BTreeSet<ElementPath>,
    /// The action to be permitted on it, beside reading it.
    pub action: Option<Action>,
}

/// Types whose names or identifiers the caller may not see, so that references must not show them either.
#[derive(Clone, Copy)]
pub(super) struct Hidden {
    pub names: &'static BTreeSet<ResourceType>,
    pub identifiers: &'static BTreeSet<ResourceType>,
}

static NOTHING_KNOWN: Relations = Relations::none();

static NOBODY: BTreeSet<ResourceType> = BTreeSet::new();

/// Patients, and those who stand for one.
static PEOPLE: LazyLock<BTreeSet<ResourceType>> = LazyLock::new(|| {
    ["Patient", "RelatedPerson", "Person"].into_iter().filter_map(ResourceType::from_name).collect()
});

/// What tells who a patient is.
static TELLING: LazyLock<[Option<ElementPath>; 2]> =
    LazyLock::new(|| ["Patient.name", "Patient.identifier"].map(|path| ElementPath::parse(path).ok()));

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("action", &self.action)
            .field("resource", &self.resource_type().map(ResourceType::name))
            .finish_non_exhaustive()
    }
}

impl Permit {
    /// The type read, searched or written; none for what spans types (system history, system export).
    #[must_use]
    pub fn resource_type(&self) -> Option<ResourceType> {
        match &self.wanted {
            Wanted::One { resource, .. } | Wanted::Output { resource, .. } | Wanted::Nothing { resource } => {
                Some(*resource)
            }
            Wanted::Rows { resource, .. } => *resource,
        }
    }

    /// The types whose records may stand in the answer: those that upstream may be asked for.
    #[must_use]
    pub fn types(&self) -> BTreeSet<ResourceType> {
        match &self.wanted {
            Wanted::One { resource, .. } | Wanted::Output { resource, .. } => BTreeSet::from([*resource]),
            Wanted::Nothing { .. } => BTreeSet::new(),
            Wanted::Rows { reads, .. } => {
                let open = |resource: &ResourceType| {
                    self.desk.view(self.shown_by, *resource).is_ok_and(|view| view.is_open())
                };
                reads.keys().copied().filter(open).collect()
            }
        }
    }

    /// Whether no record of a type is withheld from an answer of rows, whatever it says: then whether there are any,
    /// and how many, is no secret.
    #[must_use]
    pub fn releases_every(&self, resource: ResourceType) -> bool {
        let Wanted::Rows { reads, .. } = &self.wanted else { return false };
        let Some(reads) = reads.get(&resource) else { return false };
        let view = self.desk.view(self.shown_by, resource);
        let settled =
            view.is_ok_and(|view| view.settled && reads.iter().all(|path| view.definite.covers(path)));
        settled && self.narrowing.patient().is_none() && self.narrowing.allows_every(resource, self.letter)
    }

    /// The record that the whole answer rests on: the patient of `$everything`, the group of an export. It must be
    /// read first, and unless [`Permit::rests_on`] holds, the answer is that of a missing record.
    #[must_use]
    pub fn basis(&self) -> Option<(ResourceType, &str)> {
        self.basis.as_ref().map(|basis| (basis.resource, basis.id.as_str()))
    }

    /// Ids of the policies that permit the type without looking at a record, sorted; empty if all that
    /// permit it look at the record. A released record's own are in [`Disclosure::policies`].
    #[must_use]
    pub fn policies(&self) -> &[String] {
        &self.policies
    }

    /// The version of the policies that decided: [`super::PolicySet::hash`].
    #[must_use]
    pub fn policy_hash(&self) -> &str {
        self.desk.set.hash()
    }

    /// The purpose of use that was decided for, `NONE` if none was stated.
    #[must_use]
    pub fn purpose(&self) -> &str {
        &self.desk.situation.purpose
    }

    /// Whether a policy that permits the type without looking at a record lets it be written into the journal's reserve.
    #[must_use]
    pub fn uses_reserve(&self) -> bool {
        self.desk.set.uses_reserve(&self.policies)
    }

    /// The one grant of emergency access under which an answer that holds no record may be written into the journal's
    /// reserve: a policy that applies to the question lets it be.
    #[must_use]
    pub fn reserve_of_nothing(&self) -> Option<&str> {
        let mut grants = self.desk.situation.emergencies.values();
        let grant = grants.next().filter(|_| grants.next().is_none())?;
        let resource = self.resource_type()?;
        let roles = &self.desk.situation.who.roles;
        self.desk.set.may_use_reserve(self.shown_by, resource, roles).then_some(grant.as_str())
    }

    /// Elements of the type that some record may disclose; empty where the answer spans types.
    #[must_use]
    pub fn type_mask(&self) -> &Arc<Mask> {
        &self.show
    }

    /// Elements of the type that some record lets be written: whatever else is written can be refused before
    /// upstream is asked. Empty unless this is a create, update or patch.
    #[must_use]
    pub fn may_modify(&self) -> &Arc<Mask> {
        &self.modify
    }

    /// For a create, and for an update if policy and scopes also permit creating the type: an update of a record
    /// that is not there may create it.
    #[must_use]
    pub fn may_create(&self) -> bool {
        self.may_create
    }

    /// The search asked by `If-None-Exist` or by a conditional update, patch or delete: the judge of its rows.
    #[must_use]
    pub fn matching(&self) -> Option<&Permit> {
        self.matching.as_deref()
    }

    /// For a search in a compartment: the elements by which a record may be in it and which the caller may see.
    /// A row belongs into the answer only if one of them, as shown, names the owner.
    #[must_use]
    pub fn compartment_paths(&self) -> &[ElementPath] {
        &self.membership
    }

    /// Whether records may be released or withheld one by one. Then a total, or an included record whose
    /// only referrer was withheld, would tell of what is withheld, and must not be passed on.
    #[must_use]
    pub fn depends_on_records(&self) -> bool {
        let many = matches!(&self.wanted, Wanted::Rows { reads, .. } if reads.len() > 1);
        let unreadable = matches!(&self.wanted, Wanted::Output { readable: false, .. });
        many || unreadable
            || !self.settled
            || !self.membership.is_empty()
            || self.basis.is_some()
            || self.narrowing.patient().is_some()
            || self.scopes_judge()
    }

    /// Whether scopes look at records, so that facts must bring their content ([`Facts::content`]); a record without
    /// it is withheld then.
    #[must_use]
    pub fn needs_content(&self) -> bool {
        self.narrowing.is_granular()
    }

    fn scopes_judge(&self) -> bool {
        let judged = |resource: &ResourceType| self.narrowing.judges(*resource, self.letter);
        match &self.wanted {
            Wanted::One { resource, .. } | Wanted::Output { resource, .. } => judged(resource),
            Wanted::Rows { reads, .. } => reads.keys().any(judged),
            Wanted::Nothing { .. } => false,
        }
    }

    /// The one patient whose records the token is for (SMART launch), if it is limited to one.
    #[must_use]
    pub fn launch_patient(&self) -> Option<&str> {
        self.narrowing.patient()
    }

    /// Types whose `name` the caller may not see: a reference to one must not carry `display`.
    #[must_use]
    pub fn hidden_names(&self) -> &BTreeSet<ResourceType> {
        self.hidden.names
    }

    /// Types whose `identifier` the caller may not see: a reference to one must not carry `identifier`.
    #[must_use]
    pub fn hidden_identifiers(&self) -> &BTreeSet<ResourceType> {
        self.hidden.identifiers
    }

    /// The same, knowing how the caller stands to the patients of the records that it is going to judge.
    pub fn knowing(&self, known: Relations) -> Self {
        Self { known: Some(Arc::new(known)), ..self.clone() }
    }

    /// The relations that this caller's decisions can depend on and that the EMR must be asked for.
    #[must_use]
    pub fn looks_up(&self) -> BTreeSet<Relation> {
        let asked = self.desk.set.relations(&self.desk.situation.who.roles);
        asked.into_iter().filter(|relation| relation.is_looked_up()).collect()
    }

    /// Logical ids of the patients whose relation to the caller the decisions on these records can depend on: of a
    /// write all who are named, since it may make a record name them.
    #[must_use]
    pub fn concerns<'f>(&self, facts: impl IntoIterator<Item = &'f Facts>) -> BTreeSet<String> {
        let writes = matches!(self.wanted, Wanted::Output { .. });
        let basis = self.basis.iter().filter(|basis| basis.resource.name() == "Patient");
        let mut all: BTreeSet<String> = basis.map(|basis| basis.id.clone()).collect();
        for facts in facts {
            all.extend(subjects(facts).map(str::to_owned));
            all.extend(people(facts).filter(|_| writes).cloned());
        }
        all
    }

    /// Decides one record of the answer on its full content. `container`: the facts of the record it is contained
    /// in, which lends it its patients and labels and speaks for whose it is. What a write gives back, and the
    /// record as it is before the write, are read.
    ///
    /// # Errors
    /// [`RecordDenial`]: the record must not leave; whoever asked learns nothing of it.
    pub fn record(&self, facts: &Facts, container: Option<&Facts>) -> Result<Disclosure, RecordDenial> {
        if container.is_none() && !self.asked_for(facts) {
            return Err(RecordDenial::NotAsked);
        }
        if matches!(self.wanted, Wanted::Output { readable: false, .. } | Wanted::Nothing { .. }) {
            return Err(RecordDenial::NotPermitted);
        }
        self.basis_permits()?;
        let disclosure = self.judged((self.shown_by, self.letter), facts, container, &BTreeSet::new())?;
        let shown = container.is_some() || self.reads(facts).all(|path| disclosure.mask().covers(path));
        if shown { Ok(disclosure) } else { Err(RecordDenial::CriterionWithheld) }
    }

    /// Decides a write on the record as it is (`before`: none for a create) and as it will be (`after`: none for
    /// a deletion), both on their full content. Both must permit it, and an element may be written only if both
    /// let it in. A patient whom only the record as it will be names must be the launch patient, if the token is
    /// for one, and the caller, if the permission is for what is about themselves (T-079, KF-47). An update
    /// without a record before is a create. `container` as in [`Permit::record`], for a record contained in the one
    /// written: there either side may be missing.
    ///
    /// # Errors
    /// [`RecordDenial`]: nothing may be written; [`RecordDenial::NotAsked`] if this is not the change permitted.
    pub fn change(
        &self,
        before: Option<&Facts>,
        after: Option<&Facts>,
        container: Option<&Facts>,
    ) -> Result<Change, RecordDenial> {
        let action = self.change_action(before, after, container).ok_or(RecordDenial::NotAsked)?;
        let asked = (action, letter_of(action));
        let known: BTreeSet<&String> = before.into_iter().chain(container).flat_map(people).collect();
        let added: BTreeSet<String> =
            after.into_iter().flat_map(people).filter(|one| !known.contains(one)).cloned().collect();
        let before =
            before.map(|facts| self.judged(asked, facts, container, &BTreeSet::new())).transpose()?;
        let after = after.map(|facts| self.judged(asked, facts, container, &added)).transpose()?;
        let (first, second) = match (before, after) {
            (Some(before), after) => (before, after),
            (None, Some(after)) => (after, None),
            (None, None) => return Err(RecordDenial::NotAsked),
        };
        let mut policies: BTreeSet<String> = first.policies().iter().cloned().collect();
        let mut basis: BTreeSet<String> = first.basis().iter().cloned().collect();
        let mut grant = first.grant().map(str::to_owned);
        let mut modify = Arc::clone(first.mask());
        if let Some(second) = second {
            policies.extend(second.policies().iter().cloned());
            basis.extend(second.basis().iter().cloned());
            grant = grant.or_else(|| second.grant().map(str::to_owned));
            modify = Arc::new(modify.and(second.mask()));
        }
        if action.elements().is_some() && modify.is_empty() {
            return Err(RecordDenial::NothingModifiable);
        }
        let (policies, basis) = (policies.into_iter().collect(), basis.into_iter().collect());
        Ok(Change { modify, policies, basis, grant })
    }

    /// As what a change is judged; `None` if it is not the one that was permitted.
    fn change_action(
        &self,
        before: Option<&Facts>,
        after: Option<&Facts>,
        container: Option<&Facts>,
    ) -> Option<Action> {
        let Wanted::Output { resource, target, .. } = &self.wanted else { return None };
        let writes = matches!(self.action, Action::Create | Action::Update | Action::Patch);
        if container.is_some() {
            return writes.then_some(self.action);
        }
        let of_target = |facts: &Facts| {
            let other = |id: &String| target.as_ref().is_some_and(|target| target != id);
            facts.resource_type == *resource && !facts.id.as_ref().is_some_and(other)
        };
        if !before.into_iter().chain(after).all(of_target) {
            return None;
        }
        match (self.action, before, after) {
            (Action::Create, None, Some(_)) => Some(Action::Create),
            (Action::Update, None, Some(_)) => self.may_create.then_some(Action::Create),
            (Action::Update | Action::Patch, Some(_), Some(_)) => Some(self.action),
            (Action::Delete, Some(_), None) => Some(Action::Delete),
            _ => None,
        }
    }

    /// One record, for one action under one letter of scopes. `added`: patients whom the change would make it name.
    fn judged(
        &self,
        (action, letter): (Action, char),
        facts: &Facts,
        container: Option<&Facts>,
        added: &BTreeSet<String>,
    ) -> Result<Disclosure, RecordDenial> {
        let resource = facts.resource_type;
        if self.lacks_status(facts) {
            return Err(RecordDenial::StatusMissing);
        }
        // What is contained is left open with the record that contains it.
        let judged = container.is_none() && self.narrowing.judges(resource, letter);
        if judged && !self.narrowing.holds_for(letter, facts) {
            return Err(RecordDenial::OutsideScopes);
        }
        let situation = &self.desk.situation;
        let known = self.known.as_deref().unwrap_or(&NOTHING_KNOWN);
        let grant = situation.emergency(container.unwrap_or(facts), added);
        let facts = match container {
            None => Cow::Borrowed(facts),
            Some(container) => Cow::Owned(contained(facts, container)),
        };
        let about = match container {
            None => About::whole(action, &facts),
            Some(container) => About { action, record: container, part: Some(&facts) },
        };
        let relations = situation.relations(about, added, known);
        if let Some(patient) = self.narrowing.patient() {
            let compartment = in_patient_compartment(container.map_or(resource, |c| c.resource_type));
            let within = situation.within_launch(patient, &facts, compartment);
            if !within || added.iter().any(|other| other != patient) {
                return Err(RecordDenial::OutsideLaunch);
            }
        }
        let record = Record { facts: &facts, relations, emergency: false };
        let plain = self.desk.judge(action, &record);
        match grant {
            None => plain,
            Some(grant) => {
                let urgent = self.desk.judge(action, &Record { emergency: true, ..record });
                let reserve = urgent.as_ref().ok().filter(|one| self.desk.set.uses_reserve(one.policies()));
                let reserve = reserve.map(|one| Arc::clone(one.mask()));
                at_most_needed(plain, urgent, grant).map(|decided| match reserve {
                    // The emergency alone must let out as much.
                    Some(mask) if decided.mask().and(&mask).kept() == decided.mask().kept() => {
                        decided.reserved(grant)
                    }
                    Some(_) | None => decided,
                })
            }
        }
    }

    /// Decides the record that the whole answer rests on: whether it may be read, with what the question reads of
    /// it, and be operated on.
    ///
    /// # Errors
    /// [`RecordDenial`]: nothing may be answered; [`RecordDenial::NotAsked`] if it is not [`Permit::basis`].
    pub fn rests_on(&self, facts: &Facts) -> Result<(), RecordDenial> {
        let basis = self.basis.as_ref().filter(|basis| basis.is(facts)).ok_or(RecordDenial::NotAsked)?;
        if let Some(action) = basis.action {
            let _ = self.judged((action, self.letter), facts, None, &BTreeSet::new())?;
        }
        let disclosure = self.judged((Action::Read, 'r'), facts, None, &BTreeSet::new())?;
        let shown = basis.reads.iter().all(|path| disclosure.mask().covers(path));
        if shown { Ok(()) } else { Err(RecordDenial::CriterionWithheld) }
    }

    /// Whether the operation permitted may be done on this patient (a logical id), as far as can be told without the
    /// patient's own record: whether there is one must not show.
    ///
    /// # Errors
    /// [`RecordDenial`] as for a record.
    pub fn operates_on(&self, patient: &str) -> Result<(), RecordDenial> {
        let resource = self.resource_type().ok_or(RecordDenial::NotAsked)?;
        let mut facts = Facts::of_type(resource);
        facts.id = Some(patient.to_owned());
        facts.patients.insert(patient.to_owned());
        self.judged((self.action, 'r'), &facts, None, &BTreeSet::new()).map(|_| ())
    }

    /// Rows of an operation on one patient: it must be permitted on that patient, as far as can be told without
    /// the patient's own record.
    fn basis_permits(&self) -> Result<(), RecordDenial> {
        let Some((basis, action)) = self.basis.as_ref().and_then(|basis| Some((basis, basis.action?))) else {
            return Ok(());
        };
        let mut facts = Facts::of_type(basis.resource);
        facts.id = Some(basis.id.clone());
        facts.patients.insert(basis.id.clone());
        self.judged((action, self.letter), &facts, None, &BTreeSet::new()).map(|_| ())
    }

    /// What the question read of this record.
    fn reads(&self, facts: &Facts) -> impl Iterator<Item = &ElementPath> {
        let reads = match &self.wanted {
            Wanted::One { reads, .. } => Some(reads),
            Wanted::Rows { reads, .. } | Wanted::Output { reads, .. } => reads.get(&facts.resource_type),
            Wanted::Nothing { .. } => None,
        };
        reads.into_iter().flatten()
    }

    fn asked_for(&self, facts: &Facts) -> bool {
        match &self.wanted {
            Wanted::One { resource, id, version, .. } => {
                let version = version.as_deref();
                facts.resource_type == *resource
                    && facts.id.as_deref() == Some(id)
                    && (version.is_none() || facts.version.as_deref() == version)
            }
            Wanted::Rows { reads, .. } => facts.id.is_some() && reads.contains_key(&facts.resource_type),
            Wanted::Output { resource, .. } => facts.resource_type == *resource,
            Wanted::Nothing { .. } => false,
        }
    }

    fn lacks_status(&self, facts: &Facts) -> bool {
        let known = self.desk.set.vocabulary.record(facts.resource_type);
        facts.status.is_none() && known.is_none_or(|(_, has)| has.status_required)
    }
}

impl Basis {
    fn is(&self, facts: &Facts) -> bool {
        facts.resource_type == self.resource && facts.id.as_ref() == Some(&self.id)
    }
}

/// The letter of scopes for a change.
fn letter_of(action: Action) -> char {
    match action {
        Action::Create => 'c',
        Action::Delete => 'd',
        _ => 'u',
    }
}

/// Emergency access counts only where without it there would be less. A fault is a fault under either.
fn at_most_needed(
    plain: Result<Disclosure, RecordDenial>,
    urgent: Result<Disclosure, RecordDenial>,
    grant: &str,
) -> Result<Disclosure, RecordDenial> {
    match (plain, urgent) {
        (Err(fault), _) | (_, Err(fault)) if fault.is_alarm() => Err(fault),
        (Ok(plain), Ok(urgent)) if urgent.mask().and(plain.mask()).kept() == urgent.mask().kept() => {
            Ok(plain)
        }
        (_, Ok(urgent)) => Ok(urgent.under(grant)),
        (plain, Err(_)) => plain,
    }
}

/// Every patient a record is about or names.
fn people(facts: &Facts) -> impl Iterator<Item = &String> {
    facts.patients.iter().chain(&facts.mentions)
}

/// A contained record belongs to its container's patients and carries its labels. Its id is local to the
/// container, so it is no logical id that a policy could mean.
fn contained(facts: &Facts, container: &Facts) -> Facts {
    let mut facts = facts.clone();
    facts.id = None;
    facts.patients.join(&container.patients);
    facts.mentions.join(&container.mentions);
    facts.labels.join(&container.labels);
    facts
}

impl Hidden {
    /// A reference's display and identifier tell the name and number of whoever it points at (T-046). They are
    /// hidden where the caller may not see them in Patient records: for patients, and for those who stand for
    /// one. Names of staff are no secret of the record's.
    pub(super) fn of(desk: &Desk, narrowing: &Narrowing) -> Result<Self, Denial> {
        let patient = ResourceType::from_name("Patient").ok_or(Denial::NothingToDecide)?;
        let view = desk.view(Action::Read, patient)?;
        let open = view.is_open() && narrowing.allows_every(patient, 'r');
        let unless_shown = |element: &Option<ElementPath>| {
            let shows = element.as_ref().is_some_and(|path| open && view.possible.covers(path));
            if shows { &NOBODY } else { &*PEOPLE }
        };
        let [name, identifier] = &*TELLING;
        Ok(Hidden { names: unless_shown(name), identifiers: unless_shown(identifier) })
    }
}
