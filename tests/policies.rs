//! The shipped policies: their cases and tables, their lints, and what no table says.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test panics")]

use chartgate::domain::access::{
    LintName, PolicySet, RecordDenial, Rehearsal, Relation, Relations, Situation, Source, TypeRehearsal,
};
use chartgate::domain::access::{rehearse_record, rehearse_record_known, rehearse_type};
use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::mask::MaskCursor;
use chartgate::domain::fhir::r4::{self, ElementPath, ResourceType};
use chartgate::domain::workbench::{Coverage, Records, RoleView, judge, read_cases, roles};
use chartgate::edge::policy_files;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

const ROLES: [(&str, &str); 18] = [
    ("physician", "TREAT"),
    ("nurse", "TREAT"),
    ("front-desk", "HOPERAT"),
    ("billing-clerk", "HPAYMT"),
    ("researcher", "HRESCH"),
    ("patient", "PATRQT"),
    ("integration", "HOPERAT"),
    ("charge-nurse", "TREAT"),
    ("emergency-physician", "ETREAT"),
    ("psychiatrist", "TREAT"),
    ("pharmacist", "TREAT"),
    ("laboratory-technician", "TREAT"),
    ("radiology", "TREAT"),
    ("scheduler", "PATADMIN"),
    ("coder", "HPAYMT"),
    ("quality-officer", "HQUALIMP"),
    ("health-information-manager", "RECORDMGT"),
    ("privacy-officer", "HCOMPL"),
];

fn source(path: &Path) -> Source {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    Source { name, text: std::fs::read_to_string(path).unwrap() }
}

fn shipped() -> Arc<PolicySet> {
    static SET: OnceLock<Arc<PolicySet>> = OnceLock::new();
    Arc::clone(SET.get_or_init(load_shipped))
}

fn load_shipped() -> Arc<PolicySet> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut sources: Vec<Source> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cedar"))
        .map(|path| source(&path))
        .collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let groups = source(&directory.join("groups.toml"));
    let schema = source(&directory.join("schema.cedarschema"));
    let set = PolicySet::load(&sources, Some(&groups), Some(&schema)).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())
    });
    assert_eq!(set.lints(), [], "the shipped policies are above suspicion");
    Arc::new(set)
}

fn open(rehearsal: &Rehearsal, action: &str, resource: ResourceType) -> Option<TypeRehearsal> {
    rehearsal.ask(action, resource).unwrap().ok().filter(|view| view.open)
}

/// The cases beside the shipped policies pass, every permit and every open type is tried by one, and the tables of
/// what each role sees are those that were reviewed: `chartgate policy test policies --write-table` writes them anew.
#[test]
fn the_shipped_cases_and_tables_hold() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let policies = shipped();
    let files = policy_files::workbench(&directory).unwrap();
    let mut records = Records::built_in();
    files.records.iter().for_each(|(name, json)| records.add(name, json.clone()));
    let cases = files.cases.iter().flat_map(|file| read_cases(file).unwrap_or_else(|p| panic!("{p:?}")));
    let tried: Vec<_> = cases.map(|case| (case.clone(), judge(&policies, &records, &case))).collect();
    for (case, verdict) in &tried {
        let place = format!("{}:{} {}: {}", case.file, case.line, case.name, case.asked());
        assert!(verdict.passed(), "{place}: {:?}", verdict.findings);
    }
    let views: Vec<RoleView> =
        roles(&policies).iter().map(|role| RoleView::of(&policies, role).unwrap()).collect();
    let coverage = Coverage::of(&policies, &views, &tried);
    assert_eq!(coverage.untried_permits, [] as [&str; 0]);
    for role in &coverage.roles {
        assert_eq!(role.untried_types, [] as [&str; 0], "{}", role.role);
    }
    for view in &views {
        let reviewed =
            files.tables.get(&format!("{}.txt", view.role)).map(String::as_str).unwrap_or_default();
        for (number, (now, then)) in view.table().lines().zip(reviewed.lines()).enumerate() {
            assert_eq!(now, then, "line {} of tables/{}.txt", number + 1, view.role);
        }
        assert_eq!(view.table().lines().count(), reviewed.lines().count(), "tables/{}.txt", view.role);
    }
    assert_eq!(files.tables.len(), views.len(), "a table of a role that is gone");
}

