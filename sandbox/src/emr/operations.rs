//! `$everything`, `$lastn`, `$validate`, `$expand`, `$lookup`.
//!
//! Owns: what these operations find, and their parameters.
//! Must never: write; know an operation by another name.
//! Look next: `query`, `compartments`, `terminology`; `export` for `$export`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use http::StatusCode;
use serde_json::{Value, json};

use super::ask::{Ask, Reply};
use super::query::{self, Hit, Refused};
use super::store::{Record, Store, instant};
use super::terms::{Term, date_range};
use super::{compartments, terminology};
use crate::web;

/// Parameters that tell when a record happened, the first that it has.
const WHEN: &[&str] =
    &["date", "authoredon", "authored", "effective-time", "recorded-date", "created", "started"];

/// Answers the operation `$name` at the asked address.
pub(super) fn answer(store: &Store, ask: &Ask<'_>, name: &str) -> Reply {
    let steps = ask.steps();
    let getting = matches!(ask.method, "GET" | "HEAD");
    let answered = match (name, steps.as_slice()) {
        ("everything", ["Patient", id, _]) if getting => everything(store, ask, id),
        ("lastn", ["Observation", _]) if getting => last(store, ask),
        ("validate", [kind, _]) if ask.method == "POST" => Ok(validate(ask, kind)),
        ("expand", ["ValueSet", _]) if getting => expand(store, ask, None),
        ("expand", ["ValueSet", id, _]) if getting => expand(store, ask, Some(id)),
        ("lookup", ["CodeSystem", _]) if getting => lookup(store, ask),
        _ => Ok(Reply::outcome(StatusCode::NOT_FOUND, "not-supported", "operation not supported")),
    };
    answered.unwrap_or_else(|refused| Reply::invalid(&refused.0))
}

fn refused(name: &str) -> Refused {
    Refused(format!("operation parameter {name} not understood"))
}

