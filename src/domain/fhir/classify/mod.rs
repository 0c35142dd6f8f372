//! The one door from a request to an [`Interaction`].
//!
//! Owns: the order of the checks, and what each served path may carry. One parse gives one canonical
//! form; whatever is not understood is refused, never forwarded. Must never: decide who may ask; keep a
//! value in a refusal; panic on any input.
//! Look next: `route` (paths), `headers` (negotiation), `super::search` (parameters).

mod headers;
mod refusal;
mod route;

use std::fmt;

pub use self::refusal::{FhirRefusal, NotServed, RefusalClass};

use self::route::Route;
use super::interaction::{Interaction, PageToken};
use super::path::{PublicBase, split_target};
use super::r4::ResourceType;
use super::search::{Pair, Registry, decode_into, read_search};
use crate::limits::FORM_BYTES_MAX;

/// The query parameter that carries a sealed page link. No FHIR parameter can have this name: `~` does
/// not occur in one, and it needs no percent-encoding in a URL.
pub const PAGE_PARAMETER: &str = "~page";

/// A request's head, as received.
#[derive(Clone, Copy)]
pub struct Head<'r> {
    /// The method, in its own case.
    pub method: &'r str,
    /// The target of the request line; over HTTP/2 the `:path` pseudo-header.
    pub target: &'r str,
    /// HTTP/2's `:authority`; `None` over HTTP/1.1, where the Host header says it.
    pub authority: Option<&'r str>,
    /// All headers. Host, Accept, Content-Type, Content-Encoding, Content-Length, Transfer-Encoding and
    /// Prefer are read; no other is.
    pub headers: &'r http::HeaderMap,
}

impl<'r> Head<'r> {
    /// The head as the HTTP library hands it over. Over HTTP/2 an authority in the URI is the
    /// `:authority` pseudo-header; over HTTP/1.1 it is an absolute-form target, which is refused (T-145).
    #[must_use]
    pub fn received(parts: &'r http::request::Parts) -> Self {
        let path = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        let (target, authority) = match (parts.version >= http::Version::HTTP_2, authority) {
            (true, authority) => (path, authority),
            (false, None) => (path, None),
            (false, Some(absolute)) => (absolute, None),
        };
        Self { method: parts.method.as_str(), target, authority, headers: &parts.headers }
    }
}

/// Targets and headers hold ids, search values and tokens.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Head").finish_non_exhaustive()
    }
}

/// Turns a request into the one interaction it means.
///
/// `form` is the whole body of a `POST _search` (see [`expects_form`]), else `None` or empty.
///
/// # Errors
/// A [`FhirRefusal`] for everything not understood or not served; it holds nothing the client sent.
pub fn classify(head: &Head<'_>, form: Option<&[u8]>, base: &PublicBase) -> Result<Interaction, FhirRefusal> {
    let (route, query) = open(head, base)?;
    let mut pairs = Vec::new();
    decode_into(&mut pairs, query.unwrap_or_default())?;
    let from_query = pairs.len();
    read_form(&route, form, &mut pairs)?;
    let general = General::take(&mut pairs)?;
    headers::check_answer_type(head.headers, general.format.as_deref())?;
    match route {
        Route::Read(resource, id) => alone(&pairs, Interaction::Read { resource, id }),
        Route::Vread(resource, id, version) => alone(&pairs, Interaction::Vread { resource, id, version }),
        Route::Capabilities => capabilities(&pairs),
        Route::SmartConfiguration => alone(&pairs, Interaction::SmartConfiguration),
        Route::Search(resource) if from_query > 0 && has_page(&pairs) => next_page(resource, &pairs),
        Route::Search(resource) | Route::SearchForm(resource) => {
            read_search(resource, None, &pairs, base, &Registry::empty()).map(Interaction::Search)
        }
    }
}

/// Whether this request is a `POST _search`, so that its body (up to `FORM_BYTES_MAX`) has to be read
/// before [`classify`] can be asked. Everything that can be refused without the body is refused here.
///
/// # Errors
/// As [`classify`].
pub fn expects_form(head: &Head<'_>, base: &PublicBase) -> Result<bool, FhirRefusal> {
    let (route, _) = open(head, base)?;
    Ok(matches!(route, Route::SearchForm(_)))
}

/// The search that a page link continues, from the canonical query that was sealed into it with the type.
/// Each page is judged as its search would be now (T-150).
///
/// # Errors
/// As [`classify`]: what is understood may have changed since the link was made.
pub fn continued(
    resource: ResourceType,
    canonical_query: &str,
    base: &PublicBase,
) -> Result<Interaction, FhirRefusal> {
    let mut pairs = Vec::new();
    decode_into(&mut pairs, canonical_query)?;
    read_search(resource, None, &pairs, base, &Registry::empty()).map(Interaction::Search)
}

