//! The trail after attacks: whoever behaved has exactly their records, and whoever did not has no fewer than they heard of.
//!
//! Owns: [`Evidence`]. Attackers leave before they hear, so of them there may be more records than answers.
//! Must never: let a release to somebody unknown pass for an attacker's.
//! Look next: `trail`, the strict form for runs in which everybody behaves.

use super::ground::SUBJECT;
use crate::site::GateProgram;
use crate::trail::{self, Line, REFUSAL_STATUS_MIN};
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// What the trail holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Evidence {
    /// Answers to callers who behaved.
    pub(crate) answered: u64,
    /// Those of them without exactly one record of the same status and a complete release. Must be none.
    pub(crate) unproven: u64,
    /// Answers that attackers read.
    pub(crate) heard: u64,
    /// Those of them without a record, beyond the refusals that are in a count. Must be none.
    pub(crate) missing: u64,
    /// Refusals that are in a count.
    pub(crate) counted: u64,
    /// Records of what attackers did not wait for.
    pub(crate) unheard: u64,
    /// Records of somebody who was not there. Must be none.
    pub(crate) strange: u64,
    pub(crate) verifies: bool,
}

impl Evidence {
    /// Nothing was missed.
    pub(crate) fn is_good(&self) -> bool {
        self.verifies && self.unproven + self.missing + self.strange == 0
    }
}

struct Answer {
    status: u16,
    behaved: bool,
    records: u32,
    is_right: bool,
}

#[derive(Default)]
struct Ledger {
    answers: HashMap<u128, Answer>,
    evidence: Evidence,
}

/// Reads the trail and verifies it.
///
/// # Errors
/// When it could not be read at all.
pub(super) fn examine(
    gate: &GateProgram,
    config: &Path,
    behaved: &[(u128, u16)],
    attackers: &[(u128, u16)],
) -> Result<Evidence, String> {
    let mut ledger = Ledger::expecting(behaved, attackers);
    let verifies = trail::read(gate, config, &mut |line| ledger.take(line))?;
    Ok(Evidence { verifies, ..ledger.close() })
}

impl Ledger {
    fn expecting(behaved: &[(u128, u16)], attackers: &[(u128, u16)]) -> Self {
        let mut ledger = Self::default();
        ledger.evidence.answered = behaved.len() as u64;
        ledger.evidence.heard = attackers.len() as u64;
        let all =
            behaved.iter().map(|answer| (answer, true)).chain(attackers.iter().map(|answer| (answer, false)));
        for (&(id, status), behaved) in all {
            let answer = Answer { status, behaved, records: 0, is_right: true };
            if ledger.answers.insert(id, answer).is_some() {
                // One record cannot stand for two answers.
                ledger.evidence.unproven += 1;
            }
        }
        ledger
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let line = Line::read(line)?;
        match line.kind.as_deref() {
            Some(kind @ ("release" | "refusal")) => self.record(&line, kind == "release"),
            Some("control") => self.evidence.counted += line.counted(),
            Some(_) | None => {}
        }
        Ok(())
    }

    fn record(&mut self, line: &Line<'_>, is_release: bool) {
        let Some(answer) = line.request().and_then(|id| self.answers.get_mut(&id)) else {
            let is_attackers = match line.subject.as_deref() {
                Some(subject) => subject.starts_with(SUBJECT),
                // Nobody was established: refused, and nobody who behaves is.
                None => !is_release,
            };
            match is_attackers {
                true => self.evidence.unheard += 1,
                false => self.evidence.strange += 1,
            }
            return;
        };
        // The pieces of a long answer have a record each.
        if line.unit.is_none_or(|unit| unit == 0) {
            answer.records += 1;
        }
        let same = line.status.is_none_or(|status| status == answer.status);
        let meant = is_release == (answer.status < REFUSAL_STATUS_MIN);
        let whole = !is_release || line.outcome.as_deref() == Some("complete");
        answer.is_right &= same && meant && (whole || !answer.behaved);
    }

    fn close(mut self) -> Evidence {
        let mut lost_refusals = 0_u64;
        for answer in self.answers.values() {
            match (answer.behaved, answer.records) {
                (true, records) => self.evidence.unproven += u64::from(records != 1 || !answer.is_right),
                (false, 0) if answer.status >= REFUSAL_STATUS_MIN => lost_refusals += 1,
                (false, 0) => self.evidence.missing += 1,
                (false, records) => self.evidence.missing += u64::from(records > 1 || !answer.is_right),
            }
        }
        self.evidence.missing += lost_refusals.saturating_sub(self.evidence.counted);
        self.evidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, id: u128, subject: &str, status: u16, outcome: &str) -> String {
        format!(
            r#"{{"kind":"{kind}","requestId":"{id:032x}","subject":{subject},"status":{status},"outcome":"{outcome}"}}"#
        )
    }

    #[test]
    fn who_behaved_has_exactly_their_records_and_attackers_no_fewer_than_they_heard_of() {
        let nurse = |id, outcome| line("release", id, "\"nurse-0-1\"", 200, outcome);
        let refused = |id| line("refusal", id, "null", 401, "refused");
        let sent = |id| line("release", id, "\"attacker-1\"", 200, "cut-off");
        let counted =
            r#"{"kind":"control","event":"refusals-counted","details":{"code:no-token":"2"}}"#.to_owned();
        let sound = || Evidence { answered: 1, heard: 2, ..Evidence::default() };
        let (behaved, heard) = ([(1, 200)], [(2, 401), (3, 200)]);
        let all = || vec![nurse(1, "complete"), refused(2), sent(3)];
        let with = |more: String| [all(), vec![more]].concat();
        let cases = [
            (all(), sound()),
            (with(refused(9)), Evidence { unheard: 1, ..sound() }),
            (with(sent(9)), Evidence { unheard: 1, ..sound() }),
            (with(nurse(9, "complete")), Evidence { strange: 1, ..sound() }),
            (with(line("release", 9, "null", 200, "complete")), Evidence { strange: 1, ..sound() }),
            (with(nurse(1, "complete")), Evidence { unproven: 1, ..sound() }),
            (vec![refused(2), sent(3)], Evidence { unproven: 1, ..sound() }),
            (vec![nurse(1, "cut-off"), refused(2), sent(3)], Evidence { unproven: 1, ..sound() }),
            (vec![nurse(1, "complete"), refused(2)], Evidence { missing: 1, ..sound() }),
            (vec![nurse(1, "complete"), sent(3)], Evidence { missing: 1, ..sound() }),
            (vec![nurse(1, "complete"), sent(3), counted], Evidence { counted: 2, ..sound() }),
            (vec![nurse(1, "complete"), sent(2), sent(3)], Evidence { missing: 1, ..sound() }),
        ];
        for (lines, expected) in cases {
            let mut ledger = Ledger::expecting(&behaved, &heard);
            lines.iter().for_each(|line| ledger.take(line.as_bytes()).unwrap());
            let found = ledger.close();
            assert_eq!(found, expected, "{lines:?}");
            let misses = expected.unproven + expected.missing + expected.strange;
            assert_eq!(Evidence { verifies: true, ..found.clone() }.is_good(), misses == 0);
            assert!(!found.is_good());
        }
    }
}
