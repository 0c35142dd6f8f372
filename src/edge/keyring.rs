//! The issuers' keys: fetched, kept, refreshed.
//!
//! Owns: OIDC discovery, the key set of each issuer, when it is fetched again, and how long the last good
//! one is trusted (T-182, T-183).
//! Must never: follow a redirect, fetch for a token from an issuer that is not configured, or hand out a
//! key set it did not read in full.
//! Look next: `keyring/fetch.rs` for the network, `domain::identity::KeySet` for what a set may hold.

mod examine;
mod fetch;
mod neighbour;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::fhir::capabilities::IssuerEndpoints;
use crate::domain::identity::{IdentityRefusal, Issuer, KeySet, KeySetError};
use crate::limits;
pub use examine::{Discovery, Examination, examine};
use fetch::Fetcher;
pub(in crate::edge) use fetch::{acceptable as acceptable_url, https_client};
use neighbour::Neighbour;

/// One issuer and where its keys are.
#[derive(Debug)]
pub struct IssuerSource {
    /// The issuer's settings.
    pub issuer: Issuer,
    /// The key set's URL; without it, OpenID Connect discovery at the issuer's URL.
    pub jwks_uri: Option<String>,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca: Option<Vec<u8>>,
}

/// When keys are fetched. `Pace::from_limits` in the program; tests are quicker.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two fetches at least.
    pub interval_min: Duration,
    /// The same while no key set is there.
    pub retry_interval_min: Duration,
    /// Between two background refreshes.
    pub period: Duration,
    /// For one whole fetch.
    pub timeout: Duration,
    /// How long a key set is trusted without a refresh.
    pub stale_max: Duration,
}

impl Pace {
    /// The pace of the program.
    #[must_use]
    pub const fn from_limits() -> Self {
        Self {
            interval_min: Duration::from_millis(limits::KEYS_REFRESH_INTERVAL_MS_MIN),
            retry_interval_min: Duration::from_millis(limits::KEYS_RETRY_INTERVAL_MS_MIN),
            period: Duration::from_millis(limits::KEYS_REFRESH_PERIOD_MS),
            timeout: Duration::from_millis(limits::KEYS_FETCH_TIMEOUT_MS_MAX),
            stale_max: Duration::from_millis(limits::KEYS_STALE_MS_MAX),
        }
    }
}

/// Why there is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyringError {
    /// No such issuer is configured.
    IssuerUnknown,
    /// Nothing was fetched yet, or the last good set is too old.
    Unavailable,
}

impl fmt::Display for KeyringError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::IssuerUnknown => "the issuer is not configured",
            Self::Unavailable => "the issuer's keys are not available",
        })
    }
}

impl std::error::Error for KeyringError {}

impl From<KeyringError> for IdentityRefusal {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::IssuerUnknown => Self::IssuerUnknown,
            KeyringError::Unavailable => Self::KeysUnavailable,
        }
    }
}

/// Why one fetch failed. For the operator; holds nothing of what was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// No answer in time.
    TimedOut,
    /// Connecting, TLS or HTTP failed.
    Unreachable,
    /// Another status than 200; a redirect is not followed (T-183).
    Status(u16),
    /// More than `limits::KEY_SET_BYTES_MAX` bytes.
    TooLarge,
    /// The discovery document is not JSON with `issuer` and `jwks_uri`.
    DiscoveryMalformed,
    /// The discovery document is another issuer's (OpenID Connect Discovery section 4.3).
    IssuerMismatch,
    /// The discovered URL is neither https nor, for an issuer on loopback, http on loopback.
    UrlRefused,
    /// The key set itself.
    KeySet(KeySetError),
}

impl fmt::Display for FetchError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => out.write_str("the issuer did not answer in time"),
            Self::Unreachable => out.write_str("the issuer could not be reached"),
            Self::Status(code) => write!(out, "the issuer answered with status {code}"),
            Self::TooLarge => out.write_str("the issuer's answer is too large"),
            Self::DiscoveryMalformed => out.write_str("the discovery document is malformed"),
            Self::IssuerMismatch => out.write_str("the discovery document names another issuer"),
            Self::UrlRefused => out.write_str("the discovered key set URL is not acceptable"),
            Self::KeySet(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for FetchError {}

/// How one issuer's keys are doing: plain numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyringCounts {
    /// Fetches that brought a key set.
    pub refreshed: u64,
    /// Fetches that failed.
    pub failed: u64,
    /// Times an unknown `kid` or a missing set did not fetch, because the last fetch was too recent.
    pub held_back: u64,
    /// Usable keys now.
    pub keys: usize,
    /// Published keys that were left out.
    pub skipped: usize,
    /// Whether the keys may be used now.
    pub usable: bool,
}

