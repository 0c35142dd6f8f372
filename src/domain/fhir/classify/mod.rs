//! The one door from a request to an [`Interaction`].
//!
//! Owns: the order of the checks, and what each served path may carry. One parse gives one canonical
//! form; whatever is not understood is refused, never forwarded. Must never: decide who may ask; keep a
//! value in a refusal; panic on any input.
//! Look next: `route` (paths), `headers` and `wishes` (the head), `ranges` and `operations` (parameters),
//! `super::search` (searches).

mod headers;
mod operations;
mod parameters;
mod ranges;
mod refusal;
mod route;
#[cfg(test)]
mod specimen;
#[cfg(test)]
mod tests;
mod wishes;

use std::fmt;

use http::HeaderMap;

pub use self::refusal::{FhirRefusal, NotServed, RefusalClass};
#[cfg(test)]
pub(crate) use self::specimen::{asked, asked_whole};
pub use self::wishes::{Asked, Coding, Content, Expects, IfNoneMatch, Return, Wishes};

use self::headers::Answers;
use self::parameters::Parameters;
use self::route::{Operating, Route};
use self::wishes::Conditions;
use super::interaction::{Interaction, LogicalId, PatchFormat, Target};
use super::path::{PublicBase, split_address, split_target};
use super::r4::ResourceType;
use super::search::{Registry, Search};
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
    /// All headers. Host, Accept, Accept-Encoding, Content-Type, Content-Encoding, Content-Length,
    /// Transfer-Encoding, X-Security-Context, Prefer, If-Match, If-None-Match, If-None-Exist, If-Modified-Since and
    /// If-Unmodified-Since are read; no other is.
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

/// The request of one entry in a batch or transaction (`Bundle.entry.request`), as it stands there.
#[derive(Clone, Copy)]
pub struct EntryRequest<'e> {
    /// `method`.
    pub method: &'e str,
    /// `url`: relative to the base, or below the public base.
    pub url: &'e str,
    /// `ifNoneExist`.
    pub if_none_exist: Option<&'e str>,
    /// `ifMatch`.
    pub if_match: Option<&'e str>,
    /// `ifNoneMatch`.
    pub if_none_match: Option<&'e str>,
    /// `ifModifiedSince`: an instant.
    pub if_modified_since: Option<&'e str>,
}

impl fmt::Debug for EntryRequest<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EntryRequest").finish_non_exhaustive()
    }
}

/// What criteria are read against.
struct Known<'c> {
    base: &'c PublicBase,
    registry: &'c Registry,
}

/// A head of which everything is read but the parameters.
struct Opened<'r> {
    route: Route,
    query: &'r str,
    if_none_exist: Option<&'r str>,
    format: Option<PatchFormat>,
    wishes: Wishes,
}

/// Turns a request into the one interaction it means, with what is wished of its answer.
///
/// `form` is the whole body of a `POST _search`, or of an operation by POST (see [`expects`]), else `None` or empty:
/// other bodies are no part of the question. `parameters` are the hospital's own search parameters.
///
/// # Errors
/// A [`FhirRefusal`] for everything not understood or not served; it holds nothing the client sent.
pub fn classify(
    head: &Head<'_>,
    form: Option<&[u8]>,
    base: &PublicBase,
    parameters: &Registry,
) -> Result<Asked, FhirRefusal> {
    let opened = open(head, base)?;
    let mut found = Parameters::decode(opened.query)?;
    read_form(&opened.route, form.unwrap_or_default(), &mut found)?;
    understand(opened, found, head.headers, &Known { base, registry: parameters })
}

/// What body this request has to bring: a form or parameters are to be read, up to `FORM_BYTES_MAX`, before [`classify`] can
/// be asked. Everything that the head alone shows to be wrong is refused here.
///
/// # Errors
/// As [`classify`].
pub fn expects(head: &Head<'_>, base: &PublicBase) -> Result<Expects, FhirRefusal> {
    Ok(open(head, base)?.route.expects())
}

/// What one entry of a batch or transaction asks. It is one request more, read as if it came alone; but
/// what makes answers in parts (a Bundle, a page, an export) has no place inside (T-084). The format of a
/// patch is left to the entry's resource: it is said to be [`PatchFormat::FhirPath`]. `resource`: the entry's,
/// as JSON text, or empty; it is read here where it holds the parameters of an operation.
///
/// # Errors
/// As [`classify`].
pub fn entry(
    request: &EntryRequest<'_>,
    resource: &[u8],
    base: &PublicBase,
    parameters: &Registry,
) -> Result<Asked, FhirRefusal> {
    let target = split_address(entry_address(request.url, base)?)?;
    let (route, head_only) = route::find_route(request.method, &target.segments)?;
    let conditions = Conditions {
        if_none_exist: request.if_none_exist,
        if_match: request.if_match,
        if_none_match: request.if_none_match,
        if_modified_since: request.if_modified_since,
        if_unmodified_since: None,
    };
    let mut wishes = Wishes { head_only, ..Wishes::default() };
    conditions.apply(&route, &mut wishes)?;
    let mut found = Parameters::decode(target.query.unwrap_or_default())?;
    refuse_nested(&route, &found)?;
    if matches!(route, Route::OperateForm(_)) {
        read_form(&route, resource, &mut found)?;
    }
    let if_none_exist = request.if_none_exist;
    let opened = Opened { route, query: "", if_none_exist, format: Some(PatchFormat::FhirPath), wishes };
    understand(opened, found, &HeaderMap::new(), &Known { base, registry: parameters })
}

