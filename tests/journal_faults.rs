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
use std::time::Duration;

use chartgate::domain::audit::{Assembly, Decision, Keep, Record, Verdict, Written};
use chartgate::edge::journal::{
    Journal, Kept, Keys, OpenError, Plan, Request, Settings, create, generate_encryption_key,
    generate_missing, inspect, plan, read_entries, retain,
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
    let Ok(journal) = open(&settings(place)) else { return };
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
    let journal = open(&settings).unwrap_or_else(|error| panic!("{case}: {error}"));
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

/// The file of the key that is rotated to, in a place.
fn next_settings(place: &Path) -> Settings {
    Settings { encryption_key: place.join("next.key"), ..settings(place) }
}

/// A segment for each of these, each with a data key.
fn fill(settings: &Settings, rounds: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (round, time) in rounds.iter().enumerate() {
        let journal = open(settings).unwrap();
        let at = |n: usize| {
            let decision = Decision::new(time.parse().unwrap(), format!("many-{round}-{n}"), Verdict::Refuse);
            Record::Decision(Box::new(decision))
        };
        let many: Vec<Record> = (0..260).map(at).collect();
        let _receipt = runtime.block_on(journal.append(&many)).unwrap();
        runtime.block_on(journal.close()).unwrap();
    }
}

/// Opens a trail that nobody here has open. A child that another test is starting holds every lock of this process until its
/// program begins: for a moment.
fn open(settings: &Settings) -> Result<Journal, OpenError> {
    for _ in 0..500 {
        match Journal::open(settings) {
            Err(OpenError::InUse(_)) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened,
        }
    }
    Journal::open(settings)
}

/// Changes the key; the first opening with the new one is part of it.
fn rotate(place: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (old, next) = (settings(place), next_settings(place));
    if generate_encryption_key(&next.encryption_key).is_err() {
        return;
    }
    let Ok(journal) = Journal::open_to_rotate(&old) else { return };
    let done = runtime.block_on(journal.rotate_key(&next.encryption_key));
    let closed = runtime.block_on(journal.close());
    if done.is_ok() && closed.is_ok() && open(&next).is_ok() {
        fs::write(place.join("done"), "").unwrap();
    }
}

const OLD: &str = "2026-03-01T08:00:00Z";
const LATE: &str = "2033-03-01T08:00:00Z";

fn planned(settings: &Settings) -> Plan {
    let keys = Keys::load(settings).unwrap();
    let now = "2034-01-01T00:00:00Z".parse().unwrap();
    plan(&settings.directory, &keys, Keep::parse("6y").unwrap(), now).unwrap()
}

/// Whether everything that may go went.
fn prune(place: &Path) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = settings(place);
    let Ok(journal) = open(&settings) else { return false };
    let now = "2034-01-01T00:00:00Z".parse().unwrap();
    let done = runtime.block_on(retain(&journal, &settings, planned(&settings), "records office", now));
    let closed = runtime.block_on(journal.close());
    done.is_ok() && closed.is_ok()
}

