//! Retention, holds and changing the key, as commands, beside a gate that runs and without one.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use super::index_tests::run;
use super::*;
use crate::domain::audit::{Caller, Decision, Hold, Keep, Record, Released, Verdict};
use crate::edge::journal::Journal;
use crate::edge::orders;

/// A trail whose first bundles are of 2015; each patient has one record in each bundle.
struct Archive {
    place: TempDir,
    settings: Settings,
}

const OLD: &str = "2015-03-01T08:00:00Z";

fn record(name: &str, n: usize, at: &str) -> Record {
    let mut decision = Decision::new(at.parse().unwrap(), format!("{name}-{n}"), Verdict::Permit);
    decision.caller = Some(Caller {
        issuer: "https://idp.example".to_owned(),
        subject: "nurse".to_owned(),
        ..Caller::default()
    });
    decision.interaction = "read".to_owned();
    decision.request = format!("GET Patient/p{n}");
    decision.released = vec![Released {
        reference: format!("Patient/p{n}"),
        version: None,
        patients: [format!("p{n}")].into(),
        mask: Arc::new(vec!["Patient.name".to_owned()]),
    }];
    Record::Decision(Box::new(decision))
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

impl Archive {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let settings = Settings {
            directory: place.path().join("audit"),
            signing_key: place.path().join("secrets/audit.key"),
            encryption_key: place.path().join("secrets/audit.aes"),
        };
        generate_missing(&settings).unwrap();
        journal::create(&settings, OLD.parse().unwrap()).unwrap();
        let archive = Self { place, settings };
        for (name, at) in
            [("a", OLD), ("b", OLD), ("c", "2026-03-01T08:00:00Z"), ("d", "2026-03-01T09:00:00Z")]
        {
            let journal = Journal::open(&archive.settings).unwrap();
            let records: Vec<Record> = (0..280).map(|n| record(name, n, at)).collect();
            let _receipt = block(journal.append(&records)).unwrap();
            block(journal.close()).unwrap();
        }
        archive
    }

    fn retain(&self, keep: Option<&str>, dry_run: bool) -> (u8, String, String) {
        let keep = keep.map(|text| Keep::parse(text).unwrap());
        let order = Retention { keep, dry_run, operator: "records office".to_owned(), as_json: true };
        run(|out, err| retain(&self.settings, &order, out, err))
    }

    fn hold(&self, patient: &str, reason: &str) -> (u8, String, String) {
        let hold = Hold {
            id: format!("id-{patient}"),
            reason: reason.to_owned(),
            operator: "counsel".to_owned(),
            patient: Some(patient.to_owned()),
            subject: None,
            issuer: None,
            since: None,
            until: None,
        };
        run(|out, err| hold_add(&self.settings, &hold, true, out, err))
    }

    fn verifies(&self) {
        let request = Request { decode: true, ..Request::default() };
        let (code, out, err) = run(|out, err| verify(&self.settings, request, false, out, err));
        assert_eq!(code, GOOD, "{out}{err}");
    }

    fn found(&self, filter: &Filter, index: Option<&std::path::Path>) -> Vec<Value> {
        let (code, out, err) = run(|out, err| search_with(&self.settings, index, filter, true, out, err));
        assert_eq!((code, err.as_str()), (GOOD, ""));
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn told(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn retention_needs_a_policy_says_what_it_does_and_leaves_the_rest_searchable() {
    let archive = Archive::new();
    let index = archive.settings.directory.join("index.sqlite");
    assert_eq!(run(|out, err| super::index(&archive.settings, &index, false, true, out, err)).0, GOOD);
    let of = |patient: &str| Filter { patient: Some(patient.to_owned()), ..Filter::default() };
    assert_eq!(archive.found(&of("p7"), Some(&index)).len(), 4);
    let (code, _, err) = archive.retain(None, false);
    assert!(code == PROBLEM && err.contains("without a written policy"), "{err}");
    let (code, out, _) = archive.retain(Some("6y"), true);
    assert_eq!((code, told(&out)["bundles"].as_str()), (GOOD, Some("0-1")), "{out}");
    assert_eq!(told(&out)["removedEntries"], Value::Null);
    assert!(archive.settings.directory.join("tile/entries/001").exists(), "a dry run removes nothing");
    let order = Retention { keep: Keep::parse("6y"), dry_run: true, operator: String::new(), as_json: false };
    let (_, out, _) = run(|out, err| retain(&archive.settings, &order, out, err));
    assert!(out.contains("may go   512 entries in 2 bundles\nnothing was removed"), "{out}");
    let (code, out, err) = archive.retain(Some("6y"), false);
    assert_eq!((code, err.as_str()), (GOOD, ""));
    assert_eq!(
        (told(&out)["removedEntries"].as_u64(), told(&out)["recordedAs"].as_u64()),
        (Some(512), Some(1121))
    );
    assert!(!archive.settings.directory.join("tile/entries/001").exists());
    archive.verifies();
    // The old index knows of what is withheld: it is made anew, and finds what a reading finds.
    for filter in [of("p7"), of("p250"), of("p279"), Filter::default()] {
        assert_eq!(archive.found(&filter, Some(&index)), archive.found(&filter, None), "{filter:?}");
    }
    assert_eq!(archive.found(&of("p7"), Some(&index)).len(), 2);
    let day = "2015-03-01".parse().unwrap();
    let summed = run(|out, err| summary(&archive.settings, &index, day, true, out, err));
    let answers: u64 = summed.1.lines().map(|line| told(line)["answers"].as_u64().unwrap()).sum();
    assert_eq!((summed.0, answers), (GOOD, 49), "of 561 entries, 512 are withheld: {}", summed.1);
    // The trail says so.
    let all = archive.found(&Filter::default(), None);
    let pruned = all.iter().find(|record| record["event"] == "pruned").unwrap();
    assert_eq!(
        (pruned["details"]["policy"].as_str(), pruned["details"]["bundles 00"].as_str()),
        (Some("6y"), Some("0-1"))
    );
    let (_, out, _) = archive.retain(Some("6y"), false);
    assert_eq!(told(&out)["removedEntries"], 0);
}

#[test]
fn holds_need_a_reason_are_listed_and_are_kept_to() {
    let archive = Archive::new();
    for reason in ["", "  ", &"x".repeat(401)] {
        assert_eq!(archive.hold("p7", reason).0, PROBLEM);
    }
    assert_eq!(archive.hold("p7", "case 4711").0, GOOD);
    let (_, out, _) = archive.retain(Some("6y"), false);
    assert_eq!(
        (told(&out)["removedEntries"].as_u64(), told(&out)["heldEntries"].as_u64()),
        (Some(0), Some(512))
    );
    let lift = |id: &str, reason: &str| {
        run(|out, err| hold_lift(&archive.settings, (id, reason, "counsel"), true, out, err))
    };
    assert!(lift("id-p8", "settled").2.contains("no such hold"));
    assert_eq!(lift("id-p7", "").0, PROBLEM);
    let list = |json| run(|out, err| hold_list(&archive.settings, json, out, err)).1;
    assert!(list(false).contains("patient p7  case 4711  (in force)"), "{}", list(false));
    assert_eq!(lift("id-p7", "settled").0, GOOD);
    assert_eq!(told(&list(true))["liftedBecause"], "settled");
    assert!(list(false).ends_with("1 holds, 0 of them in force\n"), "{}", list(false));
    assert_eq!(lift("id-p7", "settled").0, PROBLEM, "it is over");
    let (_, out, _) = archive.retain(Some("6y"), false);
    assert_eq!(told(&out)["removedEntries"], 512);
    archive.verifies();
}

/// Ends the gate's loop, also when an assertion fails.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A gate has the lock: it carries out what is ordered, and the command says what became of it.
#[test]
fn a_gate_that_runs_carries_orders_out() {
    let archive = Archive::new();
    let journal = Journal::open(&archive.settings).unwrap();
    let keep = Keep::parse("6y");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (slip, order) in orders::waiting(&archive.settings, clock::now()).unwrap() {
                    assert!(!fs::read_to_string(&slip).unwrap().contains("case 4711"), "in clear");
                    let order = order.unwrap();
                    let _refused = block(order.carry_out(&journal, &archive.settings, keep, clock::now()));
                    fs::remove_file(slip).unwrap();
                }
            }
        });
        let ends = Over(&over);
        assert_eq!(archive.hold("p7", "case 4711").0, GOOD);
        let lifted = run(|out, err| hold_lift(&archive.settings, ("id-p7", "settled", ""), true, out, err));
        assert_eq!(lifted.0, GOOD, "{}", lifted.2);
        // Under another policy than the gate's nothing happens, and that is said.
        let (code, _, err) = archive.retain(Some("5y"), false);
        assert!(code == PROBLEM && err.contains("did not carry it out"), "{err}");
        let (code, out, err) = archive.retain(Some("6y"), false);
        drop(ends);
        assert_eq!((code, err.as_str()), (GOOD, ""));
        assert_eq!(told(&out)["removedEntries"], 512);
    });
    archive.verifies();
    let before = fs::read_dir(&archive.settings.directory).unwrap().count();
    fs::write(archive.settings.directory.join("order-0123456789abcdef.tmp"), "forged").unwrap();
    assert!(matches!(orders::waiting(&archive.settings, clock::now()).unwrap().as_slice(), [(_, None)]));
    assert_eq!(fs::read_dir(&archive.settings.directory).unwrap().count(), before + 1);
    block(journal.close()).unwrap();
}

