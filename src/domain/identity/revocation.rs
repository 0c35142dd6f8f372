//! What has been revoked, and whether a caller is among it.
//!
//! Owns: the five things that can be revoked, how far each reaches, and the index that is asked for every request.
//! Must never: forget a revocation that could still matter, or reach a person who logged in after its time unless it
//! holds until it is lifted.
//! Look next: `edge::sessions`, which keeps them durably; `event.rs`, where issuers order them.

use std::collections::HashMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::caller::Caller;
use super::session::SessionEnded;
use crate::limits;

/// What is revoked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum RevocationTarget {
    /// One token, by `jti` or by its SHA-256 in hexadecimal.
    Token {
        /// The issuer whose `jti` it is, where that is known.
        issuer: Option<String>,
        /// `jti`, or 64 hexadecimal digits.
        token: String,
    },
    /// One session.
    Session {
        /// `iss`.
        issuer: String,
        /// `sid`, else `jti`, else the token's hash.
        session: String,
    },
    /// Everything of one person.
    User {
        /// `iss`.
        issuer: String,
        /// `sub`.
        subject: String,
    },
    /// Everything through one client, of whatever issuer.
    Client {
        /// `azp` or `client_id`.
        application: String,
    },
    /// Everything an issuer vouches for.
    Issuer {
        /// `iss`.
        issuer: String,
    },
}

/// How far a revocation reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Who logged in at this time or before it. A later login is not touched.
    Until(Timestamp),
    /// Everyone, until it is lifted.
    UntilLifted,
}

/// Who ordered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationOrigin {
    /// An operator, through the operations listener.
    Operations,
    /// An operator, by `chartgate session`.
    Command,
    /// The issuer: a logout token or a security event.
    Issuer,
    /// The bound on sessions of one person.
    Concurrency,
}

impl RevocationOrigin {
    /// Every origin.
    pub const ALL: [Self; 4] = [Self::Operations, Self::Command, Self::Issuer, Self::Concurrency];

    /// Its stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Operations => "operations",
            Self::Command => "command",
            Self::Issuer => "issuer",
            Self::Concurrency => "concurrency",
        }
    }
}

/// A revocation in force.
#[derive(Clone, PartialEq, Eq)]
pub struct Revocation {
    /// 32 hexadecimal digits.
    pub id: String,
    /// What is revoked.
    pub target: RevocationTarget,
    /// How far it reaches.
    pub reach: Reach,
    /// When it was ordered; for an issuer's event, when it happened there.
    pub made_at: Timestamp,
    /// Who ordered it.
    pub origin: RevocationOrigin,
    /// Why, in the words of who ordered it. May name a person.
    pub reason: String,
}

impl RevocationTarget {
    /// `token`, `session`, `user`, `client` or `issuer`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Token { .. } => "token",
            Self::Session { .. } => "session",
            Self::User { .. } => "user",
            Self::Client { .. } => "client",
            Self::Issuer { .. } => "issuer",
        }
    }

    /// Issuer and name, as they are stored.
    #[must_use]
    pub fn parts(&self) -> (Option<&str>, &str) {
        match self {
            Self::Token { issuer, token } => (issuer.as_deref(), token),
            Self::Session { issuer, session } => (Some(issuer), session),
            Self::User { issuer, subject } => (Some(issuer), subject),
            Self::Client { application } => (None, application),
            Self::Issuer { issuer } => (Some(issuer), ""),
        }
    }

    /// The target with this kind and these parts; nothing when they do not fit.
    #[must_use]
    pub fn from_parts(kind: &str, issuer: Option<String>, name: String) -> Option<Self> {
        match (kind, issuer) {
            ("token", issuer) => Some(Self::Token { issuer, token: name }),
            ("session", Some(issuer)) => Some(Self::Session { issuer, session: name }),
            ("user", Some(issuer)) => Some(Self::User { issuer, subject: name }),
            ("client", None) => Some(Self::Client { application: name }),
            ("issuer", Some(issuer)) => Some(Self::Issuer { issuer }),
            _ => None,
        }
    }

    /// Whether its names could stand in a token at all.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let (issuer, name) = self.parts();
        let named = !name.is_empty() || matches!(self, Self::Issuer { .. });
        let fits = |text: &str, max: usize| text.len() <= max && !text.chars().any(char::is_control);
        named
            && fits(name, limits::TOKEN_NAME_BYTES_MAX)
            && issuer.is_none_or(|issuer| !issuer.is_empty() && fits(issuer, limits::ISSUER_URL_BYTES_MAX))
    }
}

