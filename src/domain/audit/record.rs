//! The kinds of audit record.
//!
//! Owns: what a record says. Must never: hold element values, tokens, or anything that is not bounded when
//! it is encoded. These types are plain data: the evidence is the journal's receipt, not the draft.
//! Look next: `wire` for the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

/// One audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A write that is about to be sent to the EMR: durable before it is sent. Its verdict is permit, its status
    /// 0, its released list empty. The decision with the same request id and entry tells what became of it; an
    /// intent without one was cut short, and what the EMR did is unknown.
    Intent(Box<Decision>),
    /// A release or a refusal; written before the answer leaves.
    Decision(Box<Decision>),
    /// How a released answer or a write ended.
    Outcome(Outcome),
    /// Something that happened to the gateway or to the trail itself.
    Control(Control),
}

impl Record {
    /// The request this record belongs to; for counted refusals the first of them. Other control records have none.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Intent(decision) | Self::Decision(decision) => Some(&decision.request_id),
            Self::Outcome(outcome) => Some(&outcome.request_id),
            Self::Control(control) => control.refusals().map(|refusals| refusals.first),
        }
    }

    /// When it happened, by the gateway's clock. The order of events is the order of entries, not of times.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Intent(decision) | Self::Decision(decision) => decision.time,
            Self::Outcome(outcome) => outcome.time,
            Self::Control(control) => control.time,
        }
    }
}

/// Whether something was let out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Released, in full or in part.
    Permit,
    /// Refused; nothing left.
    Refuse,
}

impl Verdict {
    /// `permit` or `refuse`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Refuse => "refuse",
        }
    }
}

/// Who asked, as far as it was established.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The token's `iss`.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
    /// The session (`sid`, else `jti`, else the token's hash).
    pub session: String,
    /// A hash of the token, never the token.
    pub token_hash: String,
    /// The client that asked on the person's behalf.
    pub application: Option<String>,
    /// Roles after renaming.
    pub roles: Vec<String>,
    /// What sort of application it is, where it is registered.
    pub client_kind: Option<String>,
    /// What the token was bound to, and the request showed: `mtls` or `dpop`; none for a bearer token.
    pub binding: Option<String>,
    /// Who acts for the subject, the present actor first, then those before (T-197).
    pub actors: Vec<Actor>,
}

/// Somebody who acts for the subject of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Who vouches for them; none: the token's own issuer.
    pub issuer: Option<String>,
    /// Their `sub`.
    pub subject: String,
}

impl Caller {
    /// Whether something is known that records did not tell before version 3.
    pub(super) fn has_more(&self) -> bool {
        self.client_kind.is_some() || self.binding.is_some() || !self.actors.is_empty()
    }
}

/// One request's decision: a release, written before it happens, or a refusal. A batch or transaction has
/// one for itself and one for each entry (KF-53); a streamed answer has one for each unit.
#[derive(Clone, PartialEq, Eq)]
pub struct Decision {
    /// When it was decided.
    pub time: Timestamp,
    /// The id of the request, as in `X-Request-Id`.
    pub request_id: String,
    /// Who asked; `None` when that was not established.
    pub caller: Option<Caller>,
    /// Purposes of use that were in force.
    pub purposes: Vec<String>,
    /// The address the request came from.
    pub source: Option<String>,
    /// FHIR's code of the interaction (`read`, `search-type`, …), or `unknown`.
    pub interaction: String,
    /// What was asked, canonically: method, type, id or parameters. May hold PHI: entries are encrypted.
    pub request: String,
    /// Permit or refuse.
    pub verdict: Verdict,
    /// The refusal code, for refusals.
    pub reason: Option<String>,
    /// Ids of the policies that decided.
    pub policies: Vec<String>,
    /// What a release or a write rests on beside role and purpose: how the caller stands to the patients
    /// (`care-team`, `encounter`, …, `emergency`), as far as the policies that decided asked.
    pub basis: Vec<String>,
    /// Grants of emergency access that records were decided under.
    pub emergencies: Vec<String>,
    /// The hash of the policy set in force.
    pub policy_set: Option<String>,
    /// The number of the policy set in force: how many this process had put in force by then.
    pub policy_epoch: Option<u64>,
    /// The place in a batch or transaction, from 0, for the decision about one of its entries.
    pub entry: Option<u32>,
    /// The place in a streamed answer, from 0, for the decision about one of its units.
    pub unit: Option<u32>,
    /// What is released, one item a FHIR record.
    pub released: Vec<Released>,
    /// What is written, one item a FHIR record; empty for reads.
    pub written: Vec<Written>,
    /// FHIR records withheld whole from this answer.
    pub withheld: u64,
    /// The HTTP status of the answer.
    pub status: u16,
}

