//! What issuers tell us of their own accord: back-channel logout and security events, beside the FHIR base.
//!
//! Owns: the two addresses, `POST /backchannel-logout` (OpenID Connect Back-Channel Logout 1.0) and
//! `POST /security-events` (RFC 8935), and the order of what follows: checked, in force and durable, recorded,
//! answered.
//! Must never: answer before it is recorded; tell the sender whether a person or a session is known here.
//! Look next: `domain::identity::event`, every check; `edge::sessions`, where it comes into force.

use super::draft::Draft;
use super::noise::{self, Evidence};
use super::reply::{Answer, ReplyBody, unrecorded};
use super::{Gate, span};
use crate::clock;
use crate::domain::audit::{Control, Event, Record};
use crate::domain::identity::event::{
    EventKind, EventRefusal, Meaning, SecurityEvent, UnverifiedEvent, validate,
};
use crate::domain::identity::{Reach, RevocationOrigin, RevocationTarget};
use crate::edge::listener;
use crate::edge::sessions::{
    Document, Order, SessionStore, Sessions, StoreError, record_lifted, record_revoked,
};
use crate::limits;
use aws_lc_rs::constant_time;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Where tokens that had their effect are remembered.
const TAKEN: &str = "event";
/// Where the last verification of each stream is kept.
const STREAMS: &str = "event-stream";

/// An issuer that sends events.
pub struct EventSource {
    /// The `aud` of its security events.
    pub audience: String,
    /// The `aud` of its logout tokens: our client id there.
    pub logout_audience: String,
    /// What its `Authorization` header must be when it sends security events.
    pub authorization: Option<String>,
    /// How long its stream may be without a verification event.
    pub heartbeat: Option<Duration>,
}

/// The issuers that send events, by their URL.
pub type EventSources = BTreeMap<String, EventSource>;

/// Shows no secret.
impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource").field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// Why an event was not taken.
enum NotTaken {
    /// What is wrong with it.
    Refused(EventRefusal),
    /// The sender did not authenticate as this issuer must.
    Stranger,
    /// The issuer's keys cannot be had now: the sender should try again.
    KeysUnavailable,
    /// Nothing can be kept now: the same.
    Unavailable,
}

impl NotTaken {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Stranger => "authentication_failed",
            Self::KeysUnavailable | Self::Unavailable => "unavailable",
        }
    }

    /// The code under which it may be counted: only what was refused before anything of it came into force.
    fn counted_as(&self) -> Option<&'static str> {
        match self {
            Self::Refused(_) | Self::Stranger | Self::KeysUnavailable => Some(self.code()),
            Self::Unavailable => None,
        }
    }
}

impl From<EventRefusal> for NotTaken {
    fn from(refusal: EventRefusal) -> Self {
        match refusal {
            EventRefusal::KeysUnavailable => Self::KeysUnavailable,
            refusal => Self::Refused(refusal),
        }
    }
}

/// What was taken: for the trail.
struct Taken {
    issuer: String,
    token_id: String,
    meanings: String,
    again: bool,
    /// What came into force.
    records: Vec<Record>,
}

