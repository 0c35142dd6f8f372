//! Why a caller was not established, and what the client is told about it.
//!
//! Owns: the refusal codes (stable, for audit records and `OperationOutcome`s) and the
//! `WWW-Authenticate` value of RFC 6750 section 3 and RFC 9470 section 3.
//! Must never: carry any text from a token.
//! Look next: `authenticate.rs`, which makes most of these.

use std::fmt;

use super::binding::Scheme;
use super::clients::{BindingDemand, ClientRefusal};
use super::dpop::{ProofRefusal, proof_algorithms};

/// Why the caller is not known, or may not come. [`IdentityRefusal::class`] says with which status it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityRefusal {
    /// No bearer token came with the request.
    TokenMissing,
    /// Not exactly one `Authorization` header with the scheme `Bearer` and a token.
    AuthorizationMalformed,
    /// The token, or its header, is longer than `limits` allow.
    TokenTooLarge,
    /// Not three strict base64url parts in JWS compact serialisation; a JWE has five.
    NotCompact,
    /// The header is not one JSON object without duplicates, or lacks what it needs.
    HeaderMalformed,
    /// `alg` is none, symmetric, unknown, or not allowed for this issuer.
    AlgorithmRefused,
    /// `typ` is missing or names another kind of token.
    TypeRefused,
    /// A header parameter that changes meaning or brings its own key: `crit`, `b64`, `zip`, `enc`, `jwk`, ...
    HeaderParameterRefused,
    /// `kid` is missing, empty or too long.
    KeyIdRefused,
    /// The payload is not one JSON object: bad UTF-8, duplicate members, nesting too deep.
    PayloadMalformed,
    /// `iss` is not exactly the URL of a configured issuer.
    IssuerUnknown,
    /// The issuer's key set has no usable key with this `kid`.
    KeyUnknown,
    /// The key with this `kid` is for another algorithm.
    KeyMismatch,
    /// The issuer's keys could not be had (nothing fetched yet, or the last good set is too old).
    KeysUnavailable,
    /// The signature does not fit.
    SignatureInvalid,
    /// `aud` does not name this server exactly.
    AudienceRefused,
    /// A required claim is absent.
    ClaimMissing {
        /// Which one.
        claim: &'static str,
    },
    /// A claim has the wrong type, form or size.
    ClaimMalformed {
        /// Which one.
        claim: &'static str,
    },
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come yet.
    NotYetValid,
    /// `iat` lies in the future.
    IssuedInFuture,
    /// `exp` lies too long after `iat`, or not after it at all.
    LifetimeRefused,
    /// An ID token, logout token, refresh token or security event, not an access token.
    OtherTokenKind,
    /// The token is bound to its sender (`cnf`) in a way that cannot be checked here (RFC 7800): accepting it as a
    /// plain bearer token would be a downgrade.
    SenderConstrained,
    /// The token is bound to a client certificate and none came with this connection (RFC 8705).
    CertificateMissing,
    /// It is bound to another client certificate.
    CertificateMismatch,
    /// The proof of the token's key is missing or not good (RFC 9449).
    Proof(ProofRefusal),
    /// The issuer says that the token is not active (RFC 7662).
    TokenInactive,
    /// The issuer does not say what the token stands for.
    IntrospectionUnavailable,
    /// The application may not be used, or not like this.
    Client(ClientRefusal),
    /// Neither `amr` nor `acr` shows a second factor.
    MfaMissing(StepUp),
    /// A second factor was used, but too long ago or at an unknown time.
    MfaTooOld(StepUp),
}

/// Whose fault an identity refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// The request's: status 401 with a challenge.
    Unauthorized,
    /// The application's: status 403, since another token of its own would not help.
    ClientRefused,
    /// A neighbour's: status 503.
    Unavailable,
}

/// What a client needs to step up: the parameters of the RFC 9470 challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepUp {
    /// Values of `acr` that satisfy, space separated; may be empty.
    pub acr_values: String,
    /// Longest time since authentication, in seconds.
    pub max_age_seconds: i64,
}

/// RFC 6750 section 3.1: expired, revoked, malformed, or invalid for other reasons.
const INVALID_TOKEN: &str = "error=\"invalid_token\"";

impl Scheme {
    /// The value of `WWW-Authenticate` with these parameters, as a client of this scheme reads it (RFC 6750 section 3,
    /// RFC 9449 section 7.1).
    #[must_use]
    pub fn challenge(self, parameters: &str) -> String {
        match self {
            Self::Bearer => format!("Bearer {parameters}"),
            Self::Dpop => format!("DPoP {parameters}, algs=\"{}\"", proof_algorithms()),
        }
    }
}

