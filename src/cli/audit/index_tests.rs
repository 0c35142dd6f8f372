//! Searching by the index finds what reading the whole trail finds, whatever is asked, and tells nothing itself.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::domain::audit::{
    Budget, Caller, Control, Decision, Ending, Outcome, Record, Refused, Released, Source, Verdict, Window,
    Written,
};
use crate::edge::journal::Journal;

pub(super) struct Place {
    place: TempDir,
    pub(super) settings: Settings,
    pub(super) index: PathBuf,
}

/// Runs a command; answers its exit code and what it printed.
pub(super) fn run(command: impl FnOnce(&mut dyn Write, &mut dyn Write) -> u8) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = command(&mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

impl Place {
    pub(super) fn new() -> Self {
        let place = TempDir::new().unwrap();
        let settings = Settings {
            directory: place.path().join("audit"),
            signing_key: place.path().join("secrets/audit.key"),
            encryption_key: place.path().join("secrets/audit.aes"),
        };
        let index = settings.directory.join("index.sqlite");
        assert_eq!(run(|out, err| init(&settings, out, err)).0, GOOD);
        Self { place, settings, index }
    }

    /// A path beside the trail.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Appends to the trail, each slice in one commit, and closes it.
    pub(super) fn append(&self, commits: &[&[Record]]) {
        let journal = Journal::open(&self.settings).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            for records in commits.iter().filter(|records| !records.is_empty()) {
                let _receipt = journal.append(records).await.unwrap();
            }
            journal.close().await.unwrap();
        });
    }

    pub(super) fn index(&self) -> (u8, String, String) {
        run(|out, err| index(&self.settings, &self.index, false, true, out, err))
    }

    /// What `search` prints by the index, which must be there, and by reading everything: the same, or this panics.
    fn found(&self, filter: &Filter) -> Vec<Value> {
        assert!(self.index.is_file());
        let scan = run(|out, err| search_with(&self.settings, None, filter, true, out, err));
        let quick = run(|out, err| search_with(&self.settings, Some(&self.index), filter, true, out, err));
        assert_eq!(quick, scan, "{filter:?}");
        scan.1.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn second(number: u32) -> Timestamp {
    let begin: Timestamp = "2026-03-01T23:50:00Z".parse().unwrap();
    begin + SignedDuration::from_secs(i64::from(number))
}

const PATIENTS: [&str; 4] = ["p1", "p2", "a_b", "patient"];
const REFERENCES: [&str; 5] = ["Patient/p1", "Observation/o1", "Observation", "Encounter/p2", "Bundle/a_b"];
const REQUESTS: [&str; 6] = [
    "GET Observation?patient=p1&_count=2",
    "GET Patient/p2",
    "GET Encounter?subject=a_b",
    "POST Observation",
    "GET Patient?identifier=x|p1-7",
    "",
];
const MASKS: [&[&str]; 3] =
    [&["Patient.name", "Patient.id"], &["Observation.value"], &["Observation.code.coding"]];
const SUBJECTS: [&str; 3] = ["ann", "ben", "p1"];

fn items() -> impl Strategy<Value = Vec<(usize, Vec<usize>, usize)>> {
    let item = (0..REFERENCES.len(), proptest::collection::vec(0..PATIENTS.len(), 0..3), 0..MASKS.len());
    proptest::collection::vec(item, 0..4)
}

fn pick(choices: &[&str], place: usize) -> String {
    choices[place % choices.len()].to_owned()
}

prop_compose! {
    fn decision()(
        (request_id, at, who, asked) in (0_usize..12, 0_u32..1_200, 0_usize..6, 0..REQUESTS.len()),
        (permit, entry, unit) in (any::<bool>(), proptest::option::weighted(0.3, 0_u32..2), proptest::option::weighted(0.2, 0_u32..3)),
        (role, purpose, grant, application) in (0_usize..3, 0_usize..3, 0_usize..4, 0_usize..3),
        released in items(),
        written in items(),
    ) -> Decision {
        let verdict = if permit { Verdict::Permit } else { Verdict::Refuse };
        let mut decision = Decision::new(second(at), format!("r{request_id}"), verdict);
        decision.caller = SUBJECTS.get(who).map(|subject| Caller {
            issuer: pick(&["https://a", "https://b"], who + application),
            subject: (*subject).to_owned(),
            application: (application > 0).then(|| pick(&["", "viewer", "robot"], application)),
            roles: vec![pick(&["nurse", "clerk"], role)],
            ..Caller::default()
        });
        decision.purposes = vec![pick(&["TREAT", "HPAYMT"], purpose)];
        decision.emergencies = if grant == 0 { vec!["g1".to_owned()] } else { Vec::new() };
        decision.interaction = pick(&["read", "search-type"], asked);
        REQUESTS[asked].clone_into(&mut decision.request);
        decision.reason = (!permit).then(|| pick(&["not-permitted", "no-token"], role));
        (decision.entry, decision.unit) = (entry, unit);
        let names = |patients: Vec<usize>| patients.into_iter().map(|place| pick(&PATIENTS, place)).collect();
        let mask = |place: usize| Arc::new(MASKS[place].iter().map(|path| (*path).to_owned()).collect());
        decision.released = released.into_iter().map(|(reference, patients, kept)| Released {
            reference: pick(&REFERENCES, reference), version: None, patients: names(patients), mask: mask(kept),
        }).collect();
        decision.written = written.into_iter().map(|(reference, patients, kept)| Written {
            reference: pick(&REFERENCES, reference), version: None, patients: names(patients), mask: mask(kept),
        }).collect();
        decision
    }
}

pub(super) fn record() -> impl Strategy<Value = Record> {
    let end = |(id, at, entry, is_whole): (usize, u32, Option<u32>, bool)| {
        let ending = if is_whole { Ending::Complete } else { Ending::Unknown };
        let request_id = format!("r{id}");
        Record::Outcome(Outcome { time: second(at), request_id, entry, ending, sent_bytes: None })
    };
    let outcome = (0_usize..12, 0_u32..1_200, proptest::option::weighted(0.3, 0_u32..2), any::<bool>());
    prop_oneof![
        4 => decision().prop_map(|decision| Record::Decision(Box::new(decision))),
        1 => decision().prop_map(|decision| Record::Intent(Box::new(Decision {
            verdict: Verdict::Permit, released: Vec::new(), ..decision
        }))),
        2 => outcome.prop_map(end),
        1 => counted_refusals(),
    ]
}

/// One of the records of a count of refusals: with the other one before, behind or nowhere.
fn counted_refusals() -> impl Strategy<Value = Record> {
    let count = (0_usize..12, 0_u32..1_200, 0_usize..4, 1_usize..9, any::<bool>());
    count.prop_map(|(id, at, who, number, is_end)| {
        let mut window = Window::new(Budget { strangers: 0, known: 0 }, second(at));
        let source = match SUBJECTS.get(who) {
            Some(subject) => Source::Known { issuer: "https://a".to_owned(), subject: (*subject).to_owned() },
            None => Source::stranger([192, 0, 2, 7].into()),
        };
        for each in 0..number {
            let request_id = format!("r{id}");
            let code = ["not-permitted", "no-token", "token-expired"][each % 3];
            window.note(Refused { source: &source, code, request_id: &request_id, time: second(at) });
        }
        let (began, ended) = window.close(second(at)).remove(0);
        Record::Control(if is_end { ended[0].clone() } else { began })
    })
}

/// Every filter alone, over what there is and what there is not, and some together.
fn filters() -> Vec<Filter> {
    let none = Filter::default;
    let some = |text: &str| Some(text.to_owned());
    let mut all = vec![none()];
    for text in PATIENTS.iter().chain(&["", "p", "Patient/p1", "Patient/", "p1-7", "x|p1-7", "/"]) {
        all.push(Filter { patient: some(text), ..none() });
    }
    for text in REFERENCES.iter().chain(&[
        "",
        "Pat",
        "Observation/",
        "Observation?patient",
        "identifier=x",
        "?",
        "GET",
    ]) {
        all.push(Filter { resource: some(text), ..none() });
    }
    for text in [
        "Patient.name",
        "Patient",
        "Observation.value.code",
        "Observation.code",
        "Observation.value[x]",
        "Obs",
    ] {
        all.push(Filter { element: some(text), ..none() });
    }
    for text in ["g1", "any", "g2"] {
        all.push(Filter { emergency: some(text), ..none() });
    }
    all.extend([
        Filter { subject: some("ann"), ..none() },
        Filter { subject: some("p1"), issuer: some("https://a"), ..none() },
        Filter { issuer: some("https://b"), decision: some("refuse"), ..none() },
        Filter { application: some("viewer"), ..none() },
        Filter { role: some("nurse"), purpose: some("TREAT"), ..none() },
        Filter { interaction: some("read"), reason: some("no-token"), ..none() },
        Filter { decision: some("refuse"), reason: some("token-expired"), ..none() },
        Filter { reason: some("no-token"), subject: some("ben"), issuer: some("https://a"), ..none() },
        Filter { request_id: some("r3"), ..none() },
        Filter { request_id: some("r99"), ..none() },
        Filter { since: Some(second(300)), ..none() },
        Filter { until: Some(second(600)), ..none() },
        Filter { since: Some(second(300)), until: Some(second(301)), ..none() },
        Filter { since: Some(second(300)), until: Some(second(900)), patient: some("p1"), ..none() },
        Filter { since: Some(second(600)), request_id: some("r1"), ..none() },
        Filter { patient: some("p1"), subject: some("ben"), decision: some("permit"), ..none() },
    ]);
    all
}

/// What each day had, counted from the records themselves.
fn counted(place: &Place, day: &str) -> Vec<String> {
    let mut lines = std::collections::BTreeMap::<String, (u64, u64)>::new();
    let (_, out, _) = run(|out, err| search_with(&place.settings, None, &Filter::default(), true, out, err));
    for line in out.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        if record["event"] == "refusals-counted" && record["time"].as_str().unwrap().starts_with(day) {
            let told: Control = Control {
                time: second(0),
                event: crate::domain::audit::Event::RefusalsCounted,
                details: serde_json::from_value(record["details"].clone()).unwrap(),
            };
            let refusals = told.refusals().unwrap();
            let (issuer, subject) = refusals.caller.unzip();
            for (code, number) in refusals.codes.unwrap() {
                let nothing: [&str; 0] = [];
                let key = serde_json::json!([issuer, subject, null, nothing, nothing, "refuse", code, false]);
                lines.entry(key.to_string()).or_default().0 += number;
            }
        }
        let is_decision = ["release", "refusal"].contains(&record["kind"].as_str().unwrap());
        if !is_decision || !record["time"].as_str().unwrap().starts_with(day) {
            continue;
        }
        let grants = !record["emergencies"].as_array().unwrap().is_empty();
        let key = serde_json::json!([
            record["issuer"],
            record["subject"],
            record["application"],
            record["roles"],
            record["purposes"],
            record["decision"],
            record["reason"],
            grants
        ]);
        let tally = lines.entry(key.to_string()).or_default();
        tally.0 += u64::from(record["unit"].as_u64().unwrap_or(0) == 0);
        tally.1 += record["released"].as_array().unwrap().len() as u64;
    }
    lines.into_iter().map(|(key, (answers, records))| format!("{key} {answers} {records}")).collect()
}

