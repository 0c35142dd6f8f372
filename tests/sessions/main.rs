//! Sessions and revocations from end to end, over real TLS: one proxy and two, over a file and over PostgreSQL, with
//! kills in between; and what an issuer tells of its own accord.
//!
//! Owns: the evidence for sessions, revocation within a second, and security events (T-181, T-191 to T-194).
//! Must never: wait for a time-out by the clock where a simulated one does (`edge::sessions` has those tests).
//! Look next: `town`, the proxies and the database.
#![cfg(feature = "demo")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test may fail where it stands, and one that is skipped says so"
)]

mod at_rest;
mod contract;
mod corpus;
mod doctor;
mod events;
mod one_proxy;
mod town;
mod two_proxies;