impl Decision {
    /// A decision about a request of which nothing more is known yet: fill in the rest.
    #[must_use]
    pub fn new(time: Timestamp, request_id: String, verdict: Verdict) -> Self {
        Self {
            time,
            request_id,
            caller: None,
            purposes: Vec::new(),
            source: None,
            interaction: "unknown".to_owned(),
            request: String::new(),
            verdict,
            reason: None,
            policies: Vec::new(),
            basis: Vec::new(),
            emergencies: Vec::new(),
            policy_set: None,
            policy_epoch: None,
            entry: None,
            unit: None,
            released: Vec::new(),
            written: Vec::new(),
            withheld: 0,
            status: 0,
        }
    }
}

impl Decision {
    /// Whether it says that somebody was refused and nothing else: nothing left, nothing was to be written, and it is no part
    /// of a larger answer. Only such may be counted instead of recorded.
    #[must_use]
    pub fn is_mere_refusal(&self) -> bool {
        let has_effect = !self.released.is_empty() || !self.written.is_empty();
        let is_part = self.entry.is_some() || self.unit.is_some();
        self.verdict == Verdict::Refuse && !has_effect && !is_part
    }
}

/// Shows no request line and no released record: both are patient data.
impl fmt::Debug for Decision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Decision")
            .field("request_id", &self.request_id)
            .field("interaction", &self.interaction)
            .field("verdict", &self.verdict)
            .field("reason", &self.reason)
            .field("entry", &self.entry)
            .field("unit", &self.unit)
            .field("released", &self.released.len())
            .field("written", &self.written.len())
            .finish_non_exhaustive()
    }
}

/// One FHIR record that is released.
#[derive(Clone, PartialEq, Eq)]
pub struct Released {
    /// `Type/id`.
    pub reference: String,
    /// Its version, when it has one.
    pub version: Option<String>,
    /// Logical ids of the patients whose record it is.
    pub patients: BTreeSet<String>,
    /// The element paths that are kept (minimal list). Shared, since one answer has few different masks.
    pub mask: Arc<Vec<String>>,
}

/// Shows nothing that names a patient.
impl fmt::Debug for Released {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Released").field("mask", &self.mask).finish_non_exhaustive()
    }
}

/// One FHIR record that is written: created, changed or deleted.
#[derive(Clone, PartialEq, Eq)]
pub struct Written {
    /// `Type/id`; `Type` alone for a create whose id is not known (yet).
    pub reference: String,
    /// The version it had before, in an intent; the version it has now, in a decision; when it is known.
    pub version: Option<String>,
    /// Logical ids of the patients whose record it is, before or after the write.
    pub patients: BTreeSet<String>,
    /// The element paths that are written. Shared, since one request has few different masks.
    pub mask: Arc<Vec<String>>,
}

/// Shows nothing that names a patient.
impl fmt::Debug for Written {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Written").field("mask", &self.mask).finish_non_exhaustive()
    }
}

/// How an answer, or a write, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it was handed to the client's connection.
    Complete,
    /// The connection ended first.
    CutOff,
    /// It failed on our side or upstream; what was recorded as released may not have left.
    Failed,
    /// It is not known how it ended, such as a write whose answer never came.
    Unknown,
}

impl Ending {
    /// `complete`, `cut-off`, `failed` or `unknown`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::CutOff => "cut-off",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// The end of an answer, or of a write; belongs to the decision with the same request id and entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When it ended.
    pub time: Timestamp,
    /// The request whose answer this was.
    pub request_id: String,
    /// The entry of a batch or transaction whose end this is; `None` for the answer as a whole.
    pub entry: Option<u32>,
    /// How it ended.
    pub ending: Ending,
    /// Body bytes handed to the client's connection, when known.
    pub sent_bytes: Option<u64>,
}

