//! Requests of every kind, aimed at what a role may not see.
//!
//! Owns: the mix of kinds, and what is common to them: records, ids and values of both worlds.
//! Must never: look at an answer to decide what to ask next, but for the caller's own views, from which writers start;
//! leave out a kind because today's gate refuses it: a refusal is compared too.
//! Look next: `search`, `writes`, `oddities`.

mod oddities;
mod search;
#[cfg(test)]
mod tests;
mod writes;

use super::ask::{Ask, Kind};
use super::dice::Dice;
use super::worlds::{Known, Worlds};
use crate::domain::fhir::r4::{self, ResourceType};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What requests are made from.
pub(super) struct Ground<'g> {
    pub(super) worlds: &'g Worlds,
    /// Types of which the role may see something.
    pub(super) open: &'g BTreeSet<ResourceType>,
    /// What the gate shows of a record, `Type/id`.
    pub(super) views: &'g BTreeMap<String, Value>,
}

/// An endless stream of requests; the same for the same seed, worlds and views.
pub(super) struct Generator<'g> {
    ground: Ground<'g>,
    dice: Dice,
    /// Every parameter of every type, each once before any comes again; those of open types come first.
    parameters: VecDeque<(ResourceType, &'static r4::SearchParameter)>,
    shown: Vec<&'g Known>,
    turn: usize,
}

/// How often each kind is asked, of a hundred.
const MIX: &[(Kind, usize)] = &[
    (Kind::Read, 4),
    (Kind::ConditionalRead, 3),
    (Kind::Head, 3),
    (Kind::Vread, 4),
    (Kind::HistoryInstance, 3),
    (Kind::HistoryType, 2),
    (Kind::HistorySystem, 1),
    (Kind::SearchType, 38),
    (Kind::SearchCompartment, 4),
    (Kind::SearchSystem, 3),
    (Kind::Create, 2),
    (Kind::Update, 4),
    (Kind::Patch, 5),
    (Kind::Delete, 2),
    (Kind::ConditionalCreate, 1),
    (Kind::ConditionalUpdate, 2),
    (Kind::ConditionalPatch, 2),
    (Kind::ConditionalDelete, 1),
    (Kind::Batch, 3),
    (Kind::Transaction, 3),
    (Kind::Everything, 1),
    (Kind::LastN, 1),
    (Kind::Validate, 1),
    (Kind::Expand, 1),
    (Kind::Lookup, 1),
    (Kind::Export, 1),
    (Kind::OtherOperation, 1),
    (Kind::Capabilities, 1),
    (Kind::Malformed, 2),
];

impl<'g> Generator<'g> {
    pub(super) fn new(ground: Ground<'g>, seed: u64, role: &str) -> Self {
        let mut dice = Dice::new(seed, role);
        let every = |open: bool| {
            let types = ResourceType::all().filter(move |resource| ground.open.contains(resource) == open);
            types.flat_map(|resource| r4::search_parameters(resource).map(move |one| (resource, one)))
        };
        let (mut open, mut shut): (Vec<_>, Vec<_>) = (every(true).collect(), every(false).collect());
        dice.shuffle(&mut open);
        dice.shuffle(&mut shut);
        // Shut types are refused by type, mostly: one in six is enough until all open ones were asked.
        let mut parameters = VecDeque::new();
        let mut shut = shut.into_iter();
        for (place, one) in open.into_iter().enumerate() {
            parameters.push_back(one);
            parameters.extend(shut.next().filter(|_| place % 5 == 4));
        }
        parameters.extend(shut);
        let shown = ground.worlds.known.iter().filter(|known| known.shown).collect();
        Self { ground, dice, parameters, shown, turn: 0 }
    }

    /// The next request. Kinds come in turn, so that even a short run asks all of them.
    pub(super) fn next(&mut self) -> Ask {
        let total: usize = MIX.iter().map(|(_, share)| share).sum();
        let slot = self.turn.wrapping_mul(37).checked_rem(total).unwrap_or(0);
        self.turn += 1;
        let mut left = slot;
        let kind = MIX.iter().find_map(|(kind, share)| match left.checked_sub(*share) {
            Some(rest) => {
                left = rest;
                None
            }
            None => Some(*kind),
        });
        self.of(kind.unwrap_or(Kind::Read))
    }

    /// A request of this kind.
    pub(super) fn of(&mut self, kind: Kind) -> Ask {
        match kind {
            Kind::Read | Kind::ConditionalRead | Kind::Head | Kind::Vread => self.read(kind),
            Kind::HistoryInstance | Kind::HistoryType | Kind::HistorySystem => self.history(kind),
            Kind::SearchType | Kind::Page | Kind::SearchCompartment | Kind::SearchSystem => self.search(kind),
            Kind::Create
            | Kind::Update
            | Kind::Patch
            | Kind::Delete
            | Kind::ConditionalCreate
            | Kind::ConditionalUpdate
            | Kind::ConditionalPatch
            | Kind::ConditionalDelete => self.write(kind),
            Kind::Batch | Kind::Transaction => self.bundle(kind),
            Kind::Everything
            | Kind::LastN
            | Kind::Validate
            | Kind::Expand
            | Kind::Lookup
            | Kind::Export
            | Kind::OtherOperation => self.operation(kind),
            Kind::Capabilities => {
                Ask::get(kind, self.dice.word(&["metadata", ".well-known/smart-configuration"]))
            }
            Kind::Malformed => self.malformed(),
        }
    }

