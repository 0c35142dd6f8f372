//! Findings as text: the summary on a terminal, which is Markdown, too.
//!
//! Owns: which numbers people see first, and in which order.
//! Must never: show numbers of a run that is not valid without saying so first.
//! Look next: `findings`; `page`, the same for a browser.

use crate::findings::{Findings, Row, Side};
use crate::report::{number, table};
use std::fmt::Write as _;

/// Whether the numbers may be used, in a line for each reason why not.
pub(crate) fn verdict(findings: &Findings) -> Vec<String> {
    let audit = &findings.audit;
    let mut lines: Vec<String> =
        findings.misses.iter().map(|miss| format!("THE RUN FAILS: {miss}")).collect();
    lines.extend(findings.doubts.iter().map(|doubt| format!("NOT VALID: {doubt}")));
    if findings.is_good() {
        lines.push(format!(
            "{} answers of the gate, each with its record, {} of them refusals that were meant; nothing withheld \
             crossed; the trail verifies",
            audit.answered, audit.refusals
        ));
        if findings.written > 0 {
            let written = findings.written;
            lines.push(format!(
                "{written} writes: the EMR holds what was sent, and the trail says what was written"
            ));
        }
    }
    lines
}

/// The run in a line, and the machine in another.
pub(crate) fn heading(findings: &Findings) -> [String; 2] {
    let (setting, machine) = (&findings.setting, &findings.machine);
    let run = format!(
        "{}: {:.2} visits/s ({}) for {} s after {} s of warm-up, {} rounds, {}, {} connections, {} people, {} \
         patients, seed {}",
        setting.title,
        setting.visits_per_second,
        setting.pace,
        setting.seconds,
        setting.warm_up_seconds,
        setting.rounds,
        setting.protocol,
        setting.connections,
        setting.people,
        setting.patients,
        setting.seed
    );
    let machine = format!(
        "{} processors ({}), {} MiB; load before: {}; a synced write of 1 KB takes {:.2} ms",
        machine.processors, machine.model, machine.memory_mib, machine.load_before, machine.sync_ms
    );
    [run, machine]
}

/// Everything.
pub(crate) fn summary(findings: &Findings) -> String {
    let mut text = heading(findings).join("\n");
    for line in verdict(findings) {
        // Writing to a string does not fail.
        let _ = write!(text, "\n{line}");
    }
    for note in &findings.notes {
        let _ = write!(text, "\nnote: {note}");
    }
    let _ = write!(text, "\n\n{}\n", sides(findings));
    if let Some(gate) = findings.sides.first() {
        let _ = write!(text, "\n{}\n", rows(gate));
    }
    text
}

/// One line for each side.
pub(crate) fn sides(findings: &Findings) -> String {
    table(&SIDES, findings.sides.iter().map(|side| side_cells(findings, side)))
}

/// The columns of [`side_cells`].
pub(crate) const SIDES: [&str; 14] = [
    "",
    "requests",
    "req/s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "sent p50",
    "sent p99",
    "lag p99",
    "CPU us/req",
    "RSS MiB",
    "commits/req",
];

/// A side as cells.
pub(crate) fn side_cells(findings: &Findings, side: &Side) -> Vec<String> {
    let ms = |value: f64| format!("{value:.2}");
    let requests = side.cost.requests as f64;
    let commits = (side.cost.commits > 0.0 && requests > 0.0).then(|| side.cost.commits / requests);
    let resident = (side.cost.resident_kib > 0).then(|| side.cost.resident_kib as f64 / 1024.0);
    vec![
        side.who.clone(),
        side.requests().to_string(),
        format!("{:.1}", side.per_second(&findings.setting)),
        ms(side.response.p50_ms),
        ms(side.response.p90_ms),
        ms(side.response.p99_ms),
        ms(side.response.p999_ms),
        ms(side.response.max_ms),
        ms(side.service.p50_ms),
        ms(side.service.p99_ms),
        ms(side.lag.p99_ms),
        number(side.cpu_micros_per_request(), 0),
        number(resident, 0),
        number(commits, 2),
    ]
}

/// The columns of [`row_cells`].
pub(crate) const ROWS: [&str; 8] =
    ["request", "status", "answers", "misses", "KB", "p50 ms", "p99 ms", "max ms"];

/// A kind of request as cells.
pub(crate) fn row_cells(row: &Row) -> Vec<String> {
    let statuses: Vec<String> = row.statuses.keys().map(u16::to_string).collect();
    let answers: u64 = row.statuses.values().sum();
    let each = if answers > 0 { row.bytes as f64 / answers as f64 / 1e3 } else { 0.0 };
    vec![
        format!("{}: {}", row.visit, row.step),
        statuses.join(" "),
        answers.to_string(),
        row.bad.to_string(),
        format!("{each:.1}"),
        format!("{:.2}", row.response.p50_ms),
        format!("{:.2}", row.response.p99_ms),
        format!("{:.2}", row.response.max_ms),
    ]
}

fn rows(side: &Side) -> String {
    table(&ROWS, side.rows.iter().map(row_cells))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::tests::sample;

    #[test]
    fn a_run_that_is_not_valid_says_so_before_its_numbers() {
        let mut findings = sample();
        assert!(summary(&findings).contains("the trail verifies"));
        findings.doubts.push("lame".to_owned());
        findings.misses.push("leaked".to_owned());
        let text = summary(&findings);
        let at = |what: &str| text.find(what).unwrap();
        assert!(at("THE RUN FAILS: leaked") < at("req/s") && at("NOT VALID: lame") < at("req/s"));
        assert!(!text.contains("the trail verifies"));
    }

    #[test]
    fn every_row_has_as_many_cells_as_columns() {
        let findings = sample();
        assert!(findings.sides.iter().all(|side| side_cells(&findings, side).len() == SIDES.len()));
        assert!(findings.sides[0].rows.iter().all(|row| row_cells(row).len() == ROWS.len()));
    }
}
