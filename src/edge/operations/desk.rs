//! `/session` and `/revocation`: what operators see and order.
//!
//! Owns: who may, the JSON in and out, and that an order is recorded before it is answered.
//! Must never: take an order from a browser's page, or beyond loopback from somebody who showed neither certificate
//! nor token.
//! Look next: `edge::sessions`, which carries it out.

use aws_lc_rs::constant_time;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{JSON, TEXT, reply};
use crate::clock;
use crate::domain::audit::Record;
use crate::domain::identity::{Reach, Revocation, RevocationOrigin, RevocationTarget};
use crate::edge::journal::Journal;
use crate::edge::listener::{Peer, read_body};
use crate::edge::sessions::{Order, SessionStore, Sessions, StoreError, record_lifted, record_revoked};
use crate::limits;

/// Who may list sessions and order revocations.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whoever shows this bearer token.
    pub bearer: Option<Secret>,
    /// Whoever shows a client certificate that was verified.
    pub client_certificates: bool,
    /// Everyone, because only this machine can connect and nothing else is demanded.
    pub loopback: bool,
}

/// A secret that is not shown.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What is needed to answer.
#[derive(Clone, Debug)]
pub struct Desk {
    /// The sessions.
    pub sessions: Sessions,
    /// The trail.
    pub journal: Journal,
    /// Who may.
    pub access: Access,
}

/// What an operator writes to revoke something: exactly one of the five, and why.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderText {
    /// `jti`, or the token's SHA-256 in hexadecimal.
    pub token: Option<String>,
    /// A session's id, as `/session` lists it.
    pub session: Option<String>,
    /// `issuer|subject`.
    pub user: Option<String>,
    /// `azp` or `client_id`.
    pub client: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// Why.
    pub reason: String,
    /// For sessions and users: later logins too, until it is lifted.
    #[serde(default)]
    pub until_lifted: bool,
}

/// A revocation as operators see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationView {
    id: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Logins up to this time; without it, until it is lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    made_at: Timestamp,
    origin: &'static str,
    reason: String,
}

impl RevocationView {
    /// The revocation for an operator.
    #[must_use]
    pub fn of(revocation: &Revocation) -> Self {
        let (issuer, name) = revocation.target.parts();
        Self {
            id: revocation.id.clone(),
            kind: revocation.target.kind(),
            issuer: issuer.map(str::to_owned),
            name: Some(name).filter(|name| !name.is_empty()).map(str::to_owned),
            until: match revocation.reach {
                Reach::Until(time) => Some(time),
                Reach::UntilLifted => None,
            },
            made_at: revocation.made_at,
            origin: revocation.origin.code(),
            reason: revocation.reason.clone(),
        }
    }
}

impl std::fmt::Display for RevocationView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}  {}  {}", self.id, self.made_at, self.kind)?;
        let names = [self.issuer.as_deref(), self.name.as_deref()];
        let names: Vec<&str> = names.into_iter().flatten().collect();
        write!(f, " {}  ", names.join("|"))?;
        match self.until {
            Some(until) => write!(f, "logins up to {until}")?,
            None => f.write_str("until lifted")?,
        }
        write!(f, "  ({}: {})", self.origin, self.reason)
    }
}

