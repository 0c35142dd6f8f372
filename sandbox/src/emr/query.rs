//! A whole type-level search: criteria, order, page, includes, and the searchset Bundle.
//!
//! Owns: result parameters (`_sort`, `_count`, `_include`, `_total`, `_summary=count`, `_cursor`) and the Bundle's bytes.
//! Must never: re-print a record: stored bytes go into the Bundle as they are.
//! Look next: `criteria`, `rest`.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::criteria::{Criterion, Misfit};
use super::parameters;
use super::store::{Record, Store, Ward};
use super::terms::Term;
use crate::web;

const COUNT_DEFAULT: usize = 20;
const COUNT_MAX: usize = 1000;
/// How often `_include:iterate` goes on from what it found.
const ROUNDS_MAX: usize = 4;

/// Why a search was refused. The text is for the OperationOutcome.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

/// What a `_cursor` holds. It is readable on purpose: real servers put sort values there too.
#[derive(Deserialize, Serialize)]
struct Cursor {
    offset: usize,
    last: String,
    query: String,
}

#[derive(Default)]
struct Shape {
    sort: Vec<(String, bool)>,
    count: Option<usize>,
    includes: Vec<Include>,
    total: bool,
    only_count: bool,
}

struct Include {
    reverse: bool,
    iterate: bool,
    source: String,
    code: String,
    target: Option<String>,
}

/// Runs a search and writes the Bundle. `base` has no slash at its end.
///
/// # Errors
/// `Refused` for a value that makes no sense, a broken cursor, or, when `strict`, an unknown parameter.
pub(super) fn search(
    store: &Store,
    base: &str,
    resource_type: &str,
    asked: &[(String, String)],
    strict: bool,
) -> Result<Vec<u8>, Refused> {
    let (asked, offset) = match web::field(asked, "_cursor") {
        Some(cursor) => reopen(cursor)?,
        None => (asked.to_vec(), 0),
    };
    let (shape, criteria) = read(store, resource_type, &asked, strict)?;
    let mut hits = matches(store, resource_type, &criteria);
    sort(&mut hits, &shape.sort);
    let total = hits.len();
    let count = if shape.only_count { 0 } else { shape.count.unwrap_or(COUNT_DEFAULT).min(COUNT_MAX) };
    let page: Vec<&Record> = hits.iter().skip(offset).take(count).copied().collect();
    let query = web::query(&asked);
    let mut links = vec![("self", format!("{base}/{resource_type}?{query}"))];
    if count > 0 && offset + count < total {
        let last = page.last().map(|record| last_values(record, &shape.sort)).unwrap_or_default();
        links.push(("next", cursor_link(base, resource_type, offset + count, last, &query)));
    }
    if count > 0 && offset > 0 {
        let before = offset.saturating_sub(count);
        links.push(("previous", cursor_link(base, resource_type, before, String::new(), &query)));
    }
    let included = include(store, resource_type, &page, &shape.includes);
    let mut entries: Vec<(&str, &Record, &str)> = page.iter().map(|r| (resource_type, *r, "match")).collect();
    entries.extend(included.iter().map(|(name, record)| (*name, *record, "include")));
    Ok(bundle(base, shape.total.then_some(total), &links, &entries))
}

/// The records a conditional interaction means.
pub(super) fn references(
    store: &Store,
    resource_type: &str,
    asked: &[(String, String)],
) -> Result<Vec<String>, Refused> {
    let (_, criteria) = read(store, resource_type, asked, true)?;
    let hits = matches(store, resource_type, &criteria);
    Ok(hits.iter().map(|record| format!("{resource_type}/{}", record.id)).collect())
}

fn cursor_link(base: &str, resource_type: &str, offset: usize, last: String, query: &str) -> String {
    let cursor = Cursor { offset, last, query: query.to_owned() };
    let text = serde_json::to_vec(&cursor).unwrap_or_default();
    format!("{base}/{resource_type}?_cursor={}", web::base64url(text))
}

fn reopen(cursor: &str) -> Result<(Vec<(String, String)>, usize), Refused> {
    let bytes = web::unbase64url(cursor).ok_or_else(|| Refused("cursor not understood".to_owned()))?;
    let cursor: Cursor =
        serde_json::from_slice(&bytes).map_err(|_| Refused("cursor not understood".to_owned()))?;
    Ok((web::pairs(&cursor.query), cursor.offset))
}

