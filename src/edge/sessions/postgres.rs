//! The store in a database: PostgreSQL, for several proxies that share sessions and revocations.
//!
//! Owns: one connection, its being made again when it broke, and the transactions.
//! Must never: speak in clear to another machine; hold an answer back longer than `STORE_ANSWER_MAX`.
//! Look next: `store`, the contract; `postgres_rows`, the tables; `sqlite`, the same in a file.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, Error, NoTls, Row, Transaction};

use super::crowd;
use super::postgres_rows::{
    SESSION, count_up, find, keep_document, keep_revocation, keep_session, prepare, raise_high_water,
    revocations, session_row,
};
use super::postgres_tls::Rustls;
use super::row::{
    DocumentRow, RevocationRow, SessionRow, document_name, once_name, person_name, session_name,
};
use super::store::{Begun, Document, SessionStore, StoreError, StoreState, check_document, micros, time};
use super::store_key::StoreKey;
use crate::domain::identity::{Beginning, Revocation, Session, SessionKey, SessionLimits};
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

/// A store in a database. Its methods block, and are called from threads of the runtime that may.
pub struct PostgresStore {
    settings: PostgresSettings,
    key: StoreKey,
    runtime: Handle,
    client: Mutex<Option<Client>>,
}

/// What is done with a connection.
type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'c>>;

/// Why a statement brought nothing.
pub(super) enum Fault {
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
    /// Connects, and makes the tables where there are none: tokens issued before `now` are not trusted then. Tables of
    /// version 1, with names in clear, are sealed.
    ///
    /// Called from a thread that may block, within `runtime`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(
        settings: PostgresSettings,
        key: &StoreKey,
        runtime: Handle,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let store = Self { settings, key: key.clone(), runtime, client: Mutex::new(None) };
        let key = key.clone();
        store.ask_within(limits::STORE_PREPARED_MAX, move |client| Box::pin(prepare(client, key, now)))?;
        Ok(store)
    }

    /// Does `work` with the connection, made anew if it is not there. A connection on which something failed is not
    /// used again: what is still under way on it is not known.
    fn ask<T>(&self, work: impl for<'c> FnOnce(&'c mut Client) -> Work<'c, T>) -> Result<T, StoreError> {
        self.ask_within(limits::STORE_ANSWER_MAX, work)
    }

    fn ask_within<T>(
        &self,
        longest: Duration,
        work: impl for<'c> FnOnce(&'c mut Client) -> Work<'c, T>,
    ) -> Result<T, StoreError> {
        let mut place = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = match place.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.runtime.block_on(connect(&self.settings))?,
        };
        let done = self.runtime.block_on(async { timeout(longest, work(&mut client)).await });
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

