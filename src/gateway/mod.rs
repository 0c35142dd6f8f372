//! The journey of a request, as one function one can read aloud.
//!
//! Owns: the order of the steps, and the one exit that records and then answers.
//! Must never: decide (that is `domain`), do (that is `edge`), or answer without a receipt.
//! Look next: [`journey`]; `answer`, what each interaction takes; `refusal`, what the outside hears when a step says no.

mod answer;
mod binary;
mod body;
mod bundle;
mod capabilities;
mod conclude;
mod consents;
mod count;
mod draft;
pub mod emergency;
mod entries;
mod establish;
mod events;
mod export;
mod intake;
mod links;
mod newest;
mod noise;
mod operation;
mod outlet;
mod page;
mod refusal;
pub mod relations;
mod release;
mod reply;
mod reserve;
pub mod review;
mod rows;
mod shadow;
mod share;
mod standing;
mod step_up;
mod stream;
mod turns;
mod visit;
mod write;

pub use body::LargeBodies;
pub use capabilities::Statement;
pub use events::{EventSource, EventSources, heard_streams, silent_streams};
pub use reply::ReplyBody;
pub use shadow::Shadow;
pub use share::Shares;
pub use turns::Turns;

use crate::clock;
use crate::domain::access::{Masks, PolicySet};
use crate::domain::fhir::capabilities::{IssuerEndpoints, smart_configuration};
use crate::domain::fhir::classify::{self, Asked, Expects, Head};
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::search::Registry;
use crate::domain::identity::{Nonces, VerifiedTokens};
use crate::edge::cosigning::Cosigning;
use crate::edge::counting::Counting;
use crate::edge::introspection::Introspector;
use crate::edge::journal::Journal;
use crate::edge::keyring::Keyring;
use crate::edge::listener::Peer;
use crate::edge::replay::Replay;
use crate::edge::seal::Seal;
use crate::edge::sessions::Sessions;
use crate::edge::telemetry::{self, Telemetry};
use crate::edge::upstream::Upstream;
use bytes::Bytes;
use draft::Draft;
use establish::establish;
use http::{HeaderValue, Request, Response, StatusCode, header, request};
use hyper::body::Incoming;
use jiff::Timestamp;
use noise::Evidence;
use outlet::Outlet;
use refusal::Refusal;
use reply::{Answer, unrecorded};
use std::fmt;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;
use stream::Part;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use visit::Visit;

/// The policy set in force, with its number.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The set.
    pub policies: Arc<PolicySet>,
    /// How many sets this process has put in force by now, this one among them.
    pub epoch: u64,
}

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
    /// Asks about opaque tokens, if an issuer has them.
    pub introspector: Option<Introspector>,
    /// Which proofs were used.
    pub replay: Replay,
    /// Nonces for proofs, if they must hold one.
    pub nonces: Option<Nonces>,
    /// Who may go on.
    pub sessions: Sessions,
    /// Issuers that send security events.
    pub events: EventSources,
    /// The policy set in force.
    pub policies: RwLock<InForce>,
    /// A candidate set that is asked beside, if one is.
    pub shadow: OnceLock<Arc<Shadow>>,
    /// Masks made lately.
    pub masks: Masks,
    /// How callers were lately found to stand to patients.
    pub relations: relations::Standing,
    /// Emergency access in force.
    pub emergencies: emergency::Emergencies,
    /// The trail.
    pub journal: Journal,
    /// Who cosigns the trail's states, if anybody does.
    pub witnesses: Option<Arc<Cosigning>>,
    /// Counts refusals beyond a budget.
    pub counting: Arc<Counting>,
    /// Seals paging links.
    pub seal: Seal,
    /// Seals links of exports, which last longer than a process.
    pub exports: Seal,
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
    /// Conditional changes under way.
    pub turns: Turns,
    /// What each caller has under way.
    pub shares: Shares,
    /// Room for large request bodies.
    pub large_bodies: LargeBodies,
}

impl Gate {
    /// Whether the operator wants nothing answered, because the trail was not witnessed for too long (T-224).
    #[must_use]
    pub fn is_unwitnessed(&self, now: Timestamp) -> bool {
        self.witnesses.as_ref().is_some_and(|witnesses| witnesses.is_overdue(now))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("public", &self.public.as_str()).finish_non_exhaustive()
    }
}

/// Answers one request, and records it first.
///
/// The journey runs on in a task of its own when the client leaves, so that what was begun is recorded; a
/// panic in it ends as a recorded refusal. A long list begins to leave while the journey goes on.
pub async fn handle(gate: Arc<Gate>, request: Request<Incoming>, peer: Peer) -> Response<ReplyBody> {
    let draft = Draft::open(&request, &peer);
    let spare = draft.clone();
    let (opening, opened) = oneshot::channel();
    drop(tokio::spawn(travel(Arc::clone(&gate), request, peer, draft, opening)));
    match opened.await {
        Ok(response) => response,
        Err(_panicked) => {
            gate.telemetry.handler_panicked();
            // Seldom, so it takes no room in every request.
            Box::pin(leave(&gate, spare, Err(Refusal::Internal), None)).await
        }
    }
}

