//! The encoding against the decision: what a question says of a request is what the gate decides of it.

use super::super::rehearsal::Rehearsal;
use super::super::relation::Relations;
use super::super::set::{Action, PolicySet};
use super::super::situation::Situation;
use super::super::source::Source;
use super::condition::{self as c, Given, known};
use super::invariant::read_invariants;
use super::place::{Place, lineages};
use super::prove::{Decisions, Numbers};
use super::question::Question;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, Request};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

const POLICIES: &str = r#"
@id("records") permit (principal in Role::"a", action in [Action::"read", Action::"export"], resource)
when { context.purpose == "TREAT" && (resource is FHIR::Patient || resource is FHIR::Observation) };
@id("own") permit (principal, action == Action::"read", resource)
when { context.relations.contains("self") };
@id("elements") permit (principal in Role::"a", action == Action::"disclose", resource in ElementGroup::"some")
when { context.purpose == "TREAT" };
@id("whole") permit (principal in Role::"b", action == Action::"disclose", resource)
when { resource in [FHIR::Element::"Patient", FHIR::Element::"Observation.value"] && !context.labels.contains("R") };
@id("extension") permit (principal in Role::"b", action == Action::"disclose", resource)
when { resource in FHIR::Element::"Patient.extension('http://x')" && resource != FHIR::Element::"Patient" };
@id("all") permit (principal in Role::"c", action, resource) unless { context.purpose == "NONE" };
@id("no-r") forbid (principal, action in Action::"view", resource)
when { !(principal in Role::"b" && context.purpose == "TREAT") && resource.labels.containsAny(["R", "V"]) };
@id("of-p1") forbid (principal, action, resource)
when { principal in Role::"d" && (resource in Patient::"p1" || resource in FHIR::Element::"Patient.name.family") };
@id("final") forbid (principal, action == Action::"read", resource is FHIR::Observation)
unless { resource.status == "final" || action == Action::"export" };
"#;
const GROUPS: &str = r#"
[groups]
some = ["Patient.name", "Patient.birthDate", "Observation.status", "Observation.value.value"]
"#;

static SET: LazyLock<Arc<PolicySet>> = LazyLock::new(|| {
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let set = PolicySet::load(&[source("p.cedar", POLICIES)], Some(&source("groups.toml", GROUPS)), None);
    Arc::new(set.unwrap_or_else(|problems| panic!("{problems:?}")))
});

/// One request and its record.
#[derive(Clone, Debug)]
struct Case {
    roles: BTreeSet<&'static str>,
    purpose: &'static str,
    own: bool,
    labels: BTreeSet<&'static str>,
    patients: BTreeSet<&'static str>,
    status: &'static str,
    resource: &'static str,
    action: Action,
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<&'static str>> {
    proptest::sample::subsequence(of, 0..=of.len()).prop_map(|found| found.into_iter().collect())
}

fn cases() -> impl Strategy<Value = Case> {
    let who = (
        some(&["a", "b", "c", "d"]),
        proptest::sample::select(&["TREAT", "NONE", "HRESCH"][..]),
        any::<bool>(),
    );
    let what = (
        some(&["R", "V", "X"]),
        some(&["p1", "p2"]),
        proptest::sample::select(&["final", "registered"][..]),
        proptest::sample::select(&["Patient", "Observation", "Basic"][..]),
        proptest::sample::select(&[Action::Read, Action::Export, Action::Search, Action::Delete][..]),
    );
    (who, what).prop_map(|((roles, purpose, own), (labels, patients, status, resource, action))| Case {
        roles,
        purpose,
        own: own && patients.contains("p1") && patients.len() == 1 && resource != "Patient",
        labels,
        patients,
        status,
        resource,
        action,
    })
}

impl Case {
    fn place(&self) -> Place {
        let resource = ResourceType::from_name(self.resource).unwrap();
        Place { person: true, action: self.action, resource }
    }

