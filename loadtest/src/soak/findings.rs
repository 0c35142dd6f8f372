//! What a soak found: a row for each stretch of it, memory over all of it, and what fails it.
//!
//! Owns: [`Findings`], its judgement, its table, its page.
//! Must never: let an answer that nobody promised pass, or take a lost record for a broken connection.
//! Look next: `mod`, who fills it; `faults`, the promises.

use super::faults::{Fault, broke_off};
use crate::baseline::progress;
use crate::findings::{Cost, Curve, Side};
use crate::hostile::write;
use crate::measure::Measured;
use crate::picture;
use crate::report::{Machine, table};
use crate::scrape::Counts;
use crate::sheet::{Sheet, Tone};
use crate::trail::Audit;
use crate::vitals::Vitals;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

const FORMAT: &str = "chartgate-soak/1";
/// Latency is back when the median after a fault is at most this many times the first one, and some milliseconds more.
const BACK_FACTOR: f64 = 3.0;
const BACK_FREE_MS: f64 = 20.0;
/// A generator that is later than this while nothing is broken does not measure the gate.
const LAG_MS_MAX: f64 = 10.0;

/// What a stretch is.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Before anything broke.
    First,
    /// Across a fault.
    Fault(Fault),
    /// After it.
    After(Fault),
}

impl What {
    pub(super) fn name(self) -> String {
        match self {
            Self::First => "calm".to_owned(),
            Self::Fault(fault) => fault.name.to_owned(),
            Self::After(fault) => format!("after {}", fault.name),
        }
    }
}

/// What was run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Setting {
    pub(super) machine: Machine,
    pub(super) scenario: String,
    pub(super) protocol: String,
    pub(super) visits_per_second: f64,
    pub(super) minutes: f64,
    pub(super) connections: u64,
    pub(super) patients: u32,
    pub(super) growth_mib_max: u64,
    pub(super) seed: u64,
}

/// One stretch of the soak.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Phase {
    pub(super) what: String,
    pub(super) promise: String,
    is_fault: bool,
    is_after: bool,
    /// Seconds after the beginning.
    pub(super) at: f64,
    pub(super) answered: u64,
    /// What callers met that the fault may do, and how often.
    pub(super) meant: BTreeMap<String, u64>,
    /// Those of them that were answers broken off.
    pub(super) broken_off: u64,
    /// What they met beside it. Must be none.
    pub(super) unmeant: BTreeMap<String, u64>,
    pub(super) unsent: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) lag_p99_ms: f64,
    pub(super) commit_ms: f64,
    pub(super) processors: f64,
    pub(super) resident_mib: f64,
    /// Seconds after the beginning, median and 99th percentile of what was due in each second or more.
    latency: Vec<(f64, f64, f64)>,
}

impl Phase {
    pub(super) fn of(what: What, at: f64, measured: &Measured, vitals: &Vitals, counts: Counts) -> Self {
        let side = Side::of("chartgate", measured, Cost::default());
        let (response, lag): (&Curve, &Curve) = (&side.response, &side.lag);
        let fault = match what {
            What::Fault(fault) => Some(fault),
            What::First | What::After(_) => None,
        };
        let allowed = |told: &&String| fault.is_some_and(|fault| fault.allows(told));
        let (meant, unmeant): (BTreeMap<_, _>, BTreeMap<_, _>) =
            measured.errors.clone().into_iter().partition(|(told, _)| allowed(&told));
        let middle = |number: usize| at + (number as f64 + 0.5) * side.interval_seconds as f64;
        let intervals = side.intervals.iter().enumerate().filter(|(_, interval)| interval.p99_ms > 0.0);
        Self {
            what: what.name(),
            promise: fault.map_or("nothing", |fault| fault.promise).to_owned(),
            is_fault: fault.is_some(),
            is_after: matches!(what, What::After(_)),
            at,
            answered: response.count,
            broken_off: meant.iter().filter(|(told, _)| broke_off(told)).map(|(_, count)| count).sum(),
            meant,
            unmeant,
            unsent: measured.unsent,
            p50_ms: response.p50_ms,
            p99_ms: response.p99_ms,
            max_ms: response.max_ms,
            lag_p99_ms: lag.p99_ms,
            commit_ms: if counts.commits > 0.0 { counts.commit_seconds / counts.commits * 1e3 } else { 0.0 },
            processors: vitals.processors(),
            resident_mib: vitals.after(),
            latency: intervals
                .map(|(number, interval)| (middle(number), interval.p50_ms, interval.p99_ms))
                .collect(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let told: Vec<String> = summed(self.meant.iter().chain(&self.unmeant))
            .iter()
            .map(|(what, count)| format!("{count} x {what}"))
            .collect();
        vec![
            self.what.clone(),
            format!("{:.0}", self.at),
            self.promise.clone(),
            if told.is_empty() { "nothing".to_owned() } else { told.join(", ") },
            self.answered.to_string(),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            format!("{:.1}", self.max_ms),
            format!("{:.2}", self.commit_ms),
            format!("{:.2}", self.processors),
            format!("{:.0}", self.resident_mib),
        ]
    }
}

/// Without the row in front: what was met in all of them together.
fn summed<'a>(met: impl Iterator<Item = (&'a String, &'a u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (told, count) in met {
        let what = told.split_once(": ").map_or(told.as_str(), |(_, what)| what);
        *sums.entry(what.to_owned()).or_default() += count;
    }
    sums
}

