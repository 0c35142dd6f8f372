//! Tokens verified before, so that the signature is not computed for every request.
//!
//! Owns: a bounded cache from a token's hash to its caller, with the issuer's settings and the key that it was verified by.
//! Must never: hold token text, or answer without checking time, MFA age and key again: a kept caller is
//! never good for longer than a fresh one would be.
//! Look next: `authenticate.rs`, which is asked on a miss.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use moka::sync::Cache;

use super::authenticate::{authenticate, check_mfa, check_window, choose_key};
use super::binding::Possession;
use super::caller::Caller;
use super::issuer::Issuer;
use super::keys::KeySet;
use super::refusal::IdentityRefusal;
use super::token::{Named, Unverified, sha256};
use crate::limits;

/// Callers of verified tokens. Refusals are not kept: they are cheap to find again, and a cache of them
/// could be filled from outside.
///
/// It has no clock and expires nothing by itself; every hit is checked against the `now` it is given.
pub struct VerifiedTokens {
    /// By the SHA-256 of the token.
    kept: Cache<[u8; 32], Seen>,
}

/// A token that was verified before, by its text. Nothing may rest on it but [`VerifiedTokens::again`].
#[derive(Clone)]
pub struct Seen(Arc<Kept>);

struct Kept {
    named: Named,
    /// Everything else the signature check depended on: a removed or replaced key and changed settings do not count as seen.
    issuer: [u8; 32],
    key: [u8; 32],
    caller: Arc<Caller>,
    weight: u32,
}

impl Seen {
    /// `iss`, for finding the issuer's keys.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.named.issuer
    }

    /// `kid`, for finding the key.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.0.named.key_id
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Seen")
    }
}

impl VerifiedTokens {
    /// An empty cache, bounded by `limits::VERIFIED_TOKENS_BYTES_MAX`.
    #[must_use]
    pub fn new() -> Self {
        let kept = Cache::builder()
            .max_capacity(limits::VERIFIED_TOKENS_BYTES_MAX)
            .weigher(|_: &[u8; 32], seen: &Seen| seen.0.weight)
            .build();
        Self { kept }
    }

    /// What was read of this token before, if it was verified then: it need not be taken apart again.
    #[must_use]
    pub fn recall(&self, token: &str) -> Option<Seen> {
        (token.len() <= limits::TOKEN_BYTES_MAX).then(|| self.kept.get(&sha256(token.as_bytes()))).flatten()
    }

    /// As `authenticate` for a token seen before; nothing if the issuer's settings or its key are others by now.
    ///
    /// # Errors
    /// Exactly those `authenticate` would give for the same arguments.
    pub fn again(
        &self,
        seen: &Seen,
        issuer: &Issuer,
        keys: &KeySet,
        shown: &Possession<'_>,
        now: Timestamp,
    ) -> Option<Result<Arc<Caller>, IdentityRefusal>> {
        let Kept { named, caller, .. } = &*seen.0;
        let key = match choose_key(named, issuer, keys) {
            Ok(key) => key,
            Err(refusal) => return Some(Err(refusal)),
        };
        let is_same = (seen.0.issuer, seen.0.key) == (issuer.fingerprint(), key.fingerprint());
        let held = || caller.binding.holds(named.hash, shown);
        is_same.then(|| held().and_then(|()| self.recheck(named.hash, caller, issuer, now)))
    }

    /// As `authenticate`, but quicker for a token seen before.
    ///
    /// # Errors
    /// Exactly those `authenticate` would give for the same arguments.
    pub fn authenticate(
        &self,
        unverified: &Unverified<'_>,
        issuer: &Issuer,
        keys: &KeySet,
        shown: &Possession<'_>,
        now: Timestamp,
    ) -> Result<Arc<Caller>, IdentityRefusal> {
        let seen = self.kept.get(&unverified.hash());
        if let Some(answer) = seen.and_then(|seen| self.again(&seen, issuer, keys, shown, now)) {
            return answer;
        }
        let named = unverified.named().clone();
        let key = choose_key(&named, issuer, keys)?.fingerprint();
        let caller = Arc::new(authenticate(unverified, issuer, keys, shown, now)?);
        let kept = Kept {
            issuer: issuer.fingerprint(),
            key,
            caller: Arc::clone(&caller),
            weight: weigh(unverified),
            named,
        };
        self.kept.insert(unverified.hash(), Seen(Arc::new(kept)));
        Ok(caller)
    }

    /// How many callers are kept, roughly; for metrics.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.kept.entry_count()
    }

    /// Whether none is kept, roughly.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Time only moves on, so a caller that fails here is dropped.
    fn recheck(
        &self,
        token: [u8; 32],
        caller: &Arc<Caller>,
        issuer: &Issuer,
        now: Timestamp,
    ) -> Result<Arc<Caller>, IdentityRefusal> {
        let checked = check_window(&caller.window, now).and_then(|()| check_mfa(&caller.mfa, issuer, now));
        if let Err(refusal) = checked {
            self.kept.invalidate(&token);
            return Err(refusal);
        }
        Ok(Arc::clone(caller))
    }
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("VerifiedTokens").field("len", &self.len()).finish()
    }
}

/// A caller holds parts of its token, decoded, in a handful of allocations.
fn weigh(unverified: &Unverified<'_>) -> u32 {
    let bytes =
        unverified.token().len().saturating_mul(2).saturating_add(limits::VERIFIED_TOKEN_OVERHEAD_BYTES);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
