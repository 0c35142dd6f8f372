//! An EMR in memory: FHIR R4 over loopback HTTP, with faults on demand.
//!
//! Owns: `Emr` (data, request log, prepared answers, delay) and `serve`.
//! Must never: leave loopback; guard anything: it is what stands behind the gate.
//! Look next: `rest` (HTTP), `reading` and `writing` (interactions), `store` (records), `query` (search).

mod ask;
mod bundle;
mod capabilities;
mod compartments;
mod criteria;
mod export;
mod filter;
mod history;
mod operations;
mod parameters;
mod patch;
mod path;
mod query;
mod reading;
mod rest;
mod splice;
mod store;
mod terminology;
mod terms;
mod transaction;
mod wording;
mod writing;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_doors;
#[cfg(test)]
mod tests_search;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;

use crate::listen::{self, Canned, ServeError, Server, Shelf};
pub use store::Stored;
use store::{Stamping, Store};

/// The log keeps this many requests; older ones are dropped.
const REQUESTS_MAX: usize = 10_000;

/// Why data was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// Not a Bundle of type `transaction` or `batch`.
    NotABundle,
    /// Not a JSON object with a usable `resourceType` and id, or a member of it is double.
    NotAResource,
    /// A Bundle entry that is not a POST or a PUT to `Type/id` with a resource.
    UnsupportedEntry,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotABundle => "not a transaction bundle",
            Self::NotAResource => "not a resource with a usable type and id",
            Self::UnsupportedEntry => "a bundle entry that is neither a post nor a put of a resource",
        })
    }
}

impl std::error::Error for LoadError {}

/// One request as it reached the EMR.
#[derive(Clone)]
pub struct Logged {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query exactly as sent, `/fhir/…`.
    pub target: String,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Bytes,
}

impl Logged {
    /// The first value of a header, named in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Header values may hold tokens and bodies hold records: names and sizes only.
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "{} {} {names:?} {} bytes", self.method, self.target, self.body.len())
    }
}

/// The EMR. Clones share one store.
#[derive(Clone, Debug)]
pub struct Emr(Arc<Inner>);

struct Inner {
    store: RwLock<Store>,
    clock: Mutex<Option<jiff::Timestamp>>,
    shelf: Shelf,
    requests: Mutex<VecDeque<Logged>>,
    recording: AtomicBool,
    served: AtomicU64,
    delay_us: AtomicU64,
    exports: Mutex<export::Jobs>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emr")
    }
}

impl Default for Emr {
    fn default() -> Self {
        Self::new()
    }
}

