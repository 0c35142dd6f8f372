//! The only place where rooms are introduced to each other: assemble, start, watch, stop.
//!
//! Owns: the order in which the program comes up and goes down.
//! Must never: answer a request, or begin to listen before every part has been had.
//! Look next: `gateway::Gate`, what is assembled here; `cli`, which calls this.

mod applications;
mod care;
mod policies;
mod readings;
mod session;
mod shadow;
mod witness;

pub use policies::recorded_policy_versions;
pub use session::{init_sessions, open_store, session_settings};
pub use witness::{RunningWitness, start_witness, witness_keys, witness_settings};

use crate::clock;
use crate::config::{Problem, Settings, settings};
use crate::domain::access::{self, Masks, PolicySet};
use crate::domain::audit::{Control, Event, Record};
use crate::domain::fhir::capabilities::IssuerEndpoints;
use crate::domain::fhir::path::PublicBase;
use crate::domain::identity::{Issuer, IssuerSpec, MfaSpec, Nonces, VerifiedTokens};
use crate::edge::cosigning::Cosigning;
use crate::edge::counting::Counting;
use crate::edge::introspection::{IntrospectionSource, Introspector};
use crate::edge::journal::{self, Journal};
use crate::edge::keyring::{IssuerSource, Keyring, Refreshing};
use crate::edge::listener::{Bounds, Drained, Listener, Security, Stop, Stopper, stop_signal};
use crate::edge::open_files;
use crate::edge::operations::{self, Readiness, Secret};
use crate::edge::policy_files;
use crate::edge::reload::{Nudger, Watch, nudge};
use crate::edge::replay::Replay;
use crate::edge::seal::Seal;
use crate::edge::sessions::Sessions;
use crate::edge::telemetry::Telemetry;
use crate::edge::tls::{CertificateFiles, ClientFiles, ServerFiles, ServerTls};
use crate::edge::upstream::{self, BaseUrl, Upstream};
use crate::gateway::{self, EventSources, Gate, InForce};
use crate::limits;
use policies::{Reading, Staged, Standing};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio::task::JoinSet;

/// Everything that can be had without opening the trail or a socket.
struct Parts {
    staged: Staged,
    server_tls: Arc<ServerTls>,
    operations_tls: Option<Arc<ServerTls>>,
    upstream: Upstream,
    keyring: Keyring,
    introspector: Option<Introspector>,
    nonces: Option<Nonces>,
    public: PublicBase,
    seal: Seal,
    events: EventSources,
    operations_bearer: Option<Secret>,
}

/// The program while it serves.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    operations_address: SocketAddr,
    gate: Arc<Gate>,
    standing: Arc<Standing>,
    stopper: Stopper,
    nudger: Nudger,
    serving: JoinSet<Drained>,
    watching: JoinSet<()>,
    cosigning: Option<Arc<Cosigning>>,
    _refreshing: Refreshing,
}

/// Checks everything that `settings` point at, without starting: policies, certificates, keys, URLs. Gives what
/// is worth a second look.
///
/// # Errors
/// Every problem found.
pub fn check(settings: &Settings) -> Result<Vec<Problem>, Vec<Problem>> {
    let parts = assemble(settings, &Telemetry::new(), Reading::Once);
    let mut problems = parts.as_ref().err().cloned().unwrap_or_default();
    problems.extend(witness::sources(settings).err().unwrap_or_default());
    let mut notes = Vec::new();
    let trail = journal_settings(settings);
    if trail.directory.exists() {
        let keys = journal::Keys::load(&trail);
        problems.extend(keys.err().map(|error| Problem::whole_file("[audit]", error.to_string())));
    } else {
        let note = "there is no trail yet: `chartgate audit init` makes it, and keys that are not there";
        notes.push(Problem::whole_file("[audit]", note));
    }
    let shadow = shadow::check(settings.shadow.as_ref(), settings.policy_terms.tests);
    let shadow_note = shadow.map_err(|mut found| problems.append(&mut found)).ok().flatten();
    if let Ok(parts) = &parts {
        problems.extend(policies::check_version(settings, &parts.staged).err());
    }
    if settings.session.key.is_some() {
        let key = session::store_key(settings);
        problems.extend(key.err().map(|error| Problem::whole_file("[session]", error.to_string())));
    }
    match parts {
        Ok(parts) if problems.is_empty() => {
            notes.extend(lints(&settings.policies, &parts.staged.policies));
            notes.extend(shadow_note);
            notes.extend(applications::notes(settings, clock::now()));
            notes.extend(session::session_notes(settings));
            Ok(notes)
        }
        Ok(_) | Err(_) => Err(problems),
    }
}

