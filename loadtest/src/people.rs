//! Who comes: people with sessions of their own, and tokens that the issuer signed before the run began.
//!
//! Owns: the tokens of a run, and which patient is a patient's own.
//! Must never: sign while requests are under way: that would delay them.
//! Look next: `program`, which says who comes when.

use crate::arrivals::Rate;
use crate::program::Program;
use crate::scenario::{Role, Scenario, TokenKind, Visit};
use chartgate_sandbox::issuer::Issuer;
use http::HeaderValue;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Logins of one run; each is a token of about 1 KB.
const LOGINS_MAX: u64 = 50_000;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// `Authorization` for everybody who comes.
pub(crate) struct People {
    /// By visit and person.
    known: Vec<Vec<HeaderValue>>,
    /// By a visit's number in the run: those who come once.
    logins: HashMap<u64, HeaderValue>,
}

/// The id of a patient's own chart, of this many.
pub(crate) fn own_patient(person: u32, patients: u32) -> u32 {
    person % patients.max(1) + 1
}

impl People {
    /// Signs for all who come in `program`.
    ///
    /// # Errors
    /// When the issuer cannot sign, or too many sign in.
    pub(crate) fn gather(
        issuer: &Issuer,
        scenario: &Scenario,
        rate: Rate,
        program: Program,
        patients: u32,
    ) -> Result<Self, String> {
        let mut known = Vec::new();
        for (number, visit) in scenario.visits.iter().enumerate() {
            let people = if visit.new_session { 0 } else { scenario.people(visit, rate) };
            let tokens = (0..people).map(|person| sign(issuer, visit, number, person, patients));
            known.push(tokens.collect::<Result<Vec<_>, _>>()?);
        }
        let mut logins = HashMap::new();
        for due in program.filter(|due| due.step == 0) {
            let Some(visit) = scenario.visits.get(due.visit).filter(|visit| visit.new_session) else {
                continue;
            };
            if logins.len() as u64 >= LOGINS_MAX {
                return Err(format!("more than {LOGINS_MAX} people would sign in: ask for less"));
            }
            logins.insert(due.serial, sign(issuer, visit, due.visit, due.person, patients)?);
        }
        Ok(Self { known, logins })
    }

    /// People of a scenario's only visit, by their tokens.
    pub(crate) fn of(tokens: Vec<HeaderValue>) -> Self {
        Self { known: vec![tokens], logins: HashMap::new() }
    }

    /// The token of a visit.
    pub(crate) fn token(&self, visit: usize, person: u32, serial: u64) -> Option<&HeaderValue> {
        let known = || self.known.get(visit)?.get(usize::try_from(person).ok()?);
        self.logins.get(&serial).or_else(known)
    }
}

/// One token for somebody of this kind.
///
/// # Errors
/// When the issuer cannot sign.
pub(crate) fn sign(
    issuer: &Issuer,
    visit: &Visit,
    number: usize,
    person: u32,
    patients: u32,
) -> Result<HeaderValue, String> {
    let role = visit.role;
    let token = issuer.token_with(role.name(), |claims| {
        let Some(claims) = claims.as_object_mut() else { return };
        let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        put("sub", json!(format!("{}-{number}-{person}", role.name())));
        if visit.steps.iter().any(|step| step.write.is_some()) && role != Role::Patient {
            // An application that writes asks for it; the others' tokens only read.
            put("scope", json!("openid fhirUser user/*.cruds"));
        }
        if role == Role::Patient {
            let own = own_patient(person, patients);
            put("patient", json!(format!("c{own}")));
            put("fhirUser", json!(format!("Patient/c{own}")));
        }
        match visit.token {
            TokenKind::Good | TokenKind::Tampered => {}
            TokenKind::PasswordOnly => {
                put("amr", json!(["pwd"]));
                put("acr", json!("urn:example:aal1"));
            }
            TokenKind::Expired => {
                for name in ["iat", "exp", "auth_time"] {
                    let then = claims.get(name).and_then(Value::as_i64).unwrap_or(0) - DAY_SECONDS;
                    claims.insert(name.to_owned(), json!(then));
                }
            }
        }
    });
    let mut token = token.map_err(|error| error.to_string())?;
    if visit.token == TokenKind::Tampered {
        // The last character may hold no bits of the signature; this one does.
        let at = token.len().saturating_sub(20);
        let other = if token.get(at..=at) == Some("A") { "B" } else { "A" };
        token.replace_range(at..=at, other);
    }
    HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| error.to_string())
}
