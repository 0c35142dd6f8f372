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

use super::clear::{self, Clear, Sealed};
use super::crowd;
use super::row::{
    DocumentRow, OpenRevocation, RevocationRow, SessionRow, document_name, once_name, person_name,
    session_name,
};
use super::store::{Begun, Document, SessionStore, StoreError, StoreState, check_document, micros, time};
use super::store_key::StoreKey;
use crate::domain::identity::{Beginning, Revocation, Session, SessionKey, SessionLimits};
use crate::limits;

/// Of our tables; a file with another number is not opened.
const VERSION: i64 = 3;
/// The tables with names in clear.
const CLEAR: i64 = 1;
/// They were sealed, and what they were may still stand in pages that are free.
const UNSWEPT: i64 = 2;

const TABLES: &str = "
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), floor INTEGER, high_water INTEGER NOT NULL,
    sequence INTEGER NOT NULL, mark TEXT NOT NULL) STRICT;
CREATE TABLE session (id TEXT PRIMARY KEY, person TEXT NOT NULL, began INTEGER NOT NULL,
    authenticated_at INTEGER NOT NULL, last_active INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE INDEX session_person ON session (person);
CREATE TABLE revocation (id TEXT PRIMARY KEY, made_at INTEGER NOT NULL, expires_at INTEGER,
    sealed BLOB NOT NULL) STRICT;
CREATE TABLE once (namespace TEXT NOT NULL, name TEXT NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)) STRICT;
CREATE TABLE document (namespace TEXT NOT NULL, name TEXT NOT NULL, sealed BLOB NOT NULL, expires_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)) STRICT;
";

const SESSION: &str = "id, person, began, authenticated_at, last_active, sealed";

/// A store in a file.
pub struct SqliteStore {
    path: PathBuf,
    /// Device and number of the file: another one in its place would have other revocations.
    file: (u64, u64),
    key: StoreKey,
    connection: Mutex<Connection>,
}

