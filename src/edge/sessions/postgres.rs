//! The store in a database: PostgreSQL, for several proxies that share sessions and revocations.
//!
//! Owns: the tables and statements, one connection, and its being made again when it broke.
//! Must never: speak in clear to another machine; hold an answer back longer than `STORE_ANSWER_MAX`.
//! Look next: `store`, the contract; `sqlite`, the same in a file.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, Error, GenericClient, NoTls, Row, Transaction};

use super::crowd;
use super::postgres_tls::Rustls;
use super::row::RevocationRow;
use super::store::{Begun, Document, SessionStore, StoreError, StoreState, check_document, micros, time};
use crate::domain::identity::{Revocation, Session, SessionKey, SessionLimits};
use crate::edge::tls::{ClientFiles, client_config};
use crate::limits;

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSettings {
    /// A file with one line: `postgres://user:password@host/database`. Read again whenever a connection is made. To
    /// another machine it is always TLS; on this one with `?sslmode=require`.
    pub url_file: PathBuf,
    /// The roots to trust instead of the machine's.
    pub ca: Option<PathBuf>,
}

const VERSION: i32 = 1;
/// Any number, the same in every proxy: two must not make the tables at once.
const MAKING: i64 = 0x6368_6172_7467_6174;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS chartgate_state (one INT PRIMARY KEY CHECK (one = 1), version INT NOT NULL, floor BIGINT,
    high_water BIGINT NOT NULL, sequence BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS chartgate_session (id TEXT PRIMARY KEY, issuer TEXT NOT NULL, subject TEXT NOT NULL,
    session TEXT NOT NULL, began BIGINT NOT NULL, authenticated_at BIGINT NOT NULL, last_active BIGINT NOT NULL,
    application TEXT);
CREATE INDEX IF NOT EXISTS chartgate_session_person ON chartgate_session (issuer, subject);
CREATE TABLE IF NOT EXISTS chartgate_revocation (id TEXT PRIMARY KEY, kind TEXT NOT NULL, issuer TEXT,
    name TEXT NOT NULL, reach BIGINT, made_at BIGINT NOT NULL, origin TEXT NOT NULL, reason TEXT NOT NULL,
    expires_at BIGINT);
CREATE TABLE IF NOT EXISTS chartgate_once (namespace TEXT NOT NULL, name TEXT NOT NULL, until BIGINT NOT NULL,
    PRIMARY KEY (namespace, name));
CREATE TABLE IF NOT EXISTS chartgate_document (namespace TEXT NOT NULL, name TEXT NOT NULL, body BYTEA NOT NULL,
    expires_at BIGINT NOT NULL, PRIMARY KEY (namespace, name));
";

const SESSION: &str = "issuer, subject, session, began, authenticated_at, last_active, application";

/// A store in a database. Its methods block, and are called from threads of the runtime that may.
pub struct PostgresStore {
    settings: PostgresSettings,
    runtime: Handle,
    client: Mutex<Option<Client>>,
}

/// What is done with a connection.
type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'c>>;

/// Why a statement brought nothing.
enum Fault {
    Database(Error),
    Store(StoreError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl PostgresStore {
    /// Connects, and makes the tables where there are none: tokens issued before `now` are not trusted then.
    ///
    /// Called from a thread that may block, within `runtime`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(settings: PostgresSettings, runtime: Handle, now: Timestamp) -> Result<Self, StoreError> {
        let store = Self { settings, runtime, client: Mutex::new(None) };
        let version = store.ask(move |client| Box::pin(prepare(client, now)))?;
        if version == VERSION { Ok(store) } else { Err(StoreError::Version) }
    }

    /// Does `work` with the connection, made anew if it is not there. A connection on which something failed is not
    /// used again: what is still under way on it is not known.
    fn ask<T>(&self, work: impl for<'c> FnOnce(&'c mut Client) -> Work<'c, T>) -> Result<T, StoreError> {
        let mut place = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = match place.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.runtime.block_on(connect(&self.settings))?,
        };
        let done =
            self.runtime.block_on(async { timeout(limits::STORE_ANSWER_MAX, work(&mut client)).await });
        match done {
            Ok(Ok(done)) => {
                *place = Some(client);
                Ok(done)
            }
            Ok(Err(Fault::Store(error))) => Err(error),
            Ok(Err(Fault::Database(error))) => Err(unavailable(&error)),
            Err(_) => Err(StoreError::Unavailable("no answer in time".to_owned())),
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("url_file", &self.settings.url_file).finish_non_exhaustive()
    }
}

/// The error's kind: its text may hold what was sent.
fn unavailable(error: &Error) -> StoreError {
    let why =
        error.code().map_or("the connection failed".to_owned(), |code| format!("SQLSTATE {}", code.code()));
    StoreError::Unavailable(why)
}

async fn connect(settings: &PostgresSettings) -> Result<Client, StoreError> {
    let wrong = |why: &str| StoreError::Settings(why.to_owned());
    let text = std::fs::read_to_string(&settings.url_file).map_err(|error| {
        wrong(&format!("`{}` cannot be read: {}", settings.url_file.display(), error.kind()))
    })?;
    let mut config: Config = text.trim().parse().map_err(|_| wrong("the URL does not read"))?;
    config.application_name("chartgate").connect_timeout(limits::STORE_ANSWER_MAX);
    let connecting = async {
        if is_local(&config) && config.get_ssl_mode() != SslMode::Require {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect(NoTls).await.map_err(|error| unavailable(&error))?;
            tokio::spawn(connection);
            return Ok(client);
        }
        config.ssl_mode(SslMode::Require);
        let tls = Rustls(tls_config(settings)?);
        let (client, connection) = config.connect(tls).await.map_err(|error| unavailable(&error))?;
        tokio::spawn(connection);
        Ok(client)
    };
    let client = timeout(limits::STORE_ANSWER_MAX, connecting).await;
    let client = client.map_err(|_| StoreError::Unavailable("no answer in time".to_owned()))??;
    // What is acknowledged must outlive the server's power, whatever its own default is.
    let ours = format!(
        "SET synchronous_commit TO on; SET statement_timeout TO {}; SET lock_timeout TO {0}",
        limits::STORE_ANSWER_MAX.as_millis()
    );
    client.batch_execute(&ours).await.map_err(|error| unavailable(&error))?;
    Ok(client)
}

/// Every host is this machine, by its address, its name or a socket in its files.
fn is_local(config: &Config) -> bool {
    let addresses = config.get_hostaddrs();
    let local = |host: &Host| match host {
        Host::Tcp(name) => {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    };
    addresses.iter().all(IpAddr::is_loopback) && config.get_hosts().iter().all(local)
}

fn tls_config(settings: &PostgresSettings) -> Result<Arc<ClientConfig>, StoreError> {
    let files = ClientFiles { ca: settings.ca.clone(), own: None };
    client_config(&files).map(Arc::new).map_err(|error| StoreError::Settings(error.to_string()))
}

/// Makes what is not there; gives the version of what is.
async fn prepare(client: &mut Client, now: Timestamp) -> Result<i32, Fault> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKING]).await?;
    transaction.batch_execute(TABLES).await?;
    transaction
        .execute(
            "INSERT INTO chartgate_state VALUES (1, $1, $2, $2, 0) ON CONFLICT (one) DO NOTHING",
            &[&VERSION, &micros(now)],
        )
        .await?;
    let version = transaction.query_one("SELECT version FROM chartgate_state", &[]).await?.try_get(0)?;
    transaction.commit().await?;
    Ok(version)
}

