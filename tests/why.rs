//! What a role sees as a tree, why a question is answered as it is, and what would have to be otherwise.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test panics")]

use chartgate::domain::access::{PolicySet, Source};
use chartgate::domain::fhir::r4::ElementPath;
use chartgate::domain::workbench::{
    Case, Change, Node, Records, Standing, Suggestion, explain, judge, read_cases, record_trees, type_tree,
};
use chartgate::edge::policy_files;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

fn shipped_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

fn shipped() -> Arc<PolicySet> {
    static SET: OnceLock<Arc<PolicySet>> = OnceLock::new();
    let load = || Arc::new(policy_files::load(&shipped_directory()).unwrap_or_else(|p| panic!("{p:#?}")));
    Arc::clone(SET.get_or_init(load))
}

fn set(text: &str) -> Arc<PolicySet> {
    let source = Source { name: "p.cedar".to_owned(), text: text.to_owned() };
    Arc::new(PolicySet::load(&[source], None, None).unwrap_or_else(|problems| panic!("{problems:#?}")))
}

/// One case of the guide's form; `words` are its lines beside the name.
fn case(words: &str) -> Case {
    let text = format!("[[case]]\nname = \"n\"\n{words}\n");
    let read = read_cases(&Source { name: "t.toml".to_owned(), text });
    read.unwrap_or_else(|problems| panic!("{words}: {problems:?}")).remove(0)
}

/// Every element of a tree with how it stands and by which policies, one a line.
fn lines(nodes: &[Node]) -> Vec<String> {
    let line = |node: &Node| {
        let said = match node.standing {
            Standing::Passes => format!("+ {} by {}", node.path, node.permits.join(" ")),
            Standing::InSomeRecords => format!("? {} not where {}", node.path, node.forbids.join(" ")),
            Standing::InParts => format!("~ {}", node.path),
            Standing::Stays => format!("- {} by {}", node.path, node.forbids.join(" ")),
        };
        std::iter::once(said).chain(lines(&node.inside)).collect::<Vec<_>>()
    };
    nodes.iter().flat_map(line).map(|line| line.trim_end_matches(" by ").to_owned()).collect()
}

/// Case lines, and what must stand in the record's tree.
#[test]
fn a_records_tree_says_which_policy_shows_or_withholds_each_element() {
    let nurse = "role = \"nurse\"\npurpose = \"TREAT\"\nexpect = \"permit\"\n";
    for (more, expected) in [
        (
            "record = \"patient\"",
            &[
                "+ Patient.name by nurse-elements",
                "- Patient.telecom",
                "- Patient.extension",
                "~ Patient.meta",
            ][..],
        ),
        (
            "record = \"active-medication\"",
            &[
                "- MedicationRequest.insurance by nurse-not-financial",
                "+ MedicationRequest.status by nurse-elements",
            ],
        ),
        ("type = \"Observation\"\nlabels = \"N\"", &["+ Observation.value by nurse-elements"]),
    ] {
        let trees = record_trees(&shipped(), &Records::built_in(), &case(&format!("{nurse}{more}"))).unwrap();
        let found = lines(&trees[0].nodes);
        for line in expected {
            assert!(found.iter().any(|one| one == line), "{more}: {line} in {found:#?}");
        }
    }
    let hidden = case(&format!("{nurse}record = \"blood-pressure\"\nlabels = \"HIV\""));
    let tree = record_trees(&shipped(), &Records::built_in(), &hidden).unwrap().remove(0);
    assert_eq!((tree.standing, tree.forbids), (Standing::Stays, vec!["sensitive-labels".to_owned()]));
    assert!(tree.nodes.is_empty());
}

