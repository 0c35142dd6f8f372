//! Bulk export: kick-off, status, files, cancelling (Bulk Data Access IG 1.0.1, over R4's asynchronous pattern).
//!
//! Owns: jobs, which records each holds, manifests, NDJSON files sent record by record.
//! Must never: forget a job before it is cancelled; put a line break inside a record's line.
//! Look next: `rest`, which routes here; `compartments`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::ask::{Ask, Reply};
use super::query::{self, Refused};
use super::store::{Record, Store, instant};
use super::terms::{Term, date_range};
use super::{compartments, is_type_name, operations};
use crate::listen::{Answer, streamed};
use crate::web;

const NDJSON: &str = "application/fhir+ndjson";
/// A status poll before this many answers 202.
const POLLS_BEFORE_DONE: u32 = 1;

/// The exports of one EMR, by number.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    last: u64,
    jobs: BTreeMap<u64, Job>,
}

#[derive(Debug)]
struct Job {
    request: String,
    time: String,
    polled: u32,
    /// By type: one line each.
    files: BTreeMap<String, Vec<Bytes>>,
}

/// Whose records are exported.
enum Level {
    System,
    /// Of these patients, as `Patient/id`.
    Patients(BTreeSet<String>),
}

/// Starts an export; `None` when the address is not that of one.
pub(super) fn start(store: &Store, jobs: &mut Jobs, ask: &Ask<'_>, target: &str) -> Option<Answer> {
    let level = match ask.steps().as_slice() {
        ["$export"] => Some(Level::System),
        ["Patient", "$export"] => Some(Level::Patients(all_patients(store))),
        ["Group", id, "$export"] => members(store, id).map(Level::Patients),
        _ => return None,
    };
    if !matches!(ask.method, "GET") || !ask.prefer.contains("respond-async") {
        return Some(Reply::invalid("an export needs GET and Prefer: respond-async").into_answer());
    }
    let Some(level) = level else { return Some(Reply::not_found().into_answer()) };
    let files = match collect(store, &level, &ask.query, ask.strict()) {
        Ok(files) => files,
        Err(refused) => return Some(Reply::invalid(&refused.0).into_answer()),
    };
    jobs.last += 1;
    let job = Job { request: target.to_owned(), time: instant(ask.now), polled: 0, files };
    jobs.jobs.insert(jobs.last, job);
    let mut answer = Reply::bare(StatusCode::ACCEPTED).into_answer();
    if let Ok(place) = HeaderValue::from_str(&format!("{}/export-jobs/{}", ask.base, jobs.last)) {
        answer.headers_mut().insert(header::CONTENT_LOCATION, place);
    }
    Some(answer)
}

/// Answers status polls, cancellations and downloads; `None` for any other address.
pub(super) fn follow(jobs: &mut Jobs, ask: &Ask<'_>) -> Option<Answer> {
    let steps = ask.steps();
    let (["export-jobs", number] | ["export-files", number, _]) = steps.as_slice() else { return None };
    let number = number.parse().unwrap_or_default();
    let Some(job) = jobs.jobs.get_mut(&number) else { return Some(Reply::not_found().into_answer()) };
    Some(match (ask.method, steps.as_slice()) {
        ("GET", [_, _]) => status(job, ask.base, number),
        ("DELETE", [_, _]) => {
            jobs.jobs.remove(&number);
            Reply::bare(StatusCode::ACCEPTED).into_answer()
        }
        ("GET" | "HEAD", [_, _, name]) => {
            let lines = name.strip_suffix(".ndjson").and_then(|name| job.files.get(name));
            lines.map_or_else(
                || Reply::not_found().into_answer(),
                |lines| streamed(NDJSON, lines.iter().cloned()),
            )
        }
        _ => Reply::outcome(StatusCode::METHOD_NOT_ALLOWED, "not-supported", "method not supported")
            .into_answer(),
    })
}

fn status(job: &mut Job, base: &str, number: u64) -> Answer {
    job.polled += 1;
    if job.polled <= POLLS_BEFORE_DONE {
        let mut answer = Reply::bare(StatusCode::ACCEPTED).into_answer();
        answer.headers_mut().insert("x-progress", HeaderValue::from_static("under way"));
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return answer;
    }
    let output = job.files.iter().map(|(name, lines)| {
        let url = format!("{base}/export-files/{number}/{name}.ndjson");
        json!({"type": name, "url": url, "count": lines.len()})
    });
    let manifest = json!({
        "transactionTime": job.time, "request": job.request, "requiresAccessToken": false,
        "output": output.collect::<Vec<_>>(), "error": []
    });
    let mut answer = Reply::fhir(StatusCode::OK, manifest.to_string()).into_answer();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn all_patients(store: &Store) -> BTreeSet<String> {
    let records = store.ward("Patient").map_or(&[] as &[Record], |ward| &ward.records);
    records.iter().filter(|r| r.bytes().is_some()).map(|r| format!("Patient/{}", r.id)).collect()
}

fn members(store: &Store, id: &str) -> Option<BTreeSet<String>> {
    let (_, group) = query::locate(store, &format!("Group/{id}"))?;
    let members = group.terms.of("member").iter().filter_map(Term::reference);
    Some(members.filter(|reference| reference.starts_with("Patient/")).collect())
}

fn collect(
    store: &Store,
    level: &Level,
    asked: &[(String, String)],
    strict: bool,
) -> Result<BTreeMap<String, Vec<Bytes>>, Refused> {
    let refused = |name: &str| Refused(format!("export parameter {name} not understood"));
    let (mut types, mut since): (Option<Vec<&str>>, Option<i64>) = (None, None);
    // By type: the ids that one of its filters lets in.
    let mut filters: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in asked {
        match name.as_str() {
            "_type" if value.split(',').all(is_type_name) => types = Some(value.split(',').collect()),
            "_since" => since = Some(date_range(value).ok_or_else(|| refused(name))?.0),
            "_typeFilter" => {
                let (kind, query) = value.split_once('?').ok_or_else(|| refused(name))?;
                filters.entry(kind).or_default().extend(query::ids(store, kind, &web::pairs(query))?);
            }
            "_outputFormat" if matches!(value.as_str(), NDJSON | "application/ndjson" | "ndjson") => {}
            "_outputFormat" | "_type" => return Err(refused(name)),
            _ if strict => return Err(refused(name)),
            _ => {}
        }
    }
    let mut files: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
    for (name, ward) in store.types().filter(|(name, _)| types.as_ref().is_none_or(|t| t.contains(name))) {
        let fits = |record: &&Record| {
            belongs(level, name, record)
                && since.is_none_or(|since| operations::updated(record).is_some_and(|at| at >= since))
                && filters.get(name).is_none_or(|ids| ids.contains(&record.id))
        };
        let lines: Vec<Bytes> = ward.records.iter().filter(fits).filter_map(line).collect();
        if !lines.is_empty() {
            files.insert(name.to_owned(), lines);
        }
    }
    Ok(files)
}

fn belongs(level: &Level, name: &str, record: &Record) -> bool {
    match level {
        Level::System => true,
        Level::Patients(patients) => {
            patients.contains(&format!("{name}/{}", record.id))
                || (name != "Patient"
                    && compartments::refers("Patient", name, record, |one| patients.contains(one)))
        }
    }
}

/// A record on one line. A line break in JSON text is only white space between tokens.
fn line(record: &Record) -> Option<Bytes> {
    let mut bytes: Vec<u8> = record.bytes()?.to_vec();
    bytes.iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    bytes.push(b'\n');
    Some(bytes.into())
}
