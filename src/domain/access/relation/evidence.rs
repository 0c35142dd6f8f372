//! Records of the EMR as evidence: which relation a record proves, between whom, at this time.
//!
//! Owns: the rules of proof, one function a resource type. A search of the EMR's is never believed: status, period,
//! subject and participant of each record are looked at here. What is missing or cannot be read proves nothing.
//! Must never: hold on to a record, or read more of it than the rules need.
//! Look next: `mod.rs`, the relations; `gateway::relations`, which fetches the records.
//!
//! Sources: R4 careteam.html, encounter.html, appointment.html, practitionerrole.html, relatedperson.html,
//! patient.html. `active` that is absent counts as active, as these pages say.

use super::Relation;
use crate::domain::fhir::interaction::is_id;
use crate::domain::fhir::r4::ResourceType;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;

/// The caller in the EMR's words.
#[derive(Clone)]
pub struct Party {
    user: String,
    roles: BTreeSet<String>,
    organizations: BTreeSet<String>,
}

/// How near to now an encounter or appointment must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// A finished encounter counts for this long after its end; a planned one as long before its start.
    pub encounter: SignedDuration,
    /// An appointment counts this long before its start and after its end.
    pub appointment: SignedDuration,
}

/// One record, as far as the rules look at it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    resource_type: String,
    id: Option<String>,
    active: Option<bool>,
    status: Option<String>,
    period: Option<Period>,
    start: Option<String>,
    end: Option<String>,
    subject: Option<Reference>,
    patient: Option<Reference>,
    practitioner: Option<Reference>,
    organization: Option<Reference>,
    service_provider: Option<Reference>,
    managing_organization: Option<Manager>,
    #[serde(default)]
    general_practitioner: Vec<Reference>,
    #[serde(default)]
    participant: Vec<Participant>,
}

#[derive(Deserialize)]
struct Reference {
    reference: Option<String>,
}

/// `managingOrganization`: a Patient has one, a CareTeam may have several, which are not looked at.
#[derive(Deserialize)]
#[serde(untagged)]
enum Manager {
    One(Reference),
    Several(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Participant {
    member: Option<Reference>,
    individual: Option<Reference>,
    actor: Option<Reference>,
    status: Option<String>,
    period: Option<Period>,
}

#[derive(Deserialize)]
struct Period {
    start: Option<String>,
    end: Option<String>,
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence").field("resource_type", &self.resource_type).finish_non_exhaustive()
    }
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Party").field("roles", &self.roles.len()).finish_non_exhaustive()
    }
}

impl Party {
    /// A caller who is this resource (`fhirUser`, `Type/id`). Nobody else can stand in a relation that the EMR knows.
    #[must_use]
    pub fn new(fhir_user: &str) -> Option<Self> {
        let (kind, id) = fhir_user.split_once('/')?;
        let known = matches!(kind, "Practitioner" | "PractitionerRole" | "RelatedPerson");
        let party =
            || Self { user: fhir_user.to_owned(), roles: BTreeSet::new(), organizations: BTreeSet::new() };
        (known && crate::domain::fhir::interaction::is_id(id)).then(party)
    }

    /// The caller themselves, `Type/id`.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The caller and the roles they act in, each `Type/id`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.user.as_str()).chain(self.roles.iter().map(String::as_str))
    }

    /// The organisations they work for, each `Organization/id`.
    pub fn organizations(&self) -> impl Iterator<Item = &str> {
        self.organizations.iter().map(String::as_str)
    }

    /// Takes on a role that a PractitionerRole proves: the caller's, active, in its period.
    pub fn take_on(&mut self, role: &Evidence, base: &str, now: Timestamp) {
        let Some(id) = role.id.as_deref().filter(|_| role.resource_type == "PractitionerRole") else {
            return;
        };
        let own = format!("PractitionerRole/{id}");
        let is_theirs = own == self.user || points_at(role.practitioner.as_ref(), base, &self.user);
        if !is_theirs || role.active == Some(false) || !covers(role.period.as_ref(), now) {
            return;
        }
        self.roles.insert(own);
        self.organizations.extend(organization(role.organization.as_ref(), base));
    }

    fn is_named(&self, reference: Option<&Reference>, base: &str) -> bool {
        self.names().any(|name| points_at(reference, base, name))
    }

    fn works_for(&self, reference: Option<&Reference>, base: &str) -> bool {
        self.organizations().any(|name| points_at(reference, base, name))
    }
}