/// Starts the program. It answers on both listeners when this returns.
///
/// # Errors
/// Every problem found; nothing is left running then.
pub async fn start(settings: &Settings) -> Result<Running, Vec<Problem>> {
    let telemetry = Telemetry::new();
    let (stopper, stop) = stop_signal();
    let (nudger, nudge) = nudge();
    let policy_watch = Watch::begin("policies", vec![settings.policies.clone()]);
    let parts = assemble(settings, &telemetry, Reading::Settled)?;
    let witnesses = witness::sources(settings)?;
    let one = |problem: String| vec![Problem::whole_file("chartgate", problem)];

    let listener = bind(
        settings.listen.address,
        Security::Tls(Arc::clone(&parts.server_tls)),
        client_bounds(),
        &telemetry,
    );
    let listener = listener.await.map_err(one)?;
    let operations_security = parts.operations_tls.clone().map_or(Security::PlainLoopback, Security::Tls);
    let operations = bind(settings.operations.address, operations_security, Bounds::OPERATIONS, &telemetry);
    let operations = operations.await.map_err(one)?;

    // Last, because it takes the lock and reads the whole trail.
    let (journal, exports) = open_trail(settings, &telemetry).await.map_err(one)?;
    let standing = policies::standing(settings, &parts.staged).await.map_err(|problem| vec![problem])?;
    let cosigning = witness::greet(settings, witnesses, &journal, &telemetry).await.map_err(|p| vec![p])?;
    let sessions = session::open_sessions(settings).await.map_err(|error| one(error.to_string()))?;
    let desk = session::desk(settings, &parts.operations_bearer, &sessions, &journal);

    let (tls, operations_tls) = (Arc::clone(&parts.server_tls), parts.operations_tls.clone());
    let gate =
        Arc::new(gate(settings, parts, (journal, sessions, exports), cosigning.clone(), telemetry.clone()));
    let revocations = gate.sessions.revoked().all().len();
    let started = policies::started(&gate, &standing, &[("revocations", revocations.to_string())]);
    let _recorded = gate.journal.append(&[started]).await.map_err(|error| one(error.to_string()))?;
    let (address, operations_address) = (listener.address(), operations.address());
    let mut serving = JoinSet::new();
    let handler_gate = Arc::clone(&gate);
    let handler = move |request, peer| gateway::handle(Arc::clone(&handler_gate), request, peer);
    serving.spawn(listener.serve(handler, stop.clone()));
    let (ready_gate, ready_standing) = (Arc::clone(&gate), Arc::clone(&standing));
    let silent = Arc::new(RwLock::new(Vec::new()));
    let ready_silent = Arc::clone(&silent);
    let readiness = move || readiness(&ready_gate, &ready_standing, &ready_silent);
    let door = care::review_door(Arc::clone(&gate), settings);
    serving.spawn(operations::serve(operations, readiness, desk, door, telemetry.clone(), stop.clone()));

    let mut watching = JoinSet::new();
    let (directory, terms) = (settings.policies.clone(), settings.policy_terms.clone());
    let apply = policies::reload(Arc::clone(&gate), directory, terms, Arc::clone(&standing));
    watching.spawn(policy_watch.run(apply, nudge.clone(), stop.clone(), telemetry.clone()));
    for server in std::iter::once(tls).chain(operations_tls) {
        let watch = Watch::begin("certificates", server.files());
        watching.spawn(watch.run(move || server.reload(), nudge.clone(), stop.clone(), telemetry.clone()));
    }
    shadow::begin(&mut watching, &gate, settings, (nudge.clone(), &stop));
    let upstream_gate = Arc::clone(&gate);
    let watch = Watch::begin("upstream credentials", gate.upstream.files());
    watching.spawn(watch.run(move || upstream_gate.upstream.reload(), nudge, stop.clone(), telemetry));
    spawn_watches(&mut watching, &gate, settings, (silent, &standing), &stop);
    witness::spawn(&mut watching, cosigning.as_ref(), &stop);
    let refreshing = gate.keyring.spawn_refresh();
    tracing::info!(%address, %operations_address, "serving");
    Ok(Running {
        address,
        operations_address,
        gate,
        standing,
        stopper,
        nudger,
        serving,
        watching,
        cosigning,
        _refreshing: refreshing,
    })
}