impl SessionStore for PostgresStore {
    fn state(&self) -> Result<StoreState, StoreError> {
        self.ask(|client| {
            Box::pin(async move {
                let row =
                    client.query_one("SELECT floor, high_water, sequence FROM chartgate_state", &[]).await?;
                let floor: Option<i64> = row.try_get(0)?;
                let floor = floor.map(time).transpose()?;
                Ok(StoreState { floor, high_water: time(row.try_get(1)?)?, sequence: row.try_get(2)? })
            })
        })
    }

    fn begin(
        &self,
        key: &SessionKey,
        session: &Session,
        limits: &SessionLimits,
    ) -> Result<Begun, StoreError> {
        let (key, session, limits) = (key.clone(), session.clone(), *limits);
        self.ask(move |client| Box::pin(async move { begin(client, &key, session, &limits).await }))
    }

    fn find(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        let id = key.id();
        self.ask(move |client| Box::pin(async move { find(client, &id).await }))
    }

    fn touch(&self, active: &[(SessionKey, Timestamp)], now: Timestamp) -> Result<(), StoreError> {
        let ids: Vec<String> = active.iter().map(|(key, _)| key.id()).collect();
        let times: Vec<i64> = active.iter().map(|(_, time)| micros(*time)).collect();
        self.ask(move |client| {
            Box::pin(async move {
                let transaction = client.transaction().await?;
                let statement = "UPDATE chartgate_session s SET last_active = GREATEST(s.last_active, t.at)
                    FROM unnest($1::text[], $2::bigint[]) AS t (id, at) WHERE s.id = t.id";
                transaction.execute(statement, &[&ids, &times]).await?;
                raise_high_water(&transaction, now).await?;
                Ok(transaction.commit().await?)
            })
        })
    }

