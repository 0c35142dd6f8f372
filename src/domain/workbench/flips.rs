//! What a candidate set would change about a recorded day.
//!
//! Owns: the shape of a change, the counts, and the summary by role and person. Must never: count what is undecided as the
//! same, or hold more than `limits` says. Look next: `replay`, which finds them.

use super::recorded::{Item, Recorded};
use crate::domain::access::Fact;
use crate::domain::fhir::r4::ResourceType;
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};

/// What would be otherwise about one record, or about a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `Some(true)`: what was refused would be permitted; `Some(false)`: the other way round.
    pub permitted: Option<bool>,
    /// Elements that were let pass and would not be.
    pub hidden: Vec<String>,
    /// Elements that were not let pass and would be.
    pub shown: Vec<String>,
    /// Whether more would change turns on these facts, which are not recorded.
    pub missing: BTreeSet<Fact>,
}

impl Change {
    /// Nothing changes, for certain.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !self.is_flip() && self.missing.is_empty()
    }

    /// Something changes, for certain.
    #[must_use]
    pub fn is_flip(&self) -> bool {
        self.permitted.is_some() || !self.hidden.is_empty() || !self.shown.is_empty()
    }

    pub(super) fn refused() -> Self {
        Self { permitted: Some(false), ..Self::default() }
    }

    pub(super) fn undecided(missing: BTreeSet<Fact>) -> Self {
        Self { missing, ..Self::default() }
    }
}

/// Somebody's question of which something would be otherwise, or may be.
#[derive(Debug)]
pub struct Found<'r> {
    /// The decision.
    pub recorded: &'r Recorded,
    /// The record; none for a refusal.
    pub item: Option<&'r Item>,
    /// What would be otherwise.
    pub change: &'r Change,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Decisions.
    pub decisions: u64,
    /// Records released or written.
    pub records: u64,
    /// Of records and refusals: those that stay as they were.
    pub same: u64,
    /// Those of which something would flip.
    pub flipped: u64,
    /// Those of which it is not known whether something would.
    pub undecided: u64,
    /// Records that were withheld from answers: the trail does not name them.
    pub withheld: u64,
    /// Decisions of another set than the present one.
    pub of_other_sets: u64,
    /// Different situations that were asked about.
    pub situations: u64,
}

/// Flips by whom they are about: role, person, type, and what changes.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    rows: BTreeMap<Row, (u64, BTreeSet<String>)>,
    cut_short: bool,
}

/// One line of a summary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The person's roles.
    pub roles: String,
    /// The person.
    pub subject: String,
    /// What the records are, or what was asked.
    pub what: String,
    /// What changes, in words.
    pub change: String,
}

impl Summary {
    /// Takes one more.
    pub fn add(&mut self, found: &Found<'_>) {
        let recorded = found.recorded;
        let what = match (found.item, &recorded.question) {
            (Some(item), _) => item.resource.name().to_owned(),
            (None, Some(question)) => {
                let resource = question.resource_type().map_or("", ResourceType::name);
                format!("{resource} ({})", recorded.interaction)
            }
            (None, None) => recorded.interaction.clone(),
        };
        let row = Row {
            roles: recorded.roles.join(" "),
            subject: recorded.subject.clone(),
            what,
            change: words(found.change),
        };
        if self.rows.len() >= limits::REPLAY_ROWS_MAX && !self.rows.contains_key(&row) {
            self.cut_short = true;
            return;
        }
        let (count, patients) = self.rows.entry(row).or_default();
        *count += 1;
        let names = found.item.iter().flat_map(|item| &item.patients);
        let room = limits::REPLAY_PATIENTS_MAX.saturating_sub(patients.len());
        let new: Vec<String> = names.filter(|id| !patients.contains(*id)).take(room).cloned().collect();
        patients.extend(new);
    }

    /// Each line with how many records and which patients, up to `limits::REPLAY_PATIENTS_MAX`.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, u64, &BTreeSet<String>)> {
        self.rows.iter().map(|(row, (count, patients))| (row, *count, patients))
    }

    /// There are more lines than `limits::REPLAY_ROWS_MAX`.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        self.cut_short
    }
}

/// What changes, in words.
fn words(change: &Change) -> String {
    let mut said = Vec::new();
    match change.permitted {
        Some(true) => said.push("refused -> permitted".to_owned()),
        Some(false) => said.push("permitted -> refused".to_owned()),
        None => {}
    }
    for (word, paths) in [("hidden", &change.hidden), ("shown", &change.shown)] {
        if !paths.is_empty() {
            said.push(format!("{word}: {}", paths.join(", ")));
        }
    }
    if !change.missing.is_empty() {
        let missing: Vec<&str> = change.missing.iter().map(|fact| fact.name()).collect();
        said.push(format!("undecided, not recorded: {}", missing.join(", ")));
    }
    said.join("; ")
}
