//! Writes, history, operations and exports at the door, and the two images of a change.
//!
//! Owns: the cases beyond reading and searching. Must never: depend on the shipped policies.
//! Look next: `laws`, what holds for all of them.

use super::*;

pub(super) const WARD: &str = r#"
@id("sees")
permit (principal in Role::"nurse", action in Action::"view", resource)
when { resource is FHIR::Patient || resource is FHIR::Observation || resource is FHIR::Practitioner };
@id("sees-elements")
permit (principal in Role::"nurse", action == Action::"disclose", resource)
when { resource in [FHIR::Element::"Observation", FHIR::Element::"Patient", FHIR::Element::"Practitioner"] };
@id("no-identifiers")
forbid (principal, action == Action::"disclose", resource in FHIR::Element::"Patient.identifier");
@id("observes")
permit (principal in Role::"nurse", action in [Action::"create", Action::"update", Action::"patch"],
        resource is FHIR::Observation);
@id("registers")
permit (principal in Role::"nurse", action in [Action::"update", Action::"delete"], resource is FHIR::Patient);
@id("labels-nothing")
permit (principal in Role::"nurse", action == Action::"create", resource is FHIR::Practitioner);
@id("writes")
permit (principal in Role::"nurse", action == Action::"modify", resource)
when { resource in [FHIR::Element::"Observation", FHIR::Element::"Patient.name"] };
@id("labels-stay")
forbid (principal, action == Action::"modify", resource in FHIR::Element::"Observation.meta.security");
@id("final-is-final")
forbid (principal, action == Action::"update", resource is FHIR::Observation)
when { resource.status == "amended" };
@id("no-notes-when-labelled")
forbid (principal, action == Action::"modify", resource in FHIR::Element::"Observation.note")
when { context.labels.contains("N") };
@id("restricted")
forbid (principal, action in [Action::"view", Action::"change", Action::"export", Action::"operate"], resource)
when { !(resource is FHIR::ValueSet || resource is FHIR::CodeSystem) && resource.labels.contains("R") };
@id("operates")
permit (principal in Role::"nurse", action == Action::"operate", resource)
when {
  (context.operation == "$everything" && resource is FHIR::Patient && resource in Patient::"p1")
  || (context.operation == "$lastn" && resource is FHIR::Observation)
  || (context.operation == "$validate" && resource is FHIR::Observation)
  || (context.operation == "$expand" && resource is FHIR::ValueSet)
  || (context.operation == "$lookup" && resource is FHIR::CodeSystem)
};
@id("value-sets")
permit (principal in Role::"nurse", action == Action::"read", resource)
when { resource is FHIR::ValueSet || resource is FHIR::CodeSystem };
@id("value-sets-elements")
permit (principal in Role::"nurse", action == Action::"disclose", resource)
when {
  resource in [
    FHIR::Element::"ValueSet", FHIR::Element::"ValueSet.extension",
    FHIR::Element::"CodeSystem", FHIR::Element::"CodeSystem.extension"
  ]
};
@id("exports")
permit (principal in Role::"nurse", action == Action::"export", resource)
when { resource is FHIR::Patient || resource is FHIR::Observation };
@id("own-view")
permit (principal in Role::"patient", action in [Action::"view", Action::"change"], resource)
when { context.relations.contains("self") };
@id("own-elements")
permit (principal in Role::"patient", action in [Action::"disclose", Action::"modify"], resource)
when { context.relations.contains("self") };
"#;

static WARD_SET: LazyLock<Arc<PolicySet>> = LazyLock::new(|| load(WARD).unwrap());

pub(super) fn ward_set() -> &'static Arc<PolicySet> {
    &WARD_SET
}

pub(super) fn ward_of(set: &Arc<PolicySet>, caller: &CallerSpecimen, asked: &str) -> Result<Permit, Denial> {
    admit(set, &Masks::new(), &caller.caller(), &interaction(asked), &circumstances(None))
}

fn ward(caller: &CallerSpecimen, asked: &str) -> Result<Permit, Denial> {
    ward_of(&WARD_SET, caller, asked)
}

