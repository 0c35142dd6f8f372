//! What an issuer tells us of its own accord: logout tokens and security events.
//!
//! Owns: every check of such a token (T-194), and what each event means for sessions.
//! Sources: RFC 8417 (SET), RFC 9493 (subjects), OpenID Shared Signals Framework 1.0, CAEP 1.0, RISC 1.0, OpenID
//! Connect Back-Channel Logout 1.0.
//! Must never: take an access token for an event or an event for an access token; let one issuer end another's
//! sessions; tell the sender whether a person or session is known.
//! Look next: `revocation.rs`, what becomes of it; `gateway::events`, where they arrive.

mod subject;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::crypto::{self, aws_lc};
use serde_json::{Map, Value};

use super::issuer::{Algorithm, Issuer};
use super::keys::KeySet;
use super::strict;
use crate::limits;
use subject::{About, Subject};

type Members = Map<String, Value>;

/// Which of the two kinds of token is expected: each has an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// OpenID Connect Back-Channel Logout 1.0, section 2.4.
    Logout,
    /// A security event token of OpenID Shared Signals 1.0.
    Security,
}

/// A token before any trust: only what is needed to find its issuer's keys.
pub struct UnverifiedEvent<'t> {
    token: &'t str,
    kind: EventKind,
    algorithm: Algorithm,
    key_id: String,
    issuer: String,
    payload: Members,
}

/// What an issuer said, every check passed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecurityEvent {
    token_id: String,
    issued_at: Timestamp,
    meanings: Vec<Meaning>,
}

/// What one event means here.
#[derive(Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A session is over: whatever was authenticated in it up to this time.
    EndSession {
        /// `sid`.
        session: String,
        /// When.
        at: Timestamp,
    },
    /// Everything of a person that was authenticated up to this time is over.
    EndUser {
        /// `sub`.
        subject: String,
        /// When.
        at: Timestamp,
    },
    /// A person is kept out until [`Meaning::EnableUser`].
    DisableUser {
        /// `sub`.
        subject: String,
        /// When.
        at: Timestamp,
    },
    /// A person may come again; what was disabled after this time stays.
    EnableUser {
        /// `sub`.
        subject: String,
        /// When.
        at: Timestamp,
    },
    /// One token is not to be taken any more.
    RevokeToken {
        /// `jti`.
        token: String,
        /// When.
        at: Timestamp,
    },
    /// The transmitter shows that the stream works.
    Verification,
    /// An event that we do not know; it has no effect.
    Unknown,
}

/// Why an event was refused: the codes of RFC 8935 section 2.4, and a word more for the trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventRefusal {
    /// Not a token of this kind in compact form, or its claims are not as they must be; which.
    Malformed(&'static str),
    /// `typ`, or a claim, gives it away as a token of another kind.
    OtherKind,
    /// The algorithm is not allowed for this issuer.
    Algorithm,
    /// No such key, or the signature does not fit.
    Key,
    /// The issuer's keys cannot be had now.
    KeysUnavailable,
    /// The issuer is not configured to send events, or not to this address.
    Issuer,
    /// It is meant for somebody else.
    Audience,
    /// Too old, or from the future.
    Stale,
    /// The subject is another issuer's, or in a format that is not understood.
    Subject,
}

impl EventRefusal {
    /// The error code of RFC 8935 section 2.4.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::OtherKind | Self::Stale | Self::Subject => "invalid_request",
            Self::Algorithm | Self::Key | Self::KeysUnavailable => "invalid_key",
            Self::Issuer => "invalid_issuer",
            Self::Audience => "invalid_audience",
        }
    }
}

impl fmt::Display for EventRefusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Malformed(what) => return write!(out, "the event is malformed: {what}"),
            Self::OtherKind => "the token is not an event of this kind",
            Self::Algorithm => "the algorithm is not allowed",
            Self::Key => "the signature does not fit any key of the issuer",
            Self::KeysUnavailable => "the issuer's keys are not available",
            Self::Issuer => "the issuer does not send events here",
            Self::Audience => "the event is meant for another audience",
            Self::Stale => "the event is too old or from the future",
            Self::Subject => "the subject is not in a format that is understood",
        })
    }
}

impl std::error::Error for EventRefusal {}

