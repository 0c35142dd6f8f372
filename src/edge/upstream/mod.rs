//! The client to the EMR.
//!
//! Owns: connections to one base URL, their TLS and credentials; the headers we send, built here from
//! nothing; time-outs (T-113, T-133, T-140, T-141, T-255 to T-257).
//! Must never: write without a journal's receipt, send a write twice, follow a redirect, skip a certificate check, send a header the client wrote, or put text
//! of the EMR into an error.
//! Look next: `answer`, which distrusts what comes back.

mod answer;
mod settings;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use answer::{Answer, AnswerBody};
pub use settings::{BaseUrl, Settings, SettingsError};

use crate::edge::journal::Receipt;
use crate::edge::telemetry::Telemetry;
use crate::edge::tls::{TlsError, client_config};
use crate::limits;

/// The EMR. Cheap to share behind an `Arc`.
pub struct Upstream {
    settings: Settings,
    link: RwLock<Arc<Link>>,
    places: Arc<Semaphore>,
    telemetry: Telemetry,
}

/// What we ask, built from a plan.
#[derive(Clone)]
pub struct UpstreamRequest {
    method: Method,
    target: String,
    headers: HeaderMap,
    accept: Accept,
    body: Bytes,
}

/// The media type we ask for. No other is ever sent, so that what comes back is one we can judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accept {
    /// `application/fhir+json`: everything, `Binary` included (R4 binary.html, section 2.44.3).
    #[default]
    FhirJson,
    /// `application/fhir+ndjson`: the files of a bulk export.
    FhirNdjson,
}

/// Why there is no answer, or no whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// No connection; nothing was sent: 502.
    Unreachable,
    /// Too many requests are under way, and none ended in time: 503.
    Busy,
    /// No head, or no next piece of the body, in time: 504.
    TimedOut,
    /// The TLS handshake failed: certificate, name, validity or versions; nothing was sent: 502. (An EMR that
    /// refuses our own certificate may show as `CutOff`: TLS 1.3 says so only after the handshake.)
    Untrusted,
    /// A redirect, which is never followed: 502.
    Redirected,
    /// An encoding we did not ask for: 502.
    Encoded,
    /// Not the HTTP we speak: version, framing, malformed head: 502.
    Garbled,
    /// More headers or more body than allowed: 502.
    TooLarge,
    /// The connection broke after the request was sent, before the answer or in its body: 502.
    CutOff,
    /// The request was not one we should send: a fault of ours, nothing was sent: 500.
    Unplanned,
}

/// Why the client cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamSetupError {
    /// Certificates or keys.
    Tls(TlsError),
    /// The bearer token file cannot be read, is empty, or holds more than one token.
    Bearer(PathBuf),
}

/// What a reload replaces.
struct Link {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

/// The only headers a plan may set; the others are ours.
const PLANNED_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    HeaderName::from_static("if-none-exist"),
    HeaderName::from_static("prefer"),
];

impl Upstream {
    /// A client for the EMR. No connection is made yet.
    ///
    /// # Errors
    /// [`UpstreamSetupError`] when a file does not serve.
    pub fn new(settings: Settings, telemetry: Telemetry) -> Result<Self, UpstreamSetupError> {
        let link = RwLock::new(Arc::new(Link::open(&settings)?));
        let places = Arc::new(Semaphore::new(limits::UPSTREAM_REQUESTS_MAX));
        Ok(Self { settings, link, places, telemetry })
    }

    /// Reads CA, certificate, key and bearer token again. Requests under way keep what they have.
    ///
    /// # Errors
    /// [`UpstreamSetupError`]; the last good set stays in force.
    pub fn reload(&self) -> Result<(), UpstreamSetupError> {
        let fresh = Arc::new(Link::open(&self.settings)?);
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// The files to watch.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = self.settings.tls.files();
        files.extend(self.settings.bearer_token_file.clone());
        files
    }

    /// Where the EMR is.
    #[must_use]
    pub fn base(&self) -> &BaseUrl {
        &self.settings.base
    }

    /// Sends a question (GET, or a POST to `_search` or an operation) and waits for the head of its answer, at
    /// most `timeout` in all. A GET whose pooled connection the EMR closed under it is sent once more.
    ///
    /// # Errors
    /// An [`UpstreamError`]; `Unplanned` for a request that writes. After a time-out the EMR may still work on it.
    pub async fn send(&self, request: UpstreamRequest) -> Result<Answer, UpstreamError> {
        if !request.is_question() {
            return Err(UpstreamError::Unplanned);
        }
        self.measure(request).await
    }

