//! The laws of the room, on a small hospital of its own; the shipped policies are tested in
//! `tests/policies.rs`.

use super::engine::{Record, Verdict};
use super::masks::Desk;
use super::relation::Held;
use super::set::Action;
use super::situation::About;
use super::*;
use crate::domain::fhir::classify::{Head, classify};
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use crate::domain::fhir::search::Registry;
use crate::domain::identity::specimen::CallerSpecimen;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

mod fhir_user;
mod laws;
mod reserve;
mod writes;

const GROUPS: &str = r#"
[groups]
frame = ["Patient.id", "Patient.meta", "Observation.id", "Observation.meta", "Observation.status"]
face = ["Patient.name", "Patient.birthDate"]
"#;

const HOSPITAL: &str = r#"
@id("nurse-view")
permit (principal in Role::"nurse", action in Action::"view", resource)
when { resource is FHIR::Patient || resource is FHIR::Observation || resource is FHIR::Practitioner };
@id("nurse-sees")
permit (principal in Role::"nurse", action == Action::"disclose", resource)
when {
  resource in [ElementGroup::"frame", ElementGroup::"face"]
  || resource in [FHIR::Element::"Observation.code", FHIR::Element::"Observation.subject",
      FHIR::Element::"Practitioner"]
};
@id("doctor-view")
permit (principal in Role::"doctor", action in Action::"view", resource)
when { context.purpose == "TREAT" && context.mfa.age < 3600 };
@id("doctor-sees")
permit (principal in Role::"doctor", action == Action::"disclose", resource)
unless { resource in FHIR::Element::"Patient.identifier" };
@id("patient-view")
permit (principal in Role::"patient", action in Action::"view", resource)
when { context.relations.contains("self") };
@id("patient-sees")
permit (principal in Role::"patient", action == Action::"disclose", resource)
when { context.relations.contains("self") };
@id("restricted")
forbid (principal, action in Action::"view", resource)
when { !(principal in Role::"doctor") && resource.labels.contains("R") };
@id("no-names-when-labelled")
forbid (principal, action == Action::"disclose", resource in FHIR::Element::"Patient.name")
when { context.labels.contains("N") };
@id("cancelled")
forbid (principal in Role::"nurse", action in Action::"view", resource is FHIR::Observation)
when { resource.status == "cancelled" };
"#;

fn load(policies: &str) -> Result<Arc<PolicySet>, Vec<Problem>> {
    let sources = [Source { name: "hospital.cedar".into(), text: policies.into() }];
    let groups = Source { name: "groups.toml".into(), text: GROUPS.into() };
    PolicySet::load(&sources, Some(&groups), None).map(Arc::new)
}

static HOSPITAL_SET: LazyLock<Arc<PolicySet>> = LazyLock::new(|| load(HOSPITAL).unwrap());

fn hospital() -> Arc<PolicySet> {
    Arc::clone(&HOSPITAL_SET)
}

