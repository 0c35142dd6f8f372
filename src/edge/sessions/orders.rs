//! What operators and issuers order: list, revoke, lift.
//!
//! Owns: turning an order into a revocation that is durable and in force when it is answered.
//! Must never: answer an order that would not survive a power cut.
//! Look next: `operations` and `gateway::events`, which record it before they answer.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::store::{SessionStore, StoreError};
use super::{Sessions, crowd, locked};
use crate::domain::identity::{
    Reach, Revocation, RevocationOrigin, RevocationTarget, Session, SessionKey, SessionLimits, check_session,
};
use crate::limits;

/// What to revoke, and why.
#[derive(Clone, Debug)]
pub struct Order {
    /// What.
    pub target: RevocationTarget,
    /// How far.
    pub reach: Reach,
    /// Since when.
    pub made_at: Timestamp,
    /// Who says so.
    pub origin: RevocationOrigin,
    /// Why.
    pub reason: String,
}

/// A session as operators see it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Not the token's `sid`.
    pub id: String,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// The client that began it.
    pub application: Option<String>,
    /// When it was first seen.
    pub began: Timestamp,
    /// When somebody last did something in it.
    pub last_active: Timestamp,
    /// `auth_time`.
    pub authenticated_at: Timestamp,
}

impl Order {
    /// An operator's order at `now`. Sessions and persons are revoked as they are now; a later login is not
    /// touched, unless the order holds `until_lifted`. Clients, issuers and tokens are always revoked until then.
    #[must_use]
    pub fn of_operator(
        target: RevocationTarget,
        until_lifted: bool,
        origin: RevocationOrigin,
        reason: String,
        now: Timestamp,
    ) -> Self {
        let for_good = match target {
            RevocationTarget::Session { .. } | RevocationTarget::User { .. } => until_lifted,
            RevocationTarget::Token { .. }
            | RevocationTarget::Client { .. }
            | RevocationTarget::Issuer { .. } => true,
        };
        // The issuer's clock, which tells when somebody logged in, may be this much ahead of ours.
        let leeway = SignedDuration::from_secs(limits::TOKEN_LEEWAY_SECONDS);
        let until = now.checked_add(leeway).unwrap_or(now);
        let reach = if for_good { Reach::UntilLifted } else { Reach::Until(until) };
        Self { target, reach, made_at: now, origin, reason }
    }

    /// The revocation it becomes.
    #[must_use]
    pub fn revocation(self, now: Timestamp) -> Revocation {
        let Self { target, reach, made_at, origin, reason } = self;
        Revocation { id: crowd::random_id(now), target, reach, made_at, origin, reason }
    }
}

impl SessionView {
    fn of(key: &SessionKey, session: &Session) -> Self {
        Self {
            id: key.id(),
            issuer: key.issuer.clone(),
            subject: key.subject.clone(),
            application: session.application.clone(),
            began: session.began,
            last_active: session.last_active,
            authenticated_at: session.authenticated_at,
        }
    }

    /// The sessions of a store that are alive at `now`, oldest first. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alive(
        store: &dyn SessionStore,
        limits: &SessionLimits,
        now: Timestamp,
    ) -> Result<Vec<Self>, StoreError> {
        Ok(alive(store, limits, now)?.iter().map(|(key, session)| Self::of(key, session)).collect())
    }
}

fn alive(
    store: &dyn SessionStore,
    limits: &SessionLimits,
    now: Timestamp,
) -> Result<Vec<(SessionKey, Session)>, StoreError> {
    let revoked = store.revocations()?;
    let now = now.max(store.state()?.high_water);
    let mut all = store.sessions()?;
    all.retain(|(key, session)| {
        check_session(session.last_active, session.authenticated_at, limits, now).is_ok()
            && !crowd::is_ended(&revoked, key, session)
    });
    Ok(all)
}

/// Shows no person.
impl std::fmt::Debug for SessionView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionView").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Sessions {
    /// The sessions that are alive, oldest first. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn list(&self, now: Timestamp) -> Result<Vec<SessionView>, StoreError> {
        let mut all = alive(&*self.0.store, &self.0.settings.limits, now)?;
        for (key, session) in &mut all {
            let live = self.0.known.get(key).map_or(session.last_active, |live| live.last_active());
            session.last_active = session.last_active.max(live);
        }
        Ok(all.iter().map(|(key, session)| SessionView::of(key, session)).collect())
    }

    /// Revokes: durable and in force here when this returns, in force elsewhere within a second. Blocks. The caller
    /// records it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revoke(&self, order: Order, now: Timestamp) -> Result<Revocation, StoreError> {
        let revocation = order.revocation(now);
        locked(&self.0.own).insert(revocation.id.clone());
        self.0.store.revoke(&revocation)?;
        self.note_changes()?;
        Ok(revocation)
    }

    /// Lifts a revocation: as [`Sessions::revoke`]. False when there is none with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lift(&self, id: &str) -> Result<bool, StoreError> {
        locked(&self.0.own).insert(id.to_owned());
        let lifted = self.0.store.lift(id)?;
        self.note_changes()?;
        Ok(lifted)
    }
}
