//! Whom an event is about.
//!
//! Owns: the subject formats of RFC 9493 and Shared Signals 1.0 section 3 that can be matched with a token's claims:
//! `iss_sub`, `jwt_id`, `opaque`, `aliases`, `complex`, and a complex one that does not name its format.
//! Must never: guess a person from an address or a telephone number; take a name that another issuer gave.
//! Look next: `event.rs`.

use serde_json::{Map, Value};

use super::EventRefusal;
use crate::limits;

type Members = Map<String, Value>;

/// What of a caller is meant.
#[derive(Default)]
pub(super) struct Subject {
    user: Option<String>,
    session: Option<String>,
    token: Option<String>,
    /// An opaque name alone: of a person, or of a session in an event about sessions.
    opaque: Option<String>,
}

/// A session event's subject, from the narrowest to the widest.
pub(super) enum About {
    Session(String),
    Token(String),
    User(String),
}

impl Subject {
    /// Reads a subject; what it names belongs to `issuer`.
    pub(super) fn read(given: Option<&Value>, issuer: &str) -> Result<Self, EventRefusal> {
        let subject = given.and_then(Value::as_object).ok_or(EventRefusal::Subject)?;
        match format(subject) {
            Some("complex") | None => complex(subject, issuer),
            Some("aliases") => aliases(subject, issuer),
            Some(format) => simple(format, subject, issuer),
        }
    }

    /// The person.
    pub(super) fn user(self) -> Result<String, EventRefusal> {
        self.user.or(self.opaque).ok_or(EventRefusal::Subject)
    }

    /// What an event about a session is about.
    pub(super) fn about(self) -> Result<About, EventRefusal> {
        let session = self.session.or(self.opaque).map(About::Session);
        let narrow = session.or(self.token.map(About::Token));
        narrow.or(self.user.map(About::User)).ok_or(EventRefusal::Subject)
    }
}

/// An identifier as access tokens have them.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::TOKEN_NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

fn format(subject: &Members) -> Option<&str> {
    subject.get("format").and_then(Value::as_str)
}

fn named(subject: &Members, member: &str) -> Result<String, EventRefusal> {
    let text = subject.get(member).and_then(Value::as_str).filter(|text| is_name(text));
    text.map(str::to_owned).ok_or(EventRefusal::Subject)
}

fn of_issuer(subject: &Members, issuer: &str) -> Result<(), EventRefusal> {
    let own = subject.get("iss").and_then(Value::as_str) == Some(issuer);
    if own { Ok(()) } else { Err(EventRefusal::Subject) }
}

fn simple(format: &str, subject: &Members, issuer: &str) -> Result<Subject, EventRefusal> {
    let mut read = Subject::default();
    match format {
        "iss_sub" => {
            of_issuer(subject, issuer)?;
            read.user = Some(named(subject, "sub")?);
        }
        "jwt_id" => {
            of_issuer(subject, issuer)?;
            read.token = Some(named(subject, "jti")?);
        }
        "opaque" => read.opaque = Some(named(subject, "id")?),
        _ => return Err(EventRefusal::Subject),
    }
    Ok(read)
}

/// One subject under several names: the first that can be matched.
fn aliases(subject: &Members, issuer: &str) -> Result<Subject, EventRefusal> {
    let names = subject.get("identifiers").and_then(Value::as_array).ok_or(EventRefusal::Subject)?;
    let mut readable = names.iter().filter_map(Value::as_object).filter_map(|name| {
        let format = format(name)?;
        simple(format, name, issuer).ok()
    });
    readable.next().ok_or(EventRefusal::Subject)
}

/// `user` and `session`, each a simple subject. Other members (device, tenant, …) narrow what is meant in ways that
/// no token of ours tells; leaving them aside ends more than was meant, never less.
fn complex(subject: &Members, issuer: &str) -> Result<Subject, EventRefusal> {
    let member = |name: &str| -> Result<Option<Subject>, EventRefusal> {
        let Some(value) = subject.get(name) else { return Ok(None) };
        let part = value.as_object().ok_or(EventRefusal::Subject)?;
        match format(part) {
            Some("aliases") => aliases(part, issuer).map(Some),
            Some(format) => simple(format, part, issuer).map(Some),
            None => Err(EventRefusal::Subject),
        }
    };
    let (user, session) = (member("user")?, member("session")?);
    let read = Subject {
        user: user.map(Subject::user).transpose()?,
        token: session.as_ref().and_then(|session| session.token.clone()),
        session: session.and_then(|session| session.opaque),
        opaque: None,
    };
    let names_any = read.user.is_some() || read.session.is_some() || read.token.is_some();
    if names_any { Ok(read) } else { Err(EventRefusal::Subject) }
}
