//! What a record says under each search parameter, read once when it is stored.
//!
//! Owns: `Term`, the reading of JSON elements into terms, dates and quantities as ranges.
//! Must never: know queries; keep record bytes.
//! Look next: `parameters` for the paths, `criteria` for the comparison.

use jiff::civil;
use serde_json::Value;

use super::parameters::{self, Kind};

/// One searchable value of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    Token {
        system: Option<String>,
        code: String,
        text: bool,
    },
    /// An Identifier with its type, for `:of-type`.
    Typed {
        kinds: Vec<(Option<String>, String)>,
        value: String,
    },
    Text(String),
    /// Milliseconds since 1970, from inclusive, to exclusive.
    Date(i64, i64),
    Reference {
        resource_type: Option<String>,
        id: String,
        url: String,
    },
    /// A Reference's `identifier`, for `:identifier`.
    Logical(Option<String>, String),
    /// A Reference's `display`, for `:text`.
    Display(String),
    /// Also a number, which has no system and no units.
    Quantity {
        low: f64,
        high: f64,
        system: Option<String>,
        units: Vec<String>,
    },
    Uri(String),
    /// One list of terms for each part.
    Composite(Vec<Vec<Term>>),
}

/// All terms of one record, by parameter code. A code that is missing here has no value.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms(Vec<(&'static str, Vec<Term>)>);

impl Terms {
    pub(super) fn read(resource_type: &str, record: &Value) -> Self {
        let read = |parameter: &'static parameters::Parameter| {
            let found = terms(parameter, record);
            (!found.is_empty()).then_some((parameter.code, found))
        };
        Self(parameters::of(resource_type).filter_map(read).collect())
    }

    pub(super) fn of(&self, code: &str) -> &[Term] {
        self.0.iter().find(|(name, _)| *name == code).map_or(&[], |(_, terms)| terms)
    }

    /// Every reference under any parameter, as `Type/id`.
    pub(super) fn references(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().flat_map(|(_, terms)| terms).filter_map(Term::reference)
    }
}

impl Term {
    /// `Type/id` of a reference to a record.
    pub(super) fn reference(&self) -> Option<String> {
        let Term::Reference { resource_type: Some(name), id, .. } = self else { return None };
        Some(format!("{name}/{id}"))
    }
}

fn terms(parameter: &parameters::Parameter, record: &Value) -> Vec<Term> {
    let mut out = Vec::new();
    for value in parameter.path.find(record, record) {
        if parameter.kind == Kind::Composite {
            let part = |(kind, path): &(Kind, super::path::Path)| {
                let mut terms = Vec::new();
                path.find(record, value).into_iter().for_each(|value| read(*kind, value, &mut terms));
                terms
            };
            let parts: Vec<_> = parameter.components.iter().map(part).collect();
            if parts.iter().all(|terms| !terms.is_empty()) {
                out.push(Term::Composite(parts));
            }
        } else if parameter.code == "deceased" && !value.is_boolean() {
            // A date of death says that the patient is dead (R4 Patient, search parameter `deceased`).
            tokens(&Value::Bool(true), &mut out);
        } else {
            read(parameter.kind, value, &mut out);
        }
    }
    out
}

fn text_of<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}

fn read(kind: Kind, value: &Value, out: &mut Vec<Term>) {
    match kind {
        Kind::Token => tokens(value, out),
        Kind::Text => texts(value, out),
        Kind::Date => dates(value, out),
        Kind::Reference => references(value, out),
        Kind::Quantity | Kind::Number => out.extend(quantity_term(value)),
        Kind::Uri => out.extend(value.as_str().map(|text| Term::Uri(text.to_owned()))),
        // Its parts are read one by one, above.
        Kind::Composite => {}
    }
}

fn tokens(value: &Value, out: &mut Vec<Term>) {
    let token = |system: Option<&str>, code: &str, text: bool| Term::Token {
        system: system.map(str::to_owned),
        code: code.to_owned(),
        text,
    };
    match value {
        Value::String(code) => out.push(token(None, code, false)),
        Value::Bool(flag) => out.push(token(None, if *flag { "true" } else { "false" }, false)),
        Value::Object(_) => {
            if let Some(Value::Array(codings)) = value.get("coding") {
                codings.iter().for_each(|coding| tokens(coding, out));
            }
            let code = text_of(value, "code").or_else(|| text_of(value, "value"));
            out.extend(code.map(|code| token(text_of(value, "system"), code, false)));
            let words = [text_of(value, "text"), text_of(value, "display")];
            out.extend(words.into_iter().flatten().map(|text| token(None, text, true)));
            out.extend(typed(value));
        }
        Value::Null | Value::Number(_) | Value::Array(_) => {}
    }
}

/// An Identifier that says of what type it is.
fn typed(value: &Value) -> Option<Term> {
    let codings = value.get("type")?.get("coding")?.as_array()?;
    let kind = |coding: &Value| {
        let system = text_of(coding, "system").map(str::to_owned);
        text_of(coding, "code").map(|code| (system, code.to_owned()))
    };
    let kinds = codings.iter().filter_map(kind).collect();
    Some(Term::Typed { kinds, value: text_of(value, "value")?.to_owned() })
}

/// The parts of HumanName and Address that are searched as text.
const TEXT_PARTS: &[&str] = &[
    "text",
    "family",
    "given",
    "prefix",
    "suffix",
    "line",
    "city",
    "district",
    "state",
    "postalCode",
    "country",
];

