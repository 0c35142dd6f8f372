//! Batches and transactions that come over HTTP: every entry is an interaction of its own.
//!
//! Owns: the order of a transaction's entries, ids set aside for what it creates, resolving references, taking it back.
//! Must never: leave part of a failed transaction; re-print a record.
//! Look next: `reading::look` and `writing::change`, which do the entries; `store::Store::rollback`.

use std::collections::{BTreeSet, HashMap};

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ask::{Ask, Reply};
use super::store::Store;
use super::{reading, splice, writing};
use crate::web;

#[derive(Deserialize)]
struct Bundle<'a> {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow, default)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "fullUrl")]
    full_url: Option<String>,
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    method: String,
    url: String,
    if_none_exist: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<String>,
}

/// Answers a POST of a Bundle to the base.
pub(super) fn answer(store: &mut Store, ask: &Ask<'_>) -> Reply {
    let Ok(bundle) = serde_json::from_slice::<Bundle<'_>>(ask.body) else { return not_a_bundle() };
    let kind = bundle.kind.as_str();
    if bundle.resource_type != "Bundle" || !matches!(kind, "transaction" | "batch") {
        return not_a_bundle();
    }
    let replies = if kind == "batch" {
        bundle.entry.iter().map(|entry| single(store, ask, entry)).collect()
    } else {
        match transaction(store, ask, &bundle.entry) {
            Ok(replies) => replies,
            Err(failed) => return *failed,
        }
    };
    let entries: Vec<String> = replies.iter().map(|reply| response(ask, reply)).collect();
    let body = format!(
        "{{\"resourceType\":\"Bundle\",\"type\":\"{kind}-response\",\"entry\":[{}]}}",
        entries.join(",")
    );
    Reply::fhir(StatusCode::OK, body)
}

fn not_a_bundle() -> Reply {
    Reply::outcome(StatusCode::BAD_REQUEST, "structure", "not a transaction bundle")
}

fn single(store: &mut Store, ask: &Ask<'_>, entry: &Entry<'_>) -> Reply {
    let Some(request) = &entry.request else { return Reply::invalid("an entry without a request") };
    let text = entry.resource.map(RawValue::get).unwrap_or_default();
    perform(store, &entry_ask(ask, request, text))
}

fn perform(store: &mut Store, ask: &Ask<'_>) -> Reply {
    reading::look(store, ask).unwrap_or_else(|| writing::change(store, ask))
}

fn entry_ask<'e>(ask: &Ask<'e>, request: &'e Request, text: &'e str) -> Ask<'e> {
    let target = request.url.strip_prefix(ask.base).unwrap_or(&request.url);
    Ask {
        body: text.as_bytes(),
        prefer: ask.prefer,
        if_match: request.if_match.as_deref(),
        if_none_match: request.if_none_match.as_deref(),
        if_modified_since: request.if_modified_since.as_deref(),
        if_none_exist: request.if_none_exist.as_deref(),
        ..Ask::new(ask.base, ask.now, &request.method, target)
    }
}

/// All entries or none.
fn transaction(store: &mut Store, ask: &Ask<'_>, entries: &[Entry<'_>]) -> Result<Vec<Reply>, Box<Reply>> {
    store.begin();
    let done = whole(store, ask, entries);
    if done.is_ok() {
        store.commit();
    } else {
        store.rollback();
    }
    done
}

fn whole(store: &mut Store, ask: &Ask<'_>, entries: &[Entry<'_>]) -> Result<Vec<Reply>, Box<Reply>> {
    let mut addresses = HashMap::new();
    let mut aside = Vec::with_capacity(entries.len());
    let mut touched = BTreeSet::new();
    for entry in entries {
        let Some(request) = &entry.request else { return Err(failed("an entry without a request")) };
        let id = set_aside(store, ask, entry, request, &mut addresses)?;
        let target = id.clone().unwrap_or_else(|| request.url.clone());
        if matches!(request.method.as_str(), "PUT" | "PATCH" | "DELETE") && !touched.insert(target) {
            return Err(failed("two entries change the same record"));
        }
        aside.push(id.and_then(|reference| reference.split_once('/').map(|(_, id)| id.to_owned())));
    }
    let mut texts = Vec::with_capacity(entries.len());
    for entry in entries {
        let text = entry.resource.map(RawValue::get).unwrap_or_default();
        texts.push(resolve(store, &addresses, text)?);
    }
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|at| entries.get(*at).map_or(u8::MAX, rank));
    let mut replies: Vec<Option<Reply>> = entries.iter().map(|_| None).collect();
    for at in order {
        let (Some(entry), Some(text), Some(id)) = (entries.get(at), texts.get(at), aside.get(at)) else {
            continue;
        };
        let Some(request) = &entry.request else { continue };
        let reply = perform(store, &Ask { id: id.clone(), ..entry_ask(ask, request, text) });
        if reply.status.is_client_error() || reply.status.is_server_error() {
            return Err(Box::new(reply));
        }
        if let Some(place) = replies.get_mut(at) {
            *place = Some(reply);
        }
    }
    Ok(replies.into_iter().flatten().collect())
}

