//! `loadtest`: how much the gate costs, measured beside what a hospital would run without it.
//!
//! Owns: the command line and the exit code (0 good, 1 a miss or a failure, 2 wrong use).
//! Must never: leave loopback, or report numbers of a run in which an answer lacks its record.
//! Look next: `baseline`, the run; `report`, the table; docs/performance.md, how to read it.

mod baseline;
mod client;
mod load;
mod pass_through;
mod plan;
mod process;
mod report;
mod scrape;
mod site;
mod trail;

use clap::{Parser, Subcommand};
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
    /// The gate, nginx and a minimal pass-through, alternated in one run on the same upstream
    Baseline(baseline::Options),
    /// A minimal TLS pass-through; `baseline` starts it as a process of its own
    #[command(hide = true)]
    PassThrough(pass_through::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.to_string()),
    };
    let ended = match arguments.command {
        Command::Baseline(options) => runtime.block_on(baseline::run(&options)),
        Command::PassThrough(options) => runtime.block_on(pass_through::run(&options)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

fn complain(error: &str) -> ExitCode {
    let _nowhere_else_to_say_it = writeln!(std::io::stderr(), "loadtest: {error}");
    ExitCode::FAILURE
}
