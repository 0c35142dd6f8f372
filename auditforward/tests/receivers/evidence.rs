//! SeaweedFS as a bucket with Object Lock: the evidence gets there, cannot be deleted there, and verifies when it comes back.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use chartgate::edge::journal::verify_copy;
use serde_json::json;

use crate::town::{Town, certificates, free_port, odd_pause, python, until};

const KEY: &str = "gate";
const SECRET: &str = "test-only-secret";

/// SeaweedFS over a folder; killed with this value.
struct Seaweed {
    process: Child,
}

/// What it is started with.
struct Site {
    program: String,
    folder: String,
    s3: u16,
    https: u16,
    ports: [u16; 6],
}

impl Site {
    /// Nothing where it cannot be had.
    fn new(folder: &Path) -> Option<Self> {
        let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bucket/python/bin/weed");
        // A program and no package: there is nothing to import, so the file is the probe.
        let probe =
            format!("import os, sys; sys.exit(not os.access({:?}, os.X_OK))", into.display().to_string());
        let _folder = python("bucket", &probe)?;
        let identities = json!({"identities": [{"name": "gate", "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]});
        fs::write(folder.join("s3.json"), identities.to_string()).unwrap();
        fs::write(folder.join("s3.key"), SECRET).unwrap();
        fs::create_dir(folder.join("weed")).unwrap();
        certificates(folder);
        // Its gRPC ports are 10,000 above the others unless they are named.
        let ports = std::array::from_fn(|_| free_port());
        let folder = folder.display().to_string();
        Some(Self { program: into.display().to_string(), folder, s3: free_port(), https: free_port(), ports })
    }

    fn start(&self) -> Seaweed {
        let [master, volume, filer, master_grpc, volume_grpc, filer_grpc] = self.ports;
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]);
        command.arg(format!("-dir={}/weed", self.folder)).arg(format!("-s3.config={}/s3.json", self.folder));
        command.args([
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.cert.file=server.pem",
            "-s3.key.file=server.key",
        ]);
        command.arg(format!("-s3.port.https={}", self.https));
        command.arg(format!("-s3.port={}", self.s3)).arg(format!("-s3.port.grpc={}", free_port()));
        command.arg(format!("-master.port={master}")).arg(format!("-master.port.grpc={master_grpc}"));
        command.arg(format!("-volume.port={volume}")).arg(format!("-volume.port.grpc={volume_grpc}"));
        command.arg(format!("-filer.port={filer}")).arg(format!("-filer.port.grpc={filer_grpc}"));
        let log = format!("{}/weed.log", self.folder);
        command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let process = command.spawn().unwrap();
        let seaweed = Seaweed { process };
        let answers =
            until(Duration::from_secs(60), || (self.s3("GET", "", &[], None).0 == 200).then_some(()));
        assert!(answers.is_some(), "SeaweedFS does not answer: {}", fs::read_to_string(log).unwrap());
        seaweed
    }

    /// A request by a client that shares nothing with ours: status and answer. Status 0: there is none.
    fn s3(&self, method: &str, path: &str, headers: &[&str], body: Option<&str>) -> (u16, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bucket/s3.py");
        let url = format!("http://127.0.0.1:{}/{path}", self.s3);
        let mut command = Command::new("python3");
        command.arg(script).args([method, &url, KEY, SECRET]).args(headers);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(body.unwrap_or_default().as_bytes()).unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let (status, answer) = text.split_once('\n').unwrap();
        (status.parse().unwrap(), answer.trim().to_owned())
    }

    /// A bucket, with a default retention where one is given.
    fn bucket(&self, name: &str, rule: Option<(&str, u32)>) {
        let lock: &[&str] = if rule.is_some() { &["x-amz-bucket-object-lock-enabled: true"] } else { &[] };
        assert_eq!(self.s3("PUT", name, lock, None).0, 200);
        if let Some((mode, days)) = rule {
            self.retain(name, mode, days);
        }
    }

    fn retain(&self, name: &str, mode: &str, days: u32) {
        let body = format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>{mode}</Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
        );
        let (status, answer) = self.s3("PUT", &format!("{name}?object-lock="), &[], Some(&body));
        assert_eq!(status, 200, "{answer}");
    }

    fn receiver(&self, bucket: &str) -> String {
        format!(
            "[[s3]]\nname = \"vault\"\nendpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\nregion = \"us-east-1\"\nbucket = \"{bucket}\"\nprefix = \"gate-1\"\naccess_key_id = \"{KEY}\"\nsecret_access_key_file = \"s3.key\"\nretention_days_min = 2\ninterval = \"1s\"\n",
            self.https
        )
    }
}

impl Drop for Seaweed {
    /// SIGKILL.
    fn drop(&mut self) {
        let _over = self.process.kill();
        let _over = self.process.wait();
    }
}

/// The texts between the tags of this name.
fn tags<'x>(xml: &'x str, name: &str) -> Vec<&'x str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(open.as_str()).skip(1).filter_map(|rest| rest.split(close.as_str()).next()).collect()
}

