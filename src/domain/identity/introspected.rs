//! Opaque tokens: what their issuer says of them (RFC 7662).
//!
//! Owns: reading an introspection answer, and that it is judged by the rules for JWTs, second factor and all (L-66).
//! Must never: ask; that is `edge::introspection`. Never take an answer of the wrong form as a good one.
//! Look next: `authenticate.rs`, whose checks these are.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::authenticate::judge;
use super::binding::Possession;
use super::caller::Caller;
use super::claims::Claims;
use super::issuer::Issuer;
use super::refusal::IdentityRefusal;
use super::strict;
use super::token::sha256;
use crate::limits;

/// Whether a token is for introspection: of the form of RFC 6750 section 2.1, bounded, and no JWS, which has three
/// parts, nor JWE, which has five.
#[must_use]
pub fn is_opaque(token: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let parts = token.split('.').count();
    !token.is_empty()
        && token.len() <= limits::OPAQUE_TOKEN_BYTES_MAX
        && token.bytes().all(plain)
        && !matches!(parts, 3 | 5)
}

/// SHA-256 of a token's text: what caches know it by.
#[must_use]
pub fn token_digest(token: &str) -> [u8; 32] {
    sha256(token.as_bytes())
}

/// An issuer's answer about one token.
pub struct Introspection {
    payload: Map<String, Value>,
    token: [u8; 32],
    active: bool,
}

impl Introspection {
    /// Reads an answer about the token with this digest; `None` when it is not one (RFC 7662 section 2.2).
    #[must_use]
    pub fn read(answer: &[u8], token: [u8; 32], issuer: &Issuer) -> Option<Self> {
        let mut payload = strict::object(answer, limits::TOKEN_JSON_DEPTH_MAX)?;
        let active = payload.get("active").and_then(Value::as_bool)?;
        // The answer came from the issuer's own endpoint; where it says who it is, it must agree.
        payload.entry("iss").or_insert_with(|| Value::from(issuer.url()));
        Some(Self { payload, token, active })
    }

    /// `exp` of an active token, where it is there and well-formed; nothing else may be kept past now.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let seconds = self.payload.get("exp").filter(|_| self.active)?.as_i64()?;
        Timestamp::from_second(seconds).ok()
    }

    /// Establishes who is asking: the checks of a JWT but for the signature, in whose place the issuer's word stands.
    ///
    /// # Errors
    /// The first check that fails; `TokenInactive` before all others. `client_id` and `scope` are required here
    /// (SMART App Launch 2.2, token introspection).
    pub fn authenticate(
        &self,
        issuer: &Issuer,
        shown: &Possession<'_>,
        now: Timestamp,
    ) -> Result<Arc<Caller>, IdentityRefusal> {
        if !self.active {
            return Err(IdentityRefusal::TokenInactive);
        }
        for claim in ["client_id", "scope"] {
            if !self.payload.contains_key(claim) {
                return Err(IdentityRefusal::ClaimMissing { claim });
            }
        }
        let claims = Claims::read(&self.payload)?;
        judge(claims, &self.payload, self.token, issuer, shown, now).map(Arc::new)
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Introspection").field("active", &self.active).finish_non_exhaustive()
    }
}
