//! What a point of a curve is measured on: one quantity has the point's size, everything else stays as it is.
//!
//! Owns: [`What`] may grow, its usual and its largest points, and the [`Ground`] of one point: who asks what, how often, of what.
//! Must never: change two things from point to point of one curve.
//! Look next: `growth`, which measures; `sized` and `long_trail`, what is laid out.

use super::sized;
use crate::arrivals::Rate;
use crate::hospital;
use crate::scenario::{self, Role, SECONDS_MAX, Scenario};
use chartgate::cli::demo::stage::POLICIES;
use chartgate::limits;
use chartgate_sandbox::emr::Emr;
use clap::ValueEnum;
use std::fmt::Display;
use std::fs;
use tempfile::TempDir;

/// A quantity that may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Connections held open, each used in turn at a fixed rate over all of them
    Connections,
    /// Bytes of one answer, as the upstream sends it
    Size,
    /// Policies in force beside the shipped ones
    Policies,
    /// People with tokens and sessions of their own, all of whom the gate has seen
    People,
    /// Entries that the audit trail holds already
    Trail,
}

/// Patients with charts where reads are asked for.
const PATIENTS: u32 = 20;
/// Bytes a second that answers of a chosen size add up to, at most: a part of what the gate can do, so that latency is
/// that of an answer, not of a queue.
const BYTES_PER_SECOND: f64 = 20e6;
/// Answers that a point of a size has at the least.
const ANSWERS_MIN: f64 = 3.0;
/// People who read where their number is not what grows.
const READERS: u64 = 32;
/// A connection is used again before the gate closes it for being idle.
const IDLE_SECONDS: u64 = limits::HEADER_READ_SECONDS_MAX - 5;
/// Policies in one generated file.
const POLICIES_IN_FILE: usize = 500;
/// Roles among which generated policies are divided, as a share of their number, and at most.
const POLICIES_OF_ROLE: usize = 2;
const ROLES_MAX: usize = 500;

impl What {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Size => "size",
            Self::Policies => "policies",
            Self::People => "people",
            Self::Trail => "trail",
        }
    }

    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Size => "bytes in an answer",
            Self::Policies => "policies",
            Self::People => "people",
            Self::Trail => "entries in the trail",
        }
    }

    /// Measured when nothing else is asked for.
    pub(crate) fn usual_points(self) -> &'static [u64] {
        match self {
            Self::Connections => &[1, 10, 100, 1_000, 5_000],
            Self::Size => &[1_000, 10_000, 100_000, 1_000_000, 10_000_000, 80_000_000],
            Self::Policies => &[10, 100, 1_000, 10_000],
            Self::People => &[10, 100, 1_000, 10_000],
            Self::Trail => &[0, 10_000, 100_000],
        }
    }

    /// The smallest and the largest point, and why.
    pub(crate) fn range(self) -> (u64, u64, &'static str) {
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        match self {
            Self::Connections => (1, of_address(), "the gate lets in no more from one address"),
            Self::Size => (1_000, 100_000_000, "a page has 1,000 records"),
            Self::Policies => (1, wide(limits::POLICIES_MAX) - 1_000, "the gate takes no larger set"),
            Self::People => (1, limits::SESSIONS_MAX, "the gate remembers no more sessions"),
            Self::Trail => (0, 10_000_000, "ten million entries take some 5 GB of disk"),
        }
    }

    /// Requests a second at a point.
    pub(crate) fn usual_rate(self, at: u64, seconds: u64) -> f64 {
        match self {
            Self::Connections => 250.0,
            Self::Policies | Self::People | Self::Trail => 200.0,
            Self::Size => {
                (BYTES_PER_SECOND / at.max(1) as f64).clamp(ANSWERS_MIN / seconds.max(1) as f64, 100.0)
            }
        }
    }

    /// Clients of the closed loop at a point.
    pub(crate) fn usual_clients(self, at: u64) -> usize {
        match self {
            Self::Connections => usize::try_from(at).unwrap_or(1),
            Self::Size if at > 1_000_000 => 2,
            Self::Size | Self::Policies | Self::People | Self::Trail => 16,
        }
    }
}

/// What a point is measured on.
pub(crate) struct Ground {
    pub(crate) what: What,
    pub(crate) at: u64,
    pub(crate) scenario: Scenario,
    pub(crate) rate: Rate,
    pub(crate) patients: u32,
    /// People whose tokens are signed, and all of whom ask once before it is measured.
    pub(crate) people: u64,
    /// How many come in turn in the open loop: so many people, over and over.
    pub(crate) turns: usize,
    pub(crate) connections: usize,
    /// Clients of the closed loop.
    pub(crate) clients: usize,
    /// Entries that the trail gets before.
    pub(crate) entries: u64,
    /// Where generated policies are, until this is dropped.
    pub(crate) policies: Option<TempDir>,
}