#[test]
fn a_bucket_that_keeps_nothing_is_refused_at_the_start() {
    let town = Town::new();
    let Some(site) = Site::new(town.folder.path()) else { return };
    let _seaweed = site.start();
    site.bucket("open", None);
    site.bucket("governed", Some(("GOVERNANCE", 9)));
    site.bucket("short", Some(("COMPLIANCE", 1)));
    for (bucket, told) in [
        ("open", "has no Object Lock"),
        ("governed", "is not COMPLIANCE"),
        ("short", "is 1 days, and `retention_days_min` is 2"),
        ("nowhere", "is not there"),
    ] {
        town.configure(&site.receiver(bucket));
        for command in ["check", "run"] {
            let (is_good, said) = town.ask(&[command]);
            assert!(!is_good && said.contains(told), "{command} {bucket}: {said}");
        }
        let (_, listed) = site.s3("GET", bucket, &[], None);
        assert!(tags(&listed, "Key").is_empty(), "{listed}");
    }
    what_is_there_is_not_replaced(&town, &site);
    a_bucket_that_was_opened_gets_nothing_more(&town, &site);
}

/// Somebody was there first, under a name of ours.
fn what_is_there_is_not_replaced(town: &Town, site: &Site) {
    site.bucket("planted", Some(("COMPLIANCE", 2)));
    town.write(300, 1);
    assert_eq!(site.s3("PUT", "planted/gate-1/log/tile/entries/000", &[], Some("planted")).0, 200);
    town.configure(&site.receiver("planted"));
    let forwarder = town.forward();
    trouble(town, "holds something else");
    drop(forwarder);
    assert_eq!(site.s3("GET", "planted/gate-1/log/tile/entries/000", &[], None), (200, "planted".to_owned()));
    fs::remove_file(town.path("state/vault.cursor")).unwrap_or_default();
}

/// The default retention is looked up before each round, not only at the start.
fn a_bucket_that_was_opened_gets_nothing_more(town: &Town, site: &Site) {
    site.bucket("opened", Some(("COMPLIANCE", 2)));
    town.configure(&site.receiver("opened"));
    let _forwarder = town.forward();
    town.settle("vault");
    let edges = || site.s3("GET", "opened?delimiter=%2F&list-type=2&prefix=gate-1%2Fedge%2F", &[], None).1;
    let before = edges();
    site.retain("opened", "GOVERNANCE", 2);
    town.write(3, 1);
    trouble(town, "is not COMPLIANCE");
    assert_eq!(edges(), before);
    site.retain("opened", "COMPLIANCE", 2);
    town.settle("vault");
    assert_ne!(edges(), before);
}

fn trouble(town: &Town, told: &str) {
    let found = until(Duration::from_secs(30), || {
        town.status("vault")["trouble"]["what"].as_str().is_some_and(|what| what.contains(told)).then_some(())
    });
    assert!(found.is_some(), "{}", town.status("vault"));
}

