//! Create, update, patch and delete, by id and by condition.
//!
//! Owns: preconditions in their order, what a write answers (`Prefer: return=…`), conditional criteria.
//! Must never: write before every precondition held.
//! Look next: `ask`, `patch`, `bundle`, which calls this for its entries.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::Value;

use super::ask::{Ask, Reply};
use super::patch::{self, Misapplied};
use super::store::{Record, Stamping, Store};
use super::{is_id, is_type_name, query, splice};
use crate::web;

/// Does what a POST, PUT, PATCH or DELETE asks.
pub(super) fn change(store: &mut Store, ask: &Ask<'_>) -> Reply {
    let steps = ask.steps();
    match (ask.method, steps.as_slice()) {
        (_, [name, ..]) if !is_type_name(name) => Reply::not_found(),
        ("POST", [name]) => create(store, ask, name),
        ("PUT", [name, id]) if is_id(id) => update(store, ask, name, id),
        ("PATCH", [name, id]) if is_id(id) => patch_one(store, ask, name, id),
        ("DELETE", [name, id]) if is_id(id) => delete(store, ask, name, id),
        ("PUT" | "PATCH" | "DELETE", [name]) => match meant(store, ask, name) {
            Err(refused) => *refused,
            Ok(found) => conditional(store, ask, name, found),
        },
        _ => Reply::outcome(StatusCode::METHOD_NOT_ALLOWED, "not-supported", "method not supported"),
    }
}

/// The id that a conditional interaction means, when exactly one record fits.
fn meant(store: &Store, ask: &Ask<'_>, name: &str) -> Result<Option<String>, Box<Reply>> {
    if ask.query.is_empty() {
        return Err(Box::new(Reply::invalid("a condition is needed")));
    }
    one(store, name, &ask.query)
}

/// The one record that fits a condition.
///
/// # Errors
/// 412 when several fit, 400 when the condition is not understood.
pub(super) fn one(
    store: &Store,
    name: &str,
    criteria: &[(String, String)],
) -> Result<Option<String>, Box<Reply>> {
    match query::ids(store, name, criteria) {
        Ok(mut ids) if ids.len() < 2 => Ok(ids.pop()),
        Ok(_) => {
            let text = "several records match";
            Err(Box::new(Reply::outcome(StatusCode::PRECONDITION_FAILED, "multiple-matches", text)))
        }
        Err(refused) => Err(Box::new(Reply::invalid(&refused.0))),
    }
}

fn conditional(store: &mut Store, ask: &Ask<'_>, name: &str, found: Option<String>) -> Reply {
    match (ask.method, found) {
        ("DELETE", None) => Reply::bare(StatusCode::NO_CONTENT),
        ("DELETE", Some(id)) => delete(store, ask, name, &id),
        ("PATCH", None) => Reply::not_found(),
        ("PATCH", Some(id)) => patch_one(store, ask, name, &id),
        (_, found) => conditional_update(store, ask, name, found),
    }
}

/// R4 http, "Conditional update": one match is updated, no match is created, under the resource's own id if it has one.
fn conditional_update(store: &mut Store, ask: &Ask<'_>, name: &str, found: Option<String>) -> Reply {
    let Ok(stamp) = splice::read(ask.text()) else { return bad_resource() };
    if stamp.resource_type != name {
        return bad_resource();
    }
    match (found, stamp.id) {
        (Some(id), Some(own)) if own != id => Reply::invalid("the id is not that of the matching record"),
        (Some(id), _) => store_as(store, ask, name, &id),
        (None, Some(own)) => {
            if store.find(name, &own).is_some_and(|record| record.bytes().is_some()) {
                return Reply::outcome(StatusCode::CONFLICT, "conflict", "the id is in use");
            }
            store_as(store, ask, name, &own)
        }
        (None, None) => {
            let id = ask.id.clone().unwrap_or_else(|| store.fresh_id());
            store_as(store, ask, name, &id)
        }
    }
}

fn create(store: &mut Store, ask: &Ask<'_>, name: &str) -> Reply {
    let text = ask.text();
    if splice::read(text).ok().is_none_or(|stamp| stamp.resource_type != name) {
        return bad_resource();
    }
    if let Some(condition) = ask.if_none_exist {
        let condition = condition.split_once('?').map_or(condition, |(_, query)| query);
        match one(store, name, &web::pairs(condition)) {
            Ok(None) => {}
            Ok(Some(id)) => return written(store, ask, name, &id, StatusCode::OK),
            Err(refused) => return *refused,
        }
    }
    let id = ask.id.clone().unwrap_or_else(|| store.fresh_id());
    match store.put_by("POST", text, &id, ask.now, Stamping::Server) {
        Ok(_) => written(store, ask, name, &id, StatusCode::CREATED),
        Err(_) => bad_resource(),
    }
}

