//! What remembers sessions and revocations over restarts and between proxies.
//!
//! Owns: the contract of a store. Every method blocks: it is called from threads that may. What it answers is
//! committed: a method that changes something returns when the change would survive a power cut.
//! Must never: decide whether a session is alive, or answer from anything but what is committed.
//! Look next: `sqlite` and `postgres`, the two stores there are.

use std::fmt;

use jiff::Timestamp;

use crate::domain::identity::{Revocation, Session, SessionKey, SessionLimits};

/// A store that several threads use at once, and several programs.
pub trait SessionStore: Send + Sync {
    /// What the store knows about itself.
    ///
    /// # Errors
    /// [`StoreError`], as for every method.
    fn state(&self) -> Result<StoreState, StoreError>;

    /// The session as it is kept; `session` is kept first if there is none, or begins it anew if its login is later
    /// than the last activity kept. With `limits.concurrent`, the person's oldest sessions that are still alive are
    /// revoked until no more than so many are left; those revocations are given back.
    ///
    /// # Errors
    /// [`StoreError`].
    fn begin(&self, key: &SessionKey, session: &Session, limits: &SessionLimits)
    -> Result<Begun, StoreError>;

    /// The session as it is kept now, by whichever proxy.
    ///
    /// # Errors
    /// [`StoreError`].
    fn find(&self, key: &SessionKey) -> Result<Option<Session>, StoreError>;

    /// Notes when sessions were last active, never earlier than what is kept, and moves the high-water mark of time
    /// up to `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn touch(&self, active: &[(SessionKey, Timestamp)], now: Timestamp) -> Result<(), StoreError>;

    /// All sessions kept, in the order in which they began; at most `limits::SESSIONS_LISTED_MAX`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn sessions(&self) -> Result<Vec<(SessionKey, Session)>, StoreError>;

    /// The session with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    fn session_by_id(&self, id: &str) -> Result<Option<SessionKey>, StoreError>;

    /// Keeps a revocation. Its id is new.
    ///
    /// # Errors
    /// [`StoreError`].
    fn revoke(&self, revocation: &Revocation) -> Result<(), StoreError>;

    /// Drops a revocation; false when there is none with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    fn lift(&self, id: &str) -> Result<bool, StoreError>;

    /// All revocations kept.
    ///
    /// # Errors
    /// [`StoreError`].
    fn revocations(&self) -> Result<Vec<Revocation>, StoreError>;

    /// True the first time a name is given within a namespace, false from then on until `until` has passed.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remember_once(&self, namespace: &str, name: &str, until: Timestamp) -> Result<bool, StoreError>;

    /// Whether [`SessionStore::remember_once`] was given this name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remembers(&self, namespace: &str, name: &str) -> Result<bool, StoreError>;

    /// Keeps a document, in the place of one with the same namespace and name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put(&self, namespace: &str, document: &Document) -> Result<(), StoreError>;

    /// The documents of a namespace that have not expired at `now`, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn documents(&self, namespace: &str, now: Timestamp) -> Result<Vec<Document>, StoreError>;

    /// One of them.
    ///
    /// # Errors
    /// [`StoreError`].
    fn document(&self, namespace: &str, name: &str, now: Timestamp) -> Result<Option<Document>, StoreError> {
        Ok(self.documents(namespace, now)?.into_iter().find(|document| document.name == name))
    }

    /// Drops a document; false when there was none.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remove(&self, namespace: &str, name: &str) -> Result<bool, StoreError>;

    /// Drops what cannot matter any more at `now`: sessions whose login is older than `sessions_before`, and all
    /// else whose time has passed.
    ///
    /// # Errors
    /// [`StoreError`].
    fn prune(&self, now: Timestamp, sessions_before: Timestamp) -> Result<(), StoreError>;
}

/// What a store knows about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreState {
    /// Tokens issued before this were never seen by this store: what was revoked then is not known (T-192).
    /// Nothing for a store that was made together with its trail.
    pub floor: Option<Timestamp>,
    /// The latest time any proxy has kept here (T-191).
    pub high_water: Timestamp,
    /// Grows with every revocation that is kept or dropped.
    pub sequence: i64,
}

/// What became of a request's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// As it is kept now.
    pub session: Session,
    /// What was revoked to make room for it.
    pub ended: Vec<Revocation>,
}

/// A small named record with an end. Its name and bytes are the business of whoever keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// Unique within its namespace; at most `limits::STORE_DOCUMENT_NAME_BYTES_MAX`.
    pub name: String,
    /// At most `limits::STORE_DOCUMENT_BYTES_MAX`.
    pub body: Vec<u8>,
    /// From then on it is not there.
    pub expires_at: Timestamp,
}

/// Shows no content.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Why the store did not answer. Nothing may be let in on such an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The file cannot be opened or made; the path and why.
    Open(String),
    /// It holds tables of another version.
    Version,
    /// It was made with another key: whatever were looked up in it, nothing would be found.
    Key,
    /// The URL or the certificates of the database are not usable; why.
    Settings(String),
    /// The store does not answer now; a word about why.
    Unavailable(String),
    /// What it holds does not read as what was kept.
    Unsound,
    /// A document that is larger than it may be.
    TooLarge,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(why) => write!(f, "the session store cannot be opened: {why}"),
            Self::Version => f.write_str("the session store was made by another version"),
            Self::Key => f.write_str(
                "the session store was made with another key: all that share it name the same `session.key`",
            ),
            Self::Settings(why) => write!(f, "the session store's settings are not usable: {why}"),
            Self::Unavailable(why) => write!(f, "the session store does not answer: {why}"),
            Self::Unsound => f.write_str("the session store holds what does not read"),
            Self::TooLarge => f.write_str("the document is too large for the session store"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Microseconds since 1970, as both stores keep times.
pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// The time of these microseconds. The last time there is has nanoseconds that no store keeps.
pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    if micros >= Timestamp::MAX.as_microsecond() {
        return Ok(Timestamp::MAX);
    }
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Unsound)
}

/// Checks that a document is within its bounds.
pub(super) fn check_document(document: &Document) -> Result<(), StoreError> {
    let fits = document.name.len() <= crate::limits::STORE_DOCUMENT_NAME_BYTES_MAX
        && document.body.len() <= crate::limits::STORE_DOCUMENT_BYTES_MAX;
    if fits { Ok(()) } else { Err(StoreError::TooLarge) }
}
