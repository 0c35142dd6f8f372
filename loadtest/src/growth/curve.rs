//! What a curve found, whole: its points, and whether what should be flat is flat.
//!
//! Owns: [`Growth`], the JSON file that machines read; the rule of its verdicts; why a curve fails, and why its numbers
//! may not be used.
//! Must never: call anything flat that was not measured at two points, or judge by the tail, which one stall of the machine makes.
//! Look next: `growth`, which measures the points; `show`, what people see.

use super::ground::What;
use crate::report::Machine;
use crate::trail::Audit;
use serde::{Deserialize, Serialize};

/// The file's format.
pub(super) const FORMAT: &str = "chartgate-growth/1";
/// The most that something flat may rise by, from any point to a later one.
const RISE_MAX: f64 = 1.5;
/// A latency that rose by less than this, in milliseconds, did not rise: it is what a scheduler may add.
const RISE_MS_MIN: f64 = 0.3;
/// Bytes from which on the size of an answer is more of its cost than the request is.
const SIZE_MIN: u64 = 100_000;
/// What may be resident (design, section 9), up to these points.
const RESIDENT_BYTES_MAX: f64 = 150e6;
const CONNECTIONS_OF_GOAL: u64 = 1_000;
const BYTES_OF_GOAL: u64 = 80_000_000;
/// Later than this at the 99th percentile, the generator did not keep its schedule.
const LAG_MS_MAX: f64 = 10.0;

/// A curve.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Growth {
    pub(super) format: String,
    pub(super) what: String,
    pub(super) unit: String,
    pub(super) protocol: String,
    /// Measured time of each point's open loop.
    pub(super) seconds: u64,
    pub(super) machine: Machine,
    /// Ascending.
    pub(super) points: Vec<Point>,
    pub(super) verdicts: Vec<Verdict>,
    /// Why the curve fails.
    pub(super) misses: Vec<String>,
    /// Why its numbers may not be used.
    pub(super) doubts: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// One size of the quantity: a gate started for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Point {
    pub(super) at: u64,
    /// From starting the gate until it was ready, and what it held then.
    pub(super) start_seconds: f64,
    pub(super) start_resident_kib: u64,
    pub(super) start_peak_kib: u64,
    pub(super) open: Open,
    pub(super) closed: Closed,
    pub(super) audit: Audit,
    pub(super) counted_by_gate: f64,
    pub(super) misses: Vec<String>,
}

/// Requests at times that were fixed beforehand.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Open {
    pub(super) per_second: f64,
    pub(super) requests: u64,
    /// Of the whole answer, from when its request was due.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) lag_p99_ms: f64,
    pub(super) unsent: u64,
    /// Of each answer that came, on average: what was withheld is not in it.
    pub(super) answer_bytes: u64,
    /// Connections that the gate counted, at the least.
    pub(super) connections: u64,
    /// Between two readings while connections were open already; `None` where no two readings had requests between them.
    pub(super) cpu_us_per_request: Option<f64>,
    /// The median of readings, and the most since the loop began.
    pub(super) resident_kib: u64,
    pub(super) peak_kib: u64,
}

/// Clients that ask, wait and ask again.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Closed {
    pub(super) clients: usize,
    pub(super) requests: u64,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) cpu_us_per_request: Option<f64>,
    pub(super) commits_per_request: f64,
    /// The most since the gate was started, or since the open loop began where the system can tell.
    pub(super) peak_kib: u64,
}

/// Whether something is as it should be along a curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Verdict {
    pub(super) of: String,
    pub(super) good: bool,
    pub(super) said: String,
}

/// The largest rise from a point to a later one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rise {
    from: (u64, f64),
    to: (u64, f64),
}

