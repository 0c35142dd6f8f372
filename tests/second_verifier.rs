//! The trail and its proofs, judged by two verifiers that share nothing: this program's, and `tests/verifier/verify.py`,
//! written from the documents in another language with another crypto library. Both must say the same of every change.
//!
//! Owns: the tamper table of docs/audit.md. Must never: be skipped silently; with `CHARTGATE_REQUIRE_NEIGHBOURS` it fails
//! instead. Look next: `edge::journal::tests`, where every bit of every file is changed in turn.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a failing test panics, and a skipped one says so"
)]

mod python;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use chartgate::cli::audit;
use chartgate::domain::audit::{Decision, Keep, Record, Verdict};
use chartgate::domain::ledger::{
    KeyKind, LogSigner, SignedCheckpoint, VerifierKey, cosign, read_bundle, write_entry,
};
use chartgate::edge::journal::{
    Demand, Journal, Keys, Request, Settings, Witnessed, create, generate_missing, inspect, plan, retain,
    verifier,
};
use jiff::Timestamp;
use python::Program;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Fails where `cryptography` is missing, or stands there without its library.
const PROBE: &str = "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as K\n\
    K.from_public_bytes(bytes(32))";

/// The second verifier at work.
struct Second(Program);

impl Second {
    fn start() -> Option<Self> {
        Program::start("verifier", &["verify.py", "batch"], PROBE).map(Self)
    }

    fn ask(&mut self, arguments: &Value) -> Vec<String> {
        self.0.ask(arguments)
    }
}

fn settings(place: &Path) -> Settings {
    Settings {
        directory: place.join("audit"),
        signing_key: place.join("audit.key"),
        encryption_key: place.join("audit.aes"),
    }
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn time() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

fn append(settings: &Settings, count: usize) {
    let journal = Journal::open(settings).unwrap();
    let record = |n| Record::Decision(Box::new(Decision::new(time(), format!("r{n}"), Verdict::Refuse)));
    let records: Vec<Record> = (0..count).map(record).collect();
    let half = records.len() / 2;
    let _receipt = block(journal.append(&records[..half])).unwrap();
    let _receipt = block(journal.append(&records[half..])).unwrap();
    block(journal.close()).unwrap();
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

/// A trail with full tiles, partial ones and a segment; its state at three earlier times; one state witnessed.
struct Case {
    place: TempDir,
    trail: Settings,
    log: VerifierKey,
    witness: VerifierKey,
}

impl Case {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let trail = settings(place.path());
        generate_missing(&trail).unwrap();
        create(&trail, time()).unwrap();
        let signer = LogSigner::new(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()).unwrap();
        let witness = VerifierKey::new("witness.example/w", KeyKind::Witness, signer.key()).unwrap();
        let log = verifier(&trail.directory, &Keys::load(&trail).unwrap()).unwrap();
        let case = Self { place, trail, log, witness };
        append(&case.trail, 4);
        case.keep("early");
        append(&case.trail, 300);
        let note = SignedCheckpoint::parse(&fs::read(case.file("checkpoint")).unwrap()).unwrap();
        let line = cosign(&signer, "witness.example/w", note.text(), 1_772_352_000).unwrap();
        let note = note.with_lines(line.as_bytes()).unwrap();
        Witnessed::new(&case.log, &case.witness, &note).unwrap().keep(&case.trail.directory).unwrap();
        case.keep("witnessed");
        append(&case.trail, 250);
        case.keep("whole");
        case
    }

    fn file(&self, name: &str) -> PathBuf {
        self.trail.directory.join(name)
    }

    /// Below the trail's directory.
    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.trail.directory).unwrap().display().to_string()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn keep(&self, name: &str) {
        copy_all(&self.trail.directory, &self.at(name));
    }

    fn put_back(&self, name: &str) {
        fs::remove_dir_all(&self.trail.directory).unwrap();
        copy_all(&self.at(name), &self.trail.directory);
    }

    /// Every file of evidence with its content.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.trail.directory.clone()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if !path.ends_with("journal.lock") {
                files.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
        files
    }

    /// Whether nothing was changed, by both. They must agree.
    #[track_caller]
    fn judge(&self, second: &mut Second, what: &str, against: Option<&Path>) -> bool {
        let keys = Keys::load(&self.trail).unwrap();
        let kept = against.map(|path| fs::read(path).unwrap());
        let demand = Demand { witnesses: std::slice::from_ref(&self.witness), age_max: None };
        let request = Request { decode: true, against: kept.as_deref(), demand };
        let ours = inspect(&self.trail.directory, &keys, request).unwrap().findings;
        let mut question =
            vec![json!("trail"), json!(self.trail.directory), json!("--key"), json!(self.log.to_string())];
        question.extend([json!("--witness"), json!(self.witness.to_string())]);
        question.extend(against.iter().flat_map(|path| [json!("--against"), json!(path)]));
        let theirs = second.ask(&Value::Array(question));
        assert_eq!(ours.is_empty(), theirs.is_empty(), "{what}: {ours:?} and {theirs:?}");
        ours.is_empty()
    }
}