    /// Sends a request that may change records. `_intent` shows that the trail knows what is about to happen.
    /// It is sent once, whatever becomes of it.
    ///
    /// # Errors
    /// An [`UpstreamError`]; [`UpstreamError::outcome_is_known`] tells whether the EMR may have acted.
    pub async fn write(&self, request: UpstreamRequest, _intent: &Receipt) -> Result<Answer, UpstreamError> {
        self.measure(request).await
    }

    async fn measure(&self, request: UpstreamRequest) -> Result<Answer, UpstreamError> {
        let began = Instant::now();
        let outcome = self.ask(request).await;
        let word = outcome.as_ref().map_or_else(|error| error.code(), |_| "answered");
        self.telemetry.upstream(word, began.elapsed());
        outcome
    }

    async fn ask(&self, request: UpstreamRequest) -> Result<Answer, UpstreamError> {
        let bound = self.settings.timeout;
        let link = Arc::clone(&self.link.read().unwrap_or_else(PoisonError::into_inner));
        let request = link.dress(request, &self.settings.base)?;
        let place = timeout(bound, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(UpstreamError::Busy) };
        let response = timeout(bound, link.ask(request)).await.map_err(|_| UpstreamError::TimedOut)??;
        Answer::check(response, bound, place)
    }
}

impl Link {
    fn open(settings: &Settings) -> Result<Self, UpstreamSetupError> {
        let tls = client_config(&settings.tls).map_err(UpstreamSetupError::Tls)?;
        let authorization = settings.bearer_token_file.as_deref().map(read_bearer).transpose()?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(Duration::from_secs(limits::UPSTREAM_CONNECT_SECONDS_MAX)));
        let schemes = HttpsConnectorBuilder::new().with_tls_config(tls);
        let https = if settings.base.is_https() { schemes.https_only() } else { schemes.https_or_http() };
        let client = Self::client(https.enable_all_versions().wrap_connector(http));
        Ok(Self { client, authorization })
    }

    fn client(https: HttpsConnector<HttpConnector>) -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(limits::UPSTREAM_IDLE_SECONDS_MAX))
            .pool_max_idle_per_host(limits::UPSTREAM_IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(limits::UPSTREAM_HEADER_BYTES_MAX as usize)
            .http1_max_headers(limits::UPSTREAM_HEADERS_MAX)
            .http2_max_header_list_size(limits::UPSTREAM_HEADER_BYTES_MAX)
            .http2_initial_stream_window_size(limits::UPSTREAM_STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(limits::UPSTREAM_CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(Duration::from_secs(limits::HTTP2_PING_SECONDS))
            .http2_keep_alive_timeout(Duration::from_secs(limits::HTTP2_PING_ANSWER_SECONDS_MAX))
            .build(https)
    }

    /// The request with our headers and no others.
    fn dress(&self, planned: UpstreamRequest, base: &BaseUrl) -> Result<Request<Full<Bytes>>, UpstreamError> {
        let mut request = Request::new(Full::new(planned.body));
        *request.uri_mut() = base.join(&planned.target)?;
        *request.method_mut() = planned.method;
        if planned.headers.keys().any(|name| !PLANNED_HEADERS.contains(name)) {
            return Err(UpstreamError::Unplanned);
        }
        let mut headers = planned.headers;
        headers.insert(header::ACCEPT, HeaderValue::from_static(planned.accept.media_type()));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, UpstreamError> {
        let again = (request.method() == Method::GET).then(|| request.clone());
        match (self.client.request(request).await, again) {
            (Ok(response), _) => Ok(response),
            (Err(error), Some(again)) if was_closed(&error) => {
                self.client.request(again).await.map_err(|error| classify(&error))
            }
            (Err(error), _) => Err(classify(&error)),
        }
    }
}

/// The connection ended without a byte of an answer, as when the EMR's keep-alive ran out.
fn was_closed(error: &ClientError) -> bool {
    let mut closed = false;
    walk(error, |cause| {
        closed |= cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message);
        closed |= cause.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        });
    });
    closed && !error.is_connect()
}

fn classify(error: &ClientError) -> UpstreamError {
    let is_connect = error.is_connect();
    let mut found = if is_connect { UpstreamError::Unreachable } else { UpstreamError::CutOff };
    walk(error, |cause| {
        if cause.is::<rustls::Error>() && is_connect {
            found = UpstreamError::Untrusted;
        } else if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
            if hyper.is_parse_too_large() {
                found = UpstreamError::TooLarge;
            } else if hyper.is_parse() {
                found = UpstreamError::Garbled;
            }
        }
    });
    found
}

