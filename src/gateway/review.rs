//! Looking at an emergency afterwards: by somebody else, who says what they found.
//!
//! Owns: `POST /emergency/{grant}/review` at the operations listener: who may review, and the record of it.
//! Must never: let people review themselves (T-195, T-267), or believe anything but the trail about the grant.
//! Look next: `emergency`, which grants; `domain::audit::Cases`, how the trail tells it.

use super::Gate;
use super::draft::Draft;
use super::establish::establish;
use super::refusal::Refusal;
use super::reply::Answer;
use crate::clock;
use crate::domain::audit::{Assembly, Case, Cases, Control, Event, Record};
use crate::domain::identity::Caller;
use crate::edge::journal::{self, Keys, read_entries};
use crate::edge::listener::{self, Peer};
use crate::limits;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Who may review, and where the trail is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Roles that may; anybody else who is known if empty.
    pub reviewers: BTreeSet<String>,
    /// Their login may be no older than this.
    pub fresh_seconds: i64,
    /// The trail.
    pub trail: journal::Settings,
}

/// Why a review is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReviewRefusal {
    /// Not `POST /emergency/{grant}/review`.
    NotServed,
    /// The body is not `{"finding": "justified"|"not-justified", "note": "…"}`.
    NotUnderstood,
    /// The caller has no role that may review.
    NotAReviewer,
    /// The login is too long ago.
    NotFresh { seconds: i64 },
    /// The caller is the person whose access it was.
    OwnAccess,
    /// The trail tells of no such grant.
    NoSuchGrant,
}

impl ReviewRefusal {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::NotServed => "review-not-served",
            Self::NotUnderstood => "review-not-understood",
            Self::NotAReviewer => "review-not-permitted",
            Self::NotFresh { .. } => "step-up-required",
            Self::OwnAccess => "review-of-own-access",
            Self::NoSuchGrant => "review-of-unknown-grant",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NotServed | Self::NoSuchGrant => StatusCode::NOT_FOUND,
            Self::NotUnderstood => StatusCode::BAD_REQUEST,
            Self::NotAReviewer | Self::OwnAccess => StatusCode::FORBIDDEN,
            Self::NotFresh { .. } => StatusCode::UNAUTHORIZED,
        }
    }
}

impl fmt::Display for ReviewRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotServed => f.write_str("only POST /emergency/{grant}/review is served here"),
            Self::NotUnderstood => f.write_str(
                "the body must be JSON with `finding` (`justified` or `not-justified`) and a `note` that is not empty",
            ),
            Self::NotAReviewer => f.write_str("the caller has no role that may review emergencies"),
            Self::NotFresh { seconds } => write!(f, "the login must be at most {seconds} s old"),
            Self::OwnAccess => f.write_str("nobody reviews their own access"),
            Self::NoSuchGrant => f.write_str("the trail tells of no such grant"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    finding: Finding,
    note: String,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Finding {
    Justified,
    NotJustified,
}

impl Finding {
    fn word(self) -> &'static str {
        match self {
            Self::Justified => "justified",
            Self::NotJustified => "not-justified",
        }
    }
}

