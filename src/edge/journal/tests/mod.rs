//! The journal against a real directory.

mod crash;
mod keys;
mod opening;
mod reserve;
mod retention;
mod service;
mod tamper;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::domain::audit::{Decision, Released, Verdict};

/// A directory with keys and a trail.
struct Ward {
    place: TempDir,
    settings: Settings,
}

fn time() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

impl Ward {
    fn new() -> Self {
        let ward = Self::empty();
        generate_missing(&ward.settings).unwrap();
        create(&ward.settings, time()).unwrap();
        ward
    }

    fn empty() -> Self {
        let place = TempDir::new().unwrap();
        let settings = settings_in(place.path());
        Self { place, settings }
    }

    fn open(&self) -> Journal {
        Journal::open(&self.settings).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.directory.join(name)
    }

    /// The directory as it is at this moment, as after `kill -9`, with the same keys.
    fn snapshot(&self) -> Ward {
        let copy = Self::empty();
        copy_all(self.place.path(), copy.place.path());
        copy
    }

    fn findings(&self) -> Vec<Finding> {
        self.inspect().findings
    }

    fn inspect(&self) -> Inspection {
        let keys = Keys::load(&self.settings).unwrap();
        inspect(&self.settings.directory, &keys, Request { decode: true, ..Request::default() }).unwrap()
    }

    fn inspect_origin(&self) -> String {
        let keys = Keys::load(&self.settings).unwrap();
        verifier(&self.settings.directory, &keys).unwrap().name().to_owned()
    }

    #[track_caller]
    fn verifies(&self) -> u64 {
        let found = self.inspect();
        assert_eq!(found.findings, []);
        found.size
    }

    /// Every file of evidence with its content.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.settings.directory.clone()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if !path.ends_with("journal.lock") {
                files.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
        files
    }

    /// Request ids of all decisions, in sequence.
    fn request_ids(&self) -> Vec<String> {
        let keys = Keys::load(&self.settings).unwrap();
        let mut assembly = audit::Assembly::default();
        let mut ids = Vec::new();
        read_entries(&self.settings.directory, &keys, &mut |entry| {
            let record = assembly.push(entry.sequence, entry.part.unwrap()).unwrap();
            if let Some((_, Record::Decision(decision))) = record {
                ids.push(decision.request_id);
            }
            Ok(())
        })
        .unwrap();
        ids
    }
}

fn settings_in(place: &Path) -> Settings {
    Settings {
        directory: place.join("audit"),
        signing_key: place.join("audit.key"),
        encryption_key: place.join("audit.aes"),
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// An id that does not compress much.
fn long_id(id: &str, n: usize) -> String {
    let hash = crate::domain::ledger::Hash::of(&[id.as_bytes(), &n.to_be_bytes()]);
    let more = crate::domain::ledger::Hash::of(&[hash.as_bytes()]);
    let letters = hash.as_bytes().iter().chain(more.as_bytes()).take(60);
    letters
        .map(|byte| {
            char::from(
                b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-."[usize::from(byte % 64)],
            )
        })
        .collect()
}

fn release(id: &str, items: usize) -> Record {
    let mask = Arc::new(vec!["Observation".to_owned()]);
    let mut decision = Decision::new(time(), id.to_owned(), Verdict::Permit);
    decision.request = "GET Observation?patient=p1".to_owned();
    decision.released = (0..items)
        .map(|n| Released {
            reference: format!("Observation/{}", long_id(id, n)),
            version: None,
            patients: [format!("p{}", n % 7)].into(),
            mask: Arc::clone(&mask),
        })
        .collect();
    Record::Decision(Box::new(decision))
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn append(journal: &Journal, id: &str) -> Result<Receipt, JournalError> {
    block(journal.append(&[release(id, 1)]))
}

fn append_many(journal: &Journal, count: usize) {
    let records: Vec<Record> = (0..count).map(|n| release(&format!("many-{n}"), 1)).collect();
    let _receipt = block(journal.append(&records)).unwrap();
}

fn close(journal: &Journal) {
    block(journal.close()).unwrap();
}