/// Why an order is not carried out.
#[derive(Debug)]
pub enum OrderFault {
    /// It does not read; what is wrong.
    Malformed(&'static str),
    /// There is no such session.
    NoSession,
    /// The store does not answer.
    Store(StoreError),
}

impl std::fmt::Display for OrderFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(what) => f.write_str(what),
            Self::NoSession => f.write_str("there is no such session"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OrderFault {}

impl OrderText {
    /// The order it is. Looks the session up where one is named.
    ///
    /// # Errors
    /// [`OrderFault`].
    pub fn read(
        self,
        store: &dyn SessionStore,
        origin: RevocationOrigin,
        now: Timestamp,
    ) -> Result<Order, OrderFault> {
        let (until_lifted, reason) = (self.until_lifted, self.reason.clone());
        if reason.trim().is_empty() || reason.len() > limits::REVOCATION_REASON_BYTES_MAX {
            return Err(OrderFault::Malformed("a reason is needed, in at most 500 bytes"));
        }
        let target = self.target(store)?;
        if !target.is_sound() {
            return Err(OrderFault::Malformed("no token could hold such a name"));
        }
        Ok(Order::of_operator(target, until_lifted, origin, reason, now))
    }

    fn target(self, store: &dyn SessionStore) -> Result<RevocationTarget, OrderFault> {
        let one = OrderFault::Malformed("name exactly one of token, session, user, client and issuer");
        match (self.token, self.session, self.user, self.client, self.issuer) {
            (Some(token), None, None, None, None) => Ok(RevocationTarget::Token { issuer: None, token }),
            (None, Some(id), None, None, None) => {
                let key = store.session_by_id(&id).map_err(OrderFault::Store)?;
                let key = key.ok_or(OrderFault::NoSession)?;
                Ok(RevocationTarget::Session { issuer: key.issuer, session: key.session })
            }
            (None, None, Some(user), None, None) => {
                let parts = user.split_once('|');
                let (issuer, subject) =
                    parts.ok_or(OrderFault::Malformed("a user is written `issuer|subject`"))?;
                Ok(RevocationTarget::User { issuer: issuer.to_owned(), subject: subject.to_owned() })
            }
            (None, None, None, Some(application), None) => Ok(RevocationTarget::Client { application }),
            (None, None, None, None, Some(issuer)) => Ok(RevocationTarget::Issuer { issuer }),
            _ => Err(one),
        }
    }
}

type Reply = Response<Full<Bytes>>;

/// Whether the path is answered here.
pub(super) fn is_here(path: &str) -> bool {
    let below =
        |name: &str| path == name || path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    below("/session") || below("/revocation")
}

impl Desk {
    /// Answers one request for which [`is_here`].
    pub(super) async fn answer<B>(&self, request: Request<B>, peer: &Peer) -> Reply
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = request.into_parts();
        if !self.access.allows(&parts.headers, peer.certificate_sha256.is_some()) {
            return refuse(StatusCode::FORBIDDEN, "a client certificate or the bearer token is needed");
        }
        let path = parts.uri.path().trim_start_matches('/');
        let (place, id) = path.split_once('/').map_or((path, None), |(place, id)| (place, Some(id)));
        match (&parts.method, place, id) {
            (&Method::GET, "session", None) => self.sessions().await,
            (&Method::DELETE, "session", Some(id)) => {
                let reason = "ended by an operator".to_owned();
                self.revoke(OrderText { session: Some(id.to_owned()), reason, ..OrderText::default() }).await
            }
            (&Method::GET, "revocation", None) => self.revocations().await,
            (&Method::POST, "revocation", None) => match order(&parts.headers, body).await {
                Ok(order) => self.revoke(order).await,
                Err(refused) => refused,
            },
            (&Method::DELETE, "revocation", Some(id)) => self.lift(id.to_owned()).await,
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "not served like this"),
        }
    }

    async fn sessions(&self) -> Reply {
        let listed = self.with_store(|sessions| sessions.list(clock::now())).await;
        listed.map_or_else(|refused| refused, |views| json_reply(StatusCode::OK, &views))
    }

    async fn revocations(&self) -> Reply {
        let listed = self.with_store(|sessions| sessions.store().revocations()).await;
        let views = |all: Vec<Revocation>| all.iter().map(RevocationView::of).collect::<Vec<_>>();
        listed.map_or_else(|refused| refused, |all| json_reply(StatusCode::OK, &views(all)))
    }

