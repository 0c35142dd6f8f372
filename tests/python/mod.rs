//! A second opinion in Python: a program that is asked a line and answers a line, both JSON.
//!
//! Owns: bringing its packages, starting it, ending it. Must never: pass over one that must be had in silence.
//! Look next: `install.sh`; `tests/verifier` and `tests/validator`, the programs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The program at work.
pub(crate) struct Program {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a script of `tests/<folder>`. `probe` is Python that fails where its packages are missing. None, and a line that
    /// says so, where they cannot be had.
    pub(crate) fn start(folder: &str, script: &[&str], probe: &str) -> Option<Self> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        let mut install = Command::new("bash");
        install.arg(tests.join("python/install.sh")).arg(tests.join(folder).join("requirements.txt"));
        let installed = install.arg(probe).arg(into).output().unwrap();
        if !installed.status.success() {
            let reason = String::from_utf8_lossy(&installed.stderr).into_owned();
            let required = std::env::var_os("CHARTGATE_REQUIRE_NEIGHBOURS").is_some_and(|value| value == "1");
            assert!(!required, "the second {folder} cannot be had: {reason}");
            eprintln!("SKIPPED the second {folder}: {reason}");
            return None;
        }
        let mut python = Command::new("python3");
        let packages = String::from_utf8(installed.stdout).unwrap();
        if !packages.trim().is_empty() {
            python.env("PYTHONPATH", packages.trim());
        }
        python.current_dir(tests.join(folder)).args(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let (questions, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Some(Self { child, questions, answers: BufReader::new(answers) })
    }

    /// The answer to one question.
    pub(crate) fn ask<A: DeserializeOwned>(&mut self, question: &impl Serialize) -> A {
        writeln!(self.questions, "{}", serde_json::to_string(question).unwrap()).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}