fn texts(value: &Value, out: &mut Vec<Term>) {
    match value {
        Value::String(text) => out.push(Term::Text(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| texts(item, out)),
        Value::Object(_) => {
            TEXT_PARTS.iter().filter_map(|name| value.get(name)).for_each(|part| texts(part, out));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn dates(value: &Value, out: &mut Vec<Term>) {
    out.extend(date_term(value));
    // A Timing: its events, and the bounds of its repetition.
    if let Some(Value::Array(events)) = value.get("event") {
        out.extend(events.iter().filter_map(date_term));
    }
    out.extend(value.pointer("/repeat/boundsPeriod").and_then(date_term));
}

fn date_term(value: &Value) -> Option<Term> {
    if let Some(text) = value.as_str() {
        return date_range(text).map(|(from, to)| Term::Date(from, to));
    }
    let start = text_of(value, "start").and_then(date_range);
    let end = text_of(value, "end").and_then(date_range);
    if start.is_none() && end.is_none() {
        return None;
    }
    Some(Term::Date(start.map_or(i64::MIN, |(from, _)| from), end.map_or(i64::MAX, |(_, to)| to)))
}

fn references(value: &Value, out: &mut Vec<Term>) {
    let kind = text_of(value, "type");
    if let Some(text) = text_of(value, "reference").or_else(|| value.as_str()) {
        out.push(match (parse_reference(text), kind) {
            (Term::Reference { resource_type: None, id, url }, Some(kind)) => {
                Term::Reference { resource_type: Some(kind.to_owned()), id, url }
            }
            (term, _) => term,
        });
    }
    if let Some(identifier) = value.get("identifier") {
        let system = text_of(identifier, "system").map(str::to_owned);
        out.extend(text_of(identifier, "value").map(|value| Term::Logical(system, value.to_owned())));
    }
    out.extend(text_of(value, "display").map(|text| Term::Display(text.to_owned())));
}

/// Reads `Type/id`, an absolute URL ending so, or a bare id.
pub(super) fn parse_reference(text: &str) -> Term {
    let plain = text.split_once("/_history/").map_or(text, |(before, _)| before);
    let mut ends = plain.rsplit('/');
    let id = ends.next().unwrap_or_default().to_owned();
    let resource_type = ends.next().filter(|name| super::is_type_name(name)).map(str::to_owned);
    Term::Reference { resource_type, id, url: text.to_owned() }
}

/// A Quantity (also Age, Money and so on), a Range, or a bare number.
fn quantity_term(value: &Value) -> Option<Term> {
    let number = |value: &Value| number_range(&value.to_string());
    if value.is_number() {
        let (low, high) = number(value)?;
        return Some(Term::Quantity { low, high, system: None, units: Vec::new() });
    }
    let (low, high) = match value.get("value") {
        Some(value) => number(value)?,
        None => {
            let end = |name: &str| value.get(name).and_then(|end| end.get("value")).and_then(Value::as_f64);
            let (low, high) = (end("low"), end("high"));
            low.or(high)?;
            (low.unwrap_or(f64::MIN), high.unwrap_or(f64::MAX))
        }
    };
    let whole = value.get("low").or_else(|| value.get("high")).unwrap_or(value);
    let units = ["code", "unit", "currency"].map(|name| text_of(whole, name));
    Some(Term::Quantity {
        low,
        high,
        system: text_of(whole, "system").map(str::to_owned),
        units: units.into_iter().flatten().map(str::to_owned).collect(),
    })
}

/// A number as the range its written precision stands for (R4 search, "Number": 100 is [99.5, 100.5)).
pub(super) fn number_range(text: &str) -> Option<(f64, f64)> {
    let number: f64 = text.parse().ok().filter(|n: &f64| n.is_finite())?;
    let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let half = 0.5 * 10f64.powi(-i32::try_from(decimals).ok()?);
    Some((number - half, number + half))
}

/// A FHIR date, dateTime or instant as milliseconds: from inclusive, to exclusive. No zone means UTC.
pub(super) fn date_range(text: &str) -> Option<(i64, i64)> {
    match text.split_once('T') {
        None => day_range(text),
        Some((day, time)) => instant_range(day, time),
    }
}

fn day_range(text: &str) -> Option<(i64, i64)> {
    let mut parts = text.split('-');
    let year: i16 = parts.next().filter(|y| y.len() == 4)?.parse().ok()?;
    let month: Option<i8> = parts.next().map(str::parse).transpose().ok()?;
    let day: Option<i8> = parts.next().map(str::parse).transpose().ok()?;
    let start = civil::Date::new(year, month.unwrap_or(1), day.unwrap_or(1)).ok()?;
    let next = match (month, day) {
        (_, Some(_)) => start.tomorrow(),
        (Some(_), None) => start.checked_add(jiff::Span::new().months(1)),
        (None, None) => start.checked_add(jiff::Span::new().years(1)),
    };
    let millis = |date: civil::Date| {
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond())
    };
    Some((millis(start)?, millis(next.ok()?)?))
}

fn instant_range(day: &str, time: &str) -> Option<(i64, i64)> {
    // A `+` in a query that was not coded arrives as a space.
    let time = time.replace(' ', "+");
    let clock_len = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at_checked(clock_len)?;
    let (seconds, width) = match clock.len() {
        5 => (":00", 60_000),
        8 => ("", 1_000),
        _ => ("", 1),
    };
    let zone = if zone.is_empty() { "Z" } else { zone };
    let instant: jiff::Timestamp = format!("{day}T{clock}{seconds}{zone}").parse().ok()?;
    let from = instant.as_millisecond();
    Some((from, from + width))
}
