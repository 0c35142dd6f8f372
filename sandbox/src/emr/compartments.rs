//! The compartments of R4: by which parameters a record belongs to a patient, encounter, practitioner, person or device.
//!
//! Owns: the table over `data/r4-compartments.txt`.
//! Must never: follow more than the official membership parameters.
//! Look next: `query`, `export`, `operations`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::store::Record;

const ROWS: &str = include_str!("../../data/r4-compartments.txt");

type Members = BTreeMap<&'static str, Vec<&'static str>>;

static TABLE: LazyLock<BTreeMap<&'static str, Members>> = LazyLock::new(|| {
    let mut table: BTreeMap<_, Members> = BTreeMap::new();
    for line in ROWS.lines() {
        let mut cells = line.split('\t');
        if let (Some(owner), Some(name), Some(codes)) = (cells.next(), cells.next(), cells.next()) {
            table.entry(owner).or_default().insert(name, codes.split(' ').collect());
        }
    }
    table
});

/// True for a type that has a compartment.
pub(super) fn is_owner(name: &str) -> bool {
    TABLE.contains_key(name)
}

/// The types whose records can be in such a compartment, the owner's among them.
pub(super) fn types(owner: &str) -> Vec<&'static str> {
    let Some((owner, members)) = TABLE.get_key_value(owner) else { return Vec::new() };
    let mut names: Vec<&str> = members.keys().copied().collect();
    if !names.contains(owner) {
        names.push(owner);
    }
    names
}

/// Whether the record is in the compartment of `owner/id`; the owner itself is.
pub(super) fn holds(owner: &str, id: &str, name: &str, record: &Record) -> bool {
    if owner == name && record.id == id {
        return true;
    }
    let reference = format!("{owner}/{id}");
    refers(owner, name, record, |one| one == reference)
}

/// Whether a membership parameter of the record refers to an `owner` that `fits` (asked with `Type/id`).
pub(super) fn refers(owner: &str, name: &str, record: &Record, fits: impl Fn(&str) -> bool) -> bool {
    let codes = TABLE.get(owner).and_then(|members| members.get(name));
    let mut terms = codes.into_iter().flatten().flat_map(|code| record.terms.of(code));
    terms.any(|term| term.reference().is_some_and(|one| fits(&one)))
}