impl Rise {
    /// `None` with fewer than two points.
    fn largest(series: &[(u64, f64)]) -> Option<Self> {
        let (first, rest) = series.split_first()?;
        let mut lowest = *first;
        let mut largest: Option<Self> = None;
        for to in rest {
            let rise = Self { from: lowest, to: *to };
            if largest.is_none_or(|largest| rise.factor() > largest.factor()) {
                largest = Some(rise);
            }
            if to.1 < lowest.1 {
                lowest = *to;
            }
        }
        largest
    }

    fn factor(self) -> f64 {
        if self.from.1 > 0.0 { self.to.1 / self.from.1 } else { 1.0 }
    }

    /// What the factor would be if it grew as the quantity does.
    fn linear(self) -> f64 {
        self.to.0.max(1) as f64 / self.from.0.max(1) as f64
    }

    /// In words; a rise of at most `slack` is none.
    fn verdict(self, of: &str, slack: f64, digits: usize) -> Verdict {
        let factor = self.factor();
        let good = factor <= RISE_MAX || self.to.1 - self.from.1 <= slack;
        let word = match good {
            true => "flat",
            false if factor < self.linear().sqrt() => "NOT FLAT, far less than linear",
            false => "NOT FLAT",
        };
        let said = format!(
            "{word}: largest rise {factor:.2} (from {:.digits$} at {} to {:.digits$} at {}); linear would be {:.0}",
            self.from.1,
            count(self.from.0),
            self.to.1,
            count(self.to.0),
            self.linear(),
        );
        Verdict { of: of.to_owned(), good, said }
    }
}

/// A number as people write it: `10k`, `1.5M`.
pub(super) fn count(number: u64) -> String {
    match number {
        number if number >= 1_000_000 && number.is_multiple_of(100_000) => {
            format!("{}M", number as f64 / 1e6)
        }
        number if number >= 1_000 && number.is_multiple_of(100) => format!("{}k", number as f64 / 1e3),
        number => number.to_string(),
    }
}

impl Point {
    /// Processor time that the curve is judged by: at a fixed rate, or for each megabyte of a saturated gate.
    pub(super) fn cost(&self, what: What) -> Option<f64> {
        match what {
            What::Size => Some(self.closed.cpu_us_per_request? / (self.at.max(1) as f64 / 1e6)),
            What::Connections | What::Policies | What::People | What::Trail => self.open.cpu_us_per_request,
        }
    }

    /// Megabytes a second of the closed loop, as the upstream sends them.
    pub(super) fn megabytes_per_second(&self, what: What) -> Option<f64> {
        (what == What::Size).then(|| self.closed.per_second * self.at as f64 / 1e6)
    }

    /// Adds what the trail and the gate's own count have against it.
    pub(super) fn judge(&mut self) {
        if !self.audit.is_good() {
            self.misses.push(format!("the trail does not match the answers: {:?}", self.audit));
        }
        if (self.counted_by_gate - self.audit.answered as f64).abs() > 0.5 {
            let told =
                format!("the gate counted {} requests of {}", self.counted_by_gate, self.audit.answered);
            self.misses.push(told);
        }
        if self.open.requests == 0 {
            self.misses.push("nothing was answered in the open loop".to_owned());
        }
    }
}

impl Growth {
    /// Fills in verdicts, misses and doubts from the points.
    pub(super) fn judge(&mut self, what: What) {
        for point in &self.points {
            let at = count(point.at);
            self.misses.extend(point.misses.iter().map(|miss| format!("at {at}: {miss}")));
            if point.open.lag_p99_ms > LAG_MS_MAX || point.open.unsent > 0 {
                self.doubts.push(format!(
                    "at {at} the generator fell behind its schedule: one request in a hundred was {:.1} ms late or more, \
                     {} were not sent",
                    point.open.lag_p99_ms, point.open.unsent
                ));
            }
        }
        if !self.machine.optimised {
            self.doubts.push("this is not an optimised build: its numbers say nothing".to_owned());
        }
        self.verdicts = self.cost(what).into_iter().chain(self.memory(what)).collect();
    }

