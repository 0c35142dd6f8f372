//! What the commands print, and their exit codes.

use std::fs;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::domain::audit::{Caller, Decision, Ending, Outcome, Record, Released, Verdict, Written};
use crate::edge::journal::Journal;

struct Desk {
    _place: TempDir,
    settings: Settings,
}

/// Runs a command; answers its exit code and what it printed.
fn run(command: impl FnOnce(&mut dyn Write, &mut dyn Write) -> u8) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = command(&mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

impl Desk {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let settings = Settings {
            directory: place.path().join("audit"),
            signing_key: place.path().join("secrets/audit.key"),
            encryption_key: place.path().join("secrets/audit.aes"),
        };
        Self { _place: place, settings }
    }

    fn init(&self) -> (u8, String, String) {
        run(|out, err| init(&self.settings, out, err))
    }

    fn verify(&self, as_json: bool) -> (u8, String, String) {
        run(|out, err| {
            verify(&self.settings, Request { decode: true, ..Request::default() }, as_json, out, err)
        })
    }

    fn search(&self, filter: &Filter, as_json: bool) -> (u8, String, String) {
        run(|out, err| search(&self.settings, filter, as_json, out, err))
    }

    fn found(&self, filter: &Filter) -> Vec<Value> {
        let (code, out, err) = self.search(filter, true);
        assert_eq!((code, err.as_str()), (GOOD, ""));
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A nurse reads p1's chart, another's answer is cut off, a stranger is refused.
    fn fill(&self) -> Journal {
        assert_eq!(self.init().0, GOOD);
        let journal = Journal::open(&self.settings).unwrap();
        let work = async {
            let (_receipt, slot) = journal.release("r1", &[released("r1", "nurse", "p1")]).await.unwrap();
            slot.finish(time("09:00:02"), Ending::Complete, Some(812));
            let (_receipt, slot) = journal.release("r2", &[released("r2", "clerk", "p2")]).await.unwrap();
            let mut refusal = Decision::new(time("10:00:00"), "r3".to_owned(), Verdict::Refuse);
            refusal.reason = Some("token-missing".to_owned());
            refusal.request = "GET Patient/p1?name=\u{1b}[31m".to_owned();
            let _receipt = journal.append(&[Record::Decision(Box::new(refusal))]).await.unwrap();
            drop(slot);
            let (_receipt, slot) = journal.release("r4", &[released("r4", "nurse", "p2")]).await.unwrap();
            // Neither finished nor dropped when the process dies.
            std::mem::forget(slot);
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
        journal
    }
}

fn time(clock: &str) -> Timestamp {
    format!("2026-03-01T{clock}Z").parse().unwrap()
}

fn released(id: &str, subject: &str, patient: &str) -> Record {
    let mut decision = Decision::new(time("09:00:00"), id.to_owned(), Verdict::Permit);
    decision.caller = Some(Caller {
        issuer: "https://idp.example".to_owned(),
        subject: subject.to_owned(),
        ..Caller::default()
    });
    decision.interaction = "read".to_owned();
    decision.request = format!("GET Patient/{patient}");
    decision.policies = vec!["nurse-chart".to_owned()];
    decision.released = vec![Released {
        reference: format!("Patient/{patient}"),
        version: Some("1".to_owned()),
        patients: [patient.to_owned()].into(),
        mask: Arc::new(vec!["Patient.name".to_owned()]),
    }];
    Record::Decision(Box::new(decision))
}

#[test]
fn init_makes_keys_and_trail_once() {
    let desk = Desk::new();
    let (code, out, err) = desk.init();
    assert_eq!((code, err.as_str()), (GOOD, ""));
    assert!(
        out.contains("signing key") && out.contains("encryption key") && out.contains("audit trail"),
        "{out}"
    );
    let key = fs::read(&desk.settings.signing_key).unwrap();
    let (code, _, err) = desk.init();
    assert_eq!(code, PROBLEM);
    assert!(err.contains("not empty"), "{err}");
    assert_eq!(fs::read(&desk.settings.signing_key).unwrap(), key);
    assert_eq!(desk.verify(false).0, GOOD);
    assert_eq!(desk.found(&Filter::default()).len(), 1);
}

#[test]
fn every_record_is_printed_with_the_contract_keys() {
    let desk = Desk::new();
    let _serving = desk.fill();
    let records = desk.found(&Filter::default());
    let summary: Vec<(&str, Option<&str>, Option<&str>)> = records
        .iter()
        .map(|record| {
            (record["kind"].as_str().unwrap(), record["requestId"].as_str(), record["outcome"].as_str())
        })
        .collect();
    assert_eq!(
        summary,
        [
            ("control", None, None),
            ("release", Some("r1"), Some("complete")),
            ("release", Some("r2"), Some("cut-off")),
            ("refusal", Some("r3"), Some("refused")),
            ("release", Some("r4"), Some("unknown")),
        ]
    );
    for record in &records {
        for key in ["sequence", "time", "requestId", "issuer", "subject", "interaction", "decision"] {
            assert!(record.get(key).is_some(), "{key}");
        }
        for key in ["reason", "policies", "released", "outcome"] {
            assert!(record.get(key).is_some(), "{key}");
        }
    }
    let release = &records[1];
    assert_eq!(release["decision"], "permit");
    assert_eq!(release["subject"], "nurse");
    assert_eq!(release["policies"], serde_json::json!(["nurse-chart"]));
    assert_eq!(release["sentBytes"], 812);
    assert_eq!(
        release["released"],
        serde_json::json!([{"reference": "Patient/p1", "version": "1", "patients": ["p1"], "mask": ["Patient.name"]}])
    );
    assert_eq!(records[3]["reason"], "token-missing");
    assert_eq!(records[3]["subject"], Value::Null);
}

#[test]
fn filters_choose() {
    let desk = Desk::new();
    let _serving = desk.fill();
    let none = Filter::default;
    let some = |text: &str| Some(text.to_owned());
    let cases: [(Filter, &[&str]); 15] = [
        (Filter { patient: some("p1"), ..none() }, &["r1", "r3"]),
        (Filter { patient: some("Patient/p2"), ..none() }, &["r2", "r4"]),
        (Filter { patient: some("p"), ..none() }, &[]),
        (Filter { subject: some("nurse"), ..none() }, &["r1", "r4"]),
        (Filter { issuer: some("https://idp.example"), ..none() }, &["r1", "r2", "r4"]),
        (Filter { resource: some("Patient"), ..none() }, &["r1", "r2", "r3", "r4"]),
        (Filter { resource: some("Patient/p1"), ..none() }, &["r1", "r3"]),
        (Filter { resource: some("Pat"), ..none() }, &[]),
        (Filter { interaction: some("read"), ..none() }, &["r1", "r2", "r4"]),
        (Filter { decision: some("refuse"), ..none() }, &["r3"]),
        (Filter { reason: some("token-missing"), ..none() }, &["r3"]),
        (Filter { request_id: some("r2"), ..none() }, &["r2"]),
        (Filter { since: Some(time("09:30:00")), until: Some(time("10:00:01")), ..none() }, &["r3"]),
        (Filter { until: Some(time("09:00:00")), ..none() }, &[]),
        (Filter { subject: some("nurse"), patient: some("p2"), ..none() }, &["r4"]),
    ];
    for (filter, should) in cases {
        let found = desk.found(&filter);
        let ids: Vec<&str> = found.iter().filter_map(|record| record["requestId"].as_str()).collect();
        assert_eq!(ids, should, "{filter:?}");
    }
}

/// A write's decision, as an intent or as what became of it.
fn write(id: &str, entry: Option<u32>, verdict: Verdict) -> Decision {
    let Record::Decision(decision) = released(id, "clerk", "p9") else { panic!("a decision") };
    let mut decision = Decision { entry, verdict, released: Vec::new(), ..*decision };
    decision.interaction = "update".to_owned();
    decision.request = "PUT Observation/o1".to_owned();
    decision.written = vec![Written {
        reference: "Observation/o1".to_owned(),
        version: Some("4".to_owned()),
        patients: ["p9".to_owned()].into(),
        mask: Arc::new(vec!["Observation.note".to_owned()]),
    }];
    decision
}

fn intent(id: &str, entry: Option<u32>) -> Record {
    Record::Intent(Box::new(write(id, entry, Verdict::Permit)))
}

fn decided(id: &str, entry: Option<u32>, verdict: Verdict) -> Record {
    let status = if verdict == Verdict::Permit { 200 } else { 504 };
    Record::Decision(Box::new(Decision { status, ..write(id, entry, verdict) }))
}

fn nobody_knows(id: &str, entry: Option<u32>) -> Record {
    Record::Outcome(Outcome::unknown(time("11:00:00"), id.to_owned(), entry))
}

/// What is appended, how its answer ended if it did, and the objects that tell of it: entry, kind, decision, outcome.
struct Case {
    name: &'static str,
    records: Vec<Record>,
    end: Option<Ending>,
    told: &'static [(Option<u64>, &'static str, &'static str, &'static str)],
}

