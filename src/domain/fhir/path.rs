//! Where a request points: the public base, and the path below it.
//!
//! Owns: [`PublicBase`] and the one reading of a request target's path (T-144, T-145, KF-10, KF-11,
//! KF-13, KF-17). Must never: repair a path. There is one plain spelling of each; any other is refused,
//! so that proxy and upstream cannot see two different things.
//! Look next: `classify`, which gives the segments their meaning; `address`, which prints URLs.

use std::fmt;

use super::classify::FhirRefusal;
use crate::limits::{PATH_SEGMENTS_MAX, TARGET_BYTES_MAX};

/// The base URL clients see, in one spelling: lower-case scheme and authority, no trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicBase {
    url: String,
    scheme: &'static str,
    authority: String,
    path: String,
}

/// Why a base URL cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicBaseError {
    /// Neither `https://` nor `http://`.
    Scheme,
    /// Empty, with user information, or with characters outside a host and port.
    Authority,
    /// With a query, fragment, encoding, empty or dot segment.
    Path,
}

impl fmt::Display for PublicBaseError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Scheme => "the base URL must start with https:// or http://",
            Self::Authority => "the base URL needs a plain host, with a port if it is not the default",
            Self::Path => "the base URL's path must be plain segments of A-Z a-z 0-9 - . _ ~",
        })
    }
}

impl std::error::Error for PublicBaseError {}

impl PublicBase {
    /// Reads `https://host[:port][/path]`; one trailing slash is allowed and dropped.
    ///
    /// # Errors
    /// [`PublicBaseError`] names the part that does not fit.
    pub fn parse(url: &str) -> Result<Self, PublicBaseError> {
        let (scheme, rest) = split_scheme(url).ok_or(PublicBaseError::Scheme)?;
        let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
        let authority = normal_authority(authority, scheme).ok_or(PublicBaseError::Authority)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        if !path.is_empty() && !path.split('/').skip(1).all(is_plain_segment) {
            return Err(PublicBaseError::Path);
        }
        let url = format!("{scheme}://{authority}{path}");
        Ok(Self { url, scheme, authority, path: path.to_owned() })
    }

    /// The whole base URL, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Host and port, lower case, without the scheme's default port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path prefix: empty, or with a leading and without a trailing slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// True when `authority`, as a client wrote it, means this base. `None` when it is not an
    /// authority at all.
    pub(super) fn answers_for(&self, authority: &str) -> Option<bool> {
        normal_authority(authority, self.scheme).map(|given| given == self.authority)
    }
}

impl fmt::Display for PublicBase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.url)
    }
}

fn split_scheme(url: &str) -> Option<(&'static str, &str)> {
    url.strip_prefix("https://")
        .map(|rest| ("https", rest))
        .or_else(|| url.strip_prefix("http://").map(|rest| ("http", rest)))
}

/// Lower-cases, drops the default port. `None` for user information, an empty host or port, or a
/// character no host has.
fn normal_authority(text: &str, scheme: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let (host, port) = split_port(&lower)?;
    let default_port = if scheme == "https" { "443" } else { "80" };
    match port {
        Some(port) if port != default_port => Some(format!("{host}:{port}")),
        Some(_) | None => Some(host.to_owned()),
    }
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let after_host = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(after_host)?;
    if !is_host(host) {
        return None;
    }
    match rest.strip_prefix(':') {
        None => rest.is_empty().then_some((host, None)),
        Some(port) => is_port(port).then_some((host, Some(port))),
    }
}

fn is_host(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inner {
        Some(address) => {
            address.contains(':')
                && address.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
        }
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

/// A port without leading zeros, so that each has one spelling.
fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|number| number != 0 && number.to_string() == port)
}

/// A request target taken apart: plain segments below the base, and the raw query.
#[derive(Debug)]
pub(super) struct Target<'t> {
    pub(super) segments: Vec<&'t str>,
    pub(super) query: Option<&'t str>,
}

/// Splits an origin-form target. Everything odd about the path is refused here.
pub(super) fn split_target<'t>(target: &'t str, base: &PublicBase) -> Result<Target<'t>, FhirRefusal> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(FhirRefusal::TargetTooLong);
    }
    if !is_graphic(target) || !target.starts_with('/') {
        return Err(FhirRefusal::MalformedTarget);
    }
    let (path, query) = split_query(target);
    let segments = split_path(path, base)?;
    Ok(Target { segments, query })
}

/// Splits an address below the base: `Patient/1`, `Patient?name=x`, or nothing for the base itself. It has
/// the same one plain form as a target, but no bound: a bound is for what comes in on a request line.
pub(super) fn split_address(address: &str) -> Result<Target<'_>, FhirRefusal> {
    if !is_graphic(address) {
        return Err(FhirRefusal::MalformedTarget);
    }
    let (path, query) = split_query(address);
    if path.is_empty() {
        return Ok(Target { segments: Vec::new(), query });
    }
    if !path.split('/').all(is_plain_or_operation) {
        return Err(FhirRefusal::MalformedPath);
    }
    Ok(Target { segments: bounded_segments(path)?, query })
}

