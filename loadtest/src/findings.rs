//! What a run found, whole: the JSON file that machines read, and everything that is shown is made of it.
//!
//! Owns: [`Findings`] and its arithmetic; why a run fails, and why its numbers may not be used.
//! Must never: round a miss away, or leave out what the numbers depend on.
//! Look next: `tell` (a terminal), `page` (a browser), `compare`.

use crate::measure::{Measured, Micros};
use crate::process::Usage;
use crate::report::Machine;
use crate::scrape::Counts;
use crate::trail::Audit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The file's format.
pub(crate) const FORMAT: &str = "chartgate-loadtest/1";
/// Later than this at the 99th percentile, the generator did not keep its schedule.
const LAG_US_MAX: u64 = 10_000;

/// Everything that a run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Findings {
    pub(crate) format: String,
    pub(crate) setting: Setting,
    pub(crate) machine: Machine,
    /// Whoever was measured, the gate first.
    pub(crate) sides: Vec<Side>,
    pub(crate) audit: Audit,
    /// Requests that the gate's own metrics counted.
    pub(crate) counted_by_gate: f64,
    /// Writes of the gate that the EMR was found to hold and the trail to tell of.
    #[serde(default)]
    pub(crate) written: u64,
    /// Why the run fails.
    pub(crate) misses: Vec<String>,
    /// Why its numbers may not be used.
    pub(crate) doubts: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// What was run: two runs are comparable when this is the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Setting {
    pub(crate) scenario: String,
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) pace: String,
    pub(crate) visits_per_second: f64,
    pub(crate) seconds: u64,
    pub(crate) warm_up_seconds: u64,
    pub(crate) rounds: u32,
    pub(crate) protocol: String,
    pub(crate) connections: u64,
    pub(crate) patients: u32,
    pub(crate) people: u64,
    pub(crate) seed: u64,
}

/// One of those who were measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Side {
    pub(crate) who: String,
    /// From when a request was due to the answer's last byte.
    pub(crate) response: Curve,
    /// From when it was sent.
    pub(crate) service: Curve,
    /// How late the generator got to its requests.
    pub(crate) lag: Curve,
    pub(crate) bad: u64,
    pub(crate) unsent: u64,
    pub(crate) rows: Vec<Row>,
    pub(crate) interval_seconds: u64,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) cost: Cost,
}

/// A kind of request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) visit: String,
    pub(crate) step: String,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) bad: u64,
    pub(crate) bytes: u64,
    pub(crate) response: Curve,
    pub(crate) service: Curve,
}

/// A piece of the measured time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Interval {
    pub(crate) due: u64,
    pub(crate) answered: u64,
    pub(crate) bad: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// What it cost the one who was measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cost {
    /// Requests that it was spent on, those of the warm-up included.
    pub(crate) requests: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
    /// Group commits of the journal, and their time in all.
    pub(crate) commits: f64,
    pub(crate) commit_seconds: f64,
}

impl Cost {
    /// From readings of before and after.
    pub(crate) fn between(before: (Usage, Counts), after: (Usage, Counts), requests: u64) -> Self {
        let counts = after.1 - before.1;
        Self {
            requests,
            cpu_seconds: after.0.cpu_seconds - before.0.cpu_seconds,
            resident_kib: after.0.resident_kib,
            peak_kib: after.0.peak_kib,
            commits: counts.commits,
            commit_seconds: counts.commit_seconds,
        }
    }

    /// A further round of the same.
    pub(crate) fn add(&mut self, more: Self) {
        self.requests += more.requests;
        self.cpu_seconds += more.cpu_seconds;
        self.resident_kib = more.resident_kib;
        self.peak_kib = self.peak_kib.max(more.peak_kib);
        self.commits += more.commits;
        self.commit_seconds += more.commit_seconds;
    }
}

/// Latencies: every value that was told apart, and how often it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Curve {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) mean_ms: f64,
    /// Microseconds and count, ascending.
    pub(crate) values: Vec<(u64, u64)>,
}

/// Microseconds as milliseconds.
pub(crate) fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e3
}

impl Curve {
    pub(crate) fn of(histogram: &Micros) -> Self {
        let at = |quantile: f64| millis(histogram.value_at_quantile(quantile).min(histogram.max()));
        if histogram.is_empty() {
            return Self::default();
        }
        let values = histogram.iter_recorded();
        Self {
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: millis(histogram.max()),
            mean_ms: histogram.mean() / 1e3,
            values: values.map(|at| (at.value_iterated_to(), at.count_at_value())).collect(),
        }
    }

