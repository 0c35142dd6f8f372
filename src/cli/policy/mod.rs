//! `chartgate policy`: what the policies say, asked without an EMR.
//!
//! Owns: which commands there are, and which directory is meant. Must never: decide; `domain::access` rehearses the
//! same decision that a request meets.
//! Look next: one file for each command.

mod check;
#[cfg(feature = "prove")]
mod diff;
mod mask;
#[cfg(feature = "prove")]
mod prove;
mod test;

use super::Ending;
use crate::domain::access::PolicySet;
use crate::{app, config};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `policy check|mask|test`
#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Parse and validate a policies directory; every problem and doubt with file and line
    Check(check::Check),
    /// What becomes visible or hidden for whom between two policies directories, exactly (needs the solver cvc5)
    #[cfg(feature = "prove")]
    Diff(diff::Diff),
    /// Show which elements of a type a role may see or write
    Mask(mask::Mask),
    /// Prove the invariants beside the policies for every request, or find one that breaks them (needs the solver cvc5)
    #[cfg(feature = "prove")]
    Prove(prove::Prove),
    /// Run the cases beside the policies, and compare the table of what each role sees
    Test(test::Test),
}

/// Which policies are meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The policies directory
    directory: Option<PathBuf>,
    /// The configuration file that names it
    #[arg(long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(policy: &Policy) -> Ending {
    match policy {
        Policy::Check(check) => check::run(check),
        #[cfg(feature = "prove")]
        Policy::Diff(diff) => diff::run(diff),
        Policy::Mask(mask) => mask::run(mask),
        #[cfg(feature = "prove")]
        Policy::Prove(prove) => prove::run(prove),
        Policy::Test(test) => test::run(test),
    }
}

fn directory(which: &Which) -> Result<PathBuf, Vec<config::Problem>> {
    match (&which.directory, &which.config) {
        (Some(directory), _) => Ok(directory.clone()),
        (None, Some(file)) => config::load(file).map(|settings| settings.policies),
        (None, None) => Ok(PathBuf::from("policies")),
    }
}

fn load(which: &Which) -> Result<(PathBuf, PolicySet), Vec<config::Problem>> {
    let directory = directory(which)?;
    let policies = app::load_policies(&directory)?;
    Ok((directory, policies))
}
