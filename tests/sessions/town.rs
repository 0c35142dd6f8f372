//! Proxies as processes of their own, over a stage's neighbours; and a PostgreSQL server.
//!
//! Owns: starting and killing them. Must never: leave one behind.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chartgate::cli::demo::client::Client;
use chartgate::cli::demo::stage::{Script, Stage};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

pub(crate) const USUAL: &str = "idle_timeout = \"15m\"\nabsolute_timeout = \"12h\"\n";

/// The secret of a store that several proxies share; the file is the town's.
pub(crate) const KEY: &str = "key = \"session.aes\"\n";

/// The neighbours, and someone to ask proxies.
pub(crate) struct Town {
    pub(crate) stage: Stage,
    client: Client,
}

/// A proxy in a process of its own.
pub(crate) struct Proxy {
    pub(crate) config: PathBuf,
    folder: PathBuf,
    base: String,
    process: Option<Child>,
    log: PathBuf,
    starts: usize,
}

/// What a client hears: status, refusal code, body.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) text: String,
}

impl Town {
    pub(crate) async fn open() -> Self {
        let mut stage = Stage::open(Script::default()).await.unwrap();
        stage.stop().await.unwrap();
        fs::write(stage.folder().join("session.aes"), secret(7)).unwrap();
        let client = Client::new(&stage.ca_file()).unwrap();
        Self { stage, client }
    }

    /// A proxy with this `[session]` table and more text in its issuer's.
    pub(crate) async fn proxy(&self, name: &str, session: &str, issuer: &str) -> Proxy {
        self.proxy_at(free_port(), name, session, issuer).await
    }

    /// The same at this port, which another has left.
    pub(crate) async fn proxy_at(&self, port: u16, name: &str, session: &str, issuer: &str) -> Proxy {
        let base = format!("https://localhost:{port}/fhir");
        let old = self.stage.base_url();
        let old_port = old.rsplit(':').next().unwrap().trim_end_matches("/fhir");
        let text = fs::read_to_string(self.stage.config_file()).unwrap();
        let text = text
            .replace(&format!("127.0.0.1:{old_port}"), &format!("127.0.0.1:{port}"))
            .replace(&format!("[public]\nbase_url = \"{old}\""), &format!("[public]\nbase_url = \"{base}\""))
            .replace(&format!("[session]\n{USUAL}"), &format!("{issuer}[session]\n{session}\n"))
            .replace("\"audit", &format!("\"audit-{name}"));
        let folder = self.stage.folder().to_owned();
        let config = folder.join(format!("{name}.toml"));
        fs::write(&config, text).unwrap();
        let made = chartgate(&["audit", "init", "--config", config.to_str().unwrap()]);
        assert!(made.0, "{}", made.1);
        let mut proxy = Proxy { config, folder, base, process: None, log: PathBuf::new(), starts: 0 };
        proxy.start().await;
        proxy
    }

    pub(crate) fn token(&self, who: &str) -> String {
        self.stage.issuer().token(who).unwrap()
    }

    /// Asks for a patient's record.
    pub(crate) async fn read(&self, proxy: &Proxy, token: &str) -> Heard {
        let bearer = format!("Bearer {token}");
        self.ask(&format!("{}/Patient/p1", proxy.base), "GET", &[("authorization", &bearer)], "").await
    }

    pub(crate) async fn ask(&self, url: &str, method: &str, headers: &[(&str, &str)], body: &str) -> Heard {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = match self.client.ask(method, url, map.clone(), body.clone()).await {
            Ok(answer) => answer,
            // A kept connection to a proxy that was killed, whose port another has now.
            Err(_) => Client::new(&self.stage.ca_file()).unwrap().ask(method, url, map, body).await.unwrap(),
        };
        let status = answer.status().as_u16();
        let text = String::from_utf8(answer.into_body().to_vec()).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let code = json.pointer("/issue/0/details/coding/0/code").and_then(Value::as_str).unwrap_or_default();
        Heard { status, code: code.to_owned(), text }
    }

