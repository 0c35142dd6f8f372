//! What is known about a request so far, for its record.
//!
//! Owns: filling in the audit record while the journey goes on, one for the request and one for each entry of a
//! batch or transaction. Must never: hold an element's value or a token.
//! Look next: `domain::audit`, what a record says; `mod.rs`, where it is written.

use super::Gate;
use super::refusal::{Refusal, Way};
use super::release::Release;
use super::reply::{Answer, outcome_of};
use super::share::Share;
use crate::clock;
use crate::domain::access::Permit;
use crate::domain::audit::{self, Decision, Outcome, Record};
use crate::domain::fhir::interaction::{Interaction, Operation};
use crate::domain::fhir::r4::ResourceType;
use crate::domain::identity::{Actor, Caller, Scheme};
use crate::edge::listener::Peer;
use crate::edge::sessions::Standing;
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A record in the making.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) decision: Decision,
    pub(super) began: Timestamp,
    pub(super) interaction: &'static str,
    /// Only the head of the answer is wanted, also of a refusal.
    pub(super) head_only: bool,
    /// How the token came, once one is found: challenges are spoken in the same scheme.
    pub(super) scheme: Scheme,
    /// The other end of the connection.
    pub(super) address: IpAddr,
    /// A change was sent, and nobody knows whether it was made.
    pub(super) unknown: bool,
    /// The caller for as long as they may go on; nothing before they are established.
    pub(super) standing: Option<Standing>,
    /// Their place among what they may have under way; nothing before they are established.
    pub(super) share: Option<Share>,
    /// Grants of emergency access under which the record may stand in the journal's reserve, if the journal takes none.
    pub(super) reserve: BTreeSet<String>,
    /// Something is let out for which it may not.
    pub(super) unreserved: bool,
    /// The drafts of a batch's or transaction's entries, in their order.
    pub(super) entries: Vec<Draft>,
}

impl Draft {
    pub(super) fn open<B>(request: &Request<B>, peer: &Peer) -> Self {
        let began = clock::now();
        let mut decision = Decision::new(began, request_id(), audit::Verdict::Refuse);
        decision.source = Some(peer.address.ip().to_canonical().to_string());
        let path = request.uri().path();
        decision.request = format!("{} {path}", request.method());
        let head_only = request.method() == Method::HEAD;
        Self {
            decision,
            began,
            interaction: "unknown",
            head_only,
            scheme: Scheme::Bearer,
            address: peer.address.ip(),
            unknown: false,
            standing: None,
            share: None,
            reserve: BTreeSet::new(),
            unreserved: false,
            entries: Vec::new(),
        }
    }

    pub(super) fn knows(&mut self, caller: &Caller) {
        self.decision.caller = Some(audit::Caller {
            issuer: caller.issuer().to_owned(),
            subject: caller.subject().to_owned(),
            session: caller.session().to_owned(),
            token_hash: caller.token_hash().to_owned(),
            application: caller.application().map(str::to_owned),
            roles: caller.roles().iter().cloned().collect(),
            client_kind: caller.client_kind().map(|kind| kind.name().to_owned()),
            binding: Some(caller.binding().name()).filter(|name| *name != "none").map(str::to_owned),
            actors: caller.actors().iter().map(actor).collect(),
        });
    }

    /// The request in canonical spelling, once it is understood. A page is told apart from its search.
    pub(super) fn asks(&mut self, interaction: &Interaction) {
        self.interaction = interaction.code();
        interaction.code().clone_into(&mut self.decision.interaction);
        self.decision.request = line(interaction);
    }

    /// The question behind a link of an export, once it is opened.
    pub(super) fn continues(&mut self, question: &Interaction) {
        self.decision.request.push_str(" of ");
        self.decision.request.push_str(&question.address());
    }

    /// What let this kind of question in.
    pub(super) fn permitted(&mut self, permit: &Permit) {
        self.decision.purposes = vec![permit.purpose().to_owned()];
        self.decided_by(permit.policies());
    }

    /// Policies that had a say.
    pub(super) fn decided_by(&mut self, policies: &[String]) {
        for policy in policies {
            if !self.decision.policies.contains(policy) {
                self.decision.policies.push(policy.clone());
            }
        }
    }

    /// How the caller stands to the patients, where the policies that decided asked.
    pub(super) fn rests_on(&mut self, basis: &[String]) {
        let known: BTreeSet<String> = self.decision.basis.drain(..).chain(basis.iter().cloned()).collect();
        self.decision.basis = known.into_iter().collect();
    }

    /// What an answer lets out; nothing of it counts when the answer is refused after all.
    pub(super) fn releases(&mut self, release: &mut Release, released: bool) {
        self.decision.withheld += release.withheld;
        if released {
            self.reserve.append(&mut release.reserve);
            self.unreserved |= release.unreserved;
            self.decision.released.append(&mut release.records);
            let mut policies = std::mem::take(&mut release.policies);
            policies.extend(self.decision.policies.drain(..));
            self.decision.policies = policies.into_iter().collect();
            self.rests_on(&release.basis.iter().cloned().collect::<Vec<_>>());
        }
        if release.alarm {
            tracing::error!(
                request_id = self.decision.request_id,
                "a policy could not be evaluated for a record"
            );
        }
    }

    /// The record of a further unit of a long answer. This is the draft of the request before its first unit.
    pub(super) fn unit(&self, number: u32, release: &mut Release) -> Record {
        let mut unit = self.clone();
        unit.decision.time = clock::now();
        unit.decision.verdict = audit::Verdict::Permit;
        unit.decision.status = StatusCode::OK.as_u16();
        unit.decision.unit = Some(number);
        unit.releases(release, true);
        Record::Decision(Box::new(unit.decision))
    }

