//! The journey of a request, as one function one can read aloud.
//!
//! Owns: the order of the steps, and the one exit that records and then answers.
//! Must never: decide (that is `domain`), do (that is `edge`), or answer without a receipt.
//! Look next: [`journey`]; `refusal`, what the outside hears when a step says no.

mod page;
mod refusal;
mod release;
mod reply;

pub use reply::ReplyBody;

use crate::clock;
use crate::domain::access::{self, Circumstances, Masks, Permit, PolicySet};
use crate::domain::audit::{self, Decision, Record};
use crate::domain::fhir::capabilities::{self, IssuerEndpoints};
use crate::domain::fhir::classify::{self, Asked, Expects, FhirRefusal, Head, NotServed};
use crate::domain::fhir::interaction::{Interaction, Registry, Total};
use crate::domain::fhir::outcome::operation_outcome;
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::shape::Shape;
use crate::domain::filter::Bases;
use crate::domain::identity::{self, Caller, IdentityRefusal, Unverified, VerifiedTokens};
use crate::domain::narrow::{self, Expected, Plan};
use crate::edge::journal::Journal;
use crate::edge::keyring::Keyring;
use crate::edge::listener::{self, Peer};
use crate::edge::seal::Seal;
use crate::edge::sessions::Sessions;
use crate::edge::telemetry::{self, Telemetry};
use crate::edge::upstream::{Upstream, UpstreamRequest};
use crate::limits;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header, request};
use hyper::body::Incoming;
use jiff::Timestamp;
use refusal::Refusal;
use release::Release;
use reply::Answer;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The header in which a caller chooses among the purposes that the token allows.
const PURPOSE_OF_USE: HeaderName = HeaderName::from_static("x-purpose-of-use");

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
    /// Sessions seen lately.
    pub sessions: Sessions,
    /// The policy set in force.
    pub policies: RwLock<Arc<PolicySet>>,
    /// Masks made lately.
    pub masks: Masks,
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
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("public", &self.public.as_str()).finish_non_exhaustive()
    }
}

/// What is known about a request so far, for its record.
struct Draft {
    decision: Decision,
    began: Timestamp,
    interaction: &'static str,
}

/// Answers one request, and records it first.
///
/// The journey runs on in a task of its own when the client leaves, so that what was begun is recorded; a
/// panic in it ends as a recorded refusal.
pub async fn handle(gate: Arc<Gate>, request: Request<Incoming>, peer: Peer) -> Response<ReplyBody> {
    let draft = Draft::open(&request, &peer);
    let spare = draft.copy();
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
    if let Some(document) = early.as_ref().and_then(|asked| public_document(gate, asked)) {
        return Ok(document);
    }

    // 1 · Who?
    let caller = establish(gate, &parts, draft).await?;

    // 2 · What? A form is read only from someone we know.
    let asked = match early {
        Some(asked) => asked,
        None => understand(gate, &head, body, draft).await?,
    };
    let page = open_page(gate, &caller, &asked, draft.began)?;
    let question = page.as_ref().map_or(&asked, |page| &page.search);

    // 3 · May this kind of thing be asked at all, and with these parameters?
    let permit = admit(gate, &caller, question, peer, &parts, draft)?;

    // 4 · What will we ask instead?
    let plan = match &page {
        Some(page) => page::plan(page, &permit, &gate.upstream_base, gate.public.as_str())?,
        None => narrow::plan(question, &permit).map_err(|_| Refusal::Internal)?,
    };

    // 6 · Ask. (5 is the intent of a write.)
    let answered = ask(gate, &plan).await?;

    // 7 and 8 · Decide each record on its full content; let out only what is permitted.
    let mut release = Release::default();
    let outcome = let_out(gate, &caller, question, &plan, &permit, &answered, &mut release, draft.began);
    gate.telemetry.filtered(answered.len() as u64, release.body.len() as u64);
    draft.releases(&mut release, outcome.is_ok());
    outcome?;
    Ok(answer_with(release))
}

