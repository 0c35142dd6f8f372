//! Emergencies as the trail tells them: who, whom, why, what was opened, and what a reviewer found.
//!
//! Owns: putting the records that name one grant together. Must never: take a record's absence for a proof; it tells
//! what it was shown. Look next: `record`, the events; `cli::emergency`, which prints cases.

use super::record::{Control, Decision, Event, Record, Verdict};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One grant of emergency access.
#[derive(Clone, PartialEq, Eq)]
pub struct Case {
    /// The grant's id.
    pub grant: String,
    /// Who vouched for the person.
    pub issuer: String,
    /// The person.
    pub subject: String,
    /// The patient's logical id.
    pub patient: String,
    /// Why, in the person's words.
    pub reason: String,
    /// From when.
    pub began: Timestamp,
    /// Until when, as it was granted.
    pub until: String,
    /// When and how it ended, if it has.
    pub ended: Option<(Timestamp, String)>,
    /// Answers that rested on it.
    pub answers: u64,
    /// The records in these answers, `Type/id`, and those written under it.
    pub opened: BTreeSet<String>,
    /// What reviewers found, in order.
    pub reviews: Vec<Review>,
}

/// What a reviewer found.
#[derive(Clone, PartialEq, Eq)]
pub struct Review {
    /// When.
    pub time: Timestamp,
    /// Who vouched for the reviewer.
    pub issuer: String,
    /// The reviewer.
    pub subject: String,
    /// `justified` or `not-justified`.
    pub finding: String,
    /// In the reviewer's words.
    pub note: String,
}

/// Reasons, notes and ids are patient data.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl fmt::Debug for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Review").field("finding", &self.finding).finish_non_exhaustive()
    }
}

/// The cases of a trail, by grant.
#[derive(Clone, Debug, Default)]
pub struct Cases(BTreeMap<String, Case>);

impl Cases {
    /// Takes the trail's next record.
    pub fn learn(&mut self, record: &Record) {
        match record {
            Record::Control(control) => self.learn_control(control),
            Record::Decision(decision) if decision.verdict == Verdict::Permit => {
                self.learn_decision(decision)
            }
            Record::Decision(_) | Record::Intent(_) | Record::Outcome(_) => {}
        }
    }

