//! The tables in a database, and the statements over one row or all.
//!
//! Owns: the columns, their being made, and what becomes of tables with names in clear.
//! Must never: put a row anywhere but in the caller's transaction.
//! Look next: `postgres`, which asks; `row`, what the columns hold.

use jiff::Timestamp;
use tokio_postgres::{Client, GenericClient, Row, Transaction};

use super::clear::{self, Clear, ClearState, Sealed};
use super::postgres::Fault;
use super::row::{DocumentRow, OpenRevocation, RevocationRow, SessionRow};
use super::store::{StoreError, micros};
use super::store_key::StoreKey;
use crate::limits;

const VERSION: i32 = 2;
/// The tables with names in clear.
const CLEAR: i32 = 1;
/// Any number, the same in every proxy: two must not make the tables at once.
const MAKING: i64 = 0x6368_6172_7467_6174;

const TABLES: &str = "
CREATE TABLE chartgate_state (one INT PRIMARY KEY CHECK (one = 1), version INT NOT NULL, floor BIGINT,
    high_water BIGINT NOT NULL, sequence BIGINT NOT NULL, mark TEXT NOT NULL);
CREATE TABLE chartgate_session (id TEXT PRIMARY KEY, person TEXT NOT NULL, began BIGINT NOT NULL,
    authenticated_at BIGINT NOT NULL, last_active BIGINT NOT NULL, sealed BYTEA NOT NULL);
CREATE INDEX chartgate_session_person ON chartgate_session (person);
CREATE TABLE chartgate_revocation (id TEXT PRIMARY KEY, made_at BIGINT NOT NULL, expires_at BIGINT,
    sealed BYTEA NOT NULL);
CREATE TABLE chartgate_once (namespace TEXT NOT NULL, name TEXT NOT NULL, until BIGINT NOT NULL,
    PRIMARY KEY (namespace, name));
CREATE TABLE chartgate_document (namespace TEXT NOT NULL, name TEXT NOT NULL, sealed BYTEA NOT NULL,
    expires_at BIGINT NOT NULL, PRIMARY KEY (namespace, name));
";

/// The columns of a session, in the order of its row.
pub(super) const SESSION: &str = "id, person, began, authenticated_at, last_active, sealed";

/// Makes what is not there, seals what is clear, and checks that the store is one for this key.
pub(super) async fn prepare(client: &mut Client, key: StoreKey, now: Timestamp) -> Result<(), Fault> {
    let transaction = client.transaction().await?;
    let patience = format!("SET LOCAL statement_timeout TO {}", limits::STORE_PREPARED_MAX.as_millis());
    transaction.batch_execute(&patience).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKING]).await?;
    match version(&transaction).await? {
        None => {
            let nothing = Clear { state: (Some(micros(now)), micros(now), 0), ..Clear::default() };
            fill(&transaction, &key, nothing.seal(&key)?).await?;
        }
        Some(CLEAR) => {
            let sealed = read_clear(&transaction).await?.seal(&key)?;
            for table in clear::TABLES {
                transaction.batch_execute(&format!("DROP TABLE chartgate_{table}")).await?;
            }
            fill(&transaction, &key, sealed).await?;
        }
        Some(VERSION) => {}
        Some(_) => return Err(StoreError::Version.into()),
    }
    let state = transaction.query_one("SELECT mark FROM chartgate_state", &[]).await?;
    key.check(state.try_get(0)?)?;
    Ok(transaction.commit().await?)
}

async fn version(transaction: &Transaction<'_>) -> Result<Option<i32>, Fault> {
    let there = transaction.query_one("SELECT to_regclass('chartgate_state') IS NOT NULL", &[]).await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let state = transaction.query_one("SELECT version FROM chartgate_state", &[]).await?;
    Ok(Some(state.try_get(0)?))
}

/// Makes the tables, with these rows: many at a time, since each statement is a journey to the server.
async fn fill(transaction: &Transaction<'_>, key: &StoreKey, rows: Sealed) -> Result<(), Fault> {
    transaction.batch_execute(TABLES).await?;
    let (floor, high_water, sequence): ClearState = rows.state;
    let statement = "INSERT INTO chartgate_state VALUES (1, $1, $2, $3, $4, $5)";
    transaction.execute(statement, &[&VERSION, &floor, &high_water, &sequence, &key.mark()]).await?;
    let column = |of: fn(&SessionRow) -> i64| rows.sessions.iter().map(of).collect::<Vec<i64>>();
    let [began, logins, active] =
        [column(|row| row.began), column(|row| row.authenticated_at), column(|row| row.last_active)];
    let ids: Vec<&str> = rows.sessions.iter().map(|row| row.id.as_str()).collect();
    let people: Vec<&str> = rows.sessions.iter().map(|row| row.person.as_str()).collect();
    let sealed: Vec<&[u8]> = rows.sessions.iter().map(|row| row.sealed.as_slice()).collect();
    let statement = "INSERT INTO chartgate_session
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])";
    transaction.execute(statement, &[&ids, &people, &began, &logins, &active, &sealed]).await?;
    let spaces: Vec<&str> = rows.once.iter().map(|(namespace, _, _)| namespace.as_str()).collect();
    let names: Vec<&str> = rows.once.iter().map(|(_, name, _)| name.as_str()).collect();
    let until: Vec<i64> = rows.once.iter().map(|(_, _, until)| *until).collect();
    let statement = "INSERT INTO chartgate_once SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])";
    transaction.execute(statement, &[&spaces, &names, &until]).await?;
    for row in &rows.revocations {
        keep_revocation(transaction, row).await?;
    }
    for (namespace, row) in &rows.documents {
        keep_document(transaction, namespace, row).await?;
    }
    Ok(())
}

