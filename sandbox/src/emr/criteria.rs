//! One search criterion: read from a query parameter, compared with a record's terms.
//!
//! Owns: modifiers, prefixes, alternatives (`,`), chains and `_has`, composites; `_text`, `_content`, `_list`.
//! Must never: hold records; write answers.
//! Look next: `query`, which runs a whole search.

use std::collections::BTreeSet;

use super::parameters::{self, Kind};
use super::store::{Record, Store};
use super::terms::{Term, date_range, number_range, parse_reference};
use super::{filter, terminology, wording};

/// Why a parameter cannot be a criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The type has no such parameter: ignored, or refused under strict handling.
    Unknown,
    /// The parameter is known, but the modifier or value makes no sense.
    Invalid,
}

#[derive(Debug)]
pub(super) struct Criterion {
    code: &'static str,
    kind: Kind,
    test: Test,
}

#[derive(Debug)]
enum Test {
    /// Any of the values, or with `true` none of them (`:not`).
    Values(Vec<Value>, bool),
    Missing(bool),
    /// `Type/id` of the records that a chain, `_has` or `_list` found.
    OneOf(BTreeSet<String>),
    /// Words of the narrative (`_text`), or of all texts (`_content`); one of them is enough.
    Words(Vec<String>, bool),
    /// Of `_filter`.
    All(Vec<Criterion>),
    Any(Vec<Criterion>),
    Not(Box<Criterion>),
}

#[derive(Debug)]
enum Value {
    Token {
        system: Option<String>,
        code: Option<String>,
    },
    TokenText(String),
    /// `:of-type`: system and code of the identifier's type, and its value.
    OfType(String, String, String),
    /// `:in`, `:above`, `:below`: one of these codes.
    CodeIn(BTreeSet<(String, String)>),
    Starts(String),
    Contains(String),
    Ends(String),
    Exact(String),
    Date(Prefix, i64, i64),
    Reference {
        resource_type: Option<String>,
        id: String,
        url: String,
    },
    Logical {
        system: Option<String>,
        code: Option<String>,
    },
    Display(String),
    Quantity(Prefix, f64, f64, Option<String>, Option<String>),
    Uri(String),
    UriBelow(String),
    UriAbove(String),
    Composite(Vec<Value>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        match name {
            "_text" | "_content" => return Ok(words(name == "_text", value)),
            "_list" => return list(store, value),
            "_filter" => return filter::parse(store, resource_type, value),
            _ => {}
        }
        if let Some((head, rest)) = name.split_once('.') {
            return chain(store, resource_type, head, rest, value);
        }
        let (code, modifier) = name.split_once(':').map_or((name, None), |(c, m)| (c, Some(m)));
        let parameter = parameters::find(resource_type, code).ok_or(Misfit::Unknown)?;
        let token = parameter.kind == Kind::Token;
        let test = match modifier {
            Some("missing") => Test::Missing(flag(value)?),
            Some("not") if token => Test::Values(values(store, parameter, None, value)?, true),
            Some("not-in") if token => Test::Values(values(store, parameter, Some("in"), value)?, true),
            _ => Test::Values(values(store, parameter, modifier, value)?, false),
        };
        Ok(Criterion { code: parameter.code, kind: parameter.kind, test })
    }

    pub(super) fn all(parts: Vec<Criterion>) -> Criterion {
        whole(Test::All(parts))
    }

    pub(super) fn any(parts: Vec<Criterion>) -> Criterion {
        whole(Test::Any(parts))
    }

    pub(super) fn not(part: Criterion) -> Criterion {
        whole(Test::Not(Box::new(part)))
    }

    /// For `_filter`: the string `code` ends with `text`.
    pub(super) fn ends_with(resource_type: &str, code: &str, text: &str) -> Result<Criterion, Misfit> {
        let parameter = parameters::find(resource_type, code).ok_or(Misfit::Unknown)?;
        let test = Test::Values(vec![Value::Ends(text.to_lowercase())], false);
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
                terms.iter().any(|term| term.reference().is_some_and(|r| found.contains(&r)))
            }
            Test::OneOf(found) => found.contains(&format!("{resource_type}/{}", record.id)),
            Test::Words(wanted, narrative) => {
                let has = record.bytes().map(|bytes| wording::of(bytes, *narrative)).unwrap_or_default();
                wanted.iter().any(|word| has.contains(word.as_str()))
            }
            Test::All(parts) => parts.iter().all(|part| part.holds(resource_type, record)),
            Test::Any(parts) => parts.iter().any(|part| part.holds(resource_type, record)),
            Test::Not(part) => !part.holds(resource_type, record),
        }
    }

    /// When only records that refer to one of these can match: the `Type/id`s.
    pub(super) fn references(&self) -> Option<Vec<String>> {
        match &self.test {
            Test::Values(values, false) if self.kind == Kind::Reference => {
                values.iter().map(Value::reference).collect::<Option<Vec<_>>>()
            }
            Test::OneOf(found) if self.kind == Kind::Reference => Some(found.iter().cloned().collect()),
            Test::Values(..)
            | Test::Missing(_)
            | Test::OneOf(_)
            | Test::Words(..)
            | Test::All(_)
            | Test::Any(_)
            | Test::Not(_) => None,
        }
    }
}

