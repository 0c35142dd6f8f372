//! A token as it came, taken apart but not believed.
//!
//! Owns: every check that needs no key: sizes, form, header. They come first because they are cheap and
//! keep hostile input away from cryptography (T-168, T-171 to T-175, T-186).
//! Must never: be used for a decision; `issuer()` and `key_id()` choose a key and nothing else.
//! Look next: `authenticate.rs`.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::issuer::Algorithm;
use super::refusal::IdentityRefusal;
use super::strict;
use crate::limits;

/// A well-formed token nobody has vouched for yet.
#[must_use]
pub struct Unverified<'t> {
    token: &'t str,
    named: Named,
    payload: Map<String, Value>,
}

/// What a token says of the key that signed it, and which token it is.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) issuer: String,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: String,
    pub(super) hash: [u8; 32],
}

/// Header parameters that change what a JWS means, make it a JWE, nest another token in it, or bring a key
/// along. RFC 8725 would have the key ones ignored; no honest issuer of ours sends any of them, so refusing
/// costs nothing and shows the attempt. Others are ignored as RFC 7515 section 4 asks: with `crit` refused,
/// they cannot matter.
pub(super) const REFUSED_PARAMETERS: [&str; 12] =
    ["crit", "b64", "zip", "enc", "cty", "epk", "p2c", "p2s", "jwk", "jku", "x5u", "x5c"];

impl<'t> Unverified<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// A refusal of the form; none needs a key, a clock or the issuer's settings.
    pub fn inspect(token: &'t str) -> Result<Self, IdentityRefusal> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(IdentityRefusal::TokenTooLarge);
        }
        let (header, payload) = split(token)?;
        let header = read_header(header)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| IdentityRefusal::NotCompact)?;
        let payload = strict::object(&payload, limits::TOKEN_JSON_DEPTH_MAX)
            .ok_or(IdentityRefusal::PayloadMalformed)?;
        let issuer = match payload.get("iss") {
            Some(Value::String(issuer)) => issuer.clone(),
            Some(_) => return Err(IdentityRefusal::ClaimMalformed { claim: "iss" }),
            None => return Err(IdentityRefusal::ClaimMissing { claim: "iss" }),
        };
        let (algorithm, key_id) = header;
        let named = Named { issuer, algorithm, key_id, hash: sha256(token.as_bytes()) };
        Ok(Self { token, named, payload })
    }

    /// `iss` as claimed: for finding the issuer's keys, nothing else.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.named.issuer
    }

    /// `kid`: an opaque key of a map, never a path or a query (T-172).
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.named.key_id
    }

    /// `alg` as claimed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.named.algorithm
    }

    /// SHA-256 of the token text in hexadecimal: what records hold in the token's place.
    #[must_use]
    pub fn token_hash(&self) -> String {
        hexadecimal(self.named.hash)
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        self.named.hash
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    pub(super) fn token(&self) -> &str {
        self.token
    }

    pub(super) fn payload(&self) -> &Map<String, Value> {
        &self.payload
    }
}

impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Unverified").field("algorithm", &self.named.algorithm).finish_non_exhaustive()
    }
}

/// Inspects arbitrary bytes: must return for every input. The entry point of the fuzz target `token`.
pub fn fuzz_token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(unverified) = Unverified::inspect(text)
    {
        let _ = super::claims::Claims::read(unverified.payload());
    }
}

/// A digest as records hold it.
pub(super) fn hexadecimal(digest: [u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

/// Header and payload of a compact JWS (RFC 7515 section 7.1). Five parts would be a JWE.
pub(super) fn split(token: &str) -> Result<(&str, &str), IdentityRefusal> {
    let compact = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !token.bytes().all(compact) {
        return Err(IdentityRefusal::NotCompact);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(IdentityRefusal::NotCompact);
    };
    // Decoded here too, so that a signature with stray bits is refused whatever the verifier tolerates.
    if signature.is_empty() || URL_SAFE_NO_PAD.decode(signature).is_err() {
        return Err(IdentityRefusal::NotCompact);
    }
    Ok((header, payload))
}

fn read_header(part: &str) -> Result<(Algorithm, String), IdentityRefusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| IdentityRefusal::NotCompact)?;
    if bytes.len() > limits::TOKEN_HEADER_BYTES_MAX {
        return Err(IdentityRefusal::TokenTooLarge);
    }
    let header =
        strict::object(&bytes, limits::TOKEN_JSON_DEPTH_MAX).ok_or(IdentityRefusal::HeaderMalformed)?;
    check_parameters(&header)?;
    check_type(header.get("typ"))?;
    let algorithm =
        text(&header, "alg").and_then(Algorithm::from_name).ok_or(IdentityRefusal::AlgorithmRefused)?;
    Ok((algorithm, read_key_id(&header)?))
}

fn check_parameters(header: &Map<String, Value>) -> Result<(), IdentityRefusal> {
    if REFUSED_PARAMETERS.iter().any(|name| header.contains_key(*name)) {
        return Err(IdentityRefusal::HeaderParameterRefused);
    }
    Ok(())
}

/// RFC 9068 section 4 and RFC 7515 section 4.1.9: media types compare without case.
pub(super) fn check_type(typ: Option<&Value>) -> Result<(), IdentityRefusal> {
    let accepted = ["at+jwt", "application/at+jwt", "jwt"];
    match typ {
        Some(Value::String(typ)) if accepted.iter().any(|name| name.eq_ignore_ascii_case(typ)) => Ok(()),
        _ => Err(IdentityRefusal::TypeRefused),
    }
}

pub(super) fn read_key_id(header: &Map<String, Value>) -> Result<String, IdentityRefusal> {
    match text(header, "kid") {
        Some(kid) if !kid.is_empty() && kid.len() <= limits::TOKEN_KID_BYTES_MAX => Ok(kid.to_owned()),
        _ => Err(IdentityRefusal::KeyIdRefused),
    }
}

fn text<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v str> {
    object.get(name).and_then(Value::as_str)
}
