//! Which refusals have a record each, and which are counted (T-232): so that a flood neither buries nor fills the trail.
//!
//! Owns: the budget of each source and of all together, exact counts, and the two records of a count: one from which on
//! refusals are counted, one that says how many there were.
//! Must never: count what released or wrote anything (it is told of refusals only); grow beyond its bounds; lose a refusal:
//! each is either said to need a record of its own, or is in a count.
//! Look next: `edge::counting`, which writes the records; `gateway::noise`, which says what may be counted.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use jiff::Timestamp;

use super::record::{Control, Event};
use crate::limits::{REFUSAL_CODES_MAX, REFUSAL_SOURCES_MAX, REFUSALS_TOGETHER_FACTOR};

/// Whose refusals are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody was established, at this address; for IPv6 the first of its /64, which is one subscriber's.
    Address(IpAddr),
    /// The same, at addresses beyond those that are told apart.
    Addresses,
    /// A person or program that was established.
    Known {
        /// The token's `iss`.
        issuer: String,
        /// The token's `sub`.
        subject: String,
    },
    /// The same, beyond those that are told apart.
    KnownOthers,
}

impl Source {
    /// Somebody at `address` behind whom nobody was established.
    #[must_use]
    pub fn stranger(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::from(u64::MAX) << 64)))
            }
        })
    }

    fn is_known(&self) -> bool {
        matches!(self, Self::Known { .. } | Self::KnownOthers)
    }

    /// Those of its kind that are not told apart.
    fn others(&self) -> Self {
        if self.is_known() { Self::KnownOthers } else { Self::Addresses }
    }

    fn tell(&self, details: &mut BTreeMap<String, String>) {
        let mut say = |name: &str, value: String| details.insert(name.to_owned(), value);
        match self {
            Self::Address(address @ IpAddr::V4(_)) => {
                say("of", "address".to_owned());
                say("source", address.to_string());
            }
            Self::Address(address @ IpAddr::V6(_)) => {
                say("of", "address".to_owned());
                say("source", format!("{address}/64"));
            }
            Self::Addresses => {
                say("of", "other addresses".to_owned());
            }
            Self::Known { issuer, subject } => {
                say("of", "caller".to_owned());
                say("issuer", issuer.clone());
                say("subject", subject.clone());
            }
            Self::KnownOthers => {
                say("of", "other callers".to_owned());
            }
        }
    }
}

/// A refusal, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'r> {
    /// Whose it is.
    pub source: &'r Source,
    /// Its stable code.
    pub code: &'r str,
    /// The id of the request.
    pub request_id: &'r str,
    /// When it was refused.
    pub time: Timestamp,
}

/// How many refusals of one source have a record each, in one window. All sources of a kind together may have
/// `REFUSALS_TOGETHER_FACTOR` times as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of an address.
    pub strangers: u64,
    /// Of a person or program that was established.
    pub known: u64,
}

/// What becomes of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It needs a record of its own.
    Alone,
    /// It is counted, once this record is in the trail. All refusals of one count give the same record.
    Counted(Control),
}

/// One stretch of time in which refusals are counted.
#[derive(Debug)]
pub struct Window {
    budget: Budget,
    began: Timestamp,
    strangers: Sources,
    known: Sources,
}

/// All sources of a kind.
#[derive(Debug, Default)]
struct Sources {
    alone: u64,
    documents: u64,
    tallies: BTreeMap<Source, Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    alone: u64,
    documents: u64,
    count: Option<Count>,
}

#[derive(Debug)]
struct Count {
    first: (String, Timestamp),
    last: (String, Timestamp),
    alone: u64,
    first_code: String,
    codes: BTreeMap<String, u64>,
}

impl Sources {
    /// The tally of `source`, or of those that are not told apart when there are too many.
    fn tally(&mut self, source: &Source) -> (Source, &mut Tally) {
        let is_there = self.tallies.contains_key(source);
        let others = source.others();
        let is_room = self.tallies.keys().filter(|known| **known != others).count() < REFUSAL_SOURCES_MAX;
        let source = if is_there || is_room { source.clone() } else { others };
        let tally = self.tallies.entry(source.clone()).or_default();
        (source, tally)
    }
}

impl Window {
    /// Begins now.
    #[must_use]
    pub fn new(budget: Budget, began: Timestamp) -> Self {
        Self { budget, began, strangers: Sources::default(), known: Sources::default() }
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.began
    }

