//! `chartgate policy prove`: what the policies promise, for every request there can be.
//!
//! Owns: the command's arguments and output. Must never: call anything proved that the solver did not prove.
//! Look next: `domain::access::proving`, the questions; `edge::solver`, who answers; docs/policies.md.

use super::{Which, directory};
use crate::app;
use crate::cli::{Ending, show};
use crate::config::Problem;
use crate::domain::access::PolicySet;
use crate::domain::access::proving::{Failure, Invariant, Outcome, Proof, Proving, read_invariants};
use crate::domain::workbench::{self, Refutation, Replay};
use crate::edge::policy_files;
use crate::edge::solver::Solver;
use crate::limits;
use clap::Args;
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// `policy prove DIRECTORY|--config F [--only ID] [--write FOLDER] [--solver PROGRAM] [--json]`
#[derive(Debug, Args)]
pub(in crate::cli) struct Prove {
    #[command(flatten)]
    which: Which,
    /// Only this invariant, by its `@id`; may be given more than once
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// Write each counterexample as a case of its own into this folder, for `policy explain`
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
    /// The solver: a name on the path, or a file
    #[arg(long, value_name = "PROGRAM", default_value = "cvc5")]
    solver: String,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(prove: &Prove) -> Ending {
    let (directory, policies, invariants) = match read(prove) {
        Ok(read) => read,
        Err(problems) => return show::problems(&problems, prove.json),
    };
    if let Some(unknown) = prove.only.iter().find(|id| !invariants.iter().any(|one| one.id == **id)) {
        show::error(&format!("`--only`: there is no invariant `{unknown}`"));
        return Ending::WrongUse;
    }
    let mut solver = match Solver::start(&prove.solver) {
        Ok(solver) => solver,
        Err(error) => {
            show::error(&error.to_string());
            return Ending::No;
        }
    };
    let chosen = |one: &Invariant| prove.only.is_empty() || prove.only.contains(&one.id);
    let invariants: Vec<Invariant> = invariants.into_iter().filter(chosen).collect();
    // Questions are deep trees, in Cedar as here.
    stacker::grow(limits::POLICY_LOAD_STACK_BYTES, || {
        let mut report = Report { prove, directory, policies, good: 0, bad: 0 };
        report.all(&invariants, &mut solver)
    })
}

type Read = (PathBuf, Arc<PolicySet>, Vec<Invariant>);

fn read(prove: &Prove) -> Result<Read, Vec<Problem>> {
    let directory = directory(&prove.which)?;
    let policies = app::load_policies(&directory)?;
    let folder = directory.join("invariants");
    let (sources, groups) = policy_files::invariants(&directory)
        .map_err(|problem| vec![app::policy_problem(&folder, problem)])?;
    let located = |problems: Vec<_>| {
        problems.into_iter().map(|problem| app::policy_problem(&folder, problem)).collect::<Vec<_>>()
    };
    let invariants = read_invariants(&sources, groups.as_ref()).map_err(located)?;
    if invariants.is_empty() {
        return Err(vec![Problem {
            file: folder.display().to_string(),
            line: 1,
            column: 1,
            message: "there are no invariants to prove".to_owned(),
            hint: Some("docs/policies.md says how to write one".to_owned()),
        }]);
    }
    Ok((directory, Arc::new(policies), invariants))
}

struct Report<'p> {
    prove: &'p Prove,
    directory: PathBuf,
    policies: Arc<PolicySet>,
    good: usize,
    bad: usize,
}