fn split_query(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// Of what RFC 3986 allows nowhere, `|`, `\`, `{` and `}` are let pass: FHIR clients send them raw in values.
fn is_graphic(target: &str) -> bool {
    target.bytes().all(|byte| byte.is_ascii_graphic() && !br##"#^"<>`"##.contains(&byte))
}

/// The base's own spelling is taken on trust, what follows is not: a path outside the base that is
/// malformed as well is called malformed, so that no spelling probes for routes.
fn split_path<'t>(path: &'t str, base: &PublicBase) -> Result<Vec<&'t str>, FhirRefusal> {
    let plain = path == "/" || path.split('/').skip(1).all(is_plain_or_operation);
    if !plain {
        return Err(FhirRefusal::MalformedPath);
    }
    let below = path.strip_prefix(base.path()).ok_or(FhirRefusal::UnknownPath)?;
    match below.strip_prefix('/') {
        None if below.is_empty() => Ok(Vec::new()),
        None => Err(FhirRefusal::UnknownPath),
        Some("") => root_slash(base),
        Some(rest) => bounded_segments(rest),
    }
}

/// `/` is the base itself only when the base has no path; elsewhere it is a trailing slash.
fn root_slash<'t>(base: &PublicBase) -> Result<Vec<&'t str>, FhirRefusal> {
    if base.path().is_empty() { Ok(Vec::new()) } else { Err(FhirRefusal::MalformedPath) }
}

fn bounded_segments(path: &str) -> Result<Vec<&str>, FhirRefusal> {
    if path.split('/').count() > PATH_SEGMENTS_MAX {
        return Err(FhirRefusal::UnknownPath);
    }
    Ok(path.split('/').collect())
}

/// Also `$name` and the `*` of a compartment, so that those can be recognised and refused by name.
fn is_plain_or_operation(segment: &str) -> bool {
    segment == "*" || is_plain_segment(segment.strip_prefix('$').unwrap_or(segment))
}

/// No `%`, `;`, `\` or other delimiter; not empty; not made of dots.
fn is_plain_segment(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        && segment.bytes().any(|byte| byte != b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fhir::classify::asked;
    use crate::domain::fhir::interaction::Interaction;
    use crate::domain::fhir::r4::ResourceType;

    #[test]
    fn a_base_has_one_spelling() {
        let base = PublicBase::parse("https://FHIR.Hospital.example:443/R4/").unwrap();
        assert_eq!(base.as_str(), "https://fhir.hospital.example/R4");
        assert_eq!((base.authority(), base.path()), ("fhir.hospital.example", "/R4"));
        assert_eq!(PublicBase::parse("http://127.0.0.1:8080").unwrap().as_str(), "http://127.0.0.1:8080");
    }

    #[test]
    fn odd_bases_are_refused() {
        use PublicBaseError::{Authority, Path, Scheme};
        for (url, expected) in [
            ("ftp://x", Scheme),
            ("x/fhir", Scheme),
            ("https://", Authority),
            ("https:///fhir", Authority),
            ("https://a@b/fhir", Authority),
            ("https://b:0/fhir", Authority),
            ("https://b:99999/fhir", Authority),
            ("https://b/fhir?x", Path),
            ("https://b/fhir#x", Path),
            ("https://b//fhir", Path),
            ("https://b/a/../fhir", Path),
            ("https://b/fh%69r", Path),
        ] {
            assert_eq!(PublicBase::parse(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn links_carry_the_public_base() {
        let base = PublicBase::parse("https://b/fhir").unwrap();
        let search = |line| match asked(line) {
            Ok(Interaction::Search(search)) => search,
            other => panic!("{other:?}"),
        };
        assert_eq!(base.search_url(&search("GET /Patient")), "https://b/fhir/Patient");
        assert_eq!(base.search_url(&search("GET /Patient?name=a+b")), "https://b/fhir/Patient?name=a%20b");
        let patient = ResourceType::from_name("Patient").unwrap();
        assert_eq!(base.page_url(Some(patient), "abc"), "https://b/fhir/Patient?~page=abc");
        assert_eq!(base.page_url(None, "abc"), "https://b/fhir?~page=abc");
        assert_eq!(base.record_url(patient, "1"), "https://b/fhir/Patient/1");
        assert_eq!(base.export_url("abc"), "https://b/fhir/~export/abc");
        assert_eq!(base.file_url("abc"), "https://b/fhir/~file/abc");
    }
}