/// The trail with its reserve, and what was in one before taken over; and the seal for links that outlast the process.
async fn open_trail(settings: &Settings, telemetry: &Telemetry) -> Result<(Journal, Seal), String> {
    let reserve_bytes = settings.audit.reserve_bytes;
    let settings = journal_settings(settings);
    let exports = journal::lasting_seal(&settings, "links of exports").map_err(|error| error.to_string())?;
    let journal = tokio::task::spawn_blocking(move || Journal::open(&settings)).await;
    let journal = journal.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    journal.report_to(telemetry.clone());
    journal.keep_reserve(reserve_bytes).await.map_err(|error| error.to_string())?;
    Ok((journal, exports))
}

impl Running {
    /// Where clients are served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health, readiness and metrics are served.
    #[must_use]
    pub fn operations_address(&self) -> SocketAddr {
        self.operations_address
    }

    /// Whether keys, policies and trail are there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        readiness(&self.gate, &self.standing, &RwLock::default()).is_ready()
    }

    /// Reads policies, certificates and credentials again now.
    pub fn reload(&self) {
        self.nudger.nudge();
    }

    /// From now on a panic logs where it happened and nothing else. For a process that is the program alone.
    pub fn keep_panics_quiet(&self) {
        self.gate.telemetry.install_panic_hook();
    }

    /// Finishes requests under way, records the stop, and closes the trail.
    ///
    /// # Errors
    /// What the trail says when it could not be closed in order.
    pub async fn stop(mut self) -> Result<(), String> {
        self.stopper.stop();
        let mut cut_off = 0;
        while let Some(ended) = self.serving.join_next().await {
            cut_off += ended.map_or(0, |drained| drained.cut_off);
        }
        while self.watching.join_next().await.is_some() {}
        let counted = self.gate.counting.finish().await;
        let mut stopped = control(Event::Stopped, &[("connectionsCutOff", cut_off.to_string())]);
        if let (Record::Control(control), Some(release)) = (&mut stopped, self.standing.release()) {
            // Repeated, so that the next start finds it soon.
            control.details.extend(self.standing.versions().details(&release));
        }
        let recorded = self.gate.journal.append(&[stopped]).await.map(|_receipt| ());
        let closed = self.gate.journal.close().await;
        if let Some(cosigning) = &self.cosigning {
            cosigning.finish().await;
        }
        recorded.and(counted).and(closed).map_err(|error| error.to_string())
    }
}

/// Where the trail of `settings` is.
#[must_use]
pub fn journal_settings(settings: &Settings) -> journal::Settings {
    journal::Settings {
        directory: settings.audit.directory.clone(),
        signing_key: settings.audit.signing_key.clone(),
        encryption_key: settings.audit.encryption_key.clone(),
    }
}

/// Reads a policies directory; problems name the file with its folder.
///
/// # Errors
/// Every problem found.
pub fn load_policies(directory: &Path) -> Result<PolicySet, Vec<Problem>> {
    policy_files::load(directory)
        .map_err(|problems| problems.into_iter().map(|p| policy_problem(directory, p)).collect())
}