const COLUMNS: [&str; 11] = [
    "stretch",
    "at s",
    "callers may see",
    "they saw",
    "answered",
    "p50 ms",
    "p99 ms",
    "max ms",
    "commit ms",
    "CPUs",
    "MiB",
];

/// Memory over the whole soak.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    before_mib: f64,
    peak_mib: f64,
    after_mib: f64,
    /// After the first third.
    slope_mib_per_minute: f64,
    growth_mib: f64,
    looks: Vec<(f64, f64)>,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Findings {
    format: String,
    setting: Setting,
    phases: Vec<Phase>,
    memory: Memory,
    audit: Audit,
    /// Why the run fails.
    misses: Vec<String>,
    /// Why its numbers may not be used.
    doubts: Vec<String>,
}

impl Findings {
    /// With why the run fails, and why its numbers may not be used.
    pub(super) fn judged(
        setting: Setting,
        phases: Vec<Phase>,
        audit: Audit,
        vitals: &Vitals,
        mut misses: Vec<String>,
    ) -> Self {
        for phase in &phases {
            let told = phase.unmeant.iter().map(|(what, count)| format!("{}: {count} x {what}", phase.what));
            misses.extend(told);
            if phase.unsent > 0 {
                misses.push(format!("{}: {} requests could not be sent", phase.what, phase.unsent));
            }
            if phase.answered == 0 && !phase.is_fault {
                misses.push(format!("{}: nobody was answered", phase.what));
            }
        }
        misses.extend(lost(&audit, phases.iter().map(|phase| phase.broken_off).sum()));
        let memory = Memory {
            before_mib: vitals.before(),
            peak_mib: vitals.peak(),
            after_mib: vitals.after(),
            slope_mib_per_minute: vitals.slope(),
            growth_mib: vitals.growth(),
            looks: vitals.resident_mib.clone(),
        };
        if memory.growth_mib > setting.growth_mib_max as f64 {
            let (growth, most) = (memory.growth_mib, setting.growth_mib_max);
            misses.push(format!("memory grew by {growth:.0} MiB after the first third, of at most {most}"));
        }
        let mut doubts = Vec::new();
        let late = |phase: &&Phase| !phase.is_fault && phase.lag_p99_ms > LAG_MS_MAX;
        if let Some(phase) = phases.iter().find(late) {
            doubts.push(format!(
                "{}: the generator was {:.1} ms late at the 99th percentile",
                phase.what, phase.lag_p99_ms
            ));
        }
        match setting.machine.optimised {
            // Where the generator keeps its schedule, latency that does not come back is the gate's.
            true if doubts.is_empty() => misses.extend(slower(&phases)),
            true => {}
            false => {
                doubts.push("not an optimised build: its numbers say nothing (use --release)".to_owned())
            }
        }
        Self { format: FORMAT.to_owned(), setting, phases, memory, audit, misses, doubts }
    }