fn observation(patients: &[&str], mentions: &[&str], labels: &[&str]) -> Facts {
    let mut facts = facts("Observation", "o1", patients, labels);
    facts.mentions.extend(set_of(mentions));
    facts
}

fn path(text: &str) -> ElementPath {
    ElementPath::parse(text).unwrap()
}

fn change(
    permit: &Permit,
    before: Option<&Facts>,
    after: Option<&Facts>,
) -> Result<crate::domain::access::Change, RecordDenial> {
    permit.change(before, after, None)
}

#[test]
fn the_door_opens_for_what_may_be_done() {
    let cases = [
        ("POST Observation", "Ok"),
        ("PUT Observation/o1", "Ok"),
        ("PATCH Observation/o1", "Ok"),
        ("DELETE Observation/o1", "TypeNotPermitted"),
        ("DELETE Patient/p1", "Ok"),
        ("PUT Patient/p1", "Ok"),
        ("PATCH Patient/p1", "TypeNotPermitted"),
        ("POST Patient", "TypeNotPermitted"),
        // The action is permitted, and no element of the type is.
        ("POST Practitioner", "TypeNotPermitted"),
        ("POST Condition", "TypeNotPermitted"),
        // Conditions are searches.
        ("POST Observation code=http://x|y", "Ok"),
        ("POST Observation subject:Patient.identifier=x", "CriterionWithheld subject:Patient.identifier"),
        ("PUT Observation?code=x", "Ok"),
        ("PUT Patient?identifier=x", "CriterionWithheld identifier"),
        ("DELETE Patient?identifier=x", "CriterionWithheld identifier"),
        ("PATCH Observation?subject:Patient.identifier=x", "CriterionWithheld subject:Patient.identifier"),
        // History.
        ("Observation/o1/_history", "Ok"),
        ("Observation/_history?_since=2026-01-01T00:00:00Z", "Ok"),
        ("Condition/_history", "TypeNotPermitted"),
        ("_history", "Ok"),
        // Compartments.
        ("Patient/p1/Observation", "Ok"),
        ("Patient/p1/Condition", "TypeNotPermitted"),
        // Operations.
        ("Patient/p1/$everything", "Ok"),
        ("Patient/p2/$everything", "Ok"),
        ("Patient/p1/$everything?_type=Condition", "TypeNotPermitted"),
        ("Observation/$lastn?patient=p1&category=vital-signs", "Ok"),
        ("POST Observation/$validate", "Ok"),
        ("POST Patient/$validate", "TypeNotPermitted"),
        ("ValueSet/$expand?url=http://x", "Ok"),
        // The operation is permitted, and what it would give back is not.
        ("CodeSystem/$lookup?code=x&system=http://y", "TypeNotPermitted"),
        // Exports.
        ("$export", "Ok"),
        ("$export?_type=Observation", "Ok"),
        ("$export?_type=Observation,Condition", "TypeNotPermitted"),
        (
            "Patient/$export?_type=Patient&_typeFilter=Patient%3Fidentifier%3Dx",
            "CriterionWithheld identifier",
        ),
        ("Group/g1/$export", "TypeNotPermitted"),
    ];
    for (asked, expected) in cases {
        assert_eq!(gist(ward(&NURSE, asked)), expected, "{asked}");
    }
    for asked in ["_history", "$export", "Patient/p1/$everything"] {
        let nobody = CallerSpecimen::with_roles(&[]);
        assert_eq!(gist(ward(&nobody, asked)), "TypeNotPermitted", "{asked}");
    }
}