/// A tree of a record holds what stands in the record and nothing else.
#[test]
fn a_records_tree_follows_the_record() {
    let asked = case("role = \"physician\"\npurpose = \"TREAT\"\nrecord = \"allergy\"\nexpect = \"permit\"");
    let tree = record_trees(&shipped(), &Records::built_in(), &asked).unwrap().remove(0);
    let json: Value = serde_json::from_slice(Records::built_in().by_name("allergy").unwrap()).unwrap();
    let mut expected: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
    expected.retain(|key| key != "resourceType");
    let mut found: Vec<String> =
        tree.nodes.iter().map(|node| node.path.rsplit('.').next().unwrap().to_owned()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_types_tree_says_what_depends_on_the_record() {
    let policies = set(
        "@id(\"read\") permit (principal in Role::\"r\", action == Action::\"read\", resource is FHIR::Patient);
         @id(\"show\") permit (principal in Role::\"r\", action == Action::\"disclose\", resource in FHIR::Element::\"Patient\");
         @id(\"own\") permit (principal in Role::\"r\", action == Action::\"disclose\", resource in FHIR::Element::\"Patient.extension\")
         when { context.relations.contains(\"self\") };
         @id(\"marked\") forbid (principal, action == Action::\"disclose\", resource in FHIR::Element::\"Patient.address\")
         when { context.labels.contains(\"R\") };
         @id(\"never\") forbid (principal, action == Action::\"disclose\", resource in FHIR::Element::\"Patient.name.family\");",
    );
    let asked = case("role = \"r\"\npurpose = \"TREAT\"\ntype = \"Patient\"\nexpect = \"permit\"");
    let patient = ElementPath::parse("Patient").unwrap().resource_type();
    let (tree, _) = type_tree(&policies, &asked, patient).unwrap().unwrap();
    let found = lines(&tree.nodes);
    for line in [
        "+ Patient.gender by show",
        "? Patient.address not where marked",
        "~ Patient.name",
        "- Patient.name.family by never",
        "+ Patient.name.given by show",
        "? Patient.extension not where",
    ] {
        assert!(found.iter().any(|one| one.trim_end() == line), "{line} in {found:#?}");
    }
    assert!(!found.iter().any(|line| line.contains("Patient.gender.")), "what is whole is not taken apart");
}

fn suggested(found: &[Suggestion]) -> Vec<String> {
    let words = |one: &Suggestion| one.changes.iter().map(Change::words).collect::<Vec<_>>().join(" and ");
    found.iter().map(words).collect()
}

/// Case lines and an element, the start of the decision, and a change that must be suggested; none must be there for `""`.
#[test]
fn what_would_permit_is_found() {
    for (words, element, decision, expected) in [
        (
            "role = \"nurse\"\npurpose = \"HRESCH\"\nrecord = \"patient\"",
            "",
            "refused: not",
            "the purpose TREAT",
        ),
        (
            "role = \"nurse\"\npurpose = \"TREAT\"\nrecord = \"blood-pressure\"\nlabels = [\"HIV\", \"R\"]",
            "",
            "refused by `sensitive-labels`",
            "a record without the label HIV, R",
        ),
        (
            "role = \"physician\"\npurpose = \"TREAT\"\nrecord = \"blood-pressure\"\nsecond-factor-age = \"13h\"",
            "",
            "refused by `recent-second-factor`",
            "a second factor proven at most 43200 s ago",
        ),
        (
            "role = \"patient\"\npurpose = \"PATRQT\"\nrecord = \"patient\"",
            "",
            "refused: not",
            "the relation self to the patient",
        ),
        (
            "role = \"patient\"\npurpose = \"TREAT\"\nrecord = \"patient\"",
            "",
            "refused: not",
            "the purpose PATRQT and the relation self to the patient",
        ),
        (
            "role = \"nurse\"\npurpose = \"TREAT\"\nrecord = \"active-medication\"",
            "MedicationRequest.insurance",
            "withheld by `nurse-not-financial`",
            "the role physician",
        ),
        (
            "role = \"nurse\"\npurpose = \"TREAT\"\nrecord = \"patient\"",
            "Patient.name",
            "passes, by `nurse-el",
            "",
        ),
    ] {
        let asked = case(&format!("{words}\nexpect = \"permit\""));
        let elements: Vec<ElementPath> = ElementPath::parse(element).into_iter().collect();
        let found = explain(&shipped(), &Records::built_in(), &asked, &elements).unwrap();
        let answer = found.answers.last().unwrap();
        assert!(answer.decision.starts_with(decision), "{words}: {}", answer.decision);
        let words = suggested(&answer.changes);
        assert_eq!(words.iter().any(|one| one == expected), !expected.is_empty(), "{expected} in {words:#?}");
        assert!(!expected.is_empty() || words.is_empty(), "what is permitted needs no change: {words:?}");
    }
}

/// Emergencies come last whatever else helps, and are marked where nothing else does.
#[test]
fn an_emergency_is_never_the_first_advice() {
    let policies = set("permit (principal in Role::\"r\", action in Action::\"view\", resource)
         when { context.emergency || context.purpose == \"ETREAT\" || context.purpose == \"TREAT\" };
         permit (principal in Role::\"r\", action == Action::\"disclose\", resource);");
    let asked = case("role = \"r\"\npurpose = \"NONE\"\nrecord = \"patient\"\nexpect = \"permit\"");
    let found = explain(&policies, &Records::built_in(), &asked, &[]).unwrap();
    let order: Vec<bool> = found.answers[0].changes.iter().map(Suggestion::is_emergency).collect();
    assert_eq!(order, [false, true, true], "{:?}", suggested(&found.answers[0].changes));
}

/// Which condition of a permit failed, and what would be left for the caller to fulfil.
#[test]
fn the_condition_that_failed_is_named() {
    let policies = set(
        "@id(\"drafts\") permit (principal in Role::\"r\", action == Action::\"read\", resource is FHIR::Observation)
         when { context.purpose == \"TREAT\" && resource.status == \"preliminary\" };
         @id(\"team\") permit (principal in Role::\"r\", action == Action::\"read\", resource is FHIR::Observation)
         when { resource.status == \"final\" && context.relations.contains(\"care-team\") }
         unless { context.mfa.age > 300 };
         @id(\"show\") permit (principal in Role::\"r\", action == Action::\"disclose\", resource);",
    );
    let asked = case(
        "role = \"r\"\npurpose = \"TREAT\"\ntype = \"Observation\"\nstatus = \"final\"\n\
                      second-factor-age = \"10m\"\nexpect = \"permit\"",
    );
    let found = explain(&policies, &Records::built_in(), &asked, &[]).unwrap();
    let answer = &found.answers[0];
    let say = |id: &str| answer.says.iter().find(|say| say.policy == id).unwrap();
    assert_eq!(say("drafts").failing, ["the record's status is preliminary"]);
    assert_eq!(say("drafts").needs, None, "no caller changes the status of a record");
    assert_eq!(
        say("team").failing,
        [
            "the caller's relation to the patient is care-team",
            "the second factor is at most as old as 300 s (5 min)"
        ]
    );
    let needs = say("team").needs.clone().unwrap();
    assert!(needs.contains("care-team") && needs.contains("300 s"), "{needs}");
    assert_eq!(
        suggested(&answer.changes),
        ["a second factor proven at most 300 s ago and the relation care-team to the patient"]
    );
}

/// Parts that random policies are made of.
const CONDITIONS: [&str; 9] = [
    "context.purpose == \"TREAT\"",
    "[\"HRESCH\", \"ETREAT\"].contains(context.purpose)",
    "context.relations.contains(\"care-team\")",
    "context.mfa.age < 300",
    "context.mfa.phishingResistant",
    "context.emergency",
    "resource.labels.contains(\"R\")",
    "principal in Role::\"b\"",
    "resource.status == \"final\"",
];

fn condition() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(CONDITIONS.to_vec()).prop_map(str::to_owned);
    atom.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

fn policies() -> impl Strategy<Value = String> {
    let who = vec!["principal", "principal in Role::\"a\"", "principal in Role::\"b\""];
    let who = prop::sample::select(who);
    let policy = (any::<bool>(), who, condition()).prop_map(|(permits, who, condition)| {
        let effect = if permits { "permit" } else { "forbid" };
        format!("{effect} ({who}, action == Action::\"read\", resource is FHIR::Observation) when {{ {condition} }};")
    });
    prop::collection::vec(policy, 1..5).prop_map(|all| {
        let show =
            "permit (principal, action == Action::\"disclose\", resource in FHIR::Element::\"Observation\");";
        format!("{}\n{show}", all.join("\n"))
    })
}

fn question() -> impl Strategy<Value = Case> {
    let purpose = prop::sample::select(vec!["TREAT", "HRESCH", "NONE"]);
    let role = prop::sample::select(vec!["a", "b", "c"]);
    let status = prop::sample::select(vec!["final", "preliminary"]);
    (purpose, role, status, any::<[bool; 4]>()).prop_map(|(purpose, role, status, [team, old, weak, marked])| {
        let mut words = format!(
            "role = \"{role}\"\npurpose = \"{purpose}\"\ntype = \"Observation\"\nstatus = \"{status}\"\nexpect = \"permit\"\n"
        );
        let mut say = |said: bool, line: &str| if said { words.push_str(line) };
        say(team, "relation = \"care-team\"\n");
        say(old, "second-factor-age = \"1h\"\n");
        say(weak, "phishing-resistant = false\n");
        say(marked, "labels = \"R\"\n");
        case(&words)
    })
}

/// Everything that could be otherwise in [`question`].
fn every_change(case: &Case) -> Vec<Change> {
    let mut all: Vec<Change> =
        ["TREAT", "HRESCH", "ETREAT"].map(|purpose| Change::Purpose(purpose.to_owned())).into();
    all.extend([Change::SecondFactorAge(299), Change::PhishingResistant, Change::Role("b".to_owned())]);
    all.extend([
        Change::Relation(chartgate::domain::access::Relation::CareTeam),
        Change::WithLabel("R".to_owned()),
        Change::WithoutLabels(vec!["R".to_owned()]),
        Change::Emergency,
    ]);
    let age = case.told.factor_age_seconds.unwrap_or(60);
    all.retain(|change| !matches!(change, Change::SecondFactorAge(seconds) if *seconds >= age));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// What is suggested is permitted when it is done; where one change would do, some is suggested; and what is said of
    /// each policy adds up to the decision.
    #[test]
    fn a_suggestion_that_is_followed_is_permitted(text in policies(), asked in question()) {
        let policies = set(&text);
        let records = Records::built_in();
        let permitted = |case: &Case| judge(&policies, &records, case).permitted;
        let found = explain(&policies, &records, &asked, &[]).unwrap();
        let answer = &found.answers[0];
        prop_assert_eq!(answer.permitted, permitted(&asked));
        let holds = |permits: bool| answer.says.iter().any(|say| say.permits == permits && say.holds && say.concerns);
        prop_assert_eq!(answer.permitted, holds(true) && !holds(false), "{:#?}", answer.says);
        for suggestion in &answer.changes {
            let followed = suggestion.changes.iter().fold(asked.clone(), |case, change| change.apply(&case));
            prop_assert!(permitted(&followed), "{:?}", suggestion);
        }
        // A purpose that no policy names is no advice.
        let is_named = |change: &Change| match change {
            Change::Purpose(purpose) => purpose == "TREAT" || text.contains(purpose.as_str()),
            _ => true,
        };
        let single = every_change(&asked).into_iter().filter(is_named).find(|change| permitted(&change.apply(&asked)));
        if let Some(change) = single.filter(|_| !answer.permitted) {
            prop_assert!(!answer.changes.is_empty(), "{:?} would do", change);
        }
    }

    /// An element stands in the tree of a record as it stands in the record's decision.
    #[test]
    fn a_tree_is_the_decision(asked in question(), closed in prop::sample::subsequence(
        vec!["Observation.value", "Observation.code", "Observation.code.text", "Observation.note"], 0..4)) {
        let forbids: String = closed.iter().map(|path| format!(
            "forbid (principal, action == Action::\"disclose\", resource in FHIR::Element::\"{path}\") \
             when {{ context.purpose == \"TREAT\" }};")).collect();
        let policies = set(&format!(
            "permit (principal, action == Action::\"read\", resource is FHIR::Observation);\
             permit (principal, action == Action::\"disclose\", resource in FHIR::Element::\"Observation\");{forbids}"));
        let tree = record_trees(&policies, &Records::built_in(), &asked).unwrap().remove(0);
        for path in ["Observation.value", "Observation.code", "Observation.note", "Observation.subject"] {
            let node = tree.nodes.iter().find(|node| node.path == path).unwrap();
            let path = ElementPath::parse(path).unwrap();
            let whole = Case { visible: vec![path.clone()], ..asked.clone() };
            let gone = Case { withheld: vec![path], ..asked.clone() };
            let expected = match (judge(&policies, &Records::built_in(), &whole).passed(), judge(&policies, &Records::built_in(), &gone).passed()) {
                (true, _) => Standing::Passes,
                (_, true) => Standing::Stays,
                _ => Standing::InParts,
            };
            prop_assert_eq!(node.standing, expected, "{}", &node.path);
            prop_assert!(node.standing != Standing::Passes || node.forbids.is_empty(), "{:?}", node);
            prop_assert!(node.standing != Standing::Stays || !node.forbids.is_empty(), "{:?}", node);
        }
    }
}

fn chartgate(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chartgate")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What `policy mask` prints and how it ends.
#[test]
fn mask_tells_and_ends_as_it_should() {
    let policies = shipped_directory();
    let policies = policies.to_str().unwrap();
    let (code, out, _) = chartgate(&["policy", "mask", policies, "--role", "nurse", "--type", "Patient"]);
    assert_eq!(code, 0);
    for line in [
        "  telecom                  withheld: no policy permits it",
        "    versionId              shown by nurse-elements",
    ] {
        assert!(out.lines().any(|one| one == line), "{line} in {out}");
    }
    let (code, out, _) = chartgate(&[
        "policy",
        "mask",
        policies,
        "--role",
        "nurse",
        "--record",
        "blood-pressure",
        "--label",
        "HIV",
        "--json",
    ]);
    let tree: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &tree["open"], &tree["forbids"]), (0, &json!(false), &json!(["sensitive-labels"])));
    let (code, out, _) = chartgate(&["policy", "mask", policies, "--role", "nurse", "--type", "Claim"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "Claim is not open to these roles: read, for TREAT: no policy permits it\n")
    );
    for (wrong, said) in [
        (&["--role", "nurse", "--type", "Patiente"][..], "must be an R4 resource type"),
        (&["--role", "nurse", "--record", "nothing-there"], "no file that can be read"),
        (&["--role", "nurse", "--type", "Patient", "--relation", "friend"], "care-team"),
        (&["--role", "nurse"], "--type"),
    ] {
        let (code, _, err) = chartgate(&[&["policy", "mask", policies], wrong].concat());
        assert!(code == 2 && err.contains(said), "{wrong:?}: {err}");
    }
}

/// What `policy explain` prints and how it ends.
#[test]
fn explain_tells_and_ends_as_it_should() {
    let policies = shipped_directory();
    let policies = policies.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let text = "[[case]]\nname = \"one\"\nrole = \"nurse\"\npurpose = \"HRESCH\"\nrecord = \"patient\"\nexpect = \"permit\"\n\
                [[case]]\nname = \"two\"\nrole = \"nurse\"\npurpose = \"TREAT\"\nrecord = \"patient\"\nexpect = \"permit\"\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let (code, out, _) = chartgate(&["policy", "explain", policies, "--file", file]);
    assert_eq!(code, 1, "one of them is refused");
    for said in [
        "nurse, for HRESCH: read of the record `patient`",
        "nurse-records: it asks that the purpose is TREAT",
        "    the purpose TREAT, by nurse-elements, nurse-records",
    ] {
        assert!(out.contains(said), "{said} in {out}");
    }
    let (code, out, _) = chartgate(&[
        "policy",
        "explain",
        policies,
        "--file",
        file,
        "--case",
        "two",
        "--element",
        "Patient.telecom",
        "--json",
    ]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &told["answers"][0]["permitted"], &told["answers"][1]["permitted"]),
        (1, &json!(true), &json!(false))
    );
    let (code, _, err) = chartgate(&["policy", "explain", policies, "--file", file, "--case", "three"]);
    assert!(code == 2 && err.contains("--case"), "{err}");
    std::fs::write(file, "[[case]]\nname = \"n\"\n").unwrap();
    let (code, _, err) = chartgate(&["policy", "explain", policies, "--file", file]);
    assert!(code == 1 && err.contains("c.toml:1:1: "), "{err}");
}

/// A role that an issuer gives and no permit names is pointed at, where the configuration tells.
#[test]
fn a_role_that_only_the_issuer_knows_is_pointed_at() {
    let folder = tempfile::tempdir().unwrap();
    let gate = include_str!("data/config/least.toml").replace(
        "roles_claim = \"/roles\"\n",
        "roles_claim = \"/roles\"\nroles = { \"hosp-rn\" = \"nurse\", \"hosp-porter\" = \"porter\" }\n",
    );
    let policies = shipped_directory();
    let gate = gate.replace("directory = \"policies\"", &format!("directory = \"{}\"", policies.display()));
    let file = folder.path().join("gate.toml");
    std::fs::write(&file, gate).unwrap();
    let file = file.to_str().unwrap();
    let (code, _, err) = chartgate(&["policy", "check", "--config", file]);
    assert!(code == 0 && err.contains("gate.toml") && err.contains("`porter`"), "{err}");
    assert!(!err.contains("`nurse`"), "{err}");
    assert_eq!(chartgate(&["policy", "check", "--config", file, "--strict"]).0, 1);
    let (_, out, _) = chartgate(&["policy", "check", "--config", file, "--json"]);
    let notes: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&notes[0]["lint"], &notes.last().unwrap()["notes"]), (&json!("unknown-role"), &json!(1)));
}
