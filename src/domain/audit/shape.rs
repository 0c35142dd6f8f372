//! The JSON shapes of audit records, and how they and the records become each other.
//!
//! Owns: field names and their order; the bounds of texts and lists.
//! Must never: change a name, an order or an optional field without a new version (`tests` holds golden bytes).
//! Look next: `wire`, which splits and joins; `docs/audit.md`, which tells auditors the same in prose.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{Actor, Caller, Control, Decision, Ending, Event, Outcome, Verdict};
use super::text::bound;
use super::wire::{DecodeError, VERSION_READS, VERSION_WRITES};
use crate::limits::{
    RECORD_ITEM_BYTES_MAX, RECORD_POLICIES_MAX, RECORD_REQUEST_BYTES_MAX, RECORD_ROLES_MAX,
    RECORD_TEXT_BYTES_MAX, TOKEN_ACTORS_MAX,
};

/// One entry of the trail.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Wire<'d> {
    Intent(DecisionWire<'d>),
    Release(DecisionWire<'d>),
    Refusal(DecisionWire<'d>),
    Outcome(OutcomeWire),
    Control(ControlWire),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DecisionWire<'d> {
    pub(super) v: u8,
    pub(super) part: u16,
    pub(super) parts: u16,
    pub(super) request_id: String,
    pub(super) time: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) head: Option<Head>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) masks: Vec<MaskWire>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) released: Vec<ItemWire<'d>>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) written: Vec<ItemWire<'d>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Head {
    pub(super) caller: Option<CallerWire>,
    pub(super) purposes: Vec<String>,
    pub(super) source: Option<String>,
    pub(super) interaction: String,
    pub(super) request: String,
    pub(super) reason: Option<String>,
    pub(super) policies: Vec<String>,
    pub(super) policy_set: Option<String>,
    pub(super) released: u64,
    pub(super) withheld: u64,
    pub(super) status: u16,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) written: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) entry: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) unit: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) basis: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) emergencies: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) policy_epoch: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CallerWire {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) session: String,
    pub(super) token_hash: String,
    pub(super) application: Option<String>,
    pub(super) roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) client_kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) binding: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) actors: Vec<ActorWire>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActorWire {
    pub(super) issuer: Option<String>,
    pub(super) subject: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaskWire {
    pub(super) n: u32,
    pub(super) kept: Vec<String>,
}

/// An answer may have thousands: what is written borrows from the decision.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ItemWire<'d> {
    pub(super) reference: Cow<'d, str>,
    pub(super) version: Option<Cow<'d, str>>,
    pub(super) patients: Vec<Cow<'d, str>>,
    pub(super) mask: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(super) more: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OutcomeWire {
    pub(super) v: u8,
    pub(super) request_id: String,
    pub(super) time: String,
    pub(super) ending: String,
    pub(super) sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) entry: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ControlWire {
    pub(super) v: u8,
    pub(super) time: String,
    pub(super) event: String,
    pub(super) details: BTreeMap<String, String>,
}

impl Head {
    pub(super) fn from_record(decision: &Decision) -> Self {
        Self {
            caller: decision.caller.as_ref().map(CallerWire::from_record),
            purposes: items(&decision.purposes, RECORD_ROLES_MAX),
            source: decision.source.as_deref().map(text),
            interaction: text(&decision.interaction),
            request: bound(&decision.request, RECORD_REQUEST_BYTES_MAX).into_owned(),
            reason: decision.reason.as_deref().map(text),
            policies: items(&decision.policies, RECORD_POLICIES_MAX),
            policy_set: decision.policy_set.as_deref().map(text),
            released: count(decision.released.len()),
            withheld: decision.withheld,
            status: decision.status,
            written: (!decision.written.is_empty()).then(|| count(decision.written.len())),
            entry: decision.entry,
            unit: decision.unit,
            basis: items(&decision.basis, RECORD_ROLES_MAX),
            emergencies: items(&decision.emergencies, RECORD_ROLES_MAX),
            policy_epoch: decision.policy_epoch,
        }
    }

    pub(super) fn to_record(&self, time: Timestamp, request_id: String, verdict: Verdict) -> Decision {
        Decision {
            time,
            request_id,
            caller: self.caller.clone().map(CallerWire::into_record),
            purposes: self.purposes.clone(),
            source: self.source.clone(),
            interaction: self.interaction.clone(),
            request: self.request.clone(),
            verdict,
            reason: self.reason.clone(),
            policies: self.policies.clone(),
            basis: self.basis.clone(),
            emergencies: self.emergencies.clone(),
            policy_set: self.policy_set.clone(),
            policy_epoch: self.policy_epoch,
            entry: self.entry,
            unit: self.unit,
            released: Vec::new(),
            written: Vec::new(),
            withheld: self.withheld,
            status: self.status,
        }
    }
}

impl CallerWire {
    pub(super) fn from_record(caller: &Caller) -> Self {
        Self {
            issuer: text(&caller.issuer),
            subject: text(&caller.subject),
            session: text(&caller.session),
            token_hash: text(&caller.token_hash),
            application: caller.application.as_deref().map(text),
            roles: items(&caller.roles, RECORD_ROLES_MAX),
            client_kind: caller.client_kind.as_deref().map(item),
            binding: caller.binding.as_deref().map(item),
            actors: caller.actors.iter().take(TOKEN_ACTORS_MAX).map(ActorWire::from_record).collect(),
        }
    }

    pub(super) fn into_record(self) -> Caller {
        Caller {
            issuer: self.issuer,
            subject: self.subject,
            session: self.session,
            token_hash: self.token_hash,
            application: self.application,
            roles: self.roles,
            client_kind: self.client_kind,
            binding: self.binding,
            actors: self.actors.into_iter().map(ActorWire::into_record).collect(),
        }
    }
}

impl ActorWire {
    fn from_record(actor: &Actor) -> Self {
        Self { issuer: actor.issuer.as_deref().map(text), subject: text(&actor.subject) }
    }

    fn into_record(self) -> Actor {
        Actor { issuer: self.issuer, subject: self.subject }
    }
}

impl OutcomeWire {
    pub(super) fn from_record(outcome: &Outcome) -> Self {
        Self {
            v: version_of(outcome.entry),
            request_id: text(&outcome.request_id),
            time: stamp(outcome.time),
            ending: outcome.ending.code().to_owned(),
            sent_bytes: outcome.sent_bytes,
            entry: outcome.entry,
        }
    }

    /// The version it should have.
    pub(super) fn version(&self) -> u8 {
        version_of(self.entry)
    }

    pub(super) fn into_record(self) -> Result<Outcome, DecodeError> {
        let ending = [Ending::Complete, Ending::CutOff, Ending::Failed, Ending::Unknown]
            .into_iter()
            .find(|ending| ending.code() == self.ending)
            .ok_or(DecodeError::Malformed)?;
        let time = unstamp(&self.time)?;
        Ok(Outcome {
            time,
            request_id: self.request_id,
            entry: self.entry,
            ending,
            sent_bytes: self.sent_bytes,
        })
    }
}

fn version_of(entry: Option<u32>) -> u8 {
    if entry.is_some() { VERSION_WRITES } else { VERSION_READS }
}

impl ControlWire {
    pub(super) fn from_record(control: &Control) -> Self {
        let details = control.details.iter().take(RECORD_ROLES_MAX);
        Self {
            v: VERSION_READS,
            time: stamp(control.time),
            event: control.event.code().to_owned(),
            details: details.map(|(name, value)| (item(name), text(value))).collect(),
        }
    }

    pub(super) fn into_record(self) -> Result<Control, DecodeError> {
        let event = Event::ALL.into_iter().find(|event| event.code() == self.event);
        let event = event.ok_or(DecodeError::Malformed)?;
        Ok(Control { time: unstamp(&self.time)?, event, details: self.details })
    }
}

// --- bounds -------------------------------------------------------------------------------------

pub(super) fn text(value: &str) -> String {
    bound(value, RECORD_TEXT_BYTES_MAX).into_owned()
}

pub(super) fn item(value: &str) -> String {
    bound(value, RECORD_ITEM_BYTES_MAX).into_owned()
}

/// At most `max` items; the last one says how many more there were.
fn items(values: &[String], max: usize) -> Vec<String> {
    if values.len() <= max {
        return values.iter().map(|value| item(value)).collect();
    }
    let kept = max.saturating_sub(1);
    let more = format!("…and {} more", values.len().saturating_sub(kept));
    values.iter().take(kept).map(|value| item(value)).chain([more]).collect()
}

pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC with microseconds, always of the same width.
pub(super) fn stamp(time: Timestamp) -> String {
    format!("{time:.6}")
}

pub(super) fn unstamp(text: &str) -> Result<Timestamp, DecodeError> {
    text.parse().map_err(|_| DecodeError::Malformed)
}