impl<'t> UnverifiedEvent<'t> {
    /// Reads header and payload without trusting either.
    ///
    /// # Errors
    /// [`EventRefusal`]: not a strict JWS in compact form, not of this kind, or without issuer or key id.
    pub fn inspect(token: &'t str, kind: EventKind) -> Result<Self, EventRefusal> {
        let (header, payload) = split(token)?;
        let header = object(header, "header")?;
        // Parameters that change the meaning, or bring a key of their own (RFC 8725 section 3.10).
        let foreign = ["crit", "b64", "zip", "enc", "jwk", "jku", "x5u", "x5c"];
        if foreign.iter().any(|name| header.contains_key(*name)) {
            return Err(EventRefusal::Malformed("header"));
        }
        check_type(text(&header, "typ"), kind)?;
        let algorithm = text(&header, "alg").and_then(Algorithm::from_name).ok_or(EventRefusal::Algorithm)?;
        let key_id = text(&header, "kid").filter(|kid| kid.len() <= limits::TOKEN_KID_BYTES_MAX);
        let key_id = key_id.ok_or(EventRefusal::Malformed("kid"))?.to_owned();
        let payload = object(payload, "payload")?;
        let issuer = text(&payload, "iss").ok_or(EventRefusal::Malformed("iss"))?.to_owned();
        Ok(Self { token, kind, algorithm, key_id, issuer, payload })
    }

    /// `iss` as claimed: for finding the issuer's keys, nothing else.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `kid`.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

/// Checks an event against its issuer's settings and keys and the time.
///
/// # Errors
/// The first check that fails.
pub fn validate(
    event: &UnverifiedEvent<'_>,
    issuer: &Issuer,
    audience: &str,
    keys: &KeySet,
    now: Timestamp,
) -> Result<SecurityEvent, EventRefusal> {
    if event.issuer != issuer.url() {
        return Err(EventRefusal::Issuer);
    }
    verify_signature(event, issuer, keys)?;
    // Nothing in the payload is believed above this line.
    check_audience(event.payload.get("aud"), audience)?;
    let issued_at = check_time(&event.payload, event.kind, now)?;
    let token_id = name(&event.payload, "jti")?.ok_or(EventRefusal::Malformed("jti"))?;
    let events = event.payload.get("events").and_then(Value::as_object);
    let events = events.filter(|all| (1..=limits::EVENTS_MAX).contains(&all.len()));
    let events = events.ok_or(EventRefusal::Malformed("events"))?;
    let meanings = match event.kind {
        EventKind::Logout => vec![logout(&event.payload, events, issued_at)?],
        EventKind::Security => security(&event.payload, events, issuer, issued_at)?,
    };
    Ok(SecurityEvent { token_id, issued_at, meanings })
}

impl SecurityEvent {
    /// `jti`: an event has its effect once.
    #[must_use]
    pub fn token_id(&self) -> &str {
        &self.token_id
    }

    /// `iat`.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// What it means, one item an event.
    #[must_use]
    pub fn meanings(&self) -> &[Meaning] {
        &self.meanings
    }
}

impl Meaning {
    /// A stable word for the trail and the metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EndSession { .. } => "session-ended",
            Self::EndUser { .. } => "user-signed-out",
            Self::DisableUser { .. } => "user-disabled",
            Self::EnableUser { .. } => "user-enabled",
            Self::RevokeToken { .. } => "token-revoked",
            Self::Verification => "verification",
            Self::Unknown => "unknown-event",
        }
    }
}

/// Shows no person and no session.
impl fmt::Debug for Meaning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())
    }
}

/// Shows no person and no session.
impl fmt::Debug for SecurityEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SecurityEvent").field("meanings", &self.meanings).finish_non_exhaustive()
    }
}

/// Shows nothing of the token.
impl fmt::Debug for UnverifiedEvent<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("UnverifiedEvent").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn split(token: &str) -> Result<(&str, &str), EventRefusal> {
    let compact = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(EventRefusal::Malformed("compact form"));
    };
    let sound = token.len() <= limits::EVENT_BYTES_MAX
        && token.bytes().all(compact)
        && !signature.is_empty()
        && URL_SAFE_NO_PAD.decode(signature).is_ok();
    if sound { Ok((header, payload)) } else { Err(EventRefusal::Malformed("compact form")) }
}

fn object(part: &str, what: &'static str) -> Result<Members, EventRefusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| EventRefusal::Malformed(what))?;
    strict::object(&bytes, limits::TOKEN_JSON_DEPTH_MAX).ok_or(EventRefusal::Malformed(what))
}