#[test]
fn both_verifiers_say_the_same_of_every_change() {
    let Some(mut second) = Second::start() else { return };
    let case = Case::new();
    assert!(case.judge(&mut second, "whole", None));
    let mut found = 0;
    for (path, whole) in case.files() {
        let name = path.strip_prefix(&case.trail.directory).unwrap().display().to_string();
        let mut is_found = |second: &mut Second, what: String, bytes: Option<Vec<u8>>| {
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            assert!(!case.judge(second, &format!("{name} {what}"), None), "{name} {what}: neither found it");
            found += 1;
        };
        for at in (0..whole.len()).step_by(1 + whole.len() / 4) {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            is_found(&mut second, format!("byte {at} changed"), Some(changed));
        }
        is_found(&mut second, "cut".to_owned(), Some(whole[..whole.len() - 1].to_vec()));
        is_found(&mut second, "emptied".to_owned(), Some(Vec::new()));
        is_found(&mut second, "extended".to_owned(), Some([&whole[..], b"x"].concat()));
        is_found(&mut second, "deleted".to_owned(), None);
        fs::write(&path, &whole).unwrap();
    }
    assert!(found > 80, "{found}");
    for name in ["notes.txt", "tile/0/009", "witness/abc", "segment/7", "tile/entries/002.p/300"] {
        fs::create_dir_all(case.file(name).parent().unwrap()).unwrap();
        fs::write(case.file(name), b"x").unwrap();
        assert!(!case.judge(&mut second, name, None), "{name} added");
        fs::remove_file(case.file(name)).unwrap();
    }
    fs::write(case.file("search-index.sqlite"), b"x").unwrap();
    assert!(case.judge(&mut second, "a file that is not evidence", None));
}

/// Bundles that are withheld, and what may be done to them, to the statement and to the keys.
#[test]
fn both_verifiers_say_the_same_of_a_pruned_trail() {
    let Some(mut second) = Second::start() else { return };
    let case = Case::new();
    append(&case.trail, 600);
    append(&case.trail, 600);
    let before = case.files();
    let keys = Keys::load(&case.trail).unwrap();
    let now: Timestamp = "2034-01-01T00:00:00Z".parse().unwrap();
    let plan = plan(&case.trail.directory, &keys, Keep::parse("6y").unwrap(), now).unwrap();
    assert_eq!(plan.bundles.to_string(), "0-3");
    let journal = Journal::open(&case.trail).unwrap();
    let done = block(retain(&journal, &case.trail, plan, "records office", now)).unwrap();
    block(journal.close()).unwrap();
    assert!(done.bundles == 4 && done.keys > 0, "{done:?}");
    assert!(case.judge(&mut second, "pruned", None));
    assert!(case.judge(
        &mut second,
        "an earlier state is contained",
        Some(&case.at("early").join("checkpoint"))
    ));
    let said = fs::read(case.file("withheld")).unwrap();
    let mut changed = |what: &str, name: &str, bytes: Option<Vec<u8>>, good: bool| {
        let whole = fs::read(case.file(name)).ok();
        match bytes {
            Some(bytes) => fs::write(case.file(name), bytes).unwrap(),
            None => fs::remove_file(case.file(name)).unwrap(),
        }
        assert_eq!(case.judge(&mut second, what, None), good, "{what}");
        match whole {
            Some(whole) => fs::write(case.file(name), whole).unwrap(),
            None => fs::remove_file(case.file(name)).unwrap(),
        }
    };
    changed("the statement deleted", "withheld", None, false);
    for at in (0..said.len()).step_by(7) {
        let mut bytes = said.clone();
        bytes[at] ^= 2;
        changed(&format!("byte {at} of the statement"), "withheld", Some(bytes), false);
    }
    changed("a bundle deleted beside those that are withheld", "tile/entries/004", None, false);
    changed("the hashes of a bundle that is withheld deleted", "tile/0/002", None, false);
    let hashes = fs::read(case.file("tile/0/002")).unwrap();
    changed("and changed", "tile/0/002", Some(hashes.iter().map(|byte| byte ^ 1).collect()), false);
    let content = |name: &str| before.get(&case.file(name)).cloned();
    // Its data key is destroyed: nothing that is put back can be read. The last one's key is needed still.
    changed("a bundle that is withheld put back", "tile/entries/001", content("tile/entries/001"), false);
    changed("one whose key is still there", "tile/entries/003", content("tile/entries/003"), true);
    changed("another one put there", "tile/entries/001", content("tile/entries/002"), false);
    let names: Vec<String> = case
        .files()
        .into_keys()
        .filter(|path| path.parent().unwrap().ends_with("keys"))
        .map(|path| format!("keys/{}", path.file_name().unwrap().to_string_lossy()))
        .collect();
    assert!(names.len() > 1);
    let another = fs::read(case.file(&names[1])).unwrap();
    changed("a data key in another's place", &names[0], Some(another), false);
    changed("a data key deleted", &names[0], None, false);
    changed("a data key that nobody signed", "keys/0123456789abcdef", Some(b"key".to_vec()), false);
}

