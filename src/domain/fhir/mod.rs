//! FHIR R4: what is being asked, and the tables every other room reads.
//!
//! Owns: the meaning of FHIR requests, elements, search parameters and compartments.
//! Must never: know callers, policies or the network. Look next: `r4`, the tables.

pub mod facts;
pub mod mask;
pub mod r4;
pub mod shape;

mod address;
pub mod capabilities;
pub mod classify;
pub mod findings;
pub mod interaction;
mod operation;
pub mod outcome;
pub mod path;
pub mod search;
pub mod texts;