/// Every file of `tests/data/policies/broken` says in its first line where and what it must be refused for:
/// `expect LINE[:COLUMN] TEXT`.
#[test]
fn broken_files_are_refused_where_they_are_broken() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/policies");
    let groups = source(&data.join("groups.toml"));
    let mut paths: Vec<_> =
        std::fs::read_dir(data.join("broken")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 20);
    for path in paths {
        let file = source(&path);
        let (_, expected) = file.text.lines().next().unwrap().split_once("expect ").unwrap();
        let (place, text) = expected.split_once(' ').unwrap_or((expected, ""));
        let outcome = match path.extension().unwrap().to_str().unwrap() {
            "cedar" => PolicySet::load(std::slice::from_ref(&file), Some(&groups), None),
            "toml" => PolicySet::load(&[], Some(&file), None),
            _ => PolicySet::load(&[], None, Some(&file)),
        };
        let problems = outcome.expect_err(&file.name);
        let found = problems.iter().any(|problem| {
            let at = format!("{}:{}", problem.line, problem.column);
            let whole = format!("{} {}", problem.message, problem.hint.as_deref().unwrap_or(""));
            (at == place || problem.line.to_string() == place)
                && problem.file == file.name
                && whole.contains(text)
        });
        let listed: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        assert!(found, "{}: expected `{expected}`, found:{listed}", file.name);
    }
}

/// Every file of `tests/data/policies/lints` says in its first lines what it must be pointed at for:
/// `// expect LINE LINT TEXT`, or `// expect nothing`.
#[test]
fn doubtful_policies_are_pointed_at() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/policies/lints");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut seen: BTreeSet<LintName> = BTreeSet::new();
    for path in paths {
        let file = source(&path);
        let outcome = match path.extension().unwrap().to_str().unwrap() {
            "cedar" => PolicySet::load(std::slice::from_ref(&file), None, None),
            _ => PolicySet::load(&[clean()], Some(&file), None),
        };
        let set = outcome.unwrap_or_else(|problems| panic!("{}: {problems:?}", file.name));
        let mut left: Vec<_> = set.lints().to_vec();
        for expected in file.text.lines().filter_map(|line| line.split_once("expect ")).map(|(_, rest)| rest)
        {
            let mut words = expected.splitn(3, ' ');
            let (line, name, text) = (words.next().unwrap(), words.next(), words.next().unwrap_or(""));
            if line == "nothing" {
                continue;
            }
            let at = left.iter().position(|lint| {
                let whole =
                    format!("{} {}", lint.problem.message, lint.problem.hint.as_deref().unwrap_or(""));
                Some(lint.name.word()) == name
                    && lint.problem.line.to_string() == line
                    && lint.problem.file == file.name
                    && whole.contains(text)
            });
            let at = at.unwrap_or_else(|| panic!("{}: expected `{expected}`, found {left:#?}", file.name));
            seen.insert(left.remove(at).name);
        }
        assert_eq!(left, [], "{}", file.name);
    }
    let empty = PolicySet::load(&[], None, None).unwrap();
    seen.extend(empty.lints().iter().map(|lint| lint.name));
    assert_eq!(seen.len(), LintName::ALL.len(), "every lint has a file: {seen:?}");
}

/// A set with nothing doubtful in it.
fn clean() -> Source {
    let text = "@why(\"a reason (a ground)\")\n\
        permit (principal in Role::\"x\", action in Action::\"view\", resource) when { context.purpose == \"TREAT\" };\n\
        @why(\"a reason (a ground)\")\n\
        permit (principal in Role::\"x\", action == Action::\"disclose\", resource in ElementGroup::\"used\")\n\
        when { context.purpose == \"TREAT\" };\n";
    Source { name: "clean.cedar".to_owned(), text: text.to_owned() }
}

#[test]
fn the_hash_names_the_set() {
    let file = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    let permit = r#"permit (principal in Role::"x", action == Action::"read", resource is FHIR::Patient);"#;
    let hash = |sources: &[Source]| PolicySet::load(sources, None, None).unwrap().hash().to_owned();
    let one = hash(&[file("a.cedar", permit), file("b.cedar", "")]);
    assert_eq!(one, hash(&[file("b.cedar", ""), file("a.cedar", permit)]));
    assert_ne!(one, hash(&[file("a.cedar", ""), file("b.cedar", permit)]));
    assert_ne!(one, hash(&[file("a.cedar", permit)]));
    assert_eq!(one.len(), 64);
}

