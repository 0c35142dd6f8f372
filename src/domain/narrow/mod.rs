//! What the proxy asks upstream: a request built from parsed parts alone.
//!
//! Owns: [`Plan`], the only thing the upstream client accepts, and what its answer must look like.
//! Must never: copy a byte of the client's head, or add a parameter that widens a search. What is asked is
//! what was understood: rendering a plan and classifying it again gives the same interaction.
//! Look next: `fhir::interaction`, the parts; `edge::upstream`, which sends it.

mod page;

use std::fmt;

use http::Method;

pub use self::page::PageError;

use crate::domain::access::Permit;
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::r4::ResourceType;
use crate::limits::UPSTREAM_QUERY_BYTES_MAX;

/// Builds the upstream request of a permitted interaction.
///
/// The permit's narrowing is applied to each record of the answer and is not asked for here: a parameter
/// that upstream ignores would protect nothing (T-019).
///
/// # Errors
/// [`PlanError::NoUpstream`] for what is answered without upstream, and for a page, whose search is planned by
/// [`plan_page`]; [`PlanError::OtherPermit`] for a permit of another type.
pub fn plan(interaction: &Interaction, permit: &Permit) -> Result<Plan, PlanError> {
    let plan = Plan::from_interaction(interaction).ok_or(PlanError::NoUpstream)?;
    if interaction.resource_type() == Some(permit.resource_type()) {
        Ok(plan)
    } else {
        Err(PlanError::OtherPermit)
    }
}

/// Builds the upstream request for the `next` link of a permitted search. `link` is what upstream gave,
/// whole or below its base; `upstream_base` has no trailing slash.
///
/// # Errors
/// [`PageError`]: the link would ask something else than a page of this search.
pub fn plan_page(permit: &Permit, link: &str, upstream_base: &str) -> Result<Plan, PageError> {
    Plan::next_page(permit.resource_type(), link, upstream_base)
}

/// Why there is no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanError {
    /// This interaction asks nothing upstream.
    NoUpstream,
    /// The permit was given for another resource type.
    OtherPermit,
}

impl fmt::Display for PlanError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoUpstream => "the interaction asks nothing upstream",
            Self::OtherPermit => "the permit is for another resource type",
        })
    }
}

impl std::error::Error for PlanError {}

/// One upstream request.
#[must_use]
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    method: Method,
    target: String,
    form: Option<String>,
    expected: Expected,
}

/// What the answer must be; anything else is a fault of upstream (T-128, T-129).
#[derive(Clone, PartialEq, Eq)]
pub enum Expected {
    /// One record of this type and id, and of this version if one was asked for.
    Record {
        /// `resourceType`.
        resource: ResourceType,
        /// `id`.
        id: String,
        /// `meta.versionId`.
        version: Option<String>,
    },
    /// A `Bundle` of type `searchset`.
    Searchset {
        /// The type of its matches; includes add others.
        resource: ResourceType,
    },
}

