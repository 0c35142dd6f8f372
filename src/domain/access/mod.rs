//! May they: a caller, an interaction and the policies give a permit or a denial.
//!
//! Owns: every question to Cedar, and the element masks made from its answers. Any doubt is a denial: an
//! evaluation error, an attribute that should be there, a criterion that reads what may not be seen.
//! Must never: read files, clocks or sockets; let a policy error widen an answer.
//! Look next: `load` (text to a checked set), `admit` (the front door), `permit` (each record on its own).

mod admit;
mod basis;
mod bundle;
mod checks;
mod consent;
mod denial;
mod elements;
mod emergency;
mod engine;
mod expression;
mod foresight;
mod groups;
mod inquiry;
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
mod shadow;
mod shape;
mod situation;
mod source;
mod step_up;
#[cfg(test)]
mod tests;
mod validation;
mod words;

pub use admit::admit;
pub use bundle::{Manifest, Release, VersionFault, Versions};
pub use consent::{Directive, Directives, Reading};
pub use denial::{Denial, RecordDenial};
pub use foresight::{Admission, Fact, Foreseen, Foresight, Recalled, Sameness};
pub use inquiry::{Hint, Hints, Say, Stand};
pub use lint::{Lint, LintName};
pub use masks::{Change, Disclosure, Masks};
pub use permit::Permit;
pub use rehearsal::{Rehearsal, Trial, TypeRehearsal, rehearse_record, rehearse_record_known, rehearse_type};
pub use relation::{Evidence, Party, Relation, Relations, Windows};
pub use scopes::is_scope;
pub use set::PolicySet;
pub use shadow::{Candidate, Comparison};
pub use shape::Outline;
pub use situation::{Circumstances, Situation};
pub use source::{Problem, Source};
pub use step_up::{Challenge, Lacking, step_up};