/// Patients are named `Patient::"…"` in policies, although the schema calls them otherwise.
#[test]
fn policies_name_patients_by_their_name() {
    let text = r#"
        @id("mine") permit (principal in Role::"x", action in Action::"view", resource in Patient::"p2");
        permit (principal in Role::"x", action == Action::"disclose", resource in FHIR::Element::"Observation");
        forbid (principal in Role::"x", action in Action::"view", resource is FHIR::Observation)
        when { resource.mentions.contains(Patient::"p3") };"#;
    let set = PolicySet::load(&[Source { name: "p.cedar".into(), text: text.into() }], None, None).unwrap();
    let mut facts = Facts::of_type(ResourceType::from_name("Observation").unwrap());
    facts.status = Some("final".to_owned());
    let mut outcome = |patient: &str, mentioned: &str| {
        facts.patients = BTreeSet::from([patient.to_owned()]).into();
        facts.mentions = BTreeSet::from([mentioned.to_owned()]).into();
        rehearse_record(&set, &Situation::rehearsal(&["x"], "TREAT"), &facts).map(|d| d.policies().to_vec())
    };
    assert!(outcome("p2", "p2").unwrap().contains(&"mine".to_owned()));
    assert_eq!(outcome("p1", "p1"), Err(RecordDenial::NotPermitted));
    assert_eq!(outcome("p2", "p3"), Err(RecordDenial::NotPermitted));
    // Ids are data: what looks like policy text in them stays an id (T-203).
    assert_eq!(outcome("p2\" || true", "p2"), Err(RecordDenial::NotPermitted));
}

#[test]
fn the_shipped_views_keep_to_their_reasons() {
    let policies = shipped();
    let mut own = Facts::of_type(ResourceType::from_name("Patient").unwrap());
    own.id = Some("p1".to_owned());
    own.patients = BTreeSet::from(["p1".to_owned()]).into();
    let mut note = Facts::of_type(ResourceType::from_name("DocumentReference").unwrap());
    (note.patients, note.status) = (own.patients.clone(), Some("current".to_owned()));
    let labelled = |facts: &Facts, label: &str| {
        let mut facts = facts.clone();
        facts.labels = BTreeSet::from([label.to_owned()]).into();
        facts
    };
    let sees = |situation: &Situation, facts: &Facts| rehearse_record(&policies, situation, facts).is_ok();
    let role = |name| {
        let (role, purpose) = ROLES.into_iter().find(|(role, _)| *role == name).unwrap();
        Situation::rehearsal(&[role], purpose).with_fhir_user("Patient/p1")
    };
    assert!(sees(&role("patient"), &own) && sees(&role("patient"), &labelled(&own, "R")));
    assert!(!sees(&role("patient").with_fhir_user("Patient/p2"), &own));
    assert!(!sees(&role("patient"), &labelled(&note, "PSYTHPN")));
    assert!(sees(&role("physician"), &labelled(&note, "R")));
    assert!(!sees(&role("physician"), &labelled(&note, "PSYTHPN")));
    for name in ["nurse", "front-desk", "billing-clerk", "researcher"] {
        let other = role(name).with_fhir_user("Practitioner/d1");
        assert!(sees(&other, &own) && !sees(&other, &labelled(&own, "R")), "{name}");
        assert!(!sees(&other, &note), "{name}");
    }
    for (name, _) in ROLES {
        let seen = |situation: Situation| sees(&situation, &own);
        assert!(seen(role(name).with_age_seconds(43_200)), "{name}");
        assert!(!seen(role(name).with_age_seconds(43_201)), "{name} needs a recent second factor");
        let without = Situation::rehearsal(&[name], "NONE").with_fhir_user("Patient/p1");
        assert!(!seen(without), "{name} needs a purpose");
    }
}

/// The blocks of a language in the author's guide, in order.
fn guide(language: &str) -> Vec<String> {
    let guide = source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md"));
    let fence = format!("```{language}\n");
    let blocks = guide.text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.collect()
}

