//! The answer on its way out: headers, body, and the note of how it ended.
//!
//! Owns: the headers every answer carries; counting what was handed to the client.
//! Must never: begin an answer without a [`Receipt`], or a refusal without that or [`Counted`], except to say that the trail cannot be written.
//! Look next: `edge::journal`, which makes receipts and keeps the endings.

use super::draft::Draft;
use super::refusal::{Heard, Refusal, Way};
use super::share::Share;
use super::stream::{Part, Units};
use crate::clock;
use crate::domain::audit::Ending;
use crate::domain::fhir::classify::{self, Wishes};
use crate::domain::fhir::outcome::operation_outcome;
use crate::domain::filter;
use crate::domain::identity::Scheme;
use crate::edge::coding;
use crate::edge::counting::Counted;
use crate::edge::journal::{Kept, Receipt, Slot};
use crate::edge::sessions::Standing;
use crate::limits;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc::Receiver;

/// FHIR's JSON media type (R4 http.html, section 3.1.0.1.8).
pub(super) const FHIR_JSON: HeaderValue = HeaderValue::from_static("application/fhir+json");

/// Names the grants of emergency access that an answer rests on. Only ever sent, never heeded (T-196).
const EMERGENCY: HeaderName = HeaderName::from_static("x-chartgate-emergency");
/// `reserve` where the record of an answer stands in the journal's reserve.
const JOURNAL: HeaderName = HeaderName::from_static("x-chartgate-journal");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// What will be sent, before it is recorded.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// `meta.lastUpdated` of the one record in it, where it is shown: a batch's entry gives it as an instant.
    pub(super) last_modified: Option<String>,
    /// Of a long answer, whose first unit is the body: the units that follow it.
    pub(super) rest: Option<Box<Units>>,
}

/// What the headers say of the one record in an answer.
pub(super) struct EntityHeaders {
    version: Option<String>,
    last_updated: Option<String>,
}

/// `ETag` and `Last-Modified` of a record whose version and time are shown (R4 http.html, managing resource contention).
pub(super) fn entity_headers(version: Option<&str>, last_updated: Option<&str>) -> EntityHeaders {
    EntityHeaders { version: version.map(str::to_owned), last_updated: last_updated.map(str::to_owned) }
}

/// The answer that tells of a refusal; to a HEAD, its head alone.
pub(super) fn outcome_of(heard: Heard, opens: &[String], request_id: &str, head_only: bool) -> Answer {
    let body = operation_outcome(heard.issue, heard.code, &heard.sentence, opens, request_id);
    let mut answer = Answer::fhir(heard.status, body);
    answer.headers.extend(heard.headers);
    if head_only { answer.bare() } else { answer }
}

/// The answer that leaves without a record, because none can be made: it tells of nothing else.
pub(super) fn unrecorded(request_id: &str, head_only: bool) -> Answer {
    let heard = Refusal::TrailUnavailable.heard(&Way { scheme: Scheme::Bearer, nonce: None });
    outcome_of(heard, &[], request_id, head_only)
}