fn summed(place: &Place, day: &str) -> Vec<String> {
    let (code, out, err) =
        run(|out, err| summary(&place.settings, &place.index, day.parse().unwrap(), true, out, err));
    assert_eq!((code, err.as_str()), (GOOD, ""));
    let line = |line: &str| {
        let tally: Value = serde_json::from_str(line).unwrap();
        let key = serde_json::json!([
            tally["issuer"],
            tally["subject"],
            tally["application"],
            tally["roles"],
            tally["purposes"],
            tally["decision"],
            tally["reason"],
            tally["emergency"]
        ]);
        format!("{key} {} {}", tally["answers"], tally["records"])
    };
    let mut lines: Vec<String> = out.lines().map(line).collect();
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// The law of the index: whatever the trail and whatever is asked, it finds what a reading of everything finds; also when
    /// it was made earlier, grew in small steps, or is of nothing yet.
    #[test]
    fn the_index_finds_what_a_reading_finds(
        records in proptest::collection::vec(record(), 1..120),
        steps in proptest::collection::vec(1_usize..40, 1..6),
    ) {
        let place = Place::new();
        assert_eq!(place.index().0, GOOD);
        let mut rest = records.as_slice();
        for step in steps {
            let (now, later) = rest.split_at(step.min(rest.len()));
            rest = later;
            place.append(&now.chunks(7).collect::<Vec<_>>());
            assert_eq!(place.index().0, GOOD);
        }
        place.append(&[rest]);
        // The first search brings the index up to date.
        for filter in filters() {
            place.found(&filter);
        }
        for day in ["2026-03-01", "2026-03-02", "2026-03-03"] {
            prop_assert_eq!(summed(&place, day), counted(&place, day));
        }
        // Neither the index nor its use is a change of the trail.
        let (code, out, _) = run(|out, err| verify(&place.settings, Request { decode: true, ..Request::default() }, false, out, err));
        prop_assert_eq!(code, GOOD, "{}", out);
    }
}