/// The examples of the author's guide: its policies and groups load and leave nothing to point at, its cases pass.
#[test]
fn the_guides_examples_run() {
    let (cedar, toml) = (guide("cedar"), guide("toml"));
    let (groups, cases): (Vec<String>, Vec<String>) =
        toml.into_iter().partition(|block| block.contains("[groups]"));
    assert!(cedar.len() > 4 && groups.len() == 1 && cases.len() > 2, "the guide's examples are found");
    let policies = Source { name: "guide.cedar".into(), text: cedar.concat() };
    let groups = Source { name: "groups.toml".into(), text: groups.concat() };
    let set = PolicySet::load(&[policies], Some(&groups), None).unwrap_or_else(|p| panic!("{p:#?}"));
    assert_eq!(set.lints(), []);
    let set = Arc::new(set);
    for block in cases {
        let cases = read_cases(&Source { name: "guide.toml".into(), text: block.clone() }).unwrap();
        assert!(!cases.is_empty(), "{block}");
        for case in cases {
            let verdict = judge(&set, &Records::built_in(), &case);
            assert!(verdict.passed(), "{}: {:?}", case.name, verdict.findings);
        }
    }
}

/// Every command that the guide shows is one, and every lint that there is stands in it.
#[test]
fn the_guide_names_what_there_is() {
    let text = source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md")).text;
    for lint in LintName::ALL {
        assert!(text.contains(&format!("`{}`", lint.word())), "{} is not explained", lint.word());
    }
    for line in guide("sh").iter().flat_map(|block| block.lines()) {
        let words: Vec<&str> = line.split_whitespace().skip(1).take(2).collect();
        let help = chartgate(&[words[0], words[1], "--help"]);
        assert!(help.status.success(), "{line}");
        let help = String::from_utf8(help.stdout).unwrap();
        for option in line.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "{line}: {option}");
        }
    }
}

fn chartgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chartgate")).args(arguments).output().unwrap()
}

/// What `policy check` and `policy test` print and how they end, on a small directory.
#[test]
fn the_commands_tell_and_end_as_they_should() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let run = |arguments: &[&str]| {
        let output = chartgate(&[&["policy"], arguments, &[folder.path().to_str().unwrap()]].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout) + &text(output.stderr))
    };
    write("p.cedar", &clean().text);
    write("groups.toml", "[groups]\nused = [\"Observation.status\", \"Observation.value\"]\n");
    assert_eq!(run(&["check", "--strict"]), (0, "2 policies, no problems found\n".to_owned()));
    let case = "[[case]]\nname = \"a value\"\nrole = \"x\"\npurpose = \"TREAT\"\nrecord = \"laboratory-result\"\n\
                expect = \"permit\"\nvisible = [\"Observation.value\"]\nwithheld = [\"Observation.note\"]\n";
    write("tests/x.toml", case);
    // Only Observations have elements to show, and no table has been reviewed yet.
    let (code, said) = run(&["test"]);
    assert!(code == 1 && said.contains("CHANGED") && said.contains("1 cases, 0 failed"), "{said}");
    assert_eq!(run(&["test", "--write-table"]).0, 0);
    let (code, said) = run(&["test", "--require-coverage"]);
    assert!(code == 0 && said.contains("2 of 2 permits decide a case"), "{said}");
    // A policy changes what is seen: the table says so, and the case fails with both sides.
    write("groups.toml", "[groups]\nused = [\"Observation.status\", \"Observation.note\"]\n");
    let (code, said) = run(&["test"]);
    assert_eq!(code, 1);
    for expected in [
        "FAILED ",
        "x.toml:1: a value",
        "asked     x, for TREAT: read of the record `laboratory-result`",
        "got       withheld: no policy permits it",
        "expected  withheld",
        "[x, for TREAT] Observation sees + Observation.note",
    ] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    let (code, said) = run(&["test", "--json"]);
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, &lines[0]["findings"][0]["expected"]), (1, &serde_json::json!("visible")));
    assert_eq!(lines.last().unwrap()["failed"], 1);
    // A doubt is a note; with --strict it is a no.
    write(
        "q.cedar",
        "permit (principal in Role::\"x\", action == Action::\"delete\", resource is FHIR::Basic);\n",
    );
    let (code, said) = run(&["check"]);
    assert!(code == 0 && said.contains("q.cedar:1:1: ") && said.contains("[no-why]"), "{said}");
    assert_eq!(run(&["check", "--strict"]).0, 1);
    let (code, said) = run(&["check", "--json"]);
    assert!(code == 0 && said.contains("\"lint\":\"no-purpose\""), "{said}");
    write("tests/y.toml", "[[case]]\nname = \"n\"\n");
    let (code, said) = run(&["test"]);
    assert!(code == 1 && said.contains("tests/y.toml:1:1: missing field"), "{said}");
}

