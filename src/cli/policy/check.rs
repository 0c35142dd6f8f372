//! `chartgate policy check`: every problem and every doubt in a policies directory, with file, line and a hint.
//!
//! Owns: the command's arguments and output. Must never: judge; `domain::access` does.
//! Look next: `domain::access::Lint`, the doubts.

use super::{Which, directory};
use crate::app;
use crate::cli::{Ending, show};
use crate::config::{self, Problem};
use crate::domain::access::PolicySet;
use crate::domain::workbench;
use clap::Args;
use serde_json::json;
use std::collections::BTreeSet;

/// `policy check DIRECTORY|--config F [--strict] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    which: Which,
    /// What is only doubtful counts as a problem too
    #[arg(long)]
    strict: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(check: &Check) -> Ending {
    let directory = match directory(&check.which) {
        Ok(directory) => directory,
        Err(problems) => return show::problems(&problems, check.json),
    };
    let policies = match app::load_policies(&directory) {
        Ok(policies) => policies,
        Err(problems) => return show::problems(&problems, check.json),
    };
    let doubts = app::lints(&directory, &policies);
    for (lint, doubt) in policies.lints().iter().zip(&doubts) {
        if check.json {
            show::line(&as_json(doubt, lint.name.word(), lint.policy.as_deref()).to_string());
        } else {
            show::error(&format!("note: {doubt}"));
        }
    }
    let strangers = strangers(&check.which, &policies);
    for stranger in &strangers {
        if check.json {
            show::line(&as_json(stranger, "unknown-role", None).to_string());
        } else {
            show::error(&format!("note: {stranger}"));
        }
    }
    conclude(check, &policies, doubts.len() + strangers.len())
}

fn conclude(check: &Check, policies: &PolicySet, doubts: usize) -> Ending {
    let good = doubts == 0 || !check.strict;
    if check.json {
        let line = json!({
            "ok": good, "policies": policies.len(), "hash": policies.hash(), "notes": doubts,
        });
        show::line(&line.to_string());
    } else {
        let notes = match doubts {
            0 => String::new(),
            1 => ", 1 note".to_owned(),
            many => format!(", {many} notes"),
        };
        show::line(&format!("{} policies, no problems found{notes}", policies.len()));
    }
    if good { Ending::Good } else { Ending::No }
}

fn as_json(doubt: &Problem, lint: &str, policy: Option<&str>) -> serde_json::Value {
    json!({
        "lint": lint, "policy": policy, "file": doubt.file, "line": doubt.line, "column": doubt.column,
        "message": doubt.message, "hint": doubt.hint,
    })
}

/// Roles that an issuer's renaming gives, and that no permit names: whoever has only them sees nothing. Told with a
/// configuration file only, which names the issuers.
fn strangers(which: &Which, policies: &PolicySet) -> Vec<Problem> {
    let Some(Ok(settings)) = which.config.as_deref().map(config::load) else { return Vec::new() };
    let file = which.config.as_deref().map(|file| file.display().to_string()).unwrap_or_default();
    let known = workbench::roles(policies);
    let given: BTreeSet<&String> = settings.issuers.iter().flat_map(|issuer| issuer.roles.values()).collect();
    let unknown = given.into_iter().filter(|role| !known.contains(*role));
    let problem = |role: &String| Problem {
        hint: Some("write one, or leave the role out of the renaming".to_owned()),
        ..Problem::whole_file(&file, format!("an issuer gives the role `{role}`, which no permit names"))
    };
    unknown.map(problem).collect()
}