    fn cost(&self, what: What) -> Vec<Verdict> {
        let series = |value: &dyn Fn(&Point) -> Option<f64>| -> Vec<(u64, f64)> {
            let points = self.points.iter().filter(|point| what != What::Size || point.at >= SIZE_MIN);
            points.filter_map(|point| Some((point.at, value(point)?))).collect()
        };
        let cost = match what {
            What::Size => "processor time of a megabyte, us",
            What::Connections | What::Policies | What::People | What::Trail => {
                "processor time of a request, us"
            }
        };
        let told = |of: &str, series: Vec<(u64, f64)>, slack: f64, digits: usize| match Rise::largest(&series)
        {
            Some(rise) => rise.verdict(of, slack, digits),
            None => Verdict {
                of: of.to_owned(),
                good: false,
                said: "NOT JUDGED: fewer than two points have it".to_owned(),
            },
        };
        let mut verdicts = vec![told(cost, series(&|point| point.cost(what)), 0.0, 0)];
        if what != What::Size {
            verdicts.push(told(
                "median latency, ms",
                series(&|point| Some(point.open.p50_ms)),
                RISE_MS_MIN,
                2,
            ));
        }
        // So few clients cannot keep the gate busy: what they have is a latency.
        let busy = |point: &Point| (what != What::Connections || point.at >= 16).then_some(());
        let each = series(&|point| {
            busy(point)?;
            let rate = point.megabytes_per_second(what).unwrap_or(point.closed.per_second);
            (rate > 0.0).then_some(1e6 / rate)
        });
        let of = if what == What::Size {
            "time of a megabyte in a closed loop, us"
        } else {
            "time of a request in a closed loop (one over throughput), us"
        };
        verdicts.push(told(of, each, 0.0, 0));
        verdicts
    }

