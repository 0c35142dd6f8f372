//! The upstream request for the next page of a search.
//!
//! Owns: which upstream links may be followed. Must never: follow a link away from the upstream base, or to
//! a path of another kind than the search had. The link was sealed by this proxy; it is checked again
//! because what was sealed came from upstream.
//! Look next: `edge::seal`, which opens the token.

use std::fmt;

use super::Plan;
use crate::domain::access::Permit;
use crate::domain::fhir::interaction::Interaction;
use crate::limits::TARGET_BYTES_MAX;

/// Why a page link is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageError {
    /// Not below the upstream base.
    Elsewhere,
    /// Neither the base itself nor the searched type.
    OtherPath,
    /// Too long, or with characters that no URL has.
    Malformed,
}

impl fmt::Display for PageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Elsewhere => "the next link leaves the upstream base",
            Self::OtherPath => "the next link is for another path than the search",
            Self::Malformed => "the next link is malformed",
        })
    }
}

impl std::error::Error for PageError {}

/// Builds the request for an upstream `next` link of a permitted search or history. `link` is the whole URL or
/// starts with a query or a path below the base; `upstream_base` has no trailing slash.
///
/// Servers page at the path that was asked, at its `_search`, or at the base with a token of their own.
///
/// # Errors
/// [`PageError`]: the link would ask something else than a page of this question.
pub fn plan_page(
    question: &Interaction,
    permit: &Permit,
    link: &str,
    upstream_base: &str,
) -> Result<Plan, PageError> {
    let first = Plan::of(question, None).ok_or(PageError::OtherPath)?;
    if question.resource_type() != permit.resource_type() {
        return Err(PageError::OtherPath);
    }
    next_page(&first, link, upstream_base)
}

/// The same for a question of our own, about how a caller stands to patients.
///
/// # Errors
/// [`PageError`].
pub fn plan_next_look(first: &Plan, link: &str, upstream_base: &str) -> Result<Plan, PageError> {
    next_page(first, link, upstream_base)
}

fn next_page(first: &Plan, link: &str, upstream_base: &str) -> Result<Plan, PageError> {
    let sound = link.len() <= TARGET_BYTES_MAX && link.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !sound {
        return Err(PageError::Malformed);
    }
    let below = below_base(link, upstream_base).ok_or(PageError::Elsewhere)?;
    let (path, query) = below.split_once('?').ok_or(PageError::OtherPath)?;
    let asked = first.target.split('?').next().unwrap_or_default();
    let asked = asked.strip_suffix("/_search").unwrap_or(asked);
    let known = path.is_empty() || path.strip_suffix("/_search").unwrap_or(path) == asked;
    if !known || query.is_empty() {
        return Err(PageError::OtherPath);
    }
    let mut plan = Plan::get(format!("{path}?{query}"), first.expected.clone());
    plan.prefer = first.prefer;
    Ok(plan)
}

fn below_base<'l>(link: &'l str, base: &str) -> Option<&'l str> {
    match link.strip_prefix(base) {
        Some(rest) if rest.is_empty() || rest.starts_with('?') => Some(rest),
        Some(rest) => rest.strip_prefix('/'),
        None if link.contains("://") || link.starts_with('/') => relative_to_host(link, base),
        None => Some(link),
    }
}

/// A link that starts at the host's root: it must name the base's own path.
fn relative_to_host<'l>(link: &'l str, base: &str) -> Option<&'l str> {
    let (_, after_scheme) = base.split_once("://")?;
    let path_at = after_scheme.find('/').unwrap_or(after_scheme.len());
    let (_, path) = after_scheme.split_at_checked(path_at)?;
    let local = link.starts_with('/') && !link.starts_with("//");
    let rest = link.strip_prefix(path).filter(|_| local)?;
    if rest.starts_with('?') { Some(rest) } else { rest.strip_prefix('/') }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fhir::classify::asked;

    const BASE: &str = "http://127.0.0.1:8080/fhir";

    #[track_caller]
    fn check(link: &str, expected: Result<&str, PageError>) {
        let first = Plan::of(&asked("GET /Patient?name=x").unwrap(), None).unwrap();
        let plan = next_page(&first, link, BASE);
        assert_eq!(plan.as_ref().map(Plan::path_and_query), expected.as_ref().copied(), "{link}");
    }

    #[test]
    fn only_pages_of_the_same_search_are_followed() {
        check("http://127.0.0.1:8080/fhir/Patient?cursor=a%7Cb", Ok("Patient?cursor=a%7Cb"));
        check("http://127.0.0.1:8080/fhir?_getpages=1", Ok("?_getpages=1"));
        check("/fhir/Patient?p=2", Ok("Patient?p=2"));
        check("Patient/_search?p=2", Ok("Patient/_search?p=2"));
        check("?p=2", Ok("?p=2"));
        check("http://127.0.0.1:8080/fhir/Observation?p=2", Err(PageError::OtherPath));
        check("http://127.0.0.1:8080/fhir/Patient/../Observation?p=2", Err(PageError::OtherPath));
        check("http://127.0.0.1:8080/fhir/Patient", Err(PageError::OtherPath));
        check("http://127.0.0.1:8080/fhirx/Patient?p=2", Err(PageError::Elsewhere));
        check("http://127.0.0.1:8080.evil.test/fhir/Patient?p=2", Err(PageError::Elsewhere));
        check("https://evil.test/Patient?p=2", Err(PageError::Elsewhere));
        check("//evil.test/fhir/Patient?p=2", Err(PageError::Elsewhere));
        check("/other/Patient?p=2", Err(PageError::Elsewhere));
        check("Patient?p=2#x", Err(PageError::Malformed));
        check("Patient?p=2\r\nx: y", Err(PageError::Malformed));
    }
}
