//! Everything a decision knows that does not depend on the record: who asks, why, from where, how proven.
//!
//! Owns: the caller's facts in the form Cedar is asked with, and the choice of the purpose of use.
//! Must never: show who it is in `Debug`, or fill a gap with something that widens (KF-45).
//! Look next: `engine`, which asks; `key`, which turns the used parts into a cache key.

use super::consent::Asked;
use super::denial::Denial;
use super::relation::{Held, Party, Relation, Relations};
use super::set::Action;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::identity::{Caller, Profile};
use crate::limits;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// `context.purpose` when no purpose was stated (policies/schema.cedarschema).
const NO_PURPOSE: &str = "NONE";

/// What the listener and the clock know about a request.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// When the request is decided.
    pub now: Timestamp,
    /// The peer's address.
    pub network: IpAddr,
    /// `X-Purpose-Of-Use` as sent, if sent.
    pub purpose: Option<String>,
    /// Emergency access in force: logical ids of patients, each with the id of its grant.
    pub emergencies: BTreeMap<String, String>,
}

/// A caller in their circumstances. Not evidence: a rehearsed situation is as good for questions, and no
/// [`super::Permit`] can be made from it.
#[derive(Clone)]
pub struct Situation {
    /// What is the same for all requests with a token.
    pub(super) who: Arc<Profile>,
    pub(super) person: bool,
    pub(super) purpose: String,
    pub(super) age_seconds: i64,
    pub(super) phishing_resistant: bool,
    /// Patients for whom emergency access is in force and counts for what is asked, each with the id of its grant.
    pub(super) emergencies: BTreeMap<String, String>,
    pub(super) network: IpAddr,
    pub(super) now: Timestamp,
    /// The operation asked for, such as `$everything`; asked about by `operate` only.
    pub(super) operation: Option<&'static str>,
}

impl fmt::Debug for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Situation")
            .field("roles", &self.who.roles)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

impl Situation {
    /// Takes a caller and the circumstances together.
    ///
    /// # Errors
    /// [`Denial::PurposeNotAllowed`] and [`Denial::PurposeAmbiguous`]: see [`choose_purpose`].
    pub(super) fn new(caller: &Caller, circumstances: &Circumstances) -> Result<Self, Denial> {
        let application = caller.application().unwrap_or("");
        Ok(Self {
            // RFC 9068 2.2: a client acting for itself has its own id as `sub`.
            person: application.is_empty() || caller.subject() != application,
            who: Arc::clone(caller.profile()),
            purpose: choose_purpose(caller.purposes(), circumstances.purpose.as_deref())?,
            age_seconds: caller.mfa().age_seconds(circumstances.now),
            phishing_resistant: caller.mfa().phishing_resistant(),
            emergencies: BTreeMap::new(),
            network: circumstances.network.to_canonical(),
            now: circumstances.now,
            operation: None,
        })
    }

    /// Somebody with these roles and this purpose who has just logged in, for `policy mask` and tests.
    #[must_use]
    pub fn rehearsal(roles: &[&str], purpose: &str) -> Self {
        let who = Profile {
            issuer: "https://rehearsal.invalid".to_owned(),
            subject: "somebody".to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            application: None,
            binding: "none",
            fhir_user: None,
            scopes: Vec::new(),
            client_scopes: None,
            launch_patient: None,
            methods: Arc::new(BTreeSet::from(["mfa".to_owned()])),
        };
        Self {
            who: Arc::new(who),
            person: true,
            purpose: purpose.to_owned(),
            age_seconds: limits::REHEARSED_FACTOR_AGE_SECONDS,
            phishing_resistant: true,
            emergencies: BTreeMap::new(),
            network: IpAddr::V4(Ipv4Addr::LOCALHOST),
            now: Timestamp::UNIX_EPOCH,
            operation: None,
        }
    }

    /// The same person under this name, for policies that name people. A client that acts for itself has its own id.
    #[must_use]
    pub fn of_subject(mut self, issuer: &str, subject: &str) -> Self {
        self.person = self.application().is_empty() || subject != self.application();
        let who = self.who_mut();
        issuer.clone_into(&mut who.issuer);
        subject.clone_into(&mut who.subject);
        self
    }

