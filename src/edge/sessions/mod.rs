//! Sessions: who may go on, who was quiet for too long, who was revoked; over restarts, and with other proxies.
//!
//! Owns: the copy in memory that requests are checked against, how it follows the store, and the latest time seen.
//! Must never: let a request in while nobody can say what was revoked; keep a session alive by a clock that was set
//! back, by a restart, or by a refusal.
//! Look next: `domain::identity::session`, the rules; `store`, what remembers; `watch`, what runs beside the requests.

mod clear;
mod crowd;
mod live;
mod orders;
mod postgres;
mod postgres_rows;
mod postgres_tls;
mod record;
mod row;
mod sqlite;
mod store;
mod store_key;
#[cfg(test)]
mod tests;
mod watch;

pub use orders::{Order, SessionView};
pub use postgres::{PostgresSettings, PostgresStore};
pub use record::{lifted as record_lifted, revoked as record_revoked};
pub use sqlite::SqliteStore;
pub use store::{Begun, Document, SessionStore, StoreError, StoreState};
pub use store_key::StoreKey;
pub use watch::Change;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use moka::sync::Cache;
use tokio::sync::mpsc;

use crate::domain::identity::{
    Caller, RevocationIndex, Session, SessionEnded, SessionKey, SessionLimits, check_session,
};
use crate::limits;
use live::Live;

/// Declared by a program that asks of its own accord.
const BACKGROUND: HeaderName = HeaderName::from_static("x-chartgate-background");
/// Declared by a program whose user did something.
const ACTIVITY: HeaderName = HeaderName::from_static("x-chartgate-activity");

/// Which requests count as a person's activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivityRule {
    /// All but those with `X-Chartgate-Background: true`.
    All,
    /// Only those with `X-Chartgate-Activity: user`.
    Marked,
}

/// How sessions are kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long they last.
    pub limits: SessionLimits,
    /// What keeps them alive.
    pub activity: ActivityRule,
}

/// Why a caller may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionRefusal {
    /// The session is over.
    Ended(SessionEnded),
    /// The store does not answer: whether the session is over cannot be told.
    Unavailable,
}

/// The sessions of this proxy. Cloning shares them.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

struct Shared {
    settings: Settings,
    store: Arc<dyn SessionStore>,
    floor: Option<Timestamp>,
    /// Sessions seen lately. Whatever is dropped here is found again in the store.
    known: Cache<SessionKey, Arc<Live>>,
    /// Those whose last activity is not written down yet.
    unwritten: Mutex<HashMap<SessionKey, Arc<Live>>>,
    revoked: RwLock<Arc<RevocationIndex>>,
    /// Held while what is revoked is read and put in force, so that an older reading never follows a newer one.
    reading: Mutex<i64>,
    /// Ids of revocations that this process makes or lifts, and records itself.
    own: Mutex<HashSet<String>>,
    /// Grows when what is revoked changes, and when nobody can say any more.
    epoch: AtomicU64,
    /// The latest time seen, in microseconds.
    high_water: AtomicI64,
    /// When the store last answered.
    heard: Mutex<Instant>,
    silent: AtomicBool,
    /// Who is told of what others change.
    changes: Mutex<Option<mpsc::UnboundedSender<Change>>>,
}

/// A caller who was let in, for as long as an answer is on its way.
#[derive(Clone)]
pub struct Standing {
    sessions: Sessions,
    caller: Arc<Caller>,
    epoch: u64,
}