    fn sessions(&self) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        self.ask(|client| {
            Box::pin(async move {
                let query = format!(
                    "SELECT {SESSION} FROM chartgate_session ORDER BY began, id LIMIT {}",
                    limits::SESSIONS_LISTED_MAX
                );
                client.query(&query, &[]).await?.iter().map(session_of).collect()
            })
        })
    }

    fn session_by_id(&self, id: &str) -> Result<Option<SessionKey>, StoreError> {
        let id = id.to_owned();
        self.ask(move |client| {
            Box::pin(async move {
                let query = format!("SELECT {SESSION} FROM chartgate_session WHERE id = $1");
                let row = client.query_opt(&query, &[&id]).await?;
                Ok(row.as_ref().map(session_of).transpose()?.map(|(key, _)| key))
            })
        })
    }

    fn revoke(&self, revocation: &Revocation) -> Result<(), StoreError> {
        let row = RevocationRow::of(revocation);
        self.ask(move |client| {
            Box::pin(async move {
                let transaction = client.transaction().await?;
                keep(&transaction, &row).await?;
                Ok(transaction.commit().await?)
            })
        })
    }

    fn lift(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.ask(move |client| {
            Box::pin(async move {
                let transaction = client.transaction().await?;
                let statement = "DELETE FROM chartgate_revocation WHERE id = $1";
                let dropped = transaction.execute(statement, &[&id]).await?;
                count_up(&transaction).await?;
                transaction.commit().await?;
                Ok(dropped > 0)
            })
        })
    }

    fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        self.ask(|client| Box::pin(async move { revocations(client).await }))
    }

    fn remember_once(&self, namespace: &str, name: &str, until: Timestamp) -> Result<bool, StoreError> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.ask(move |client| {
            Box::pin(async move {
                let statement = "INSERT INTO chartgate_once VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
                Ok(client.execute(statement, &[&namespace, &name, &micros(until)]).await? > 0)
            })
        })
    }

    fn remembers(&self, namespace: &str, name: &str) -> Result<bool, StoreError> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.ask(move |client| {
            Box::pin(async move {
                let query = "SELECT 1 FROM chartgate_once WHERE namespace = $1 AND name = $2";
                Ok(client.query_opt(query, &[&namespace, &name]).await?.is_some())
            })
        })
    }

    fn put(&self, namespace: &str, document: &Document) -> Result<(), StoreError> {
        check_document(document)?;
        let (namespace, document) = (namespace.to_owned(), document.clone());
        self.ask(move |client| {
            Box::pin(async move {
                let statement = "INSERT INTO chartgate_document VALUES ($1, $2, $3, $4)
                    ON CONFLICT (namespace, name) DO UPDATE SET body = $3, expires_at = $4";
                let expires_at = micros(document.expires_at);
                client.execute(statement, &[&namespace, &document.name, &document.body, &expires_at]).await?;
                Ok(())
            })
        })
    }

    fn documents(&self, namespace: &str, now: Timestamp) -> Result<Vec<Document>, StoreError> {
        let namespace = namespace.to_owned();
        self.ask(move |client| {
            Box::pin(async move {
                let query = "SELECT name, body, expires_at FROM chartgate_document
                    WHERE namespace = $1 AND expires_at > $2 ORDER BY name";
                let rows = client.query(query, &[&namespace, &micros(now)]).await?;
                let read = |row: &Row| -> Result<Document, Fault> {
                    let expires_at = time(row.try_get(2)?)?;
                    Ok(Document { name: row.try_get(0)?, body: row.try_get(1)?, expires_at })
                };
                rows.iter().map(read).collect()
            })
        })
    }

    fn remove(&self, namespace: &str, name: &str) -> Result<bool, StoreError> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.ask(move |client| {
            Box::pin(async move {
                let statement = "DELETE FROM chartgate_document WHERE namespace = $1 AND name = $2";
                Ok(client.execute(statement, &[&namespace, &name]).await? > 0)
            })
        })
    }

    fn prune(&self, now: Timestamp, sessions_before: Timestamp) -> Result<(), StoreError> {
        let (now, before) = (micros(now), micros(sessions_before));
        self.ask(move |client| {
            Box::pin(async move {
                client
                    .execute("DELETE FROM chartgate_session WHERE authenticated_at < $1", &[&before])
                    .await?;
                for statement in [
                    "DELETE FROM chartgate_revocation WHERE expires_at <= $1",
                    "DELETE FROM chartgate_once WHERE until <= $1",
                    "DELETE FROM chartgate_document WHERE expires_at <= $1",
                ] {
                    client.execute(statement, &[&now]).await?;
                }
                Ok(())
            })
        })
    }
}