/// A parent that is released in part must carry its modifier elements, or every record that has one is withheld
/// whole (P7): an address without its `use` could be an old one. Rare `modifierExtension`s may do that.
#[test]
fn what_is_released_in_part_carries_its_modifiers() {
    let policies = shipped();
    for (role, purpose) in ROLES {
        let situation = Situation::rehearsal(&[role], purpose);
        for resource in ResourceType::all() {
            let view = rehearse_type(&policies, &situation, resource).unwrap();
            if view.open {
                let place = format!("{role}: {}", resource.name());
                carries_modifiers(&place, r4::root(resource), view.possible.cursor(), 0);
            }
        }
    }
}

fn carries_modifiers(place: &str, structure: r4::Structure, cursor: MaskCursor<'_>, depth: usize) {
    // A choice has several structures under one path; only those of which something is released count.
    let shows_some = r4::elements(structure).iter().any(|e| cursor.child(e.name).whole() != Some(false));
    if cursor.whole().is_some() || !shows_some || depth > 8 {
        return;
    }
    for element in r4::elements(structure) {
        let below = cursor.child(element.name);
        let place = format!("{place}.{}", element.name);
        if element.modifier && element.name != "modifierExtension" {
            assert_eq!(below.whole(), Some(true), "{place} is withheld beside released elements");
        }
        if element.rewind.is_none() {
            element.types.iter().for_each(|inner| carries_modifiers(&place, *inner, below, depth + 1));
        }
    }
}

/// T-078, T-080: no role at the bedside changes who may see a record, or writes what says who may do what.
#[test]
fn only_trusted_roles_write_labels_and_relationships() {
    let policies = shipped();
    let evidence = ["Consent", "CareTeam", "Group", "PractitionerRole", "Practitioner", "RelatedPerson"];
    // The privacy officer labels records and changes nothing else of them; consents are filed by health information
    // management.
    let labels_of = ["integration", "privacy-officer"];
    let files = [("health-information-manager", "Consent"), ("privacy-officer", "Consent")];
    for (role, purpose) in ROLES {
        let rehearsal = Rehearsal::new(&policies, &Situation::rehearsal(&[role], purpose));
        for resource in ResourceType::all() {
            for action in ["create", "update", "patch"] {
                let Some(view) = open(&rehearsal, action, resource) else { continue };
                let labels = ElementPath::parse(&format!("{}.meta.security", resource.name())).unwrap();
                let place = format!("{role} {action} {}", resource.name());
                assert_eq!(view.possible.covers(&labels), labels_of.contains(&role), "{place}");
                let trusted = role == "integration" || files.contains(&(role, resource.name()));
                assert!(trusted || !evidence.contains(&resource.name()), "{place}");
                if role == "privacy-officer" {
                    assert_eq!(view.possible.kept(), [labels.to_string()], "{place}");
                }
            }
            let deletes = open(&rehearsal, "delete", resource).is_some();
            assert_eq!(deletes, role == "integration", "{role} {}", resource.name());
        }
    }
}

/// The shipped policies with those of `policies/optional` beside them.
fn with_optional(files: &[&str]) -> Arc<PolicySet> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let paths = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let shipped = paths.filter(|path| path.extension().is_some_and(|extension| extension == "cedar"));
    let optional = files.iter().map(|file| directory.join("optional").join(file));
    let sources: Vec<Source> = shipped.chain(optional).map(|path| source(&path)).collect();
    let set = PolicySet::load(&sources, Some(&source(&directory.join("groups.toml"))), None);
    let set = set.unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(set.lints(), [], "above suspicion");
    Arc::new(set)
}

