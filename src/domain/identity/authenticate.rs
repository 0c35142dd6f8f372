//! From a token to a caller: the checks in order.
//!
//! Owns: the only way to make a `Caller`.
//! Must never: accept a token because a check could not be made.
//! Look next: `claims.rs` for the types, `verified.rs` for tokens seen before.

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::crypto::aws_lc;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::binding::Possession;
use super::caller::{Caller, Mfa, Profile, Window};
use super::claims::{self, Claims};
use super::clients::Standing;
use super::issuer::Issuer;
use super::keys::{Key, KeySet};
use super::refusal::IdentityRefusal;
use super::token::{Named, Unverified, hexadecimal};
use crate::limits;

/// Establishes who is asking, from a token, its issuer's settings and keys, what the request shows besides it, and
/// the time.
///
/// # Errors
/// The first check that fails; see `IdentityRefusal`.
pub fn authenticate(
    unverified: &Unverified<'_>,
    issuer: &Issuer,
    keys: &KeySet,
    shown: &Possession<'_>,
    now: Timestamp,
) -> Result<Caller, IdentityRefusal> {
    let key = choose_key(unverified.named(), issuer, keys)?;
    verify_signature(unverified, issuer, key)?;
    // Nothing in the payload is believed above this line.
    let claims = Claims::read(unverified.payload())?;
    judge(claims, unverified.payload(), unverified.hash(), issuer, shown, now)
}

/// The checks of claims that somebody trusted vouches for: a key's signature, or the issuer's own word.
pub(super) fn judge(
    claims: Claims,
    payload: &Map<String, Value>,
    token: [u8; 32],
    issuer: &Issuer,
    shown: &Possession<'_>,
    now: Timestamp,
) -> Result<Caller, IdentityRefusal> {
    check_addressee(&claims, issuer)?;
    check_window(&claims.window, now)?;
    claims.binding.holds(token, shown)?;
    let client = issuer.standing(claims.application.as_deref());
    let mfa = read_mfa(&claims, &client)?;
    check_mfa(&mfa, issuer, now)?;
    build(payload, token, issuer, claims, mfa, client)
}

/// The time checks, which a kept token must pass again at every use.
pub(super) fn check_window(window: &Window, now: Timestamp) -> Result<(), IdentityRefusal> {
    let leeway = limits::TOKEN_LEEWAY_SECONDS;
    let now = now.as_second();
    let lifetime = window.expires_at.saturating_sub(window.issued_at);
    if now >= window.expires_at.saturating_add(leeway) {
        return Err(IdentityRefusal::Expired);
    }
    if window.issued_at > now.saturating_add(leeway) {
        return Err(IdentityRefusal::IssuedInFuture);
    }
    if window.not_before.is_some_and(|start| start > now.saturating_add(leeway)) {
        return Err(IdentityRefusal::NotYetValid);
    }
    if !(1..=limits::TOKEN_LIFETIME_SECONDS_MAX).contains(&lifetime) {
        return Err(IdentityRefusal::LifetimeRefused);
    }
    Ok(())
}

/// The MFA rule, which a kept token must pass again at every use. `auth_time` counts, not `iat`: a fresh
/// token from an old login is no fresh login (KF-09; NIST SP 800-63C).
pub(super) fn check_mfa(mfa: &Mfa, issuer: &Issuer, now: Timestamp) -> Result<(), IdentityRefusal> {
    if !mfa.by_key && !issuer.proves_mfa(&mfa.methods, mfa.acr.as_deref()) {
        return Err(IdentityRefusal::MfaMissing(issuer.step_up()));
    }
    let Some(at) = mfa.authenticated_at else {
        return Err(IdentityRefusal::MfaTooOld(issuer.step_up()));
    };
    if at.as_second() > now.as_second().saturating_add(limits::TOKEN_LEEWAY_SECONDS) {
        return Err(IdentityRefusal::ClaimMalformed { claim: "auth_time" });
    }
    if mfa.age_seconds(now) > issuer.mfa_max_age_seconds() {
        return Err(IdentityRefusal::MfaTooOld(issuer.step_up()));
    }
    Ok(())
}

/// The key with the token's `kid`, if the token's algorithm is the one that key is for (T-169, T-170).
pub(super) fn choose_key<'k>(
    named: &Named,
    issuer: &Issuer,
    keys: &'k KeySet,
) -> Result<&'k Key, IdentityRefusal> {
    if named.issuer != issuer.url() {
        return Err(IdentityRefusal::IssuerUnknown);
    }
    if !issuer.algorithms().contains(&named.algorithm) {
        return Err(IdentityRefusal::AlgorithmRefused);
    }
    let key = keys.key(&named.key_id).ok_or(IdentityRefusal::KeyUnknown)?;
    if key.algorithm() != named.algorithm {
        return Err(IdentityRefusal::KeyMismatch);
    }
    Ok(key)
}

/// Those of the required claims the crate knows; `iat` is left to us.
const REQUIRED: [&str; 4] = ["exp", "sub", "iss", "aud"];

