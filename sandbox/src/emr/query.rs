//! A whole type-level search: criteria, order, page, includes, and the searchset Bundle.
//!
//! Owns: result parameters (`_sort`, `_count`, `_include`, `_total`, `_summary=count`, `_cursor`) and the Bundle's bytes.
//! Must never: re-print a record: stored bytes go into the Bundle as they are.
//! Look next: `criteria`, `rest`.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::criteria::{Criterion, Misfit};
use super::store::{Record, Store, Ward};
use super::terms::Term;
use super::{compartments, is_type_name, parameters};
use crate::web;

pub(super) const COUNT_DEFAULT: usize = 20;
pub(super) const COUNT_MAX: usize = 1000;
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

/// Where a search looks.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// Below the base: `Observation`, `Patient/p1/Observation`, `Patient/p1/*`, or nothing.
    path: String,
    /// Empty for all types that have records.
    types: Vec<String>,
    /// The compartment's type and id.
    owner: Option<(String, String)>,
}

impl Scope {
    pub(super) fn of_type(name: &str) -> Self {
        Self { path: name.to_owned(), types: vec![name.to_owned()], owner: None }
    }

    pub(super) fn everywhere() -> Self {
        Self { path: String::new(), types: Vec::new(), owner: None }
    }

    /// `name` is a type or `*`.
    pub(super) fn compartment(owner: &str, id: &str, name: &str) -> Self {
        let types = match name {
            "*" => compartments::types(owner).into_iter().map(str::to_owned).collect(),
            name => vec![name.to_owned()],
        };
        let path = format!("{owner}/{id}/{name}");
        Self { path, types, owner: Some((owner.to_owned(), id.to_owned())) }
    }
}

/// The criteria of a search, type by type.
struct Wanted {
    shape: Shape,
    criteria: Vec<(String, Vec<Criterion>)>,
}

/// A record and the name of its type.
pub(super) type Hit<'s> = (&'s str, &'s Record);

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
    scope: &Scope,
    asked: &[(String, String)],
    strict: bool,
) -> Result<Vec<u8>, Refused> {
    let (asked, offset) = reopened(asked)?;
    let Wanted { shape, criteria } = read(store, scope, &asked, strict)?;
    let mut hits = Vec::new();
    for (name, criteria) in &criteria {
        hits.extend(matches(store, name, scope.owner.as_ref(), criteria));
    }
    sort(&mut hits, &shape.sort);
    let total = hits.len();
    let count = if shape.only_count { 0 } else { shape.count.unwrap_or(COUNT_DEFAULT).min(COUNT_MAX) };
    let page: Vec<Hit<'_>> = hits.iter().skip(offset).take(count).copied().collect();
    let last = page.last().map(|(_, record)| last_values(record, &shape.sort)).unwrap_or_default();
    let links = turns(base, &scope.path, &asked, offset, count, total, &last);
    let included = include(store, &page, &shape.includes);
    let mut entries: Vec<(Hit<'_>, &str)> = page.iter().map(|hit| (*hit, "match")).collect();
    entries.extend(included.into_iter().map(|hit| (hit, "include")));
    Ok(bundle(base, shape.total.then_some(total), &links, &entries))
}

/// The ids that a condition means.
///
/// # Errors
/// As `search`, strictly.
pub(super) fn ids(store: &Store, name: &str, asked: &[(String, String)]) -> Result<Vec<String>, Refused> {
    let wanted = read(store, &Scope::of_type(name), asked, true)?;
    let criteria = wanted.criteria.first().map_or(&[] as &[Criterion], |(_, criteria)| criteria);
    Ok(matches(store, name, None, criteria).map(|(_, record)| record.id.clone()).collect())
}

/// The records of a type that fit, in the order they came.
///
/// # Errors
/// As `search`, strictly.
pub(super) fn hits<'s>(
    store: &'s Store,
    name: &str,
    asked: &[(String, String)],
) -> Result<Vec<Hit<'s>>, Refused> {
    let wanted = read(store, &Scope::of_type(name), asked, true)?;
    let criteria = wanted.criteria.first().map_or(&[] as &[Criterion], |(_, criteria)| criteria);
    Ok(matches(store, name, None, criteria).collect())
}