    /// The draft of an entry: the same caller and request, at a place of its own.
    pub(super) fn entry(&self, place: usize) -> Self {
        let mut entry = self.clone();
        entry.interaction = "unknown";
        entry.interaction.clone_into(&mut entry.decision.interaction);
        entry.decision.entry = u32::try_from(place).ok();
        entry.entries.clear();
        entry
    }

    /// Notes how it ended, and gives what is heard of it.
    pub(super) fn settle(&mut self, outcome: Result<Answer, Refusal>, gate: &Gate) -> Answer {
        let answer = match outcome {
            Ok(answer) => {
                self.decision.verdict = audit::Verdict::Permit;
                answer
            }
            Err(refusal) => self.refuse(&refusal, gate),
        };
        self.decision.status = answer.status.as_u16();
        answer
    }

    /// The entry of a transaction that was refused as a whole.
    pub(super) fn refused_with_all(&mut self, refusal: &Refusal) {
        self.decision.verdict = audit::Verdict::Refuse;
        self.decision.reason = Some(refusal.code().to_owned());
        self.decision.status = refusal.status().as_u16();
        self.decision.released.clear();
    }

    /// What is about to be written, before it is.
    pub(super) fn intent(&self) -> Record {
        let mut decision = self.decision.clone();
        decision.verdict = audit::Verdict::Permit;
        decision.status = 0;
        decision.released.clear();
        Record::Intent(Box::new(decision))
    }

    /// The record as the journal's reserve may have it, under every grant that lets it; nothing where it may not. Never
    /// for changes, batches, or answers in units.
    pub(super) fn in_reserve(&self) -> Option<Self> {
        let decision = &self.decision;
        let is_plain = decision.entry.is_none() && decision.unit.is_none() && decision.written.is_empty();
        let is_whole = self.entries.is_empty() && !self.unknown && decision.verdict == audit::Verdict::Permit;
        if self.reserve.is_empty() || self.unreserved || !is_plain || !is_whole {
            return None;
        }
        let mut reserved = self.clone();
        let grants = self.reserve.iter().filter(|grant| !decision.emergencies.contains(grant));
        reserved.decision.emergencies.extend(grants.cloned());
        Some(reserved)
    }

    /// Whether a refusal may be counted where there are too many: nothing left, and nothing was asked to be changed, so
    /// that the record would tell of the attempt and of nothing else.
    pub(super) fn may_be_counted(&self) -> bool {
        self.decision.is_mere_refusal() && !self.unknown && self.entries.is_empty()
    }

    /// The records of the request and of its entries, in the order of the trail.
    pub(super) fn records(mut self) -> Vec<Record> {
        let now = clock::now();
        let entries = std::mem::take(&mut self.entries);
        let mut records = Vec::new();
        for draft in std::iter::once(self).chain(entries) {
            let (id, entry) = (draft.decision.request_id.clone(), draft.decision.entry);
            records.push(Record::Decision(Box::new(draft.decision)));
            if draft.unknown {
                records.push(Record::Outcome(Outcome::unknown(now, id, entry)));
            }
        }
        records
    }

    /// Turns a refusal into its answer, and this draft into its record.
    fn refuse(&mut self, refusal: &Refusal, gate: &Gate) -> Answer {
        self.decision.verdict = audit::Verdict::Refuse;
        self.decision.reason = Some(refusal.code().to_owned());
        if let Some(code) = refusal.interaction() {
            self.interaction = code;
            code.clone_into(&mut self.decision.interaction);
        }
        self.decision.released.clear();
        self.decision.basis.clear();
        gate.telemetry.refusal(refusal.code());
        if refusal.is_alarm() {
            tracing::error!(
                request_id = self.decision.request_id,
                code = refusal.code(),
                "refused, and somebody should look"
            );
        }
        let nonce = gate.nonces.as_ref().map(|nonces| nonces.current(self.began));
        let heard = refusal.heard(&Way { scheme: self.scheme, nonce });
        outcome_of(heard, refusal.opens(), &self.decision.request_id, self.head_only)
    }
}

fn actor(actor: &Actor) -> audit::Actor {
    audit::Actor { issuer: actor.issuer().map(str::to_owned), subject: actor.subject().to_owned() }
}

/// What was asked, in one line: method and canonical address below the base. A sealed link's token says nothing to
/// a reader of the trail.
fn line(interaction: &Interaction) -> String {
    let method = match interaction {
        Interaction::Create { .. } | Interaction::Bundle => "POST",
        Interaction::Update { .. } => "PUT",
        Interaction::Patch { .. } => "PATCH",
        Interaction::Delete { .. } | Interaction::ExportCancel { .. } => "DELETE",
        Interaction::Operation(Operation::Validate { .. } | Operation::BreakGlass) => "POST",
        _ => "GET",
    };
    let address = match interaction {
        Interaction::NextPage { resource, .. } => {
            format!("{} (next page)", resource.map_or("", ResourceType::name))
        }
        Interaction::ExportStatus { .. } | Interaction::ExportCancel { .. } => "export status".to_owned(),
        Interaction::ExportFile { .. } => "export file".to_owned(),
        Interaction::Create { resource, if_none_exist: Some(search) } => {
            format!("{} if none exist {}", resource.name(), search.canonical_query())
        }
        _ => interaction.address(),
    };
    format!("{method} {address}").trim_end().to_owned()
}

/// 128 random bits as hex; from the clock alone should the system have no randomness to give.
fn request_id() -> String {
    let mut bytes = [0_u8; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes = clock::now().as_nanosecond().to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
