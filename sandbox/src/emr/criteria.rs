//! One search criterion: read from a query parameter, compared with a record's terms.
//!
//! Owns: modifiers, prefixes, alternatives (`,`), chains and `_has`.
//! Must never: hold records; write answers.
//! Look next: `query`, which runs a whole search.

use std::collections::BTreeSet;

use super::parameters::{self, Kind};
use super::store::{Record, Store};
use super::terms::{Term, date_range, number_range, parse_reference};

/// Why a parameter cannot be a criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The type has no such parameter: ignored, or refused under strict handling.
    Unknown,
    /// The parameter is known, but the modifier or value makes no sense.
    Invalid,
}

pub(super) struct Criterion {
    code: &'static str,
    kind: Kind,
    test: Test,
}

enum Test {
    /// Any of the values, or with `true` none of them (`:not`).
    Values(Vec<Value>, bool),
    Missing(bool),
    /// `Type/id` of the records that a chain or `_has` found.
    OneOf(BTreeSet<String>),
}

enum Value {
    Token { system: Option<String>, code: Option<String> },
    TokenText(String),
    Starts(String),
    Contains(String),
    Exact(String),
    Date(Prefix, i64, i64),
    Reference { resource_type: Option<String>, id: String, url: String },
    Quantity(Prefix, f64, f64, Option<String>, Option<String>),
    Uri(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    Sa,
    Eb,
    Ap,
}

impl Criterion {
    /// Reads `name=value` for a search on `resource_type`; chains and `_has` are looked up in `store` now.
    pub(super) fn parse(
        store: &Store,
        resource_type: &str,
        name: &str,
        value: &str,
    ) -> Result<Criterion, Misfit> {
        if let Some(path) = name.strip_prefix("_has:") {
            return has(store, resource_type, path, value);
        }
        if let Some((head, rest)) = name.split_once('.') {
            return chain(store, resource_type, head, rest, value);
        }
        let (code, modifier) = name.split_once(':').map_or((name, None), |(c, m)| (c, Some(m)));
        let parameter = parameters::find(resource_type, code).ok_or(Misfit::Unknown)?;
        let test = match modifier {
            Some("missing") => Test::Missing(flag(value)?),
            Some("not") if parameter.kind == Kind::Token => {
                Test::Values(values(parameter.kind, None, value)?, true)
            }
            _ => Test::Values(values(parameter.kind, modifier, value)?, false),
        };
        Ok(Criterion { code: parameter.code, kind: parameter.kind, test })
    }

    pub(super) fn holds(&self, resource_type: &str, record: &Record) -> bool {
        let terms = record.terms.of(self.code);
        match &self.test {
            Test::Missing(missing) => terms.is_empty() == *missing,
            Test::Values(values, negated) => {
                let any = terms.iter().any(|term| values.iter().any(|value| value.fits(term)));
                any != *negated
            }
            Test::OneOf(found) if self.kind == Kind::Reference => {
                terms.iter().any(|term| reference_of(term).is_some_and(|r| found.contains(&r)))
            }
            Test::OneOf(found) => found.contains(&format!("{resource_type}/{}", record.id)),
        }
    }

