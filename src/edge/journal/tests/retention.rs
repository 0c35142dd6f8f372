//! Retention: what goes, what stays, what a crash leaves, and what is found.

use super::*;
use crate::domain::audit::{Caller, Hold, Keep, Outcome, Pruned};
use crate::edge::journal::retention::{plan, retain};
use crate::edge::journal::withheld::Withheld;

const KEEP: Keep = Keep::Years(6);

/// When the policy is applied: eight years after [`time`].
fn now() -> Timestamp {
    "2034-03-02T00:00:00Z".parse().unwrap()
}

fn late() -> Timestamp {
    "2033-01-01T00:00:00Z".parse().unwrap()
}

fn of(id: &str, patient: &str, subject: &str, at: Timestamp) -> Record {
    let Record::Decision(mut decision) = release(id, 1) else { panic!("a decision") };
    decision.time = at;
    decision.caller = Some(Caller {
        issuer: "https://idp.example".to_owned(),
        subject: subject.to_owned(),
        ..Caller::default()
    });
    decision.released[0].patients = [patient.to_owned()].into();
    Record::Decision(decision)
}

fn outcome(id: &str) -> Record {
    let (ending, sent_bytes) = (Ending::Complete, Some(5));
    Record::Outcome(Outcome { time: time(), request_id: id.to_owned(), entry: None, ending, sent_bytes })
}

/// `count` records of `at`, in a segment of their own. Record `n` is of patient `p<n % 1000>`.
fn add(ward: &Ward, name: &str, at: Timestamp, count: usize) {
    let journal = ward.open();
    let made = |n: usize| of(&format!("{name}-{n}"), &format!("p{n}"), "nurse", at);
    let records: Vec<Record> = (0..count).map(made).collect();
    let _receipt = block(journal.append(&records)).unwrap();
    close(&journal);
}

/// Five bundles: three of old records, two of late ones. Three segments are gone, and each had a data key.
fn aged() -> Ward {
    let ward = Ward::new();
    for name in ["a", "b", "c"] {
        add(&ward, name, time(), 256);
    }
    add(&ward, "d", late(), 300);
    add(&ward, "e", late(), 300);
    ward
}

fn planned(ward: &Ward) -> Plan {
    plan(&ward.settings.directory, &Keys::load(&ward.settings).unwrap(), KEEP, now()).unwrap()
}

fn prune(ward: &Ward) -> Retained {
    let journal = ward.open();
    let done = block(retain(&journal, &ward.settings, planned(ward), "records office", now())).unwrap();
    close(&journal);
    done
}

fn hold(ward: &Ward, hold: &Hold) {
    let journal = ward.open();
    let _receipt = block(journal.append(&[hold.record(now())])).unwrap();
    close(&journal);
}

fn of_patient(patient: &str) -> Hold {
    Hold {
        id: format!("hold-{patient}"),
        reason: "a claim".to_owned(),
        operator: "counsel".to_owned(),
        patient: Some(patient.to_owned()),
        subject: None,
        issuer: None,
        since: None,
        until: None,
    }
}

