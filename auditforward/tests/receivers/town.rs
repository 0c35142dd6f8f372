//! A trail that a gate's journal writes, and a forwarder beside it.
//!
//! Owns: records with everything a hostile client can write, starting and killing the forwarder, what should have arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chartgate::cli::audit::item::item;
use chartgate::clock;
use chartgate::domain::audit::{Assembly, Caller, Decision, Ending, Outcome, Record, Released, Verdict};
use chartgate::edge::journal::{self, Journal, Keys, create, generate_missing, read_entries};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What clients write into requests (T-226).
const HOSTILE: &[&str] = &[
    "a\nb",
    "a\r\n<13>1 - - - - - - forged",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{202e}txt.exe",
    "\",\"kind\":\"control\",\"x\":\"",
    "\0\u{7f}\u{feff}",
    "é\u{1F600}\\u0000",
];

const GATE: &str = include_str!("../../../tests/data/config/least.toml");

/// A trail and its gate's journal.
pub(crate) struct Town {
    pub(crate) folder: TempDir,
    pub(crate) trail: journal::Settings,
    pub(crate) journal: Journal,
    runtime: Runtime,
    written: AtomicU64,
}

impl Town {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let trail = journal::Settings {
            directory: folder.path().join("audit"),
            signing_key: folder.path().join("audit.key"),
            encryption_key: folder.path().join("audit.aes"),
        };
        generate_missing(&trail).unwrap();
        create(&trail, clock::now()).unwrap();
        fs::write(folder.path().join("chartgate.toml"), GATE).unwrap();
        let journal = Journal::open(&trail).unwrap();
        let runtime = Runtime::new().unwrap();
        Self { folder, trail, journal, runtime, written: AtomicU64::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes that many answers: a release of `records` records and an outcome each, or a refusal now and then.
    pub(crate) fn write(&self, answers: u64, records: usize) {
        for _ in 0..answers {
            let number = self.written.fetch_add(1, Ordering::Relaxed);
            let _receipt = self.runtime.block_on(self.journal.append(&answer(number, records))).unwrap();
        }
    }

    /// The same, ten answers in a commit.
    pub(crate) fn write_quickly(&self, answers: u64, records: usize) {
        for _ in 0..answers / 10 {
            let number = self.written.fetch_add(10, Ordering::Relaxed);
            let all: Vec<Record> = (number..number + 10).flat_map(|number| answer(number, records)).collect();
            let _receipt = self.runtime.block_on(self.journal.append(&all)).unwrap();
        }
    }

    /// Every item that is to arrive, by its sequence number.
    pub(crate) fn expected(&self, patients: bool) -> BTreeMap<u64, Value> {
        let keys = Keys::load(&self.trail).unwrap();
        let (mut assembly, mut items) = (Assembly::default(), BTreeMap::new());
        read_entries(&self.trail.directory, &keys, &mut |entry| {
            if let Some((sequence, record)) = assembly.push(entry.sequence, entry.part.unwrap()).unwrap() {
                items.insert(sequence, item(sequence, &record, patients));
            }
            Ok(())
        })
        .unwrap();
        items
    }

    /// Writes `forward.toml`.
    pub(crate) fn configure(&self, receivers: &str) {
        let text =
            format!("[trail]\nconfig = \"chartgate.toml\"\nstate = \"state\"\nas = \"tests\"\n{receivers}");
        fs::write(self.path("forward.toml"), text).unwrap();
    }

    /// Starts the forwarder.
    pub(crate) fn forward(&self) -> Forwarder {
        Forwarder::start(&self.path("forward.toml"))
    }

    /// A command of the forwarder: whether it was good, and what it said.
    pub(crate) fn ask(&self, arguments: &[&str]) -> (bool, String) {
        let config = self.path("forward.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chartgate-forward"));
        let output = command.args(arguments).arg("--config").arg(config).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// What `status` says of a receiver.
    pub(crate) fn status(&self, receiver: &str) -> Value {
        let (_, text) = self.ask(&["status", "--json"]);
        let mut lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("status: {text}")));
        lines.find(|line| line["receiver"] == receiver).unwrap()
    }

    /// Waits until a receiver has everything.
    pub(crate) fn settle(&self, receiver: &str) {
        let told = until(Duration::from_secs(120), || {
            let status = self.status(receiver);
            (status["behindEntries"] == 0).then_some(())
        });
        assert!(told.is_some(), "{}", self.status(receiver));
    }
}

/// Asks again until there is an answer.
pub(crate) fn until<T>(bound: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    while began.elapsed() < bound {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        thread::sleep(Duration::from_millis(200));
    }
    None
}

