//! Policies on their way into force: read whole, checked, tried out, recorded, and swapped whole.
//!
//! Owns: the order of these steps, the same at the start and later; what is told of a set that was rejected.
//! Must never: put a set in force that a step refused or that is not recorded; let a request wait for any of it.
//! Look next: `edge::policy_files`, the directory; `edge::policy_bundle`, its signature; docs/decisions/0017.

use super::{control, journal_settings, policy_problem};
use crate::clock;
use crate::config::policies::PolicyTerms;
use crate::config::{Problem, Settings};
use crate::domain::access::{self, PolicySet, Release, Versions};
use crate::domain::audit::{Control, Event, Record};
use crate::domain::workbench;
use crate::edge::journal::{Keys, Settings as Trail};
use crate::edge::policy_bundle;
use crate::edge::policy_files::{Extent, Folder};
use crate::gateway::{Gate, InForce};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A set that meets its terms, but for the version, which the trail must tell.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) policies: Arc<PolicySet>,
    /// Where it is signed.
    pub(super) release: Option<Release>,
}

/// How a directory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As it is: somebody looks at it.
    Once,
    /// Until it holds still: it is to be put in force.
    Settled,
}

/// Reads a policies directory and holds it to its terms: signature, syntax and schema, cases.
///
/// # Errors
/// Every problem of the first of these steps that refuses it.
pub(super) fn stage(directory: &Path, terms: &PolicyTerms, reading: Reading) -> Result<Staged, Vec<Problem>> {
    let located = |problems: Vec<access::Problem>| -> Vec<Problem> {
        problems.into_iter().map(|problem| policy_problem(directory, problem)).collect()
    };
    let extent = match (terms.signers.is_empty(), terms.tests) {
        (false, _) => Extent::Everything,
        (true, true) => Extent::Cases,
        (true, false) => Extent::Policies,
    };
    let folder = match reading {
        Reading::Once => Folder::read(directory, extent),
        Reading::Settled => Folder::settled(directory, extent),
    };
    let folder = folder.map_err(|problem| located(vec![problem]))?;
    // Before anything of it is read as policy.
    let release = match terms.signers.as_slice() {
        [] => None,
        signers => Some(policy_bundle::verify(&folder, signers).map_err(located)?.manifest.release),
    };
    let policies = Arc::new(folder.load().map_err(located)?);
    if release.as_ref().is_some_and(|release| release.set != policies.hash()) {
        let message = "was signed for a build with another vocabulary: these files make another set here";
        let problem =
            Problem::whole_file(&directory.join(policy_bundle::MANIFEST).display().to_string(), message);
        return Err(vec![problem.with_hint("check the policies with this build and sign them again")]);
    }
    if terms.tests {
        let files = folder.cases().map_err(located)?;
        workbench::try_cases(&policies, &files, folder.records()).map_err(located)?;
    }
    Ok(Staged { policies, release })
}

/// Which versions the trail tells of, where the terms ask for signatures.
///
/// # Errors
/// When the trail cannot tell.
pub(super) fn recorded(terms: &PolicyTerms, trail: &Trail) -> Result<Versions, Problem> {
    let wrong = |what: String| Problem::whole_file("[policies]", what);
    if terms.signers.is_empty() {
        return Ok(Versions::default());
    }
    let keys = Keys::load(trail).map_err(|error| wrong(error.to_string()))?;
    policy_bundle::recorded(trail, &keys).map_err(|finding| wrong(finding.to_string()))
}

/// Which versions of signed policies were in force, as the trail tells. Takes no lock.
///
/// # Errors
/// When the trail cannot tell.
pub fn recorded_policy_versions(settings: &Settings) -> Result<Versions, Problem> {
    recorded(&settings.policy_terms, &journal_settings(settings))
}

/// How the first set stands, once the trail is open.
///
/// # Errors
/// Its version may not be in force, or the trail cannot tell.
pub(super) async fn standing(settings: &Settings, staged: &Staged) -> Result<Arc<Standing>, Problem> {
    let (terms, trail) = (settings.policy_terms.clone(), journal_settings(settings));
    let read = tokio::task::spawn_blocking(move || recorded(&terms, &trail)).await;
    let versions = read.unwrap_or_else(|error| Err(Problem::whole_file("[policies]", error.to_string())))?;
    let versions = admitted(&versions, staged.release.as_ref())?;
    Ok(Arc::new(Standing::new(versions, staged.release.clone())))
}

/// The record of the start; tells metrics what is in force.
pub(super) fn started(gate: &Gate, standing: &Standing, more: &[(&str, String)]) -> Record {
    let (in_force, release) = (in_force(gate), standing.release());
    let version = release.as_ref().map(|release| release.version);
    gate.telemetry.policies_in_force(in_force.epoch, in_force.policies.hash(), version);
    gate.telemetry.policies_rejected(false);
    let mut started = record(Event::Started, &in_force, release.as_ref(), &standing.versions());
    if let Record::Control(control) = &mut started {
        control.details.extend(more.iter().map(|(name, text)| ((*name).to_owned(), text.clone())));
    }
    started
}

