//! Tokens verified before, so that the signature is not computed for every request.
//!
//! Owns: a bounded cache from (token hash, issuer settings, key) to caller.
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
use super::token::Unverified;
use crate::limits;

/// Callers of verified tokens. Refusals are not kept: they are cheap to find again, and a cache of them
/// could be filled from outside.
///
/// It has no clock and expires nothing by itself; every hit is checked against the `now` it is given.
pub struct VerifiedTokens {
    kept: Cache<Proof, Kept>,
}

/// Everything the signature check depended on. A removed or replaced key and changed settings miss.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Proof {
    token: [u8; 32],
    issuer: [u8; 32],
    key: [u8; 32],
}

#[derive(Clone)]
struct Kept {
    caller: Arc<Caller>,
    weight: u32,
}

impl VerifiedTokens {
    /// An empty cache, bounded by `limits::VERIFIED_TOKENS_BYTES_MAX`.
    #[must_use]
    pub fn new() -> Self {
        let kept = Cache::builder()
            .max_capacity(limits::VERIFIED_TOKENS_BYTES_MAX)
            .weigher(|_: &Proof, kept: &Kept| kept.weight)
            .build();
        Self { kept }
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
        let key = choose_key(unverified, issuer, keys)?;
        let proof = Proof { token: unverified.hash(), issuer: issuer.fingerprint(), key: key.fingerprint() };
        if let Some(kept) = self.kept.get(&proof) {
            kept.caller.binding.holds(unverified.hash(), shown)?;
            return self.recheck(&proof, kept.caller, issuer, now);
        }
        let caller = Arc::new(authenticate(unverified, issuer, keys, shown, now)?);
        self.kept.insert(proof, Kept { caller: Arc::clone(&caller), weight: weigh(unverified) });
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
        proof: &Proof,
        caller: Arc<Caller>,
        issuer: &Issuer,
        now: Timestamp,
    ) -> Result<Arc<Caller>, IdentityRefusal> {
        let checked = check_window(&caller.window, now).and_then(|()| check_mfa(&caller.mfa, issuer, now));
        if let Err(refusal) = checked {
            self.kept.invalidate(proof);
            return Err(refusal);
        }
        Ok(caller)
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