impl SqliteStore {
    /// Makes the file, empty and without a floor: nothing was revoked before there was a trail.
    ///
    /// # Errors
    /// [`StoreError::Open`], also when there is a file already.
    pub fn create(path: &Path, key: &StoreKey) -> Result<(), StoreError> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        made.map_err(|error| open_error(path, &error.kind().to_string()))?;
        Self::prepared(path, key, None, Timestamp::UNIX_EPOCH).map(|_| ())
    }

    /// Opens the file. Where there is none it is made, and tokens issued before `now` are not trusted: what was
    /// revoked of them may have been lost. A file of version 1, with names in clear, is sealed.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Version`], [`StoreError::Key`].
    pub fn open(path: &Path, key: &StoreKey, now: Timestamp) -> Result<Self, StoreError> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(open_error(path, &error.kind().to_string())),
        }
        Self::prepared(path, key, Some(now), now)
    }

    /// An empty file becomes a store with this floor; a store stays as it is.
    fn prepared(
        path: &Path,
        key: &StoreKey,
        floor: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let wrong = |error: rusqlite::Error| open_error(path, &error.to_string());
        let mut connection = Connection::open(path).map_err(wrong)?;
        connection.busy_timeout(limits::STORE_BUSY_MAX).map_err(wrong)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(wrong)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(wrong)?;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        let is_swept = match version(&transaction).map_err(wrong)? {
            0 => {
                let nothing = Clear { state: (floor.map(micros), micros(now), 0), ..Clear::default() };
                fill(&transaction, key, nothing.seal(key)?).map_err(wrong)?;
                transaction.pragma_update(None, "user_version", VERSION).map_err(wrong)?;
                true
            }
            CLEAR => {
                let sealed = read_clear(&transaction).map_err(wrong)?.seal(key)?;
                for table in clear::TABLES {
                    transaction.execute_batch(&format!("DROP TABLE {table}")).map_err(wrong)?;
                }
                fill(&transaction, key, sealed).map_err(wrong)?;
                transaction.pragma_update(None, "user_version", UNSWEPT).map_err(wrong)?;
                false
            }
            UNSWEPT => false,
            VERSION => true,
            _ => return Err(StoreError::Version),
        };
        let mark: String =
            transaction.query_row("SELECT mark FROM state", [], |row| row.get(0)).map_err(wrong)?;
        key.check(&mark)?;
        transaction.commit().map_err(wrong)?;
        if !is_swept {
            sweep(&connection).map_err(wrong)?;
        }
        let file = identity(path).ok_or_else(|| open_error(path, "it is gone"))?;
        Ok(Self { path: path.to_owned(), file, key: key.clone(), connection: Mutex::new(connection) })
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
        let mut statement = connection
            .prepare_cached("SELECT floor, high_water, sequence, mark FROM state")
            .map_err(fault)?;
        let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let (floor, high_water, sequence, mark): (Option<i64>, i64, i64, String) =
            statement.query_row([], columns).map_err(fault)?;
        self.key.check(&mark)?;
        Ok(StoreState { floor: floor.map(time).transpose()?, high_water: time(high_water)?, sequence })
    }

    fn begin(
        &self,
        key: &SessionKey,
        session: &Session,
        limits: &SessionLimits,
    ) -> Result<Begun, StoreError> {
        let row = SessionRow::of(&self.key, key, session)?;
        self.write(|transaction| {
            let kept = find(transaction, &self.key, &row.id)?.map(|(_, kept)| kept);
            match Beginning::of(kept, session.clone()) {
                Beginning::GoesOn(session) => {
                    let statement =
                        "UPDATE session SET authenticated_at = MAX(authenticated_at, ?2) WHERE id = ?1";
                    let values = params![row.id, micros(session.authenticated_at)];
                    transaction.execute(statement, values).map_err(fault)?;
                    Ok(Begun { session, ended: Vec::new() })
                }
                Beginning::Anew(session) => {
                    keep_session(transaction, &row).map_err(fault)?;
                    raise_high_water(transaction, session.began)?;
                    let ended = make_room(transaction, &self.key, key, &session, limits)?;
                    Ok(Begun { session, ended })
                }
            }
        })
    }

    fn find(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        let id = session_name(&self.key, &key.id());
        Ok(find(&self.lock(), &self.key, &id)?.map(|(_, session)| session))
    }

    fn touch(&self, active: &[(SessionKey, Timestamp)], now: Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            let statement = "UPDATE session SET last_active = MAX(last_active, ?2) WHERE id = ?1";
            let mut statement = transaction.prepare_cached(statement).map_err(fault)?;
            for (key, time) in active {
                let id = session_name(&self.key, &key.id());
                statement.execute(params![id, micros(*time)]).map_err(fault)?;
            }
            raise_high_water(transaction, now)
        })
    }

    fn sessions(&self) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        let query =
            format!("SELECT {SESSION} FROM session ORDER BY began, id LIMIT {}", limits::SESSIONS_LISTED_MAX);
        self.rows(&query, [], session_row)?.into_iter().map(|row| row.read(&self.key)).collect()
    }

    fn session_by_id(&self, id: &str) -> Result<Option<SessionKey>, StoreError> {
        let found = find(&self.lock(), &self.key, &session_name(&self.key, id))?;
        Ok(found.map(|(key, _)| key))
    }

    fn revoke(&self, revocation: &Revocation) -> Result<(), StoreError> {
        let row = RevocationRow::of(&self.key, revocation)?;
        self.write(|transaction| {
            keep_revocation(transaction, &row).map_err(fault)?;
            count_up(transaction)
        })
    }

    fn lift(&self, id: &str) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let dropped = transaction.execute("DELETE FROM revocation WHERE id = ?1", [id]).map_err(fault)?;
            count_up(transaction)?;
            Ok(dropped > 0)
        })
    }

    fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        revocations(&self.lock(), &self.key)
    }

    fn remember_once(&self, namespace: &str, name: &str, until: Timestamp) -> Result<bool, StoreError> {
        let name = once_name(&self.key, namespace, name);
        keep_once(&self.lock(), namespace, &name, micros(until)).map_err(fault)
    }

    fn remembers(&self, namespace: &str, name: &str) -> Result<bool, StoreError> {
        let query = "SELECT 1 FROM once WHERE namespace = ?1 AND name = ?2";
        let name = once_name(&self.key, namespace, name);
        Ok(!self.rows(query, params![namespace, name], |_| Ok(()))?.is_empty())
    }

    fn put(&self, namespace: &str, document: &Document) -> Result<(), StoreError> {
        check_document(document)?;
        let row = DocumentRow::of(&self.key, namespace, document)?;
        keep_document(&self.lock(), namespace, &row).map_err(fault)
    }

    fn documents(&self, namespace: &str, now: Timestamp) -> Result<Vec<Document>, StoreError> {
        let query = "SELECT name, sealed, expires_at FROM document WHERE namespace = ?1 AND expires_at > ?2";
        let read = |row: &Row<'_>| {
            Ok(DocumentRow { name: row.get(0)?, sealed: row.get(1)?, expires_at: row.get(2)? })
        };
        DocumentRow::read_all(self.rows(query, params![namespace, micros(now)], read)?, &self.key)
    }

    fn remove(&self, namespace: &str, name: &str) -> Result<bool, StoreError> {
        let statement = "DELETE FROM document WHERE namespace = ?1 AND name = ?2";
        let name = document_name(&self.key, namespace, name);
        Ok(self.lock().execute(statement, params![namespace, name]).map_err(fault)? > 0)
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

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes the tables, with these rows.
fn fill(connection: &Connection, key: &StoreKey, rows: Sealed) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    let (floor, high_water, sequence) = rows.state;
    let state = params![floor, high_water, sequence, key.mark()];
    connection.execute("INSERT INTO state VALUES (1, ?1, ?2, ?3, ?4)", state)?;
    rows.sessions.iter().try_for_each(|row| keep_session(connection, row))?;
    rows.revocations.iter().try_for_each(|row| keep_revocation(connection, row))?;
    for (namespace, name, until) in rows.once {
        keep_once(connection, &namespace, &name, until)?;
    }
    rows.documents.iter().try_for_each(|(namespace, row)| keep_document(connection, namespace, row))
}

