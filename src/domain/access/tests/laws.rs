//! What holds for every set, situation and record: property tests on the small hospital.
//!
//! Owns: the laws. Must never: depend on the shipped policies. Look next: `super`, the hospital.

use super::writes::{WARD, ward_of, ward_set};
use super::*;
use crate::domain::access::engine::{Engine, Verdict};
use crate::domain::access::expression::Attribute;
use crate::domain::access::key::{Key, KeyParts, Situated};
use crate::domain::access::masks::judge;
use proptest::prelude::*;

fn some_facts() -> impl Strategy<Value = Facts> {
    let subset = |of: &'static [&'static str]| prop::sample::subsequence(of.to_vec(), 0..=of.len());
    (
        prop::sample::select(vec!["Patient", "Observation", "Practitioner", "Condition"]),
        prop::sample::select(vec!["p1", "p2"]),
        subset(&["p1", "p2"]),
        subset(&["R", "N", "U"]),
        prop::sample::select(vec!["final", "cancelled"]),
    )
        .prop_map(|(name, id, patients, labels, status)| {
            let mut facts = facts(name, id, &patients, &labels);
            facts.status = Some(status.to_owned());
            facts
        })
}

/// What a decision is kept under, with what its number stands for.
fn key_of(
    set: &PolicySet,
    situation: &Situation,
    asked: (Action, Option<&'static str>),
    record: &Record<'_>,
) -> (Situated, Key) {
    let uses = set.uses(&situation.who.roles);
    let situated = Situated::new(set, situation, &uses);
    (situated, KeyParts::new(0, uses).for_record(asked, record))
}

fn some_situation() -> impl Strategy<Value = Situation> {
    (
        prop::sample::subsequence(vec!["nurse", "doctor", "patient"], 0..=3),
        prop::sample::select(vec!["TREAT", "NONE"]),
        prop::option::of(prop::sample::select(vec!["Patient/p1", "Patient/p2", "Practitioner/p1"])),
        prop::sample::select(vec![0, 3599, 3600, i64::MAX]),
    )
        .prop_map(|(roles, purpose, user, age)| {
            let situation = Situation::rehearsal(&roles, purpose).with_age_seconds(age);
            user.map_or(situation.clone(), |user| situation.with_fhir_user(user))
        })
}

const FORBIDS: [&str; 6] = [
    r#"forbid (principal, action, resource);"#,
    r#"forbid (principal in Role::"nurse", action == Action::"disclose", resource in ElementGroup::"face");"#,
    r#"forbid (principal, action == Action::"read", resource is FHIR::Patient) when { context.purpose == "TREAT" };"#,
    r#"forbid (principal, action == Action::"disclose", resource) unless { context.labels.contains("U") };"#,
    r#"forbid (principal, action in Action::"view", resource in Patient::"p1");"#,
    r#"forbid (principal, action == Action::"disclose", resource == FHIR::Element::"Patient.name.family");"#,
];

static FORBIDDEN: LazyLock<Vec<Arc<PolicySet>>> =
    LazyLock::new(|| FORBIDS.iter().map(|forbid| load(&format!("{HOSPITAL}{forbid}")).unwrap()).collect());

/// A set in which every input matters, so that every input must be in the key.
static CURIOUS: LazyLock<Arc<PolicySet>> = LazyLock::new(|| {
    load(
        r#"permit (principal, action, resource is FHIR::Observation) when {
             context.relations.contains("self") || context.network == ip("10.0.0.1")
             || context.now > datetime("2026-01-01") || context.mfa.age + 1 > 2
             || context.scopes.contains("x") || context.application == "a" || context.binding == "dpop" || context.emergency || principal == User::"i|s"
             || resource.labels.contains("R") || resource.status == "final" || resource.code.contains("c")
             || resource.category.contains("c") || resource.mentions.contains(Patient::"p")
             || resource in Patient::"p" };"#,
    )
    .unwrap()
});

/// What the forbids of writing must hold against.
const WRITE_FORBIDS: [&str; 5] = [
    r#"forbid (principal, action, resource);"#,
    r#"forbid (principal, action in Action::"change", resource in Patient::"p1");"#,
    r#"forbid (principal, action == Action::"modify", resource in FHIR::Element::"Observation.code");"#,
    r#"forbid (principal, action == Action::"modify", resource) when { context.labels.contains("U") };"#,
    r#"forbid (principal, action == Action::"update", resource is FHIR::Observation) when { resource.labels.contains("N") };"#,
];

