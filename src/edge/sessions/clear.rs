//! Stores of version 1, which held names in clear: read once, to be sealed.
//!
//! Owns: the tables as they were, and what becomes of their rows.
//! Must never: be written to again; leave out a revocation, or a name that was used once.
//! Look next: `sqlite` and `postgres`, which put what is sealed in the place of what was clear.

use super::row::{DocumentRow, OpenRevocation, RevocationRow, SessionRow, once_name};
use super::store::{Document, StoreError, time};
use super::store_key::StoreKey;
use crate::domain::identity::{Revocation, Session, SessionKey};

/// Everything that was kept. Each query gives the columns of its row type, in order.
#[derive(Default)]
pub(super) struct Clear {
    pub(super) state: ClearState,
    pub(super) sessions: Vec<ClearSession>,
    pub(super) revocations: Vec<ClearRevocation>,
    pub(super) once: Vec<ClearOnce>,
    pub(super) documents: Vec<ClearDocument>,
}

/// Floor, high-water mark, sequence number.
pub(super) type ClearState = (Option<i64>, i64, i64);
/// Issuer, subject, session, application; when it began, its login, its last activity.
pub(super) type ClearSession = ([String; 3], Option<String>, [i64; 3]);
/// Id, and the rest.
pub(super) type ClearRevocation = (String, OpenRevocation);
/// Namespace, name, until when.
pub(super) type ClearOnce = (String, String, i64);
/// Namespace, name, body, when it expires.
pub(super) type ClearDocument = (String, String, Vec<u8>, i64);

/// The queries; `prefix` stands before each table's name.
pub(super) fn queries(prefix: &str) -> [String; 5] {
    [
        format!("SELECT floor, high_water, sequence FROM {prefix}state"),
        format!(
            "SELECT issuer, subject, session, application, began, authenticated_at, last_active FROM {prefix}session"
        ),
        format!("SELECT id, kind, issuer, name, reach, made_at, origin, reason FROM {prefix}revocation"),
        format!("SELECT namespace, name, until FROM {prefix}once"),
        format!("SELECT namespace, name, body, expires_at FROM {prefix}document"),
    ]
}

/// The tables, each to be dropped when it was read.
pub(super) const TABLES: [&str; 5] = ["state", "session", "revocation", "once", "document"];

/// The same, to be written.
pub(super) struct Sealed {
    pub(super) state: ClearState,
    pub(super) sessions: Vec<SessionRow>,
    pub(super) revocations: Vec<RevocationRow>,
    pub(super) once: Vec<ClearOnce>,
    pub(super) documents: Vec<(String, DocumentRow)>,
}

impl Clear {
    pub(super) fn seal(self, key: &StoreKey) -> Result<Sealed, StoreError> {
        let session = |row| session(row).and_then(|(who, session)| SessionRow::of(key, &who, &session));
        let revocation = |row| revocation(row).and_then(|revocation| RevocationRow::of(key, &revocation));
        let once = |(namespace, name, until): ClearOnce| {
            let name = once_name(key, &namespace, &name);
            (namespace, name, until)
        };
        let document = |(namespace, name, body, expires_at): ClearDocument| {
            let document = Document { name, body, expires_at: time(expires_at)? };
            DocumentRow::of(key, &namespace, &document).map(|row| (namespace, row))
        };
        Ok(Sealed {
            state: self.state,
            sessions: self.sessions.into_iter().map(session).collect::<Result<_, _>>()?,
            revocations: self.revocations.into_iter().map(revocation).collect::<Result<_, _>>()?,
            once: self.once.into_iter().map(once).collect(),
            documents: self.documents.into_iter().map(document).collect::<Result<_, StoreError>>()?,
        })
    }
}

fn session((names, application, times): ClearSession) -> Result<(SessionKey, Session), StoreError> {
    let [issuer, subject, session] = names;
    let [began, authenticated_at, last_active] = times;
    let times = Session {
        began: time(began)?,
        authenticated_at: time(authenticated_at)?,
        last_active: time(last_active)?,
        application,
    };
    Ok((SessionKey { issuer, subject, session }, times))
}

fn revocation((id, row): ClearRevocation) -> Result<Revocation, StoreError> {
    row.read(id)
}
