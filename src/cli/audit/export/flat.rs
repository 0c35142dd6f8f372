//! A record as rows of a table: one for each FHIR record it released or wrote, or one alone.
//!
//! Owns: the columns, for spreadsheets and for Parquet. Must never: leave out a record because it released nothing.
//! Look next: `table`, which writes rows for spreadsheets; the member `auditparquet`, which writes Parquet.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::cli::audit::page::{kind, outcome_of, outcome_word};
use crate::cli::audit::told::Told;
use crate::domain::audit::{Decision, Record};

/// The columns after `sequence` and `time`.
pub const COLUMNS: [&str; 25] = [
    "kind",
    "request_id",
    "issuer",
    "subject",
    "application",
    "roles",
    "purposes",
    "source",
    "interaction",
    "request",
    "decision",
    "reason",
    "policies",
    "basis",
    "emergencies",
    "outcome",
    "status",
    "entry",
    "unit",
    "what",
    "reference",
    "version",
    "patients",
    "elements",
    "details",
];

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The record's sequence number.
    pub sequence: u64,
    /// The record's time.
    pub time: Timestamp,
    /// The cells, as [`COLUMNS`] names them; lists have a space between their members.
    pub cells: [Option<String>; COLUMNS.len()],
}

/// What was released or written.
struct Item<'d> {
    what: &'static str,
    reference: &'d str,
    version: Option<&'d String>,
    patients: &'d BTreeSet<String>,
    mask: &'d [String],
}

pub(super) fn rows(sequence: u64, record: &Record, told: &Told) -> Vec<Row> {
    let row =
        |item: Option<&Item<'_>>| Row { sequence, time: record.time(), cells: cells(record, told, item) };
    let items = match record {
        Record::Intent(decision) | Record::Decision(decision) => items(decision),
        Record::Outcome(_) | Record::Control(_) => Vec::new(),
    };
    if items.is_empty() { vec![row(None)] } else { items.iter().map(|item| row(Some(item))).collect() }
}

fn items(decision: &Decision) -> Vec<Item<'_>> {
    let released = decision.released.iter().map(|item| Item {
        what: "released",
        reference: &item.reference,
        version: item.version.as_ref(),
        patients: &item.patients,
        mask: &item.mask,
    });
    let written = decision.written.iter().map(|item| Item {
        what: "written",
        reference: &item.reference,
        version: item.version.as_ref(),
        patients: &item.patients,
        mask: &item.mask,
    });
    written.chain(released).collect()
}

fn cells(record: &Record, told: &Told, item: Option<&Item<'_>>) -> [Option<String>; COLUMNS.len()] {
    let text = |text: &str| Some(text.to_owned());
    let list = |names: &[String]| Some(names.join(" ")).filter(|names| !names.is_empty());
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let decision = match record {
        Record::Intent(decision) | Record::Decision(decision) => Some(decision),
        Record::Outcome(_) | Record::Control(_) => None,
    };
    let caller = decision.and_then(|decision| decision.caller.as_ref());
    let entry = match record {
        Record::Outcome(outcome) => outcome.entry,
        Record::Intent(_) | Record::Decision(_) | Record::Control(_) => {
            decision.and_then(|decision| decision.entry)
        }
    };
    [
        text(kind(record)),
        record.request_id().map(str::to_owned),
        caller.map(|caller| caller.issuer.clone()),
        caller.map(|caller| caller.subject.clone()),
        caller.and_then(|caller| caller.application.clone()),
        caller.and_then(|caller| list(&caller.roles)),
        decision.and_then(|decision| list(&decision.purposes)),
        decision.and_then(|decision| decision.source.clone()),
        decision.map(|decision| decision.interaction.clone()),
        decision.map(|decision| decision.request.clone()),
        decision.map(|decision| decision.verdict.code().to_owned()),
        decision.and_then(|decision| decision.reason.clone()),
        decision.and_then(|decision| list(&decision.policies)),
        decision.and_then(|decision| list(&decision.basis)),
        decision.and_then(|decision| list(&decision.emergencies)),
        outcome(record, told).map(str::to_owned),
        decision.map(|decision| decision.status.to_string()),
        number(entry),
        number(decision.and_then(|decision| decision.unit)),
        item.map(|item| item.what.to_owned()),
        item.map(|item| item.reference.to_owned()),
        item.and_then(|item| item.version.cloned()),
        item.map(|item| item.patients.iter().cloned().collect::<Vec<_>>().join(" ")),
        item.and_then(|item| list(item.mask)),
        details(record),
    ]
}

/// How it ended, as `audit search` says it.
pub(super) fn outcome(record: &Record, told: &Told) -> Option<&'static str> {
    match record {
        Record::Intent(decision) | Record::Decision(decision) => {
            Some(outcome_word(decision, outcome_of(record, told)))
        }
        Record::Outcome(outcome) => Some(outcome.ending.code()),
        Record::Control(control) => told.counted(control),
    }
}

/// The event of a control record and what is known of it.
fn details(record: &Record) -> Option<String> {
    let Record::Control(control) = record else { return None };
    let known = control.details.iter().map(|(name, value)| format!("{name}={value}"));
    Some([control.event.code().to_owned()].into_iter().chain(known).collect::<Vec<_>>().join(" "))
}