/// The question that a page link continues, from the [`Interaction::address`] that was sealed into it. Each
/// page is judged as its question would be now (T-150).
///
/// # Errors
/// As [`classify`]: what is understood may have changed since the link was made. `MalformedPageToken` for
/// an address whose answer has neither pages nor files.
pub fn continued(
    address: &str,
    base: &PublicBase,
    parameters: &Registry,
) -> Result<Interaction, FhirRefusal> {
    let target = split_address(address)?;
    let (route, _) = route::find_route("GET", &target.segments)?;
    let found = Parameters::decode(target.query.unwrap_or_default())?;
    let paged = matches!(
        route,
        Route::Search(_)
            | Route::History(_)
            | Route::Operate(Operating::Everything(_) | Operating::LastN(_) | Operating::Export(_))
    );
    if !paged || found.has(PAGE_PARAMETER) {
        return Err(FhirRefusal::MalformedPageToken);
    }
    let opened = Opened { route, query: "", if_none_exist: None, format: None, wishes: Wishes::default() };
    let known = Known { base, registry: parameters };
    understand(opened, found, &HeaderMap::new(), &known).map(|asked| asked.interaction)
}

/// Criteria that stand alone as the text of a query, without `?`: those of a scope, or of `If-None-Exist`.
///
/// # Errors
/// As [`classify`]; at least one criterion must be there, and nothing that shapes an answer may be.
pub fn criteria(
    resource: ResourceType,
    query: &str,
    base: &PublicBase,
    parameters: &Registry,
) -> Result<Search, FhirRefusal> {
    none_exist(resource, query, &Known { base, registry: parameters })
}

/// Everything but the parameters: host, path, method, headers.
fn open<'r>(head: &Head<'r>, base: &PublicBase) -> Result<Opened<'r>, FhirRefusal> {
    check_host(head, base)?;
    let target = split_target(head.target, base)?;
    let (route, head_only) = route::find_route(head.method, &target.segments)?;
    headers::check_encoding(head.headers)?;
    let format = headers::read_body_type(head.headers, route.expects())?;
    let conditions = Conditions::of(head.headers)?;
    let mut wishes = Wishes {
        head_only,
        prefer: wishes::read_prefer(head.headers, &route)?,
        codings: wishes::read_codings(head.headers)?,
        content: headers::read_content(head.headers, route.expects())?,
        ..Wishes::default()
    };
    conditions.apply(&route, &mut wishes)?;
    let query = target.query.unwrap_or_default();
    Ok(Opened { route, query, if_none_exist: conditions.if_none_exist, format, wishes })
}

/// The parameters, and with them the whole.
fn understand(
    opened: Opened<'_>,
    mut parameters: Parameters,
    headers: &HeaderMap,
    known: &Known<'_>,
) -> Result<Asked, FhirRefusal> {
    let Opened { route, if_none_exist, format, mut wishes, .. } = opened;
    refuse_token(&parameters)?;
    let wanted = parameters.single("_format")?;
    wishes.raw = headers::read_answer_type(headers, wanted.as_deref(), answers(&route))?;
    wishes.pretty = parameters.flag("_pretty")?;
    let interaction = match route {
        Route::Create(resource) => {
            parameters.finish()?;
            let if_none_exist = if_none_exist.map(|query| none_exist(resource, query, known)).transpose()?;
            Interaction::Create { resource, if_none_exist }
        }
        Route::Patch(resource, id) => {
            let format = format.ok_or(FhirRefusal::UnsupportedMediaType(Expects::Patch))?;
            Interaction::Patch { resource, target: target(resource, id, parameters, known)?, format }
        }
        route => interaction(route, parameters, known)?,
    };
    Ok(Asked { interaction, wishes })
}

