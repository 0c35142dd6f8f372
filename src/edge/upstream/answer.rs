//! What the EMR answered: untrusted input (T-255).
//!
//! Owns: the checks of an answer's head; reading its body within bounds, with cut-offs noticed.
//! Must never: look into the body; follow a redirect; pass an encoding on.
//! Look next: `gateway`, which filters the body.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION, ETAG, HeaderName, LOCATION, RETRY_AFTER,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::UpstreamError;
use crate::limits::{
    ID_BYTES_MAX, RETRY_AFTER_SECONDS_MAX, UPSTREAM_BODY_SECONDS_MAX, UPSTREAM_DOWNLOAD_SECONDS_MAX,
    UPSTREAM_HEADER_BYTES_MAX, UPSTREAM_HEADERS_MAX,
};

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
    /// How many bytes may still come.
    rest_bytes: u64,
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
        let body = AnswerBody { inner, pause, end, rest_bytes: u64::MAX, _place: place };
        Ok(Self { status: head.status, headers: head.headers, body })
    }

    /// The version in `ETag`: `W/"3"`, or the strong `"3"` some servers send. `None` when there is none or it is
    /// not one of R4's ids.
    #[must_use]
    pub fn etag_version(&self) -> Option<&str> {
        let text = self.text(&ETAG)?;
        let quoted = text.strip_prefix("W/").unwrap_or(text);
        let version = quoted.strip_prefix('"')?.strip_suffix('"')?;
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        let is_sound = !version.is_empty() && version.len() <= ID_BYTES_MAX && version.bytes().all(is_id);
        is_sound.then_some(version)
    }

    /// `Location`, where a create says what it made. The EMR's text: read it, do not pass it on.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.text(&LOCATION)
    }

    /// `Content-Location`, where an export says where its status is. The EMR's text, as above.
    #[must_use]
    pub fn content_location(&self) -> Option<&str> {
        self.text(&CONTENT_LOCATION)
    }

    /// `Retry-After` in seconds, lowered to `RETRY_AFTER_SECONDS_MAX`. `None` for none, and for a date.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        let seconds = self.text(&RETRY_AFTER)?;
        let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| seconds.parse().unwrap_or(u64::MAX).min(RETRY_AFTER_SECONDS_MAX))
    }

    /// A header that was sent exactly once, as ASCII text.
    fn text(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { value.to_str().ok() }
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

    /// The same body as a download that is passed on piece by piece: at most `bytes_max` bytes, within
    /// `UPSTREAM_DOWNLOAD_SECONDS_MAX` from now, since the client's pace counts too.
    #[must_use]
    pub fn download(mut self, bytes_max: u64) -> Self {
        self.rest_bytes = bytes_max;
        self.end = Instant::now() + Duration::from_secs(UPSTREAM_DOWNLOAD_SECONDS_MAX);
        self
    }

    /// The next piece, or `None` at a proper end. Trailers are dropped.
    ///
    /// # Errors
    /// [`UpstreamError::TimedOut`] after a pause of `timeout` or `UPSTREAM_BODY_SECONDS_MAX` in all;
    /// [`UpstreamError::TooLarge`] beyond the bound of a download; [`UpstreamError::CutOff`] when the body broke off or did not keep to its framing. Drop it then.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let wait = self.end.min(Instant::now() + self.pause);
            let frame = timeout_at(wait, self.inner.frame()).await.map_err(|_| UpstreamError::TimedOut)?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame.map_err(|_| UpstreamError::CutOff)?.into_data() {
                let rest = self.rest_bytes.checked_sub(data.len() as u64);
                self.rest_bytes = rest.ok_or(UpstreamError::TooLarge)?;
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
