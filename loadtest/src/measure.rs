//! What came of the requests, as it comes: latencies, statuses, errors, over time.
//!
//! Owns: [`Measured`], bounded whatever the length of the run but for 18 bytes an answer, which the trail is compared with.
//! Must never: count a request from when it was sent: it is counted from when it was due.
//! Look next: `open_loop`, which fills it; `findings`, what is told of it.

use crate::scenario::{Follow, Scenario};
use crate::writes::Wrote;
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Longest latency told apart, in microseconds: more than a client waits.
const LATENCY_US_MAX: u64 = 120_000_000;
/// A run's time is cut into at most so many intervals.
const INTERVALS_MAX: u64 = 200;
/// Different errors that are told apart.
const ERRORS_MAX: usize = 40;
/// Lengths of answers that are remembered.
const LENGTHS_MAX: usize = 200_000;

/// A histogram of microseconds.
pub(crate) type Micros = Histogram<u64>;

/// An empty one: three digits for a step, two for an interval.
///
/// # Errors
/// Never in practice: the bounds are fixed and fit.
fn histogram(digits: u8) -> Result<Micros, String> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, digits).map_err(|error| error.to_string())
}

/// Into a histogram; what is longer than can be told apart counts as the longest.
fn put(histogram: &mut Micros, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX));
}

/// What came of one request.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Which row of [`Measured::rows`].
    pub(crate) row: usize,
    /// From the run's beginning.
    pub(crate) due: Duration,
    /// Later than that the generator got to it.
    pub(crate) lag: Duration,
    /// From when it was due, or sent, to the answer's last byte.
    pub(crate) response: Duration,
    pub(crate) service: Duration,
    /// A follow-up has no due time of its own: it is told in its row and nowhere else.
    pub(crate) is_follow_up: bool,
    pub(crate) outcome: Result<Good, Bad>,
}

/// An answer as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Good {
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) request_id: Option<u128>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) what: String,
    /// What was answered all the same: it has its record, too.
    pub(crate) answered: Option<Good>,
}

/// One kind of request.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) visit: String,
    pub(crate) step: String,
    pub(crate) response: Micros,
    pub(crate) service: Micros,
    pub(crate) bytes: u64,
    pub(crate) bad: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
}

/// A piece of the run's time.
#[derive(Debug)]
pub(crate) struct Interval {
    pub(crate) due: u64,
    pub(crate) answered: u64,
    pub(crate) bad: u64,
    pub(crate) response: Micros,
}

/// Everything that came of a run.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    pub(crate) response: Micros,
    pub(crate) service: Micros,
    pub(crate) lag: Micros,
    pub(crate) interval: Duration,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) bad: u64,
    pub(crate) first_bad: Option<String>,
    /// Requests that were due and not sent, because too many were under way.
    pub(crate) unsent: u64,
    /// Requests that came to an end, those of the warm-up included.
    pub(crate) taken: u64,
    /// Request id and status of every answer, those of the warm-up included.
    pub(crate) answered: Vec<(u128, u16)>,
    /// Writes that were answered well, those of the warm-up included.
    pub(crate) wrote: Vec<Wrote>,
    warm_up: Duration,
    lengths: HashMap<(usize, u64), u64>,
}

/// The place of a step's rows: its own, then those of what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Rows(Vec<Vec<usize>>);

impl Rows {
    /// The row of a step; `further` counts the kinds of request that follow from it.
    pub(crate) fn of(&self, visit: usize, step: usize, further: usize) -> usize {
        self.0.get(visit).and_then(|steps| steps.get(step)).map_or(0, |row| row + further)
    }
}

fn names(follow: Follow) -> &'static [&'static str] {
    match follow {
        Follow::Nothing => &[],
        Follow::Pages => &["next page"],
        Follow::Export => &["status", "file"],
    }
}

