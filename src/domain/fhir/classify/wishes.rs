//! What a request wishes beside its question: preferences, preconditions and codings.
//!
//! Owns: [`Wishes`] and [`Expects`], and which header may stand on which interaction (KF-12, KF-35).
//! Must never: drop a precondition of a write, or honour `handling=lenient` (T-019).
//! Look next: `headers`, the syntax of single headers; `classify/mod.rs`, where the two meet.

use std::fmt;

use http::HeaderMap;
use http::header::{self, HeaderName};

use super::headers::single;
use super::refusal::{FhirRefusal, NotServed};
use super::route::{Operating, Route};
use crate::domain::fhir::interaction::{Interaction, VersionId};
use crate::limits::{ACCEPT_RANGES_MAX, ENTITY_TAGS_MAX};

/// A request that was understood: the question, and how the answer is wished for.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The question.
    pub interaction: Interaction,
    /// The rest of the head.
    pub wishes: Wishes,
}

/// How an answer is wished for. Nothing here changes which records it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// HEAD: the headers of the answer to GET, without its body.
    pub head_only: bool,
    /// `_pretty=true`: indented.
    pub pretty: bool,
    /// `Prefer: return=…`.
    pub prefer: Return,
    /// `If-Match` of an update, patch or delete, by id or by criteria.
    pub if_match: Option<VersionId>,
    /// `If-None-Match` of a read or vread.
    pub if_none_match: IfNoneMatch,
    /// `If-Modified-Since` of a read or vread, as text: an HTTP date, or in a Bundle entry an R4 instant.
    /// None when there is an `If-None-Match`, which takes its place (RFC 9110, 13.1.3).
    pub if_modified_since: Option<String>,
    /// A read or vread of a Binary by someone who wants its content and no FHIR JSON.
    pub raw: bool,
    /// The body is the content of a Binary, not the resource.
    pub content: Option<Content>,
    /// Content codings of the answer, best first. Empty: none is wanted.
    pub codings: Vec<Coding>,
}

/// What the head says of a Binary whose content is the body (R4 http.html 3.1.0.7.1, and binary.html).
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// `Content-Type`, as written: the resource's `contentType`.
    pub content_type: String,
    /// `X-Security-Context`: the reference in the resource's `securityContext`.
    pub security_context: Option<String>,
}

/// A reference names a patient.
impl fmt::Debug for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Content").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

/// What a write is to be answered with (RFC 7240, and R4 http.html 3.1.0.1.7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Return {
    /// Nothing was said.
    #[default]
    Unstated,
    /// No body.
    Minimal,
    /// The record as it is now.
    Representation,
    /// An `OperationOutcome`.
    OperationOutcome,
}

/// `If-None-Match`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum IfNoneMatch {
    /// Not given.
    #[default]
    None,
    /// `*`: any version.
    Any,
    /// These versions. Empty: only entity tags that no version here can have.
    Versions(Vec<VersionId>),
}

/// A content coding that answers may be sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// What the body of a request must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// None.
    Nothing,
    /// `application/x-www-form-urlencoded`, up to `FORM_BYTES_MAX`.
    Form,
    /// A resource of type `Parameters` as [`Expects::Resource`], up to `FORM_BYTES_MAX`, or nothing.
    Parameters,
    /// A resource: `application/fhir+json` or `application/json`.
    Resource,
    /// As [`Expects::Resource`], or the content of a Binary in its own type (R4 binary.html).
    Binary,
    /// `application/json-patch+json`, or `application/fhir+json` with `Parameters`.
    Patch,
}

/// The conditional headers as they were written.
#[derive(Clone, Copy, Default)]
pub(super) struct Conditions<'t> {
    pub(super) if_none_exist: Option<&'t str>,
    pub(super) if_match: Option<&'t str>,
    pub(super) if_none_match: Option<&'t str>,
    pub(super) if_modified_since: Option<&'t str>,
    pub(super) if_unmodified_since: Option<&'t str>,
}