pub(super) fn plain(id: &str, patient: &str) -> Record {
    let mut decision = Decision::new(second(0), id.to_owned(), Verdict::Permit);
    decision.caller =
        Some(Caller { issuer: "https://a".into(), subject: "doctor-zephyr".into(), ..Caller::default() });
    decision.request = format!("GET Observation?patient={patient}");
    decision.released = vec![Released {
        reference: format!("Observation/obs-{id}"),
        version: None,
        patients: [patient.to_owned()].into(),
        mask: Arc::new(vec!["Observation.value".to_owned()]),
    }];
    Record::Decision(Box::new(decision))
}

fn of_patient(patient: &str) -> Filter {
    Filter { patient: Some(patient.to_owned()), ..Filter::default() }
}

/// Long enough for full bundles and several of them: entries are found in files of every kind.
pub(super) fn long() -> (Place, Vec<Record>) {
    let place = Place::new();
    let records: Vec<Record> =
        (0..700).map(|n| plain(&format!("r{n}"), &format!("zaphod-{}", n % 90))).collect();
    place.append(&records.chunks(50).collect::<Vec<_>>());
    (place, records)
}

#[test]
fn records_are_found_in_bundles_and_in_segments() {
    let (place, _) = long();
    let (code, out, _) = place.index();
    assert_eq!(code, GOOD);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((said["entries"].as_u64(), said["read"].as_u64()), (Some(701), Some(701)));
    assert_eq!(place.found(&of_patient("zaphod-7")).len(), 8);
    let said: Value = serde_json::from_str(&place.index().1).unwrap();
    assert_eq!((said["read"].as_u64(), said["anew"].as_bool()), (Some(0), Some(false)));
}