/// What tables of version 1 hold.
async fn read_clear(transaction: &Transaction<'_>) -> Result<Clear, Fault> {
    let [state, sessions, revocations, once, documents] = clear::queries("chartgate_");
    let state = transaction.query_one(&state, &[]).await?;
    let session = |row: &Row| -> Result<_, Fault> {
        let names = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
        Ok((names, row.try_get(3)?, [row.try_get(4)?, row.try_get(5)?, row.try_get(6)?]))
    };
    let revocation = |row: &Row| -> Result<_, Fault> {
        let open = OpenRevocation {
            kind: row.try_get(1)?,
            issuer: row.try_get(2)?,
            name: row.try_get(3)?,
            reach: row.try_get(4)?,
            made_at: row.try_get(5)?,
            origin: row.try_get(6)?,
            reason: row.try_get(7)?,
        };
        Ok((row.try_get(0)?, open))
    };
    let used = |row: &Row| -> Result<_, Fault> { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)) };
    let document = |row: &Row| -> Result<_, Fault> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    };
    Ok(Clear {
        state: (state.try_get(0)?, state.try_get(1)?, state.try_get(2)?),
        sessions: all(transaction, &sessions, session).await?,
        revocations: all(transaction, &revocations, revocation).await?,
        once: all(transaction, &once, used).await?,
        documents: all(transaction, &documents, document).await?,
    })
}

async fn all<T>(
    transaction: &Transaction<'_>,
    query: &str,
    read: impl Fn(&Row) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    transaction.query(query, &[]).await?.iter().map(read).collect()
}

pub(super) async fn find(client: &impl GenericClient, id: &str) -> Result<Option<SessionRow>, Fault> {
    let query = format!("SELECT {SESSION} FROM chartgate_session WHERE id = $1");
    client.query_opt(&query, &[&id]).await?.as_ref().map(session_row).transpose()
}

pub(super) fn session_row(row: &Row) -> Result<SessionRow, Fault> {
    Ok(SessionRow {
        id: row.try_get(0)?,
        person: row.try_get(1)?,
        began: row.try_get(2)?,
        authenticated_at: row.try_get(3)?,
        last_active: row.try_get(4)?,
        sealed: row.try_get(5)?,
    })
}

pub(super) async fn keep_session(transaction: &Transaction<'_>, row: &SessionRow) -> Result<(), Fault> {
    let SessionRow { id, person, began, authenticated_at, last_active, sealed } = row;
    let statement = "INSERT INTO chartgate_session VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (id) DO UPDATE SET began = $3, authenticated_at = $4, last_active = $5, sealed = $6";
    transaction.execute(statement, &[id, person, began, authenticated_at, last_active, sealed]).await?;
    Ok(())
}

pub(super) async fn keep_revocation(transaction: &Transaction<'_>, row: &RevocationRow) -> Result<(), Fault> {
    let statement = "INSERT INTO chartgate_revocation VALUES ($1, $2, $3, $4)";
    transaction.execute(statement, &[&row.id, &row.made_at, &row.expires_at, &row.sealed]).await?;
    Ok(())
}

pub(super) async fn keep_document(
    client: &impl GenericClient,
    namespace: &str,
    row: &DocumentRow,
) -> Result<(), Fault> {
    let statement = "INSERT INTO chartgate_document VALUES ($1, $2, $3, $4)
        ON CONFLICT (namespace, name) DO UPDATE SET sealed = $3, expires_at = $4";
    client.execute(statement, &[&namespace, &row.name, &row.sealed, &row.expires_at]).await?;
    Ok(())
}

pub(super) async fn revocations(client: &impl GenericClient) -> Result<Vec<RevocationRow>, Fault> {
    let query = "SELECT id, made_at, expires_at, sealed FROM chartgate_revocation ORDER BY made_at, id";
    let read = |row: &Row| -> Result<RevocationRow, Fault> {
        let (id, made_at, expires_at) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(RevocationRow { id, made_at, expires_at, sealed: row.try_get(3)? })
    };
    client.query(query, &[]).await?.iter().map(read).collect()
}

pub(super) async fn count_up(transaction: &Transaction<'_>) -> Result<(), Fault> {
    transaction.execute("UPDATE chartgate_state SET sequence = sequence + 1", &[]).await?;
    Ok(())
}

pub(super) async fn raise_high_water(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), Fault> {
    let statement = "UPDATE chartgate_state SET high_water = $1 WHERE high_water < $1";
    transaction.execute(statement, &[&micros(now)]).await?;
    Ok(())
}
