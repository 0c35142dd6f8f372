//! What people write: a body from a template, and whether what the EMR holds afterwards is what was sent.
//!
//! Owns: a step's write, the list of writes that were answered well, and the two checks of them: the EMR holds what was sent and
//! still what the writer may not see; the trail has a record of each that says what was written.
//! Must never: send a write twice, or take an answer for a write that the EMR does not hold.
//! Look next: `scenario`, where templates stand; `open_loop`, which sends them; `run`, which asks for the checks.

use crate::canary::withheld_from;
use crate::program::Due;
use crate::scenario::Role;
use crate::site::GateProgram;
use chartgate_sandbox::emr::Emr;
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

/// Writes of one run that are kept to be compared, about 1 KB each.
pub(crate) const WRITES_MAX: usize = 50_000;
/// Misses that are told one by one.
const TOLD_MAX: usize = 5;

/// How something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// A new record, whose id the EMR gives.
    Post,
    /// A whole record.
    Put,
    /// Changes: RFC 6902.
    Patch,
}

/// The keys of a step that writes.
pub(crate) const HOWS: [(&str, How); 3] = [("post", How::Post), ("put", How::Put), ("patch", How::Patch)];

impl How {
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Post | Self::Put => "application/fhir+json",
            Self::Patch => "application/json-patch+json",
        }
    }
}

/// What a step writes.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) how: How,
    /// With `{patient}`, `{other}` and `{number}`.
    pub(crate) body: String,
}

/// The words of a template for one visit. `{number}` is the visit's: each has another.
pub(crate) fn filled(template: &str, due: Due) -> String {
    let words = [
        ("{patient}", format!("c{}", due.patient)),
        ("{other}", format!("c{}", due.other)),
        ("{number}", due.serial.to_string()),
    ];
    words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(word, value))
}

/// A write that was answered well.
#[derive(Clone, Debug)]
pub(crate) struct Wrote {
    pub(crate) request_id: u128,
    pub(crate) role: Role,
    pub(crate) how: How,
    /// The record: `Type/id`.
    pub(crate) record: String,
    pub(crate) body: String,
}

/// `Type/id` of an address: of a created record's `Location`, or of the path that was asked.
pub(crate) fn record_of(address: &str) -> Option<String> {
    let path = address.split(['?', '#']).next()?;
    let (_, path) = path.split_once("/fhir/")?;
    let mut parts = path.split('/');
    let (kind, id) = (parts.next()?, parts.next()?);
    (!kind.is_empty() && !id.is_empty()).then(|| format!("{kind}/{id}"))
}

/// Compares what the EMR holds with what was sent. `before`: what it held before the first write.
pub(crate) fn read_back(emr: &Emr, before: &Emr, wrote: &[Wrote]) -> Vec<String> {
    let mut by_record: BTreeMap<&str, Vec<&Wrote>> = BTreeMap::new();
    for one in wrote {
        by_record.entry(&one.record).or_default().push(one);
    }
    let mut misses = Vec::new();
    for (record, writes) in by_record {
        if let Err(what) = held(emr, before, record, &writes) {
            misses.push(what);
        }
    }
    let more = misses.len().saturating_sub(TOLD_MAX);
    misses.truncate(TOLD_MAX);
    if more > 0 {
        misses.push(format!("{more} more writes that the EMR does not hold"));
    }
    misses
}

/// Of several writes to one record at the same time any may have been the last.
fn held(emr: &Emr, before: &Emr, record: &str, writes: &[&Wrote]) -> Result<(), String> {
    let (kind, id) = record.split_once('/').unwrap_or_default();
    let stored =
        emr.read(kind, id).ok_or_else(|| format!("{kind}: a write was answered and is not there"))?;
    let value: Value = serde_json::from_slice(&stored).map_err(|error| error.to_string())?;
    if !writes.iter().any(|one| holds(&value, one)) {
        return Err(format!("{kind}: the EMR does not hold what was written"));
    }
    let old = before.read(kind, id).unwrap_or_default();
    let has = |bytes: &[u8], canary: &str| memchr::memmem::find(bytes, canary.as_bytes()).is_some();
    let lost = writes
        .iter()
        .flat_map(|one| withheld_from(one.role))
        .find(|canary| has(&old, canary) && !has(&stored, canary));
    lost.map_or(Ok(()), |canary| {
        Err(format!("{kind}: a write took `{canary}` away, which its writer cannot see"))
    })
}

