//! The gate under load, with a fault, and what its trail holds afterwards of what clients were told.
//!
//! Owns: the table of faults in docs/audit.md: its rows, and what makes one.
//! Must never: take the gate's word for anything: what clients heard and what the EMR saw is compared with the trail.
//! Look next: `libc.c`, the faults; `power.rs`, the power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chartgate::app;
use chartgate::config;
use chartgate::domain::audit::{Decision, Record, Verdict};
use chartgate::edge::journal::Settings;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use crate::child::{Gate, until, verify};
use crate::harness::{run, trail, with_integration};
use crate::power::{Disk, Luck, calls};

/// What one client heard.
#[derive(Clone, Debug)]
struct Heard {
    request_id: String,
    /// That nothing can be recorded: there is no record then.
    is_unavailable: bool,
    began: u128,
    heard: u128,
}

/// What all clients heard.
type All = Arc<Mutex<Vec<Heard>>>;

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// Clients at work until they are stopped or the gate is gone.
struct Load {
    all: All,
    over: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

/// Numbers of records that are written, never twice the same.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

impl Load {
    fn start(gate: &Gate) -> Self {
        let (all, over) = (All::default(), Arc::new(AtomicBool::new(false)));
        let mut clients = Vec::new();
        for who in ["physician", "nurse", "researcher", "patient", "front-desk", "integration", "nobody"] {
            let bearer = match who {
                "nobody" => "Bearer e30.e30.e30".to_owned(),
                _ => format!("Bearer {}", gate.hospital.writer(who)),
            };
            let (client, base) = (gate.hospital.client.clone(), gate.hospital.stage.base_url().to_owned());
            let (all, over) = (Arc::clone(&all), Arc::clone(&over));
            clients.push(tokio::spawn(async move {
                let paths = ["Patient/p1", "Observation?patient=p1&_count=5", "Coverage/cov1"];
                for path in paths.iter().cycle() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut headers = HeaderMap::new();
                    headers.insert(header::AUTHORIZATION, HeaderValue::try_from(&bearer).unwrap());
                    let (method, path, body) = if who == "integration" {
                        headers
                            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/fhir+json"));
                        let (path, body) = observation();
                        ("PUT", path, body)
                    } else {
                        ("GET", (*path).to_owned(), String::new())
                    };
                    let began = now();
                    // A broken connection: the gate is gone, and so is this client.
                    let Ok(answer) =
                        client.ask(method, &format!("{base}/{path}"), headers, Bytes::from(body)).await
                    else {
                        return;
                    };
                    let text = String::from_utf8_lossy(answer.body()).into_owned();
                    let is_unavailable = answer.status() == 503 && text.contains("\"audit-unavailable\"");
                    let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
                    all.lock().unwrap().push(Heard { request_id, is_unavailable, began, heard: now() });
                }
            }));
        }
        Self { all, over, clients }
    }

    fn acknowledged(&self) -> usize {
        self.all.lock().unwrap().iter().filter(|heard| !heard.is_unavailable).count()
    }

    fn refused(&self) -> usize {
        self.all.lock().unwrap().iter().filter(|heard| heard.is_unavailable).count()
    }

    fn is_gone(&self) -> bool {
        self.clients.iter().all(tokio::task::JoinHandle::is_finished)
    }

    async fn stop(self) -> Vec<Heard> {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        std::mem::take(&mut *self.all.lock().unwrap())
    }
}

/// A record of its own each time.
fn observation() -> (String, String) {
    let id = format!("fault-{}", WRITTEN.fetch_add(1, Ordering::Relaxed));
    let body = format!(
        r#"{{"resourceType":"Observation","id":"{id}","status":"final","code":{{"text":"x"}},"subject":{{"reference":"Patient/p1"}}}}"#
    );
    (format!("Observation/{id}"), body)
}

/// One row.
#[derive(Default)]
struct Row {
    fault: String,
    times: usize,
    acknowledged: usize,
    found: usize,
    twice: usize,
    /// Acknowledged although they began after somebody had heard that nothing can be recorded.
    late: usize,
}

impl Row {
    fn print(&self) {
        let lost = self.acknowledged - self.found;
        println!(
            "| {} | {} | {} | {} | {lost} | {} | {} |",
            self.fault, self.times, self.acknowledged, self.found, self.twice, self.late
        );
        assert_eq!((lost, self.twice, self.late), (0, 0, 0), "{}", self.fault);
        assert!(
            self.times > 0 && self.acknowledged > 20 * self.times,
            "{}: too little was asked",
            self.fault
        );
    }
}

