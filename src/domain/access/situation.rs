//! Everything a decision knows that does not depend on the record: who asks, why, from where, how proven.
//!
//! Owns: the caller's facts in the form Cedar is asked with, and the choice of the purpose of use.
//! Must never: show who it is in `Debug`, or fill a gap with something that widens (KF-45).
//! Look next: `engine`, which asks; `key`, which turns the used parts into a cache key.

use super::denial::Denial;
use super::relation::{Party, Relation, Relations};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::identity::Caller;
use crate::limits;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

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
    pub(super) person: bool,
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) roles: BTreeSet<String>,
    pub(super) application: String,
    /// What the token is bound to: `none`, `mtls` or `dpop`.
    pub(super) binding: &'static str,
    pub(super) fhir_user: Option<String>,
    pub(super) scopes: Vec<String>,
    /// The scopes that the register leaves the application, if it says.
    pub(super) client_scopes: Option<Vec<String>>,
    pub(super) launch_patient: Option<String>,
    pub(super) purpose: String,
    pub(super) methods: BTreeSet<String>,
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
            .field("roles", &self.roles)
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
        let application = caller.application().unwrap_or("").to_owned();
        Ok(Self {
            // RFC 9068 2.2: a client acting for itself has its own id as `sub`.
            person: application.is_empty() || caller.subject() != application,
            issuer: caller.issuer().to_owned(),
            subject: caller.subject().to_owned(),
            roles: caller.roles().clone(),
            application,
            binding: caller.binding().name(),
            fhir_user: caller.fhir_user().map(str::to_owned),
            scopes: caller.scopes().to_vec(),
            client_scopes: caller.client_scopes().map(<[String]>::to_vec),
            launch_patient: caller.launch_patient().map(str::to_owned),
            purpose: choose_purpose(caller.purposes(), circumstances.purpose.as_deref())?,
            methods: caller.mfa().methods().clone(),
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
        Self {
            person: true,
            issuer: "https://rehearsal.invalid".to_owned(),
            subject: "somebody".to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            application: String::new(),
            binding: "none",
            fhir_user: None,
            scopes: Vec::new(),
            client_scopes: None,
            launch_patient: None,
            purpose: purpose.to_owned(),
            methods: BTreeSet::from(["mfa".to_owned()]),
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
        issuer.clone_into(&mut self.issuer);
        subject.clone_into(&mut self.subject);
        self.person = self.application.is_empty() || self.subject != self.application;
        self
    }

    /// The same person, whose token is bound to this: `mtls`, `dpop` or nothing.
    #[must_use]
    pub fn bound_to(mut self, binding: Option<&str>) -> Self {
        self.binding = ["mtls", "dpop"].into_iter().find(|known| Some(*known) == binding).unwrap_or("none");
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
        self.fhir_user = Some(reference.to_owned());
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
        self.methods = methods;
        self.phishing_resistant = phishing_resistant;
        self
    }

    /// The same person, with this application.
    #[must_use]
    pub fn with_application(mut self, id: &str) -> Self {
        id.clone_into(&mut self.application);
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
        self.launch_patient = Some(patient.to_owned());
        self
    }

    /// The same person, to whom emergency access to this patient was granted.
    #[must_use]
    pub fn with_emergency(mut self, patient: &str, grant: &str) -> Self {
        self.emergencies.insert(patient.to_owned(), grant.to_owned());
        self
    }

    /// How the caller stands to a record: every relation in which they stand to each of its patients, and to each
    /// whom a change would make it name as well (`added`).
    pub(super) fn relations(
        &self,
        facts: &Facts,
        added: &BTreeSet<String>,
        known: &Relations,
    ) -> BTreeSet<String> {
        let subjects = subjects(facts);
        if subjects.is_empty() {
            return BTreeSet::new();
        }
        let stands = |patient: &str, relation: Relation| match relation {
            Relation::Own => self.own_patient() == Some(patient),
            Relation::Launch => self.launch_patient.as_deref() == Some(patient),
            looked_up => known.holds(patient, looked_up),
        };
        let people = || subjects.iter().copied().chain(added.iter().map(String::as_str));
        let to_all = |relation: &Relation| people().all(|patient| stands(patient, *relation));
        Relation::ALL.into_iter().filter(to_all).map(|relation| relation.name().to_owned()).collect()
    }

    /// The grant of emergency access that covers a record: it is about that patient and about nobody else.
    pub(super) fn emergency(&self, facts: &Facts, added: &BTreeSet<String>) -> Option<&str> {
        let mut people = subjects(facts).into_iter().chain(added.iter().map(String::as_str));
        let first = people.next()?;
        let grant = self.emergencies.get(first)?;
        people.all(|other| other == first).then_some(grant.as_str())
    }

    /// A person of whom no relation can be known: the token names no resource that stands in any.
    pub(super) fn lacks_fhir_user(&self) -> bool {
        let known = |user: &str| Party::new(user).is_some();
        self.person && self.own_patient().is_none() && !self.fhir_user.as_deref().is_some_and(known)
    }

    fn own_patient(&self) -> Option<&str> {
        self.fhir_user.as_deref().and_then(|user| user.strip_prefix("Patient/"))
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

/// Whom a record is about: a Patient about the patient it describes, any other about those whose compartment it is in.
pub(super) fn subjects(facts: &Facts) -> Vec<&str> {
    match facts.resource_type.name() {
        "Patient" => facts.id.as_deref().into_iter().collect(),
        _ => facts.patients.iter().map(String::as_str).collect(),
    }
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