impl<'t> Conditions<'t> {
    pub(super) fn of(headers: &'t HeaderMap) -> Result<Self, FhirRefusal> {
        Ok(Self {
            if_none_exist: single(headers, &HeaderName::from_static("if-none-exist"))?,
            if_match: single(headers, &header::IF_MATCH)?,
            if_none_match: single(headers, &header::IF_NONE_MATCH)?,
            if_modified_since: single(headers, &header::IF_MODIFIED_SINCE)?,
            if_unmodified_since: single(headers, &header::IF_UNMODIFIED_SINCE)?,
        })
    }

    /// What of them applies to this route. On a question, a condition that means nothing is ignored (RFC
    /// 9110, 13.1); on a write it is refused, since its sender relies on it.
    pub(super) fn apply(&self, route: &Route, wishes: &mut Wishes) -> Result<(), FhirRefusal> {
        if self.if_none_exist.is_some() && !matches!(route, Route::Create(_)) {
            return Err(FhirRefusal::HeaderNotApplicable("If-None-Exist"));
        }
        match kind(route) {
            Kind::Record => {
                wishes.if_none_match = read_if_none_match(self.if_none_match)?;
                if wishes.if_none_match == IfNoneMatch::None {
                    wishes.if_modified_since = self.if_modified_since.map(str::to_owned);
                }
                Ok(())
            }
            Kind::Question => Ok(()),
            Kind::WriteOne => {
                wishes.if_match = self.if_match.map(read_if_match).transpose()?;
                self.refuse_rest()
            }
            Kind::Write if self.if_match.is_some() => Err(FhirRefusal::HeaderNotApplicable("If-Match")),
            Kind::Write => self.refuse_rest(),
        }
    }

    fn refuse_rest(&self) -> Result<(), FhirRefusal> {
        if self.if_none_match.is_some() {
            return Err(FhirRefusal::HeaderNotApplicable("If-None-Match"));
        }
        if self.if_unmodified_since.is_some() {
            return Err(FhirRefusal::HeaderNotApplicable("If-Unmodified-Since"));
        }
        Ok(())
    }
}

/// Which preconditions a route can honour.
enum Kind {
    Record,
    Question,
    /// A change of one record, named by its id or by criteria that match it alone.
    WriteOne,
    Write,
}

fn kind(route: &Route) -> Kind {
    match route {
        Route::Read(..) | Route::Vread(..) => Kind::Record,
        Route::Update(..) | Route::Patch(..) | Route::Delete(..) => Kind::WriteOne,
        Route::Create(_) | Route::Bundle => Kind::Write,
        Route::History(_)
        | Route::Search(_)
        | Route::SearchForm(_)
        | Route::Operate(_)
        | Route::OperateForm(_)
        | Route::ExportStatus(_)
        | Route::ExportCancel(_)
        | Route::ExportFile(_)
        | Route::Capabilities
        | Route::SmartConfiguration => Kind::Question,
    }
}

/// One version, weak or strong: R4 compares weakly (http.html 3.1.0.5).
fn read_if_match(text: &str) -> Result<VersionId, FhirRefusal> {
    entity_tag(text).and_then(VersionId::parse).ok_or(FhirRefusal::MalformedHeader)
}

fn read_if_none_match(text: Option<&str>) -> Result<IfNoneMatch, FhirRefusal> {
    match text {
        None => Ok(IfNoneMatch::None),
        Some("*") => Ok(IfNoneMatch::Any),
        Some(list) => read_versions(list).map(IfNoneMatch::Versions),
    }
}

/// A tag that no version can have matches nothing, so it may be left out.
fn read_versions(list: &str) -> Result<Vec<VersionId>, FhirRefusal> {
    let mut versions = Vec::new();
    for (place, item) in list.split(',').enumerate() {
        if place >= ENTITY_TAGS_MAX {
            return Err(FhirRefusal::MalformedHeader);
        }
        let tag = entity_tag(item.trim()).ok_or(FhirRefusal::MalformedHeader)?;
        versions.extend(VersionId::parse(tag));
    }
    Ok(versions)
}

