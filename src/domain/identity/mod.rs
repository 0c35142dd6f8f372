//! Who is asking: a token, the issuer's keys and the time become a `Caller`, or a refusal.
//!
//! Owns: every check of an access token and of the proof that it is the sender's, the register of clients, the MFA rule, the
//! challenge a refused client is sent, the cache of tokens already verified, the rules of sessions and revocations, and
//! every check of an issuer's security events. Sources: RFC 7515, 7519, 7662, 8705, 8725 (and its successor draft), 9068,
//! 9449, 9470; for events see `event`.
//! Must never: fetch a key, read a clock, trust a key that a token brings along, or print any part of a token.
//! Look next: `token.rs` (what is read before trust), `authenticate.rs` (the checks in order),
//! `edge::keyring` (where keys come from).
//!
//! ```text
//! header -> credentials -> token text -> Unverified::inspect -> (issuer, kid) -> keyring -> KeySet
//!            -> authenticate(unverified, issuer, keys, shown, now) -> Caller | IdentityRefusal
//! DPoP header -> Proof::verify -> Proof, shown with the token; an opaque token -> Introspection -> the same checks
//! ```

mod authenticate;
mod binding;
mod caller;
mod claims;
mod clients;
mod diagnose;
mod dpop;
pub mod event;
mod introspected;
mod issuer;
mod keys;
mod published;
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
pub use binding::{Binding, Credentials, Possession, Scheme, credentials};
pub use caller::{Actor, Caller, Mfa, Profile};
pub use clients::{BindingDemand, Client, ClientKind, ClientRefusal, Clients, SecondFactor};
pub use diagnose::{Finding, Trusted, Weight, diagnose};
pub use dpop::{Nonces, Proof, ProofRefusal, Proven, fuzz_proof};
pub use introspected::{Introspection, is_opaque, token_digest};
pub use issuer::{Algorithm, Issuer, IssuerSpec, MfaSpec};
pub use keys::{KeySet, KeySetError};
pub use published::{KeyFate, PublishedKey, published_keys};
pub use refusal::{IdentityRefusal, RefusalClass, StepUp};
pub use revocation::{Reach, Revocation, RevocationIndex, RevocationOrigin, RevocationTarget};
pub use session::{Beginning, Session, SessionEnded, SessionKey, SessionLimits, check_session};
pub use token::{Unverified, fuzz_token};
pub use verified::{Seen, VerifiedTokens};