#[test]
fn every_letter_of_the_scopes_counts() {
    let cases = [
        ("user/Observation.rs", "POST Observation", "ScopeInsufficient"),
        ("user/Observation.c", "POST Observation", "Ok"),
        ("user/Observation.c", "PUT Observation/o1", "ScopeInsufficient"),
        ("user/Observation.u", "PUT Observation/o1", "Ok"),
        ("user/Observation.u", "PATCH Observation/o1", "Ok"),
        ("user/Patient.cu", "DELETE Patient/p1", "ScopeInsufficient"),
        ("user/Patient.d", "DELETE Patient/p1", "Ok"),
        ("user/*.write", "DELETE Patient/p1", "Ok"),
        ("user/*.read", "DELETE Patient/p1", "ScopeInsufficient"),
        ("user/Observation.u", "PUT Observation?code=x", "ScopeInsufficient"),
        ("user/Observation.us", "PUT Observation?code=x", "Ok"),
        ("user/Observation.c", "POST Observation code=x", "ScopeInsufficient"),
        ("user/Observation.r", "Observation/_history", "Ok"),
        ("user/Observation.s", "Observation/_history", "ScopeInsufficient"),
        ("user/Observation.s", "$export?_type=Observation", "Ok"),
        ("user/Observation.r", "$export", "ScopeInsufficient"),
        ("user/Patient.s", "Patient/p1/$everything", "ScopeInsufficient"),
        ("user/Patient.rs", "Patient/p1/$everything", "Ok"),
    ];
    for (scope, asked, expected) in cases {
        let scopes: &'static [&'static str] = Box::leak(Box::new([scope]));
        assert_eq!(gist(ward(&CallerSpecimen { scopes, ..NURSE }, asked)), expected, "{scope} {asked}");
    }
    let types = |scopes| ward(&CallerSpecimen { scopes, ..NURSE }, "$export").unwrap().types();
    assert_eq!(types(&["user/Observation.s"]), BTreeSet::from([resource("Observation")]));
    assert_eq!(types(&["user/*.s"]), BTreeSet::from([resource("Observation"), resource("Patient")]));

    // What may not be read is not shown after it was written; what may not be created is not by an update.
    let permit = |scopes| ward(&CallerSpecimen { scopes, ..NURSE }, "PUT Observation/o1").unwrap();
    let written = observation(&["p1"], &[], &[]);
    assert_eq!(
        permit(&["user/Observation.u"]).record(&written, None).unwrap_err(),
        RecordDenial::NotPermitted
    );
    assert!(permit(&["user/Observation.ru"]).record(&written, None).is_ok());
    assert!(!permit(&["user/Observation.u"]).may_create() && permit(&["user/Observation.cu"]).may_create());
    assert_eq!(
        change(&permit(&["user/Observation.u"]), None, Some(&written)).unwrap_err(),
        RecordDenial::NotAsked
    );
}

#[test]
fn t_079_both_images_of_a_change_must_permit_it() {
    let update = ward(&NURSE, "PUT Observation/o1").unwrap();
    let plain = observation(&["p1"], &[], &[]);
    let with = |label: &str| observation(&["p1"], &[], &[label]);
    let mut amended = plain.clone();
    amended.status = Some("amended".to_owned());
    let cases = [
        ("plain", &plain, &plain, Ok(true)),
        ("before restricted", &with("R"), &plain, Err(RecordDenial::NotPermitted)),
        ("after restricted", &plain, &with("R"), Err(RecordDenial::NotPermitted)),
        ("before amended", &amended, &plain, Err(RecordDenial::NotPermitted)),
        ("after amended", &plain, &amended, Err(RecordDenial::NotPermitted)),
        ("label added", &plain, &with("N"), Ok(false)),
        ("label removed", &with("N"), &plain, Ok(false)),
    ];
    for (case, before, after, expected) in cases {
        let outcome = change(&update, Some(before), Some(after));
        let notes = outcome.map(|change| {
            assert!(!change.modify().covers(&path("Observation.meta.security")), "{case}");
            assert!(change.modify().covers(&path("Observation.code")), "{case}");
            assert_eq!(change.policies(), ["observes", "writes"]);
            change.modify().covers(&path("Observation.note"))
        });
        assert_eq!(notes, expected, "{case}");
    }
    assert!(update.may_modify().covers(&path("Observation.note")));
    assert!(!update.may_modify().covers(&path("Observation.meta.security")));
    assert!(update.type_mask().covers(&path("Observation.meta.security")));
}