/// Neither names of patients, persons and records nor request lines stand in the file, nor beside it.
#[test]
fn the_index_tells_no_names() {
    let (place, _) = long();
    assert_eq!(place.index().0, GOOD);
    let mut seen = 0;
    for entry in fs::read_dir(&place.settings.directory).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().contains("index") {
            continue;
        }
        seen += 1;
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for name in ["zaphod", "doctor-zephyr", "obs-r", "GET ", "patient="] {
            assert!(!text.contains(name), "{name} in {}", path.display());
        }
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap()) & 0o077, 0);
    }
    assert!(seen > 0);
}

/// An index of another history of the same log, or of another log, is noticed by the root and made anew.
#[test]
fn an_index_of_another_history_is_made_anew() {
    let place = Place::new();
    let copy = place.place.path().join("before");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(&place.settings.directory).arg(&copy).status();
    assert!(copied.unwrap().success());
    place.append(&[&[plain("r1", "p1"), plain("r2", "p1")]]);
    assert_eq!(place.index().0, GOOD);
    let index = place.place.path().join("kept.sqlite");
    fs::copy(&place.index, &index).unwrap();
    // The directory is put back, and another history of the same length is written.
    fs::remove_dir_all(&place.settings.directory).unwrap();
    fs::rename(&copy, &place.settings.directory).unwrap();
    fs::copy(&index, &place.index).unwrap();
    assert_eq!(place.found(&of_patient("p1")).len(), 0, "a shorter history");
    place.append(&[&[plain("r3", "p1"), plain("r4", "p2")]]);
    fs::copy(&index, &place.index).unwrap();
    assert_eq!(place.found(&of_patient("p1")).len(), 1, "as long");
    fs::copy(&index, &place.index).unwrap();
    place.append(&[&[plain("r5", "p1")]]);
    assert_eq!(place.found(&of_patient("p1")).len(), 2, "longer");
    let other = Place::new();
    other.append(&[&[plain("r6", "p1")]]);
    fs::copy(&index, &other.index).unwrap();
    assert_eq!(other.found(&of_patient("p1")).len(), 1, "another log");
}

