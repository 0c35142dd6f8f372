//! The gate as a process of its own: what an operator starts, kills and reads the log of.
//!
//! Owns: starting `chartgate serve` over a stage's files, and running the other commands.
//! Must never: leave a process behind.
//! Look next: `commands`, `trail`.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use chartgate::cli::demo::stage::{Script, Stage};

use crate::harness::Hospital;

/// A gate in a process of its own, with its neighbours in this one.
pub(crate) struct Gate {
    pub(crate) hospital: Hospital,
    process: Option<Child>,
    log: PathBuf,
    starts: usize,
}

impl Gate {
    /// Starts one; `wrap` may put a shell around it.
    pub(crate) async fn start(script: Script, wrap: Option<&str>) -> Self {
        let mut hospital = Hospital::open(script).await;
        hospital.stage.stop().await.unwrap();
        let mut gate = Self { log: PathBuf::new(), hospital, process: None, starts: 0 };
        gate.restart(wrap).await;
        gate
    }

    pub(crate) async fn restart(&mut self, wrap: Option<&str>) {
        self.starts += 1;
        self.log = self.hospital.stage.folder().join(format!("stderr-{}.log", self.starts));
        let config = self.hospital.stage.config_file();
        let mut command = match wrap {
            None => Command::new(env!("CARGO_BIN_EXE_chartgate")),
            Some(shell) => {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("{shell}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_chartgate")]);
                command
            }
        };
        command.args(["serve", "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&self.log).unwrap());
        self.process = Some(command.spawn().unwrap());
        let serves = until(Duration::from_secs(60), || self.log_text().contains(" serving ")).await;
        assert!(serves, "the gate did not start: {}", self.log_text());
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What the gate says at its operations listener.
    pub(crate) fn operations(&self, path: &str) -> String {
        let log = self.log_text();
        let (_, rest) = log.split_once("operations_address=").unwrap();
        operations(rest.split_whitespace().next().unwrap(), path)
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.take().unwrap().wait().unwrap()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _already_over = process.kill();
            let _already_over = process.wait();
        }
    }
}

/// One GET over plain HTTP.
pub(crate) fn operations(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Runs a command of the program to its end.
pub(crate) fn chartgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chartgate")).args(arguments).output().unwrap()
}

/// `chartgate audit verify` says yes.
pub(crate) fn verify(config: &Path) -> Output {
    chartgate(&["audit", "verify", "--config", config.to_str().unwrap()])
}

/// Looks until it holds; false when the time is over.
pub(crate) async fn until(bound: Duration, holds: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < bound {
        if holds() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    holds()
}

/// A stage whose gate runs here.
pub(crate) fn operations_of(stage: &Stage, path: &str) -> String {
    let address = stage.running().unwrap().operations_address().to_string();
    operations(&address, path)
}
