//! One interaction and its answer, apart from HTTP: a request of its own, or an entry of a Bundle.
//!
//! Owns: `Ask`, `Reply`, preconditions, OperationOutcomes.
//! Must never: read or write records.
//! Look next: `reading`, `writing`, `bundle`, `rest`.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::store::{Record, Version};
use crate::listen::{Answer, bare, whole};
use crate::web;

pub(super) const FHIR_JSON: &str = "application/fhir+json;charset=utf-8";

/// What is asked. `steps` are the path's parts below the base, decoded; `query` also holds a form's fields.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) base: &'a str,
    pub(super) now: jiff::Timestamp,
    pub(super) method: &'a str,
    pub(super) steps: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) content_type: &'a str,
    pub(super) body: &'a [u8],
    pub(super) prefer: &'a str,
    pub(super) if_match: Option<&'a str>,
    pub(super) if_none_match: Option<&'a str>,
    pub(super) if_modified_since: Option<&'a str>,
    pub(super) if_none_exist: Option<&'a str>,
    /// The id that a transaction has set aside for what this creates.
    pub(super) id: Option<String>,
}

impl<'a> Ask<'a> {
    /// An interaction without headers and body. `target` is the path below the base, with its query.
    pub(super) fn new(base: &'a str, now: jiff::Timestamp, method: &'a str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let steps = path.split('/').filter(|step| !step.is_empty()).map(web::decode).collect();
        Self {
            base,
            now,
            method,
            steps,
            query: web::pairs(query),
            content_type: FHIR_JSON,
            body: &[],
            prefer: "",
            if_match: None,
            if_none_match: None,
            if_modified_since: None,
            if_none_exist: None,
            id: None,
        }
    }

    pub(super) fn steps(&self) -> Vec<&str> {
        self.steps.iter().map(String::as_str).collect()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(self.body).unwrap_or_default()
    }

    pub(super) fn strict(&self) -> bool {
        self.prefer.contains("handling=strict")
    }

    /// The refusal when `If-Match` or `If-None-Match: *` forbids the change of this record.
    pub(super) fn precondition(&self, record: Option<&Record>) -> Option<Reply> {
        let current = record.and_then(Record::current).filter(|version| version.bytes.is_some());
        let failed = || Reply::outcome(StatusCode::PRECONDITION_FAILED, "conflict", "version does not match");
        let matched =
            self.if_match.is_none_or(|tags| current.is_some_and(|version| names(tags, &version.version)));
        let absent = self.if_none_match.is_none_or(|tags| tags.trim() != "*" || current.is_none());
        (!matched || !absent).then(failed)
    }

    /// True when the client has this version already (RFC 9110: `If-None-Match` wins over `If-Modified-Since`).
    pub(super) fn has_already(&self, version: &Version) -> bool {
        match (self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => names(tags, &version.version),
            (None, Some(since)) => {
                let since = jiff::fmt::rfc2822::parse(since).map(|zoned| zoned.timestamp());
                let changed: Result<jiff::Timestamp, _> = version.last_updated.parse();
                since.is_ok_and(|since| changed.is_ok_and(|at| at.as_second() <= since.as_second()))
            }
            (None, None) => false,
        }
    }
}

/// Whether a list of entity tags (`W/"1"`, `"1"`, `*`) names a version.
fn names(tags: &str, version: &str) -> bool {
    let one = |tag: &str| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == version
    };
    tags.split(',').any(one)
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Option<Bytes>,
    pub(super) etag: Option<HeaderValue>,
    pub(super) last_modified: Option<HeaderValue>,
    /// The instant of `last_modified`, for Bundles.
    pub(super) modified: Option<String>,
    /// Absolute, with version.
    pub(super) location: Option<String>,
}

impl Reply {
    pub(super) fn bare(status: StatusCode) -> Self {
        Self { status, body: None, etag: None, last_modified: None, modified: None, location: None }
    }

    pub(super) fn fhir(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { body: Some(body.into()), ..Self::bare(status) }
    }

    /// An OperationOutcome; an error unless the status is a success.
    pub(super) fn outcome(status: StatusCode, code: &str, text: &str) -> Self {
        let severity = if status.is_success() { "information" } else { "error" };
        let issue = json!([{"severity": severity, "code": code, "diagnostics": text}]);
        Self::fhir(status, json!({"resourceType": "OperationOutcome", "issue": issue}).to_string())
    }

    pub(super) fn not_found() -> Self {
        Self::outcome(StatusCode::NOT_FOUND, "not-found", "not found")
    }

    pub(super) fn invalid(text: &str) -> Self {
        Self::outcome(StatusCode::BAD_REQUEST, "invalid", text)
    }

    /// Adds the validators of a version.
    pub(super) fn version(mut self, version: &Version) -> Self {
        self.etag = Some(version.etag.clone());
        self.last_modified = Some(version.last_modified.clone());
        self.modified = Some(version.last_updated.clone());
        self
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut answer = match self.body {
            Some(body) => whole(self.status, FHIR_JSON, body),
            None => bare(self.status),
        };
        let headers = answer.headers_mut();
        headers.extend(self.etag.map(|value| (header::ETAG, value)));
        headers.extend(self.last_modified.map(|value| (header::LAST_MODIFIED, value)));
        if let Some(location) = self.location.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::CONTENT_LOCATION, location.clone());
            headers.insert(header::LOCATION, location);
        }
        answer
    }
}
