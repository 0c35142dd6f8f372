//! The journey of a request, as one function one can read aloud.
//!
//! Owns: the order of the steps, and the one exit that records and then answers.
//! Must never: decide (that is `domain`), do (that is `edge`), or answer without a receipt.
//! Look next: [`journey`]; `answer`, what each interaction takes; `refusal`, what the outside hears when a step says no.

mod answer;
mod binary;
mod bundle;
mod capabilities;
mod conclude;
mod count;
mod draft;
pub mod emergency;
mod establish;
mod events;
mod export;
mod links;
mod newest;
mod operation;
mod page;
mod refusal;
pub mod relations;
mod release;
mod reply;
pub mod review;
mod rows;
mod standing;
mod step_up;
mod stream;
mod visit;
mod write;

pub use capabilities::Statement;
pub use events::{EventSource, EventSources, silent_streams};
pub use reply::ReplyBody;

use crate::clock;
use crate::domain::access::{Masks, PolicySet};
use crate::domain::fhir::capabilities::{IssuerEndpoints, smart_configuration};
use crate::domain::fhir::classify::{self, Asked, Expects, Head};
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::search::Registry;
use crate::domain::identity::VerifiedTokens;
use crate::edge::coding;
use crate::edge::journal::Journal;
use crate::edge::keyring::Keyring;
use crate::edge::listener::{self, Peer};
use crate::edge::seal::Seal;
use crate::edge::sessions::Sessions;
use crate::edge::telemetry::{self, Telemetry};
use crate::edge::upstream::Upstream;
use crate::limits;
use bytes::Bytes;
use draft::Draft;
use establish::establish;
use http::{HeaderValue, Request, Response, StatusCode, header, request};
use hyper::body::Incoming;
use jiff::Timestamp;
use refusal::Refusal;
use reply::{Answer, outcome_of};
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use visit::Visit;

/// Everything a request meets on its way.
pub struct Gate {
    /// Where clients reach us.
    pub public: PublicBase,
    /// The EMR's base URL as text, without a trailing slash.
    pub upstream_base: String,
    /// The EMR.
    pub upstream: Upstream,
    /// The issuers' keys.
    pub keyring: Keyring,
    /// Tokens verified lately.
    pub tokens: VerifiedTokens,
    /// Who may go on.
    pub sessions: Sessions,
    /// Issuers that send security events.
    pub events: EventSources,
    /// The policy set in force.
    pub policies: RwLock<Arc<PolicySet>>,
    /// Masks made lately.
    pub masks: Masks,
    /// How callers were lately found to stand to patients.
    pub relations: relations::Standing,
    /// Emergency access in force.
    pub emergencies: emergency::Emergencies,
    /// The trail.
    pub journal: Journal,
    /// Seals paging links.
    pub seal: Seal,
    /// Metrics.
    pub telemetry: Telemetry,
    /// What `/metadata` says about the issuers.
    pub issuers: Vec<IssuerEndpoints>,
    /// When this process began, as R4 dateTime, for `/metadata`.
    pub started: String,
    /// Search parameters that the hospital declared.
    pub parameters: Registry,
    /// Whether answers may be compressed.
    pub compresses: bool,
    /// What `/metadata` says.
    pub statement: Statement,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("public", &self.public.as_str()).finish_non_exhaustive()
    }
}

/// Answers one request, and records it first.
///
/// The journey runs on in a task of its own when the client leaves, so that what was begun is recorded; a
/// panic in it ends as a recorded refusal.
pub async fn handle(gate: Arc<Gate>, request: Request<Incoming>, peer: Peer) -> Response<ReplyBody> {
    let draft = Draft::open(&request, &peer);
    let spare = draft.clone();
    let task = tokio::spawn(travel(Arc::clone(&gate), request, peer, draft));
    match task.await {
        Ok(response) => response,
        Err(_panicked) => {
            gate.telemetry.handler_panicked();
            leave(&gate, spare, Err(Refusal::Internal)).await
        }
    }
}

async fn travel(
    gate: Arc<Gate>,
    request: Request<Incoming>,
    peer: Peer,
    mut draft: Draft,
) -> Response<ReplyBody> {
    if let Some(kind) = events::kind_of(&gate, &request) {
        return events::receive(&gate, kind, request, draft).await;
    }
    let outcome = journey(&gate, request, &peer, &mut draft).await;
    leave(&gate, draft, outcome).await
}

