//! The rooms, under their own names.
//!
//! Owns: where they are. Must never: leave `domain`. Look next: `domain::filter`.

#[path = "../../../../src/domain/change/mod.rs"]
pub mod change;
#[path = "../../../../src/domain/fhir/mod.rs"]
pub mod fhir;
#[path = "../../../../src/domain/filter/mod.rs"]
pub mod filter;
