//! Too many sessions of one person.
//!
//! Owns: which of them end when one more begins, and the names of revocations.
//! Must never: end the newest.
//! Look next: `sqlite`, `postgres`, which ask within the transaction that begins the session.

use jiff::Timestamp;

use crate::domain::identity::{
    Reach, Revocation, RevocationOrigin, RevocationTarget, Session, SessionKey, SessionLimits, check_session,
};

/// The revocations that make room for `key`, which has just begun. `others`: the person's sessions, oldest first.
pub(super) fn out(
    key: &SessionKey,
    others: &[(SessionKey, Session)],
    revoked: &[Revocation],
    limits: &SessionLimits,
    now: Timestamp,
) -> Vec<Revocation> {
    let Some(places) = limits.concurrent else { return Vec::new() };
    let is_over = |(other, session): &(SessionKey, Session)| {
        let quiet = check_session(session.last_active, session.authenticated_at, limits, now).is_err();
        quiet || revoked.iter().any(|one| ends(one, other, session))
    };
    let alive: Vec<_> = others.iter().filter(|one| one.0 != *key && !is_over(one)).collect();
    let places = usize::try_from(places).unwrap_or(usize::MAX).saturating_sub(1);
    let surplus = alive.len().saturating_sub(places);
    let end = |(other, _): &&(SessionKey, Session)| Revocation {
        id: random_id(now),
        target: RevocationTarget::Session { issuer: other.issuer.clone(), session: other.session.clone() },
        reach: Reach::Until(now),
        made_at: now,
        origin: RevocationOrigin::Concurrency,
        reason: "a newer session began".to_owned(),
    };
    alive.iter().take(surplus).map(end).collect()
}

/// Whether a revocation ends a session, told from what is kept of both.
fn ends(revocation: &Revocation, key: &SessionKey, session: &Session) -> bool {
    let reaches = match revocation.reach {
        Reach::Until(time) => session.authenticated_at <= time,
        Reach::UntilLifted => true,
    };
    let meant = match &revocation.target {
        RevocationTarget::Token { .. } => false,
        RevocationTarget::Session { issuer, session } => *issuer == key.issuer && *session == key.session,
        RevocationTarget::User { issuer, subject } => *issuer == key.issuer && *subject == key.subject,
        RevocationTarget::Client { application } => session.application.as_ref() == Some(application),
        RevocationTarget::Issuer { issuer } => *issuer == key.issuer,
    };
    reaches && meant
}

/// Whether any of these ends the session.
pub(super) fn is_ended(revoked: &[Revocation], key: &SessionKey, session: &Session) -> bool {
    revoked.iter().any(|one| ends(one, key, session))
}

/// 128 random bits as hex; from the clock should the system have no randomness to give.
pub(super) fn random_id(now: Timestamp) -> String {
    let mut bytes = [0_u8; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes = now.as_nanosecond().to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
