//! Looking at an issuer once, for an operator: each step by itself, with what it brought.
//!
//! Owns: what is told of discovery, keys and clock. Must never: give keys to the door; `neighbour.rs` does, by rules
//! that stop at the first fault.
//! Look next: `fetch.rs`, whose network this uses; `cli::doctor`.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::fetch::{Fetcher, Start, discovered};
use super::{FetchError, IssuerSource};
use crate::domain::identity::{KeySet, PublishedKey, published_keys};
use crate::limits;

/// What a discovery document says that matters to settings. Its text is the issuer's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// `issuer`.
    pub issuer: Option<String>,
    /// `acr_values_supported`, where it is there.
    pub acr_values: Option<Vec<String>>,
    /// `claims_supported`, where it is there.
    pub claims: Option<Vec<String>>,
}

/// What was found at an issuer.
#[derive(Debug)]
pub struct Examination {
    /// The discovery document; nothing where `jwks_uri` is configured.
    pub discovery: Option<Result<Discovery, FetchError>>,
    /// Its keys, as the door would have them, and each that is published.
    pub keys: Result<(KeySet, Vec<PublishedKey>), FetchError>,
    /// Seconds by which its clock is ahead of ours, where it says what time it is.
    pub ahead_seconds: Option<i64>,
}

/// Asks an issuer for its discovery document and keys.
///
/// # Errors
/// One line: a URL or certificates that cannot be used at all.
pub async fn examine(source: &IssuerSource) -> Result<Examination, String> {
    let fetcher = Fetcher::new(source)?;
    let mut found = Examination { discovery: None, keys: Err(FetchError::TimedOut), ahead_seconds: None };
    let bound = Duration::from_millis(limits::KEYS_FETCH_TIMEOUT_MS_MAX);
    found.keys = timeout(bound, found.look(&fetcher, source)).await.unwrap_or(Err(FetchError::TimedOut));
    if fetcher.starts_with_discovery() && found.discovery.is_none() {
        found.discovery = Some(Err(found.keys.as_ref().err().cloned().unwrap_or(FetchError::TimedOut)));
    }
    Ok(found)
}

impl Examination {
    async fn look(
        &mut self,
        fetcher: &Fetcher,
        source: &IssuerSource,
    ) -> Result<(KeySet, Vec<PublishedKey>), FetchError> {
        let keys_at = match fetcher.start() {
            Start::Keys(uri) => uri.clone(),
            Start::Discovery(uri) => {
                let (document, ahead) = fetcher.read_dated(uri.clone()).await?;
                self.ahead_seconds = ahead;
                let document: Value =
                    serde_json::from_slice(&document).map_err(|_| FetchError::DiscoveryMalformed)?;
                self.discovery = Some(Ok(Discovery::of(&document)));
                discovered(&document, &source.issuer, uri)?
            }
        };
        let (document, ahead) = fetcher.read_dated(keys_at).await?;
        self.ahead_seconds = ahead.or(self.ahead_seconds);
        let keys = KeySet::read(&document, &source.issuer).map_err(FetchError::KeySet)?;
        Ok((keys, published_keys(&document, &source.issuer).map_err(FetchError::KeySet)?))
    }
}

impl Discovery {
    fn of(document: &Value) -> Self {
        let list = |name: &str| {
            let items = document.get(name)?.as_array()?;
            Some(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        };
        Self {
            issuer: document.get("issuer").and_then(Value::as_str).map(str::to_owned),
            acr_values: list("acr_values_supported"),
            claims: list("claims_supported"),
        }
    }
}
