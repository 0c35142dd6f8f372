//! An issuer's signature keys, read from its JWK Set.
//!
//! Owns: which keys may verify, each for exactly one algorithm (RFC 8725 section 3.1; T-169, T-170, T-172).
//! Must never: fetch, accept a symmetric or private key, or choose a key by anything but its exact `kid`.
//! Look next: `edge::keyring`, which brings the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::issuer::{Algorithm, Issuer};
use super::strict;
use super::token::sha256;
use crate::limits;

/// The keys of one issuer that may verify its tokens, by `kid`.
pub struct KeySet {
    keys: BTreeMap<String, Key>,
    skipped: usize,
}

/// One public key and the one algorithm it is for.
pub(super) struct Key {
    algorithm: Algorithm,
    verifier: DecodingKey,
    fingerprint: [u8; 32],
}

impl Key {
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn verifier(&self) -> &DecodingKey {
        &self.verifier
    }

    /// SHA-256 over algorithm and key: a key replaced under the same `kid` is another key.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

/// Why a whole key set is refused. The last good set stays in use then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySetError {
    /// More than `limits::KEY_SET_BYTES_MAX` bytes or `limits::KEY_SET_KEYS_MAX` keys.
    TooLarge,
    /// Not a JSON object with an array `keys` of objects, or a member is given twice.
    Malformed,
    /// Two keys have one `kid`: which one is meant cannot be known.
    DuplicateKeyId,
    /// A private key is published; whoever read it can sign.
    PrivateKey,
}

impl fmt::Display for KeySetError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLarge => "the key set is too large",
            Self::Malformed => "the key set is not a valid JWK Set",
            Self::DuplicateKeyId => "two keys of the key set have the same `kid`",
            Self::PrivateKey => "the key set publishes a private key",
        })
    }
}

impl std::error::Error for KeySetError {}

impl KeySet {
    /// Reads a JWK Set (RFC 7517 section 5).
    ///
    /// Keys that cannot verify for this issuer are left out and counted: symmetric ones, unknown types,
    /// `use` other than `sig`, `key_ops` without `verify`, no `kid`, weak or misshapen parameters, an `alg`
    /// that does not fit the type or is not allowed. A key without `alg` is for the first allowed algorithm
    /// that fits its type and curve.
    ///
    /// # Errors
    /// When the set as a whole cannot be trusted.
    pub fn read(document: &[u8], issuer: &Issuer) -> Result<Self, KeySetError> {
        if document.len() > limits::KEY_SET_BYTES_MAX {
            return Err(KeySetError::TooLarge);
        }
        let set = strict::object(document, limits::TOKEN_JSON_DEPTH_MAX).ok_or(KeySetError::Malformed)?;
        let entries = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::Malformed)?;
        if entries.len() > limits::KEY_SET_KEYS_MAX {
            return Err(KeySetError::TooLarge);
        }
        let jwks: Option<Vec<&Map<String, Value>>> = entries.iter().map(Value::as_object).collect();
        let jwks = jwks.ok_or(KeySetError::Malformed)?;
        refuse_private(&jwks)?;
        refuse_duplicates(&jwks)?;
        let keys: BTreeMap<String, Key> = jwks.iter().filter_map(|jwk| read_key(jwk, issuer)).collect();
        let skipped = jwks.len().saturating_sub(keys.len());
        Ok(Self { keys, skipped })
    }

    /// Whether a key with exactly this `kid` may verify.
    #[must_use]
    pub fn contains(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// How many keys may verify.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key may verify.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many published keys were left out.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    pub(super) fn key(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("KeySet").field("keys", &self.keys.len()).field("skipped", &self.skipped).finish()
    }
}

/// Private parameters of RFC 7518 sections 6.2.2 and 6.3.2 and RFC 8037 section 2. `k` of a symmetric key is
/// private too, but such keys are never used, and some issuers publish placeholders.
fn refuse_private(jwks: &[&Map<String, Value>]) -> Result<(), KeySetError> {
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth"];
    let published = |jwk: &&Map<String, Value>| private.iter().any(|member| jwk.contains_key(*member));
    if jwks.iter().any(published) { Err(KeySetError::PrivateKey) } else { Ok(()) }
}

fn refuse_duplicates(jwks: &[&Map<String, Value>]) -> Result<(), KeySetError> {
    let mut seen = BTreeSet::new();
    for jwk in jwks {
        match jwk.get("kid") {
            None => {}
            Some(Value::String(kid)) if seen.insert(kid) => {}
            Some(Value::String(_)) => return Err(KeySetError::DuplicateKeyId),
            Some(_) => return Err(KeySetError::Malformed),
        }
    }
    Ok(())
}

/// The `kid` and key of a JWK that may verify for this issuer.
pub(super) fn read_key(jwk: &Map<String, Value>, issuer: &Issuer) -> Option<(String, Key)> {
    let kid = text(jwk, "kid").filter(|kid| !kid.is_empty() && kid.len() <= limits::TOKEN_KID_BYTES_MAX)?;
    if !is_for_verifying(jwk) {
        return None;
    }
    let material = Material::read(jwk)?;
    let algorithm = choose_algorithm(jwk, &material, issuer)?;
    let fingerprint = material.fingerprint(algorithm);
    Some((kid.to_owned(), Key { algorithm, verifier: material.verifier(), fingerprint }))
}

