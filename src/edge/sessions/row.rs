//! A revocation as a row, in both stores the same.
//!
//! Owns: the columns and their meaning. Must never: read a row half.
//! Look next: `sqlite`, `postgres`.

use super::store::{StoreError, micros, time};
use crate::domain::identity::{Reach, Revocation, RevocationOrigin, RevocationTarget};

/// The columns of a revocation, in the order of the statements.
#[derive(Debug)]
pub(super) struct RevocationRow {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) issuer: Option<String>,
    pub(super) name: String,
    /// Absent: until it is lifted.
    pub(super) reach: Option<i64>,
    pub(super) made_at: i64,
    pub(super) origin: String,
    pub(super) reason: String,
    /// Absent: never.
    pub(super) expires_at: Option<i64>,
}

impl RevocationRow {
    pub(super) fn of(revocation: &Revocation) -> Self {
        let (issuer, name) = revocation.target.parts();
        Self {
            id: revocation.id.clone(),
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
            expires_at: revocation.expires_at().map(micros),
        }
    }

    pub(super) fn read(self) -> Result<Revocation, StoreError> {
        let origin = RevocationOrigin::ALL.into_iter().find(|origin| origin.code() == self.origin);
        let target = RevocationTarget::from_parts(&self.kind, self.issuer, self.name);
        Ok(Revocation {
            id: self.id,
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
