//! The upstream requests of operations.
//!
//! Owns: how each operation that is served is asked, and of which type its answer is.
//! Must never: ask an operation that the gate does not know, or send a shape: what of a record is shown is decided here.
//! Look next: `gateway::operation`, which judges the answers.

use bytes::Bytes;
use http::Method;

use super::change::FHIR_JSON;
use super::{Expected, Plan, PlanError, STRICT, join};
use crate::domain::access::Permit;
use crate::domain::fhir::interaction::{Interaction, Operation};
use crate::domain::fhir::r4::ResourceType;

/// Builds the request that asks whether a record could be created. `body` is FHIR JSON made by us.
///
/// # Errors
/// [`PlanError::OtherPermit`] for a permit of another type.
pub fn plan_validate(resource: ResourceType, body: Bytes, permit: &Permit) -> Result<Plan, PlanError> {
    if permit.resource_type() != Some(resource) {
        return Err(PlanError::OtherPermit);
    }
    let mut plan = Plan::get(format!("{}/$validate", resource.name()), Expected::Output);
    plan.method = Method::POST;
    plan.body = Some((FHIR_JSON, body));
    Ok(plan)
}

/// The type that an operation is permitted for: that of its answer where it makes one, else the one asked.
pub(super) fn answers_with(operation: &Operation) -> Option<ResourceType> {
    match operation {
        Operation::Lookup { .. } => ResourceType::from_name("Parameters"),
        Operation::Everything { .. }
        | Operation::LastN { .. }
        | Operation::Validate { .. }
        | Operation::Expand { .. }
        | Operation::BreakGlass
        | Operation::Export { .. } => operation.resource_type(),
    }
}

/// The question of an operation that is asked by GET; `None` for those that are not.
pub(super) fn plan(question: &Interaction, operation: &Operation, rows: Option<usize>) -> Option<Plan> {
    match operation {
        Operation::Everything { .. } => {
            let address = question.address();
            let (path, query) = address.split_once('?').unwrap_or((&address, ""));
            // Where rows may be withheld the whole is asked for: how it falls into pages would tell of them.
            let query = if rows.is_some() { without_count(query) } else { query.to_owned() };
            let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
            Some(strict(target, operation.resource_type()?))
        }
        Operation::LastN { search, max } => {
            let resource = search.resource_type();
            let query = join(&search.canonical_query(), &format!("max={max}"));
            Some(strict(format!("{}/$lastn?{query}", resource.name()), resource))
        }
        Operation::Expand { .. } | Operation::Lookup { .. } => {
            Some(Plan::get(question.address(), Expected::Output))
        }
        Operation::Validate { .. } | Operation::BreakGlass | Operation::Export { .. } => None,
    }
}

fn strict(target: String, resource: ResourceType) -> Plan {
    let mut plan = Plan::get(target, Expected::Searchset { resource });
    plan.prefer = Some(STRICT);
    plan
}

fn without_count(query: &str) -> String {
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("_count=")).collect();
    kept.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fhir::classify::asked;

    #[track_caller]
    fn check(line: &str, rows: Option<usize>, target: Option<&str>) {
        let plan = Plan::of(&asked(line).unwrap(), rows);
        assert_eq!(plan.as_ref().map(Plan::path_and_query), target, "{line}");
    }

    #[test]
    fn operations_are_asked_in_canonical_form() {
        let all = "GET /Patient/p1/$everything?_count=7&start=2020-01-01&_type=Observation,Patient";
        let asked = "Patient/p1/$everything?start=2020-01-01&_type=Observation,Patient";
        check(all, None, Some(&format!("{asked}&_count=7")));
        check(all, Some(50), Some(asked));
        check("GET /Patient/p1/$everything", None, Some("Patient/p1/$everything"));
        let last = "GET /Observation/$lastn?max=3&category=vital-signs&patient=p1&_elements=value";
        check(last, Some(50), Some("Observation/$lastn?category=vital-signs&patient=p1&max=3"));
        check("GET /ValueSet/v1/$expand?filter=a%20b", None, Some("ValueSet/v1/$expand?filter=a%20b"));
        check(
            "GET /CodeSystem/$lookup?system=http://x.test&code=1",
            None,
            Some("CodeSystem/$lookup?code=1&system=http://x.test"),
        );
    }
}