static FORBIDDEN_WARD: LazyLock<Vec<Arc<PolicySet>>> =
    LazyLock::new(|| WRITE_FORBIDS.iter().map(|forbid| load(&format!("{WARD}{forbid}")).unwrap()).collect());

const WRITERS: [CallerSpecimen; 4] = [
    NURSE,
    PATIENT,
    CallerSpecimen { fhir_user: Some("Patient/p1"), ..CallerSpecimen::with_roles(&["nurse", "patient"]) },
    CallerSpecimen::with_roles(&[]),
];

const SCOPES: [&[&str]; 5] = [
    &["user/*.cruds"],
    &["user/Observation.u"],
    &["user/*.write"],
    &["user/Patient.cu", "user/Observation.rs"],
    &["patient/*.cruds"],
];

/// A write, with the record as it is and as it will be where there is one.
fn some_change() -> impl Strategy<Value = (&'static str, Option<Facts>, Option<Facts>)> {
    let asked = vec![
        ("POST Observation", Action::Create),
        ("PUT Observation/x", Action::Update),
        ("PATCH Observation/x", Action::Patch),
        ("PUT Patient/x", Action::Update),
        ("DELETE Patient/x", Action::Delete),
    ];
    (prop::sample::select(asked), some_facts(), some_facts()).prop_map(|((asked, action), before, after)| {
        let of_type = |mut facts: Facts| {
            facts.resource_type = interaction(asked).resource_type().unwrap();
            facts.id = Some("x".to_owned());
            // Most of what is restricted is refused whole, which shows little.
            if facts.labels.contains("U") {
                facts.labels.remove("R");
            }
            facts
        };
        let before = Some(of_type(before)).filter(|_| action != Action::Create);
        let after = Some(of_type(after)).filter(|_| action != Action::Delete);
        (asked, before, after)
    })
}

