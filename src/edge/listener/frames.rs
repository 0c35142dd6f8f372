//! Frames of an HTTP/2 connection that ask for work and carry nothing (T-244).
//!
//! Owns: how many SETTINGS, PING, PRIORITY, WINDOW_UPDATE, RST_STREAM and unknown frames a peer may send in a second.
//! Must never: change a byte, or judge a frame's content: that is the HTTP library's.
//!
//! Why: the library answers as many of them as come. Each costs a peer some bytes, a read holds a thousand, and a task
//! that reads them without a pause keeps everybody's else from their turn.
//! Look next: `connection`, which wraps HTTP/2 streams in it; RFC 9113 section 10.5.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::limits::{HTTP2_CONTROL_FRAMES_PER_SECOND_MAX, HTTP2_RARE_FRAME_WEIGHT};

/// RFC 9113 section 3.4: what a client says first.
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
/// Where a head names its type.
const TYPE_AT: usize = 3;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const SECOND: Duration = Duration::from_secs(1);

/// A stream of HTTP/2 frames.
#[derive(Debug)]
pub(super) struct Counted<S> {
    inner: S,
    heads: Heads,
    frames: u32,
    since: Instant,
}

/// Where in a frame the stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heads {
    /// Bytes before the next head.
    skip: usize,
    /// Bytes of the head that came.
    seen: usize,
    length: usize,
}

impl Heads {
    const BEGIN: Heads = Heads { skip: PREFACE_BYTES, seen: 0, length: 0 };

    /// Goes on over `bytes`, and gives the weight of the frames that begin in them and carry nothing.
    fn pass(&mut self, mut bytes: &[u8]) -> u32 {
        let mut frames = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            let Some((&byte, rest)) = bytes.get(skipped..).and_then(<[u8]>::split_first) else {
                return frames;
            };
            bytes = rest;
            if self.seen < TYPE_AT {
                self.length = self.length << 8 | usize::from(byte);
            } else if self.seen == TYPE_AT {
                frames = u32::saturating_add(frames, weight(byte));
            }
            self.seen += 1;
            if self.seen == HEAD_BYTES {
                *self = Heads { skip: self.length, seen: 0, length: 0 };
            }
        }
    }
}

/// What a frame of this type counts. Requests and their bodies count nothing here, and what a busy peer sends often counts
/// little.
fn weight(kind: u8) -> u32 {
    match kind {
        DATA | HEADERS | CONTINUATION => 0,
        RST_STREAM | WINDOW_UPDATE => 1,
        _ => HTTP2_RARE_FRAME_WEIGHT,
    }
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, heads: Heads::BEGIN, frames: 0, since: Instant::now() }
    }

    /// Whether it is too much. The clock is asked once in so many frames, not for each.
    fn is_flooded(&mut self, fresh: &[u8]) -> bool {
        self.frames = self.frames.saturating_add(self.heads.pass(fresh));
        if self.frames <= HTTP2_CONTROL_FRAMES_PER_SECOND_MAX {
            return false;
        }
        let now = Instant::now();
        if now.duration_since(self.since) < SECOND {
            return true;
        }
        (self.frames, self.since) = (0, now);
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        if self.is_flooded(fresh) {
            return Poll::Ready(Err(io::Error::other("too many frames that carry nothing")));
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        bytes.extend(vec![6; usize::from(length)]);
        bytes
    }

    fn connection(frames: &[(u8, u8)]) -> Vec<u8> {
        let mut bytes = vec![b'P'; PREFACE_BYTES];
        frames.iter().for_each(|&(kind, length)| bytes.extend(frame(kind, length)));
        bytes
    }

    #[test]
    fn only_frames_that_carry_nothing_count_however_they_are_cut() {
        let cases: [(&[(u8, u8)], u32); 4] = [
            (&[(4, 0), (6, 8), (8, 4), (3, 4), (2, 5), (99, 0)], 4 * HTTP2_RARE_FRAME_WEIGHT + 2),
            (&[(0, 0), (1, 30), (9, 200), (0, 255)], 0),
            (&[(8, 4), (0, 90), (8, 4)], 2),
            (&[], 0),
        ];
        for (frames, expected) in cases {
            let bytes = connection(frames);
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                let mut heads = Heads::BEGIN;
                let counted = heads.pass(first) + heads.pass(second);
                assert_eq!((counted, heads.skip, heads.seen), (expected, 0, 0), "{frames:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn as_many_as_a_second_allows_may_come_in_every_second() {
        let mut stream = Counted::new(());
        let most = HTTP2_CONTROL_FRAMES_PER_SECOND_MAX as usize;
        assert!(!stream.is_flooded(&connection(&[])));
        for _ in 0..3 {
            assert!(!stream.is_flooded(&frame(8, 4).repeat(most - 1)));
            stream.since = Instant::now().checked_sub(SECOND).unwrap();
            assert!(!stream.is_flooded(&frame(8, 4).repeat(2)), "another second began");
        }
        assert!(!stream.is_flooded(&frame(8, 4).repeat(most)));
        assert!(stream.is_flooded(&frame(8, 4)));
    }
}