#[test]
fn rotate_key_makes_a_key_and_says_what_to_change() {
    let archive = Archive::new();
    let next = archive.place.path().join("secrets/next.aes");
    let reading = crate::edge::readings::Reading::new("search", None, BTreeMap::new(), clock::now());
    crate::edge::readings::leave(&archive.settings, &reading).unwrap();
    let (code, out, err) = run(|out, err| rotate_key(&archive.settings, &next, true, false, (out, err)));
    assert_eq!((code, err.as_str()), (GOOD, ""));
    assert!(out.contains(&format!("encryption_key = \"{}\"", next.display())), "{out}");
    assert!(out.contains("[session] key = ") && out.contains("next.aes.session"), "{out}");
    let sessions = fs::read_to_string(archive.place.path().join("secrets/next.aes.session")).unwrap();
    assert_eq!(sessions.trim().len(), 44, "32 bytes in base64");
    let changed = Settings { encryption_key: next.clone(), ..archive.settings.clone() };
    block(Journal::open(&changed).unwrap().close()).unwrap();
    let archive = Archive { settings: changed, place: archive.place };
    archive.verifies();
    // The reading that lay there was recorded under the old key.
    let all = archive.found(&Filter::default(), None);
    let events: Vec<&str> = all.iter().filter_map(|record| record["event"].as_str()).collect();
    assert_eq!(events, ["created", "trail-read", "key-rotated"]);
    let (code, _, err) = run(|out, err| rotate_key(&archive.settings, &next, false, false, (out, err)));
    assert!(code == PROBLEM && err.contains("the one in use"), "{err}");
}