fn resource(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

fn set_of(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn facts(name: &str, id: &str, patients: &[&str], labels: &[&str]) -> Facts {
    let mut facts = Facts::of_type(resource(name));
    facts.id = Some(id.to_owned());
    facts.patients = set_of(patients).into();
    facts.mentions = set_of(patients).into();
    facts.labels = set_of(labels).into();
    facts.status = Some("final".to_owned());
    facts
}

/// Paths whose release the laws compare.
const PATHS: [&str; 14] = [
    "Patient",
    "Patient.id",
    "Patient.name",
    "Patient.name.family",
    "Patient.birthDate",
    "Patient.identifier",
    "Patient.extension",
    "Patient.extension('http://example.org/x')",
    "Patient.modifierExtension",
    "Observation",
    "Observation.code",
    "Observation.note",
    "Observation.extension",
    "Observation.subject.reference",
];

fn shown(outcome: &Result<Disclosure, RecordDenial>) -> BTreeSet<&'static str> {
    let Ok(disclosure) = outcome else { return BTreeSet::new() };
    let covers = |path: &&str| disclosure.mask().covers(&ElementPath::parse(path).unwrap());
    PATHS.into_iter().filter(covers).collect()
}

fn ask(set: &PolicySet, situation: &Situation, facts: &Facts) -> Result<Disclosure, RecordDenial> {
    rehearse_record(set, situation, facts)
}

#[test]
fn the_records_own_extensions_pass_only_by_a_grant_of_their_own() {
    let view = r#"permit (principal in Role::"x", action in Action::"view", resource);"#;
    let sees = |what: &str| {
        format!(
            "{view} permit (principal in Role::\"x\", action == Action::\"disclose\", resource in {what});"
        )
    };
    let patient = r#"FHIR::Element::"Patient""#;
    let own = r#"FHIR::Element::"Patient.extension""#;
    let by_url = r#"FHIR::Element::"Patient.extension('http://example.org/x')""#;
    let forbid = r#"forbid (principal, action == Action::"disclose", resource in FHIR::Element::"Patient");"#;
    let both = format!(
        "{} permit (principal in Role::\"x\", action == Action::\"disclose\", resource in {own});",
        sees(patient)
    );
    let url = format!(
        "{} permit (principal in Role::\"x\", action == Action::\"disclose\", resource in {by_url});",
        sees(patient)
    );
    let cases: [(String, &[&str], &[&str]); 5] = [
        (sees(patient), &["Patient.name", "Patient.modifierExtension"], &["Patient", "Patient.extension"]),
        (both.clone(), &["Patient", "Patient.extension", "Patient.extension('http://example.org/x')"], &[]),
        (
            url,
            &["Patient.name", "Patient.extension('http://example.org/x')"],
            &["Patient.extension", "Patient"],
        ),
        (sees(own), &["Patient.extension"], &["Patient.name"]),
        (format!("{both} {forbid}"), &[], &["Patient.extension", "Patient.name"]),
    ];
    let situation = Situation::rehearsal(&["x"], "TREAT");
    for (policies, yes, no) in cases {
        let set = load(&policies).unwrap();
        let outcome = ask(&set, &situation, &facts("Patient", "p1", &["p1"], &[]));
        let shown = shown(&outcome);
        yes.iter().for_each(|path| assert!(shown.contains(path), "{path} by {policies}"));
        no.iter().for_each(|path| assert!(!shown.contains(path), "not {path} by {policies}"));
    }
}

#[test]
fn equality_with_an_element_means_everything_in_it() {
    let ask_for = |policies: &str| {
        let policies =
            format!(r#"permit (principal, action in Action::"view", resource is FHIR::Patient); {policies}"#);
        let set = load(&policies).unwrap();
        shown(&ask(&set, &Situation::rehearsal(&[], "TREAT"), &facts("Patient", "p1", &["p1"], &[])))
    };
    let permit =
        r#"permit (principal, action == Action::"disclose", resource == FHIR::Element::"Patient.name");"#;
    assert_eq!(ask_for(permit), BTreeSet::from(["Patient.name", "Patient.name.family"]));
    let forbid = r#"permit (principal, action == Action::"disclose", resource in FHIR::Element::"Patient.name");
                    forbid (principal, action == Action::"disclose", resource == FHIR::Element::"Patient.name");"#;
    assert_eq!(ask_for(forbid), BTreeSet::new());
}

#[test]
fn an_evaluation_error_never_permits() {
    let poison = [
        r#"@id("poison") forbid (principal, action in Action::"view", resource)
           when { context.mfa.age + 9223372036854775807 > 0 && resource.labels.contains("never") };"#,
        r#"@id("poison") forbid (principal, action == Action::"disclose", resource in FHIR::Element::"Patient.photo")
           when { context.mfa.age * 9223372036854775807 < 0 };"#,
        r#"@id("poison") permit (principal, action in Action::"view", resource)
           when { context.mfa.age + 9223372036854775807 > 0 };"#,
        r#"@id("poison") forbid (principal, action in Action::"view", resource)
           when { resource.labels.contains("L") && context.mfa.age + 9223372036854775807 > 0 };"#,
    ];
    let fault = RecordDenial::PolicyFault { policies: vec!["poison".to_owned()] };
    let record = facts("Patient", "p1", &["p1"], &["L"]);
    let doctor = Situation::rehearsal(&["doctor"], "TREAT");
    assert!(ask(&hospital(), &doctor, &record).is_ok());
    for policy in poison {
        let set = load(&format!("{HOSPITAL}{policy}")).unwrap();
        assert_eq!(ask(&set, &doctor, &record).unwrap_err(), fault, "{policy}");
        let desk = Desk::new(set, Masks::new(), doctor.clone());
        let asked = Record { facts: &record, relations: Held::default(), emergency: false };
        assert_eq!(desk.judge(Action::Read, &asked).unwrap_err(), fault, "{policy}");
        assert_eq!(desk.judge(Action::Read, &asked).unwrap_err(), fault, "kept: {policy}");
    }
}

#[test]
fn nothing_is_permitted_by_nothing() {
    let set = PolicySet::load(&[], None, None).unwrap();
    assert!(set.is_empty() && set.lints().len() == 1);
    let outcome = ask(&set, &Situation::rehearsal(&["doctor"], "TREAT"), &facts("Patient", "p", &["p"], &[]));
    assert_eq!(outcome.unwrap_err(), RecordDenial::NotPermitted);
}

#[test]
fn long_lists_are_balanced_and_deep_nesting_is_refused() {
    let many: Vec<String> = ResourceType::all().map(|r| format!("resource is FHIR::{}", r.name())).collect();
    let list = |op: &str| {
        format!("permit (principal, action in Action::\"view\", resource) when {{ {} }};", many.join(op))
    };
    let set = load(&format!(
        "{} permit (principal, action == Action::\"disclose\", resource in FHIR::Element::\"Patient\");",
        list(" || ")
    ))
    .unwrap();
    let outcome = ask(&set, &Situation::rehearsal(&[], "TREAT"), &facts("Patient", "p", &["p"], &[]));
    assert!(outcome.is_ok(), "{outcome:?}");
    let longest = format!(
        "permit (principal, action == Action::\"read\", resource is FHIR::Patient) when {{ {}true }};",
        "1==1&&".repeat(crate::limits::POLICY_STATEMENT_BYTES_MAX / 6 - 20)
    );
    load(&longest).unwrap();
    let deep = format!(
        "permit (principal, action in Action::\"view\", resource) when {{ {}true{} }};",
        "if context.emergency then ".repeat(30),
        " else false".repeat(30)
    );
    let problems = load(&deep).unwrap_err();
    assert!(problems[0].message.contains("levels deep"), "{problems:?}");
}

/// Cedar leaves `unknown && false` open; here it counts as what it is.
#[test]
fn what_can_never_hold_is_not_left_open() {
    let view = |conditions: &str| {
        let set =
            load(&format!("permit (principal, action in Action::\"view\", resource) {conditions};")).unwrap();
        let desk = Desk::new(set, Masks::new(), Situation::rehearsal(&[], "TREAT"));
        desk.view(Action::Read, resource("Patient")).unwrap().verdict
    };
    let open = r#"context.relations.contains("self")"#;
    let cases = [
        (format!("when {{ {open} }}"), Verdict::Maybe),
        (format!("when {{ {open} && context.purpose == \"TREAT\" }}"), Verdict::Maybe),
        (format!("when {{ {open} && context.purpose == \"HRESCH\" }}"), Verdict::No),
        (format!("unless {{ {open} || context.purpose == \"TREAT\" }}"), Verdict::No),
        (format!("when {{ if {open} then context.emergency else false }}"), Verdict::No),
        (format!("unless {{ {open} }}"), Verdict::Maybe),
        ("when { context.purpose == \"TREAT\" }".to_owned(), Verdict::Yes),
    ];
    for (conditions, verdict) in cases {
        assert_eq!(view(&conditions), verdict, "{conditions}");
    }
}

// --- the front door -------------------------------------------------------------------------------

/// `Patient/p1`, or `PUT Patient/p1`; an export is asked for as exports are. `If-None-Exist` follows a blank.
fn interaction(asked: &str) -> Interaction {
    let (method, target) = asked.split_once(' ').unwrap_or(("GET", asked));
    let (target, if_none_exist) = target.split_once(' ').unwrap_or((target, ""));
    let base = PublicBase::parse("https://gate.test/fhir").unwrap();
    let mut headers = http::HeaderMap::new();
    let mut header = |name: &'static str, value: &str| headers.insert(name, value.parse().unwrap());
    header("host", "gate.test");
    match method {
        "PATCH" => drop(header("content-type", "application/json-patch+json")),
        "POST" | "PUT" => drop(header("content-type", "application/fhir+json")),
        _ => {}
    }
    if target.contains("$export") {
        header("prefer", "respond-async");
        header("accept", "application/fhir+json");
    }
    if !if_none_exist.is_empty() {
        header("if-none-exist", if_none_exist);
    }
    let target = format!("/fhir/{target}");
    let head = Head { method, target: &target, authority: None, headers: &headers };
    let classified = classify(&head, None, &base, &Registry::default());
    classified.unwrap_or_else(|refusal| panic!("{asked}: {refusal:?}")).interaction
}

fn now() -> Timestamp {
    Timestamp::from_second(1_767_225_600 + 60).unwrap()
}

fn circumstances(purpose: Option<&str>) -> Circumstances {
    let network = "10.0.0.1".parse().unwrap();
    Circumstances { now: now(), network, purpose: purpose.map(str::to_owned), emergencies: BTreeMap::new() }
}

fn enter(caller: &CallerSpecimen, target: &str) -> Result<Permit, Denial> {
    admit(&hospital(), &Masks::new(), &caller.caller(), &interaction(target), &circumstances(None))
}

const NURSE: CallerSpecimen = CallerSpecimen::with_roles(&["nurse"]);
const DOCTOR: CallerSpecimen =
    CallerSpecimen { purposes: &["TREAT"], ..CallerSpecimen::with_roles(&["doctor"]) };
const PATIENT: CallerSpecimen =
    CallerSpecimen { fhir_user: Some("Patient/p2"), ..CallerSpecimen::with_roles(&["patient"]) };

/// `Ok`, or the denial's name with the parameter it blames.
fn gist(outcome: Result<Permit, Denial>) -> String {
    match outcome {
        Ok(_) => "Ok".to_owned(),
        Err(Denial::CriterionWithheld { parameter }) => format!("CriterionWithheld {parameter}"),
        Err(other) => format!("{other:?}").split([' ', '{']).next().unwrap_or("").to_owned(),
    }
}

#[test]
fn the_front_door_opens_for_what_may_be_seen() {
    let cases = [
        (NURSE, "Patient/p1", "Ok"),
        (NURSE, "Patient/p1/_history/2", "Ok"),
        (NURSE, "Condition/c1", "TypeNotPermitted"),
        (NURSE, "Condition?code=x", "TypeNotPermitted"),
        (NURSE, "Patient?birthdate=1980-01-01", "Ok"),
        (NURSE, "Patient?_id=p1", "Ok"),
        (NURSE, "Patient?identifier=1", "CriterionWithheld identifier"),
        (NURSE, "Patient?gender=male", "CriterionWithheld gender"),
        (NURSE, "Patient?phonetic=a", "Ok"),
        (NURSE, "Patient?_sort=birthdate", "Ok"),
        (NURSE, "Patient?_sort=gender", "CriterionWithheld _sort=gender"),
        (NURSE, "Observation?code=x&subject=Patient/p1", "Ok"),
        (NURSE, "Observation?value-string=x", "CriterionWithheld value-string"),
        // A name may depend on the record's labels, so nobody but the record itself can tell.
        (NURSE, "Observation?subject:Patient.name=x", "CriterionWithheld subject:Patient.name"),
        (NURSE, "Observation?subject:Patient.gender=x", "CriterionWithheld subject:Patient.gender"),
        (NURSE, "Patient?_has:Observation:subject:code=x", "CriterionWithheld _has:Observation:subject:code"),
        (
            NURSE,
            "Patient?general-practitioner:Practitioner.name=x",
            "CriterionWithheld general-practitioner:Practitioner.name",
        ),
        (NURSE, "Observation?_include=Observation:subject:Patient", "Ok"),
        (NURSE, "Observation?_include=Observation:subject", "Ok"),
        (NURSE, "Observation?_include=Observation:encounter", "CriterionWithheld _include"),
        (NURSE, "Patient?_revinclude=Observation:subject", "Ok"),
        (NURSE, "Patient?_revinclude=Condition:subject", "TypeNotPermitted"),
        (DOCTOR, "Patient/p1", "Ok"),
        (DOCTOR, "Patient?identifier=1", "CriterionWithheld identifier"),
        (DOCTOR, "Observation?subject:Patient.gender=x", "Ok"),
        (DOCTOR, "Observation?subject:Patient.identifier=x", "CriterionWithheld subject:Patient.identifier"),
        (DOCTOR, "Patient?general-practitioner:Practitioner.name=x", "Ok"),
        (PATIENT, "Patient/p2", "Ok"),
        (PATIENT, "Observation?subject:Patient.gender=x", "CriterionWithheld subject:Patient.gender"),
        (PATIENT, "Patient?identifier=1", "Ok"),
    ];
    for (caller, target, expected) in cases {
        assert_eq!(gist(enter(&caller, target)), expected, "{:?} {target}", caller.roles);
    }
    let metadata = enter(&DOCTOR, "metadata");
    assert_eq!(metadata.map(|_| ()), Err(Denial::NothingToDecide));
}

#[test]
fn purposes_are_chosen_among_the_tokens() {
    let cases: [(&[&'static str], Option<&str>, &str); 8] = [
        (&["TREAT"], None, "Ok"),
        (&["TREAT"], Some("TREAT"), "Ok"),
        (&["TREAT"], Some("HRESCH"), "PurposeNotAllowed"),
        (&["HRESCH"], None, "TypeNotPermitted"),
        (&["TREAT", "HRESCH"], None, "PurposeAmbiguous"),
        (&["TREAT", "HRESCH"], Some("TREAT"), "Ok"),
        (&[], None, "TypeNotPermitted"),
        (&[], Some("TR\"EAT"), "PurposeNotAllowed"),
    ];
    for (purposes, header, expected) in cases {
        let caller = CallerSpecimen { purposes, ..DOCTOR }.caller();
        let outcome =
            admit(&hospital(), &Masks::new(), &caller, &interaction("Patient/p1"), &circumstances(header));
        assert_eq!(gist(outcome), expected, "{purposes:?} {header:?}");
    }
}

#[test]
fn scopes_narrow_the_request_and_the_records() {
    let with = |scopes, launch_patient| CallerSpecimen { scopes, launch_patient, ..DOCTOR };
    let cases: [(CallerSpecimen, &str, &str); 6] = [
        (with(&["openid"], None), "Patient/p1", "Ok"),
        (with(&["user/Patient.r"], None), "Patient/p1", "Ok"),
        (with(&["user/Patient.r"], None), "Patient?name=x", "ScopeInsufficient"),
        (
            with(&["user/Observation.rs"], None),
            "Observation?subject:Patient.gender=x",
            "CriterionWithheld subject:Patient.gender",
        ),
        (with(&["patient/*.rs"], None), "Patient/p1", "LaunchPatientMissing"),
        (with(&["patient/*.rs", "user/*.rs"], Some("p1")), "Patient/p1", "ScopesMixed"),
    ];
    for (caller, target, expected) in cases {
        assert_eq!(gist(enter(&caller, target)), expected, "{:?} {target}", caller.scopes);
    }
    let permit = |target| enter(&with(&["patient/*.rs"], Some("p1")), target).unwrap();
    let observations = permit("Observation?code=x");
    assert!(observations.record(&facts("Observation", "o1", &["p1"], &[]), None).is_ok());
    for patients in [&["p2"][..], &["p1", "p2"], &[]] {
        let outcome = observations.record(&facts("Observation", "o1", patients, &[]), None);
        assert_eq!(outcome.unwrap_err(), RecordDenial::OutsideLaunch, "{patients:?}");
    }
    let practitioner = facts("Practitioner", "d1", &[], &[]);
    assert!(permit("Practitioner/d1").record(&practitioner, None).is_ok());
}

#[test]
fn each_record_is_judged_on_its_own() {
    let denied = |outcome: Result<Disclosure, RecordDenial>| outcome.unwrap_err();
    let read = enter(&NURSE, "Patient/p1").unwrap();
    assert!(read.record(&facts("Patient", "p1", &["p1"], &[]), None).is_ok());
    assert_eq!(denied(read.record(&facts("Patient", "p2", &["p2"], &[]), None)), RecordDenial::NotAsked);
    assert_eq!(denied(read.record(&facts("Observation", "p1", &["p1"], &[]), None)), RecordDenial::NotAsked);
    assert_eq!(
        denied(read.record(&facts("Patient", "p1", &["p1"], &["R"]), None)),
        RecordDenial::NotPermitted
    );

    let by_name = enter(&NURSE, "Patient?name=x").unwrap();
    assert!(by_name.record(&facts("Patient", "p1", &["p1"], &[]), None).is_ok());
    let labelled = facts("Patient", "p1", &["p1"], &["N"]);
    assert_eq!(denied(by_name.record(&labelled, None)), RecordDenial::CriterionWithheld);
    let by_birth = enter(&NURSE, "Patient?birthdate=1980").unwrap();
    assert!(!shown(&by_birth.record(&labelled, None)).contains("Patient.name"));

    let rows = enter(&NURSE, "Observation?code=x").unwrap();
    let mut observation = facts("Observation", "o1", &["p1"], &[]);
    assert!(rows.record(&observation, None).is_ok());
    observation.status = Some("cancelled".to_owned());
    assert_eq!(denied(rows.record(&observation, None)), RecordDenial::NotPermitted);
    observation.status = None;
    assert_eq!(denied(rows.record(&observation, None)), RecordDenial::StatusMissing);
    assert!(rows.depends_on_records());
    assert!(rows.hidden_identifiers().contains(&resource("Patient")));
    assert!(!rows.hidden_names().contains(&resource("Patient")));
    assert!(rows.hidden_identifiers().contains(&resource("RelatedPerson")));
    assert!(!rows.hidden_identifiers().contains(&resource("Practitioner")));
}

#[test]
fn a_contained_record_belongs_to_its_container() {
    let own = enter(&PATIENT, "Observation?code=x").unwrap();
    let inside = facts("Patient", "p2", &[], &[]);
    let mine = facts("Observation", "o1", &["p2"], &[]);
    let theirs = facts("Observation", "o1", &["p9"], &[]);
    assert!(own.record(&mine, None).is_ok());
    assert!(own.record(&inside, Some(&mine)).is_ok());
    assert_eq!(own.record(&inside, Some(&theirs)).unwrap_err(), RecordDenial::NotPermitted);
    let nurse = enter(&NURSE, "Observation?code=x").unwrap();
    let labelled = facts("Observation", "o1", &["p2"], &["R"]);
    assert_eq!(nurse.record(&inside, Some(&labelled)).unwrap_err(), RecordDenial::NotPermitted);
}

#[test]
fn debug_output_names_nobody() {
    let caller = CallerSpecimen { subject: "secret-person", fhir_user: Some("Patient/secret"), ..DOCTOR };
    let permit = enter(&caller, "Patient/secret").unwrap();
    let situation = Situation::new(&caller.caller(), &circumstances(None)).unwrap();
    assert!(!format!("{permit:?} {situation:?} {:?}", hospital()).contains("secret"));
}