/// A criterion about the record as a whole.
fn whole(test: Test) -> Criterion {
    Criterion { code: "_id", kind: Kind::Token, test }
}

fn flag(value: &str) -> Result<bool, Misfit> {
    value.parse().map_err(|_| Misfit::Invalid)
}

fn words(narrative: bool, value: &str) -> Criterion {
    let wanted = split(value, ',').into_iter().map(|text| unescape(&text).to_lowercase());
    whole(Test::Words(wanted.filter(|word| !word.is_empty()).collect(), narrative))
}

/// `_list=42`: what the entries of `List/42` refer to.
fn list(store: &Store, value: &str) -> Result<Criterion, Misfit> {
    // Functional lists (`$current-allergies`) are not kept here.
    if !super::is_id(value) {
        return Err(Misfit::Invalid);
    }
    let terms = store.find("List", value).map_or(&[] as &[Term], |list| list.terms.of("item"));
    Ok(whole(Test::OneOf(terms.iter().filter_map(Term::reference).collect())))
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
    let names: Vec<&str> = match target {
        Some(target) => vec![target],
        None if parameter.targets.is_empty() => store.types().map(|(name, _)| name).collect(),
        None => parameter.targets.clone(),
    };
    let mut found = BTreeSet::new();
    let mut refused = Some(Misfit::Unknown);
    for name in names {
        match Criterion::parse(store, name, rest, value) {
            Ok(inner) => {
                refused = None;
                let records = store.ward(name).map_or(&[] as &[Record], |ward| &ward.records);
                let hits = records.iter().filter(|r| r.bytes().is_some() && inner.holds(name, r));
                found.extend(hits.map(|record| format!("{name}/{}", record.id)));
            }
            // A value that one target cannot read makes no sense, if no other target can.
            Err(misfit) if refused == Some(Misfit::Unknown) => refused = Some(misfit),
            Err(_) => {}
        }
    }
    match refused {
        Some(misfit) => Err(misfit),
        None => Ok(Criterion { code: parameter.code, kind: Kind::Reference, test: Test::OneOf(found) }),
    }
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
            found.extend(record.terms.of(parameter.code).iter().filter_map(Term::reference));
        }
    }
    found.retain(|reference| reference.split_once('/').is_some_and(|(name, _)| name == resource_type));
    Ok(whole(Test::OneOf(found)))
}

