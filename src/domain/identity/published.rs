//! What an issuer publishes as keys, and why each may or may not verify its tokens here: for explanations.
//!
//! Owns: the reasons; the choice itself is made in `keys.rs`. Must never: be asked whether a token is good.
//! Look next: `keys.rs`.

use std::fmt;

use serde_json::{Map, Value};

use super::issuer::{Algorithm, Issuer};
use super::keys::{
    KeySet, KeySetError, Material, bytes, choose_algorithm, is_for_verifying, leading_zeros, read_key, text,
};
use super::strict;
use crate::limits;

/// One member of a JWK Set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    /// `kid`, where it is there. The issuer's text; escape it for a terminal.
    pub key_id: Option<String>,
    /// Kind and size in words, such as `RSA 2048`.
    pub kind: String,
    /// What becomes of it.
    pub fate: KeyFate,
}

/// What becomes of a published key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFate {
    /// It verifies tokens signed with this algorithm.
    Usable(Algorithm),
    /// Not for signatures (`use`, `key_ops`): left out, as it should be.
    OtherPurpose,
    /// An RSA modulus of fewer than `limits::RSA_MODULUS_BITS_MIN` bits.
    TooShort,
    /// No `kid`, so that no token can name it.
    Nameless,
    /// A symmetric key.
    Symmetric,
    /// `algorithms` of the issuer has none for it.
    NotAllowed,
    /// A kind, curve or shape that is not known here.
    Unknown,
}

impl fmt::Display for KeyFate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Usable(algorithm) => return write!(out, "verifies {}", algorithm.name()),
            Self::OtherPurpose => "is not for signatures",
            Self::TooShort => "is too short to be trusted",
            Self::Nameless => "has no `kid`, so that no token can name it",
            Self::Symmetric => "is symmetric, and a secret should not be published",
            Self::NotAllowed => "has no algorithm among this issuer's `algorithms`",
            Self::Unknown => "is of a kind or shape that is not known here",
        })
    }
}

/// Every key of a JWK Set with its fate.
///
/// # Errors
/// As [`KeySet::read`].
pub fn published_keys(document: &[u8], issuer: &Issuer) -> Result<Vec<PublishedKey>, KeySetError> {
    KeySet::read(document, issuer)?;
    let set = strict::object(document, limits::TOKEN_JSON_DEPTH_MAX).ok_or(KeySetError::Malformed)?;
    let entries = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::Malformed)?;
    Ok(entries.iter().filter_map(Value::as_object).map(|jwk| describe(jwk, issuer)).collect())
}

fn describe(jwk: &Map<String, Value>, issuer: &Issuer) -> PublishedKey {
    let bits = rsa_bits(jwk);
    let kind = match (text(jwk, "kty"), text(jwk, "crv"), bits) {
        (Some("RSA"), _, Some(bits)) => format!("RSA {bits}"),
        (Some(kind), Some(curve), _) => format!("{kind} {curve}"),
        (Some(kind), None, _) => kind.to_owned(),
        (None, ..) => "a key without `kty`".to_owned(),
    };
    PublishedKey { key_id: text(jwk, "kid").map(str::to_owned), kind, fate: fate(jwk, bits, issuer) }
}

fn fate(jwk: &Map<String, Value>, bits: Option<usize>, issuer: &Issuer) -> KeyFate {
    let algorithm = Material::read(jwk).and_then(|material| choose_algorithm(jwk, &material, issuer));
    match algorithm {
        Some(algorithm) if read_key(jwk, issuer).is_some() => KeyFate::Usable(algorithm),
        _ if !is_for_verifying(jwk) => KeyFate::OtherPurpose,
        _ if bits.is_some_and(|bits| bits < limits::RSA_MODULUS_BITS_MIN) => KeyFate::TooShort,
        _ if text(jwk, "kty") == Some("oct") => KeyFate::Symmetric,
        Some(_) => KeyFate::Nameless,
        None if Material::read(jwk).is_some() => KeyFate::NotAllowed,
        None => KeyFate::Unknown,
    }
}

fn rsa_bits(jwk: &Map<String, Value>) -> Option<usize> {
    let modulus = bytes(jwk, "n").filter(|_| text(jwk, "kty") == Some("RSA"))?;
    modulus.len().checked_mul(8)?.checked_sub(leading_zeros(&modulus)?)
}
