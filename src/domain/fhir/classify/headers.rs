//! What the request's headers and `_format` say about the media types of the answer and the body.
//!
//! Owns: content negotiation (R4 http.html 3.1.0.1.9 to 3.1.0.1.11) and the rule that a header that counts
//! has one meaning (KF-12). Must never: read a header that names another method, path or caller; such
//! headers (T-142, T-143) are not looked at, and nothing of the client's head goes upstream.
//! Look next: `wishes`, the other headers that count; `classify/mod.rs`.

use http::HeaderMap;
use http::header::{self, HeaderName};

use super::refusal::FhirRefusal;
use super::wishes::{Content, Expects};
use crate::domain::fhir::interaction::PatchFormat;
use crate::limits::ACCEPT_RANGES_MAX;

/// The one value of a header, or none. Repeats must be equal, and text must be plain ASCII.
pub(super) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, FhirRefusal> {
    let mut found: Option<&str> = None;
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| FhirRefusal::MalformedHeader)?;
        if found.is_some_and(|earlier| earlier != text) {
            return Err(FhirRefusal::RepeatedHeader);
        }
        found = Some(text.trim());
    }
    Ok(found)
}

/// The Host header. Two are one too many, even when they agree (T-145).
pub(super) fn host(headers: &HeaderMap) -> Result<Option<&str>, FhirRefusal> {
    let mut values = headers.get_all(header::HOST).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(FhirRefusal::MalformedHost);
    }
    first.map(|value| value.to_str().map_err(|_| FhirRefusal::MalformedHost)).transpose()
}

/// The body's coding: gzip, which the edge takes off within bounds (T-132), or none.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), FhirRefusal> {
    let encoding = single(headers, &header::CONTENT_ENCODING)?.unwrap_or("identity");
    let known = encoding.eq_ignore_ascii_case("identity") || encoding.eq_ignore_ascii_case("gzip");
    if known { Ok(()) } else { Err(FhirRefusal::UnsupportedEncoding) }
}

/// What the body is announced as, for an interaction that expects one. The format is that of a patch.
pub(super) fn read_body_type(
    headers: &HeaderMap,
    expects: Expects,
) -> Result<Option<PatchFormat>, FhirRefusal> {
    let announced = single(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let (essence, parameters) = split_parameters(announced);
    let refused = Err(FhirRefusal::UnsupportedMediaType(expects));
    if expects == Expects::Binary && is_content(&essence) {
        return Ok(None);
    }
    if expects != Expects::Nothing && !is_r4(&parameters) {
        return refused;
    }
    match (expects, essence.as_str()) {
        (Expects::Nothing, _) => check_no_body(headers).map(|()| None),
        (Expects::Parameters, "") => check_no_body(headers).map(|()| None),
        (Expects::Form, "application/x-www-form-urlencoded")
        | (
            Expects::Resource | Expects::Parameters | Expects::Binary,
            "application/fhir+json" | "application/json",
        ) => single(headers, &header::CONTENT_LENGTH).map(|_| None),
        (Expects::Patch, "application/json-patch+json") => Ok(Some(PatchFormat::JsonPatch)),
        (Expects::Patch, "application/fhir+json") => Ok(Some(PatchFormat::FhirPath)),
        (Expects::Form | Expects::Resource | Expects::Parameters | Expects::Binary | Expects::Patch, _) => {
            refused
        }
    }
}

/// The content of a Binary, where the body is that. A context beside a resource, which has its own, is refused: its sender
/// relies on it.
pub(super) fn read_content(headers: &HeaderMap, expects: Expects) -> Result<Option<Content>, FhirRefusal> {
    if expects != Expects::Binary {
        return Ok(None);
    }
    let content_type = single(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let context = single(headers, &HeaderName::from_static("x-security-context"))?;
    if !is_content(&split_parameters(content_type).0) {
        return match context {
            Some(_) => Err(FhirRefusal::HeaderNotApplicable("X-Security-Context")),
            None => Ok(None),
        };
    }
    let is_reference =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'?');
    let spaced = content_type.contains("  ") || content_type.contains('\t');
    if spaced || !context.is_none_or(is_reference) {
        return Err(FhirRefusal::MalformedHeader);
    }
    let (content_type, security_context) = (content_type.to_owned(), context.map(str::to_owned));
    Ok(Some(Content { content_type, security_context }))
}

/// A media type of content. Types that FHIR uses for resources would be one to us and the other to the EMR; a form or a
/// body of several parts is not content itself.
fn is_content(essence: &str) -> bool {
    let token = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(plain)
    };
    let fhir = essence.starts_with("application/fhir+")
        || is_json(essence)
        || matches!(essence, "application/xml" | "text/xml" | "text/turtle");
    let other = essence.starts_with("multipart/") || essence == "application/x-www-form-urlencoded";
    !fhir && !other && essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

/// For interactions without a body: none may be announced.
fn check_no_body(headers: &HeaderMap) -> Result<(), FhirRefusal> {
    let length = single(headers, &header::CONTENT_LENGTH)?;
    let announced = length.is_some_and(|text| text != "0") || headers.contains_key(header::TRANSFER_ENCODING);
    if announced { Err(FhirRefusal::UnexpectedBody) } else { Ok(()) }
}

/// What an answer can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// FHIR JSON.
    Json,
    /// A Binary: FHIR JSON, or its content in whatever type that is.
    Binary,
    /// A file of an export.
    Ndjson,
}

