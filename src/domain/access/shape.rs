//! The outline of a policy: whom, what and why it asks about, read off its scope and conditions.
//!
//! Owns: one walk over a policy for lints, tables and the guide's questions. Must never: evaluate, or be what a
//! decision about a request rests on: what is not recognised here is simply not pointed at.
//! Look next: `lint`, which judges it; `expression`, which reads the same trees for decisions.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "Cedar's tree is open: what is not recognised is not pointed at"
)]

use super::expression::{children, kind};
use super::lint::WHY;
use super::load::Written;
use super::set::{Action, Vocabulary};
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use cedar_policy::pst::{BinaryOp, Clause, EntityUID, Expr, Literal, Template, Var};
use cedar_policy::{Effect, Policy, PrincipalConstraint, ResourceConstraint};
use std::collections::{BTreeMap, BTreeSet};

/// Whom the scope names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Everybody, or everybody of a kind.
    Everyone,
    /// Those with a role.
    Role(String),
    /// Somebody in particular.
    Somebody,
}

/// What the scope names as resource, as far as one such can lie in another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Everything,
    Type(ResourceType),
    Element(ElementPath),
    Other,
}

/// A policy's outline.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Whom the scope names.
    pub who: Who,
    /// The conditions look at the principal, or at how they stand to the patient.
    pub asks_who: bool,
    /// The conditions look at the purpose of use.
    pub asks_purpose: bool,
    /// The scope leaves the action open.
    pub any_action: bool,
    /// The scope leaves the resource open.
    pub any_resource: bool,
    /// There are no conditions.
    pub unconditional: bool,
    /// Every role that is named, exceptions included.
    pub roles: BTreeSet<String>,
    /// Roles that it can apply to because the scope or a condition without exception names them.
    pub granted: BTreeSet<String>,
    /// Purposes that `context.purpose` is compared with.
    pub purposes: BTreeSet<String>,
    /// Groups of elements that are named.
    pub groups: BTreeSet<String>,
    /// An attribute that would have to have two values.
    pub contradiction: Option<String>,
    /// It speaks of an action that moves elements of records.
    pub opens_records: bool,
    /// It speaks of `disclose` or `modify`.
    pub opens_elements: bool,
    actions: BTreeSet<Action>,
    target: Target,
}

/// What one policy is about, for those who read, test and change policies. Nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its id: the annotation `@id`, or file and number.
    pub id: String,
    /// File name as in [`super::Source::name`].
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// It permits; otherwise it forbids.
    pub permits: bool,
    /// Roles that it can apply to; none where it asks for no role.
    pub roles: BTreeSet<String>,
    /// Purposes that it compares with.
    pub purposes: BTreeSet<String>,
    /// The annotation `@why`.
    pub why: Option<String>,
}

impl Shape {
    /// The same, for people.
    pub(super) fn outline(&self, written: &Written<'_>) -> Outline {
        let place = written.problem("");
        Outline {
            id: written.policy.id().to_string(),
            file: place.file,
            line: place.line,
            permits: written.policy.effect() == Effect::Permit,
            roles: self.granted.clone(),
            purposes: self.purposes.clone(),
            why: written.policy.annotation(WHY).map(str::to_owned),
        }
    }

    pub(super) fn new(policy: &Policy, body: &Template, words: &Vocabulary) -> Self {
        let constraint = policy.action_constraint();
        let actions: BTreeSet<Action> =
            Action::ALL.into_iter().filter(|action| words.covers(&constraint, *action)).collect();
        let mut shape = Self {
            who: who(&policy.principal_constraint()),
            asks_who: false,
            asks_purpose: false,
            any_action: matches!(constraint, cedar_policy::ActionConstraint::Any),
            any_resource: matches!(policy.resource_constraint(), ResourceConstraint::Any),
            unconditional: !policy.has_non_scope_constraint(),
            roles: BTreeSet::new(),
            granted: BTreeSet::new(),
            purposes: BTreeSet::new(),
            groups: BTreeSet::new(),
            contradiction: None,
            opens_records: actions.iter().any(|action| action.elements().is_some()),
            opens_elements: actions.iter().any(|a| matches!(a, Action::Disclose | Action::Modify)),
            actions,
            target: target(&policy.resource_constraint()),
        };
        if let Who::Role(role) = &shape.who {
            shape.roles.insert(role.clone());
            shape.granted.insert(role.clone());
        }
        shape.note_scope(&policy.resource_constraint());
        for clause in body.clauses() {
            let (Clause::When(expr) | Clause::Unless(expr)) = clause;
            shape.visit(expr);
            if let Clause::When(expr) = clause {
                shape.granted.extend(required_roles(expr));
            }
        }
        shape.contradiction = contradiction(body.clauses());
        shape
    }

