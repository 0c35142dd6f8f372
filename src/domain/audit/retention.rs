//! How long entries are kept, what is held, and what is withheld.
//!
//! Owns: the policy and its bound, sets of bundles, legal holds, and the records that tell of each.
//! Must never: call anything withheld that no record names; let a policy be shorter than it was said to be.
//! Look next: `edge::journal::retention`, which removes bundles; `docs/audit.md`, section "Retention and legal hold".

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::filter::Filter;
use super::record::{Control, Event, Record};
use crate::limits::{RETENTION_DAYS_MIN, RETENTION_YEARS_LAW, RETENTION_YEARS_MAX, WITHHELD_RANGES_MAX};

/// How long entries are kept: `6y` or `2200d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Years of the calendar.
    Years(u16),
    /// Days.
    Days(u32),
}

impl Keep {
    /// Reads `6y` or `2200d`, in the only spelling; none that is shorter than a month or longer than a century.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let years = || digits.parse().ok().filter(|years| (1..=RETENTION_YEARS_MAX).contains(years));
        let days = || {
            let most = u32::from(RETENTION_YEARS_MAX) * 365;
            digits.parse().ok().filter(|days| (RETENTION_DAYS_MIN..=most).contains(days))
        };
        let keep = match unit {
            "y" => Self::Years(years()?),
            "d" => Self::Days(days()?),
            _ => return None,
        };
        (keep.to_string() == text).then_some(keep)
    }

    /// Whether it is shorter than the six years of 45 CFR 164.316(b)(2)(i).
    #[must_use]
    pub fn is_short(self) -> bool {
        match self {
            Self::Years(years) => years < RETENTION_YEARS_LAW,
            // Six years have one or two leap days.
            Self::Days(days) => days < u32::from(RETENTION_YEARS_LAW) * 365 + 2,
        }
    }

    /// What is older than this may go, in whole seconds: records keep fewer digits of a time than a clock gives. `None` where the
    /// calendar does not reach so far.
    #[must_use]
    pub fn cutoff(self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(TimeZone::UTC);
        let before = match self {
            Self::Years(years) => now.checked_sub(i64::from(years).years()),
            Self::Days(days) => now.checked_sub(i64::from(days).days()),
        };
        Timestamp::from_second(before.ok()?.timestamp().as_second()).ok()
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Years(years) => write!(out, "{years}y"),
            Self::Days(days) => write!(out, "{days}d"),
        }
    }
}

/// A set of entry bundles, by number: `0-11,14`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundles(Vec<(u64, u64)>);

impl Bundles {
    /// Reads the only spelling: rising, with a gap between any two ranges.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut read = Self::default();
        for range in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            read.0.push((first.parse().ok()?, last.parse().ok()?));
        }
        let rises = read.0.iter().all(|(first, last)| first <= last);
        let apart = read.0.windows(2).all(|pair| match pair {
            [(_, last), (first, _)] => last.checked_add(1).is_some_and(|next| next < *first),
            _ => true,
        });
        (rises && apart && read.to_string() == text).then_some(read)
    }

    /// Whether the bundle is in the set.
    #[must_use]
    pub fn contains(&self, bundle: u64) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= bundle);
        let range = behind.checked_sub(1).and_then(|at| self.0.get(at));
        range.is_some_and(|(_, last)| bundle <= *last)
    }

    /// The set with a bundle added; `None` when it would fall into more ranges than a record can name.
    #[must_use]
    pub fn with(&self, bundle: u64) -> Option<Self> {
        let mut ranges: Vec<(u64, u64)> = Vec::with_capacity(self.0.len() + 1);
        let mut all = self.0.clone();
        all.push((bundle, bundle));
        all.sort_unstable();
        for (first, last) in all {
            match ranges.last_mut() {
                Some((_, before)) if first <= before.saturating_add(1) => *before = last.max(*before),
                Some(_) | None => ranges.push((first, last)),
            }
        }
        (ranges.len() <= WITHHELD_RANGES_MAX).then_some(Self(ranges))
    }

    /// Every bundle, rising.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// How many bundles.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Bundles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match first == last {
                true => write!(out, "{comma}{first}")?,
                false => write!(out, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Ranges in one detail of a record: twelve of the longest fit into its bound.
const RANGES_IN_DETAIL: usize = 12;

/// What the trail says of a prune: everything that is withheld, and the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The policy.
    pub keep: Keep,
    /// Every record in what was added is older than this.
    pub before: Timestamp,
    /// All that is withheld from now on, that of earlier prunes too.
    pub bundles: Bundles,
    /// How many bundles this prune adds.
    pub added: u64,
    /// Who ordered it.
    pub operator: String,
}

impl Pruned {
    /// The record of it.
    #[must_use]
    pub fn record(&self, now: Timestamp) -> Record {
        let mut details = BTreeMap::from([
            ("policy".to_owned(), self.keep.to_string()),
            ("before".to_owned(), self.before.to_string()),
            ("added".to_owned(), self.added.to_string()),
            ("entries".to_owned(), self.bundles.count().saturating_mul(256).to_string()),
            ("operator".to_owned(), self.operator.clone()),
        ]);
        for (at, ranges) in self.bundles.0.chunks(RANGES_IN_DETAIL).enumerate() {
            details.insert(format!("bundles {at:02}"), Bundles(ranges.to_vec()).to_string());
        }
        Record::Control(Control { time: now, event: Event::Pruned, details })
    }

