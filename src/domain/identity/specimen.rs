//! Callers for the unit tests of other rooms, made without a token.
//!
//! Owns: `CallerSpecimen`, compiled for tests only, so that `authenticate` stays the one maker.
//! Must never: be compiled into the program.
//! Look next: `tests.rs`, which makes real tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::binding::Binding;
use super::caller::{Caller, Mfa, Profile, Window};
use super::clients::Standing;

/// What a test wants to say about a caller; the rest is plausible.
#[derive(Clone, Debug)]
pub(crate) struct CallerSpecimen {
    pub(crate) issuer: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) roles: &'static [&'static str],
    pub(crate) application: Option<&'static str>,
    pub(crate) fhir_user: Option<&'static str>,
    pub(crate) scopes: &'static [&'static str],
    pub(crate) purposes: &'static [&'static str],
    pub(crate) launch_patient: Option<&'static str>,
    pub(crate) methods: &'static [&'static str],
    /// Seconds since 1970; the token expires ten minutes later.
    pub(crate) authenticated_at: i64,
}

impl CallerSpecimen {
    /// A person with these roles who logged in with `pwd` and `otp` at 2026-01-01T00:00:00Z.
    pub(crate) const fn with_roles(roles: &'static [&'static str]) -> Self {
        Self {
            issuer: "https://idp.test",
            subject: "person-1",
            roles,
            application: Some("app-1"),
            fhir_user: None,
            scopes: &[],
            purposes: &[],
            launch_patient: None,
            methods: &["pwd", "otp"],
            authenticated_at: 1_767_225_600,
        }
    }

    /// The caller, in a session of this name.
    pub(crate) fn in_session(&self, session: &str) -> Caller {
        Caller { session: session.to_owned(), ..self.caller() }
    }

    /// The caller.
    pub(crate) fn caller(&self) -> Caller {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let methods: Arc<BTreeSet<String>> = Arc::new(texts(self.methods).into_iter().collect());
        let profile = Profile {
            issuer: self.issuer.to_owned(),
            subject: self.subject.to_owned(),
            roles: texts(self.roles).into_iter().collect(),
            application: self.application.map(str::to_owned),
            binding: Binding::NONE.name(),
            fhir_user: self.fhir_user.map(str::to_owned),
            scopes: texts(self.scopes),
            client_scopes: None,
            launch_patient: self.launch_patient.map(str::to_owned),
            methods: Arc::clone(&methods),
        };
        Caller {
            profile: Arc::new(profile),
            purposes: texts(self.purposes),
            mfa: Mfa {
                phishing_resistant: methods.contains("hwk"),
                by_key: false,
                methods,
                acr: None,
                authenticated_at: Some(Timestamp::from_second(self.authenticated_at).unwrap()),
            },
            session: "session-1".to_owned(),
            token_id: Some("token-1".to_owned()),
            token_hash: "0".repeat(64),
            window: Window {
                issued_at: self.authenticated_at,
                not_before: None,
                expires_at: self.authenticated_at + 600,
            },
            binding: Binding::NONE,
            actors: Vec::new(),
            client: Standing::Unasked,
        }
    }
}
