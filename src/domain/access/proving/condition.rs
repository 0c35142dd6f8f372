//! Conditions as trees: put together, and simplified for one place at which they are asked.
//!
//! Owns: building Cedar expressions without text, and folding what is certain at a place (types, actions, elements)
//! into `true` and `false`. Must never: fold an expression into another value than Cedar would give it there.
//! Look next: `place`, which says where; docs/decisions/0016, why the fold is exact.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "Cedar's tree is open: what is not recognised stays as it is, and the solver has it"
)]

use super::super::expression::{children, kind, literals, with_children};
use cedar_policy::EntityUid;
use cedar_policy::pst::{BinaryOp, EntityUID, Expr, Literal, UnaryOp, Var};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A Boolean expression.
pub(super) type Condition = Arc<Expr>;

/// `true` or `false`.
pub(super) fn truth(value: bool) -> Condition {
    Arc::new(Expr::Literal(Literal::Bool(value)))
}

/// The value of a literal.
pub(super) fn known(condition: &Expr) -> Option<bool> {
    match condition {
        Expr::Literal(Literal::Bool(value)) => Some(*value),
        _ => None,
    }
}

/// `left && right`.
pub(super) fn both(left: Condition, right: Condition) -> Condition {
    match (known(&left), known(&right)) {
        (Some(false), _) | (_, Some(true)) => left,
        (Some(true), _) => right,
        (None, Some(false)) if cannot_fail(&left) => right,
        _ => binary(BinaryOp::And, left, right),
    }
}

/// `left || right`.
pub(super) fn either(left: Condition, right: Condition) -> Condition {
    match (known(&left), known(&right)) {
        (Some(true), _) | (_, Some(false)) => left,
        (Some(false), _) => right,
        (None, Some(true)) if cannot_fail(&left) => right,
        _ => binary(BinaryOp::Or, left, right),
    }
}

/// `!condition`.
pub(super) fn not(condition: Condition) -> Condition {
    match &*condition {
        Expr::Literal(Literal::Bool(value)) => truth(!value),
        Expr::UnaryOp { op: UnaryOp::Not, expr } => Arc::clone(expr),
        _ => Arc::new(Expr::UnaryOp { op: UnaryOp::Not, expr: condition }),
    }
}

/// Every one of them, as a tree that is not deep.
pub(super) fn all(terms: &[Condition]) -> Condition {
    tree(terms, true)
}

/// One of them at least, as a tree that is not deep.
pub(super) fn any(terms: &[Condition]) -> Condition {
    tree(terms, false)
}

fn tree(terms: &[Condition], and: bool) -> Condition {
    match terms {
        [] => truth(and),
        [one] => Arc::clone(one),
        many => {
            let Some((left, right)) = many.split_at_checked(many.len() / 2) else { return truth(!and) };
            let (left, right) = (tree(left, and), tree(right, and));
            if and { both(left, right) } else { either(left, right) }
        }
    }
}

pub(super) fn binary(op: BinaryOp, left: Condition, right: Condition) -> Condition {
    Arc::new(Expr::BinaryOp { op, left, right })
}

pub(super) fn variable(variable: Var) -> Condition {
    Arc::new(Expr::Var(variable))
}

/// `of.name`.
pub(super) fn attribute(of: Condition, name: &str) -> Condition {
    Arc::new(Expr::GetAttr { expr: of, attr: name.into() })
}

/// `context.name`.
pub(super) fn context(name: &str) -> Condition {
    attribute(variable(Var::Context), name)
}

/// `resource.name`.
pub(super) fn of_record(name: &str) -> Condition {
    attribute(variable(Var::Resource), name)
}

pub(super) fn text(text: &str) -> Condition {
    Arc::new(Expr::Literal(Literal::String(text.into())))
}

pub(super) fn number(number: i64) -> Condition {
    Arc::new(Expr::Literal(Literal::Long(number)))
}

pub(super) fn texts<'t>(words: impl IntoIterator<Item = &'t str>) -> Condition {
    Arc::new(Expr::Set(words.into_iter().map(text).collect()))
}

pub(super) fn entity(uid: EntityUid) -> Condition {
    Arc::new(Expr::Literal(Literal::EntityUID(uid.into())))
}

