//! What Consents come to: cases as data, and laws.

use super::super::relation::{Evidence, Held, Relation, Relations};
use super::super::situation::{About, Situation};
use super::*;
use crate::domain::fhir::r4::ResourceType;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const BASE: &str = "https://emr.test/fhir";

fn now() -> Timestamp {
    "2026-03-10T12:00:00Z".parse().unwrap()
}

/// An active Consent about privacy with this root.
fn consent(provision: Value) -> Value {
    json!({"resourceType": "Consent", "id": "c", "status": "active",
        "scope": coded("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"),
        "category": [{"text": "privacy"}], "patient": {"reference": "Patient/p1"}, "provision": provision})
}

fn coded(system: &str, code: &str) -> Value {
    json!({"coding": [coding(system, code)]})
}

fn coding(system: &str, code: &str) -> Value {
    json!({"system": system, "code": code})
}

fn act(code: &str) -> Value {
    coded("http://terminology.hl7.org/CodeSystem/v3-ActCode", code)
}

fn purpose(code: &str) -> Value {
    json!([coding("http://terminology.hl7.org/CodeSystem/v3-ActReason", code)])
}

fn label(code: &str) -> Value {
    json!([coding("http://terminology.hl7.org/CodeSystem/v3-Confidentiality", code)])
}

fn action_of(code: &str) -> Value {
    json!([coded("http://terminology.hl7.org/CodeSystem/consentaction", code)])
}