/// What is so once `staged` is in force.
///
/// # Errors
/// It may not be: its version is older, or was another set.
pub(super) fn admitted(versions: &Versions, release: Option<&Release>) -> Result<Versions, Problem> {
    let Some(release) = release else { return Ok(versions.clone()) };
    versions.with(release).map_err(|fault| {
        let hint = "sign it with a higher version, or name this one with `chartgate policy rollback`";
        Problem::whole_file("[policies]", fault.to_string()).with_hint(hint)
    })
}

/// The same for `check`, which takes no lock: a trail that is not there yet knows no version.
pub(super) fn check_version(settings: &Settings, staged: &Staged) -> Result<(), Problem> {
    let trail = journal_settings(settings);
    if staged.release.is_none() || !trail.directory.exists() {
        return Ok(());
    }
    let versions = recorded(&settings.policy_terms, &trail)?;
    admitted(&versions, staged.release.as_ref()).map(|_| ())
}

/// A control record about a set that is or comes into force.
pub(super) fn record(
    event: Event,
    in_force: &InForce,
    release: Option<&Release>,
    versions: &Versions,
) -> Record {
    let (set, epoch) = (in_force.policies.hash().to_owned(), in_force.epoch.to_string());
    let mut details = release.map(|release| versions.details(release)).unwrap_or_default();
    details.extend([("policySet".to_owned(), set), ("policyEpoch".to_owned(), epoch)]);
    Record::Control(Control { time: clock::now(), event, details })
}

/// The versions of the set in force, and what became of the last one offered.
#[derive(Debug)]
pub(super) struct Standing {
    versions: Mutex<Versions>,
    release: Mutex<Option<Release>>,
    rejected: Mutex<Option<String>>,
}

impl Standing {
    pub(super) fn new(versions: Versions, release: Option<Release>) -> Self {
        Self { versions: Mutex::new(versions), release: Mutex::new(release), rejected: Mutex::default() }
    }

    /// An older version may be taken now.
    pub(super) fn allow(&self, release: Release) {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).allow(release);
    }

    /// The version in force, where it is signed.
    pub(super) fn release(&self) -> Option<Release> {
        self.release.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The record of the end: what is so now, repeated, so that the next start finds it soon.
    pub(super) fn versions(&self) -> Versions {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the set that the directory holds is not in force.
    pub(super) fn rejected(&self) -> Option<String> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what became of a set; whether that is news.
    fn note(&self, rejected: Option<String>) -> bool {
        let mut known = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *known != rejected;
        *known = rejected;
        is_news
    }
}

/// Reads the policies again, records it, and puts the set in force; what does not meet its terms changes nothing.
/// For a thread that may block.
pub(super) fn reload(
    gate: Arc<Gate>,
    directory: PathBuf,
    terms: PolicyTerms,
    standing: Arc<Standing>,
) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
    let runtime = tokio::runtime::Handle::current();
    move || {
        let offered = stage(&directory, &terms, Reading::Settled).and_then(|staged| {
            let versions =
                admitted(&standing.versions(), staged.release.as_ref()).map_err(|problem| vec![problem])?;
            Ok((staged, versions))
        });
        let append = |record: Record| runtime.block_on(gate.journal.append(&[record]));
        match offered {
            Ok((staged, versions)) => {
                let before = in_force(&gate);
                if before.policies.hash() != staged.policies.hash() || standing.release() != staged.release {
                    let now = InForce { policies: staged.policies, epoch: before.epoch + 1 };
                    // Recorded before it is in force: every decision under it can be traced to this entry.
                    let told = record(Event::PoliciesLoaded, &now, staged.release.as_ref(), &versions);
                    let _recorded = append(told).map_err(|error| error.to_string())?;
                    put_in_force(&gate, &standing, now, staged.release, versions);
                }
                standing.note(None);
                gate.telemetry.policies_rejected(false);
                Ok(())
            }
            Err(problems) => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                gate.telemetry.policies_rejected(true);
                // It is tried again and again; once in the trail is enough.
                if standing.note(Some(first.clone())) {
                    let more = problems.len().saturating_sub(1).to_string();
                    let told =
                        control(Event::PoliciesRejected, &[("problem", first.clone()), ("more", more)]);
                    let _unrecorded = append(told);
                }
                Err(first)
            }
        }
    }
}

fn put_in_force(
    gate: &Gate,
    standing: &Standing,
    now: InForce,
    release: Option<Release>,
    versions: Versions,
) {
    gate.telemetry.policies_in_force(now.epoch, now.policies.hash(), release.as_ref().map(|one| one.version));
    let doubts = now.policies.lints().len();
    if doubts > 0 {
        tracing::warn!(doubts, "the policies raise doubts: `chartgate policy check` tells them");
    }
    *standing.versions.lock().unwrap_or_else(PoisonError::into_inner) = versions;
    *standing.release.lock().unwrap_or_else(PoisonError::into_inner) = release;
    *gate.policies.write().unwrap_or_else(PoisonError::into_inner) = now;
}

/// The set in force.
pub(super) fn in_force(gate: &Gate) -> InForce {
    gate.policies.read().unwrap_or_else(PoisonError::into_inner).clone()
}
