//! As whom we ask an issuer: with a secret, or with an assertion signed by a key of our own.
//!
//! Owns: both ways (RFC 6749 section 2.3.1; `private_key_jwt`, RFC 7523 section 2.2, OpenID Connect Core section 9).
//! Must never: show the secret or the key; make one assertion for two requests.
//! Look next: `introspection`, which sends them.

use std::fmt;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use jiff::Timestamp;
use jsonwebtoken::crypto::aws_lc;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::limits;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// As whom we ask.
pub enum Credentials {
    /// `client_secret_basic`.
    Secret(String),
    /// `private_key_jwt`.
    Key(Box<ClientKey>),
}

/// A key of ours, whose other half the issuer knows.
pub struct ClientKey {
    header: Header,
    key: EncodingKey,
    audience: String,
}

/// What an assertion says (RFC 7523 section 3).
#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: i64,
    exp: i64,
}

/// What a request carries.
pub(super) struct Presented {
    pub(super) header: Option<HeaderValue>,
    /// Goes on after the form's other fields.
    pub(super) form: String,
}

impl Credentials {
    /// For one request at `now`.
    ///
    /// # Errors
    /// One line: an id or a secret that cannot be sent, or a key that does not sign.
    pub(super) fn present(&self, client_id: &str, now: Timestamp) -> Result<Presented, &'static str> {
        match self {
            Self::Secret(secret) => {
                Ok(Presented { header: Some(basic(client_id, secret)?), form: String::new() })
            }
            Self::Key(key) => {
                let kind = utf8_percent_encode(ASSERTION_TYPE, NON_ALPHANUMERIC);
                // A JWT has nothing in it that a form would need to encode.
                let assertion = key.assertion(client_id, now)?;
                let form = format!("&client_assertion_type={kind}&client_assertion={assertion}");
                Ok(Presented { header: None, form })
            }
        }
    }
}

impl ClientKey {
    /// A private key in PEM (PKCS#8): ECDSA on P-256 signs ES256, Ed25519 EdDSA, RSA RS256. `id` is its `kid`, if the
    /// issuer asks for one; `audience` is the issuer, or its token endpoint where it wants that.
    ///
    /// # Errors
    /// One line, without anything of the key.
    pub fn read(pem: &[u8], id: Option<String>, audience: String) -> Result<Self, String> {
        // As in `domain::identity`: named explicitly, and harmless when it is installed already.
        let _ = aws_lc::DEFAULT_PROVIDER.install_default();
        let read = [
            (Algorithm::ES256, EncodingKey::from_ec_pem(pem)),
            (Algorithm::EdDSA, EncodingKey::from_ed_pem(pem)),
            (Algorithm::RS256, EncodingKey::from_rsa_pem(pem)),
        ];
        let found = read.into_iter().find_map(|(algorithm, key)| Some((algorithm, key.ok()?)));
        let wrong = "must be a private key in PEM (PKCS#8): P-256, Ed25519, or RSA of 2048 bits at least";
        let (algorithm, key) = found.ok_or(wrong)?;
        let made = Self { header: Header { kid: id, ..Header::new(algorithm) }, key, audience };
        // A key on another curve, or one that is too short, shows when it signs.
        made.assertion("", Timestamp::UNIX_EPOCH).map_err(|_| wrong)?;
        Ok(made)
    }

    fn assertion(&self, client_id: &str, now: Timestamp) -> Result<String, &'static str> {
        let mut id = [0_u8; 16];
        rand::fill(&mut id).map_err(|_| "no random numbers")?;
        let iat = now.as_second();
        let claims = Assertion {
            iss: client_id,
            sub: client_id,
            aud: &self.audience,
            jti: URL_SAFE_NO_PAD.encode(id),
            iat,
            exp: iat.saturating_add(limits::CLIENT_ASSERTION_SECONDS),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key).map_err(|_| "the key does not sign")
    }
}

/// RFC 6749 section 2.3.1: both parts are form-encoded first.
fn basic(id: &str, secret: &str) -> Result<HeaderValue, &'static str> {
    let part = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let value = format!("Basic {}", STANDARD.encode(format!("{}:{}", part(id), part(secret))));
    let mut value = HeaderValue::from_str(&value).map_err(|_| "credentials cannot be sent")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Shows no secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(withheld)",
            Self::Key(_) => "Key(withheld)",
        })
    }
}

/// Shows no key.
impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey").field("algorithm", &self.header.alg).finish_non_exhaustive()
    }
}
