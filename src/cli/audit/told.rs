//! What is told of a request: each record once, with its end.
//!
//! Owns: which records belong together (a decision, its intent, its outcome).
//! Must never: print.
//! Look next: `search`, which reads the trail; `page`, which prints.

use std::collections::{HashMap, HashSet};

use crate::domain::audit::{Control, Decision, Ending, Outcome, Record, Verdict};

/// How requests ended, as far as their records were read.
#[derive(Default)]
pub(super) struct Told {
    requests: HashMap<String, Request>,
    /// Counts of refusals whose end was read, by their first request.
    counted: HashSet<String>,
}

/// One request, and the entries of its batch or transaction.
#[derive(Default)]
struct Request {
    whole: Known,
    entries: HashMap<u32, Known>,
}

#[derive(Default)]
struct Known {
    outcome: Option<Outcome>,
    is_intended: bool,
    is_permitted: bool,
    is_refused: bool,
}

impl Told {
    pub(super) fn learn(&mut self, record: Record) {
        match record {
            Record::Intent(intent) => self.known(intent.request_id, intent.entry).is_intended = true,
            Record::Decision(decision) => {
                let known = self.known(decision.request_id, decision.entry);
                match decision.verdict {
                    Verdict::Permit => known.is_permitted = true,
                    Verdict::Refuse => known.is_refused = true,
                }
            }
            Record::Outcome(outcome) => {
                let known = self.known(outcome.request_id.clone(), outcome.entry);
                known.outcome = Some(outcome);
            }
            Record::Control(control) => {
                if let Some(refusals) = control.refusals().filter(|refusals| refusals.codes.is_some()) {
                    self.counted.insert(refusals.first.to_owned());
                }
            }
        }
    }

    /// How a count of refusals ended that `control` began: `counted` where it says how many there were, `unknown` where the
    /// process ended first. Nothing for other records.
    pub(super) fn counted(&self, control: &Control) -> Option<&'static str> {
        let refusals = control.refusals().filter(|refusals| refusals.codes.is_none())?;
        Some(if self.counted.contains(refusals.first) { "counted" } else { Ending::Unknown.code() })
    }

    fn known(&mut self, request_id: String, entry: Option<u32>) -> &mut Known {
        let request = self.requests.entry(request_id).or_default();
        match entry {
            None => &mut request.whole,
            Some(entry) => request.entries.entry(entry).or_default(),
        }
    }

    /// Whether `record` is printed as an object of its own. An intent is told with its decision, an outcome
    /// with the decision or intent it belongs to.
    pub(super) fn prints(&self, record: &Record) -> bool {
        let request = record.request_id().and_then(|id| self.requests.get(id));
        match (record, request) {
            (Record::Intent(intent), Some(request)) => {
                !request.of(intent.entry).is_some_and(|known| known.is_permitted || known.is_refused)
            }
            (Record::Outcome(outcome), Some(request)) => !request.tells(outcome),
            (Record::Decision(_) | Record::Control(_), _)
            | (Record::Intent(_) | Record::Outcome(_), None) => true,
        }
    }

    /// The outcome that is told with `decision`.
    pub(super) fn outcome(&self, decision: &Decision) -> Option<&Outcome> {
        let request = self.requests.get(&decision.request_id)?;
        let known = request.of(decision.entry)?;
        match decision.verdict {
            Verdict::Permit => known.outcome.as_ref().or(request.whole.outcome.as_ref()),
            // What was refused did not happen, unless it was sent to the EMR and nobody knows.
            Verdict::Refuse => {
                let whole = request.whole.outcome.as_ref().filter(|_| known.is_intended);
                known.outcome.as_ref().or(whole).filter(|outcome| outcome.ending == Ending::Unknown)
            }
        }
    }
}

impl Request {
    fn of(&self, entry: Option<u32>) -> Option<&Known> {
        entry.map_or(Some(&self.whole), |entry| self.entries.get(&entry))
    }

    fn tells(&self, outcome: &Outcome) -> bool {
        let goes_on = |known: &Known| known.is_permitted || known.is_intended;
        let own = self
            .of(outcome.entry)
            .is_some_and(|known| goes_on(known) || (known.is_refused && outcome.ending == Ending::Unknown));
        own || (outcome.entry.is_none() && self.entries.values().any(goes_on))
    }
}