/// The opaque part of `"3"` or `W/"3"` (RFC 9110, 8.8.3).
fn entity_tag(text: &str) -> Option<&str> {
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    let opaque = quoted.strip_prefix('"')?.strip_suffix('"')?;
    opaque.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"').then_some(opaque)
}

/// `Prefer`. Preferences not known here are ignored, as RFC 7240 asks; those that contradict each other are
/// not chosen among. `handling` is always strict, whatever is preferred.
pub(super) fn read_prefer(headers: &HeaderMap, route: &Route) -> Result<Return, FhirRefusal> {
    let text = single(headers, &HeaderName::from_static("prefer"))?.unwrap_or_default();
    let export =
        matches!(route, Route::Operate(Operating::Export(_)) | Route::OperateForm(Operating::Export(_)));
    let (mut wish, mut asynchronous) = (Return::Unstated, false);
    for preference in text.split([',', ';']) {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        let value = value.trim().trim_matches('"').to_ascii_lowercase();
        match name.trim().to_ascii_lowercase().as_str() {
            "respond-async" if !export => return Err(FhirRefusal::NotServed(NotServed::Asynchronous)),
            "respond-async" => asynchronous = true,
            "return" => wish = one_return(wish, &value)?,
            _ => {}
        }
    }
    if export && !asynchronous { Err(FhirRefusal::AsyncRequired) } else { Ok(wish) }
}

fn one_return(earlier: Return, value: &str) -> Result<Return, FhirRefusal> {
    let wish = match value {
        "minimal" => Return::Minimal,
        "representation" => Return::Representation,
        "operationoutcome" => Return::OperationOutcome,
        _ => return Ok(earlier),
    };
    let agrees = earlier == Return::Unstated || earlier == wish;
    if agrees { Ok(wish) } else { Err(FhirRefusal::RepeatedHeader) }
}

/// `Accept-Encoding`: those we can send and that are wanted at least as much as no coding at all. Among
/// equals zstd comes first, which costs less. A list we cannot read means no coding.
pub(super) fn read_codings(headers: &HeaderMap) -> Result<Vec<Coding>, FhirRefusal> {
    let text = single(headers, &header::ACCEPT_ENCODING)?.unwrap_or_default();
    Ok(rank_codings(text).unwrap_or_default())
}

fn rank_codings(text: &str) -> Option<Vec<Coding>> {
    let (mut gzip, mut zstd, mut identity, mut any) = (None, None, None, None);
    for (place, item) in text.split(',').enumerate() {
        let (name, parameter) = item.split_once(';').unwrap_or((item, ""));
        let quality = thousandths(parameter)?;
        match name.trim().to_ascii_lowercase().as_str() {
            _ if place >= ACCEPT_RANGES_MAX => return None,
            "gzip" | "x-gzip" => gzip = Some(quality),
            "zstd" => zstd = Some(quality),
            "identity" => identity = Some(quality),
            "*" => any = Some(quality),
            _ => {}
        }
    }
    let floor = identity.unwrap_or(0).max(1);
    let mut ranked: Vec<(u16, Coding)> = [(zstd.or(any), Coding::Zstd), (gzip.or(any), Coding::Gzip)]
        .into_iter()
        .filter_map(|(quality, coding)| quality.filter(|q| *q >= floor).map(|quality| (quality, coding)))
        .collect();
    ranked.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    Some(ranked.into_iter().map(|(_, coding)| coding).collect())
}

/// `q=0` to `q=1` with up to three digits, in thousandths; nothing means 1.
fn thousandths(parameter: &str) -> Option<u16> {
    let parameter = parameter.trim();
    if parameter.is_empty() {
        return Some(1000);
    }
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, fraction) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fraction: u16 = format!("{fraction:0<3}").parse().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}