/// R4 http, "Transaction Processing Rules": deletions, then creations, then updates, then reads.
fn rank(entry: &Entry<'_>) -> u8 {
    match entry.request.as_ref().map(|request| request.method.as_str()) {
        Some("DELETE") => 0,
        Some("POST") => 1,
        Some("PUT" | "PATCH") => 2,
        _ => 3,
    }
}

fn failed(text: &str) -> Box<Reply> {
    Box::new(Reply::outcome(StatusCode::BAD_REQUEST, "processing", text))
}

/// `Type/id` that a writing entry will have, known before anything is stored, so that others can point to it.
fn set_aside(
    store: &mut Store,
    ask: &Ask<'_>,
    entry: &Entry<'_>,
    request: &Request,
    addresses: &mut HashMap<String, String>,
) -> Result<Option<String>, Box<Reply>> {
    let text = entry.resource.map(RawValue::get).unwrap_or_default();
    let own = entry_ask(ask, request, text);
    let steps = own.steps();
    let (name, found) = match (request.method.as_str(), steps.as_slice()) {
        ("POST", [name]) => {
            let condition = request.if_none_exist.as_deref().map(web::pairs);
            (*name, condition.map(|condition| writing::one(store, name, &condition)).transpose()?.flatten())
        }
        ("PUT", [name]) => (*name, writing::one(store, name, &own.query)?),
        ("PUT" | "PATCH" | "DELETE", [name, id]) => (*name, Some((*id).to_owned())),
        _ => return Ok(None),
    };
    let named = || splice::read(text).ok().and_then(|stamp| stamp.id).filter(|_| request.method == "PUT");
    let id = found.or_else(named).unwrap_or_else(|| store.fresh_id());
    let reference = format!("{name}/{id}");
    if let Some(url) = &entry.full_url {
        addresses.insert(url.clone(), reference.clone());
    }
    Ok(Some(reference))
}

/// Puts the stored addresses in place of temporary ones and of conditional references.
fn resolve(store: &Store, addresses: &HashMap<String, String>, text: &str) -> Result<String, Box<Reply>> {
    let mut unresolved = None;
    let text = splice::references(text, &["reference", "url"], |reference| {
        if let Some(known) = addresses.get(reference) {
            return Some(known.clone());
        }
        let (name, condition) = reference.split_once('?').filter(|(name, _)| super::is_type_name(name))?;
        match writing::one(store, name, &web::pairs(condition)) {
            Ok(Some(id)) => Some(format!("{name}/{id}")),
            Ok(None) => {
                let text = "a conditional reference means no record";
                unresolved =
                    Some(Box::new(Reply::outcome(StatusCode::PRECONDITION_FAILED, "not-found", text)));
                None
            }
            Err(refused) => {
                unresolved = Some(refused);
                None
            }
        }
    });
    unresolved.map_or(Ok(text), Err)
}

/// One entry of the answer; its location is relative, and a written record is shown only on `return=representation`.
fn response(ask: &Ask<'_>, reply: &Reply) -> String {
    let status = reply.status;
    let said = format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default());
    let mut response = serde_json::Map::from_iter([("status".to_owned(), json!(said.trim()))]);
    let below = reply.location.as_deref().map(|location| {
        location.strip_prefix(ask.base).map_or(location, |path| path.trim_start_matches('/'))
    });
    let etag = reply.etag.as_ref().and_then(|etag| etag.to_str().ok());
    let members = [("location", below), ("etag", etag), ("lastModified", reply.modified.as_deref())];
    response.extend(members.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text?)))));
    let body = reply.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let is_outcome = body.starts_with("{\"resourceType\":\"OperationOutcome\"");
    let shown = below.is_none() || ask.prefer.contains("return=representation");
    if is_outcome {
        let outcome = serde_json::from_str::<Value>(&body).ok();
        response.extend(outcome.map(|outcome| ("outcome".to_owned(), outcome)));
    }
    let response = Value::Object(response);
    if is_outcome || body.is_empty() || !shown {
        return format!("{{\"response\":{response}}}");
    }
    format!("{{\"resource\":{body},\"response\":{response}}}")
}
