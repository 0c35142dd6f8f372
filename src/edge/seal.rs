//! Sealed tokens: small secrets that travel through the client and come back unread and unchanged.
//!
//! Owns: the key, which is made at start-up or derived from the hospital's secret, and never leaves the process; the
//! token's layout.
//! Must never: open what was sealed for someone else, what is too old, or what was touched; say why it
//! did not open beyond that.
//! Look next: the gateway, which seals the EMR's paging links for the caller who asked.
//!
//! Layout before base64url: nonce (12 bytes), then AES-256-GCM of expiry (8 bytes, seconds since 1970,
//! big endian) and plaintext, then the tag (16 bytes). Random nonces: safe for 2^32 tokens per process.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use crate::limits::SEALED_BYTES_MAX;

const EXPIRY_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
const TOKEN_BYTES_MAX: usize = NONCE_LEN + EXPIRY_BYTES + SEALED_BYTES_MAX + TAG_BYTES;
const TOKEN_TEXT_BYTES_MAX: usize = TOKEN_BYTES_MAX.div_ceil(3) * 4;

/// Seals and opens with one key: of this process only, so that tokens end with it, or a lasting one.
pub struct Seal {
    key: RandomizedNonceKey,
}

/// Why a token was not made or not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The plaintext is longer than `SEALED_BYTES_MAX`.
    TooLong,
    /// Not a token of ours for this asker: malformed, altered, of another process, or another's.
    NotOurs,
    /// It was ours, and its time is over.
    Expired,
    /// The cryptographic library refused to work, which it does not on a sound machine.
    Unavailable,
}

impl Seal {
    /// A seal with a fresh random key.
    ///
    /// # Errors
    /// [`SealError::Unavailable`] when the machine gives no randomness.
    pub fn new() -> Result<Self, SealError> {
        let mut key = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| SealError::Unavailable)?;
        Self::with_key(&key)
    }

    /// A seal whose key is derived from a lasting secret (HKDF, RFC 5869), for tokens of one purpose that must open after a
    /// restart. For few tokens: all that are ever made under the secret count for the bound on random nonces.
    ///
    /// # Errors
    /// [`SealError::Unavailable`].
    pub fn lasting(secret: &[u8; 32], purpose: &'static str) -> Result<Self, SealError> {
        Self::with_key(&derived_key(b"chartgate seal", secret, purpose).ok_or(SealError::Unavailable)?)
    }

    fn with_key(key: &[u8; 32]) -> Result<Self, SealError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Unavailable)?;
        Ok(Self { key })
    }

    /// Seals `plaintext` so that it opens only with the same `aad` (say: who asked) and before `expires`,
    /// which is kept in whole seconds. The token is base64url without padding.
    ///
    /// # Errors
    /// [`SealError::TooLong`] beyond `SEALED_BYTES_MAX`; [`SealError::Unavailable`].
    pub fn seal(&self, plaintext: &[u8], aad: &[u8], expires: Timestamp) -> Result<String, SealError> {
        if plaintext.len() > SEALED_BYTES_MAX {
            return Err(SealError::TooLong);
        }
        let mut sealed = expires.as_second().to_be_bytes().to_vec();
        sealed.extend_from_slice(plaintext);
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(aad), &mut sealed)
            .map_err(|_| SealError::Unavailable)?;
        let mut token = nonce.as_ref().to_vec();
        token.append(&mut sealed);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Opens a token made by [`Seal::seal`] of this process with the same `aad`, strictly before it expires.
    ///
    /// # Errors
    /// [`SealError::NotOurs`] and [`SealError::Expired`].
    pub fn open(&self, token: &str, aad: &[u8], now: Timestamp) -> Result<Vec<u8>, SealError> {
        if token.len() > TOKEN_TEXT_BYTES_MAX {
            return Err(SealError::NotOurs);
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| SealError::NotOurs)?;
        let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>().ok_or(SealError::NotOurs)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| SealError::NotOurs)?;
        let (expiry, plaintext) = opened.split_first_chunk::<EXPIRY_BYTES>().ok_or(SealError::NotOurs)?;
        if now.as_second() >= i64::from_be_bytes(*expiry) {
            return Err(SealError::Expired);
        }
        Ok(plaintext.to_vec())
    }
}