impl Measured {
    /// Nothing yet, and where each step's row is.
    ///
    /// # Errors
    /// As [`histogram`].
    pub(crate) fn empty(
        scenario: &Scenario,
        warm_up: Duration,
        length: Duration,
    ) -> Result<(Self, Rows), String> {
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for visit in &scenario.visits {
            let mut steps = Vec::new();
            for step in &visit.steps {
                steps.push(rows.len());
                rows.push(Row::new(&visit.name, step.name.clone())?);
                for name in names(step.follow) {
                    rows.push(Row::new(&visit.name, format!("{}: {name}", step.name))?);
                }
            }
            places.push(steps);
        }
        let seconds = length.as_secs().max(1);
        let interval = Duration::from_secs(seconds.div_ceil(INTERVALS_MAX).max(1));
        let measured = Self {
            rows,
            response: histogram(3)?,
            service: histogram(3)?,
            lag: histogram(3)?,
            interval,
            intervals: Vec::new(),
            errors: BTreeMap::new(),
            bad: 0,
            first_bad: None,
            unsent: 0,
            taken: 0,
            answered: Vec::new(),
            wrote: Vec::new(),
            warm_up,
            lengths: HashMap::new(),
        };
        Ok((measured, Rows(places)))
    }

    /// Takes what came of a request. `path` stands for what was asked: the same must have the same length.
    ///
    /// # Errors
    /// As [`histogram`].
    pub(crate) fn take(&mut self, mut sample: Sample, path: Option<u64>) -> Result<(), String> {
        if let (Some(path), Ok(good)) = (path, &sample.outcome)
            && let Some(what) = self.another_length(sample.row, path, good.bytes)
        {
            sample.outcome = Err(Bad { what, answered: Some(good.clone()) });
        }
        self.taken += 1;
        let answer = match &sample.outcome {
            Ok(good) => Some(good.clone()),
            Err(bad) => bad.answered.clone(),
        };
        if let Some(Good { request_id: Some(id), status, .. }) = answer {
            self.answered.push((id, status));
        }
        if let Err(bad) = &sample.outcome {
            self.blame(&sample, &bad.what);
        }
        let Some(since) = sample.due.checked_sub(self.warm_up) else { return Ok(()) };
        if let Some(row) = self.rows.get_mut(sample.row) {
            row.take(&sample, answer.as_ref());
        }
        if sample.is_follow_up {
            return Ok(());
        }
        put(&mut self.lag, sample.lag);
        let interval = self.interval;
        self.at(since, interval)?.due += 1;
        if sample.outcome.is_ok() {
            put(&mut self.response, sample.response);
            put(&mut self.service, sample.service);
            put(&mut self.at(since, interval)?.response, sample.response);
            self.at(since + sample.response, interval)?.answered += 1;
        } else {
            self.at(since, interval)?.bad += 1;
        }
        Ok(())
    }

    /// A request that was due and could not be sent.
    pub(crate) fn leave_out(&mut self) {
        self.unsent += 1;
    }

    fn blame(&mut self, sample: &Sample, what: &str) {
        self.bad += 1;
        let row = self.rows.get(sample.row);
        let told = row.map_or_else(|| what.to_owned(), |row| format!("{}, {}: {what}", row.visit, row.step));
        if let Some(count) = self.errors.get_mut(&told) {
            *count += 1;
        } else if self.errors.len() < ERRORS_MAX {
            self.errors.insert(told.clone(), 1);
        } else {
            *self.errors.entry("others".to_owned()).or_default() += 1;
        }
        self.first_bad.get_or_insert(told);
    }

    fn another_length(&mut self, row: usize, path: u64, bytes: u64) -> Option<String> {
        if self.lengths.len() >= LENGTHS_MAX {
            return None;
        }
        let before = *self.lengths.entry((row, path)).or_insert(bytes);
        (before != bytes).then(|| "an answer of another length than before".to_owned())
    }

    fn at(&mut self, since: Duration, interval: Duration) -> Result<&mut Interval, String> {
        let number = since.as_secs() / interval.as_secs().max(1);
        // What is answered after the run's end belongs to its last intervals.
        let number = usize::try_from(number.min(2 * INTERVALS_MAX)).unwrap_or(0);
        while self.intervals.len() <= number {
            self.intervals.push(Interval { due: 0, answered: 0, bad: 0, response: histogram(2)? });
        }
        self.intervals.get_mut(number).ok_or_else(|| "no such interval".to_owned())
    }

