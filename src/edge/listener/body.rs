//! Bodies in and out.
//!
//! Owns: reading a request body within its bounds; handing an answer out in small pieces, watched.
//! Must never: turn a body that broke into one that ended.
//! Look next: `activity`, which notices answers that stand still.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::activity::Request;
use crate::edge::telemetry::Telemetry;
use crate::limits::{
    REPLY_FRAME_BYTES_MAX, REQUEST_BODY_BYTES_PER_SECOND_MIN, REQUEST_BODY_IDLE_SECONDS_MAX,
    REQUEST_BODY_SECONDS_MAX,
};

/// Why a request body was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRefusal {
    /// More bytes than allowed: 413.
    TooLarge,
    /// It paused or lasted too long: 408.
    TooSlow,
    /// It broke off or was badly framed: 400, if anyone is there to hear it.
    Broken,
}

/// The error types a reply body may have.
pub type BodyFault = Box<dyn Error + Send + Sync>;

/// Reads a request body whole: at most `bytes_max` bytes, no pause longer than
/// `REQUEST_BODY_IDLE_SECONDS_MAX`, all within `REQUEST_BODY_SECONDS_MAX` and a second more for each
/// `REQUEST_BODY_BYTES_PER_SECOND_MIN` that came. Trailers are dropped. For short bodies; a long one is read with
/// [`super::Peer::read_body`], so that its request does not pass for one that hangs.
///
/// # Errors
/// A [`BodyRefusal`]. Nothing read so far is kept.
pub async fn read_body<B>(body: B, bytes_max: usize) -> Result<Bytes, BodyRefusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    read(body, bytes_max, || ()).await
}

/// The same; `progressed` is told of each piece.
pub(super) async fn read<B>(
    mut body: B,
    bytes_max: usize,
    progressed: impl Fn(),
) -> Result<Bytes, BodyRefusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyRefusal::TooLarge);
    }
    let began = Instant::now();
    let pause = Duration::from_secs(REQUEST_BODY_IDLE_SECONDS_MAX);
    let mut whole = BytesMut::new();
    loop {
        let end = (began + patience(whole.len())).min(Instant::now() + pause);
        let frame = timeout_at(end, body.frame()).await.map_err(|_| BodyRefusal::TooSlow)?;
        let Some(frame) = frame else { return Ok(whole.freeze()) };
        let Ok(data) = frame.map_err(|_| BodyRefusal::Broken)?.into_data() else { continue };
        if whole.len() + data.len() > bytes_max {
            return Err(BodyRefusal::TooLarge);
        }
        whole.extend_from_slice(&data);
        progressed();
    }
}

/// How long a body may take of which this many bytes have come.
fn patience(bytes: usize) -> Duration {
    let extra = bytes as u64 * 1000 / REQUEST_BODY_BYTES_PER_SECOND_MIN;
    Duration::from_secs(REQUEST_BODY_SECONDS_MAX) + Duration::from_millis(extra)
}

/// An answer's body on its way out. Its request counts as under way until this is dropped.
pub(super) struct Reply<B> {
    inner: Option<Pin<Box<B>>>,
    pending: Bytes,
    request: Request,
    telemetry: Telemetry,
}

impl<B> Reply<B> {
    pub(super) fn new(body: B, request: Request, telemetry: Telemetry) -> Self {
        Self { inner: Some(Box::pin(body)), pending: Bytes::new(), request, telemetry }
    }

    pub(super) fn empty(request: Request, telemetry: Telemetry) -> Self {
        Self { inner: None, pending: Bytes::new(), request, telemetry }
    }

    fn next_piece(&mut self) -> Frame<Bytes> {
        let length = self.pending.len().min(REPLY_FRAME_BYTES_MAX);
        self.request.progressed();
        Frame::data(self.pending.split_to(length))
    }

    fn panicked(&mut self) -> BodyFault {
        self.telemetry.handler_panicked();
        self.inner = None;
        Box::new(BodyRefusal::Broken)
    }
}

impl<B> Body for Reply<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BodyFault>,
{
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if !self.pending.is_empty() {
            return Poll::Ready(Some(Ok(self.next_piece())));
        }
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        let polled = catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll_frame(cx)));
        match polled {
            Err(_panic) => Poll::Ready(Some(Err(self.panicked()))),
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(None)) => Poll::Ready(None),
            Ok(Poll::Ready(Some(Err(fault)))) => Poll::Ready(Some(Err(fault.into()))),
            Ok(Poll::Ready(Some(Ok(frame)))) => match frame.into_data() {
                Ok(data) => {
                    self.pending = data;
                    Poll::Ready(Some(Ok(self.next_piece())))
                }
                Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pending.is_empty() && self.inner.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let pending = self.pending.len() as u64;
        let Some(inner) = &self.inner else { return SizeHint::with_exact(pending) };
        let rest = inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(pending));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(pending));
        }
        hint
    }
}

impl fmt::Display for BodyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyRefusal::TooLarge => "the body is too large",
            BodyRefusal::TooSlow => "the body took too long",
            BodyRefusal::Broken => "the body broke off",
        })
    }
}

impl Error for BodyRefusal {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A drip keeps its 30 s and little more; 64 MiB get as long as a slow line needs.
    #[test]
    fn patience_grows_with_what_came() {
        for (bytes, seconds) in [(0, 30), (60 * 1024, 30), (512 * 1024, 31), (64 << 20, 158)] {
            assert_eq!(patience(bytes).as_secs(), seconds, "{bytes} bytes");
        }
    }
}
