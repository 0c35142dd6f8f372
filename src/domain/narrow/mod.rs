//! What the proxy asks upstream: a request built from parsed parts alone.
//!
//! Owns: [`Plan`], the only thing the upstream client accepts, and what its answer must look like.
//! Must never: copy a byte of the client's head, or add a parameter that widens a search. What is asked is
//! what was understood: rendering a plan and classifying it again gives the same interaction.
//! Look next: `change`, what writes; `page`, which links of the EMR's may be followed; `edge::upstream`, which sends.

mod change;
mod export;
mod operation;
mod page;
mod relation;

use std::fmt;

use bytes::Bytes;
use http::Method;

pub use self::change::{Change, plan_change, plan_transaction};
pub use self::export::{ExportStep, plan_export, plan_export_step};
pub use self::operation::plan_validate;
pub use self::page::{PageError, plan_next_look, plan_page};
pub use self::relation::{Look, plan_consents, plan_relations, plan_roles};

use crate::domain::access::Permit;
use crate::domain::fhir::facts::Facts;
use crate::domain::fhir::interaction::{History, HistoryScope, Interaction};
use crate::domain::fhir::r4::ResourceType;
use crate::domain::fhir::search::Search;
use crate::limits::UPSTREAM_QUERY_BYTES_MAX;

/// The media type of `POST _search`.
const FORM: &str = "application/x-www-form-urlencoded";
/// So that upstream refuses a parameter it would otherwise skip (T-019).
const STRICT: &str = "handling=strict";

/// Builds the upstream request of a permitted question.
///
/// The permit's narrowing is applied to each record of the answer and is not asked for here: a parameter
/// that upstream ignores would protect nothing (T-019). What of a record the client wants to see is not asked for
/// either: policy decides on the whole record (T-035).
///
/// # Errors
/// [`PlanError::NoUpstream`] for what is answered without upstream, in several steps, or by [`plan_change`];
/// [`PlanError::OtherPermit`] for a permit of another type.
pub fn plan(question: &Interaction, permit: &Permit) -> Result<Plan, PlanError> {
    plan_rows(question, permit, None)
}

/// As [`plan`], for rows with a page length of our own in place of the client's, where pages are put together here.
///
/// # Errors
/// As [`plan`].
pub fn plan_rows(question: &Interaction, permit: &Permit, rows: Option<usize>) -> Result<Plan, PlanError> {
    let plan = Plan::of(question, rows).ok_or(PlanError::NoUpstream)?;
    fits(question, permit)?;
    Ok(plan)
}

/// Builds the request for how many rows a search has, for a caller from whom none is withheld.
///
/// # Errors
/// As [`plan`].
pub fn plan_count(search: &Search, permit: &Permit) -> Result<Plan, PlanError> {
    if permit.resource_type() != Some(search.resource_type()) {
        return Err(PlanError::OtherPermit);
    }
    let query = join(&without_count(search), "_summary=count");
    Ok(Plan::search(search, query))
}

/// Builds the request for a record as it is now, which a change has to be judged on.
///
/// # Errors
/// [`PlanError::OtherPermit`] for a permit of another type.
pub fn plan_current(permit: &Permit, resource: ResourceType, id: &str) -> Result<Plan, PlanError> {
    if permit.resource_type() != Some(resource) {
        return Err(PlanError::OtherPermit);
    }
    Ok(Plan::record(resource, id, None))
}

fn fits(question: &Interaction, permit: &Permit) -> Result<(), PlanError> {
    let asked = match question {
        Interaction::Operation(operation) => operation::answers_with(operation),
        _ => question.resource_type(),
    };
    if asked == permit.resource_type() { Ok(()) } else { Err(PlanError::OtherPermit) }
}

/// Why there is no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanError {
    /// This interaction asks nothing upstream, or not in one request.
    NoUpstream,
    /// The permit was given for another resource type.
    OtherPermit,
    /// The EMR named a place that an export cannot have.
    OtherPlace,
}

