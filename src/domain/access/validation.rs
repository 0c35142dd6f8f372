//! Strict validation of policies against the schema, each in the situations that it can tell apart.
//!
//! Cedar reads a policy once for each action, kind of principal and type of record, some 3,000 times. Most of these
//! readings are the same one again: an action that the scope does not name ends each of them at once, and types of
//! records with the same attributes differ only for a policy that names one of them.
//! Owns: which readings are left out. Must never: leave out one that alone could find something, or tell a finding in
//! other words than the whole schema does: a policy about which anything is found is read against all of it.
//! Look next: `load`, which asks; docs/performance.md, what it is for.

use super::lint::{Lint, LintName};
use super::load::{Written, internal, located};
use super::set::{Action, Vocabulary};
use super::source::Problem;
use crate::domain::fhir::r4::ResourceType;
use cedar_policy::ffi::DetailedError;
use cedar_policy::{PolicyId, ResourceConstraint, Schema};
use cedar_policy::{ValidationError, ValidationMode, ValidationResult, ValidationWarning, Validator};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Strict validation. Errors are problems; warnings are returned.
pub(super) fn validate(
    written: &[Written<'_>],
    vocabulary: &Vocabulary,
    problems: &mut Vec<Problem>,
) -> Vec<Lint> {
    let doubtful = doubtful(written, vocabulary);
    let Some(outcome) = outcome(&vocabulary.schema, doubtful.values().copied()) else {
        problems.push(internal("the policies cannot be put into one set"));
        return Vec::new();
    };
    let place = |id: &PolicyId, error: &DetailedError| match doubtful.get(id) {
        Some(policy) => located(policy.source, policy.statement.start, error),
        None => internal(&error.message),
    };
    problems.extend(
        outcome.validation_errors().map(|e| kinder(e, place(e.policy_id(), &DetailedError::from(e)))),
    );
    let lint = |warning: &ValidationWarning| Lint {
        problem: place(warning.policy_id(), &DetailedError::from(warning)),
        name: if matches!(warning, ValidationWarning::ImpossiblePolicy(_)) {
            LintName::NeverApplies
        } else {
            LintName::Cedar
        },
        policy: Some(warning.policy_id().to_string()),
    };
    outcome.validation_warnings().map(lint).collect()
}

/// `None` if two policies have one id.
fn outcome<'w>(schema: &Schema, written: impl Iterator<Item = &'w Written<'w>>) -> Option<ValidationResult> {
    let policies = cedar_policy::PolicySet::from_policies(written.map(|policy| policy.policy.clone()));
    Some(Validator::new(schema.clone()).validate(&policies.ok()?, ValidationMode::Strict))
}

/// The policies about which something may be found, by id: all but those that are without fault in their view.
fn doubtful<'w>(
    written: &'w [Written<'w>],
    vocabulary: &Vocabulary,
) -> BTreeMap<&'w PolicyId, &'w Written<'w>> {
    let mut by_view: BTreeMap<View, Vec<&Written<'_>>> = BTreeMap::new();
    for policy in written {
        by_view.entry(View::of(policy, vocabulary)).or_default().push(policy);
    }
    let mut doubtful: BTreeMap<_, _> = written.iter().map(|policy| (policy.policy.id(), policy)).collect();
    for (view, policies) in by_view {
        let schema = view.schema(vocabulary);
        let Some(found) = schema.and_then(|schema| outcome(&schema, policies.iter().copied())) else {
            continue;
        };
        let errors = found.validation_errors().map(ValidationError::policy_id);
        let found: BTreeSet<_> = errors.chain(found.validation_warnings().map(|w| w.policy_id())).collect();
        for sound in policies.iter().map(|policy| policy.policy.id()).filter(|id| !found.contains(id)) {
            doubtful.remove(sound);
        }
    }
    doubtful
}

/// What of the schema a policy can tell apart.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct View {
    /// The actions of its scope: under any other the scope is false, whatever else the policy says, and Cedar reads no
    /// further. (What it says of the principal comes before, and every action has the same principals.)
    actions: BTreeSet<Action>,
    /// The type of its scope: for any other the scope is false.
    only: Option<ResourceType>,
    /// Types whose names occur anywhere in its text. For types that it does not name and that have the same attributes
    /// it says the same: one of them stands for all.
    named: BTreeSet<ResourceType>,
}