/// The links of a page of `count` from `offset`.
fn turns(
    base: &str,
    path: &str,
    asked: &[(String, String)],
    offset: usize,
    count: usize,
    total: usize,
    last: &str,
) -> Vec<(&'static str, String)> {
    let query = web::query(asked);
    let address = if path.is_empty() { base.to_owned() } else { format!("{base}/{path}") };
    let cursor = |offset: usize, last: &str| {
        let cursor = Cursor { offset, last: last.to_owned(), query: query.clone() };
        let text = serde_json::to_vec(&cursor).unwrap_or_default();
        format!("{address}?_cursor={}", web::base64url(text))
    };
    let mut links = vec![("self", format!("{address}?{query}"))];
    if count > 0 && offset + count < total {
        links.push(("next", cursor(offset + count, last)));
    }
    if count > 0 && offset > 0 {
        links.push(("previous", cursor(offset.saturating_sub(count), "")));
    }
    links
}

/// Links and rows of a page; without `count` everything is on one page.
pub(super) fn paged(
    base: &str,
    path: &str,
    asked: &[(String, String)],
    offset: usize,
    count: Option<usize>,
    total: usize,
) -> (Vec<(&'static str, String)>, Range<usize>) {
    let count = count.map_or(total, |count| count.min(COUNT_MAX));
    let start = offset.min(total);
    let links = turns(base, path, asked, offset, count, total, "");
    (links, start..(start + count).min(total))
}

/// What was asked at first, when this asks for a further page of it, and from which row.
///
/// # Errors
/// `Refused` for a cursor that is none of ours.
pub(super) fn reopened(asked: &[(String, String)]) -> Result<(Vec<(String, String)>, usize), Refused> {
    let Some(cursor) = web::field(asked, "_cursor") else { return Ok((asked.to_vec(), 0)) };
    let broken = || Refused("cursor not understood".to_owned());
    let bytes = web::unbase64url(cursor).ok_or_else(broken)?;
    let cursor: Cursor = serde_json::from_slice(&bytes).map_err(|_| broken())?;
    Ok((web::pairs(&cursor.query), cursor.offset))
}

fn read(store: &Store, scope: &Scope, asked: &[(String, String)], strict: bool) -> Result<Wanted, Refused> {
    let types = types(store, scope, asked)?;
    let mut shape = Shape { total: true, ..Shape::default() };
    let mut criteria: Vec<(String, Vec<Criterion>)> = types.iter().map(|t| (t.clone(), Vec::new())).collect();
    for (name, value) in asked {
        let understood = match name.split(':').next().unwrap_or_default() {
            "_sort" | "_count" | "_total" | "_summary" | "_include" | "_revinclude" => {
                result_parameter(&mut shape, &types, name, value)
            }
            // `_type` is read above; the others are accepted and without effect, as on many servers.
            "_type" | "_format" | "_pretty" | "_elements" => Ok(()),
            _ => criterion(store, &mut criteria, name, value),
        };
        match understood {
            Ok(()) => {}
            Err(Misfit::Unknown) if !strict => {}
            Err(Misfit::Unknown) => return Err(Refused(format!("unknown search parameter {name}"))),
            Err(Misfit::Invalid) => return Err(Refused(format!("search parameter {name} not understood"))),
        }
    }
    Ok(Wanted { shape, criteria })
}

/// A parameter of a search over several types must be one of each of them.
fn criterion(
    store: &Store,
    criteria: &mut [(String, Vec<Criterion>)],
    name: &str,
    value: &str,
) -> Result<(), Misfit> {
    let read =
        |(resource_type, _): &(String, Vec<Criterion>)| Criterion::parse(store, resource_type, name, value);
    let all = criteria.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    for ((_, own), one) in criteria.iter_mut().zip(all) {
        own.push(one);
    }
    Ok(())
}

fn types(store: &Store, scope: &Scope, asked: &[(String, String)]) -> Result<Vec<String>, Refused> {
    if scope.types.len() == 1 {
        return Ok(scope.types.clone());
    }
    let fits = |name: &str| scope.types.is_empty() || scope.types.iter().any(|one| one == name);
    match web::field(asked, "_type") {
        None => {
            Ok(store.types().map(|(name, _)| name).filter(|name| fits(name)).map(str::to_owned).collect())
        }
        Some(names) if names.split(',').all(is_type_name) => {
            Ok(names.split(',').filter(|name| fits(name)).map(str::to_owned).collect())
        }
        Some(_) => Err(Refused("search parameter _type not understood".to_owned())),
    }
}

fn result_parameter(shape: &mut Shape, types: &[String], name: &str, value: &str) -> Result<(), Misfit> {
    match name {
        "_count" => shape.count = Some(value.parse().map_err(|_| Misfit::Invalid)?),
        "_total" => shape.total = value != "none",
        "_summary" => shape.only_count = value == "count",
        "_sort" => {
            for key in value.split(',').filter(|key| !key.is_empty()) {
                let (code, down) = key.strip_prefix('-').map_or((key, false), |code| (code, true));
                if !types.iter().all(|name| parameters::find(name, code).is_some()) {
                    return Err(Misfit::Unknown);
                }
                shape.sort.push((code.to_owned(), down));
            }
        }
        "_include" | "_include:iterate" | "_revinclude" | "_revinclude:iterate" => {
            shape.includes.push(Include::parse(types, name, value)?);
        }
        _ => return Err(Misfit::Invalid),
    }
    Ok(())
}

impl Include {
    fn parse(types: &[String], name: &str, value: &str) -> Result<Self, Misfit> {
        let mut parts = value.split(':');
        let mut source = parts.next().unwrap_or_default().to_owned();
        let code = parts.next().unwrap_or("*").to_owned();
        let reverse = name.starts_with("_rev");
        if source == "*" && !reverse {
            source = types.first().cloned().unwrap_or_default();
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

fn matches<'s>(
    store: &'s Store,
    resource_type: &str,
    owner: Option<&(String, String)>,
    criteria: &[Criterion],
) -> impl Iterator<Item = Hit<'s>> {
    let found = store.types().find(|(name, _)| *name == resource_type);
    let fits = move |name: &str, record: &Record| {
        record.bytes().is_some()
            && owner.is_none_or(|(owner, id)| compartments::holds(owner, id, name, record))
            && criteria.iter().all(|c| c.holds(name, record))
    };
    let records = found.map(|(name, ward)| {
        let hits: Vec<Hit<'s>> = match criteria.iter().find_map(Criterion::references) {
            Some(references) => {
                narrowed(ward, &references).filter(|r| fits(name, r)).map(|r| (name, r)).collect()
            }
            None => ward.records.iter().filter(|r| fits(name, r)).map(|r| (name, r)).collect(),
        };
        hits
    });
    records.into_iter().flatten()
}

fn narrowed<'s>(ward: &'s Ward, references: &[String]) -> impl Iterator<Item = &'s Record> + use<'s> {
    let at: BTreeSet<usize> =
        references.iter().filter_map(|reference| ward.referring(reference)).flatten().copied().collect();
    at.into_iter().filter_map(|at| ward.records.get(at))
}