impl Evidence {
    /// Reads a record that has been found to be sound FHIR JSON.
    #[must_use]
    pub fn read(record: &[u8]) -> Option<Self> {
        serde_json::from_slice(record).ok()
    }

    /// The relations this record proves for `party` at `now`, each with the patient's logical id. `base`: the EMR's
    /// own, under which a reference may be written in full.
    #[must_use]
    pub fn proves(
        &self,
        party: &Party,
        base: &str,
        now: Timestamp,
        windows: Windows,
    ) -> Vec<(String, Relation)> {
        let to = |patient: Option<String>, relation| patient.map(|id| (id, relation)).into_iter().collect();
        match self.resource_type.as_str() {
            "CareTeam" if self.is_team_of(party, base, now) => {
                to(patient(self.subject.as_ref(), base), Relation::CareTeam)
            }
            "Encounter" => self.encounter(party, base, now, windows),
            "Appointment" if self.is_appointment_of(party, base, now, windows) => {
                let with = |participant: &Participant| patient(participant.actor.as_ref(), base);
                let patients = self.participant.iter().filter(|one| !one.declined()).filter_map(with);
                patients.map(|id| (id, Relation::Appointment)).collect()
            }
            "Patient" => self.chart(party, base),
            "RelatedPerson" if self.is_related(party, now) => {
                to(patient(self.patient.as_ref(), base), Relation::RelatedPerson)
            }
            _ => Vec::new(),
        }
    }

    fn is_team_of(&self, party: &Party, base: &str, now: Timestamp) -> bool {
        self.status.as_deref() == Some("active")
            && covers(self.period.as_ref(), now)
            && self
                .participant
                .iter()
                .any(|one| covers(one.period.as_ref(), now) && party.is_named(one.member.as_ref(), base))
    }

    fn encounter(
        &self,
        party: &Party,
        base: &str,
        now: Timestamp,
        windows: Windows,
    ) -> Vec<(String, Relation)> {
        let Some(patient) = patient(self.subject.as_ref(), base) else { return Vec::new() };
        if !self.is_present(now, windows.encounter) {
            return Vec::new();
        }
        let takes_part = |one: &Participant| {
            covers_lately(one.period.as_ref(), now, windows.encounter)
                && party.is_named(one.individual.as_ref(), base)
        };
        let mut proven = Vec::new();
        if self.participant.iter().any(takes_part) {
            proven.push((patient.clone(), Relation::Encounter));
        }
        if party.works_for(self.service_provider.as_ref(), base) {
            proven.push((patient, Relation::Organization));
        }
        proven
    }

    /// Under way; or planned to begin, or over, within the window.
    fn is_present(&self, now: Timestamp, window: SignedDuration) -> bool {
        let period = self.period.as_ref();
        match self.status.as_deref() {
            Some("arrived" | "triaged" | "in-progress" | "onleave") => covers_lately(period, now, window),
            Some("planned") => period
                .and_then(|period| span(period.start.as_deref()?))
                .is_some_and(|(from, until)| near(from, until, now, window)),
            Some("finished") => period
                .and_then(|period| span(period.end.as_deref()?))
                .is_some_and(|(from, until)| from <= now && near(from, until, now, window)),
            _ => false,
        }
    }

    fn is_appointment_of(&self, party: &Party, base: &str, now: Timestamp, windows: Windows) -> bool {
        let stands = matches!(self.status.as_deref(), Some("booked" | "arrived" | "checked-in"));
        let Some((from, first)) = self.start.as_deref().and_then(span) else { return false };
        let until = match self.end.as_deref() {
            None => first,
            Some(end) => match span(end) {
                Some((_, until)) => until,
                None => return false,
            },
        };
        stands
            && near(from, until, now, windows.appointment)
            && self.participant.iter().any(|one| !one.declined() && party.is_named(one.actor.as_ref(), base))
    }