fn read(
    store: &Store,
    resource_type: &str,
    asked: &[(String, String)],
    strict: bool,
) -> Result<(Shape, Vec<Criterion>), Refused> {
    let mut shape = Shape { total: true, ..Shape::default() };
    let mut criteria = Vec::new();
    for (name, value) in asked {
        let understood = match name.split(':').next().unwrap_or_default() {
            "_sort" | "_count" | "_total" | "_summary" | "_include" | "_revinclude" => {
                result_parameter(&mut shape, resource_type, name, value)
            }
            // Accepted and without effect, as on many servers.
            "_format" | "_pretty" | "_elements" => Ok(()),
            _ => Criterion::parse(store, resource_type, name, value).map(|c| criteria.push(c)),
        };
        match understood {
            Ok(()) => {}
            Err(Misfit::Unknown) if !strict => {}
            Err(Misfit::Unknown) => return Err(Refused(format!("unknown search parameter {name}"))),
            Err(Misfit::Invalid) => return Err(Refused(format!("search parameter {name} not understood"))),
        }
    }
    Ok((shape, criteria))
}

fn result_parameter(shape: &mut Shape, resource_type: &str, name: &str, value: &str) -> Result<(), Misfit> {
    match name {
        "_count" => shape.count = Some(value.parse().map_err(|_| Misfit::Invalid)?),
        "_total" => shape.total = value != "none",
        "_summary" => shape.only_count = value == "count",
        "_sort" => {
            for key in value.split(',').filter(|key| !key.is_empty()) {
                let (code, down) = key.strip_prefix('-').map_or((key, false), |code| (code, true));
                parameters::find(resource_type, code).ok_or(Misfit::Unknown)?;
                shape.sort.push((code.to_owned(), down));
            }
        }
        "_include" | "_include:iterate" | "_revinclude" | "_revinclude:iterate" => {
            shape.includes.push(Include::parse(resource_type, name, value)?);
        }
        _ => return Err(Misfit::Invalid),
    }
    Ok(())
}

impl Include {
    fn parse(resource_type: &str, name: &str, value: &str) -> Result<Self, Misfit> {
        let mut parts = value.split(':');
        let mut source = parts.next().unwrap_or_default().to_owned();
        let code = parts.next().unwrap_or("*").to_owned();
        let reverse = name.starts_with("_rev");
        if source == "*" && !reverse {
            source = resource_type.to_owned();
        }
        if code != "*" && parameters::find(&source, &code).is_none() {
            return Err(Misfit::Unknown);
        }
        let target = parts.next().map(str::to_owned);
        Ok(Self { reverse, iterate: name.ends_with(":iterate"), source, code, target })
    }

    fn codes(&self) -> Vec<&'static str> {
        let all = parameters::of(&self.source).filter(|p| p.kind == parameters::Kind::Reference);
        all.map(|p| p.code).filter(|code| self.code == "*" || *code == self.code).collect()
    }
}

fn matches<'s>(store: &'s Store, resource_type: &str, criteria: &[Criterion]) -> Vec<&'s Record> {
    let Some(ward) = store.ward(resource_type) else { return Vec::new() };
    let fits = |record: &&Record| {
        record.bytes().is_some() && criteria.iter().all(|c| c.holds(resource_type, record))
    };
    match criteria.iter().find_map(Criterion::references) {
        Some(references) => narrowed(ward, &references).filter(fits).collect(),
        None => ward.records.iter().filter(fits).collect(),
    }
}

fn narrowed<'s>(ward: &'s Ward, references: &[String]) -> impl Iterator<Item = &'s Record> + use<'s> {
    let at: BTreeSet<usize> =
        references.iter().filter_map(|reference| ward.referring(reference)).flatten().copied().collect();
    at.into_iter().filter_map(|at| ward.records.get(at))
}

fn sort(hits: &mut [&Record], keys: &[(String, bool)]) {
    hits.sort_by(|a, b| {
        let mut orders = keys.iter().map(|(code, down)| {
            let order = compare(a.terms.of(code), b.terms.of(code), *down);
            if *down { order.reverse() } else { order }
        });
        orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
}

/// Ascending goes by the lowest value, descending by the highest; records without a value come last in ascending order.
fn compare(a: &[Term], b: &[Term], down: bool) -> Ordering {
    let pick = |terms: &[Term]| {
        let keys = terms.iter().map(sort_key);
        if down { keys.max_by(key_order) } else { keys.min_by(key_order) }
    };
    match (pick(a), pick(b)) {
        (Some(a), Some(b)) => key_order(&a, &b),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
    }
}

fn sort_key(term: &Term) -> (f64, String) {
    match term {
        Term::Token { code, .. } => (0.0, code.clone()),
        Term::Text(text) => (0.0, text.to_lowercase()),
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of any real date are exact in an f64")]
        Term::Date(from, _) => (*from as f64, String::new()),
        Term::Reference { url, .. } => (0.0, url.clone()),
        Term::Quantity { low, high, .. } => (f64::midpoint(*low, *high), String::new()),
        Term::Uri(text) | Term::Display(text) => (0.0, text.clone()),
        Term::Typed { value, .. } | Term::Logical(_, value) => (0.0, value.clone()),
        Term::Composite(_) => (0.0, String::new()),
    }
}

fn key_order(a: &(f64, String), b: &(f64, String)) -> Ordering {
    a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1))
}

