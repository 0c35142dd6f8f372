//! `chartgate leakcheck`: two hospitals that differ only in what a role may not see must give the same answers (P4).
//!
//! Owns: the command's arguments and what it prints. Must never: touch real data: both hospitals are synthetic.
//! Look next: `check`, the order of things; `worlds`, how the hospitals differ; `generate`, what is asked.

mod ask;
pub mod check;
mod compare;
mod dice;
mod doors;
mod generate;
mod minimal;
mod outside;
mod pair;
mod shrink;
mod sight;
mod twin;
mod values;
mod worlds;

pub use ask::Kind;
pub use sight::Role;

use super::{Ending, show};
use check::{Plan, Report};
use clap::Args;
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;

/// The shipped roles, with the purposes their policies ask for.
const ROLES: &[(&str, &str)] = &[
    ("physician", "TREAT"),
    ("nurse", "TREAT"),
    ("front-desk", "HOPERAT"),
    ("billing-clerk", "HPAYMT"),
    ("researcher", "HRESCH"),
    ("patient", "PATRQT"),
];

/// `leakcheck [--role R[:PURPOSE]]… [--requests N] [--seed S] [--policies DIR] [--emr-a URL --emr-b URL] [--json]`
#[derive(Debug, Args)]
pub(super) struct Leakcheck {
    /// A role, with its purpose of use if it is not a shipped one: `lab-tech:TREAT`; all shipped roles by default
    #[arg(long = "role", value_name = "ROLE[:PURPOSE]")]
    roles: Vec<String>,
    /// Requests for each role
    #[arg(long, default_value_t = 3_000)]
    requests: usize,
    /// The same seed gives the same hospitals and the same requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Check these policies instead of the shipped ones
    #[arg(long, value_name = "DIRECTORY")]
    policies: Option<PathBuf>,
    /// A sandbox EMR of your own for the first hospital; records are written to it
    #[arg(long, value_name = "URL", requires = "emr_b")]
    emr_a: Option<String>,
    /// Another, empty like the first, for the second hospital
    #[arg(long, value_name = "URL", requires = "emr_a")]
    emr_b: Option<String>,
    /// Let the roles also write, delete, operate and export, so that more is asked with effect; they see no more
    #[arg(long)]
    open_doors: bool,
    /// Go on after a difference; shows one of each kind and role
    #[arg(long)]
    keep_going: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// The role of this name; `None` when it is no shipped one and no purpose is given.
#[must_use]
pub fn role(text: &str) -> Option<Role> {
    let (name, purpose) = match text.split_once(':') {
        Some((name, purpose)) => (name, purpose),
        None => *ROLES.iter().find(|(name, _)| *name == text)?,
    };
    let patient = (name == "patient").then(|| "p1".to_owned());
    let fhir_user = match name {
        "patient" => Some("Patient/p1".to_owned()),
        "nurse" => Some("Practitioner/pr-nurse".to_owned()),
        "physician" => Some("Practitioner/pr-physician".to_owned()),
        _ => None,
    };
    Some(Role { name: name.to_owned(), purpose: purpose.to_owned(), fhir_user, patient })
}

/// All shipped roles.
#[must_use]
pub fn shipped() -> Vec<Role> {
    ROLES.iter().filter_map(|(name, _)| role(name)).collect()
}

pub(super) fn run(arguments: &Leakcheck) -> Ending {
    let roles: Option<Vec<Role>> = arguments.roles.iter().map(|text| role(text)).collect();
    let Some(mut roles) = roles else {
        show::error("`--role` must be a shipped role, or a role of yours with its purpose: `lab-tech:TREAT`");
        return Ending::WrongUse;
    };
    if roles.is_empty() {
        roles = shipped();
    }
    let plan = Plan {
        policies: arguments.policies.clone(),
        roles,
        asked_as: None,
        requests: arguments.requests,
        seed: arguments.seed,
        emrs: arguments.emr_a.clone().zip(arguments.emr_b.clone()).map(|(one, two)| [one, two]),
        open_doors: arguments.open_doors,
        keep_going: arguments.keep_going,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let found = runtime.map_err(|error| error.to_string());
    let terminal = std::io::stderr().is_terminal();
    let found = found.and_then(|runtime| {
        runtime.block_on(check::check(&plan, &|role, done, all| {
            if terminal {
                let _closed = write!(std::io::stderr().lock(), "\r\x1b[K{role}: {done} of {all}");
            }
        }))
    });
    if terminal {
        let _closed = write!(std::io::stderr().lock(), "\r\x1b[K");
    }
    match found {
        Ok(report) => print(&report, arguments),
        Err(error) => {
            show::error(&error);
            Ending::No
        }
    }
}

fn print(report: &Report, arguments: &Leakcheck) -> Ending {
    // Unless every door was opened for every role, one may stand open for nobody.
    let narrowed = !arguments.open_doors || arguments.policies.is_some() || !arguments.roles.is_empty();
    let good = report.leaks.is_empty() && (narrowed || report.silent.is_empty());
    if arguments.json {
        show::line(&as_json(report, good).to_string());
    } else {
        as_text(report, narrowed);
    }
    if good { Ending::Good } else { Ending::No }
}

fn as_json(report: &Report, good: bool) -> Value {
    let roles = report.roles.iter().map(|role| {
        let counts = role.counts.iter().map(|(kind, count)| {
            (kind.names().0.to_owned(), json!({ "asked": count.asked, "answered": count.answered }))
        });
        let [records, shown, differing] = role.records;
        json!({
            "role": role.role, "records": records, "seen": shown, "differing": differing,
            "seconds": role.seconds, "interactions": Map::from_iter(counts),
        })
    });
    let leaks = report.leaks.iter().map(|leak| {
        json!({
            "role": leak.role, "interaction": leak.kind.names().0, "request": leak.request,
            "difference": leak.difference,
        })
    });
    json!({
        "ok": good, "roles": roles.collect::<Vec<_>>(), "leaks": leaks.collect::<Vec<_>>(),
        "unanswered": report.silent.iter().map(|kind| kind.names().0).collect::<Vec<_>>(),
    })
}

fn as_text(report: &Report, narrowed: bool) {
    for role in &report.roles {
        let [records, shown, differing] = role.records;
        show::line(&format!(
            "{}: {records} records, something is seen of {shown}, {differing} differ; {} s",
            role.role, role.seconds
        ));
        for (kind, count) in &role.counts {
            show::line(&format!(
                "  {:<20} {:>6} asked {:>6} answered",
                kind.names().0,
                count.asked,
                count.answered
            ));
        }
    }
    for leak in &report.leaks {
        show::line(&format!(
            "\nThe two hospitals answer {} differently ({}):",
            leak.role,
            leak.kind.names().0
        ));
        show::line(&format!("  {}\n  {}", leak.request, leak.difference));
    }
    let silent: Vec<&str> = report.silent.iter().map(|kind| kind.names().0).collect();
    if !silent.is_empty() {
        let note = if narrowed { "note: " } else { "" };
        show::error(&format!(
            "{note}served, but nobody was answered, so nothing was learned: {}",
            silent.join(", ")
        ));
    }
    let sums = report.sums();
    if report.leaks.is_empty() {
        show::line(&format!(
            "\nno difference in {} requests, {} of them answered",
            sums.asked, sums.answered
        ));
    }
}