    /// Adds another round of the same scenario, as if it had come after this one.
    ///
    /// # Errors
    /// Never in practice: all histograms have the same bounds.
    pub(crate) fn add(&mut self, other: Self) -> Result<(), String> {
        let text = |error: hdrhistogram::AdditionError| error.to_string();
        for (row, more) in self.rows.iter_mut().zip(other.rows) {
            row.response.add(&more.response).map_err(text)?;
            row.service.add(&more.service).map_err(text)?;
            row.bytes += more.bytes;
            row.bad += more.bad;
            for (status, count) in more.statuses {
                *row.statuses.entry(status).or_default() += count;
            }
        }
        self.response.add(&other.response).map_err(text)?;
        self.service.add(&other.service).map_err(text)?;
        self.lag.add(&other.lag).map_err(text)?;
        self.intervals.extend(other.intervals);
        for (what, count) in other.errors {
            *self.errors.entry(what).or_default() += count;
        }
        self.bad += other.bad;
        self.first_bad = self.first_bad.take().or(other.first_bad);
        self.unsent += other.unsent;
        self.taken += other.taken;
        self.answered.extend(other.answered);
        self.wrote.extend(other.wrote);
        Ok(())
    }
}

impl Row {
    fn new(visit: &str, step: String) -> Result<Self, String> {
        let (response, service) = (histogram(3)?, histogram(3)?);
        Ok(Self {
            visit: visit.to_owned(),
            step,
            response,
            service,
            bytes: 0,
            bad: 0,
            statuses: BTreeMap::new(),
        })
    }

    fn take(&mut self, sample: &Sample, answer: Option<&Good>) {
        if let Some(answer) = answer {
            *self.statuses.entry(answer.status).or_default() += 1;
            self.bytes += answer.bytes;
        }
        if sample.outcome.is_ok() {
            put(&mut self.response, sample.response);
            put(&mut self.service, sample.service);
        } else {
            self.bad += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sample(due_ms: u64, latency_ms: u64, outcome: Result<Good, Bad>) -> Sample {
        let response = Duration::from_millis(latency_ms);
        Sample {
            row: 0,
            due: Duration::from_millis(due_ms),
            lag: Duration::from_millis(1),
            response,
            service: response / 2,
            is_follow_up: false,
            outcome,
        }
    }

    fn good(id: u128) -> Result<Good, Bad> {
        Ok(Good { status: 200, bytes: 7, request_id: Some(id) })
    }

    fn fresh() -> Measured {
        let scenario = Scenario::find("ward-round").unwrap();
        Measured::empty(&scenario, SECOND, 10 * SECOND).unwrap().0
    }

    #[test]
    fn the_warm_up_is_checked_but_not_counted() {
        let mut measured = fresh();
        measured.take(sample(999, 50, good(1)), None).unwrap();
        let wrong = Bad { what: "wrong".to_owned(), answered: None };
        measured.take(sample(500, 50, Err(wrong)), None).unwrap();
        measured.take(sample(1_000, 50, good(2)), None).unwrap();
        assert_eq!((measured.response.len(), measured.bad), (1, 1));
        assert_eq!(measured.answered, [(1, 200), (2, 200)]);
        assert_eq!(measured.first_bad.as_deref(), Some("chart open, patient: wrong"));
    }

    #[test]
    fn an_answer_counts_where_it_came_and_its_latency_where_it_was_due() {
        let mut measured = fresh();
        measured.take(sample(1_200, 2_500, good(1)), None).unwrap();
        let told: Vec<_> =
            measured.intervals.iter().map(|at| (at.due, at.answered, at.response.len())).collect();
        assert_eq!(told, [(1, 0, 1), (0, 0, 0), (0, 1, 0)]);
    }

    #[test]
    fn another_length_of_the_same_question_is_a_miss() {
        let mut measured = fresh();
        measured.take(sample(1_000, 1, good(1)), Some(9)).unwrap();
        let longer = Ok(Good { status: 200, bytes: 8, request_id: Some(2) });
        measured.take(sample(1_000, 1, longer.clone()), Some(10)).unwrap();
        assert_eq!(measured.bad, 0);
        measured.take(sample(1_000, 1, longer), Some(9)).unwrap();
        assert_eq!((measured.bad, measured.answered.len()), (1, 3));
    }

    #[test]
    fn rounds_add_up() {
        let (mut one, mut two) = (fresh(), fresh());
        one.take(sample(1_000, 1, good(1)), None).unwrap();
        two.take(sample(1_000, 3, good(2)), None).unwrap();
        two.leave_out();
        one.add(two).unwrap();
        assert_eq!((one.response.len(), one.unsent, one.intervals.len()), (2, 1, 2));
        assert_eq!((one.rows[0].response.len(), one.rows[0].bytes), (2, 14));
        assert_eq!(one.answered, [(1, 200), (2, 200)]);
    }
}
