//! DPoP proofs: that whoever sends a request holds the key its token is bound to (RFC 9449).
//!
//! Owns: every check of a proof that needs no memory (section 4.3), the addresses a proof may name, and nonces that
//! need none either. Replays are told by whoever remembers [`Proof::identifier`].
//! Must never: take a private or symmetric key, an algorithm that does not fit it, or a proof for another request.
//! Look next: `binding.rs`, where a proof meets its token; `edge::replay`, which remembers.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::crypto::aws_lc;
use serde_json::{Map, Value};

use super::issuer::Algorithm;
use super::keys::Material;
use super::refusal::IdentityRefusal;
use super::strict;
use super::token::{sha256, split};
use crate::limits;

const ED25519: &str = "Ed25519";

/// Names of the signature algorithms of proofs, all asymmetric, as clients are told in the challenge.
pub(super) fn proof_algorithms() -> String {
    let names: Vec<&str> = Algorithm::ALL.into_iter().map(Algorithm::name).chain([ED25519]).collect();
    names.join(" ")
}

/// Evidence that one request was signed by a key. Made by [`Proof::verify`] only.
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// RFC 7638 thumbprint of the key.
    key: [u8; 32],
    /// SHA-256 of the token it goes with.
    token: [u8; 32],
    identifier: [u8; 32],
    issued_at: i64,
}

impl fmt::Debug for Proof {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Proof").finish_non_exhaustive()
    }
}

/// Why a proof is not one. All are answered with status 401, except `NotRemembered`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofRefusal {
    /// The scheme is `DPoP` and there is not exactly one `DPoP` header.
    Missing,
    /// Not a compact JWS whose header and claims have the right form (section 4.2).
    Malformed,
    /// `typ`, `alg` or `jwk` of the header are not acceptable: another kind of token, a symmetric or unknown
    /// algorithm, a private or weak key.
    HeaderRefused,
    /// The signature is not the key's.
    SignatureInvalid,
    /// It was made for another request or another token: `htm`, `htu` or `ath` differ.
    OtherRequest,
    /// Its key is not the one the token is bound to.
    OtherKey,
    /// It was made too long ago, or in the future.
    Stale,
    /// It has been used before.
    Replayed,
    /// It lacks a nonce of ours, or an old one is in it (section 8).
    NonceWanted,
    /// The token is bound to a key and was sent as a bearer token.
    Downgraded,
    /// The token is bound to no key and was sent under `DPoP`.
    TokenUnbound,
    /// Proofs cannot be remembered at the moment, so replays could not be told.
    NotRemembered,
}

impl From<ProofRefusal> for IdentityRefusal {
    fn from(refusal: ProofRefusal) -> Self {
        Self::Proof(refusal)
    }
}

impl ProofRefusal {
    /// Stable code for audit records and `OperationOutcome`s.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "dpop-proof-missing",
            Self::Malformed => "dpop-proof-malformed",
            Self::HeaderRefused => "dpop-proof-header-refused",
            Self::SignatureInvalid => "dpop-proof-signature-invalid",
            Self::OtherRequest => "dpop-proof-of-other-request",
            Self::OtherKey => "dpop-proof-of-other-key",
            Self::Stale => "dpop-proof-stale",
            Self::Replayed => "dpop-proof-replayed",
            Self::NonceWanted => "dpop-nonce-wanted",
            Self::Downgraded => "dpop-token-as-bearer",
            Self::TokenUnbound => "dpop-token-unbound",
            Self::NotRemembered => "dpop-proofs-not-remembered",
        }
    }

    /// The error of the challenge (RFC 9449 sections 7.1 and 9, RFC 6750 section 3.1).
    pub(super) fn error(self) -> &'static str {
        match self {
            Self::NonceWanted => "use_dpop_nonce",
            Self::Downgraded | Self::TokenUnbound | Self::OtherKey => "invalid_token",
            Self::Missing
            | Self::Malformed
            | Self::HeaderRefused
            | Self::SignatureInvalid
            | Self::OtherRequest
            | Self::Stale
            | Self::Replayed
            | Self::NotRemembered => "invalid_dpop_proof",
        }
    }
}

impl fmt::Display for ProofRefusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Missing => "the request must carry one `DPoP` header",
            Self::Malformed => "the DPoP proof is malformed",
            Self::HeaderRefused => "the DPoP proof's type, algorithm or key is not accepted",
            Self::SignatureInvalid => "the DPoP proof's signature is not valid",
            Self::OtherRequest => "the DPoP proof is for another request or token",
            Self::OtherKey => "the DPoP proof is not by the key the token is bound to",
            Self::Stale => "the DPoP proof was made too long ago or in the future",
            Self::Replayed => "the DPoP proof has been used before",
            Self::NonceWanted => "the DPoP proof must hold the nonce given",
            Self::Downgraded => "the token is bound to a key and must come with a DPoP proof",
            Self::TokenUnbound => "the token is bound to no key",
            Self::NotRemembered => "DPoP proofs cannot be checked for replay at the moment",
        })
    }
}

