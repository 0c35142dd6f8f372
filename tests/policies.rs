//! The shipped policies: who sees which elements of which type, as a table that reviewers read.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test policies` writes the table anew; the difference is the review.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test panics")]

use chartgate::domain::access::{
    PolicySet, RecordDenial, Rehearsal, Relation, Relations, Situation, Source, TypeRehearsal,
};
use chartgate::domain::access::{rehearse_record, rehearse_record_known, rehearse_type};
use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::mask::MaskCursor;
use chartgate::domain::fhir::r4::{self, ElementPath, ResourceType};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

const ROLES: [(&str, &str); 7] = [
    ("physician", "TREAT"),
    ("nurse", "TREAT"),
    ("front-desk", "HOPERAT"),
    ("billing-clerk", "HPAYMT"),
    ("researcher", "HRESCH"),
    ("patient", "PATRQT"),
    ("integration", "HOPERAT"),
];

/// What may be asked of whole types beside reading and writing, and of which types.
const QUESTIONS: [(&str, &str, Option<&str>); 7] = [
    ("history", "history", None),
    ("export", "export", None),
    ("operate", "$validate", None),
    ("operate", "$everything", Some("Patient")),
    ("operate", "$lastn", Some("Observation")),
    ("operate", "$expand", Some("ValueSet")),
    ("operate", "$lookup", Some("CodeSystem")),
];

fn source(path: &Path) -> Source {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    Source { name, text: std::fs::read_to_string(path).unwrap() }
}

fn shipped() -> Arc<PolicySet> {
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

fn table() -> String {
    let policies = shipped();
    let mut table = String::from(
        "# What each role may see and do, by type. Written by tests/policies.rs.\n\
         # A line of a type: the elements that may be seen. `+`: the elements that may be written, and how.\n",
    );
    for (role, purpose) in ROLES {
        let situation = Situation::rehearsal(&[role], purpose);
        let rehearsal = Rehearsal::new(&policies, &situation);
        let _ = write!(table, "\n## {role} ({purpose})\n\n");
        for resource in ResourceType::all() {
            if let Some(view) = open(&rehearsal, "read", resource) {
                let kept = view.possible.kept().join(" ");
                let _ = writeln!(table, "{}: {kept}", resource.name());
            }
            table.push_str(&written(&rehearsal, resource));
        }
        table.push_str(&by_action(&policies, &situation));
    }
    table
}

fn open(rehearsal: &Rehearsal, action: &str, resource: ResourceType) -> Option<TypeRehearsal> {
    rehearsal.ask(action, resource).unwrap().ok().filter(|view| view.open)
}

/// `+ Patient [update patch]: Patient.telecom Patient.address`
fn written(rehearsal: &Rehearsal, resource: ResourceType) -> String {
    let mut ways = Vec::new();
    let mut kept = Vec::new();
    for action in ["create", "update", "patch", "delete"] {
        if let Some(view) = open(rehearsal, action, resource) {
            ways.push(action);
            kept.extend(Some(view.possible.kept()).filter(|kept| !kept.is_empty()));
        }
    }
    kept.dedup();
    assert!(kept.len() <= 1, "what may be written does not depend on how");
    let kept = kept.first().map(|kept| kept.join(" ")).unwrap_or_default();
    if ways.is_empty() { kept } else { format!("+ {} [{}]: {kept}\n", resource.name(), ways.join(" ")) }
}

/// `$lastn: Observation`, and so on for history and export.
fn by_action(policies: &Arc<PolicySet>, situation: &Situation) -> String {
    let mut lines = String::from("\n");
    for (action, name, only) in QUESTIONS {
        let rehearsal = Rehearsal::new(policies, &situation.clone().with_operation(name));
        let is_open = |resource: &ResourceType| {
            only.is_none_or(|only| resource.name() == only) && open(&rehearsal, action, *resource).is_some()
        };
        let types: Vec<&str> = ResourceType::all().filter(is_open).map(ResourceType::name).collect();
        let said = match types.len() {
            0 => "none".to_owned(),
            all if all == ResourceType::all().count() => "every type".to_owned(),
            _ => types.join(" "),
        };
        let _ = writeln!(lines, "{name}: {said}");
    }
    lines
}

#[test]
fn the_policy_table_is_what_was_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/policy-table.txt");
    let table = table();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &table).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (now, then)) in table.lines().zip(reviewed.lines()).enumerate() {
        assert_eq!(now, then, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(table.lines().count(), reviewed.lines().count(), "UPDATE_SNAPSHOTS=1 writes it anew");
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

#[test]
fn broad_policies_are_pointed_at() {
    let cases = [
        ("permit (principal, action, resource);", "everything to everyone"),
        (r#"permit (principal, action in Action::"view", resource is FHIR::Patient);"#, "without asking who"),
        (r#"permit (principal in Role::"x", action, resource);"#, "every action on everything"),
        (
            r#"permit (principal in Role::"x", action == Action::"read", resource is FHIR::Patient) when { false };"#,
            "impossible",
        ),
    ];
    for (text, expected) in cases {
        let file = Source { name: "broad.cedar".into(), text: text.into() };
        let set = PolicySet::load(&[file], None, None).unwrap();
        assert!(set.lints().iter().any(|lint| lint.message.contains(expected)), "{text}: {:?}", set.lints());
    }
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

/// The examples of the author's guide load.
#[test]
fn the_guides_examples_are_valid() {
    let guide = source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md"));
    let blocks = guide.text.split("```cedar\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let text: String = blocks.collect();
    assert!(text.contains("dietician"));
    let set = PolicySet::load(&[Source { name: "guide.cedar".into(), text }], None, None);
    assert_eq!(set.unwrap().lints(), []);
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
    for (role, purpose) in ROLES {
        let rehearsal = Rehearsal::new(&policies, &Situation::rehearsal(&[role], purpose));
        for resource in ResourceType::all() {
            for action in ["create", "update", "patch"] {
                let Some(view) = open(&rehearsal, action, resource) else { continue };
                let labels = ElementPath::parse(&format!("{}.meta.security", resource.name())).unwrap();
                let trusted = role == "integration";
                assert_eq!(view.possible.covers(&labels), trusted, "{role} {action} {}", resource.name());
                assert!(
                    trusted || !evidence.contains(&resource.name()),
                    "{role} {action} {}",
                    resource.name()
                );
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

#[test]
fn a_relation_that_is_none_is_pointed_at() {
    let policy = |name: &str| {
        let text = format!(
            "permit (principal in Role::\"x\", action == Action::\"read\", resource is FHIR::Patient)\n\
             when {{ context.relations.contains(\"{name}\") }};"
        );
        PolicySet::load(&[Source { name: "r.cedar".into(), text }], None, None).unwrap()
    };
    assert_eq!(policy("care-team").lints(), []);
    let set = policy("careteam");
    let lint = &set.lints()[0];
    assert!(
        lint.message.contains("`careteam`") && lint.hint.as_deref().unwrap().contains("care-team"),
        "{lint}"
    );
}
