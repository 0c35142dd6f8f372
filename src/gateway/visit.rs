//! One caller's visit: everything that stays the same while their request, or each entry of it, is answered.
//!
//! Owns: asking policy and asking the EMR in this caller's name, with this moment's policies. A batch's entries and the
//! searches behind conditional headers come through here like any request: there is no second way in.
//! Must never: remember a decision; that is the policies' business.
//! Look next: `answer`, which tells one interaction from another.

use super::draft::Draft;
use super::refusal::Refusal;
use super::share::{Share, Turn};
use super::{Gate, InForce};
use crate::domain::access::{self, Challenge, Circumstances, Lacking, Permit, PolicySet};
use crate::domain::audit::Record;
use crate::domain::fhir::classify::{self, EntryRequest, FhirRefusal};
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::search::Search;
use crate::domain::filter::Bases;
use crate::domain::identity::Caller;
use crate::domain::narrow::{self, Expected, Plan};
use crate::edge::journal::Receipt;
use crate::edge::listener::Peer;
use crate::edge::sessions::Standing;
use crate::edge::upstream::{self, Accept, UpstreamRequest};
use crate::limits;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header, request};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The header in which a caller chooses among the purposes that the token allows.
const PURPOSE_OF_USE: HeaderName = HeaderName::from_static("x-purpose-of-use");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const IF_NONE_EXIST: HeaderName = HeaderName::from_static("if-none-exist");

/// An established caller with the policies in force when they came.
pub(super) struct Visit<'g> {
    pub(super) gate: &'g Gate,
    pub(super) caller: Arc<Caller>,
    /// Who is at the other end of the connection.
    pub(super) peer: Peer,
    standing: Option<Standing>,
    share: Option<Share>,
    policies: Arc<PolicySet>,
    circumstances: Circumstances,
    used: Mutex<BTreeSet<String>>,
    upstream: [&'g str; 1],
}

impl<'g> Visit<'g> {
    pub(super) fn begin(
        gate: &'g Gate,
        caller: Arc<Caller>,
        peer: &Peer,
        parts: &request::Parts,
        draft: &mut Draft,
    ) -> Result<Self, Refusal> {
        let InForce { policies, epoch } =
            gate.policies.read().unwrap_or_else(PoisonError::into_inner).clone();
        draft.decision.policy_set = Some(policies.hash().to_owned());
        draft.decision.policy_epoch = Some(epoch);
        let circumstances = Circumstances {
            now: draft.began,
            network: peer.address.ip(),
            purpose: purpose_asked(parts)?,
            emergencies: gate.emergencies.of(&caller, draft.began),
        };
        let (peer, standing, share) = (peer.clone(), draft.standing.clone(), draft.share.clone());
        let (used, upstream) = (Mutex::default(), [gate.upstream_base.as_str()]);
        Ok(Self { gate, caller, peer, standing, share, policies, circumstances, used, upstream })
    }

    /// When the request came.
    pub(super) fn now(&self) -> Timestamp {
        self.circumstances.now
    }