/// Signature by jsonwebtoken, with issuer and audience as a second opinion on our own checks.
///
/// The claims are listed as required because the crate skips the issuer and audience checks when the claim
/// is absent or malformed. Its time checks are off: it would read a clock of its own.
fn verify_signature(unverified: &Unverified<'_>, issuer: &Issuer, key: &Key) -> Result<(), IdentityRefusal> {
    // Named explicitly so that no feature of another crate can change the provider; fails harmlessly when
    // it is installed already.
    let _ = aws_lc::DEFAULT_PROVIDER.install_default();
    let mut rules = jsonwebtoken::Validation::new(key.algorithm().of_jsonwebtoken());
    rules.set_required_spec_claims(&REQUIRED);
    rules.set_issuer(&[issuer.url()]);
    rules.set_audience(&[issuer.audience()]);
    rules.validate_exp = false;
    rules.validate_nbf = false;
    match jsonwebtoken::decode::<IgnoredAny>(unverified.token(), key.verifier(), &rules) {
        Ok(_) => Ok(()),
        Err(error) => Err(refusal_of(error.kind(), unverified)),
    }
}

/// Whether the signature is this key's, and nothing else: to explain a refusal, never to let anybody in.
pub(super) fn signature_fits(token: &str, key: &Key) -> bool {
    let _ = aws_lc::DEFAULT_PROVIDER.install_default();
    let mut rules = jsonwebtoken::Validation::new(key.algorithm().of_jsonwebtoken());
    rules.set_required_spec_claims::<&str>(&[]);
    rules.validate_aud = false;
    rules.validate_exp = false;
    rules.validate_nbf = false;
    jsonwebtoken::decode::<IgnoredAny>(token, key.verifier(), &rules).is_ok()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is foreign and open; the rest is refused too")]
fn refusal_of(kind: &jsonwebtoken::errors::ErrorKind, unverified: &Unverified<'_>) -> IdentityRefusal {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::InvalidAudience => IdentityRefusal::AudienceRefused,
        ErrorKind::InvalidIssuer => IdentityRefusal::IssuerUnknown,
        ErrorKind::MissingRequiredClaim(name) => {
            // The crate says this of a malformed claim too; the operator should read which it was (KF-08).
            let claim = REQUIRED.into_iter().find(|claim| claim == name).unwrap_or("exp");
            if unverified.payload().contains_key(claim) {
                IdentityRefusal::ClaimMalformed { claim }
            } else {
                IdentityRefusal::ClaimMissing { claim }
            }
        }
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => IdentityRefusal::PayloadMalformed,
        _ => IdentityRefusal::SignatureInvalid,
    }
}

fn check_addressee(claims: &Claims, issuer: &Issuer) -> Result<(), IdentityRefusal> {
    if claims.issuer != issuer.url() {
        return Err(IdentityRefusal::IssuerUnknown);
    }
    if !claims.audience.iter().any(|audience| audience == issuer.audience()) {
        return Err(IdentityRefusal::AudienceRefused);
    }
    Ok(())
}

fn read_mfa(claims: &Claims, client: &Standing) -> Result<Mfa, IdentityRefusal> {
    let by_key =
        client.registered().is_some_and(|client| client.stands_by_key(&claims.subject, claims.binding));
    // A program authenticates when it is given a token; it has no other login.
    let authenticated_at = claims.auth_time.or(by_key.then_some(claims.window.issued_at));
    let authenticated_at = authenticated_at
        .map(Timestamp::from_second)
        .transpose()
        .map_err(|_| IdentityRefusal::ClaimMalformed { claim: "auth_time" })?;
    let resistant = |value: &str| matches!(value, "phr" | "phrh");
    let phishing_resistant = claims.methods.iter().any(|method| method == "hwk" || resistant(method))
        || claims.acr.as_deref().is_some_and(resistant);
    Ok(Mfa {
        methods: Arc::new(claims.methods.clone()),
        acr: claims.acr.clone(),
        authenticated_at,
        phishing_resistant,
        by_key,
    })
}

fn build(
    payload: &Map<String, Value>,
    token: [u8; 32],
    issuer: &Issuer,
    claims: Claims,
    mfa: Mfa,
    client: Standing,
) -> Result<Caller, IdentityRefusal> {
    let payload = Value::Object(payload.clone());
    let token_hash = hexadecimal(token);
    let profile = Profile {
        issuer: claims.issuer,
        subject: claims.subject,
        roles: client.roles(claims::roles(&payload, issuer)?),
        application: claims.application,
        binding: claims.binding.name(),
        fhir_user: claims.fhir_user,
        scopes: claims.scopes,
        client_scopes: client.scopes().map(<[String]>::to_vec),
        launch_patient: claims.launch_patient,
        methods: Arc::clone(&mfa.methods),
    };
    Ok(Caller {
        profile: Arc::new(profile),
        purposes: client.purposes(claims::purposes(&payload, issuer)?),
        mfa,
        session: claims.session_id.or_else(|| claims.token_id.clone()).unwrap_or_else(|| token_hash.clone()),
        token_id: claims.token_id,
        token_hash,
        window: claims.window,
        binding: claims.binding,
        actors: claims.actors,
        client,
    })
}
