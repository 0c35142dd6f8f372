//! Reading policy conditions as trees.
//!
//! Owns: which facts a policy looks at, the form of a policy that can be asked before any record is known,
//! and whether what is left of a condition can still become true. Must never: evaluate (Cedar does).
//! Look next: `load`, which reads conditions once; `engine`, which asks the questions.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "Cedar's tree is open: `Reader::visit` refuses what this version does not know, once for all"
)]

use super::basis::Asks;
use super::relation::Relation;
use cedar_policy::pst::{BinaryOp, Clause, EntityUID, Expr, Literal, UnaryOp, Var};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An attribute of `context` or of records that is in a cache key only where it is used. The others of the schema are
/// in every key: `purpose`, and for `operate` `operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    Application,
    Binding,
    Category,
    Code,
    Emergency,
    Id,
    Labels,
    Mentions,
    Mfa,
    Network,
    Now,
    Patients,
    Relations,
    Scopes,
    Status,
}

impl Attribute {
    const ALL: [(&'static str, Self); 15] = [
        ("application", Self::Application),
        ("binding", Self::Binding),
        ("category", Self::Category),
        ("code", Self::Code),
        ("emergency", Self::Emergency),
        ("id", Self::Id),
        ("labels", Self::Labels),
        ("mentions", Self::Mentions),
        ("mfa", Self::Mfa),
        ("network", Self::Network),
        ("now", Self::Now),
        ("patients", Self::Patients),
        ("relations", Self::Relations),
        ("scopes", Self::Scopes),
        ("status", Self::Status),
    ];

    /// By its name in the schema.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, attribute)| attribute)
    }
}

/// Some attributes: asked for each record, so it is one bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes(u32);

impl Attributes {
    /// Whether it is among them.
    pub(super) fn has(self, attribute: Attribute) -> bool {
        self.0 & (1 << attribute as u32) != 0
    }

    fn note(&mut self, name: &str) {
        self.0 |= Attribute::named(name).map_or(0, |attribute| 1 << attribute as u32);
    }
}

/// What the decisions of a policy set can depend on. Everything else may stay out of a cache key.
#[derive(Debug, Default, Clone)]
pub(super) struct Uses {
    /// Attributes of `context`, `mfa.age` apart.
    pub context: Attributes,
    /// Constants that `context.mfa.age` is compared with.
    pub age_limits: BTreeSet<i64>,
    /// `context.mfa.age` is used in some other way than comparing it with a constant.
    pub age_itself: bool,
    /// `context.mfa.phishingResistant`.
    pub resistance: bool,
    /// Who the principal is, beyond kind and roles.
    pub principal: bool,
    /// Attributes of records.
    pub record: Attributes,
    /// Which record it is, or whose.
    pub identity: bool,
}

impl Uses {
    /// What the decisions of both can depend on.
    pub(super) fn join(&mut self, other: &Self) {
        self.context.0 |= other.context.0;
        self.age_limits.extend(other.age_limits.iter().copied());
        self.record.0 |= other.record.0;
        self.age_itself |= other.age_itself;
        self.resistance |= other.resistance;
        self.principal |= other.principal;
        self.identity |= other.identity;
    }
}

/// What one policy says about elements, groups and variables.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Elements and groups reached by `in`: they speak for everything below them.
    pub covering: Vec<EntityUID>,
    /// Entities named in any other way: they speak for themselves only.
    pub exact: Vec<EntityUID>,
    /// What it asks about how the caller stands to the patient.
    pub asks: Asks,
    /// `context` stands alone, without an attribute: such a policy cannot be asked about types.
    pub bare_context: bool,
    /// An expression of a kind this version does not know.
    pub unread: bool,
}

/// Reads conditions. `records`: the policy can speak of records (and not only of elements).
pub(super) fn read(clauses: &[Clause], records: bool, uses: &mut Uses) -> Reading {
    let mut reader = Reader { uses, reading: Reading::default(), records };
    for clause in clauses {
        let (Clause::When(expr) | Clause::Unless(expr)) = clause;
        reader.visit(expr);
    }
    reader.reading
}

