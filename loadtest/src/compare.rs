//! `loadtest compare A.json B.json`: two runs side by side, and whether they may be compared at all.
//!
//! Owns: the ratios, and the list of what speaks against reading them.
//! Must never: call runs comparable that were not the same question on the same machine.
//! Look next: `findings`, the files.

use crate::Failure;
use crate::findings::{FORMAT, Findings, Row, Side};
use crate::report::{number, table};
use clap::Args;
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// `compare A.json B.json [--json]`
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// What `run --json` wrote, before
    before: PathBuf,
    /// What `run --json` wrote, after
    after: PathBuf,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// A number of both runs.
struct Pair {
    what: String,
    before: f64,
    after: f64,
}

impl Pair {
    fn ratio(&self) -> Option<f64> {
        (self.before > 0.0).then(|| self.after / self.before)
    }
}

/// Prints the comparison.
///
/// # Errors
/// When the runs are not comparable; wrong use when a file is none of ours.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let (before, after) = (read(&options.before)?, read(&options.after)?);
    let objections = objections(&before, &after);
    let text = if options.json {
        as_json(&before, &after, &objections)
    } else {
        tables(&before, &after, &objections)
    };
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| Failure::Miss(error.to_string()))?;
    match objections.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Miss(format!("the runs are not comparable: {first}"))),
    }
}

fn read(path: &Path) -> Result<Findings, Failure> {
    let wrong = |what: String| {
        let hint = "a file that `loadtest run --json` wrote";
        Failure::WrongUse(format!("{}: {what} (hint: {hint})", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.kind().to_string()))?;
    let findings: Findings = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if findings.format == FORMAT { Ok(findings) } else { Err(wrong(format!("its format is not {FORMAT}"))) }
}

/// What speaks against comparing them.
fn objections(before: &Findings, after: &Findings) -> Vec<String> {
    let mut objections = Vec::new();
    for (name, findings) in [("before", before), ("after", after)] {
        objections.extend(findings.misses.iter().map(|miss| format!("{name}: the run failed: {miss}")));
        objections.extend(findings.doubts.iter().map(|doubt| format!("{name}: {doubt}")));
    }
    let (one, two) = (json!(before.setting), json!(after.setting));
    let fields = one.as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, value)| two.get(name.as_str()) != Some(*value)) {
        let other = two.get(name).cloned().unwrap_or_default();
        objections.push(format!("`{name}` is {value} before and {other} after"));
    }
    let machine = |findings: &Findings| (findings.machine.processors, findings.machine.model.clone());
    if machine(before) != machine(after) {
        objections.push("they ran on different machines".to_owned());
    }
    objections
}

fn side_pairs(before: &Side, after: &Side, runs: (&Findings, &Findings)) -> Vec<Pair> {
    let pair = |what: &str, before: f64, after: f64| Pair { what: what.to_owned(), before, after };
    let cpu = |side: &Side| side.cpu_micros_per_request().unwrap_or(0.0);
    vec![
        pair("req/s", before.per_second(&runs.0.setting), after.per_second(&runs.1.setting)),
        pair("p50 ms", before.response.p50_ms, after.response.p50_ms),
        pair("p90 ms", before.response.p90_ms, after.response.p90_ms),
        pair("p99 ms", before.response.p99_ms, after.response.p99_ms),
        pair("p99.9 ms", before.response.p999_ms, after.response.p999_ms),
        pair("max ms", before.response.max_ms, after.response.max_ms),
        pair("CPU us/req", cpu(before), cpu(after)),
        pair("peak MiB", before.cost.peak_kib as f64 / 1024.0, after.cost.peak_kib as f64 / 1024.0),
    ]
}

fn row_pairs(before: &Side, after: &Side) -> Vec<Pair> {
    let name = |row: &Row| format!("{}: {}", row.visit, row.step);
    let mut pairs = Vec::new();
    for row in &before.rows {
        let Some(other) = after.rows.iter().find(|other| name(other) == name(row)) else { continue };
        for (what, one, two) in [
            ("p50 ms", row.response.p50_ms, other.response.p50_ms),
            ("p99 ms", row.response.p99_ms, other.response.p99_ms),
        ] {
            pairs.push(Pair { what: format!("{}, {what}", name(row)), before: one, after: two });
        }
    }
    pairs
}