    /// The same person, whose token is bound to this: `mtls`, `dpop` or nothing.
    #[must_use]
    pub fn bound_to(mut self, binding: Option<&str>) -> Self {
        self.who_mut().binding =
            ["mtls", "dpop"].into_iter().find(|known| Some(*known) == binding).unwrap_or("none");
        self
    }

    /// The same person, at this time.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// The same person as this FHIR resource, such as `Patient/p2`.
    #[must_use]
    pub fn with_fhir_user(mut self, reference: &str) -> Self {
        self.who_mut().fhir_user = Some(reference.to_owned());
        self
    }

    /// The same person, asking for an operation such as `$everything`.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// The same person, logged in this many seconds ago.
    #[must_use]
    pub fn with_age_seconds(mut self, age_seconds: i64) -> Self {
        self.age_seconds = age_seconds;
        self
    }

    /// The same person, whose second factor was proven by these methods.
    #[must_use]
    pub fn with_methods(mut self, methods: BTreeSet<String>, phishing_resistant: bool) -> Self {
        self.who_mut().methods = Arc::new(methods);
        self.phishing_resistant = phishing_resistant;
        self
    }

    /// The same person, with this application.
    #[must_use]
    pub fn with_application(mut self, id: &str) -> Self {
        self.who_mut().application = Some(id.to_owned());
        self
    }

    /// The application for itself, with nobody behind it.
    #[must_use]
    pub fn without_person(mut self) -> Self {
        self.person = false;
        self
    }

    /// The same person, coming from this address.
    #[must_use]
    pub fn with_network(mut self, network: IpAddr) -> Self {
        self.network = network.to_canonical();
        self
    }

    /// The same person, whose token was issued for this patient's chart.
    #[must_use]
    pub fn with_launch_patient(mut self, patient: &str) -> Self {
        self.who_mut().launch_patient = Some(patient.to_owned());
        self
    }

    /// The same person, to whom emergency access to this patient was granted.
    #[must_use]
    pub fn with_emergency(mut self, patient: &str, grant: &str) -> Self {
        self.emergencies.insert(patient.to_owned(), grant.to_owned());
        self
    }

    /// The application, or nothing.
    pub(super) fn application(&self) -> &str {
        self.who.application.as_deref().unwrap_or("")
    }

    /// What is told of a rehearsed caller.
    pub(super) fn who_mut(&mut self) -> &mut Profile {
        Arc::make_mut(&mut self.who)
    }

    /// How the caller stands to a record, asked for this action: every relation in which they stand to each of its
    /// patients, and to each whom a change would make it name as well (`added`).
    pub(super) fn relations(&self, about: About<'_>, added: &BTreeSet<String>, known: &Relations) -> Held {
        let mut subjects = subjects(about.record);
        let Some(first) = subjects.next() else { return Held::default() };
        let others = subjects.chain(added.iter().map(String::as_str));
        let held_to = |patient| self.held_to(patient, about, known);
        others.fold(held_to(first), |held, patient| held.and(held_to(patient)))
    }

    /// How the caller stands to one patient.
    fn held_to(&self, patient: &str, about: About<'_>, known: &Relations) -> Held {
        let own = (self.own_patient() == Some(patient)).then_some(Relation::Own);
        let launch = (self.who.launch_patient.as_deref() == Some(patient)).then_some(Relation::Launch);
        known.looked_up(patient).with(own).with(launch).with(self.consent_of(patient, about, known))
    }

