//! A candidate set from its beginning to its end: staged, recorded, told of every minute, ended by itself.
//!
//! Owns: when a candidate is asked, and that everybody can see it. Must never: let it go on past `until`, or begin unrecorded.
//! Look next: `gateway::shadow`, which asks; docs/operators.md.

use super::policies::{self, Reading};
use crate::clock;
use crate::config::policies::{PolicyTerms, ShadowTerms};
use crate::config::{Problem, Settings};
use crate::domain::access::Candidate;
use crate::domain::audit::{Control, Event, Record};
use crate::edge::listener::Stop;
use crate::edge::operations::ShadowView;
use crate::edge::reload::{Nudge, Watch};
use crate::gateway::{Gate, Shadow};
use crate::limits;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often the end is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// Begins asking the candidate, where one is configured, and its time is not over.
pub(super) fn begin(
    watching: &mut JoinSet<()>,
    gate: &Arc<Gate>,
    settings: &Settings,
    (nudge, stop): (Nudge, &Stop),
) {
    let Some(shadow_terms) = settings.shadow.clone() else { return };
    let tests = settings.policy_terms.tests;
    if clock::now() >= shadow_terms.until {
        tracing::warn!(until = %shadow_terms.until, "the time of `policies.shadow` is over: take it out of the configuration");
        return;
    }
    let shadow = match Shadow::start(shadow_terms.until, gate.telemetry.clone()) {
        Ok(shadow) => shadow,
        Err(error) => {
            tracing::error!(error = %error.kind(), "no thread for `policies.shadow`");
            return;
        }
    };
    if gate.shadow.set(Arc::clone(&shadow)).is_err() {
        return;
    }
    let directory = shadow_terms.directory.clone();
    let watch = Watch::begin("candidate policies", vec![directory.clone()]);
    let runtime = tokio::runtime::Handle::current();
    let (at, asked) = (Arc::clone(gate), Arc::clone(&shadow));
    let apply = move || {
        let terms = PolicyTerms { tests, signers: Vec::new() };
        let staged = policies::stage(&directory, &terms, Reading::Settled);
        let staged =
            staged.map_err(|problems| problems.first().map(ToString::to_string).unwrap_or_default())?;
        let candidate = Candidate::new(staged.policies);
        if asked.candidate().as_deref() == Some(candidate.hash()) || asked.is_over() {
            return Ok(());
        }
        let details = [("candidate", candidate.hash().to_owned()), ("until", asked.until().to_string())];
        // Recorded before it is asked anything.
        let recorded = runtime.block_on(at.journal.append(&[record(&at, Event::ShadowBegan, &details)]));
        let _recorded = recorded.map_err(|error| error.to_string())?;
        asked.ask(candidate);
        Ok::<(), String>(())
    };
    let apply = Arc::new(apply);
    let (first, later) = (Arc::clone(&apply), apply);
    watching.spawn(async move {
        let begun = tokio::task::spawn_blocking(move || first()).await;
        if let Ok(Err(reason)) = begun {
            tracing::error!(reason, "the candidate of `policies.shadow` is not asked");
        }
    });
    watching.spawn(watch.run(move || later(), nudge, stop.clone(), gate.telemetry.clone()));
    watching.spawn(keep(Arc::clone(gate), shadow, stop.clone()));
}

/// Tells of it, and ends it.
async fn keep(gate: Arc<Gate>, shadow: Arc<Shadow>, mut stop: Stop) {
    let (mut told, mut summed) = (Instant::now(), Instant::now());
    let why = loop {
        tokio::select! {
            () = stop.requested() => break "the gate was stopped",
            () = tokio::time::sleep(LOOK) => {}
        }
        if shadow.is_over() {
            break "its time is over";
        }
        let Some(candidate) = shadow.candidate() else { continue };
        if told.elapsed() < limits::SHADOW_NOTICE_INTERVAL {
            continue;
        }
        told = Instant::now();
        let (tally, dropped) = shadow.tally();
        tracing::warn!(
            candidate, until = %shadow.until(), asked = tally.asked, different = tally.different, dropped,
            "candidate policies are asked in the shadow of those in force"
        );
        if shadow.take_news() || summed.elapsed() >= limits::SHADOW_SUMMARY_INTERVAL {
            summed = Instant::now();
            sum_up(&gate, &shadow, Event::ShadowSummary, "").await;
        }
    };
    if shadow.end() {
        tracing::warn!(why, "candidate policies are asked no more");
        sum_up(&gate, &shadow, Event::ShadowEnded, why).await;
    }
}

async fn sum_up(gate: &Gate, shadow: &Shadow, event: Event, why: &str) {
    let (tally, dropped) = shadow.tally();
    let mut record =
        record(gate, event, &[("candidate", shadow.last_candidate()), ("dropped", dropped.to_string())]);
    if let Record::Control(control) = &mut record {
        control.details.extend(tally.details());
        control.details.extend((!why.is_empty()).then(|| ("because".to_owned(), why.to_owned())));
    }
    if let Err(error) = gate.journal.append(&[record]).await {
        tracing::error!(%error, "how the candidate policies stand could not be recorded");
    }
}

fn record(gate: &Gate, event: Event, details: &[(&str, String)]) -> Record {
    let in_force = ("policySet".to_owned(), policies::in_force(gate).policies.hash().to_owned());
    let details = details.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).chain([in_force]);
    Record::Control(Control { time: clock::now(), event, details: details.collect() })
}

/// How it stands, while it is on.
pub(super) fn view(gate: &Gate) -> Option<ShadowView> {
    let shadow = gate.shadow.get()?;
    let candidate = shadow.candidate()?;
    let (tally, dropped) = shadow.tally();
    let (asked, different, unknown) = (tally.asked, tally.different, tally.unknown);
    Some(ShadowView { candidate, until: shadow.until().to_string(), asked, different, unknown, dropped })
}

/// What `check` says of it.
///
/// # Errors
/// What is wrong with the candidate.
pub(super) fn check(terms: Option<&ShadowTerms>, tests: bool) -> Result<Option<Problem>, Vec<Problem>> {
    const PLACE: &str = "[policies.shadow]";
    let Some(terms) = terms else { return Ok(None) };
    if clock::now() >= terms.until {
        let over =
            Problem::whole_file(PLACE, format!("its time was over on {}: nothing is asked", terms.until));
        return Ok(Some(over.with_hint("take it out of the configuration")));
    }
    let staged =
        policies::stage(&terms.directory, &PolicyTerms { tests, signers: Vec::new() }, Reading::Once)?;
    let message = format!(
        "the candidate {} is asked beside the policies in force, until {}",
        staged.policies.hash(),
        terms.until
    );
    Ok(Some(
        Problem::whole_file(PLACE, message)
            .with_hint("it changes no answer; `chartgate policy shadow` reports"),
    ))
}
