//! A fragment in an HTTP/1.1 request target, kept visible.
//!
//! Owns: one substitution in the bytes of request lines: `#` becomes `^`, which no URL may hold either.
//! Must never: touch a byte anywhere else, or decide: `fhir::classify` refuses the mark.
//!
//! Why: the HTTP library cuts a target off at `#` before anyone sees it. What is decided and asked upstream is
//! the same short target, so nothing widens, but a sender who writes one is up to something (KF-17).
//! HTTP/2 compresses its heads; there the cut stays unseen.
//! Look next: `connection`, which wraps HTTP/1.1 streams in it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a fragment's sign is turned into.
const MARK: u8 = b'^';

/// A stream of HTTP/1.1 requests.
#[derive(Debug)]
pub(super) struct Marked<S> {
    inner: S,
    place: Place,
}

/// Where in a line the stream stands. A line counts as a request line while it reads `METHOD target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Method,
    Target,
    Elsewhere,
}

impl<S> Marked<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, place: Place::Method }
    }
}

impl Place {
    /// The place after `byte`, and whether `byte` begins a fragment.
    fn after(self, byte: u8) -> (Self, bool) {
        match (self, byte) {
            (_, b'\n') => (Self::Method, false),
            (Self::Method, b'A'..=b'Z' | b'\r') => (Self::Method, false),
            (Self::Method, b' ') => (Self::Target, false),
            (Self::Target, b'#') => (Self::Target, true),
            (Self::Target, byte) if byte != b' ' => (Self::Target, false),
            (Self::Method | Self::Target | Self::Elsewhere, _) => (Self::Elsewhere, false),
        }
    }
}

fn mark(bytes: &mut [u8], mut place: Place) -> Place {
    for byte in bytes {
        let (next, is_fragment) = place.after(*byte);
        if is_fragment {
            *byte = MARK;
        }
        place = next;
    }
    place
}

impl<S: AsyncRead + Unpin> AsyncRead for Marked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Some(fresh) = buffer.filled_mut().get_mut(before..) {
            self.place = mark(fresh, self.place);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Marked<S> {
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

    /// The stream, cut in two at every place, reads the same.
    #[track_caller]
    fn check(sent: &str, seen: &str) {
        for cut in 0..=sent.len() {
            let mut bytes = sent.as_bytes().to_vec();
            let (first, second) = bytes.split_at_mut(cut);
            let place = mark(first, Place::Method);
            mark(second, place);
            assert_eq!(String::from_utf8(bytes).unwrap(), seen, "cut at {cut}");
        }
    }

    #[test]
    fn only_targets_are_marked() {
        check("GET /Patient/1#x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /Patient/1^x HTTP/1.1\r\nHost: a\r\n\r\n");
        check("GET /a?b=#c#d HTTP/1.1\r\n\r\n", "GET /a?b=^c^d HTTP/1.1\r\n\r\n");
        check("GET /a HTTP/1.1\r\nX: #1\r\nA b#c\r\n\r\n", "GET /a HTTP/1.1\r\nX: #1\r\nA b^c\r\n\r\n");
        check(
            "POST /a HTTP/1.1\r\n\r\nname=#1&b=#\r\n\r\nGET /b# HTTP/1.1\r\n",
            "POST /a HTTP/1.1\r\n\r\nname=#1&b=#\r\n\r\nGET /b^ HTTP/1.1\r\n",
        );
    }
}
