//! A Binary: released only beside the record that owns it; and made of content that was sent as it is.
//!
//! Owns: whose a Binary is, and the form in which its content leaves (T-100, T-101). The content cannot be filtered, so
//! it leaves whole or not at all: the caller must see all of the Binary, and the record it belongs to: the one in
//! `securityContext` if there is one (R4 binary.html), else a DocumentReference whose attachment is this Binary.
//! Must never: let a Binary out by any other door: everywhere else `release` withholds it; say whether it was the
//! Binary or its owner that was missing.
//! Look next: `release`, which holds every other Binary back; `answer`, the read of all other records.

use super::answer::is_unchanged;
use super::count;
use super::draft::Draft;
use super::refusal::Refusal;
use super::release::{Judged, Release};
use super::reply::{Answer, entity_headers};
use super::visit::Visit;
use crate::domain::audit;
use crate::domain::fhir::classify::{Asked, Content};
use crate::domain::fhir::interaction::Interaction;
use crate::domain::fhir::r4::ElementPath;
use crate::domain::fhir::shape::Shape;
use crate::domain::narrow::{self, Expected};
use crate::edge::listener::BodyRefusal;
use crate::limits;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Media types that browsers and viewers show without running anything in them. Everything else is bytes.
const SHOWN_AS: [&str; 10] = [
    "application/dicom",
    "application/pdf",
    "audio/mpeg",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/tiff",
    "text/plain",
    "text/plain; charset=utf-8",
    "video/mp4",
];
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");
const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");

/// The record that a Binary goes with.
struct Owner {
    released: audit::Released,
}

/// Binaries never leave as rows, so that their number must not be told either.
pub(super) fn is_asked(question: &Interaction) -> bool {
    question.resource_type().is_some_and(|resource| resource.name() == "Binary")
}

/// Answers a read or vread of a Binary.
pub(super) async fn answer(visit: &Visit<'_>, asked: &Asked, draft: &mut Draft) -> Result<Answer, Refusal> {
    let (Interaction::Read { id, shape, .. } | Interaction::Vread { id, shape, .. }) = &asked.interaction
    else {
        return Err(Refusal::Internal);
    };
    let permit = visit.admit(&asked.interaction, draft)?;
    let plan = narrow::plan(&asked.interaction, &permit).map_err(|_| Refusal::Internal)?;
    let answered = visit.ask(&plan).await?;
    let mut release = Release::of_owned_binary();
    let judged = Judged::judge(&answered, visit.bases(), &permit, shape, &mut release)?;
    if !judged.facts(0).is_some_and(|facts| plan.expected().is(facts)) {
        return Err(Refusal::AnswerUnsound);
    }
    let stored: Value = serde_json::from_slice(judged.raw(0)).map_err(|_| Refusal::AnswerUnsound)?;
    let seen_whole = judged.seen(0).is_some_and(|mask| mask.is_total());
    let owner = if seen_whole { owner(visit, id.as_str(), &stored, draft).await? } else { None };
    let Some(owner) = owner else {
        release.withheld += 1;
        draft.releases(&mut release, false);
        return Err(Refusal::NotFound);
    };
    let shown = judged.emit(0, &judged.verdicts(), &mut release);
    // The Binary is about whom its owner is about, and is accounted for with it.
    if let Some(binary) = release.records.first_mut() {
        binary.patients.clone_from(&owner.released.patients);
    }
    release.records.push(owner.released);
    (release.version, release.last_updated) = judged.shown_version(0);
    visit.gate.telemetry.filtered(answered.len() as u64, release.body.len() as u64);
    let unchanged = is_unchanged(&asked.wishes, &release);
    draft.releases(&mut release, shown && !unchanged);
    let headers = entity_headers(release.version.as_deref(), release.last_updated.as_deref());
    let answer = match (shown, unchanged, asked.wishes.raw) {
        (false, ..) => return Err(Refusal::NotFound),
        (true, true, _) => Answer::empty(StatusCode::NOT_MODIFIED),
        (true, false, true) => content(&stored)?,
        (true, false, false) => Answer::fhir(StatusCode::OK, release.body),
    };
    Ok(answer.with(headers))
}

/// The record that the Binary belongs to, if the caller sees it; what else is amiss is a refusal only where that tells
/// nothing of the Binary.
async fn owner(
    visit: &Visit<'_>,
    id: &str,
    stored: &Value,
    draft: &mut Draft,
) -> Result<Option<Owner>, Refusal> {
    let found = match stored.get("securityContext") {
        Some(context) => {
            let reference = context.get("reference").and_then(Value::as_str).unwrap_or_default();
            seen(visit, local(visit, reference), None, draft).await
        }
        None => attached(visit, id, draft).await,
    };
    match found {
        Err(refusal) if !refusal.is_alarm() && !matches!(refusal, Refusal::Upstream(_)) => Ok(None),
        found => found,
    }
}

/// A DocumentReference with the Binary as its attachment. The EMR is asked, and not believed: the record itself must
/// show it.
async fn attached(visit: &Visit<'_>, id: &str, draft: &mut Draft) -> Result<Option<Owner>, Refusal> {
    let relative = format!("Binary/{id}");
    let forms = [
        relative.clone(),
        format!("{}/{relative}", visit.gate.upstream_base),
        format!("{}/{relative}", visit.gate.public.as_str()),
    ];
    let question = visit.asked_by(&format!("DocumentReference?location={}", forms.join(",")))?;
    let Interaction::Search(search) = &question else { return Err(Refusal::Internal) };
    let permit = visit.admit(&question, draft)?;
    for document in count::visible_ids(visit, search, permit).await? {
        let owner = seen(visit, &format!("DocumentReference/{document}"), Some(&forms), draft).await?;
        if owner.is_some() {
            return Ok(owner);
        }
    }
    Ok(None)
}