    /// How long until asking gives this status and code; fails when it takes longer than `bound`.
    pub(crate) async fn until(
        &self,
        proxy: &Proxy,
        token: &str,
        wanted: (u16, &str),
        bound: Duration,
    ) -> Duration {
        let began = Instant::now();
        loop {
            let heard = self.read(proxy, token).await;
            if (heard.status, heard.code.as_str()) == wanted {
                return began.elapsed();
            }
            assert!(began.elapsed() < bound, "{wanted:?} did not come in {bound:?}: {heard:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Proxy {
    pub(crate) async fn start(&mut self) {
        self.starts += 1;
        self.log = self.config.with_extension(format!("{}.log", self.starts));
        let mut command = Command::new(env!("CARGO_BIN_EXE_chartgate"));
        command.args(["serve", "--config"]).arg(&self.config).stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(command.stderr(File::create(&self.log).unwrap()).spawn().unwrap());
        let began = Instant::now();
        while !self.log_text().contains(" serving ")
            || !self.operations("GET", "/readyz", "").1.contains("true")
        {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the proxy did not start: {}",
                self.log_text()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while self.operations("GET", "/readyz", "").0 != 200 {
            assert!(began.elapsed() < Duration::from_secs(60), "not ready: {}", self.log_text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// One request to the operations listener: status and body.
    pub(crate) fn operations(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let log = self.log_text();
        let Some((_, rest)) = log.split_once("operations_address=") else { return (0, String::new()) };
        let address = rest.split_whitespace().next().unwrap();
        let Ok(mut stream) = TcpStream::connect(address) else { return (0, String::new()) };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Revokes, and gives the id.
    pub(crate) fn revoke(&self, order: &Value) -> String {
        let (status, body) = self.operations("POST", "/revocation", &order.to_string());
        assert_eq!(status, 201, "{order}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn sessions(&self) -> Vec<Value> {
        let (status, body) = self.operations("GET", "/session", "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.base.replace("/fhir", path)
    }

    /// The control records of the trail with this event.
    pub(crate) fn recorded(&self, event: &str) -> Vec<Value> {
        let (good, out) = self.run(&["audit", "search", "--json"]);
        assert!(good, "{out}");
        let records = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.filter(|record| record["event"] == event).collect()
    }

    /// A command of the program over this proxy's configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut all = arguments.to_vec();
        all.extend(["--config", self.config.to_str().unwrap()]);
        chartgate(&all)
    }

    pub(crate) fn store(&self) -> PathBuf {
        let name = self.config.file_stem().unwrap().to_str().unwrap();
        self.folder.join(format!("audit-{name}/sessions.sqlite"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _already_over = process.kill();
            let _already_over = process.wait();
        }
    }
}

/// The text of a secret.
pub(crate) fn secret(byte: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([byte; 32]) + "\n"
}

/// Runs a command to its end: whether it was good, and what it said.
pub(crate) fn chartgate(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chartgate")).args(arguments).output().unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(said).unwrap())
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A PostgreSQL server that ends with this value.
pub(crate) struct Postgres {
    process: Child,
    port: u16,
}

impl Postgres {
    /// Starts one, or says why it cannot be had: then the test is skipped, unless neighbours are required.
    pub(crate) fn start(test: &str, tls: Option<(&Path, &Path)>) -> Option<Self> {
        let port = free_port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions/postgres.sh");
        let mut command = Command::new("bash");
        command.arg(script).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some((certificate, key)) = tls {
            command.arg(certificate).arg(key);
        }
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.trim() == "ready" {
            return Some(Self { process, port });
        }
        let required = std::env::var_os("CHARTGATE_REQUIRE_NEIGHBOURS").is_some_and(|value| value == "1");
        assert!(!required, "PostgreSQL cannot be had");
        let _over = process.wait();
        eprintln!("SKIPPED {test}: PostgreSQL cannot be had");
        None
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://chartgate:test-only@localhost:{}/postgres", self.port)
    }

    /// A file with its URL.
    pub(crate) fn url_file(&self, folder: &Path, more: &str) -> PathBuf {
        let path = folder.join(format!("postgres-{}{}.url", self.port, more.len()));
        fs::write(&path, format!("{}{more}\n", self.url())).unwrap();
        path
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _over = self.process.wait();
    }
}
