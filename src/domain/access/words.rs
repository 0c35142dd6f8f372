//! Conditions in the words of a hospital.
//!
//! Owns: one phrase for each kind of condition that policies are made of, said as it is or as its opposite. What is not
//! recognised is shown in Cedar's own words. Must never: decide anything; it is read by people only.
//! Look next: `inquiry`, which says which conditions hold; `expression`, which reads the same trees for decisions.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "Cedar's tree is open: what is not recognised is shown as Cedar writes it"
)]

use super::expression::kind;
use cedar_policy::pst::{BinaryOp, EntityUID, Expr, Literal, UnaryOp, Var};
use std::sync::Arc;

/// What bears labels.
const LABELLED: &str = "the record";

/// How many names of a list are spelt out.
const NAMES: usize = 6;

/// What has to be so for `expr` to be `value`.
pub(super) fn phrase(expr: &Expr, value: bool) -> String {
    match expr {
        Expr::UnaryOp { op: UnaryOp::Not, expr } => phrase(expr, !value),
        Expr::BinaryOp { op: op @ (BinaryOp::And | BinaryOp::Or), .. } => chain(expr, *op, value),
        atom => known(atom, value).unwrap_or_else(|| match value {
            true => format!("`{atom}`"),
            false => format!("not `{atom}`"),
        }),
    }
}

/// `a && b` is `a and b`; its opposite `not a or not b`.
fn chain(expr: &Expr, op: BinaryOp, value: bool) -> String {
    let mut terms = Vec::new();
    flatten(expr, op, &mut terms);
    let joined_by_and = (op == BinaryOp::And) == value;
    let (types, others): (Vec<&Expr>, Vec<&Expr>) =
        terms.into_iter().partition(|term| record_type(term).is_some());
    let mut said: Vec<String> = Vec::new();
    let names: Vec<String> = types.iter().filter_map(|term| record_type(term)).collect();
    match names.as_slice() {
        [] => {}
        [_] => said.extend(types.iter().map(|term| phrase(term, value))),
        names if value && !joined_by_and => said.push(format!("the record is one of {}", listed(names))),
        names if !value && joined_by_and => said.push(format!("the record is none of {}", listed(names))),
        _ => said.extend(types.iter().map(|term| phrase(term, value))),
    }
    let nested =
        |term: &&Expr| matches!(term, Expr::BinaryOp { op: inner, .. } if *inner != op && is_chain(*inner));
    said.extend(others.iter().map(|term| match nested(term) {
        true => format!("({})", phrase(term, value)),
        false => phrase(term, value),
    }));
    said.join(if joined_by_and { " and " } else { " or " })
}

fn is_chain(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::And | BinaryOp::Or)
}

fn flatten<'e>(expr: &'e Expr, chain: BinaryOp, terms: &mut Vec<&'e Expr>) {
    match expr {
        Expr::BinaryOp { op, left, right } if *op == chain => {
            flatten(left, chain, terms);
            flatten(right, chain, terms);
        }
        other => terms.push(other),
    }
}

fn record_type(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Is { expr, entity_type, in_expr: None } if matches!(**expr, Expr::Var(Var::Resource)) => {
            let name = entity_type.to_string();
            name.strip_prefix("FHIR::").map(str::to_owned)
        }
        _ => None,
    }
}

fn known(expr: &Expr, value: bool) -> Option<String> {
    let is = if value { "is" } else { "is not" };
    match expr {
        Expr::Literal(Literal::Bool(literal)) => {
            Some(if *literal == value { "nothing more" } else { "nothing that could be" }.to_owned())
        }
        Expr::Is { .. } => record_type(expr).map(|name| format!("the record {is} a {name}")),
        Expr::GetAttr { .. } => flag(&attribute(expr)?, value),
        Expr::HasAttr { expr, attrs } => {
            let (owner, name) = (owner(expr)?, attrs.first());
            Some(format!("{owner} {} {name}", if value { "has a" } else { "has no" }))
        }
        Expr::BinaryOp { op: BinaryOp::In, left, right } => membership(left, right, value),
        Expr::BinaryOp { op: BinaryOp::IsInRange, left, right } if attribute(left)? == "context.network" => {
            Some(format!("the network address {is} in {}", range(right)?))
        }
        Expr::BinaryOp { op, left, right } => comparison(*op, left, right, value),
        _ => None,
    }
}