/// Connections that the gate lets in from one address, as all of these are.
fn of_address() -> u64 {
    let quarters = limits::CONNECTIONS_MAX * limits::CONNECTIONS_OF_ADDRESS_QUARTERS;
    u64::try_from(quarters / 4).unwrap_or(u64::MAX)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Ground {
    /// For the point `at` of a curve whose largest point is `top`, with this much time for it.
    ///
    /// # Errors
    /// When files cannot be written.
    pub(crate) fn lay(
        what: What,
        at: u64,
        top: u64,
        seconds: u64,
        wished: (Option<Rate>, Option<usize>),
    ) -> Result<Self, String> {
        let per_second = wished.0.map_or_else(|| what.usual_rate(at, seconds), Rate::per_second);
        let people = match what {
            What::People => at,
            // As many at each point as the largest one needs: every connection is somebody's.
            What::Connections => top.max(READERS),
            What::Size | What::Policies | What::Trail => READERS,
        };
        let (role, target, patients) = match what {
            What::Size => sized::question(at),
            What::Connections | What::Policies | What::People | What::Trail => {
                (Role::Nurse, "/Patient/{patient}".to_owned(), PATIENTS)
            }
        };
        // Whoever comes has rested longest, so that at least this many come in turn.
        let think = (people as f64 / per_second).ceil().clamp(1.0, 3_600.0);
        let rate_text = format!("{per_second:.6}/s");
        let scenario = format!(
            "title = \"Growth\"\nabout = \"One quantity grows.\"\n[load]\npace = \"constant\"\nrate = \"{rate_text}\"\n\
             seconds = {}\nconnections = 1\n[[visit]]\nname = \"growth\"\nrole = \"{}\"\nthink_seconds = {think}\n\
             [[visit.step]]\nname = \"{}\"\nget = \"{target}\"\n",
            seconds.min(SECONDS_MAX),
            role.name(),
            what.name(),
        );
        let scenario = scenario::read("growth", "growth.toml", &scenario)
            .map_err(|problems| problems.first().map(ToString::to_string).unwrap_or_default())?;
        let connections = match what {
            What::Connections => usize::try_from(at).unwrap_or(1),
            What::Size => 4,
            What::Policies | What::People | What::Trail => 16,
        };
        let rate = Rate::parse(&rate_text)?;
        let turns = scenario.visits.first().map_or(1, |visit| scenario.people(visit, rate));
        Ok(Self {
            what,
            at,
            rate,
            turns: usize::try_from(turns).unwrap_or(1),
            scenario,
            patients,
            people,
            connections,
            clients: wished.1.unwrap_or_else(|| what.usual_clients(at)),
            entries: if what == What::Trail { at } else { 0 },
            policies: (what == What::Policies).then(|| write_policies(at)).transpose()?,
        })
    }

    /// Loads the upstream.
    ///
    /// # Errors
    /// When the sandbox does not take its own records.
    pub(crate) fn fill(&self, emr: &Emr) -> Result<(), String> {
        match self.what {
            What::Size => sized::fill(emr, self.at),
            What::Connections | What::Policies | What::People | What::Trail => {
                hospital::fill(emr, self.patients).map_err(text)
            }
        }
    }

    /// Every path that is asked for.
    pub(crate) fn paths(&self) -> Vec<String> {
        let target = self.scenario.visits.first().and_then(|visit| visit.steps.first());
        let target = target.map(|step| step.target.as_str()).unwrap_or_default();
        let path = |patient: u32| format!("/fhir{}", target.replace("{patient}", &format!("c{patient}")));
        (1..=self.patients).map(path).collect()
    }

    /// What everybody asks once, so that the gate knows them: something short.
    pub(crate) fn first_path(&self) -> String {
        match self.what {
            What::Size => "/fhir/Observation?patient=Patient/c1&_count=1".to_owned(),
            What::Connections | What::Policies | What::People | What::Trail => "/fhir/Patient/c1".to_owned(),
        }
    }

    /// Who asks: what is withheld from them is searched for.
    pub(crate) fn role(&self) -> Role {
        self.scenario.visits.first().map_or(Role::Nurse, |visit| visit.role)
    }

    /// Whether connections are used in turn, each by itself.
    pub(crate) fn is_alone(&self) -> bool {
        self.what == What::Connections
    }
}

/// Why connections of this number cannot be held open by a rate over all of them.
///
/// # Errors
/// That, and what to do.
pub(crate) fn check_rate(what: What, top: u64, rate: Option<Rate>) -> Result<(), String> {
    let per_second = rate.map_or_else(|| what.usual_rate(top, 1), Rate::per_second);
    let needed = top as f64 / IDLE_SECONDS as f64;
    if what != What::Connections || per_second >= needed {
        return Ok(());
    }
    Err(format!(
        "at {per_second}/s each of {top} connections would be idle for longer than the gate keeps it (hint: --rate {:.0}/s \
         or more, or fewer connections)",
        needed.ceil()
    ))
}

/// The shipped policies, and so many generated ones for roles that nobody here has.
fn write_policies(count: u64) -> Result<TempDir, String> {
    let folder = tempfile::tempdir().map_err(text)?;
    for (name, policies) in POLICIES {
        fs::write(folder.path().join(name), policies).map_err(text)?;
    }
    let count = usize::try_from(count).map_err(text)?;
    let roles = (count / POLICIES_OF_ROLE).clamp(1, ROLES_MAX);
    for first in (0..count).step_by(POLICIES_IN_FILE) {
        let policies = super::generated::policies(first..count.min(first + POLICIES_IN_FILE), roles);
        fs::write(folder.path().join(format!("generated-{first:06}.cedar")), policies).map_err(text)?;
    }
    Ok(folder)
}