/// The keys of every configured issuer.
pub struct Keyring {
    neighbours: BTreeMap<String, Arc<Neighbour>>,
}

impl Keyring {
    /// Prepares; nothing is fetched before `spawn_refresh` or `key_set`.
    ///
    /// # Errors
    /// Every problem at once, one line each: a plain-http URL that is not on loopback, unusable
    /// certificates, two issuers with one URL, no issuer.
    pub fn new(sources: Vec<IssuerSource>) -> Result<Self, Vec<String>> {
        Self::with_pace(sources, Pace::from_limits())
    }

    /// As `new`, at a pace of one's own.
    ///
    /// # Errors
    /// As `new`.
    pub fn with_pace(sources: Vec<IssuerSource>, pace: Pace) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut neighbours = BTreeMap::new();
        if sources.is_empty() {
            problems.push("issuer: at least one is needed".to_owned());
        }
        for source in sources {
            let url = source.issuer.url().to_owned();
            match Fetcher::new(&source) {
                Ok(fetcher) => {
                    let neighbour = Arc::new(Neighbour::new(source.issuer, fetcher, pace));
                    if neighbours.insert(url.clone(), neighbour).is_some() {
                        problems.push(format!("issuer `{url}`: given twice"));
                    }
                }
                Err(problem) => problems.push(format!("issuer `{url}`: {problem}")),
            }
        }
        if problems.is_empty() { Ok(Self { neighbours }) } else { Err(problems) }
    }

    /// The settings of the issuer with exactly this URL.
    #[must_use]
    pub fn issuer(&self, iss: &str) -> Option<&Issuer> {
        self.neighbours.get(iss).map(|neighbour| neighbour.issuer())
    }

    /// The issuer's keys, refreshed first when they lack `kid` and the last fetch is long enough ago.
    ///
    /// The set may still lack `kid`; then the token is refused and nothing more is fetched for it.
    ///
    /// # Errors
    /// When the issuer is not configured, or no usable set is there.
    pub async fn key_set(&self, iss: &str, kid: &str) -> Result<Arc<KeySet>, KeyringError> {
        let neighbour = self.neighbours.get(iss).ok_or(KeyringError::IssuerUnknown)?;
        neighbour.key_set(kid).await
    }

    /// What the issuer's discovery document said last; none where keys come by `jwks_uri`, or not yet.
    #[must_use]
    pub fn endpoints(&self, iss: &str) -> Option<Arc<IssuerEndpoints>> {
        self.neighbours.get(iss).and_then(|neighbour| neighbour.endpoints())
    }

    /// Starts refreshing every issuer's keys, at once and then for ever; stops when the handle is dropped.
    #[must_use = "refreshing stops when the handle is dropped"]
    pub fn spawn_refresh(&self) -> Refreshing {
        let mut tasks = tokio::task::JoinSet::new();
        for neighbour in self.neighbours.values() {
            tasks.spawn(Arc::clone(neighbour).refresh_for_ever());
        }
        Refreshing { _tasks: tasks }
    }

    /// Whether every issuer's keys were fetched once and at least one issuer's are usable now: one issuer's
    /// later outage does not take the others' callers down with it.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.neighbours.values().all(|neighbour| neighbour.counts().refreshed > 0)
            && self.neighbours.values().any(|neighbour| neighbour.counts().usable)
    }

    /// The numbers of each issuer, by URL.
    pub fn counts(&self) -> impl Iterator<Item = (&str, KeyringCounts)> {
        self.neighbours.iter().map(|(url, neighbour)| (url.as_str(), neighbour.counts()))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.neighbours.keys()).finish()
    }
}

/// Keeps the background refresh running.
#[derive(Debug)]
pub struct Refreshing {
    _tasks: tokio::task::JoinSet<()>,
}
