//! The rooms under the fuzzer, taken from the program's own sources, and the laws asked of them.
//!
//! Owns: which rooms these are. Must never: hold code of its own.
//! Look next: `laws`, beside this folder; `fuzz_targets`, a line for each.
//! `limits.rs` and `limits` are links: a file named by `#[path]` would look for its parts elsewhere.

extern crate self as chartgate;

pub mod domain;
#[path = "../../laws/mod.rs"]
pub mod laws;
pub mod limits;
