//! What does: one adapter for each neighbour.
//!
//! Owns: sockets, files, time-outs and tasks. Must never: decide who may see what, or import `gateway`.
//! Look next: the file named after the neighbour.

pub mod coding;
pub mod cosigning;
pub mod counting;
pub mod introspection;
pub mod journal;
pub mod keyring;
pub mod listener;
pub mod newest_control;
pub mod open_files;
pub mod operations;
pub mod orders;
pub mod policy_bundle;
pub mod policy_files;
pub mod readings;
pub mod reload;
pub mod replay;
pub mod seal;
pub mod sessions;
#[cfg(feature = "prove")]
pub mod solver;
pub mod telemetry;
pub mod tls;
pub mod trail_index;
pub mod upstream;
pub mod witness;
