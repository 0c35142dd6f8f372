//! A client's key and the DPoP proofs it signs (RFC 9449), good or bent.
//!
//! Owns: `ProofKey`. Must never: be the gate's idea of a proof: it is written from the RFC alone.
//! Look next: `issuer::Issuer::token_with`, which binds a token to `ProofKey::thumbprint`.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::fmt;

use super::{IssuerError, now, random_id};
use crate::web::base64url;

/// A P-256 key made for the run.
pub struct ProofKey(EcdsaKeyPair);

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey")
    }
}

impl ProofKey {
    /// A fresh key.
    ///
    /// # Errors
    /// `Keys`.
    pub fn new() -> Result<Self, IssuerError> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Self).map_err(|_| IssuerError::Keys)
    }

    fn coordinates(&self) -> (String, String) {
        // SEC 1 uncompressed point: 0x04, 32 bytes x, 32 bytes y.
        let point = self.0.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at_checked(32).unwrap_or_default();
        (base64url(x), base64url(y))
    }

    /// The key's thumbprint (RFC 7638), for `cnf.jkt`.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let (x, y) = self.coordinates();
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        base64url(digest::digest(&digest::SHA256, text.as_bytes()))
    }

    /// A proof for one request with this access token.
    ///
    /// # Errors
    /// `Keys`.
    pub fn proof(&self, method: &str, url: &str, token: &str) -> Result<String, IssuerError> {
        self.proof_with(method, url, token, |_, _| {})
    }

    /// The same with anything changed in header and claims before it is signed.
    ///
    /// # Errors
    /// `Keys`.
    pub fn proof_with(
        &self,
        method: &str,
        url: &str,
        token: &str,
        change: impl FnOnce(&mut Value, &mut Value),
    ) -> Result<String, IssuerError> {
        let (x, y) = self.coordinates();
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        let mut header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk});
        let ath = base64url(digest::digest(&digest::SHA256, token.as_bytes()));
        let mut claims = json!({"jti": random_id()?, "htm": method, "htu": url, "iat": now(), "ath": ath});
        change(&mut header, &mut claims);
        let input = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).map_err(|_| IssuerError::Keys)?;
        Ok(format!("{input}.{}", base64url(signature)))
    }
}
