//! The caller: evidence that a person or program was authenticated.
//!
//! Owns: what is known about a caller once every check has passed.
//! Must never: be made outside `authenticate`, or print token text.
//! Look next: `authenticate.rs`, the only maker; `domain::access`, which asks for it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::binding::Binding;
use super::clients::{ClientKind, Standing, Visitor};
use super::refusal::IdentityRefusal;

/// Who is asking, proven by a verified token with a recent second factor.
///
/// The identity of a person is issuer *and* subject: one subject at two issuers is two people (T-177).
/// Not `Clone`: it is shared behind an `Arc`, so that no stale copy outlives its checks.
#[must_use]
pub struct Caller {
    pub(super) profile: Arc<Profile>,
    pub(super) purposes: Vec<String>,
    pub(super) mfa: Mfa,
    pub(super) session: String,
    pub(super) token_id: Option<String>,
    pub(super) token_hash: String,
    pub(super) window: Window,
    pub(super) binding: Binding,
    pub(super) actors: Vec<Actor>,
    pub(super) client: Standing,
}

/// What a token says of its caller that is the same for every decision, shared by all of them. Not evidence: only
/// [`Caller`] is.
#[derive(Clone)]
pub struct Profile {
    /// [`Caller::issuer`].
    pub issuer: String,
    /// [`Caller::subject`].
    pub subject: String,
    /// [`Caller::roles`].
    pub roles: BTreeSet<String>,
    /// [`Caller::application`].
    pub application: Option<String>,
    /// What the token is bound to: `none`, `mtls` or `dpop`.
    pub binding: &'static str,
    /// [`Caller::fhir_user`].
    pub fhir_user: Option<String>,
    /// [`Caller::scopes`].
    pub scopes: Vec<String>,
    /// [`Caller::client_scopes`].
    pub client_scopes: Option<Vec<String>>,
    /// [`Caller::launch_patient`].
    pub launch_patient: Option<String>,
    /// [`Mfa::methods`].
    pub methods: Arc<BTreeSet<String>>,
}

/// Shows nobody.
impl fmt::Debug for Profile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Profile").finish_non_exhaustive()
    }
}

/// Somebody who acts for the subject of a token (RFC 8693 section 4.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Actor {
    pub(super) issuer: Option<String>,
    pub(super) subject: String,
}

impl Actor {
    /// Who vouches for the actor, where it is another than the token's issuer.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// `sub` of the actor.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// Shows nobody.
impl fmt::Debug for Actor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Actor").finish_non_exhaustive()
    }
}

/// When a token is good, in seconds since 1970 UTC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) issued_at: i64,
    pub(super) not_before: Option<i64>,
    pub(super) expires_at: i64,
}

/// How the caller authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mfa {
    pub(super) methods: Arc<BTreeSet<String>>,
    pub(super) acr: Option<String>,
    pub(super) authenticated_at: Option<Timestamp>,
    pub(super) phishing_resistant: bool,
    /// A registered program's bound key stands for a second factor.
    pub(super) by_key: bool,
}

impl Mfa {
    /// `amr` values as given (RFC 8176, or the issuer's own).
    #[must_use]
    pub fn methods(&self) -> &BTreeSet<String> {
        &self.methods
    }

    /// `acr` as given.
    #[must_use]
    pub fn acr(&self) -> Option<&str> {
        self.acr.as_deref()
    }

    /// `auth_time`. Always present in a `Caller`.
    #[must_use]
    pub fn authenticated_at(&self) -> Option<Timestamp> {
        self.authenticated_at
    }

    /// Whether the methods resist phishing: `amr` has `hwk` (RFC 8176: proof of possession of a
    /// hardware-secured key), or `amr` or `acr` has `phr` or `phrh` (OpenID Connect EAP ACR Values 1.0).
    #[must_use]
    pub fn phishing_resistant(&self) -> bool {
        self.phishing_resistant
    }