const TREATING: &str = "treating-relationship/treating-relationship.cedar";
const EMERGENCY: [&str; 4] = [
    TREATING,
    "break-glass/emergency.cedar",
    "break-glass/emergency-nurse.cedar",
    "break-glass/emergency-reserve.cedar",
];

#[test]
fn charts_are_open_to_those_who_treat() {
    let set = with_optional(&[TREATING]);
    // Role, purpose, type, its patients, relations by patient, whether it is open, what it rests on.
    type Row<'r> = (&'r str, &'r str, &'r str, &'r [&'r str], &'r [(&'r str, Relation)], bool, &'r [&'r str]);
    let (team, visit) = (Relation::CareTeam, Relation::Encounter);
    let cases: &[Row<'_>] = &[
        ("nurse", "TREAT", "Observation", &["p1"], &[], false, &[]),
        ("nurse", "TREAT", "Observation", &["p1"], &[("p1", team)], true, &["care-team"]),
        (
            "nurse",
            "TREAT",
            "Observation",
            &["p1"],
            &[("p1", team), ("p1", visit)],
            true,
            &["care-team", "encounter"],
        ),
        ("nurse", "TREAT", "Observation", &["p1"], &[("p2", team)], false, &[]),
        ("nurse", "TREAT", "Observation", &["p1"], &[("p1", Relation::Organization)], false, &[]),
        // A record about two needs the relation to both, and it must be the same one.
        ("nurse", "TREAT", "Observation", &["p1", "p2"], &[("p1", team)], false, &[]),
        ("nurse", "TREAT", "Observation", &["p1", "p2"], &[("p1", team), ("p2", visit)], false, &[]),
        ("nurse", "TREAT", "Observation", &["p1", "p2"], &[("p1", team), ("p2", team)], true, &["care-team"]),
        ("nurse", "TREAT", "Patient", &["p1"], &[], true, &[]),
        ("nurse", "TREAT", "Medication", &[], &[], true, &[]),
        ("physician", "ETREAT", "Condition", &["p1"], &[], false, &[]),
        (
            "physician",
            "TREAT",
            "Condition",
            &["p1"],
            &[("p1", Relation::GeneralPractitioner)],
            true,
            &["general-practitioner"],
        ),
        // Others are not asked.
        ("billing-clerk", "HPAYMT", "Claim", &["p1"], &[], true, &[]),
        ("front-desk", "HOPERAT", "Appointment", &["p1"], &[], true, &[]),
    ];
    for (role, purpose, name, patients, relations, open, basis) in cases {
        let situation = Situation::rehearsal(&[role], purpose);
        let mut known = Relations::none();
        relations.iter().for_each(|(patient, relation)| known.note(patient, *relation));
        let facts = facts_of(name, patients);
        let found = rehearse_record_known(&set, &situation, &facts, &known);
        assert_eq!(found.is_ok(), *open, "{role} {name} {patients:?}: {found:?}");
        if let Ok(found) = found {
            assert_eq!(found.basis(), *basis, "{role} {name}");
        }
        // The front door stays open: whose records there are is for each record to say.
        assert!(rehearse_type(&set, &situation, facts.resource_type).unwrap().open, "{role} {name}");
    }
}

fn facts_of(name: &str, patients: &[&str]) -> Facts {
    let mut facts = Facts::of_type(ResourceType::from_name(name).unwrap());
    facts.id = Some(if name == "Patient" { "p1" } else { "x" }.to_owned());
    facts.status = Some("active".to_owned());
    facts.patients = patients.iter().map(|id| (*id).to_owned()).collect();
    facts.mentions.clone_from(&facts.patients);
    facts
}

