//! Automatic logoff: how long a session has been quiet.
//!
//! Owns: the time of each session's last request, in memory and bounded.
//! Must never: decide who a caller is, or keep a session alive that has once been quiet too long.
//! Look next: `domain::identity`, which vouches for the caller; `gateway`, which asks here next.

mod row;
mod store;

pub use store::{Begun, Document, SessionStore, StoreError, StoreState};

use crate::domain::identity::Caller;
use crate::domain::identity::SessionEnded;
use crate::limits;
use jiff::{SignedDuration, Timestamp};
use moka::sync::Cache;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// How long sessions last.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A session ends after this long without a request.
    pub idle_timeout: Duration,
    /// A session ends this long after its login, whatever happens in it.
    pub absolute_timeout: Duration,
}

/// The sessions seen lately.
#[derive(Debug, Clone)]
pub struct Sessions {
    settings: Settings,
    /// Session to the second of its last request. Kept for the absolute limit: nothing older can matter.
    last_request: Cache<String, Arc<AtomicI64>>,
}

impl Sessions {
    /// Sessions under these limits; nothing is remembered from before.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let last_request = Cache::builder()
            .max_capacity(limits::SESSIONS_MAX)
            .time_to_live(settings.absolute_timeout)
            .build();
        Self { settings, last_request }
    }

    /// Notes a request of the caller's session at `now`.
    ///
    /// A login later than the last request begins the session anew: identity providers may keep one `sid`
    /// over several logins.
    ///
    /// # Errors
    /// [`SessionEnded`] when the session is over. Being refused does not count as activity.
    pub fn touch(&self, caller: &Caller, now: Timestamp) -> Result<(), SessionEnded> {
        let key = format!("{}|{}|{}", caller.issuer(), caller.subject(), caller.session());
        self.touch_session(key, caller.mfa().authenticated_at(), now)
    }

    fn touch_session(
        &self,
        key: String,
        login: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), SessionEnded> {
        let login = login.ok_or(SessionEnded::Absolute)?;
        if now.duration_since(login) > signed(self.settings.absolute_timeout) {
            return Err(SessionEnded::Absolute);
        }
        let seconds = now.as_second();
        let last = self.last_request.get_with(key, || Arc::new(AtomicI64::new(seconds)));
        let before = last.load(Ordering::Acquire);
        let quiet = SignedDuration::from_secs(seconds.saturating_sub(before));
        if quiet > signed(self.settings.idle_timeout) && login.as_second() <= before {
            return Err(SessionEnded::Idle);
        }
        last.fetch_max(seconds, Ordering::AcqRel);
        Ok(())
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    /// Steps of (minute of the request, minute of its login, what is answered).
    fn check(name: &str, steps: &[(i64, i64, Result<(), SessionEnded>)]) {
        let sessions = Sessions::new(Settings {
            idle_timeout: Duration::from_secs(15 * 60),
            absolute_timeout: Duration::from_secs(12 * 3600),
        });
        for (minute, login, expected) in steps {
            let found = sessions.touch_session("s".to_owned(), Some(at(*login)), at(*minute));
            assert_eq!(found, *expected, "{name}: minute {minute}");
        }
    }

    #[test]
    fn a_session_ends_when_quiet_or_old() {
        use SessionEnded::{Absolute, Idle};
        check("busy", &[(0, 0, Ok(())), (15, 0, Ok(())), (30, 0, Ok(()))]);
        check("quiet", &[(0, 0, Ok(())), (16, 0, Err(Idle)), (17, 0, Err(Idle))]);
        check("refusals are not activity", &[(0, 0, Ok(())), (16, 0, Err(Idle)), (20, 0, Err(Idle))]);
        check("a new login begins anew", &[(0, 0, Ok(())), (40, 0, Err(Idle)), (41, 40, Ok(()))]);
        check("old", &[(719, 0, Ok(())), (721, 0, Err(Absolute))]);
        check("the clock goes back", &[(30, 0, Ok(())), (10, 0, Ok(())), (45, 0, Ok(()))]);
    }

    #[test]
    fn no_login_time_is_no_session() {
        let sessions = Sessions::new(Settings {
            idle_timeout: Duration::from_secs(60),
            absolute_timeout: Duration::from_secs(60),
        });
        assert_eq!(sessions.touch_session("s".to_owned(), None, at(0)), Err(SessionEnded::Absolute));
    }
}