/// The journey, top to bottom (design: section 4). Every early end is a [`Refusal`]; nothing is sent here.
async fn journey(
    gate: &Gate,
    request: Request<Incoming>,
    peer: &Peer,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let (parts, body) = request.into_parts();
    let head = Head::received(&parts);
    check_protocol(&parts)?;

    // What needs no body is read at once, so that even a refusal of its sender says what was asked.
    let early = understand_early(gate, &head, draft);
    if let Some(asked) = &early
        && let Some(document) = public_document(gate, asked).await
    {
        return Ok(document.formed(&asked.wishes, gate.compresses));
    }

    // 1 · Who?
    let caller = establish(gate, &parts, draft).await?;

    // 2 · What? A body is read only from someone we know.
    let expects = classify::expects(&head, &gate.public).map_err(Refusal::Fhir)?;
    let body = read_body(&head, body, expects).await?;
    let asked = match early {
        Some(asked) => asked,
        None => understand(gate, &head, &body, expects, draft)?,
    };

    // 3 to 8 · May it be asked, what do we ask instead, what of the answer may leave? A write is written down
    // before the EMR hears of it.
    let visit = Visit::begin(gate, caller, peer, &parts, draft)?;
    let answer = answer::question(&visit, &asked, &body, draft).await?;
    let answer = answer.under(&visit.emergencies(), draft);
    Ok(answer.formed(&asked.wishes, gate.compresses))
}

/// The only way out: 9, write it down, durably; 10, reply.
async fn leave(gate: &Arc<Gate>, mut draft: Draft, outcome: Result<Answer, Refusal>) -> Response<ReplyBody> {
    let refused = outcome.is_err();
    let mut answer = draft.settle(outcome, gate);
    let (interaction, began, head_only) = (draft.interaction, draft.began, draft.head_only);
    let request_id = draft.decision.request_id.clone();
    let standing = draft.standing.take();
    let records = draft.records();
    let recorded = if refused {
        gate.journal.append(&records).await.map(|receipt| (receipt, None))
    } else {
        gate.journal.release(&request_id, &records).await.map(|(receipt, slot)| (receipt, Some(slot)))
    };
    let decision = if refused { telemetry::Decision::Refuse } else { telemetry::Decision::Permit };
    let took = span(began, clock::now());
    match recorded {
        Ok((receipt, slot)) => {
            gate.telemetry.request(interaction, decision, answer.status, took);
            // What follows the first unit of a long answer is recorded unit by unit, before each.
            let following = answer.rest.take().map(|units| stream::release(Arc::clone(gate), *units));
            answer.send(&request_id, receipt, slot, following).map(|body| body.watched(standing))
        }
        Err(error) => {
            tracing::error!(%error, "no record, no answer");
            gate.telemetry.refusal(Refusal::TrailUnavailable.code());
            let answer = outcome_of(&Refusal::TrailUnavailable, &request_id, head_only);
            gate.telemetry.request(interaction, telemetry::Decision::Refuse, answer.status, took);
            answer.send_unrecorded(&request_id)
        }
    }
}

/// From one time to another; nothing when the clock went back.
fn span(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// HTTP/1.1 or HTTP/2, and no wish to become something else (T-110, T-138).
fn check_protocol(parts: &request::Parts) -> Result<(), Refusal> {
    let spoken = matches!(parts.version, http::Version::HTTP_11 | http::Version::HTTP_2);
    if spoken && !parts.headers.contains_key(header::UPGRADE) { Ok(()) } else { Err(Refusal::Protocol) }
}

/// The interaction, where the head alone tells it.
fn understand_early(gate: &Gate, head: &Head<'_>, draft: &mut Draft) -> Option<Asked> {
    let no_form = classify::expects(head, &gate.public).is_ok_and(|expects| expects != Expects::Form);
    let read = || classify::classify(head, None, &gate.public, &gate.parameters).ok();
    let asked = no_form.then(read).flatten()?;
    draft.asks(&asked.interaction);
    Some(asked)
}

/// The body of a form or of a change, whole and bounded.
async fn read_body(head: &Head<'_>, body: Incoming, expects: Expects) -> Result<Bytes, Refusal> {
    let bytes_max = match expects {
        Expects::Nothing => return Ok(Bytes::new()),
        Expects::Form => limits::FORM_BYTES_MAX,
        Expects::Resource | Expects::Patch => limits::CHANGE_BYTES_MAX,
    };
    // Of a length and chunks together the HTTP library drops the length unseen (RFC 9112 section 6.1, T-136).
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::LengthRequired);
    }
    let body = listener::read_body(body, bytes_max).await.map_err(Refusal::Body)?;
    let coded = head.headers.get(header::CONTENT_ENCODING);
    if coded.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"gzip")) {
        return coding::decode_gzip(&body, bytes_max).map_err(Refusal::Coding);
    }
    Ok(body)
}

fn understand(
    gate: &Gate,
    head: &Head<'_>,
    body: &Bytes,
    expects: Expects,
    draft: &mut Draft,
) -> Result<Asked, Refusal> {
    let form = (expects == Expects::Form).then_some(&**body);
    let asked = classify::classify(head, form, &gate.public, &gate.parameters).map_err(Refusal::Fhir)?;
    draft.asks(&asked.interaction);
    Ok(asked)
}

/// The two documents that anyone may read.
async fn public_document(gate: &Gate, asked: &Asked) -> Option<Answer> {
    match &asked.interaction {
        Interaction::SmartConfiguration => {
            let mut answer = Answer::fhir(StatusCode::OK, smart_configuration(&gate.issuers));
            answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Some(answer)
        }
        Interaction::Capabilities => Some(Answer::fhir(StatusCode::OK, capabilities::statement(gate).await)),
        _ => None,
    }
}