#[test]
fn the_copy_in_the_bucket_is_whole_cannot_be_deleted_and_verifies() {
    let town = Town::new();
    let Some(site) = Site::new(town.folder.path()) else { return };
    let mut seaweed = Some(site.start());
    site.bucket("vault", Some(("COMPLIANCE", 2)));
    town.configure(&site.receiver("vault"));
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..80 {
                town.write(8, 2);
                thread::sleep(Duration::from_millis(200));
            }
        });
        for number in 0..7 {
            let forwarder = town.forward();
            thread::sleep(Duration::from_millis(1_500) + odd_pause(number + 20));
            match number {
                2 => drop(seaweed.take()),
                3 => seaweed = Some(site.start()),
                _ => {}
            }
            drop(forwarder);
        }
    });
    let forwarder = town.forward();
    town.settle("vault");
    drop(forwarder);
    unfinished_edge(&town, &site);
    let (is_good, said) =
        town.ask(&["fetch", "--receiver", "vault", "--out", town.path("back").to_str().unwrap()]);
    assert!(is_good && said.contains("the copy verifies"), "{said}");
    let back = verify_copy(&town.trail, &town.path("back"), None).unwrap();
    let here = verify_copy(&town.trail, &town.trail.directory, None).unwrap();
    assert_eq!((back.size, &back.root, back.records), (here.size, &here.root, here.records));
    assert!(back.size > 1_000, "several bundles");
    older_copy(&town, &site);
    nothing_can_be_deleted(&site);
    tampering_shows(&town, &site);
}

/// An edge without its checkpoint, as a forwarder leaves it that is ended while it writes: it is no copy, and hides none.
fn unfinished_edge(town: &Town, site: &Site) {
    let size = 900_000_000;
    let path = format!("vault/gate-1/edge/{size:020}-{size:020}/witnesses");
    assert_eq!(site.s3("PUT", &path, &[], Some("begun")).0, 200);
    let out = town.path("unfinished").display().to_string();
    let (is_good, said) =
        town.ask(&["fetch", "--receiver", "vault", "--size", &size.to_string(), "--out", &out]);
    assert!(!is_good && said.contains("the copy of 900000000 entries is not whole"), "{said}");
}

/// Any earlier edge makes a copy of its own, which the newest checkpoint contains.
fn older_copy(town: &Town, site: &Site) {
    let (_, listed) = site.s3("GET", "vault?list-type=2&prefix=gate-1%2Fedge%2F", &[], None);
    // Only whole ones: a killed forwarder may have left one without its checkpoint.
    let edges: Vec<u64> = tags(&listed, "Key")
        .iter()
        .filter_map(|key| {
            key.strip_suffix("/checkpoint")?.strip_prefix("gate-1/edge/")?.split('-').next()?.parse().ok()
        })
        .collect();
    assert!(edges.len() > 2, "{listed}");
    let size = edges[edges.len() / 2].to_string();
    let (is_good, said) = town.ask(&[
        "fetch",
        "--receiver",
        "vault",
        "--size",
        &size,
        "--out",
        town.path("older").to_str().unwrap(),
    ]);
    assert!(is_good && said.contains(&format!("fetched {size} entries")), "{said}");
}

fn nothing_can_be_deleted(site: &Site) {
    let (status, listed) = site.s3("GET", "vault?max-keys=1000&prefix=gate-1%2F&versions=", &[], None);
    assert_eq!(status, 200, "{listed}");
    let versions: Vec<(&str, &str)> =
        tags(&listed, "Key").into_iter().zip(tags(&listed, "VersionId")).collect();
    let of = |word: &str| *versions.iter().find(|(key, _)| key.contains(word)).unwrap();
    for (key, version) in [of("/log/tile/entries/000"), of("/checkpoint"), of("/segment/")] {
        let there = |path: &str| site.s3("GET", path, &[], None).0;
        let path = format!("vault/{key}?versionId={version}");
        for headers in [&[][..], &["x-amz-bypass-governance-retention: true"]] {
            let (status, answer) = site.s3("DELETE", &path, headers, None);
            assert_eq!(status, 403, "{key}: {answer}");
        }
        let sooner = "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2020-01-01T00:00:00Z</RetainUntilDate></Retention>";
        let (status, answer) =
            site.s3("PUT", &format!("vault/{key}?retention=&versionId={version}"), &[], Some(sooner));
        assert!(status >= 400, "{key}: {status} {answer}");
        assert_eq!(there(&path), 200, "{key}");
    }
}

/// Whoever holds the key can put a newer version on top. That shows, and the older one is still there.
fn tampering_shows(town: &Town, site: &Site) {
    let (status, answer) = site.s3("PUT", "vault/gate-1/log/tile/entries/000", &[], Some("something else"));
    assert_eq!(status, 200, "{answer}");
    let (is_good, said) =
        town.ask(&["fetch", "--receiver", "vault", "--out", town.path("changed").to_str().unwrap()]);
    assert!(!is_good && said.contains("does not verify"), "{said}");
}