/// What is worth a second look in a policy set that loads.
#[must_use]
pub fn lints(directory: &Path, policies: &PolicySet) -> Vec<Problem> {
    let named = |lint: &access::Lint| {
        let message = format!("{} [{}]", lint.problem.message, lint.name.word());
        policy_problem(directory, access::Problem { message, ..lint.problem.clone() })
    };
    policies.lints().iter().map(named).collect()
}

/// A problem of a policies directory, which names its file without a folder, under that folder.
#[must_use]
pub fn policy_problem(directory: &Path, problem: access::Problem) -> Problem {
    let file = Path::new(&problem.file);
    let file = if file.starts_with(directory) { file.to_path_buf() } else { directory.join(file) };
    Problem {
        file: file.display().to_string(),
        line: problem.line,
        column: problem.column,
        message: problem.message,
        hint: problem.hint,
    }
}

fn assemble(settings: &Settings, telemetry: &Telemetry, reading: Reading) -> Result<Parts, Vec<Problem>> {
    let mut problems = Vec::new();
    let staged = policies::stage(&settings.policies, &settings.policy_terms, reading);
    let staged = keep(staged, &mut problems);
    let server_tls = noted("[listen]", ServerTls::load(server_files(&settings.listen)), &mut problems);
    let operations_tls = settings.operations.certificate.clone().map(|pair| {
        noted(
            "[operations]",
            ServerTls::load(ServerFiles {
                own: files(pair),
                client_ca: settings.operations.client_ca.clone(),
            }),
            &mut problems,
        )
    });
    let upstream = keep(make_upstream(&settings.upstream, telemetry), &mut problems);
    let keyring = keep(make_keyring(settings), &mut problems);
    let introspector = keep(make_introspector(settings), &mut problems);
    let nonces = keep(applications::nonces(&settings.dpop), &mut problems);
    let public = noted("[public]", PublicBase::parse(&settings.public_base), &mut problems);
    let seal = noted("chartgate", Seal::new(), &mut problems);
    let asked = introspector.zip(nonces);
    let events = keep(session::event_sources(&settings.issuers), &mut problems);
    let bearer = settings
        .operations
        .bearer_token_file
        .as_deref()
        .map(|path| session::secret("operations.bearer_token_file", path));
    let bearer = keep(bearer.transpose().map_err(|problem| vec![problem]), &mut problems);
    let parts =
        (staged, server_tls, operations_tls, upstream, keyring, (public, bearer), (seal, events, asked));
    match parts {
        (
            Some(staged),
            Some(server_tls),
            operations_tls,
            Some(upstream),
            Some(keyring),
            (Some(public), Some(operations_bearer)),
            (Some(seal), Some(events), Some((introspector, nonces))),
        ) if problems.is_empty() => {
            let operations_tls = operations_tls.flatten();
            Ok(Parts {
                staged,
                server_tls,
                operations_tls,
                upstream,
                keyring,
                introspector,
                nonces,
                public,
                seal,
                events,
                operations_bearer,
            })
        }
        _ => Err(problems),
    }
}

fn keep<T>(result: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|mut found| problems.append(&mut found)).ok()
}

fn noted<T, E: Display>(section: &str, result: Result<T, E>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|error| problems.push(Problem::whole_file(section, error.to_string()))).ok()
}

fn files((certificate, private_key): (PathBuf, PathBuf)) -> CertificateFiles {
    CertificateFiles { certificate, private_key }
}

fn server_files(listen: &settings::Listen) -> ServerFiles {
    let own = files((listen.certificate.clone(), listen.private_key.clone()));
    ServerFiles { own, client_ca: listen.client_ca.clone() }
}

pub(crate) fn make_upstream(
    settings: &settings::Upstream,
    telemetry: &Telemetry,
) -> Result<Upstream, Vec<Problem>> {
    let wrong = |error: &dyn Display| vec![Problem::whole_file("[upstream]", error.to_string())];
    let base = BaseUrl::parse(&settings.base_url).map_err(|error| wrong(&error))?;
    let tls = ClientFiles { ca: settings.ca.clone(), own: settings.client_certificate.clone().map(files) };
    let made = upstream::Settings::new(base, tls, settings.bearer_token_file.clone(), settings.timeout)
        .map_err(|error| wrong(&error))?;
    Upstream::new(made, telemetry.clone()).map_err(|error| wrong(&error))
}