    /// What a patient's Consents come to: nothing where one may deny, or nobody knows.
    fn consent_of(&self, patient: &str, about: About<'_>, known: &Relations) -> Option<Relation> {
        let (directives, party, now) = known.laid_down(patient)?;
        let id = about.record.id.as_deref();
        let reference = id.map(|id| format!("{}/{id}", about.record.resource_type.name()));
        let weigh = |facts| {
            directives.weigh(&Asked {
                action: about.action,
                purpose: &self.purpose,
                reference: reference.as_deref(),
                facts,
                user: self.who.fhir_user.as_deref(),
                party,
                now,
            })
        };
        // What is contained falls under what is said of either.
        let (whole, part) = (weigh(about.record), about.part.map(weigh));
        let each = || [Some(whole), part].into_iter().flatten();
        if each().any(|one| one.objects) {
            return None;
        }
        Some(if each().all(|one| one.permits) { Relation::Consent } else { Relation::NoObjection })
    }

    /// The grant of emergency access that covers a record: it is about that patient and about nobody else.
    pub(super) fn emergency(&self, facts: &Facts, added: &BTreeSet<String>) -> Option<&str> {
        if self.emergencies.is_empty() {
            return None;
        }
        let mut people = subjects(facts).chain(added.iter().map(String::as_str));
        let first = people.next()?;
        let grant = self.emergencies.get(first)?;
        people.all(|other| other == first).then_some(grant.as_str())
    }

    /// A person of whom no relation can be known: the token names no resource that stands in any.
    pub(super) fn lacks_fhir_user(&self) -> bool {
        let known = |user: &str| Party::new(user).is_some();
        self.person && self.own_patient().is_none() && !self.who.fhir_user.as_deref().is_some_and(known)
    }

    fn own_patient(&self) -> Option<&str> {
        self.who.fhir_user.as_deref().and_then(|user| user.strip_prefix("Patient/"))
    }

    /// With SMART `patient/` scopes a record must belong to the launch patient and to nobody else. Types
    /// outside the patient compartment (Practitioner, Medication) may be seen if they mention no other patient.
    pub(super) fn within_launch(&self, patient: &str, facts: &Facts, in_compartment: bool) -> bool {
        let only = |ids: &BTreeSet<String>| ids.iter().all(|id| id == patient);
        if in_compartment {
            !facts.patients.is_empty() && only(&facts.patients)
        } else {
            only(&facts.patients) && only(&facts.mentions)
        }
    }
}

/// What a decision is about: an action on a record, or on a part contained in it.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub action: Action,
    /// The record, which says whose it is.
    pub record: &'a Facts,
    /// What is contained in it, with what the record lends it.
    pub part: Option<&'a Facts>,
}

impl<'a> About<'a> {
    /// A record as a whole.
    pub(super) fn whole(action: Action, record: &'a Facts) -> Self {
        Self { action, record, part: None }
    }
}

/// Whom a record is about: a Patient about the patient it describes, any other about those whose compartment it is in.
pub(super) fn subjects(facts: &Facts) -> impl Iterator<Item = &str> {
    let is_patient = facts.resource_type.name() == "Patient";
    let itself = facts.id.as_deref().filter(|_| is_patient);
    let theirs = facts.patients.iter().map(String::as_str).filter(move |_| !is_patient);
    itself.into_iter().chain(theirs)
}

/// Whether records of this type belong to patients by the official definition.
pub(super) fn in_patient_compartment(resource: ResourceType) -> bool {
    resource.name() == "Patient" || !crate::domain::fhir::r4::patient_compartment(resource).is_empty()
}

/// The purpose of use of a request. The token's purposes are a limit: the header chooses among them, and
/// where there are several it must. A token that names none leaves the choice to the header, and the
/// judgement to policy (design.md section 7); with neither, the purpose is `NONE`, which no policy should permit.
fn choose_purpose(allowed: &[String], asked: Option<&str>) -> Result<String, Denial> {
    match (allowed, asked) {
        ([], None) => Ok(NO_PURPOSE.to_owned()),
        ([], Some(asked)) if is_code(asked) => Ok(asked.to_owned()),
        ([only], None) => Ok(only.clone()),
        (several, Some(asked)) if several.iter().any(|purpose| purpose == asked) => Ok(asked.to_owned()),
        (_, Some(_)) => Err(Denial::PurposeNotAllowed),
        (_, None) => Err(Denial::PurposeAmbiguous),
    }
}

fn is_code(text: &str) -> bool {
    (1..=limits::PURPOSE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