/// `Accept`, unless `_format` takes its place (R4 http.html 3.1.0.1.11). True: a Binary's content is wanted
/// and not the resource (R4 binary.html).
pub(super) fn read_answer_type(
    headers: &HeaderMap,
    format: Option<&str>,
    answers: Answers,
) -> Result<bool, FhirRefusal> {
    let accept = single(headers, &header::ACCEPT)?;
    let json = match (format, accept) {
        (Some(format), _) => accepts_format(format),
        (None, Some(accept)) => accepts_json(accept),
        (None, None) => true,
    };
    let accept = accept.filter(|_| format.is_none()).unwrap_or_default();
    match answers {
        _ if json => Ok(false),
        Answers::Binary if accepts_content(accept) => Ok(true),
        Answers::Ndjson if format.is_some_and(is_ndjson) || accept.split(',').any(is_ndjson) => Ok(false),
        Answers::Json | Answers::Binary | Answers::Ndjson => Err(FhirRefusal::NotAcceptable),
    }
}

fn is_ndjson(range: &str) -> bool {
    let (essence, parameters) = split_parameters(range);
    let known = matches!(
        essence.as_str(),
        "application/fhir+ndjson" | "application/ndjson" | "application/fhir ndjson" | "ndjson"
    );
    known && is_r4(&parameters) && is_wanted(&parameters)
}

/// Whether some type is wanted that is no form of a resource. XML, Turtle and other versions of FHIR are
/// refused for a Binary as for any other type (T-113, T-116).
fn accepts_content(accept: &str) -> bool {
    accept.split(',').take(ACCEPT_RANGES_MAX).map(split_parameters).any(|(essence, parameters)| {
        let fhir = essence.starts_with("application/fhir+") || is_json(&essence);
        essence.contains('/') && !fhir && is_wanted(&parameters)
    })
}

/// `_format` values; a `+` that was not encoded arrives as a space, which R4 asks to tolerate.
fn accepts_format(text: &str) -> bool {
    let (essence, parameters) = split_parameters(text);
    let json = essence == "json" || essence == "application/fhir json" || is_json(&essence);
    (json || essence == "*/*") && is_r4(&parameters)
}

fn is_json(essence: &str) -> bool {
    matches!(essence, "application/fhir+json" | "application/json" | "text/json")
}

/// The most specific ranges that could mean JSON decide; among equals, one wish is enough
/// (RFC 9110, 12.5.1).
fn accepts_json(text: &str) -> bool {
    let mut best: Option<(u8, bool)> = None;
    for (place, range) in text.split(',').enumerate() {
        if place >= ACCEPT_RANGES_MAX {
            return false;
        }
        let Some((specificity, wanted)) = judge_range(range) else { continue };
        best = match best {
            Some((known, _)) if known > specificity => best,
            Some((known, already)) if known == specificity => Some((known, already || wanted)),
            Some(_) | None => Some((specificity, wanted)),
        };
    }
    best.is_some_and(|(_, wanted)| wanted)
}

/// How specific a range is for JSON, and whether it is wanted. `None`: it speaks of something else.
fn judge_range(range: &str) -> Option<(u8, bool)> {
    let (essence, parameters) = split_parameters(range);
    let specificity = match essence.as_str() {
        "*/*" => 0,
        "application/*" => 1,
        exact if is_json(exact) => 2,
        _ => return None,
    };
    is_r4(&parameters).then_some((specificity, is_wanted(&parameters)))
}

fn is_wanted(parameters: &[(String, String)]) -> bool {
    let quality = parameters.iter().find(|(name, _)| name == "q");
    quality.is_none_or(|(_, value)| is_positive_quality(value))
}

/// `0.001` to `1`; anything malformed counts as a refusal of the range.
fn is_positive_quality(text: &str) -> bool {
    text.len() <= 5
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.parse::<f32>().is_ok_and(|quality| quality > 0.0 && quality <= 1.0)
}

/// No FHIR version, or 4.0; no charset, or UTF-8. Other parameters do not change what JSON is.
fn is_r4(parameters: &[(String, String)]) -> bool {
    parameters.iter().all(|(name, value)| match name.as_str() {
        "fhirversion" => value == "4.0",
        "charset" => value == "utf-8" || value == "utf8",
        _ => true,
    })
}

/// Lower-case media type and parameters, quotes removed.
fn split_parameters(text: &str) -> (String, Vec<(String, String)>) {
    let mut pieces = text.split(';').map(str::trim);
    let essence = pieces.next().unwrap_or_default().to_ascii_lowercase();
    let parameters = pieces
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            (name.trim().to_ascii_lowercase(), value)
        })
        .collect();
    (essence, parameters)
}
