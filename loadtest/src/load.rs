//! Closed loops: each client asks, waits for the whole answer, and asks again.
//!
//! Owns: [`Cell`], one measurement, and its result. In a closed loop a slow answer delays the next request, so
//! latencies here say what a client felt, not what an arrival rate would have met.
//! Must never: count an answer that is not whole, not 200 or not of the expected length as a good one.
//! Look next: `baseline`, which strings cells together.

use crate::client::{HANDSHAKES_AT_ONCE, Heard, Link, Place, joined};
use hdrhistogram::Histogram;
use http::{HeaderValue, StatusCode};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longest latency told apart: a minute, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Requests of one cell, so that its lists stay bounded.
const REQUESTS_MAX: u64 = 500_000;

/// What clients ask, and how long the answers are.
#[derive(Debug)]
pub(crate) struct Questions {
    pub(crate) paths: Vec<String>,
    pub(crate) callers: Vec<HeaderValue>,
    /// Length of the right answer, by path.
    pub(crate) lengths: HashMap<String, u64>,
    /// Every answer must carry a request id.
    pub(crate) with_ids: bool,
}

/// What came of a cell.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Microseconds from sending to the answer's last byte.
    pub(crate) latency: Histogram<u64>,
    pub(crate) bytes: u64,
    /// Request ids of the good answers, the unmeasured first one of each client included.
    pub(crate) ids: Vec<u128>,
    pub(crate) failures: u64,
    pub(crate) first_failure: Option<String>,
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    /// Never in practice: the bounds are fixed and fit.
    pub(crate) fn empty() -> Result<Self, String> {
        let latency = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).map_err(|error| error.to_string())?;
        Ok(Self { latency, bytes: 0, ids: Vec::new(), failures: 0, first_failure: None })
    }

    /// Adds what another one counted.
    ///
    /// # Errors
    /// Never in practice: all histograms have the same bounds.
    pub(crate) fn add(&mut self, other: Self) -> Result<(), String> {
        self.latency.add(&other.latency).map_err(|error| error.to_string())?;
        self.bytes += other.bytes;
        self.ids.extend(other.ids);
        self.failures += other.failures;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        Ok(())
    }

    fn fail(&mut self, why: String) {
        self.failures += 1;
        self.first_failure.get_or_insert(why);
    }
}

/// Clients that are connected and have had one answer each.
pub(crate) struct Cell {
    clients: Vec<Client>,
    questions: Arc<Questions>,
}

struct Client {
    link: Link,
    number: usize,
    asked: usize,
    tally: Tally,
}

impl Cell {
    /// Connects `clients` clients and has each ask once, unmeasured.
    ///
    /// # Errors
    /// When a client cannot connect.
    pub(crate) async fn open(
        place: &Place,
        clients: usize,
        questions: Arc<Questions>,
    ) -> Result<Self, String> {
        let mut opening = JoinSet::new();
        let mut opened = Vec::new();
        for number in 0..clients {
            if opening.len() >= HANDSHAKES_AT_ONCE {
                opened.extend(joined(&mut opening).await?);
            }
            let (place, questions) = (place.clone(), Arc::clone(&questions));
            opening.spawn(async move {
                let link = place.connect().await?;
                let mut client = Client { link, number, asked: 0, tally: Tally::empty()? };
                client.ask(&questions, false).await;
                Ok::<Client, String>(client)
            });
        }
        while let Some(client) = joined(&mut opening).await? {
            opened.push(client);
        }
        Ok(Self { clients: opened, questions })
    }

