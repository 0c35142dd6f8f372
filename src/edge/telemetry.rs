//! What operators see: metrics, the log, and the panic hook.
//!
//! Owns: the metric registry and its names; where log lines go. Labels are `&'static str`, so nothing a
//! client or the EMR sent can become one.
//! Must never: hold or print patient data, tokens or a panic's message (T-227).
//! Look next: `operations`, which serves [`Telemetry::render`].

use std::fmt;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt as log_format};

/// Seconds: from a cached answer to the longest time-out.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// All metrics of the process. Cloning shares them.
#[derive(Clone)]
pub struct Telemetry(Arc<Meters>);

/// How a request was decided, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Something was released.
    Permit,
    /// Nothing was released.
    Refuse,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for people.
    Text,
    /// One JSON object a line for collectors.
    Json,
}

#[derive(Default)]
struct Meters {
    requests: Family<RequestLabels, Counter>,
    request_seconds: LatencyByInteraction,
    refusals: Family<CodeLabel, Counter>,
    refusals_counted: Counter,
    upstream: Family<OutcomeLabel, Counter>,
    upstream_seconds: Latency,
    journal_seconds: Latency,
    journal_records: Counter,
    journal_reserve: Gauge<u64, AtomicU64>,
    journal_reserve_used: Gauge<u64, AtomicU64>,
    journal_unverified: Gauge<u64, AtomicU64>,
    filter_bytes_in: Counter,
    filter_bytes_out: Counter,
    connections: Gauge,
    connections_refused: Counter,
    handshake_failures: Counter,
    accept_failures: Counter,
    stalled_connections: Counter,
    handler_panics: Counter,
    panics: Counter,
    key_refreshes: Family<OutcomeLabel, Counter>,
    relation_lookups: Family<OutcomeLabel, Counter>,
    reloads: Family<ReloadLabels, Counter>,
    policy_epoch: Gauge<u64, AtomicU64>,
    policy_set: Family<PolicyLabels, Gauge>,
    policy_rejected: Gauge,
    shadow_on: Gauge,
    shadow_asked: Family<OutcomeLabel, Counter>,
    agreement_days_left: Family<ClientLabel, Gauge>,
    events: Family<OutcomeLabel, Counter>,
    silent_streams: Gauge,
    revocations: Gauge,
    witness_age: Family<WitnessLabel, Gauge>,
    witness_requests: Family<OutcomeLabel, Counter>,
    registry: Registry,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    interaction: &'static str,
    decision: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InteractionLabel {
    interaction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReloadLabels {
    what: &'static str,
    outcome: &'static str,
}

/// A policy set: hash and, where it is signed, version; both our own or an operator's.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PolicyLabels {
    hash: String,
    version: String,
}

/// A registered client's id: from the configuration, never from a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClientLabel {
    client: String,
}

/// A witness's name: from the configuration, never from a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WitnessLabel {
    witness: String,
}