/// What is no index is not used, and the search still finds.
#[test]
fn a_file_that_is_no_index_does_not_stand_in_the_way() {
    let (place, _) = long();
    for content in [&b""[..], b"not a database at all, but long enough to look at"] {
        fs::write(&place.index, content).unwrap();
        let by = |index: Option<&std::path::Path>| {
            run(|out, err| search_with(&place.settings, index, &of_patient("zaphod-7"), true, out, err))
        };
        let (quick, scan) = (by(Some(&place.index)), by(None));
        assert_eq!((quick.0, quick.1), (scan.0, scan.1));
        assert_eq!(quick.2.contains("the whole trail is read instead"), !content.is_empty(), "{}", quick.2);
    }
}

/// Another program's database is neither used nor emptied, as when the sessions' file is named by mistake.
#[test]
fn a_database_of_something_else_is_left_alone() {
    let (place, _) = long();
    let other = rusqlite::Connection::open(&place.index).unwrap();
    other.execute_batch("CREATE TABLE session (id TEXT); PRAGMA user_version = 7;").unwrap();
    let (code, _, err) = place.index();
    assert!(code == PROBLEM && err.contains("left alone"), "{err}");
    other.execute("INSERT INTO session VALUES ('still there')", []).unwrap();
}

/// An entry changed after it was indexed is proved by no index: the search says so. One changed before is told each time.
#[test]
fn a_changed_entry_is_told() {
    let (place, _) = long();
    assert_eq!(place.index().0, GOOD);
    let bundle = place.settings.directory.join("tile/entries/000");
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let by_index = |patient: &str| {
        run(|out, err| search_with(&place.settings, Some(&place.index), &of_patient(patient), true, out, err))
    };
    let codes: Vec<u8> = (0..90).map(|n| by_index(&format!("zaphod-{n}")).0).collect();
    assert_eq!(codes.iter().filter(|code| **code == PROBLEM).count(), 1, "the one whose entry it is");
    fs::remove_file(&place.index).unwrap();
    for leftover in ["index.sqlite-wal", "index.sqlite-shm"] {
        let _absent = fs::remove_file(place.settings.directory.join(leftover));
    }
    let (code, _, err) = place.index();
    assert_eq!(code, PROBLEM, "the root is another");
    assert!(err.contains("audit verify"), "{err}");
    let (code, _, err) = by_index("zaphod-1");
    assert!(code == PROBLEM && err.contains("whole trail is read"), "{err}");
}