#[test]
fn both_verifiers_say_the_same_of_whole_histories() {
    let Some(mut second) = Second::start() else { return };
    let case = Case::new();
    let kept = |state: &str| case.at(state).join("checkpoint");
    assert!(case.judge(&mut second, "an early state is contained", Some(&kept("early"))));
    let evidence =
        case.files().into_iter().find(|(path, _)| path.parent().unwrap().ends_with("witness")).unwrap();

    case.put_back("witnessed");
    assert!(case.judge(&mut second, "a rollback to the witnessed state shows by nothing inside", None));
    assert!(!case.judge(&mut second, "a checkpoint kept elsewhere shows it", Some(&kept("whole"))));

    case.put_back("early");
    assert!(!case.judge(&mut second, "no cosignature, though one is demanded", None));
    fs::create_dir(case.file("witness")).unwrap();
    fs::write(&evidence.0, &evidence.1).unwrap();
    assert!(!case.judge(&mut second, "a rollback behind the witnessed state", None));
    fs::remove_file(&evidence.0).unwrap();

    append(&case.trail, 300);
    fs::write(&evidence.0, &evidence.1).unwrap();
    assert!(!case.judge(&mut second, "another history of the witnessed length, by both keys", None));
    fs::remove_file(&evidence.0).unwrap();
    append(&case.trail, 250);
    fs::write(&evidence.0, &evidence.1).unwrap();
    assert!(!case.judge(&mut second, "and a longer one", None));
}

#[test]
fn both_verifiers_say_the_same_of_proofs() {
    let Some(mut second) = Second::start() else { return };
    let case = Case::new();
    let early = case.at("early").join("checkpoint");
    let mut wishes = Vec::new();
    for sequence in [0, 4, 255, 256, 511, 512, 554] {
        wishes.push(audit::Wish {
            sequence: Some(sequence),
            hash_only: sequence % 2 == 0,
            ..audit::Wish::default()
        });
    }
    wishes.push(audit::Wish { sequence: Some(300), witnessed: true, ..audit::Wish::default() });
    let from = Some(fs::read(&early).unwrap());
    wishes.push(audit::Wish {
        request_id: Some("r249".to_owned()),
        from: from.clone(),
        ..audit::Wish::default()
    });
    wishes.push(audit::Wish { from, witnessed: true, ..audit::Wish::default() });
    for wish in wishes {
        let (mut text, mut complaint) = (Vec::new(), Vec::new());
        assert_eq!(audit::prove(&case.trail, &wish, &mut text, &mut complaint), audit::GOOD, "{wish:?}");
        let witnesses = if wish.witnessed { vec![case.witness.clone()] } else { Vec::new() };
        assert!(agree(&case, &mut second, &text, &witnesses, &early), "{wish:?}");
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        for (at, line) in lines.iter().enumerate() {
            let without: Vec<u8> = lines
                .iter()
                .enumerate()
                .filter(|(n, _)| *n != at)
                .flat_map(|(_, line)| *line)
                .copied()
                .collect();
            assert!(!agree(&case, &mut second, &without, &witnesses, &early), "{wish:?} without line {at}");
            let mut changed = lines.clone();
            let mut other = line.to_vec();
            let middle = other.len() / 2;
            other[middle] = if other[middle] == b'7' { b'8' } else { b'7' };
            changed[at] = &other;
            assert!(
                !agree(&case, &mut second, &changed.concat(), &witnesses, &early),
                "{wish:?} line {at} changed"
            );
        }
        let stranger =
            VerifierKey::new("stranger.example", KeyKind::Witness, &case.witness.public()).unwrap();
        assert!(
            !agree(&case, &mut second, &text, &[stranger], &early),
            "{wish:?}: a witness that did not cosign"
        );
    }
    let behind = audit::Wish { sequence: Some(400), witnessed: true, ..audit::Wish::default() };
    let (mut text, mut complaint) = (Vec::new(), Vec::new());
    assert_eq!(audit::prove(&case.trail, &behind, &mut text, &mut complaint), audit::PROBLEM);
    assert!(text.is_empty() && String::from_utf8(complaint).unwrap().contains("entry 400: is not covered"));
}