/// Everything but the parameters: method, host, path, headers.
fn open<'r>(head: &Head<'r>, base: &PublicBase) -> Result<(Route, Option<&'r str>), FhirRefusal> {
    let method = route::read_method(head.method)?;
    check_host(head, base)?;
    let target = split_target(head.target, base)?;
    headers::check_common(head.headers)?;
    let route = route::find_route(method, &target.segments)?;
    match route {
        Route::SearchForm(_) => headers::check_form_type(head.headers)?,
        Route::Read(..)
        | Route::Vread(..)
        | Route::Search(_)
        | Route::Capabilities
        | Route::SmartConfiguration => headers::check_no_body(head.headers)?,
    }
    Ok((route, target.query))
}

/// One authority, and it is ours. Over HTTP/2 a Host header may stand beside `:authority`, if it means
/// the same (RFC 9113, 8.3.1).
fn check_host(head: &Head<'_>, base: &PublicBase) -> Result<(), FhirRefusal> {
    let given: Vec<&str> = head.authority.into_iter().chain(headers::host(head.headers)?).collect();
    if given.is_empty() {
        return Err(FhirRefusal::MalformedHost);
    }
    for authority in given {
        match base.answers_for(authority) {
            Some(true) => {}
            Some(false) => return Err(FhirRefusal::WrongHost),
            None => return Err(FhirRefusal::MalformedHost),
        }
    }
    Ok(())
}

fn read_form(route: &Route, form: Option<&[u8]>, pairs: &mut Vec<Pair>) -> Result<(), FhirRefusal> {
    let form = form.unwrap_or_default();
    if form.is_empty() {
        return Ok(());
    }
    if !matches!(route, Route::SearchForm(_)) {
        return Err(FhirRefusal::UnexpectedBody);
    }
    if form.len() > FORM_BYTES_MAX {
        return Err(FhirRefusal::FormTooLarge);
    }
    let text = std::str::from_utf8(form).map_err(|_| FhirRefusal::MalformedQuery)?;
    decode_into(pairs, text)
}

/// Parameters that any interaction may carry (R4 http.html 3.1.0.1.11).
struct General {
    format: Option<String>,
}

impl General {
    /// Takes them out of the list. A token is refused whatever else is asked (T-159).
    fn take(pairs: &mut Vec<Pair>) -> Result<Self, FhirRefusal> {
        if pairs.iter().any(|pair| pair.name.eq_ignore_ascii_case("access_token")) {
            return Err(FhirRefusal::TokenInRequest);
        }
        let format = take_single(pairs, "_format")?;
        take_single(pairs, "_pretty")?;
        Ok(Self { format })
    }
}

fn take_single(pairs: &mut Vec<Pair>, name: &'static str) -> Result<Option<String>, FhirRefusal> {
    let mut found: Vec<Pair> = pairs.extract_if(.., |pair| pair.name == name).collect();
    match (found.pop(), found.is_empty()) {
        (last, true) => Ok(last.map(|pair| pair.value)),
        (_, false) => Err(FhirRefusal::RepeatedParameter(name)),
    }
}

/// For interactions that have no parameters of their own.
fn alone(pairs: &[Pair], interaction: Interaction) -> Result<Interaction, FhirRefusal> {
    const KNOWN: [&str; 2] = ["_summary", "_elements"];
    match pairs.first() {
        None => Ok(interaction),
        Some(pair) => Err(KNOWN
            .iter()
            .find(|name| **name == pair.name)
            .map_or(FhirRefusal::UnknownParameter, |name| FhirRefusal::ParameterNotSupported(name))),
    }
}

/// `mode=full` is what is answered anyway; the other modes are other documents.
fn capabilities(pairs: &[Pair]) -> Result<Interaction, FhirRefusal> {
    match pairs {
        [mode] if mode.name == "mode" => match mode.value.as_str() {
            "full" => Ok(Interaction::Capabilities),
            _ => Err(FhirRefusal::ParameterNotSupported("mode")),
        },
        _ => alone(pairs, Interaction::Capabilities),
    }
}

fn has_page(pairs: &[Pair]) -> bool {
    pairs.iter().any(|pair| pair.name == PAGE_PARAMETER)
}

/// A page link is whole in itself: nothing may be added to it.
fn next_page(resource: ResourceType, pairs: &[Pair]) -> Result<Interaction, FhirRefusal> {
    match pairs {
        [page] => PageToken::parse(&page.value)
            .map(|token| Interaction::NextPage { resource, token })
            .ok_or(FhirRefusal::MalformedPageToken),
        _ => Err(FhirRefusal::MalformedPageToken),
    }
}

/// What a plain request line asks for (`GET /Patient/1`), for the tests of rooms that need an
/// interaction and cannot make one.
#[cfg(test)]
pub(crate) fn asked(line: &str) -> Result<Interaction, FhirRefusal> {
    let base = PublicBase::parse("https://fhir.test").unwrap();
    let (method, target) = line.split_once(' ').unwrap();
    let headers = http::HeaderMap::new();
    let head = Head { method, target, authority: Some("fhir.test"), headers: &headers };
    classify(&head, None, &base)
}
