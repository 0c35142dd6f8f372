//! The command line: what can be asked of the program, and the exit codes.
//!
//! Owns: arguments, what people see, exit codes (0 good, 1 the answer is no or problems were found, 2 wrong use).
//! Must never: hold logic that the rooms below should have.
//! Look next: one file for each command.

pub mod audit;
mod check;
#[cfg(feature = "demo")]
pub mod demo;
mod doctor;
mod emergency;
mod keeping;
#[cfg(feature = "demo")]
pub mod leakcheck;
mod policy;
mod serve;
mod session;
mod show;
mod trail;
mod witness;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A TLS reverse proxy that puts MFA, minimum-necessary element filtering and a tamper-evident audit trail
/// in front of a FHIR R4 API.
#[derive(Debug, Parser)]
#[command(name = "chartgate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on loopback, in memory, with synthetic patients: an EMR, an identity provider and the gate
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    /// Ask two synthetic hospitals that differ only in what a role may not see, and compare the answers
    #[cfg(feature = "demo")]
    Leakcheck(leakcheck::Leakcheck),
    /// Serve as the configuration says
    Serve(serve::Serve),
    /// Check configuration, certificates, keys and policies; every problem with file and line
    Check(check::Check),
    /// A checklist of everything around the gate: files, EMR, issuers, a sample token
    Doctor(doctor::Doctor),
    /// Check and test policies, or show what a role sees
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Make, verify, search and prove the audit trail
    #[command(subcommand)]
    Audit(trail::Audit),
    /// Witness the trail of somebody else: cosign its states as long as it only grows
    #[command(subcommand)]
    Witness(witness::Witness),
    /// List emergencies with what was opened, and review them
    #[command(subcommand)]
    Emergency(emergency::Emergency),
    /// List sessions, end them, and revoke tokens, people, clients or issuers
    #[command(subcommand)]
    Session(session::Session),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file (TOML)
    #[arg(long = "config", value_name = "FILE")]
    path: PathBuf,
}

/// `--config F [--json]`
#[derive(Debug, Args)]
pub(super) struct Plain {
    #[command(flatten)]
    config: ConfigFile,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Good,
    /// The answer is no, or problems were found.
    No,
    /// The command was not used as it is meant.
    WrongUse,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Good => Self::SUCCESS,
            Ending::No => Self::from(1),
            Ending::WrongUse => Self::from(2),
        }
    }
}

/// Reads the process's arguments and does what they ask.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ending = match arguments.command {
        #[cfg(feature = "demo")]
        Command::Demo(demo) => demo::run(&demo),
        #[cfg(feature = "demo")]
        Command::Leakcheck(leakcheck) => leakcheck::run(&leakcheck),
        Command::Serve(serve) => serve::run(&serve),
        Command::Check(check) => check::run(&check),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Policy(policy) => policy::run(&policy),
        Command::Audit(audit) => trail::run(&audit),
        Command::Witness(witness) => witness::run(&witness),
        Command::Emergency(emergency) => emergency::run(&emergency),
        Command::Session(session) => session::run(session),
    };
    ending.into()
}
