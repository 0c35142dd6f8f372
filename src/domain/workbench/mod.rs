//! The policy workbench: policies tried out on cases, and shown as tables, without an EMR.
//!
//! Owns: the form of a test case, judging one, coverage, and the table of what each role sees.
//! Must never: decide in another way than a request is decided (`access` rehearses, `filter` cuts); read a file.
//! Look next: `case` (the form), `judge` (what came of it), `coverage`, `table`, `tree`, `explanation`, `replay`.

mod case;
#[cfg(feature = "prove")]
mod change;
mod coverage;
mod difference;
mod explanation;
mod flips;
mod judge;
#[cfg(feature = "prove")]
mod proof;
mod record;
mod recorded;
pub mod replay;
mod table;
mod tally;
mod tree;
mod trial;

pub use case::{ACTIONS, Case, OPERATIONS, Subject, Told, read_cases, seconds};
#[cfg(feature = "prove")]
pub use change::{Shift, shifts};
pub use coverage::{Coverage, RoleCoverage};
pub use explanation::{Answer, Change, Explanation, Suggestion, explain};
pub use judge::{Finding, Verdict, judge};
#[cfg(feature = "prove")]
pub use proof::{Refutation, Replay, counterexample, place};
pub use record::{EXAMPLES, Records};
pub use table::{RoleView, roles};
pub use tally::Tally;
pub use tree::{Node, Standing, Tree, record_trees, type_tree};
pub use trial::try_cases;
