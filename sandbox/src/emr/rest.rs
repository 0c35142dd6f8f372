//! The EMR's HTTP face: read, vread, history, search, create, update, delete, transaction, capabilities.
//!
//! Owns: routes, status codes, validators (`ETag`, `If-Match`, `If-None-Match`), OperationOutcomes.
//! Must never: check who asks.
//! Look next: `query`, `transaction`, `store`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;

use super::store::{Record, Stamping, Store, Stored, Version};
use super::transaction::{self, Naming};
use super::{Emr, LoadError, Logged, is_id, is_type_name, query, splice};
use crate::listen::{Answer, bare, collect, whole};
use crate::web;

use std::sync::atomic::Ordering;

const BODY_BYTES_MAX: usize = 64 << 20;
const FHIR_JSON: &str = "application/fhir+json;charset=utf-8";

pub(super) async fn answer(emr: Emr, base: Arc<str>, request: Request<Incoming>) -> Option<Answer> {
    let (parts, body) = request.into_parts();
    let body = if hyper::body::Body::is_end_stream(&body) {
        Bytes::new()
    } else {
        match collect(body, BODY_BYTES_MAX).await {
            Some(body) => body,
            None => return Some(outcome(StatusCode::PAYLOAD_TOO_LARGE, "too-long", "body too large")),
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
    Some(route(&Call { emr: &emr, base: &base, parts: &parts, body: &body }))
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

struct Call<'a> {
    emr: &'a Emr,
    base: &'a str,
    parts: &'a Parts,
    body: &'a Bytes,
}

impl Call<'_> {
    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn query(&self) -> Vec<(String, String)> {
        web::pairs(self.parts.uri.query().unwrap_or_default())
    }

    fn strict(&self) -> bool {
        self.header(header::HeaderName::from_static("prefer"))
            .is_some_and(|prefer| prefer.contains("handling=strict"))
    }
}

fn route(call: &Call<'_>) -> Answer {
    let path = call.parts.uri.path();
    let Some(path) = path.strip_prefix("/fhir") else { return not_found() };
    let steps: Vec<&str> = path.split('/').skip(1).collect();
    let method = &call.parts.method;
    let reading = *method == Method::GET || *method == Method::HEAD;
    match steps.as_slice() {
        [] | [""] if *method == Method::POST => transaction(call),
        ["metadata"] if reading => capabilities(call),
        [name] | [name, ""] if is_type_name(name) && reading => search(call, name, call.query()),
        [name, "_search"] if is_type_name(name) && *method == Method::POST => form_search(call, name),
        [name] if is_type_name(name) && *method == Method::POST => create(call, name),
        [name, id] if is_type_name(name) && is_id(id) => match *method {
            Method::GET | Method::HEAD => read(call, name, id),
            Method::PUT => update(call, name, id),
            Method::DELETE => delete(call, name, id),
            _ => outcome(StatusCode::METHOD_NOT_ALLOWED, "not-supported", "method not supported"),
        },
        [name, id, "_history"] if reading => history(call, name, id),
        [name, id, "_history", version] if reading => vread(call, name, id, version),
        _ => not_found(),
    }
}

fn read(call: &Call<'_>, name: &str, id: &str) -> Answer {
    let store = call.emr.store();
    match store.find(name, id).and_then(Record::current) {
        None => not_found(),
        Some(version) => deliver(call, version),
    }
}

fn vread(call: &Call<'_>, name: &str, id: &str, wanted: &str) -> Answer {
    let store = call.emr.store();
    let versions = store.find(name, id).map_or(&[] as &[Version], |record| &record.versions);
    match versions.iter().find(|version| version.version == wanted) {
        None => not_found(),
        Some(version) => deliver(call, version),
    }
}

fn deliver(call: &Call<'_>, version: &Version) -> Answer {
    let Some(bytes) = &version.bytes else {
        return outcome(StatusCode::GONE, "deleted", "record was deleted");
    };
    let unchanged = call.parts.headers.get(header::IF_NONE_MATCH).is_some_and(|tag| *tag == version.etag);
    let mut answer = if unchanged {
        bare(StatusCode::NOT_MODIFIED)
    } else {
        whole(StatusCode::OK, FHIR_JSON, bytes.clone())
    };
    validators(&mut answer, version);
    answer
}

fn validators(answer: &mut Answer, version: &Version) {
    answer.headers_mut().insert(header::ETAG, version.etag.clone());
    answer.headers_mut().insert(header::LAST_MODIFIED, version.last_modified.clone());
}

fn history(call: &Call<'_>, name: &str, id: &str) -> Answer {
    let store = call.emr.store();
    let Some(record) = store.find(name, id) else { return not_found() };
    let entries: Vec<String> = record.versions.iter().rev().map(|v| past(call.base, name, id, v)).collect();
    let body = format!(
        "{{\"resourceType\":\"Bundle\",\"type\":\"history\",\"total\":{},\"entry\":[{}]}}",
        entries.len(),
        entries.join(",")
    );
    whole(StatusCode::OK, FHIR_JSON, body)
}

fn past(base: &str, name: &str, id: &str, version: &Version) -> String {
    let resource = version.bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let (method, status) = if resource.is_some() { ("PUT", "200") } else { ("DELETE", "204") };
    let resource = resource.map_or_else(String::new, |text| format!("\"resource\":{text},"));
    format!(
        "{{\"fullUrl\":\"{base}/{name}/{id}\",{resource}\"request\":{{\"method\":\"{method}\",\"url\":\"{name}/{id}\"}},\
         \"response\":{{\"status\":\"{status}\",\"etag\":\"W/\\\"{}\\\"\",\"lastModified\":\"{}\"}}}}",
        version.version, version.last_updated
    )
}

fn form_search(call: &Call<'_>, name: &str) -> Answer {
    let form = call.header(header::CONTENT_TYPE).unwrap_or_default();
    if !form.starts_with("application/x-www-form-urlencoded") {
        return outcome(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-supported", "a form is expected");
    }
    let mut asked = call.query();
    asked.extend(web::pairs(&String::from_utf8_lossy(call.body)));
    search(call, name, asked)
}

fn search(call: &Call<'_>, name: &str, asked: Vec<(String, String)>) -> Answer {
    match query::search(&call.emr.store(), call.base, name, &asked, call.strict()) {
        Ok(bundle) => whole(StatusCode::OK, FHIR_JSON, bundle),
        Err(refused) => outcome(StatusCode::BAD_REQUEST, "invalid", &refused.0),
    }
}

fn create(call: &Call<'_>, name: &str) -> Answer {
    let Ok(text) = std::str::from_utf8(call.body) else { return bad_resource() };
    if splice::read(text).ok().is_none_or(|stamp| stamp.resource_type != name) {
        return bad_resource();
    }
    let now = call.emr.now();
    let mut store = call.emr.write();
    if let Some(condition) = call.header(header::HeaderName::from_static("if-none-exist")) {
        match query::references(&store, name, &web::pairs(condition)).as_deref() {
            Ok([]) => {}
            Ok([reference]) => return written(call, &store, reference, StatusCode::OK),
            Ok(_) => return outcome(StatusCode::PRECONDITION_FAILED, "multiple-matches", "several match"),
            Err(refused) => return outcome(StatusCode::BAD_REQUEST, "invalid", &refused.0),
        }
    }
    let id = store.fresh_id();
    match store.put(text, &id, now, Stamping::Server) {
        Ok(stored) => written(call, &store, &stored.reference, StatusCode::CREATED),
        Err(_) => bad_resource(),
    }
}

fn update(call: &Call<'_>, name: &str, id: &str) -> Answer {
    let Ok(text) = std::str::from_utf8(call.body) else { return bad_resource() };
    let fits = |stamp: splice::Stamp| stamp.resource_type == name && stamp.id.as_deref() == Some(id);
    if !splice::read(text).is_ok_and(fits) {
        return bad_resource();
    }
    let now = call.emr.now();
    let mut store = call.emr.write();
    if let Some(failed) = precondition(call, store.find(name, id)) {
        return failed;
    }
    match store.put(text, id, now, Stamping::Server) {
        Ok(stored) => {
            let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
            written(call, &store, &stored.reference, status)
        }
        Err(_) => bad_resource(),
    }
}

fn precondition(call: &Call<'_>, record: Option<&Record>) -> Option<Answer> {
    let wanted = call.parts.headers.get(header::IF_MATCH)?;
    let current = record.and_then(Record::current).map(|version| &version.etag);
    let failed = || outcome(StatusCode::PRECONDITION_FAILED, "conflict", "version does not match");
    (current != Some(wanted)).then(failed)
}

/// The answer to a write: the stored record, with its address.
fn written(call: &Call<'_>, store: &Store, reference: &str, status: StatusCode) -> Answer {
    let (name, id) = reference.split_once('/').unwrap_or_default();
    let Some(version) = store.find(name, id).and_then(Record::current) else { return not_found() };
    let mut answer = whole(status, FHIR_JSON, version.bytes.clone().unwrap_or_default());
    validators(&mut answer, version);
    let location = format!("{}/{reference}/_history/{}", call.base, version.version);
    if let Ok(location) = HeaderValue::from_str(&location) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

fn delete(call: &Call<'_>, name: &str, id: &str) -> Answer {
    let now = call.emr.now();
    let mut store = call.emr.write();
    if let Some(failed) = precondition(call, store.find(name, id)) {
        return failed;
    }
    // R4 asks for success also when there is nothing to delete.
    store.delete(name, id, now);
    bare(StatusCode::NO_CONTENT)
}

fn transaction(call: &Call<'_>) -> Answer {
    let now = call.emr.now();
    match transaction::apply(&mut call.emr.write(), call.body, now, Naming::Server) {
        Ok(stored) => whole(StatusCode::OK, FHIR_JSON, transaction_response(&stored)),
        Err(LoadError::NotABundle) => {
            outcome(StatusCode::BAD_REQUEST, "structure", "not a transaction bundle")
        }
        Err(LoadError::NotAResource | LoadError::UnsupportedEntry) => {
            outcome(StatusCode::UNPROCESSABLE_ENTITY, "processing", "an entry cannot be processed")
        }
    }
}

fn transaction_response(stored: &[Stored]) -> String {
    let entry = |one: &Stored| {
        let status = if one.created { "201 Created" } else { "200 OK" };
        let location = format!("{}/_history/{}", one.reference, one.version);
        json!({"response": {"status": status, "location": location, "etag": format!("W/\"{}\"", one.version)}})
    };
    let entries: Vec<_> = stored.iter().map(entry).collect();
    json!({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}).to_string()
}

fn capabilities(call: &Call<'_>) -> Answer {
    let interactions: Vec<_> =
        ["read", "vread", "history-instance", "search-type", "create", "update", "delete"]
            .map(|code| json!({"code": code}))
            .into();
    let resource = |(name, _): &(String, usize)| {
        let params: Vec<_> =
            super::parameters::of(name).map(|p| json!({"name": p.code, "type": p.kind.name()})).collect();
        json!({"type": name, "interaction": interactions, "versioning": "versioned", "searchParam": params})
    };
    let resources: Vec<_> = call.emr.census().iter().map(resource).collect();
    let body = json!({
        "resourceType": "CapabilityStatement", "status": "active", "date": "2026-01-01", "kind": "instance",
        "software": {"name": "Chartgate sandbox EMR"},
        "implementation": {"description": "synthetic data in memory", "url": call.base},
        "fhirVersion": "4.0.1", "format": ["json"],
        "rest": [{"mode": "server", "resource": resources, "interaction": [{"code": "transaction"}]}]
    });
    whole(StatusCode::OK, FHIR_JSON, body.to_string())
}

fn not_found() -> Answer {
    outcome(StatusCode::NOT_FOUND, "not-found", "not found")
}

fn bad_resource() -> Answer {
    outcome(StatusCode::BAD_REQUEST, "structure", "body is not this resource")
}

fn outcome(status: StatusCode, code: &str, text: &str) -> Answer {
    let issue = json!([{"severity": "error", "code": code, "diagnostics": text}]);
    whole(status, FHIR_JSON, json!({"resourceType": "OperationOutcome", "issue": issue}).to_string())
}