/// What a file of version 1 holds.
fn read_clear(connection: &Connection) -> rusqlite::Result<Clear> {
    let [state, sessions, revocations, once, documents] = clear::queries("");
    let revocation = |row: &Row<'_>| {
        let open = OpenRevocation {
            kind: row.get(1)?,
            issuer: row.get(2)?,
            name: row.get(3)?,
            reach: row.get(4)?,
            made_at: row.get(5)?,
            origin: row.get(6)?,
            reason: row.get(7)?,
        };
        Ok((row.get(0)?, open))
    };
    Ok(Clear {
        state: connection.query_row(&state, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?,
        sessions: all(connection, &sessions, |row| {
            let names = [row.get(0)?, row.get(1)?, row.get(2)?];
            Ok((names, row.get(3)?, [row.get(4)?, row.get(5)?, row.get(6)?]))
        })?,
        revocations: all(connection, &revocations, revocation)?,
        once: all(connection, &once, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?,
        documents: all(connection, &documents, |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?,
    })
}

fn all<T>(
    connection: &Connection,
    query: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(query)?.query_map([], read)?.collect()
}

/// Takes what was clear out of the file: pages that are free keep what stood in them, and so does the log of writes.
/// Should the program die here, the next opening does it again.
fn sweep(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("VACUUM")?;
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(busy, Some("another program uses it".to_owned())));
    }
    connection.pragma_update(None, "user_version", VERSION)
}

fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: row.get(0)?,
        person: row.get(1)?,
        began: row.get(2)?,
        authenticated_at: row.get(3)?,
        last_active: row.get(4)?,
        sealed: row.get(5)?,
    })
}

fn find(
    connection: &Connection,
    key: &StoreKey,
    id: &str,
) -> Result<Option<(SessionKey, Session)>, StoreError> {
    let query = format!("SELECT {SESSION} FROM session WHERE id = ?1");
    let mut statement = connection.prepare_cached(&query).map_err(fault)?;
    let found = statement.query_row([id], session_row).optional().map_err(fault)?;
    found.map(|row| row.read(key)).transpose()
}

/// The person's sessions that end for this one, which has begun.
fn make_room(
    connection: &Connection,
    key: &StoreKey,
    who: &SessionKey,
    session: &Session,
    limits: &SessionLimits,
) -> Result<Vec<Revocation>, StoreError> {
    if limits.concurrent.is_none() {
        return Ok(Vec::new());
    }
    let query = format!("SELECT {SESSION} FROM session WHERE person = ?1 ORDER BY began, id");
    let mut statement = connection.prepare_cached(&query).map_err(fault)?;
    let rows = statement.query_map([person_name(key, who)], session_row).map_err(fault)?;
    let others: Result<Vec<_>, StoreError> = rows.map(|row| row.map_err(fault)?.read(key)).collect();
    let ended = crowd::out(who, &others?, &revocations(connection, key)?, limits, session.began);
    for revocation in &ended {
        keep_revocation(connection, &RevocationRow::of(key, revocation)?).map_err(fault)?;
        count_up(connection)?;
    }
    Ok(ended)
}

fn keep_session(connection: &Connection, row: &SessionRow) -> rusqlite::Result<()> {
    let statement = "INSERT OR REPLACE INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let SessionRow { id, person, began, authenticated_at, last_active, sealed } = row;
    let values = params![id, person, began, authenticated_at, last_active, sealed];
    connection.prepare_cached(statement)?.execute(values).map(|_| ())
}

fn keep_revocation(connection: &Connection, row: &RevocationRow) -> rusqlite::Result<()> {
    let statement = "INSERT INTO revocation VALUES (?1, ?2, ?3, ?4)";
    let values = params![row.id, row.made_at, row.expires_at, row.sealed];
    connection.prepare_cached(statement)?.execute(values).map(|_| ())
}

/// False when the name was there.
fn keep_once(connection: &Connection, namespace: &str, name: &str, until: i64) -> rusqlite::Result<bool> {
    let statement = "INSERT OR IGNORE INTO once VALUES (?1, ?2, ?3)";
    connection.prepare_cached(statement)?.execute(params![namespace, name, until]).map(|new| new > 0)
}

fn keep_document(connection: &Connection, namespace: &str, row: &DocumentRow) -> rusqlite::Result<()> {
    let statement = "INSERT OR REPLACE INTO document VALUES (?1, ?2, ?3, ?4)";
    let values = params![namespace, row.name, row.sealed, row.expires_at];
    connection.prepare_cached(statement)?.execute(values).map(|_| ())
}

fn revocations(connection: &Connection, key: &StoreKey) -> Result<Vec<Revocation>, StoreError> {
    let query = "SELECT id, made_at, expires_at, sealed FROM revocation ORDER BY made_at, id";
    let mut statement = connection.prepare_cached(query).map_err(fault)?;
    let read = |row: &Row<'_>| {
        let (id, made_at, expires_at) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(RevocationRow { id, made_at, expires_at, sealed: row.get(3)? })
    };
    let rows = statement.query_map([], read).map_err(fault)?;
    rows.map(|row| row.map_err(fault)?.read(key)).collect()
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