fn owner(expr: &Expr) -> Option<&'static str> {
    match expr {
        Expr::Var(Var::Resource) => Some("the record"),
        Expr::Var(Var::Principal) => Some("the caller"),
        _ => None,
    }
}

/// An attribute that is true or false by itself.
fn flag(name: &str, value: bool) -> Option<String> {
    Some(
        match (name, value) {
            ("context.emergency", true) => "emergency access to the patient is in force",
            ("context.emergency", false) => "no emergency access is in force",
            ("context.mfa.phishingResistant", true) => "the second factor resists phishing",
            ("context.mfa.phishingResistant", false) => "the second factor does not resist phishing",
            _ => return None,
        }
        .to_owned(),
    )
}

fn membership(left: &Expr, right: &Expr, value: bool) -> Option<String> {
    let named = entities(right)?;
    let names: Vec<String> = named.iter().map(|uid| uid.eid.to_string()).collect();
    let kinds: Vec<String> = named.iter().map(|uid| kind(uid)).collect();
    let all = |wanted: &[&str]| kinds.iter().all(|kind| wanted.contains(&kind.as_str()));
    let (has, lies) = if value { ("has", "lies") } else { ("has not", "does not lie") };
    match left {
        Expr::Var(Var::Principal) if all(&["Role"]) => {
            Some(format!("the caller {has} the role {}", listed(&names)))
        }
        Expr::Var(Var::Resource) if all(&["Patient", "Subject"]) => Some(format!(
            "the record {} about the patient {}",
            if value { "is" } else { "is not" },
            listed(&names)
        )),
        Expr::Var(Var::Resource) if all(&["FHIR::Element", "ElementGroup"]) => {
            let names: Vec<String> = named.iter().map(|uid| element_name(uid)).collect();
            Some(format!("the element {lies} in {}", listed(&names)))
        }
        _ => None,
    }
}

fn element_name(uid: &EntityUID) -> String {
    if kind(uid) == "ElementGroup" { format!("the group {}", uid.eid) } else { uid.eid.to_string() }
}

fn comparison(op: BinaryOp, left: &Expr, right: &Expr, value: bool) -> Option<String> {
    let (Some(name), swapped) = (match attribute(left) {
        Some(name) => (Some(name), false),
        None => (attribute(right), true),
    }) else {
        return None;
    };
    let other = if swapped { left } else { right };
    if name == "context.mfa.age" {
        return age(op, long(other)?, swapped, value);
    }
    let subject = subject(&name)?;
    let equal = match op {
        BinaryOp::Eq => value,
        BinaryOp::NotEq => !value,
        BinaryOp::Contains | BinaryOp::ContainsAny | BinaryOp::ContainsAll => {
            return contains(op, subject, other, swapped, value);
        }
        _ => return None,
    };
    match other {
        Expr::Literal(Literal::Bool(literal)) => flag(&name, *literal == equal),
        other => {
            let text = texts(other)?.join(", ");
            Some(format!("{} {} {text}", subject.0, if equal { subject.1 } else { subject.2 }))
        }
    }
}

/// `["a", "b"].contains(attribute)` and `attribute.contains("a")`.
fn contains(
    op: BinaryOp,
    (subject, is, is_not): (&str, &str, &str),
    other: &Expr,
    swapped: bool,
    value: bool,
) -> Option<String> {
    let names = texts(other)?;
    let verb = if value { is } else { is_not };
    if subject == LABELLED && names.len() > 1 {
        let many = match (op == BinaryOp::ContainsAll, value) {
            (true, true) => "bears all of",
            (true, false) => "lacks one of",
            (false, true) => "bears one of",
            (false, false) => "bears none of",
        };
        return Some(format!("{subject} {many} the labels {}", listed(&names)));
    }
    let all = op == BinaryOp::ContainsAll && names.len() > 1 && !swapped;
    Some(match (names.as_slice(), all, value) {
        ([one], _, _) => format!("{subject} {verb} {one}"),
        (_, true, true) => format!("{subject} {verb} all of {}", listed(&names)),
        (_, true, false) => format!("{subject} {verb} each of {}", listed(&names)),
        (_, false, true) => format!("{subject} {verb} one of {}", listed(&names)),
        (_, false, false) => format!("{subject} {verb} any of {}", listed(&names)),
    })
}