/// Answers one request below `/emergency/`. Refusals are recorded like those of any request.
pub async fn answer(
    gate: &Gate,
    settings: &Settings,
    request: Request<Incoming>,
    peer: &Peer,
) -> Response<Full<Bytes>> {
    let mut draft = Draft::open(&request, peer);
    let outcome = review(gate, settings, request, peer, &mut draft).await;
    let refused = outcome.is_err();
    let answer = draft.settle(outcome, gate);
    if refused && gate.journal.append(&draft.records()).await.is_err() {
        tracing::error!("a refused review could not be recorded");
    }
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn review(
    gate: &Gate,
    settings: &Settings,
    request: Request<Incoming>,
    peer: &Peer,
    draft: &mut Draft,
) -> Result<Answer, Refusal> {
    let refuse = Refusal::Review;
    let (parts, body) = request.into_parts();
    let grant = grant_of(parts.uri.path()).filter(|_| parts.method == Method::POST);
    let grant = grant.ok_or(refuse(ReviewRefusal::NotServed))?.to_owned();
    let caller = establish(gate, &parts, peer, draft).await?;
    check_reviewer(settings, &caller, draft)?;
    let body = listener::read_body(body, limits::FORM_BYTES_MAX).await.map_err(Refusal::Body)?;
    let sent: Sent = serde_json::from_slice(&body).map_err(|_| refuse(ReviewRefusal::NotUnderstood))?;
    let note = sent.note.trim();
    if note.is_empty() || note.len() > limits::EMERGENCY_REASON_BYTES_MAX {
        return Err(refuse(ReviewRefusal::NotUnderstood));
    }
    let case = read_case(settings.trail.clone(), grant).await?;
    if case.issuer == caller.issuer() && case.subject == caller.subject() {
        return Err(refuse(ReviewRefusal::OwnAccess));
    }
    record(gate, &case, &caller, sent.finding, note).await?;
    let said = serde_json::json!({ "grant": case.grant, "finding": sent.finding.word() });
    let mut answer = Answer::fhir(StatusCode::OK, said.to_string());
    answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// `/emergency/{grant}/review`
fn grant_of(path: &str) -> Option<&str> {
    let grant = path.strip_prefix("/emergency/")?.strip_suffix("/review")?;
    (grant.len() == 32 && grant.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(grant)
}

fn check_reviewer(settings: &Settings, caller: &Caller, draft: &Draft) -> Result<(), Refusal> {
    if !settings.reviewers.is_empty() && settings.reviewers.is_disjoint(caller.roles()) {
        return Err(Refusal::Review(ReviewRefusal::NotAReviewer));
    }
    if caller.mfa().age_seconds(draft.began) > settings.fresh_seconds {
        return Err(Refusal::Review(ReviewRefusal::NotFresh { seconds: settings.fresh_seconds }));
    }
    Ok(())
}

async fn record(
    gate: &Gate,
    case: &Case,
    caller: &Caller,
    finding: Finding,
    note: &str,
) -> Result<(), Refusal> {
    let details: BTreeMap<String, String> = [
        ("grant", case.grant.as_str()),
        ("patient", case.patient.as_str()),
        ("reviewerIssuer", caller.issuer()),
        ("reviewer", caller.subject()),
        ("finding", finding.word()),
        ("note", note),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    let control = Control { time: clock::now(), event: Event::EmergencyReviewed, details };
    let recorded = gate.journal.append(&[Record::Control(control)]).await;
    recorded.map(|_receipt| ()).map_err(|_| Refusal::TrailUnavailable)
}

/// The grant, as the trail tells it. The trail is read as `audit search` reads it, beside the journal.
async fn read_case(trail: journal::Settings, grant: String) -> Result<Case, Refusal> {
    let read = tokio::task::spawn_blocking(move || cases(&trail).map(|cases| cases.of(&grant).cloned()));
    let found = read.await.map_err(|_| Refusal::Internal)?.map_err(|_| Refusal::TrailUnavailable)?;
    found.ok_or(Refusal::Review(ReviewRefusal::NoSuchGrant))
}

/// Every emergency that a trail tells of.
///
/// # Errors
/// When the trail cannot be read, or not to its end.
pub fn cases(trail: &journal::Settings) -> Result<Cases, String> {
    let keys = Keys::load(trail).map_err(|error| error.to_string())?;
    let (mut cases, mut assembly) = (Cases::default(), Assembly::default());
    let read = read_entries(&trail.directory, &keys, &mut |entry| {
        let part = entry.part.map_err(|finding| std::io::Error::other(finding.to_string()))?;
        if let Ok(Some((_, record))) = assembly.push(entry.sequence, part) {
            cases.learn(&record);
        }
        Ok(())
    });
    read.map_err(|finding| finding.to_string()).map(|()| cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reviews_are_served() {
        let grant = "0123456789abcdef0123456789abcdef";
        assert_eq!(grant_of(&format!("/emergency/{grant}/review")), Some(grant));
        for path in ["/emergency/", "/emergency/x/review", "/emergency//review", "/healthz"] {
            assert_eq!(grant_of(path), None, "{path}");
        }
        assert_eq!(grant_of(&format!("/emergency/{grant}/review/")), None);
        assert_eq!(grant_of(&format!("/emergency/{grant}")), None);
    }
}
