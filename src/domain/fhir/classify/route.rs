//! Method and path segments to one route.
//!
//! Owns: the table of paths the proxy knows, and the names of those it refuses. Must never: look at the
//! query (KF-13). Look next: `classify/mod.rs`.

use super::refusal::{FhirRefusal, NotServed};
use crate::domain::fhir::interaction::{LogicalId, VersionId};
use crate::domain::fhir::r4::ResourceType;

/// A path that is served, before its parameters are read.
pub(super) enum Route {
    Read(ResourceType, LogicalId),
    Vread(ResourceType, LogicalId, VersionId),
    Search(ResourceType),
    SearchForm(ResourceType),
    Capabilities,
    SmartConfiguration,
}

/// Methods that R4 or HTTP give a meaning here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Refused(NotServed),
}

/// Exact upper case only. TRACE, CONNECT and the unknown are not allowed anywhere (T-147).
pub(super) fn read_method(text: &str) -> Result<Method, FhirRefusal> {
    match text {
        "GET" => Ok(Method::Get),
        "POST" => Ok(Method::Post),
        "HEAD" => Ok(Method::Refused(NotServed::Head)),
        "OPTIONS" => Ok(Method::Refused(NotServed::Options)),
        "PUT" => Ok(Method::Refused(NotServed::Update)),
        "PATCH" => Ok(Method::Refused(NotServed::Patch)),
        "DELETE" => Ok(Method::Refused(NotServed::Delete)),
        _ => Err(FhirRefusal::MethodNotAllowed("GET")),
    }
}

/// Finds the route, or the name of what is refused.
pub(super) fn find_route(method: Method, segments: &[&str]) -> Result<Route, FhirRefusal> {
    match segments {
        ["metadata"] => get_only(method, Route::Capabilities),
        [".well-known", "smart-configuration"] => get_only(method, Route::SmartConfiguration),
        [] => refuse(method, NotServed::SystemSearch, NotServed::Batch),
        ["_search"] => refuse(method, NotServed::SystemSearch, NotServed::SystemSearch),
        ["_history"] => refuse(method, NotServed::History, NotServed::History),
        [name] if is_operation(name) => operation(method),
        [name, rest @ ..] => find_type_route(method, read_type(name)?, rest),
    }
}

fn find_type_route(method: Method, resource: ResourceType, rest: &[&str]) -> Result<Route, FhirRefusal> {
    match rest {
        [] => match method {
            Method::Get => Ok(Route::Search(resource)),
            Method::Post => Err(FhirRefusal::NotServed(NotServed::Create)),
            Method::Refused(what) => Err(FhirRefusal::NotServed(what)),
        },
        ["_search"] => match method {
            Method::Post => Ok(Route::SearchForm(resource)),
            Method::Get | Method::Refused(_) => Err(FhirRefusal::MethodNotAllowed("POST")),
        },
        ["_history"] => refuse(method, NotServed::History, NotServed::History),
        [name] if is_operation(name) => operation(method),
        [id, rest @ ..] => find_instance_route(method, resource, id, rest),
    }
}

fn find_instance_route(
    method: Method,
    resource: ResourceType,
    id: &str,
    rest: &[&str],
) -> Result<Route, FhirRefusal> {
    let id = LogicalId::parse(id).ok_or(FhirRefusal::MalformedId)?;
    match rest {
        [] => get_only(method, Route::Read(resource, id)),
        ["_history"] => refuse(method, NotServed::History, NotServed::History),
        ["_history", version] => {
            let version = VersionId::parse(version).ok_or(FhirRefusal::MalformedId)?;
            get_only(method, Route::Vread(resource, id, version))
        }
        [name] | ["_history", _, name] if is_operation(name) => operation(method),
        ["*"] | ["*", "_search"] => compartment(method),
        [name] | [name, "_search"] => {
            read_type(name)?;
            compartment(method)
        }
        _ => Err(FhirRefusal::UnknownPath),
    }
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

fn get_only(method: Method, route: Route) -> Result<Route, FhirRefusal> {
    match method {
        Method::Get => Ok(route),
        Method::Post => Err(FhirRefusal::MethodNotAllowed("GET")),
        Method::Refused(what) => Err(FhirRefusal::NotServed(what)),
    }
}

fn operation(method: Method) -> Result<Route, FhirRefusal> {
    refuse(method, NotServed::Operation, NotServed::Operation)
}

fn compartment(method: Method) -> Result<Route, FhirRefusal> {
    refuse(method, NotServed::CompartmentSearch, NotServed::CompartmentSearch)
}

fn refuse(method: Method, get: NotServed, post: NotServed) -> Result<Route, FhirRefusal> {
    Err(FhirRefusal::NotServed(match method {
        Method::Get => get,
        Method::Post => post,
        Method::Refused(what) => what,
    }))
}
