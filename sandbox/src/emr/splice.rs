//! A record's bytes: the server's own members are set in place, every other byte stays as it came.
//!
//! Owns: finding `resourceType`, `id` and `meta` at the top of a resource, and rewriting id, versionId, lastUpdated.
//! Must never: re-print JSON; change number text, key order, escapes or white space of anything else.
//! Look next: `store`, which keeps the result.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::LoadError;

/// The members the server needs to see, as they are written.
#[derive(Deserialize)]
struct Top<'a> {
    #[serde(borrow, rename = "resourceType")]
    resource_type: &'a RawValue,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "versionId")]
    version_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "lastUpdated")]
    last_updated: Option<&'a RawValue>,
}

/// What a resource says of itself.
pub(super) struct Stamp {
    pub(super) resource_type: String,
    pub(super) id: Option<String>,
    pub(super) version: Option<String>,
    pub(super) last_updated: Option<String>,
}

/// Reads the stamp of a JSON resource.
///
/// # Errors
/// `NotAResource` when it is no JSON object with a `resourceType`, or a member above is of the wrong kind or double.
pub(super) fn read(text: &str) -> Result<Stamp, LoadError> {
    let (top, meta) = parts(text)?;
    Ok(Stamp {
        resource_type: string(top.resource_type)?,
        id: top.id.map(string).transpose()?,
        version: meta.version_id.map(string).transpose()?,
        last_updated: meta.last_updated.map(string).transpose()?,
    })
}

/// The same bytes with `id`, `meta.versionId` and `meta.lastUpdated` set (replaced where they are, else put in).
///
/// # Errors
/// As `read`.
pub(super) fn set(text: &str, id: &str, version: &str, last_updated: &str) -> Result<String, LoadError> {
    let (top, meta) = parts(text)?;
    let mut edits: Vec<(usize, usize, String)> = Vec::new();
    let mut tail = String::new();
    match top.id {
        Some(raw) => edits.push(replace(text, raw, &format!("\"{id}\""))),
        None => tail.push_str(&format!(",\"id\":\"{id}\"")),
    }
    let version = format!("\"{version}\"");
    let last_updated = format!("\"{last_updated}\"");
    match top.meta {
        Some(raw) => edit_meta(text, raw, &meta, &version, &last_updated, &mut edits),
        None => {
            tail.push_str(&format!(",\"meta\":{{\"versionId\":{version},\"lastUpdated\":{last_updated}}}"))
        }
    }
    if !tail.is_empty() {
        let (_, end) = span(text, top.resource_type);
        edits.push((end, end, tail));
    }
    Ok(apply(text, edits))
}

fn edit_meta(
    text: &str,
    raw: &RawValue,
    meta: &Meta<'_>,
    version: &str,
    last_updated: &str,
    edits: &mut Vec<(usize, usize, String)>,
) {
    let mut missing = Vec::new();
    match meta.version_id {
        Some(raw) => edits.push(replace(text, raw, version)),
        None => missing.push(format!("\"versionId\":{version}")),
    }
    match meta.last_updated {
        Some(raw) => edits.push(replace(text, raw, last_updated)),
        None => missing.push(format!("\"lastUpdated\":{last_updated}")),
    }
    if !missing.is_empty() {
        let (start, _) = span(text, raw);
        let inside = raw.get().trim_start_matches('{').trim_start();
        let comma = if inside.starts_with('}') { "" } else { "," };
        edits.push((start + 1, start + 1, format!("{}{comma}", missing.join(","))));
    }
}

/// Replaces the text of quoted strings that follow one of the `keys`; `resolve` gives the new value.
pub(super) fn references(
    text: &str,
    keys: &[&str],
    mut resolve: impl FnMut(&str) -> Option<String>,
) -> String {
    let mut edits = Vec::new();
    for key in keys.iter().map(|key| format!("\"{key}\"")) {
        for (at, _) in text.match_indices(&key) {
            let Some(rest) = text.get(at + key.len()..) else { continue };
            let Some(value) = rest.trim_start().strip_prefix(':').map(str::trim_start) else { continue };
            let Some(value) = value.strip_prefix('"') else { continue };
            let Some((value, _)) = value.split_once('"') else { continue };
            if let Some(new) = resolve(value) {
                let start = offset(text, value);
                edits.push((start, start + value.len(), new));
            }
        }
    }
    apply(text, edits)
}

fn parts(text: &str) -> Result<(Top<'_>, Meta<'_>), LoadError> {
    let top: Top<'_> = serde_json::from_str(text).map_err(|_| LoadError::NotAResource)?;
    let meta = top.meta.map(|raw| serde_json::from_str(raw.get())).transpose();
    Ok((top, meta.map_err(|_| LoadError::NotAResource)?.unwrap_or_default()))
}

fn string(raw: &RawValue) -> Result<String, LoadError> {
    serde_json::from_str(raw.get()).map_err(|_| LoadError::NotAResource)
}

fn replace(text: &str, raw: &RawValue, new: &str) -> (usize, usize, String) {
    let (start, end) = span(text, raw);
    (start, end, new.to_owned())
}

fn span(text: &str, raw: &RawValue) -> (usize, usize) {
    let start = offset(text, raw.get());
    (start, start + raw.get().len())
}

/// Where `part`, a borrow from inside `text`, begins.
fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

fn apply(text: &str, mut edits: Vec<(usize, usize, String)>) -> String {
    edits.sort_by_key(|(start, _, _)| *start);
    let mut out = String::with_capacity(text.len() + 128);
    let mut at = 0;
    for (start, end, new) in edits {
        out.push_str(text.get(at..start).unwrap_or_default());
        out.push_str(&new);
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
