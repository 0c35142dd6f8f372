//! The policy workbench: policies tried out on cases, and shown as tables, without an EMR.
//!
//! Owns: the form of a test case, judging one, coverage, and the table of what each role sees.
//! Must never: decide in another way than a request is decided (`access` rehearses, `filter` cuts); read a file.
//! Look next: `case` (the form), `judge` (what came of it), `coverage`, `table`.

mod case;
#[cfg(feature = "prove")]
mod change;
mod coverage;
mod judge;
#[cfg(feature = "prove")]
mod proof;
mod record;
mod table;

pub use case::{Case, Subject, read_cases};
#[cfg(feature = "prove")]
pub use change::{Change, changes};
pub use coverage::{Coverage, RoleCoverage};
pub use judge::{Finding, Verdict, judge};
#[cfg(feature = "prove")]
pub use proof::{Replay, Told, counterexample, place};
pub use record::{EXAMPLES, Records};
pub use table::{RoleView, roles};