impl Emr {
    /// An EMR without records.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            store: RwLock::default(),
            clock: Mutex::new(None),
            shelf: Shelf::default(),
            requests: Mutex::default(),
            recording: AtomicBool::new(true),
            served: AtomicU64::new(0),
            delay_us: AtomicU64::new(0),
            exports: Mutex::default(),
        }))
    }

    /// Stops the clock at `instant` for `lastUpdated` of what is stored from now on; `None` lets it run.
    /// Two EMRs loaded alike under one instant are byte-identical.
    pub fn set_time(&self, instant: Option<jiff::Timestamp>) {
        *self.0.clock.lock().unwrap_or_else(PoisonError::into_inner) = instant;
    }

    /// Loads a transaction Bundle of POST and PUT entries and gives the number of records. `urn:uuid:` references are
    /// resolved, also to Bundles loaded earlier; POSTed resources keep their id (or their uuid) as id.
    ///
    /// # Errors
    /// `LoadError`; nothing is stored then, except when a resource is nested deeper than 127 levels: those before it stay.
    pub fn load_transaction(&self, bundle: &[u8]) -> Result<usize, LoadError> {
        let now = self.now();
        let stored = transaction::apply(&mut self.write(), bundle, now)?;
        Ok(stored.len())
    }

    /// Loads `charts::ward_extras` beside the charts (`charts::load` first) and gives the number of records.
    ///
    /// # Errors
    /// `LoadError` when the Bundle is broken, which a test excludes.
    pub fn load_extras(&self) -> Result<usize, LoadError> {
        self.load_transaction(crate::charts::ward_extras().as_bytes())
    }

    /// Stores one resource under its own id (a fresh one when it has none). Its bytes stay exactly as given when it has
    /// `meta.versionId` and `meta.lastUpdated` and that version is new; else only those two are set.
    ///
    /// # Errors
    /// `NotAResource`.
    pub fn put(&self, resource: &[u8]) -> Result<Stored, LoadError> {
        let text = std::str::from_utf8(resource).map_err(|_| LoadError::NotAResource)?;
        let own = splice::read(text)?.id;
        let now = self.now();
        let mut store = self.write();
        let id = own.unwrap_or_else(|| store.fresh_id());
        store.put(text, &id, now, Stamping::Keep)
    }

    /// Deletes `Type/id` softly (reads answer 410); false when there is no such record now.
    pub fn delete(&self, resource_type: &str, id: &str) -> bool {
        let now = self.now();
        self.write().delete(resource_type, id, now)
    }

    /// Holds from now on what `other` holds now, every version of it; clock, log and prepared answers stay its own.
    pub fn mirror(&self, other: &Self) {
        let copy = other.store().clone();
        *self.write() = copy;
    }

    /// The current bytes of `Type/id`.
    #[must_use]
    pub fn read(&self, resource_type: &str, id: &str) -> Option<Bytes> {
        self.store().find(resource_type, id).and_then(|record| record.bytes().cloned())
    }

    /// The logical ids of a type, in the order they first came, deleted ones left out.
    #[must_use]
    pub fn ids(&self, resource_type: &str) -> Vec<String> {
        let store = self.store();
        let Some(ward) = store.ward(resource_type) else { return Vec::new() };
        ward.records.iter().filter(|r| r.bytes().is_some()).map(|r| r.id.clone()).collect()
    }

    /// The types that have records, with how many.
    #[must_use]
    pub fn census(&self) -> Vec<(String, usize)> {
        let store = self.store();
        let live = |ward: &store::Ward| ward.records.iter().filter(|r| r.bytes().is_some()).count();
        store.types().map(|(name, ward)| (name.to_owned(), live(ward))).collect()
    }

    /// Answers the next request to `path` (with `/fhir`, without query; `*` for any) with `canned` instead.
    /// Several queue up.
    pub fn next_answer(&self, path: &str, canned: Canned) {
        self.0.shelf.put(path, canned);
    }

    /// Every answer waits this long first.
    pub fn set_delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.0.delay_us.store(micros, Ordering::Relaxed);
    }

    /// Turns the request log on or off (on at first). Load tests turn it off.
    pub fn set_recording(&self, on: bool) {
        self.0.recording.store(on, Ordering::Relaxed);
    }

    /// The logged requests, oldest first (the newest 10,000).
    #[must_use]
    pub fn requests(&self) -> Vec<Logged> {
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Empties the log.
    pub fn clear_requests(&self) {
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many requests came since the start, logged or not.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.0.served.load(Ordering::Relaxed)
    }

    fn log(&self, logged: Logged) {
        let mut requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() >= REQUESTS_MAX {
            requests.pop_front();
        }
        requests.push_back(logged);
    }

    fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.0.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.0.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> jiff::Timestamp {
        let fixed = *self.0.clock.lock().unwrap_or_else(PoisonError::into_inner);
        fixed.unwrap_or_else(crate::now)
    }
}

/// Serves the EMR at `http://{address}/fhir` (loopback; port 0 for any free one).
///
/// # Errors
/// `ServeError`.
pub async fn serve(emr: &Emr, address: SocketAddr) -> Result<Server, ServeError> {
    let (listener, address) = listen::bind(address).await?;
    let base: Arc<str> = format!("http://{address}/fhir").into();
    let emr = emr.clone();
    Ok(listen::serve(listener, address, move |request| rest::answer(emr.clone(), base.clone(), request)))
}

/// The shape of a resource type's name.
fn is_type_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_alphabetic())
}

/// The shape of a FHIR `id` (R4 datatypes: 1 to 64 of letters, digits, `-`, `.`).
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}