    /// Share of the answers that were as fast, and how fast, in milliseconds: ascending, ending with all of them.
    pub(crate) fn points(&self) -> Vec<(f64, f64)> {
        let mut seen = 0_u64;
        let all = self.count.max(1) as f64;
        let point = |(micros, count): &(u64, u64)| {
            seen += count;
            (seen as f64 / all, millis(*micros))
        };
        self.values.iter().map(point).collect()
    }
}

impl Side {
    /// What came of a contender's rounds.
    pub(crate) fn of(who: &str, measured: &Measured, cost: Cost) -> Self {
        let row = |row: &crate::measure::Row| Row {
            visit: row.visit.clone(),
            step: row.step.clone(),
            statuses: row.statuses.clone(),
            bad: row.bad,
            bytes: row.bytes,
            response: Curve::of(&row.response),
            service: Curve::of(&row.service),
        };
        let interval = |at: &crate::measure::Interval| {
            let latency =
                |quantile: f64| millis(at.response.value_at_quantile(quantile).min(at.response.max()));
            let (p50_ms, p99_ms, max_ms) = match at.response.is_empty() {
                true => (0.0, 0.0, 0.0),
                false => (latency(0.5), latency(0.99), millis(at.response.max())),
            };
            Interval { due: at.due, answered: at.answered, bad: at.bad, p50_ms, p99_ms, max_ms }
        };
        Self {
            who: who.to_owned(),
            response: Curve::of(&measured.response),
            service: Curve::of(&measured.service),
            lag: Curve::of(&measured.lag),
            bad: measured.bad,
            unsent: measured.unsent,
            rows: measured.rows.iter().map(row).collect(),
            interval_seconds: measured.interval.as_secs(),
            intervals: measured.intervals.iter().map(interval).collect(),
            errors: measured.errors.clone(),
            cost,
        }
    }

    /// Requests that were answered well, follow-ups included.
    pub(crate) fn requests(&self) -> u64 {
        self.rows.iter().map(|row| row.response.count).sum()
    }

    /// Answers a second of the measured time, follow-ups included.
    pub(crate) fn per_second(&self, setting: &Setting) -> f64 {
        self.requests() as f64 / setting.seconds.max(1) as f64
    }

    /// Processor time of that process alone.
    pub(crate) fn cpu_micros_per_request(&self) -> Option<f64> {
        let known = self.cost.cpu_seconds > 0.0 && self.cost.requests > 0;
        known.then(|| self.cost.cpu_seconds * 1e6 / self.cost.requests as f64)
    }

    /// What speaks against this side's numbers.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let who = &self.who;
        let mut doubts = Vec::new();
        let late = self.lag.p99_ms;
        if late > millis(LAG_US_MAX) {
            doubts.push(format!(
                "{who}: the generator fell behind its schedule: one request in a hundred was {late:.1} ms late or more \
                 (at most {:.0} ms)",
                millis(LAG_US_MAX)
            ));
        }
        if self.unsent > 0 {
            doubts.push(format!(
                "{who}: {} requests were due and not sent: too many were under way",
                self.unsent
            ));
        }
        doubts
    }
}

impl Findings {
    /// Nothing was missed.
    pub(crate) fn is_good(&self) -> bool {
        self.misses.is_empty()
    }

