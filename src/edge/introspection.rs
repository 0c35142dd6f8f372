//! Asking an issuer what an opaque token stands for (RFC 7662).
//!
//! Owns: the request with our own credentials, its bounds, and how long an answer is kept.
//! Must never: judge an answer (that is `domain::identity`), follow a redirect, keep an answer past the token's end,
//! or hold a token: caches know digests.
//! Look next: `domain::identity::Introspection`.

mod credentials;

pub use credentials::{ClientKey, Credentials};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use moka::sync::Cache;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::keyring::{acceptable_url, https_client};
use crate::clock;
use crate::domain::identity::{Introspection, Issuer, token_digest};
use crate::limits;

/// Where to ask, and as whom.
pub struct IntrospectionSource {
    /// The issuer whose tokens these are.
    pub issuer: Issuer,
    /// https, or http to loopback.
    pub endpoint: String,
    /// Our name at the issuer.
    pub client_id: String,
    /// How we show that it is us.
    pub credentials: Credentials,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// How long an answer is kept at most.
    pub kept: Duration,
}

/// Shows no secret.
impl fmt::Debug for IntrospectionSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("IntrospectionSource").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// No answer could be had that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the issuer did not answer about a token")
    }
}

impl std::error::Error for Unavailable {}

/// One issuer's word about its tokens.
pub struct Introspector {
    issuer: Issuer,
    endpoint: Uri,
    client_id: String,
    credentials: Credentials,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    kept: Duration,
    /// By digest of the token. The lock is held by the one who asks; the others wait and find the answer.
    slots: Cache<[u8; 32], Arc<Mutex<Option<Known>>>>,
    /// For each introspection under way.
    permits: Semaphore,
}

type Answer = Result<Arc<Introspection>, Unavailable>;

struct Known {
    answer: Answer,
    until: Instant,
}

impl fmt::Debug for Introspector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Introspector").field("issuer", &self.issuer.url()).finish_non_exhaustive()
    }
}

impl Introspector {
    /// Prepares; nothing is asked yet.
    ///
    /// # Errors
    /// One line: a URL that is neither https nor http to loopback, unusable certificates, or credentials that cannot
    /// be sent.
    pub fn new(source: IntrospectionSource) -> Result<Self, String> {
        let endpoint = acceptable_url(&source.endpoint)
            .ok_or("endpoint: must be https (plain http only to loopback)")?;
        let client = https_client(source.ca.as_deref())?;
        let IntrospectionSource { issuer, client_id, credentials, kept, .. } = source;
        credentials.present(&client_id, clock::now())?;
        let slots = Cache::builder()
            .max_capacity(limits::INTROSPECTIONS_KEPT_MAX)
            .time_to_live(limits::INTROSPECTION_KEPT_MAX)
            .build();
        let permits = Semaphore::new(limits::INTROSPECTIONS_MAX);
        Ok(Self { issuer, endpoint, client_id, credentials, client, kept, slots, permits })
    }

    /// The issuer whose tokens these are.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// What the issuer says of a token, now or lately. Of many who ask about one token at once, one asks the issuer.
    ///
    /// # Errors
    /// [`Unavailable`]: no answer, an answer of the wrong form, or too many questions under way.
    pub async fn ask(&self, token: &str) -> Answer {
        let digest = token_digest(token);
        let slot = self.slots.get_with(digest, Arc::default);
        let mut known = slot.lock().await;
        if let Some(known) = known.as_ref().filter(|known| Instant::now() < known.until) {
            return known.answer.clone();
        }
        let answer = self.fetch(token, digest).await;
        let kept = match &answer {
            Ok(answer) => self.keeps(answer),
            Err(Unavailable) => limits::INTROSPECTION_RETRY,
        };
        *known = Some(Known { answer: answer.clone(), until: Instant::now() + kept });
        answer
    }

    /// Never past the token's end.
    fn keeps(&self, answer: &Introspection) -> Duration {
        let left = answer.expires_at().map(|end| end.duration_since(clock::now()));
        left.map_or(self.kept, |left| Duration::try_from(left).unwrap_or_default().min(self.kept))
    }

    async fn fetch(&self, token: &str, digest: [u8; 32]) -> Answer {
        // Who finds all permits taken is refused at once: a queue of made-up tokens would keep honest ones waiting.
        let _permit = self.permits.try_acquire().map_err(|_| Unavailable)?;
        let asked = tokio::time::timeout(limits::INTROSPECTION_TIMEOUT, self.exchange(token)).await;
        let answer = asked.unwrap_or(Err("no answer in time")).and_then(|body| {
            Introspection::read(&body, digest, &self.issuer).ok_or("an answer of the wrong form")
        });
        answer.map(Arc::new).map_err(|problem| {
            tracing::warn!(issuer = self.issuer.url(), problem, "a token could not be introspected");
            Unavailable
        })
    }

    async fn exchange(&self, token: &str) -> Result<Bytes, &'static str> {
        let token = utf8_percent_encode(token, NON_ALPHANUMERIC);
        let ours = self.credentials.present(&self.client_id, clock::now())?;
        let form = format!("token={token}&token_type_hint=access_token{}", ours.form);
        let mut request = Request::builder().method(Method::POST).uri(self.endpoint.clone());
        if let Some(value) = ours.header {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Full::new(Bytes::from(form)))
            .map_err(|_| "the request cannot be made")?;
        let answer = self.client.request(request).await.map_err(|_| "the issuer cannot be reached")?;
        if answer.status() != StatusCode::OK {
            return Err("a status other than 200");
        }
        let body = Limited::new(answer.into_body(), limits::INTROSPECTION_BYTES_MAX);
        Ok(body.collect().await.map_err(|_| "an answer that is too large or breaks off")?.to_bytes())
    }
}
