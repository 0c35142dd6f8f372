//! What a token is bound to, and what a request shows of it.
//!
//! Owns: the `Authorization` header, the claim `cnf`, and the rule that a bound token is worth nothing without its
//! certificate or key (RFC 8705 section 3, RFC 9449 section 7; T-184, T-185).
//! Must never: take a bound token as a bearer token, or an unbound one under the scheme `DPoP`.
//! Look next: `dpop.rs`, which makes proofs into evidence; `authenticate.rs`, which asks `Binding::holds`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::dpop::{Proof, ProofRefusal};
use super::refusal::IdentityRefusal;

/// The scheme of an `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750: who holds the token may use it, unless it is bound to a certificate.
    Bearer,
    /// RFC 9449: the token comes with a proof of the key it is bound to.
    Dpop,
}

/// The one `Authorization` header of a request, taken apart.
#[derive(Clone, Copy)]
pub struct Credentials<'h> {
    /// How the token is presented.
    pub scheme: Scheme,
    /// The token's text.
    pub token: &'h str,
}

/// Shows no token.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// The token in a request's `Authorization` header values (RFC 6750 section 2.1, RFC 9449 section 7.1). No other way
/// to send one is accepted.
///
/// # Errors
/// `TokenMissing` when there is no header; `AuthorizationMalformed` when there are several, or the one is not
/// `Bearer` or `DPoP`, a space, and a token.
pub fn credentials<'h>(
    values: impl IntoIterator<Item = &'h [u8]>,
) -> Result<Credentials<'h>, IdentityRefusal> {
    let mut values = values.into_iter();
    let value = values.next().ok_or(IdentityRefusal::TokenMissing)?;
    if values.next().is_some() {
        return Err(IdentityRefusal::AuthorizationMalformed);
    }
    let text = std::str::from_utf8(value).map_err(|_| IdentityRefusal::AuthorizationMalformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(IdentityRefusal::AuthorizationMalformed)?;
    // RFC 9110 section 11.1: the scheme's case does not matter.
    let schemes = [("Bearer", Scheme::Bearer), ("DPoP", Scheme::Dpop)];
    let known = schemes.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name));
    match known {
        Some((_, scheme)) if !token.is_empty() && !token.contains(' ') => Ok(Credentials { scheme, token }),
        Some(_) | None => Err(IdentityRefusal::AuthorizationMalformed),
    }
}

/// What a token is bound to: nothing, a client certificate, a key, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// `cnf.x5t#S256`: SHA-256 of the certificate (DER).
    certificate: Option<[u8; 32]>,
    /// `cnf.jkt`: SHA-256 thumbprint of the public key (RFC 7638).
    key: Option<[u8; 32]>,
}

/// What a request shows besides its token: how it presents it, over which connection, with which proof.
#[derive(Clone, Copy, Debug)]
pub struct Possession<'p> {
    scheme: Scheme,
    certificate: Option<[u8; 32]>,
    proof: Option<&'p Proof>,
}

impl<'p> Possession<'p> {
    /// A token under `Bearer` over a connection without client certificate.
    pub const BARE: Possession<'static> =
        Possession { scheme: Scheme::Bearer, certificate: None, proof: None };

    /// `certificate`: SHA-256 of the leaf that the client presented on this connection and that was verified.
    #[must_use]
    pub fn new(scheme: Scheme, certificate: Option<[u8; 32]>, proof: Option<&'p Proof>) -> Self {
        Self { scheme, certificate, proof }
    }
}

impl Binding {
    /// Bound to nothing.
    pub const NONE: Binding = Binding { certificate: None, key: None };

    /// As policies and audit records name it: `none`, `mtls` or `dpop`. A token bound to both is `mtls`: the
    /// certificate vouches for the whole connection, the proof for one request.
    #[must_use]
    pub fn name(self) -> &'static str {
        match (self.certificate, self.key) {
            (Some(_), _) => "mtls",
            (None, Some(_)) => "dpop",
            (None, None) => "none",
        }
    }

    /// Bound to a client certificate.
    #[must_use]
    pub fn by_certificate(self) -> bool {
        self.certificate.is_some()
    }

    /// Bound to a key that signs each request.
    #[must_use]
    pub fn by_key(self) -> bool {
        self.key.is_some()
    }

    /// Reads `cnf` (RFC 7800 section 3). A member we cannot check, or not in this form, binds the token to something
    /// nobody looks at, so it is refused, and so is a `cnf` that names nothing.
    pub(super) fn read(payload: &Map<String, Value>) -> Result<Self, IdentityRefusal> {
        let unknown = || IdentityRefusal::SenderConstrained;
        let Some(cnf) = payload.get("cnf") else { return Ok(Self::NONE) };
        let cnf = cnf.as_object().ok_or_else(unknown)?;
        let known = ["x5t#S256", "jkt"];
        if cnf.is_empty() || cnf.keys().any(|member| !known.contains(&member.as_str())) {
            return Err(unknown());
        }
        let hash = |member: &str| match cnf.get(member) {
            None => Ok(None),
            Some(value) => value.as_str().and_then(read_hash).map(Some).ok_or_else(unknown),
        };
        Ok(Self { certificate: hash("x5t#S256")?, key: hash("jkt")? })
    }

    /// Whether the request shows all that the token, whose hash is given, is bound to.
    pub(super) fn holds(self, token: [u8; 32], shown: &Possession<'_>) -> Result<(), IdentityRefusal> {
        match (self.certificate, shown.certificate) {
            (None, _) => {}
            (Some(_), None) => return Err(IdentityRefusal::CertificateMissing),
            (Some(bound), Some(given)) if bound == given => {}
            (Some(_), Some(_)) => return Err(IdentityRefusal::CertificateMismatch),
        }
        match (self.key, shown.scheme, shown.proof) {
            (None, Scheme::Bearer, _) => Ok(()),
            (Some(_), Scheme::Bearer, _) => Err(ProofRefusal::Downgraded.into()),
            (None, Scheme::Dpop, _) => Err(ProofRefusal::TokenUnbound.into()),
            (Some(_), Scheme::Dpop, None) => Err(ProofRefusal::Missing.into()),
            (Some(key), Scheme::Dpop, Some(proof)) => proof.vouches(key, token).map_err(Into::into),
        }
    }
}

/// 32 bytes in base64url without padding.
fn read_hash(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}
