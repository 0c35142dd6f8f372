//! The store in a file: SQLite, for one proxy or for several on one machine.
//!
//! Owns: the tables and statements; WAL with a sync at every commit (docs/decisions/0007-session-store.md).
//! Must never: answer from a transaction that is not committed, or go on with a file of another version.
//! Look next: `store`, the contract.

use std::fmt;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::crowd;
use super::row::RevocationRow;
use super::store::{Begun, Document, SessionStore, StoreError, StoreState, check_document, micros, time};
use crate::domain::identity::{Revocation, Session, SessionKey, SessionLimits};
use crate::limits;

/// Of our tables; a file with another number is not opened.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), floor INTEGER, high_water INTEGER NOT NULL,
    sequence INTEGER NOT NULL) STRICT;
CREATE TABLE session (id TEXT PRIMARY KEY, issuer TEXT NOT NULL, subject TEXT NOT NULL, session TEXT NOT NULL,
    began INTEGER NOT NULL, authenticated_at INTEGER NOT NULL, last_active INTEGER NOT NULL, application TEXT) STRICT;
CREATE INDEX session_person ON session (issuer, subject);
CREATE TABLE revocation (id TEXT PRIMARY KEY, kind TEXT NOT NULL, issuer TEXT, name TEXT NOT NULL, reach INTEGER,
    made_at INTEGER NOT NULL, origin TEXT NOT NULL, reason TEXT NOT NULL, expires_at INTEGER) STRICT;
CREATE TABLE once (namespace TEXT NOT NULL, name TEXT NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)) STRICT;
CREATE TABLE document (namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, expires_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)) STRICT;
";

const SESSION: &str = "issuer, subject, session, began, authenticated_at, last_active, application";

/// A store in a file.
pub struct SqliteStore {
    path: PathBuf,
    /// Device and number of the file: another one in its place would have other revocations.
    file: (u64, u64),
    connection: Mutex<Connection>,
}

