//! Interactions for the unit tests of other rooms, asked for as a client would.
//!
//! Owns: [`asked`] and [`asked_whole`], compiled for tests only, so that `classify` stays the one maker.
//! Must never: be compiled into the program.
//! Look next: `classify/mod.rs`.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Asked, FhirRefusal, Head, classify};
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::path::PublicBase;
use crate::domain::fhir::search::Registry;

/// What a plain request asks for, at the base `https://fhir.test`.
///
/// The text is a request line (`PUT /Patient/1`), then headers one a line (`If-Match: W/"3"`), then after an
/// empty line a form. A Content-Type and an export's Prefer that are not there are filled in.
pub(crate) fn asked(text: &str) -> Result<Interaction, FhirRefusal> {
    asked_whole(text).map(|asked| asked.interaction)
}

/// As [`asked`], with what the headers wish for.
pub(crate) fn asked_whole(text: &str) -> Result<Asked, FhirRefusal> {
    let base = PublicBase::parse("https://fhir.test").unwrap();
    let (top, form) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = top.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    for (name, value) in usual_headers(method, target) {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    let head = Head { method, target, authority: Some("fhir.test"), headers: &headers };
    classify(&head, Some(form.as_bytes()), &base, &Registry::empty())
}

fn usual_headers(method: &str, target: &str) -> Vec<(&'static str, &'static str)> {
    let path = target.split('?').next().unwrap();
    match method {
        "POST" if path.ends_with("/_search") => vec![("content-type", "application/x-www-form-urlencoded")],
        "POST" | "PUT" => vec![("content-type", "application/fhir+json")],
        "PATCH" => vec![("content-type", "application/json-patch+json")],
        "GET" | "HEAD" if path.ends_with("/$export") => vec![("prefer", "respond-async")],
        _ => Vec::new(),
    }
}