/// One open connection; counts itself out when dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Telemetry {
    /// Metrics that all start at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut meters = Meters::default();
        let mut registry = Registry::with_prefix("chartgate");
        meters.register_requests(&mut registry);
        meters.register_connections(&mut registry);
        meters.register_neighbours(&mut registry);
        meters.registry = registry;
        Self(Arc::new(meters))
    }

    /// A request was answered. `interaction` is FHIR's code, or `none` where it was not understood.
    pub fn request(&self, interaction: &'static str, decision: Decision, status: StatusCode, took: Duration) {
        let labels = RequestLabels { interaction, decision: decision.name(), status: class(status) };
        self.0.requests.get_or_create(&labels).inc();
        self.0.request_seconds.0.get_or_create(&InteractionLabel { interaction }).observe(took.as_secs_f64());
    }

    /// A request was refused with this stable code.
    pub fn refusal(&self, code: &'static str) {
        self.0.refusals.get_or_create(&CodeLabel { code }).inc();
    }

    /// It was counted in the trail, and has no record of its own.
    pub fn refusal_counted(&self) {
        self.0.refusals_counted.inc();
    }

    /// The EMR gave the head of an answer, or failed: `outcome` is `answered` or the error's code.
    pub fn upstream(&self, outcome: &'static str, took: Duration) {
        self.0.upstream.get_or_create(&OutcomeLabel { outcome }).inc();
        self.0.upstream_seconds.0.observe(took.as_secs_f64());
    }

    /// One group commit of the journal made this many records durable.
    pub fn journal_commit(&self, records: u64, took: Duration) {
        self.0.journal_records.inc_by(records);
        self.0.journal_seconds.0.observe(took.as_secs_f64());
    }

    /// So many bytes of the journal's reserve are taken, of so many.
    pub fn journal_reserve(&self, all_bytes: u64, used_bytes: u64) {
        self.0.journal_reserve.set(all_bytes);
        self.0.journal_reserve_used.set(used_bytes);
    }

    /// So many older entries of the trail are still to be verified since the start.
    pub fn journal_unverified(&self, entries: u64) {
        self.0.journal_unverified.set(entries);
    }

    /// The filter read and wrote this many bytes.
    pub fn filtered(&self, bytes_in: u64, bytes_out: u64) {
        self.0.filter_bytes_in.inc_by(bytes_in);
        self.0.filter_bytes_out.inc_by(bytes_out);
    }

    /// A client connected; hold the value as long as the connection lives.
    #[must_use]
    pub fn connection_opened(&self) -> OpenConnection {
        self.0.connections.inc();
        OpenConnection(self.0.connections.clone())
    }

    /// A connection was closed unheard, because there are too many.
    pub fn connection_refused(&self) {
        self.0.connections_refused.inc();
    }

    /// A TLS handshake failed or took too long.
    pub fn handshake_failed(&self) {
        self.0.handshake_failures.inc();
    }

    /// The operating system could not give us a waiting connection.
    pub fn accept_failed(&self) {
        self.0.accept_failures.inc();
    }

    /// A connection was dropped because its peer would not read.
    pub fn connection_stalled(&self) {
        self.0.stalled_connections.inc();
    }

    /// A request's handler or body panicked; the listener ended that request alone.
    pub fn handler_panicked(&self) {
        self.0.handler_panics.inc();
    }

    /// An issuer's keys were asked for: `outcome` is a fixed word such as `fresh` or `failed`.
    pub fn key_refresh(&self, outcome: &'static str) {
        self.0.key_refreshes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// The EMR was asked how a caller stands to patients: `answered`, `failed`, or `cut-off` where there was
    /// more than is read.
    pub fn relation_lookup(&self, outcome: &'static str) {
        self.0.relation_lookups.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Something was read again from disk (`what`: `certificate`, `policies`, …).
    pub fn reloaded(&self, what: &'static str, succeeded: bool) {
        let outcome = if succeeded { "applied" } else { "kept-last-good" };
        self.0.reloads.get_or_create(&ReloadLabels { what, outcome }).inc();
    }

    /// The policy set in force: its number, which grows by one with each set that is put in force, hash, and version
    /// where it is signed.
    pub fn policies_in_force(&self, epoch: u64, hash: &str, version: Option<u64>) {
        self.0.policy_epoch.set(epoch);
        self.0.policy_set.clear();
        let version = version.map(|version| version.to_string()).unwrap_or_default();
        self.0.policy_set.get_or_create(&PolicyLabels { hash: hash.to_owned(), version }).set(1);
    }

    /// Whether a candidate set is asked beside the one in force.
    pub fn shadow_on(&self, on: bool) {
        self.0.shadow_on.set(i64::from(on));
    }

    /// It was asked, and said the same or something else.
    pub fn shadow_asked(&self, different: bool) {
        let outcome = if different { "different" } else { "same" };
        self.0.shadow_asked.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// It was not asked, because too many questions waited.
    pub fn shadow_dropped(&self) {
        self.0.shadow_asked.get_or_create(&OutcomeLabel { outcome: "dropped" }).inc();
    }

    /// Whether the policies directory holds a set that was rejected, so that an older one is in force.
    pub fn policies_rejected(&self, rejected: bool) {
        self.0.policy_rejected.set(i64::from(rejected));
    }

    /// Days until the last day of a registered client's agreement; negative after it.
    pub fn agreement_days_left(&self, client: &str, days: i64) {
        self.0.agreement_days_left.get_or_create(&ClientLabel { client: client.to_owned() }).set(days);
    }

    /// An issuer sent a security event or a logout token: `taken` or `refused`.
    pub fn event(&self, outcome: &'static str) {
        self.0.events.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// So many revocations are in force, and so many event streams show no sign of life.
    pub fn sessions(&self, revocations: usize, silent_streams: usize) {
        self.0.revocations.set(i64::try_from(revocations).unwrap_or(i64::MAX));
        self.0.silent_streams.set(i64::try_from(silent_streams).unwrap_or(i64::MAX));
    }

    /// The trail's newest cosignature by this witness is so old.
    pub fn witness_age(&self, witness: &str, seconds: i64) {
        self.0.witness_age.get_or_create(&WitnessLabel { witness: witness.to_owned() }).set(seconds);
    }

    /// A witness was asked to cosign: `outcome` is a fixed word such as `cosigned` or `unavailable`.
    pub fn witness_asked(&self, outcome: &'static str) {
        self.0.witness_requests.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// The whole exposition in the OpenMetrics text format Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.0.registry) {
            Ok(()) => text,
            // Writing to a string does not fail; a partial exposition would mislead, so none is given.
            Err(fmt::Error) => String::new(),
        }
    }

    /// From now on a panic anywhere logs where it happened and nothing else, and is counted: a panic's
    /// message can hold what was being worked on.
    pub fn install_panic_hook(&self) {
        let telemetry = self.clone();
        std::panic::set_hook(Box::new(move |panic| telemetry.panicked(panic)));
    }

    fn panicked(&self, panic: &PanicHookInfo<'_>) {
        self.0.panics.inc();
        let (file, line) = panic.location().map_or(("unknown", 0), |at| (at.file(), at.line()));
        tracing::error!(file, line, "a task panicked");
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

impl Meters {
    fn register_requests(&self, registry: &mut Registry) {
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register("request_seconds", "Time to the end of an answer", self.request_seconds.0.clone());
        registry.register("refusals", "Requests refused, by code", self.refusals.clone());
        registry.register(
            "refusals_counted",
            "Of these, counted in the trail instead of recorded one by one",
            self.refusals_counted.clone(),
        );
        registry.register("filter_bytes_in", "Bytes read by the filter", self.filter_bytes_in.clone());
        registry.register("filter_bytes_out", "Bytes released by the filter", self.filter_bytes_out.clone());
        registry.register("policy_epoch", "Number of the policy set in force", self.policy_epoch.clone());
        registry.register(
            "policy_set",
            "The policy set in force, by hash and version",
            self.policy_set.clone(),
        );
        registry.register(
            "policy_shadow",
            "1 while a candidate set is asked beside the one in force",
            self.shadow_on.clone(),
        );
        registry.register(
            "policy_shadow_questions",
            "Questions for the candidate set, by outcome",
            self.shadow_asked.clone(),
        );
        registry.register(
            "policy_rejected",
            "1 while the policies directory holds a set that was rejected",
            self.policy_rejected.clone(),
        );
        registry.register(
            "agreement_days_left",
            "Days until the last day of a client's agreement",
            self.agreement_days_left.clone(),
        );
    }

    fn register_connections(&self, registry: &mut Registry) {
        registry.register("connections", "Client connections open now", self.connections.clone());
        registry.register(
            "connections_refused",
            "Connections closed unheard",
            self.connections_refused.clone(),
        );
        registry.register(
            "handshake_failures",
            "TLS handshakes that failed",
            self.handshake_failures.clone(),
        );
        registry.register("accept_failures", "Failed accepts", self.accept_failures.clone());
        registry.register(
            "stalled_connections",
            "Connections dropped, peer not reading",
            self.stalled_connections.clone(),
        );
        registry.register("handler_panics", "Requests ended by a panic", self.handler_panics.clone());
        registry.register("panics", "Panics anywhere", self.panics.clone());
    }

    fn register_neighbours(&self, registry: &mut Registry) {
        registry.register("upstream_requests", "Requests to the EMR, by outcome", self.upstream.clone());
        registry.register(
            "upstream_seconds",
            "Time to the head of an EMR answer",
            self.upstream_seconds.0.clone(),
        );
        registry.register("journal_commit_seconds", "Time of a group commit", self.journal_seconds.0.clone());
        registry.register("journal_records", "Audit records made durable", self.journal_records.clone());
        registry.register(
            "journal_reserve_bytes",
            "Length of the journal's reserve",
            self.journal_reserve.clone(),
        );
        registry.register(
            "journal_reserve_used_bytes",
            "Bytes of it that are taken; its heads take 12288",
            self.journal_reserve_used.clone(),
        );
        registry.register(
            "journal_unverified_entries",
            "Older entries that are verified since the start, while the gate answers",
            self.journal_unverified.clone(),
        );
        registry.register("key_refreshes", "Issuer key refreshes, by outcome", self.key_refreshes.clone());
        registry.register(
            "relation_lookups",
            "Searches for how callers stand to patients, by outcome",
            self.relation_lookups.clone(),
        );
        registry.register("security_events", "Events from issuers, by outcome", self.events.clone());
        registry.register(
            "silent_event_streams",
            "Event streams without a sign of life",
            self.silent_streams.clone(),
        );
        registry.register(
            "witness_age_seconds",
            "Age of the trail's newest cosignature, by witness",
            self.witness_age.clone(),
        );
        registry.register(
            "witness_requests",
            "States of the trail sent to witnesses, by outcome",
            self.witness_requests.clone(),
        );
        registry.register("revocations", "Revocations in force", self.revocations.clone());
        registry.register("reloads", "Files read again, by outcome", self.reloads.clone());
    }
}

/// A histogram of seconds that can be made by `Default`.
#[derive(Clone)]
struct Latency(Histogram);

impl Default for Latency {
    fn default() -> Self {
        Self(latency())
    }
}

/// The same for each interaction.
#[derive(Clone)]
struct LatencyByInteraction(Family<InteractionLabel, Histogram, fn() -> Histogram>);

impl Default for LatencyByInteraction {
    fn default() -> Self {
        Self(Family::new_with_constructor(latency))
    }
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

impl Decision {
    fn name(self) -> &'static str {
        match self {
            Decision::Permit => "permit",
            Decision::Refuse => "refuse",
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// Sends this program's own log lines to standard error, at `level` and above. Lines of the libraries
/// are left out: at their lower levels they hold header values.
///
/// # Errors
/// When the process already has a log.
pub fn start_log(format: LogFormat, level: LevelFilter) -> Result<(), TryInitError> {
    let ours = filter_fn(|line| line.target().starts_with("chartgate"));
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Text => {
            let lines = log_format::layer().with_writer(std::io::stderr).with_ansi(false);
            registry.with(lines.with_filter(level).with_filter(ours)).try_init()
        }
        LogFormat::Json => {
            let lines = log_format::layer().json().with_writer(std::io::stderr);
            registry.with(lines.with_filter(level).with_filter(ours)).try_init()
        }
    }
}