/// An R4 instant.
pub(super) fn read_instant(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// An HTTP date as IMF-fixdate, to the second (RFC 9110 section 5.6.7); the two old forms are not understood, and
/// then the condition is not there.
pub(super) fn read_http_date(text: &str) -> Option<Timestamp> {
    Some(DateTime::strptime(HTTP_DATE, text).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

const HTTP_DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";

fn http_date(instant: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(read_instant(instant)?.strftime(HTTP_DATE).to_string()).ok()
}

impl Answer {
    /// An answer in FHIR JSON.
    pub(super) fn fhir(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        let body = body.into();
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, FHIR_JSON);
        }
        Self { status, headers, body, last_modified: None, rest: None }
    }

    /// An answer that is a status and headers.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self::fhir(status, Bytes::new())
    }

    /// The same with what the headers say of its record.
    pub(super) fn with(mut self, entity: EntityHeaders) -> Self {
        let tag = entity.version.and_then(|version| HeaderValue::try_from(format!("W/\"{version}\"")).ok());
        if let Some(tag) = tag {
            self.headers.insert(header::ETAG, tag);
        }
        if let Some(date) = entity.last_updated.as_deref().and_then(http_date) {
            self.headers.insert(header::LAST_MODIFIED, date);
        }
        self.last_modified = entity.last_updated;
        self
    }

    /// The answer that rests on these grants of emergency access: it says so, and so does its record.
    pub(super) fn under(mut self, grants: &[String], draft: &mut Draft) -> Self {
        draft.decision.emergencies = grants.to_vec();
        self.rests_on(grants);
        self
    }

    /// The same of its head alone.
    pub(super) fn rests_on(&mut self, grants: &[String]) {
        if let (false, Ok(value)) = (grants.is_empty(), HeaderValue::try_from(grants.join(", "))) {
            self.headers.insert(EMERGENCY, value);
        }
    }

    /// Where answers may be compressed they vary by what the client takes, this one too.
    pub(super) fn varying(mut self, compresses: bool) -> Self {
        if compresses {
            self.headers.insert(header::VARY, HeaderValue::from_static("Authorization, Accept-Encoding"));
        }
        self
    }

    /// The answer in the form the client asked for: indented, compressed. Compression comes after
    /// filtering and only where the operator switched it on: lengths of compressed text can tell of what is beside
    /// text that an attacker chose (T-134).
    pub(super) async fn formed(mut self, wishes: &Wishes, compresses: bool) -> Self {
        let json = self.headers.get(header::CONTENT_TYPE).is_some_and(|kind| *kind == FHIR_JSON);
        if wishes.pretty && json {
            self.body = filter::pretty(&self.body).into();
        }
        self = self.varying(compresses);
        if compresses {
            self.compress(wishes).await;
        }
        if wishes.head_only { self.bare() } else { self }
    }

    /// The head alone, with the length of what a GET would bring.
    pub(super) fn bare(mut self) -> Self {
        if !self.body.is_empty() {
            self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            self.body = Bytes::new();
        }
        self
    }

    /// A long answer takes some time: other requests must not wait for it.
    async fn compress(&mut self, wishes: &Wishes) {
        let Some(wished) = wishes.codings.first() else { return };
        let coding = match wished {
            classify::Coding::Gzip => coding::Coding::Gzip,
            classify::Coding::Zstd => coding::Coding::Zstd,
        };
        if self.body.len() < limits::COMPRESS_BYTES_MIN || self.rest.is_some() {
            return;
        }
        let body = self.body.clone();
        let coded = if body.len() <= limits::CODING_INLINE_BYTES_MAX {
            coding::encode(coding, &body)
        } else {
            tokio::task::spawn_blocking(move || coding::encode(coding, &body)).await.ok().flatten()
        };
        if let Some(coded) = coded {
            self.body = coded.into();
            self.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.token()));
        }
    }

    /// Sends what the receipt says was recorded, then what follows it, each with its own; `slot` takes the note of
    /// how it ended.
    pub(super) fn send(
        mut self,
        request_id: &str,
        recorded: Receipt,
        slot: Option<Slot>,
        following: Option<Receiver<Part>>,
    ) -> Response<ReplyBody> {
        if recorded.kept() == Kept::Reserve {
            self.headers.insert(JOURNAL, HeaderValue::from_static("reserve"));
        }
        self.respond(request_id, slot, following)
    }

    /// Sends a refusal that is counted.
    pub(super) fn send_counted(self, request_id: &str, _counted: Counted) -> Response<ReplyBody> {
        self.respond(request_id, None, None)
    }

    /// The one answer that goes out without a record: that no record can be made. Holds nothing else.
    pub(super) fn send_unrecorded(self, request_id: &str) -> Response<ReplyBody> {
        self.respond(request_id, None, None)
    }

    fn respond(
        self,
        request_id: &str,
        slot: Option<Slot>,
        following: Option<Receiver<Part>>,
    ) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody {
            rest: self.body,
            sent_bytes: 0,
            slot,
            following,
            standing: None,
            share: None,
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        *headers = self.headers;
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.entry(header::VARY).or_insert(HeaderValue::from_static("Authorization"));
        headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Ok(value) = HeaderValue::from_str(request_id) {
            headers.insert(REQUEST_ID, value);
        }
        response
    }
}

/// A body that hands out bounded pieces and records how far it came.
pub struct ReplyBody {
    rest: Bytes,
    sent_bytes: u64,
    slot: Option<Slot>,
    following: Option<Receiver<Part>>,
    standing: Option<Standing>,
    /// The place that this request has of what its caller may have under way: given back with the body.
    share: Option<Share>,
}

/// An answer that could not be finished: the connection must not look as if it had been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer was broken off")
    }
}

impl std::error::Error for BrokenOff {}

impl ReplyBody {
    /// The same, cut off when the caller may no longer be told anything (T-193), and holding their place to its end.
    pub(super) fn held(mut self, (standing, share): (Option<Standing>, Option<Share>)) -> Self {
        (self.standing, self.share) = (standing, share);
        self
    }

    fn is_revoked(&mut self) -> bool {
        !self.is_all() && self.standing.as_mut().is_some_and(Standing::is_over)
    }

    fn end(&mut self, ending: Ending) {
        self.following = None;
        if let Some(slot) = self.slot.take() {
            slot.finish(clock::now(), ending, Some(self.sent_bytes));
        }
    }

    fn is_all(&self) -> bool {
        self.rest.is_empty() && self.following.is_none()
    }

    fn next_piece(&mut self) -> Frame<Bytes> {
        let length = self.rest.len().min(limits::REPLY_FRAME_BYTES_MAX);
        let piece = self.rest.split_to(length);
        self.sent_bytes = self.sent_bytes.saturating_add(piece.len() as u64);
        if self.is_all() {
            // The last piece is in the connection's hands; hyper may not poll again.
            self.end(Ending::Complete);
        }
        Frame::data(piece)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        loop {
            if self.is_revoked() {
                self.rest = Bytes::new();
                self.end(Ending::CutOff);
                return Poll::Ready(Some(Err(BrokenOff)));
            }
            if !self.rest.is_empty() {
                return Poll::Ready(Some(Ok(self.next_piece())));
            }
            let Some(following) = self.following.as_mut() else {
                self.end(Ending::Complete);
                return Poll::Ready(None);
            };
            match ready!(following.poll_recv(cx)) {
                Some(Part::Unit(_recorded, bytes)) => self.rest = bytes,
                Some(Part::End) => self.following = None,
                None => {
                    self.end(Ending::Failed);
                    return Poll::Ready(Some(Err(BrokenOff)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_all() && self.slot.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        if self.following.is_none() {
            return SizeHint::with_exact(rest);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(rest);
        hint
    }
}

impl Drop for ReplyBody {
    /// The client left, or the connection broke: what had been handed over is recorded (T-234).
    fn drop(&mut self) {
        let ending = if self.is_all() { Ending::Complete } else { Ending::CutOff };
        self.end(ending);
    }
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyBody").field("rest_bytes", &self.rest.len()).finish_non_exhaustive()
    }
}