    /// Reads the record of a prune.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(control: &Control) -> Result<Self, &'static str> {
        let said = |name: &str| control.details.get(name);
        let keep =
            said("policy").and_then(|text| Keep::parse(text)).ok_or("records a prune without a policy")?;
        let before: Timestamp = said("before")
            .and_then(|text| text.parse().ok())
            .ok_or("records a prune without the time before which it was")?;
        if keep.cutoff(control.time).is_none_or(|cutoff| before > cutoff) {
            return Err("records a prune of what its policy keeps");
        }
        let ranges: Vec<&str> = control
            .details
            .iter()
            .filter(|(name, _)| name.starts_with("bundles "))
            .map(|(_, ranges)| ranges.as_str())
            .collect();
        let bundles = Bundles::parse(&ranges.join(",")).filter(|bundles| !bundles.is_empty());
        let added = said("added").and_then(|text| text.parse().ok());
        Ok(Self {
            keep,
            before,
            bundles: bundles.ok_or("records a prune of nothing that can be told")?,
            added: added.ok_or("records a prune without its extent")?,
            operator: said("operator").cloned().unwrap_or_default(),
        })
    }
}

/// A legal hold: what it is about stays, whatever the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Names it; random, and never used again.
    pub id: String,
    /// Why.
    pub reason: String,
    /// Who ordered it, as they say.
    pub operator: String,
    /// Records that released or wrote something of this patient.
    pub patient: Option<String>,
    /// Records of this person.
    pub subject: Option<String>,
    /// The issuer that vouched for the person.
    pub issuer: Option<String>,
    /// Records from this time on.
    pub since: Option<Timestamp>,
    /// Records before this time.
    pub until: Option<Timestamp>,
}

impl Hold {
    /// The record that puts it in force.
    #[must_use]
    pub fn record(&self, now: Timestamp) -> Record {
        let texts = [
            ("id", Some(self.id.clone())),
            ("reason", Some(self.reason.clone())),
            ("operator", Some(self.operator.clone())),
            ("patient", self.patient.clone()),
            ("subject", self.subject.clone()),
            ("issuer", self.issuer.clone()),
            ("since", self.since.map(|time| time.to_string())),
            ("until", self.until.map(|time| time.to_string())),
        ];
        let said = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?)));
        Record::Control(Control { time: now, event: Event::HoldAdded, details: said.collect() })
    }

    fn read(control: &Control) -> Self {
        let said = |name: &str| control.details.get(name).cloned();
        // What cannot be read as a time bounds nothing: the hold then holds more, never less.
        let time = |name: &str| said(name).and_then(|text| text.parse().ok());
        Self {
            id: said("id").unwrap_or_default(),
            reason: said("reason").unwrap_or_default(),
            operator: said("operator").unwrap_or_default(),
            patient: said("patient"),
            subject: said("subject"),
            issuer: said("issuer"),
            since: time("since"),
            until: time("until"),
        }
    }

    /// Whether it is about `record`.
    #[must_use]
    pub fn takes(&self, record: &Record) -> bool {
        let filter = Filter {
            patient: self.patient.clone(),
            subject: self.subject.clone(),
            issuer: self.issuer.clone(),
            since: self.since,
            until: self.until,
            ..Filter::default()
        };
        filter.takes(record)
    }
}

/// The record that lifts a hold.
#[must_use]
pub fn lifted(id: &str, reason: &str, operator: &str, now: Timestamp) -> Record {
    let details = [("id", id), ("reason", reason), ("operator", operator)];
    let details = details.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned()));
    Record::Control(Control { time: now, event: Event::HoldLifted, details: details.collect() })
}

/// The holds of a trail, as its records tell.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    /// By id: the entry that put it in force, and when; and when it was lifted, and why.
    all: BTreeMap<String, Held>,
}

/// A hold, and how it stands.
#[derive(Clone, Debug)]
pub struct Held {
    /// The entry that put it in force.
    pub sequence: u64,
    /// When.
    pub since: Timestamp,
    /// What it is.
    pub hold: Hold,
    /// When it was lifted, and why.
    pub lifted: Option<(Timestamp, String)>,
}

impl Holds {
    /// Takes the next record.
    pub fn learn(&mut self, sequence: u64, record: &Record) {
        let Record::Control(control) = record else { return };
        if control.event == Event::HoldAdded {
            let hold = Hold::read(control);
            // The first one counts: an id that was lifted does not come back by being said again.
            let held = Held { sequence, since: control.time, hold, lifted: None };
            self.all.entry(held.hold.id.clone()).or_insert(held);
        } else if control.event == Event::HoldLifted {
            let said = |name: &str| control.details.get(name).cloned().unwrap_or_default();
            if let Some(held) = self.all.get_mut(&said("id")) {
                held.lifted.get_or_insert_with(|| (control.time, said("reason")));
            }
        }
    }

