//! The program under test, and what it said.
//!
//! Owns: nothing but these two. Must never: judge. Look next: the tests beside it.

use std::process::{Command, Output};

/// `loadtest`, without arguments yet.
pub(crate) fn loadtest() -> Command {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
}

/// How it ended and what it said, for a test that failed.
pub(crate) fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}
