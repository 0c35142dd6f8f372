//! The interactions that change nothing: read, vread, history, every search, the operations that ask.
//!
//! Owns: which path is which interaction, and the answers to read and vread.
//! Must never: write.
//! Look next: `query`, `history`, `operations`; `writing` for the others.

use http::StatusCode;

use super::ask::{Ask, Reply};
use super::query::{self, Refused, Scope};
use super::store::{Record, Store, Version};
use super::{capabilities, compartments, history, is_id, is_type_name, operations};

/// The answer, when this only looks; `None` for what `writing::change` must do.
pub(super) fn look(store: &Store, ask: &Ask<'_>) -> Option<Reply> {
    let steps = ask.steps();
    if let Some(name) = steps.last().and_then(|last| last.strip_prefix('$')) {
        return Some(operations::answer(store, ask, name));
    }
    if !matches!(ask.method, "GET" | "HEAD") {
        return None;
    }
    let answered = match steps.as_slice() {
        ["metadata"] => Ok(capabilities::answer(ask.base)),
        [] => search(store, ask, &Scope::everywhere()),
        ["_history"] => history::answer(store, ask, None, None),
        [name, ..] if !is_type_name(name) => Ok(Reply::not_found()),
        [name] => search(store, ask, &Scope::of_type(name)),
        [name, "_history"] => history::answer(store, ask, Some(name), None),
        [name, id] if is_id(id) => Ok(read(store, ask, name, id)),
        [name, id, "_history"] => history::answer(store, ask, Some(name), Some(id)),
        [name, id, "_history", version] => Ok(vread(store, ask, name, id, version)),
        [owner, id, name] if compartments::is_owner(owner) && (*name == "*" || is_type_name(name)) => {
            search(store, ask, &Scope::compartment(owner, id, name))
        }
        _ => Ok(Reply::not_found()),
    };
    Some(answered.unwrap_or_else(|refused| Reply::invalid(&refused.0)))
}

fn search(store: &Store, ask: &Ask<'_>, scope: &Scope) -> Result<Reply, Refused> {
    let bundle = query::search(store, ask.base, scope, &ask.query, ask.strict())?;
    Ok(Reply::fhir(StatusCode::OK, bundle))
}

fn read(store: &Store, ask: &Ask<'_>, name: &str, id: &str) -> Reply {
    match store.find(name, id).and_then(Record::current) {
        None => Reply::not_found(),
        Some(version) => deliver(ask, version),
    }
}

fn vread(store: &Store, ask: &Ask<'_>, name: &str, id: &str, wanted: &str) -> Reply {
    let versions = store.find(name, id).map_or(&[] as &[Version], |record| &record.versions);
    match versions.iter().find(|version| version.version == wanted) {
        None => Reply::not_found(),
        Some(version) => deliver(ask, version),
    }
}

fn deliver(ask: &Ask<'_>, version: &Version) -> Reply {
    let Some(bytes) = &version.bytes else {
        return Reply::outcome(StatusCode::GONE, "deleted", "record was deleted");
    };
    let reply = if ask.has_already(version) {
        Reply::bare(StatusCode::NOT_MODIFIED)
    } else {
        Reply::fhir(StatusCode::OK, bytes.clone())
    };
    reply.version(version)
}
