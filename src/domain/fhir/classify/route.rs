//! Method and path segments to one route.
//!
//! Owns: the table of paths the proxy knows, and the methods each of them has. Must never: look at the
//! query (KF-13). Look next: `classify/mod.rs`; `ranges` and `operations`, which read what a route carries.

use super::refusal::{FhirRefusal, NotServed};
use super::wishes::Expects;
use crate::domain::fhir::interaction::{ExportLevel, HistoryScope, LogicalId, PageToken, VersionId};
use crate::domain::fhir::r4::ResourceType;

/// A path and method that are served, before parameters are read.
pub(super) enum Route {
    Read(ResourceType, LogicalId),
    Vread(ResourceType, LogicalId, VersionId),
    History(HistoryScope),
    Search(Range),
    SearchForm(Range),
    Create(ResourceType),
    Update(ResourceType, Option<LogicalId>),
    Patch(ResourceType, Option<LogicalId>),
    Delete(ResourceType, Option<LogicalId>),
    Bundle,
    Operate(Operating),
    /// The same by POST, where a body may hold the parameters.
    OperateForm(Operating),
    ExportStatus(PageToken),
    ExportCancel(PageToken),
    ExportFile(PageToken),
    Capabilities,
    SmartConfiguration,
}

/// Where a search looks. An owner is a type that may or may not have compartments.
#[derive(Clone)]
pub(super) enum Range {
    Type(ResourceType),
    Members(ResourceType, LogicalId, ResourceType),
    AllMembers(ResourceType, LogicalId),
    System,
}

/// An operation at a level where it is served.
#[derive(Clone)]
pub(super) enum Operating {
    Everything(LogicalId),
    LastN(ResourceType),
    Validate(ResourceType),
    Expand(Option<LogicalId>),
    Lookup,
    BreakGlass,
    Export(ExportLevel),
}

/// What a path names, whatever the method.
enum Place {
    Capabilities,
    SmartConfiguration,
    Base,
    Type(ResourceType),
    Instance(ResourceType, LogicalId),
    Version(ResourceType, LogicalId, VersionId),
    History(HistoryScope),
    Range(Range),
    RangeForm(Range),
    Operation(Operating),
    Export(PageToken),
    File(PageToken),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Route {
    /// What the body must be.
    pub(super) fn expects(&self) -> Expects {
        match self {
            Self::SearchForm(_) => Expects::Form,
            Self::Create(resource) | Self::Update(resource, _) if resource.name() == "Binary" => {
                Expects::Binary
            }
            Self::Create(_)
            | Self::Update(..)
            | Self::Bundle
            | Self::Operate(Operating::Validate(_) | Operating::BreakGlass) => Expects::Resource,
            Self::Patch(..) => Expects::Patch,
            Self::OperateForm(_) => Expects::Parameters,
            Self::Read(..)
            | Self::Vread(..)
            | Self::History(_)
            | Self::Search(_)
            | Self::Delete(..)
            | Self::Operate(_)
            | Self::ExportStatus(_)
            | Self::ExportCancel(_)
            | Self::ExportFile(_)
            | Self::Capabilities
            | Self::SmartConfiguration => Expects::Nothing,
        }
    }
}

/// Finds the route, and whether only its head is wanted: HEAD is GET without the body (T-147).
pub(super) fn find_route(method: &str, segments: &[&str]) -> Result<(Route, bool), FhirRefusal> {
    let place = find_place(segments)?;
    let allowed = place.allow();
    let (method, head_only) = match method {
        "GET" => (Method::Get, false),
        "HEAD" => (Method::Get, true),
        "POST" => (Method::Post, false),
        "PUT" => (Method::Put, false),
        "PATCH" => (Method::Patch, false),
        "DELETE" => (Method::Delete, false),
        "OPTIONS" => return Err(FhirRefusal::NotServed(NotServed::Options(allowed))),
        _ => return Err(FhirRefusal::MethodNotAllowed(allowed)),
    };
    let route = place.route(method).ok_or(FhirRefusal::MethodNotAllowed(allowed))?;
    refuse_subscription(&route)?;
    Ok((route, head_only))
}

impl Place {
    /// Content of the Allow header.
    fn allow(&self) -> &'static str {
        match self {
            Self::Capabilities
            | Self::SmartConfiguration
            | Self::History(_)
            | Self::Version(..)
            | Self::Range(_)
            | Self::File(_) => "GET, HEAD",
            Self::Base => "GET, HEAD, POST",
            Self::Type(_) => "GET, HEAD, POST, PUT, PATCH, DELETE",
            Self::Instance(..) => "GET, HEAD, PUT, PATCH, DELETE",
            Self::RangeForm(_) => "POST",
            Self::Export(_) => "GET, HEAD, DELETE",
            Self::Operation(operating) => operating.allow(),
        }
    }

