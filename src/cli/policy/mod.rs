//! `chartgate policy`: what the policies say, asked without an EMR.
//!
//! Owns: which commands there are, and which directory is meant. Must never: decide; `domain::access` rehearses the
//! same decision that a request meets.
//! Look next: one file for each command.

mod asked;
mod bundle;
mod check;
#[cfg(feature = "prove")]
mod diff;
mod explain;
mod mask;
#[cfg(feature = "prove")]
mod prove;
mod recorded;
mod replay;
mod shadow;
mod test;

use super::Ending;
use crate::domain::access::PolicySet;
use crate::{app, config};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `policy check|diff|prove|mask|explain|replay|test|key|sign|verify|rollback|shadow`
#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Parse and validate a policies directory; every problem and doubt with file and line
    Check(check::Check),
    /// What becomes visible or hidden for whom between two policies directories, exactly (needs the solver cvc5)
    #[cfg(feature = "prove")]
    Diff(diff::Diff),
    /// Prove the invariants beside the policies for every request, or find one that breaks them (needs the solver cvc5)
    #[cfg(feature = "prove")]
    Prove(prove::Prove),
    /// Show what a role sees of a type or a record, or may write of it, and by which policy the rest is withheld
    Mask(Box<mask::Mask>),
    /// Tell why a question is answered as it is, and what would have to be otherwise for it to be permitted
    Explain(explain::Explain),
    /// Decide a recorded day again by a candidate set: whom it would refuse or let see more, and whom less
    Replay(Box<replay::Replay>),
    /// Run the cases beside the policies, and compare the table of what each role sees
    Test(test::Test),
    /// Make a key for signing policies, unless it is there, and print its public half
    Key(bundle::Key),
    /// Sign a policies directory as a bundle with a version
    Sign(bundle::Sign),
    /// Check a bundle's signature, and that it is exactly what was signed
    Verify(bundle::Verify),
    /// Let one older version be taken again, on the record
    Rollback(bundle::Rollback),
    /// What a candidate set would have decided otherwise
    Shadow(shadow::Shadow),
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
        Policy::Explain(order) => explain::run(order),
        Policy::Replay(order) => replay::run(order),
        #[cfg(feature = "prove")]
        Policy::Prove(prove) => prove::run(prove),
        Policy::Test(test) => test::run(test),
        Policy::Key(key) => bundle::key(key),
        Policy::Sign(sign) => bundle::sign(sign),
        Policy::Verify(verify) => bundle::verify(verify),
        Policy::Rollback(rollback) => bundle::rollback(rollback),
        Policy::Shadow(shadow) => shadow::run(shadow),
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