    /// Every hold there was.
    pub fn all(&self) -> impl Iterator<Item = &Held> {
        self.all.values()
    }

    /// Those in force.
    pub fn in_force(&self) -> impl Iterator<Item = &Held> {
        self.all.values().filter(|held| held.lifted.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_policy_has_one_spelling_and_a_bound() {
        let cases = [
            ("6y", Some(Keep::Years(6)), false),
            ("10y", Some(Keep::Years(10)), false),
            ("5y", Some(Keep::Years(5)), true),
            ("2192d", Some(Keep::Days(2192)), false),
            ("2191d", Some(Keep::Days(2191)), true),
            ("30d", Some(Keep::Days(30)), true),
        ];
        for (text, keep, short) in cases {
            assert_eq!(Keep::parse(text), keep, "{text}");
            assert_eq!(keep.map(Keep::is_short), Some(short), "{text}");
        }
        for text in ["", "y", "0y", "06y", "6", "6 y", "-6y", "1e3d", "29d", "101y", "6Y", "6m", "é"] {
            assert_eq!(Keep::parse(text), None, "{text}");
        }
        let now: Timestamp = "2032-02-29T12:00:00Z".parse().unwrap();
        let before = |text| Keep::parse(text).unwrap().cutoff(now).unwrap().to_string();
        assert_eq!(before("6y"), "2026-02-28T12:00:00Z");
        assert_eq!(before("2192d"), "2026-02-28T12:00:00Z");
    }

    #[test]
    fn a_prune_is_read_as_it_was_written_and_no_other_is() {
        let now: Timestamp = "2032-03-01T00:00:00.123456789Z".parse().unwrap();
        let mut bundles = Bundles::default();
        for bundle in (0..300).step_by(2) {
            bundles = bundles.with(bundle).unwrap();
        }
        let keep = Keep::Years(6);
        let before = keep.cutoff(now).unwrap();
        let pruned = Pruned { keep, before, bundles, added: 150, operator: "records".to_owned() };
        let Record::Control(control) = pruned.record(now) else { panic!("a control record") };
        assert_eq!(Pruned::read(&control).as_ref(), Ok(&pruned));
        // It comes through the encoding whole.
        let parts = super::super::encode(&Record::Control(control.clone())).unwrap();
        let joined = super::super::Assembly::default().push(0, super::super::decode(&parts[0]).unwrap());
        let Record::Control(joined) = joined.unwrap().unwrap().1 else { panic!("a control record") };
        assert_eq!((&joined.details, Pruned::read(&joined)), (&control.details, Ok(pruned)));
        for (name, value) in [
            ("policy", None),
            ("policy", Some("soon")),
            ("policy", Some("7y")),
            ("before", None),
            ("before", Some("2027-01-01T00:00:00Z")),
            ("added", None),
            ("bundles 00", Some("5-3")),
            ("bundles 00", Some("")),
        ] {
            let mut other = control.clone();
            match value {
                Some(value) => other.details.insert(name.to_owned(), value.to_owned()),
                None => other.details.remove(name),
            };
            assert!(Pruned::read(&other).is_err(), "{name} {value:?}");
        }
    }

    #[test]
    fn a_hold_that_was_lifted_stays_lifted() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let hold = |id: &str| Hold {
            id: id.to_owned(),
            reason: "a claim".to_owned(),
            operator: String::new(),
            patient: Some("p1".to_owned()),
            subject: None,
            issuer: None,
            since: None,
            until: None,
        };
        let mut holds = Holds::default();
        let records = [
            hold("a").record(now),
            hold("b").record(now),
            lifted("a", "settled", "", now),
            hold("a").record(now),
            lifted("unknown", "none", "", now),
        ];
        records.iter().zip(0..).for_each(|(record, sequence)| holds.learn(sequence, record));
        let ids = |held: Vec<&Held>| held.iter().map(|held| held.hold.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(holds.in_force().collect()), ["b"]);
        assert_eq!(ids(holds.all().collect()), ["a", "b"]);
    }

    proptest! {
        #[test]
        fn bundles_are_a_set(numbers in proptest::collection::btree_set(0..200_u64, 0..60)) {
            let mut bundles = Bundles::default();
            for number in numbers.iter().rev() {
                bundles = bundles.with(*number).unwrap();
            }
            prop_assert_eq!(bundles.iter().collect::<BTreeSet<_>>(), numbers.clone());
            prop_assert_eq!(bundles.count(), numbers.len() as u64);
            (0..200).for_each(|at| assert_eq!(bundles.contains(at), numbers.contains(&at)));
            prop_assert_eq!(Bundles::parse(&bundles.to_string()), Some(bundles));
        }

        #[test]
        fn other_spellings_are_refused(text in "[0-9,-]{0,12}") {
            if let Some(bundles) = Bundles::parse(&text) {
                prop_assert_eq!(bundles.to_string(), text);
            }
        }
    }
}