    fn heading(&self) -> [String; 4] {
        let (setting, machine, memory, audit) =
            (&self.setting, &self.setting.machine, &self.memory, &self.audit);
        [
            format!(
                "Soak: {}, {:.1} visits/s ({}) for {:.1} minutes, {} connections, {} patients, seed {}",
                setting.scenario,
                setting.visits_per_second,
                setting.protocol,
                setting.minutes,
                setting.connections,
                setting.patients,
                setting.seed
            ),
            format!(
                "{} processors ({}), {} MiB; load before: {}; a synced write of 1 KB takes {:.2} ms",
                machine.processors, machine.model, machine.memory_mib, machine.load_before, machine.sync_ms
            ),
            format!(
                "memory: {:.0} MiB at first, {:.0} at the most, {:.0} at last; after the first third {:+.2} MiB a minute, \
                 {:+.1} MiB in all (at most {})",
                memory.before_mib,
                memory.peak_mib,
                memory.after_mib,
                memory.slope_mib_per_minute,
                memory.growth_mib,
                setting.growth_mib_max
            ),
            format!(
                "{} answers, {} of them refusals; {} without a record, {} records too many; the trail {}",
                audit.answered,
                audit.refusals,
                audit.missing,
                audit.surplus + audit.refused,
                if audit.verifies { "verifies" } else { "DOES NOT VERIFY" }
            ),
        ]
    }

    fn markdown(&self) -> String {
        let mut lines = self.heading().to_vec();
        lines.extend(self.misses.iter().map(|miss| format!("THE RUN FAILS: {miss}")));
        lines.extend(self.doubts.iter().map(|doubt| format!("NOT VALID: {doubt}")));
        lines.push(String::new());
        lines.push(table(&COLUMNS, self.phases.iter().map(Phase::cells)));
        lines.join("\n")
    }

    fn page(&self) -> Result<String, String> {
        let mut sheet = Sheet::new("Chartgate through a day with faults");
        self.misses.iter().for_each(|miss| sheet.say(Tone::Bad, &format!("THE RUN FAILS: {miss}")));
        self.doubts.iter().for_each(|doubt| sheet.say(Tone::Doubt, &format!("NOT VALID: {doubt}")));
        if self.misses.is_empty() {
            sheet.say(Tone::Good, "Callers saw what was meant and nothing else; no record was lost.");
        }
        self.heading().iter().for_each(|line| sheet.say(Tone::Plain, line));
        let points = |of: fn(&(f64, f64, f64)) -> f64| -> Vec<(f64, f64)> {
            self.phases.iter().flat_map(|phase| &phase.latency).map(|point| (point.0, of(point))).collect()
        };
        let latency = vec![
            ("median".to_owned(), points(|point| point.1)),
            ("99th percentile".to_owned(), points(|point| point.2)),
        ];
        let memory = vec![("resident".to_owned(), self.memory.looks.clone())];
        sheet.picture("Latency, by when requests were due", &picture::over_seconds(latency, "milliseconds")?);
        sheet.picture("The gate's memory", &picture::over_seconds(memory, "MiB")?);
        let rows: Vec<Vec<String>> = self.phases.iter().map(Phase::cells).collect();
        sheet.table("Stretch by stretch", &COLUMNS, &rows);
        let faults: Vec<Vec<String>> = super::faults::FAULTS
            .iter()
            .map(|fault| vec![fault.name.to_owned(), fault.about.to_owned(), fault.promise.to_owned()])
            .collect();
        sheet.table("Faults", &["fault", "what is done", "callers may see"], &faults);
        Ok(sheet.close())
    }

    /// Shows it, and writes the files that were asked for.
    ///
    /// # Errors
    /// When a file cannot be written, or anything was missed.
    pub(super) fn publish(&self, json: Option<&Path>, html: Option<&Path>) -> Result<(), String> {
        progress("");
        write(json, || serde_json::to_string(self).map_err(|error| error.to_string()))?;
        write(html, || self.page())?;
        let shown = writeln!(std::io::stdout().lock(), "{}", self.markdown());
        shown.map_err(|error| error.to_string())?;
        match self.misses.first() {
            None => Ok(()),
            Some(miss) => Err(format!("{} misses, first: {miss}", self.misses.len())),
        }
    }
}

