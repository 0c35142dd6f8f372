//! The run written down before it begins: which request goes out when, and from whom.
//!
//! Owns: [`Program`], requests in the order of their times, the same for the same seed.
//! Must never: depend on an answer: what an answer leads to (`Follow`) is not part of it.
//! Look next: `open_loop`, which sends them at their times.

use crate::arrivals::{Arrivals, Rate};
use crate::people::own_patient;
use crate::scenario::{Role, Scenario, Visit};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// One request that is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    /// From the run's beginning.
    pub(crate) at: Duration,
    /// The visit's number in the run.
    pub(crate) serial: u64,
    /// Which step of the visit.
    pub(crate) step: usize,
    /// Which kind of visit.
    pub(crate) visit: usize,
    /// Which of the people who come for it.
    pub(crate) person: u32,
    /// The patient it is about: `c1` and so on.
    pub(crate) patient: u32,
    /// Somebody else.
    pub(crate) other: u32,
}

/// The requests of a run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    arrivals: Arrivals,
    /// The next visit's time.
    next: Option<Duration>,
    visits: Vec<Line>,
    weights: u64,
    patients: u32,
    under_way: BinaryHeap<Reverse<Due>>,
    serial: u64,
    chance: fastrand::Rng,
}

/// What of a visit matters here.
#[derive(Clone, Debug)]
struct Line {
    weight: u64,
    people: u32,
    /// Who comes next: those who have rested longest.
    turn: u32,
    is_own: bool,
    after: Vec<Duration>,
}

impl Program {
    /// The requests of `scenario` for `length`, about this many patients.
    pub(crate) fn new(scenario: &Scenario, rate: Rate, length: Duration, patients: u32, seed: u64) -> Self {
        let line = |visit: &Visit| Line {
            weight: visit.weight,
            people: scenario.people(visit, rate),
            turn: 0,
            is_own: visit.role == Role::Patient,
            after: visit.steps.iter().map(|step| step.after).collect(),
        };
        let mut arrivals = Arrivals::new(scenario.pace, rate, length, &scenario.stretches, seed);
        Self {
            next: arrivals.next(),
            arrivals,
            visits: scenario.visits.iter().map(line).collect(),
            weights: scenario.visits.iter().map(|visit| visit.weight).sum(),
            patients: patients.max(1),
            under_way: BinaryHeap::new(),
            serial: 0,
            // Another stream than that of the arrivals.
            chance: fastrand::Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15),
        }
    }

    fn begin(&mut self, at: Duration) {
        let mut drawn = self.chance.u64(..self.weights.max(1));
        let patients = self.patients;
        let patient = self.chance.u32(1..=patients);
        let chosen =
            self.visits.iter_mut().enumerate().find(|(_, line)| match drawn.checked_sub(line.weight) {
                Some(rest) => {
                    drawn = rest;
                    false
                }
                None => true,
            });
        let Some((visit, line)) = chosen else { return };
        let person = line.turn;
        line.turn = (line.turn + 1) % line.people.max(1);
        let patient = if line.is_own { own_patient(person, patients) } else { patient };
        let other = patient % patients + 1;
        for (step, after) in line.after.iter().enumerate() {
            let due = Due { at: at + *after, serial: self.serial, step, visit, person, patient, other };
            self.under_way.push(Reverse(due));
        }
        self.serial += 1;
    }
}

impl Iterator for Program {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        while let Some(at) = self.next {
            if self.under_way.peek().is_some_and(|Reverse(due)| due.at < at) {
                break;
            }
            self.begin(at);
            self.next = self.arrivals.next();
        }
        self.under_way.pop().map(|Reverse(due)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SHIPPED;

    fn program(name: &str, seed: u64) -> Vec<Due> {
        let scenario = Scenario::find(name).unwrap();
        Program::new(&scenario, scenario.rate, Duration::from_secs(60), 50, seed).collect()
    }

    #[test]
    fn a_program_is_fixed_beforehand_and_in_order() {
        for (name, _) in SHIPPED {
            let one = program(name, 1);
            assert_eq!(one, program(name, 1), "{name}");
            assert_ne!(one, program(name, 2), "{name}");
            assert!(one.is_sorted_by_key(|due| due.at), "{name}");
        }
    }

    #[test]
    fn a_visit_has_all_its_steps_about_one_patient() {
        let scenario = Scenario::find("ward-round").unwrap();
        let dues = program("ward-round", 3);
        let opened: Vec<Due> = dues.iter().copied().filter(|due| due.visit == 0).collect();
        let mut visits: Vec<u64> = opened.iter().map(|due| due.serial).collect();
        visits.sort_unstable();
        visits.dedup();
        assert_eq!(opened.len(), visits.len() * 12);
        let first = opened[0];
        for due in dues.iter().filter(|due| due.serial == first.serial) {
            assert_eq!((due.patient, due.person), (first.patient, first.person));
            assert_eq!(due.at, first.at + scenario.visits[0].steps[due.step].after);
            assert!(due.patient != due.other && (1..=50).contains(&due.patient));
        }
    }

    #[test]
    fn people_rest_between_visits_and_kinds_come_by_weight() {
        let dues = program("ward-round", 4);
        let mut of_first: Vec<Duration> = dues
            .iter()
            .filter(|due| due.visit == 0 && due.person == 0 && due.step == 0)
            .map(|due| due.at)
            .collect();
        of_first.dedup();
        // Half a minute on average; a Poisson process is sometimes early.
        assert!(of_first.windows(2).all(|two| two[1] - two[0] > Duration::from_secs(15)), "{of_first:?}");
        let scenario = Scenario::find("mixed-day").unwrap();
        let length = Duration::from_secs(2_000);
        let mut counts = vec![0_u64; scenario.visits.len()];
        for due in Program::new(&scenario, scenario.rate, length, 50, 9).filter(|due| due.step == 0) {
            counts[due.visit] += 1;
        }
        let (all, weights): (u64, u64) =
            (counts.iter().sum(), scenario.visits.iter().map(|visit| visit.weight).sum());
        for (count, visit) in counts.iter().zip(&scenario.visits) {
            let expected = all * visit.weight / weights;
            assert!(count.abs_diff(expected) < expected / 4 + 40, "{}: {count} of {expected}", visit.name);
        }
    }
}