impl Plan {
    /// GET, or POST for a search too long for a URL.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Path and query below the upstream base, without a leading slash, percent-encoded:
    /// `Patient/1`, `Observation?code=x`.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.target
    }

    /// The body of `POST _search`, `application/x-www-form-urlencoded`.
    #[must_use]
    pub fn form(&self) -> Option<&str> {
        self.form.as_deref()
    }

    /// Whether to send `Prefer: handling=strict`, so that upstream refuses a parameter it would
    /// otherwise skip (T-019). True for every search.
    #[must_use]
    pub fn strict_handling(&self) -> bool {
        matches!(self.expected, Expected::Searchset { .. })
    }

    /// What the answer must be.
    #[must_use]
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// The request that asks an interaction, whole. `None` for what is answered without upstream
    /// (capabilities, SMART configuration) and for a page, whose link is still sealed.
    fn from_interaction(interaction: &Interaction) -> Option<Self> {
        match interaction {
            Interaction::Read { resource, id, .. } => Some(Self::record(*resource, id.as_str(), None)),
            Interaction::Vread { resource, id, version, .. } => {
                Some(Self::record(*resource, id.as_str(), Some(version.as_str())))
            }
            Interaction::Search(search) => {
                Some(Self::search(search.resource_type(), search.canonical_query()))
            }
            Interaction::NextPage { .. }
            | Interaction::Capabilities
            | Interaction::SmartConfiguration
            | Interaction::History(_)
            | Interaction::SearchMany { .. }
            | Interaction::Create { .. }
            | Interaction::Update { .. }
            | Interaction::Patch { .. }
            | Interaction::Delete { .. }
            | Interaction::Bundle
            | Interaction::Operation(_)
            | Interaction::ExportStatus { .. }
            | Interaction::ExportCancel { .. }
            | Interaction::ExportFile { .. } => None,
        }
    }

    fn record(resource: ResourceType, id: &str, version: Option<&str>) -> Self {
        let suffix = version.map(|version| format!("/_history/{version}")).unwrap_or_default();
        let expected = Expected::Record { resource, id: id.to_owned(), version: version.map(str::to_owned) };
        Self {
            method: Method::GET,
            target: format!("{}/{id}{suffix}", resource.name()),
            form: None,
            expected,
        }
    }

    /// Body or URL, never both (T-020).
    fn search(resource: ResourceType, query: String) -> Self {
        let name = resource.name();
        let expected = Expected::Searchset { resource };
        if query.len() > UPSTREAM_QUERY_BYTES_MAX {
            let target = format!("{name}/_search");
            return Self { method: Method::POST, target, form: Some(query), expected };
        }
        let target = if query.is_empty() { name.to_owned() } else { format!("{name}?{query}") };
        Self { method: Method::GET, target, form: None, expected }
    }
}

/// Targets hold ids and search values.
impl fmt::Debug for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Plan {} {:?}", self.method, self.expected)
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { resource, .. } => write!(out, "record {}", resource.name()),
            Self::Searchset { resource } => write!(out, "searchset {}", resource.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fhir::classify::asked;

    fn target(line: &str) -> String {
        Plan::from_interaction(&asked(line).unwrap()).unwrap().path_and_query().to_owned()
    }

    #[test]
    fn plans_are_built_from_parsed_parts() {
        assert_eq!(target("GET /Patient/p1?_format=json&_pretty=true"), "Patient/p1");
        assert_eq!(target("GET /Patient/p1/_history/2"), "Patient/p1/_history/2");
        assert_eq!(target("GET /Patient?"), "Patient");
        assert_eq!(
            target(
                "GET /Observation?_count=5&%63ode=a%7Cb,c&_sort=-date&patient=https://fhir.test/Patient/1"
            ),
            "Observation?code=a%7Cb,c&patient=Patient/1&_sort=-date&_count=5",
        );
    }

    #[test]
    fn asking_the_plan_again_gives_the_same_plan() {
        for line in [
            "GET /Patient?name:exact=M%C3%BCller%5C,%20a%2Bb%25&_has:Observation:patient:code=x",
            "GET /Observation?code-value-quantity=8480-6%24gt100&_include=Observation:subject",
            "GET /Patient?_revinclude=Provenance:target:Patient&birthdate=ge1980,lt1970",
        ] {
            let first = target(line);
            assert_eq!(target(&format!("GET /{first}")), first, "{line}");
        }
    }

    #[test]
    fn what_needs_no_upstream_has_no_plan() {
        for line in ["GET /metadata", "GET /.well-known/smart-configuration", "GET /Patient?~page=abc"] {
            assert!(Plan::from_interaction(&asked(line).unwrap()).is_none(), "{line}");
        }
    }

    #[test]
    fn a_long_search_goes_as_a_form() {
        let ids: Vec<String> = (0..100).map(|n| format!("{n}{}", "x".repeat(50))).collect();
        let plan =
            Plan::from_interaction(&asked(&format!("GET /Patient?_id={}", ids.join(","))).unwrap()).unwrap();
        assert_eq!((plan.method(), plan.path_and_query()), (&Method::POST, "Patient/_search"));
        assert!(plan.form().unwrap().starts_with("_id=0x"));
        assert!(plan.strict_handling());
    }

    #[test]
    fn debug_shows_no_id() {
        let plan = Plan::from_interaction(&asked("GET /Patient/canary").unwrap()).unwrap();
        assert!(!format!("{plan:?}").contains("canary"));
    }
}
