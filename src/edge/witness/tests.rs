//! A witness on a real socket with a real file, and a trail that asks it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::domain::audit::{Decision, Record, Verdict};
use crate::domain::ledger::SignedCheckpoint;
use crate::edge::cosigning::{Cosigning, WitnessSource};
use crate::edge::journal::{self, Demand, Inspection, Journal, Keys, Witnessed};
use crate::edge::listener::{Bounds, Security, Stopper, stop_signal};
use crate::edge::telemetry::Telemetry;

/// A trail and a witness that follows it, each in a directory of its own.
struct Two {
    place: TempDir,
    trail: journal::Settings,
    witness: Settings,
    key: VerifierKey,
    telemetry: Telemetry,
}

/// A witness at work.
struct Serving {
    address: SocketAddr,
    stopper: Stopper,
    task: tokio::task::JoinHandle<Drained>,
}

impl Serving {
    async fn end(self) {
        self.stopper.stop();
        let _drained = self.task.await.unwrap();
    }

    async fn post(&self, method: Method, path: &str, body: impl Into<Bytes>) -> (u16, String, String) {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri).body(Full::new(body.into())).unwrap();
        let answer = client.request(request).await.unwrap();
        let media = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, media, String::from_utf8(body.to_vec()).unwrap())
    }
}

impl Two {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let trail = journal::Settings {
            directory: place.path().join("audit"),
            signing_key: place.path().join("audit.key"),
            encryption_key: place.path().join("audit.aes"),
        };
        journal::generate_missing(&trail).unwrap();
        journal::create(&trail, clock::now()).unwrap();
        let log = journal::verifier(&trail.directory, &Keys::load(&trail).unwrap()).unwrap();
        let witness = Settings {
            name: "witness.example/privacy".to_owned(),
            signing_key: place.path().join("other/witness.key"),
            state: place.path().join("other/state/witness.state"),
            logs: vec![TrustedLog { origin: log.name().to_owned(), key: log }],
        };
        fs::create_dir(place.path().join("other")).unwrap();
        let key = init(&witness).unwrap();
        Self { place, trail, witness, key, telemetry: Telemetry::new() }
    }

    fn keys(&self) -> Keys {
        Keys::load(&self.trail).unwrap()
    }

    async fn serve(&self) -> Serving {
        self.serve_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn serve_at(&self, address: SocketAddr) -> Serving {
        let witness = Arc::new(Witness::open(&self.witness).unwrap());
        let listener =
            Listener::bind(address, Security::PlainLoopback, Bounds::OPERATIONS, self.telemetry.clone());
        let listener = listener.await.unwrap();
        let (stopper, stop) = stop_signal();
        let address = listener.address();
        Serving { address, stopper, task: tokio::spawn(serve(listener, witness, stop)) }
    }

    fn cosigning(&self, journal: &Journal, address: SocketAddr) -> Arc<Cosigning> {
        let source = WitnessSource { url: format!("http://{address}/"), key: self.key.clone(), ca: None };
        let log = journal::verifier(&self.trail.directory, &self.keys()).unwrap();
        let place = (self.trail.directory.clone(), log);
        Arc::new(
            Cosigning::new(place, &[source], journal, Duration::from_secs(3600), self.telemetry.clone())
                .unwrap(),
        )
    }

    fn inspect(&self) -> Inspection {
        let demand = Demand {
            witnesses: std::slice::from_ref(&self.key),
            age_max: Some(SignedDuration::from_mins(60)),
        };
        let request = journal::Request { decode: true, demand, ..journal::Request::default() };
        journal::inspect(&self.trail.directory, &self.keys(), request).unwrap()
    }

    #[track_caller]
    fn finds(&self, what: &str) {
        let findings = self.inspect().findings;
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|finding| finding.contains(what)), "{what}: {told:?}");
    }

    fn kept(&self) -> Option<Witnessed> {
        let log = self.witness.logs[0].key.public();
        Witnessed::kept(&self.trail.directory, &log, &self.key).unwrap()
    }

    /// The audit directory as it is now.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.place.path().join(name);
        copy_all(&self.trail.directory, &to);
        to
    }

    /// Puts a copy in the trail's place.
    fn put_back(&self, copy: &Path) {
        fs::remove_dir_all(&self.trail.directory).unwrap();
        copy_all(copy, &self.trail.directory);
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(|_| ()).unwrap()
        }
    }
}

