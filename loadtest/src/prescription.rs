//! What a script may let out of an answer, written down so that it needs to know nothing of policies.
//!
//! Owns: the translation of the library's decisions into a tree of JSON keys for each type, found by asking the permit about
//! made-up records: one without a label, one with each label that a policy names, one of the caller's own and one of nobody's.
//! Must never: let out more than the permit does. What depends on more of a record than this is withheld.
//! Look next: `authorize`, which gives it out; `nginx-authz.lua`, which does as it says.

use crate::stages::Judged;
use chartgate::domain::access::{Permit, Source};
use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::r4::{self, ResourceType, Structure};
use chartgate::domain::identity::Caller;
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The patient that a caller is.
pub(crate) struct Owner {
    pub(crate) id: String,
}

impl Owner {
    /// `None` for staff.
    pub(crate) fn of(caller: &Caller) -> Option<Self> {
        let id = caller.fhir_user()?.strip_prefix("Patient/")?;
        Some(Self { id: id.to_owned() })
    }
}

/// Every label that a policy names: the texts in the list after `labels.containsAny(`.
pub(crate) fn labels(sources: &[Source]) -> Vec<String> {
    let mut labels = BTreeSet::new();
    for source in sources {
        for after in source.text.split("labels.contains").skip(1) {
            let list = after.split(')').next().unwrap_or_default();
            labels.extend(list.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    labels.into_iter().collect()
}

/// Everything that a prescription depends on, as text: two callers with the same have the same one.
pub(crate) fn key(judged: &Judged) -> String {
    let (caller, permit) = (&judged.caller, &judged.permit);
    let types: Vec<&str> = permit.types().into_iter().map(ResourceType::name).collect();
    let own = Owner::of(caller);
    let is_own = own.as_ref().is_some_and(|own| judged.id() == Some(own.id.as_str()));
    format!(
        "{:?} {} {} {:?} {types:?} {} {is_own} {}",
        caller.roles(),
        permit.purpose(),
        judged.interaction.code(),
        caller.scopes(),
        own.is_some(),
        permit.policy_hash(),
    )
}

/// Whether there is any answer, as far as it can be told before the upstream is asked: what one patient's
/// whole record rests on.
///
/// # Errors
/// The status of a refusal.
pub(crate) fn may_be_asked(permit: &Permit) -> Result<(), StatusCode> {
    let Some((resource, id)) = permit.basis() else { return Ok(()) };
    let facts = record(resource, id, Some(id));
    permit.rests_on(&facts).map_err(|_| StatusCode::NOT_FOUND)
}

/// What may leave of each type: a tree of JSON keys (`true`: all of it), labels that keep a record here, whether only the
/// caller's own may leave; and whose names references must not carry.
pub(crate) fn of(
    judged: &Judged,
    own: Option<&Owner>,
    labels: &[String],
    upstream: &str,
    public: &str,
) -> Value {
    let permit = &judged.permit;
    let mut types = Map::new();
    for resource in permit.types() {
        if let Some(prescribed) = of_type(judged, resource, own, labels) {
            types.insert(resource.name().to_owned(), prescribed);
        }
    }
    let names =
        |types: &BTreeSet<ResourceType>| -> Vec<&str> { types.iter().map(|one| one.name()).collect() };
    json!({
        "types": types,
        "hideDisplay": names(permit.hidden_names()),
        "hideIdentifier": names(permit.hidden_identifiers()),
        "upstream": upstream,
        "public": public,
    })
}

fn of_type(judged: &Judged, resource: ResourceType, own: Option<&Owner>, labels: &[String]) -> Option<Value> {
    let id = judged.id().unwrap_or("x");
    let mask = |patient: Option<&str>, label: Option<&str>| {
        let mut facts = record(resource, id, patient);
        if let Some(label) = label {
            facts.labels.insert(label.to_owned());
        }
        judged.permit.record(&facts, None).ok().map(|disclosure| disclosure.mask().kept())
    };
    let of_anybody = mask(None, None);
    // Somebody's own record has that patient's id; of another's type it does not matter.
    let own = own.map(|own| own.id.as_str()).filter(|_| of_anybody.is_none());
    let kept = of_anybody.or_else(|| mask(Some(own?), None))?;
    let stays = |label: &&String| mask(own, Some(label)).as_ref() != Some(&kept);
    Some(json!({
        "keep": tree(resource, &kept),
        "labels": labels.iter().filter(stays).collect::<Vec<_>>(),
        "own": own.is_some(),
    }))
}

fn record(resource: ResourceType, id: &str, patient: Option<&str>) -> Facts {
    let mut facts = Facts::of_type(resource);
    facts.id = Some(id.to_owned());
    // None that a policy could mean.
    facts.status = Some("x".to_owned());
    if let Some(patient) = patient {
        facts.patients.insert(patient.to_owned());
    }
    facts
}

/// Paths as [`Mask::kept`] lists them, as a tree of the JSON keys that they stand for.
fn tree(resource: ResourceType, kept: &[String]) -> Value {
    let mut root = Value::Object(Map::new());
    for path in kept {
        let (elements, url) = match path.split_once(".extension('") {
            Some((elements, rest)) => (elements, rest.strip_suffix("')")),
            None => (path.as_str(), None),
        };
        let names: Vec<&str> = elements.split('.').skip(1).collect();
        grow(&mut root, &[r4::root(resource)], &names, url);
    }
    root
}

/// A choice stands for one key for each of its types.
fn grow(node: &mut Value, structures: &[Structure], names: &[&str], url: Option<&str>) {
    let Some((name, rest)) = names.split_first() else {
        match url {
            Some(url) => put(child(child(node, "extension"), "@urls"), url),
            None => *node = Value::Bool(true),
        }
        return;
    };
    let found = structures.iter().flat_map(|one| r4::elements(*one)).filter(|element| element.name == *name);
    for element in found {
        for structure in element.types {
            let key =
                if element.choice { choice_key(name, r4::type_name(*structure)) } else { (*name).to_owned() };
            grow(child(node, &key), &[*structure], rest, url);
        }
    }
}

fn put(node: &mut Value, key: &str) {
    *child(node, key) = Value::Bool(true);
}

fn child<'v>(node: &'v mut Value, key: &str) -> &'v mut Value {
    // What is kept whole stays whole.
    if let Value::Object(children) = node {
        return children.entry(key).or_insert_with(|| Value::Object(Map::new()));
    }
    node
}

fn choice_key(name: &str, type_name: &str) -> String {
    let mut letters = type_name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    name.chars().chain(first).chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_keys() {
        let tree = |name: &str, kept: &[&str]| {
            let kept: Vec<String> = kept.iter().map(|path| (*path).to_owned()).collect();
            tree(ResourceType::from_name(name).unwrap(), &kept)
        };
        let patient = tree(
            "Patient",
            &["Patient.id", "Patient.name.family", "Patient.deceased", "Patient.extension('http://a.b/c')"],
        );
        let expected = json!({
            "id": true,
            "name": {"family": true},
            "deceasedBoolean": true,
            "deceasedDateTime": true,
            "extension": {"@urls": {"http://a.b/c": true}},
        });
        assert_eq!(patient, expected);
        assert_eq!(tree("Observation", &["Observation"]), json!(true));
        let within = tree("Observation", &["Observation.component.value"]);
        assert_eq!(within["component"]["valueQuantity"], true);
        assert_eq!(tree("Patient", &[]), json!({}));
    }

    #[test]
    fn labels_are_those_that_policies_name() {
        let text = r#"forbid (principal, action, resource) when { resource.labels.containsAny(["R", "V"])
            && resource.labels.contains("HIV") && context.relations.contains("self")
            && resource.category.containsAny(["acd"]) };"#;
        let source = Source { name: "x.cedar".to_owned(), text: text.to_owned() };
        assert_eq!(labels(&[source]), ["HIV", "R", "V"]);
    }
}