    fn memory(&self, what: What) -> Option<Verdict> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        let megabytes = |kib: u64| kib as f64 * 1024.0 / 1e6;
        let each = (last.at > first.at).then(|| {
            let grown = last.open.resident_kib as f64 - first.open.resident_kib as f64;
            grown / (last.at - first.at) as f64
        });
        let grown = format!(
            "resident {:.0} MB at {}, {:.0} MB at {}{}",
            megabytes(first.open.resident_kib),
            count(first.at),
            megabytes(last.open.resident_kib),
            count(last.at),
            each.filter(|_| what != What::Size)
                .map_or_else(String::new, |each| format!(": {each:.1} KiB each")),
        );
        let of = "memory".to_owned();
        let goal = match what {
            What::Connections => CONNECTIONS_OF_GOAL,
            What::Size => BYTES_OF_GOAL,
            What::Policies | What::People | What::Trail => {
                return Some(Verdict { of, good: true, said: grown });
            }
        };
        let peak =
            self.points.iter().filter(|point| point.at <= goal).map(|point| point.open.peak_kib).max()?;
        let good = megabytes(peak) * 1e6 < RESIDENT_BYTES_MAX;
        let word = if good { "within" } else { "ABOVE" };
        let said = format!(
            "{word} its goal: at most {:.0} MB resident up to {} (goal: under {:.0} MB); {grown}",
            megabytes(peak),
            count(goal),
            RESIDENT_BYTES_MAX / 1e6
        );
        Some(Verdict { of, good, said })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::growth) fn sample(costs: &[(u64, f64)]) -> Growth {
        let point = |(at, cost): &(u64, f64)| Point {
            at: *at,
            open: Open {
                requests: 100,
                p50_ms: 1.0,
                p99_ms: 3.0,
                cpu_us_per_request: Some(*cost),
                resident_kib: 50_000 + at,
                peak_kib: 60_000 + at,
                ..Open::default()
            },
            closed: Closed {
                clients: 16,
                requests: 900,
                per_second: 1e6 / cost,
                cpu_us_per_request: Some(*cost),
                ..Closed::default()
            },
            audit: Audit { answered: 1_000, verifies: true, ..Audit::default() },
            counted_by_gate: 1_000.0,
            ..Point::default()
        };
        Growth {
            format: FORMAT.to_owned(),
            what: "policies".to_owned(),
            unit: "policies".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            seconds: 10,
            machine: Machine {
                processors: 2,
                model: "a processor".to_owned(),
                memory_mib: 1,
                load_before: "0".to_owned(),
                sync_ms: 0.1,
                optimised: true,
            },
            points: costs.iter().map(point).collect(),
            verdicts: Vec::new(),
            misses: Vec::new(),
            doubts: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn flat_is_what_never_rises_by_half() {
        type Case<'c> = (&'c [(u64, f64)], bool, &'c str);
        let cases: [Case<'_>; 6] = [
            (&[(10, 200.0), (100, 210.0), (1_000, 290.0)], true, "flat: largest rise 1.45"),
            (
                &[(10, 200.0), (100, 210.0), (1_000, 310.0)],
                false,
                "NOT FLAT, far less than linear: largest rise 1.55",
            ),
            // An expensive first point hides nothing.
            (&[(1, 900.0), (10, 200.0), (100, 400.0)], false, "(from 200 at 10 to 400 at 100)"),
            (&[(10, 200.0), (100, 1_000.0)], false, "NOT FLAT: largest rise 5.00"),
            (&[(10, 200.0), (100, 900.0), (1_000, 100.0)], false, "rise 4.50"),
            (&[(10, 200.0)], false, "NOT JUDGED"),
        ];
        for (costs, good, said) in cases {
            let mut growth = sample(costs);
            growth.judge(What::Policies);
            let cost = &growth.verdicts[0];
            assert!(cost.good == good && cost.said.contains(said), "{costs:?}: {cost:?}");
        }
    }

    #[test]
    fn memory_is_judged_up_to_its_goal() {
        let mut growth = sample(&[(1, 100.0), (1_000, 100.0), (4_000, 100.0)]);
        growth.points[2].open.peak_kib = 400_000;
        growth.judge(What::Connections);
        assert!(growth.verdicts.last().unwrap().good, "{:?}", growth.verdicts);
        growth.points[1].open.peak_kib = 150_000;
        growth.judge(What::Connections);
        let memory = growth.verdicts.last().unwrap();
        assert!(!memory.good && memory.said.starts_with("ABOVE its goal: at most 154 MB"), "{memory:?}");
    }

    #[test]
    fn a_size_is_judged_by_its_megabytes() {
        let mut growth = sample(&[(1_000, 200.0), (100_000, 1_000.0), (10_000_000, 100_000.0)]);
        growth.judge(What::Size);
        assert!(growth.verdicts.iter().take(2).all(|verdict| verdict.good), "{:?}", growth.verdicts);
        let mut growth = sample(&[(1_000, 200.0), (100_000, 1_000.0), (10_000_000, 200_000.0)]);
        growth.judge(What::Size);
        assert!(!growth.verdicts[0].good, "{:?}", growth.verdicts);
    }

    #[test]
    fn misses_and_doubts_are_told_with_their_point() {
        let mut growth = sample(&[(10, 200.0), (20_000, 200.0)]);
        growth.points[1].audit.missing = 1;
        growth.points[1].open.lag_p99_ms = 11.0;
        growth.points[0].counted_by_gate = 999.0;
        growth.points.iter_mut().for_each(Point::judge);
        growth.machine.optimised = false;
        growth.judge(What::Policies);
        assert_eq!((growth.misses.len(), growth.doubts.len()), (2, 2), "{growth:?}");
        assert!(growth.misses[0].starts_with("at 10: the gate counted 999"), "{:?}", growth.misses);
        assert!(growth.misses[1].starts_with("at 20k: the trail does not match"), "{:?}", growth.misses);
    }
}