    /// The case of a grant.
    #[must_use]
    pub fn of(&self, grant: &str) -> Option<&Case> {
        self.0.get(grant)
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<&Case> {
        let mut all: Vec<&Case> = self.0.values().collect();
        all.sort_by(|a, b| (a.began, &a.grant).cmp(&(b.began, &b.grant)));
        all
    }

    fn learn_control(&mut self, control: &Control) {
        let said = |name: &str| control.details.get(name).cloned().unwrap_or_default();
        let grant = said("grant");
        match control.event {
            Event::EmergencyBegan => {
                let case = Case {
                    grant: grant.clone(),
                    issuer: said("issuer"),
                    subject: said("subject"),
                    patient: said("patient"),
                    reason: said("reason"),
                    began: control.time,
                    until: said("until"),
                    ended: None,
                    answers: 0,
                    opened: BTreeSet::new(),
                    reviews: Vec::new(),
                };
                self.0.insert(grant, case);
            }
            Event::EmergencyEnded => {
                if let Some(case) = self.0.get_mut(&grant) {
                    case.ended = Some((control.time, said("cause")));
                }
            }
            Event::EmergencyReviewed => {
                let review = Review {
                    time: control.time,
                    issuer: said("reviewerIssuer"),
                    subject: said("reviewer"),
                    finding: said("finding"),
                    note: said("note"),
                };
                if let Some(case) = self.0.get_mut(&grant) {
                    case.reviews.push(review);
                }
            }
            Event::Created
            | Event::Started
            | Event::Stopped
            | Event::PoliciesLoaded
            | Event::PoliciesRejected
            | Event::Revoked
            | Event::RevocationLifted
            | Event::EventTaken
            | Event::EventRefused
            | Event::ReserveReady
            | Event::ReserveTakenOver
            | Event::ReserveRemoved
            | Event::TrailRead
            | Event::KeyRotated
            | Event::Pruned
            | Event::HoldAdded
            | Event::HoldLifted
            | Event::PoliciesRollback
            | Event::ShadowBegan
            | Event::ShadowSummary
            | Event::ShadowEnded
            | Event::RefusalsCounting
            | Event::RefusalsCounted => {}
        }
    }

    fn learn_decision(&mut self, decision: &Decision) {
        for grant in &decision.emergencies {
            let Some(case) = self.0.get_mut(grant) else { continue };
            let released = decision.released.iter();
            // What belongs to others in the same answer did not rest on this grant.
            let theirs =
                released.filter(|one| one.patients.contains(&case.patient)).map(|one| &one.reference);
            let written = decision.written.iter().filter(|one| one.patients.contains(&case.patient));
            let before = case.opened.len();
            case.opened.extend(theirs.chain(written.map(|one| &one.reference)).cloned());
            case.answers += u64::from(!decision.released.is_empty() || case.opened.len() > before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Released;
    use super::*;
    use std::sync::Arc;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_770_000_000 + second).unwrap()
    }

    fn control(event: Event, second: i64, details: &[(&str, &str)]) -> Record {
        let details = details.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Record::Control(Control { time: time(second), event, details })
    }

    fn answer(verdict: Verdict, grant: &str, released: &[(&str, &str)]) -> Record {
        let mask = Arc::new(vec!["Observation".to_owned()]);
        let released = released.iter().map(|(reference, patient)| Released {
            reference: (*reference).to_owned(),
            version: None,
            patients: [(*patient).to_owned()].into(),
            mask: Arc::clone(&mask),
        });
        let mut decision = Decision::new(time(5), "r".to_owned(), verdict);
        decision.released = released.collect();
        decision.emergencies = vec![grant.to_owned()];
        Record::Decision(Box::new(decision))
    }

    #[test]
    fn a_case_is_what_the_trail_says_of_a_grant() {
        let began = |grant, patient, second| {
            let details = [("grant", grant), ("subject", "doc"), ("patient", patient), ("reason", "found")];
            control(Event::EmergencyBegan, second, &details)
        };
        let mut cases = Cases::default();
        for record in [
            began("g2", "p2", 2),
            began("g1", "p1", 1),
            answer(Verdict::Permit, "g1", &[("Observation/a", "p1"), ("Observation/b", "p9")]),
            answer(Verdict::Permit, "g1", &[("Observation/a", "p1")]),
            answer(Verdict::Refuse, "g1", &[("Observation/c", "p1")]),
            answer(Verdict::Permit, "unknown", &[("Observation/d", "p1")]),
            control(Event::EmergencyEnded, 60, &[("grant", "g1"), ("cause", "expired")]),
            control(
                Event::EmergencyReviewed,
                90,
                &[("grant", "g1"), ("reviewer", "eve"), ("finding", "justified")],
            ),
            control(Event::EmergencyReviewed, 91, &[("grant", "unknown"), ("finding", "justified")]),
        ] {
            cases.learn(&record);
        }
        let all = cases.all();
        assert_eq!(all.iter().map(|case| case.grant.as_str()).collect::<Vec<_>>(), ["g1", "g2"]);
        let first = cases.of("g1").unwrap();
        assert_eq!((first.answers, &first.opened), (2, &BTreeSet::from(["Observation/a".to_owned()])));
        assert_eq!(first.ended, Some((time(60), "expired".to_owned())));
        assert_eq!((first.reviews.len(), first.reviews[0].subject.as_str()), (1, "eve"));
        let second = cases.of("g2").unwrap();
        assert!(second.ended.is_none() && second.reviews.is_empty() && second.opened.is_empty());
    }
}