fn make_keyring(settings: &Settings) -> Result<Keyring, Vec<Problem>> {
    let mut problems = Vec::new();
    let source = |issuer| keep(issuer_source(settings, issuer), &mut problems);
    let sources: Vec<IssuerSource> = settings.issuers.iter().filter_map(source).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    Keyring::new(sources)
        .map_err(|found| found.into_iter().map(|p| Problem::whole_file("[[issuer]]", p)).collect())
}

/// Who is asked about opaque tokens, if an issuer has them.
pub(crate) fn make_introspector(settings: &Settings) -> Result<Option<Introspector>, Vec<Problem>> {
    let wrong = |text: String| vec![Problem::whole_file("[issuer.introspection]", text)];
    let asked = settings.issuers.iter().find_map(|issuer| Some((issuer, issuer.introspection.as_ref()?)));
    let Some((issuer, asked)) = asked else { return Ok(None) };
    let own_ca = asked.ca.as_ref().map(std::fs::read).transpose();
    let own_ca = own_ca.map_err(|error| wrong(format!("`ca` cannot be read: {}", error.kind())))?;
    let credentials = applications::credentials(&asked.authentication, &issuer.url).map_err(wrong)?;
    let source = issuer_source(settings, issuer)?;
    let introspector = Introspector::new(IntrospectionSource {
        issuer: source.issuer,
        endpoint: asked.endpoint.clone(),
        client_id: asked.client_id.clone(),
        credentials,
        ca: own_ca.or(source.ca),
        kept: asked.cache,
    });
    introspector.map(Some).map_err(wrong)
}

pub(crate) fn issuer_source(
    all: &Settings,
    settings: &settings::Issuer,
) -> Result<IssuerSource, Vec<Problem>> {
    let wrong = |text: String| Problem::whole_file("[[issuer]]", text);
    let issuer = Issuer::new(IssuerSpec {
        url: settings.url.clone(),
        audience: settings.audience.clone(),
        algorithms: settings.algorithms.clone(),
        roles_claim: settings.roles_claim.clone(),
        roles: settings.roles.clone(),
        purpose_claim: settings.purpose_claim.clone(),
        mfa: MfaSpec {
            amr: settings.mfa.amr.iter().cloned().collect(),
            acr: settings.mfa.acr.iter().cloned().collect(),
            max_age_seconds: i64::try_from(settings.mfa.max_age.as_secs()).unwrap_or(i64::MAX),
        },
    })
    .map_err(|problems| problems.into_iter().map(wrong).collect::<Vec<_>>())?;
    let ca = settings.ca.as_ref().map(std::fs::read).transpose();
    let ca = ca.map_err(|error| vec![wrong(format!("`issuer.ca` cannot be read: {}", error.kind()))])?;
    let issuer = applications::register(issuer, &all.clients);
    Ok(IssuerSource { issuer, jwks_uri: settings.jwks_uri.clone(), ca })
}

/// The bounds of the client listener, with as many connections as open files leave room for.
fn client_bounds() -> Bounds {
    let connections = open_files::connections();
    if connections < limits::CONNECTIONS_MAX {
        tracing::warn!(
            connections,
            wanted = limits::CONNECTIONS_MAX,
            "open files leave room for fewer clients"
        );
    }
    Bounds { connections, ..Bounds::CLIENTS }
}

async fn bind(
    address: SocketAddr,
    security: Security,
    bounds: Bounds,
    telemetry: &Telemetry,
) -> Result<Listener, String> {
    Listener::bind(address, security, bounds, telemetry.clone()).await.map_err(|error| error.to_string())
}

