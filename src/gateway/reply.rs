//! The answer on its way out: headers, body, and the note of how it ended.
//!
//! Owns: the headers every answer carries; counting what was handed to the client.
//! Must never: begin an answer without a [`Receipt`], except to say that the trail cannot be written.
//! Look next: `edge::journal`, which makes receipts and keeps the endings.

use super::refusal::Refusal;
use crate::clock;
use crate::domain::audit::Ending;
use crate::domain::fhir::classify::{self, Wishes};
use crate::domain::fhir::outcome::operation_outcome;
use crate::domain::filter;
use crate::edge::coding;
use crate::edge::journal::{Receipt, Slot};
use crate::limits;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// FHIR's JSON media type (R4 http.html, section 3.1.0.1.8).
pub(super) const FHIR_JSON: HeaderValue = HeaderValue::from_static("application/fhir+json");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// What will be sent, before it is recorded.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// `meta.lastUpdated` of the one record in it, where it is shown: a batch's entry gives it as an instant.
    pub(super) last_modified: Option<String>,
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

/// The answer that tells of a refusal.
pub(super) fn outcome_of(refusal: &Refusal, request_id: &str) -> Answer {
    let heard = refusal.heard();
    let body = operation_outcome(heard.issue, heard.code, &heard.sentence, request_id);
    let mut answer = Answer::fhir(heard.status, body);
    if let Some((name, value)) = heard.header {
        answer.headers.insert(name, value);
    }
    answer
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
        Self { status, headers, body, last_modified: None }
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

    /// The answer in the form the client asked for: indented, compressed. Compression comes after
    /// filtering and only where the operator switched it on: lengths of compressed text can tell of what is beside
    /// text that an attacker chose (T-134).
    pub(super) fn formed(mut self, wishes: &Wishes, compresses: bool) -> Self {
        let json = self.headers.get(header::CONTENT_TYPE).is_some_and(|kind| *kind == FHIR_JSON);
        if wishes.pretty && json {
            self.body = filter::pretty(&self.body).into();
        }
        if compresses {
            self.headers.insert(header::VARY, HeaderValue::from_static("Authorization, Accept-Encoding"));
            self.compress(wishes);
        }
        self
    }

    /// The answer to HEAD: what GET would be told, without the body (RFC 9110 section 9.3.2). Refusals too.
    pub(super) fn head_alone(mut self) -> Self {
        self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        self.body = Bytes::new();
        self
    }

    fn compress(&mut self, wishes: &Wishes) {
        let Some(wished) = wishes.codings.first() else { return };
        let coding = match wished {
            classify::Coding::Gzip => coding::Coding::Gzip,
            classify::Coding::Zstd => coding::Coding::Zstd,
        };
        if self.body.len() < limits::COMPRESS_BYTES_MIN {
            return;
        }
        if let Some(coded) = coding::encode(coding, &self.body) {
            self.body = coded.into();
            self.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.token()));
        }
    }

    /// Sends what the receipt says was recorded; `slot` takes the note of how it ended.
    pub(super) fn send(
        self,
        request_id: &str,
        _recorded: Receipt,
        slot: Option<Slot>,
    ) -> Response<ReplyBody> {
        self.respond(request_id, slot)
    }

    /// The one answer that goes out without a record: that no record can be made. Holds nothing else.
    pub(super) fn send_unrecorded(self, request_id: &str) -> Response<ReplyBody> {
        self.respond(request_id, None)
    }

    fn respond(self, request_id: &str, slot: Option<Slot>) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody { rest: self.body, sent_bytes: 0, slot });
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
}

impl ReplyBody {
    fn end(&mut self, ending: Ending) {
        if let Some(slot) = self.slot.take() {
            slot.finish(clock::now(), ending, Some(self.sent_bytes));
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            self.end(Ending::Complete);
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(limits::REPLY_FRAME_BYTES_MAX);
        let piece = self.rest.split_to(length);
        self.sent_bytes = self.sent_bytes.saturating_add(piece.len() as u64);
        if self.rest.is_empty() {
            // The last piece is in the connection's hands; hyper may not poll again.
            self.end(Ending::Complete);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.slot.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for ReplyBody {
    /// The client left, or the connection broke: what had been handed over is recorded (T-234).
    fn drop(&mut self) {
        let ending = if self.rest.is_empty() { Ending::Complete } else { Ending::CutOff };
        self.end(ending);
    }
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyBody").field("rest_bytes", &self.rest.len()).finish_non_exhaustive()
    }
}
