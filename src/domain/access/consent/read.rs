//! From a Consent record to a directive.
//!
//! Owns: which records count at all, and what R4 lets a provision hold. Anything else makes the Consent as a whole
//! unclear. Must never: pass over an element that it does not know inside a provision.
//! Look next: `criteria`, what the parts mean.
//!
//! Sources: R4 consent.html, extensibility.html (`modifierExtension`, `implicitRules`), json.html (nothing is empty).

use super::{Consent, Directive, Meaning, Reach};
use crate::domain::access::relation::local;
use crate::limits;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// `consentscope`.
const SCOPES: &str = "http://terminology.hl7.org/CodeSystem/consentscope";
/// Opt in and opt out.
const ACT_CODES: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";

/// What R4 knows in a Consent and what does not change the meaning of its provisions, or is read here.
const ELEMENTS: &[&str] = &[
    "resourceType",
    "id",
    "meta",
    "language",
    "text",
    "contained",
    "extension",
    "identifier",
    "status",
    "scope",
    "category",
    "patient",
    "dateTime",
    "_dateTime",
    "performer",
    "organization",
    "sourceAttachment",
    "sourceReference",
    "policy",
    "policyRule",
    "verification",
    "provision",
];

/// What one record of a search says.
#[derive(Debug)]
pub enum Reading {
    /// It is no Consent, or none that is active.
    Other,
    /// It is an active Consent, and nobody can say whose.
    OfNobody,
    /// It is an active Consent of this patient (a logical id).
    Of(String, Directive),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Effect {
    Permit,
    Deny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    scope: Option<Concept>,
    policy_rule: Option<Concept>,
    provision: Option<Provision>,
}

/// `Consent.provision`, and those nested in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Provision {
    #[serde(rename = "type")]
    pub effect: Option<Effect>,
    pub period: Option<Period>,
    pub data_period: Option<Period>,
    pub actor: Option<Vec<Actor>>,
    pub action: Option<Vec<Concept>>,
    pub security_label: Option<Vec<Coding>>,
    pub purpose: Option<Vec<Coding>>,
    pub class: Option<Vec<Coding>>,
    pub code: Option<Vec<Concept>>,
    pub data: Option<Vec<Datum>>,
    pub provision: Option<Vec<Provision>>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "extension")]
    _extension: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Actor {
    pub role: Option<Concept>,
    pub reference: Option<Reference>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "extension")]
    _extension: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Datum {
    pub meaning: DataMeaning,
    pub reference: Reference,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "extension")]
    _extension: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DataMeaning {
    Instance,
    Related,
    Dependents,
    AuthoredBy,
}

/// A CodeableConcept.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Concept {
    #[serde(default)]
    pub coding: Vec<Coding>,
    #[serde(rename = "text")]
    _text: Option<IgnoredAny>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "extension")]
    _extension: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Coding {
    pub system: Option<String>,
    pub code: Option<String>,
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    #[serde(rename = "display")]
    _display: Option<IgnoredAny>,
    #[serde(rename = "userSelected")]
    _user_selected: Option<IgnoredAny>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "extension")]
    _extension: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Period {
    pub start: Option<String>,
    pub end: Option<String>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "extension")]
    _extension: Option<IgnoredAny>,
}

/// A reference: `Type/id` of a record of this EMR, or nothing where it is to something else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reference {
    pub reference: Option<String>,
    #[serde(rename = "type")]
    _kind: Option<IgnoredAny>,
    #[serde(rename = "identifier")]
    _identifier: Option<IgnoredAny>,
    #[serde(rename = "display")]
    _display: Option<IgnoredAny>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "extension")]
    _extension: Option<IgnoredAny>,
}

impl Reading {
    /// Reads a record of a search for active Consents. `base`: the EMR's own, under which a reference may be written in
    /// full.
    #[must_use]
    pub fn of(record: &[u8], base: &str) -> Self {
        let Ok(record) = serde_json::from_slice::<Value>(record) else { return Self::OfNobody };
        let text = |pointer| record.pointer(pointer).and_then(Value::as_str);
        if text("/resourceType").is_some_and(|kind| kind != "Consent") || is_over(text("/status")) {
            return Self::Other;
        }
        let patient = text("/patient/reference").and_then(|reference| local(reference, base));
        match patient.as_deref().and_then(|name| name.strip_prefix("Patient/")) {
            None => Self::OfNobody,
            Some(id) => {
                let meaning =
                    clear(&record, base).map_or(Meaning::Unclear, |one| Meaning::Clear(Box::new(one)));
                Self::Of(id.to_owned(), Directive(meaning))
            }
        }
    }
}