pub(super) fn unary(op: UnaryOp, expr: Condition) -> Condition {
    Arc::new(Expr::UnaryOp { op, expr })
}

/// `left == right`.
pub(super) fn equal(left: Condition, right: Condition) -> Condition {
    binary(BinaryOp::Eq, left, right)
}

/// Whether an expression of a policy that passed validation surely has a value: nothing in it can overflow, and
/// nothing is of a kind not known here.
pub(super) fn cannot_fail(expr: &Expr) -> bool {
    let plain = match expr {
        Expr::BinaryOp { op, .. } => matches!(
            op,
            BinaryOp::Eq
                | BinaryOp::NotEq
                | BinaryOp::Less
                | BinaryOp::LessEq
                | BinaryOp::Greater
                | BinaryOp::GreaterEq
                | BinaryOp::And
                | BinaryOp::Or
                | BinaryOp::In
                | BinaryOp::Contains
                | BinaryOp::ContainsAll
                | BinaryOp::ContainsAny
        ),
        Expr::UnaryOp { op, .. } => matches!(op, UnaryOp::Not | UnaryOp::IsEmpty),
        Expr::Literal(_)
        | Expr::Var(_)
        | Expr::GetAttr { .. }
        | Expr::HasAttr { .. }
        | Expr::Like { .. }
        | Expr::Is { .. }
        | Expr::IfThenElse { .. }
        | Expr::Set(_)
        | Expr::Record(_) => true,
        _ => false,
    };
    plain && children(expr).into_iter().all(cannot_fail)
}

/// What is certain where a condition is asked.
pub(super) trait Certain {
    /// Cedar's name of the principal's type.
    fn principal(&self) -> &str;
    /// Cedar's name of the resource's type.
    fn resource(&self) -> &str;
    /// The action.
    fn action(&self) -> EntityUid;
    /// For a question about an element: which.
    fn element(&self) -> Option<EntityUid>;
    /// For a question about an element: whether it lies in this element or group.
    fn lies_in(&self, container: &EntityUID) -> bool;
}

/// The condition as it is at this place. A question about an element is asked of its record: `context.labels` are
/// the record's labels.
pub(super) fn fold(expr: &Arc<Expr>, at: &dyn Certain) -> Condition {
    match &**expr {
        Expr::BinaryOp { op: BinaryOp::And, left, right } => {
            let left = fold(left, at);
            if known(&left) == Some(false) { left } else { both(left, fold(right, at)) }
        }
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => {
            let left = fold(left, at);
            if known(&left) == Some(true) { left } else { either(left, fold(right, at)) }
        }
        Expr::UnaryOp { op: UnaryOp::Not, expr } => not(fold(expr, at)),
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            let cond = fold(cond, at);
            match known(&cond) {
                Some(true) => fold(then_expr, at),
                Some(false) => fold(else_expr, at),
                None => Arc::new(Expr::IfThenElse {
                    cond,
                    then_expr: fold(then_expr, at),
                    else_expr: fold(else_expr, at),
                }),
            }
        }
        Expr::Is { expr: inner, entity_type, in_expr } => {
            let name = entity_type.to_string();
            let is = match &**inner {
                Expr::Var(Var::Principal) => truth(at.principal() == name),
                Expr::Var(Var::Resource) => truth(at.resource() == name),
                _ => return Arc::new(with_children(expr, &|child| fold(child, at))),
            };
            match in_expr {
                Some(container) if known(&is) == Some(true) => member(inner, container, at),
                _ => is,
            }
        }
        Expr::BinaryOp { op: BinaryOp::In, left, right } => member(left, right, at),
        Expr::Var(Var::Action) => entity(at.action()),
        Expr::Var(Var::Resource) => at.element().map_or_else(|| Arc::clone(expr), entity),
        Expr::GetAttr { expr: base, attr } if is_context(base) && attr == "labels" => of_record("labels"),
        Expr::HasAttr { expr: base, attrs } if is_context(base) && attrs.first() == "labels" => {
            truth(at.element().is_some())
        }
        other => Arc::new(with_children(other, &|child| fold(child, at))),
    }
}

fn is_context(expr: &Expr) -> bool {
    matches!(expr, Expr::Var(Var::Context))
}

