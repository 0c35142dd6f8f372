//! What the references of a row as shown lead to.
//!
//! Owns: whether a row stands in a compartment by an element that is shown, and whether an included row is led to by
//! one that is shown: otherwise a row's presence would tell of a withheld reference (T-027, T-033).
//! Must never: look at anything that is not shown.
//! Look next: `rows`, which asks for each row.

use super::operation;
use super::rows::Leg;
use crate::domain::fhir::interaction::{Interaction, Operation};
use crate::domain::fhir::r4::{self, ElementPath, ResourceType};
use serde_json::Value;
use std::collections::BTreeSet;

/// A row of a compartment search is shown only where an element that is shown puts it there: otherwise its
/// presence would tell of a withheld reference (T-027, T-033).
pub(super) fn in_compartment(leg: &Leg, record: &[u8], public: &str) -> bool {
    let (name, id) = match &leg.question {
        Interaction::Search(search) => match search.compartment() {
            Some(compartment) => (compartment.owner().name(), compartment.id().as_str()),
            None => return true,
        },
        Interaction::Operation(Operation::Everything { patient, .. }) => ("Patient", patient.as_str()),
        _ => return true,
    };
    let Ok(record) = serde_json::from_slice::<Value>(record) else { return false };
    let says = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
    if says("resourceType") == name && says("id") == id {
        return true;
    }
    let mut named = BTreeSet::new();
    match &leg.question {
        Interaction::Search(_) => {
            leg.permit
                .compartment_paths()
                .iter()
                .for_each(|path| collect_at(&record, path, public, &mut named));
        }
        _ => patients_named(&record, says("resourceType"), public, &mut named),
    }
    named.contains(&format!("{name}/{id}"))
}

/// What a record shows of whose compartment it is in.
fn patients_named(record: &Value, kind: &str, public: &str, named: &mut BTreeSet<String>) {
    let paths = ResourceType::from_name(kind).map_or(&[][..], r4::patient_compartment);
    for path in paths.iter().filter_map(|path| ElementPath::parse(path).ok()) {
        collect_at(record, &path, public, named);
    }
}

/// The references that stand at an element path, or below it.
fn collect_at(record: &Value, path: &ElementPath, public: &str, found: &mut BTreeSet<String>) {
    let mut places = vec![record];
    for step in path.as_str().split('.').skip(1) {
        places = places.into_iter().flat_map(|place| children(place, step)).collect();
    }
    for place in places {
        match place {
            // What a parameter reads of a reference is its text.
            Value::String(text) => {
                found.insert(local(text, public));
            }
            other => collect_references(other, public, found),
        }
    }
}

/// The values of an element in an object or in each item of an array; a choice has its type in its name.
fn children<'v>(value: &'v Value, name: &str) -> Vec<&'v Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(|item| children(item, name)).collect(),
        Value::Object(members) => {
            let named = |key: &str| {
                key.strip_prefix(name).is_some_and(|rest| {
                    rest.is_empty() || rest.starts_with(|first: char| first.is_ascii_uppercase())
                })
            };
            members.iter().filter(|(key, _)| named(key)).map(|(_, value)| value).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// A record as it is shown.
pub(super) struct Shown {
    pub(super) reference: String,
    pub(super) bytes: Vec<u8>,
    record: Value,
}

impl Shown {
    pub(super) fn read(reference: String, bytes: Vec<u8>) -> Option<Self> {
        let record = serde_json::from_slice(&bytes).ok()?;
        Some(Self { reference, bytes, record })
    }

    fn is(&self, resource: ResourceType) -> bool {
        self.record.get("resourceType").is_some_and(|kind| kind == resource.name())
    }

    /// Whether one of these elements, as shown, refers to a record.
    fn refers(&self, paths: &[ElementPath], reference: &str, public: &str) -> bool {
        let mut named = BTreeSet::new();
        paths.iter().for_each(|path| collect_at(&self.record, path, public, &mut named));
        named.contains(reference)
    }

    /// Everything it refers to, as `Type/id`.
    pub(super) fn names(&self, public: &str, named: &mut BTreeSet<String>) {
        collect_references(&self.record, public, named);
    }

    fn mentions(&self, reference: &str, public: &str) -> bool {
        let mut named = BTreeSet::new();
        collect_references(&self.record, public, &mut named);
        named.contains(reference)
    }
}

/// Whether anything is added to the rows of this question.
pub(super) fn includes(leg: &Leg) -> bool {
    match &leg.question {
        Interaction::Search(search) => !search.includes().is_empty(),
        _ => operation::is_everything(leg),
    }
}

/// In a patient's whole record nothing leaves that names another patient: a shared List, Group or Appointment tells of
/// others (T-091, KF-26). The patient's own record may name those it is linked with. What is withheld of a record names
/// nobody, and must not decide. True elsewhere.
pub(super) fn is_of_one(leg: &Leg, record: &[u8], public: &str) -> bool {
    let Some(patient) = operation::patient(leg) else { return true };
    let Ok(record) = serde_json::from_slice::<Value>(record) else { return false };
    let says = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
    if says("resourceType") == "Patient" {
        return says("id") == patient;
    }
    let mut named = BTreeSet::new();
    collect_references(&record, public, &mut named);
    named.iter().filter_map(|reference| reference.strip_prefix("Patient/")).all(|id| id == patient)
}

/// Whether nothing is withheld from this answer.
pub(super) fn shows_all(leg: &Leg) -> bool {
    leg.permit.types().into_iter().all(|resource| leg.permit.releases_every(resource))
}

/// Whether a record in an export of patients' records shows whose it is: otherwise its presence would tell of a
/// withheld reference.
pub(super) fn shows_patient(resource: ResourceType, record: &[u8], public: &str) -> bool {
    let Ok(shown) = serde_json::from_slice::<Value>(record) else { return false };
    let mut named = BTreeSet::new();
    patients_named(&shown, resource.name(), public, &mut named);
    resource.name() == "Patient" || named.iter().any(|reference| reference.starts_with("Patient/"))
}

/// Whether the question leads from one shown record to another: by an include from a match, and by `:iterate` from what
/// was included too. `$everything` follows every reference.
pub(super) fn leads(leg: &Leg, from: &Shown, to: &Shown, from_match: bool, public: &str) -> bool {
    let Interaction::Search(search) = &leg.question else {
        // What an included row leads to was brought by a row of the patient's, which may be withheld.
        return operation::is_everything(leg)
            && from_match
            && (from.mentions(&to.reference, public) || to.mentions(&from.reference, public));
    };
    search.includes().iter().filter(|include| from_match || include.iterate()).any(|include| {
        let (holder, target) = if include.reverse() { (to, from) } else { (from, to) };
        holder.is(include.source())
            && include.targets().iter().any(|kind| target.is(*kind))
            && holder.refers(include.reads(), &target.reference, public)
    })
}

/// A reference as `Type/id`: without our base and without a version.
fn local(text: &str, public: &str) -> String {
    let local = text.strip_prefix(public).map_or(text, |rest| rest.trim_start_matches('/'));
    local.split("/_history/").next().unwrap_or(local).to_owned()
}

/// Every `Reference.reference` of a record as `Type/id`: without our base and without a version.
fn collect_references(value: &Value, public: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| match member {
            Value::String(text) if name == "reference" => {
                found.insert(local(text, public));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            Value::Array(_) | Value::Object(_) => collect_references(member, public, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, public, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
