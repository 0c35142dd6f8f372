//! What the EMR answered: untrusted input (T-255).
//!
//! Owns: the checks of an answer's head; reading its body within bounds, with cut-offs noticed.
//! Must never: look into the body; follow a redirect; pass an encoding on.
//! Look next: `gateway`, which filters the body.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::UpstreamError;
use crate::limits::{UPSTREAM_BODY_SECONDS_MAX, UPSTREAM_HEADER_BYTES_MAX, UPSTREAM_HEADERS_MAX};

/// An answer whose head has been checked. Its text is the EMR's and must not reach a client unread.
pub struct Answer {
    /// 2xx, 304, 4xx or 5xx.
    pub status: StatusCode,
    /// As sent, within bounds.
    pub headers: HeaderMap,
    /// Not read yet.
    pub body: AnswerBody,
}

/// A body being read. Dropping it early closes its HTTP/1.1 connection, or resets its HTTP/2 stream.
pub struct AnswerBody {
    inner: Incoming,
    pause: Duration,
    end: Instant,
    /// Holds one of the places for requests under way at the EMR.
    _place: OwnedSemaphorePermit,
}

impl Answer {
    /// Checks the head of `response`.
    pub(super) fn check(
        response: Response<Incoming>,
        pause: Duration,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, UpstreamError> {
        let (head, inner) = response.into_parts();
        check_version(head.version)?;
        check_status(head.status)?;
        check_headers(&head.headers)?;
        let end = Instant::now() + Duration::from_secs(UPSTREAM_BODY_SECONDS_MAX);
        let body = AnswerBody { inner, pause, end, _place: place };
        Ok(Self { status: head.status, headers: head.headers, body })
    }
}

fn check_version(version: Version) -> Result<(), UpstreamError> {
    if matches!(version, Version::HTTP_11 | Version::HTTP_2) { Ok(()) } else { Err(UpstreamError::Garbled) }
}

fn check_status(status: StatusCode) -> Result<(), UpstreamError> {
    if status.is_informational() {
        Err(UpstreamError::Garbled)
    } else if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        Err(UpstreamError::Redirected)
    } else {
        Ok(())
    }
}

fn check_headers(headers: &HeaderMap) -> Result<(), UpstreamError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > UPSTREAM_HEADERS_MAX || bytes > UPSTREAM_HEADER_BYTES_MAX as usize {
        return Err(UpstreamError::TooLarge);
    }
    let is = |value: &HeaderValue, word: &str| value.as_bytes().eq_ignore_ascii_case(word.as_bytes());
    if headers.get_all(CONTENT_ENCODING).iter().any(|coding| !is(coding, "identity")) {
        return Err(UpstreamError::Encoded);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if !is(coding, "chunked") => Err(UpstreamError::Encoded),
        (Some(_), None) if !headers.contains_key(CONTENT_LENGTH) => Ok(()),
        (Some(_), _) => Err(UpstreamError::Garbled),
    }
}

impl AnswerBody {
    /// The length the EMR announced, if it did. It is held to it.
    #[must_use]
    pub fn announced_bytes(&self) -> Option<u64> {
        self.inner.size_hint().exact()
    }

    /// The next piece, or `None` at a proper end. Trailers are dropped.
    ///
    /// # Errors
    /// [`UpstreamError::TimedOut`] after a pause of `timeout` or `UPSTREAM_BODY_SECONDS_MAX` in all;
    /// [`UpstreamError::CutOff`] when the body broke off or did not keep to its framing. Drop it then.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let wait = self.end.min(Instant::now() + self.pause);
            let frame = timeout_at(wait, self.inner.frame()).await.map_err(|_| UpstreamError::TimedOut)?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame.map_err(|_| UpstreamError::CutOff)?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole body, at most `bytes_max` bytes.
    ///
    /// # Errors
    /// As [`AnswerBody::chunk`], and [`UpstreamError::TooLarge`].
    pub async fn read(mut self, bytes_max: usize) -> Result<Bytes, UpstreamError> {
        let announced = self.inner.size_hint().lower();
        if announced > bytes_max as u64 {
            return Err(UpstreamError::TooLarge);
        }
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        if first.len() > bytes_max {
            return Err(UpstreamError::TooLarge);
        }
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut whole = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        whole.extend_from_slice(&first);
        let mut piece = Some(second);
        while let Some(data) = piece {
            if whole.len() + data.len() > bytes_max {
                return Err(UpstreamError::TooLarge);
            }
            whole.extend_from_slice(&data);
            piece = self.chunk().await?;
        }
        Ok(whole.freeze())
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerBody")
    }
}