/// The elements that a change lets in; `None` where it is refused.
fn let_in(
    set: &Arc<PolicySet>,
    caller: &CallerSpecimen,
    change: &(&str, Option<Facts>, Option<Facts>),
) -> Option<BTreeSet<&'static str>> {
    let (asked, before, after) = change;
    let outcome = ward_of(set, caller, asked).ok()?.change(before.as_ref(), after.as_ref(), None).ok()?;
    let covers = |path: &&str| outcome.modify().covers(&ElementPath::parse(path).unwrap());
    Some(PATHS.into_iter().filter(covers).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// No write where Cedar denies the action on either image, and no element that either image keeps out.
    #[test]
    fn a_change_is_within_both_of_its_images(which in 0..WRITERS.len(), change in some_change()) {
        let caller = &WRITERS[which];
        let Some(let_in) = let_in(ward_set(), caller, &change) else { return Ok(()) };
        let action = match change.0.split(' ').next().unwrap() {
            "POST" => Action::Create,
            "PUT" => Action::Update,
            "PATCH" => Action::Patch,
            _ => Action::Delete,
        };
        let situation = Situation::new(&caller.caller(), &circumstances(None)).unwrap();
        for facts in change.1.iter().chain(&change.2) {
            let relations = situation.relations(About::whole(action, facts), &BTreeSet::new(), &Relations::none());
            let record = Record { facts, relations, emergency: false };
            let engine = Engine::new(ward_set(), &situation).unwrap();
            prop_assert!(engine.record(action, &record).unwrap().is_some(), "{}", change.0);
            let image = judge(ward_set(), &situation, action, &record);
            prop_assert!(image.is_ok() && let_in.is_subset(&shown(&image)), "{}", change.0);
        }
    }

    #[test]
    fn an_added_forbid_never_lets_more_in(
        which in 0..WRITERS.len(), forbid in 0..WRITE_FORBIDS.len(), change in some_change(),
    ) {
        let caller = &WRITERS[which];
        let after = let_in(&FORBIDDEN_WARD[forbid], caller, &change);
        let before = let_in(ward_set(), caller, &change);
        prop_assert!(after.is_none() || after.unwrap().is_subset(&before.unwrap()));
        if forbid == 0 {
            prop_assert!(let_in(&FORBIDDEN_WARD[0], caller, &change).is_none());
        }
    }

    #[test]
    fn scopes_never_let_more_in_or_out(
        which in 0..WRITERS.len(), scopes in 0..SCOPES.len(), change in some_change(),
    ) {
        let open = WRITERS[which].clone();
        let scoped = CallerSpecimen { scopes: SCOPES[scopes], launch_patient: Some("p1"), ..open.clone() };
        let narrow = let_in(ward_set(), &scoped, &change);
        let wide = let_in(ward_set(), &open, &change);
        prop_assert!(narrow.is_none() || narrow.unwrap().is_subset(&wide.unwrap()));
        if let (Ok(narrow), Ok(wide)) =
            (ward_of(ward_set(), &scoped, change.0), ward_of(ward_set(), &open, change.0))
        {
            for facts in change.1.iter().chain(&change.2) {
                let (narrow, wide) = (narrow.record(facts, None), wide.record(facts, None));
                prop_assert!(shown(&narrow).is_subset(&shown(&wide)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_added_forbid_never_widens(
        which in 0..FORBIDS.len(), situation in some_situation(), facts in some_facts(),
    ) {
        let before = shown(&ask(&hospital(), &situation, &facts));
        let after = shown(&ask(&FORBIDDEN[which], &situation, &facts));
        prop_assert!(after.is_subset(&before), "{after:?} {before:?}");
    }

    #[test]
    fn another_role_adds_and_forbids_still_win(situation in some_situation(), facts in some_facts()) {
        let mut more = situation.clone();
        more.who_mut().roles.insert("patient".to_owned());
        let (less, more) = (ask(&hospital(), &situation, &facts), ask(&hospital(), &more, &facts));
        prop_assert!(shown(&less).is_subset(&shown(&more)));
        if facts.labels.contains("N") {
            prop_assert!(!shown(&more).contains("Patient.name"));
        }
        if facts.labels.contains("R") && !situation.who.roles.contains("doctor") {
            prop_assert_eq!(more.unwrap_err(), RecordDenial::NotPermitted);
        }
    }

    /// What is said about a type holds for its records: possible is an upper bound, definite a lower one.
    #[test]
    fn the_view_of_a_type_bounds_its_records(situation in some_situation(), facts in some_facts()) {
        for set in FORBIDDEN.iter().chain([&*HOSPITAL_SET]) {
            let desk = Desk::new(Arc::clone(set), Masks::new(), situation.clone());
            let view = desk.view(Action::Read, facts.resource_type).unwrap();
            let outcome = ask(set, &situation, &facts);
            for path in shown(&outcome) {
                prop_assert!(view.verdict != Verdict::No);
                prop_assert!(view.possible.covers(&ElementPath::parse(path).unwrap()), "{path}");
            }
            if view.verdict == Verdict::Yes {
                for path in PATHS.into_iter().map(|path| ElementPath::parse(path).unwrap()) {
                    let definite = view.definite.covers(&path);
                    prop_assert!(!definite || outcome.as_ref().unwrap().mask().covers(&path), "{path}");
                }
            }
        }
    }

    #[test]
    fn kept_answers_are_the_answers(
        asked in prop::collection::vec((some_situation(), some_facts(), 0..10_usize, any::<bool>()), 1..12),
    ) {
        let masks = Masks::new();
        for (situation, facts, action, lastn) in asked {
            let action = Action::ALL[action];
            let situation = situation.with_operation(if lastn { "$lastn" } else { "$everything" });
            let relations = situation.relations(About::whole(action, &facts), &BTreeSet::new(), &Relations::none());
            let record = Record { facts: &facts, relations, emergency: false };
            for set in [hospital(), Arc::clone(ward_set())] {
                let desk = Desk::new(Arc::clone(&set), masks.clone(), situation.clone());
                for _ in 0..2 {
                    let kept = desk.judge(action, &record);
                    let fresh = judge(&set, &situation, action, &record);
                    prop_assert_eq!(shown(&kept), shown(&fresh), "{:?}", action);
                    prop_assert_eq!(kept.is_ok(), fresh.is_ok(), "{:?}", action);
                }
            }
        }
    }

    #[test]
    fn changing_a_used_input_changes_the_key(change in 0..26_usize) {
        let situation = Situation::rehearsal(&["nurse"], "TREAT").with_fhir_user("Patient/p1");
        let facts = facts("Observation", "o1", &["p1"], &["R"]);
        let key = |situation: &Situation, facts: &Facts, relations: Held, action| {
            key_of(&CURIOUS, situation, (action, situation.operation), &Record { facts, relations, emergency: false })
        };
        let (mut other, mut changed, mut relations, mut action) =
            (situation.clone(), facts.clone(), Held::default(), Action::Read);
        let before = key(&situation, &facts, relations, action);
        prop_assert_eq!(&before, &key(&situation, &facts, relations, action));
        let extra = || "other".to_owned();
        match change {
            0 => other.person = false,
            1 => other.who_mut().issuer = extra(),
            2 => other.who_mut().subject = extra(),
            3 => { other.who_mut().roles.insert(extra()); }
            4 => other.who_mut().application = Some(extra()),
            5 => other.who_mut().fhir_user = None,
            6 => other.who_mut().scopes.push(extra()),
            7 => other.purpose = extra(),
            8 => { Arc::make_mut(&mut other.who_mut().methods).insert(extra()); }
            9 => other.age_seconds += 1,
            10 => other.phishing_resistant = false,
            11 => { other.emergencies.insert(extra(), extra()); },
            12 => other.network = "10.0.0.2".parse().unwrap(),
            13 => other.now = now(),
            14 => action = Action::Export,
            15 => relations = Held::from_iter([Relation::CareTeam]),
            25 => relations = Held::from_iter([Relation::NoObjection]),
            16 => changed.resource_type = resource("Condition"),
            17 => changed.id = Some(extra()),
            18 => { changed.patients.insert(extra()); }
            19 => { changed.mentions.insert(extra()); }
            20 => { changed.labels.insert(extra()); }
            21 => changed.status = None,
            22 => { changed.category.insert(extra()); }
            23 => other.who_mut().binding = "dpop",
            _ => { changed.code.insert(extra()); }
        }
        prop_assert_ne!(before, key(&other, &changed, relations, action), "{}", change);
    }
}

#[test]
fn a_record_under_emergency_has_a_key_of_its_own() {
    let facts = facts("Observation", "o1", &["p1"], &[]);
    let situation = Situation::rehearsal(&["nurse"], "TREAT").with_emergency("p1", "g1");
    let key = |emergency| {
        let record = Record { facts: &facts, relations: Held::default(), emergency };
        key_of(&CURIOUS, &situation, (Action::Read, None), &record)
    };
    assert_ne!(key(true), key(false));
    // Which grant it is does not change what is decided.
    let other = Situation::rehearsal(&["nurse"], "TREAT").with_emergency("p1", "g2");
    let record = Record { facts: &facts, relations: Held::default(), emergency: true };
    assert_eq!(key(true), key_of(&CURIOUS, &other, (Action::Read, None), &record));
}

#[test]
fn a_key_holds_no_more_than_was_used() {
    let key = |situation: &Situation, facts: &Facts| {
        let record = Record { facts, relations: Held::default(), emergency: false };
        key_of(&hospital(), situation, (Action::Read, None), &record)
    };
    let situation = Situation::rehearsal(&["nurse"], "TREAT").with_age_seconds(10);
    let before = key(&situation, &facts("Observation", "o1", &["p1"], &[]));
    let mut later = situation.clone().with_age_seconds(3599);
    later.now = now();
    later.who_mut().subject = "somebody else".to_owned();
    assert_eq!(before, key(&later, &facts("Observation", "o2", &["p2"], &[])));
    let later = later.with_age_seconds(3600);
    assert_eq!(
        before,
        key(&later, &facts("Observation", "o2", &["p2"], &[])),
        "only doctors are asked how long ago"
    );
    let doctor = Situation::rehearsal(&["doctor"], "TREAT").with_age_seconds(3599);
    let of_doctor = |situation: &Situation| key(situation, &facts("Observation", "o1", &["p1"], &[]));
    assert_ne!(of_doctor(&doctor), of_doctor(&doctor.clone().with_age_seconds(3600)));
    let both = Situation::rehearsal(&["doctor", "nurse"], "TREAT").with_age_seconds(3599);
    assert_ne!(of_doctor(&both), of_doctor(&both.clone().with_age_seconds(3600)));
}

/// What policies of other roles name is not asked about, and changes no mask.
#[test]
fn what_other_roles_name_changes_nothing() {
    let stranger = r#"
        permit (principal in Role::"stranger", action == Action::"disclose", resource in [
          FHIR::Element::"Patient.name.family", FHIR::Element::"Patient.contact.telecom", FHIR::Element::"Observation.code.text",
          FHIR::Element::"Patient.extension('http://example.org/race')"]);
        permit (principal in Role::"stranger", action == Action::"disclose", resource in ElementGroup::"face");
        forbid (principal in Role::"stranger", action, resource == FHIR::Element::"Observation.value");"#;
    let (plain, more) = (hospital(), load(&format!("{HOSPITAL}{stranger}")).unwrap());
    for roles in [&["nurse"][..], &["doctor"], &["patient"], &["nurse", "patient"], &[]] {
        let situation = Situation::rehearsal(roles, "TREAT").with_fhir_user("Patient/p1");
        for name in ["Patient", "Observation", "Condition"] {
            let kept = |set: &Arc<PolicySet>| {
                let seen = rehearse_type(set, &situation, resource(name)).unwrap();
                let one = facts(name, "p1", &["p1"], &["R"]);
                (seen.possible.kept(), seen.definite.kept(), shown(&ask(set, &situation, &one)))
            };
            assert_eq!(kept(&plain), kept(&more), "{roles:?} {name}");
            let asked =
                |set: &PolicySet| set.branches(Action::Disclose, resource(name), &situation.who.roles).len();
            assert_eq!(asked(&plain), asked(&more), "{roles:?} {name}");
        }
    }
}

/// An attribute that the schema gets is in keys, or every key has it, or this fails.
#[test]
fn keys_know_every_attribute_of_the_schema() {
    // Who it is and how they logged in has its own places in keys; the rest is in every key, or no attribute.
    let elsewhere = [
        ["issuer", "subject", "fhirUser", "methods", "age", "phishingResistant"].as_slice(),
        &["purpose", "operation", "principal", "resource", "context"],
    ]
    .concat();
    let mut known = 0;
    for line in crate::domain::access::load::SCHEMA.lines().filter(|line| line.ends_with(',')) {
        let Some((name, _)) = line.trim().split_once(": ") else { continue };
        let name = name.trim_end_matches('?');
        assert!(elsewhere.contains(&name) || Attribute::named(name).is_some(), "{name}");
        known += 1;
    }
    assert!(known > 600, "{known}");
}

/// What a desk has at hand is what it would look up.
#[test]
fn a_desk_asked_for_much_says_the_same_again() {
    let situation = Situation::rehearsal(&["nurse"], "TREAT");
    let desk = Desk::new(hospital(), Masks::new(), situation.clone());
    for _ in 0..2 {
        for name in ["Patient", "Observation", "Condition", "Practitioner"] {
            for action in Action::ALL {
                let fresh = Desk::new(hospital(), Masks::new(), situation.clone());
                let of = |desk: &Desk| {
                    let view = desk.view(action, resource(name)).unwrap();
                    (view.verdict, view.possible.kept(), view.definite.kept(), view.policies.to_vec())
                };
                assert_eq!(of(&desk), of(&fresh), "{action:?} {name}");
            }
        }
    }
}

#[test]
fn relations_are_told_apart() {
    for relation in Relation::ALL {
        let held = Held::from_iter([relation]);
        // Consent is no objection and more.
        let implied = relation == Relation::Consent;
        let is_held = |other| other == relation || implied && other == Relation::NoObjection;
        assert!(Relation::ALL.into_iter().all(|other| held.has(other) == is_held(other)));
        assert!(held.names().eq(Relation::ALL.into_iter().filter(|one| is_held(*one)).map(Relation::name)));
    }
    assert_eq!(Held::from_iter(Relation::ALL).names().count(), Relation::ALL.len());
}