    /// `Type/id` and a version, of a record that is there in at least one world, mostly of one that is seen; now and
    /// then of none.
    fn address(&mut self) -> (&'static str, String, String) {
        let known = if self.dice.chance(60) {
            self.dice.pick(&self.shown).copied()
        } else {
            self.dice.pick(&self.ground.worlds.known)
        };
        match known {
            Some(known) if !self.dice.chance(6) => {
                let version = self.dice.pick(&known.versions).cloned().unwrap_or_default();
                (known.resource.name(), known.id.clone(), version)
            }
            Some(known) => (known.resource.name(), "nobody".to_owned(), "1".to_owned()),
            None => ("Patient", "p1".to_owned(), "1".to_owned()),
        }
    }

    fn read(&mut self, kind: Kind) -> Ask {
        let (resource, id, version) = self.address();
        let path = format!("{resource}/{id}");
        let mut ask = match kind {
            Kind::Head => Ask::new(kind, "HEAD", path),
            Kind::Vread => {
                let version =
                    if self.dice.chance(15) { self.dice.word(&["0", "9", "x"]).to_owned() } else { version };
                Ask::get(kind, format!("{path}/_history/{version}"))
            }
            _ => Ask::get(kind, path),
        };
        if kind == Kind::ConditionalRead {
            let value = match self.dice.below(6) {
                0 => return ask.header("if-modified-since", self.dice.word(DATES)),
                1 => "*".to_owned(),
                2 => "W/\"1\", W/\"2\", W/\"3\"".to_owned(),
                3 => "\"1\"".to_owned(),
                4 => "W/\"0\"".to_owned(),
                _ => format!("W/\"{}\"", self.dice.word(&["1", "2", "3"])),
            };
            return ask.header("if-none-match", value);
        }
        if self.dice.chance(45) {
            let (name, value) = self.shape(resource);
            ask = ask.with(&name, value);
        }
        if self.dice.chance(12) {
            ask = ask.header("accept-encoding", self.dice.word(&["gzip", "zstd", "gzip, zstd;q=0.5", "br"]));
        }
        if self.dice.chance(8) {
            ask = ask.header(
                "accept",
                self.dice.word(&[
                    "application/fhir+xml",
                    "text/turtle",
                    "application/json",
                    "*/*",
                    "image/png",
                ]),
            );
        }
        ask
    }

    fn history(&mut self, kind: Kind) -> Ask {
        let (resource, id, _) = self.address();
        let path = match kind {
            Kind::HistorySystem => "_history".to_owned(),
            Kind::HistoryType => format!("{resource}/_history"),
            _ => format!("{resource}/{id}/_history"),
        };
        let mut ask = Ask::get(kind, path);
        if self.dice.chance(40) {
            ask = ask.with("_count", self.dice.word(COUNTS));
        }
        if self.dice.chance(20) {
            ask = ask.with(
                "_since",
                self.dice.word(&["2026-01-01T00:00:00Z", "2026-01-15T08:30:00.000Z", "2030-01-01T00:00:00Z"]),
            );
        }
        if self.dice.chance(15) {
            ask = ask.with("_at", self.dice.word(&["2026", "2026-01-15", "1999"]));
        }
        if self.dice.chance(15) {
            let (name, value) = self.shape(resource);
            ask = ask.with(&name, value);
        }
        ask
    }

    /// What of a record is asked for.
    fn shape(&mut self, resource: &str) -> (String, String) {
        match self.dice.below(5) {
            0 | 1 => {
                let elements = r4::structure(resource).map(r4::elements).unwrap_or_default();
                let names: Vec<&str> = elements.iter().map(|one| one.name).collect();
                let mut chosen = vec![self.dice.word(&names), self.dice.word(&names)];
                chosen.truncate(1 + self.dice.below(2));
                ("_elements".to_owned(), chosen.join(","))
            }
            2 => ("_pretty".to_owned(), self.dice.word(&["true", "false"]).to_owned()),
            3 => {
                let formats = ["json", "application/fhir+json", "xml", "application/fhir+xml", "ttl"];
                ("_format".to_owned(), self.dice.word(&formats).to_owned())
            }
            _ => {
                let summaries = ["true", "text", "data", "count", "false"];
                ("_summary".to_owned(), self.dice.word(&summaries).to_owned())
            }
        }
    }

    /// A value that some record of either world has where `reads` points, or one that fits the type.
    fn value_at(&mut self, reads: &[&str], fallback: &'static [&'static str]) -> String {
        let found: Vec<&str> = reads.iter().flat_map(|path| self.ground.worlds.values.under(path)).collect();
        if found.is_empty() || self.dice.chance(10) {
            return self.dice.word(fallback).to_owned();
        }
        self.dice.pick(&found).map(|text| (*text).to_owned()).unwrap_or_default()
    }
}

const DATES: &[&str] = &[
    "Thu, 01 Jan 2026 00:00:00 GMT",
    "Thu, 15 Jan 2026 08:30:00 GMT",
    "Tue, 01 Jan 2030 00:00:00 GMT",
    "yesterday",
];
const COUNTS: &[&str] = &["1", "2", "3", "5", "50", "0", "100000", "-1"];