struct Reader<'u> {
    uses: &'u mut Uses,
    reading: Reading,
    records: bool,
}

impl Reader<'_> {
    fn visit(&mut self, expr: &Expr) {
        match expr {
            Expr::GetAttr { expr: base, attr } => self.attribute(base, attr),
            Expr::HasAttr { expr: base, attrs } => self.attribute(base, attrs.first()),
            Expr::BinaryOp { op, left, right } => self.binary(*op, left, right),
            Expr::Is { expr: inner, entity_type: _, in_expr } => self.kind_test(inner, in_expr.as_deref()),
            Expr::Var(variable) => self.bare(variable),
            Expr::Literal(Literal::EntityUID(uid)) => self.reading.exact.push(uid.clone()),
            Expr::Literal(_) => {}
            Expr::UnaryOp { .. }
            | Expr::Like { .. }
            | Expr::IfThenElse { .. }
            | Expr::Set(_)
            | Expr::Record(_) => children(expr).into_iter().for_each(|child| self.visit(child)),
            _ => self.reading.unread = true,
        }
    }

    fn attribute(&mut self, base: &Expr, attr: &str) {
        match base {
            Expr::Var(Var::Context) => {
                self.uses.context.note(attr);
                self.reading.asks.emergency |= attr == "emergency";
                self.reading.asks.any_relation |= attr == "relations";
            }
            Expr::Var(Var::Resource) => {
                self.uses.record.note(attr);
            }
            _ if is_mfa(base) && attr == "age" => self.uses.age_itself = true,
            _ if is_mfa(base) && attr == "phishingResistant" => {
                self.uses.resistance = true;
                self.uses.context.note("mfa");
            }
            other => self.visit(other),
        }
    }

    fn binary(&mut self, op: BinaryOp, left: &Expr, right: &Expr) {
        if let Some(limit) = age_limit(op, left, right) {
            self.uses.age_limits.insert(limit);
        } else if let Some(names) = relations_named(op, left, right) {
            self.uses.context.note("relations");
            self.reading.asks.relations.extend(names);
        } else if op == BinaryOp::In {
            self.membership(left, right);
        } else {
            self.visit(left);
            self.visit(right);
        }
    }

    fn membership(&mut self, left: &Expr, right: &Expr) {
        let named = literals(right);
        let roles_only = named.as_ref().is_some_and(|uids| uids.iter().all(|uid| kind(uid) == "Role"));
        match left {
            Expr::Var(Var::Principal) if roles_only => {}
            Expr::Var(variable) => self.bare(variable),
            other => self.visit(other),
        }
        match named {
            Some(uids) => self.reading.covering.extend(uids.into_iter().cloned()),
            None => self.visit(right),
        }
    }

    fn kind_test(&mut self, inner: &Expr, container: Option<&Expr>) {
        match (inner, container) {
            (Expr::Var(Var::Principal | Var::Resource | Var::Action), None) => {}
            (_, Some(container)) => self.membership(inner, container),
            (_, None) => self.visit(inner),
        }
    }

    fn bare(&mut self, variable: &Var) {
        match variable {
            Var::Principal => self.uses.principal = true,
            Var::Resource => self.uses.identity |= self.records,
            Var::Context => self.reading.bare_context = true,
            Var::Action => {}
        }
    }
}

fn is_mfa(expr: &Expr) -> bool {
    matches!(expr, Expr::GetAttr { expr, attr } if attr == "mfa" && matches!(**expr, Expr::Var(Var::Context)))
}

fn is_age(expr: &Expr) -> bool {
    matches!(expr, Expr::GetAttr { expr, attr } if attr == "age" && is_mfa(expr))
}

fn age_limit(op: BinaryOp, left: &Expr, right: &Expr) -> Option<i64> {
    use BinaryOp::{Eq, Greater, GreaterEq, Less, LessEq, NotEq};
    let compares = [Eq, NotEq, Less, LessEq, Greater, GreaterEq].contains(&op);
    match (left, right) {
        (Expr::Literal(Literal::Long(limit)), age) | (age, Expr::Literal(Literal::Long(limit)))
            if compares && is_age(age) =>
        {
            Some(*limit)
        }
        _ => None,
    }
}

