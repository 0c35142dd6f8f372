//! The resource types that a policy's conditions can hold for.
//!
//! Owns: reading them off `resource is …` and `resource in …`, so that a policy is not asked about types for which it
//! cannot hold. Must never: leave out a type for which it could; what is not recognised may hold for all.
//! Look next: `set`, which indexes policies by type.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "Cedar's tree is open: whatever is not recognised may hold for every type"
)]

use super::expression::kind;
use super::groups::Groups;
use crate::domain::fhir::r4::{ElementPath, ResourceType};
use cedar_policy::pst::{BinaryOp, Clause, EntityUID, Expr, Literal, Var};
use std::collections::BTreeSet;

/// The types for which all conditions can hold; `None` is all.
pub(super) fn types(clauses: &[Clause], groups: &Groups) -> Option<BTreeSet<ResourceType>> {
    let when = clauses.iter().filter_map(|clause| match clause {
        Clause::When(expr) => of(expr, groups),
        Clause::Unless(_) => None,
    });
    when.reduce(|one, other| &one & &other)
}

fn of(expr: &Expr, groups: &Groups) -> Option<BTreeSet<ResourceType>> {
    match expr {
        Expr::BinaryOp { op: BinaryOp::And, left, right } => match (of(left, groups), of(right, groups)) {
            (Some(one), Some(other)) => Some(&one & &other),
            (one, other) => one.or(other),
        },
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => {
            let (one, other) = (of(left, groups)?, of(right, groups)?);
            Some(&one | &other)
        }
        Expr::BinaryOp { op: BinaryOp::In, left, right } if is_resource(left) => within(right, groups),
        Expr::Is { expr, entity_type, .. } if is_resource(expr) => {
            let name = entity_type.to_string();
            let resource = ResourceType::from_name(name.strip_prefix("FHIR::")?)?;
            Some(BTreeSet::from([resource]))
        }
        _ => None,
    }
}

fn is_resource(expr: &Expr) -> bool {
    matches!(expr, Expr::Var(Var::Resource))
}

/// The types of elements and groups; of anything else a record of any type may be a member.
fn within(expr: &Expr, groups: &Groups) -> Option<BTreeSet<ResourceType>> {
    match expr {
        Expr::Literal(Literal::EntityUID(uid)) => of_name(uid, groups),
        Expr::Set(items) => items.iter().try_fold(BTreeSet::new(), |so_far, item| {
            let more = within(item, groups)?;
            Some(&so_far | &more)
        }),
        _ => None,
    }
}

fn of_name(uid: &EntityUID, groups: &Groups) -> Option<BTreeSet<ResourceType>> {
    match kind(uid).as_str() {
        "FHIR::Element" => Some(BTreeSet::from([ElementPath::parse(&uid.eid).ok()?.resource_type()])),
        "ElementGroup" => {
            Some(groups.get(uid.eid.as_str())?.iter().map(ElementPath::resource_type).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cedar_policy::{PolicySet, pst};

    /// Conditions, and the types for which they can hold; `*` is all.
    #[test]
    fn types_are_read_off_conditions_and_never_too_few() {
        let paths = ["Patient.name", "Observation.code"].map(|path| ElementPath::parse(path).unwrap());
        let groups = Groups::from([("g".to_owned(), BTreeSet::from(paths))]);
        for (conditions, expected) in [
            ("when { resource is FHIR::Patient || resource is FHIR::Basic }", "Basic Patient"),
            (
                "when { context.emergency && (resource is FHIR::Patient || resource is FHIR::Basic) }",
                "Basic Patient",
            ),
            ("when { resource is FHIR::Patient } when { context.emergency }", "Patient"),
            ("when { resource is FHIR::Patient && resource is FHIR::Basic }", ""),
            ("when { resource is FHIR::Patient in Subject::\"p\" }", "Patient"),
            (
                "when { resource in [FHIR::Element::\"Basic\", ElementGroup::\"g\"] }",
                "Basic Observation Patient",
            ),
            ("when { context.emergency || resource is FHIR::Patient }", "*"),
            ("when { !(resource is FHIR::Patient) }", "*"),
            ("when { (resource is FHIR::Patient) == false }", "*"),
            ("when { if context.emergency then resource is FHIR::Patient else true }", "*"),
            ("when { resource in Subject::\"p\" }", "*"),
            ("when { resource in [Subject::\"p\", FHIR::Element::\"Basic\"] }", "*"),
            ("when { principal is FHIR::Patient }", "*"),
            ("when { resource is FHIR::Element }", "*"),
            ("unless { resource is FHIR::Patient }", "*"),
            ("", "*"),
        ] {
            let text = format!("permit(principal, action, resource) {conditions};");
            let set: PolicySet = text.parse().unwrap();
            let body = match set.policies().next().unwrap().to_pst().unwrap() {
                pst::Policy::Static(policy) => Some(policy.body().clone()),
                pst::Policy::Linked(_) => None,
            };
            let found = types(body.unwrap().clauses(), &groups);
            let found = found.map_or("*".to_owned(), |types| {
                let mut names: Vec<&str> = types.into_iter().map(ResourceType::name).collect();
                names.sort_unstable();
                names.join(" ")
            });
            assert_eq!(found, expected, "{conditions}");
        }
    }
}