/// RFC 7517 sections 4.2 and 4.3; a wrong type is as good as a wrong value.
pub(super) fn is_for_verifying(jwk: &Map<String, Value>) -> bool {
    let used = jwk.get("use").is_none_or(|value| value == "sig");
    let operates = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(operations)) => operations.iter().any(|operation| operation == "verify"),
        Some(_) => false,
    };
    used && operates
}

pub(super) fn choose_algorithm(
    jwk: &Map<String, Value>,
    material: &Material,
    issuer: &Issuer,
) -> Option<Algorithm> {
    let stated = match jwk.get("alg") {
        None => None,
        Some(value) => Some(Algorithm::from_name(value.as_str()?)?),
    };
    let fits = |algorithm: &&Algorithm| {
        material.fits(**algorithm) && stated.is_none_or(|stated| stated == **algorithm)
    };
    issuer.algorithms().iter().find(fits).copied()
}

/// Public key parameters of the right shape.
pub(super) enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256 { point: Vec<u8> },
    P384 { point: Vec<u8> },
    Ed25519 { point: Vec<u8> },
}

impl Material {
    pub(super) fn read(jwk: &Map<String, Value>) -> Option<Self> {
        match (text(jwk, "kty")?, text(jwk, "crv")) {
            ("RSA", None) => Self::read_rsa(jwk),
            ("EC", Some("P-256")) => Some(Self::P256 { point: read_point(jwk, 32)? }),
            ("EC", Some("P-384")) => Some(Self::P384 { point: read_point(jwk, 48)? }),
            ("OKP", Some("Ed25519")) => {
                let point = bytes(jwk, "x")?;
                (point.len() == 32).then_some(Self::Ed25519 { point })
            }
            _ => None,
        }
    }

    /// An odd exponent of at least 3 and at most 33 bits, as aws-lc asks, and a modulus within `limits`.
    fn read_rsa(jwk: &Map<String, Value>) -> Option<Self> {
        let (modulus, exponent) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
        let bits = modulus.len().checked_mul(8)?.checked_sub(leading_zeros(&modulus)?)?;
        let sized = (limits::RSA_MODULUS_BITS_MIN..=limits::RSA_MODULUS_BITS_MAX).contains(&bits);
        let odd = exponent.last().is_some_and(|last| last % 2 == 1);
        let exponent_fits = odd && exponent.len() <= 5 && exponent != [1] && leading_zeros(&exponent)? < 8;
        (sized && exponent_fits).then_some(Self::Rsa { modulus, exponent })
    }

    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => matches!(self, Self::Rsa { .. }),
            Algorithm::ES256 => matches!(self, Self::P256 { .. }),
            Algorithm::ES384 => matches!(self, Self::P384 { .. }),
            Algorithm::EdDSA => matches!(self, Self::Ed25519 { .. }),
        }
    }

    pub(super) fn verifier(&self) -> DecodingKey {
        match self {
            Self::Rsa { modulus, exponent } => DecodingKey::from_rsa_raw_components(modulus, exponent),
            Self::P256 { point } | Self::P384 { point } => DecodingKey::from_ec_der(point),
            Self::Ed25519 { point } => DecodingKey::from_ed_der(point),
        }
    }

    /// The JWK thumbprint with SHA-256: the required members in order of their names (RFC 7638 section 3.2, RFC 8037
    /// section 2 for `OKP`).
    pub(super) fn thumbprint(&self) -> [u8; 32] {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let on_curve = |curve: &str, point: &[u8]| {
            let coordinates = point.get(1..).unwrap_or_default();
            let (x, y) = coordinates.split_at_checked(coordinates.len() / 2).unwrap_or_default();
            format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y))
        };
        let text = match self {
            Self::Rsa { modulus, exponent } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(exponent), encode(modulus))
            }
            Self::P256 { point } => on_curve("P-256", point),
            Self::P384 { point } => on_curve("P-384", point),
            Self::Ed25519 { point } => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(point))
            }
        };
        sha256(text.as_bytes())
    }

    fn fingerprint(&self, algorithm: Algorithm) -> [u8; 32] {
        let mut text = algorithm.name().as_bytes().to_vec();
        match self {
            Self::Rsa { modulus, exponent } => {
                text.push(b'|');
                // The exponent's length is at most 5 and stands between, so no two keys share a text.
                text.extend(exponent.len().to_be_bytes());
                text.extend(exponent);
                text.extend(modulus);
            }
            Self::P256 { point } | Self::P384 { point } | Self::Ed25519 { point } => {
                text.push(b'|');
                text.extend(point);
            }
        }
        sha256(&text)
    }
}

/// Leading zero bits of the first byte; `None` for no bytes. RFC 7518 section 2: no leading zero bytes.
pub(super) fn leading_zeros(number: &[u8]) -> Option<usize> {
    number.first().map(|first| first.leading_zeros() as usize)
}

/// An uncompressed point (SEC 1 section 2.3.3) from coordinates of exactly the curve's size
/// (RFC 7518 section 6.2.1.2).
fn read_point(jwk: &Map<String, Value>, coordinate_bytes: usize) -> Option<Vec<u8>> {
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != coordinate_bytes || y.len() != coordinate_bytes {
        return None;
    }
    Some([vec![4], x, y].concat())
}

pub(super) fn bytes(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok()
}

pub(super) fn text<'v>(jwk: &'v Map<String, Value>, name: &str) -> Option<&'v str> {
    jwk.get(name).and_then(Value::as_str)
}