    /// Fills in why the run fails, and why its numbers may not be used.
    pub(crate) fn judge(&mut self) {
        if let Some(gate) = self.sides.first() {
            self.misses.extend(gate.errors.iter().map(|(what, count)| format!("{count} x {what}")));
        }
        if !self.audit.is_good() {
            self.misses.push(format!("the trail does not match the answers: {:?}", self.audit));
        }
        if (self.counted_by_gate - self.audit.answered as f64).abs() > 0.5 {
            self.misses.push(format!(
                "the gate counted {} requests, and {} were answered",
                self.counted_by_gate, self.audit.answered
            ));
        }
        self.doubts.extend(self.sides.iter().flat_map(Side::doubts));
        for side in self.sides.iter().skip(1).filter(|side| side.bad > 0) {
            self.doubts.push(format!("{}: {} requests had no good answer", side.who, side.bad));
        }
        if !self.machine.optimised {
            self.doubts.push("not an optimised build: its numbers say nothing (use --release)".to_owned());
        }
        let load: f64 = self.machine.load_before.parse().unwrap_or(0.0);
        if load > self.machine.processors as f64 / 2.0 {
            self.notes.push(format!("the machine was busy before the run began: a load average of {load}"));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::measure::{Good, Sample};
    use crate::scenario::Scenario;

    /// A run of two sides with some answers.
    pub(crate) fn sample() -> Findings {
        let scenario = Scenario::find("ward-round").unwrap();
        let second = Duration::from_secs(1);
        let side = |who: &str, slow: u64| {
            let (mut measured, rows) = Measured::empty(&scenario, Duration::ZERO, 10 * second).unwrap();
            for number in 0..2_000_u64 {
                let response = Duration::from_micros(500 * slow + number * slow);
                let outcome = Ok(Good { status: 200, bytes: 2_000, request_id: None });
                let due = Duration::from_millis(number * 5);
                let row = rows.of(0, usize::try_from(number % 12).unwrap(), 0);
                let sample = Sample {
                    row,
                    due,
                    lag: Duration::from_micros(80),
                    response,
                    service: response,
                    is_follow_up: false,
                    outcome,
                };
                measured.take(sample, None).unwrap();
            }
            Side::of(who, &measured, Cost { requests: 2_000, cpu_seconds: 1.0, ..Cost::default() })
        };
        Findings {
            format: FORMAT.to_owned(),
            setting: Setting {
                scenario: scenario.name.clone(),
                title: scenario.title.clone(),
                about: scenario.about.clone(),
                pace: "Poisson".to_owned(),
                visits_per_second: 4.0,
                seconds: 10,
                warm_up_seconds: 0,
                rounds: 1,
                protocol: "HTTP/1.1".to_owned(),
                connections: 60,
                patients: 100,
                people: 120,
                seed: 1,
            },
            machine: Machine {
                processors: 2,
                model: "test".to_owned(),
                memory_mib: 1,
                load_before: "0.10".to_owned(),
                sync_ms: 0.1,
                optimised: true,
            },
            sides: vec![side("chartgate", 4), side("nginx", 1)],
            audit: Audit { answered: 2_000, verifies: true, ..Audit::default() },
            counted_by_gate: 2_000.0,
            written: 0,
            misses: Vec::new(),
            doubts: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_sound_run_is_valid_and_each_fault_is_told() {
        let judged = |change: fn(&mut Findings)| {
            let mut findings = sample();
            change(&mut findings);
            findings.judge();
            (findings.misses.join("\n"), findings.doubts.join("\n"))
        };
        assert_eq!(judged(|_| ()), (String::new(), String::new()));
        let (misses, _) = judged(|findings| {
            findings.sides[0]
                .errors
                .insert("chart open, patient: the withheld value `x` crossed".to_owned(), 3);
        });
        assert!(misses.contains("3 x chart open, patient: the withheld value"), "{misses}");
        assert!(judged(|findings| findings.audit.missing = 1).0.contains("missing: 1"));
        assert!(judged(|findings| findings.audit.verifies = false).0.contains("verifies: false"));
        assert!(judged(|findings| findings.counted_by_gate = 1_999.0).0.contains("counted 1999"));
        assert!(judged(|findings| findings.sides[0].lag.p99_ms = 10.1).1.contains("fell behind"));
        assert!(judged(|findings| findings.sides[1].unsent = 2).1.contains("nginx: 2 requests"));
        assert!(judged(|findings| findings.sides[1].bad = 2).1.contains("no good answer"));
        assert!(judged(|findings| findings.machine.optimised = false).1.contains("--release"));
    }

    #[test]
    fn findings_survive_their_file() {
        let text = serde_json::to_string(&sample()).unwrap();
        let back: Findings = serde_json::from_str(&text).unwrap();
        let (one, two) = (&back.sides[0].response, &sample().sides[0].response);
        assert!(one.values == two.values && (one.p99_ms - two.p99_ms).abs() < 1e-9);
        assert_eq!(back.setting, sample().setting);
    }

    #[test]
    fn a_curve_ends_with_everything() {
        let curve = &sample().sides[0].response;
        let points = curve.points();
        assert!(points.is_sorted_by(|one, two| one.0 < two.0 && one.1 < two.1));
        let (share, slowest) = points.last().unwrap();
        assert!((share - 1.0).abs() < 1e-9 && (slowest - curve.max_ms).abs() / slowest < 0.002);
        let median = points.iter().find(|point| point.0 >= 0.5).unwrap().1;
        assert!((median - curve.p50_ms).abs() / median < 0.002);
    }
}