/// A key for one purpose, derived from a secret (HKDF with SHA-256, RFC 5869): no two tell anything of each other, or of
/// the secret. Nothing when the cryptographic library refuses, which it does not on a sound machine.
pub(super) fn derived_key(salt: &[u8], secret: &[u8; 32], purpose: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .ok()
        .map(|()| key)
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(key withheld)")
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::TooLong => "too long to seal",
            SealError::NotOurs => "not a token of ours for this asker",
            SealError::Expired => "the token has expired",
            SealError::Unavailable => "the cryptographic library is not available",
        })
    }
}

impl std::error::Error for SealError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_lasting_seal_opens_again_under_its_secret_and_purpose_only() {
        let made = |secret: u8, purpose| Seal::lasting(&[secret; 32], purpose).unwrap();
        let token = made(1, "one").seal(b"x", b"who", at(100)).unwrap();
        assert_eq!(made(1, "one").open(&token, b"who", at(0)).unwrap(), b"x");
        for other in [made(2, "one"), made(1, "two"), Seal::new().unwrap()] {
            assert_eq!(other.open(&token, b"who", at(0)), Err(SealError::NotOurs));
        }
    }

    #[test]
    fn what_was_sealed_opens_for_the_same_asker_in_time() {
        let seal = Seal::new().unwrap();
        for length in [0, 1, 100, SEALED_BYTES_MAX] {
            let plain = vec![7; length];
            let token = seal.seal(&plain, b"issuer|nurse", at(100)).unwrap();
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            assert_eq!(seal.open(&token, b"issuer|nurse", at(99)).unwrap(), plain);
        }
    }

    #[test]
    fn everything_else_stays_closed() {
        let seal = Seal::new().unwrap();
        let token = seal.seal(b"Patient?_cursor=9", b"a", at(100)).unwrap();
        assert_eq!(seal.open(&token, b"b", at(1)), Err(SealError::NotOurs), "another asker");
        assert_eq!(seal.open(&token, b"a", at(100)), Err(SealError::Expired), "at the very second");
        assert_eq!(seal.open(&token, b"b", at(200)), Err(SealError::NotOurs), "expiry tells no stranger");
        let other = Seal::new().unwrap();
        assert_eq!(other.open(&token, b"a", at(1)), Err(SealError::NotOurs), "another process");
        for odd in ["", "AAAA", "!!!!", "é", &"A".repeat(TOKEN_TEXT_BYTES_MAX + 1)] {
            assert_eq!(seal.open(odd, b"a", at(1)), Err(SealError::NotOurs));
        }
        let long = vec![0; SEALED_BYTES_MAX + 1];
        assert_eq!(seal.seal(&long, b"a", at(100)), Err(SealError::TooLong));
    }

    #[test]
    fn any_flipped_bit_or_cut_is_noticed() {
        let seal = Seal::new().unwrap();
        let token = seal.seal(b"Patient?_cursor=9", b"a", at(100)).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = URL_SAFE_NO_PAD.encode(flipped);
            assert_eq!(seal.open(&flipped, b"a", at(1)), Err(SealError::NotOurs), "bit {bit}");
        }
        for length in 0..bytes.len() {
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..length]);
            assert_eq!(seal.open(&cut, b"a", at(1)), Err(SealError::NotOurs), "length {length}");
        }
    }

    #[test]
    fn two_seals_of_the_same_differ() {
        let seal = Seal::new().unwrap();
        let one = seal.seal(b"x", b"a", at(100)).unwrap();
        assert_ne!(one, seal.seal(b"x", b"a", at(100)).unwrap());
    }
}