/// The request a proof must be for.
#[derive(Clone, Copy)]
pub struct Proven<'r> {
    /// The method, as sent.
    pub method: &'r str,
    /// The public URL of the request, without query and fragment.
    pub url: &'r str,
    /// The access token beside it.
    pub token: &'r str,
}

impl fmt::Debug for Proven<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Proven").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Proof {
    /// Checks the values of a request's `DPoP` headers (RFC 9449 section 4.3). `nonces`: given when a nonce of ours
    /// is demanded.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify<'h>(
        values: impl IntoIterator<Item = &'h [u8]>,
        request: Proven<'_>,
        nonces: Option<&Nonces>,
        now: Timestamp,
    ) -> Result<Self, ProofRefusal> {
        let mut values = values.into_iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(ProofRefusal::Missing) };
        let text = std::str::from_utf8(value).map_err(|_| ProofRefusal::Malformed)?;
        if text.len() > limits::DPOP_PROOF_BYTES_MAX {
            return Err(ProofRefusal::Malformed);
        }
        let (header, payload) = split(text).map_err(|_| ProofRefusal::Malformed)?;
        let (algorithm, key) = read_header(&read_object(header)?)?;
        let claims = ProofClaims::read(&read_object(payload)?)?;
        verify_signature(text, algorithm, &key)?;
        claims.check(request, now)?;
        if let Some(nonces) = nonces
            && !claims.nonce.as_deref().is_some_and(|nonce| nonces.accepts(nonce, now))
        {
            return Err(ProofRefusal::NonceWanted);
        }
        let thumbprint = key.thumbprint();
        // A key is not a name: two clients may choose the same `jti`.
        let identifier = sha256(&[&thumbprint[..], claims.identifier.as_bytes()].concat());
        let token = sha256(request.token.as_bytes());
        Ok(Self { key: thumbprint, token, identifier, issued_at: claims.issued_at })
    }

    /// The name under which it is remembered: key and `jti`, hashed.
    #[must_use]
    pub fn identifier(&self) -> [u8; 32] {
        self.identifier
    }

    /// The first moment from which it would be refused as stale anyway.
    #[must_use]
    pub fn forgettable_at(&self) -> Timestamp {
        let seconds = self.issued_at.saturating_add(limits::DPOP_PROOF_AGE_SECONDS_MAX).saturating_add(1);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn vouches(&self, key: [u8; 32], token: [u8; 32]) -> Result<(), ProofRefusal> {
        if self.key != key {
            return Err(ProofRefusal::OtherKey);
        }
        if self.token == token { Ok(()) } else { Err(ProofRefusal::OtherRequest) }
    }
}

/// Looks at arbitrary bytes as a proof: must return for every input. The entry point of the fuzz target `dpop`.
pub fn fuzz_proof(bytes: &[u8]) {
    let request = Proven { method: "GET", url: "https://fhir.test/fhir/Patient", token: "t" };
    let _refused = Proof::verify([bytes], request, None, Timestamp::UNIX_EPOCH);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _normal = normal_url(text);
    }
}

fn read_object(part: &str) -> Result<Map<String, Value>, ProofRefusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| ProofRefusal::Malformed)?;
    strict::object(&bytes, limits::TOKEN_JSON_DEPTH_MAX).ok_or(ProofRefusal::Malformed)
}

/// Parameters that change what a JWS means, as for tokens; here the key comes along, and only as `jwk`.
const REFUSED_PARAMETERS: [&str; 11] =
    ["crit", "b64", "zip", "enc", "cty", "epk", "p2c", "p2s", "jku", "x5u", "x5c"];

fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Material), ProofRefusal> {
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let typed = text("typ").is_some_and(|typ| typ.eq_ignore_ascii_case("dpop+jwt"));
    if !typed || REFUSED_PARAMETERS.iter().any(|name| header.contains_key(*name)) {
        return Err(ProofRefusal::HeaderRefused);
    }
    let algorithm = text("alg").and_then(algorithm_named).ok_or(ProofRefusal::HeaderRefused)?;
    let jwk = header.get("jwk").and_then(Value::as_object).ok_or(ProofRefusal::HeaderRefused)?;
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
    if private.iter().any(|member| jwk.contains_key(*member)) {
        return Err(ProofRefusal::HeaderRefused);
    }
    let key = Material::read(jwk).filter(|key| key.fits(algorithm)).ok_or(ProofRefusal::HeaderRefused)?;
    Ok((algorithm, key))
}

/// RFC 9864 gives EdDSA with Ed25519 a name of its own; client libraries use either.
fn algorithm_named(name: &str) -> Option<Algorithm> {
    if name == ED25519 { Some(Algorithm::EdDSA) } else { Algorithm::from_name(name) }
}

fn verify_signature(proof: &str, algorithm: Algorithm, key: &Material) -> Result<(), ProofRefusal> {
    let _ = aws_lc::DEFAULT_PROVIDER.install_default();
    let (message, signature) = proof.rsplit_once('.').ok_or(ProofRefusal::Malformed)?;
    // What it could not verify it says by an error; both are a no.
    let verified = jsonwebtoken::crypto::verify(
        signature,
        message.as_bytes(),
        &key.verifier(),
        algorithm.of_jsonwebtoken(),
    );
    if verified.unwrap_or(false) { Ok(()) } else { Err(ProofRefusal::SignatureInvalid) }
}

