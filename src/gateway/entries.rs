//! The entries of the Bundles that the gate writes.
//!
//! Owns: what stands around a record in a searchset or a history. Must never: say more of it than the record shows.
//! Look next: `rows`, which puts them in order.

use super::release::Judged;
use crate::domain::fhir::interaction::is_id;
use crate::domain::fhir::r4::ResourceType;
use crate::domain::filter::Entry;
use serde_json::{Value, json};

/// `Type/id` of the record that a history's row says was deleted.
pub(super) fn deleted(entry: &Entry) -> Option<String> {
    let request = entry.request.as_ref().filter(|request| request.method == "DELETE")?;
    let mut steps = request.url.rsplit('/');
    let (id, name) = (steps.next()?, steps.next()?);
    let reference = format!("{name}/{id}");
    split(&reference).is_some().then_some(reference)
}

pub(super) fn split(reference: &str) -> Option<(ResourceType, &str)> {
    let (name, id) = reference.split_once('/')?;
    ResourceType::from_name(name).filter(|_| is_id(id)).map(|resource| (resource, id))
}

pub(super) fn push_item(list: &mut Vec<u8>, item: &[u8]) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(item);
}

pub(super) fn append_entry(list: &mut Vec<u8>, public: &str, reference: &str, record: &[u8], tail: &str) {
    let url = Value::String([public, "/", reference].concat());
    push_item(list, br#"{"fullUrl":"#);
    let _infallible = serde_json::to_writer(&mut *list, &url);
    list.extend_from_slice(br#","resource":"#);
    list.extend_from_slice(record);
    list.extend_from_slice(tail.as_bytes());
    list.push(b'}');
}

/// `request` and `response` of a version, as far as the record itself shows them.
pub(super) fn version_members(judged: &Judged<'_>, index: usize, entry: &Entry) -> String {
    let (version, updated) = judged.shown_version(index);
    let reference = judged.reference(index);
    let created = entry.request.as_ref().is_some_and(|request| request.method == "POST");
    let (method, url) = match reference.split_once('/') {
        Some((name, _)) if created => ("POST", name.to_owned()),
        Some(_) | None => ("PUT", reference),
    };
    let mut response = serde_json::Map::new();
    response.insert("status".to_owned(), json!(if created { "201" } else { "200" }));
    response.extend(version.map(|version| ("etag".to_owned(), json!(format!("W/\"{version}\"")))));
    response.extend(updated.map(|updated| ("lastModified".to_owned(), json!(updated))));
    format!(
        r#","request":{},"response":{}"#,
        json!({ "method": method, "url": url }),
        Value::Object(response)
    )
}
