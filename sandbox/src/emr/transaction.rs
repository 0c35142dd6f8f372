//! Loading transaction Bundles: entries with temporary addresses become records that keep the ids one knows them by.
//!
//! Owns: assigning ids to `urn:uuid:` addresses, resolving references and conditional references.
//! Must never: store part of a Bundle whose shape is wrong (too deep nesting is found only while storing).
//! Look next: `splice::references`, `store`; `bundle` for the Bundles that come over HTTP.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::store::{Stamping, Store, Stored};
use super::{LoadError, query, splice};
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
struct Request {
    method: String,
    url: String,
    #[serde(rename = "ifNoneExist")]
    if_none_exist: Option<String>,
}

struct Planned<'a> {
    text: &'a str,
    id: String,
    /// Already there (`ifNoneExist` matched): nothing is stored.
    existing: Option<String>,
}

/// Applies a transaction and gives what each entry became.
///
/// # Errors
/// `NotABundle` when the shape is wrong; `UnsupportedEntry` for an entry that is not a POST or PUT of a resource;
/// `NotAResource` for a resource that is none. Nothing is stored then.
pub(super) fn apply(store: &mut Store, bytes: &[u8], now: jiff::Timestamp) -> Result<Vec<Stored>, LoadError> {
    let bundle: Bundle<'_> = serde_json::from_slice(bytes).map_err(|_| LoadError::NotABundle)?;
    if bundle.resource_type != "Bundle" || !matches!(bundle.kind.as_str(), "transaction" | "batch") {
        return Err(LoadError::NotABundle);
    }
    let mut addresses = HashMap::new();
    let mut planned = Vec::with_capacity(bundle.entry.len());
    for entry in &bundle.entry {
        planned.push(plan(store, entry, &mut addresses)?);
    }
    let texts: Vec<String> = planned.iter().map(|one| resolve(store, &addresses, one.text)).collect();
    store.aliases.extend(addresses);
    let mut out = Vec::with_capacity(planned.len());
    for (one, text) in planned.iter().zip(&texts) {
        out.push(match &one.existing {
            Some(reference) => {
                Stored { reference: reference.clone(), version: String::new(), created: false }
            }
            None => store.put(text, &one.id, now, Stamping::Keep)?,
        });
    }
    Ok(out)
}

fn plan<'a>(
    store: &mut Store,
    entry: &Entry<'a>,
    addresses: &mut HashMap<String, String>,
) -> Result<Planned<'a>, LoadError> {
    let (Some(resource), Some(request)) = (entry.resource, &entry.request) else {
        return Err(LoadError::UnsupportedEntry);
    };
    let stamp = splice::read(resource.get())?;
    let uuid = entry.full_url.as_deref().and_then(|url| url.strip_prefix("urn:uuid:"));
    let existing = existing(store, &stamp.resource_type, request)?;
    let id = match (&existing, request.method.as_str()) {
        (Some(reference), _) => reference.rsplit('/').next().unwrap_or_default().to_owned(),
        (None, "PUT") => put_id(&stamp.resource_type, &request.url)?,
        (None, "POST") => stamp.id.or_else(|| uuid.map(str::to_owned)).unwrap_or_else(|| store.fresh_id()),
        (None, _) => return Err(LoadError::UnsupportedEntry),
    };
    if !super::is_type_name(&stamp.resource_type) || !super::is_id(&id) {
        return Err(LoadError::NotAResource);
    }
    if let Some(url) = &entry.full_url {
        addresses.insert(url.clone(), format!("{}/{id}", stamp.resource_type));
    }
    Ok(Planned { text: resource.get(), id, existing })
}

fn existing(store: &Store, resource_type: &str, request: &Request) -> Result<Option<String>, LoadError> {
    let Some(condition) = &request.if_none_exist else { return Ok(None) };
    let hits = query::ids(store, resource_type, &web::pairs(condition));
    let first = hits.map(|hits| hits.into_iter().next()).map_err(|_| LoadError::UnsupportedEntry)?;
    Ok(first.map(|id| format!("{resource_type}/{id}")))
}

fn put_id(resource_type: &str, url: &str) -> Result<String, LoadError> {
    let (name, id) = url.split_once('/').ok_or(LoadError::UnsupportedEntry)?;
    if name == resource_type { Ok(id.to_owned()) } else { Err(LoadError::UnsupportedEntry) }
}

fn resolve(store: &Store, addresses: &HashMap<String, String>, text: &str) -> String {
    splice::references(text, &["reference"], |reference| {
        if let Some(known) = addresses.get(reference).or_else(|| store.aliases.get(reference)) {
            return Some(known.clone());
        }
        let (name, condition) = reference.split_once('?')?;
        // A condition that does not mean exactly one record is left as it is.
        match query::ids(store, name, &web::pairs(condition)).ok()?.as_slice() {
            [id] => Some(format!("{name}/{id}")),
            _ => None,
        }
    })
}