/// The sort values of a page's last record, for the cursor.
fn last_values(record: &Record, keys: &[(String, bool)]) -> String {
    let values: Vec<String> = keys
        .iter()
        .filter_map(|(code, _)| record.terms.of(code).first())
        .map(|term| {
            let (number, text) = sort_key(term);
            if text.is_empty() { number.to_string() } else { text }
        })
        .collect();
    format!("{}|{}", record.id, values.join("|"))
}

fn include<'s>(
    store: &'s Store,
    resource_type: &str,
    page: &[&'s Record],
    includes: &[Include],
) -> Vec<(&'s str, &'s Record)> {
    let mut seen: BTreeSet<String> = page.iter().map(|r| format!("{resource_type}/{}", r.id)).collect();
    let mut out: Vec<(&str, &Record)> = Vec::new();
    let mut from: Vec<(String, &Record)> = page.iter().map(|r| (resource_type.to_owned(), *r)).collect();
    for round in 0..ROUNDS_MAX {
        let mut found = Vec::new();
        for one in includes.iter().filter(|one| round == 0 || one.iterate) {
            let references = from.iter().flat_map(|(name, record)| follow(store, one, name, record));
            found.extend(references.filter(|reference| seen.insert(reference.clone())));
        }
        let new: Vec<_> = found.iter().filter_map(|reference| locate(store, reference)).collect();
        out.extend(&new);
        from = new.into_iter().map(|(name, record)| (name.to_owned(), record)).collect();
        if from.is_empty() {
            break;
        }
    }
    out
}

/// `Type/id` of what one include adds for one record.
fn follow(store: &Store, one: &Include, name: &str, record: &Record) -> Vec<String> {
    let codes = one.codes();
    let target_fits = |reference: &String| {
        one.target.as_deref().is_none_or(|t| reference.split_once('/').is_some_and(|(name, _)| name == t))
    };
    if one.reverse {
        let here = format!("{name}/{}", record.id);
        let Some(ward) = store.ward(&one.source).filter(|_| target_fits(&here)) else { return Vec::new() };
        let refers = |r: &&Record| codes.iter().any(|code| targets(r, code).any(|t| t == here));
        let back = narrowed(ward, std::slice::from_ref(&here)).filter(refers);
        return back.map(|r| format!("{}/{}", one.source, r.id)).collect();
    }
    if one.source != name {
        return Vec::new();
    }
    codes.iter().flat_map(|code| targets(record, code)).filter(target_fits).collect()
}

fn targets<'r>(record: &'r Record, code: &str) -> impl Iterator<Item = String> + use<'r> {
    record.terms.of(code).iter().filter_map(|term| {
        let Term::Reference { resource_type: Some(name), id, .. } = term else { return None };
        Some(format!("{name}/{id}"))
    })
}

fn locate<'s>(store: &'s Store, reference: &str) -> Option<(&'s str, &'s Record)> {
    let (name, id) = reference.split_once('/')?;
    let (name, ward) = store.types().find(|(known, _)| *known == name)?;
    ward.find(id).filter(|record| record.bytes().is_some()).map(|record| (name, record))
}

fn bundle(
    base: &str,
    total: Option<usize>,
    links: &[(&str, String)],
    entries: &[(&str, &Record, &str)],
) -> Vec<u8> {
    let bytes: usize = entries.iter().filter_map(|(_, r, _)| r.bytes()).map(bytes::Bytes::len).sum();
    let mut out = Vec::with_capacity(bytes + 160 * entries.len() + 512);
    out.extend_from_slice(b"{\"resourceType\":\"Bundle\",\"type\":\"searchset\"");
    if let Some(total) = total {
        out.extend_from_slice(format!(",\"total\":{total}").as_bytes());
    }
    let links: Vec<_> = links
        .iter()
        .map(|(relation, url)| serde_json::json!({"relation": relation, "url": url}).to_string())
        .collect();
    out.extend_from_slice(format!(",\"link\":[{}]", links.join(",")).as_bytes());
    let mut before = ",\"entry\":[";
    for (name, record, mode) in entries {
        let Some(bytes) = record.bytes() else { continue };
        let head = format!("{before}{{\"fullUrl\":\"{base}/{name}/{}\",\"resource\":", record.id);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(format!(",\"search\":{{\"mode\":\"{mode}\"}}}}").as_bytes());
        before = ",";
    }
    out.extend_from_slice(if before == "," { b"]}" } else { b"}" });
    out
}