#[test]
fn a_change_is_the_one_that_was_asked_for() {
    let (one, mut other) = (observation(&["p1"], &[], &[]), observation(&["p1"], &[], &[]));
    other.id = Some("o2".to_owned());
    let patient = facts("Patient", "o1", &["o1"], &[]);
    let (create, update, patch, delete) = (
        ward(&NURSE, "POST Observation").unwrap(),
        ward(&NURSE, "PUT Observation/o1").unwrap(),
        ward(&NURSE, "PATCH Observation/o1").unwrap(),
        ward(&NURSE, "DELETE Patient/o1").unwrap(),
    );
    let cases = [
        (&create, None, Some(&other), true),
        (&create, Some(&one), Some(&one), false),
        (&create, None, None, false),
        (&create, None, Some(&patient), false),
        (&update, Some(&one), Some(&one), true),
        (&update, None, Some(&one), true),
        (&update, Some(&one), None, false),
        (&update, Some(&other), Some(&other), false),
        (&update, Some(&one), Some(&other), false),
        (&patch, Some(&one), Some(&one), true),
        (&patch, None, Some(&one), false),
        (&delete, Some(&patient), None, true),
        (&delete, None, Some(&patient), false),
        (&delete, Some(&patient), Some(&patient), false),
        (&delete, Some(&one), None, false),
        (&ward(&NURSE, "Observation/o1").unwrap(), Some(&one), Some(&one), false),
    ];
    for (number, (permit, before, after, expected)) in cases.into_iter().enumerate() {
        let outcome = change(permit, before, after);
        assert_eq!(outcome.is_ok(), expected, "{number}: {:?}", outcome.err());
    }
    let deleted = change(&delete, Some(&patient), None).unwrap();
    assert!(deleted.modify().is_empty());
    assert_eq!(deleted.policies(), ["registers"]);
    assert!(!patch.may_create() && create.may_create() && update.may_create());
    assert!(!ward(&NURSE, "PUT Patient/p1").unwrap().may_create());
}

#[test]
fn kf_03_kf_47_a_change_names_nobody_but_the_launch_patient() {
    let launch = CallerSpecimen { scopes: &["patient/*.cruds"], launch_patient: Some("p1"), ..NURSE };
    let update = ward(&launch, "PUT Observation/o1").unwrap();
    let mine = observation(&["p1"], &[], &[]);
    let named_before = observation(&["p1"], &["p2"], &[]);
    let cases = [
        ("mine", Some(&mine), mine.clone(), true),
        ("moved to another", Some(&mine), observation(&["p2"], &[], &[]), false),
        ("about two", Some(&mine), observation(&["p1", "p2"], &[], &[]), false),
        ("names another", Some(&mine), named_before.clone(), false),
        ("names whom it named", Some(&named_before), named_before.clone(), true),
        ("taken from another", Some(&observation(&["p2"], &[], &[])), mine.clone(), false),
        ("about nobody", Some(&mine), observation(&[], &[], &[]), false),
        ("new", None, mine.clone(), true),
        ("new, names another", None, named_before.clone(), false),
    ];
    for (case, before, after, expected) in cases {
        let outcome = change(&update, before, Some(&after));
        assert_eq!(outcome.is_ok(), expected, "{case}");
        assert!(expected || outcome.unwrap_err() == RecordDenial::OutsideLaunch, "{case}");
    }

    let own = ward(&PATIENT, "PUT Observation/o1").unwrap();
    let mine = observation(&["p2"], &[], &[]);
    assert!(change(&own, Some(&mine), Some(&mine)).is_ok());
    for (before, after) in [
        (&mine, &observation(&["p1"], &[], &[])),
        (&observation(&["p1"], &[], &[]), &mine),
        (&mine, &observation(&["p2"], &["p1"], &[])),
    ] {
        assert_eq!(change(&own, Some(before), Some(after)).unwrap_err(), RecordDenial::NotPermitted);
    }
}