impl fmt::Display for PlanError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoUpstream => "the interaction asks nothing upstream",
            Self::OtherPermit => "the permit is for another resource type",
            Self::OtherPlace => "the place is none of an export",
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
    body: Option<(&'static str, Bytes)>,
    prefer: Option<&'static str>,
    if_match: Option<String>,
    if_none_match: bool,
    if_none_exist: Option<String>,
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
    /// A `Bundle` of type `history`.
    History {
        /// Of one record: none of it may be there.
        instance: bool,
    },
    /// What an operation gives: one resource.
    Output,
    /// What became of a change.
    Change,
    /// A `Bundle` of type `transaction-response`.
    Transaction,
    /// What tells of a bulk export: no record.
    Export,
    /// NDJSON: a file of a bulk export.
    ExportFile,
}

impl Expected {
    /// Whether a record is the one that was asked for.
    #[must_use]
    pub fn is(&self, facts: &Facts) -> bool {
        let Self::Record { resource, id, version } = self else { return false };
        let version_fits = version.as_deref().is_none_or(|asked| facts.version.as_deref() == Some(asked));
        facts.resource_type == *resource && facts.id.as_deref() == Some(id) && version_fits
    }
}

impl Plan {
    /// GET, POST for a search too long for a URL, or the method of a change.
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

    /// Media type and body: of `POST _search`, or of a change.
    #[must_use]
    pub fn body(&self) -> Option<(&'static str, &Bytes)> {
        self.body.as_ref().map(|(media_type, body)| (*media_type, body))
    }

    /// The `Prefer` header: strict handling for every question with parameters (T-019), the whole record for a change.
    #[must_use]
    pub fn prefer(&self) -> Option<&'static str> {
        self.prefer
    }

    /// The `If-None-Exist` header: a record is created only where nothing matches these criteria.
    #[must_use]
    pub fn if_none_exist(&self) -> Option<&str> {
        self.if_none_exist.as_deref()
    }

    /// The `If-Match` header: a change is made to the version it was judged on, or not at all (P5).
    #[must_use]
    pub fn if_match(&self) -> Option<&str> {
        self.if_match.as_deref()
    }

    /// Whether to send `If-None-Match: *`: a create at an id of the client's must not overwrite.
    #[must_use]
    pub fn if_none_match(&self) -> bool {
        self.if_none_match
    }

    /// What the answer must be.
    #[must_use]
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// The request that asks an interaction, whole. `None` for what is answered without upstream or in several steps,
    /// and for a page, whose link is still sealed.
    fn of(interaction: &Interaction, rows: Option<usize>) -> Option<Self> {
        match interaction {
            Interaction::Read { resource, id, .. } => Some(Self::record(*resource, id.as_str(), None)),
            Interaction::Vread { resource, id, version, .. } => {
                Some(Self::record(*resource, id.as_str(), Some(version.as_str())))
            }
            Interaction::Search(search) => {
                let query = match rows {
                    Some(rows) => join(&without_count(search), &format!("_count={rows}")),
                    None => search.canonical_query(),
                };
                Some(Self::search(search, query))
            }
            Interaction::History(history) => Some(Self::history(history, rows)),
            Interaction::Operation(operation) => operation::plan(interaction, operation, rows),
            _ => None,
        }
    }

    fn get(target: String, expected: Expected) -> Self {
        Self {
            method: Method::GET,
            target,
            body: None,
            prefer: None,
            if_match: None,
            if_none_match: false,
            if_none_exist: None,
            expected,
        }
    }

    fn record(resource: ResourceType, id: &str, version: Option<&str>) -> Self {
        let suffix = version.map(|version| format!("/_history/{version}")).unwrap_or_default();
        let expected = Expected::Record { resource, id: id.to_owned(), version: version.map(str::to_owned) };
        Self::get(format!("{}/{id}{suffix}", resource.name()), expected)
    }

    /// Body or URL, never both (T-020).
    fn search(search: &Search, query: String) -> Self {
        let resource = search.resource_type();
        let name = match search.compartment() {
            Some(within) => {
                format!("{}/{}/{}", within.owner().name(), within.id().as_str(), resource.name())
            }
            None => resource.name().to_owned(),
        };
        let long = query.len() > UPSTREAM_QUERY_BYTES_MAX;
        let target = match (long, query.is_empty()) {
            (true, _) => format!("{name}/_search"),
            (false, true) => name,
            (false, false) => format!("{name}?{query}"),
        };
        let mut plan = Self::get(target, Expected::Searchset { resource });
        plan.prefer = Some(STRICT);
        if long {
            plan.method = Method::POST;
            plan.body = Some((FORM, Bytes::from(query)));
        }
        plan
    }

    fn history(history: &History, rows: Option<usize>) -> Self {
        let (path, instance) = match history.scope() {
            HistoryScope::Instance(resource, id) => (format!("{}/{}/", resource.name(), id.as_str()), true),
            HistoryScope::Type(resource) => (format!("{}/", resource.name()), false),
            HistoryScope::System => (String::new(), false),
        };
        let query = match rows {
            Some(rows) => {
                let all = history.canonical_query();
                let kept: Vec<&str> =
                    all.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("_count=")).collect();
                join(&kept.join("&"), &format!("_count={rows}"))
            }
            None => history.canonical_query(),
        };
        let query = if query.is_empty() { query } else { format!("?{query}") };
        Self::get(format!("{path}_history{query}"), Expected::History { instance })
    }
}