    /// Seconds since authentication; never negative. Without `auth_time`, older than anything.
    #[must_use]
    pub fn age_seconds(&self, now: Timestamp) -> i64 {
        self.authenticated_at.map_or(i64::MAX, |at| now.as_second().saturating_sub(at.as_second()).max(0))
    }
}

impl Caller {
    /// What decisions share.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.profile.issuer
    }

    /// `sub`; unique only together with the issuer.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.profile.subject
    }

    /// Roles after renaming.
    #[must_use]
    pub fn roles(&self) -> &BTreeSet<String> {
        &self.profile.roles
    }

    /// The client: `azp` or `client_id`.
    #[must_use]
    pub fn application(&self) -> Option<&str> {
        self.profile.application.as_deref()
    }

    /// `fhirUser` as `Type/id`, for example `Patient/p2`.
    #[must_use]
    pub fn fhir_user(&self) -> Option<&str> {
        self.profile.fhir_user.as_deref()
    }

    /// SMART and other scopes, in the token's order.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.profile.scopes
    }

    /// Purposes of use the issuer vouches for.
    #[must_use]
    pub fn purposes(&self) -> &[String] {
        &self.purposes
    }

    /// The patient in context (`patient`, SMART App Launch 2.2), a FHIR logical id.
    #[must_use]
    pub fn launch_patient(&self) -> Option<&str> {
        self.profile.launch_patient.as_deref()
    }

    /// How the caller authenticated.
    #[must_use]
    pub fn mfa(&self) -> &Mfa {
        &self.mfa
    }

    /// What ties requests together: `sid`, else `jti`, else the token's hash. Unique only together with the
    /// issuer; without `sid`, every refreshed token is a session of its own.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// `jti`.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// `iat`.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        // INVARIANT: `iat` was bounded by TOKEN_TIME_SECONDS_MAX; the fallback is older than any revocation.
        Timestamp::from_second(self.window.issued_at).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Since when the issuer has vouched for this login: `auth_time`, or `iat` where that is earlier. What
    /// revocations compare with.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        let issued_at = self.issued_at();
        self.mfa.authenticated_at.map_or(issued_at, |at| at.min(issued_at))
    }

    /// SHA-256 of the token, 64 hexadecimal digits.
    #[must_use]
    pub fn token_hash(&self) -> &str {
        &self.token_hash
    }

    /// What the token is bound to. That the request showed it was checked.
    #[must_use]
    pub fn binding(&self) -> Binding {
        self.binding
    }

    /// Who acts for the subject now, if somebody does. Policies decide about the subject; both are recorded.
    #[must_use]
    pub fn actor(&self) -> Option<&Actor> {
        self.actors.first()
    }

    /// Everybody who acted for the subject on the way here, the present actor first.
    #[must_use]
    pub fn actors(&self) -> &[Actor] {
        &self.actors
    }

    /// What sort of application it is, where it is registered.
    #[must_use]
    pub fn client_kind(&self) -> Option<ClientKind> {
        self.client.registered().map(|client| client.kind)
    }

    /// The scopes that the register leaves to the application; `None` where it leaves the token's as they are.
    #[must_use]
    pub fn client_scopes(&self) -> Option<&[String]> {
        self.profile.client_scopes.as_deref()
    }

    /// Whether the application may be used at all, now and like this.
    ///
    /// # Errors
    /// [`IdentityRefusal::Client`].
    pub fn admitted(&self, now: Timestamp) -> Result<(), IdentityRefusal> {
        let visitor = Visitor {
            subject: self.subject(),
            application: self.application(),
            fhir_user: self.fhir_user(),
            roles: self.roles(),
            purposes: &self.purposes,
            binding: self.binding,
        };
        self.client.admits(&visitor, now).map_err(IdentityRefusal::from)
    }

    /// `exp`.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        // INVARIANT: `exp` was bounded by TOKEN_TIME_SECONDS_MAX, so the fallback is never taken; it is
        // the expired answer.
        Timestamp::from_second(self.window.expires_at).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Shows who, and never the claims: those may name a patient.
impl fmt::Debug for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Caller").field("issuer", &self.profile.issuer).finish_non_exhaustive()
    }
}