fn update(store: &mut Store, ask: &Ask<'_>, name: &str, id: &str) -> Reply {
    let fits = |stamp: splice::Stamp| stamp.resource_type == name && stamp.id.as_deref() == Some(id);
    if !splice::read(ask.text()).is_ok_and(fits) {
        return bad_resource();
    }
    store_as(store, ask, name, id)
}

fn store_as(store: &mut Store, ask: &Ask<'_>, name: &str, id: &str) -> Reply {
    if let Some(failed) = ask.precondition(store.find(name, id)) {
        return failed;
    }
    match store.put(ask.text(), id, ask.now, Stamping::Server) {
        Ok(stored) => {
            let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
            written(store, ask, name, id, status)
        }
        Err(_) => bad_resource(),
    }
}

fn patch_one(store: &mut Store, ask: &Ask<'_>, name: &str, id: &str) -> Reply {
    let Some(patch) = json_patch(ask) else {
        return Reply::outcome(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-supported",
            "a JSON Patch is expected",
        );
    };
    let record = store.find(name, id);
    let Some(current) = record.and_then(Record::bytes).cloned() else { return Reply::not_found() };
    if let Some(failed) = ask.precondition(record) {
        return failed;
    }
    let text = match patch::apply(&String::from_utf8_lossy(&current), &patch) {
        Ok(text) => text,
        Err(Misapplied::Malformed) => return Reply::invalid("patch not understood"),
        Err(Misapplied::Conflict) => {
            let text = "the patch does not fit the record";
            return Reply::outcome(StatusCode::UNPROCESSABLE_ENTITY, "processing", text);
        }
    };
    let fits = |stamp: splice::Stamp| stamp.resource_type == name && stamp.id.as_deref() == Some(id);
    if !splice::read(&text).is_ok_and(fits) {
        return Reply::outcome(
            StatusCode::UNPROCESSABLE_ENTITY,
            "processing",
            "type and id cannot be patched",
        );
    }
    match store.put(&text, id, ask.now, Stamping::Server) {
        Ok(_) => written(store, ask, name, id, StatusCode::OK),
        Err(_) => bad_resource(),
    }
}

/// The patch of a request, or out of the Binary that carries it in a Bundle (R4 http, "Patch in a Batch").
fn json_patch(ask: &Ask<'_>) -> Option<Vec<u8>> {
    if ask.content_type.starts_with("application/json-patch+json") {
        return Some(ask.body.to_vec());
    }
    let binary: Value = serde_json::from_slice(ask.body).ok()?;
    let is = |name: &str, value: &str| binary.get(name).and_then(Value::as_str) == Some(value);
    if !is("resourceType", "Binary") || !is("contentType", "application/json-patch+json") {
        return None;
    }
    STANDARD.decode(binary.get("data")?.as_str()?).ok()
}

fn delete(store: &mut Store, ask: &Ask<'_>, name: &str, id: &str) -> Reply {
    if let Some(failed) = ask.precondition(store.find(name, id)) {
        return failed;
    }
    // R4 asks for success also when there is nothing to delete.
    store.delete(name, id, ask.now);
    Reply::bare(StatusCode::NO_CONTENT)
}

/// The answer to a write: the stored record as `Prefer` wants it, with its address.
fn written(store: &Store, ask: &Ask<'_>, name: &str, id: &str, status: StatusCode) -> Reply {
    let Some(version) = store.find(name, id).and_then(Record::current) else { return Reply::not_found() };
    let reply = if ask.prefer.contains("return=minimal") {
        Reply::bare(status)
    } else if ask.prefer.contains("return=OperationOutcome") {
        Reply::outcome(status, "informational", "stored")
    } else {
        Reply::fhir(status, version.bytes.clone().unwrap_or_default())
    };
    let mut reply = reply.version(version);
    reply.location = Some(format!("{}/{name}/{id}/_history/{}", ask.base, version.version));
    reply
}

fn bad_resource() -> Reply {
    Reply::outcome(StatusCode::BAD_REQUEST, "structure", "body is not this resource")
}