    /// Asks for `length`; gives what was counted and how long it took until the last answer was in.
    ///
    /// # Errors
    /// When a client's task failed, which is a fault of this program.
    pub(crate) async fn run(self, length: Duration) -> Result<(Tally, Duration), String> {
        let began = Instant::now();
        let asked = Arc::new(AtomicU64::new(0));
        let mut running = JoinSet::new();
        for mut client in self.clients {
            let (questions, asked) = (Arc::clone(&self.questions), Arc::clone(&asked));
            running.spawn(async move {
                while began.elapsed() < length && asked.fetch_add(1, Ordering::Relaxed) < REQUESTS_MAX {
                    if !client.ask(&questions, true).await {
                        break;
                    }
                }
                client.tally
            });
        }
        let mut tallies = Vec::new();
        while let Some(tally) = running.join_next().await {
            tallies.push(tally.map_err(|error| error.to_string())?);
        }
        let took = began.elapsed();
        let mut sum = Tally::empty()?;
        tallies.into_iter().try_for_each(|tally| sum.add(tally))?;
        Ok((sum, took))
    }
}

impl Client {
    /// One request; `false` when the connection is of no more use.
    async fn ask(&mut self, questions: &Questions, measured: bool) -> bool {
        let turn = self.number + self.asked;
        self.asked += 1;
        let (Some(path), Some(token)) = (at(&questions.paths, turn), at(&questions.callers, self.number))
        else {
            return false;
        };
        let sent = Instant::now();
        let heard = self.link.get(path, token, false).await;
        let took = u64::try_from(sent.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
        let usable = heard.is_ok();
        match heard.and_then(|heard| fit(heard, path, questions)) {
            Ok(heard) => {
                self.tally.ids.extend(heard.request_id.filter(|_| questions.with_ids));
                if measured {
                    self.tally.latency.saturating_record(took);
                    self.tally.bytes += heard.bytes;
                }
            }
            Err(why) => self.tally.fail(why),
        }
        usable
    }
}

fn at<T>(list: &[T], number: usize) -> Option<&T> {
    list.get(number % list.len().max(1))
}

/// The answer, if it is the right one.
fn fit(heard: Heard, path: &str, questions: &Questions) -> Result<Heard, String> {
    if heard.status != StatusCode::OK {
        return Err(format!("{path} was answered with {}", heard.status));
    }
    if questions.lengths.get(path).is_some_and(|length| *length != heard.bytes) {
        return Err(format!("{path} was answered with {} bytes, another length than before", heard.bytes));
    }
    if questions.with_ids && heard.request_id.is_none() {
        return Err(format!("{path} was answered without a request id"));
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(status: u16, bytes: u64, request_id: Option<u128>) -> Heard {
        Heard {
            status: StatusCode::from_u16(status).unwrap(),
            location: None,
            created: None,
            request_id,
            bytes,
            body: Vec::new(),
        }
    }

    #[test]
    fn only_the_right_answer_is_good() {
        let questions = Questions {
            paths: vec!["/a".to_owned()],
            callers: Vec::new(),
            lengths: HashMap::from([("/a".to_owned(), 7)]),
            with_ids: true,
        };
        let cases = [
            (heard(200, 7, Some(1)), true),
            (heard(200, 6, Some(1)), false),
            (heard(503, 7, Some(1)), false),
            (heard(200, 7, None), false),
        ];
        for (heard, good) in cases {
            let shown = format!("{heard:?}");
            assert_eq!(fit(heard, "/a", &questions).is_ok(), good, "{shown}");
        }
    }

    #[test]
    fn tallies_add_up_and_keep_the_first_failure() {
        let mut sum = Tally::empty().unwrap();
        for (number, latency) in [(1_u128, 100), (2, 300)] {
            let mut one = Tally::empty().unwrap();
            one.latency.saturating_record(latency);
            one.ids.push(number);
            one.bytes = 5;
            one.fail(format!("failure {number}"));
            sum.add(one).unwrap();
        }
        assert_eq!((sum.latency.len(), sum.latency.max(), sum.bytes, sum.failures), (2, 300, 10, 2));
        assert_eq!(sum.ids, [1, 2]);
        assert_eq!(sum.first_failure.as_deref(), Some("failure 1"));
    }
}