    /// What the gate decides: permitted at all, and which elements pass.
    fn decided(&self) -> Option<Arc<crate::domain::fhir::mask::Mask>> {
        let roles: Vec<&str> = self.roles.iter().copied().collect();
        let mut situation = Situation::rehearsal(&roles, self.purpose);
        if self.own {
            situation = situation.with_fhir_user("Patient/p1");
        }
        let mut facts = Facts::of_type(self.place().resource);
        facts.id = Some("r".to_owned());
        facts.labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        facts.patients = self.patients.iter().map(|id| (*id).to_owned()).collect();
        facts.status = Some(self.status.to_owned());
        let trial = Rehearsal::new(&SET, &situation).judge(self.action.name(), &facts, &Relations::none());
        trial.unwrap().outcome.ok().map(|disclosure| Arc::clone(disclosure.mask()))
    }

    /// What a condition says of it, by Cedar's own evaluator.
    fn holds(&self, condition: &c::Condition) -> bool {
        let words = &SET.vocabulary;
        let environment = self.place().environment(words).unwrap();
        let question = Question::new(condition, environment.clone()).unwrap();
        let uid = |kind: &str, id: &str| json!({ "type": kind, "id": id });
        let kind = format!("FHIR::{}", self.resource);
        let has = words.record(self.place().resource).unwrap().1;
        let subjects: Vec<_> =
            self.patients.iter().map(|id| json!({ "__entity": uid("Subject", id) })).collect();
        let mut attributes =
            json!({ "id": "r", "patients": subjects, "mentions": [], "labels": self.labels });
        for (name, has, value) in [
            ("status", has.status, json!(self.status)),
            ("category", has.category, json!([])),
            ("code", has.code, json!([])),
        ] {
            if has {
                attributes[name] = value;
            }
        }
        let roles: Vec<_> = self.roles.iter().map(|role| uid("Role", role)).collect();
        let parents: Vec<_> = self.patients.iter().map(|id| uid("Subject", id)).collect();
        let entities = json!([
            { "uid": uid("User", "u"), "attrs": { "issuer": "i", "subject": "u" }, "parents": roles },
            { "uid": uid(&kind, "r"), "attrs": attributes, "parents": parents },
        ]);
        let relations: Vec<&str> = if self.own { vec!["self"] } else { Vec::new() };
        let context = json!({
            "purpose": self.purpose, "mfa": { "methods": ["mfa"], "age": 60, "phishingResistant": true },
            "scopes": [], "application": "", "binding": "none", "relations": relations, "emergency": false,
            "network": "127.0.0.1", "now": "1970-01-01",
        });
        let context = Context::from_json_value(context, Some((&words.schema, environment.action()))).unwrap();
        let entities = Entities::from_json_value(entities, Some(&words.schema)).unwrap();
        let principal: EntityUid = "User::\"u\"".parse().unwrap();
        let resource: EntityUid = format!("{kind}::\"r\"").parse().unwrap();
        let request =
            Request::new(principal, environment.action().clone(), resource, context, Some(&words.schema));
        let policies = cedar_policy::PolicySet::from_policies([question.policy]).unwrap();
        let answer = Authorizer::new().is_authorized(&request.unwrap(), &policies, &entities);
        assert_eq!(answer.diagnostics().errors().count(), 0);
        answer.decision() == Decision::Allow
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// For the record and for every element that the set tells apart, own extensions included.
    #[test]
    fn a_question_says_what_the_gate_decides(case in cases()) {
        let (mut decisions, mut numbers) = (Decisions::of(&SET), Numbers::default());
        let place = case.place();
        let mask = case.decided();
        let record = case.holds(&decisions.at(place, None, &mut numbers).condition);
        if place.action.elements().is_none() {
            prop_assert_eq!(record, mask.is_some());
        }
        let mut some = false;
        let more = [ElementPath::parse("Patient.gender").unwrap(), ElementPath::parse("Basic.code.text").unwrap()];
        let lines = if place.action.elements().is_some() { lineages(&[&SET], &more, place.resource) } else { Vec::new() };
        for lineage in lines {
            let passes = case.holds(&decisions.at(place, Some(&lineage), &mut numbers).condition);
            some |= record && passes;
            if let Some(mask) = &mask {
                prop_assert_eq!(passes, mask.covers(&lineage.stands_for), "{} ({})", lineage.path, lineage.stands_for);
            }
        }
        if place.action.elements().is_some() {
            prop_assert_eq!(some, mask.is_some());
        }
    }

    /// What is given may be left out, and nothing else.
    #[test]
    fn what_is_given_changes_nothing(case in cases()) {
        let decisions = Decisions::of(&SET);
        let place = case.place();
        for rule in &decisions.conditions.rules {
            let given = decisions.conditions.fold_at(&rule.condition, place, None);
            let decided = decisions.conditions.decision(place, None);
            let simpler = Given::by(&given).apply(&decided);
            let both = c::both(Arc::clone(&given), Arc::clone(&decided));
            prop_assert_eq!(case.holds(&both), case.holds(&c::both(given, simpler)));
        }
    }
}

/// Each slip in an invariant, and what it is told.
#[test]
fn slips_in_invariants_are_problems() {
    let read = |text: &str| {
        let source = Source { name: "i.cedar".to_owned(), text: text.to_owned() };
        let groups = Source { name: "groups.toml".to_owned(), text: GROUPS.to_owned() };
        read_invariants(&[source], Some(&groups))
    };
    let whole = "@id(\"i\") @says(\"s\") @ground(\"g\") @must(\"never\")\nforbid (principal in Role::\"a\", \
                 action == Action::\"disclose\", resource in ElementGroup::\"some\");";
    assert_eq!(read(whole).unwrap().len(), 1);
    for (from, to, expected) in [
        ("@must(\"never\")", "", "@must"),
        ("@must(\"never\")", "@must(\"sometimes\")", "@must"),
        ("@must(\"never\")", "@must(\"always\")", "do not go together"),
        ("@says(\"s\")", "", "@says"),
        ("@ground(\"g\")", "@ground(\" \")", "@ground"),
        ("@id(\"i\")", "", "@id"),
        ("\"some\"", "\"sum\"", "unknown element group"),
        ("ElementGroup::\"some\"", "FHIR::Element::\"Patient.nam\"", "nam"),
        ("\"disclose\"", "\"disclos\"", "disclos"),
        (";", " when { context.purpos == \"x\" };", "purpos"),
    ] {
        let problems = read(&whole.replacen(from, to, 1)).unwrap_err();
        let told = problems.iter().any(|one| one.message.contains(expected) && one.file == "i.cedar");
        assert!(told, "{to}: {problems:?}");
    }
    // Among the policies it would be one.
    let source = Source { name: "p.cedar".to_owned(), text: whole.replace("forbid", "permit") };
    let groups = Source { name: "groups.toml".to_owned(), text: GROUPS.to_owned() };
    let problems = PolicySet::load(&[source], Some(&groups), None).unwrap_err();
    assert!(problems.iter().any(|one| one.message.contains("makes this an invariant")), "{problems:?}");
}

/// A fold is certain or it leaves the question open.
#[test]
fn folding_is_certain_or_open() {
    let set = &*SET;
    let conditions = super::place::Conditions::of(set);
    let places: BTreeMap<&str, Option<bool>> = [("Basic", Some(false)), ("Patient", None)].into();
    for (name, expected) in places {
        let resource = ResourceType::from_name(name).unwrap();
        let place = Place { person: true, action: Action::Read, resource };
        let rule = conditions.rules.iter().find(|rule| rule.id == "records").unwrap();
        assert_eq!(known(&conditions.fold_at(&rule.condition, place, None)), expected, "{name}");
    }
}