fn single_writes() -> Vec<Case> {
    use Verdict::{Permit, Refuse};
    vec![
        Case {
            name: "permitted, and the answer went out",
            records: vec![intent("w", None), decided("w", None, Permit)],
            end: Some(Ending::Complete),
            told: &[(None, "release", "permit", "complete")],
        },
        Case {
            name: "the process died",
            records: vec![intent("w", None)],
            end: None,
            told: &[(None, "intent", "permit", "unknown")],
        },
        Case {
            name: "the answer never came",
            records: vec![intent("w", None), decided("w", None, Refuse), nobody_knows("w", None)],
            end: None,
            told: &[(None, "refusal", "refuse", "unknown")],
        },
        Case {
            name: "refused by the EMR, after a second attempt",
            records: vec![intent("w", None), intent("w", None), decided("w", None, Refuse)],
            end: None,
            told: &[(None, "refusal", "refuse", "refused")],
        },
        Case {
            name: "an end without a decision belongs to the intent",
            records: vec![intent("w", None), nobody_knows("w", None)],
            end: None,
            told: &[(None, "intent", "permit", "unknown")],
        },
        Case {
            name: "an end without anything is told alone",
            records: vec![nobody_knows("w", Some(4))],
            end: None,
            told: &[(Some(4), "outcome", "", "unknown")],
        },
    ]
}