fn sort(hits: &mut [Hit<'_>], keys: &[(String, bool)]) {
    hits.sort_by(|(_, a), (_, b)| {
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

fn include<'s>(store: &'s Store, page: &[Hit<'s>], includes: &[Include]) -> Vec<Hit<'s>> {
    let mut seen: BTreeSet<String> = page.iter().map(|(name, r)| format!("{name}/{}", r.id)).collect();
    let mut out: Vec<Hit<'s>> = Vec::new();
    let mut from: Vec<Hit<'s>> = page.to_vec();
    for round in 0..ROUNDS_MAX {
        let mut found = Vec::new();
        for one in includes.iter().filter(|one| round == 0 || one.iterate) {
            let references = from.iter().flat_map(|(name, record)| follow(store, one, name, record));
            found.extend(references.filter(|reference| seen.insert(reference.clone())));
        }
        let new: Vec<_> = found.iter().filter_map(|reference| locate(store, reference)).collect();
        out.extend(&new);
        from = new;
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

/// The live record `Type/id`.
pub(super) fn locate<'s>(store: &'s Store, reference: &str) -> Option<Hit<'s>> {
    let (name, id) = reference.split_once('/')?;
    let (name, ward) = store.types().find(|(known, _)| *known == name)?;
    ward.find(id).filter(|record| record.bytes().is_some()).map(|record| (name, record))
}

/// The link array's inside.
pub(super) fn links(links: &[(&str, String)]) -> String {
    let one =
        |(relation, url): &(&str, String)| serde_json::json!({"relation": relation, "url": url}).to_string();
    links.iter().map(one).collect::<Vec<_>>().join(",")
}

/// A searchset Bundle; the second of each entry is its search mode.
pub(super) fn bundle(
    base: &str,
    total: Option<usize>,
    links: &[(&str, String)],
    entries: &[(Hit<'_>, &str)],
) -> Vec<u8> {
    let bytes: usize = entries.iter().filter_map(|((_, r), _)| r.bytes()).map(bytes::Bytes::len).sum();
    let mut out = Vec::with_capacity(bytes + 160 * entries.len() + 512);
    out.extend_from_slice(b"{\"resourceType\":\"Bundle\",\"type\":\"searchset\"");
    if let Some(total) = total {
        out.extend_from_slice(format!(",\"total\":{total}").as_bytes());
    }
    out.extend_from_slice(format!(",\"link\":[{}]", self::links(links)).as_bytes());
    let mut before = ",\"entry\":[";
    for ((name, record), mode) in entries {
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