fn text<'v>(object: &'v Members, name: &str) -> Option<&'v str> {
    object.get(name).and_then(Value::as_str)
}

/// Explicit typing keeps the kinds apart (RFC 8417 section 2.3, Back-Channel Logout section 2.4).
fn check_type(typ: Option<&str>, kind: EventKind) -> Result<(), EventRefusal> {
    let wanted = match kind {
        EventKind::Logout => ["logout+jwt", "application/logout+jwt"],
        EventKind::Security => ["secevent+jwt", "application/secevent+jwt"],
    };
    let fits = typ.is_some_and(|typ| wanted.iter().any(|name| name.eq_ignore_ascii_case(typ)));
    if fits { Ok(()) } else { Err(EventRefusal::OtherKind) }
}

fn verify_signature(event: &UnverifiedEvent<'_>, issuer: &Issuer, keys: &KeySet) -> Result<(), EventRefusal> {
    if !issuer.algorithms().contains(&event.algorithm) {
        return Err(EventRefusal::Algorithm);
    }
    let key = keys.key(&event.key_id).filter(|key| key.algorithm() == event.algorithm);
    let key = key.ok_or(EventRefusal::Key)?;
    // As in `authenticate`: named explicitly, and harmless when it is installed already.
    let _ = aws_lc::DEFAULT_PROVIDER.install_default();
    let (message, signature) = event.token.rsplit_once('.').ok_or(EventRefusal::Key)?;
    let algorithm = event.algorithm.of_jsonwebtoken();
    match crypto::verify(signature, message.as_bytes(), key.verifier(), algorithm) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(EventRefusal::Key),
    }
}

fn check_audience(given: Option<&Value>, audience: &str) -> Result<(), EventRefusal> {
    let fits = match given {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(all)) => {
            all.len() <= limits::TOKEN_LIST_MAX && all.iter().any(|one| one.as_str() == Some(audience))
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(EventRefusal::Audience) }
}

/// `iat` within its window. A security event has no `exp` (Shared Signals 1.0 section 4.1.7): with one it could pass
/// for an access token elsewhere. A logout token's may be there and is then kept to.
fn check_time(payload: &Members, kind: EventKind, now: Timestamp) -> Result<Timestamp, EventRefusal> {
    let leeway = limits::TOKEN_LEEWAY_SECONDS;
    let issued = seconds(payload, "iat")?.ok_or(EventRefusal::Malformed("iat"))?;
    let age_max = match kind {
        EventKind::Logout => limits::LOGOUT_AGE_SECONDS_MAX,
        EventKind::Security => limits::EVENT_AGE_SECONDS_MAX,
    };
    let now = now.as_second();
    if issued > now.saturating_add(leeway) || now.saturating_sub(issued) > age_max.saturating_add(leeway) {
        return Err(EventRefusal::Stale);
    }
    match (kind, payload.contains_key("exp")) {
        (EventKind::Security, true) => return Err(EventRefusal::OtherKind),
        (EventKind::Logout, true)
            if seconds(payload, "exp")?.is_none_or(|exp| now >= exp.saturating_add(leeway)) =>
        {
            return Err(EventRefusal::Stale);
        }
        _ => {}
    }
    Timestamp::from_second(issued).map_err(|_| EventRefusal::Malformed("iat"))
}

fn seconds(payload: &Members, claim: &'static str) -> Result<Option<i64>, EventRefusal> {
    let Some(value) = payload.get(claim) else { return Ok(None) };
    let bounded = |seconds: &i64| (0..=limits::TOKEN_TIME_SECONDS_MAX).contains(seconds);
    value.as_i64().filter(bounded).map(Some).ok_or(EventRefusal::Malformed(claim))
}

/// An identifier as in an access token.
fn name(payload: &Members, claim: &'static str) -> Result<Option<String>, EventRefusal> {
    match payload.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) if subject::is_name(text) => Ok(Some(text.clone())),
        Some(_) => Err(EventRefusal::Malformed(claim)),
    }
}

