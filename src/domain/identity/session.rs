//! When a session is alive, and why it is over.
//!
//! Owns: the rules of automatic logoff and of the absolute limit, as one function of data and time.
//! Sources: 45 CFR 164.312(a)(2)(iii); NIST SP 800-63B-4 section 2.2.3.
//! Must never: read a clock or a store; count an activity that the caller's program declared to be its own.
//! Look next: `revocation.rs` for ends that somebody ordered; `edge::sessions`, which remembers.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::caller::Caller;
use super::token::sha256;

/// What tells sessions apart: one `sid` of two issuers, or of two subjects, is two sessions.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `sid`, else `jti`, else the token's hash.
    pub session: String,
}

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// When it was first seen here, or begun anew by a later login.
    pub began: Timestamp,
    /// `auth_time` of its newest login.
    pub authenticated_at: Timestamp,
    /// When a person last did something in it.
    pub last_active: Timestamp,
    /// The client that began it.
    pub application: Option<String>,
}

/// How long sessions last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// A session ends after this long without activity.
    pub idle: SignedDuration,
    /// A session ends this long after its login, whatever happens in it.
    pub absolute: SignedDuration,
    /// Sessions of one person at once; the oldest ends when one more begins. No bound when absent.
    pub concurrent: Option<u32>,
}

/// Why a session is over; a new login starts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnded {
    /// Quiet for longer than the idle limit (automatic logoff).
    Idle,
    /// Older than the absolute limit.
    Absolute,
    /// A newer session of the same person took its place.
    TooMany,
    /// Revoked: the token, the session, the person, the client or the issuer.
    Revoked,
    /// The token is older than what this proxy remembers: revocations of it may have been lost (T-192).
    Forgotten,
}

impl SessionKey {
    /// The caller's session.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        Self {
            issuer: caller.issuer().to_owned(),
            subject: caller.subject().to_owned(),
            session: caller.session().to_owned(),
        }
    }

    /// Its name for operators: 32 hexadecimal digits that do not tell the token's `sid`.
    #[must_use]
    pub fn id(&self) -> String {
        // Lengths first, so that no two keys read alike.
        let text = format!(
            "{}:{}:{}{}{}",
            self.issuer.len(),
            self.subject.len(),
            self.issuer,
            self.subject,
            self.session
        );
        sha256(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a store keeps when a session's caller is not known in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Beginning {
    /// It goes on as it is kept, under its newest login.
    GoesOn(Session),
    /// It begins now, for the first time or anew.
    Anew(Session),
}

impl Beginning {
    /// The rule: what is `kept` of a session goes on, unless there is nothing, or `asked` has a login later than the
    /// last activity kept. Identity providers may keep one `sid` over several logins.
    pub fn of(kept: Option<Session>, asked: Session) -> Self {
        match kept {
            Some(kept) if asked.authenticated_at <= kept.last_active => {
                let authenticated_at = kept.authenticated_at.max(asked.authenticated_at);
                Self::GoesOn(Session { authenticated_at, ..kept })
            }
            Some(_) | None => Self::Anew(asked),
        }
    }
}

/// Shows nothing with which one could take part in the session.
impl fmt::Debug for SessionKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SessionKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Whether a session is alive at `now`, given when it was last active and when its caller logged in.
///
/// `now` must not go back (see `edge::sessions`): a clock that is set back would lengthen every session (T-191).
/// A login later than the last activity begins the session anew: identity providers may keep one `sid` over
/// several logins.
///
/// # Errors
/// [`SessionEnded::Absolute`] before [`SessionEnded::Idle`].
pub fn check_session(
    last_active: Timestamp,
    authenticated_at: Timestamp,
    limits: &SessionLimits,
    now: Timestamp,
) -> Result<(), SessionEnded> {
    if now.duration_since(authenticated_at) > limits.absolute {
        return Err(SessionEnded::Absolute);
    }
    let quiet = now.duration_since(last_active);
    if quiet > limits.idle && authenticated_at <= last_active {
        return Err(SessionEnded::Idle);
    }
    Ok(())
}

impl fmt::Display for SessionEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "the session was quiet for too long",
            Self::Absolute => "the session has reached its end",
            Self::TooMany => "a newer session of the same person took this one's place",
            Self::Revoked => "the session was ended",
            Self::Forgotten => "the session is not known here any more",
        })
    }
}

impl std::error::Error for SessionEnded {}

#[cfg(test)]
mod tests {
    use super::SessionEnded::{Absolute, Idle};
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    #[test]
    fn a_session_ends_when_quiet_or_old() {
        let limits = SessionLimits {
            idle: SignedDuration::from_mins(15),
            absolute: SignedDuration::from_hours(12),
            concurrent: None,
        };
        // Minute of the last activity, of the login, of the request.
        let cases = [
            ("just in time", 0, 0, 15, Ok(())),
            ("too quiet", 0, 0, 16, Err(Idle)),
            ("a login after the last activity begins anew", 0, 20, 40, Ok(())),
            ("a login at the last activity does not", 20, 20, 40, Err(Idle)),
            ("the last minute", 715, 0, 720, Ok(())),
            ("old, however busy", 721, 0, 721, Err(Absolute)),
            ("old and quiet is old", 0, 0, 721, Err(Absolute)),
            ("the clock went back", 30, 0, 10, Ok(())),
        ];
        for (name, last, login, now, expected) in cases {
            assert_eq!(check_session(at(last), at(login), &limits, at(now)), expected, "{name}");
        }
    }

    #[test]
    fn a_later_login_begins_a_session_anew() {
        let session = |began: i64, login: i64, active: i64, application: &str| Session {
            began: at(began),
            authenticated_at: at(login),
            last_active: at(active),
            application: Some(application.to_owned()),
        };
        let asked = |login: i64| session(50, login, 50, "new");
        // Login and last activity kept, login asked with, what is kept then.
        let cases = [
            ("unknown", None, 40, Beginning::Anew(asked(40))),
            ("the same login", Some((0, 9)), 0, Beginning::GoesOn(session(1, 0, 9, "old"))),
            ("an older token of it", Some((5, 9)), 0, Beginning::GoesOn(session(1, 5, 9, "old"))),
            ("a login in the midst of it", Some((0, 9)), 8, Beginning::GoesOn(session(1, 8, 9, "old"))),
            ("a login at the last activity", Some((0, 9)), 9, Beginning::GoesOn(session(1, 9, 9, "old"))),
            ("a login after it", Some((0, 9)), 10, Beginning::Anew(asked(10))),
        ];
        for (name, kept, login, expected) in cases {
            let kept = kept.map(|(login, active)| session(1, login, active, "old"));
            assert_eq!(Beginning::of(kept, asked(login)), expected, "{name}");
        }
    }

    #[test]
    fn ids_tell_keys_apart_and_nothing_else() {
        let key = |issuer: &str, subject: &str, session: &str| SessionKey {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            session: session.to_owned(),
        };
        let one = key("https://a", "b", "sid-7");
        assert_ne!(one.id(), key("https://a", "bs", "id-7").id());
        assert_ne!(one.id(), key("https://ab", "", "sid-7").id());
        assert_eq!(one.id().len(), 32);
        assert!(!format!("{one:?}").contains("sid-7"));
    }
}
