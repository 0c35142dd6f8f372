//! Correctness after the load: every answer has its record, and nothing in the trail was changed.
//!
//! Owns: reading the trail through `chartgate audit`, as an auditor would.
//! Must never: look into the trail's files itself.
//! Look next: `baseline` and `run`, which fail on a miss.

use crate::site::GateProgram;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// One line of `audit search --json`, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line<'a> {
    #[serde(borrow)]
    pub(crate) kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request_id: Option<Cow<'a, str>>,
    /// Who asked, where somebody was established.
    #[serde(borrow)]
    pub(crate) subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) outcome: Option<Cow<'a, str>>,
    /// Which piece of a long answer, from 0; a short one has no pieces.
    pub(crate) unit: Option<u32>,
    /// What was answered, where the record says it.
    pub(crate) status: Option<u16>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    details: Option<BTreeMap<String, String>>,
}

impl<'a> Line<'a> {
    /// # Errors
    /// When it is not such a line.
    pub(crate) fn read(line: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }

    /// The request it is about.
    pub(crate) fn request(&self) -> Option<u128> {
        u128::from_str_radix(self.request_id.as_deref()?, 16).ok()
    }

    /// How many refusals it counts, where it is a count.
    pub(crate) fn counted(&self) -> u64 {
        if self.event.as_deref() != Some("refusals-counted") {
            return 0;
        }
        let numbers = self.details.iter().flatten().filter(|(name, _)| name.starts_with("code:"));
        numbers.filter_map(|(_, number)| number.parse::<u64>().ok()).sum()
    }
}

/// What the trail holds about the answers that came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Audit {
    /// Answers that came, refusals included.
    pub(crate) answered: u64,
    /// Those of them that were refusals.
    pub(crate) refusals: u64,
    /// Refusals that the trail holds as a count, because their source had made too many.
    pub(crate) counted: u64,
    /// Answers without a record of their own, nor counted. Must be none.
    pub(crate) missing: u64,
    /// Records of releases that came to nobody here. Must be none.
    pub(crate) surplus: u64,
    /// Records of refusals where none was heard. Must be none.
    pub(crate) refused: u64,
    /// Records that say another status than was heard. Must be none.
    pub(crate) otherwise: u64,
    /// Releases whose recorded outcome is not that the answer was complete. Must be none.
    pub(crate) incomplete: u64,
    /// `audit verify` found nothing.
    pub(crate) verifies: bool,
}

impl Audit {
    /// Nothing was missed.
    pub(crate) fn is_good(&self) -> bool {
        let bad = self.missing + self.surplus + self.refused + self.otherwise + self.incomplete;
        self.verifies && bad == 0
    }
}

/// Compares the answers' request ids and statuses with the trail, and verifies it.
///
/// # Errors
/// When the trail could not be read at all.
pub(crate) fn examine(gate: &GateProgram, config: &Path, answered: &[(u128, u16)]) -> Result<Audit, String> {
    examine_since(gate, config, answered, None)
}

/// The same where the trail holds others' records from before this time (RFC 3339). All of it is verified.
///
/// # Errors
/// As [`examine`].
pub(crate) fn examine_since(
    gate: &GateProgram,
    config: &Path,
    answered: &[(u128, u16)],
    since: Option<&str>,
) -> Result<Audit, String> {
    let mut ledger = Ledger::expecting(answered);
    let verifies = read_since(gate, config, since, &mut |line| ledger.take(line))?;
    Ok(Audit { verifies, ..ledger.close() })
}

