//! The part of FHIRPath in which HL7 writes search parameters, read and walked over a record's JSON.
//!
//! Owns: steps (members, `as`, `where`, `extension`, `[n]`), choices (`value[x]`), alternatives (`|`).
//! Must never: guess: an expression that is not understood gives no path at all, and a test counts those.
//! Look next: `parameters`, which holds the expressions; `terms`, which reads what they find.

use serde_json::Value;

/// Types a choice element can end with; a member named `value` with the suffix of none of these is no choice.
const CHOICE_TYPES: &str = " Base64Binary Boolean Canonical Code Date DateTime Decimal Id Instant Integer Markdown Oid \
PositiveInt String Time UnsignedInt Uri Url Uuid Address Age Annotation Attachment CodeableConcept Coding ContactPoint \
Count Distance Duration HumanName Identifier Money Period Quantity Range Ratio Reference SampledData Signature Timing \
ContactDetail Contributor DataRequirement Expression ParameterDefinition RelatedArtifact TriggerDefinition UsageContext \
Dosage Meta ";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    /// `as(T)`, `ofType(T)`: of a choice, only this type.
    OfType(String),
    Extension(String),
    /// `where(member = 'value')`
    WhereEquals(String, String),
    /// `where(resolve() is T)`
    WhereRefersTo(String),
    WhereHasExtension(String),
    Nth(usize),
    /// `%resource`: from the record again.
    Record,
    /// `x.exists() and x != false`: true for anything but a false.
    Truth,
}

/// One parsed expression: alternatives of steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(Vec<Vec<Step>>);

/// A value on the way: with the type its member's name says, when it was a choice.
#[derive(Clone, Copy)]
struct Found<'v> {
    value: &'v Value,
    choice: Option<&'v str>,
}

impl Path {
    /// Reads an expression; `None` when a part of it is not understood. `base` is the type name it may begin with.
    pub(super) fn parse(text: &str, base: &str) -> Option<Path> {
        split(text, '|')
            .into_iter()
            .map(|part| alternative(part.trim(), base))
            .collect::<Option<_>>()
            .map(Path)
    }

    /// The values found from `from`, inside `record`.
    pub(super) fn find<'v>(&self, record: &'v Value, from: &'v Value) -> Vec<&'v Value> {
        let walk = |steps: &Vec<Step>| {
            let mut at = vec![Found { value: from, choice: None }];
            for step in steps {
                at = match step {
                    Step::Nth(number) => at.into_iter().skip(*number).take(1).collect(),
                    step => at.into_iter().flat_map(|found| follow(step, record, found)).collect(),
                };
            }
            at.into_iter().map(|found| found.value)
        };
        self.0.iter().flat_map(walk).collect()
    }
}