/// The names in `context.relations.contains("…")`, `containsAny` or `containsAll`; `None` for anything else.
fn relations_named(op: BinaryOp, left: &Expr, right: &Expr) -> Option<Vec<String>> {
    let asks = matches!(op, BinaryOp::Contains | BinaryOp::ContainsAny | BinaryOp::ContainsAll);
    let relations = matches!(left, Expr::GetAttr { expr, attr }
        if attr == "relations" && matches!(**expr, Expr::Var(Var::Context)));
    let text = |expr: &Expr| match expr {
        Expr::Literal(Literal::String(text)) => Some(text.to_string()),
        _ => None,
    };
    match right {
        _ if !asks || !relations => None,
        Expr::Set(items) => items.iter().map(|item| text(item)).collect(),
        other => text(other).map(|name| vec![name]),
    }
}

/// Whether these conditions can come to hold because the caller stands in a relation of this kind: where one more
/// relation could turn them from false to true. What is not recognised could.
pub(super) fn holds_by_relation(clauses: &[Clause], kind: fn(Relation) -> bool) -> bool {
    clauses.iter().any(|clause| match clause {
        Clause::When(expr) => turned_by_relation(expr, true, kind),
        Clause::Unless(expr) => turned_by_relation(expr, false, kind),
    })
}

/// Whether one more relation of this kind can give `expr` this value.
fn turned_by_relation(expr: &Expr, value: bool, kind: fn(Relation) -> bool) -> bool {
    match expr {
        Expr::UnaryOp { op: UnaryOp::Not, expr } => turned_by_relation(expr, !value, kind),
        Expr::BinaryOp { op: BinaryOp::And | BinaryOp::Or, left, right } => {
            turned_by_relation(left, value, kind) || turned_by_relation(right, value, kind)
        }
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            names_relations(cond)
                || turned_by_relation(then_expr, value, kind)
                || turned_by_relation(else_expr, value, kind)
        }
        Expr::BinaryOp { op, left, right } => match relations_named(*op, left, right) {
            // A caller in more relations passes each of these tests as well as before.
            Some(names) => {
                let is_such = |name: &String| Relation::from_name(name).is_some_and(kind);
                value && names.iter().any(is_such)
            }
            None => names_relations(expr),
        },
        other => names_relations(other),
    }
}

/// Whether these conditions hold in an emergency only, or only where one is to begin.
pub(super) fn needs_emergency(clauses: &[Clause]) -> bool {
    clauses.iter().any(|clause| matches!(clause, Clause::When(expr) if is_urgent(expr)))
}

/// Whether `expr` is true only in an emergency. What is not recognised may be true at other times.
fn is_urgent(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { op: BinaryOp::And, left, right } => is_urgent(left) || is_urgent(right),
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => is_urgent(left) && is_urgent(right),
        Expr::BinaryOp { op: BinaryOp::Eq, left, right } => match (&**left, &**right) {
            (attribute, Expr::Literal(Literal::Bool(true))) => is_context(attribute, "emergency"),
            (attribute, Expr::Literal(Literal::String(text))) => {
                is_context(attribute, "operation") && text == "$break-glass"
            }
            _ => false,
        },
        other => is_context(other, "emergency"),
    }
}

fn is_context(expr: &Expr, attribute: &str) -> bool {
    matches!(expr, Expr::GetAttr { expr, attr } if attr == attribute && matches!(**expr, Expr::Var(Var::Context)))
}

fn names_relations(expr: &Expr) -> bool {
    match expr {
        Expr::GetAttr { expr: base, attr }
            if attr == "relations" && matches!(**base, Expr::Var(Var::Context)) =>
        {
            true
        }
        other => children(other).into_iter().any(names_relations),
    }
}