impl Revocation {
    /// When it cannot matter any more: the sessions it ends would be over by themselves. Nothing for one that holds
    /// until it is lifted.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let longest = SignedDuration::try_from(limits::REVOCATION_KEPT).unwrap_or(SignedDuration::MAX);
        let from = match (&self.target, self.reach) {
            (_, Reach::Until(time)) => time,
            // No token outlives `TOKEN_LIFETIME_SECONDS_MAX`.
            (RevocationTarget::Token { .. }, Reach::UntilLifted) => self.made_at,
            (_, Reach::UntilLifted) => return None,
        };
        from.checked_add(longest).ok()
    }
}

/// Shows no person and no token.
impl fmt::Debug for RevocationTarget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind())
    }
}

/// Shows no person and no token.
impl fmt::Debug for Revocation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Revocation")
            .field("id", &self.id)
            .field("target", &self.target)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// All revocations in force, ready to be asked: a few hash look-ups for a request, none when there are none.
#[derive(Default)]
pub struct RevocationIndex {
    all: Vec<Revocation>,
    tokens: HashMap<String, Vec<Option<String>>>,
    clients: HashMap<String, Reach>,
    issuers: HashMap<String, OfIssuer>,
}

#[derive(Default)]
struct OfIssuer {
    whole: Option<Reach>,
    users: HashMap<String, Reach>,
    sessions: HashMap<String, Vec<(Reach, SessionEnded)>>,
}

impl RevocationIndex {
    /// An index of these.
    #[must_use]
    pub fn new(all: Vec<Revocation>) -> Self {
        let mut index = Self::default();
        for revocation in &all {
            index.add(revocation);
        }
        index.all = all;
        index
    }

    /// Every revocation in it.
    #[must_use]
    pub fn all(&self) -> &[Revocation] {
        &self.all
    }

    fn add(&mut self, revocation: &Revocation) {
        let reach = revocation.reach;
        match revocation.target.clone() {
            RevocationTarget::Token { issuer, token } => self.tokens.entry(token).or_default().push(issuer),
            RevocationTarget::Session { issuer, session } => {
                let why = match revocation.origin {
                    RevocationOrigin::Concurrency => SessionEnded::TooMany,
                    RevocationOrigin::Operations | RevocationOrigin::Command | RevocationOrigin::Issuer => {
                        SessionEnded::Revoked
                    }
                };
                self.of(issuer).sessions.entry(session).or_default().push((reach, why));
            }
            RevocationTarget::User { issuer, subject } => {
                widen(self.of(issuer).users.entry(subject).or_insert(reach), reach)
            }
            RevocationTarget::Client { application } => {
                widen(self.clients.entry(application).or_insert(reach), reach)
            }
            RevocationTarget::Issuer { issuer } => widen(self.of(issuer).whole.get_or_insert(reach), reach),
        }
    }

    fn of(&mut self, issuer: String) -> &mut OfIssuer {
        self.issuers.entry(issuer).or_default()
    }

    /// Whether the caller is untouched by every revocation.
    ///
    /// # Errors
    /// [`SessionEnded::Revoked`] or [`SessionEnded::TooMany`].
    pub fn check(&self, caller: &Caller) -> Result<(), SessionEnded> {
        if self.all.is_empty() {
            return Ok(());
        }
        let since = caller.since();
        let hits = |reach: &Reach| match reach {
            Reach::Until(time) => since <= *time,
            Reach::UntilLifted => true,
        };
        let token = |name: &str| {
            let issuers = self.tokens.get(name);
            issuers.is_some_and(|all| {
                all.iter().any(|one| one.as_deref().is_none_or(|one| one == caller.issuer()))
            })
        };
        let revoked = token(caller.token_hash())
            || caller.token_id().is_some_and(token)
            || caller.application().and_then(|client| self.clients.get(client)).is_some_and(hits);
        if revoked {
            return Err(SessionEnded::Revoked);
        }
        let Some(issuer) = self.issuers.get(caller.issuer()) else { return Ok(()) };
        if issuer.whole.as_ref().is_some_and(hits) || issuer.users.get(caller.subject()).is_some_and(hits) {
            return Err(SessionEnded::Revoked);
        }
        let ends = issuer.sessions.get(caller.session()).into_iter().flatten();
        ends.filter(|(reach, _)| hits(reach)).try_for_each(|(_, why)| Err(*why))
    }
}