    /// Whether all that the other can apply to is in the reach of this one, going by the scopes.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let who = match (&self.who, &other.who) {
            (Who::Everyone, _) => true,
            (Who::Role(mine), Who::Role(theirs)) => mine == theirs,
            (Who::Role(_) | Who::Somebody, _) => false,
        };
        let target = match (&self.target, &other.target) {
            (Target::Everything, _) => true,
            (Target::Type(mine), Target::Type(theirs)) => mine == theirs,
            (Target::Element(mine), Target::Element(theirs)) => mine.is_ancestor_or_self(theirs),
            (Target::Type(_) | Target::Element(_) | Target::Other, _) => false,
        };
        who && target && other.actions.is_subset(&self.actions)
    }

    fn note_scope(&mut self, constraint: &ResourceConstraint) {
        if let ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) | ResourceConstraint::IsIn(_, uid) =
            constraint
        {
            self.note(&EntityUID::from(uid.clone()));
        }
    }

    fn note(&mut self, uid: &EntityUID) {
        match kind(uid).as_str() {
            "Role" => drop(self.roles.insert(uid.eid.to_string())),
            "ElementGroup" => drop(self.groups.insert(uid.eid.to_string())),
            _ => {}
        }
    }

    fn visit(&mut self, expr: &Expr) {
        if is_context(expr, "purpose") {
            self.asks_purpose = true;
        }
        if is_context(expr, "relations") || matches!(expr, Expr::Var(Var::Principal)) {
            self.asks_who = true;
        }
        if is_context(expr, "application") || is_context(expr, "scopes") {
            self.asks_who = true;
        }
        if let Expr::Literal(Literal::EntityUID(uid)) = expr {
            self.note(uid);
        }
        if let Expr::BinaryOp { op: BinaryOp::Eq | BinaryOp::NotEq | BinaryOp::Contains, left, right } = expr
            && (is_context(left, "purpose") || is_context(right, "purpose"))
        {
            self.purposes.extend(texts(left).into_iter().chain(texts(right)));
        }
        children(expr).into_iter().for_each(|child| self.visit(child));
    }
}

fn who(constraint: &PrincipalConstraint) -> Who {
    match constraint {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => Who::Everyone,
        PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => {
            Who::Role(uid.id().unescaped().to_owned())
        }
        PrincipalConstraint::Eq(_) => Who::Somebody,
    }
}

fn target(constraint: &ResourceConstraint) -> Target {
    let of_type = |name: &str| ResourceType::from_name(name).map_or(Target::Other, Target::Type);
    match constraint {
        ResourceConstraint::Any => Target::Everything,
        ResourceConstraint::Is(name) | ResourceConstraint::IsIn(name, _) => of_type(name.basename()),
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) => {
            ElementPath::parse(uid.id().unescaped()).map_or(Target::Other, Target::Element)
        }
    }
}

fn is_context(expr: &Expr, attribute: &str) -> bool {
    matches!(expr, Expr::GetAttr { expr, attr } if attr == attribute && matches!(**expr, Expr::Var(Var::Context)))
}

/// The texts of a literal or of a set of literals.
fn texts(expr: &Expr) -> Vec<String> {
    match expr {
        Expr::Literal(Literal::String(text)) => vec![text.to_string()],
        Expr::Set(items) => items.iter().flat_map(|item| texts(item)).collect(),
        _ => Vec::new(),
    }
}

/// Roles of which the principal must have one for `expr` to be true.
fn required_roles(expr: &Expr) -> BTreeSet<String> {
    match expr {
        Expr::BinaryOp { op: BinaryOp::And | BinaryOp::Or, left, right } => {
            required_roles(left).into_iter().chain(required_roles(right)).collect()
        }
        Expr::BinaryOp { op: BinaryOp::In, left, right } if matches!(**left, Expr::Var(Var::Principal)) => {
            match &**right {
                Expr::Literal(Literal::EntityUID(uid)) if kind(uid) == "Role" => {
                    BTreeSet::from([uid.eid.to_string()])
                }
                _ => BTreeSet::new(),
            }
        }
        _ => BTreeSet::new(),
    }
}

/// An attribute of `context` or `resource` that the conditions compare with two different texts, both of which
/// would have to hold.
fn contradiction(clauses: &[Clause]) -> Option<String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut pending: Vec<&Expr> = Vec::new();
    for clause in clauses {
        if let Clause::When(expr) = clause {
            pending.push(expr);
        }
    }
    while let Some(expr) = pending.pop() {
        match expr {
            Expr::BinaryOp { op: BinaryOp::And, left, right } => pending.extend([&**left, &**right]),
            Expr::BinaryOp { op: BinaryOp::Eq, left, right } => {
                let (Some(name), Expr::Literal(Literal::String(text))) = (attribute(left), &**right) else {
                    continue;
                };
                let earlier = values.insert(name.clone(), text.to_string());
                if earlier.is_some_and(|earlier| *earlier != **text) {
                    return Some(name);
                }
            }
            _ => {}
        }
    }
    None
}

fn attribute(expr: &Expr) -> Option<String> {
    let Expr::GetAttr { expr: base, attr } = expr else { return None };
    match **base {
        Expr::Var(Var::Context) => Some(format!("context.{attr}")),
        Expr::Var(Var::Resource) => Some(format!("resource.{attr}")),
        _ => None,
    }
}