/// What the trail lacks. An answer that broke off has a record that says so, and nobody who heard it to the end.
fn lost(audit: &Audit, broken_off: u64) -> Option<String> {
    let bad = audit.missing + audit.refused + audit.otherwise;
    let is_good = audit.verifies && bad == 0 && audit.surplus.max(audit.incomplete) <= broken_off;
    (!is_good).then(|| format!("the trail does not match the answers ({broken_off} broke off): {audit:?}"))
}

/// Where latency did not come back.
fn slower(phases: &[Phase]) -> Vec<String> {
    let first = phases.first().map_or(0.0, |phase| phase.p50_ms);
    let most = first * BACK_FACTOR + BACK_FREE_MS;
    let late = phases.iter().filter(|phase| phase.is_after && phase.p50_ms > most);
    late.map(|phase| {
        format!("{}: the median is {:.1} ms, and was {first:.1} ms at first", phase.what, phase.p50_ms)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit() -> Audit {
        Audit { answered: 9, verifies: true, ..Audit::default() }
    }

    fn phases() -> Vec<Phase> {
        let phase = |what: &str| Phase {
            what: what.to_owned(),
            answered: 50,
            p50_ms: 2.0,
            latency: vec![(1.0, 2.0, 3.0)],
            ..Phase::default()
        };
        let meant = [
            ("a, b: answered with 502 instead of 200".to_owned(), 4),
            ("c, d: error reading a body".to_owned(), 1),
        ];
        vec![
            phase("calm"),
            Phase { is_fault: true, meant: meant.into(), broken_off: 1, ..phase("upstream-down") },
            Phase { is_after: true, ..phase("after upstream-down") },
        ]
    }

    fn judged(phases: Vec<Phase>, audit: Audit, growth: f64) -> Findings {
        let setting = Setting {
            machine: crate::findings::tests::sample().machine,
            scenario: "mixed-day".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            visits_per_second: 6.0,
            minutes: 2.0,
            connections: 60,
            patients: 100,
            growth_mib_max: 64,
            seed: 1,
        };
        let looks = (0..=60).map(|second| (f64::from(second), 80.0 + f64::from(second) / 40.0 * growth));
        let vitals = Vitals { resident_mib: looks.collect(), ..Vitals::default() };
        Findings::judged(setting, phases, audit, &vitals, Vec::new())
    }

    #[test]
    fn what_was_promised_passes_and_all_else_fails() {
        let good = judged(phases(), audit(), 1.0);
        assert!(good.misses.is_empty() && good.doubts.is_empty(), "{:?} {:?}", good.misses, good.doubts);
        assert!(good.markdown().contains("4 x answered with 502 instead of 200"), "{}", good.markdown());
        assert!(good.page().unwrap().matches("<svg").count() == 2);
        let with = |change: fn(&mut Vec<Phase>)| {
            let mut all = phases();
            change(&mut all);
            judged(all, audit(), 1.0)
        };
        let cases = [
            (
                with(|all| {
                    all[2].unmeant = [("a, b: answered with 502 instead of 200".to_owned(), 1)].into()
                }),
                "after upstream-down: 1 x a, b",
            ),
            (with(|all| all[1].unsent = 1), "1 requests could not be sent"),
            (with(|all| all[0].answered = 0), "nobody was answered"),
            (with(|all| all[2].p50_ms = 27.0), "the median is 27.0 ms"),
            (with(|all| all[1].broken_off = 0), ""),
            (judged(phases(), Audit { missing: 1, ..audit() }, 1.0), "the trail does not match"),
            (judged(phases(), Audit { surplus: 2, ..audit() }, 1.0), "(1 broke off)"),
            (judged(phases(), Audit { verifies: false, ..audit() }, 1.0), "the trail does not match"),
            (judged(phases(), audit(), 70.0), "memory grew by 70 MiB"),
        ];
        for (findings, expected) in cases {
            let found = findings.misses.iter().any(|miss| miss.contains(expected));
            assert_eq!(found, !expected.is_empty(), "{expected}: {:?}", findings.misses);
        }
        let broke = Audit { surplus: 1, incomplete: 1, ..audit() };
        assert!(judged(phases(), broke, 1.0).misses.is_empty());
    }
}