/// Who or what an attribute is about, and the words for that it has a value, or has not.
fn subject(name: &str) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match name {
        "context.purpose" => ("the purpose", "is", "is not"),
        "context.relations" => ("the caller's relation to the patient", "is", "is not"),
        "context.mfa.methods" => ("the second factor", "was proven by", "was not proven by"),
        "context.labels" | "resource.labels" => (LABELLED, "bears the label", "does not bear the label"),
        "context.application" => ("the application", "is", "is not"),
        "context.binding" => ("the token's binding", "is", "is not"),
        "context.scopes" => ("the token's scope", "is", "is not"),
        "context.operation" => ("the operation", "is", "is not"),
        "context.emergency" => ("emergency access", "is", "is not"),
        "context.mfa.phishingResistant" => ("the second factor's resistance to phishing", "is", "is not"),
        "resource.status" => ("the record's status", "is", "is not"),
        "resource.category" => ("the record's category", "is", "is not"),
        "resource.code" => ("the record's code", "is", "is not"),
        "resource.id" => ("the record's id", "is", "is not"),
        "principal.fhirUser" => ("the caller's fhirUser", "is", "is not"),
        _ => return None,
    })
}

fn age(op: BinaryOp, limit: i64, swapped: bool, value: bool) -> Option<String> {
    use BinaryOp::{Eq, Greater, GreaterEq, Less, LessEq, NotEq};
    let op = match (op, swapped) {
        (Less, true) => Greater,
        (LessEq, true) => GreaterEq,
        (Greater, true) => Less,
        (GreaterEq, true) => LessEq,
        (op, _) => op,
    };
    let word = match (op, value) {
        (Less, true) | (GreaterEq, false) => "younger than",
        (LessEq, true) | (Greater, false) => "at most as old as",
        (Greater, true) | (LessEq, false) => "older than",
        (GreaterEq, true) | (Less, false) => "at least as old as",
        (Eq, true) | (NotEq, false) => "as old as",
        (NotEq, true) | (Eq, false) => "not as old as",
        _ => return None,
    };
    Some(format!("the second factor is {word} {}", span(limit)))
}

/// Seconds, and as people say it where that is round.
pub(super) fn span(seconds: i64) -> String {
    for (unit, length) in [("h", 3_600), ("min", 60)] {
        if seconds >= 2 * length && seconds % length == 0 {
            return format!("{seconds} s ({} {unit})", seconds / length);
        }
    }
    format!("{seconds} s")
}

/// `context.mfa.age`, `resource.status`, …
pub(super) fn attribute(expr: &Expr) -> Option<String> {
    match expr {
        Expr::GetAttr { expr, attr } => match &**expr {
            Expr::Var(Var::Context) => Some(format!("context.{attr}")),
            Expr::Var(Var::Resource) => Some(format!("resource.{attr}")),
            Expr::Var(Var::Principal) => Some(format!("principal.{attr}")),
            inner => attribute(inner).map(|name| format!("{name}.{attr}")),
        },
        _ => None,
    }
}

/// The texts of a literal or of a set of them; `None` if anything else is in it.
pub(super) fn texts(expr: &Expr) -> Option<Vec<String>> {
    match expr {
        Expr::Literal(Literal::String(text)) => Some(vec![text.to_string()]),
        Expr::Set(items) => {
            items.iter().map(|item| texts(item)).collect::<Option<Vec<_>>>().map(|l| l.concat())
        }
        _ => None,
    }
}

