//! `policy prove` and `policy diff`: the shipped set's promises hold, broken sets are found out with a request that the
//! gate itself lets through, and a change is told exactly.
//!
//! They need the solver cvc5. Without it they say so and pass, unless `CHARTGATE_REQUIRE_SOLVER` is set.
#![cfg(feature = "prove")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a failing test panics, and a test that cannot run says so"
)]

use chartgate::domain::access::PolicySet;
use chartgate::domain::access::{Source, proving::read_invariants};
use chartgate::domain::workbench::{Records, judge, read_cases};
use chartgate::edge::policy_files;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

/// Whether there is a solver; without one a test says so.
fn solver() -> bool {
    let found = Command::new("cvc5").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(found || std::env::var_os("CHARTGATE_REQUIRE_SOLVER").is_none(), "cvc5 is required here");
    if !found {
        eprintln!("skipped: there is no cvc5");
    }
    found
}

/// Exit code, and the lines of standard output as JSON.
fn policy(arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_chartgate")).arg("policy").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    (output.status.code().unwrap(), lines, text + &said)
}

/// A copy of the shipped policies in which each of these texts is another.
fn changed(changes: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("invariants")).unwrap();
    for below in ["", "invariants"] {
        for entry in std::fs::read_dir(shipped().join(below)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, folder.path().join(below).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    for (file, from, to) in changes {
        let path = folder.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no `{from}`");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }
    folder
}

#[test]
fn the_shipped_policies_keep_their_promises() {
    if !solver() {
        return;
    }
    let (code, lines, said) = policy(&["prove", shipped().to_str().unwrap(), "--json"]);
    assert_eq!(code, 0, "{said}");
    let (last, proofs) = lines.split_last().unwrap();
    assert_eq!(last["notProved"], 0);
    assert!(proofs.iter().all(|one| one["outcome"] == "proved"), "{said}");
    let invariants = policy_files::invariants(&shipped()).unwrap();
    let written = read_invariants(&invariants.0, invariants.1.as_ref()).unwrap();
    // One more than there are files' promises: that no policy fails.
    assert_eq!(proofs.len(), written.len() + 1);
    assert!(
        written.len() >= 18 && proofs.iter().skip(1).all(|one| one["places"].as_u64() > Some(0)),
        "{said}"
    );
}

/// The invariant, the file, and the text of it that is another in the broken set.
type Broken = (&'static str, &'static str, &'static str, &'static str);

/// Each breaks the invariant beside it, in one of these sets.
const BROKEN: [&[Broken]; 4] = [
    &[
        (
            "therapy-notes-stay",
            "everyone.cedar",
            "principal in Role::\"psychiatrist\" || principal in Role::\"integration\")",
            "principal in Role::\"psychiatrist\" || principal in Role::\"physician\")",
        ),
        ("second-factor-of-today", "everyone.cedar", "context.mfa.age > 43200", "context.mfa.age > 86400"),
        (
            "no-purpose-no-record",
            "quality-officer.cedar",
            "context.purpose == \"HOPERAT\"",
            "context.purpose == \"NONE\"",
        ),
        (
            "research-without-names",
            "researcher.cedar",
            "ElementGroup::\"research-patient\"",
            "ElementGroup::\"bedside-identity\"",
        ),
        (
            "researchers-stay-researchers",
            "groups.toml",
            "\"Encounter.class\", \"Encounter.type.coding\", \"Encounter.subject.reference\",",
            "\"Encounter.class\", \"Encounter.type.coding\", \"Encounter.subject\",",
        ),
        ("nobody-deletes", "scheduler.cedar", "Action::\"patch\"", "Action::\"delete\""),
        (
            "labels-decide-and-stay",
            "everyone.cedar",
            "unless { principal in Role::\"privacy-officer\" ||",
            "unless { principal in Role::\"nurse\" ||",
        ),
        (
            "patients-see-their-own",
            "everyone.cedar",
            "\"MST\", \"GDIS\", \"ADOL\"\n  ])\n  && !context.relations.contains(\"self\")",
            "\"MST\", \"GDIS\", \"ADOL\"\n  ])",
        ),
        (
            "allergies-are-seen",
            "everyone.cedar",
            "resource is FHIR::AllergyIntolerance || resource is FHIR::Flag\n      || (resource is FHIR::MedicationRequest && [\"active\"",
            "resource is FHIR::Flag\n      || (resource is FHIR::MedicationRequest && [\"active\"",
        ),
        (
            "two-roles-open-no-accounts",
            "pharmacist.cedar",
            "unless { principal in Role::\"physician\"",
            "unless { principal in Role::\"patient\"",
        ),
    ],
    &[
        (
            "export-is-for-research",
            "researcher.cedar",
            "permit (principal in Role::\"researcher\", action == Action::\"export\", resource)\nwhen {\n  context.purpose == \"HRESCH\"",
            "permit (principal, action == Action::\"export\", resource)\nwhen {\n  context.purpose == \"HRESCH\"",
        ),
        (
            "emergency-takes-nothing-away",
            "emergency-physician.cedar",
            "action in Action::\"view\"",
            "action in [Action::\"view\", Action::\"export\"]",
        ),
        (
            "evidence-stays",
            "health-information-manager.cedar",
            "resource is FHIR::Consent || resource is FHIR::Patient",
            "resource is FHIR::Provenance || resource is FHIR::Patient",
        ),
        // Who may create a record and write nothing in it creates none.
        (
            "evidence-stays",
            "health-information-manager.cedar",
            "FHIR::Element::\"Consent\", FHIR::Element::\"Patient.id\"",
            "FHIR::Element::\"Provenance\", FHIR::Element::\"Patient.id\"",
        ),
        (
            "payers-learn-no-narrative",
            "billing-clerk.cedar",
            "resource is FHIR::Account",
            "resource is FHIR::Observation",
        ),
        (
            "substance-use-is-treatment",
            "everyone.cedar",
            "\"OPIOIDUD\", \"SUD\", \"42CFRPart2\"",
            "\"OPIOIDUD\", \"SUD\"",
        ),
    ],
    &[
        ("patients-see-it-whole", "nurse.cedar", "when { context.purpose == \"TREAT\" }\nunless", "unless"),
        (
            "active-medication-is-seen",
            "pharmacist.cedar",
            "|| resource is FHIR::MedicationAdministration || resource is FHIR::MedicationStatement",
            "|| resource is FHIR::MedicationAdministration",
        ),
        ("code-status-is-seen", "nurse.cedar", "[\"acd\", \"dnr\", \"emrgonly\"", "[\"acd\", \"emrgonly\""),
        (
            "safety-data-is-whole",
            "nurse.cedar",
            "FHIR::Element::\"AllergyIntolerance\", FHIR::Element::\"MedicationRequest\"",
            "FHIR::Element::\"MedicationRequest\"",
        ),
    ],
    &[("clients-alone-see-codes", "integration.cedar", "principal in Role::\"integration\",", "principal,")],
];

/// Every invariant of the shipped set is refuted by a set that breaks it, with a request that this set's own decision
/// lets through (or refuses), and the shipped set's does not. Each set is a test, so that they run side by side.
fn is_found_out(broken: &[Broken]) {
    if !solver() {
        return;
    }
    let good = Arc::new(policy_files::load(&shipped()).unwrap());
    let changes: Vec<(&str, &str, &str)> =
        broken.iter().map(|(_, file, from, to)| (*file, *from, *to)).collect();
    let ids: BTreeSet<&str> = broken.iter().map(|(id, ..)| *id).collect();
    let folder = changed(&changes);
    let written = folder.path().join("found");
    let directory = folder.path().to_str().unwrap();
    let mut arguments = vec!["prove", directory, "--json", "--write", written.to_str().unwrap()];
    ids.iter().for_each(|id| arguments.extend(["--only", id]));
    let (code, lines, said) = policy(&arguments);
    assert_eq!(code, 1, "{said}");
    let bad = Arc::new(policy_files::load(folder.path()).unwrap());
    for id in ids {
        refuted(id, &lines, &said);
        let case = std::fs::read_to_string(written.join(format!("{id}-1.toml"))).unwrap();
        decides_otherwise(id, &case, &bad, &good);
    }
}

#[test]
fn a_set_that_lets_the_wrong_people_in_is_found_out() {
    is_found_out(BROKEN[0]);
}

#[test]
fn a_set_that_lets_the_wrong_records_out_is_found_out() {
    is_found_out(BROKEN[1]);
}

#[test]
fn a_set_that_hides_what_must_be_seen_is_found_out() {
    is_found_out(BROKEN[2]);
}

#[test]
fn a_set_that_lets_programs_do_too_much_is_found_out() {
    is_found_out(BROKEN[3]);
}

#[test]
fn every_invariant_has_a_set_that_breaks_it() {
    let tried: BTreeSet<&str> = BROKEN.iter().copied().flatten().map(|(id, ..)| *id).collect();
    let invariants = policy_files::invariants(&shipped()).unwrap();
    let written = read_invariants(&invariants.0, invariants.1.as_ref()).unwrap();
    let written: BTreeSet<&str> = written.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(tried, written);
}

fn refuted(id: &str, lines: &[Value], said: &str) {
    let about: Vec<&Value> = lines.iter().filter(|line| line["invariant"] == id).collect();
    assert_eq!(about.first().unwrap()["outcome"], "refuted", "{id}: {said}");
    let examples: Vec<&&Value> = about.iter().filter(|line| line["counterexample"].is_string()).collect();
    assert!(!examples.is_empty(), "{id}");
    for example in examples {
        assert_eq!(example["confirmed"], true, "{id}: {example:#}");
    }
}

/// The case passes with one set and not with the other.
fn decides_otherwise(id: &str, case: &str, bad: &Arc<PolicySet>, good: &Arc<PolicySet>) {
    let cases = read_cases(&Source { name: "found.toml".to_owned(), text: case.to_owned() }).unwrap();
    assert_eq!(cases.len(), 1, "{id}: {case}");
    let records = Records::built_in();
    let verdict = judge(bad, &records, cases.first().unwrap());
    assert!(verdict.passed(), "{id}: {case}{:?}", verdict.findings);
    assert!(
        !judge(good, &records, cases.first().unwrap()).passed(),
        "{id} tells nothing of the change: {case}"
    );
}

/// A policy that can fail denies whatever else is permitted, so it is found; an invariant about nothing is none.
#[test]
fn what_cannot_be_promised_is_not_called_proved() {
    if !solver() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.path().join("invariants")).unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    let directory = folder.path().to_str().unwrap().to_owned();
    let prove = || policy(&["prove", &directory]);
    let permit = "@id(\"p\") permit (principal in Role::\"x\", action == Action::\"delete\", resource is FHIR::Basic)\n\
                  when { context.purpose == \"TREAT\" };\n";
    write("p.cedar", permit);
    let (code, _, said) = prove();
    assert!(code == 1 && said.contains("there are no invariants"), "{said}");
    let invariant = |must: &str, effect: &str, role: &str, kind: &str| {
        format!(
            "@id(\"i\") @says(\"s\") @ground(\"g\") @must(\"{must}\")\n{effect} (principal in Role::\"{role}\", \
             action == Action::\"delete\", resource is FHIR::{kind}) when {{ context.purpose == \"TREAT\" }};\n"
        )
    };
    for (text, expected, ends) in [
        (invariant("always", "permit", "x", "Basic"), "2 proved, 0 not", 0),
        (
            invariant("never", "forbid", "x", "Basic"),
            "somebody who is x, for TREAT, asks for delete of a Basic",
            1,
        ),
        (invariant("always", "permit", "x", "Patient"), "and it is refused", 1),
        (invariant("never", "forbid", "y", "Patient"), "no policy is about the role `y`", 1),
        (
            invariant("never", "forbid", "x", "Basic")
                .replace("\"TREAT\" }", "\"TREAT\" && context.purpose == \"NONE\" }"),
            "no request is meant by it",
            1,
        ),
        (
            invariant("never", "permit", "x", "Basic"),
            "i.cedar:1:1: `@must` and the effect do not go together",
            1,
        ),
    ] {
        write("invariants/i.cedar", &text);
        let (code, _, said) = prove();
        assert!(code == ends && said.contains(expected), "{expected} in {said}");
    }
    // A sum can overflow: for such an age the gate denies, although the permit holds.
    write(
        "p.cedar",
        &format!(
            "{permit}@id(\"sum\") forbid (principal, action == Action::\"delete\", resource)\n\
        when {{ context.mfa.age + 9000000000000000000 > 9000000000000000000 && context.emergency }};\n"
        ),
    );
    write(
        "invariants/i.cedar",
        &invariant("always", "permit", "x", "Basic")
            .replace("\"TREAT\" }", "\"TREAT\" && !context.emergency }"),
    );
    let (code, _, said) = prove();
    assert!(code == 1 && said.contains("no-policy-fails: `sum`") && said.contains("UNKNOWN"), "{said}");
    // No solver is no proof.
    let (code, _, said) = policy(&["prove", &directory, "--solver", "/nowhere/cvc5"]);
    assert!(code == 1 && said.contains("the solver cvc5 cannot be run"), "{said}");
    // A solver that says nothing of use proves nothing.
    let (code, _, said) = policy(&["prove", &directory, "--solver", "true"]);
    assert!(code == 1 && !said.contains("proved   i"), "{said}");
    let (code, _, said) = policy(&["prove", &directory, "--only", "nothing"]);
    assert!(code == 2 && said.contains("no invariant `nothing`"), "{said}");
}

/// Who, whether it opens, what, and in which situation.
type Told = (&'static str, bool, &'static str, &'static str);

/// A change of the shipped set: file, text, and what stands there instead.
type Edit = (&'static str, &'static str, &'static str);

/// The shipped set with these edits differs from it in what is expected, and in nothing else.
fn differs_in(edits: &[Edit], expected: &[Told]) {
    let new = changed(edits);
    let (old, new) = (shipped(), new.path());
    let (code, lines, said) = policy(&["diff", old.to_str().unwrap(), new.to_str().unwrap(), "--json"]);
    let (last, told) = lines.split_last().unwrap();
    assert_eq!(
        (code, &last["same"]),
        (i32::from(!expected.is_empty()), &Value::from(expected.is_empty())),
        "{said}"
    );
    assert!(last["reworded"].as_array().unwrap().len() + told.len() > 0, "{said}");
    for one in told {
        assert_eq!(one["confirmed"], true, "{one:#}");
    }
    for (who, opens, what, when) in expected {
        let found = told.iter().any(|one| {
            let text = |name: &str| one[name].to_string();
            text("who").contains(who)
                && one["opens"] == *opens
                && text("what").contains(what)
                && text("when").contains(when)
        });
        assert!(found, "{who} {what} {when} in {said}");
    }
    // Nobody and nothing else is told of.
    for one in told {
        let who = one["who"].as_str().unwrap();
        let what = one["what"].to_string();
        let meant = expected.iter().any(|(role, opens, element, _)| {
            who.contains(role) && one["opens"] == *opens && what.contains(element)
        });
        assert!(meant, "{who}: {what} in {said}");
    }
}

/// Known changes, each told whole: nothing more changes than what is said.
#[test]
fn a_change_is_told_exactly() {
    if !solver() {
        return;
    }
    let cases: [(&[Edit], &[Told]); 4] = [
        // Another order and other brackets: other text, the same decisions.
        (
            &[
                (
                    "researcher.cedar",
                    "resource is FHIR::Patient || resource is FHIR::Observation",
                    "resource is FHIR::Observation || (resource is FHIR::Patient)",
                ),
                (
                    "billing-clerk.cedar",
                    "when {\n  context.purpose == \"HPAYMT\"",
                    "when {\n  !(context.purpose != \"HPAYMT\")",
                ),
            ],
            &[],
        ),
        (
            &[("groups.toml", "research-patient = [", "research-patient = [ \"Patient.telecom\",")],
            // The group is the quality officer's, too.
            &[
                ("researcher", true, "Patient.telecom", "for HRESCH"),
                ("quality-officer", true, "Patient.telecom", "for "),
            ],
        ),
        (
            &[("scheduler.cedar", "resource is FHIR::Appointment\n  )", "resource is FHIR::Slot\n  )")],
            &[("scheduler", false, "Appointment.", "for "), ("scheduler", true, "Slot.", "for ")],
        ),
        // No nurse sees it, but a nurse who is somebody else besides.
        (
            &[("nurse.cedar", "when { context.purpose == \"TREAT\" }\nunless", "unless")],
            &[
                ("nurse", false, "Encounter.account", "for "),
                ("nurse", false, "ServiceRequest.insurance", "for "),
                ("nurse", false, "MedicationRequest.insurance", "for "),
            ],
        ),
    ];
    for (edits, expected) in cases {
        differs_in(edits, expected);
    }
    let (code, _, said) = policy(&["diff", shipped().to_str().unwrap(), "/nowhere"]);
    assert!(code == 2 && said.contains("there is no directory"), "{said}");
}

/// The guide's invariants can be read, and hold for the guide's policies.
#[test]
fn the_guides_invariants_hold() {
    let guide =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md")).unwrap();
    let blocks = |fence: &str| -> Vec<String> {
        guide
            .split(&format!("```{fence}\n"))
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap().to_owned())
            .collect()
    };
    let groups = blocks("toml").into_iter().filter(|block| block.contains("[groups]")).collect::<String>();
    let invariants = blocks("invariant").concat();
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let read = read_invariants(&[source("i.cedar", &invariants)], Some(&source("groups.toml", &groups)));
    assert!(read.unwrap_or_else(|problems| panic!("{problems:?}")).len() > 1);
    if !solver() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("invariants")).unwrap();
    for (name, text) in
        [("p.cedar", blocks("cedar").concat()), ("groups.toml", groups), ("invariants/i.cedar", invariants)]
    {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let (code, _, said) = policy(&["prove", folder.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
}
