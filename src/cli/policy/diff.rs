//! `chartgate policy diff`: what becomes visible or hidden for whom, from one policies directory to another.
//!
//! Owns: the command's arguments and output. Must never: say that nothing changes where that is not proved.
//! Look next: `domain::access::proving::differ`; `domain::workbench::change`, the words; docs/policies.md.

use crate::app;
use crate::cli::{Ending, show};
use crate::domain::access::proving::{Differing, differ};
use crate::domain::workbench::{Replay, Shift, shifts};
use crate::edge::solver::Solver;
use crate::limits;
use clap::Args;
use serde_json::json;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

/// `policy diff OLD NEW [--solver PROGRAM] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Diff {
    /// The policies directory as it was
    old: PathBuf,
    /// As it is to be
    new: PathBuf,
    /// The solver: a name on the path, or a file
    #[arg(long, value_name = "PROGRAM", default_value = "cvc5")]
    solver: String,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(diff: &Diff) -> Ending {
    if let Some(missing) = [&diff.old, &diff.new].into_iter().find(|directory| !directory.is_dir()) {
        show::error(&format!("there is no directory {}", missing.display()));
        return Ending::WrongUse;
    }
    let (old, new) = match (app::load_policies(&diff.old), app::load_policies(&diff.new)) {
        (Ok(old), Ok(new)) => (Arc::new(old), Arc::new(new)),
        (old, new) => {
            let problems: Vec<_> = [old.err(), new.err()].into_iter().flatten().flatten().collect();
            return show::problems(&problems, diff.json);
        }
    };
    let mut solver = match Solver::start(&diff.solver) {
        Ok(solver) => solver,
        Err(error) => {
            show::error(&error.to_string());
            return Ending::No;
        }
    };
    // Questions are deep trees, in Cedar as here.
    stacker::grow(limits::POLICY_LOAD_STACK_BYTES, || {
        let told = !diff.json && std::io::stderr().is_terminal();
        let mut progress = |done: usize, total: usize| {
            if told {
                let text = if done == total { String::new() } else { format!("{done} of {total} changes") };
                show::passing(&text);
            }
        };
        let found = differ(&old, &new, &mut solver, &mut progress);
        let changes = shifts(&old, &new, &found.differences);
        report(diff, &found, &changes)
    })
}

fn report(diff: &Diff, found: &Differing, changes: &[Shift]) -> Ending {
    let same = changes.is_empty() && found.doubts.is_empty();
    if diff.json {
        in_json(found, changes, same);
    } else {
        in_words(found, changes, same);
    }
    if same { Ending::Good } else { Ending::No }
}

fn in_json(found: &Differing, changes: &[Shift], same: bool) {
    for one in changes {
        let (confirmed, why) = match &one.replay {
            Replay::Confirmed => (true, None),
            Replay::NotConfirmed(why) => (false, Some(why)),
        };
        let line = json!({
            "who": one.who, "opens": one.opens, "what": one.what, "actions": one.actions, "when": one.when,
            "says": one.sentence(), "case": one.case, "confirmed": confirmed, "notConfirmedBecause": why,
        });
        show::line(&line.to_string());
    }
    for doubt in &found.doubts {
        show::line(&json!({ "notKnown": doubt }).to_string());
    }
    let line = json!({
        "same": same, "changes": changes.len(), "compared": found.compared, "changed": found.changed,
        "questions": found.asked, "added": found.added, "removed": found.removed, "reworded": found.reworded,
    });
    show::line(&line.to_string());
}

fn in_words(found: &Differing, changes: &[Shift], same: bool) {
    for (word, ids) in
        [("new", &found.added), ("gone", &found.removed), ("with other words", &found.reworded)]
    {
        if !ids.is_empty() {
            show::line(&format!("policies that are {word}: {}", ids.join(", ")));
        }
    }
    let mut who = "";
    for one in changes {
        if one.who != who {
            show::line(&format!("\n{}", one.who));
            who = &one.who;
        }
        show::line(&format!("  {} {}", if one.opens { "+" } else { "-" }, one.sentence()));
        if let Replay::NotConfirmed(why) = &one.replay {
            show::line(&format!("    NOT CONFIRMED: the gate decides otherwise: {why}"));
        }
    }
    for doubt in &found.doubts {
        show::line(&format!("NOT KNOWN {doubt}"));
    }
    if same {
        show::line("nothing changes, for any request");
    } else {
        show::line(&format!("\n{} changes; each `for …` is one situation in which it is so", changes.len()));
    }
}