/// The entities of a literal or of a set of them; `None` if anything else is in it.
pub(super) fn entities(expr: &Expr) -> Option<Vec<&EntityUID>> {
    match expr {
        Expr::Literal(Literal::EntityUID(uid)) => Some(vec![uid]),
        Expr::Set(items) => items
            .iter()
            .map(|item: &Arc<Expr>| entities(item))
            .collect::<Option<Vec<_>>>()
            .map(|l| l.concat()),
        _ => None,
    }
}

pub(super) fn long(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(Literal::Long(number)) => Some(*number),
        _ => None,
    }
}

fn range(expr: &Expr) -> Option<String> {
    match expr {
        Expr::UnaryOp { op: UnaryOp::Ip, expr } => texts(expr).map(|texts| texts.concat()),
        _ => None,
    }
}

/// The first of many names.
fn listed(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(NAMES).map(String::as_str).collect();
    match names.len().saturating_sub(NAMES) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cedar_policy::{PolicySet, pst};

    /// A condition, and how it is said as it is and as its opposite.
    const SAID: &[(&str, &str, &str)] = &[
        ("context.purpose == \"TREAT\"", "the purpose is TREAT", "the purpose is not TREAT"),
        (
            "[\"TREAT\", \"ETREAT\"].contains(context.purpose)",
            "the purpose is one of TREAT, ETREAT",
            "the purpose is not any of TREAT, ETREAT",
        ),
        (
            "context.mfa.age < 300",
            "the second factor is younger than 300 s (5 min)",
            "the second factor is at least as old as 300 s (5 min)",
        ),
        (
            "43200 < context.mfa.age",
            "the second factor is older than 43200 s (12 h)",
            "the second factor is at most as old as 43200 s (12 h)",
        ),
        (
            "context.mfa.phishingResistant",
            "the second factor resists phishing",
            "the second factor does not resist phishing",
        ),
        (
            "context.relations.contains(\"care-team\")",
            "the caller's relation to the patient is care-team",
            "the caller's relation to the patient is not care-team",
        ),
        (
            "resource.labels.containsAny([\"R\", \"V\"])",
            "the record bears one of the labels R, V",
            "the record bears none of the labels R, V",
        ),
        (
            "context.emergency",
            "emergency access to the patient is in force",
            "no emergency access is in force",
        ),
        (
            "principal in Role::\"nurse\"",
            "the caller has the role nurse",
            "the caller has not the role nurse",
        ),
        (
            "resource in [FHIR::Element::\"Patient.name\", ElementGroup::\"staff\"]",
            "the element lies in Patient.name, the group staff",
            "the element does not lie in Patient.name, the group staff",
        ),
        (
            "resource is FHIR::Patient || resource is FHIR::Basic",
            "the record is one of Patient, Basic",
            "the record is none of Patient, Basic",
        ),
        (
            "context.network.isInRange(ip(\"10.0.0.0/8\"))",
            "the network address is in 10.0.0.0/8",
            "the network address is not in 10.0.0.0/8",
        ),
        (
            "context.purpose == \"X\" && !(resource.status == \"draft\" || context.emergency)",
            "the purpose is X and the record's status is not draft and no emergency access is in force",
            "the purpose is not X or the record's status is draft or emergency access to the patient is in force",
        ),
        (
            "context.labels.contains(\"R\")",
            "the record bears the label R",
            "the record does not bear the label R",
        ),
        ("1 == 2", "`1 == 2`", "not `1 == 2`"),
    ];

    #[test]
    fn conditions_are_said_in_words() {
        for (condition, holds, fails) in SAID {
            let text = format!("permit(principal, action, resource) when {{ {condition} }};");
            let set: PolicySet = text.parse().unwrap();
            let body = match set.policies().next().unwrap().to_pst().unwrap() {
                pst::Policy::Static(policy) => policy.body().clone(),
                pst::Policy::Linked(_) => return,
            };
            let Some(pst::Clause::When(expr)) = body.clauses().first() else { return };
            assert_eq!(phrase(expr, true), *holds, "{condition}");
            assert_eq!(phrase(expr, false), *fails, "{condition}");
        }
    }
}