    fn route(self, method: Method) -> Option<Route> {
        match (self, method) {
            (Self::Capabilities, Method::Get) => Some(Route::Capabilities),
            (Self::SmartConfiguration, Method::Get) => Some(Route::SmartConfiguration),
            (Self::Base, Method::Get) => Some(Route::Search(Range::System)),
            (Self::Base, Method::Post) => Some(Route::Bundle),
            (Self::Type(resource), method) => Some(type_route(resource, method)),
            (Self::Instance(resource, id), method) => instance_route(resource, id, method),
            (Self::Version(resource, id, version), Method::Get) => Some(Route::Vread(resource, id, version)),
            (Self::History(scope), Method::Get) => Some(Route::History(scope)),
            (Self::Range(range), Method::Get) => Some(Route::Search(range)),
            (Self::RangeForm(range), Method::Post) => Some(Route::SearchForm(range)),
            (Self::Operation(operating), method) => {
                let whole = matches!(operating, Operating::Validate(_) | Operating::BreakGlass);
                let form = method == Method::Post && !whole;
                let route = if form { Route::OperateForm } else { Route::Operate };
                operating.takes(method).then(|| route(operating))
            }
            (Self::Export(token), Method::Get) => Some(Route::ExportStatus(token)),
            (Self::Export(token), Method::Delete) => Some(Route::ExportCancel(token)),
            (Self::File(token), Method::Get) => Some(Route::ExportFile(token)),
            _ => None,
        }
    }
}

impl Operating {
    fn allow(&self) -> &'static str {
        match self {
            Self::Validate(_) | Self::BreakGlass => "POST",
            Self::Everything(_) | Self::LastN(_) | Self::Expand(_) | Self::Lookup | Self::Export(_) => {
                "GET, HEAD, POST"
            }
        }
    }

    fn takes(&self, method: Method) -> bool {
        match method {
            Method::Get => !matches!(self, Self::Validate(_) | Self::BreakGlass),
            Method::Post => true,
            Method::Put | Method::Patch | Method::Delete => false,
        }
    }
}

/// A type itself: what is conditional stands here, without an id.
fn type_route(resource: ResourceType, method: Method) -> Route {
    match method {
        Method::Get => Route::Search(Range::Type(resource)),
        Method::Post => Route::Create(resource),
        Method::Put => Route::Update(resource, None),
        Method::Patch => Route::Patch(resource, None),
        Method::Delete => Route::Delete(resource, None),
    }
}

fn instance_route(resource: ResourceType, id: LogicalId, method: Method) -> Option<Route> {
    match method {
        Method::Get => Some(Route::Read(resource, id)),
        Method::Post => None,
        Method::Put => Some(Route::Update(resource, Some(id))),
        Method::Patch => Some(Route::Patch(resource, Some(id))),
        Method::Delete => Some(Route::Delete(resource, Some(id))),
    }
}

/// A subscription makes the EMR speak to someone on its own (T-105). Ending one is harmless.
fn refuse_subscription(route: &Route) -> Result<(), FhirRefusal> {
    match route {
        Route::Create(resource) | Route::Update(resource, _) | Route::Patch(resource, _)
            if resource.name() == "Subscription" =>
        {
            Err(FhirRefusal::NotServed(NotServed::Subscription))
        }
        _ => Ok(()),
    }
}

