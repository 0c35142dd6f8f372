//! The neighbours of the gate, made small: an EMR that speaks FHIR R4 and an OIDC issuer, both in memory.
//!
//! Owns: `emr` (records, versions, search, faults on demand), `issuer` (keys, personas, login with password and
//! one-time code, tokens good and forged), `charts` (the project's own synthetic patients), `listen` (loopback HTTP).
//! Must never: bind an address that is not loopback; print; depend on `chartgate`; carry real people's data or a key.
//! Look next: `emr::Emr`, `issuer::Issuer`, `charts::load`.

pub mod charts;
pub mod emr;
pub mod issuer;
pub mod listen;
pub mod web;

/// The one place where the sandbox reads the clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the sandbox is a program of its own; chartgate's clock is not its"
)]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