async fn begin(
    client: &mut Client,
    key: &SessionKey,
    session: Session,
    limits: &SessionLimits,
) -> Result<Begun, Fault> {
    let transaction = client.transaction().await?;
    // One person's sessions begin one after the other, whichever proxy they come through.
    let person = format!("{}|{}", key.issuer, key.subject);
    transaction.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &[&person]).await?;
    let id = key.id();
    let kept = find(&transaction, &id).await?;
    if let Some(mut kept) = kept.filter(|kept| session.authenticated_at <= kept.last_active) {
        kept.authenticated_at = kept.authenticated_at.max(session.authenticated_at);
        let statement =
            "UPDATE chartgate_session SET authenticated_at = GREATEST(authenticated_at, $2) WHERE id = $1";
        transaction.execute(statement, &[&id, &micros(kept.authenticated_at)]).await?;
        transaction.commit().await?;
        return Ok(Begun { session: kept, ended: Vec::new() });
    }
    let statement = "INSERT INTO chartgate_session VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (id) DO UPDATE SET began = $5, authenticated_at = $6, last_active = $7, application = $8";
    let times = [session.began, session.authenticated_at, session.last_active].map(micros);
    let [began, authenticated_at, last_active] = &times;
    transaction
        .execute(
            statement,
            &[
                &id,
                &key.issuer,
                &key.subject,
                &key.session,
                began,
                authenticated_at,
                last_active,
                &session.application,
            ],
        )
        .await?;
    raise_high_water(&transaction, session.began).await?;
    let ended = make_room(&transaction, key, &session, limits).await?;
    transaction.commit().await?;
    Ok(Begun { session, ended })
}

async fn make_room(
    transaction: &Transaction<'_>,
    key: &SessionKey,
    session: &Session,
    limits: &SessionLimits,
) -> Result<Vec<Revocation>, Fault> {
    if limits.concurrent.is_none() {
        return Ok(Vec::new());
    }
    let query = format!(
        "SELECT {SESSION} FROM chartgate_session WHERE issuer = $1 AND subject = $2 ORDER BY began, id"
    );
    let rows = transaction.query(&query, &[&key.issuer, &key.subject]).await?;
    let others: Vec<_> = rows.iter().map(session_of).collect::<Result<_, _>>()?;
    let ended = crowd::out(key, &others, &revocations(transaction).await?, limits, session.began);
    for revocation in &ended {
        keep(transaction, &RevocationRow::of(revocation)).await?;
    }
    Ok(ended)
}

async fn find(client: &impl GenericClient, id: &str) -> Result<Option<Session>, Fault> {
    let query = format!("SELECT {SESSION} FROM chartgate_session WHERE id = $1");
    let row = client.query_opt(&query, &[&id]).await?;
    Ok(row.as_ref().map(session_of).transpose()?.map(|(_, session)| session))
}

fn session_of(row: &Row) -> Result<(SessionKey, Session), Fault> {
    let key = SessionKey { issuer: row.try_get(0)?, subject: row.try_get(1)?, session: row.try_get(2)? };
    let session = Session {
        began: time(row.try_get(3)?)?,
        authenticated_at: time(row.try_get(4)?)?,
        last_active: time(row.try_get(5)?)?,
        application: row.try_get(6)?,
    };
    Ok((key, session))
}

async fn keep(transaction: &Transaction<'_>, row: &RevocationRow) -> Result<(), Fault> {
    let statement = "INSERT INTO chartgate_revocation VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    transaction
        .execute(
            statement,
            &[
                &row.id,
                &row.kind,
                &row.issuer,
                &row.name,
                &row.reach,
                &row.made_at,
                &row.origin,
                &row.reason,
                &row.expires_at,
            ],
        )
        .await?;
    count_up(transaction).await
}

async fn revocations(client: &impl GenericClient) -> Result<Vec<Revocation>, Fault> {
    let query = "SELECT id, kind, issuer, name, reach, made_at, origin, reason, expires_at
        FROM chartgate_revocation ORDER BY made_at, id";
    let read = |row: &Row| -> Result<Revocation, Fault> {
        let row = RevocationRow {
            id: row.try_get(0)?,
            kind: row.try_get(1)?,
            issuer: row.try_get(2)?,
            name: row.try_get(3)?,
            reach: row.try_get(4)?,
            made_at: row.try_get(5)?,
            origin: row.try_get(6)?,
            reason: row.try_get(7)?,
            expires_at: row.try_get(8)?,
        };
        Ok(row.read()?)
    };
    client.query(query, &[]).await?.iter().map(read).collect()
}

async fn count_up(transaction: &Transaction<'_>) -> Result<(), Fault> {
    transaction.execute("UPDATE chartgate_state SET sequence = sequence + 1", &[]).await?;
    Ok(())
}

async fn raise_high_water(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), Fault> {
    let statement = "UPDATE chartgate_state SET high_water = $1 WHERE high_water < $1";
    transaction.execute(statement, &[&micros(now)]).await?;
    Ok(())
}