fn find_place(segments: &[&str]) -> Result<Place, FhirRefusal> {
    match segments {
        ["metadata"] => Ok(Place::Capabilities),
        [".well-known", "smart-configuration"] => Ok(Place::SmartConfiguration),
        [] => Ok(Place::Base),
        ["_search"] => Ok(Place::RangeForm(Range::System)),
        ["_history"] => Ok(Place::History(HistoryScope::System)),
        ["~export", token] => read_token(token).map(Place::Export),
        ["~file", token] => read_token(token).map(Place::File),
        ["$export"] => Ok(Place::Operation(Operating::Export(ExportLevel::System))),
        ["$break-glass"] => Ok(Place::Operation(Operating::BreakGlass)),
        [name] if is_operation(name) => Err(not_served(name)),
        [name, rest @ ..] => find_type_place(read_type(name)?, rest),
    }
}

fn find_type_place(resource: ResourceType, rest: &[&str]) -> Result<Place, FhirRefusal> {
    match rest {
        [] => Ok(Place::Type(resource)),
        ["_search"] => Ok(Place::RangeForm(Range::Type(resource))),
        ["_history"] => Ok(Place::History(HistoryScope::Type(resource))),
        [name] if is_operation(name) => type_operation(resource, name).map(Place::Operation),
        [id, rest @ ..] => {
            let id = LogicalId::parse(id).ok_or(FhirRefusal::MalformedId)?;
            find_instance_place(resource, id, rest)
        }
    }
}

fn find_instance_place(resource: ResourceType, id: LogicalId, rest: &[&str]) -> Result<Place, FhirRefusal> {
    match rest {
        [] => Ok(Place::Instance(resource, id)),
        ["_history"] => Ok(Place::History(HistoryScope::Instance(resource, id))),
        ["_history", version] => {
            let version = VersionId::parse(version).ok_or(FhirRefusal::MalformedId)?;
            Ok(Place::Version(resource, id, version))
        }
        [name] if is_operation(name) => instance_operation(resource, id, name).map(Place::Operation),
        ["_history", _, name] if is_operation(name) => Err(not_served(name)),
        ["*"] => Ok(Place::Range(Range::AllMembers(resource, id))),
        ["*", "_search"] => Ok(Place::RangeForm(Range::AllMembers(resource, id))),
        [name] => Ok(Place::Range(Range::Members(resource, id, read_type(name)?))),
        [name, "_search"] => Ok(Place::RangeForm(Range::Members(resource, id, read_type(name)?))),
        _ => Err(FhirRefusal::UnknownPath),
    }
}

/// Names are exact (KF-27): `$Everything` is no operation.
fn type_operation(resource: ResourceType, name: &str) -> Result<Operating, FhirRefusal> {
    match (resource.name(), name) {
        ("Observation", "$lastn") => Ok(Operating::LastN(resource)),
        (_, "$validate") => Ok(Operating::Validate(resource)),
        ("ValueSet", "$expand") => Ok(Operating::Expand(None)),
        ("CodeSystem", "$lookup") => Ok(Operating::Lookup),
        ("Patient", "$export") => Ok(Operating::Export(ExportLevel::Patient)),
        _ => Err(not_served(name)),
    }
}

fn instance_operation(resource: ResourceType, id: LogicalId, name: &str) -> Result<Operating, FhirRefusal> {
    match (resource.name(), name) {
        ("Patient", "$everything") => Ok(Operating::Everything(id)),
        ("ValueSet", "$expand") => Ok(Operating::Expand(Some(id))),
        ("Group", "$export") => Ok(Operating::Export(ExportLevel::Group(id))),
        _ => Err(not_served(name)),
    }
}

fn not_served(operation: &str) -> FhirRefusal {
    FhirRefusal::NotServed(match operation {
        "$graphql" => NotServed::GraphQl,
        _ => NotServed::Operation,
    })
}

/// A token that this proxy cannot have sealed names nothing.
fn read_token(text: &str) -> Result<PageToken, FhirRefusal> {
    PageToken::parse(text).ok_or(FhirRefusal::UnknownPath)
}

/// A type in the wrong case is a malformed path: some servers would take it for the type (KF-10).
fn read_type(name: &str) -> Result<ResourceType, FhirRefusal> {
    if let Some(resource) = ResourceType::from_name(name) {
        return Ok(resource);
    }
    if ResourceType::all().any(|resource| resource.name().eq_ignore_ascii_case(name)) {
        return Err(FhirRefusal::MalformedPath);
    }
    Err(FhirRefusal::UnknownType)
}

fn is_operation(segment: &str) -> bool {
    segment.starts_with('$')
}