async fn write(journal: &Journal, count: usize, time: Timestamp) {
    let record = |n: usize| Record::Decision(Box::new(Decision::new(time, format!("r{n}"), Verdict::Refuse)));
    let records: Vec<Record> = (0..count).map(record).collect();
    let _receipt = journal.append(&records).await.unwrap();
}

/// Opens the trail, writes so much, has the witness asked as the program does, and closes it.
async fn run(two: &Two, serving: &Serving, count: usize) {
    let journal = Journal::open(&two.trail).unwrap();
    let cosigning = two.cosigning(&journal, serving.address);
    cosigning.greet().await.unwrap();
    write(&journal, count, clock::now()).await;
    journal.close().await.unwrap();
    cosigning.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_is_witnessed_and_verifies() {
    let two = Two::new();
    let serving = two.serve().await;
    two.finds("has cosigned nothing");
    for count in [3, 600, 1] {
        run(&two, &serving, count).await;
        let found = two.inspect();
        assert_eq!(found.findings, []);
        let kept = two.kept().unwrap();
        assert_eq!(kept.checkpoint().size, found.size, "the end of a run is witnessed too");
        assert_eq!(found.witnessed, [kept]);
    }
    assert!(two.telemetry.render().contains("chartgate_witness_requests_total{outcome=\"cosigned\"}"));
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_witness_answers_as_the_specification_says() {
    let two = Two::new();
    let serving = two.serve().await;
    run(&two, &serving, 3).await;
    let good = fs::read(two.trail.directory.join("checkpoint")).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let body = |old: u64, note: &str| format!("old {old}\n\n{note}");
    let unknown = text.replacen("chartgate/", "chartgate/x", 1);
    let unsigned = text.replacen("\n4\n", "\n5\n", 1);
    let own = |size: u64| {
        let log = journal::verifier(&two.trail.directory, &two.keys()).unwrap();
        let checkpoint = crate::domain::ledger::Checkpoint {
            origin: log.name().to_owned(),
            size,
            root: crate::domain::ledger::Hash::of(&[b"x"]),
        };
        let signer = signing_key(&two.trail.signing_key).unwrap();
        String::from_utf8(crate::domain::ledger::sign(&signer, &checkpoint).unwrap()).unwrap()
    };
    let cases = [
        ("the same again", body(4, &text), 200, ""),
        ("nothing known of the size", body(0, &text), 409, "4\n"),
        ("a fork of the same size", body(4, &own(4)), 409, "4\n"),
        ("a fork that grew", body(4, &own(9)), 422, ""),
        ("a rollback", body(3, &own(3)), 409, "4\n"),
        ("larger than the checkpoint by its own words", body(9, &text), 400, ""),
        ("another log", body(4, &unknown), 404, ""),
        ("not by its key", body(4, &unsigned), 403, ""),
        ("no request", "hello".to_owned(), 400, ""),
        ("nothing", String::new(), 400, ""),
    ];
    for (case, body, status, should) in cases {
        let (got, media, answer) = serving.post(Method::POST, "/add-checkpoint", body).await;
        assert_eq!(got, status, "{case}: {answer}");
        if status == 409 {
            assert_eq!((media.as_str(), answer.as_str()), ("text/x.tlog.size", should), "{case}");
        }
        if status == 200 {
            let note = SignedCheckpoint::parse(&good).unwrap().with_lines(answer.as_bytes()).unwrap();
            note.cosigned_by(&two.key).unwrap();
        }
    }
    assert_eq!(serving.post(Method::GET, "/add-checkpoint", "").await.0, 405);
    assert_eq!(serving.post(Method::POST, "/", "").await.0, 404);
    let long = vec![b'x'; WITNESS_REQUEST_BYTES_MAX + 1];
    assert_eq!(serving.post(Method::POST, "/add-checkpoint", long).await.0, 413);
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_refused_at_the_start() {
    let two = Two::new();
    let serving = two.serve().await;
    run(&two, &serving, 3).await;
    let before = two.copy("before");
    run(&two, &serving, 300).await;
    two.put_back(&before);
    assert_eq!(two.inspect().findings, [], "nothing inside the directory tells");
    let journal = Journal::open(&two.trail).unwrap();
    let refused = two.cosigning(&journal, serving.address).greet().await.unwrap_err();
    assert!(refused.contains("has seen 304 entries and here are 4"), "{refused}");
    journal.close().await.unwrap();
    // Whoever then writes on, has another history.
    let journal = Journal::open(&two.trail).unwrap();
    write(&journal, 400, clock::now()).await;
    journal.close().await.unwrap();
    let journal = Journal::open(&two.trail).unwrap();
    let refused = two.cosigning(&journal, serving.address).greet().await.unwrap_err();
    assert!(refused.contains("another history of 304 entries"), "{refused}");
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_shows_a_rollback_and_a_fork_without_the_witness() {
    let two = Two::new();
    let serving = two.serve().await;
    run(&two, &serving, 3).await;
    let before = two.copy("before");
    run(&two, &serving, 300).await;
    serving.end().await;
    let file = fs::read_dir(two.trail.directory.join("witness")).unwrap().next().unwrap().unwrap().path();
    let evidence = fs::read(&file).unwrap();
    two.put_back(&before);
    fs::write(&file, &evidence).unwrap();
    two.finds("entries from 4 to 304 are missing: `witness/");
    assert!(Journal::open(&two.trail).is_err());
    // A fork of the same length, by someone with both keys.
    two.put_back(&before);
    let journal = Journal::open(&two.trail).unwrap();
    write(&journal, 300, clock::now()).await;
    journal.close().await.unwrap();
    fs::write(&file, &evidence).unwrap();
    two.finds("root over the first 304 entries is");
    // Every byte of the file counts, whether or not somebody demands it.
    two.put_back(&before);
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&file, &changed).unwrap();
        let found = journal::inspect(&two.trail.directory, &two.keys(), journal::Request::default()).unwrap();
        assert!(!found.findings.is_empty(), "byte {at}");
    }
    fs::write(&file, &whole).unwrap();
    let moved = file.with_file_name("0".repeat(64));
    fs::rename(&file, &moved).unwrap();
    two.finds("checkpoint is not signed by");
    fs::rename(&moved, &file).unwrap();
    assert_eq!(two.inspect().findings, []);
    fs::remove_file(&file).unwrap();
    two.finds("has cosigned nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_is_away_holds_nothing_up_and_shows_by_age() {
    let two = Two::new();
    let serving = two.serve().await;
    let address = serving.address;
    run(&two, &serving, 3).await;
    serving.end().await;
    let journal = Journal::open(&two.trail).unwrap();
    let cosigning = two.cosigning(&journal, address);
    cosigning.greet().await.unwrap();
    let (stopper, stop) = stop_signal();
    let following = tokio::spawn(Arc::clone(&cosigning).run(stop));
    write(&journal, 5, clock::now() + SignedDuration::from_mins(59)).await;
    assert_eq!(two.inspect().findings, [], "not old enough");
    write(&journal, 5, clock::now() + SignedDuration::from_mins(62)).await;
    two.finds("is too old: it covers 4 of 14 entries");
    let serving = two.serve_at(address).await;
    for _ in 0..200 {
        if two.kept().unwrap().checkpoint().size == 14 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(two.inspect().findings, [], "it caught up");
    stopper.stop();
    following.await.unwrap();
    journal.close().await.unwrap();
    let metrics = two.telemetry.render();
    assert!(
        metrics.contains("chartgate_witness_age_seconds{witness=\"witness.example/privacy\"} "),
        "{metrics}"
    );
    assert!(metrics.contains("outcome=\"unavailable\"}"), "{metrics}");
    serving.end().await;
}

/// KF-54: a sink that takes the connection and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_never_answers_holds_nothing_up() {
    let two = Two::new();
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let journal = Journal::open(&two.trail).unwrap();
    let cosigning = two.cosigning(&journal, hole.local_addr().unwrap());
    let _published = journal.publications().wait_for(Option::is_some).await.unwrap().is_some();
    let (stopper, stop) = stop_signal();
    let following = tokio::spawn(Arc::clone(&cosigning).run(stop));
    let (_taken, _) = tokio::time::timeout(Duration::from_secs(5), hole.accept()).await.unwrap().unwrap();
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        write(&journal, 3, clock::now()).await;
    }
    journal.close().await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    stopper.stop();
    following.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_never_go_back() {
    let two = Two::new();
    let mut notes = vec![fs::read_to_string(two.trail.directory.join("checkpoint")).unwrap()];
    let journal = Journal::open(&two.trail).unwrap();
    let mut published = journal.publications();
    let mut proofs = BTreeMap::new();
    for round in 0..4u64 {
        write(&journal, 10, clock::now()).await;
        let size = 11 + round * 10;
        let ready = published
            .wait_for(|now| now.as_ref().is_some_and(|now| now.size() == size))
            .await
            .unwrap()
            .clone();
        let publication = ready.unwrap();
        notes.push(publication.checkpoint().unwrap().to_string());
        for old in (1..size).step_by(10) {
            proofs.insert((old, size), publication.consistency(&two.trail.directory, old).unwrap());
        }
    }
    journal.close().await.unwrap();
    let ask = |witness: &Witness, old: u64, size: u64, note: &str| {
        let proof = proofs.get(&(old, size)).cloned().unwrap_or_default();
        let note = SignedCheckpoint::parse(note.as_bytes()).unwrap();
        witness.add_checkpoint(AddCheckpoint { old, proof, note }.to_string().as_bytes())
    };
    let witness = Witness::open(&two.witness).unwrap();
    std::thread::scope(|scope| {
        for (n, note) in (0u64..).zip(&notes).flat_map(|one| [one; 8]) {
            let (witness, ask) = (&witness, &ask);
            // Every one asks from every size: which of them is right depends on who came before.
            scope.spawn(move || {
                let size = 1 + n * 10;
                for old in [0].into_iter().chain((1..=size).step_by(10)) {
                    let status = ask(witness, old, size, note).0;
                    assert!(matches!(status.as_u16(), 200 | 409), "from {old} to {size}: {status}");
                }
            });
        }
    });
    // Whatever the order, the largest state that was cosigned is the one that is kept, and it outlasts the process.
    let known = (StatusCode::CONFLICT, SIZE, "41\n".to_owned());
    assert_eq!(ask(&witness, 0, 41, &notes[4]), known);
    drop(witness);
    assert_eq!(ask(&Witness::open(&two.witness).unwrap(), 0, 41, &notes[4]), known);
}

#[test]
fn the_state_is_made_once_locked_and_read_strictly() {
    let two = Two::new();
    assert!(matches!(init(&two.witness), Err(WitnessError::Store(StoreError::Exists(_)))));
    let open = Witness::open(&two.witness).unwrap();
    assert!(matches!(Witness::open(&two.witness), Err(WitnessError::Store(StoreError::InUse(_)))));
    drop(open);
    let hash = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    for wrong in [
        String::new(),
        "chartgate witness state 2\n".to_owned(),
        "chartgate witness state 1".to_owned(),
        format!("chartgate witness state 1\n7 {hash}\n"),
        "chartgate witness state 1\n7 AAAA log\n".to_owned(),
        format!("chartgate witness state 1\n7 {hash} log\n8 {hash} log\n"),
    ] {
        fs::write(&two.witness.state, &wrong).unwrap();
        assert!(
            matches!(Witness::open(&two.witness), Err(WitnessError::Store(StoreError::Damaged(_)))),
            "{wrong}"
        );
    }
    fs::remove_file(&two.witness.state).unwrap();
    assert!(matches!(Witness::open(&two.witness), Err(WitnessError::Store(StoreError::Missing(_)))));
    assert!(!two.witness.state.exists(), "opening makes nothing");
}

/// After a write that failed nobody can know what is on disk.
#[test]
fn nothing_is_cosigned_after_a_failed_write() {
    let two = Two::new();
    let witness = Witness::open(&two.witness).unwrap();
    let note = fs::read_to_string(two.trail.directory.join("checkpoint")).unwrap();
    let folder = two.witness.state.parent().unwrap().to_owned();
    let away = folder.with_file_name("away");
    fs::rename(&folder, &away).unwrap();
    assert_eq!(
        witness.add_checkpoint(format!("old 0\n\n{note}").as_bytes()).0,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    fs::rename(&away, &folder).unwrap();
    assert_eq!(
        witness.add_checkpoint(format!("old 0\n\n{note}").as_bytes()).0,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    drop(witness);
    let witness = Witness::open(&two.witness).unwrap();
    assert_eq!(witness.add_checkpoint(format!("old 0\n\n{note}").as_bytes()).0, StatusCode::OK);
}
