//! What a candidate set would have decided otherwise, counted and without a person or a patient.
//!
//! Owns: the counts by role, interaction and type, bounded, and their lines for records and reports.
//! Must never: hold an id, a value, or more than `limits` allow. Look next: `access::Candidate`, which compares.

use crate::domain::access::Comparison;
use crate::limits::{
    RECORD_TEXT_BYTES_MAX, SHADOW_DIFFERENCES_MAX, SHADOW_NAMES_MAX, SHADOW_ROWS_IN_RECORD_MAX,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Questions that were put to both sets.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All of them.
    pub asked: u64,
    /// Those of which the two say different things.
    pub different: u64,
    /// Those that the candidate could not be asked for want of relations that nobody looked up.
    pub unknown: u64,
    /// Differences beyond the number of those that are told apart.
    pub others: u64,
    rows: BTreeMap<About, Row>,
}

/// What differences are told apart by: roles, interaction, type.
type About = (String, &'static str, &'static str);

#[derive(Clone, Debug, Default)]
struct Row {
    times: u64,
    permitted: u64,
    refused: u64,
    gained: BTreeMap<String, u64>,
    lost: BTreeMap<String, u64>,
    policies: BTreeSet<String>,
}

impl Tally {
    /// Counts a comparison; whether it is the first of its kind.
    pub fn note(&mut self, comparison: &Comparison) -> bool {
        self.asked += 1;
        if comparison.unknown {
            self.unknown += 1;
        }
        if !comparison.is_different() {
            return false;
        }
        self.different += 1;
        let roles = comparison.roles.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let about = (roles, comparison.asked, comparison.resource);
        if !self.rows.contains_key(&about) && self.rows.len() >= SHADOW_DIFFERENCES_MAX {
            self.others += 1;
            return false;
        }
        let row = self.rows.entry(about).or_default();
        row.times += 1;
        row.permitted += u64::from(!comparison.before && comparison.after);
        row.refused += u64::from(comparison.before && !comparison.after);
        count(&mut row.gained, &comparison.gained);
        count(&mut row.lost, &comparison.lost);
        let room = SHADOW_NAMES_MAX.saturating_sub(row.policies.len());
        row.policies.extend(comparison.policies.iter().take(room).cloned());
        row.times == 1
    }

    /// The differences, the most frequent first.
    #[must_use]
    pub fn rows(&self) -> Vec<Value> {
        let mut rows: Vec<(&About, &Row)> = self.rows.iter().collect();
        rows.sort_by(|(about, row), (other, than)| than.times.cmp(&row.times).then(about.cmp(other)));
        rows.into_iter()
            .map(|((roles, asked, resource), row)| row.json(roles, asked, resource, usize::MAX))
            .collect()
    }

    /// What a record holds: the numbers, and the most frequent differences as JSON.
    #[must_use]
    pub fn details(&self) -> BTreeMap<String, String> {
        let numbers = [
            ("asked", self.asked),
            ("different", self.different),
            ("unknown", self.unknown),
            ("others", self.others),
        ];
        let mut details: BTreeMap<String, String> =
            numbers.into_iter().map(|(name, number)| (name.to_owned(), number.to_string())).collect();
        let mut rows: Vec<(&About, &Row)> = self.rows.iter().collect();
        rows.sort_by(|(about, row), (other, than)| than.times.cmp(&row.times).then(about.cmp(other)));
        for (place, ((roles, asked, resource), row)) in
            rows.into_iter().take(SHADOW_ROWS_IN_RECORD_MAX).enumerate()
        {
            // As many names as fit; a text that is cut is no JSON any more.
            let whole = |names: usize| row.json(roles, asked, resource, names).to_string();
            let fits =
                (0..=SHADOW_NAMES_MAX).rev().map(whole).find(|text| text.len() <= RECORD_TEXT_BYTES_MAX);
            details.extend(fits.map(|text| (format!("difference {:02}", place + 1), text)));
        }
        details
    }
}

