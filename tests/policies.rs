//! The shipped policies: who sees which elements of which type, as a table that reviewers read.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test policies` writes the table anew; the difference is the review.

use chartgate::domain::access::{
    Masks, PolicySet, RecordDenial, Situation, Source, rehearse_record, rehearse_type,
};
use chartgate::domain::fhir::facts::Facts;
use chartgate::domain::fhir::r4::ResourceType;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

const ROLES: [(&str, &str); 6] = [
    ("physician", "TREAT"),
    ("nurse", "TREAT"),
    ("front-desk", "HOPERAT"),
    ("billing-clerk", "HPAYMT"),
    ("researcher", "HRESCH"),
    ("patient", "PATRQT"),
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
    let mut table = String::from("# What each role may see, by type. Written by tests/policies.rs.\n");
    for (role, purpose) in ROLES {
        let situation = Situation::rehearsal(&[role], purpose);
        let _ = write!(table, "\n## {role} ({purpose})\n\n");
        for resource in ResourceType::all() {
            let view = rehearse_type(&policies, &situation, resource).unwrap();
            if view.open {
                let kept = view.possible.kept().join(" ");
                let _ = writeln!(table, "{}: {kept}", resource.name());
            }
        }
    }
    table
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