impl SessionStore for PostgresStore {
    fn state(&self) -> Result<StoreState, StoreError> {
        let key = self.key.clone();
        self.ask(|client| {
            Box::pin(async move {
                let query = "SELECT floor, high_water, sequence, mark FROM chartgate_state";
                let row = client.query_one(query, &[]).await?;
                // Another store may have taken this one's place.
                key.check(row.try_get(3)?)?;
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
        let beginner = Beginner {
            store_key: self.key.clone(),
            row: SessionRow::of(&self.key, key, session)?,
            key: key.clone(),
            session: session.clone(),
            limits: *limits,
        };
        self.ask(move |client| Box::pin(beginner.begin(client)))
    }

    fn find(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        let id = session_name(&self.key, &key.id());
        let found = self.ask(move |client| Box::pin(async move { find(client, &id).await }))?;
        Ok(found.map(|row| row.read(&self.key)).transpose()?.map(|(_, session)| session))
    }

    fn touch(&self, active: &[(SessionKey, Timestamp)], now: Timestamp) -> Result<(), StoreError> {
        let ids: Vec<String> = active.iter().map(|(key, _)| session_name(&self.key, &key.id())).collect();
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
        let rows: Vec<SessionRow> = self.ask(|client| {
            Box::pin(async move {
                let query = format!(
                    "SELECT {SESSION} FROM chartgate_session ORDER BY began, id LIMIT {}",
                    limits::SESSIONS_LISTED_MAX
                );
                client.query(&query, &[]).await?.iter().map(session_row).collect()
            })
        })?;
        rows.into_iter().map(|row| row.read(&self.key)).collect()
    }

    fn session_by_id(&self, id: &str) -> Result<Option<SessionKey>, StoreError> {
        let id = session_name(&self.key, id);
        let found = self.ask(move |client| Box::pin(async move { find(client, &id).await }))?;
        Ok(found.map(|row| row.read(&self.key)).transpose()?.map(|(key, _)| key))
    }

    fn revoke(&self, revocation: &Revocation) -> Result<(), StoreError> {
        let row = RevocationRow::of(&self.key, revocation)?;
        self.ask(move |client| {
            Box::pin(async move {
                let transaction = client.transaction().await?;
                keep_revocation(&transaction, &row).await?;
                count_up(&transaction).await?;
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
        let rows = self.ask(|client| Box::pin(async move { revocations(client).await }))?;
        rows.into_iter().map(|row| row.read(&self.key)).collect()
    }

    fn remember_once(&self, namespace: &str, name: &str, until: Timestamp) -> Result<bool, StoreError> {
        let (namespace, name) = (namespace.to_owned(), once_name(&self.key, namespace, name));
        self.ask(move |client| {
            Box::pin(async move {
                let statement = "INSERT INTO chartgate_once VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
                Ok(client.execute(statement, &[&namespace, &name, &micros(until)]).await? > 0)
            })
        })
    }

    fn remembers(&self, namespace: &str, name: &str) -> Result<bool, StoreError> {
        let (namespace, name) = (namespace.to_owned(), once_name(&self.key, namespace, name));
        self.ask(move |client| {
            Box::pin(async move {
                let query = "SELECT 1 FROM chartgate_once WHERE namespace = $1 AND name = $2";
                Ok(client.query_opt(query, &[&namespace, &name]).await?.is_some())
            })
        })
    }

    fn put(&self, namespace: &str, document: &Document) -> Result<(), StoreError> {
        check_document(document)?;
        let (namespace, row) = (namespace.to_owned(), DocumentRow::of(&self.key, namespace, document)?);
        self.ask(move |client| Box::pin(async move { keep_document(client, &namespace, &row).await }))
    }

    fn documents(&self, namespace: &str, now: Timestamp) -> Result<Vec<Document>, StoreError> {
        let namespace = namespace.to_owned();
        let rows = self.ask(move |client| {
            Box::pin(async move {
                let query = "SELECT name, sealed, expires_at FROM chartgate_document
                    WHERE namespace = $1 AND expires_at > $2";
                let rows = client.query(query, &[&namespace, &micros(now)]).await?;
                let read = |row: &Row| -> Result<DocumentRow, Fault> {
                    let (name, sealed) = (row.try_get(0)?, row.try_get(1)?);
                    Ok(DocumentRow { name, sealed, expires_at: row.try_get(2)? })
                };
                rows.iter().map(read).collect()
            })
        })?;
        DocumentRow::read_all(rows, &self.key)
    }

    fn remove(&self, namespace: &str, name: &str) -> Result<bool, StoreError> {
        let (namespace, name) = (namespace.to_owned(), document_name(&self.key, namespace, name));
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

/// A session that may begin, and its limits.
struct Beginner {
    store_key: StoreKey,
    row: SessionRow,
    key: SessionKey,
    session: Session,
    limits: SessionLimits,
}

impl Beginner {
    async fn begin(self, client: &mut Client) -> Result<Begun, Fault> {
        let transaction = client.transaction().await?;
        // One person's sessions begin one after the other, whichever proxy they come through.
        let person = &self.row.person;
        transaction.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &[person]).await?;
        let kept = find(&transaction, &self.row.id).await?;
        let kept = kept.map(|row| row.read(&self.store_key)).transpose()?.map(|(_, kept)| kept);
        let begun = match Beginning::of(kept, self.session.clone()) {
            Beginning::GoesOn(session) => {
                let statement = "UPDATE chartgate_session
                    SET authenticated_at = GREATEST(authenticated_at, $2) WHERE id = $1";
                let login = micros(session.authenticated_at);
                transaction.execute(statement, &[&self.row.id, &login]).await?;
                Begun { session, ended: Vec::new() }
            }
            Beginning::Anew(session) => {
                keep_session(&transaction, &self.row).await?;
                raise_high_water(&transaction, session.began).await?;
                let ended = self.make_room(&transaction).await?;
                Begun { session, ended }
            }
        };
        transaction.commit().await?;
        Ok(begun)
    }

    /// The person's sessions that end for this one.
    async fn make_room(&self, transaction: &Transaction<'_>) -> Result<Vec<Revocation>, Fault> {
        if self.limits.concurrent.is_none() {
            return Ok(Vec::new());
        }
        let query = format!("SELECT {SESSION} FROM chartgate_session WHERE person = $1 ORDER BY began, id");
        let person = person_name(&self.store_key, &self.key);
        let rows = transaction.query(&query, &[&person]).await?;
        let read = |row: &Row| -> Result<_, Fault> { Ok(session_row(row)?.read(&self.store_key)?) };
        let others: Vec<_> = rows.iter().map(read).collect::<Result<_, _>>()?;
        let revoked = revocations(transaction).await?.into_iter().map(|row| row.read(&self.store_key));
        let revoked: Vec<Revocation> = revoked.collect::<Result<_, _>>()?;
        let ended = crowd::out(&self.key, &others, &revoked, &self.limits, self.session.began);
        for revocation in &ended {
            keep_revocation(transaction, &RevocationRow::of(&self.store_key, revocation)?).await?;
            count_up(transaction).await?;
        }
        Ok(ended)
    }
}
