//! May they: a caller, an interaction and the policies give a permit or a denial.
//!
//! Owns: every question to Cedar, and the element masks made from its answers. Any doubt is a denial: an
//! evaluation error, an attribute that should be there, a criterion that reads what may not be seen.
//! Must never: read files, clocks or sockets; let a policy error widen an answer.
//! Look next: `load` (text to a checked set), `admit` (the front door), `permit` (each record on its own).

mod admit;
mod basis;
mod checks;
mod denial;
mod elements;
mod emergency;
mod engine;
mod expression;
mod groups;
mod key;
mod lint;
mod load;
mod masks;
mod operations;
mod permit;
#[cfg(feature = "prove")]
pub mod proving;
mod reach;
mod rehearsal;
mod relation;
mod rewrite;
mod scopes;
mod set;
mod shape;
mod situation;
mod source;
mod step_up;
#[cfg(test)]
mod tests;

pub use admit::admit;
pub use denial::{Denial, RecordDenial};
pub use lint::{Lint, LintName};
pub use masks::{Change, Disclosure, Masks};
pub use permit::Permit;
pub use rehearsal::{Rehearsal, Trial, TypeRehearsal, rehearse_record, rehearse_record_known, rehearse_type};
pub use relation::{Evidence, Party, Relation, Relations, Windows};
pub use scopes::is_scope;
pub use set::PolicySet;
pub use shape::Outline;
pub use situation::{Circumstances, Situation};
pub use source::{Problem, Source};
pub use step_up::{Challenge, Lacking, step_up};
