//! `loadtest`: how much the gate costs, measured beside what a hospital would run without it.
//!
//! Owns: the command line and the exit code (0 good, 1 a miss or a failure, 2 wrong use).
//! Must never: leave loopback, or report numbers of a run in which an answer lacks its record.
//! Look next: `run`, scenarios in an open loop; `baseline`, closed loops; docs/performance.md, how to read them.

mod arrivals;
mod authorize;
mod baseline;
mod canary;
mod client;
mod compare;
mod findings;
mod follow;
mod growth;
mod hospital;
mod hostile;
mod lanes;
mod load;
mod measure;
mod nginx_authz;
mod open_loop;
mod page;
mod pass_through;
mod peers;
mod people;
mod picture;
mod pictures;
mod plan;
mod prescription;
mod process;
mod program;
mod report;
mod run;
mod scenario;
mod scrape;
mod sheet;
mod site;
mod soak;
mod stages;
mod tell;
mod trail;
mod vitals;
mod writes;

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use std::io::Write as _;
use std::process::ExitCode;

/// Measures Chartgate beside plain TLS pass-through, on loopback.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A clinical scenario at a rate fixed beforehand, with a check of every answer and of the trail
    Run(Box<run::Options>),
    /// Callers who behave, at a fixed rate, while others attack the same gate
    Hostile(hostile::Options),
    /// A mixed day for as long as wanted, while one thing after the other breaks and comes back
    Soak(soak::Options),
    /// Two runs side by side, and whether they may be compared
    Compare(compare::Options),
    /// The pictures of a report as files
    Pictures(pictures::Options),
    /// The scenarios there are
    List(List),
    /// The gate, nginx, HAProxy and a minimal pass-through in closed loops, alternated on the same upstream
    Baseline(baseline::Options),
    /// What a request costs as connections, answers, policies, people or the trail grow, one at a time
    Growth(Box<growth::Options>),
    /// A minimal TLS pass-through; the others start it as a process of its own
    #[command(hide = true)]
    PassThrough(pass_through::Options),
    /// An authorization service for a proxy that asks one; `run` starts it as a process of its own
    #[command(hide = true)]
    Authorize(authorize::Options),
}

/// `list [--json]`
#[derive(Args, Debug)]
struct List {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Why a command ends with another code than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something was missed, or did not work: 1.
    Miss(String),
    /// It cannot be done as it was asked for: 2.
    WrongUse(String),
}

fn main() -> ExitCode {
    if site::is_called_as_gate() {
        return chartgate::cli::main();
    }
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(Failure::Miss(error.to_string())),
    };
    let ended = match arguments.command {
        Command::Run(options) => runtime.block_on(run::run(&options)),
        Command::Hostile(options) => runtime.block_on(hostile::run(&options)),
        Command::Soak(options) => runtime.block_on(soak::run(&options)),
        Command::Compare(options) => compare::run(&options),
        Command::Pictures(options) => pictures::run(&options),
        Command::List(list) => list_scenarios(&list),
        Command::Baseline(options) => runtime.block_on(baseline::run(&options)).map_err(Failure::Miss),
        Command::Growth(options) => runtime.block_on(growth::run(&options)),
        Command::PassThrough(options) => runtime.block_on(pass_through::run(&options)).map_err(Failure::Miss),
        Command::Authorize(options) => runtime.block_on(authorize::run(&options)).map_err(Failure::Miss),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => complain(failure),
    }
}

fn list_scenarios(list: &List) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for (name, _) in scenario::SHIPPED {
        let scenario = scenario::Scenario::find(name).map_err(Failure::Miss)?;
        let line = if list.json {
            json!({ "name": name, "title": scenario.title, "about": scenario.about }).to_string()
        } else {
            format!("{name:20} {}", scenario.about)
        };
        writeln!(out, "{line}").map_err(|error| Failure::Miss(error.to_string()))?;
    }
    Ok(())
}

fn complain(failure: Failure) -> ExitCode {
    let (error, code) = match failure {
        Failure::Miss(error) => (error, 1),
        Failure::WrongUse(error) => (error, 2),
    };
    let _nowhere_else_to_say_it = writeln!(std::io::stderr(), "loadtest: {error}");
    ExitCode::from(code)
}