/// `left in right`. An element lies in what the R4 tables and the groups say; a record in its patients and no others.
fn member(left: &Arc<Expr>, right: &Arc<Expr>, at: &dyn Certain) -> Condition {
    let plain = || binary(BinaryOp::In, fold(left, at), fold(right, at));
    if !matches!(**left, Expr::Var(Var::Resource)) {
        return plain();
    }
    let Some(named) = literals(right) else { return plain() };
    if at.element().is_some() {
        return truth(named.into_iter().any(|uid| at.lies_in(uid)));
    }
    let one = |uid: &EntityUID| match kind(uid).as_str() {
        "Subject" => {
            let subject = Arc::new(Expr::Literal(Literal::EntityUID(uid.clone())));
            binary(BinaryOp::Contains, of_record("patients"), subject)
        }
        same if same == at.resource() => {
            equal(Arc::clone(left), Arc::new(Expr::Literal(Literal::EntityUID(uid.clone()))))
        }
        _ => truth(false),
    };
    any(&named.into_iter().map(one).collect::<Vec<_>>())
}

/// What holds wherever a condition holds: so much need not be asked again beside it.
#[derive(Default)]
pub(super) struct Given {
    held: Vec<(Condition, bool)>,
    purposes: Option<BTreeSet<String>>,
}

impl Given {
    /// Read off the terms of a conjunction.
    pub(super) fn by(condition: &Condition) -> Self {
        let mut given = Self::default();
        given.note(condition, true);
        given
    }

    fn note(&mut self, condition: &Condition, value: bool) {
        match &**condition {
            Expr::BinaryOp { op: BinaryOp::And, left, right } if value => {
                self.note(left, true);
                self.note(right, true);
            }
            Expr::BinaryOp { op: BinaryOp::Or, left, right } if !value => {
                self.note(left, false);
                self.note(right, false);
            }
            Expr::UnaryOp { op: UnaryOp::Not, expr } => self.note(expr, !value),
            _ => {
                if let Some(purposes) = purposes(condition).filter(|_| value) {
                    let both = self.purposes.take().map_or(purposes.clone(), |so_far| &so_far & &purposes);
                    self.purposes = Some(both);
                }
                self.held.push((Arc::clone(condition), value));
            }
        }
    }

    /// The condition as it is where all this holds.
    pub(super) fn apply(&self, condition: &Condition) -> Condition {
        if let Some((_, value)) = self.held.iter().find(|(held, _)| held == condition) {
            return truth(*value);
        }
        if let (Some(possible), Some(asked)) = (&self.purposes, purposes(condition)) {
            if possible.is_subset(&asked) {
                return truth(true);
            }
            if possible.is_disjoint(&asked) {
                return truth(false);
            }
        }
        match &**condition {
            Expr::BinaryOp { op: BinaryOp::And, left, right } => {
                let left = self.apply(left);
                if known(&left) == Some(false) { left } else { both(left, self.apply(right)) }
            }
            Expr::BinaryOp { op: BinaryOp::Or, left, right } => {
                let left = self.apply(left);
                if known(&left) == Some(true) { left } else { either(left, self.apply(right)) }
            }
            Expr::UnaryOp { op: UnaryOp::Not, expr } => not(self.apply(expr)),
            _ => Arc::clone(condition),
        }
    }
}

/// The purposes for which a condition holds, if it is about nothing else.
fn purposes(condition: &Expr) -> Option<BTreeSet<String>> {
    let is_purpose =
        |expr: &Expr| matches!(expr, Expr::GetAttr { expr, attr } if attr == "purpose" && is_context(expr));
    let word = |expr: &Expr| match expr {
        Expr::Literal(Literal::String(word)) => Some(word.to_string()),
        _ => None,
    };
    match condition {
        Expr::BinaryOp { op: BinaryOp::Eq, left, right } if is_purpose(left) => {
            word(right).map(|one| BTreeSet::from([one]))
        }
        Expr::BinaryOp { op: BinaryOp::Contains, left, right } if is_purpose(right) => match &**left {
            Expr::Set(items) => items.iter().map(|item| word(item)).collect(),
            _ => None,
        },
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => Some(&purposes(left)? | &purposes(right)?),
        _ => None,
    }
}
