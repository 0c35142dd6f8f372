//! One question for a solver: can this condition hold, for any request at all, in one environment?
//!
//! Owns: its shape, its key (equal keys have equal answers), and what may come back. Must never: count a solver that
//! does not know as one that says no. Look next: `edge::solver`, which asks; `prove`, which says what an answer means.

use super::condition::{self as c, Condition};
use cedar_policy::pst::{self, Clause};
use cedar_policy::{Entities, Policy, Request, RequestEnv, Schema};
use std::fmt;

/// A question: is there any request of the environment for which this policy's condition holds (or fails)?
#[derive(Clone)]
pub struct Question {
    /// The condition, as a permit for everything.
    pub policy: Policy,
    /// Principal type, action, resource type.
    pub environment: RequestEnv,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("environment", &self.environment).finish_non_exhaustive()
    }
}

impl Question {
    pub(super) fn new(condition: &Condition, environment: RequestEnv) -> Result<Self, Doubt> {
        let doubt = |error: &dyn fmt::Display| Doubt(format!("the question cannot be put: {error}"));
        let (principal, action, resource) =
            (pst::PrincipalConstraint::Any, pst::ActionConstraint::Any, pst::ResourceConstraint::Any);
        let id: pst::PolicyID = cedar_policy::PolicyId::new("question").into();
        let template = pst::Template::new(id, pst::Effect::Permit, principal, action, resource)
            .try_with_clauses([Clause::When(condition.clone())])
            .map_err(|error| doubt(&error))?;
        let policy = pst::StaticPolicy::try_from(template).map_err(|error| doubt(&error))?;
        let policy = Policy::from_pst(pst::Policy::Static(policy)).map_err(|error| doubt(&error))?;
        Ok(Self { policy, environment })
    }
}

/// A request with its entities for which the condition of a question holds.
#[derive(Clone, Debug)]
pub struct Model {
    /// The request.
    pub request: Request,
    /// Everything it names, with its attributes.
    pub entities: Entities,
}

/// No answer: the solver gave up, ran out of time, or could not be asked. Never an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt(pub String);

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whoever answers questions.
pub trait Solve {
    /// A request for which the condition holds; `None`: it is proved that there is none.
    ///
    /// # Errors
    /// [`Doubt`]: it is not known.
    fn example(&mut self, question: &Question, schema: &Schema) -> Result<Option<Model>, Doubt>;

    /// Whether there is a request for which the condition fails to evaluate.
    ///
    /// # Errors
    /// [`Doubt`]: it is not known.
    fn may_fail(&mut self, question: &Question, schema: &Schema) -> Result<bool, Doubt>;
}

/// A condition without a solver's help: `Some(false)` holds for no request, `Some(true)` for every one.
pub(super) fn plain(condition: &Condition) -> Option<bool> {
    c::known(condition)
}