fn actor_of(name: &str) -> Value {
    json!([{"role": coded("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "PRCP"),
        "reference": {"reference": name}}])
}

fn class_of(name: &str) -> Value {
    json!([coding("http://hl7.org/fhir/resource-types", name)])
}

fn data_of(meaning: &str, name: &str) -> Value {
    json!([{"meaning": meaning, "reference": {"reference": name}}])
}

fn with(mut record: Value, member: &str, value: Value) -> Value {
    record[member] = value;
    record
}

fn directive(record: &Value) -> Directive {
    match Reading::of(record.to_string().as_bytes(), BASE) {
        Reading::Of(patient, directive) => {
            assert_eq!(patient, "p1");
            directive
        }
        other => panic!("{other:?}: {record}"),
    }
}

fn party() -> Party {
    let mut party = Party::new("Practitioner/n1").unwrap();
    let role = json!({"resourceType": "PractitionerRole", "id": "r1", "active": true,
        "practitioner": {"reference": "Practitioner/n1"}, "organization": {"reference": "Organization/o1"}});
    party.take_on(&Evidence::read(role.to_string().as_bytes()).unwrap(), BASE, now());
    party
}

/// An Observation of a heart rate, as the EMR holds it.
fn facts() -> Facts {
    let mut facts = Facts::of_type(ResourceType::from_name("Observation").unwrap());
    facts.id = Some("o1".to_owned());
    facts.code = ["8867-4", "http://loinc.org|8867-4"].map(str::to_owned).into_iter().collect();
    facts.labels = ["N", "http://terminology.hl7.org/CodeSystem/v3-Confidentiality|N"]
        .map(str::to_owned)
        .into_iter()
        .collect();
    facts
}

/// A nurse who reads it for treatment, unless `change` has it otherwise.
fn weigh(records: &[Value], change: impl Fn(&mut Asked<'_>)) -> Weight {
    let (facts, party) = (facts(), party());
    let directives = Directives::new(records.iter().map(directive).collect()).unwrap();
    let mut asked = Asked {
        action: Action::Read,
        purpose: "TREAT",
        reference: Some("Observation/o1"),
        facts: &facts,
        user: Some("Practitioner/n1"),
        party: Some(&party),
        now: now(),
    };
    change(&mut asked);
    directives.weigh(&asked)
}

const DENIES: Weight = Weight { objects: true, permits: false };
const SILENT: Weight = Weight { objects: false, permits: false };
const PERMITS: Weight = Weight { objects: false, permits: true };

fn check(name: &str, record: &Value, expected: Weight) {
    assert_eq!(weigh(std::slice::from_ref(record), |_| {}), expected, "{name}: {record}");
}

#[test]
fn the_base_rule_is_at_the_root_or_in_the_policy() {
    let bare = |rule: &str| {
        let mut record = with(consent(json!(null)), "policyRule", act(rule));
        record.as_object_mut().unwrap().remove("provision");
        record
    };
    for (name, record, expected) in [
        ("permit", consent(json!({"type": "permit"})), PERMITS),
        ("deny", consent(json!({"type": "deny"})), DENIES),
        ("opt in", bare("OPTIN"), PERMITS),
        ("opt out", bare("OPTOUT"), DENIES),
        ("opt out with exceptions", bare("OPTOUTE"), DENIES),
        ("in emergencies only", bare("EMRGONLY"), DENIES),
        ("opt in with restrictions", bare("OPTINR"), SILENT),
        ("some law", bare("hipaa-auth"), SILENT),
        (
            "opt out of another system",
            with(bare("x"), "policyRule", coded("https://x.test", "OPTOUT")),
            DENIES,
        ),
        ("opt in of another system", with(bare("x"), "policyRule", coded("https://x.test", "OPTIN")), SILENT),
        ("nothing", consent(json!({"period": {"start": "2020"}})), SILENT),
        ("in, then out", with(consent(json!({"type": "deny"})), "policyRule", act("OPTIN")), DENIES),
        ("out, then in", with(consent(json!({"type": "permit"})), "policyRule", act("OPTOUT")), PERMITS),
    ] {
        check(name, &record, expected);
    }
    // Beside a typed root the rule denies, and is not relied on to permit.
    let elsewhere = |kind: &str| consent(json!({"type": kind, "class": class_of("Condition")}));
    check("out beside", &with(elsewhere("permit"), "policyRule", act("OPTOUT")), DENIES);
    check("in beside", &with(elsewhere("deny"), "policyRule", act("OPTIN")), SILENT);
    // An untyped root is the rule's own extent.
    let extent = consent(json!({"class": class_of("Condition")}));
    check("out of other things", &with(extent, "policyRule", act("OPTOUT")), SILENT);
}

#[test]
fn the_scope_says_what_it_may_say() {
    const SCOPES: &str = "http://terminology.hl7.org/CodeSystem/consentscope";
    for (kind, scope, asked, expected) in [
        ("permit", coded(SCOPES, "patient-privacy"), "TREAT", PERMITS),
        ("deny", coded(SCOPES, "treatment"), "TREAT", SILENT),
        ("deny", coded(SCOPES, "adr"), "TREAT", SILENT),
        ("permit", coded(SCOPES, "research"), "TREAT", SILENT),
        ("deny", coded(SCOPES, "research"), "TREAT", SILENT),
        ("deny", coded(SCOPES, "research"), "CLINTRCH", DENIES),
        ("permit", coded(SCOPES, "research"), "HRESCH", PERMITS),
        ("permit", coded(SCOPES, "research"), "HOUSE-RULE", SILENT),
        ("deny", coded(SCOPES, "research"), "HOUSE-RULE", DENIES),
        ("permit", coded(SCOPES, "other"), "TREAT", SILENT),
        ("deny", coded(SCOPES, "other"), "TREAT", DENIES),
        ("permit", coded("https://x.test", "patient-privacy"), "TREAT", SILENT),
        ("deny", coded("https://x.test", "treatment"), "TREAT", DENIES),
        ("deny", json!({"text": "treatment"}), "TREAT", DENIES),
    ] {
        let record = with(consent(json!({"type": kind})), "scope", scope);
        assert_eq!(weigh(std::slice::from_ref(&record), |a| a.purpose = asked), expected, "{asked} {record}");
    }
    let mut without = consent(json!({"type": "permit"}));
    without.as_object_mut().unwrap().remove("scope");
    check("no scope", &without, SILENT);
}

/// What a permit and a denial come to where the criterion holds, where it does not, and where nobody can tell.
const BOTH: [Weight; 2] = [PERMITS, DENIES];
const NONE: [Weight; 2] = [SILENT, SILENT];
const DOUBT: [Weight; 2] = [SILENT, DENIES];

#[track_caller]
fn check_criteria(cases: &[(&str, Value, [Weight; 2])]) {
    for (criterion, value, expected) in cases {
        for (kind, expected) in ["permit", "deny"].into_iter().zip(expected) {
            let name = format!("{criterion} {kind}");
            let rule = with(json!({"type": kind}), criterion, value.clone());
            check(&name, &consent(rule.clone()), *expected);
            // One criterion that does not hold is too much.
            if *criterion != "class" {
                check(&name, &consent(with(rule, "class", class_of("Condition"))), SILENT);
            }
        }
    }
}

#[test]
fn a_provision_is_for_some_at_some_time() {
    let period = |start: &str, end: &str| json!({"start": start, "end": end});
    check_criteria(&[
        ("period", period("2026-03-01", "2026-03-31"), BOTH),
        ("period", period("2026-03-01", "2026-03-10"), BOTH),
        ("period", json!({"start": "2026-03-10T12:00:01Z"}), NONE),
        ("period", json!({"end": "2026-03-10T11:59:59Z"}), NONE),
        ("period", json!({"end": "2026-03-08"}), NONE),
        // Somewhere it is the eleventh already.
        ("period", json!({"start": "2026-03-11"}), DOUBT),
        ("period", json!({"end": "2026-03-09"}), DOUBT),
        ("period", json!({"start": "2026-03-12"}), NONE),
        ("period", json!({"start": "soon"}), DOUBT),
        ("dataPeriod", period("2020-01-01", "2020-12-31"), DOUBT),
        ("actor", actor_of("Practitioner/n1"), BOTH),
        ("actor", actor_of("https://emr.test/fhir/Practitioner/n1/_history/2"), BOTH),
        ("actor", actor_of("Practitioner/n2"), NONE),
        ("actor", actor_of("PractitionerRole/r1"), BOTH),
        ("actor", actor_of("PractitionerRole/r2"), NONE),
        ("actor", actor_of("Organization/o1"), BOTH),
        ("actor", actor_of("Organization/o2"), NONE),
        ("actor", actor_of("Patient/p1"), NONE),
        ("actor", actor_of("CareTeam/t1"), DOUBT),
        ("actor", actor_of("Group/g1"), DOUBT),
        ("actor", actor_of("https://x.test/Practitioner/n1"), DOUBT),
        ("actor", actor_of("#contained"), DOUBT),
        ("actor", json!([{"role": {"text": "nurses"}}]), DOUBT),
        ("actor", json!([{"reference": {"reference": "Practitioner/n1"}}]), BOTH),
        // In whose hands it is, is no fact.
        (
            "actor",
            json!([{"role": coded("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "CST"),
            "reference": {"reference": "Organization/o2"}}]),
            DOUBT,
        ),
    ]);
}

#[test]
fn a_provision_is_about_some_things() {
    check_criteria(&[
        ("action", action_of("access"), BOTH),
        ("action", action_of("disclose"), BOTH),
        ("action", action_of("correct"), NONE),
        ("action", action_of("dance"), DOUBT),
        ("action", json!([{"text": "read"}]), DOUBT),
        ("action", json!([coded("https://x.test", "correct")]), DOUBT),
        ("securityLabel", label("N"), BOTH),
        ("securityLabel", label("R"), NONE),
        ("securityLabel", label("L"), DOUBT),
        ("securityLabel", json!([{"code": "N"}]), DOUBT),
        ("securityLabel", json!([coding("http://terminology.hl7.org/CodeSystem/v3-ActCode", "HIV")]), NONE),
        ("securityLabel", json!([{"display": "normal"}]), DOUBT),
        ("purpose", purpose("TREAT"), BOTH),
        ("purpose", purpose("HRESCH"), NONE),
        ("purpose", purpose("ETREAT"), DOUBT),
        ("purpose", purpose("house-rule"), DOUBT),
        ("purpose", json!([coding("https://x.test", "HRESCH")]), DOUBT),
        ("class", class_of("Observation"), BOTH),
        ("class", class_of("Condition"), NONE),
        ("class", class_of("Diary"), DOUBT),
        ("class", json!([coding("urn:ietf:bcp:13", "application/hl7-cda+xml")]), DOUBT),
        ("code", json!([coded("http://loinc.org", "8867-4")]), BOTH),
        ("code", json!([coded("http://loinc.org", "1-8")]), NONE),
        ("code", json!([{"coding": [{"code": "8867-4"}]}]), DOUBT),
        ("code", json!([{"text": "heart rate"}]), DOUBT),
        ("data", data_of("instance", "Observation/o1"), BOTH),
        ("data", data_of("instance", "https://emr.test/fhir/Observation/o1"), BOTH),
        ("data", data_of("instance", "Observation/o2"), NONE),
        ("data", data_of("instance", "https://x.test/Observation/o2"), DOUBT),
        ("data", data_of("related", "Observation/o1"), BOTH),
        ("data", data_of("related", "Encounter/e1"), DOUBT),
        ("data", data_of("dependents", "Encounter/e1"), DOUBT),
        ("data", data_of("authoredby", "Practitioner/n9"), DOUBT),
    ]);
}

#[test]
fn who_is_not_known_may_be_meant_and_is_never_permitted() {
    let ask = |name: &str, kind: &str, user: Option<&'static str>| {
        let record = consent(json!({"type": kind, "actor": actor_of(name)}));
        weigh(&[record], |asked| (asked.user, asked.party) = (user, None))
    };
    for (name, user, expected) in [
        ("Practitioner/n1", None, [SILENT, DENIES]),
        ("Organization/o1", Some("Practitioner/n1"), [SILENT, DENIES]),
        ("PractitionerRole/r1", Some("Practitioner/n1"), [SILENT, DENIES]),
        ("Practitioner/n1", Some("Practitioner/n1"), [PERMITS, DENIES]),
        ("Practitioner/n1", Some("PractitionerRole/r1"), [SILENT, DENIES]),
        ("Patient/p1", Some("Patient/p1"), [PERMITS, DENIES]),
        ("Practitioner/n1", Some("Patient/p1"), [SILENT, SILENT]),
        ("RelatedPerson/m1", Some("Patient/p1"), [SILENT, SILENT]),
        ("Patient/p1", None, [SILENT, DENIES]),
    ] {
        assert_eq!([ask(name, "permit", user), ask(name, "deny", user)], expected, "{name} {user:?}");
    }
}

#[test]
fn a_record_without_labels_or_codes_may_be_meant() {
    let ask = |rule: Value, kind: &str| {
        let mut bare = facts();
        (bare.labels, bare.code) = Default::default();
        bare.resource_type = ResourceType::from_name(kind).unwrap();
        let directives = Directives::new(vec![directive(&consent(rule))]).unwrap();
        directives.weigh(&Asked {
            action: Action::Read,
            purpose: "TREAT",
            reference: None,
            facts: &bare,
            user: None,
            party: None,
            now: now(),
        })
    };
    let code = json!([coded("http://loinc.org", "8867-4")]);
    for (rule, kind, expected) in [
        (json!({"type": "deny", "securityLabel": label("N")}), "Observation", DENIES),
        (json!({"type": "permit", "securityLabel": label("N")}), "Observation", SILENT),
        (json!({"type": "deny", "securityLabel": label("R")}), "Observation", SILENT),
        (json!({"type": "deny", "code": code}), "Immunization", DENIES),
        (json!({"type": "deny", "code": code}), "Patient", SILENT),
    ] {
        assert_eq!(ask(rule.clone(), kind), expected, "{rule} {kind}");
    }
}

#[test]
fn writing_is_another_action() {
    for (action, expected) in [(Action::Create, DENIES), (Action::Delete, DENIES), (Action::Export, SILENT)] {
        let record = consent(json!({"type": "deny", "action": action_of("correct")}));
        assert_eq!(weigh(&[record], |asked| asked.action = action), expected, "{action:?}");
    }
}

#[test]
fn exceptions_overrule_what_is_around_them() {
    let here = |kind: &str, more: Value| {
        with(with(json!({"type": kind}), "class", class_of("Observation")), "provision", more)
    };
    let leaf = |kind: &str| json!({"type": kind, "purpose": purpose("TREAT")});
    let other = |kind: &str| json!({"type": kind, "purpose": purpose("HRESCH")});
    let doubtful = |kind: &str| json!({"type": kind, "actor": actor_of("CareTeam/t1")});
    for (name, root, expected) in [
        ("permit but", json!({"type": "permit", "provision": [leaf("deny")]}), DENIES),
        ("deny but", json!({"type": "deny", "provision": [leaf("permit")]}), PERMITS),
        ("not that one", json!({"type": "permit", "provision": [other("deny")]}), PERMITS),
        ("siblings", json!({"type": "deny", "provision": [leaf("permit"), leaf("deny")]}), DENIES),
        ("deeper", json!({"type": "permit", "provision": [here("deny", json!([leaf("permit")]))]}), PERMITS),
        (
            "deeper, elsewhere",
            json!({"type": "permit", "provision": [here("deny", json!([other("permit")]))]}),
            DENIES,
        ),
        (
            "of a sibling",
            json!({"type": "permit", "provision": [here("deny", json!([leaf("permit")])), leaf("deny")]}),
            DENIES,
        ),
        ("doubtful denial", json!({"type": "permit", "provision": [doubtful("deny")]}), DENIES),
        ("doubtful permit", json!({"type": "deny", "provision": [doubtful("permit")]}), DENIES),
        (
            "permit in a doubtful denial",
            json!({"type": "deny", "actor": actor_of("CareTeam/t1"), "provision": [leaf("permit")]}),
            SILENT,
        ),
        (
            "denial in a doubtful permit",
            json!({"type": "permit", "actor": actor_of("CareTeam/t1"), "provision": [leaf("deny")]}),
            DENIES,
        ),
        (
            "in what does not apply",
            json!({"type": "permit", "class": class_of("Condition"), "provision": [leaf("deny")]}),
            SILENT,
        ),
        ("over", json!({"type": "deny", "period": {"end": "2025"}, "provision": [leaf("deny")]}), SILENT),
    ] {
        check(name, &consent(root), expected);
    }
    // The base rule in `policyRule`, exceptions in an untyped root: the standard's own form.
    let out = with(consent(json!({"provision": [leaf("permit")]})), "policyRule", act("OPTOUT"));
    check("out but", &out, PERMITS);
    let inn = with(consent(json!({"provision": [leaf("deny")]})), "policyRule", act("OPTIN"));
    check("in but", &inn, DENIES);
    check("exceptions alone", &consent(json!({"provision": [leaf("permit")]})), PERMITS);
}

#[test]
fn one_denial_among_several_is_one() {
    let (yes, no) = (consent(json!({"type": "permit"})), consent(json!({"type": "deny"})));
    let silent = consent(json!({"type": "deny", "class": class_of("Condition")}));
    assert_eq!(weigh(&[], |_| {}), SILENT);
    assert_eq!(weigh(&[yes.clone(), silent.clone()], |_| {}), PERMITS);
    let both = weigh(&[yes, no, silent], |_| {});
    assert!(both.objects);
    assert!(
        Directives::new((0..=limits::CONSENTS_OF_PATIENT_MAX).map(|_| Directive(Meaning::Unclear)).collect())
            .is_none()
    );
}

#[test]
fn what_is_not_understood_objects() {
    let permit = || consent(json!({"type": "permit"}));
    let modifier = json!([{"url": "https://x.test/not", "valueBoolean": true}]);
    let mut deep = json!({"type": "permit"});
    for _ in 0..limits::CONSENT_DEPTH_MAX {
        deep = json!({"type": "permit", "provision": [deep]});
    }
    let many: Vec<Value> = (0..limits::CONSENT_VALUES_MAX).map(|_| json!("x")).collect();
    for (name, record) in [
        ("modifier", with(permit(), "modifierExtension", modifier.clone())),
        ("modifier of a rule", consent(json!({"type": "permit", "modifierExtension": modifier}))),
        (
            "modifier of an actor",
            consent(json!({"type": "permit",
            "actor": [{"reference": {"reference": "Practitioner/n1"}, "modifierExtension": modifier}]})),
        ),
        (
            "modifier of a verification",
            with(permit(), "verification", json!([{"verified": true, "modifierExtension": modifier}])),
        ),
        ("rules of its own", with(permit(), "implicitRules", json!("https://x.test"))),
        ("R5", with(permit(), "decision", json!("deny"))),
        ("an element of a rule", consent(json!({"type": "permit", "documentType": []}))),
        ("no list", consent(json!({"type": "permit", "actor": {"reference": {}}}))),
        ("empty list", consent(json!({"type": "permit", "actor": []}))),
        ("null", consent(json!({"type": "permit", "actor": null}))),
        ("no such effect", consent(json!({"type": "maybe"}))),
        (
            "an exception without",
            consent(json!({"type": "permit", "provision": [{"class": class_of("Condition")}]})),
        ),
        ("too deep", consent(deep)),
        ("too big", with(permit(), "extension", json!(many))),
        ("a summary", with(permit(), "meta", json!({"tag": [{"code": "SUBSETTED"}]}))),
        ("no status", with(permit(), "status", json!("Active"))),
    ] {
        check(name, &record, DENIES);
    }
}

#[test]
fn which_records_count() {
    let read = |record: &Value| Reading::of(record.to_string().as_bytes(), BASE);
    let deny = || consent(json!({"type": "deny"}));
    for status in ["draft", "proposed", "rejected", "inactive", "entered-in-error"] {
        assert!(matches!(read(&with(deny(), "status", json!(status))), Reading::Other), "{status}");
    }
    assert!(matches!(read(&json!({"resourceType": "OperationOutcome"})), Reading::Other));
    for patient in [
        json!({"reference": "Group/p1"}),
        json!({"display": "somebody"}),
        json!({"reference": "https://x.test/Patient/p1"}),
    ] {
        assert!(matches!(read(&with(deny(), "patient", patient.clone())), Reading::OfNobody), "{patient}");
    }
    assert!(matches!(Reading::of(b"{", BASE), Reading::OfNobody));
    let names =
        |provision: Value| Directives::new(vec![directive(&consent(provision))]).unwrap().names_actors();
    assert!(names(
        json!({"type": "deny", "provision": [{"type": "permit", "actor": actor_of("Practitioner/n1")}]})
    ));
    assert!(!names(json!({"type": "deny"})));
}

/// Each patient of a record must hold it, each whom a change would add, and what is contained falls under both.
#[test]
fn everybody_whom_a_record_is_about_has_a_say() {
    let of = |rules: &[Value]| {
        let all = rules.iter().map(|rule| directive(&consent(rule.clone()))).collect();
        Arc::new(Directives::new(all).unwrap())
    };
    let mut known = Relations::none();
    let of = BTreeMap::from([
        ("p1".to_owned(), of(&[json!({"type": "permit"})])),
        ("p2".to_owned(), of(&[])),
        (
            "p3".to_owned(),
            of(&[json!({"type": "permit"}), json!({"type": "deny", "class": class_of("Condition")})]),
        ),
    ]);
    known.directed(of, None, now());
    let situation = Situation::rehearsal(&["nurse"], "TREAT");
    let about = |patients: &[&str]| {
        let mut facts = facts();
        facts.patients = patients.iter().map(|id| (*id).to_owned()).collect();
        facts
    };
    let held = |patients: &[&str], added: &[&str]| {
        let added: BTreeSet<String> = added.iter().map(|id| (*id).to_owned()).collect();
        situation.relations(About::whole(Action::Read, &about(patients)), &added, &known)
    };
    let (consented, quiet) = (Held::from_iter([Relation::Consent]), Held::from_iter([Relation::NoObjection]));
    assert_eq!(held(&["p1"], &[]), consented);
    assert_eq!(held(&["p2"], &[]), quiet);
    assert_eq!(held(&["p1", "p2"], &[]), quiet);
    assert_eq!(held(&["p1"], &["p2"]), quiet);
    // Nobody's record, and a patient of whom nothing is known.
    assert_eq!(held(&[], &[]), Held::default());
    assert_eq!(held(&["p1", "p9"], &[]), Held::default());
    assert_eq!(held(&["p1"], &["p9"]), Held::default());
    let (whole, mut part) = (about(&["p3"]), about(&["p3"]));
    assert_eq!(held(&["p3"], &[]), consented);
    part.resource_type = ResourceType::from_name("Condition").unwrap();
    let inside = About { action: Action::Read, record: &whole, part: Some(&part) };
    assert_eq!(situation.relations(inside, &BTreeSet::new(), &known), Held::default());
}

fn some_rule() -> impl Strategy<Value = Value> {
    let criterion = prop::sample::select(vec![
        ("class", class_of("Observation")),
        ("class", class_of("Condition")),
        ("class", class_of("Diary")),
        ("purpose", purpose("TREAT")),
        ("purpose", purpose("HRESCH")),
        ("actor", actor_of("Practitioner/n1")),
        ("actor", actor_of("Practitioner/n2")),
        ("actor", actor_of("CareTeam/t")),
        ("period", json!({"end": "2026-03-09"})),
        ("dataPeriod", json!({"end": "2026-03-09"})),
    ]);
    let criteria = prop::collection::vec(criterion, 0..3);
    let leaf = (any::<bool>(), criteria).prop_map(|(permits, criteria)| {
        let rule = json!({"type": if permits { "permit" } else { "deny" }});
        criteria.into_iter().fold(rule, |rule, (name, value)| with(rule, name, value))
    });
    leaf.clone().prop_recursive(3, 12, 3, move |inner| {
        (leaf.clone(), prop::collection::vec(inner, 1..4))
            .prop_map(|(rule, exceptions)| with(rule, "provision", json!(exceptions)))
    })
}

fn rank(weight: Weight) -> u8 {
    match (weight.objects, weight.permits) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 2,
    }
}

/// Puts a rule among the exceptions of one of the provisions.
fn add(root: &mut Value, place: usize, rule: Value) {
    let here =
        place.checked_sub(1).zip(root["provision"].as_array().map(Vec::len)).filter(|(_, many)| *many > 0);
    match here {
        Some((place, many)) => add(&mut root["provision"][place % many], place / many, rule),
        None if root["provision"].is_array() => root["provision"].as_array_mut().unwrap().push(rule),
        None => root["provision"] = json!([rule]),
    }
}

proptest! {
    /// A Consent that denies more, and one more Consent of any kind that does not permit, never grant anything.
    #[test]
    fn adding_a_denial_never_grants(
        mut root in some_rule(), denial in some_rule(), other in some_rule(), place in 0..40_usize,
    ) {
        let mut denial = denial;
        denial["type"] = json!("deny");
        denial.as_object_mut().unwrap().remove("provision");
        let before = weigh(&[consent(root.clone()), consent(other.clone())], |_| {});
        let beside = weigh(&[consent(root.clone()), consent(other.clone()), consent(denial.clone())], |_| {});
        prop_assert!(rank(beside) <= rank(before));
        add(&mut root, place, denial);
        let within = weigh(&[consent(root), consent(other)], |_| {});
        prop_assert!(rank(within) <= rank(before));
    }

    /// What is written instead of a member, or in another name, never makes a Consent permit that did not.
    #[test]
    fn a_spoiled_consent_permits_nothing(
        root in some_rule(), name in "[a-zA-Z_]{1,12}", value in prop::sample::select(vec![json!(null), json!([]), json!({}), json!(1), json!("x")]),
    ) {
        let known = ["id", "type", "period", "dataPeriod", "actor", "action", "purpose", "class", "code", "data", "provision", "securityLabel", "extension"];
        prop_assume!(!known.contains(&name.as_str()));
        let spoiled = weigh(&[consent(with(root, &name, value))], |_| {});
        prop_assert_eq!(spoiled, DENIES);
    }

    /// Any bytes are read without harm.
    #[test]
    fn anything_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(matches!(Reading::of(&bytes, BASE), Reading::OfNobody | Reading::Other));
    }
}