/// What needs nothing but its path and parameters.
fn interaction(
    route: Route,
    mut parameters: Parameters,
    known: &Known<'_>,
) -> Result<Interaction, FhirRefusal> {
    let plain = match route {
        Route::Read(resource, id) => {
            let shape = parameters.shape_of_records(&[resource])?;
            Interaction::Read { resource, id, shape }
        }
        Route::Vread(resource, id, version) => {
            let shape = parameters.shape_of_records(&[resource])?;
            Interaction::Vread { resource, id, version, shape }
        }
        Route::Search(range) if parameters.has(PAGE_PARAMETER) => {
            return ranges::read_page(&range, parameters);
        }
        Route::Search(range) | Route::SearchForm(range) => return ranges::read(range, parameters, known),
        Route::History(scope) => return operations::history(scope, parameters).map(Interaction::History),
        Route::Operate(operating) | Route::OperateForm(operating) => {
            return operations::read(operating, parameters, known).map(Interaction::Operation);
        }
        Route::Update(resource, id) => {
            let target = target(resource, id, parameters, known)?;
            return Ok(Interaction::Update { resource, target });
        }
        Route::Delete(resource, id) => {
            let target = target(resource, id, parameters, known)?;
            return Ok(Interaction::Delete { resource, target });
        }
        Route::Capabilities => {
            check_mode(&mut parameters)?;
            Interaction::Capabilities
        }
        Route::Bundle => Interaction::Bundle,
        Route::ExportStatus(token) => Interaction::ExportStatus { token },
        Route::ExportCancel(token) => Interaction::ExportCancel { token },
        Route::ExportFile(token) => Interaction::ExportFile { token },
        Route::SmartConfiguration => Interaction::SmartConfiguration,
        Route::Create(_) | Route::Patch(..) => return Err(FhirRefusal::UnknownPath),
    };
    parameters.finish()?;
    Ok(plain)
}

/// A record by its id, or by criteria in its place.
fn target(
    resource: ResourceType,
    id: Option<LogicalId>,
    parameters: Parameters,
    known: &Known<'_>,
) -> Result<Target, FhirRefusal> {
    match id {
        Some(id) => parameters.finish().map(|()| Target::Id(id)),
        None => ranges::criteria(resource, &parameters, known).map(Target::Match),
    }
}

/// `If-None-Exist` is parsed like a query (T-068).
fn none_exist(resource: ResourceType, query: &str, known: &Known<'_>) -> Result<Search, FhirRefusal> {
    let parameters = Parameters::decode(query)?;
    refuse_token(&parameters)?;
    ranges::criteria(resource, &parameters, known)
}

/// `mode=full` is what is answered anyway; the other modes are other documents.
fn check_mode(parameters: &mut Parameters) -> Result<(), FhirRefusal> {
    match parameters.single("mode")?.as_deref() {
        None | Some("full") => Ok(()),
        Some(_) => Err(FhirRefusal::ParameterNotSupported("mode")),
    }
}

/// A token is refused whatever else is asked (T-159).
fn refuse_token(parameters: &Parameters) -> Result<(), FhirRefusal> {
    let token = parameters.rest().iter().any(|pair| pair.name.eq_ignore_ascii_case("access_token"));
    if token { Err(FhirRefusal::TokenInRequest) } else { Ok(()) }
}

fn answers(route: &Route) -> Answers {
    match route {
        Route::Read(resource, _) | Route::Vread(resource, ..) if resource.name() == "Binary" => {
            Answers::Binary
        }
        Route::ExportFile(_) => Answers::Ndjson,
        _ => Answers::Json,
    }
}

/// The part of an entry's URL below the base. A leading slash would mean the host's root, which is not
/// the base (RFC 3986, 5.2).
fn entry_address<'u>(url: &'u str, base: &PublicBase) -> Result<&'u str, FhirRefusal> {
    if let Some(rest) = url.strip_prefix(base.as_str()) {
        let below =
            if rest.is_empty() || rest.starts_with('?') { Some(rest) } else { rest.strip_prefix('/') };
        return below.ok_or(FhirRefusal::MalformedEntry);
    }
    let path = url.split('?').next().unwrap_or_default();
    let relative = !path.starts_with('/') && !path.contains(':');
    if relative { Ok(url) } else { Err(FhirRefusal::MalformedEntry) }
}

fn refuse_nested(route: &Route, parameters: &Parameters) -> Result<(), FhirRefusal> {
    let nested = matches!(
        route,
        Route::Bundle
            | Route::SearchForm(_)
            | Route::ExportStatus(_)
            | Route::ExportCancel(_)
            | Route::ExportFile(_)
            | Route::Operate(Operating::Export(_))
            | Route::OperateForm(Operating::Export(_))
    );
    if nested || parameters.has(PAGE_PARAMETER) {
        return Err(FhirRefusal::NotServed(NotServed::Nested));
    }
    Ok(())
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

fn read_form(route: &Route, form: &[u8], parameters: &mut Parameters) -> Result<(), FhirRefusal> {
    if form.is_empty() {
        return Ok(());
    }
    if form.len() > FORM_BYTES_MAX {
        return Err(FhirRefusal::FormTooLarge);
    }
    match route {
        Route::SearchForm(_) => parameters.and_form(form),
        Route::OperateForm(_) => parameters.and_resource(form),
        _ => Err(FhirRefusal::UnexpectedBody),
    }
}
