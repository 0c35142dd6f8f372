//! The checklist: what was looked at, whether it is well, and what to do.
//!
//! Owns: the shape of a line, and how the list is printed. Must never: hold a secret, a token or a person.
//! Look next: `doctor`, which fills it.

use crate::cli::{Ending, show};
use crate::domain::audit::escape;
use serde::Serialize;
use std::fmt;

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pass,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) group: String,
    pub(super) status: Status,
    /// Stable, for machines.
    pub(super) code: &'static str,
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

/// All of them, in order of their groups' first mention.
#[derive(Debug, Default)]
pub(super) struct Checklist(Vec<Line>);

impl Checklist {
    pub(super) fn pass(&mut self, group: &str, code: &'static str, what: impl Into<String>) {
        self.add(group, Status::Pass, code, what.into(), None);
    }

    pub(super) fn warn(&mut self, group: &str, code: &'static str, what: impl Into<String>, hint: &str) {
        self.add(group, Status::Warn, code, what.into(), Some(hint.to_owned()));
    }

    pub(super) fn fail(&mut self, group: &str, code: &'static str, what: impl Into<String>, hint: &str) {
        self.add(group, Status::Fail, code, what.into(), Some(hint.to_owned()));
    }

    fn add(&mut self, group: &str, status: Status, code: &'static str, what: String, hint: Option<String>) {
        // Text of neighbours and tokens is among it: nothing that a terminal would obey (T-226).
        let (group, what, hint) = (escape(group), escape(&what), hint.map(|hint| escape(&hint)));
        self.0.push(Line { group, status, code, what, hint });
    }

    fn count(&self, status: Status) -> usize {
        self.0.iter().filter(|line| line.status == status).count()
    }

    /// Prints everything.
    pub(super) fn print(&self, json: bool) -> Ending {
        if json {
            for line in &self.0 {
                show::line(&serde_json::to_string(line).unwrap_or_default());
            }
        } else {
            self.print_text();
        }
        if self.count(Status::Fail) == 0 { Ending::Good } else { Ending::No }
    }

    fn print_text(&self) {
        let mut groups: Vec<&str> = Vec::new();
        for line in &self.0 {
            if !groups.contains(&line.group.as_str()) {
                groups.push(&line.group);
            }
        }
        for group in groups {
            show::line(group);
            for line in self.0.iter().filter(|line| line.group == group) {
                show::line(&format!("  {}  {}", line.status, line.what));
                if let Some(hint) = &line.hint {
                    show::line(&format!("        -> {hint}"));
                }
            }
        }
        let (pass, warn, fail) =
            (self.count(Status::Pass), self.count(Status::Warn), self.count(Status::Fail));
        show::line(&format!("{pass} passed, {warn} warned of, {fail} failed"));
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

#[cfg(test)]
impl Checklist {
    /// The code and status of the one line there is.
    pub(super) fn only(&self) -> (&'static str, Status) {
        assert_eq!(self.0.len(), 1, "{self:?}");
        (self.0[0].code, self.0[0].status)
    }
}