    fn chart(&self, party: &Party, base: &str) -> Vec<(String, Relation)> {
        let Some(id) = self.id.clone().filter(|_| self.active != Some(false)) else { return Vec::new() };
        let mut proven = Vec::new();
        if self.general_practitioner.iter().any(|one| party.is_named(Some(one), base)) {
            proven.push((id.clone(), Relation::GeneralPractitioner));
        }
        let manager = match &self.managing_organization {
            Some(Manager::One(organization)) => Some(organization),
            Some(Manager::Several(_)) | None => None,
        };
        if party.works_for(manager, base) {
            proven.push((id, Relation::Organization));
        }
        proven
    }

    fn is_related(&self, party: &Party, now: Timestamp) -> bool {
        let own = self.id.as_deref().map(|id| format!("RelatedPerson/{id}"));
        own.as_deref() == Some(party.user())
            && self.active != Some(false)
            && covers(self.period.as_ref(), now)
    }
}

impl Participant {
    fn declined(&self) -> bool {
        self.status.as_deref() == Some("declined")
    }
}

/// The logical id of the Patient referred to.
fn patient(reference: Option<&Reference>, base: &str) -> Option<String> {
    let name = local(reference?.reference.as_deref()?, base)?;
    name.strip_prefix("Patient/").map(str::to_owned)
}

/// `Organization/id` of the Organization referred to.
fn organization(reference: Option<&Reference>, base: &str) -> Option<String> {
    let name = local(reference?.reference.as_deref()?, base)?;
    name.starts_with("Organization/").then_some(name)
}

/// `Type/id` of a record of this EMR, without base and version.
pub(in crate::domain::access) fn local(text: &str, base: &str) -> Option<String> {
    let text = match text.strip_prefix(base) {
        Some(rest) if !base.is_empty() => rest.strip_prefix('/')?,
        Some(_) | None => text,
    };
    let text = text.split_once("/_history/").map_or(text, |(record, _)| record);
    let (kind, id) = text.split_once('/')?;
    (ResourceType::from_name(kind).is_some() && is_id(id)).then(|| text.to_owned())
}

fn points_at(reference: Option<&Reference>, base: &str, name: &str) -> bool {
    let text = reference.and_then(|reference| reference.reference.as_deref());
    text.and_then(|text| local(text, base)).as_deref() == Some(name)
}

/// Whether a period holds now. Without bounds it always does; with one that cannot be read it never does.
fn covers(period: Option<&Period>, now: Timestamp) -> bool {
    covers_lately(period, now, SignedDuration::ZERO)
}

/// The same for a period that may have ended this long ago.
fn covers_lately(period: Option<&Period>, now: Timestamp, lately: SignedDuration) -> bool {
    let Some(period) = period else { return true };
    let begun = period.start.as_deref().is_none_or(|text| span(text).is_some_and(|(from, _)| from <= now));
    let goes_on = |until: Timestamp| now.duration_since(until) <= lately;
    let open = period.end.as_deref().is_none_or(|text| span(text).is_some_and(|(_, until)| goes_on(until)));
    begun && open
}

/// Whether now is at most `window` before `from` and at most `window` after `until`.
fn near(from: Timestamp, until: Timestamp, now: Timestamp, window: SignedDuration) -> bool {
    from.duration_since(now) <= window && now.duration_since(until) <= window
}

/// The first and last second that an R4 date, dateTime or instant may mean (datatypes.html, dateTime). Without a time
/// zone, in UTC.
pub(in crate::domain::access) fn span(text: &str) -> Option<(Timestamp, Timestamp)> {
    if text.contains('T') {
        let at: Timestamp = text.parse().ok()?;
        return Some((at, at));
    }
    let parts: Vec<&str> = text.split('-').collect();
    let (first, last) = match parts.as_slice() {
        [year] => (day(year, "1", "1")?, day(year, "12", "31")?),
        [year, month] => {
            let first = day(year, month, "1")?;
            (first, first.last_of_month())
        }
        [year, month, date] => (day(year, month, date)?, day(year, month, date)?),
        _ => return None,
    };
    let at = |moment: DateTime| moment.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    Some((at(first.at(0, 0, 0, 0))?, at(last.at(23, 59, 59, 0))?))
}

fn day(year: &str, month: &str, date: &str) -> Option<Date> {
    Date::new(year.parse().ok()?, month.parse().ok()?, date.parse().ok()?).ok()
}
