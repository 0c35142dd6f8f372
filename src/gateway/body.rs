//! The body of a request: read whole, within its bound, and within the room there is for large ones.
//!
//! Owns: how many large bodies are in memory at once, and where they are unfolded. Must never: read a body of someone who is
//! not known, or unfold a large one on a thread that serves connections.
//! Look next: `listener::read_body`, the bounds of time; `coding`, the bounds of what a body unfolds to.

use super::Gate;
use super::refusal::Refusal;
use crate::domain::fhir::classify::{Expects, Head};
use crate::edge::coding;
use crate::edge::listener;
use crate::limits;
use bytes::Bytes;
use http::{HeaderMap, header};
use hyper::body::Incoming;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

const WAIT: Duration = Duration::from_secs(limits::REQUEST_BODY_SECONDS_MAX);

/// Room for large bodies.
pub struct LargeBodies(Arc<Semaphore>);

impl Default for LargeBodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::LARGE_BODIES_MAX)))
    }
}

impl fmt::Debug for LargeBodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LargeBodies").field("room", &self.0.available_permits()).finish()
    }
}

/// The place of a large body, until its request is answered.
#[must_use]
#[derive(Debug)]
pub(super) struct Room(#[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>);

/// The body of a form or of a change, whole and bounded.
///
/// # Errors
/// [`Refusal::Busy`] when there is no room for a large one in time; else what is wrong with the body.
pub(super) async fn read(
    gate: &Gate,
    head: &Head<'_>,
    body: Incoming,
    expects: Expects,
) -> Result<(Bytes, Room), Refusal> {
    let bytes_max = match expects {
        Expects::Nothing => return Ok((Bytes::new(), Room(None))),
        Expects::Form | Expects::Parameters => limits::FORM_BYTES_MAX,
        Expects::Resource | Expects::Binary | Expects::Patch => limits::CHANGE_BYTES_MAX,
    };
    // Of a length and chunks together the HTTP library drops the length unseen (RFC 9112 section 6.1, T-136).
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::LengthRequired);
    }
    let room = gate.large_bodies.room_for(likely_bytes(head.headers).min(bytes_max), WAIT).await?;
    let body = listener::read_body(body, bytes_max).await.map_err(Refusal::Body)?;
    let body = if is_gzip(head.headers) { unfold(body, bytes_max).await? } else { body };
    Ok((body, room))
}

impl LargeBodies {
    async fn room_for(&self, bytes: usize, wait: Duration) -> Result<Room, Refusal> {
        if bytes <= limits::LARGE_BODY_BYTES_MIN {
            return Ok(Room(None));
        }
        let place = timeout(wait, Arc::clone(&self.0).acquire_owned()).await.map_err(|_| Refusal::Busy)?;
        place.map(|place| Room(Some(place))).map_err(|_| Refusal::Internal)
    }
}

/// How many bytes a body may come to, unfolded. Without a length (HTTP/2) it may be any number.
fn likely_bytes(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse::<usize>().ok()).unwrap_or(usize::MAX);
    if is_gzip(headers) { length.saturating_mul(limits::GZIP_RATIO_MAX) } else { length }
}

fn is_gzip(headers: &HeaderMap) -> bool {
    let coded = headers.get(header::CONTENT_ENCODING);
    coded.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

/// What a short body unfolds to is bounded by its length, and done at once.
async fn unfold(body: Bytes, bytes_max: usize) -> Result<Bytes, Refusal> {
    if body.len().saturating_mul(limits::GZIP_RATIO_MAX) <= limits::CODING_INLINE_BYTES_MAX {
        return coding::decode_gzip(&body, bytes_max).map_err(Refusal::Coding);
    }
    let unfolded = tokio::task::spawn_blocking(move || coding::decode_gzip(&body, bytes_max)).await;
    unfolded.map_err(|_| Refusal::Internal)?.map_err(Refusal::Coding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[tokio::test]
    async fn large_bodies_wait_for_room_and_not_for_ever() {
        let (bodies, moment) = (LargeBodies::default(), Duration::from_millis(20));
        let mut held = Vec::new();
        for _ in 0..limits::LARGE_BODIES_MAX {
            held.push(bodies.room_for(limits::LARGE_BODY_BYTES_MIN + 1, moment).await.unwrap());
        }
        assert!(
            bodies.room_for(limits::LARGE_BODY_BYTES_MIN, moment).await.is_ok(),
            "a short one waits for nobody"
        );
        assert!(matches!(bodies.room_for(usize::MAX, moment).await, Err(Refusal::Busy)));
        held.pop();
        assert!(bodies.room_for(usize::MAX, moment).await.is_ok());
    }

    #[test]
    fn what_a_body_may_come_to_is_told_by_its_head() {
        for (length, coding, bytes) in [
            (Some("10"), None, 10),
            (Some("10"), Some("gzip"), 10 * limits::GZIP_RATIO_MAX),
            (Some("10"), Some("GZIP"), 10 * limits::GZIP_RATIO_MAX),
            (None, None, usize::MAX),
            (Some("x"), None, usize::MAX),
            (None, Some("gzip"), usize::MAX),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(length.map(|text| (header::CONTENT_LENGTH, HeaderValue::from_static(text))));
            headers.extend(coding.map(|text| (header::CONTENT_ENCODING, HeaderValue::from_static(text))));
            assert_eq!(likely_bytes(&headers), bytes, "{length:?} {coding:?}");
        }
    }
}
