//! What was: instance, type and system history, newest first.
//!
//! Owns: `_since`, `_at`, `_count`, paging, and the history Bundle's entries.
//! Must never: re-print a record.
//! Look next: `query`, whose cursors are used here too.

use std::cmp::Reverse;

use super::ask::{Ask, Reply};
use super::query::{self, Refused};
use super::store::{Store, Version};
use super::terms::date_range;

struct Past<'s> {
    name: &'s str,
    id: &'s str,
    version: &'s Version,
    first: bool,
    /// Milliseconds: from when, and until when it was the current one.
    from: i64,
    until: i64,
}

/// The history Bundle of one record, one type, or everything. `name` and `id` narrow it.
///
/// # Errors
/// `Refused` for a parameter that makes no sense.
pub(super) fn answer(
    store: &Store,
    ask: &Ask<'_>,
    name: Option<&str>,
    id: Option<&str>,
) -> Result<Reply, Refused> {
    let (asked, offset) = query::reopened(&ask.query)?;
    let mut past = gather(store, name, id);
    if id.is_some() && past.is_empty() {
        return Ok(Reply::not_found());
    }
    let mut count = None;
    for (key, value) in &asked {
        match key.as_str() {
            "_count" => count = Some(value.parse().map_err(|_| refused(key))?),
            "_since" => {
                let (since, _) = date_range(value).ok_or_else(|| refused(key))?;
                past.retain(|one| one.from >= since);
            }
            "_at" => {
                let (from, to) = date_range(value).ok_or_else(|| refused(key))?;
                past.retain(|one| one.from < to && one.until > from);
            }
            "_format" | "_pretty" => {}
            _ if ask.strict() => return Err(refused(key)),
            _ => {}
        }
    }
    past.sort_by_key(|one| (Reverse(if id.is_some() { 0 } else { one.from }), Reverse(one.version.sequence)));
    let (links, range) = query::paged(ask.base, &ask.steps.join("/"), &asked, offset, count, past.len());
    let entries: Vec<String> =
        past.iter().skip(range.start).take(range.len()).map(|one| entry(ask.base, one)).collect();
    let body = format!(
        "{{\"resourceType\":\"Bundle\",\"type\":\"history\",\"total\":{},\"link\":[{}],\"entry\":[{}]}}",
        past.len(),
        query::links(&links),
        entries.join(",")
    );
    Ok(Reply::fhir(http::StatusCode::OK, body))
}

fn refused(name: &str) -> Refused {
    Refused(format!("history parameter {name} not understood"))
}

fn gather<'s>(store: &'s Store, name: Option<&str>, id: Option<&str>) -> Vec<Past<'s>> {
    let mut out = Vec::new();
    for (kind, ward) in store.types().filter(|(kind, _)| name.is_none_or(|name| name == *kind)) {
        for record in ward.records.iter().filter(|record| id.is_none_or(|id| id == record.id)) {
            let starts: Vec<i64> = record.versions.iter().map(|v| moment(&v.last_updated)).collect();
            for (at, version) in record.versions.iter().enumerate() {
                let from = starts.get(at).copied().unwrap_or_default();
                let until = starts.get(at + 1).copied().unwrap_or(i64::MAX);
                out.push(Past { name: kind, id: &record.id, version, first: at == 0, from, until });
            }
        }
    }
    out
}

fn moment(instant: &str) -> i64 {
    date_range(instant).map_or(i64::MIN, |(from, _)| from)
}

fn entry(base: &str, past: &Past<'_>) -> String {
    let Past { name, id, version, .. } = past;
    let (url, status) = match (version.method, past.first) {
        ("POST", _) => ((*name).to_owned(), "201"),
        ("DELETE", _) => (format!("{name}/{id}"), "204"),
        (_, true) => (format!("{name}/{id}"), "201"),
        (_, false) => (format!("{name}/{id}"), "200"),
    };
    let resource = version.bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes));
    let resource = resource.map_or_else(String::new, |text| format!("\"resource\":{text},"));
    format!(
        "{{\"fullUrl\":\"{base}/{name}/{id}\",{resource}\"request\":{{\"method\":\"{}\",\"url\":\"{url}\"}},\
         \"response\":{{\"status\":\"{status}\",\"etag\":\"W/\\\"{}\\\"\",\"lastModified\":\"{}\"}}}}",
        version.method, version.version, version.last_updated
    )
}