    /// Whether there is nothing to say at its end.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let mut tallies = self.strangers.tallies.values().chain(self.known.tallies.values());
        tallies.all(|tally| tally.count.is_none())
    }

    /// Notes one refusal.
    pub fn note(&mut self, refused: Refused<'_>) -> Noted {
        let (most, all) = if refused.source.is_known() {
            (self.budget.known, &mut self.known)
        } else {
            (self.budget.strangers, &mut self.strangers)
        };
        let together = most.saturating_mul(REFUSALS_TOGETHER_FACTOR);
        let is_room = all.alone < together;
        let (source, tally) = all.tally(refused.source);
        if tally.count.is_none() && tally.alone < most && is_room {
            tally.alone += 1;
            all.alone += 1;
            return Noted::Alone;
        }
        let here = (refused.request_id.to_owned(), refused.time);
        let count = tally.count.get_or_insert_with(|| Count {
            first: here.clone(),
            last: here.clone(),
            alone: tally.alone,
            first_code: refused.code.to_owned(),
            codes: BTreeMap::new(),
        });
        count.last = here;
        match count.codes.get_mut(refused.code) {
            Some(number) => *number = number.saturating_add(1),
            None => drop(count.codes.insert(refused.code.to_owned(), 1)),
        }
        Noted::Counted(count.opening(&source))
    }

    /// Whether one more of the documents that anybody may have can go to `source`. Each has records of its own, and they
    /// have the same budget.
    pub fn may_have_document(&mut self, source: &Source) -> bool {
        let most = self.budget.strangers;
        let is_room = self.strangers.documents < most.saturating_mul(REFUSALS_TOGETHER_FACTOR);
        let (_, tally) = self.strangers.tally(source);
        let may = is_room && tally.documents < most;
        if may {
            tally.documents += 1;
            self.strangers.documents += 1;
        }
        may
    }

    /// What is to be written at its end: for each count the record with which it began, which may not be in the trail yet, and
    /// those that say how many there were.
    #[must_use]
    pub fn close(self, time: Timestamp) -> Vec<(Control, Vec<Control>)> {
        let all = self.strangers.tallies.into_iter().chain(self.known.tallies);
        let closed = |(source, tally): (Source, Tally)| {
            let count = tally.count?;
            Some((count.opening(&source), count.closings(&source, time)))
        };
        all.filter_map(closed).collect()
    }
}

impl Count {
    fn opening(&self, source: &Source) -> Control {
        let mut details = BTreeMap::new();
        source.tell(&mut details);
        details.insert("first".to_owned(), self.first.0.clone());
        details.insert("code".to_owned(), self.first_code.clone());
        details.insert("recordedBefore".to_owned(), self.alone.to_string());
        Control { time: self.first.1, event: Event::RefusalsCounting, details }
    }

    fn closings(&self, source: &Source, time: Timestamp) -> Vec<Control> {
        let codes: Vec<(&String, &u64)> = self.codes.iter().collect();
        let closing = |codes: &[(&String, &u64)]| {
            let mut details: BTreeMap<String, String> =
                codes.iter().map(|(code, number)| (format!("{CODE}{code}"), number.to_string())).collect();
            source.tell(&mut details);
            let counted = codes.iter().fold(0_u64, |sum, (_, number)| sum.saturating_add(**number));
            details.insert("counted".to_owned(), counted.to_string());
            details.insert("first".to_owned(), self.first.0.clone());
            details.insert("firstTime".to_owned(), self.first.1.to_string());
            details.insert("last".to_owned(), self.last.0.clone());
            details.insert("lastTime".to_owned(), self.last.1.to_string());
            Control { time, event: Event::RefusalsCounted, details }
        };
        codes.chunks(REFUSAL_CODES_MAX).map(closing).collect()
    }
}

/// Before each code in the details of a count.
const CODE: &str = "code:";

/// What a record of counted refusals says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals<'c> {
    /// The id of the first request that was counted: both records of a count have it, and no other count's.
    pub first: &'c str,
    /// Issuer and subject, where somebody was established.
    pub caller: Option<(&'c str, &'c str)>,
    /// How many there were of each code; nothing in the record with which the count began.
    pub codes: Option<BTreeMap<&'c str, u64>>,
    /// In the record with which the count began: the code of the first.
    first_code: Option<&'c str>,
}

impl Refusals<'_> {
    /// Whether a refusal with this code is among them, as far as the record tells.
    #[must_use]
    pub fn has(&self, code: &str) -> bool {
        self.first_code == Some(code) || self.codes.as_ref().is_some_and(|codes| codes.contains_key(code))
    }

    /// The codes that the record tells.
    pub fn told_codes(&self) -> impl Iterator<Item = &str> {
        self.first_code.into_iter().chain(self.codes.iter().flat_map(|codes| codes.keys().copied()))
    }
}

impl Control {
    /// What it says of counted refusals, if it is about such.
    #[must_use]
    pub fn refusals(&self) -> Option<Refusals<'_>> {
        let said = |name: &str| self.details.get(name).map(String::as_str);
        let codes = || {
            let code = |(name, number): (&'_ String, &'_ String)| {
                Some((self.details.get_key_value(name)?.0.strip_prefix(CODE)?, number.parse().ok()?))
            };
            self.details.iter().filter_map(code).collect()
        };
        let (codes, first_code) = match self.event {
            Event::RefusalsCounting => (None, said("code")),
            Event::RefusalsCounted => (Some(codes()), None),
            _ => return None,
        };
        Some(Refusals {
            first: said("first")?,
            caller: said("issuer").zip(said("subject")),
            codes,
            first_code,
        })
    }
}