#[test]
fn a_contained_record_is_written_under_its_container() {
    let update = ward(&NURSE, "PUT Observation/o1").unwrap();
    let container = observation(&["p1"], &[], &[]);
    let inside = facts("Patient", "x", &[], &[]);
    let written = update.change(Some(&inside), Some(&inside), Some(&container)).unwrap();
    assert!(written.modify().covers(&path("Patient.name")));
    assert!(!written.modify().covers(&path("Patient.birthDate")));
    let labelled = observation(&["p1"], &[], &["R"]);
    for (before, after) in [(Some(&inside), None), (None, Some(&inside))] {
        assert!(update.change(before, after, Some(&container)).is_ok());
        let outcome = update.change(before, after, Some(&labelled));
        assert_eq!(outcome.unwrap_err(), RecordDenial::NotPermitted);
    }
    let practitioner = facts("Practitioner", "x", &[], &[]);
    let outcome = update.change(None, Some(&practitioner), Some(&container));
    assert_eq!(outcome.unwrap_err(), RecordDenial::NotPermitted);
}

#[test]
fn kf_35_what_a_condition_finds_is_judged_as_a_row() {
    let permit = ward(&NURSE, "PUT Observation?code=x").unwrap();
    let matching = permit.matching().unwrap();
    assert!(matching.record(&observation(&["p1"], &[], &[]), None).is_ok());
    let restricted = matching.record(&observation(&["p1"], &[], &["R"]), None);
    assert_eq!(restricted.unwrap_err(), RecordDenial::NotPermitted);
    assert!(ward(&NURSE, "PUT Observation/o1").unwrap().matching().is_none());
    assert!(ward(&NURSE, "POST Observation code=x").unwrap().matching().is_some());
}

#[test]
fn a_history_is_of_what_was_asked_and_reads_its_dates() {
    let mut version = facts("Observation", "o1", &["p1"], &[]);
    version.version = Some("7".to_owned());
    let one = ward(&NURSE, "Observation/o1/_history").unwrap();
    assert!(one.record(&version, None).is_ok());
    assert_eq!(
        one.record(&facts("Observation", "o2", &["p1"], &[]), None).unwrap_err(),
        RecordDenial::NotAsked
    );
    let system = ward(&NURSE, "_history").unwrap();
    assert!(system.resource_type().is_none() && system.depends_on_records());
    assert!(system.record(&version, None).is_ok());
    assert!(system.record(&facts("Condition", "c1", &["p1"], &[]), None).is_err());

    let blind = format!(
        "{WARD} forbid (principal, action == Action::\"disclose\", resource in FHIR::Element::\"Observation.meta\");"
    );
    let blind = load(&blind).unwrap();
    let enter = |asked: &str| ward_of(&blind, &NURSE, asked);
    assert_eq!(gist(enter("Observation/_history")), "Ok");
    let since = "_since=2026-01-01T00:00:00Z";
    assert_eq!(gist(enter(&format!("Observation/_history?{since}"))), "CriterionWithheld _since");
    assert_eq!(gist(enter(&format!("$export?_type=Observation&{since}"))), "CriterionWithheld _since");
    let everything = enter(&format!("Patient/p1/$everything?{since}")).unwrap();
    assert_eq!(everything.record(&version, None).unwrap_err(), RecordDenial::CriterionWithheld);
    assert!(everything.record(&facts("Patient", "p1", &["p1"], &[]), None).is_ok());
}

#[test]
fn an_operation_rests_on_its_patient() {
    let patient = |id: &str, labels: &[&str]| facts("Patient", id, &[id], labels);
    let own = ward(&NURSE, "Patient/p1/$everything").unwrap();
    assert_eq!(own.basis(), Some((resource("Patient"), "p1")));
    assert_eq!(own.rests_on(&patient("p1", &[])), Ok(()));
    assert_eq!(own.rests_on(&patient("p1", &["R"])), Err(RecordDenial::NotPermitted));
    assert_eq!(own.rests_on(&patient("p2", &[])), Err(RecordDenial::NotAsked));
    assert!(own.record(&observation(&["p1"], &[], &[]), None).is_ok());
    // Reading p2 is permitted, the operation on p2 is not.
    let other = ward(&NURSE, "Patient/p2/$everything").unwrap();
    assert_eq!(other.rests_on(&patient("p2", &[])), Err(RecordDenial::NotPermitted));
    let row = other.record(&observation(&["p2"], &[], &[]), None);
    assert_eq!(row.unwrap_err(), RecordDenial::NotPermitted);
    assert!(ward(&NURSE, "Patient/p2").unwrap().record(&patient("p2", &[]), None).is_ok());
}