/// Where operators list and end sessions.
fn gate(
    settings: &Settings,
    parts: Parts,
    (journal, sessions, exports): (Journal, Sessions, Seal),
    witnesses: Option<Arc<Cosigning>>,
    telemetry: Telemetry,
) -> Gate {
    let issuers = settings.issuers.iter().map(|issuer| IssuerEndpoints {
        issuer: issuer.url.clone(),
        jwks_uri: issuer.jwks_uri.clone(),
        ..IssuerEndpoints::default()
    });
    Gate {
        public: parts.public,
        upstream_base: settings.upstream.base_url.clone(),
        upstream: parts.upstream,
        keyring: parts.keyring,
        tokens: VerifiedTokens::new(),
        introspector: parts.introspector,
        replay: Replay::new(sessions.store()),
        nonces: parts.nonces,
        events: parts.events,
        policies: RwLock::new(InForce { policies: parts.staged.policies, epoch: 1 }),
        masks: Masks::new(),
        shadow: OnceLock::new(),
        relations: care::relations(&settings.relations),
        emergencies: care::emergencies(&settings.emergency, sessions.store()),
        sessions,
        witnesses,
        counting: Arc::new(Counting::new(journal.clone(), telemetry.clone(), settings.audit.budget)),
        journal,
        seal: parts.seal,
        exports,
        telemetry,
        issuers: issuers.collect(),
        started: clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        parameters: settings.parameters.clone(),
        compresses: settings.compression,
        statement: gateway::Statement::default(),
        turns: gateway::Turns::default(),
        shares: gateway::Shares::default(),
        large_bodies: gateway::LargeBodies::default(),
    }
}

fn readiness(gate: &Gate, standing: &Standing, silent: &RwLock<Vec<String>>) -> Readiness {
    let InForce { policies, epoch } = policies::in_force(gate);
    Readiness {
        keys: gate.keyring.ready(),
        policies: true,
        journal: gate.journal.ready(),
        reserve: gate.journal.reserve().code(),
        witnesses: !gate.is_unwitnessed(clock::now()),
        sessions: gate.sessions.is_heard(),
        silent_event_streams: silent.read().unwrap_or_else(PoisonError::into_inner).clone(),
        policy_hash: policies.hash().to_owned(),
        policy_epoch: epoch,
        policy_version: standing.release().map(|release| release.version),
        policy_rejected: standing.rejected(),
        policy_shadow: shadow::view(gate),
    }
}

/// What runs beside the requests until `stop`.
fn spawn_watches(
    watching: &mut JoinSet<()>,
    gate: &Arc<Gate>,
    settings: &Settings,
    (silent, standing): (Arc<RwLock<Vec<String>>>, &Arc<Standing>),
    stop: &Stop,
) {
    watching.spawn(count_refreshes(Arc::clone(gate), stop.clone()));
    let counted = gate.telemetry.clone();
    watching.spawn(applications::watch_agreements(settings.clone(), counted, stop.clone()));
    session::spawn_watch(watching, gate, silent, stop);
    watching.spawn(Arc::clone(&gate.counting).run(stop.clone()));
    watching.spawn(care::end_emergencies(Arc::clone(gate), stop.clone()));
    watching.spawn(readings::record(
        gate.journal.clone(),
        journal_settings(settings),
        (settings.audit.retention, Arc::clone(standing)),
        stop.clone(),
    ));
}

/// Carries the keyring's counts over to the metrics, until `stop`.
async fn count_refreshes(gate: Arc<Gate>, mut stop: Stop) {
    let mut known = (0, 0);
    loop {
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(limits::METRICS_CARRY_INTERVAL) => {}
        }
        let (fresh, failed) = gate
            .keyring
            .counts()
            .fold((0, 0), |(fresh, failed), (_, counts)| (fresh + counts.refreshed, failed + counts.failed));
        (known.0..fresh).for_each(|_| gate.telemetry.key_refresh("fresh"));
        (known.1..failed).for_each(|_| gate.telemetry.key_refresh("failed"));
        known = (fresh, failed);
    }
}

fn control(event: Event, details: &[(&str, String)]) -> Record {
    let details: BTreeMap<String, String> =
        details.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Record::Control(Control { time: clock::now(), event, details })
}