#[test]
fn an_emergency_opens_one_chart() {
    let set = with_optional(&EMERGENCY);
    for (patients, grant, open) in [
        (&["p1"][..], Some("p1"), true),
        (&["p1"], None, false),
        (&["p1"], Some("p2"), false),
        (&["p1", "p2"], Some("p1"), false),
    ] {
        let mut situation = Situation::rehearsal(&["physician"], "TREAT");
        if let Some(patient) = grant {
            situation = situation.with_emergency(patient, "g1");
        }
        let found = rehearse_record(&set, &situation, &facts_of("Observation", patients));
        assert_eq!(found.is_ok(), open, "{patients:?} {grant:?}");
        if let Ok(found) = found {
            assert_eq!(found.basis(), ["emergency"]);
            assert!(found.policies().iter().any(|id| id == "emergency-goes-on"), "{:?}", found.policies());
        }
    }
    // Who may ask for it at all.
    for (role, purpose, open) in [
        ("physician", "TREAT", true),
        ("physician", "ETREAT", true),
        ("physician", "HRESCH", false),
        ("nurse", "TREAT", true),
        ("front-desk", "HOPERAT", false),
        ("patient", "PATRQT", false),
    ] {
        let situation = Situation::rehearsal(&[role], purpose).with_operation("$break-glass");
        let asked =
            Rehearsal::new(&set, &situation).ask("operate", ResourceType::from_name("Patient").unwrap());
        assert_eq!(asked.unwrap().unwrap().open, open, "{role} {purpose}");
        // Without the optional file nobody may.
        let asked = Rehearsal::new(&shipped(), &situation)
            .ask("operate", ResourceType::from_name("Patient").unwrap());
        assert!(!asked.unwrap().unwrap().open, "{role} {purpose}");
    }
}

/// What a patient laid down in Consents binds those who treat, where the hospital has taken the optional file.
#[test]
fn recorded_objections_bind() {
    let set = with_optional(&["consent-records/consent-records.cedar", EMERGENCY[1], EMERGENCY[2]]);
    // Role, purpose, type, its patients, those who do not object, those who consent, whether it is open.
    type Row<'r> = (&'r str, &'r str, &'r str, &'r [&'r str], &'r [&'r str], &'r [&'r str], bool);
    let cases: &[Row<'_>] = &[
        ("physician", "TREAT", "Observation", &["p1"], &[], &[], false),
        ("physician", "TREAT", "Observation", &["p1"], &["p1"], &[], true),
        ("physician", "TREAT", "Observation", &["p1"], &[], &["p1"], true),
        ("physician", "TREAT", "Observation", &["p1"], &["p2"], &[], false),
        ("physician", "TREAT", "Observation", &["p1", "p2"], &["p1"], &[], false),
        ("physician", "TREAT", "Observation", &["p1", "p2"], &["p1"], &["p2"], true),
        ("physician", "ETREAT", "Observation", &["p1"], &[], &[], false),
        ("nurse", "TREAT", "Condition", &["p1"], &[], &[], false),
        ("nurse", "TREAT", "AllergyIntolerance", &["p1"], &[], &[], true),
        ("nurse", "TREAT", "Patient", &["p1"], &[], &[], true),
        ("nurse", "TREAT", "Medication", &[], &[], &[], true),
        ("billing-clerk", "HPAYMT", "Claim", &["p1"], &[], &[], false),
        ("health-information-manager", "RECORDMGT", "Observation", &["p1"], &[], &[], true),
    ];
    for (role, purpose, name, patients, quiet, consenting, open) in cases {
        let situation = Situation::rehearsal(&[role], purpose);
        let mut known = Relations::none();
        quiet.iter().for_each(|patient| known.note(patient, Relation::NoObjection));
        consenting.iter().for_each(|patient| known.note(patient, Relation::Consent));
        let facts = facts_of(name, patients);
        let found = rehearse_record_known(&set, &situation, &facts, &known);
        assert_eq!(found.is_ok(), *open, "{role} {purpose} {name} {patients:?}: {found:?}");
        let asked =
            ["Observation", "Condition", "Claim"].contains(name) && *role != "health-information-manager";
        if let Ok(found) = found.as_ref().map(|found| found.basis()) {
            assert_eq!(found.contains(&"no-objection".to_owned()), asked, "{role} {name}: {found:?}");
        }
        // An emergency opens the chart of one patient.
        let urgent = situation.clone().with_emergency("p1", "g1");
        let opens = *open || *patients == ["p1"];
        assert_eq!(rehearse_record(&set, &urgent, &facts).is_ok() || *open, opens, "{role} {purpose} {name}");
        assert!(rehearse_type(&set, &situation, facts.resource_type).unwrap().open, "{role} {name}");
    }
    let patient = Situation::rehearsal(&["patient"], "PATRQT").with_fhir_user("Patient/p1");
    assert!(
        rehearse_record(&set, &patient, &facts_of("Observation", &["p1"])).is_ok(),
        "patients see their own"
    );
}

