//! The audit record: what is written down, and its one byte encoding.
//!
//! Owns: the record kinds, their bounds, their JSON encoding (versions 1 to 3), splitting into parts and joining again.
//! Must never: hold an element's value, a token or a key; know how records are stored.
//! Look next: `wire` for the encoding, `edge::journal` for storing it, `docs/audit.md` for auditors.

mod counting;
#[cfg(test)]
mod counting_tests;
mod emergency;
mod filter;
mod pack;
mod record;
mod retention;
mod shape;
#[cfg(test)]
mod tests;
mod text;
mod wire;

pub use counting::{Budget, Noted, Refusals, Refused, Source, Window};
pub use emergency::{Case, Cases, Review};
pub use filter::{ANY_EMERGENCY, Filter, covers, patient_id, words};
pub use record::{
    Actor, Caller, Control, Decision, Ending, Event, Outcome, Record, Released, Verdict, Written,
};
pub use retention::{Bundles, Held, Hold, Holds, Keep, Pruned, lifted};
pub use text::{escape, json};
pub use wire::{Assembly, DecodeError, EncodeError, Part, VERSION, decode, encode};