fn bundles() -> Vec<Case> {
    use Verdict::{Permit, Refuse};
    vec![
        Case {
            name: "a batch: one entry written, one unknown, one refused, one never decided",
            records: vec![
                intent("w", Some(0)),
                decided("w", Some(0), Permit),
                intent("w", Some(1)),
                decided("w", Some(1), Refuse),
                nobody_knows("w", Some(1)),
                decided("w", Some(2), Refuse),
                intent("w", Some(3)),
                decided("w", None, Permit),
            ],
            end: Some(Ending::Complete),
            told: &[
                (Some(0), "release", "permit", "complete"),
                (Some(1), "refusal", "refuse", "unknown"),
                (Some(2), "refusal", "refuse", "refused"),
                (Some(3), "intent", "permit", "unknown"),
                (None, "release", "permit", "complete"),
            ],
        },
        Case {
            name: "a transaction whose answer never came: what was sent is unknown, what was not is refused",
            records: vec![
                intent("w", Some(0)),
                intent("w", None),
                decided("w", Some(0), Refuse),
                decided("w", Some(1), Refuse),
                decided("w", None, Refuse),
                nobody_knows("w", None),
            ],
            end: None,
            told: &[
                (Some(0), "refusal", "refuse", "unknown"),
                (Some(1), "refusal", "refuse", "refused"),
                (None, "refusal", "refuse", "unknown"),
            ],
        },
    ]
}

/// What is told of a write, whatever became of it: which objects, how they ended.
#[test]
fn a_write_is_told_once_with_its_end() {
    single_writes().into_iter().chain(bundles()).for_each(check);
}

fn check(Case { name, records, end, told }: Case) {
    let desk = Desk::new();
    assert_eq!(desk.init().0, GOOD);
    let journal = Journal::open(&desk.settings).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (_receipt, slot) = journal.release("w", &records).await.unwrap();
        match end {
            Some(ending) => slot.finish(time("12:00:00"), ending, Some(3)),
            // As when the process dies, or when there never was one.
            None => std::mem::forget(slot),
        }
        journal.close().await.unwrap();
    });
    let found = desk.found(&Filter { request_id: Some("w".to_owned()), ..Filter::default() });
    assert_eq!(found.len(), told.len(), "{name}");
    for (object, (entry, kind, verdict, outcome)) in found.iter().zip(told) {
        assert_eq!(object["entry"].as_u64(), *entry, "{name}");
        assert_eq!(object["kind"], *kind, "{name}");
        assert_eq!(object["decision"].as_str().unwrap_or_default(), *verdict, "{name}");
        assert_eq!(object["outcome"], *outcome, "{name}");
        assert!(object.get("unit").is_none(), "{name}");
        if *kind != "outcome" {
            let written = serde_json::json!([{"reference": "Observation/o1", "version": "4",
                "patients": ["p9"], "mask": ["Observation.note"]}]);
            assert_eq!(
                (&object["written"], &object["released"]),
                (&written, &serde_json::json!([])),
                "{name}"
            );
        }
    }
}

