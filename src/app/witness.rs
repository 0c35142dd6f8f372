//! Wiring of witnesses: the ones a gate asks, and the witness as a program of its own.
//!
//! Owns: turning their settings into parts. Must never: give a witness anything of a gate's.
//! Look next: `edge::cosigning`, `edge::witness`.

use super::{bind, files, journal_settings};
use crate::config::witness::WitnessSettings;
use crate::config::{Problem, Settings};
use crate::domain::ledger::VerifierKey;
use crate::edge::cosigning::{Cosigning, WitnessSource};
use crate::edge::journal::{self, Journal, Keys};
use crate::edge::listener::{Bounds, Drained, Security, Stop, Stopper, stop_signal};
use crate::edge::reload::{Nudger, Watch, nudge};
use crate::edge::telemetry::Telemetry;
use crate::edge::tls::{ServerFiles, ServerTls};
use crate::edge::witness::{self, Witness};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The witnesses of `settings`, each with its certificates.
///
/// # Errors
/// Every file that cannot be read.
pub(super) fn sources(settings: &Settings) -> Result<Vec<WitnessSource>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    for witness in &settings.audit.witnesses {
        match witness.ca.as_ref().map(std::fs::read).transpose() {
            Ok(ca) => sources.push(WitnessSource { url: witness.url.clone(), key: witness.key.clone(), ca }),
            Err(error) => {
                let what = format!("`witness.ca` cannot be read: {}", error.kind());
                problems.push(Problem::whole_file("[audit]", what));
            }
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

/// Asks the witnesses what they have seen, before anything is written; `None` where there are none.
///
/// # Errors
/// What cannot be used, or a witness that has seen what the trail does not hold.
pub(super) async fn greet(
    settings: &Settings,
    sources: Vec<WitnessSource>,
    journal: &Journal,
    telemetry: &Telemetry,
) -> Result<Option<Arc<Cosigning>>, Problem> {
    if sources.is_empty() {
        return Ok(None);
    }
    let wrong = |what: String| Problem::whole_file("[audit]", what);
    let trail = journal_settings(settings);
    let keys = Keys::load(&trail).map_err(|error| wrong(error.to_string()))?;
    let log = journal::verifier(&trail.directory, &keys).map_err(|finding| wrong(finding.to_string()))?;
    let age_max = settings.audit.witness_max_age;
    let made = Cosigning::new((trail.directory, log), &sources, journal, age_max, telemetry.clone());
    let made = made.map_err(wrong)?.refusing_after(settings.audit.witness_refuse_after);
    let cosigning = Arc::new(made);
    let hint =
        "find the newer trail, or have the witness's operator explain; docs/witness.md tells how to go on";
    cosigning.greet().await.map_err(|what| wrong(what).with_hint(hint))?;
    Ok(Some(cosigning))
}

/// The witnesses' keys.
#[must_use]
pub fn witness_keys(settings: &Settings) -> Vec<VerifierKey> {
    settings.audit.witnesses.iter().map(|witness| witness.key.clone()).collect()
}

/// A witness at work.
#[derive(Debug)]
pub struct RunningWitness {
    address: SocketAddr,
    stopper: Stopper,
    nudger: Nudger,
    serving: JoinSet<Drained>,
    watching: JoinSet<()>,
}

/// What the witness's room needs of its settings.
#[must_use]
pub fn witness_settings(settings: &WitnessSettings) -> witness::Settings {
    witness::Settings {
        name: settings.name.clone(),
        signing_key: settings.signing_key.clone(),
        state: settings.state.clone(),
        logs: settings.logs.clone(),
    }
}

/// Starts a witness. It answers when this returns.
///
/// # Errors
/// Every problem found; nothing is left running then.
pub async fn start_witness(settings: &WitnessSettings) -> Result<RunningWitness, Vec<Problem>> {
    let one = |part: &str, what: String| vec![Problem::whole_file(part, what)];
    let tls = settings
        .certificate
        .clone()
        .map(|pair| ServerTls::load(ServerFiles { own: files(pair), client_ca: None }));
    let tls = tls.transpose().map_err(|error| one("[listen]", error.to_string()))?;
    let witness = Witness::open(&witness_settings(settings));
    let witness = Arc::new(witness.map_err(|error| one("[witness]", error.to_string()))?);
    let telemetry = Telemetry::new();
    let security = tls.clone().map_or(Security::PlainLoopback, Security::Tls);
    let listener = bind(settings.address, security, Bounds::OPERATIONS, &telemetry).await;
    let listener = listener.map_err(|error| one("[listen]", error))?;
    let address = listener.address();
    let (stopper, stop) = stop_signal();
    let (nudger, nudge) = nudge();
    let (mut serving, mut watching) = (JoinSet::new(), JoinSet::new());
    serving.spawn(witness::serve(listener, witness, stop.clone()));
    if let Some(server) = tls {
        let watch = Watch::begin("certificates", server.files());
        watching.spawn(watch.run(move || server.reload(), nudge, stop, telemetry));
    }
    tracing::info!(%address, name = settings.name, logs = settings.logs.len(), "witnessing");
    Ok(RunningWitness { address, stopper, nudger, serving, watching })
}

impl RunningWitness {
    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads the certificate again now.
    pub fn reload(&self) {
        self.nudger.nudge();
    }

    /// Finishes requests under way.
    pub async fn stop(mut self) {
        self.stopper.stop();
        while self.serving.join_next().await.is_some() {}
        while self.watching.join_next().await.is_some() {}
    }
}

/// Asks the witnesses beside the requests, until `stop`.
pub(super) fn spawn(watching: &mut JoinSet<()>, cosigning: Option<&Arc<Cosigning>>, stop: &Stop) {
    if let Some(cosigning) = cosigning {
        watching.spawn(Arc::clone(cosigning).run(stop.clone()));
    }
}