impl Row {
    fn json(&self, roles: &str, asked: &str, resource: &str, names: usize) -> Value {
        let some = |all: &BTreeMap<String, u64>| -> BTreeMap<String, u64> {
            let mut sorted: Vec<(&String, &u64)> = all.iter().collect();
            sorted.sort_by(|(path, times), (other, than)| than.cmp(times).then(path.cmp(other)));
            sorted.into_iter().take(names).map(|(path, times)| (path.clone(), *times)).collect()
        };
        let policies: Vec<&String> = self.policies.iter().take(names).collect();
        let told = [self.gained.len(), self.lost.len(), self.policies.len()];
        let more: usize = told.iter().map(|all| all.saturating_sub(names)).sum();
        json!({
            "roles": roles, "asked": asked, "type": resource, "times": self.times,
            "permitted": self.permitted, "refused": self.refused,
            "gained": some(&self.gained), "lost": some(&self.lost), "policies": policies, "more": more,
        })
    }
}

fn count(counts: &mut BTreeMap<String, u64>, paths: &[String]) {
    for path in paths {
        if counts.contains_key(path) || counts.len() < SHADOW_NAMES_MAX {
            *counts.entry(path.clone()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(role: &str, gained: &[&str]) -> Comparison {
        Comparison {
            roles: [role.to_owned()].into(),
            asked: "read",
            resource: "Patient",
            before: true,
            after: true,
            gained: gained.iter().map(|path| (*path).to_owned()).collect(),
            ..Comparison::default()
        }
    }

    #[test]
    fn differences_are_counted_by_what_they_are_about() {
        let mut tally = Tally::default();
        assert!(!tally.note(&comparison("nurse", &[])));
        assert!(tally.note(&comparison("nurse", &["Patient.name"])));
        assert!(!tally.note(&comparison("nurse", &["Patient.name", "Patient.photo"])), "known");
        let refused = Comparison { after: false, ..comparison("clerk", &[]) };
        assert!(tally.note(&refused));
        assert!(!tally.note(&Comparison { unknown: true, ..refused }));
        assert_eq!((tally.asked, tally.different, tally.unknown), (5, 3, 1));
        let rows = tally.rows();
        assert_eq!((rows[0]["roles"].as_str(), rows[0]["times"].as_u64()), (Some("nurse"), Some(2)));
        assert_eq!(rows[0]["gained"], json!({ "Patient.name": 2, "Patient.photo": 1 }));
        assert_eq!((rows[1]["refused"].as_u64(), rows[1]["permitted"].as_u64()), (Some(1), Some(0)));
    }

    /// Whatever is asked, what is kept is bounded, and every line of a record is whole.
    #[test]
    fn what_is_kept_is_bounded() {
        let mut tally = Tally::default();
        for role in 0..SHADOW_DIFFERENCES_MAX + 5 {
            let path = format!("Patient.{}", "x".repeat(90));
            let paths: Vec<String> = (0..SHADOW_NAMES_MAX + 5).map(|n| format!("{path}{n}")).collect();
            let mut one = comparison(&format!("role{role}"), &[]);
            one.policies = paths.iter().cloned().collect();
            one.gained = paths;
            tally.note(&one);
        }
        assert_eq!((tally.rows().len(), tally.others), (SHADOW_DIFFERENCES_MAX, 5));
        assert_eq!(tally.rows()[0]["gained"].as_object().unwrap().len(), SHADOW_NAMES_MAX);
        let details = tally.details();
        assert_eq!(details.len(), 4 + SHADOW_ROWS_IN_RECORD_MAX);
        for (name, text) in details.iter().filter(|(name, _)| name.starts_with("difference")) {
            assert!(text.len() <= RECORD_TEXT_BYTES_MAX, "{name}");
            let row: Value = serde_json::from_str(text).unwrap();
            assert!(row["more"].as_u64().unwrap() > 0 && row["times"] == 1, "{text}");
        }
    }
}