/// Splits at marks that are not escaped (R4 search, "Escaping Search Parameters"); escapes stay.
fn split(value: &str, mark: char) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut escaped = false;
    for letter in value.chars() {
        if letter == mark && !escaped {
            out.push(String::new());
            continue;
        }
        escaped = letter == '\\' && !escaped;
        if let Some(last) = out.last_mut() {
            last.push(letter);
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for letter in text.chars() {
        escaped = letter == '\\' && !escaped;
        if !escaped {
            out.push(letter);
        }
    }
    out
}

fn values(
    store: &Store,
    parameter: &parameters::Parameter,
    modifier: Option<&str>,
    value: &str,
) -> Result<Vec<Value>, Misfit> {
    let read = |text: &String| match parameter.kind {
        Kind::Composite => composite(store, parameter, modifier, text),
        kind => read_value(store, kind, modifier, text),
    };
    split(value, ',').iter().filter(|text| !text.is_empty()).map(read).collect()
}

/// `code$value`: each part as its own kind.
fn composite(
    store: &Store,
    parameter: &parameters::Parameter,
    modifier: Option<&str>,
    text: &str,
) -> Result<Value, Misfit> {
    let parts = split(text, '$');
    if modifier.is_some() || parts.len() != parameter.components.len() {
        return Err(Misfit::Invalid);
    }
    let kinds = parameter.components.iter().map(|(kind, _)| *kind);
    let read = kinds.zip(&parts).map(|(kind, part)| read_value(store, kind, None, part));
    read.collect::<Result<_, _>>().map(Value::Composite)
}

fn read_value(store: &Store, kind: Kind, modifier: Option<&str>, text: &str) -> Result<Value, Misfit> {
    let plain = unescape(text);
    match (kind, modifier) {
        (Kind::Token, None) => Ok(token(text)),
        (Kind::Token, Some("text")) => Ok(Value::TokenText(plain.to_lowercase())),
        (Kind::Token, Some("of-type")) => of_type(text),
        (Kind::Token, Some("in" | "above" | "below")) => {
            terminology::codes(store, modifier.unwrap_or_default(), &plain)
                .map(Value::CodeIn)
                .ok_or(Misfit::Invalid)
        }
        (Kind::Text, None) => Ok(Value::Starts(plain.to_lowercase())),
        (Kind::Text, Some("contains" | "text")) => Ok(Value::Contains(plain.to_lowercase())),
        (Kind::Text, Some("exact")) => Ok(Value::Exact(plain)),
        (Kind::Date, None) => {
            let (prefix, rest) = prefix(&plain);
            date_range(rest).map(|(from, to)| Value::Date(prefix, from, to)).ok_or(Misfit::Invalid)
        }
        (Kind::Reference, None) => Ok(reference(&plain, None)),
        (Kind::Reference, Some("identifier")) => match token(text) {
            Value::Token { system, code } => Ok(Value::Logical { system, code }),
            _ => Err(Misfit::Invalid),
        },
        (Kind::Reference, Some("text")) => Ok(Value::Display(plain.to_lowercase())),
        (Kind::Reference, Some(name)) if super::is_type_name(name) => Ok(reference(&plain, Some(name))),
        (Kind::Quantity | Kind::Number, None) => quantity(text),
        (Kind::Uri, None) => Ok(Value::Uri(plain)),
        (Kind::Uri, Some("below")) => Ok(Value::UriBelow(plain)),
        (Kind::Uri, Some("above")) => Ok(Value::UriAbove(plain)),
        (Kind::Uri, Some("contains")) => Ok(Value::Contains(plain.to_lowercase())),
        (_, _) => Err(Misfit::Invalid),
    }
}

/// `code` (any system), `system|code`, `|code` (no system), `system|` (any code).
fn token(text: &str) -> Value {
    let parts = split(text, '|');
    let part = |at: usize| parts.get(at).map(|part| unescape(part));
    match (part(0), part(1)) {
        (code, None) => Value::Token { system: None, code },
        (system, Some(code)) => Value::Token { system, code: (!code.is_empty()).then_some(code) },
    }
}

/// `type-system|type-code|value`
fn of_type(text: &str) -> Result<Value, Misfit> {
    let parts: Vec<String> = split(text, '|').iter().map(|part| unescape(part)).collect();
    let [system, code, value] = parts.as_slice() else { return Err(Misfit::Invalid) };
    Ok(Value::OfType(system.clone(), code.clone(), value.clone()))
}

fn reference(text: &str, wanted: Option<&str>) -> Value {
    let Term::Reference { resource_type, id, url } = parse_reference(text) else {
        return Value::Uri(text.to_owned());
    };
    Value::Reference { resource_type: wanted.map(str::to_owned).or(resource_type), id, url }
}

fn quantity(text: &str) -> Result<Value, Misfit> {
    let (prefix, rest) = prefix(text);
    let parts = split(rest, '|');
    let (low, high) = parts.first().and_then(|part| number_range(part)).ok_or(Misfit::Invalid)?;
    let part = |at: usize| parts.get(at).map(|part| unescape(part)).filter(|part| !part.is_empty());
    Ok(Value::Quantity(prefix, low, high, part(1), part(2)))
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
                token_fits(system, code, has_system, has)
            }
            (Self::Logical { system, code }, Term::Logical(has_system, has)) => {
                token_fits(system, code, has_system, has)
            }
            (Self::TokenText(text), Term::Token { code, text: true, .. }) => {
                code.to_lowercase().contains(text.as_str())
            }
            (Self::OfType(system, code, value), Term::Typed { kinds, value: has }) => {
                let typed = |(s, c): &(Option<String>, String)| s.as_ref() == Some(system) && c == code;
                value == has && kinds.iter().any(typed)
            }
            (Self::CodeIn(codes), Term::Token { system, code, text: false }) => {
                // A plain `code` element says no system.
                let said =
                    |(s, c): &(String, String)| c == code && system.as_ref().is_none_or(|has| has == s);
                codes.iter().any(said)
            }
            (Self::Starts(text), Term::Text(has)) => has.to_lowercase().starts_with(text.as_str()),
            (Self::Ends(text), Term::Text(has)) => has.to_lowercase().ends_with(text.as_str()),
            (Self::Contains(text), Term::Text(has) | Term::Uri(has)) => {
                has.to_lowercase().contains(text.as_str())
            }
            (Self::Exact(text), Term::Text(has)) => has == text,
            (Self::Display(text), Term::Display(has)) => has.to_lowercase().contains(text.as_str()),
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
            (Self::UriBelow(text), Term::Uri(has)) => has.starts_with(text.as_str()),
            (Self::UriAbove(text), Term::Uri(has)) => text.starts_with(has.as_str()),
            (Self::Composite(parts), Term::Composite(terms)) => {
                parts.iter().zip(terms).all(|(part, terms)| terms.iter().any(|term| part.fits(term)))
            }
            _ => false,
        }
    }

    fn reference(&self) -> Option<String> {
        let Self::Reference { resource_type, id, .. } = self else { return None };
        resource_type.as_ref().map(|name| format!("{name}/{id}"))
    }
}

fn token_fits(
    system: &Option<String>,
    code: &Option<String>,
    has_system: &Option<String>,
    has: &str,
) -> bool {
    let system_fits = system.as_ref().is_none_or(|s| has_system.as_deref().unwrap_or("") == s);
    system_fits && code.as_ref().is_none_or(|code| code == has)
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