impl SqliteStore {
    /// Makes the file, empty and without a floor: nothing was revoked before there was a trail.
    ///
    /// # Errors
    /// [`StoreError::Open`], also when there is a file already.
    pub fn create(path: &Path) -> Result<(), StoreError> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        made.map_err(|error| open_error(path, &error.kind().to_string()))?;
        Self::prepared(path, None, Timestamp::UNIX_EPOCH).map(|_| ())
    }

    /// Opens the file. Where there is none it is made, and tokens issued before `now` are not trusted: what was
    /// revoked of them may have been lost.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Version`].
    pub fn open(path: &Path, now: Timestamp) -> Result<Self, StoreError> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(open_error(path, &error.kind().to_string())),
        }
        Self::prepared(path, Some(now), now)
    }

    /// An empty file becomes a store with this floor; a store stays as it is.
    fn prepared(path: &Path, floor: Option<Timestamp>, now: Timestamp) -> Result<Self, StoreError> {
        let wrong = |error: rusqlite::Error| open_error(path, &error.to_string());
        let mut connection = Connection::open(path).map_err(wrong)?;
        connection.busy_timeout(limits::STORE_BUSY_MAX).map_err(wrong)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(wrong)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(wrong)?;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        let version: i64 =
            transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(wrong)?;
        match version {
            VERSION => {}
            0 => {
                transaction.execute_batch(TABLES).map_err(wrong)?;
                let state = params![floor.map(micros), micros(now)];
                transaction
                    .execute("INSERT INTO state VALUES (1, ?1, ?2, 0)", state)
                    .and_then(|_| transaction.pragma_update(None, "user_version", VERSION))
                    .map_err(wrong)?;
            }
            _ => return Err(StoreError::Version),
        }
        transaction.commit().map_err(wrong)?;
        let file = identity(path).ok_or_else(|| open_error(path, "it is gone"))?;
        Ok(Self { path: path.to_owned(), file, connection: Mutex::new(connection) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in between rolls its transaction back when it is dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` in one transaction that may write.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
        let done = work(&transaction)?;
        transaction.commit().map_err(fault)?;
        Ok(done)
    }

    /// Every row of a query.
    fn rows<T>(
        &self,
        query: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(query).map_err(fault)?;
        let rows = statement.query_map(values, read).map_err(fault)?;
        rows.collect::<Result<Vec<T>, _>>().map_err(fault)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SessionStore for SqliteStore {
    fn state(&self) -> Result<StoreState, StoreError> {
        if identity(&self.path) != Some(self.file) {
            return Err(StoreError::Unavailable("the file was removed or replaced".to_owned()));
        }
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT floor, high_water, sequence FROM state").map_err(fault)?;
        let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let (floor, high_water, sequence): (Option<i64>, i64, i64) =
            statement.query_row([], columns).map_err(fault)?;
        Ok(StoreState { floor: floor.map(time).transpose()?, high_water: time(high_water)?, sequence })
    }

    fn begin(
        &self,
        key: &SessionKey,
        session: &Session,
        limits: &SessionLimits,
    ) -> Result<Begun, StoreError> {
        self.write(|transaction| {
            let kept = find(transaction, &key.id())?;
            if let Some(mut kept) = kept.filter(|kept| session.authenticated_at <= kept.last_active) {
                kept.authenticated_at = kept.authenticated_at.max(session.authenticated_at);
                let statement =
                    "UPDATE session SET authenticated_at = MAX(authenticated_at, ?2) WHERE id = ?1";
                let values = params![key.id(), micros(kept.authenticated_at)];
                transaction.execute(statement, values).map_err(fault)?;
                return Ok(Begun { session: kept, ended: Vec::new() });
            }
            let values = params![
                key.id(),
                key.issuer,
                key.subject,
                key.session,
                micros(session.began),
                micros(session.authenticated_at),
                micros(session.last_active),
                session.application
            ];
            transaction
                .execute("INSERT OR REPLACE INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", values)
                .map_err(fault)?;
            raise_high_water(transaction, session.began)?;
            let mut ended = Vec::new();
            if limits.concurrent.is_some() {
                let others = people(transaction, key)?;
                ended = crowd::out(key, &others, &revocations(transaction)?, limits, session.began);
                for revocation in &ended {
                    keep(transaction, revocation)?;
                }
            }
            Ok(Begun { session: session.clone(), ended })
        })
    }

    fn find(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        find(&self.lock(), &key.id())
    }

    fn touch(&self, active: &[(SessionKey, Timestamp)], now: Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            let statement = "UPDATE session SET last_active = MAX(last_active, ?2) WHERE id = ?1";
            let mut statement = transaction.prepare_cached(statement).map_err(fault)?;
            for (key, time) in active {
                statement.execute(params![key.id(), micros(*time)]).map_err(fault)?;
            }
            raise_high_water(transaction, now)
        })
    }

    fn sessions(&self) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        let query =
            format!("SELECT {SESSION} FROM session ORDER BY began, id LIMIT {}", limits::SESSIONS_LISTED_MAX);
        self.rows(&query, [], columns)?.into_iter().map(SessionRow::read).collect()
    }

    fn session_by_id(&self, id: &str) -> Result<Option<SessionKey>, StoreError> {
        let query = format!("SELECT {SESSION} FROM session WHERE id = ?1");
        let found = self.rows(&query, [id], columns)?.pop();
        Ok(found.map(SessionRow::read).transpose()?.map(|(key, _)| key))
    }

    fn revoke(&self, revocation: &Revocation) -> Result<(), StoreError> {
        self.write(|transaction| keep(transaction, revocation))
    }

    fn lift(&self, id: &str) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let dropped = transaction.execute("DELETE FROM revocation WHERE id = ?1", [id]).map_err(fault)?;
            count_up(transaction)?;
            Ok(dropped > 0)
        })
    }

    fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        revocations(&self.lock())
    }

    fn remember_once(&self, namespace: &str, name: &str, until: Timestamp) -> Result<bool, StoreError> {
        let statement = "INSERT OR IGNORE INTO once VALUES (?1, ?2, ?3)";
        let connection = self.lock();
        let new = connection.execute(statement, params![namespace, name, micros(until)]).map_err(fault)?;
        Ok(new > 0)
    }

    fn remembers(&self, namespace: &str, name: &str) -> Result<bool, StoreError> {
        let query = "SELECT 1 FROM once WHERE namespace = ?1 AND name = ?2";
        Ok(!self.rows(query, [namespace, name], |_| Ok(()))?.is_empty())
    }

    fn put(&self, namespace: &str, document: &Document) -> Result<(), StoreError> {
        check_document(document)?;
        let values = params![namespace, document.name, document.body, micros(document.expires_at)];
        let statement = "INSERT OR REPLACE INTO document VALUES (?1, ?2, ?3, ?4)";
        self.lock().execute(statement, values).map_err(fault).map(|_| ())
    }

    fn documents(&self, namespace: &str, now: Timestamp) -> Result<Vec<Document>, StoreError> {
        let query = "SELECT name, body, expires_at FROM document WHERE namespace = ?1 AND expires_at > ?2 ORDER BY name";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let rows: Vec<(String, Vec<u8>, i64)> = self.rows(query, params![namespace, micros(now)], read)?;
        rows.into_iter()
            .map(|(name, body, expires_at)| Ok(Document { name, body, expires_at: time(expires_at)? }))
            .collect()
    }

    fn remove(&self, namespace: &str, name: &str) -> Result<bool, StoreError> {
        let statement = "DELETE FROM document WHERE namespace = ?1 AND name = ?2";
        Ok(self.lock().execute(statement, [namespace, name]).map_err(fault)? > 0)
    }

    fn prune(&self, now: Timestamp, sessions_before: Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            let before = micros(sessions_before);
            transaction
                .execute("DELETE FROM session WHERE authenticated_at < ?1", [before])
                .map_err(fault)?;
            for statement in [
                "DELETE FROM revocation WHERE expires_at <= ?1",
                "DELETE FROM once WHERE until <= ?1",
                "DELETE FROM document WHERE expires_at <= ?1",
            ] {
                transaction.execute(statement, [micros(now)]).map_err(fault)?;
            }
            Ok(())
        })
    }
}

struct SessionRow {
    key: SessionKey,
    times: [i64; 3],
    application: Option<String>,
}

fn columns(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        key: SessionKey { issuer: row.get(0)?, subject: row.get(1)?, session: row.get(2)? },
        times: [row.get(3)?, row.get(4)?, row.get(5)?],
        application: row.get(6)?,
    })
}

impl SessionRow {
    fn read(self) -> Result<(SessionKey, Session), StoreError> {
        let [began, authenticated_at, last_active] = self.times;
        let session = Session {
            began: time(began)?,
            authenticated_at: time(authenticated_at)?,
            last_active: time(last_active)?,
            application: self.application,
        };
        Ok((self.key, session))
    }
}

fn find(connection: &Connection, id: &str) -> Result<Option<Session>, StoreError> {
    let query = format!("SELECT {SESSION} FROM session WHERE id = ?1");
    let mut statement = connection.prepare_cached(&query).map_err(fault)?;
    let found = statement.query_row([id], columns).optional().map_err(fault)?;
    Ok(found.map(SessionRow::read).transpose()?.map(|(_, session)| session))
}

/// The person's sessions.
fn people(connection: &Connection, key: &SessionKey) -> Result<Vec<(SessionKey, Session)>, StoreError> {
    let query =
        format!("SELECT {SESSION} FROM session WHERE issuer = ?1 AND subject = ?2 ORDER BY began, id");
    let mut statement = connection.prepare_cached(&query).map_err(fault)?;
    let rows = statement.query_map([&key.issuer, &key.subject], columns).map_err(fault)?;
    rows.map(|row| row.map_err(fault)?.read()).collect()
}

fn keep(connection: &Connection, revocation: &Revocation) -> Result<(), StoreError> {
    let row = RevocationRow::of(revocation);
    let values = params![
        row.id,
        row.kind,
        row.issuer,
        row.name,
        row.reach,
        row.made_at,
        row.origin,
        row.reason,
        row.expires_at
    ];
    connection
        .execute("INSERT INTO revocation VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)", values)
        .map_err(fault)?;
    count_up(connection)
}

fn revocations(connection: &Connection) -> Result<Vec<Revocation>, StoreError> {
    let query = "SELECT id, kind, issuer, name, reach, made_at, origin, reason, expires_at FROM revocation
        ORDER BY made_at, id";
    let mut statement = connection.prepare_cached(query).map_err(fault)?;
    let read = |row: &Row<'_>| {
        Ok(RevocationRow {
            id: row.get(0)?,
            kind: row.get(1)?,
            issuer: row.get(2)?,
            name: row.get(3)?,
            reach: row.get(4)?,
            made_at: row.get(5)?,
            origin: row.get(6)?,
            reason: row.get(7)?,
            expires_at: row.get(8)?,
        })
    };
    let rows = statement.query_map([], read).map_err(fault)?;
    rows.map(|row| row.map_err(fault)?.read()).collect()
}

fn count_up(connection: &Connection) -> Result<(), StoreError> {
    connection.execute("UPDATE state SET sequence = sequence + 1", []).map_err(fault).map(|_| ())
}

fn raise_high_water(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let statement = "UPDATE state SET high_water = MAX(high_water, ?1)";
    connection.execute(statement, [micros(now)]).map_err(fault).map(|_| ())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn open_error(path: &Path, why: &str) -> StoreError {
    StoreError::Open(format!("`{}`: {why}", path.display()))
}

fn fault(error: rusqlite::Error) -> StoreError {
    // The library's text names tables and never values.
    match error {
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
            StoreError::Unsound
        }
        other => StoreError::Unavailable(
            other
                .sqlite_error_code()
                .map_or_else(|| "the file cannot be used".to_owned(), |code| format!("{code:?}")),
        ),
    }
}