    /// When only records that refer to one of these can match: the `Type/id`s.
    pub(super) fn references(&self) -> Option<Vec<String>> {
        match &self.test {
            Test::Values(values, false) if self.kind == Kind::Reference => {
                values.iter().map(Value::reference).collect::<Option<Vec<_>>>()
            }
            Test::OneOf(found) if self.kind == Kind::Reference => Some(found.iter().cloned().collect()),
            Test::Values(..) | Test::Missing(_) | Test::OneOf(_) => None,
        }
    }
}

fn flag(value: &str) -> Result<bool, Misfit> {
    value.parse().map_err(|_| Misfit::Invalid)
}

fn reference_of(term: &Term) -> Option<String> {
    let Term::Reference { resource_type: Some(name), id, .. } = term else { return None };
    Some(format!("{name}/{id}"))
}

/// `subject:Patient.name=x` or `patient.name=x`; `rest` may chain on.
fn chain(
    store: &Store,
    resource_type: &str,
    head: &str,
    rest: &str,
    value: &str,
) -> Result<Criterion, Misfit> {
    let (code, target) = head.split_once(':').map_or((head, None), |(c, t)| (c, Some(t)));
    let parameter = parameters::find(resource_type, code).ok_or(Misfit::Unknown)?;
    if parameter.kind != Kind::Reference {
        return Err(Misfit::Invalid);
    }
    let mut found = BTreeSet::new();
    let mut understood = false;
    for (name, ward) in store.types().filter(|(name, _)| target.is_none_or(|t| t == *name)) {
        let Ok(inner) = Criterion::parse(store, name, rest, value) else { continue };
        understood = true;
        let hits = ward.records.iter().filter(|r| r.bytes().is_some() && inner.holds(name, r));
        found.extend(hits.map(|record| format!("{name}/{}", record.id)));
    }
    // A type without records cannot tell us whether the rest makes sense.
    let known = understood || target.is_none_or(|t| store.ward(t).is_none());
    if !known {
        return Err(Misfit::Unknown);
    }
    Ok(Criterion { code: parameter.code, kind: Kind::Reference, test: Test::OneOf(found) })
}

/// `_has:Observation:patient:code=x`: records that an Observation with that code refers to.
fn has(store: &Store, resource_type: &str, path: &str, value: &str) -> Result<Criterion, Misfit> {
    let (source, path) = path.split_once(':').ok_or(Misfit::Invalid)?;
    let (back, name) = path.split_once(':').ok_or(Misfit::Invalid)?;
    let parameter = parameters::find(source, back).ok_or(Misfit::Unknown)?;
    let inner = Criterion::parse(store, source, name, value)?;
    let mut found = BTreeSet::new();
    for record in store.ward(source).map_or(&[] as &[Record], |ward| &ward.records) {
        if record.bytes().is_some() && inner.holds(source, record) {
            found.extend(record.terms.of(parameter.code).iter().filter_map(reference_of));
        }
    }
    found.retain(|reference| reference.split_once('/').is_some_and(|(name, _)| name == resource_type));
    Ok(Criterion { code: "_id", kind: Kind::Token, test: Test::OneOf(found) })
}

/// The alternatives of a value: split at commas that are not escaped (R4 search, "Escaping").
fn alternatives(value: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut escaped = false;
    for letter in value.chars() {
        match letter {
            '\\' if !escaped => escaped = true,
            ',' if !escaped => out.push(String::new()),
            _ => {
                escaped = false;
                if let Some(last) = out.last_mut() {
                    last.push(letter);
                }
            }
        }
    }
    out
}

fn values(kind: Kind, modifier: Option<&str>, value: &str) -> Result<Vec<Value>, Misfit> {
    let read = |text: &String| read_value(kind, modifier, text);
    alternatives(value).iter().filter(|text| !text.is_empty()).map(read).collect()
}

fn read_value(kind: Kind, modifier: Option<&str>, text: &str) -> Result<Value, Misfit> {
    match (kind, modifier) {
        (Kind::Token, None) => Ok(token(text)),
        (Kind::Token, Some("text")) => Ok(Value::TokenText(text.to_lowercase())),
        (Kind::Text, None) => Ok(Value::Starts(text.to_lowercase())),
        (Kind::Text, Some("contains")) => Ok(Value::Contains(text.to_lowercase())),
        (Kind::Text, Some("exact")) => Ok(Value::Exact(text.to_owned())),
        (Kind::Date, None) => {
            let (prefix, rest) = prefix(text);
            date_range(rest).map(|(from, to)| Value::Date(prefix, from, to)).ok_or(Misfit::Invalid)
        }
        (Kind::Reference, None) => Ok(reference(text, None)),
        (Kind::Reference, Some(name)) if super::is_type_name(name) => Ok(reference(text, Some(name))),
        (Kind::Quantity, None) => quantity(text),
        (Kind::Uri, None) => Ok(Value::Uri(text.to_owned())),
        (Kind::Token | Kind::Text | Kind::Date | Kind::Reference | Kind::Quantity | Kind::Uri, Some(_)) => {
            Err(Misfit::Invalid)
        }
    }
}

/// `code` (any system), `system|code`, `|code` (no system), `system|` (any code).
fn token(text: &str) -> Value {
    match text.split_once('|') {
        None => Value::Token { system: None, code: Some(text.to_owned()) },
        Some((system, "")) => Value::Token { system: Some(system.to_owned()), code: None },
        Some((system, code)) => Value::Token { system: Some(system.to_owned()), code: Some(code.to_owned()) },
    }
}

fn reference(text: &str, wanted: Option<&str>) -> Value {
    let Term::Reference { resource_type, id, url } = parse_reference(text) else {
        return Value::Uri(text.to_owned());
    };
    Value::Reference { resource_type: wanted.map(str::to_owned).or(resource_type), id, url }
}

fn quantity(text: &str) -> Result<Value, Misfit> {
    let (prefix, rest) = prefix(text);
    let mut parts = rest.split('|');
    let (low, high) = parts.next().and_then(number_range).ok_or(Misfit::Invalid)?;
    let mut part = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
    let system = part();
    let unit = part();
    Ok(Value::Quantity(prefix, low, high, system, unit))
}

fn prefix(text: &str) -> (Prefix, &str) {
    let Some((head, rest)) = text.split_at_checked(2) else { return (Prefix::Eq, text) };
    let prefix = match head {
        "eq" => Prefix::Eq,
        "ne" => Prefix::Ne,
        "gt" => Prefix::Gt,
        "lt" => Prefix::Lt,
        "ge" => Prefix::Ge,
        "le" => Prefix::Le,
        "sa" => Prefix::Sa,
        "eb" => Prefix::Eb,
        "ap" => Prefix::Ap,
        _ => return (Prefix::Eq, text),
    };
    (prefix, rest)
}

impl Prefix {
    /// Compares the record's range with the asked range (R4 search, "Prefixes").
    fn holds<T: PartialOrd>(self, (from, to): (T, T), (asked_from, asked_to): (T, T)) -> bool {
        match self {
            Prefix::Eq => from >= asked_from && to <= asked_to,
            Prefix::Ne => !(from >= asked_from && to <= asked_to),
            Prefix::Gt => to > asked_to,
            Prefix::Lt => from < asked_from,
            Prefix::Ge => to > asked_from,
            Prefix::Le => from < asked_to,
            Prefix::Sa => from >= asked_to,
            Prefix::Eb => to <= asked_from,
            Prefix::Ap => from < asked_to && to > asked_from,
        }
    }