impl View {
    fn of(written: &Written<'_>, vocabulary: &Vocabulary) -> Self {
        let constraint = written.policy.action_constraint();
        let covered = |action: &Action| vocabulary.covers(&constraint, *action);
        let actions: BTreeSet<Action> = Action::ALL.into_iter().filter(covered).collect();
        let only = match written.policy.resource_constraint() {
            ResourceConstraint::Is(name) | ResourceConstraint::IsIn(name, _) => {
                ResourceType::from_name(name.basename()).filter(|_| name.namespace() == "FHIR")
            }
            ResourceConstraint::Any | ResourceConstraint::In(_) | ResourceConstraint::Eq(_) => None,
        };
        let elements = actions.iter().all(|action| matches!(action, Action::Disclose | Action::Modify));
        let text = written.policy.to_string();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        // Elements are of one type; the names of records in their paths say nothing to Cedar.
        let named =
            if elements { BTreeSet::new() } else { words.filter_map(ResourceType::from_name).collect() };
        Self { actions, only, named }
    }

    /// The schema without what the policy cannot tell from what is left. All actions stay, and what is in what.
    fn schema(&self, vocabulary: &Vocabulary) -> Option<Schema> {
        let mut parts = vocabulary.parts.clone();
        // One that is named stands for itself alone.
        let not_named =
            |alike: &Vec<ResourceType>| alike.iter().find(|one| !self.named.contains(*one)).copied();
        let examples: BTreeSet<ResourceType> = match self.only {
            Some(_) => BTreeSet::new(),
            None => vocabulary.alike.iter().filter_map(not_named).collect(),
        };
        let is_kept = |name: &str| {
            ResourceType::from_name(name)
                .is_none_or(|resource| examples.contains(&resource) || self.named.contains(&resource))
        };
        let is_met = |name: &str| match name.strip_prefix("FHIR::").and_then(ResourceType::from_name) {
            Some(resource) => is_kept(resource.name()) && self.only.is_none_or(|only| only == resource),
            None => self.only.is_none(),
        };
        parts.pointer_mut("/FHIR/entityTypes")?.as_object_mut()?.retain(|name, _| is_kept(name));
        for (name, action) in parts.pointer_mut("//actions")?.as_object_mut()? {
            let Some(applies) = action.pointer_mut("/appliesTo/resourceTypes").and_then(Value::as_array_mut)
            else {
                continue;
            };
            let is_asked = self.actions.iter().any(|action| action.name() == name);
            applies.retain(|name| is_asked && name.as_str().is_some_and(is_met));
        }
        Schema::from_json_value(parts).ok()
    }
}

/// Types of records with the same attributes and groups, to which the same actions apply.
pub(super) fn alike(parts: &Value) -> Vec<Vec<ResourceType>> {
    let actions = parts.pointer("//actions").and_then(Value::as_object);
    let apply = |name: &str| -> Vec<&String> {
        let is =
            |applies: &Value| applies.as_str().and_then(|full| full.strip_prefix("FHIR::")) == Some(name);
        let with = |action: &Value| {
            let applies = action.pointer("/appliesTo/resourceTypes").and_then(Value::as_array);
            applies.is_some_and(|applies| applies.iter().any(is))
        };
        actions.into_iter().flatten().filter(|(_, action)| with(action)).map(|(name, _)| name).collect()
    };
    let mut alike: BTreeMap<_, Vec<ResourceType>> = BTreeMap::new();
    for (name, what) in parts.pointer("/FHIR/entityTypes").and_then(Value::as_object).into_iter().flatten() {
        if let Some(resource) = ResourceType::from_name(name) {
            alike.entry((what.to_string(), apply(name))).or_default().push(resource);
        }
    }
    alike.into_values().collect()
}

/// Cedar's words for the commonest slip, in ours (T-201, KF-42: two absent values are not equal).
fn kinder(error: &ValidationError, problem: Problem) -> Problem {
    let ValidationError::UnsafeOptionalAttributeAccess(_) = error else { return problem };
    let attribute = problem.message.rsplit("attribute `").next().and_then(|rest| rest.split('`').next());
    let Some(attribute) = attribute.map(str::to_owned) else { return problem };
    Problem { message: format!("`{attribute}` may be absent, and then this policy would fail"), ..problem }
        .with_hint(format!(
            "ask first: `resource has {attribute} && resource.{attribute} == …`, or `principal has …`"
        ))
}

#[cfg(test)]
mod tests {
    use super::super::load::{SCHEMA, parse};
    use super::super::source::Source;
    use super::*;

    const ACTIONS: [&str; 4] = [
        "action",
        "action in Action::\"view\"",
        "action in [Action::\"read\", Action::\"disclose\"]",
        "action == Action::\"disclose\"",
    ];

    const RESOURCES: [&str; 4] = [
        "resource",
        "resource is FHIR::Patient",
        "resource is FHIR::Patient in Patient::\"p\"",
        "resource in FHIR::Element::\"Patient.name\"",
    ];