fn holds(stored: &Value, one: &Wrote) -> bool {
    let Ok(sent) = serde_json::from_str::<Value>(&one.body) else { return false };
    match (one.how, &sent) {
        (How::Patch, Value::Array(changes)) => changes.iter().all(|change| {
            let value = change.get("value");
            let at = change.get("path").and_then(Value::as_str).and_then(|path| stored.pointer(path));
            value.is_none_or(|value| at == Some(value))
        }),
        (_, Value::Object(members)) => members.iter().all(|(name, value)| stored.get(name) == Some(value)),
        _ => false,
    }
}

/// One line of `audit search --json`, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    request_id: Option<String>,
    #[serde(default)]
    written: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    /// `Type/id`, or of a new record `Type`.
    reference: String,
}

/// How many of these writes have no record that says what type was written.
///
/// # Errors
/// When the trail could not be read at all.
pub(crate) fn unrecorded(gate: &GateProgram, config: &Path, wrote: &[Wrote]) -> Result<usize, String> {
    if wrote.is_empty() {
        return Ok(0);
    }
    let mut search = gate.command();
    search.args(["audit", "search", "--json", "--config"]).arg(config).stdout(Stdio::piped());
    let mut child = search.spawn().map_err(|error| error.to_string())?;
    let lines = BufReader::new(child.stdout.take().ok_or("the search gives no output")?).lines();
    let mut waiting: HashMap<u128, &str> =
        wrote.iter().map(|one| (one.request_id, kind_of(&one.record))).collect();
    for line in lines {
        let line = line.map_err(|error| error.to_string())?;
        let line: Line = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let id = line.request_id.and_then(|id| u128::from_str_radix(&id, 16).ok());
        let Some((id, kind)) = id.and_then(|id| waiting.get_key_value(&id)).map(|(id, kind)| (*id, *kind))
        else {
            continue;
        };
        if line.written.iter().any(|item| kind_of(&item.reference) == kind) {
            waiting.remove(&id);
        }
    }
    if child.wait().is_ok_and(|status| status.success()) {
        Ok(waiting.len())
    } else {
        Err("`audit search` failed".to_owned())
    }
}

fn kind_of(reference: &str) -> &str {
    reference.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrote(how: How, role: Role, record: &str, body: &Value) -> Wrote {
        Wrote { request_id: 1, role, how, record: record.to_owned(), body: body.to_string() }
    }

    fn emr(records: &[Value]) -> Emr {
        let emr = Emr::new();
        for record in records {
            emr.put(record.to_string().as_bytes()).unwrap();
        }
        emr
    }

    #[test]
    fn what_the_emr_holds_is_compared_with_what_was_sent() {
        let old = json!({"resourceType": "Patient", "id": "c1", "gender": "male",
            "extension": [{"url": "x", "valueString": "Zkmaiden1"}]});
        let new = json!({"resourceType": "Patient", "id": "c1", "gender": "female",
            "extension": [{"url": "x", "valueString": "Zkmaiden1"}]});
        let sent = json!({"resourceType": "Patient", "id": "c1", "gender": "female"});
        let patch = json!([{"op": "replace", "path": "/gender", "value": "female"}]);
        let put = |body: &Value| wrote(How::Put, Role::FrontDesk, "Patient/c1", body);
        let change = wrote(How::Patch, Role::FrontDesk, "Patient/c1", &patch);
        let cases = [
            (&new, vec![put(&sent)], ""),
            (&new, vec![change.clone()], ""),
            // One of two at the same time came last.
            (&new, vec![put(&sent), put(&old)], ""),
            (&old, vec![put(&sent)], "does not hold what was written"),
            (&old, vec![change], "does not hold what was written"),
            (&sent, vec![put(&sent)], "took `Zkmaiden` away"),
            (&new, vec![wrote(How::Post, Role::Nurse, "Observation/o1", &sent)], "is not there"),
        ];
        for (held, writes, expected) in cases {
            let misses =
                read_back(&emr(std::slice::from_ref(held)), &emr(std::slice::from_ref(&old)), &writes)
                    .join("\n");
            assert_eq!(misses.is_empty(), expected.is_empty(), "{misses}");
            assert!(misses.contains(expected), "{misses}");
        }
    }

    #[test]
    fn a_record_is_known_by_its_address() {
        let cases = [
            ("https://localhost:1/fhir/Observation/77/_history/1", Some("Observation/77")),
            ("/fhir/Patient/c1", Some("Patient/c1")),
            ("/fhir/Patient/c1?x=1", Some("Patient/c1")),
            ("/fhir/Patient", None),
            ("/other/Patient/c1", None),
        ];
        for (address, record) in cases {
            assert_eq!(record_of(address).as_deref(), record, "{address}");
        }
    }
}
