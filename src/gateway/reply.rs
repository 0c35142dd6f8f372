//! The answer on its way out: headers, body, and the note of how it ended.
//!
//! Owns: the headers every answer carries; counting what was handed to the client.
//! Must never: begin an answer without a [`Receipt`], except to say that the trail cannot be written.
//! Look next: `edge::journal`, which makes receipts and keeps the endings.

use crate::clock;
use crate::domain::audit::Ending;
use crate::edge::journal::{Receipt, Slot};
use crate::limits;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
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
}

impl Answer {
    /// An answer in FHIR JSON.
    pub(super) fn fhir(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, FHIR_JSON);
        Self { status, headers, body: body.into() }
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
        headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
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