#[test]
fn writes_are_found_and_shown() {
    let desk = Desk::new();
    assert_eq!(desk.init().0, GOOD);
    let journal = Journal::open(&desk.settings).unwrap();
    let plain = released("r1", "nurse", "p1");
    let records = [plain, intent("w1", None), intent("w2", Some(1)), decided("w2", Some(1), Verdict::Refuse)];
    let appended = journal.append(&records);
    let _receipt =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(appended);
    let some = |text: &str| Some(text.to_owned());
    let none = Filter::default;
    let cases: [(Filter, &[&str]); 7] = [
        (Filter { patient: some("p9"), ..none() }, &["w1", "w2"]),
        (Filter { patient: some("Patient/p9"), ..none() }, &["w1", "w2"]),
        (Filter { resource: some("Observation"), ..none() }, &["w1", "w2"]),
        (Filter { resource: some("Observation/o1"), ..none() }, &["w1", "w2"]),
        (Filter { resource: some("Observation/o"), ..none() }, &[]),
        (Filter { interaction: some("update"), decision: some("permit"), ..none() }, &["w1"]),
        (Filter { subject: some("clerk"), decision: some("refuse"), ..none() }, &["w2"]),
    ];
    for (filter, should) in cases {
        let found = desk.found(&filter);
        let ids: Vec<&str> = found.iter().filter_map(|record| record["requestId"].as_str()).collect();
        assert_eq!(ids, should, "{filter:?}");
    }
    let (code, out, _) = desk.search(&none(), false);
    assert_eq!(code, GOOD);
    assert_eq!(out.matches("wrote Observation/o1 [Observation.note]").count(), 2, "{out}");
    assert!(out.contains("update, entry 1"), "{out}");
}

/// A download in three units: one object each, all ending as the answer did.
#[test]
fn units_are_told_one_by_one() {
    let desk = Desk::new();
    assert_eq!(desk.init().0, GOOD);
    let journal = Journal::open(&desk.settings).unwrap();
    let unit = |number: u32| {
        let Record::Decision(decision) = released("e1", "robot", "p1") else { panic!("a decision") };
        [Record::Decision(Box::new(Decision { unit: Some(number), ..*decision }))]
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (_receipt, slot) = journal.release("e1", &unit(0)).await.unwrap();
        for number in 1..3 {
            let _receipt = journal.append(&unit(number)).await.unwrap();
        }
        slot.finish(time("12:00:00"), Ending::CutOff, Some(70_000));
        journal.close().await.unwrap();
    });
    let found = desk.found(&Filter { request_id: Some("e1".to_owned()), ..Filter::default() });
    let told: Vec<(Option<u64>, &str)> =
        found.iter().map(|object| (object["unit"].as_u64(), object["outcome"].as_str().unwrap())).collect();
    assert_eq!(told, [(Some(0), "cut-off"), (Some(1), "cut-off"), (Some(2), "cut-off")]);
    assert!(desk.search(&Filter::default(), false).1.contains("read, unit 2"));
}

#[test]
fn times_are_read_as_people_write_them() {
    assert_eq!(parse_time("2026-03-01"), Ok(time("00:00:00")));
    assert_eq!(parse_time("2026-03-01T08:00:00Z"), Ok(time("08:00:00")));
    assert_eq!(parse_time("2026-03-01T08:00:00+01:00"), Ok(time("07:00:00")));
    assert!(parse_time("yesterday").is_err());
}

#[test]
fn terminals_are_safe() {
    let desk = Desk::new();
    let _serving = desk.fill();
    for as_json in [true, false] {
        let (code, out, _) = desk.search(&Filter::default(), as_json);
        assert_eq!(code, GOOD);
        assert!(!out.contains('\u{1b}'), "{out}");
        assert!(out.contains("r1") == as_json && out.contains("Patient/p1"), "{out}");
    }
}

#[test]
fn tampering_ends_in_exit_code_one() {
    let desk = Desk::new();
    let journal = desk.fill();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(journal.close()).unwrap();
    let (code, out, _) = desk.verify(true);
    let verdict: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &verdict["verified"], &verdict["size"]), (GOOD, &Value::Bool(true), &7.into()));
    assert!(verdict["firstTime"].is_string() && verdict["root"].as_str().unwrap().len() == 64);
    let path = desk.settings.directory.join("segment/00000000000000000000");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (code, out, _) = desk.verify(true);
    let verdict: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &verdict["verified"]), (PROBLEM, &Value::Bool(false)));
    assert!(verdict["findings"][0]["place"].as_str().unwrap().contains("segment/"), "{out}");
    let (code, out, _) = desk.verify(false);
    assert!(code == PROBLEM && out.contains("problem: ") && out.contains("DOES NOT verify"), "{out}");
    assert_eq!(desk.search(&Filter::default(), true).0, PROBLEM);
    fs::remove_dir_all(&desk.settings.directory).unwrap();
    assert_eq!((desk.verify(true).0, desk.search(&Filter::default(), true).0), (PROBLEM, PROBLEM));
}
