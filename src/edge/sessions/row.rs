//! Sessions, revocations and documents as rows, in both stores the same.
//!
//! Owns: what of a row is a keyed digest, what is sealed, and what stands in clear: times, by which rows are put in
//! order and cleared out, and the ids of revocations, which are random.
//! Must never: read a row half; leave in clear what tells of a person.
//! Look next: `store_key`, how; `sqlite`, `postgres`, where.

use serde::{Deserialize, Serialize};

use super::store::{Document, StoreError, micros, time};
use super::store_key::StoreKey;
use crate::domain::identity::{Reach, Revocation, RevocationOrigin, RevocationTarget, Session, SessionKey};

const SESSION: &str = "session";
const REVOCATION: &str = "revocation";
const DOCUMENT: &str = "document";

/// The columns of a session.
#[derive(Debug)]
pub(super) struct SessionRow {
    pub(super) id: String,
    /// Issuer and subject: to find the others of the same person.
    pub(super) person: String,
    pub(super) began: i64,
    pub(super) authenticated_at: i64,
    pub(super) last_active: i64,
    pub(super) sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct SealedSession {
    issuer: String,
    subject: String,
    session: String,
    application: Option<String>,
}

/// The digest for a session's id, which operators see and which tells nothing of the person.
pub(super) fn session_name(key: &StoreKey, id: &str) -> String {
    key.name(SESSION, &[id])
}

/// The digest for the person whose session it is.
pub(super) fn person_name(key: &StoreKey, session: &SessionKey) -> String {
    key.name("person", &[&session.issuer, &session.subject])
}

/// The digest for a name that may be used once.
pub(super) fn once_name(key: &StoreKey, namespace: &str, name: &str) -> String {
    key.name("once", &[namespace, name])
}

/// The digest for a document's name.
pub(super) fn document_name(key: &StoreKey, namespace: &str, name: &str) -> String {
    key.name(DOCUMENT, &[namespace, name])
}

impl SessionRow {
    pub(super) fn of(key: &StoreKey, who: &SessionKey, session: &Session) -> Result<Self, StoreError> {
        let id = session_name(key, &who.id());
        let text = written(&SealedSession {
            issuer: who.issuer.clone(),
            subject: who.subject.clone(),
            session: who.session.clone(),
            application: session.application.clone(),
        })?;
        Ok(Self {
            person: person_name(key, who),
            began: micros(session.began),
            authenticated_at: micros(session.authenticated_at),
            last_active: micros(session.last_active),
            sealed: key.seal(SESSION, &id, &text)?,
            id,
        })
    }

    pub(super) fn read(self, key: &StoreKey) -> Result<(SessionKey, Session), StoreError> {
        let opened: SealedSession = read(&key.open(SESSION, &self.id, self.sealed)?)?;
        let session = Session {
            began: time(self.began)?,
            authenticated_at: time(self.authenticated_at)?,
            last_active: time(self.last_active)?,
            application: opened.application,
        };
        let SealedSession { issuer, subject, session: name, .. } = opened;
        Ok((SessionKey { issuer, subject, session: name }, session))
    }
}

/// The columns of a revocation.
#[derive(Debug)]
pub(super) struct RevocationRow {
    pub(super) id: String,
    pub(super) made_at: i64,
    /// Absent: never.
    pub(super) expires_at: Option<i64>,
    pub(super) sealed: Vec<u8>,
}

/// A revocation's names and numbers. Version 1 of the stores had these as columns.
#[derive(Serialize, Deserialize)]
pub(super) struct OpenRevocation {
    pub(super) kind: String,
    pub(super) issuer: Option<String>,
    pub(super) name: String,
    /// Absent: until it is lifted.
    pub(super) reach: Option<i64>,
    pub(super) made_at: i64,
    pub(super) origin: String,
    pub(super) reason: String,
}

impl OpenRevocation {
    fn of(revocation: &Revocation) -> Self {
        let (issuer, name) = revocation.target.parts();
        Self {
            kind: revocation.target.kind().to_owned(),
            issuer: issuer.map(str::to_owned),
            name: name.to_owned(),
            reach: match revocation.reach {
                Reach::Until(time) => Some(micros(time)),
                Reach::UntilLifted => None,
            },
            made_at: micros(revocation.made_at),
            origin: revocation.origin.code().to_owned(),
            reason: revocation.reason.clone(),
        }
    }

    pub(super) fn read(self, id: String) -> Result<Revocation, StoreError> {
        let origin = RevocationOrigin::ALL.into_iter().find(|origin| origin.code() == self.origin);
        let target = RevocationTarget::from_parts(&self.kind, self.issuer, self.name);
        Ok(Revocation {
            id,
            target: target.ok_or(StoreError::Unsound)?,
            reach: match self.reach {
                Some(until) => Reach::Until(time(until)?),
                None => Reach::UntilLifted,
            },
            made_at: time(self.made_at)?,
            origin: origin.ok_or(StoreError::Unsound)?,
            reason: self.reason,
        })
    }
}

impl RevocationRow {
    pub(super) fn of(key: &StoreKey, revocation: &Revocation) -> Result<Self, StoreError> {
        let text = written(&OpenRevocation::of(revocation))?;
        Ok(Self {
            id: revocation.id.clone(),
            made_at: micros(revocation.made_at),
            expires_at: revocation.expires_at().map(micros),
            sealed: key.seal(REVOCATION, &revocation.id, &text)?,
        })
    }

    pub(super) fn read(self, key: &StoreKey) -> Result<Revocation, StoreError> {
        let opened: OpenRevocation = read(&key.open(REVOCATION, &self.id, self.sealed)?)?;
        opened.read(self.id)
    }
}

/// The columns of a document, beside its namespace.
#[derive(Debug)]
pub(super) struct DocumentRow {
    pub(super) name: String,
    pub(super) sealed: Vec<u8>,
    pub(super) expires_at: i64,
}

impl DocumentRow {
    pub(super) fn of(key: &StoreKey, namespace: &str, document: &Document) -> Result<Self, StoreError> {
        let name = document_name(key, namespace, &document.name);
        let length = u32::try_from(document.name.len()).map_err(|_| StoreError::TooLarge)?;
        let text = [&length.to_be_bytes(), document.name.as_bytes(), &document.body].concat();
        let sealed = key.seal(DOCUMENT, &name, &text)?;
        Ok(Self { name, sealed, expires_at: micros(document.expires_at) })
    }

    fn read(self, key: &StoreKey) -> Result<Document, StoreError> {
        let opened = key.open(DOCUMENT, &self.name, self.sealed)?;
        let parts = || {
            let (length, rest) = opened.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (name, body) = rest.split_at_checked(length)?;
            Some((std::str::from_utf8(name).ok()?.to_owned(), body.to_vec()))
        };
        let (name, body) = parts().ok_or(StoreError::Unsound)?;
        Ok(Document { name, body, expires_at: time(self.expires_at)? })
    }

    /// Documents, by name: their digests have another order.
    pub(super) fn read_all(rows: Vec<Self>, key: &StoreKey) -> Result<Vec<Document>, StoreError> {
        let all: Result<Vec<Document>, StoreError> = rows.into_iter().map(|row| row.read(key)).collect();
        let mut all = all?;
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }
}

fn written(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|_| StoreError::Unsound)
}

fn read<'d, T: Deserialize<'d>>(text: &'d [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(text).map_err(|_| StoreError::Unsound)
}
