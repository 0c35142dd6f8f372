//! Journeys of requests from end to end, over real TLS: a sandbox EMR and issuer, the gate from a configuration
//! file, and the trail read back afterwards.
//!
//! Owns: the evidence that the promises P1 to P8 hold when all rooms work together.
//! Must never: time anything, or reach into the gate: what a client, an operator and an auditor can see is judged.
//! Look next: `harness`, the hospital; one module for each part of the journey.
#![cfg(feature = "demo")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may fail where it stands"
)]

mod authn;
mod bedside;
mod bodies;
mod bound;
mod bundles;
mod child;
mod clients;
mod commands;
mod consents;
mod emergency;
mod export;
mod flood;
mod harness;
mod histories;
mod kf;
mod long;
mod masks;
mod operations;
mod paging;
mod patches;
mod policy;
mod policy_live;
mod relations;
mod requests;
mod reserve;
mod rows;
mod search;
mod shutdown;
mod smart;
mod step_up;
mod trail;
mod twins;
mod upstream;
mod wire;
mod witness;
mod writes;