const BACKCHANNEL_LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Back-Channel Logout 1.0 section 2.6: the one event with an empty object, a subject or a session, no `nonce`. With
/// both, the session ends; with a subject alone, every session of theirs.
fn logout(payload: &Members, events: &Members, at: Timestamp) -> Result<Meaning, EventRefusal> {
    let said = events.get(BACKCHANNEL_LOGOUT).and_then(Value::as_object);
    if said.is_none() {
        return Err(EventRefusal::Malformed("events"));
    }
    if payload.contains_key("nonce") {
        return Err(EventRefusal::OtherKind);
    }
    match (name(payload, "sid")?, name(payload, "sub")?) {
        (Some(session), _) => Ok(Meaning::EndSession { session, at }),
        (None, Some(subject)) => Ok(Meaning::EndUser { subject, at }),
        (None, None) => Err(EventRefusal::Malformed("sub")),
    }
}

/// Shared Signals 1.0 section 3: the subject stands in `sub_id`, and `sub` is not there.
fn security(
    payload: &Members,
    events: &Members,
    issuer: &Issuer,
    issued_at: Timestamp,
) -> Result<Vec<Meaning>, EventRefusal> {
    if payload.contains_key("sub") {
        return Err(EventRefusal::OtherKind);
    }
    let mut meanings = Vec::new();
    for (event, said) in events {
        let said = said.as_object().ok_or(EventRefusal::Malformed("events"))?;
        let kind = EventType::of(event);
        // Drafts of CAEP put the subject inside the event; final ones beside it.
        let subject = payload.get("sub_id").or_else(|| said.get("subject"));
        let at = happened_at(said, issued_at)?;
        kind.meanings(subject, issuer, at, &mut meanings)?;
    }
    Ok(meanings)
}

/// CAEP 1.0 section 2: `event_timestamp`, seconds. Never later than the token itself, or a mistake there would keep
/// people out who logged in since.
fn happened_at(said: &Members, issued_at: Timestamp) -> Result<Timestamp, EventRefusal> {
    let Some(value) = said.get("event_timestamp") else { return Ok(issued_at) };
    let seconds = value.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok());
    Ok(seconds.ok_or(EventRefusal::Malformed("event_timestamp"))?.min(issued_at))
}

/// The events that mean something here.
#[derive(Clone, Copy)]
enum EventType {
    /// CAEP `session-revoked`: the session or token named, else all of the person's.
    SessionRevoked,
    /// CAEP `credential-change` and `token-claims-change`: what stands on the old ones is over.
    LoginOutdated,
    /// RISC `account-disabled`, `account-purged`.
    AccountDisabled,
    /// RISC `account-enabled`.
    AccountEnabled,
    Verification,
    Unknown,
}

impl EventType {
    fn of(name: &str) -> Self {
        const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
        const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
        const STREAM: &str = "https://schemas.openid.net/secevent/ssf/event-type/";
        let (caep, risc) = (name.strip_prefix(CAEP), name.strip_prefix(RISC));
        match (caep, risc, name.strip_prefix(STREAM)) {
            (Some("session-revoked"), ..) => Self::SessionRevoked,
            (_, Some("sessions-revoked"), _) => Self::LoginOutdated,
            (Some("credential-change" | "token-claims-change"), ..) => Self::LoginOutdated,
            (_, Some("account-credential-change-required" | "credential-compromise"), _) => {
                Self::LoginOutdated
            }
            (_, Some("account-disabled" | "account-purged"), _) => Self::AccountDisabled,
            (_, Some("account-enabled"), _) => Self::AccountEnabled,
            (_, _, Some("verification")) => Self::Verification,
            _ => Self::Unknown,
        }
    }

    fn meanings(
        self,
        given: Option<&Value>,
        issuer: &Issuer,
        at: Timestamp,
        meanings: &mut Vec<Meaning>,
    ) -> Result<(), EventRefusal> {
        let about = || Subject::read(given, issuer.url());
        match self {
            Self::SessionRevoked => meanings.push(match about()?.about()? {
                About::Session(session) => Meaning::EndSession { session, at },
                About::Token(token) => Meaning::RevokeToken { token, at },
                About::User(subject) => Meaning::EndUser { subject, at },
            }),
            Self::LoginOutdated => meanings.push(Meaning::EndUser { subject: about()?.user()?, at }),
            Self::AccountDisabled => meanings.push(Meaning::DisableUser { subject: about()?.user()?, at }),
            Self::AccountEnabled => meanings.push(Meaning::EnableUser { subject: about()?.user()?, at }),
            Self::Verification => meanings.push(Meaning::Verification),
            Self::Unknown => meanings.push(Meaning::Unknown),
        }
        Ok(())
    }
}