impl Outcome {
    /// The end of a write whose answer never came. Stands beside the refusal that tells the client so.
    #[must_use]
    pub fn unknown(time: Timestamp, request_id: String, entry: Option<u32>) -> Self {
        Self { time, request_id, entry, ending: Ending::Unknown, sent_bytes: None }
    }
}

/// What happened to the gateway or the trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The trail was created.
    Created,
    /// The gateway started.
    Started,
    /// The gateway stopped in order.
    Stopped,
    /// A policy set came into force.
    PoliciesLoaded,
    /// A policy set was offered and rejected; the one before stays in force.
    PoliciesRejected,
    /// Somebody allowed one older version of the signed policies to be taken again (T-205).
    PoliciesRollback,
    /// A candidate set is asked beside the one in force, which alone answers (T-214).
    ShadowBegan,
    /// What the candidate would have decided otherwise.
    ShadowSummary,
    /// The candidate is asked no more.
    ShadowEnded,
    /// Access to a patient in an emergency was granted.
    EmergencyBegan,
    /// It ended: its time ran out, or the person ended it.
    EmergencyEnded,
    /// Somebody else looked at what was done under it.
    EmergencyReviewed,
    /// A token, session, person, client or issuer was revoked, here or elsewhere; in force here.
    Revoked,
    /// A revocation is not in force any more.
    RevocationLifted,
    /// An issuer sent a security event or a logout token, and it was taken.
    EventTaken,
    /// The same, and it was refused.
    EventRefused,
    /// The reserve for records that the journal cannot take stands ready.
    ReserveReady,
    /// The journal took over the records that follow from the reserve.
    ReserveTakenOver,
    /// The reserve was given up, unused.
    ReserveRemoved,
    /// Somebody read the trail (KF-62).
    TrailRead,
    /// The data keys are wrapped for another key.
    KeyRotated,
    /// Entries that are older than the policy are withheld from now on (T-237).
    Pruned,
    /// What a legal hold is about stays, whatever the policy.
    HoldAdded,
    /// A legal hold is not in force any more.
    HoldLifted,
    /// From now on the refusals of a source are counted (T-232).
    RefusalsCounting,
    /// So many refusals of a source were counted.
    RefusalsCounted,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 26] = [
        Self::Created,
        Self::Started,
        Self::Stopped,
        Self::PoliciesLoaded,
        Self::PoliciesRejected,
        Self::PoliciesRollback,
        Self::ShadowBegan,
        Self::ShadowSummary,
        Self::ShadowEnded,
        Self::EmergencyBegan,
        Self::EmergencyEnded,
        Self::EmergencyReviewed,
        Self::Revoked,
        Self::RevocationLifted,
        Self::EventTaken,
        Self::EventRefused,
        Self::ReserveReady,
        Self::ReserveTakenOver,
        Self::ReserveRemoved,
        Self::TrailRead,
        Self::KeyRotated,
        Self::Pruned,
        Self::HoldAdded,
        Self::HoldLifted,
        Self::RefusalsCounting,
        Self::RefusalsCounted,
    ];

    /// The event's code, such as `policies-loaded`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::PoliciesLoaded => "policies-loaded",
            Self::PoliciesRejected => "policies-rejected",
            Self::PoliciesRollback => "policies-rollback",
            Self::ShadowBegan => "shadow-began",
            Self::ShadowSummary => "shadow-summary",
            Self::ShadowEnded => "shadow-ended",
            Self::EmergencyBegan => "emergency-began",
            Self::EmergencyEnded => "emergency-ended",
            Self::EmergencyReviewed => "emergency-reviewed",
            Self::Revoked => "revoked",
            Self::RevocationLifted => "revocation-lifted",
            Self::EventTaken => "event-taken",
            Self::EventRefused => "event-refused",
            Self::ReserveReady => "reserve-ready",
            Self::ReserveTakenOver => "reserve-taken-over",
            Self::ReserveRemoved => "reserve-removed",
            Self::TrailRead => "trail-read",
            Self::KeyRotated => "key-rotated",
            Self::Pruned => "pruned",
            Self::HoldAdded => "hold-added",
            Self::HoldLifted => "hold-lifted",
            Self::RefusalsCounting => "refusals-counting",
            Self::RefusalsCounted => "refusals-counted",
        }
    }
}

/// A control record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    pub event: Event,
    /// Names and values: key ids, the policy set's hash, the program's version. Never a secret.
    pub details: BTreeMap<String, String>,
}