/// The compartment, the patient first, then what its records refer to.
fn everything(store: &Store, ask: &Ask<'_>, id: &str) -> Result<Reply, Refused> {
    let (asked, offset) = query::reopened(&ask.query)?;
    let Some(patient) = query::locate(store, &format!("Patient/{id}")) else { return Ok(Reply::not_found()) };
    let wanted = Wanted::read(&asked, ask.strict())?;
    let mut found: Vec<(Hit<'_>, &str)> = vec![(patient, "match")];
    for (name, ward) in store.types() {
        let held = |r: &&Record| r.bytes().is_some() && compartments::holds("Patient", id, name, r);
        let others = ward.records.iter().filter(held).filter(|r| name != "Patient" || r.id != id);
        found.extend(others.filter(|record| wanted.happened(record)).map(|record| ((name, record), "match")));
    }
    let mut seen: BTreeSet<String> = found.iter().map(|((name, r), _)| format!("{name}/{}", r.id)).collect();
    let references: Vec<String> = found.iter().flat_map(|((_, r), _)| r.terms.references()).collect();
    for reference in references {
        // Other people's charts are not part of this one.
        if !reference.starts_with("Patient/") && seen.insert(reference.clone()) {
            found.extend(query::locate(store, &reference).map(|hit| (hit, "include")));
        }
    }
    found.retain(|((name, record), _)| wanted.fits(name, record));
    let (links, range) =
        query::paged(ask.base, &ask.steps.join("/"), &asked, offset, wanted.count, found.len());
    let page = found.get(range).unwrap_or_default();
    Ok(Reply::fhir(StatusCode::OK, query::bundle(ask.base, Some(found.len()), &links, page)))
}

/// The parameters of `$everything`.
#[derive(Default)]
struct Wanted {
    count: Option<usize>,
    types: Option<Vec<String>>,
    since: Option<i64>,
    start: Option<i64>,
    end: Option<i64>,
}

impl Wanted {
    fn read(asked: &[(String, String)], strict: bool) -> Result<Self, Refused> {
        let mut wanted = Self::default();
        for (name, value) in asked {
            let range = || date_range(value).ok_or_else(|| refused(name));
            match name.as_str() {
                "_count" => wanted.count = Some(value.parse().map_err(|_| refused(name))?),
                "_type" => wanted.types = Some(value.split(',').map(str::to_owned).collect()),
                "_since" => wanted.since = Some(range()?.0),
                "start" => wanted.start = Some(range()?.0),
                "end" => wanted.end = Some(range()?.1),
                _ if strict => return Err(refused(name)),
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn fits(&self, name: &str, record: &Record) -> bool {
        let typed = self.types.as_ref().is_none_or(|types| types.iter().any(|one| one == name));
        typed && self.since.is_none_or(|since| updated(record).is_some_and(|at| at >= since))
    }

    /// A record that does not say when it happened is always in.
    fn happened(&self, record: &Record) -> bool {
        let dates = WHEN.iter().map(|code| record.terms.of(code)).find(|terms| !terms.is_empty());
        let overlaps = |term: &Term| {
            let Term::Date(from, to) = term else { return true };
            self.start.is_none_or(|start| *to > start) && self.end.is_none_or(|end| *from < end)
        };
        dates.is_none_or(|terms| terms.iter().any(overlaps))
    }
}

/// Milliseconds of `meta.lastUpdated`.
pub(super) fn updated(record: &Record) -> Option<i64> {
    match record.terms.of("_lastUpdated").first() {
        Some(Term::Date(from, _)) => Some(*from),
        _ => None,
    }
}

/// The newest `max` observations of each code.
fn last(store: &Store, ask: &Ask<'_>) -> Result<Reply, Refused> {
    let max = match web::field(&ask.query, "max") {
        None => 1,
        Some(max) => max.parse().map_err(|_| refused("max"))?,
    };
    let criteria: Vec<_> = ask.query.iter().filter(|(name, _)| name != "max").cloned().collect();
    let mut groups: BTreeMap<String, Vec<Hit<'_>>> = BTreeMap::new();
    for (name, record) in query::hits(store, "Observation", &criteria)? {
        let code = record.terms.of("code").iter().find_map(|term| match term {
            Term::Token { system, code, .. } => {
                Some(format!("{}|{code}", system.as_deref().unwrap_or_default()))
            }
            _ => None,
        });
        groups.entry(code.unwrap_or_default()).or_default().push((name, record));
    }
    let mut found = Vec::new();
    for group in groups.values_mut() {
        group.sort_by_key(|(_, record)| std::cmp::Reverse(latest(record)));
        found.extend(group.iter().take(max).map(|hit| (*hit, "match")));
    }
    let links = [("self", format!("{}/{}?{}", ask.base, ask.steps.join("/"), web::query(&ask.query)))];
    Ok(Reply::fhir(StatusCode::OK, query::bundle(ask.base, Some(found.len()), &links, &found)))
}

fn latest(record: &Record) -> Option<i64> {
    let dates = record.terms.of("date").iter();
    dates.filter_map(|term| if let Term::Date(from, _) = term { Some(*from) } else { None }).max()
}

/// By type: the elements that must be there.
static MANDATORY: LazyLock<HashMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    let rows = include_str!("../../data/r4-mandatory.txt").lines().filter_map(|line| line.split_once('\t'));
    rows.map(|(name, paths)| (name, paths.split(' ').filter(|path| !path.is_empty()).collect())).collect()
});

/// The resource types of R4.
pub(super) fn type_names() -> BTreeSet<&'static str> {
    MANDATORY.keys().copied().collect()
}

/// Checks the type and the elements that must be there at the top.
fn validate(ask: &Ask<'_>, kind: &str) -> Reply {
    let Ok(mut body) = serde_json::from_slice::<Value>(ask.body) else {
        return Reply::outcome(StatusCode::BAD_REQUEST, "structure", "body is not JSON");
    };
    if text_of(&body, "resourceType") == Some("Parameters") && kind != "Parameters" {
        let parameters = body.get("parameter").and_then(Value::as_array);
        let mut named = parameters.into_iter().flatten();
        let resource = named.find(|one| text_of(one, "name") == Some("resource"));
        match resource.and_then(|one| one.get("resource")).cloned() {
            Some(resource) => body = resource,
            None => return Reply::invalid("a resource is expected"),
        }
    }
    let mut issues = Vec::new();
    if text_of(&body, "resourceType") == Some(kind) {
        for path in MANDATORY.get(kind).into_iter().flatten().filter(|path| !has(&body, path)) {
            let text = format!("{kind}.{path} is required");
            issues.push(json!({"severity": "error", "code": "required", "diagnostics": text,
                "expression": [format!("{kind}.{path}")]}));
        }
    } else {
        let text = "the body is not of this type";
        issues.push(json!({"severity": "error", "code": "structure", "diagnostics": text}));
    }
    if issues.is_empty() {
        issues.push(
            json!({"severity": "information", "code": "informational", "diagnostics": "no problem found"}),
        );
    }
    let outcome = json!({"resourceType": "OperationOutcome", "issue": issues});
    Reply::fhir(StatusCode::OK, outcome.to_string())
}

/// Whether an element is there; `value[x]` by any of its names.
fn has(body: &Value, path: &str) -> bool {
    let Some(object) = body.as_object() else { return false };
    match path.strip_suffix("[x]") {
        None => object.contains_key(path),
        Some(stem) => object.keys().any(|key| key.starts_with(stem)),
    }
}

fn expand(store: &Store, ask: &Ask<'_>, id: Option<&str>) -> Result<Reply, Refused> {
    let url = match id {
        Some(id) => format!("ValueSet/{id}"),
        None => web::field(&ask.query, "url").ok_or_else(|| refused("url"))?.to_owned(),
    };
    let Some(set) = terminology::by_url(store, "ValueSet", &url) else { return Ok(Reply::not_found()) };
    let number = |name: &str, unset: usize| match web::field(&ask.query, name) {
        None => Ok(unset),
        Some(value) => value.parse().map_err(|_| refused(name)),
    };
    let (offset, count) = (number("offset", 0)?, number("count", usize::MAX)?);
    let filter = web::field(&ask.query, "filter").unwrap_or_default().to_lowercase();
    let mut concepts = terminology::expand(store, &set);
    concepts.retain(|one| {
        let words = format!("{} {}", one.code, one.display.as_deref().unwrap_or_default());
        words.to_lowercase().contains(&filter)
    });
    let row = |one: &terminology::Concept| match &one.display {
        Some(display) => json!({"system": one.system, "code": one.code, "display": display}),
        None => json!({"system": one.system, "code": one.code}),
    };
    let contains: Vec<Value> = concepts.iter().skip(offset).take(count).map(row).collect();
    let expansion = json!({
        "timestamp": instant(ask.now), "total": concepts.len(), "offset": offset, "contains": contains
    });
    // The stored bytes, with the expansion put in at their end.
    let id = text_of(&set, "id").unwrap_or_default();
    let stored = store.find("ValueSet", id).and_then(Record::bytes).cloned().unwrap_or_default();
    let stored = String::from_utf8_lossy(&stored);
    let open = stored.trim_end().strip_suffix('}').unwrap_or_default();
    Ok(Reply::fhir(StatusCode::OK, format!("{open},\"expansion\":{expansion}}}")))
}

fn lookup(store: &Store, ask: &Ask<'_>) -> Result<Reply, Refused> {
    let field = |name: &str| web::field(&ask.query, name).ok_or_else(|| refused(name));
    let (system, code) = (field("system")?, field("code")?);
    let concepts = terminology::concepts(store, system).unwrap_or_default();
    let record = terminology::by_url(store, "CodeSystem", system).unwrap_or_default();
    let Some(concept) = concepts.iter().find(|one| one.code == code) else { return Ok(Reply::not_found()) };
    let mut parameters =
        vec![json!({"name": "name", "valueString": text_of(&record, "name").unwrap_or(system)})];
    let texts = [
        ("version", text_of(&record, "version")),
        ("display", concept.display.as_deref()),
        ("definition", concept.definition.as_deref()),
    ];
    for (name, text) in texts {
        parameters.extend(text.map(|text| json!({"name": name, "valueString": text})));
    }
    if let Some(parent) = concept.above.first() {
        let part = json!([{"name": "code", "valueCode": "parent"}, {"name": "value", "valueCode": parent}]);
        parameters.push(json!({"name": "property", "part": part}));
    }
    let body = json!({"resourceType": "Parameters", "parameter": parameters});
    Ok(Reply::fhir(StatusCode::OK, body.to_string()))
}

fn text_of<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}