impl Sessions {
    /// Sessions over this store. Reads what is revoked; blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(settings: Settings, store: Arc<dyn SessionStore>) -> Result<Self, StoreError> {
        let state = store.state()?;
        let absolute = Duration::try_from(settings.limits.absolute).unwrap_or(limits::SESSION_ABSOLUTE_MAX);
        let known = Cache::builder().max_capacity(limits::SESSIONS_MAX).time_to_live(absolute).build();
        let sessions = Self(Arc::new(Shared {
            settings,
            store,
            floor: state.floor,
            known,
            unwritten: Mutex::default(),
            revoked: RwLock::default(),
            reading: Mutex::new(-1),
            own: Mutex::default(),
            epoch: AtomicU64::new(1),
            high_water: AtomicI64::new(state.high_water.as_microsecond()),
            heard: Mutex::new(Instant::now()),
            silent: AtomicBool::new(false),
            changes: Mutex::default(),
        }));
        sessions.read_revoked()?;
        Ok(sessions)
    }

    /// The store, for what else is kept there.
    #[must_use]
    pub fn store(&self) -> Arc<dyn SessionStore> {
        Arc::clone(&self.0.store)
    }

    /// Lets a caller go on with their session, or not.
    ///
    /// A session that is known is checked in memory. A new one is kept before it is let in; one that seems to have
    /// been quiet for too long is looked up first, since it may have been active through another proxy.
    ///
    /// # Errors
    /// [`SessionRefusal`]. Being refused is no activity.
    pub async fn admit(
        &self,
        caller: &Arc<Caller>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Standing, SessionRefusal> {
        let epoch = self.epoch();
        self.stands(caller)?;
        let now = self.no_earlier_than_before(now);
        let authenticated_at = caller.mfa().authenticated_at();
        let authenticated_at = authenticated_at.ok_or(SessionRefusal::Ended(SessionEnded::Absolute))?;
        let key = SessionKey::of(caller);
        let known = self.0.known.get(&key);
        let live = match known {
            Some(live) if live.authenticated_at() >= authenticated_at => live,
            older => {
                let live = self.begin(&key, caller, authenticated_at, now).await?;
                older.iter().for_each(|older| live.keep_activity(older));
                live
            }
        };
        let limits = &self.0.settings.limits;
        let mut alive = check_session(live.last_active(), authenticated_at, limits, now);
        if alive == Err(SessionEnded::Idle) && live.may_look_again(now) {
            self.look_again(&key, &live).await?;
            alive = check_session(live.last_active(), authenticated_at, limits, now);
        }
        alive.map_err(SessionRefusal::Ended)?;
        if self.counts(headers) && live.active(now) {
            locked(&self.0.unwritten).insert(key, live);
        }
        Ok(Standing { sessions: self.clone(), caller: Arc::clone(caller), epoch })
    }

    /// Whether nothing that was revoked reaches this caller.
    ///
    /// # Errors
    /// [`SessionRefusal`].
    pub fn stands(&self, caller: &Caller) -> Result<(), SessionRefusal> {
        if !self.is_heard() {
            return Err(SessionRefusal::Unavailable);
        }
        // `iat` has whole seconds.
        if self.0.floor.is_some_and(|floor| caller.issued_at().as_second() < floor.as_second()) {
            return Err(SessionRefusal::Ended(SessionEnded::Forgotten));
        }
        self.revoked().check(caller).map_err(SessionRefusal::Ended)
    }

    /// Whether the store answered lately.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        locked(&self.0.heard).elapsed() <= limits::STORE_SILENCE_MAX
    }

    /// What is revoked now.
    #[must_use]
    pub fn revoked(&self) -> Arc<RevocationIndex> {
        Arc::clone(&self.0.revoked.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// The time, or the latest seen by any proxy of this store where the clock was set back (T-191).
    fn no_earlier_than_before(&self, now: Timestamp) -> Timestamp {
        let micros = now.as_microsecond();
        let before = self.0.high_water.fetch_max(micros, Ordering::AcqRel);
        Timestamp::from_microsecond(before.max(micros)).unwrap_or(now)
    }

    fn counts(&self, headers: &HeaderMap) -> bool {
        let says = |name: &HeaderName, wanted: &str| {
            headers.get_all(name).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
        };
        match self.0.settings.activity {
            ActivityRule::All => !says(&BACKGROUND, "true"),
            ActivityRule::Marked => says(&ACTIVITY, "user") && !says(&BACKGROUND, "true"),
        }
    }

    async fn begin(
        &self,
        key: &SessionKey,
        caller: &Caller,
        authenticated_at: Timestamp,
        now: Timestamp,
    ) -> Result<Arc<Live>, SessionRefusal> {
        let application = caller.application().map(str::to_owned);
        let session = Session { began: now, authenticated_at, last_active: now, application };
        let (asked, limits) = (key.clone(), self.0.settings.limits);
        let begun = self.ask(move |store| store.begin(&asked, &session, &limits)).await?;
        if !begun.ended.is_empty() {
            // In force at once here; the others find it at their next look.
            self.follow().await?;
        }
        let live = Arc::new(Live::of(&begun.session, authenticated_at));
        self.0.known.insert(key.clone(), Arc::clone(&live));
        Ok(live)
    }

    async fn look_again(&self, key: &SessionKey, live: &Live) -> Result<(), SessionRefusal> {
        let asked = key.clone();
        if let Some(kept) = self.ask(move |store| store.find(&asked)).await? {
            live.was_active(kept.last_active);
        }
        Ok(())
    }

    async fn follow(&self) -> Result<(), SessionRefusal> {
        let sessions = self.clone();
        let read = tokio::task::spawn_blocking(move || sessions.note_changes()).await;
        read.map_err(|_| SessionRefusal::Unavailable)?.map_err(unavailable)
    }

    /// Asks the store on a thread that may wait.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn SessionStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SessionRefusal> {
        let store = self.store();
        let asked = tokio::task::spawn_blocking(move || question(&*store)).await;
        asked.map_err(|_| SessionRefusal::Unavailable)?.map_err(unavailable)
    }
}

fn unavailable(error: StoreError) -> SessionRefusal {
    tracing::error!(%error, "no session without its store");
    SessionRefusal::Unavailable
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is left half done in it by a panic: every change is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Standing {
    /// Whether the caller may no longer be told anything. Costs one load while nothing changes.
    pub fn is_over(&mut self) -> bool {
        let epoch = self.sessions.epoch();
        if epoch == self.epoch {
            return false;
        }
        let over = self.sessions.stands(&self.caller).is_err();
        if !over {
            self.epoch = epoch;
        }
        over
    }

    /// The same, with the reason.
    ///
    /// # Errors
    /// [`SessionRefusal`].
    pub fn check(&self) -> Result<(), SessionRefusal> {
        if self.sessions.epoch() == self.epoch { Ok(()) } else { self.sessions.stands(&self.caller) }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").finish_non_exhaustive()
    }
}