/// Nobody whom a Consent binds writes one, whatever else is permitted (T-080).
#[test]
fn consents_are_written_by_trusted_roles() {
    let consent = ResourceType::from_name("Consent").unwrap();
    let broad = r#"
@id("physicians-write-consents")
permit (principal in Role::"physician", action in [Action::"change"], resource is FHIR::Consent) when { context.purpose == "TREAT" };
@id("physicians-write-consents-whole")
permit (principal in Role::"physician", action == Action::"modify", resource in FHIR::Element::"Consent") when { context.purpose == "TREAT" };
"#;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let load = |more: &[Source]| {
        let paths = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let shipped = paths.filter(|path| path.extension().is_some_and(|extension| extension == "cedar"));
        let sources: Vec<Source> = shipped.map(|path| source(&path)).chain(more.iter().cloned()).collect();
        Arc::new(PolicySet::load(&sources, Some(&source(&directory.join("groups.toml"))), None).unwrap())
    };
    let broad = Source { name: "broad.cedar".into(), text: broad.into() };
    let keeper = source(&directory.join("optional/consent-records/consent-records.cedar"));
    let writes = |set: &Arc<PolicySet>, role: &str, purpose: &str| {
        let situation = Situation::rehearsal(&[role], purpose);
        Rehearsal::new(set, &situation).ask("create", consent).unwrap().unwrap().open
    };
    let (without, with) = (load(std::slice::from_ref(&broad)), load(&[broad, keeper]));
    assert!(writes(&without, "physician", "TREAT") && !writes(&with, "physician", "TREAT"));
    assert!(writes(&with, "health-information-manager", "RECORDMGT"));
    // As shipped, nobody but the record office and the hospital's own systems writes one anew.
    for role in [
        "nurse",
        "charge-nurse",
        "physician",
        "psychiatrist",
        "patient",
        "personal-representative",
        "front-desk",
    ] {
        assert!(
            !["TREAT", "PATRQT", "HOPERAT"].iter().any(|purpose| writes(&shipped(), role, purpose)),
            "{role}"
        );
    }
}

/// An objection to treatment itself binds those who treat, where the hospital has taken the optional file.
#[test]
fn objections_bind_those_who_treat() {
    let set = with_optional(&["consent-directives/consent-directives.cedar"]);
    for (role, purpose, name, label, open) in [
        ("physician", "TREAT", "Observation", "EMRGONLY", false),
        ("physician", "ETREAT", "Observation", "EMRGONLY", true),
        ("physician", "TREAT", "Observation", "OPTOUT", false),
        ("physician", "ETREAT", "Observation", "OPTOUT", false),
        ("physician", "TREAT", "Observation", "N", true),
        ("nurse", "TREAT", "AllergyIntolerance", "OPTOUT", true),
        ("nurse", "TREAT", "Flag", "EMRGONLY", true),
        ("health-information-manager", "RECORDMGT", "Observation", "OPTOUT", true),
    ] {
        let mut facts = facts_of(name, &["p1"]);
        facts.labels = BTreeSet::from([label.to_owned()]).into();
        let situation = Situation::rehearsal(&[role], purpose);
        assert_eq!(
            rehearse_record(&set, &situation, &facts).is_ok(),
            open,
            "{role} {purpose} {name} {label}"
        );
        // Emergency access to this patient opens what is for emergencies.
        let urgent = situation.with_emergency("p1", "g1");
        let opens = open || label == "EMRGONLY";
        assert_eq!(rehearse_record(&set, &urgent, &facts).is_ok(), opens, "{role} {purpose} {name} {label}");
    }
    let mut facts = facts_of("Observation", &["p1"]);
    facts.labels = BTreeSet::from(["OPTOUT".to_owned()]).into();
    let patient = Situation::rehearsal(&["patient"], "PATRQT").with_fhir_user("Patient/p1");
    assert!(rehearse_record(&set, &patient, &facts).is_ok(), "patients see their own");
}
