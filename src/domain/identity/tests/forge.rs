//! A forge of tokens: keys made for the run, and tokens good or bad to order.

use std::sync::OnceLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The forge's keys, by the name that is also their `kid`. `stranger` and `ec` are of one kind.
pub(super) struct Forge {
    ec: EcdsaKeyPair,
    ec384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    rsa: RsaKeyPair,
    stranger: EcdsaKeyPair,
}

impl Forge {
    pub(super) fn instance() -> &'static Self {
        static FORGE: OnceLock<Forge> = OnceLock::new();
        FORGE.get_or_init(|| Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ec384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            stranger: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        })
    }

    /// The registered algorithm of a key.
    pub(super) fn algorithm(key: &str) -> &'static str {
        match key {
            "ec" => "ES256",
            "ec384" => "ES384",
            "ed" => "EdDSA",
            "rsa" => "RS256",
            "ps" => "PS256",
            other => panic!("no key {other}"),
        }
    }

    /// The public key as a JWK with `kid`, `use` and `alg`.
    pub(super) fn jwk(&self, key: &str) -> Value {
        let mut jwk = match key {
            "ec" => point("P-256", self.ec.public_key().as_ref()),
            "ec384" => point("P-384", self.ec384.public_key().as_ref()),
            "ed" => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(self.ed.public_key().as_ref())}),
            "rsa" | "ps" => rsa_jwk(&self.rsa),
            "rsa1024" => {
                let mut jwk = rsa_jwk(&self.rsa);
                jwk["n"] = json!(encode(&[&[0x80; 127][..], &[1]].concat()));
                jwk["alg"] = json!("RS256");
                jwk
            }
            other => panic!("no key {other}"),
        };
        jwk["kid"] = json!(key);
        jwk["use"] = json!("sig");
        if key != "rsa1024" {
            jwk["alg"] = json!(Self::algorithm(key));
        }
        jwk
    }

    /// The key set of the tests: every key, and one for encryption.
    pub(super) fn key_set(&self) -> String {
        let mut keys: Vec<Value> =
            ["ec", "ec384", "ed", "rsa", "ps"].iter().map(|key| self.jwk(key)).collect();
        let mut encryption = self.jwk("ec");
        encryption["kid"] = json!("enc");
        encryption["use"] = json!("enc");
        keys.push(encryption);
        json!({ "keys": keys }).to_string()
    }

    /// Signs with a key; `stranger` is a P-256 key that is in no key set.
    pub(super) fn sign(&self, key: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match key {
            "ec" => self.ec.sign(&random, message).unwrap().as_ref().to_vec(),
            "ec384" => self.ec384.sign(&random, message).unwrap().as_ref().to_vec(),
            "stranger" => self.stranger.sign(&random, message).unwrap().as_ref().to_vec(),
            "ed" => self.ed.sign(message).as_ref().to_vec(),
            "rsa" | "ps" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let padding: &dyn aws_lc_rs::signature::RsaEncoding =
                    if key == "rsa" { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
                self.rsa.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            other => panic!("no key {other}"),
        }
    }

    /// An HMAC keyed with the public key, as the attack of T-169 makes it.
    pub(super) fn hmac(&self, key: &str, message: &[u8]) -> Vec<u8> {
        let public = match key {
            "rsa" => self.rsa.public_key().as_ref(),
            _ => self.ec.public_key().as_ref(),
        };
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public), message).as_ref().to_vec()
    }
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn point(curve: &str, public: &[u8]) -> Value {
    let (x, y) = public[1..].split_at((public.len() - 1) / 2);
    json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
}

fn rsa_jwk(key: &RsaKeyPair) -> Value {
    let parts: RsaPublicKeyComponents<Vec<u8>> = key.public_key().into();
    json!({"kty": "RSA", "n": encode(&parts.n), "e": encode(&parts.e)})
}