fn answer(number: u64, records: usize) -> Vec<Record> {
    let (now, id) = (clock::now(), format!("request-{number}"));
    let hostile = HOSTILE[usize::try_from(number).unwrap() % HOSTILE.len()];
    let verdict = if number % 10 == 9 { Verdict::Refuse } else { Verdict::Permit };
    let mut decision = Decision::new(now, id.clone(), verdict);
    decision.caller = Some(Caller {
        issuer: "https://idp.hospital.example".to_owned(),
        subject: format!("dr-{hostile}"),
        ..Caller::default()
    });
    decision.interaction = "search-type".to_owned();
    decision.request = format!("GET Observation?patient=patient-{number}&x={hostile}");
    if verdict == Verdict::Refuse {
        decision.reason = Some("not-permitted".to_owned());
        return vec![Record::Decision(Box::new(decision))];
    }
    let mask = Arc::new(vec!["Observation.code".to_owned(), "Observation.value".to_owned()]);
    let released = (0..records).map(|place| Released {
        reference: format!("Observation/patient-{number}-{place}"),
        version: Some("1".to_owned()),
        patients: BTreeSet::from([format!("patient-{number}")]),
        mask: Arc::clone(&mask),
    });
    decision.released = released.collect();
    let outcome = Outcome {
        time: now,
        request_id: id,
        entry: None,
        ending: Ending::Complete,
        sent_bytes: Some(number),
    };
    vec![Record::Decision(Box::new(decision)), Record::Outcome(outcome)]
}

/// The forwarder at work; killed with this value.
pub(crate) struct Forwarder {
    process: Child,
}

impl Forwarder {
    fn start(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chartgate-forward"));
        command.args(["run", "--config"]).arg(config).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        // Shown when a test fails, and never a full pipe.
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("  forwarder: {line}")));
        Self { process }
    }

    /// The peak of its memory, in KiB.
    pub(crate) fn memory_peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// SIGTERM; answers whether it ended well.
    pub(crate) fn stop(mut self) -> bool {
        let signalled = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(signalled.success());
        self.process.wait().unwrap().success()
    }
}

impl Drop for Forwarder {
    /// SIGKILL.
    fn drop(&mut self) {
        let _over = self.process.kill();
        let _over = self.process.wait();
    }
}

/// Each another, and none that the system gives to outgoing connections (from 32768 on): a server that is told its port takes
/// it later, and whoever connects meanwhile must not have it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id() % 16_000;
    let another = || 12_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
    let mut ports = std::iter::repeat_with(another).take(20_000).filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Pauses that are not in step with anything, from a number.
pub(crate) fn odd_pause(number: u64) -> Duration {
    Duration::from_millis(150 + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_100)
}

/// Tests run beside each other, and installing is done in one place.
pub(crate) static INSTALLING: Mutex<()> = Mutex::new(());

/// Says that a receiver cannot be had; fails where all must be.
pub(crate) fn skipped(what: &str, why: &str) {
    let required = std::env::var_os("CHARTGATE_REQUIRE_NEIGHBOURS").is_some_and(|value| value == "1");
    assert!(!required, "{what} cannot be had: {why}");
    eprintln!("SKIPPED {what}: {why}");
}

/// Brings Python packages into the target directory; answers what to put into PYTHONPATH.
pub(crate) fn python(folder: &str, probe: &str) -> Option<String> {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut install = Command::new("bash");
    install.arg(here.join("../tests/python/install.sh"));
    install.arg(here.join(format!("tests/{folder}/requirements.txt"))).arg(probe);
    let output = install.arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder)).output().unwrap();
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    skipped(folder, &String::from_utf8_lossy(&output.stderr));
    None
}

/// Two certificates and their authority, as files.
pub(crate) fn certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// What arrived, once each; the same sequence number never says two things.
pub(crate) fn once_each(lines: impl Iterator<Item = Value>) -> (BTreeMap<u64, Value>, usize) {
    let (mut once, mut again) = (BTreeMap::new(), 0);
    for mut line in lines {
        // What the channel adds: the log's name.
        line.as_object_mut().unwrap().remove("log");
        let sequence = line["sequence"].as_u64().unwrap();
        match once.get(&sequence) {
            Some(known) => {
                assert_eq!(known, &line);
                again += 1;
            }
            None => {
                once.insert(sequence, line);
            }
        }
    }
    (once, again)
}

/// Compares what arrived with what was to arrive.
pub(crate) fn assert_all(arrived: &BTreeMap<u64, Value>, expected: &BTreeMap<u64, Value>) {
    let missing: Vec<&u64> = expected.keys().filter(|sequence| !arrived.contains_key(sequence)).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), expected.len());
    for (sequence, item) in arrived {
        assert_eq!(Some(item), expected.get(sequence), "entry {sequence}");
    }
}