/// The only way out: 9, write it down, durably; 10, reply.
async fn leave(gate: &Gate, mut draft: Draft, outcome: Result<Answer, Refusal>) -> Response<ReplyBody> {
    let refused = outcome.is_err();
    draft.decision.verdict = if refused { audit::Verdict::Refuse } else { audit::Verdict::Permit };
    let answer = outcome.unwrap_or_else(|refusal| draft.refuse(&refusal, gate));
    draft.decision.status = answer.status.as_u16();
    let request_id = draft.decision.request_id.clone();
    let records = [Record::Decision(Box::new(draft.decision))];
    let recorded = if refused {
        gate.journal.append(&records).await.map(|receipt| (receipt, None))
    } else {
        gate.journal.release(&request_id, &records).await.map(|(receipt, slot)| (receipt, Some(slot)))
    };
    let decision = if refused { telemetry::Decision::Refuse } else { telemetry::Decision::Permit };
    let took = span(draft.began, clock::now());
    match recorded {
        Ok((receipt, slot)) => {
            gate.telemetry.request(draft.interaction, decision, answer.status, took);
            answer.send(&request_id, receipt, slot)
        }
        Err(error) => {
            tracing::error!(%error, "no record, no answer");
            gate.telemetry.refusal(Refusal::TrailUnavailable.code());
            let answer = outcome_of(&Refusal::TrailUnavailable, &request_id);
            gate.telemetry.request(draft.interaction, telemetry::Decision::Refuse, answer.status, took);
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

/// The caller behind the bearer token, with a session that is not over.
async fn establish(gate: &Gate, parts: &request::Parts, draft: &mut Draft) -> Result<Arc<Caller>, Refusal> {
    let given = parts.headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let token = identity::bearer(given).map_err(Refusal::Identity)?;
    let unverified = Unverified::inspect(token).map_err(Refusal::Identity)?;
    let unknown = || Refusal::Identity(IdentityRefusal::IssuerUnknown);
    let issuer = gate.keyring.issuer(unverified.issuer()).ok_or_else(unknown)?;
    let keys = gate.keyring.key_set(unverified.issuer(), unverified.key_id()).await;
    let keys = keys.map_err(|error| Refusal::Identity(error.into()))?;
    let caller =
        gate.tokens.authenticate(&unverified, issuer, &keys, draft.began).map_err(Refusal::Identity)?;
    draft.knows(&caller);
    gate.sessions.touch(&caller, draft.began).map_err(Refusal::Session)?;
    Ok(caller)
}

/// The interaction, where the head alone tells it.
fn understand_early(gate: &Gate, head: &Head<'_>, draft: &mut Draft) -> Option<Interaction> {
    let no_form = classify::expects(head, &gate.public) == Ok(Expects::Nothing);
    let asked =
        no_form.then(|| classify::classify(head, None, &gate.public, &Registry::empty()).ok()).flatten()?;
    served(&asked).ok()?;
    let asked = asked.interaction;
    draft.asks(&asked);
    Some(asked)
}

/// What is understood and not yet carried out is refused, the same way for all of it.
fn served(asked: &Asked) -> Result<(), Refusal> {
    let whole = |shape: &Shape| *shape == Shape::Whole;
    let served = !asked.wishes.head_only
        && !asked.wishes.raw
        && match &asked.interaction {
            Interaction::Read { shape, .. } | Interaction::Vread { shape, .. } => whole(shape),
            Interaction::Search(search) => {
                let plain = search.compartment().is_none() && search.total() == Total::Unstated;
                plain && whole(search.shape()) && !search.includes().iter().any(|include| include.iterate())
            }
            Interaction::NextPage { resource, .. } => resource.is_some(),
            Interaction::Capabilities | Interaction::SmartConfiguration => true,
            Interaction::History(_)
            | Interaction::SearchMany { .. }
            | Interaction::Create { .. }
            | Interaction::Update { .. }
            | Interaction::Patch { .. }
            | Interaction::Delete { .. }
            | Interaction::Bundle
            | Interaction::Operation(_)
            | Interaction::ExportStatus { .. }
            | Interaction::ExportCancel { .. }
            | Interaction::ExportFile { .. } => false,
        };
    if served { Ok(()) } else { Err(Refusal::Fhir(FhirRefusal::NotServed(NotServed::Operation))) }
}

async fn understand(
    gate: &Gate,
    head: &Head<'_>,
    body: Incoming,
    draft: &mut Draft,
) -> Result<Interaction, Refusal> {
    let expected = classify::expects(head, &gate.public).map_err(Refusal::Fhir)?;
    let form = if expected == Expects::Form {
        // Of a length and chunks together the HTTP library drops the length unseen (RFC 9112 section 6.1, T-136).
        if head.headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(Refusal::LengthRequired);
        }
        Some(listener::read_body(body, limits::FORM_BYTES_MAX).await.map_err(Refusal::Body)?)
    } else {
        None
    };
    let asked = classify::classify(head, form.as_deref(), &gate.public, &Registry::empty());
    let asked = asked.map_err(Refusal::Fhir)?;
    served(&asked)?;
    let asked = asked.interaction;
    draft.asks(&asked);
    Ok(asked)
}

fn open_page(
    gate: &Gate,
    caller: &Caller,
    asked: &Interaction,
    now: Timestamp,
) -> Result<Option<page::Page>, Refusal> {
    let Interaction::NextPage { resource: Some(resource), token } = asked else { return Ok(None) };
    page::open(&gate.seal, &gate.public, caller, *resource, token, now).map(Some)
}

fn admit(
    gate: &Gate,
    caller: &Caller,
    question: &Interaction,
    peer: &Peer,
    parts: &request::Parts,
    draft: &mut Draft,
) -> Result<Permit, Refusal> {
    let policies = Arc::clone(&gate.policies.read().unwrap_or_else(PoisonError::into_inner));
    draft.decision.policy_set = Some(policies.hash().to_owned());
    let circumstances = Circumstances {
        now: draft.began,
        network: peer.address.ip(),
        purpose: purpose_asked(parts)?,
        emergency: false,
    };
    let permit =
        access::admit(&policies, &gate.masks, caller, question, &circumstances).map_err(Refusal::Access)?;
    draft.decision.purposes = vec![permit.purpose().to_owned()];
    draft.decision.policies = permit.policies().to_vec();
    Ok(permit)
}

/// At most one purpose of use is asked for.
fn purpose_asked(parts: &request::Parts) -> Result<Option<String>, Refusal> {
    let mut given = parts.headers.get_all(PURPOSE_OF_USE).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| Refusal::Fhir(FhirRefusal::MalformedHeader))?;
    match given.next() {
        Some(_) => Err(Refusal::Fhir(FhirRefusal::RepeatedHeader)),
        None => Ok(Some(text.to_owned())),
    }
}

/// The EMR's answer, whole and bounded; any status but success is a refusal of ours, without its text.
async fn ask(gate: &Gate, plan: &Plan) -> Result<Bytes, Refusal> {
    let mut request = UpstreamRequest::new(plan.method().clone(), plan.path_and_query());
    if plan.strict_handling() {
        request =
            request.header(HeaderName::from_static("prefer"), HeaderValue::from_static("handling=strict"));
    }
    if let Some(form) = plan.form() {
        let media_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request = request.body(media_type, Bytes::copy_from_slice(form.as_bytes()));
    }
    let answer = gate.upstream.send(request).await.map_err(Refusal::Upstream)?;
    let is_search = matches!(plan.expected(), Expected::Searchset { .. });
    match answer.status {
        StatusCode::OK => {
            answer.body.read(limits::UPSTREAM_ANSWER_BYTES_MAX).await.map_err(Refusal::Upstream)
        }
        StatusCode::NOT_FOUND | StatusCode::GONE if !is_search => Err(Refusal::NotFound),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::NOT_IMPLEMENTED
            if is_search =>
        {
            Err(Refusal::QueryRefusedUpstream)
        }
        _ => Err(Refusal::AnswerUnsound),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the two kinds of answer need what the journey has found so far"
)]
fn let_out(
    gate: &Gate,
    caller: &Caller,
    question: &Interaction,
    plan: &Plan,
    permit: &Permit,
    body: &[u8],
    release: &mut Release,
    now: Timestamp,
) -> Result<(), Refusal> {
    let upstream = [gate.upstream_base.as_str()];
    let bases = Bases { upstream: &upstream, public: gate.public.as_str() };
    match question {
        Interaction::Search(search) => {
            let next = |link: &str| page::seal_next(&gate.seal, &gate.public, caller, search, link, now);
            release::searchset(body, bases, permit, &gate.public.search_url(search), next, release)
        }
        Interaction::Read { .. }
        | Interaction::Vread { .. }
        | Interaction::NextPage { .. }
        | Interaction::Capabilities
        | Interaction::SmartConfiguration
        | Interaction::History(_)
        | Interaction::SearchMany { .. }
        | Interaction::Create { .. }
        | Interaction::Update { .. }
        | Interaction::Patch { .. }
        | Interaction::Delete { .. }
        | Interaction::Bundle
        | Interaction::Operation(_)
        | Interaction::ExportStatus { .. }
        | Interaction::ExportCancel { .. }
        | Interaction::ExportFile { .. } => release::single(body, bases, plan.expected(), permit, release),
    }
}

fn answer_with(release: Release) -> Answer {
    let mut answer = Answer::fhir(StatusCode::OK, release.body);
    if let Some(value) =
        release.version.and_then(|version| HeaderValue::try_from(format!("W/\"{version}\"")).ok())
    {
        answer.headers.insert(header::ETAG, value);
    }
    if let Some(value) = release.last_updated.as_deref().and_then(http_date) {
        answer.headers.insert(header::LAST_MODIFIED, value);
    }
    answer
}

/// An R4 instant as an HTTP date (RFC 9110 section 5.6.7).
fn http_date(instant: &str) -> Option<HeaderValue> {
    let at: Timestamp = instant.parse().ok()?;
    HeaderValue::try_from(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}

/// The two documents that anyone may read.
fn public_document(gate: &Gate, asked: &Interaction) -> Option<Answer> {
    match asked {
        Interaction::SmartConfiguration => {
            let mut answer = Answer::fhir(StatusCode::OK, capabilities::smart_configuration(&gate.issuers));
            answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Some(answer)
        }
        Interaction::Capabilities => {
            let version = env!("CARGO_PKG_VERSION");
            let body =
                capabilities::capability_statement(&gate.public, &gate.issuers, &gate.started, version);
            Some(Answer::fhir(StatusCode::OK, body))
        }
        Interaction::Read { .. }
        | Interaction::Vread { .. }
        | Interaction::Search(_)
        | Interaction::NextPage { .. }
        | Interaction::History(_)
        | Interaction::SearchMany { .. }
        | Interaction::Create { .. }
        | Interaction::Update { .. }
        | Interaction::Patch { .. }
        | Interaction::Delete { .. }
        | Interaction::Bundle
        | Interaction::Operation(_)
        | Interaction::ExportStatus { .. }
        | Interaction::ExportCancel { .. }
        | Interaction::ExportFile { .. } => None,
    }
}

fn outcome_of(refusal: &Refusal, request_id: &str) -> Answer {
    let heard = refusal.heard();
    let body = operation_outcome(heard.issue, heard.code, &heard.sentence, request_id);
    let mut answer = Answer::fhir(heard.status, body);
    if let Some((name, value)) = heard.header {
        answer.headers.insert(name, value);
    }
    answer
}

impl Draft {
    fn open(request: &Request<Incoming>, peer: &Peer) -> Self {
        let began = clock::now();
        let mut decision = Decision::new(began, request_id(), audit::Verdict::Refuse);
        decision.source = Some(peer.address.ip().to_canonical().to_string());
        let path = request.uri().path();
        decision.request = format!("{} {path}", request.method());
        Self { decision, began, interaction: "unknown" }
    }

    fn copy(&self) -> Self {
        Self { decision: self.decision.clone(), began: self.began, interaction: self.interaction }
    }

    fn knows(&mut self, caller: &Caller) {
        self.decision.caller = Some(audit::Caller {
            issuer: caller.issuer().to_owned(),
            subject: caller.subject().to_owned(),
            session: caller.session().to_owned(),
            token_hash: caller.token_hash().to_owned(),
            application: caller.application().map(str::to_owned),
            roles: caller.roles().iter().cloned().collect(),
        });
    }

    /// The request in canonical spelling, once it is understood. A page is told apart from its search.
    fn asks(&mut self, interaction: &Interaction) {
        self.interaction = interaction.code();
        interaction.code().clone_into(&mut self.decision.interaction);
        self.decision.request = match interaction {
            Interaction::NextPage { resource, .. } => {
                let name = resource.map_or("", |resource| resource.name());
                format!("GET {name} (next page)").replace("  ", " ")
            }
            other => format!("{} {}", other.method(), other.address()),
        };
    }

    fn releases(&mut self, release: &mut Release, released: bool) {
        self.decision.withheld = release.withheld;
        if released {
            self.decision.released = std::mem::take(&mut release.records);
            let mut policies = std::mem::take(&mut release.policies);
            policies.extend(self.decision.policies.drain(..));
            self.decision.policies = policies.into_iter().collect();
        }
        if release.alarm {
            tracing::error!(
                request_id = self.decision.request_id,
                "a policy could not be evaluated for a record"
            );
        }
    }

    /// Turns a refusal into its answer, and this draft into its record.
    fn refuse(&mut self, refusal: &Refusal, gate: &Gate) -> Answer {
        self.decision.reason = Some(refusal.code().to_owned());
        if let Some(code) = refusal.interaction() {
            self.interaction = code;
            code.clone_into(&mut self.decision.interaction);
        }
        self.decision.released.clear();
        gate.telemetry.refusal(refusal.code());
        if refusal.is_alarm() {
            tracing::error!(
                request_id = self.decision.request_id,
                code = refusal.code(),
                "refused, and somebody should look"
            );
        }
        outcome_of(refusal, &self.decision.request_id)
    }
}

/// 128 random bits as hex; from the clock alone should the system have no randomness to give.
fn request_id() -> String {
    let mut bytes = [0_u8; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes = clock::now().as_nanosecond().to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
