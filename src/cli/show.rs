//! What people see: lines on the terminal, and nothing that a terminal would obey.
//!
//! Owns: writing to standard output and standard error.
//! Must never: panic because nobody reads (a closed pipe ends the output quietly), or print raw control
//! characters that came from outside (T-226).
//! Look next: the commands.

use super::Ending;
use crate::config::Problem;
use std::io::Write;

/// A line to standard output.
pub(super) fn line(text: &str) {
    let _closed_pipe = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line to standard error.
pub(super) fn error(text: &str) {
    let _closed_pipe = writeln!(std::io::stderr().lock(), "{}", plain(text));
}

/// What is being done, on a terminal's last line; the next takes its place, and nothing is left of an empty one.
#[cfg(feature = "prove")]
pub(super) fn passing(text: &str) {
    let mut out = std::io::stderr().lock();
    let _closed_pipe = write!(out, "\r\x1b[2K{}", plain(text)).and_then(|()| out.flush());
}

/// Problems, one a line: to standard output as JSON objects, or to standard error as text.
pub(super) fn problems(problems: &[Problem], json: bool) -> Ending {
    for problem in problems {
        if json {
            line(&serde_json::to_string(problem).unwrap_or_default());
        } else {
            error(&problem.to_string());
        }
    }
    if !json {
        let count = problems.len();
        error(&format!("{count} problem{} found", if count == 1 { "" } else { "s" }));
    }
    Ending::No
}

/// Control characters as visible escapes.
fn plain(text: &str) -> String {
    text.chars()
        .flat_map(
            |c| if c.is_control() && c != '\n' { c.escape_default().collect::<Vec<_>>() } else { vec![c] },
        )
        .collect()
}
