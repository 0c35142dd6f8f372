//! What decides: pure functions from data to data.
//!
//! Owns: every rule about who may see what. Must never: touch a socket, file, clock, task, log or
//! source of randomness; time, keys and bytes arrive as arguments.
//! Look next: `gateway`, which tells the story these rooms take part in.

pub mod access;
pub mod audit;
pub mod change;
pub mod fhir;
pub mod filter;
pub mod identity;
pub mod ledger;
pub mod narrow;
pub mod workbench;