/// The entities of a literal or of a set of literals; `None` if anything else is in it.
pub(super) fn literals(expr: &Expr) -> Option<Vec<&EntityUID>> {
    match expr {
        Expr::Literal(Literal::EntityUID(uid)) => Some(vec![uid]),
        Expr::Set(items) => {
            items.iter().map(|item| literals(item)).collect::<Option<Vec<_>>>().map(|l| l.concat())
        }
        _ => None,
    }
}

/// Entity type of a literal, such as `FHIR::Element`.
pub(super) fn kind(uid: &EntityUID) -> String {
    uid.ty.to_string()
}

/// The same conditions with everything that only a record can tell moved onto `resource`, where a question
/// about a whole type leaves it unknown: `context.relations` and `context.labels`; and `context.emergency` for a
/// caller with emergency access to some patient (`in_emergency`). For all others it is false whatever the record.
pub(super) fn before_records(clauses: &[Clause], in_emergency: bool) -> Vec<Clause> {
    let attributes = if in_emergency { &RECORD_CONTEXT[..] } else { &["relations", "labels"] };
    let clause = |clause: &Clause| match clause {
        Clause::When(expr) => Clause::When(Arc::new(moved(expr, attributes))),
        Clause::Unless(expr) => Clause::Unless(Arc::new(moved(expr, attributes))),
    };
    clauses.iter().map(clause).collect()
}

/// Attributes of `context` that depend on the record.
pub(super) const RECORD_CONTEXT: [&str; 3] = ["relations", "labels", "emergency"];

fn moved(expr: &Expr, attributes: &[&str]) -> Expr {
    let resource = || Arc::new(Expr::Var(Var::Resource));
    match expr {
        Expr::GetAttr { expr: base, attr }
            if matches!(**base, Expr::Var(Var::Context)) && attributes.contains(&attr.as_str()) =>
        {
            Expr::GetAttr { expr: resource(), attr: attr.clone() }
        }
        Expr::HasAttr { expr: base, attrs }
            if matches!(**base, Expr::Var(Var::Context)) && attributes.contains(&attrs.first().as_str()) =>
        {
            Expr::HasAttr { expr: resource(), attrs: attrs.clone() }
        }
        other => with_children(other, &|child| Arc::new(moved(child, attributes))),
    }
}

/// The same conditions with long `&&` and `||` chains as balanced trees. Cedar reads `a || b || c` as
/// `(a || b) || c` and evaluates by recursion, so a list of forty types would need more stack than a thread has.
/// Both operators are associative, short-circuit order and errors included.
pub(super) fn balanced(clauses: &[Clause]) -> Vec<Clause> {
    let clause = |clause: &Clause| match clause {
        Clause::When(expr) => Clause::When(balance(expr)),
        Clause::Unless(expr) => Clause::Unless(balance(expr)),
    };
    clauses.iter().map(clause).collect()
}

fn balance(expr: &Arc<Expr>) -> Arc<Expr> {
    match &**expr {
        Expr::BinaryOp { op: op @ (BinaryOp::And | BinaryOp::Or), .. } => {
            let mut terms = Vec::new();
            flatten(*op, expr, &mut terms);
            tree(*op, &terms).unwrap_or_else(|| Arc::clone(expr))
        }
        other => Arc::new(with_children(other, &balance)),
    }
}

/// The terms of a chain, first to last. Walks the long left spine in a loop.
fn flatten(chain: BinaryOp, expr: &Arc<Expr>, terms: &mut Vec<Arc<Expr>>) {
    let mut pending = vec![expr];
    while let Some(next) = pending.pop() {
        match &**next {
            Expr::BinaryOp { op, left, right } if *op == chain => pending.extend([right, left]),
            _ => terms.push(balance(next)),
        }
    }
}

fn tree(op: BinaryOp, terms: &[Arc<Expr>]) -> Option<Arc<Expr>> {
    match terms {
        [] => None,
        [one] => Some(Arc::clone(one)),
        many => {
            let (left, right) = many.split_at_checked(many.len() / 2)?;
            Some(Arc::new(Expr::BinaryOp { op, left: tree(op, left)?, right: tree(op, right)? }))
        }
    }
}