/// Refusals that were counted are found like those that have a record each, and an unfinished count says so.
#[test]
fn counted_refusals_are_found_and_summed() {
    let place = Place::new();
    let note = |window: &mut Window, source: &Source, number: u32| {
        let code = if number.is_multiple_of(4) { "token-expired" } else { "token-missing" };
        let request_id = format!("r{number}");
        window.note(Refused { source, code, request_id: &request_id, time: second(number) })
    };
    let (stranger, ann) = (
        Source::stranger([192, 0, 2, 7].into()),
        Source::Known { issuer: "https://a".to_owned(), subject: "ann".to_owned() },
    );
    let mut window = Window::new(Budget { strangers: 0, known: 0 }, second(0));
    (0..40).for_each(|number| drop(note(&mut window, &stranger, number)));
    (40..50).for_each(|number| drop(note(&mut window, &ann, number)));
    let mut records: Vec<Record> = Vec::new();
    for (began, ended) in window.close(second(60)) {
        records.extend(std::iter::once(began).chain(ended).map(Record::Control));
    }
    // The process was killed before this one ended.
    let mut killed = Window::new(Budget { strangers: 0, known: 0 }, second(61));
    note(&mut killed, &stranger, 61);
    records.extend(killed.close(second(62)).into_iter().map(|(began, _)| Record::Control(began)));
    place.append(&[&records]);
    assert_eq!(place.index().0, GOOD);
    let some = |text: &str| Some(text.to_owned());
    let outcomes = |filter: Filter| -> Vec<String> {
        let found = place.found(&filter);
        found.iter().map(|it| format!("{} {}", it["event"].as_str().unwrap(), it["outcome"])).collect()
    };
    let (begun, ended) = ("refusals-counting \"counted\"", "refusals-counted null");
    let all = [begun, ended, begun, ended, "refusals-counting \"unknown\""];
    assert_eq!(outcomes(Filter { decision: some("refuse"), ..Filter::default() }), all);
    assert_eq!(outcomes(Filter { subject: some("ann"), ..Filter::default() }), all[..2]);
    assert_eq!(outcomes(Filter { request_id: some("r0"), ..Filter::default() }), all[..2]);
    assert_eq!(outcomes(Filter { decision: some("permit"), ..Filter::default() }), [""; 0]);
    assert_eq!(
        outcomes(Filter { patient: some("p1"), reason: some("token-expired"), ..Filter::default() }),
        [""; 0]
    );
    let nothing: [&str; 0] = [];
    let line = |who: Option<&str>, code: &str, number: u64| {
        let key =
            serde_json::json!([who.map(|_| "https://a"), who, null, nothing, nothing, "refuse", code, false]);
        format!("{key} {number} 0")
    };
    let mut should = vec![
        line(Some("ann"), "token-expired", 3),
        line(Some("ann"), "token-missing", 7),
        line(None, "token-expired", 10),
        line(None, "token-missing", 30),
    ];
    should.sort();
    assert_eq!(summed(&place, "2026-03-01"), should);
    // On a terminal and in a table a count says how it ended as well.
    let (_, table, _) =
        run(|out, err| search_with(&place.settings, None, &Filter::default(), false, out, err));
    assert!(table.contains("(refusals-counted)") && table.contains("code:token-missing=30"), "{table}");
    assert_eq!(table.matches("unknown").count(), 1, "{table}");
}

/// What does not decrypt is told at every search and by an export, also when the index was made long ago.
#[test]
fn entries_that_do_not_decrypt_are_told_each_time() {
    let place = Place::new();
    place.append(&[&[plain("r1", "p1"), plain("r2", "p2")]]);
    let other = Settings { encryption_key: place.beside("other.aes"), ..place.settings.clone() };
    fs::create_dir_all(place.beside("elsewhere")).unwrap();
    let made = Settings { signing_key: place.beside("elsewhere/other.key"), ..other.clone() };
    crate::edge::journal::generate_missing(&made).unwrap();
    let (_, said, _) = run(|out, err| index(&other, &place.index, false, true, out, err));
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["damagedEntries"], 3, "{said}");
    for _ in 0..2 {
        let (code, found, told) =
            run(|out, err| search_with(&other, Some(&place.index), &of_patient("p1"), true, out, err));
        assert_eq!((code, found.as_str()), (PROBLEM, ""));
        assert_eq!(told.lines().count(), 3, "{told}");
    }
    // With its own key again the index is made anew, and `--rebuild` makes it from nothing.
    assert_eq!(place.found(&of_patient("p1")).len(), 1);
    let rebuild = |rebuild: bool| {
        let (_, said, _) = run(|out, err| index(&place.settings, &place.index, rebuild, true, out, err));
        serde_json::from_str::<Value>(&said).unwrap()["read"].as_u64()
    };
    assert_eq!((rebuild(false), rebuild(true)), (Some(0), Some(3)));
    let out = place.beside("out");
    let filter = Filter::default();
    let order =
        export::Export { filter: &filter, format: export::Format::Ndjson, out: &out, base: "https://b" };
    let (code, said, _) = run(|text, err| export::export(&other, None, &order, true, text, err));
    assert_eq!((code, &serde_json::from_str::<Value>(&said).unwrap()["damaged"]), (PROBLEM, &Value::from(3)));
}
