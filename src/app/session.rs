//! Bringing up what sessions need: their store, the operators' desk, the issuers' events.
//!
//! Owns: how these settings become parts, and the tasks that run beside the requests.
//! Must never: start without a store that answers.
//! Look next: `edge::sessions`, `edge::operations`, `gateway::events`.

use crate::clock;
use crate::config::settings::{self, SessionPlace};
use crate::config::{Problem, Settings};
use crate::domain::identity::SessionLimits;
use crate::edge::journal::{self, Journal};
use crate::edge::listener::Stop;
use crate::edge::operations::{Access, Desk, Secret};
use crate::edge::sessions::{self, Change, PostgresStore, SessionStore, Sessions, SqliteStore, StoreKey};
use crate::gateway::{EventSource, EventSources, Gate, silent_streams};
use crate::limits;
use jiff::SignedDuration;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Where operators list and end sessions.
pub(super) fn desk(
    settings: &Settings,
    bearer: &Option<Secret>,
    sessions: &Sessions,
    journal: &Journal,
) -> Desk {
    let access = Access {
        bearer: bearer.clone(),
        client_certificates: settings.operations.client_ca.is_some(),
        loopback: settings.operations.address.ip().is_loopback(),
    };
    Desk { sessions: sessions.clone(), journal: journal.clone(), access }
}

/// Follows the store and the issuers' streams until `stop`.
pub(super) fn spawn_watch(
    watching: &mut JoinSet<()>,
    gate: &Arc<Gate>,
    silent: Arc<RwLock<Vec<String>>>,
    stop: &Stop,
) {
    watching.spawn(listen_for_streams(Arc::clone(gate), silent, stop.clone()));
    let (changes, heard) = mpsc::unbounded_channel();
    watching.spawn(gate.sessions.clone().watch(changes, stop.clone()));
    watching.spawn(record_changes(gate.journal.clone(), heard));
}

/// How long sessions last, and what keeps them alive.
#[must_use]
pub fn session_settings(settings: &Settings) -> sessions::Settings {
    let span = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    let limits = SessionLimits {
        idle: span(settings.session.idle_timeout),
        absolute: span(settings.session.absolute_timeout),
        concurrent: settings.session.concurrent,
    };
    sessions::Settings { limits, activity: settings.session.activity }
}

/// Opens the store that `settings` name, from a thread that may block within a runtime.
///
/// # Errors
/// What the store says.
pub fn open_store(settings: &Settings) -> Result<Arc<dyn SessionStore>, sessions::StoreError> {
    let (key, now) = (store_key(settings)?, clock::now());
    Ok(match &settings.session.store {
        SessionPlace::File(path) => Arc::new(SqliteStore::open(path, &key, now)?),
        SessionPlace::Postgres(postgres) => {
            let runtime = tokio::runtime::Handle::current();
            Arc::new(PostgresStore::open(postgres.clone(), &key, runtime, now)?)
        }
    })
}

/// The secret of the session store: its own, or one derived from the trail's encryption key.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn store_key(settings: &Settings) -> Result<StoreKey, sessions::StoreError> {
    if let Some(path) = &settings.session.key {
        return StoreKey::read(path);
    }
    let secret = journal::derived_secret(&super::journal_settings(settings), "session store");
    StoreKey::new(&secret.map_err(|error| sessions::StoreError::Settings(error.to_string()))?)
}

/// Makes the session store's file where there is none, together with a new trail: nothing was revoked before.
///
/// # Errors
/// What the store says.
pub fn init_sessions(settings: &Settings) -> Result<Option<PathBuf>, sessions::StoreError> {
    match &settings.session.store {
        SessionPlace::File(path) if !path.exists() => {
            SqliteStore::create(path, &store_key(settings)?).map(|()| Some(path.clone()))
        }
        SessionPlace::File(_) | SessionPlace::Postgres(_) => Ok(None),
    }
}

pub(super) async fn open_sessions(settings: &Settings) -> Result<Sessions, sessions::StoreError> {
    for note in session_notes(settings) {
        tracing::warn!("{}", note.message);
    }
    let all = settings.clone();
    let opened =
        tokio::task::spawn_blocking(move || Sessions::open(session_settings(&all), open_store(&all)?));
    opened.await.map_err(|error| sessions::StoreError::Unavailable(error.to_string()))?
}

/// NIST SP 800-63B-4 section 2.2.3 asks for at most an hour of inactivity; longer is allowed, and said.
pub(super) fn session_notes(settings: &Settings) -> Vec<Problem> {
    let long = settings.session.idle_timeout > limits::SESSION_IDLE_ADVISED_MAX;
    let text = "`session.idle_timeout` is longer than an hour: NIST SP 800-63B-4 advises against it";
    long.then(|| Problem::whole_file("[session]", text)).into_iter().collect()
}

pub(super) fn secret(key: &str, path: &Path) -> Result<Secret, Problem> {
    let wrong = |what: String| Problem::whole_file(key, format!("`{}` {what}", path.display()));
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| wrong(format!("cannot be read: {}", error.kind())))?;
    let text = text.trim();
    let sound = (1..=limits::OPERATIONS_BODY_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if sound {
        Ok(Secret(text.to_owned()))
    } else {
        Err(wrong("must hold one line of visible text".to_owned()))
    }
}

pub(super) fn event_sources(issuers: &[settings::Issuer]) -> Result<EventSources, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut sources = EventSources::new();
    for issuer in issuers {
        let Some(events) = &issuer.events else { continue };
        let given = events.authorization_file.as_deref();
        let authorization = given.map(|path| secret("issuer.events.authorization_file", path)).transpose();
        let authorization = authorization.map_err(|problem| problems.push(problem)).ok().flatten();
        let source = EventSource {
            audience: events.audience.clone(),
            logout_audience: events.logout_audience.clone(),
            authorization: authorization.map(|secret| secret.0),
            heartbeat: events.heartbeat,
        };
        sources.insert(issuer.url.clone(), source);
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

/// Records what others revoked or lifted, once it is in force here.
async fn record_changes(journal: Journal, mut heard: mpsc::UnboundedReceiver<Change>) {
    while let Some(change) = heard.recv().await {
        let record = match &change {
            Change::Revoked(revocation) => sessions::record_revoked(revocation, clock::now()),
            Change::Lifted(revocation) => sessions::record_lifted(revocation, clock::now()),
        };
        if let Err(error) = journal.append(&[record]).await {
            tracing::error!(%error, "a revocation made elsewhere could not be recorded");
        }
    }
}

/// Notices event streams without a sign of life, until `stop`.
async fn listen_for_streams(gate: Arc<Gate>, silent: Arc<RwLock<Vec<String>>>, mut stop: Stop) {
    let started = clock::now();
    loop {
        let (looked, at) = (Arc::clone(&gate), clock::now());
        let look = move || silent_streams(&looked.events, &looked.sessions, started, at);
        let found = tokio::task::spawn_blocking(look).await;
        if let Ok(Err(error)) = &found {
            tracing::warn!(%error, "event streams could not be looked at");
        }
        if let Ok(Ok(found)) = found {
            gate.telemetry.sessions(gate.sessions.revoked().all().len(), found.len());
            let mut known = silent.write().unwrap_or_else(PoisonError::into_inner);
            for issuer in found.iter().filter(|issuer| !known.contains(issuer)) {
                tracing::error!(issuer, "no verification event for longer than the heartbeat");
            }
            *known = found;
        }
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(limits::METRICS_CARRY_INTERVAL) => {}
        }
    }
}
