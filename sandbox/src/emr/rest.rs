//! The EMR's HTTP face: a request becomes an `Ask`, a `Reply` becomes an answer.
//!
//! Owns: the request log, delays, prepared answers, forms, which lock an interaction takes.
//! Must never: check who asks.
//! Look next: `reading`, `writing`, `bundle`, `export`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;

use super::ask::{Ask, Reply};
use super::{Emr, Logged, bundle, export, reading, writing};
use crate::listen::{Answer, collect};
use crate::web;

const BODY_BYTES_MAX: usize = 64 << 20;

pub(super) async fn answer(emr: Emr, base: Arc<str>, request: Request<Incoming>) -> Option<Answer> {
    let (parts, body) = request.into_parts();
    let body = if hyper::body::Body::is_end_stream(&body) {
        Bytes::new()
    } else {
        match collect(body, BODY_BYTES_MAX).await {
            Some(body) => body,
            None => {
                let text = "body too large";
                return Some(Reply::outcome(StatusCode::PAYLOAD_TOO_LARGE, "too-long", text).into_answer());
            }
        }
    };
    emr.0.served.fetch_add(1, Ordering::Relaxed);
    if emr.0.recording.load(Ordering::Relaxed) {
        emr.log(logged(&parts, &body));
    }
    let delay_us = emr.0.delay_us.load(Ordering::Relaxed);
    if delay_us > 0 {
        tokio::time::sleep(Duration::from_micros(delay_us)).await;
    }
    if let Some(canned) = emr.0.shelf.take(parts.uri.path()) {
        return Some(canned);
    }
    Some(route(&emr, &base, &parts, &body))
}

fn logged(parts: &Parts, body: &Bytes) -> Logged {
    let value = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Logged {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: parts.headers.iter().map(|(name, v)| (name.as_str().to_owned(), value(v))).collect(),
        body: body.clone(),
    }
}

fn route(emr: &Emr, base: &str, parts: &Parts, body: &Bytes) -> Answer {
    let target = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let Some(target) =
        target.strip_prefix("/fhir").filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    else {
        return Reply::not_found().into_answer();
    };
    let value = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let all = |name: &str| {
        let values = parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(", ")
    };
    let prefer = all("prefer");
    let mut ask = Ask {
        content_type: value(header::CONTENT_TYPE).unwrap_or_default(),
        body,
        prefer: &prefer,
        if_match: value(header::IF_MATCH),
        if_none_match: value(header::IF_NONE_MATCH),
        if_modified_since: value(header::IF_MODIFIED_SINCE),
        if_none_exist: value(HeaderName::from_static("if-none-exist")),
        ..Ask::new(base, emr.now(), parts.method.as_str(), target)
    };
    if let Some(refused) = read_form(&mut ask) {
        return refused.into_answer();
    }
    let exporting = |step: &String| step == "$export" || step.starts_with("export-");
    if ask.steps.iter().any(exporting) {
        let mut jobs = emr.0.exports.lock().unwrap_or_else(PoisonError::into_inner);
        let exported = export::start(&emr.store(), &mut jobs, &ask, &format!("{base}{target}"))
            .or_else(|| export::follow(&mut jobs, &ask));
        if let Some(exported) = exported {
            return exported;
        }
    }
    interact(emr, &ask).into_answer()
}

fn interact(emr: &Emr, ask: &Ask<'_>) -> Reply {
    if let Some(reply) = reading::look(&emr.store(), ask) {
        return reply;
    }
    let mut store = emr.write();
    if ask.method == "POST" && ask.steps.is_empty() {
        bundle::answer(&mut store, ask)
    } else {
        writing::change(&mut store, ask)
    }
}

/// A POST to `_search` is the GET with the form's fields added to the query (R4 http, "search").
fn read_form(ask: &mut Ask<'_>) -> Option<Reply> {
    if ask.method != "POST" || ask.steps.last().is_none_or(|last| last != "_search") {
        return None;
    }
    if !ask.content_type.starts_with("application/x-www-form-urlencoded") {
        return Some(Reply::outcome(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-supported",
            "a form is expected",
        ));
    }
    ask.query.extend(web::pairs(&String::from_utf8_lossy(ask.body)));
    ask.steps.pop();
    ask.method = "GET";
    None
}