/// Which kind of event this request brings, if it is for one of the two addresses.
pub(super) fn kind_of<B>(gate: &Gate, request: &Request<B>) -> Option<EventKind> {
    if gate.events.is_empty() || request.method() != Method::POST {
        return None;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(http::uri::Authority::as_str).or(host)?;
    if !authority.eq_ignore_ascii_case(gate.public.authority()) || request.uri().query().is_some() {
        return None;
    }
    match request.uri().path() {
        "/backchannel-logout" => Some(EventKind::Logout),
        "/security-events" => Some(EventKind::Security),
        _ => None,
    }
}

/// Takes an event or refuses it; the answer leaves when that is recorded.
pub(super) async fn receive(
    gate: &Gate,
    kind: EventKind,
    request: Request<Incoming>,
    draft: Draft,
) -> Response<ReplyBody> {
    let taken = take(gate, kind, request, draft.began).await;
    let refused = taken.as_ref().err().and_then(NotTaken::counted_as);
    let (answer, records) = answer(kind, taken, draft.began);
    let request_id = draft.decision.request_id.clone();
    gate.telemetry.event(if answer.status.is_success() { "taken" } else { "refused" });
    tracing::info!(status = answer.status.as_u16(), took = ?span(draft.began, clock::now()), "a security event");
    match noise::record_event(gate, &draft, refused, &records).await {
        Ok(Evidence::Recorded(receipt, slot)) => answer.send(&request_id, receipt, slot, None),
        Ok(Evidence::Counted(counted)) => answer.send_counted(&request_id, counted),
        Err(error) => {
            tracing::error!(%error, "no record, no answer");
            unrecorded(&request_id, false).send_unrecorded(&request_id)
        }
    }
}

async fn take(
    gate: &Gate,
    kind: EventKind,
    request: Request<Incoming>,
    now: Timestamp,
) -> Result<Taken, NotTaken> {
    let (parts, body) = request.into_parts();
    let body = listener::read_body(body, limits::EVENT_BYTES_MAX).await;
    let body = body.map_err(|_| EventRefusal::Malformed("body"))?;
    let token = token_in(kind, &parts.headers, &body)?;
    let unverified = UnverifiedEvent::inspect(&token, kind)?;
    let source = gate.events.get(unverified.issuer()).ok_or(EventRefusal::Issuer)?;
    if kind == EventKind::Security && !source.knows(&parts.headers) {
        return Err(NotTaken::Stranger);
    }
    let issuer = gate.keyring.issuer(unverified.issuer()).ok_or(EventRefusal::Issuer)?;
    let keys = gate.keyring.key_set(issuer.url(), unverified.key_id()).await;
    let keys = keys.map_err(|_| EventRefusal::KeysUnavailable)?;
    let audience = match kind {
        EventKind::Logout => &source.logout_audience,
        EventKind::Security => &source.audience,
    };
    let event = validate(&unverified, issuer, audience, &keys, now)?;
    let (sessions, issuer) = (gate.sessions.clone(), issuer.url().to_owned());
    let (journal, runtime) = (gate.journal.clone(), tokio::runtime::Handle::current());
    // Before anything is opened again that was shut, it is on record; what is shut is shut at once.
    let record = move |records: Vec<Record>| {
        let recorded = runtime.block_on(journal.append(&records));
        recorded.map(|_receipt| ()).map_err(|error| StoreError::Unavailable(error.to_string()))
    };
    let effect = tokio::task::spawn_blocking(move || take_effect(&sessions, &issuer, &event, now, &record));
    let effect = effect.await.map_err(|_| NotTaken::Unavailable)?;
    effect.map_err(|error| {
        tracing::error!(%error, "a security event could not be kept");
        NotTaken::Unavailable
    })
}

impl EventSource {
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(wanted) = &self.authorization else { return true };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return false };
        constant_time::verify_slices_are_equal(value.as_bytes(), wanted.as_bytes()).is_ok()
    }
}

/// The token in a body of the media type that its specification demands.
fn token_in(kind: EventKind, headers: &HeaderMap, body: &Bytes) -> Result<String, EventRefusal> {
    let wanted = match kind {
        EventKind::Logout => "application/x-www-form-urlencoded",
        EventKind::Security => "application/secevent+jwt",
    };
    let given = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim();
    if !given.eq_ignore_ascii_case(wanted) {
        return Err(EventRefusal::Malformed("content type"));
    }
    let text = std::str::from_utf8(body).map_err(|_| EventRefusal::Malformed("body"))?;
    match kind {
        EventKind::Security => Ok(text.trim().to_owned()),
        EventKind::Logout => {
            let mut tokens = text.split('&').filter_map(|pair| pair.strip_prefix("logout_token="));
            let (Some(token), None) = (tokens.next(), tokens.next()) else {
                return Err(EventRefusal::Malformed("logout_token"));
            };
            let token = percent_decode_str(token).decode_utf8();
            token.map(std::borrow::Cow::into_owned).map_err(|_| EventRefusal::Malformed("logout_token"))
        }
    }
}

