//! Who is asking: a token, the issuer's keys and the time become a `Caller`, or a refusal.
//!
//! Owns: every check of an access token, the MFA rule, the challenge a refused client is sent, the cache of tokens
//! already verified, the rules of sessions and revocations, and every check of an issuer's security events. Sources:
//! RFC 7515, 7519, 8725 (and its successor draft), 9068, 9470; for events see `event`.
//! Must never: fetch a key, read a clock, take a key from the token itself, or print any part of a token.
//! Look next: `token.rs` (what is read before trust), `authenticate.rs` (the checks in order),
//! `edge::keyring` (where keys come from).
//!
//! ```text
//! header -> bearer -> token text -> Unverified::inspect -> (issuer, kid) -> keyring -> KeySet
//!            -> authenticate(unverified, issuer, keys, now) -> Caller | IdentityRefusal
//! ```

mod authenticate;
mod caller;
mod claims;
pub mod event;
mod issuer;
mod keys;
mod refusal;
mod revocation;
mod session;
mod strict;
mod token;
mod verified;

#[cfg(test)]
pub(crate) mod specimen;
#[cfg(test)]
mod tests;

pub use authenticate::authenticate;
pub use caller::{Caller, Mfa};
pub use issuer::{Algorithm, Issuer, IssuerSpec, MfaSpec};
pub use keys::{KeySet, KeySetError};
pub use refusal::{IdentityRefusal, StepUp};
pub use revocation::{Reach, Revocation, RevocationIndex, RevocationOrigin, RevocationTarget};
pub use session::{Session, SessionEnded, SessionKey, SessionLimits, check_session};
pub use token::{Unverified, bearer, fuzz_token};
pub use verified::VerifiedTokens;
