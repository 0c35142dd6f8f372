//! Kills the process, or fails the call, at every write, sync, rename and unlink of a journal at work, and checks
//! that the trail then verifies, opens, goes on, and holds every record that was acknowledged. And the same through the
//! gate, under load: `cargo test --test journal_faults table -- --nocapture` prints the table of docs/audit.md.
//!
//! Owns: the one test that does not take the write path's word for its order. The process is this test itself,
//! started again with `tests/faults/libc.c` in front of the C library. Must never: count a skip as a pass in
//! silence. Look next: `edge::journal::writer` and `publisher`, whose headers argue what is tested here.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::format_push_string,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test may, in its functions too; what is skipped is said"
)]

#[cfg(feature = "demo")]
#[path = "journey/child.rs"]
#[expect(dead_code, reason = "the journeys use all of it")]
mod child;
#[cfg(feature = "demo")]
#[path = "journey/harness.rs"]
#[expect(dead_code, reason = "the journeys use all of it")]
mod harness;
#[cfg(feature = "demo")]
#[path = "faults/power.rs"]
mod power;
#[cfg(feature = "demo")]
#[path = "faults/table.rs"]
mod table;

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use chartgate::domain::audit::{Assembly, Decision, Record, Verdict, Written};
use chartgate::edge::journal::{
    Journal, Kept, Keys, Request, Settings, create, generate_missing, inspect, read_entries,
};
use chartgate::limits::RESERVE_BYTES_MIN;
use jiff::Timestamp;

fn settings(place: &Path) -> Settings {
    Settings {
        directory: place.join("audit"),
        signing_key: place.join("signing.key"),
        encryption_key: place.join("encryption.key"),
    }
}

fn record(id: &str) -> Record {
    let time: Timestamp = "2026-03-01T08:00:00Z".parse().unwrap();
    Record::Decision(Box::new(Decision::new(time, id.to_owned(), Verdict::Refuse)))
}

fn intent(id: &str) -> Record {
    let Record::Decision(decision) = record(id) else { panic!("a decision") };
    let written = Written {
        reference: "Patient/p1".to_owned(),
        version: None,
        patients: ["p1".to_owned()].into(),
        mask: vec!["Patient.telecom".to_owned()].into(),
    };
    Record::Intent(Box::new(Decision { verdict: Verdict::Permit, written: vec![written], ..*decision }))
}