impl IdentityRefusal {
    /// Stable code for audit records and `OperationOutcome.issue.details.coding`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TokenMissing => "token-missing",
            Self::AuthorizationMalformed => "authorization-malformed",
            Self::TokenTooLarge => "token-too-large",
            Self::NotCompact => "token-not-compact",
            Self::HeaderMalformed => "token-header-malformed",
            Self::AlgorithmRefused => "token-algorithm-refused",
            Self::TypeRefused => "token-type-refused",
            Self::HeaderParameterRefused => "token-header-parameter-refused",
            Self::KeyIdRefused => "token-key-id-refused",
            Self::PayloadMalformed => "token-payload-malformed",
            Self::IssuerUnknown => "token-issuer-unknown",
            Self::KeyUnknown => "token-key-unknown",
            Self::KeyMismatch => "token-key-mismatch",
            Self::KeysUnavailable => "issuer-keys-unavailable",
            Self::SignatureInvalid => "token-signature-invalid",
            Self::AudienceRefused => "token-audience-refused",
            Self::ClaimMissing { .. } => "token-claim-missing",
            Self::ClaimMalformed { .. } => "token-claim-malformed",
            Self::Expired => "token-expired",
            Self::NotYetValid => "token-not-yet-valid",
            Self::IssuedInFuture => "token-issued-in-future",
            Self::LifetimeRefused => "token-lifetime-refused",
            Self::OtherTokenKind => "token-of-another-kind",
            Self::SenderConstrained => "token-sender-constrained",
            Self::CertificateMissing => "client-certificate-missing",
            Self::CertificateMismatch => "client-certificate-mismatch",
            Self::Proof(refusal) => refusal.code(),
            Self::TokenInactive => "token-inactive",
            Self::IntrospectionUnavailable => "introspection-unavailable",
            Self::Client(refusal) => refusal.code(),
            Self::MfaMissing(_) => "mfa-missing",
            Self::MfaTooOld(_) => "mfa-too-old",
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn class(&self) -> RefusalClass {
        match self {
            Self::KeysUnavailable
            | Self::IntrospectionUnavailable
            | Self::Proof(ProofRefusal::NotRemembered) => RefusalClass::Unavailable,
            Self::Client(refusal) if !refusal.is_of_token() => RefusalClass::ClientRefused,
            _ => RefusalClass::Unauthorized,
        }
    }

    /// The value of `WWW-Authenticate` that goes with status 401, for a token that came under this scheme. A refusal
    /// about proofs, and a client whose tokens must be bound to a key, are told of `DPoP` under either scheme.
    #[must_use]
    pub fn challenge(&self, scheme: Scheme) -> String {
        match self {
            Self::Proof(refusal) => Scheme::Dpop.challenge(&format!("error=\"{}\"", refusal.error())),
            Self::Client(ClientRefusal::Unbound(BindingDemand::Dpop)) => {
                Scheme::Dpop.challenge(INVALID_TOKEN)
            }
            _ => scheme.challenge(&self.parameters()),
        }
    }

    /// What is needed (RFC 9470 section 3).
    fn parameters(&self) -> String {
        let (Self::MfaMissing(step_up) | Self::MfaTooOld(step_up)) = self else {
            return INVALID_TOKEN.to_owned();
        };
        let mut value = "error=\"insufficient_user_authentication\"".to_owned();
        if !step_up.acr_values.is_empty() {
            // INVARIANT: `Issuer::new` admits only characters that need no quoting.
            value.push_str(&format!(", acr_values=\"{}\"", step_up.acr_values));
        }
        value.push_str(&format!(", max_age=\"{}\"", step_up.max_age_seconds));
        value
    }
}

impl fmt::Display for IdentityRefusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::TokenMissing => "the request carries no access token",
            Self::AuthorizationMalformed => {
                "the request must carry one `Authorization` header with the scheme `Bearer` or `DPoP`"
            }
            Self::TokenTooLarge => "the access token is too large",
            Self::NotCompact => "the access token is not a signed JWT in compact form",
            Self::HeaderMalformed => "the token header is malformed",
            Self::AlgorithmRefused => "the token's algorithm is not allowed",
            Self::TypeRefused => "the token's type is not `at+jwt` or `JWT`",
            Self::HeaderParameterRefused => "the token header has a parameter that is not accepted",
            Self::KeyIdRefused => "the token names no usable key id",
            Self::PayloadMalformed => "the token's claims are malformed",
            Self::IssuerUnknown => "the token's issuer is not trusted here",
            Self::KeyUnknown => "the token's key is not among its issuer's keys",
            Self::KeyMismatch => "the token's key is for another algorithm",
            Self::KeysUnavailable => "the issuer's keys are not available",
            Self::SignatureInvalid => "the token's signature is not valid",
            Self::AudienceRefused => "the token is meant for another audience",
            Self::ClaimMissing { claim } => return write!(out, "the token lacks the claim `{claim}`"),
            Self::ClaimMalformed { claim } => return write!(out, "the token's claim `{claim}` is malformed"),
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::IssuedInFuture => "the token was issued in the future",
            Self::LifetimeRefused => "the token's lifetime is not acceptable",
            Self::OtherTokenKind => "the token is not an access token",
            Self::SenderConstrained => "the token is bound in a way that is not supported",
            Self::CertificateMissing => "the token is bound to a client certificate, and none was presented",
            Self::CertificateMismatch => "the token is bound to another client certificate",
            Self::Proof(refusal) => return refusal.fmt(out),
            Self::TokenInactive => "the token is not active",
            Self::IntrospectionUnavailable => "the issuer does not say what the token stands for",
            Self::Client(refusal) => return refusal.fmt(out),
            Self::MfaMissing(_) => "the token shows no second factor",
            Self::MfaTooOld(_) => "the second factor was used too long ago",
        };
        out.write_str(text)
    }
}

impl std::error::Error for IdentityRefusal {}