    /// Compares two numbers given as precision ranges: greater and less go by the middle.
    fn holds_number(self, number: f64, (low, high): (f64, f64)) -> bool {
        let asked = f64::midpoint(low, high);
        match self {
            Prefix::Eq => number >= low && number < high,
            Prefix::Ne => number < low || number >= high,
            Prefix::Gt | Prefix::Sa => number > asked,
            Prefix::Lt | Prefix::Eb => number < asked,
            Prefix::Ge => number >= asked,
            Prefix::Le => number <= asked,
            Prefix::Ap => (number - asked).abs() <= asked.abs() * 0.1,
        }
    }
}

impl Value {
    fn fits(&self, term: &Term) -> bool {
        match (self, term) {
            (Self::Token { system, code }, Term::Token { system: has_system, code: has, text: false }) => {
                let system_fits = system.as_ref().is_none_or(|s| has_system.as_deref().unwrap_or("") == s);
                system_fits && code.as_ref().is_none_or(|code| code == has)
            }
            (Self::TokenText(text), Term::Token { code, text: true, .. }) => {
                code.to_lowercase().contains(text.as_str())
            }
            (Self::Starts(text), Term::Text(has)) => has.to_lowercase().starts_with(text.as_str()),
            (Self::Contains(text), Term::Text(has)) => has.to_lowercase().contains(text.as_str()),
            (Self::Exact(text), Term::Text(has)) => has == text,
            (Self::Date(prefix, from, to), Term::Date(has_from, has_to)) => {
                prefix.holds((*has_from, *has_to), (*from, *to))
            }
            (
                Self::Reference { resource_type, id, url },
                Term::Reference { resource_type: has_type, id: has_id, url: has_url },
            ) => {
                let type_fits = resource_type.is_none() || resource_type == has_type;
                url == has_url || (type_fits && id == has_id)
            }
            (Self::Quantity(prefix, low, high, system, unit), Term::Quantity { .. }) => {
                quantity_fits(*prefix, (*low, *high), system.as_deref(), unit.as_deref(), term)
            }
            (Self::Uri(text), Term::Uri(has)) => text == has,
            _ => false,
        }
    }

    fn reference(&self) -> Option<String> {
        let Self::Reference { resource_type, id, .. } = self else { return None };
        resource_type.as_ref().map(|name| format!("{name}/{id}"))
    }
}

fn quantity_fits(
    prefix: Prefix,
    asked: (f64, f64),
    asked_system: Option<&str>,
    unit: Option<&str>,
    term: &Term,
) -> bool {
    let Term::Quantity { low, high, system, units } = term else { return false };
    let system_fits = asked_system.is_none_or(|s| system.as_deref() == Some(s));
    let unit_fits = unit.is_none_or(|unit| units.iter().any(|has| has == unit));
    system_fits && unit_fits && prefix.holds_number(f64::midpoint(*low, *high), asked)
}