/// The claims of section 4.2, typed.
struct ProofClaims {
    method: String,
    url: String,
    token_hash: String,
    identifier: String,
    issued_at: i64,
    nonce: Option<String>,
}

impl ProofClaims {
    fn read(claims: &Map<String, Value>) -> Result<Self, ProofRefusal> {
        let text = |name: &str, bytes_max: usize| {
            let text = claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.filter(|text| text.len() <= bytes_max).map(str::to_owned).ok_or(ProofRefusal::Malformed)
        };
        let name = limits::TOKEN_NAME_BYTES_MAX;
        let seconds = claims.get("iat").and_then(Value::as_i64).ok_or(ProofRefusal::Malformed)?;
        if !(0..=limits::TOKEN_TIME_SECONDS_MAX).contains(&seconds) {
            return Err(ProofRefusal::Malformed);
        }
        let nonce = claims.get("nonce").map(|_| text("nonce", name)).transpose()?;
        Ok(Self {
            method: text("htm", name)?,
            url: text("htu", limits::DPOP_PROOF_BYTES_MAX)?,
            token_hash: text("ath", name)?,
            identifier: text("jti", name)?,
            issued_at: seconds,
            nonce,
        })
    }

    fn check(&self, request: Proven<'_>, now: Timestamp) -> Result<(), ProofRefusal> {
        let ours = normal_url(request.url).ok_or(ProofRefusal::OtherRequest)?;
        // Section 4.3: query and fragment of `htu`, which should not be there, are left aside.
        let named = self.url.split(['?', '#']).next().and_then(normal_url);
        let token_hash = URL_SAFE_NO_PAD.encode(sha256(request.token.as_bytes()));
        if self.method != request.method || named != Some(ours) || self.token_hash != token_hash {
            return Err(ProofRefusal::OtherRequest);
        }
        let age = now.as_second().saturating_sub(self.issued_at);
        let fresh = -limits::TOKEN_LEEWAY_SECONDS..=limits::DPOP_PROOF_AGE_SECONDS_MAX;
        if fresh.contains(&age) { Ok(()) } else { Err(ProofRefusal::Stale) }
    }
}

/// An http or https URL without query and fragment, after the normalisation of RFC 3986 sections 6.2.2 and 6.2.3:
/// case of scheme and host, percent-encoding, default port, empty path. Dot segments, which no honest client
/// leaves in, are not resolved but refused.
pub(super) fn normal_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, "/"));
    let authority = authority.to_ascii_lowercase();
    let authority =
        authority.strip_suffix(default_port).or(authority.strip_suffix(':')).unwrap_or(&authority);
    // One port at most: with two there is no one normal form.
    let ends_again = authority.ends_with(':') || authority.ends_with(default_port);
    if authority.is_empty() || ends_again || authority.contains(['@', '%', '\\']) || !authority.is_ascii() {
        return None;
    }
    let path = normal_path(path)?;
    let dotted = path.split('/').any(|segment| matches!(segment, "." | ".."));
    (!dotted).then(|| format!("{scheme}://{authority}{path}"))
}

/// Percent-encodes in one spelling: capitals, and nothing that need not be encoded.
fn normal_path(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            let plain = byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\' | b'"' | b'<' | b'>');
            out.push(char::from(Some(byte).filter(|_| plain)?));
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let value = u8::try_from(digit()?.checked_mul(16)?.checked_add(digit()?)?).ok()?;
        match value {
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(value)),
            value if value.is_ascii_alphanumeric() => out.push(char::from(value)),
            value => out.push_str(&format!("%{value:02X}")),
        }
    }
    Some(out)
}

/// Nonces that need no memory: a window of time under a key (RFC 9449 section 8). Proxies with one key accept each
/// other's.
pub struct Nonces {
    key: hmac::Key,
}

impl fmt::Debug for Nonces {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Nonces").finish_non_exhaustive()
    }
}

impl Nonces {
    /// Nonces under this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The nonce to use now.
    #[must_use]
    pub fn current(&self, now: Timestamp) -> String {
        self.of_window(window(now))
    }

    /// Of this window, the one before, or, since clocks differ between proxies, the one after.
    fn accepts(&self, nonce: &str, now: Timestamp) -> bool {
        let window = window(now);
        (-1..=1).any(|step| self.of_window(window.saturating_add(step)) == nonce)
    }

    fn of_window(&self, window: i64) -> String {
        let tag = hmac::sign(&self.key, &[&b"chartgate dpop nonce "[..], &window.to_be_bytes()].concat());
        URL_SAFE_NO_PAD.encode(tag.as_ref())
    }
}

fn window(now: Timestamp) -> i64 {
    now.as_second().div_euclid(limits::DPOP_NONCE_SECONDS)
}
