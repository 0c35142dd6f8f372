//! May they: a caller, an interaction and the policies give a permit or a denial.
//!
//! Owns: every question to Cedar, and the element masks made from its answers. Any doubt is a denial: an
//! evaluation error, an attribute that should be there, a criterion that reads what may not be seen.
//! Must never: read files, clocks or sockets; let a policy error widen an answer.
//! Look next: `load` (text to a checked set), `admit` (the front door), `permit` (each record on its own).

mod admit;
mod checks;
mod denial;
mod elements;
mod engine;
mod expression;
mod groups;
mod key;
mod load;
mod masks;
mod operations;
mod permit;
mod rehearsal;
mod rewrite;
mod scopes;
mod set;
mod situation;
mod source;
#[cfg(test)]
mod tests;

pub use admit::admit;
pub use denial::{Denial, RecordDenial};
pub use masks::{Change, Disclosure, Masks};
pub use permit::Permit;
pub use rehearsal::{Rehearsal, TypeRehearsal, rehearse_record, rehearse_type};
pub use scopes::is_scope;
pub use set::PolicySet;
pub use situation::{Circumstances, Situation};
pub use source::{Problem, Source};