fn bundles(ward: &Ward) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(ward.path("tile/entries"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.len() == 3)
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_older_than_the_policy_goes_and_its_hashes_stay() {
    let ward = aged();
    let size = ward.verifies();
    assert_eq!(bundles(&ward), ["000", "001", "002", "003", "004"]);
    let (keys, before) = (fs::read_dir(ward.path("keys")).unwrap().count(), ward.request_ids());
    let done = prune(&ward);
    assert_eq!((done.bundles, done.sequence), (3, Some(size)));
    assert_eq!(bundles(&ward), ["003", "004"]);
    assert!(
        done.keys >= 2 && fs::read_dir(ward.path("keys")).unwrap().count() == keys - done.keys + 1,
        "{done:?}"
    );
    let found = ward.inspect();
    assert_eq!(found.findings, []);
    assert!(found.notes[0].contains("768 entries are withheld under the policy 6y"), "{:?}", found.notes);
    // What is left is all there, and the log goes on.
    let after = ward.request_ids();
    assert_eq!(after, before[before.len() - after.len()..]);
    assert!(after.len() == 600 + 1 || after.len() >= 600, "{}", after.len());
    add(&ward, "f", late(), 300);
    assert_eq!(ward.verifies(), size + 301);
    // Nothing more to do: nothing is recorded.
    let again = prune(&ward);
    assert_eq!((again.bundles, again.keys, again.sequence), (0, 0, None));
    assert_eq!(ward.verifies(), size + 301);
}

#[test]
fn entries_one_by_one_proofs_and_copies_are_right_on_a_pruned_trail() {
    let ward = aged();
    let kept = fs::read(ward.path("checkpoint")).unwrap();
    prune(&ward);
    let keys = Keys::load(&ward.settings).unwrap();
    let mut reader = crate::edge::journal::Reader::open(&ward.settings.directory, &keys).unwrap();
    assert!(matches!(reader.entry(5).unwrap().1, Found::Withheld));
    assert!(reader.record(5).unwrap().is_none());
    assert!(matches!(reader.entry(800).unwrap().1, Found::Part(_)));
    assert!(reader.record(800).unwrap().is_some());
    // By its hash an entry that is gone is proved still, and the log of before is a beginning of this one.
    let from = crate::domain::ledger::SignedCheckpoint::parse(&kept).unwrap();
    let asked = |hash_only| Asked { hash_only, from: Some(&from), ..Asked::default() };
    let sequences = [5, 767, 768].into();
    assert_eq!(prove(&ward.settings.directory, &keys, &sequences, asked(true)).unwrap().len(), 4);
    let refused = prove(&ward.settings.directory, &keys, &sequences, asked(false)).unwrap_err();
    assert!(refused.what.contains("--hash-only"), "{refused}");
    let copy = ward.place.path().join("copy");
    assert_eq!(back_up(&ward.settings, &copy).unwrap().findings, []);
    let other = Settings { directory: ward.place.path().join("restored"), ..ward.settings.clone() };
    restore(&other, &copy, Some(&kept)).unwrap();
    let restored = Ward { settings: other, place: ward.place };
    add(&restored, "g", late(), 10);
    restored.verifies();
}

#[test]
fn a_hold_keeps_every_bundle_with_something_of_it() {
    let ward = Ward::new();
    add(&ward, "a", time(), 256);
    add(&ward, "b", time(), 256);
    let journal = ward.open();
    // A decision about the patient in the third bundle, its outcome in the fourth, and the person in the fifth.
    let many = |name: &str, count: usize| -> Vec<Record> {
        (0..count).map(|n| of(&format!("{name}-{n}"), "other", "nurse", time())).collect()
    };
    let mut records = vec![of("held", "claimant", "nurse", time())];
    records.extend(many("c", 255));
    records.push(outcome("held"));
    records.extend(many("d", 255));
    records.push(of("theirs", "other", "suspect", time()));
    records.extend(many("e", 255));
    records.extend(many("f", 400));
    let _receipt = block(journal.append(&records)).unwrap();
    close(&journal);
    add(&ward, "g", late(), 300);
    add(&ward, "h", late(), 300);
    let all = planned(&ward);
    assert_eq!((all.bundles.to_string().as_str(), all.held), ("0-5", 0));
    hold(&ward, &of_patient("claimant"));
    assert_eq!(planned(&ward).bundles.to_string(), "0-1,4-5", "the decision's bundle and its outcome's stay");
    let of_person = Hold {
        id: "person".to_owned(),
        patient: None,
        subject: Some("suspect".to_owned()),
        issuer: Some("https://idp.example".to_owned()),
        ..of_patient("")
    };
    hold(&ward, &of_person);
    assert_eq!(planned(&ward).bundles.to_string(), "0-1,5");
    let done = prune(&ward);
    assert_eq!(done.bundles, 3);
    ward.verifies();
    assert!(
        ward.request_ids().contains(&"held".to_owned()) && ward.request_ids().contains(&"theirs".to_owned())
    );
    // Over: the rest goes, and what was withheld before is named again.
    let journal = ward.open();
    let over = [
        crate::domain::audit::lifted("hold-claimant", "settled", "counsel", now()),
        crate::domain::audit::lifted("person", "cleared", "counsel", now()),
    ];
    let _receipt = block(journal.append(&over)).unwrap();
    close(&journal);
    assert_eq!(planned(&ward).bundles.to_string(), "2-4");
    assert_eq!(prune(&ward).bundles, 3);
    ward.verifies();
    // A hold on everything, by time.
    let everything = Hold { id: "all".to_owned(), patient: None, since: Some(time()), ..of_patient("") };
    let other = aged();
    hold(&other, &everything);
    let plan = planned(&other);
    assert_eq!((plan.bundles.count(), plan.held), (0, 3));
}

#[test]
fn a_bundle_with_a_young_or_an_unreadable_entry_stays() {
    let ward = Ward::new();
    add(&ward, "a", time(), 255);
    add(&ward, "b", time(), 255);
    add(&ward, "young", late(), 1);
    for name in ["c", "d", "e", "f"] {
        add(&ward, name, time(), 256);
    }
    assert_eq!(planned(&ward).bundles.to_string(), "0,2-4", "{:?}", planned(&ward));
    // What cannot be read may be anything.
    let whole = fs::read(ward.path("tile/entries/002")).unwrap();
    let mut changed = whole.clone();
    changed[5000] ^= 1;
    fs::write(ward.path("tile/entries/002"), changed).unwrap();
    let plan = planned(&ward);
    assert_eq!((plan.bundles.to_string().as_str(), plan.unreadable), ("0,3-4", 1));
    fs::write(ward.path("tile/entries/002"), whole).unwrap();
    // A policy that keeps them all.
    let keys = Keys::load(&ward.settings).unwrap();
    let longer =
        super::super::retention::plan(&ward.settings.directory, &keys, Keep::Years(10), now()).unwrap();
    assert!(longer.bundles.is_empty());
}

/// Long records stand in several entries: a bundle may begin or end inside one.
#[test]
fn a_record_that_is_cut_by_what_is_withheld_is_no_fault() {
    let ward = Ward::new();
    let journal = ward.open();
    let records: Vec<Record> = (0..250).map(|n| of(&format!("a-{n}"), "p", "nurse", time())).collect();
    let _receipt = block(journal.append(&records)).unwrap();
    let _receipt = block(journal.append(&[release("long", 20_000)])).unwrap();
    close(&journal);
    add(&ward, "young", late(), 300);
    add(&ward, "more", late(), 300);
    let plan = planned(&ward);
    assert_eq!(plan.bundles.to_string(), "0");
    assert_eq!(prune(&ward).bundles, 1);
    ward.verifies();
    let ids = ward.request_ids();
    assert!(ids[0].starts_with("young"), "what is left of the long one is no record: {}", ids[0]);
}

#[test]
fn a_prune_may_end_anywhere_and_the_next_finishes_it() {
    let ward = aged();
    let before = ward.snapshot();
    prune(&ward);
    let record = planned(&before);
    let finishes = |crashed: &Ward, case: &str| {
        assert_eq!(crashed.findings(), [], "{case}: a crash is not tampering");
        let done = prune(crashed);
        assert_eq!(crashed.findings(), [], "{case}");
        assert_eq!(bundles(crashed), ["003", "004"], "{case}: {done:?}");
        let keys = fs::read_dir(crashed.path("keys")).unwrap().count();
        assert_eq!(keys, fs::read_dir(ward.path("keys")).unwrap().count(), "{case}");
        crashed.verifies();
    };
    // 1. The record alone.
    let crashed = before.snapshot();
    let journal = crashed.open();
    let all = record.bundles.clone();
    let pruned =
        Pruned { keep: KEEP, before: record.before, bundles: all, added: 3, operator: String::new() };
    let _receipt = block(journal.append(&[pruned.record(now())])).unwrap();
    close(&journal);
    assert!(crashed.inspect().notes[0].contains("was not carried out"), "{:?}", crashed.inspect().notes);
    finishes(&crashed, "recorded");
    // 2. and 3. The statement, and any of the bundles. 4. All of them, and any of the keys.
    for left in 0..8 {
        let crashed = ward.snapshot();
        for (at, name) in ["000", "001", "002"].iter().enumerate() {
            if left & (1 << at) != 0 {
                let name = format!("tile/entries/{name}");
                fs::copy(before.path(&name), crashed.path(&name)).unwrap();
            }
        }
        if left > 0 {
            copy_missing(&before.path("keys"), &crashed.path("keys"));
        }
        finishes(&crashed, &format!("{left:03b} left"));
    }
    let crashed = ward.snapshot();
    copy_missing(&before.path("keys"), &crashed.path("keys"));
    // Opening drops what seals nothing; so does the prune.
    finishes(&crashed, "keys left");
}

fn copy_missing(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if !target.exists() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A hold that comes after a prune was interrupted keeps what is still there.
#[test]
fn a_hold_keeps_what_an_interrupted_prune_left() {
    let ward = aged();
    let before = ward.snapshot();
    prune(&ward);
    for name in ["tile/entries/000", "tile/entries/001"] {
        fs::copy(before.path(name), ward.path(name)).unwrap();
    }
    copy_missing(&before.path("keys"), &ward.path("keys"));
    // Of a patient in the first bundle alone: entry 0 is the creation, so the 256th record stands in the second.
    hold(&ward, &Hold { until: Some("2026-03-02T00:00:00Z".parse().unwrap()), ..of_patient("p7") });
    assert_eq!(prune(&ward).bundles, 0, "p7 is in every old bundle");
    assert_eq!(bundles(&ward), ["000", "001", "003", "004"]);
    ward.verifies();
}

#[test]
fn what_is_missing_without_a_record_is_found() {
    let ward = aged();
    let places =
        |ward: &Ward| -> String { ward.findings().iter().map(|finding| format!("{finding}; ")).collect() };
    // Before there ever was a prune, and beside one.
    let never = ward.snapshot();
    fs::remove_file(never.path("tile/entries/001")).unwrap();
    assert!(places(&never).contains("tile/entries/001: is missing"), "{}", places(&never));
    assert!(Journal::open(&never.settings).is_err());
    let first = ward.snapshot();
    prune(&ward);
    ward.verifies();
    let beside = ward.snapshot();
    fs::remove_file(beside.path("tile/entries/003")).unwrap();
    assert!(places(&beside).contains("tile/entries/003: is missing"), "{}", places(&beside));
    // The hashes of what is withheld must be there.
    let unhashed = ward.snapshot();
    fs::remove_file(unhashed.path("tile/0/001")).unwrap();
    assert!(places(&unhashed).contains("tile/0/001"), "{}", places(&unhashed));
    let mut hashes = fs::read(ward.path("tile/0/001")).unwrap();
    hashes[77] ^= 1;
    fs::write(unhashed.path("tile/0/001"), hashes).unwrap();
    assert!(!unhashed.findings().is_empty());
    // Without the statement, and with each byte of it changed.
    let unsaid = ward.snapshot();
    let said = fs::read(ward.path("withheld")).unwrap();
    fs::remove_file(unsaid.path("withheld")).unwrap();
    assert!(places(&unsaid).contains("tile/entries/000: is missing"), "{}", places(&unsaid));
    for at in 0..said.len() {
        let mut changed = said.clone();
        changed[at] ^= 1 << (at % 8);
        let (origin, keys) = (ward.inspect_origin(), Keys::load(&ward.settings).unwrap());
        assert!(Withheld::read(&changed, &origin, &keys).is_err(), "byte {at}");
        if at % 50 == 0 {
            fs::write(unsaid.path("withheld"), changed).unwrap();
            assert!(!unsaid.findings().is_empty(), "byte {at}");
        }
    }
    // With the log's signing key, but no record that says so: more than was recorded, another entry, or no prune at all.
    let (origin, keys) = (ward.inspect_origin(), Keys::load(&ward.settings).unwrap());
    let read = Withheld::read(&said, &origin, &keys).unwrap();
    let more = Withheld { bundles: read.bundles.with(3).unwrap(), ..read.clone() };
    let forged = ward.snapshot();
    more.write(&forged.settings.directory, &origin, &keys).unwrap();
    fs::remove_file(forged.path("tile/entries/003")).unwrap();
    assert!(places(&forged).contains("does not record such a prune"), "{}", places(&forged));
    assert!(Journal::open(&forged.settings).is_err(), "without decrypting everything, too");
    for sequence in [0, read.sequence - 1, read.sequence + 1, u64::MAX] {
        Withheld { sequence, ..read.clone() }.write(&forged.settings.directory, &origin, &keys).unwrap();
        assert!(!forged.findings().is_empty(), "{sequence}");
    }
    fs::copy(ward.path("withheld"), first.path("withheld")).unwrap();
    fs::remove_file(first.path("tile/entries/000")).unwrap();
    assert!(
        places(&first).contains("does not record such a prune"),
        "a history without the record: {}",
        places(&first)
    );
}

/// With both keys: a record of a prune that names no policy, or one that keeps what was pruned, is found for what it is.
#[test]
fn a_record_of_a_prune_without_a_policy_is_found() {
    let cases: [(&str, Option<&str>, &str); 4] = [
        ("policy", None, "without a policy"),
        ("policy", Some("99y"), "what its policy keeps"),
        ("before", Some("2034-01-01T00:00:00Z"), "what its policy keeps"),
        ("bundles 00", Some("2-0"), "nothing that can be told"),
    ];
    for (name, value, finding) in cases {
        let ward = aged();
        let plan = planned(&ward);
        let bundles = plan.bundles.clone();
        let pruned = Pruned { keep: KEEP, before: plan.before, bundles, added: 3, operator: String::new() };
        let Record::Control(mut control) = pruned.record(now()) else { panic!("a control record") };
        match value {
            Some(value) => control.details.insert(name.to_owned(), value.to_owned()),
            None => control.details.remove(name),
        };
        let journal = ward.open();
        let sequence = block(journal.append(&[Record::Control(control)])).unwrap().sequence();
        close(&journal);
        let keys = Keys::load(&ward.settings).unwrap();
        let origin = ward.inspect_origin();
        Withheld { sequence, bundles: plan.bundles }.write(&ward.settings.directory, &origin, &keys).unwrap();
        fs::remove_file(ward.path("tile/entries/001")).unwrap();
        let findings = ward.findings();
        assert!(findings.iter().any(|found| found.what.contains(finding)), "{name}: {findings:?}");
        assert!(Journal::open(&ward.settings).is_err(), "{name}");
    }
}