/// Those who were measured in both runs.
fn both<'f>(before: &'f Findings, after: &'f Findings) -> Vec<(&'f Side, &'f Side)> {
    let same = |side: &'f Side| Some((side, after.sides.iter().find(|other| other.who == side.who)?));
    before.sides.iter().filter_map(same).collect()
}

fn tables(before: &Findings, after: &Findings, objections: &[String]) -> String {
    let mut text = format!("{}: before and after", before.setting.title);
    for objection in objections {
        // Writing to a string does not fail.
        let _ = write!(text, "\nNOT COMPARABLE: {objection}");
    }
    let cells = |pair: Pair| {
        let ratio = number(pair.ratio(), 2);
        vec![pair.what, format!("{:.2}", pair.before), format!("{:.2}", pair.after), ratio]
    };
    for (one, two) in both(before, after) {
        let pairs = side_pairs(one, two, (before, after));
        let header = [one.who.as_str(), "before", "after", "ratio"];
        let _ = write!(text, "\n\n{}", table(&header, pairs.into_iter().map(cells)));
    }
    if let Some((one, two)) = both(before, after).first() {
        let header = ["request", "before", "after", "ratio"];
        let _ = write!(text, "\n\n{}", table(&header, row_pairs(one, two).into_iter().map(cells)));
    }
    text
}

fn as_json(before: &Findings, after: &Findings, objections: &[String]) -> String {
    let told = |pairs: Vec<Pair>| -> Vec<serde_json::Value> {
        let one = |pair: Pair| {
            let ratio = pair.ratio();
            json!({ "what": pair.what, "before": pair.before, "after": pair.after, "ratio": ratio })
        };
        pairs.into_iter().map(one).collect()
    };
    let sides = both(before, after).into_iter().map(|(one, two)| {
        let sums = told(side_pairs(one, two, (before, after)));
        json!({ "who": one.who, "sums": sums, "rows": told(row_pairs(one, two)) })
    });
    let sides: Vec<serde_json::Value> = sides.collect();
    json!({ "comparable": objections.is_empty(), "objections": objections, "sides": sides }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::tests::sample;

    #[test]
    fn the_same_question_on_the_same_machine_is_comparable() {
        assert!(objections(&sample(), &sample()).is_empty());
        type Change = fn(&mut Findings);
        let cases: [(Change, &str); 6] = [
            (|findings| findings.setting.seed = 2, "`seed` is 1 before and 2 after"),
            (|findings| findings.setting.protocol = "HTTP/2".to_owned(), "`protocol`"),
            (|findings| findings.setting.visits_per_second = 5.0, "`visitsPerSecond`"),
            (|findings| findings.machine.processors = 64, "different machines"),
            (|findings| findings.doubts.push("lag".to_owned()), "after: lag"),
            (|findings| findings.misses.push("leak".to_owned()), "after: the run failed: leak"),
        ];
        for (change, told) in cases {
            let mut after = sample();
            change(&mut after);
            let objections = objections(&sample(), &after);
            assert!(objections.len() == 1 && objections[0].contains(told), "{objections:?}");
            assert!(tables(&sample(), &after, &objections).contains("NOT COMPARABLE"));
        }
    }

    #[test]
    fn ratios_are_after_of_before() {
        let mut after = sample();
        after.sides[0].response.p50_ms = sample().sides[0].response.p50_ms * 2.0;
        let text = as_json(&sample(), &after, &[]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["comparable"], true);
        let sums = value["sides"][0]["sums"].as_array().unwrap();
        let of = |what: &str| sums.iter().find(|sum| sum["what"] == what).unwrap()["ratio"].as_f64().unwrap();
        assert!((of("p50 ms") - 2.0).abs() < 1e-9 && (of("p99 ms") - 1.0).abs() < 1e-9);
        assert_eq!(value["sides"][0]["rows"].as_array().unwrap().len(), sample().sides[0].rows.len() * 2);
    }
}