/// What was done to a trail, in how many ways, and what each verifier said of them.
#[derive(Default)]
struct Row {
    tried: usize,
    ours: usize,
    theirs: usize,
    /// Our first finding.
    place: String,
}

impl Case {
    /// The findings of both, without the demand that they agree.
    fn findings(&self, second: &mut Second, against: Option<&Path>) -> (Vec<String>, Vec<String>) {
        let keys = Keys::load(&self.trail).unwrap();
        let kept = against.map(|path| fs::read(path).unwrap());
        let demand = Demand { witnesses: std::slice::from_ref(&self.witness), age_max: None };
        let request = Request { decode: true, against: kept.as_deref(), demand };
        let ours = inspect(&self.trail.directory, &keys, request).unwrap().findings;
        let (log, witness) = (self.log.to_string(), self.witness.to_string());
        let mut question = vec![json!("trail"), json!(self.trail.directory), json!("--key"), json!(log)];
        question.extend([json!("--witness"), json!(witness)]);
        question.extend(against.iter().flat_map(|path| [json!("--against"), json!(path)]));
        (ours.iter().map(ToString::to_string).collect(), second.ask(&Value::Array(question)))
    }

    fn try_one(&self, second: &mut Second, row: &mut Row, against: Option<&Path>) {
        let (ours, theirs) = self.findings(second, against);
        row.tried += 1;
        row.ours += usize::from(!ours.is_empty());
        row.theirs += usize::from(!theirs.is_empty());
        if let (true, Some(finding)) = (row.place.is_empty(), ours.first()) {
            row.place = shortened(finding);
        }
    }
}

impl Row {
    /// `found`: that both find all of it, or that neither finds any.
    fn print(&self, what: &str, found: bool) {
        let Self { tried, ours, theirs, place } = self;
        println!("| {what} | {tried} | {ours} | {theirs} | {place} |");
        let all = if found { (*tried, *tried) } else { (0, 0) };
        assert_eq!((*ours, *theirs), all, "{what}");
    }
}

/// For a cell of a table: without marks of code, and of each hash its beginning.
fn shortened(finding: &str) -> String {
    let plain = finding.replace('`', "");
    let word = |word: &str| {
        let digits = word.trim_start_matches("witness/").chars().take_while(char::is_ascii_hexdigit).count();
        let hidden = if digits >= 64 { digits - 8 } else { 0 };
        let begin = word.len() - word.trim_start_matches("witness/").len() + digits - hidden;
        if hidden == 0 {
            word.to_owned()
        } else {
            format!("{}…{}", &word[..begin], &word[begin + hidden..])
        }
    };
    plain.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// What stands where in the trail.
fn kind_of(name: &str) -> &'static str {
    match name {
        "checkpoint" | "published" => "`checkpoint`, `published`",
        _ if name.starts_with("segment/") => "a segment",
        _ if name.starts_with("tile/entries/") => "an entry bundle",
        _ if name.starts_with("tile/") => "a hash tile",
        _ => "a witness's cosignature",
    }
}