/// The record at a local reference as the caller sees it. A document must show all of its attachments; of one that
/// `forms` are given for, one must be the Binary.
async fn seen(
    visit: &Visit<'_>,
    reference: &str,
    forms: Option<&[String]>,
    draft: &mut Draft,
) -> Result<Option<Owner>, Refusal> {
    let question = visit.asked_by(reference)?;
    let Interaction::Read { resource, .. } = &question else { return Ok(None) };
    if resource.name() == "Binary" {
        return Ok(None);
    }
    let permit = visit.admit(&question, draft)?;
    let plan = narrow::plan(&question, &permit).map_err(|_| Refusal::Internal)?;
    let body = visit.ask(&plan).await?;
    let mut release = Release::default();
    let judged = Judged::judge(&body, visit.bases(), &permit, &Shape::Whole, &mut release)?;
    let sound = judged.facts(0).is_some_and(|facts| Expected::is(plan.expected(), facts));
    if !sound || !judged.emit(0, &judged.verdicts(), &mut release) {
        return Ok(None);
    }
    let mask = match resource.name() {
        "DocumentReference" => {
            let attachment = ElementPath::parse("DocumentReference.content.attachment");
            let shows = attachment.is_ok_and(|path| judged.seen(0).is_some_and(|mask| mask.covers(&path)));
            if !shows {
                return Ok(None);
            }
            vec!["DocumentReference.content.attachment".to_owned()]
        }
        // Nothing of it leaves: it is named because the Binary is read as if it were part of it.
        _ => Vec::new(),
    };
    let record: Value = serde_json::from_slice(judged.raw(0)).map_err(|_| Refusal::AnswerUnsound)?;
    if !forms.is_none_or(|forms| is_attached(&record, forms)) {
        return Ok(None);
    }
    draft.decided_by(&release.policies.into_iter().collect::<Vec<_>>());
    let released = release.records.into_iter().next();
    Ok(released.map(|released| Owner { released: audit::Released { mask: Arc::new(mask), ..released } }))
}

/// One of the document's attachments is at one of these addresses.
fn is_attached(document: &Value, forms: &[String]) -> bool {
    let content = document["content"].as_array().into_iter().flatten();
    let mut urls = content.filter_map(|content| content.pointer("/attachment/url")?.as_str());
    urls.any(|url| forms.iter().any(|form| form == url))
}

/// The reference below our base, or below the EMR's.
fn local<'r>(visit: &Visit<'_>, reference: &'r str) -> &'r str {
    let below = |base: &str| reference.strip_prefix(base)?.strip_prefix('/');
    let local = below(&visit.gate.upstream_base).or_else(|| below(visit.gate.public.as_str()));
    local.unwrap_or(reference)
}

/// The resource of a Binary that was sent as its content. From here on it is a body like any other.
///
/// # Errors
/// [`Refusal::Body`] for more than a resource can hold.
pub(super) fn resource(content: &Content, body: &Bytes) -> Result<Bytes, Refusal> {
    if body.len() > limits::BINARY_CONTENT_BYTES_MAX {
        return Err(Refusal::Body(BodyRefusal::TooLarge));
    }
    let mut resource = Map::new();
    resource.insert("resourceType".to_owned(), "Binary".into());
    resource.insert("contentType".to_owned(), content.content_type.as_str().into());
    if let Some(reference) = &content.security_context {
        resource.insert("securityContext".to_owned(), json!({ "reference": reference }));
    }
    if !body.is_empty() {
        resource.insert("data".to_owned(), STANDARD.encode(body).into());
    }
    Ok(Bytes::from(Value::Object(resource).to_string()))
}

/// The content itself, in a form that no browser runs (T-101).
fn content(stored: &Value) -> Result<Answer, Refusal> {
    let data: String = stored["data"].as_str().unwrap_or_default().split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(data).map_err(|_| Refusal::AnswerUnsound)?;
    let mut answer = Answer::empty(StatusCode::OK);
    answer.body = bytes.into();
    let headers = &mut answer.headers;
    headers.insert(header::CONTENT_TYPE, media_type(stored["contentType"].as_str().unwrap_or_default()));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(answer)
}

fn media_type(stored: &str) -> HeaderValue {
    let known = SHOWN_AS.into_iter().find(|known| known.eq_ignore_ascii_case(stored.trim()));
    HeaderValue::from_static(known.unwrap_or("application/octet-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_leaves_in_a_form_that_no_browser_runs() {
        for (stored, sent) in [
            ("image/PNG", "image/png"),
            ("text/html", "application/octet-stream"),
            ("image/svg+xml", "application/octet-stream"),
            ("text/plain\r\nX: y", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            let answer = content(&json!({"contentType": stored, "data": "aGE\n="})).unwrap();
            assert_eq!(answer.headers[header::CONTENT_TYPE], sent);
            assert_eq!(answer.body, "ha");
            assert_eq!(answer.headers[header::CONTENT_DISPOSITION], "attachment");
        }
        assert!(content(&json!({"data": "%"})).is_err());
    }
}