impl Report<'_> {
    fn all(&mut self, invariants: &[Invariant], solver: &mut Solver) -> Ending {
        let policies = Arc::clone(&self.policies);
        let mut proving = Proving::new(&policies, solver);
        self.progress("whether a policy can fail");
        let start = Instant::now();
        let failures = proving.failures();
        failures.iter().for_each(|failure| self.failure(failure));
        if failures.is_empty() {
            self.good += 1;
            self.proved("no-policy-fails", "no policy fails to evaluate, for any request", start, None);
        }
        for invariant in invariants {
            self.progress(&invariant.id);
            let start = Instant::now();
            let proof = proving.invariant(invariant);
            self.invariant(invariant, &proof, start);
        }
        self.progress("");
        let (good, bad) = (self.good, self.bad);
        if self.prove.json {
            let line =
                json!({ "ok": bad == 0, "proved": good, "notProved": bad, "questions": proving.asked() });
            show::line(&line.to_string());
        } else {
            show::line(&format!("{good} proved, {bad} not; {} questions to the solver", proving.asked()));
        }
        if bad == 0 { Ending::Good } else { Ending::No }
    }

    fn progress(&self, text: &str) {
        if !self.prove.json && std::io::stderr().is_terminal() {
            show::passing(text);
        }
    }

    fn proved(&self, id: &str, says: &str, start: Instant, proof: Option<&Proof>) {
        let (places, asked) = proof.map_or((0, 0), |proof| (proof.places, proof.asked));
        let millis = start.elapsed().as_millis();
        if self.prove.json {
            let line = json!({
                "invariant": id, "outcome": "proved", "says": says, "places": places, "questions": asked,
                "milliseconds": u64::try_from(millis).unwrap_or(u64::MAX),
            });
            show::line(&line.to_string());
        } else {
            show::line(&format!("proved   {id}: {says}"));
        }
    }

    fn failure(&mut self, failure: &Failure) {
        self.bad += 1;
        let why = match &failure.doubt {
            None => "for some request it fails to evaluate, and then the gate denies".to_owned(),
            Some(doubt) => format!("whether it can fail is not known: {doubt}"),
        };
        if self.prove.json {
            let line = json!({
                "invariant": "no-policy-fails", "outcome": if failure.doubt.is_none() { "refuted" } else { "unknown" },
                "policy": failure.policy, "place": failure.place, "why": why,
            });
            show::line(&line.to_string());
        } else {
            show::line(&format!("FAILED   no-policy-fails: `{}`, {}: {why}", failure.policy, failure.place));
        }
    }

    fn invariant(&mut self, invariant: &Invariant, proof: &Proof, start: Instant) {
        match &proof.outcome {
            Outcome::Holds => {
                self.good += 1;
                self.proved(&invariant.id, &invariant.says, start, Some(proof));
            }
            Outcome::Refuted(examples) => {
                self.bad += 1;
                self.head("refuted", "REFUTED", invariant);
                for (number, example) in examples.iter().enumerate() {
                    let name = format!("breaks {}: {}", invariant.id, invariant.says);
                    let told = workbench::counterexample(&self.policies, &name, invariant.must, example);
                    let elsewhere: Vec<String> = example
                        .elsewhere
                        .iter()
                        .map(|(place, path)| workbench::place(*place, path.as_ref()))
                        .collect();
                    self.example(invariant, number + 1, &told, &elsewhere);
                }
            }
            Outcome::Unknown(doubts) => {
                self.bad += 1;
                self.head("unknown", "UNKNOWN", invariant);
                doubts.iter().for_each(|doubt| self.reason(invariant, doubt));
            }
            Outcome::Empty => {
                self.bad += 1;
                self.head("empty", "EMPTY", invariant);
                self.reason(invariant, "no request is meant by it, so it promises nothing");
            }
        }
    }

    fn head(&self, outcome: &str, word: &str, invariant: &Invariant) {
        let place = format!(
            "{}:{}",
            self.directory.join("invariants").join(&invariant.file).display(),
            invariant.line
        );
        if self.prove.json {
            let line = json!({
                "invariant": invariant.id, "outcome": outcome, "says": invariant.says, "must": invariant.must.word(),
                "ground": invariant.ground, "place": place,
            });
            show::line(&line.to_string());
        } else {
            show::line(&format!("{word:<8} {}: {} ({})", invariant.id, invariant.says, invariant.ground));
            show::line(&format!("  {place}"));
        }
    }

    fn reason(&self, invariant: &Invariant, reason: &str) {
        if self.prove.json {
            show::line(&json!({ "invariant": invariant.id, "reason": reason }).to_string());
        } else {
            show::line(&format!("  {reason}"));
        }
    }

    fn example(&self, invariant: &Invariant, number: usize, told: &Refutation, elsewhere: &[String]) {
        let (confirmed, why) = match &told.replay {
            Replay::Confirmed => (true, None),
            Replay::NotConfirmed(why) => (false, Some(why)),
        };
        let written = self.prove.write.as_deref().map(|folder| write(folder, invariant, number, told));
        if self.prove.json {
            let line = json!({
                "invariant": invariant.id, "counterexample": told.words, "case": told.case, "confirmed": confirmed,
                "notConfirmedBecause": why, "elsewhere": elsewhere, "file": written,
            });
            show::line(&line.to_string());
            return;
        }
        show::line(&format!("  {}", told.words));
        match why {
            None => show::line("  the gate decides so (the case below passes)"),
            Some(why) => show::line(&format!("  NOT CONFIRMED: the gate decides otherwise: {why}")),
        }
        told.case.lines().for_each(|line| show::line(&format!("    {line}")));
        if !elsewhere.is_empty() {
            show::line(&format!("  and likewise: {}", some(elsewhere)));
        }
        if let Some(file) = written {
            show::line(&format!("  written: {file}"));
        }
    }
}

fn some(items: &[String]) -> String {
    const SHOWN: usize = 6;
    let first: Vec<&str> = items.iter().take(SHOWN).map(String::as_str).collect();
    match items.len().saturating_sub(SHOWN) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// The file that was written, or why it was not.
fn write(folder: &Path, invariant: &Invariant, number: usize, told: &Refutation) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let id: String = invariant.id.chars().map(safe).collect();
    let file = folder.join(format!("{id}-{number}.toml"));
    let text = format!("# {}\n{}", told.words, told.case);
    match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text)) {
        Ok(()) => file.display().to_string(),
        Err(error) => format!("not written: {}", error.kind()),
    }
}