    /// Sound for some of the above, at fault for others.
    const CONDITIONS: [&str; 13] = [
        "",
        "when { context.purpose == \"TREAT\" }",
        "when { context.labels.contains(\"V\") }",
        "when { context.operation == \"$everything\" }",
        "when { resource.status == \"final\" }",
        "when { resource has status && resource.status == \"final\" }",
        "when { resource is FHIR::Observation && resource.category.contains(\"vital-signs\") }",
        "when { resource is FHIR::Goal && resource.status == \"active\" }",
        "when { resource is FHIR::Library && resource.code.contains(\"a\") }",
        "when { resource == FHIR::Nothing::\"n\" }",
        "when { resource == FHIR::Account::\"a\" }",
        "when { resource is FHIR::Basic && resource is FHIR::Patient }",
        "unless { principal.fhirUser == \"Patient/p\" && action == Action::\"vread\" }",
    ];

    const PRINCIPALS: [&str; 3] =
        ["principal in Role::\"r\"", "principal is Application", "principal is User"];

    /// Conditions that are sound for one type of each kind and for no other.
    fn of_one_each(vocabulary: &Vocabulary) -> Vec<String> {
        let of = |one: fn(&Vec<ResourceType>) -> Option<&ResourceType>| {
            let tests = vocabulary.alike.iter().filter_map(one);
            let tests: String = tests.map(|one| format!("resource is FHIR::{} || ", one.name())).collect();
            format!("when {{ {tests}resource.nothing == 1 }}")
        };
        vec![of(|alike| alike.first()), of(|alike| alike.last())]
    }

    fn everything(vocabulary: &Vocabulary) -> String {
        let mut text = String::new();
        let more = of_one_each(vocabulary);
        for (at, condition) in CONDITIONS.into_iter().chain(more.iter().map(String::as_str)).enumerate() {
            for (turn, action) in ACTIONS.iter().enumerate() {
                for (other, resource) in RESOURCES.iter().enumerate() {
                    let principal = PRINCIPALS[(at + turn + other) % PRINCIPALS.len()];
                    text += &format!("permit({principal}, {action}, {resource}) {condition};\n");
                }
            }
        }
        text
    }

    /// Whatever the whole schema finds something about is found doubtful in fewer readings.
    #[test]
    fn fewer_readings_find_what_all_of_them_find() {
        let vocabulary = Vocabulary::new(SCHEMA).unwrap();
        let source = Source { name: "x.cedar".into(), text: everything(&vocabulary) };
        let mut problems = Vec::new();
        let written = parse(&[&source], &mut problems);
        assert_eq!(
            (written.len(), problems.len()),
            ((CONDITIONS.len() + 2) * ACTIONS.len() * RESOURCES.len(), 0)
        );
        let whole = outcome(&vocabulary.schema, written.iter()).unwrap();
        let errors = whole.validation_errors().map(ValidationError::policy_id);
        let expected: BTreeSet<_> =
            errors.chain(whole.validation_warnings().map(ValidationWarning::policy_id)).collect();
        let found: BTreeSet<_> = doubtful(&written, &vocabulary).into_keys().collect();
        let lines = |ids: &BTreeSet<&PolicyId>| -> Vec<String> {
            let one = |policy: &&Written<'_>| ids.contains(policy.policy.id());
            written.iter().filter(one).map(|policy| policy.policy.to_string()).collect()
        };
        assert_eq!(lines(&found), lines(&expected));
        assert!(10 < expected.len() && expected.len() + 10 < written.len(), "{}", expected.len());
    }

    /// What the schema holds so that these readings can be left out.
    #[test]
    fn the_schema_is_of_the_form_that_views_rest_on() {
        let vocabulary = Vocabulary::new(SCHEMA).unwrap();
        let actions = vocabulary.parts.pointer("//actions").unwrap().as_object().unwrap();
        let mut principals = BTreeSet::new();
        for action in actions.values().filter_map(|action| action.get("appliesTo")) {
            let is_group = action["resourceTypes"].as_array().is_none_or(Vec::is_empty);
            principals.extend((!is_group).then(|| action["principalTypes"].to_string()));
        }
        assert_eq!(principals.len(), 1, "every action has the same principals: {principals:?}");
        // No type of record holds another, or is an attribute: what is left out is named by nothing that stays.
        let types = vocabulary.parts.pointer("/FHIR/entityTypes").unwrap().as_object().unwrap();
        let text: String = types.values().map(Value::to_string).collect();
        for resource in ResourceType::all() {
            assert!(!text.contains(&format!("\"FHIR::{}\"", resource.name())), "{}", resource.name());
        }
        assert!((2..=20).contains(&vocabulary.alike.len()), "{:?}", vocabulary.alike);
    }
}