/// Of two reaches the wider.
fn widen(kept: &mut Reach, other: Reach) {
    *kept = match (*kept, other) {
        (Reach::Until(one), Reach::Until(two)) => Reach::Until(one.max(two)),
        (Reach::UntilLifted, _) | (_, Reach::UntilLifted) => Reach::UntilLifted,
    };
}

impl fmt::Debug for RevocationIndex {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RevocationIndex").field("len", &self.all.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::specimen::CallerSpecimen;

    /// The specimen logs in at this second.
    const LOGIN: i64 = 1_767_225_600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn revocation(target: RevocationTarget, reach: Reach) -> Revocation {
        let origin = RevocationOrigin::Operations;
        Revocation { id: "1".into(), target, reach, made_at: at(LOGIN), origin, reason: String::new() }
    }

    #[test]
    fn each_kind_reaches_its_own_and_no_other() {
        let (issuer, other) = ("https://idp.test".to_owned(), "https://other.test".to_owned());
        let before = Reach::Until(at(LOGIN - 1));
        let until = Reach::Until(at(LOGIN));
        let named = |kind: &str, issuer: Option<&String>, name: &str| {
            RevocationTarget::from_parts(kind, issuer.cloned(), name.to_owned()).unwrap()
        };
        let hash = "0".repeat(64);
        let cases = [
            ("token by hash", named("token", None, &hash), Reach::UntilLifted, true),
            ("token by jti", named("token", None, "token-1"), Reach::UntilLifted, true),
            (
                "token by jti of the issuer",
                named("token", Some(&issuer), "token-1"),
                Reach::UntilLifted,
                true,
            ),
            (
                "token by jti of another issuer",
                named("token", Some(&other), "token-1"),
                Reach::UntilLifted,
                false,
            ),
            ("session", named("session", Some(&issuer), "session-1"), until, true),
            ("session, logged in since", named("session", Some(&issuer), "session-1"), before, false),
            ("another issuer's session", named("session", Some(&other), "session-1"), until, false),
            ("another session", named("session", Some(&issuer), "session-2"), until, false),
            ("user", named("user", Some(&issuer), "person-1"), until, true),
            ("user, logged in since", named("user", Some(&issuer), "person-1"), before, false),
            ("disabled user", named("user", Some(&issuer), "person-1"), Reach::UntilLifted, true),
            ("another issuer's user", named("user", Some(&other), "person-1"), Reach::UntilLifted, false),
            ("client", named("client", None, "app-1"), Reach::UntilLifted, true),
            ("another client", named("client", None, "app-2"), Reach::UntilLifted, false),
            ("issuer", named("issuer", Some(&issuer), ""), Reach::UntilLifted, true),
            ("another issuer", named("issuer", Some(&other), ""), Reach::UntilLifted, false),
        ];
        let caller = CallerSpecimen::with_roles(&[]).caller();
        for (name, target, reach, hits) in cases {
            let index = RevocationIndex::new(vec![revocation(target, reach)]);
            assert_eq!(index.check(&caller).is_err(), hits, "{name}");
        }
    }

    #[test]
    fn the_wider_of_two_holds_in_either_order() {
        let user =
            || RevocationTarget::User { issuer: "https://idp.test".into(), subject: "person-1".into() };
        let narrow = || revocation(user(), Reach::Until(at(LOGIN - 60)));
        let wide = || revocation(user(), Reach::UntilLifted);
        let caller = CallerSpecimen::with_roles(&[]).caller();
        for all in [vec![narrow(), wide()], vec![wide(), narrow()]] {
            assert_eq!(RevocationIndex::new(all).check(&caller), Err(SessionEnded::Revoked));
        }
    }

    #[test]
    fn what_cannot_matter_expires_and_the_rest_does_not() {
        let user = RevocationTarget::User { issuer: "i".into(), subject: "s".into() };
        assert!(revocation(user.clone(), Reach::UntilLifted).expires_at().is_none());
        let gone = revocation(user, Reach::Until(at(LOGIN))).expires_at().unwrap();
        assert!(gone.duration_since(at(LOGIN)) >= SignedDuration::from_hours(24));
    }
}