/// Puts an event in force. One that was taken before has no effect again: it may have been sent twice by its issuer,
/// or by somebody who copied it.
fn take_effect(
    sessions: &Sessions,
    issuer: &str,
    event: &SecurityEvent,
    now: Timestamp,
    record: &dyn Fn(Vec<Record>) -> Result<(), StoreError>,
) -> Result<Taken, StoreError> {
    let store = sessions.store();
    let name = format!("{issuer} {}", event.token_id());
    let codes: Vec<&str> = event.meanings().iter().map(Meaning::code).collect();
    let mut taken = Taken {
        issuer: issuer.to_owned(),
        token_id: event.token_id().to_owned(),
        meanings: codes.join(" "),
        again: store.remembers(TAKEN, &name)?,
        records: Vec::new(),
    };
    if taken.again {
        return Ok(taken);
    }
    for meaning in event.meanings() {
        match meaning {
            Meaning::EnableUser { subject, at } => enable(sessions, issuer, subject, *at, now, record)?,
            Meaning::Verification => verified(sessions, issuer, now)?,
            Meaning::Unknown => {}
            other => taken.records.extend(shut(sessions, issuer, other, now)?),
        }
    }
    // Last: an event that was cut short in the middle is taken again when its sender tries again.
    let age = limits::EVENT_AGE_SECONDS_MAX.saturating_add(2 * limits::TOKEN_LEEWAY_SECONDS);
    let until = event.issued_at().checked_add(SignedDuration::from_secs(age)).unwrap_or(Timestamp::MAX);
    let _first = store.remember_once(TAKEN, &name, until)?;
    Ok(taken)
}

fn shut(
    sessions: &Sessions,
    issuer: &str,
    meaning: &Meaning,
    now: Timestamp,
) -> Result<Option<Record>, StoreError> {
    let issuer = issuer.to_owned();
    let (target, reach, at) = match meaning.clone() {
        Meaning::EndSession { session, at } => {
            (RevocationTarget::Session { issuer, session }, Reach::Until(at), at)
        }
        Meaning::EndUser { subject, at } => {
            (RevocationTarget::User { issuer, subject }, Reach::Until(at), at)
        }
        Meaning::DisableUser { subject, at } => {
            (RevocationTarget::User { issuer, subject }, Reach::UntilLifted, at)
        }
        Meaning::RevokeToken { token, at } => {
            (RevocationTarget::Token { issuer: Some(issuer), token }, Reach::UntilLifted, at)
        }
        Meaning::EnableUser { .. } | Meaning::Verification | Meaning::Unknown => return Ok(None),
    };
    let reason = meaning.code().to_owned();
    let order = Order { target, reach, made_at: at, origin: RevocationOrigin::Issuer, reason };
    let revocation = sessions.revoke(order, now)?;
    Ok(Some(record_revoked(&revocation, now)))
}