/// The states in which a Consent says nothing; one that is not R4's is none of them.
fn is_over(status: Option<&str>) -> bool {
    matches!(status, Some("draft" | "proposed" | "rejected" | "inactive" | "entered-in-error"))
}

/// What an active Consent says, if it is all R4 and understood.
fn clear(record: &Value, base: &str) -> Option<Consent> {
    let known = record.as_object()?.keys().all(|name| ELEMENTS.contains(&name.as_str()));
    let is_active = record.get("status").and_then(Value::as_str) == Some("active");
    let mut left = limits::CONSENT_VALUES_MAX;
    if !known || !is_active || is_subset(record) || !is_plain(record, &mut left) {
        return None;
    }
    let Record { scope, policy_rule, mut provision } = Record::deserialize(record).ok()?;
    if let Some(root) = &mut provision {
        root.settle(base, limits::CONSENT_DEPTH_MAX)?;
    }
    Some(Consent { reach: reach(scope.as_ref()), rule: policy_rule.as_ref().and_then(rule), provision })
}

/// The EMR sent a part of it (search.html, `_summary`).
fn is_subset(record: &Value) -> bool {
    let mut tags = record.pointer("/meta/tag").and_then(Value::as_array).into_iter().flatten();
    tags.any(|tag| tag.get("code").and_then(Value::as_str) == Some("SUBSETTED"))
}

/// No modifier anywhere, nothing empty, and no more values than this.
fn is_plain(value: &Value, left: &mut usize) -> bool {
    *left = left.saturating_sub(1);
    *left > 0
        && match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty() && items.iter().all(|item| is_plain(item, left)),
            Value::Object(members) => {
                let modified = |name: &String| matches!(name.as_str(), "modifierExtension" | "implicitRules");
                !members.is_empty()
                    && !members.keys().any(modified)
                    && members.values().all(|member| is_plain(member, left))
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        }
}

fn reach(scope: Option<&Concept>) -> Reach {
    let is = |wanted: &str| {
        scope.is_some_and(|scope| {
            scope
                .coding
                .iter()
                .any(|one| one.system.as_deref() == Some(SCOPES) && one.code.as_deref() == Some(wanted))
        })
    };
    if is("patient-privacy") {
        Reach::Whole
    } else if is("research") {
        Reach::Research
    } else if is("adr") || is("treatment") {
        Reach::Nothing
    } else {
        Reach::Denials
    }
}

/// Opting out counts under whatever name; opting in under its own alone. An opt-in with restrictions says by its
/// provisions what it permits.
fn rule(concept: &Concept) -> Option<Effect> {
    let outs = |one: &Coding| matches!(one.code.as_deref(), Some("OPTOUT" | "OPTOUTE" | "EMRGONLY"));
    let ins = |one: &Coding| one.system.as_deref() == Some(ACT_CODES) && one.code.as_deref() == Some("OPTIN");
    match (concept.coding.iter().any(outs), concept.coding.iter().any(ins)) {
        (true, _) => Some(Effect::Deny),
        (false, true) => Some(Effect::Permit),
        (false, false) => None,
    }
}

impl Provision {
    /// Puts references into the form `Type/id`; nothing if it is too deep, or an exception does not say which it is.
    fn settle(&mut self, base: &str, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let actors = self.actor.iter_mut().flatten().filter_map(|one| one.reference.as_mut());
        for reference in actors.chain(self.data.iter_mut().flatten().map(|one| &mut one.reference)) {
            reference.reference = reference.reference.take().and_then(|text| local(&text, base));
        }
        for exception in self.provision.iter_mut().flatten() {
            exception.effect?;
            exception.settle(base, depth)?;
        }
        Some(())
    }

    /// Whether it, or what is in it, speaks of somebody.
    pub(super) fn names_actors(&self) -> bool {
        self.actor.is_some() || self.provision.iter().flatten().any(Self::names_actors)
    }
}
