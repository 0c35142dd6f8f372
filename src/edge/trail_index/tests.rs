//! Postings, and what the index's file holds.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;

use super::posting::{Posting, both, either, read};
use super::*;
use crate::domain::audit::{Caller, Decision, Filter, Record, Released, Verdict};
use crate::edge::journal::{Journal, create, generate_missing};

proptest! {
    /// What is written is read; a list cut short or lengthened by a zero distance is refused.
    #[test]
    fn a_posting_is_read_as_it_was_written(numbers in proptest::collection::btree_set(any::<u64>(), 1..50)) {
        let mut posting = Posting::default();
        numbers.iter().for_each(|number| posting.push(*number));
        let numbers: Vec<u64> = numbers.into_iter().collect();
        prop_assert_eq!(read(posting.bytes()), Some(numbers));
        prop_assert_eq!(read(&[posting.bytes(), &[0]].concat()), None);
        prop_assert_eq!(read(&[posting.bytes(), &[0x80]].concat()), None);
    }

    #[test]
    fn sets_meet_as_sets_do(
        left in proptest::collection::btree_set(0_u64..40, 0..20),
        right in proptest::collection::btree_set(0_u64..40, 0..20),
    ) {
        let (l, r): (Vec<u64>, Vec<u64>) = (left.iter().copied().collect(), right.iter().copied().collect());
        prop_assert_eq!(both(&l, &r), left.intersection(&right).copied().collect::<Vec<_>>());
        prop_assert_eq!(either(l, r), left.union(&right).copied().collect::<Vec<_>>());
    }
}

#[test]
fn numbers_that_do_not_rise_are_left_out() {
    let mut posting = Posting::default();
    [3, 3, 2, 9].into_iter().for_each(|number| posting.push(number));
    assert_eq!(read(posting.bytes()), Some(vec![3, 9]));
    assert_eq!(read(&[0xff; 12]), None, "more than 64 bits");
}

/// A trail, and where its index is.
struct Place {
    _folder: TempDir,
    settings: Settings,
    path: PathBuf,
}

impl Place {
    fn with(records: &[Record]) -> Self {
        let folder = TempDir::new().unwrap();
        let settings = Settings {
            directory: folder.path().join("audit"),
            signing_key: folder.path().join("audit.key"),
            encryption_key: folder.path().join("audit.aes"),
        };
        generate_missing(&settings).unwrap();
        create(&settings, Timestamp::UNIX_EPOCH).unwrap();
        let journal = Journal::open(&settings).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            for record in records {
                let _receipt = journal.append(std::slice::from_ref(record)).await.unwrap();
            }
            journal.close().await.unwrap();
        });
        let path = folder.path().join("index.sqlite");
        Self { _folder: folder, settings, path }
    }

    /// The index, brought up to date; `shape` may change its bounds first.
    fn index(&self, shape: impl FnOnce(&mut Index)) -> (Index, Updated) {
        let keys = Keys::load(&self.settings).unwrap();
        let mut index = Index::create(&self.path, &self.settings).unwrap();
        shape(&mut index);
        let (_, updated) = index.current(&self.settings, &keys, &mut |_| {}).unwrap();
        (index, updated)
    }

    /// Does something to the file that no update does.
    fn harm(&self, statements: &str) {
        rusqlite::Connection::open(&self.path).unwrap().execute_batch(statements).unwrap();
    }
}

/// A release of so many records of a patient, by a person with these roles.
fn release(id: usize, (subject, roles): (&str, &[&str]), patient: &str, records: usize) -> Record {
    let time = "2026-03-01T09:00:00Z".parse().unwrap();
    let mut decision = Decision::new(time, format!("r{id}"), Verdict::Permit);
    decision.caller = Some(Caller {
        issuer: "https://a".to_owned(),
        subject: subject.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..Caller::default()
    });
    decision.released = (0..records)
        .map(|number| Released {
            reference: format!("Observation/{}", format!("{id}-{number}-").repeat(6)),
            version: None,
            patients: [patient.to_owned()].into(),
            mask: Arc::new(vec!["Observation.value".to_owned()]),
        })
        .collect();
    Record::Decision(Box::new(decision))
}

fn of(patient: &str, subject: Option<&str>) -> Filter {
    Filter { patient: Some(patient.to_owned()), subject: subject.map(str::to_owned), ..Filter::default() }
}

/// A record of several entries stands in one shard, however small shards are.
#[test]
fn a_record_is_not_divided_between_shards() {
    let records: Vec<Record> = (0..6).map(|id| release(id, ("ann", &["nurse"]), "p1", 1_500)).collect();
    let place = Place::with(&records);
    let (mut index, updated) = place.index(|index| index.shard_entries = 2);
    assert!(updated.entries > 12, "records of several parts: {updated:?}");
    assert_eq!(index.faults().unwrap(), []);
    let found = index.find(&of("p1", None)).unwrap().unwrap();
    assert_eq!(found.len(), 6, "{found:?}");
    let day = index.day(day_number(Date::constant(2026, 3, 1)).unwrap()).unwrap();
    assert_eq!(day.iter().map(|tally| (tally.answers, tally.records)).collect::<Vec<_>>(), [(6, 9_000)]);
}

/// A list that costs more to read than it would leave out is not read: then more is found, and never less.
#[test]
fn a_list_that_is_too_dear_leaves_nothing_out() {
    let records: Vec<Record> = (0..40)
        .map(|id| release(id, (["ann", "ben"][id % 2], &["nurse"]), ["p1", "p2"][id / 20], 1))
        .collect();
    let place = Place::with(&records);
    let find = |candidate_bytes: usize| {
        let (mut index, _) = place.index(|index| index.candidate_bytes = candidate_bytes);
        index.find(&of("p2", Some("ann"))).unwrap().unwrap()
    };
    let exact = find(usize::MAX);
    assert_eq!(exact.len(), 10, "{exact:?}");
    let more = find(0);
    assert_eq!(more.len(), 20, "one list was read");
    assert!(exact.iter().all(|number| more.contains(number)));
}

/// What is of another key or another version is of no use, whatever it says: it is made anew.
#[test]
fn an_index_of_another_key_or_version_is_made_anew() {
    let place = Place::with(&[release(0, ("ann", &["nurse"]), "p1", 1)]);
    let found = || {
        let (mut index, updated) = place.index(|_| {});
        (index.find(&of("p1", None)).unwrap().unwrap().len(), updated.entries)
    };
    assert_eq!((found(), found()), ((1, 2), (1, 0)));
    place.harm("UPDATE state SET key = x'00'; DELETE FROM posting;");
    assert_eq!(found(), (1, 2), "another key");
    place.harm("PRAGMA user_version = 9; DELETE FROM posting;");
    assert_eq!(found(), (1, 2), "another version");
    place.harm("DELETE FROM posting;");
    assert_eq!(found(), (0, 0), "whoever can write the file can hide: docs/audit.md says so");
}

/// Who has the same roles is on one line, in whatever order the token named them.
#[test]
fn roles_have_no_order() {
    let one = release(0, ("ann", &["nurse", "clerk"]), "p1", 1);
    let other = release(1, ("ann", &["clerk", "nurse"]), "p1", 2);
    let place = Place::with(&[one, other]);
    let (index, _) = place.index(|_| {});
    let day = index.day(day_number(Date::constant(2026, 3, 1)).unwrap()).unwrap();
    let told: Vec<(&str, u64, u64)> =
        day.iter().map(|tally| (tally.roles.as_str(), tally.answers, tally.records)).collect();
    assert_eq!(told, [("clerk nurse", 2, 3)]);
}
