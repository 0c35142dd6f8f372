//! A decision as the trail has it, and what is known from it.
//!
//! Owns: which facts an audit record tells, and which it does not. Must never: fill a gap with a guess, but where it is
//! asked to suppose, and then it says what. Look next: `replay`, which asks again; `cli::policy`, which reads the trail.

use super::case::{Case, Subject, Told};
use crate::domain::access::{Fact, Recalled, Relation, Situation};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::r4::ResourceType;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// One decision as the trail has it.
#[derive(Clone)]
pub struct Recorded {
    /// When it was decided.
    pub time: Timestamp,
    /// The request's id.
    pub request_id: String,
    /// The token's `iss`.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
    /// Roles after renaming.
    pub roles: Vec<String>,
    /// The client.
    pub application: Option<String>,
    /// What the token was bound to.
    pub binding: Option<String>,
    /// Purpose of use.
    pub purpose: String,
    /// Where the request came from.
    pub network: Option<IpAddr>,
    /// FHIR's code of the interaction.
    pub interaction: String,
    /// The request line, as it is understood; none where it says too little.
    pub question: Option<Interaction>,
    /// All elements were asked for, as far as the request line tells.
    pub is_whole: bool,
    /// It was permitted.
    pub permitted: bool,
    /// The refusal's code.
    pub reason: Option<String>,
    /// The hash of the set that decided.
    pub policy_set: Option<String>,
    /// What it rested on beside roles and purpose.
    pub basis: BTreeSet<String>,
    /// Emergency access may have been in force for the caller.
    pub had_emergency: bool,
    /// What was released or written.
    pub items: Vec<Item>,
    /// How many records were withheld whole.
    pub withheld: u64,
}

/// One record that was released or written.
#[derive(Clone)]
pub struct Item {
    /// Its type.
    pub resource: ResourceType,
    /// `Type/id`.
    pub reference: String,
    /// Its patients' logical ids.
    pub patients: BTreeSet<String>,
    /// It was written.
    pub written: bool,
    /// The element paths that passed.
    pub mask: Arc<Vec<String>>,
}

/// Who asked about whom is patient data.
impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("resource", &self.resource.name()).finish_non_exhaustive()
    }
}

impl Recorded {
    /// The same as a case: a record of the item's type, or of the type that was asked for, of which what the trail does not
    /// tell is supposed: no labels, the status `active`, a second factor of a minute ago.
    #[must_use]
    pub fn supposed(&self, item: Option<&Item>) -> Option<Case> {
        let asked = self.question.as_ref().and_then(Interaction::resource_type);
        let resource = item.map(|item| item.resource).or(asked)?;
        let action =
            action(self, item.is_some_and(|item| item.written)).or_else(|| plain(&self.interaction))?;
        let relations = self.basis.iter().filter_map(|name| Relation::from_name(name)).collect();
        Some(Case {
            file: String::new(),
            line: 0,
            name: self.request_id.clone(),
            roles: self.roles.clone(),
            purpose: self.purpose.clone(),
            action: action.to_owned(),
            operation: None,
            subject: Subject::Type(resource),
            permit: self.permitted,
            visible: Vec::new(),
            withheld: Vec::new(),
            by: Vec::new(),
            told: Told {
                relations,
                emergency: self.basis.contains("emergency"),
                application: self.application.clone(),
                network: self.network,
                patients: item.map(|item| item.patients.iter().cloned().collect()),
                ..Told::default()
            },
        })
    }
}

/// A write that was refused has no item to tell what it was.
fn plain(interaction: &str) -> Option<&'static str> {
    ["create", "update", "patch", "delete"].into_iter().find(|name| *name == interaction)
}

/// What no audit record tells of a caller.
pub(super) fn unknown_of_caller() -> BTreeSet<Fact> {
    BTreeSet::from([Fact::SecondFactor, Fact::Scopes, Fact::FhirUser])
}

/// Of a record that is not there.
fn everything() -> BTreeSet<Fact> {
    let of_record = [
        Fact::Relations,
        Fact::Emergency,
        Fact::Labels,
        Fact::Status,
        Fact::Category,
        Fact::Code,
        Fact::Mentions,
        Fact::Record,
    ];
    unknown_of_caller().into_iter().chain(of_record).collect()
}

/// Some record of a type.
pub(super) fn nobody_knows(resource: ResourceType) -> Recalled {
    Recalled {
        facts: Facts::of_type(resource),
        relations: BTreeSet::new(),
        emergency: false,
        unknown: everything(),
    }
}

pub(super) fn situation(recorded: &Recorded) -> Situation {
    let roles: Vec<&str> = recorded.roles.iter().map(String::as_str).collect();
    let mut situation = Situation::rehearsal(&roles, &recorded.purpose)
        .bound_to(recorded.binding.as_deref())
        // Some: whether a token without the claim would be refused is another question.
        .with_fhir_user("Practitioner/unknown")
        .at(recorded.time);
    if let Some(application) = &recorded.application {
        situation = situation.with_application(application);
    }
    if let Some(network) = recorded.network {
        situation = situation.with_network(network);
    }
    situation.of_subject(&recorded.issuer, &recorded.subject)
}

pub(super) fn recalled(recorded: &Recorded, item: &Item) -> Recalled {
    let mut facts = Facts::of_type(item.resource);
    facts.id = item.reference.rsplit_once('/').map(|(_, id)| id.to_owned()).filter(|id| !id.contains('#'));
    facts.patients = item.patients.clone().into();
    let mut unknown = everything();
    unknown.remove(&Fact::Record);
    // Of an answer with one record the basis is that record's.
    let is_only = recorded.items.len() == 1;
    let named = recorded.basis.iter().filter(|_| is_only);
    let relations = named.filter_map(|name| Relation::from_name(name)).collect();
    let emergency = is_only && recorded.basis.contains("emergency");
    if emergency || !recorded.had_emergency {
        unknown.remove(&Fact::Emergency);
    }
    Recalled { facts, relations, emergency, unknown }
}

/// The action by which a record was judged.
pub(super) fn action(recorded: &Recorded, written: bool) -> Option<&'static str> {
    let is_export =
        matches!(recorded.question, Some(Interaction::ExportFile { .. } | Interaction::ExportStatus { .. }));
    Some(match (recorded.interaction.as_str(), written) {
        ("create", true) => "create",
        ("update", true) => "update",
        ("patch", true) => "patch",
        ("delete", true) => "delete",
        (_, true) => return None,
        // What a write gives back is read.
        ("read" | "create" | "update" | "patch", false) => "read",
        ("delete", false) => "delete",
        ("vread", false) => "vread",
        ("history-instance" | "history-type" | "history-system", false) => "history",
        ("search-type" | "search-system", false) => "search",
        ("operation", false) if !is_export && recorded.question.is_some() => "read",
        _ => return None,
    })
}