/// Writes every id that was acknowledged to a file beside the trail, as a client would know it.
fn work(place: &Path) {
    let Ok(journal) = Journal::open(&settings(place)) else { return };
    let mut seen = fs::File::create(place.join("acknowledged")).unwrap();
    let mut reserved = fs::File::create(place.join("reserved")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if runtime.block_on(journal.keep_reserve(Some(RESERVE_BYTES_MIN))).is_ok() {
        writeln!(reserved, "ready").unwrap();
    }
    for round in 0..2 {
        let one = format!("one-{round}");
        let many: Vec<Record> = (0..260).map(|n| record(&format!("many-{round}-{n}"))).collect();
        match runtime.block_on(journal.append(&[record(&one)])) {
            Ok(_) => writeln!(seen, "{one}").unwrap(),
            // As the gateway does it for an emergency: only when nothing of it stands in the log.
            Err(error) if error.is_out_of_service() => {
                let receipt = runtime.block_on(journal.append_in_reserve(&[record(&one)]));
                if receipt.is_ok_and(|receipt| receipt.kept() == Kept::Reserve) {
                    writeln!(reserved, "{one}").unwrap();
                }
            }
            Err(_) => {}
        }
        if runtime.block_on(journal.append(&many)).is_ok() {
            writeln!(seen, "many-{round}-0\nmany-{round}-259").unwrap();
        }
        // A write as the gateway does it: the EMR is asked only after this.
        let write = format!("write-{round}");
        if runtime.block_on(journal.append(&[intent(&write)])).is_ok() {
            writeln!(seen, "{write}").unwrap();
        }
    }
    let _out_of_service = runtime.block_on(journal.close());
}

fn findings(settings: &Settings) -> usize {
    let keys = Keys::load(settings).unwrap();
    let found = inspect(&settings.directory, &keys, Request { decode: true, ..Request::default() }).unwrap();
    found.findings.iter().for_each(|finding| println!("{finding}"));
    found.findings.len()
}

/// The request of every record, as they stand.
#[cfg(feature = "demo")]
fn request_ids(settings: &Settings) -> Vec<String> {
    let keys = Keys::load(settings).unwrap();
    let (mut ids, mut assembly) = (Vec::new(), Assembly::default());
    read_entries(&settings.directory, &keys, &mut |entry| {
        let record = assembly.push(entry.sequence, entry.part.unwrap()).unwrap();
        ids.extend(record.and_then(|(_, record)| record.request_id().map(str::to_owned)));
        Ok(())
    })
    .unwrap();
    ids
}

fn recorded(settings: &Settings) -> Vec<String> {
    let keys = Keys::load(settings).unwrap();
    let (mut ids, mut assembly) = (Vec::new(), Assembly::default());
    read_entries(&settings.directory, &keys, &mut |entry| {
        let record = assembly.push(entry.sequence, entry.part.unwrap()).unwrap();
        if let Some((_, record)) = record {
            let is_intent = matches!(&record, Record::Intent(intent) if intent.written.len() == 1);
            let id = record.request_id().map(str::to_owned);
            assert_eq!(
                is_intent,
                id.as_ref().is_some_and(|id| id.starts_with("write-")),
                "nothing is invented"
            );
            ids.extend(id);
        }
        Ok(())
    })
    .unwrap();
    ids
}

/// How many were acknowledged by the log, and how many by the reserve.
fn check(place: &Path, case: &str) -> (usize, usize) {
    let settings = settings(place);
    assert_eq!(findings(&settings), 0, "{case}: after the fault");
    let journal = Journal::open(&settings).unwrap_or_else(|error| panic!("{case}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _receipt = runtime.block_on(journal.append(&[record("after")])).unwrap();
    runtime.block_on(journal.close()).unwrap();
    assert_eq!(findings(&settings), 0, "{case}: after going on");
    let recorded = recorded(&settings);
    let acknowledged = fs::read_to_string(place.join("acknowledged")).unwrap_or_default();
    let reserved = fs::read_to_string(place.join("reserved")).unwrap_or_default();
    let is_ready = reserved.starts_with("ready");
    let reserved: Vec<&str> = reserved.lines().filter(|line| *line != "ready").collect();
    assert!(is_ready || reserved.is_empty(), "{case}: a reserve took a record and was not there");
    for id in acknowledged.lines().chain(reserved.iter().copied()) {
        assert!(recorded.iter().any(|there| there == id), "{case}: `{id}` was acknowledged and is lost");
    }
    for (at, id) in recorded.iter().enumerate() {
        assert!(!recorded.iter().skip(at + 1).any(|other| other == id), "{case}: `{id}` is there twice");
    }
    (acknowledged.lines().count(), reserved.len())
}

fn build(place: &Path) -> Option<PathBuf> {
    let library = place.join("faults.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/libc.c");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

#[test]
fn nothing_acknowledged_is_lost_whatever_call_fails() {
    if let Ok(place) = env::var("FAULT_PLACE") {
        return work(Path::new(&place));
    }
    let root = tempfile::tempdir().unwrap();
    let Some(library) = build(root.path()) else {
        println!("SKIPPED: no C compiler for tests/faults/libc.c (Linux with cc is needed)");
        return;
    };
    // Dying is tried at every call. Failing calls all end in the same place, so every fourth is enough.
    for (fault, step) in [("die", 1), ("once", 4), ("full", 4)] {
        let (mut acknowledged, mut reserved) = (0, 0);
        for at in (1..400).step_by(step) {
            let place = root.path().join(format!("{fault}-{at}"));
            fs::create_dir(&place).unwrap();
            generate_missing(&settings(&place)).unwrap();
            create(&settings(&place), Timestamp::UNIX_EPOCH).unwrap();
            let status = Command::new(env::current_exe().unwrap())
                .args(["--exact", "nothing_acknowledged_is_lost_whatever_call_fails"])
                .env("FAULT_PLACE", &place)
                .env("FAULT", fault)
                .env("FAULT_AT", at.to_string())
                .env("LD_PRELOAD", &library)
                .output()
                .unwrap()
                .status;
            let here;
            (acknowledged, here) = check(&place, &format!("{fault} at {at}"));
            reserved += here;
            fs::remove_dir_all(&place).unwrap();
            // Past the last call nothing fails any more: all is acknowledged, and the process ends well. A few
            // more are tried, since the publisher's calls come behind the last acknowledgement.
            if acknowledged == 8 && status.success() && at > 80 {
                break;
            }
        }
        assert_eq!(acknowledged, 8, "{fault}: the loop ended before the work did");
        assert_eq!(reserved > 0, fault != "die", "{fault}: {reserved} records were taken by the reserve");
    }
}
