//! The door for operators: is it alive, is it ready, what has it done.
//!
//! Owns: `/healthz`, `/readyz` and `/metrics`, over plain HTTP/1.1 on loopback or over TLS; the way to the desk.
//! Must never: serve a FHIR path, or tell anything about a patient or a request; tell about a person but at the desk.
//! Look next: `desk`, sessions and revocations; `telemetry`, which renders the metrics; `app`, which knows what is ready.

mod desk;
#[cfg(test)]
mod desk_tests;

pub use desk::{Access, Desk, OrderFault, OrderText, RevocationView, Secret};

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;

use crate::edge::listener::{Drained, Listener, Peer, Stop};
use crate::edge::telemetry::Telemetry;

const JSON: &str = "application/json";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What must be there before requests can be served. Serialised as the body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// Every issuer's keys have been had at least once and are not too old.
    pub keys: bool,
    /// A policy set is in force.
    pub policies: bool,
    /// The journal is open, locked and takes records.
    pub journal: bool,
    /// How its reserve stands: `none`, `ready`, `in-use` or `broken`.
    pub reserve: &'static str,
    /// The newest cosignature is younger than `audit.witness_refuse_after`, where that is set.
    pub witnesses: bool,
    /// The session store answers.
    pub sessions: bool,
    /// Issuers whose event stream shows no sign of life. They make nobody wait; somebody should look.
    pub silent_event_streams: Vec<String>,
    /// Hash of the policy set in force.
    pub policy_hash: String,
    /// Its number; grows by one with each set put in force.
    pub policy_epoch: u64,
    /// Its version, where signatures are asked for.
    pub policy_version: Option<u64>,
    /// Why the set that the directory holds now is not in force; nothing when it is.
    pub policy_rejected: Option<String>,
    /// A candidate set that is asked beside it; nothing when none is.
    pub policy_shadow: Option<ShadowView>,
}

/// A candidate set that is asked beside the one in force, and changes no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShadowView {
    /// Its hash.
    pub candidate: String,
    /// When it ends by itself.
    pub until: String,
    /// Questions that were put to it.
    pub asked: u64,
    /// Those of which it says something else.
    pub different: u64,
    /// Those of which it cannot be told, for want of relations that nobody looked up.
    pub unknown: u64,
    /// Questions that were not put, because too many waited.
    pub dropped: u64,
}

impl Readiness {
    /// Whether all is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.keys && self.policies && self.journal && self.witnesses && self.sessions
    }
}

/// The answer to a request below a prefix that somebody else serves.
pub type Answering = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Paths below `prefix`, and who answers them.
pub struct Door {
    /// Such as `/emergency/`.
    pub prefix: &'static str,
    /// Answers.
    pub answer: Box<dyn Fn(Request<Incoming>, Peer) -> Answering + Send + Sync>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Serves the operations listener until `stop`. `readiness` is asked on every `/readyz`.
pub fn serve<R>(
    listener: Listener,
    readiness: R,
    desk: Desk,
    door: Door,
    telemetry: Telemetry,
    stop: Stop,
) -> impl Future<Output = Drained> + Send
where
    R: Fn() -> Readiness + Send + Sync + 'static,
{
    let readiness = Arc::new(readiness);
    let (desk, door) = (Arc::new(desk), Arc::new(door));
    let handler = move |request: Request<Incoming>, peer: Peer| {
        let (readiness, telemetry) = (Arc::clone(&readiness), telemetry.clone());
        let (desk, door) = (Arc::clone(&desk), Arc::clone(&door));
        async move {
            if request.uri().path().starts_with(door.prefix) {
                return (door.answer)(request, peer).await;
            }
            if desk::is_here(request.uri().path()) {
                return desk.answer(request, &peer).await;
            }
            answer(&request, || readiness(), &telemetry)
        }
    };
    listener.serve(handler, stop)
}

/// The answer to one request: 200, 503, 404 or 405. Bodies of requests are not read.
fn answer<B>(
    request: &Request<B>,
    readiness: impl Fn() -> Readiness,
    telemetry: &Telemetry,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return reply(StatusCode::NOT_FOUND, TEXT, "not found\n");
    }
    if request.method() != Method::GET {
        let mut refused = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    match path {
        "/healthz" => reply(StatusCode::OK, TEXT, "alive\n"),
        "/metrics" => reply(StatusCode::OK, METRICS, telemetry.render()),
        _ => ready(&readiness()),
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(readiness) {
        Ok(json) => reply(status, JSON, json),
        Err(_) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "unknown\n"),
    }
}

fn reply(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::edge::telemetry::Decision;

    fn readiness(keys: bool) -> Readiness {
        Readiness {
            keys,
            policies: true,
            journal: true,
            reserve: "none",
            witnesses: true,
            sessions: true,
            silent_event_streams: Vec::new(),
            policy_hash: "ab12".into(),
            policy_epoch: 3,
            policy_version: None,
            policy_rejected: None,
            policy_shadow: None,
        }
    }

    async fn ask(method: Method, path: &str, keys: bool) -> (StatusCode, String) {
        let telemetry = Telemetry::new();
        telemetry.request("read", Decision::Permit, StatusCode::OK, Duration::from_millis(3));
        telemetry.refusal("no-token");
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = answer(&request, || readiness(keys), &telemetry);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn answers_three_paths_and_no_other() {
        let cases = [
            (Method::GET, "/healthz", true, 200, "alive"),
            (Method::GET, "/healthz", false, 200, "alive"),
            (Method::GET, "/readyz", true, 200, r#""policyHash":"ab12","policyEpoch":3"#),
            (Method::GET, "/readyz", false, 503, r#""keys":false,"policies":true,"journal":true"#),
            (Method::GET, "/metrics", true, 200, r#"chartgate_refusals_total{code="no-token"} 1"#),
            (
                Method::GET,
                "/metrics",
                true,
                200,
                r#"chartgate_requests_total{interaction="read",decision="permit",status="2xx"} 1"#,
            ),
            (Method::POST, "/healthz", true, 405, "only GET"),
            (Method::DELETE, "/metrics", true, 405, "only GET"),
            (Method::GET, "/metrics/", true, 404, "not found"),
            (Method::GET, "/Patient/p1", true, 404, "not found"),
            (Method::POST, "/session", true, 404, "not found"),
        ];
        for (method, path, keys, status, part) in cases {
            let (got, body) = ask(method, path, keys).await;
            assert_eq!(got.as_u16(), status, "{path}");
            assert!(body.contains(part), "{path}: {body}");
        }
    }
}
