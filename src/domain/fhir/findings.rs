//! What the EMR found while validating a body, in our own words.
//!
//! Owns: which issues of an `OperationOutcome` are passed on, and what of each.
//! Must never: pass text of the EMR's on (T-161), or tell whether a record exists that the body refers to: issues about
//! references, and those of codes that speak of other records, are left out.
//! Look next: `outcome`, the shape of refusals; `gateway::operation`, which asks the EMR.

use serde_json::{Map, Value, json};

use super::r4::{ElementPath, ResourceType};
use crate::limits::{ELEMENT_PATH_BYTES_MAX, FINDINGS_MAX};

/// R4's issue types that are about the content of the body alone.
const ABOUT_CONTENT: [&str; 10] = [
    "invalid",
    "structure",
    "required",
    "value",
    "invariant",
    "code-invalid",
    "extension",
    "too-long",
    "not-supported",
    "informational",
];
/// About anything: passed on only with an element of the body's type.
const PROCESSING: &str = "processing";
const SEVERITIES: [&str; 4] = ["fatal", "error", "warning", "information"];

/// The `OperationOutcome` that a client hears for the EMR's own, about a body of type `resource`. `None` if `emr` is
/// not an `OperationOutcome` as JSON. At most `FINDINGS_MAX` issues.
#[must_use]
pub fn restate(resource: ResourceType, emr: &[u8]) -> Option<Vec<u8>> {
    let outcome: Value = serde_json::from_slice(emr).ok()?;
    if outcome.get("resourceType")?.as_str()? != "OperationOutcome" {
        return None;
    }
    let issues = outcome.get("issue")?.as_array()?;
    let mut said: Vec<Value> =
        issues.iter().filter_map(|issue| said_of(resource, issue)).take(FINDINGS_MAX).collect();
    if said.is_empty() {
        said.push(json!({ "severity": "information", "code": "informational" }));
    }
    Some(json!({ "resourceType": "OperationOutcome", "issue": said }).to_string().into_bytes())
}

/// Severity, code and places; nothing for an issue that is not to be told.
fn said_of(resource: ResourceType, issue: &Value) -> Option<Value> {
    let member = |name: &str| issue.get(name).and_then(Value::as_str);
    let severity = SEVERITIES.into_iter().find(|known| Some(*known) == member("severity"))?;
    let content = ABOUT_CONTENT.into_iter().find(|known| Some(*known) == member("code"));
    let code = content.or_else(|| (member("code") == Some(PROCESSING)).then_some(PROCESSING))?;
    let named: Vec<&Value> = ["expression", "location"]
        .into_iter()
        .filter_map(|name| issue.get(name)?.as_array())
        .find(|list| !list.is_empty())
        .into_iter()
        .flatten()
        .collect();
    let places: Vec<&str> =
        named.iter().filter_map(|place| place.as_str()).filter(|place| is_plain(resource, place)).collect();
    if places.iter().any(|place| is_reference(place)) || (code == PROCESSING && places.is_empty()) {
        return None;
    }
    let mut said = Map::new();
    said.insert("severity".to_owned(), json!(severity));
    said.insert("code".to_owned(), json!(code));
    if !places.is_empty() {
        said.insert("expression".to_owned(), json!(places));
    }
    Some(Value::Object(said))
}

/// An element path of R4, with nothing but indices added: `Observation.component[1].code`. Such a path is from the
/// specification; anything else could hold a value.
fn is_plain(resource: ResourceType, place: &str) -> bool {
    let bare = without_indices(place);
    let path = bare.and_then(|bare| ElementPath::parse(&bare).ok());
    path.is_some_and(|path| path.resource_type() == resource && path.extension_url().is_none())
}

/// The path without `[n]`; `None` if anything else stands in brackets or parentheses.
fn without_indices(place: &str) -> Option<String> {
    if place.len() > ELEMENT_PATH_BYTES_MAX || place.contains('(') {
        return None;
    }
    let mut bare = String::new();
    let mut rest = place;
    while let Some((before, after)) = rest.split_once('[') {
        let (index, after) = after.split_once(']')?;
        if index.is_empty() || index.len() > 4 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        bare.push_str(before);
        rest = after;
    }
    bare.push_str(rest);
    Some(bare)
}

/// The element, or one above it, is a reference to another record.
fn is_reference(place: &str) -> bool {
    let bare = without_indices(place).unwrap_or_default();
    let mut above = bare.as_str();
    loop {
        if ElementPath::parse(&format!("{above}.reference")).is_ok() {
            return true;
        }
        match above.rsplit_once('.') {
            Some((upper, _)) => above = upper,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(issue: Value, said: Option<Value>) {
        let emr = json!({ "resourceType": "OperationOutcome", "issue": [issue] }).to_string();
        let observation = ResourceType::from_name("Observation").unwrap();
        let text = String::from_utf8(restate(observation, emr.as_bytes()).unwrap()).unwrap();
        let _valid: fhirkit::r4::OperationOutcome = fhirkit::from_json_strict(&text).unwrap();
        let heard: Value = serde_json::from_str(&text).unwrap();
        let nothing = json!({ "severity": "information", "code": "informational" });
        assert_eq!(heard["issue"], json!([said.unwrap_or(nothing)]), "{emr}");
    }

    #[test]
    fn only_fixed_words_and_official_paths_are_passed_on() {
        check(
            json!({"severity": "error", "code": "required", "diagnostics": "CANARY", "details": {"text": "CANARY"},
                   "expression": ["Observation.status", "Observation.component[1].code", "Observation.code='CANARY'"]}),
            Some(json!({"severity": "error", "code": "required",
                        "expression": ["Observation.status", "Observation.component[1].code"]})),
        );
        let bare = Some(json!({"severity": "warning", "code": "value"}));
        for odd in
            ["CANARY", "Patient.name", "Observation.code.where(text='CANARY')", "Observation.value[CANARY]"]
        {
            check(json!({"severity": "warning", "code": "value", "location": [odd]}), bare.clone());
        }
    }

    #[test]
    fn what_speaks_of_other_records_is_not_told() {
        for code in
            ["not-found", "duplicate", "multiple-matches", "conflict", "security", "processing", "CANARY"]
        {
            check(json!({"severity": "error", "code": code, "diagnostics": "Patient/p9 is unknown"}), None);
        }
        for place in
            ["Observation.subject", "Observation.subject.reference", "Observation.hasMember[0].display"]
        {
            check(json!({"severity": "error", "code": "invalid", "expression": [place]}), None);
        }
        check(
            json!({"severity": "error", "code": "processing", "expression": ["Observation.code"]}),
            Some(json!({"severity": "error", "code": "processing", "expression": ["Observation.code"]})),
        );
    }

    #[test]
    fn anything_else_is_no_finding() {
        let observation = ResourceType::from_name("Observation").unwrap();
        for body in
            ["", "{}", "[]", r#"{"resourceType":"Patient"}"#, r#"{"resourceType":"OperationOutcome"}"#]
        {
            assert!(restate(observation, body.as_bytes()).is_none(), "{body}");
        }
    }
}