/// Whatever call dies or fails, the trail verifies, nothing that is to stay is lost, and the next prune finishes.
#[test]
fn a_prune_may_die_or_fail_at_every_call() {
    if let Ok(place) = env::var("FAULT_PLACE") {
        if prune(Path::new(&place)) {
            fs::write(Path::new(&place).join("done"), "").unwrap();
        }
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let Some(library) = build(root.path()) else {
        println!("SKIPPED: no C compiler for tests/faults/libc.c (Linux with cc is needed)");
        return;
    };
    let filled = root.path().join("filled");
    fs::create_dir(&filled).unwrap();
    generate_missing(&settings(&filled)).unwrap();
    create(&settings(&filled), OLD.parse().unwrap()).unwrap();
    fill(&settings(&filled), &[OLD, OLD, OLD, LATE, LATE]);
    let goes = planned(&settings(&filled)).bundles;
    assert_eq!(goes.to_string(), "0-2");
    for (fault, step) in [("die", 1), ("once", 3)] {
        let (mut interrupted, mut is_done) = (0, false);
        for at in (1..200).step_by(step) {
            let place = root.path().join(format!("{fault}-{at}"));
            copy_all(&filled, &place);
            let status = fault_in("a_prune_may_die_or_fail_at_every_call", &place, &library, (fault, at));
            let settings = settings(&place);
            assert_eq!(findings(&settings), 0, "{fault} at {at}");
            let left =
                (0..3).filter(|n| settings.directory.join(format!("tile/entries/00{n}")).exists()).count();
            interrupted += usize::from(left > 0 && left < 3);
            assert!(prune(&place), "{fault} at {at}: the next one finishes");
            assert_eq!(findings(&settings), 0, "{fault} at {at}: finished");
            assert_eq!(
                planned(&settings).unfinished + planned(&settings).bundles.count(),
                0,
                "{fault} at {at}"
            );
            assert_eq!(
                fs::read_dir(settings.directory.join("tile/entries"))
                    .unwrap()
                    .flatten()
                    .filter(|entry| entry.file_name().len() == 3)
                    .count(),
                2,
                "{fault} at {at}"
            );
            // 1301 entries and the 768 that are withheld: the late ones are all there.
            let late = recorded(&settings)
                .into_iter()
                .filter(|id| id.starts_with("many-3") || id.starts_with("many-4"));
            assert_eq!(late.count(), 520, "{fault} at {at}");
            is_done = status && place.join("done").exists();
            fs::remove_dir_all(&place).unwrap();
            if is_done && at > 15 {
                break;
            }
        }
        assert!(is_done, "{fault}: the loop ended before the work did");
        assert!(interrupted > 0 || fault == "once", "{fault}: {interrupted}");
    }
}

/// Whatever call dies or fails, one of the two keys opens the trail, and every record is there.
#[test]
fn a_change_of_the_key_may_die_or_fail_at_every_call() {
    if let Ok(place) = env::var("FAULT_PLACE") {
        return rotate(Path::new(&place));
    }
    let root = tempfile::tempdir().unwrap();
    let Some(library) = build(root.path()) else {
        println!("SKIPPED: no C compiler for tests/faults/libc.c (Linux with cc is needed)");
        return;
    };
    let filled = root.path().join("filled");
    fs::create_dir(&filled).unwrap();
    generate_missing(&settings(&filled)).unwrap();
    create(&settings(&filled), Timestamp::UNIX_EPOCH).unwrap();
    fill(&settings(&filled), &[OLD, OLD, OLD]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (fault, step) in [("die", 1), ("once", 3)] {
        let (mut by_old, mut by_next, mut is_done) = (0, 0, false);
        for at in (1..300).step_by(step) {
            let place = root.path().join(format!("{fault}-{at}"));
            copy_all(&filled, &place);
            let status =
                fault_in("a_change_of_the_key_may_die_or_fail_at_every_call", &place, &library, (fault, at));
            let (old, next) = (settings(&place), next_settings(&place));
            let (opener, journal, count) = match open(&old) {
                Ok(journal) => (&old, journal, &mut by_old),
                Err(error) => match open(&next) {
                    Ok(journal) => (&next, journal, &mut by_next),
                    Err(other) => panic!("{fault} at {at}: neither key: {error}; {other}"),
                },
            };
            *count += 1;
            runtime.block_on(journal.close()).unwrap();
            assert_eq!(findings(opener), 0, "{fault} at {at}");
            assert_eq!(recorded(opener).len(), 780, "{fault} at {at}");
            is_done = status && place.join("done").exists();
            fs::remove_dir_all(&place).unwrap();
            if is_done && at > 20 {
                break;
            }
        }
        assert!(
            is_done && by_old > 5 && by_next > 3,
            "{fault}: {by_old} by the old key, {by_next} by the new one"
        );
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Runs a test of this file again, as the process to which the fault happens. Whether it ended well.
fn fault_in(test: &str, place: &Path, library: &Path, (fault, at): (&str, usize)) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test]).env("FAULT_PLACE", place).env("FAULT", fault);
    command.env("FAULT_AT", at.to_string()).env("LD_PRELOAD", library).output().unwrap().status.success()
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