#[test]
fn what_an_operation_gives_back_is_read() {
    let expand = ward(&NURSE, "ValueSet/$expand?url=http://x").unwrap();
    let mut expansion = Facts::of_type(resource("ValueSet"));
    expansion.status = Some("active".to_owned());
    assert!(expand.record(&expansion, None).is_ok());
    assert_eq!(expand.record(&observation(&["p1"], &[], &[]), None).unwrap_err(), RecordDenial::NotAsked);
    let validate = ward(&NURSE, "POST Observation/$validate").unwrap();
    assert!(validate.types().is_empty());
    assert!(validate.record(&observation(&["p1"], &[], &[]), None).is_err());
    let last = ward(&NURSE, "Observation/$lastn?patient=p1&category=vital-signs").unwrap();
    assert!(last.record(&observation(&["p1"], &[], &[]), None).is_ok());
    assert!(last.record(&observation(&["p1"], &[], &["R"]), None).is_err());
    let export = ward(&NURSE, "$export").unwrap();
    assert!(export.record(&observation(&["p1"], &[], &[]), None).is_ok());
    assert!(export.record(&observation(&["p1"], &[], &["R"]), None).is_err());
    assert!(export.record(&facts("Practitioner", "d1", &[], &[]), None).is_err());
}

/// The EMR expands from records that it does not name, so one that is withheld, or an element, closes the operation.
#[test]
fn terminology_is_answered_only_where_all_of_it_is_open() {
    let expand = |forbid: &str| {
        let set = load(&format!("{WARD} forbid (principal, {forbid};")).unwrap();
        gist(ward_of(&set, &NURSE, "ValueSet/$expand?url=http://x"))
    };
    let cases = [
        ("action == Action::\"read\", resource is FHIR::Patient)", "Ok"),
        ("action == Action::\"read\", resource is FHIR::CodeSystem)", "TypeNotPermitted"),
        (
            "action == Action::\"read\", resource is FHIR::CodeSystem) when { resource.labels.contains(\"V\") }",
            "TypeNotPermitted",
        ),
        (
            "action == Action::\"read\", resource is FHIR::ValueSet) when { resource.status == \"draft\" }",
            "TypeNotPermitted",
        ),
        (
            "action == Action::\"disclose\", resource in FHIR::Element::\"CodeSystem.concept.definition\")",
            "TypeNotPermitted",
        ),
        (
            "action == Action::\"disclose\", resource in FHIR::Element::\"ValueSet.publisher\") \
             when { context.labels.contains(\"N\") }",
            "TypeNotPermitted",
        ),
    ];
    for (forbid, expected) in cases {
        assert_eq!(expand(forbid), expected, "{forbid}");
    }
}

#[test]
fn a_compartment_needs_an_element_that_shows_it() {
    let permit = ward(&NURSE, "Patient/p1/Observation").unwrap();
    let paths: Vec<&str> = permit.compartment_paths().iter().map(ElementPath::as_str).collect();
    assert!(paths.contains(&"Observation.subject") && permit.depends_on_records(), "{paths:?}");
    let hide = |elements: &str| {
        let set = load(&format!(
            "{WARD} forbid (principal, action == Action::\"disclose\", resource) when {{ resource in [{elements}] }};"
        ));
        ward_of(&set.unwrap(), &NURSE, "Patient/p1/Observation")
    };
    let subject = r#"FHIR::Element::"Observation.subject""#;
    let permit = hide(subject).unwrap();
    let paths: Vec<&str> = permit.compartment_paths().iter().map(ElementPath::as_str).collect();
    assert_eq!(paths, ["Observation.performer"]);
    let both = format!("{subject}, FHIR::Element::\"Observation.performer\"");
    assert_eq!(gist(hide(&both)), "CriterionWithheld Patient");
}