/// The canonical query of a search but for the length of its pages.
fn without_count(search: &Search) -> String {
    let query = search.canonical_query();
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("_count=")).collect();
    kept.join("&")
}

fn join(query: &str, pair: &str) -> String {
    if query.is_empty() { pair.to_owned() } else { format!("{query}&{pair}") }
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
            Self::History { .. } => out.write_str("history"),
            Self::Output => out.write_str("output"),
            Self::Change => out.write_str("change"),
            Self::Transaction => out.write_str("transaction"),
            Self::Export => out.write_str("export"),
            Self::ExportFile => out.write_str("export file"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fhir::classify::asked;

    fn target(line: &str) -> String {
        Plan::of(&asked(line).unwrap(), None).unwrap().path_and_query().to_owned()
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
    fn histories_and_compartments_have_paths_of_their_own() {
        assert_eq!(target("GET /Patient/p1/_history?_count=3"), "Patient/p1/_history?_count=3");
        assert_eq!(target("GET /_history"), "_history");
        assert_eq!(target("GET /Patient/p1/Observation?code=x"), "Patient/p1/Observation?code=x");
        let shaped = "GET /Patient?_elements=name&_summary=false&_count=9&gender=male";
        let asked = asked(shaped).unwrap();
        let plan = Plan::of(&asked, Some(50)).unwrap();
        assert_eq!(plan.path_and_query(), "Patient?gender=male&_count=50", "shapes are ours to give");
    }

    #[test]
    fn what_needs_no_upstream_has_no_plan() {
        for line in ["GET /metadata", "GET /.well-known/smart-configuration", "GET /Patient?~page=abc"] {
            assert!(Plan::of(&asked(line).unwrap(), None).is_none(), "{line}");
        }
    }

    #[test]
    fn a_long_search_goes_as_a_form() {
        let ids: Vec<String> = (0..100).map(|n| format!("{n}{}", "x".repeat(50))).collect();
        let plan = Plan::of(&asked(&format!("GET /Patient?_id={}", ids.join(","))).unwrap(), None).unwrap();
        assert_eq!((plan.method(), plan.path_and_query()), (&Method::POST, "Patient/_search"));
        let (media_type, form) = plan.body().unwrap();
        assert!(media_type.ends_with("form-urlencoded") && form.starts_with(b"_id=0x"));
        assert_eq!(plan.prefer(), Some("handling=strict"));
    }

    #[test]
    fn debug_shows_no_id() {
        let plan = Plan::of(&asked("GET /Patient/canary").unwrap(), None).unwrap();
        assert!(!format!("{plan:?}").contains("canary"));
    }
}