async fn travel(
    gate: Arc<Gate>,
    request: Request<Incoming>,
    peer: Peer,
    mut draft: Draft,
    opening: oneshot::Sender<Response<ReplyBody>>,
) {
    if let Some(kind) = events::kind_of(&gate, &request) {
        // Who no longer listens needs no answer.
        return drop(opening.send(events::receive(&gate, kind, request, draft).await));
    }
    let mut outlet = Outlet::new(Arc::clone(&gate), opening);
    let outcome = journey(&gate, request, &peer, &mut outlet, &mut draft).await;
    outlet.close(draft, outcome).await;
}

/// The journey, top to bottom (design: section 4). Every early end is a [`Refusal`]; nothing is sent here.
async fn journey(
    gate: &Gate,
    request: Request<Incoming>,
    peer: &Peer,
    outlet: &mut Outlet,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let (parts, body) = request.into_parts();
    let head = Head::received(&parts);
    check_protocol(&parts)?;

    // What needs no body is read at once, so that even a refusal of its sender says what was asked.
    let early = understand_early(gate, &head, draft);
    if let Some(asked) = &early
        && let Some(document) = Box::pin(public_document(gate, asked, draft)).await?
    {
        return Ok(document.formed(&asked.wishes, gate.compresses).await);
    }

    // 1 · Who?
    let caller = establish(gate, &parts, peer, draft).await?;
    if gate.is_unwitnessed(draft.began) {
        return Err(Refusal::TrailUnavailable);
    }

    // 2 · What? A body is read only from someone we know.
    let expects = classify::expects(&head, &gate.public).map_err(Refusal::Fhir)?;
    let (body, _room) = body::read(gate, &head, body, expects).await?;
    let asked = match early {
        Some(asked) => asked,
        None => understand(gate, &head, &body, expects, draft)?,
    };

    let body = match &asked.wishes.content {
        Some(content) => binary::resource(content, &body)?,
        None => body,
    };

    // 3 to 8 · May it be asked, what do we ask instead, what of the answer may leave? A write is written down
    // before the EMR hears of it.
    let visit = Visit::begin(gate, caller, peer, &parts, draft)?;
    outlet.allow(&asked.wishes);
    let answer = answer::question(&visit, &asked, &body, Some(outlet), draft).await?;
    let answer = answer.under(&visit.emergencies(), draft);
    Ok(answer.formed(&asked.wishes, gate.compresses).await)
}

/// The only way out: 9, write it down, durably; 10, reply.
/// `following`: what comes behind the answer's body, unit by unit, each with a record of its own.
async fn leave(
    gate: &Arc<Gate>,
    mut draft: Draft,
    outcome: Result<Answer, Refusal>,
    following: Option<Receiver<Part>>,
) -> Response<ReplyBody> {
    let refused = outcome.is_err();
    let mut answer = draft.settle(outcome, gate);
    let (interaction, began, head_only) = (draft.interaction, draft.began, draft.head_only);
    let request_id = draft.decision.request_id.clone();
    let held = (draft.standing.take(), draft.share.take());
    let recorded = noise::record(gate, draft, &mut answer, refused).await;
    let decision = if refused { telemetry::Decision::Refuse } else { telemetry::Decision::Permit };
    let took = span(began, clock::now());
    match recorded {
        Ok(Evidence::Counted(counted)) => {
            gate.telemetry.request(interaction, decision, answer.status, took);
            answer.send_counted(&request_id, counted)
        }
        Ok(Evidence::Recorded(receipt, slot)) => {
            gate.telemetry.request(interaction, decision, answer.status, took);
            // What follows the first unit of a long answer is recorded unit by unit, before each.
            let files = answer.rest.take().map(|units| stream::release(Arc::clone(gate), *units));
            let following = files.or(following);
            answer.send(&request_id, receipt, slot, following).map(|body| body.held(held))
        }
        Err(error) => {
            tracing::error!(%error, "no record, no answer");
            gate.telemetry.refusal(Refusal::TrailUnavailable.code());
            let answer = unrecorded(&request_id, head_only);
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
    let asks_itself = |expects| !matches!(expects, Expects::Form | Expects::Parameters);
    let no_form = classify::expects(head, &gate.public).is_ok_and(asks_itself);
    let read = || classify::classify(head, None, &gate.public, &gate.parameters).ok();
    let asked = no_form.then(read).flatten()?;
    draft.asks(&asked.interaction);
    Some(asked)
}

fn understand(
    gate: &Gate,
    head: &Head<'_>,
    body: &Bytes,
    expects: Expects,
    draft: &mut Draft,
) -> Result<Asked, Refusal> {
    let form = matches!(expects, Expects::Form | Expects::Parameters).then_some(&**body);
    let asked = classify::classify(head, form, &gate.public, &gate.parameters).map_err(Refusal::Fhir)?;
    draft.asks(&asked.interaction);
    Ok(asked)
}

/// The two documents that anyone may read.
async fn public_document(gate: &Gate, asked: &Asked, draft: &Draft) -> Result<Option<Answer>, Refusal> {
    Ok(match &asked.interaction {
        Interaction::SmartConfiguration => {
            noise::document(gate, draft)?;
            let mut answer = Answer::fhir(StatusCode::OK, smart_configuration(&capabilities::issuers(gate)));
            answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Some(answer)
        }
        Interaction::Capabilities => {
            noise::document(gate, draft)?;
            Some(Answer::fhir(StatusCode::OK, capabilities::statement(gate).await))
        }
        _ => None,
    })
}
