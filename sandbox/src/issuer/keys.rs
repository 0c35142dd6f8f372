//! Signing keys made at start, their published form, and signatures right and wrong.
//!
//! Owns: key pairs, key ids, the JWKS, `Signing`.
//! Must never: let a private key out; use a key from a file.
//! Look next: `issuer::Issuer`, which hands tokens over.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use serde_json::{Value, json};

use super::IssuerError;
use crate::web::base64url;

/// How a token is signed. All but the first three are attacks or mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// RS256 with the current key (what tokens normally have).
    Rs256,
    /// ES256 with the current key.
    Es256,
    /// RS256 with the key before the last `rotate`; before the first rotation the current key.
    Previous,
    /// RS256 with a key that was never published, under a kid that nobody knows.
    Unpublished,
    /// RS256 with a key that was never published, under the kid of the current key.
    Impostor,
    /// HS256 with the PEM text of the current RSA public key as the secret.
    HmacWithPublicKey,
    /// `alg` `none` and an empty signature.
    None,
}

struct Pair {
    rsa: RsaKeyPair,
    rsa_kid: String,
    ec: EcdsaKeyPair,
    ec_kid: String,
}

pub(super) struct Keys {
    current: Pair,
    previous: Option<Pair>,
    /// Whether the previous pair is still in the JWKS.
    previous_published: bool,
    stranger: RsaKeyPair,
    generation: u32,
}

impl Pair {
    fn new(generation: u32) -> Result<Self, IssuerError> {
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| IssuerError::Keys)?;
        Ok(Self {
            rsa: rsa_pair()?,
            rsa_kid: format!("sandbox-rsa-{generation}"),
            ec,
            ec_kid: format!("sandbox-ec-{generation}"),
        })
    }

    fn jwks(&self) -> [Value; 2] {
        let (modulus, exponent) = components(self.rsa.public_key().as_ref()).unwrap_or_default();
        let (modulus, exponent) = (base64url(modulus), base64url(exponent));
        // SEC 1 uncompressed point: 0x04, 32 bytes x, 32 bytes y.
        let point = self.ec.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at_checked(32).unwrap_or_default();
        [
            json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.rsa_kid, "n": modulus, "e": exponent}),
            json!({"kty": "EC", "use": "sig", "alg": "ES256", "kid": self.ec_kid, "crv": "P-256",
                   "x": base64url(x), "y": base64url(y)}),
        ]
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 A.1.1: a sequence of two integers), without leading zeros.
fn components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = element(der, 0x30)?;
    let (modulus, rest) = element(sequence, 0x02)?;
    let (exponent, _) = element(rest, 0x02)?;
    let bare = |integer| <[u8]>::strip_prefix(integer, &[0]).unwrap_or(integer);
    Some((bare(modulus), bare(exponent)))
}

/// The content of a DER element with this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (first, rest) = rest.split_first()?;
    if *first < 0x80 {
        return rest.split_at_checked(usize::from(*first));
    }
    let (length, rest) = rest.split_at_checked(usize::from(*first & 0x7f))?;
    let length = length.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

fn rsa_pair() -> Result<RsaKeyPair, IssuerError> {
    rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(|_| IssuerError::Keys)
}

impl Keys {
    pub(super) fn new() -> Result<Self, IssuerError> {
        Ok(Self {
            current: Pair::new(1)?,
            previous: None,
            previous_published: false,
            stranger: rsa_pair()?,
            generation: 1,
        })
    }

    /// New keys sign from now on; the ones before stay published until `retire`.
    pub(super) fn rotate(&mut self) -> Result<(), IssuerError> {
        self.generation += 1;
        let new = Pair::new(self.generation)?;
        self.previous = Some(std::mem::replace(&mut self.current, new));
        self.previous_published = true;
        Ok(())
    }

    pub(super) fn retire(&mut self) {
        self.previous_published = false;
    }

    pub(super) fn jwks(&self) -> Value {
        let mut keys: Vec<Value> = self.current.jwks().into();
        if let Some(previous) = self.previous.as_ref().filter(|_| self.previous_published) {
            keys.extend(previous.jwks());
        }
        json!({"keys": keys})
    }

    /// The `alg` and `kid` a header should have.
    pub(super) fn labels(&self, signing: Signing) -> (&'static str, &str) {
        let old = self.previous.as_ref().unwrap_or(&self.current);
        match signing {
            Signing::Rs256 | Signing::Impostor => ("RS256", &self.current.rsa_kid),
            Signing::Es256 => ("ES256", &self.current.ec_kid),
            Signing::Previous => ("RS256", &old.rsa_kid),
            Signing::Unpublished => ("RS256", "sandbox-unpublished"),
            Signing::HmacWithPublicKey => ("HS256", &self.current.rsa_kid),
            Signing::None => ("none", &self.current.rsa_kid),
        }
    }

    /// The signature over `input`.
    pub(super) fn sign(&self, signing: Signing, input: &[u8]) -> Result<Vec<u8>, IssuerError> {
        match signing {
            Signing::Rs256 => sign_rsa(&self.current.rsa, input),
            Signing::Previous => sign_rsa(&self.previous.as_ref().unwrap_or(&self.current).rsa, input),
            Signing::Unpublished | Signing::Impostor => sign_rsa(&self.stranger, input),
            Signing::Es256 => {
                let signed = self.current.ec.sign(&SystemRandom::new(), input);
                signed.map(|signature| signature.as_ref().to_vec()).map_err(|_| IssuerError::Keys)
            }
            Signing::HmacWithPublicKey => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.public_pem()?.as_bytes());
                Ok(hmac::sign(&key, input).as_ref().to_vec())
            }
            Signing::None => Ok(Vec::new()),
        }
    }

    /// The current RSA public key as PEM (SubjectPublicKeyInfo).
    pub(super) fn public_pem(&self) -> Result<String, IssuerError> {
        let der: PublicKeyX509Der<'_> =
            self.current.rsa.public_key().as_der().map_err(|_| IssuerError::Keys)?;
        let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for (at, letter) in text.chars().enumerate() {
            if at > 0 && at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(letter);
        }
        pem.push_str("\n-----END PUBLIC KEY-----\n");
        Ok(pem)
    }
}

fn sign_rsa(pair: &RsaKeyPair, input: &[u8]) -> Result<Vec<u8>, IssuerError> {
    let mut signature = vec![0; pair.public_modulus_len()];
    let signed = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature);
    signed.map(|()| signature).map_err(|_| IssuerError::Keys)
}