/// How many decisions the trail has for each request, entries of batches not counted.
fn decisions(config: &Path) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for record in
        trail(config).iter().filter(|record| record["kind"] == "release" || record["kind"] == "refusal")
    {
        *found.entry(record["requestId"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    found
}

fn reconcile(fault: &str, times: usize, heard: &[Heard], found: &BTreeMap<String, usize>) -> Row {
    let acknowledged: Vec<&Heard> = heard.iter().filter(|heard| !heard.is_unavailable).collect();
    let of = |heard: &&&Heard| found.get(&heard.request_id).copied().unwrap_or(0);
    Row {
        fault: fault.to_owned(),
        times,
        acknowledged: acknowledged.len(),
        found: acknowledged.iter().filter(|heard| of(heard) > 0).count(),
        twice: acknowledged.iter().filter(|heard| of(heard) > 1).count(),
        late: 0,
    }
}

/// Acknowledged in one round although it had already failed.
fn late(heard: &[Heard]) -> usize {
    let felt = heard.iter().filter(|heard| heard.is_unavailable).map(|heard| heard.heard).min();
    let Some(felt) = felt else { return 0 };
    heard.iter().filter(|heard| !heard.is_unavailable && heard.began > felt).count()
}

/// Everything that is asked of one gate, over all its faults.
struct Ward {
    gate: Gate,
    config: PathBuf,
    library: PathBuf,
}

impl Ward {
    async fn open(library: &Path) -> Self {
        let mut gate = Gate::start(with_integration(), None).await;
        gate.signal("TERM");
        assert!(gate.wait().success());
        let config = gate.hospital.stage.config_file();
        Self { gate, config, library: library.to_owned() }
    }

    fn wrap(&self, fault: &str) -> String {
        format!("export LD_PRELOAD={} {fault}", self.library.display())
    }

    fn directory(&self) -> PathBuf {
        self.gate.hospital.stage.folder().join("audit")
    }

    /// Kills what is left, and looks at the trail as an auditor would.
    fn end(&mut self, what: &str) {
        self.gate.signal("KILL");
        let _killed = self.gate.wait();
        let verified = verify(&self.config);
        assert_eq!(verified.status.code(), Some(0), "{what}: {}", String::from_utf8_lossy(&verified.stdout));
    }

    /// Rounds with a fault of the library at each of these calls, or none; killed at the end, or sooner by itself.
    async fn library_rounds(&mut self, name: &str, fault: &str, places: &[usize]) -> Row {
        let (mut heard, mut after) = (Vec::new(), 0);
        for place in places {
            let wrap = self.wrap(&format!("FAULT={fault} FAULT_AT={place}"));
            self.gate.restart(Some(&wrap)).await;
            let load = Load::start(&self.gate);
            let is_over =
                || load.is_gone() || load.refused() >= 8 || (fault == "slow" && load.acknowledged() >= 80);
            assert!(until(Duration::from_secs(60), is_over).await, "{name} at {place}: nothing happens");
            if !load.is_gone() {
                let load = load.stop().await;
                after += late(&load);
                heard.extend(load);
                self.end(&format!("{name} at {place}"));
                continue;
            }
            heard.extend(load.stop().await);
            let _died = self.gate.wait();
            let verified = verify(&self.config);
            assert_eq!(verified.status.code(), Some(0), "{name} at {place}");
        }
        self.row(name, places.len(), &heard, after)
    }

    /// Compares what was heard with the trail as it stands. That the gate goes on is shown by the next row.
    fn row(&self, name: &str, times: usize, heard: &[Heard], after: usize) -> Row {
        Row { late: after, ..reconcile(name, times, heard, &decisions(&self.config)) }
    }

    /// Goes on without a fault, and closes in order.
    async fn close(&mut self) -> Row {
        self.gate.restart(None).await;
        let load = Load::start(&self.gate);
        assert!(until(Duration::from_secs(60), || load.acknowledged() >= 30).await, "it does not go on");
        let heard = load.stop().await;
        self.gate.signal("TERM");
        assert!(self.gate.wait().success());
        assert_eq!(verify(&self.config).status.code(), Some(0));
        self.row("none: started after all of these, and closed in order", 1, &heard, 0)
    }

    /// Killed while they ask.
    async fn killed(&mut self, times: usize) -> Row {
        let mut heard = Vec::new();
        for round in 0..times {
            self.gate.restart(None).await;
            let load = Load::start(&self.gate);
            assert!(until(Duration::from_secs(60), || load.acknowledged() >= 40 + round * 7).await);
            self.end("killed");
            heard.extend(load.stop().await);
        }
        self.row("`kill -9` under load", times, &heard, 0)
    }

    /// Somebody does something to the files, and undoes it before the next start.
    async fn touched(&mut self, name: &str, harm: fn(&Path), undo: fn(&Path)) -> Row {
        self.gate.restart(None).await;
        let load = Load::start(&self.gate);
        assert!(until(Duration::from_secs(60), || load.acknowledged() >= 40).await);
        let mut heard = load.stop().await;
        harm(&self.directory());
        let load = Load::start(&self.gate);
        assert!(until(Duration::from_secs(30), || load.refused() >= 8).await, "{name}: it is not noticed");
        let after = load.stop().await;
        let late = after.iter().filter(|heard| !heard.is_unavailable).count();
        heard.extend(after);
        self.gate.signal("KILL");
        let _killed = self.gate.wait();
        undo(&self.directory());
        assert_eq!(verify(&self.config).status.code(), Some(0), "{name}: undone");
        self.row(name, 1, &heard, late)
    }

    /// The power fails after each call that changed something, with all the luck there may be.
    async fn power_cut(&mut self) -> Row {
        let (log, aside) =
            (self.gate.hospital.stage.folder().join("calls"), self.gate.hospital.stage.folder().join("cut"));
        let mut disk = Disk::of(&self.directory());
        self.gate.restart(Some(&self.wrap(&format!("FAULT_LOG={}", log.display())))).await;
        let mut heard = Vec::new();
        for enough in [24, 12] {
            // The second time behind a state that is published: nothing may look older than that any more.
            let published = self.directory().join("published");
            let before = fs::read(&published).unwrap();
            let load = Load::start(&self.gate);
            assert!(until(Duration::from_secs(60), || load.acknowledged() >= enough).await);
            heard.extend(load.stop().await);
            let is_published = || fs::read(&published).unwrap() != before;
            assert!(enough < 24 || until(Duration::from_secs(60), is_published).await);
        }
        self.end("power cut");
        let trail = app::journal_settings(&config::load(&self.config).unwrap());
        let cut = Settings { directory: aside.clone(), ..trail };
        let calls = calls(&log);
        let (mut cuts, mut seen, mut lost) = (0, BTreeSet::new(), 0);
        for (number, call) in calls.iter().enumerate() {
            disk.apply(call);
            // Whoever heard an answer before the next call began may count on it.
            let next = calls.get(number + 1).map_or(u128::MAX, |next| next.at);
            let counted_on: Vec<&Heard> =
                heard.iter().filter(|heard| !heard.is_unavailable && heard.heard < next).collect();
            for luck in [Luck::None, Luck::HalfTheBytes, Luck::EveryName] {
                let left = disk.left(luck);
                // A state that was looked at, with nobody counting on more than then, is looked at once.
                if !seen.insert((fingerprint(&left), counted_on.len())) {
                    continue;
                }
                cuts += 1;
                disk.restore(&left, &aside);
                let case = format!("{luck:?} after call {number}");
                assert_eq!(crate::findings(&cut), 0, "{case}");
                let ids: BTreeSet<String> = crate::request_ids(&cut).into_iter().collect();
                lost += counted_on.iter().filter(|heard| !ids.contains(&heard.request_id)).count();
                assert_eq!(lost, 0, "{case}: acknowledged and lost");
                if cuts % 16 == 0 {
                    goes_on(&cut, &case).await;
                }
            }
        }
        assert!(cuts > 100, "{cuts} states");
        let mut row = self.row("power cut after a call that changed something", 1, &heard, 0);
        row.fault.push_str(&format!(" ({cuts} states of the disk)"));
        row
    }

    /// Every change that the EMR was asked for has a record that was there before.
    fn changes(&self) -> Row {
        let asked: BTreeSet<String> = self
            .gate
            .hospital
            .stage
            .emr()
            .requests()
            .iter()
            .filter(|one| one.method == "PUT")
            .filter_map(|one| Some(one.target.split_once("Observation/")?.1.to_owned()))
            .collect();
        let lines: BTreeSet<String> = trail(&self.config)
            .iter()
            .filter_map(|record| {
                Some(Value::as_str(&record["request"])?.strip_prefix("PUT Observation/")?.to_owned())
            })
            .collect();
        let found = asked.iter().filter(|id| lines.contains(*id)).count();
        let fault = "all of these: changes that the EMR was asked for".to_owned();
        Row { fault, times: 1, acknowledged: asked.len(), found, ..Row::default() }
    }
}

fn fingerprint(left: &BTreeMap<PathBuf, Option<Vec<u8>>>) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    left.hash(&mut hasher);
    hasher.finish()
}

/// The journal opens what a power cut left, takes more, and verifies.
async fn goes_on(settings: &Settings, case: &str) {
    let journal = crate::open(settings).unwrap_or_else(|error| panic!("{case}: {error}"));
    let record = Record::Decision(Box::new(Decision::new(
        "2026-03-01T08:00:00Z".parse().unwrap(),
        "after".to_owned(),
        Verdict::Refuse,
    )));
    let _receipt = journal.append(&[record]).await.unwrap();
    journal.close().await.unwrap();
    assert_eq!(crate::findings(settings), 0, "{case}: going on");
}

fn segment(directory: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory.join("segment")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.pop().unwrap()
}

fn aside(directory: &Path) -> PathBuf {
    directory.with_file_name("aside")
}

fn put_back(directory: &Path) {
    let name = fs::read_to_string(directory.with_file_name("name")).unwrap();
    fs::rename(aside(directory), name).unwrap();
}

/// Keeps the newest segment's name and a copy of it.
fn copy_aside(directory: &Path) -> PathBuf {
    let path = segment(directory);
    fs::write(directory.with_file_name("name"), path.to_str().unwrap()).unwrap();
    fs::copy(&path, aside(directory)).unwrap();
    path
}

/// What somebody does to the files, and how it is undone.
type Touch = (&'static str, fn(&Path), fn(&Path));

const TOUCHES: [Touch; 5] = [
    ("newest segment deleted", |directory| fs::remove_file(copy_aside(directory)).unwrap(), put_back),
    (
        "newest segment replaced by its copy",
        |directory| {
            let path = copy_aside(directory);
            let copy = directory.with_file_name("copy");
            fs::copy(&path, &copy).unwrap();
            fs::rename(copy, path).unwrap();
        },
        put_back,
    ),
    (
        "newest segment cut",
        |directory| {
            let file = fs::OpenOptions::new().write(true).open(copy_aside(directory)).unwrap();
            file.set_len(file.metadata().unwrap().len() - 10).unwrap();
        },
        put_back,
    ),
    (
        "checkpoint's permissions changed",
        |directory| {
            fs::set_permissions(directory.join("checkpoint"), fs::Permissions::from_mode(0o444)).unwrap()
        },
        |directory| {
            fs::set_permissions(directory.join("checkpoint"), fs::Permissions::from_mode(0o600)).unwrap()
        },
    ),
    (
        "directory moved away",
        |directory| fs::rename(directory, directory.with_file_name("gone")).unwrap(),
        |directory| {
            // Whoever looked for it may have made one.
            let _there = fs::remove_dir_all(directory);
            fs::rename(directory.with_file_name("gone"), directory).unwrap();
        },
    ),
];

/// Every fault, under load, through the gate as it is started by an operator. Prints the table of docs/audit.md.
#[test]
fn table_of_faults() {
    let root = tempfile::tempdir().unwrap();
    let Some(library) = crate::build(root.path()) else {
        println!("SKIPPED: no C compiler for tests/faults/libc.c (Linux with cc is needed)");
        return;
    };
    run(async {
        let mut ward = Ward::open(&library).await;
        println!(
            "\n| fault | times | requests acknowledged | records found | lost | twice | acknowledged after it was felt |"
        );
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
        // First, since every state of the disk is verified, and the trail grows.
        ward.power_cut().await.print();
        ward.killed(3).await.print();
        ward.library_rounds("killed in a call of the journal", "die", &[151, 182, 213, 244]).await.print();
        ward.library_rounds("disk full from a call on", "full", &[150, 201, 252]).await.print();
        ward.library_rounds("read-only from a call on", "readonly", &[150, 201, 252]).await.print();
        ward.library_rounds("one sync fails, later ones would succeed", "sync", &[150, 201, 252])
            .await
            .print();
        ward.library_rounds("one call fails", "once", &[150, 181, 212]).await.print();
        ward.library_rounds("every sync takes 50 ms longer, then `kill -9`", "slow", &[50]).await.print();
        for (name, harm, undo) in TOUCHES {
            ward.touched(name, harm, undo).await.print();
        }
        ward.close().await.print();
        ward.changes().print();
    });
}
