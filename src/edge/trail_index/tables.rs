//! The index's file: its tables, and what it says of the log it was made from.
//!
//! Owns: the schema and its version; opening for reading or for writing; `State`, which binds the index to a log.
//! Must never: hold a name of a patient, a person or a record in clear; be taken for evidence.
//! Look next: `shard`, which fills the tables.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::IndexError;
use crate::domain::ledger::{Frontier, Hash};
use crate::limits::STORE_BUSY_MAX;

/// Of the tables and of the terms; an index with another number is made anew.
const VERSION: i64 = 1;

/// Tells an index from another program's file, which is left alone: "cgix".
const APPLICATION: i64 = 0x6367_6978;

const TABLES: &str = "
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT NOT NULL, key BLOB NOT NULL,
    size INTEGER NOT NULL, frontier BLOB NOT NULL) STRICT;
CREATE TABLE shard (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, until INTEGER NOT NULL) STRICT;
CREATE TABLE posting (shard INTEGER NOT NULL, term INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (shard, term)) STRICT, WITHOUT ROWID;
CREATE TABLE span (first INTEGER PRIMARY KEY, until INTEGER NOT NULL, earliest INTEGER NOT NULL,
    latest INTEGER NOT NULL) STRICT;
CREATE TABLE mask (term INTEGER PRIMARY KEY, paths TEXT NOT NULL) STRICT;
CREATE TABLE person (term INTEGER PRIMARY KEY, sample INTEGER NOT NULL) STRICT;
CREATE TABLE tally (day INTEGER NOT NULL, person INTEGER NOT NULL, application TEXT NOT NULL, roles TEXT NOT NULL,
    purposes TEXT NOT NULL, decision TEXT NOT NULL, reason TEXT NOT NULL, emergency INTEGER NOT NULL,
    answers INTEGER NOT NULL, records INTEGER NOT NULL,
    PRIMARY KEY (day, person, application, roles, purposes, decision, reason, emergency)) STRICT, WITHOUT ROWID;
CREATE TABLE fault (sequence INTEGER PRIMARY KEY, place TEXT NOT NULL, what TEXT NOT NULL) STRICT;
";

/// Pages of the file held in memory, in KiB, as SQLite wants it.
const CACHE_KIB: i64 = -65_536;

/// How far an index has come, and in which log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) origin: String,
    /// Tells the key that terms were made with from others.
    pub(super) key: Vec<u8>,
    /// The tree over every entry it was made from.
    pub(super) frontier: Frontier,
}

impl State {
    /// The state of an index of nothing.
    pub(super) fn empty(origin: &str, key: &[u8]) -> Self {
        Self { origin: origin.to_owned(), key: key.to_owned(), frontier: Frontier::default() }
    }

    /// What the file says; nothing when it says nothing that can be used.
    pub(super) fn read(connection: &Connection) -> Result<Option<Self>, IndexError> {
        let query = "SELECT origin, key, size, frontier FROM state";
        let row = connection.query_row(query, [], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, Vec<u8>>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, Vec<u8>>(3)?,
            ))
        });
        let Some((origin, key, size, hashes)) = row.optional()? else { return Ok(None) };
        let subtrees: Option<Vec<Hash>> = hashes.chunks(32).map(Hash::from_slice).collect();
        let frontier = subtrees.zip(u64::try_from(size).ok());
        let frontier = frontier.and_then(|(subtrees, size)| Frontier::from_parts(size, subtrees));
        Ok(frontier.map(|frontier| Self { origin, key, frontier }))
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<(), IndexError> {
        let hashes: Vec<u8> = self.frontier.subtrees().iter().flat_map(Hash::as_bytes).copied().collect();
        let values = params![self.origin, self.key, number(self.frontier.size()), hashes];
        connection.execute("INSERT OR REPLACE INTO state VALUES (1, ?1, ?2, ?3, ?4)", values)?;
        Ok(())
    }
}

/// A sequence number as SQLite keeps it.
pub(super) fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

/// A sequence number as SQLite kept it.
pub(super) fn sequence(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Opens the file to bring it up to date; makes it where there is none. Of another version, it is emptied.
pub(super) fn open(path: &Path) -> Result<Connection, IndexError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(IndexError::File(error.kind().to_string())),
    }
    let connection = Connection::open(path)?;
    connection.busy_timeout(STORE_BUSY_MAX)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(64);
    let told = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (told("application_id")?, told("user_version")?) {
        (APPLICATION, VERSION) => {}
        (APPLICATION, _) => empty(&connection)?,
        (0, 0) if tables == 0 => empty(&connection)?,
        _ => return Err(IndexError::Foreign),
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    Ok(connection)
}

/// Drops everything and makes the tables.
pub(super) fn empty(connection: &Connection) -> Result<(), IndexError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let names: Vec<String> = {
        let mut statement = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect::<Result<_, _>>()?
    };
    for name in names {
        connection.execute_batch(&format!("DROP TABLE \"{}\"", name.replace('"', "\"\"")))?;
    }
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}