/// Levels of nesting, counted in balanced conditions.
pub(super) fn depth(clauses: &[Clause]) -> usize {
    let levels = |clause: &Clause| {
        let (Clause::When(expr) | Clause::Unless(expr)) = clause;
        levels(expr)
    };
    clauses.len() + clauses.iter().map(levels).max().unwrap_or(0)
}

fn levels(expr: &Expr) -> usize {
    1 + children(expr).into_iter().map(levels).max().unwrap_or(0)
}

/// Whether a policy that is left over after partial evaluation can hold for some record. Read from Cedar's JSON
/// form, the only one that it prints with unknowns in it; what is not recognised can hold.
pub(super) fn can_hold(policy: &Json) -> bool {
    let conditions = policy.get("conditions").and_then(Json::as_array);
    conditions.is_none_or(|conditions| {
        conditions.iter().all(|condition| match condition.get("body") {
            Some(body) => can_be(body, condition.get("kind").and_then(Json::as_str) != Some("unless")),
            None => true,
        })
    })
}

/// Over-approximates: `false` means that the expression surely never has this value.
fn can_be(expr: &Json, value: bool) -> bool {
    let Some((operator, operands)) = expr.as_object().and_then(|node| node.iter().next()) else {
        return true;
    };
    let operand = |name: &str, value: bool| operands.get(name).is_none_or(|expr| can_be(expr, value));
    let (both, either) = (
        || operand("left", value) && operand("right", value),
        || operand("left", value) || operand("right", value),
    );
    match (operator.as_str(), value) {
        ("Value", _) => operands.as_bool().is_none_or(|literal| literal == value),
        ("!", _) => operand("arg", !value),
        ("&&", true) | ("||", false) => both(),
        ("&&", false) | ("||", true) => either(),
        ("if-then-else", _) => {
            (operand("if", true) && operand("then", value))
                || (operand("if", false) && operand("else", value))
        }
        _ => true,
    }
}

/// What an expression is made of, one level down.
pub(super) fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::UnaryOp { expr, .. }
        | Expr::GetAttr { expr, .. }
        | Expr::HasAttr { expr, .. }
        | Expr::Like { expr, .. } => vec![expr],
        Expr::BinaryOp { left, right, .. } => vec![left, right],
        Expr::Is { expr, in_expr, .. } => {
            std::iter::once(&**expr).chain(in_expr.iter().map(|inner| &**inner)).collect()
        }
        Expr::IfThenElse { cond, then_expr, else_expr } => vec![cond, then_expr, else_expr],
        Expr::Set(items) => items.iter().map(|item| &**item).collect(),
        Expr::Record(fields) => fields.values().map(|field| &**field).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn with_children(expr: &Expr, f: &dyn Fn(&Arc<Expr>) -> Arc<Expr>) -> Expr {
    match expr.clone() {
        Expr::UnaryOp { op, expr } => Expr::UnaryOp { op, expr: f(&expr) },
        Expr::GetAttr { expr, attr } => Expr::GetAttr { expr: f(&expr), attr },
        Expr::HasAttr { expr, attrs } => Expr::HasAttr { expr: f(&expr), attrs },
        Expr::Like { expr, pattern } => Expr::Like { expr: f(&expr), pattern },
        Expr::BinaryOp { op, left, right } => Expr::BinaryOp { op, left: f(&left), right: f(&right) },
        Expr::Is { expr, entity_type, in_expr } => {
            Expr::Is { expr: f(&expr), entity_type, in_expr: in_expr.as_ref().map(f) }
        }
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            Expr::IfThenElse { cond: f(&cond), then_expr: f(&then_expr), else_expr: f(&else_expr) }
        }
        Expr::Set(items) => Expr::Set(items.iter().map(f).collect()),
        Expr::Record(fields) => Expr::Record(fields.iter().map(|(k, v)| (k.clone(), f(v))).collect()),
        other => other,
    }
}