    /// Notes grants of emergency access that something was decided under.
    pub(super) fn used<'s>(&self, grants: impl IntoIterator<Item = &'s str>) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.extend(grants.into_iter().map(str::to_owned));
    }

    /// Whether a grant of emergency access may have a say.
    pub(super) fn may_be_urgent(&self) -> bool {
        !self.circumstances.emergencies.is_empty()
    }

    /// Grants of emergency access that the answer rests on.
    pub(super) fn emergencies(&self) -> Vec<String> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn bases(&self) -> Bases<'_> {
        Bases { upstream: &self.upstream, public: self.gate.public.as_str() }
    }

    /// A turn on the processors for work on an answer of so many bytes. A short one is worked on at once.
    pub(super) async fn turn(&self, bytes: usize) -> Option<Turn<'_>> {
        match &self.share {
            Some(share) if bytes >= limits::LONG_WORK_BYTES => Some(share.turn().await),
            Some(_) | None => None,
        }
    }

    /// Between two pages, two entries, two steps of a write: the caller may have been revoked meanwhile (T-193).
    fn still_stands(&self) -> Result<(), Refusal> {
        Ok(self.standing.as_ref().map_or(Ok(()), Standing::check)?)
    }

    /// May this be asked? The permit is noted for the record.
    pub(super) fn admit(&self, question: &Interaction, draft: &mut Draft) -> Result<Permit, Refusal> {
        let asked = self.admits(question);
        if let Some(shadow) = self.gate.shadow.get() {
            shadow.question(&self.caller, question, &self.circumstances, asked.as_ref().ok());
        }
        let permit = asked.map_err(|refusal| self.reconsidered(question, refusal))?;
        draft.permitted(&permit);
        Ok(permit)
    }

    /// The same for a question of our own, which is not what the record is about.
    pub(super) fn admits(&self, question: &Interaction) -> Result<Permit, Refusal> {
        access::admit(&self.policies, &self.gate.masks, &self.caller, question, &self.circumstances)
            .map_err(Refusal::Access)
    }

    /// The least login that would let the question through.
    pub(super) fn step_up(&self, question: &Interaction, lacking: Lacking<'_>) -> Option<Challenge> {
        let (policies, masks) = (&self.policies, &self.gate.masks);
        access::step_up(policies, masks, &self.caller, question, &self.circumstances, lacking)
    }

    /// The EMR's answer to a question, whole and bounded; any status but success is a refusal of ours, without
    /// its text.
    pub(super) async fn ask(&self, plan: &Plan) -> Result<Bytes, Refusal> {
        let answer = self.ask_unread(plan).await?;
        answer.body.read(limits::UPSTREAM_ANSWER_BYTES_MAX).await.map_err(Refusal::Upstream)
    }

    /// The same with its body unread.
    pub(super) async fn ask_unread(&self, plan: &Plan) -> Result<upstream::Answer, Refusal> {
        let answer = self.hear(plan).await?;
        let lists = matches!(plan.expected(), Expected::Searchset { .. } | Expected::History { .. });
        let about_one = !lists || matches!(plan.expected(), Expected::History { instance: true });
        match answer.status {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND | StatusCode::GONE if about_one => Err(Refusal::NotFound),
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::NOT_IMPLEMENTED
                if lists || matches!(plan.expected(), Expected::Output) =>
            {
                Err(Refusal::QueryRefusedUpstream)
            }
            _ => Err(Refusal::AnswerUnsound),
        }
    }

    /// The EMR's findings about a body, whether it calls them success or not (R4 resource-operation-validate.html).
    pub(super) async fn findings(&self, plan: &Plan) -> Result<Bytes, Refusal> {
        let answer = self.hear(plan).await?;
        match answer.status {
            StatusCode::OK
            | StatusCode::BAD_REQUEST
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::UNPROCESSABLE_ENTITY => {
                answer.body.read(limits::CHANGE_BYTES_MAX).await.map_err(Refusal::Upstream)
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                Err(Refusal::QueryRefusedUpstream)
            }
            _ => Err(Refusal::AnswerUnsound),
        }
    }

    /// A record or a search that another record names, as if the caller had asked for it.
    pub(super) fn asked_by(&self, url: &str) -> Result<Interaction, Refusal> {
        let request = EntryRequest {
            method: "GET",
            url,
            if_none_exist: None,
            if_match: None,
            if_none_match: None,
            if_modified_since: None,
        };
        let asked = classify::entry(&request, &[], &self.gate.public, &self.gate.parameters);
        asked.map(|asked| asked.interaction).map_err(Refusal::Fhir)
    }

    /// The EMR's answer to a question as it comes, its body unread.
    pub(super) async fn hear(&self, plan: &Plan) -> Result<upstream::Answer, Refusal> {
        self.still_stands()?;
        self.gate.upstream.send(request_of(plan)).await.map_err(Refusal::Upstream)
    }

    /// Sends what changes the EMR. The receipt says that the intent is on disk.
    pub(super) async fn send(&self, plan: &Plan, intended: &Receipt) -> Result<upstream::Answer, Refusal> {
        self.still_stands()?;
        self.gate.upstream.write(request_of(plan), intended).await.map_err(Refusal::Upstream)
    }

    /// A record as it is now, whole; nothing if there is none. Nobody but the merge may see it.
    pub(super) async fn fetch(
        &self,
        permit: &Permit,
        resource: ResourceType,
        id: &str,
    ) -> Result<Option<Bytes>, Refusal> {
        let plan = narrow::plan_current(permit, resource, id).map_err(|_| Refusal::Internal)?;
        match self.ask(&plan).await {
            Ok(body) => Ok(Some(body)),
            Err(Refusal::NotFound) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The search in a reference like `Patient?identifier=…` (R4 http.html, conditional references).
    pub(super) fn reference_search(&self, reference: &str) -> Result<(ResourceType, Search), Refusal> {
        match self.asked_by(reference)? {
            Interaction::Search(search) if search.includes().is_empty() => {
                Ok((search.resource_type(), search))
            }
            _ => Err(Refusal::ReferenceUnresolved),
        }
    }

    /// Writes down what is about to be changed, durably, before the EMR hears of it (design: section 4, step 5).
    pub(super) async fn intend(&self, draft: &Draft) -> Result<Receipt, Refusal> {
        self.intend_all(draft, &[]).await
    }

    /// The same for a transaction and its entries.
    pub(super) async fn intend_all(&self, draft: &Draft, entries: &[Draft]) -> Result<Receipt, Refusal> {
        let intents: Vec<Record> = std::iter::once(draft).chain(entries).map(Draft::intent).collect();
        self.gate.journal.append(&intents).await.map_err(|error| {
            tracing::error!(%error, "no record, no write");
            Refusal::TrailUnavailable
        })
    }
}

/// The request of a plan.
pub(super) fn request_of(plan: &Plan) -> UpstreamRequest {
    let mut request = UpstreamRequest::new(plan.method().clone(), plan.path_and_query());
    if *plan.expected() == Expected::ExportFile {
        request = request.accept(Accept::FhirNdjson);
    }
    if let Some(prefer) = plan.prefer() {
        request = request.header(PREFER, HeaderValue::from_static(prefer));
    }
    if let Some(tag) = plan.if_match().and_then(|tag| HeaderValue::try_from(tag).ok()) {
        request = request.header(header::IF_MATCH, tag);
    }
    if let Some(criteria) = plan.if_none_exist().and_then(|text| HeaderValue::try_from(text).ok()) {
        request = request.header(IF_NONE_EXIST, criteria);
    }
    if plan.if_none_match() {
        request = request.header(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    if let Some((media_type, body)) = plan.body() {
        request = request.body(HeaderValue::from_static(media_type), body.clone());
    }
    request
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