/// Visits an error and all its causes. An I/O error hides the one it carries from `source`.
fn walk(error: &(dyn Error + 'static), mut visit: impl FnMut(&(dyn Error + 'static))) {
    let mut next = Some(error);
    while let Some(cause) = next {
        visit(cause);
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
}

fn read_bearer(path: &Path) -> Result<HeaderValue, UpstreamSetupError> {
    let unusable = || UpstreamSetupError::Bearer(path.to_owned());
    let mut text = String::new();
    let file = File::open(path).map_err(|_| unusable())?;
    file.take(limits::BEARER_BYTES_MAX + 1).read_to_string(&mut text).map_err(|_| unusable())?;
    let token = text.trim();
    let sound = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_empty() || !sound || text.len() as u64 > limits::BEARER_BYTES_MAX {
        return Err(unusable());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(value)
}

impl UpstreamRequest {
    /// A request for `target`, relative to the base: `Patient/p1`, `Patient?name=x`. Encoded already.
    #[must_use]
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        let (headers, accept, body) = (HeaderMap::new(), Accept::default(), Bytes::new());
        Self { method, target: target.into(), headers, accept, body }
    }

    /// The same asking for this media type.
    #[must_use]
    pub fn accept(mut self, accept: Accept) -> Self {
        self.accept = accept;
        self
    }

    /// The same with one more header: `Content-Type`, `If-Match`, `If-None-Match`, `If-Modified-Since`,
    /// `If-None-Exist` or `Prefer`. With any other, sending fails as unplanned.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The same with a body of this media type.
    #[must_use]
    pub fn body(self, media_type: HeaderValue, body: Bytes) -> Self {
        let mut request = self.header(header::CONTENT_TYPE, media_type);
        request.body = body;
        request
    }

    /// Whether it asks without changing anything, as FHIR defines it: operations that change records are none of
    /// those we send.
    fn is_question(&self) -> bool {
        let path = self.target.split('?').next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        match self.method {
            Method::GET => true,
            Method::POST => last == "_search" || last.starts_with('$'),
            _ => false,
        }
    }
}

impl Accept {
    fn media_type(self) -> &'static str {
        match self {
            Self::FhirJson => "application/fhir+json",
            Self::FhirNdjson => "application/fhir+ndjson",
        }
    }
}

impl UpstreamError {
    /// A fixed word for metrics and the audit record.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            UpstreamError::Unreachable => "unreachable",
            UpstreamError::Busy => "busy",
            UpstreamError::TimedOut => "timed-out",
            UpstreamError::Untrusted => "untrusted",
            UpstreamError::Redirected => "redirected",
            UpstreamError::Encoded => "encoded",
            UpstreamError::Garbled => "garbled",
            UpstreamError::TooLarge => "too-large",
            UpstreamError::CutOff => "cut-off",
            UpstreamError::Unplanned => "unplanned",
        }
    }

    /// Whether it is certain that the EMR did nothing: the request never left. False for every fault after that,
    /// of a write as of a read: an answer that came and was not sound says nothing about what was done.
    #[must_use]
    pub fn outcome_is_known(self) -> bool {
        match self {
            UpstreamError::Unreachable
            | UpstreamError::Busy
            | UpstreamError::Untrusted
            | UpstreamError::Unplanned => true,
            UpstreamError::TimedOut
            | UpstreamError::Redirected
            | UpstreamError::Encoded
            | UpstreamError::Garbled
            | UpstreamError::TooLarge
            | UpstreamError::CutOff => false,
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UpstreamError::Unreachable => "the EMR cannot be reached",
            UpstreamError::Busy => "too many requests are under way at the EMR",
            UpstreamError::TimedOut => "the EMR did not answer in time",
            UpstreamError::Untrusted => "the TLS handshake with the EMR failed",
            UpstreamError::Redirected => "the EMR answered with a redirect",
            UpstreamError::Encoded => "the EMR answered in an encoding that was not asked for",
            UpstreamError::Garbled => "the EMR's answer is not well-formed HTTP",
            UpstreamError::TooLarge => "the EMR's answer is too large",
            UpstreamError::CutOff => "the EMR's answer broke off",
            UpstreamError::Unplanned => "the request to the EMR was not one to send",
        })
    }
}

impl Error for UpstreamError {}

impl fmt::Display for UpstreamSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamSetupError::Tls(error) => error.fmt(f),
            UpstreamSetupError::Bearer(path) => write!(f, "no usable bearer token in `{}`", path.display()),
        }
    }
}

impl Error for UpstreamSetupError {}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for UpstreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamRequest").field("method", &self.method).finish_non_exhaustive()
    }
}