/// Lifts what this issuer itself disabled, up to when it enabled the person again. What an operator ordered stays.
fn enable(
    sessions: &Sessions,
    issuer: &str,
    subject: &str,
    at: Timestamp,
    now: Timestamp,
    record: &dyn Fn(Vec<Record>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let person = RevocationTarget::User { issuer: issuer.to_owned(), subject: subject.to_owned() };
    for revocation in sessions.store().revocations()? {
        let disabled = revocation.target == person && revocation.reach == Reach::UntilLifted;
        if disabled && revocation.origin == RevocationOrigin::Issuer && revocation.made_at <= at {
            record(vec![record_lifted(&revocation, now)])?;
            let _there = sessions.lift(&revocation.id)?;
        }
    }
    Ok(())
}

fn verified(sessions: &Sessions, issuer: &str, now: Timestamp) -> Result<(), StoreError> {
    let body = now.to_string().into_bytes();
    sessions.store().put(STREAMS, &Document { name: issuer.to_owned(), body, expires_at: Timestamp::MAX })
}

/// When each issuer's stream last had a verification event. Blocks.
///
/// # Errors
/// [`StoreError`].
pub fn heard_streams(
    store: &dyn SessionStore,
    now: Timestamp,
) -> Result<BTreeMap<String, Timestamp>, StoreError> {
    let time = |body: &[u8]| std::str::from_utf8(body).ok()?.parse().ok();
    let heard = store.documents(STREAMS, now)?;
    Ok(heard.into_iter().filter_map(|one| Some((one.name, time(&one.body)?))).collect())
}

/// The streams whose last verification event is longer ago than their heartbeat allows, or than `started` where there
/// never was one. Blocks.
///
/// # Errors
/// [`StoreError`].
pub fn silent_streams(
    sources: &EventSources,
    sessions: &Sessions,
    started: Timestamp,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    if sources.values().all(|source| source.heartbeat.is_none()) {
        return Ok(Vec::new());
    }
    let heard = heard_streams(&*sessions.store(), now)?;
    let last = |issuer: &str| heard.get(issuer).copied().unwrap_or(started);
    let is_silent = |(issuer, source): &(&String, &EventSource)| {
        source.heartbeat.is_some_and(|heartbeat| span(last(issuer), now) > heartbeat)
    };
    Ok(sources.iter().filter(is_silent).map(|(issuer, _)| issuer.clone()).collect())
}

/// The answer of each specification, and what is recorded before it leaves.
fn answer(kind: EventKind, taken: Result<Taken, NotTaken>, now: Timestamp) -> (Answer, Vec<Record>) {
    let mut details: BTreeMap<String, String> = BTreeMap::new();
    let mut say = |name: &str, value: String| details.insert(name.to_owned(), value);
    say(
        "kind",
        match kind {
            EventKind::Logout => "logout",
            EventKind::Security => "security",
        }
        .to_owned(),
    );
    let (event, answer, mut records) = match taken {
        Ok(taken) => {
            say("issuer", taken.issuer);
            say("jti", taken.token_id);
            say("means", taken.meanings);
            if taken.again {
                say("again", "true".to_owned());
            }
            let status = match kind {
                EventKind::Logout => StatusCode::OK,
                EventKind::Security => StatusCode::ACCEPTED,
            };
            (Event::EventTaken, Answer::empty(status), taken.records)
        }
        Err(not) => {
            let code = not.code();
            let (status, text) = match &not {
                NotTaken::Refused(refusal) => (StatusCode::BAD_REQUEST, refusal.to_string()),
                NotTaken::Stranger => (StatusCode::BAD_REQUEST, "the sender is not known".to_owned()),
                NotTaken::KeysUnavailable | NotTaken::Unavailable => {
                    (StatusCode::SERVICE_UNAVAILABLE, "try again later".to_owned())
                }
            };
            say("code", code.to_owned());
            say("why", text.clone());
            (Event::EventRefused, refused(kind, status, code, &text), Vec::new())
        }
    };
    records.insert(0, Record::Control(Control { time: now, event, details }));
    (answer, records)
}

/// RFC 8935 section 2.3; Back-Channel Logout 1.0 section 2.8.
fn refused(kind: EventKind, status: StatusCode, code: &str, text: &str) -> Answer {
    let body = match kind {
        EventKind::Security => json!({"err": code, "description": text}),
        EventKind::Logout => json!({"error": "invalid_request", "error_description": text}),
    };
    let mut answer = Answer::fhir(status, body.to_string());
    answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    answer
}