/// Prints the tamper table of docs/audit.md: `cargo test --test second_verifier table -- --nocapture`.
#[test]
fn table_of_tampering() {
    let Some(mut second) = Second::start() else { return };
    let case = Case::new();
    println!(
        "\n| what was done | tries | found by `audit verify` | found by `verify.py` | where: the first finding |"
    );
    println!("| --- | ---: | ---: | ---: | --- |");
    let kinds: std::collections::BTreeSet<&str> =
        case.files().keys().map(|path| kind_of(&case.name(path))).collect();
    for kind in kinds {
        let of_kind = |(path, _): &(PathBuf, Vec<u8>)| kind_of(&case.name(path)) == kind;
        let files: Vec<(PathBuf, Vec<u8>)> = case.files().into_iter().filter(of_kind).collect();
        type Change = fn(&[u8], usize) -> Option<Vec<u8>>;
        let changes: [(&str, Change, usize); 5] = [
            (
                "a bit changed",
                |whole, turn| {
                    let mut changed = whole.to_vec();
                    let at = whole.len() * turn / 8;
                    changed[at] ^= 1 << turn;
                    Some(changed)
                },
                8,
            ),
            ("cut", |whole, turn| Some(whole[..whole.len() * turn / 4].to_vec()), 4),
            ("extended", |whole, _| Some([whole, b"x"].concat()), 1),
            ("deleted", |_, _| None, 1),
            ("put back to an older version", |_, _| None, 0),
        ];
        for (change, make, turns) in changes {
            let mut row = Row::default();
            for (path, whole) in &files {
                let name = case.name(path);
                let older = case.at("witnessed").join(&name);
                if turns == 0 && older.exists() && fs::read(&older).unwrap() != *whole {
                    fs::copy(&older, path).unwrap();
                    case.try_one(&mut second, &mut row, None);
                }
                for turn in 0..turns {
                    match make(whole, turn) {
                        Some(bytes) => fs::write(path, bytes).unwrap(),
                        None => fs::remove_file(path).unwrap(),
                    }
                    case.try_one(&mut second, &mut row, None);
                }
                fs::write(path, whole).unwrap();
            }
            if row.tried > 0 {
                row.print(&format!("{kind}: {change}"), true);
            }
        }
    }
    swapped_and_added(&case, &mut second);
    histories(&case, &mut second);
}

fn swapped_and_added(case: &Case, second: &mut Second) {
    let mut row = Row::default();
    for name in ["tile/entries/000", "tile/entries/001"] {
        let whole = fs::read(case.file(name)).unwrap();
        let entries = read_bundle(&whole).unwrap();
        for (one, other) in [(0, 1), (3, 200), (254, 255)] {
            let mut order = entries.clone();
            order.swap(one, other);
            let mut bundle = Vec::new();
            order.iter().for_each(|entry| write_entry(&mut bundle, entry).unwrap());
            fs::write(case.file(name), bundle).unwrap();
            case.try_one(second, &mut row, None);
        }
        fs::write(case.file(name), whole).unwrap();
    }
    row.print("two entries swapped", true);
    let mut row = Row::default();
    for name in ["notes.txt", "tile/0/009", "witness/abc", "segment/7", "tile/entries/002.p/300"] {
        fs::create_dir_all(case.file(name).parent().unwrap()).unwrap();
        fs::write(case.file(name), b"x").unwrap();
        case.try_one(second, &mut row, None);
        fs::remove_file(case.file(name)).unwrap();
    }
    row.print("a file added", true);
}

/// The whole directory put back, or written anew by who has both keys.
fn histories(case: &Case, second: &mut Second) {
    let mut tell = |what: &str, against: Option<&str>, found: bool| {
        let (mut row, kept) = (Row::default(), against.map(|state| case.at(state).join("checkpoint")));
        case.try_one(second, &mut row, kept.as_deref());
        row.print(what, found);
    };
    let is_cosignature = |path: &PathBuf| path.parent().unwrap().ends_with("witness");
    let evidence = case.files().into_iter().find(|(path, _)| is_cosignature(path)).unwrap();
    case.put_back("witnessed");
    tell("directory put back to a cosigned state, nothing else known", None, false);
    tell("directory put back, a later checkpoint kept elsewhere", Some("whole"), true);
    case.put_back("early");
    tell("directory put back to before the cosignature, which is removed", None, true);
    fs::create_dir(case.file("witness")).unwrap();
    fs::write(&evidence.0, &evidence.1).unwrap();
    tell("directory put back to before the cosignature, which is kept", None, true);
    fs::remove_file(&evidence.0).unwrap();
    append(&case.trail, 300);
    append(&case.trail, 250);
    fs::write(&evidence.0, &evidence.1).unwrap();
    tell("history written anew by who has both keys, cosignature kept", None, true);
}

/// What both say of proofs; they must agree.
#[track_caller]
fn agree(case: &Case, second: &mut Second, text: &[u8], witnesses: &[VerifierKey], early: &Path) -> bool {
    let path = case.at("proof");
    fs::write(&path, text).unwrap();
    let earlier = fs::read(early).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let readable = String::from_utf8_lossy(text);
    let keys = (&case.log, witnesses);
    let ours = audit::check_proof(&readable, keys, Some(&earlier), false, &mut out, &mut err);
    let mut question = vec![json!("proof"), json!(path), json!("--key"), json!(case.log.to_string())];
    question.extend(witnesses.iter().flat_map(|key| [json!("--witness"), json!(key.to_string())]));
    question.extend([json!("--from"), json!(early)]);
    let theirs = second.ask(&Value::Array(question));
    let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
    assert_eq!(ours == audit::GOOD, theirs.is_empty(), "{out}{err}{theirs:?}\n{readable}");
    theirs.is_empty()
}