/// Splits at `mark` outside brackets and quotes.
fn split(text: &str, mark: char) -> Vec<&str> {
    let (mut depth, mut quoted, mut start, mut parts) = (0i32, false, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            '(' | '[' if !quoted => depth += 1,
            ')' | ']' if !quoted => depth -= 1,
            _ if letter == mark && depth == 0 && !quoted => {
                parts.extend(text.get(start..at));
                start = at + mark.len_utf8();
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

fn alternative(text: &str, base: &str) -> Option<Vec<Step>> {
    if let Some((path, _)) = text.split_once(".exists() and ") {
        let mut steps = alternative(path, base)?;
        steps.push(Step::Truth);
        return Some(steps);
    }
    let mut steps = Vec::new();
    for (at, part) in split(text, '.').into_iter().enumerate() {
        if at == 0 && (part == base || part == "Resource") {
            continue;
        }
        if let Some(inner) = part.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            steps.append(&mut cast(inner, base)?);
        } else {
            step(part, &mut steps)?;
        }
    }
    Some(steps)
}

/// `Observation.value as Quantity`
fn cast(text: &str, base: &str) -> Option<Vec<Step>> {
    let (path, name) = match text.split_once(" as ") {
        Some((path, name)) => (path, Some(name.trim())),
        None => (text, None),
    };
    let mut steps = alternative(path.trim(), base)?;
    steps.extend(name.map(|name| Step::OfType(name.to_owned())));
    Some(steps)
}

fn step(part: &str, steps: &mut Vec<Step>) -> Option<()> {
    let part = part.trim();
    if part == "%resource" {
        steps.push(Step::Record);
    } else if let Some((name, rest)) = part.split_once('[') {
        steps.push(Step::Member(name.to_owned()));
        steps.push(Step::Nth(rest.strip_suffix(']')?.parse().ok()?));
    } else if let Some((name, rest)) = part.split_once('(') {
        let inside = rest.strip_suffix(')')?.trim();
        steps.push(match name {
            "as" | "ofType" => Step::OfType(inside.to_owned()),
            "extension" => Step::Extension(inside.trim_matches('\'').to_owned()),
            "where" => condition(inside)?,
            _ => return None,
        });
    } else if part.bytes().all(|b| b.is_ascii_alphanumeric()) {
        steps.push(Step::Member(part.to_owned()));
    } else {
        return None;
    }
    Some(())
}

fn condition(text: &str) -> Option<Step> {
    if let Some(name) = text.strip_prefix("resolve() is ") {
        return Some(Step::WhereRefersTo(name.trim().to_owned()));
    }
    if let Some(url) = text.strip_prefix("hasExtension('") {
        return Some(Step::WhereHasExtension(url.strip_suffix("')")?.to_owned()));
    }
    let (member, value) = text.split_once('=')?;
    let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    Some(Step::WhereEquals(member.trim().to_owned(), value.to_owned()))
}

fn follow<'v>(step: &Step, record: &'v Value, found: Found<'v>) -> Vec<Found<'v>> {
    let keep = |kept: bool| if kept { vec![found] } else { Vec::new() };
    let value = found.value;
    match step {
        Step::Member(name) => members(value, name),
        Step::OfType(name) => {
            keep(found.choice.is_none_or(|choice| choice.eq_ignore_ascii_case(name.as_str())))
        }
        Step::Extension(url) => extensions(value, url).flat_map(|one| members(one, "value")).collect(),
        Step::WhereEquals(member, wanted) => keep(text_of(value, member) == Some(wanted)),
        Step::WhereRefersTo(name) => keep(refers_to(value, name)),
        Step::WhereHasExtension(url) => keep(extensions(value, url).next().is_some()),
        Step::Record => vec![Found { value: record, choice: None }],
        // `Nth` counts over the whole list, above.
        Step::Nth(_) | Step::Truth => keep(true),
    }
}

/// The values of a member: of `name` itself, or of the choice `name[x]`. Arrays are opened.
fn members<'v>(value: &'v Value, name: &str) -> Vec<Found<'v>> {
    let Value::Object(object) = value else { return Vec::new() };
    if let Some(direct) = object.get(name) {
        return opened(direct, None);
    }
    let choice = |(key, value): (&'v String, &'v Value)| {
        let suffix = key.strip_prefix(name)?;
        let known = !suffix.is_empty() && CHOICE_TYPES.contains(&format!(" {suffix} "));
        known.then(|| opened(value, Some(suffix)))
    };
    object.iter().find_map(choice).unwrap_or_default()
}

fn opened<'v>(value: &'v Value, choice: Option<&'v str>) -> Vec<Found<'v>> {
    match value {
        Value::Array(items) => items.iter().map(|value| Found { value, choice }).collect(),
        Value::Null => Vec::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            vec![Found { value, choice }]
        }
    }
}

fn extensions<'v>(value: &'v Value, url: &str) -> impl Iterator<Item = &'v Value> {
    let items = value.get("extension").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    items.iter().filter(move |one| text_of(one, "url") == Some(url))
}

fn refers_to(value: &Value, name: &str) -> bool {
    let reference = value.as_str().or_else(|| text_of(value, "reference"));
    let by_url = |text: &str| {
        let plain = text.split_once("/_history/").map_or(text, |(before, _)| before);
        plain.rsplit('/').nth(1).is_none_or(|step| !super::is_type_name(step) || step == name)
    };
    match (text_of(value, "type"), reference) {
        (Some(kind), _) => kind == name,
        (None, Some(reference)) => by_url(reference),
        (None, None) => true,
    }
}

fn text_of<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}