    /// Shut first, then recorded, then answered: whoever is revoked must not go on because the trail is full.
    async fn revoke(&self, text: OrderText) -> Reply {
        let now = clock::now();
        let revoked = self
            .with_store(move |sessions| {
                match text.read(&*sessions.store(), RevocationOrigin::Operations, now) {
                    Ok(order) => sessions.revoke(order, now).map(Ok),
                    Err(OrderFault::Store(error)) => Err(error),
                    Err(fault) => Ok(Err(fault)),
                }
            })
            .await;
        let revocation = match revoked {
            Ok(Ok(revocation)) => revocation,
            Ok(Err(OrderFault::NoSession)) => {
                return refuse(StatusCode::NOT_FOUND, "there is no such session");
            }
            Ok(Err(fault)) => return refuse(StatusCode::BAD_REQUEST, &fault.to_string()),
            Err(refused) => return refused,
        };
        match self.record(record_revoked(&revocation, now)).await {
            Ok(()) => json_reply(StatusCode::CREATED, &RevocationView::of(&revocation)),
            Err(refused) => refused,
        }
    }

    /// Recorded first: nothing is opened again without a record.
    async fn lift(&self, id: String) -> Reply {
        let revoked = self.sessions.revoked();
        let Some(revocation) = revoked.all().iter().find(|one| one.id == id) else {
            return refuse(StatusCode::NOT_FOUND, "there is no such revocation");
        };
        if let Err(refused) = self.record(record_lifted(revocation, clock::now())).await {
            return refused;
        }
        match self.with_store(move |sessions| sessions.lift(&id)).await {
            Ok(_) => reply(StatusCode::NO_CONTENT, TEXT, ""),
            Err(refused) => refused,
        }
    }

    async fn record(&self, record: Record) -> Result<(), Reply> {
        self.journal.append(&[record]).await.map(|_receipt| ()).map_err(|error| {
            tracing::error!(%error, "an order could not be recorded");
            refuse(StatusCode::SERVICE_UNAVAILABLE, "the audit trail cannot be written")
        })
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sessions) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Reply> {
        let sessions = self.sessions.clone();
        let done = tokio::task::spawn_blocking(move || work(&sessions)).await;
        let silent = || refuse(StatusCode::SERVICE_UNAVAILABLE, "the session store does not answer");
        done.map_err(|_| silent())?.map_err(|error| {
            tracing::error!(%error, "an order could not be carried out");
            silent()
        })
    }
}

impl Access {
    pub(super) fn allows(&self, headers: &HeaderMap, certificate: bool) -> bool {
        // A page in an operator's browser says where it comes from; nobody else does.
        if headers.contains_key(ORIGIN) {
            return false;
        }
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let shows = |wanted: &Secret| match (given.next(), given.next()) {
            (Some(value), None) => {
                let wanted = format!("Bearer {}", wanted.0);
                constant_time::verify_slices_are_equal(value.as_bytes(), wanted.as_bytes()).is_ok()
            }
            _ => false,
        };
        let demands_nothing = self.bearer.is_none() && !self.client_certificates;
        (self.client_certificates && certificate)
            || self.bearer.as_ref().is_some_and(shows)
            || (demands_nothing && self.loopback)
    }
}

async fn order<B>(headers: &HeaderMap, body: B) -> Result<OrderText, Reply>
where
    B: Body<Data = Bytes> + Unpin,
{
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "JSON is needed"));
    }
    let body = read_body(body, limits::OPERATIONS_BODY_BYTES_MAX).await;
    let body = body.map_err(|_| refuse(StatusCode::BAD_REQUEST, "the body did not arrive whole"))?;
    let unread = "the body must be one JSON object with what to revoke and a reason";
    serde_json::from_slice(&body).map_err(|_| refuse(StatusCode::BAD_REQUEST, unread))
}

fn refuse(status: StatusCode, why: &str) -> Reply {
    json_reply(status, &json!({ "error": why }))
}

fn json_reply(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_string(value) {
        Ok(text) => reply(status, JSON, text),
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "unknown\n"),
    }
}
