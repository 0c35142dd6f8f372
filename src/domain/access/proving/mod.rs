//! What a policy set says for all requests at once: questions for a solver, and what its answers mean.
//!
//! Owns: the encoding of the gate's decision as one Cedar condition for each place (principal type, action, type and
//! element), of invariants, and of the difference of two sets. Must never: ask a solver itself (`edge::solver` does),
//! or take "not known" for an answer.
//! Look next: `place` (the decision), `invariant` (the files), `prove` and `differ` (the questions), `witness` (an
//! example in a hospital's words); docs/decisions/0016 for why it is exact.

mod condition;
mod differ;
mod invariant;
mod place;
mod prove;
mod question;
#[cfg(test)]
mod tests;
mod witness;

pub use differ::{Difference, Differing, differ};
pub use invariant::{Invariant, Must, read_invariants};
pub use place::Place;
pub use prove::{Counterexample, Failure, Outcome, Proof, Proving};
pub use question::{Doubt, Model, Question, Solve};
pub use witness::Witness;