/// Shows every record as a line of JSON, and says whether the trail verifies.
///
/// # Errors
/// When the trail could not be read at all, or `take` does not take a line.
pub(crate) fn read(
    gate: &GateProgram,
    config: &Path,
    take: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<bool, String> {
    read_since(gate, config, None, take)
}

fn read_since(
    gate: &GateProgram,
    config: &Path,
    since: Option<&str>,
    take: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<bool, String> {
    let mut search = audit(gate, config, "search");
    if let Some(since) = since {
        search.args(["--since", since]);
    }
    let mut child = search.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let output = child.stdout.take().ok_or("the search gives no output")?;
    let mut lines = BufReader::with_capacity(1 << 20, output);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(|error| error.to_string())? > 0 {
        take(&line)?;
        line.clear();
    }
    if !child.wait().is_ok_and(|status| status.success()) {
        return Err("`audit search` failed".to_owned());
    }
    let verified = audit(gate, config, "verify").stdout(Stdio::null()).status();
    verified.map(|status| status.success()).map_err(|error| error.to_string())
}

fn audit(gate: &GateProgram, config: &Path, what: &str) -> Command {
    let mut command = gate.command();
    command.args(["audit", what, "--json", "--config"]).arg(config);
    command
}

/// An answer that waits for its record.
struct Waiting {
    status: u16,
    is_found: bool,
}

/// Answers that wait for their record.
struct Ledger {
    waiting: HashMap<u128, Waiting>,
    audit: Audit,
}

/// A status from which on an answer is a refusal.
pub(crate) const REFUSAL_STATUS_MIN: u16 = 400;

impl Ledger {
    fn expecting(answered: &[(u128, u16)]) -> Self {
        let waiting = |(id, status): &(u128, u16)| (*id, Waiting { status: *status, is_found: false });
        let waiting: HashMap<u128, Waiting> = answered.iter().map(waiting).collect();
        let count = answered.len() as u64;
        let refusals = answered.iter().filter(|(_, status)| *status >= REFUSAL_STATUS_MIN).count() as u64;
        // One record cannot stand for two answers: a repeated id is a missing record.
        let missing = count - waiting.len() as u64;
        Self { waiting, audit: Audit { answered: count, refusals, missing, ..Audit::default() } }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let line = Line::read(line)?;
        match line.kind.as_deref() {
            Some("release") => self.release(&line),
            Some("refusal") => self.refusal(&line),
            Some("control") => self.audit.counted += line.counted(),
            Some(_) | None => {}
        }
        Ok(())
    }

    fn release(&mut self, line: &Line<'_>) {
        match self.waiting_for(line) {
            Some(found) if found.status >= REFUSAL_STATUS_MIN => self.audit.otherwise += 1,
            // The pieces of a long answer have a record each.
            Some(found) if !found.is_found || line.unit.is_some_and(|unit| unit > 0) => {
                found.is_found = true;
                if line.status.is_some_and(|status| status != found.status) {
                    self.audit.otherwise += 1;
                }
            }
            Some(_) | None => self.audit.surplus += 1,
        }
        if line.outcome.as_deref() != Some("complete") {
            self.audit.incomplete += 1;
        }
    }

    fn refusal(&mut self, line: &Line<'_>) {
        match self.waiting_for(line) {
            Some(found) if found.status < REFUSAL_STATUS_MIN => self.audit.otherwise += 1,
            Some(found) if !found.is_found => {
                found.is_found = true;
                if line.status.is_some_and(|status| status != found.status) {
                    self.audit.otherwise += 1;
                }
            }
            Some(_) | None => self.audit.refused += 1,
        }
    }

    fn waiting_for(&mut self, line: &Line<'_>) -> Option<&mut Waiting> {
        self.waiting.get_mut(&line.request()?)
    }

    fn close(mut self) -> Audit {
        let left = |is_refusal: bool| {
            let lost = self.waiting.values().filter(|answer| !answer.is_found);
            lost.filter(|answer| (answer.status >= REFUSAL_STATUS_MIN) == is_refusal).count() as u64
        };
        // Refusals beyond their source's budget are in a count, and only they.
        self.audit.missing += left(false) + left(true).abs_diff(self.audit.counted);
        self.audit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, id: u128, outcome: &str, more: &str) -> String {
        format!(
            r#"{{"sequence":1,"requestId":"{id:032x}","released":[],"kind":"{kind}","outcome":"{outcome}"{more}}}"#
        )
    }

    fn release(id: u128) -> String {
        line("release", id, "complete", r#","status":200"#)
    }

    fn refusal(id: u128) -> String {
        line("refusal", id, "refused", r#","status":403"#)
    }

    #[test]
    fn every_kind_of_miss_is_seen() {
        let good = || [release(1), release(2), refusal(3)].to_vec();
        let with = |more: String| [good(), vec![more]].concat();
        let control = r#"{"sequence":0,"requestId":null,"kind":"control","outcome":null}"#.to_owned();
        let counted = r#"{"kind":"control","event":"refusals-counted","details":{"first":"x","code:a":"2"}}"#;
        let heard = || [(1, 200), (2, 200), (3, 403)].to_vec();
        let more = |more: &[(u128, u16)]| [heard(), more.to_vec()].concat();
        let sound = || Audit { answered: 3, refusals: 1, ..Audit::default() };
        let unit = |number: u32| line("release", 2, "complete", &format!(r#","unit":{number}"#));
        let cases = [
            (heard(), with(control), sound()),
            (heard(), vec![release(1), refusal(3)], Audit { missing: 1, ..sound() }),
            (heard(), vec![release(1), release(2)], Audit { missing: 1, ..sound() }),
            (more(&[(2, 200)]), good(), Audit { answered: 4, missing: 1, ..sound() }),
            (heard(), with(release(4)), Audit { surplus: 1, ..sound() }),
            (heard(), with(release(2)), Audit { surplus: 1, ..sound() }),
            (heard(), with(unit(1)), sound()),
            (heard(), vec![release(1), unit(0), unit(1), refusal(3)], sound()),
            (heard(), with(refusal(4)), Audit { refused: 1, ..sound() }),
            (
                heard(),
                vec![release(1), release(2), release(3)],
                Audit { otherwise: 1, missing: 1, ..sound() },
            ),
            (
                heard(),
                vec![release(1), refusal(2), refusal(3)],
                Audit { otherwise: 1, missing: 1, ..sound() },
            ),
            (
                heard(),
                vec![release(1), release(2), line("refusal", 3, "refused", r#","status":404"#)],
                Audit { otherwise: 1, ..sound() },
            ),
            (
                heard(),
                vec![release(1), line("release", 2, "cut-off", ""), refusal(3)],
                Audit { incomplete: 1, ..sound() },
            ),
            (
                more(&[(4, 403), (5, 403)]),
                with(counted.to_owned()),
                Audit { answered: 5, refusals: 3, counted: 2, ..sound() },
            ),
            (
                more(&[(4, 403)]),
                with(counted.to_owned()),
                Audit { answered: 4, refusals: 2, counted: 2, missing: 1, ..sound() },
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
        let bad = [
            Audit { missing: 1, ..Audit::default() },
            Audit { surplus: 1, ..Audit::default() },
            Audit { refused: 1, ..Audit::default() },
            Audit { otherwise: 1, ..Audit::default() },
            Audit { incomplete: 1, ..Audit::default() },
        ];
        assert!(bad.into_iter().all(|audit| !Audit { verifies: true, ..audit }.is_good()));
    }
}
