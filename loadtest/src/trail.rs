//! Correctness after the load: every answer has its record, and nothing in the trail was changed.
//!
//! Owns: reading the trail through `chartgate audit`, as an auditor would.
//! Must never: look into the trail's files itself.
//! Look next: `baseline`, which fails the run on a miss.

use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// One line of `audit search --json`, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    outcome: Option<Cow<'a, str>>,
}

/// What the trail holds about the answers that came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Answers that came.
    pub(crate) answered: u64,
    /// Answers without a release record of their own. Must be none.
    pub(crate) missing: u64,
    /// Records of releases that came to nobody here. Must be none.
    pub(crate) surplus: u64,
    /// Refusals. Must be none: nothing here is to be refused.
    pub(crate) refused: u64,
    /// Releases whose recorded outcome is not that the answer was complete. Must be none.
    pub(crate) incomplete: u64,
    /// `audit verify` found nothing.
    pub(crate) verifies: bool,
}

impl Audit {
    /// Nothing was missed.
    pub(crate) fn is_good(&self) -> bool {
        self.verifies && self.missing + self.surplus + self.refused + self.incomplete == 0
    }
}

/// Compares the answers' request ids with the trail, and verifies it.
///
/// # Errors
/// When the trail could not be read at all.
pub(crate) fn examine(gate: &Path, config: &Path, answered: &[u128]) -> Result<Audit, String> {
    let mut search = audit(gate, config, "search");
    let mut child = search.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let output = child.stdout.take().ok_or("the search gives no output")?;
    let mut ledger = Ledger::expecting(answered);
    let mut lines = BufReader::with_capacity(1 << 20, output);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(|error| error.to_string())? > 0 {
        ledger.take(&line)?;
        line.clear();
    }
    if !child.wait().is_ok_and(|status| status.success()) {
        return Err("`audit search` failed".to_owned());
    }
    let verified = audit(gate, config, "verify").stdout(Stdio::null()).status();
    let verifies = verified.map_err(|error| error.to_string())?.success();
    Ok(Audit { verifies, ..ledger.close() })
}

fn audit(gate: &Path, config: &Path, what: &str) -> Command {
    let mut command = Command::new(gate);
    command.args(["audit", what, "--json", "--config"]).arg(config);
    command
}

/// Answers that wait for their record.
struct Ledger {
    waiting: HashMap<u128, bool>,
    audit: Audit,
}

impl Ledger {
    fn expecting(answered: &[u128]) -> Self {
        let distinct: HashSet<u128> = answered.iter().copied().collect();
        let count = answered.len() as u64;
        // One record cannot stand for two answers: a repeated id is a missing record.
        let audit = Audit { answered: count, missing: count - distinct.len() as u64, ..Audit::default() };
        Self { waiting: distinct.into_iter().map(|id| (id, false)).collect(), audit }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        match line.kind.as_deref() {
            Some("release") => {}
            Some("refusal") => {
                self.audit.refused += 1;
                return Ok(());
            }
            _ => return Ok(()),
        }
        let id = line.request_id.as_deref().and_then(|id| u128::from_str_radix(id, 16).ok());
        match id.and_then(|id| self.waiting.get_mut(&id)) {
            Some(found) if !*found => *found = true,
            Some(_) | None => self.audit.surplus += 1,
        }
        if line.outcome.as_deref() != Some("complete") {
            self.audit.incomplete += 1;
        }
        Ok(())
    }

    fn close(mut self) -> Audit {
        self.audit.missing += self.waiting.values().filter(|found| !**found).count() as u64;
        self.audit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, id: u128, outcome: &str) -> String {
        format!(
            r#"{{"sequence":1,"requestId":"{id:032x}","released":[],"kind":"{kind}","outcome":"{outcome}"}}"#
        )
    }

    #[test]
    fn every_kind_of_miss_is_seen() {
        let good = || [line("release", 1, "complete"), line("release", 2, "complete")].to_vec();
        let with = |more: String| [good(), vec![more]].concat();
        let control = r#"{"sequence":0,"requestId":null,"kind":"control","outcome":null}"#.to_owned();
        let sound = Audit { answered: 2, ..Audit::default() };
        let cases = [
            (vec![1, 2], with(control), Audit { ..sound }),
            (vec![1, 2], vec![line("release", 1, "complete")], Audit { missing: 1, ..sound }),
            (vec![1, 2, 2], good(), Audit { answered: 3, missing: 1, ..sound }),
            (vec![1, 2], with(line("release", 3, "complete")), Audit { surplus: 1, ..sound }),
            (vec![1, 2], with(line("release", 2, "complete")), Audit { surplus: 1, ..sound }),
            (vec![1, 2], with(line("refusal", 3, "refused")), Audit { refused: 1, ..sound }),
            (
                vec![1, 2],
                vec![line("release", 1, "complete"), line("release", 2, "cut-off")],
                Audit { incomplete: 1, ..sound },
            ),
        ];
        for (answered, lines, expected) in cases {
            let mut ledger = Ledger::expecting(&answered);
            lines.iter().for_each(|line| ledger.take(line.as_bytes()).unwrap());
            let audit = ledger.close();
            assert_eq!(audit, expected, "{lines:?}");
            assert!(!audit.is_good(), "not verified");
        }
        assert!(Audit { verifies: true, ..Audit::default() }.is_good());
        assert!(!Audit { verifies: true, missing: 1, ..Audit::default() }.is_good());
    }
}
