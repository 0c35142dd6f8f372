//! Loopback HTTP/1.1: accepting, answering, stopping, and answers that misbehave on purpose.
//!
//! Owns: the listening socket, the reply body type, `Canned` answers.
//! Must never: bind an address that is not loopback; know FHIR or OIDC.
//! Look next: `emr::rest` and `issuer::flow`, the two callers.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Sleep;

/// Why a sandbox server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is reachable from other machines.
    NotLoopback(SocketAddr),
    /// The operating system refused the address.
    Bind(std::io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoopback(address) => write!(f, "the sandbox serves loopback only, not `{address}`"),
            Self::Bind(error) => write!(f, "cannot listen: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// A running sandbox server. Dropping it stops it at once.
#[derive(Debug)]
#[must_use = "dropping the server stops it"]
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// The address it listens on, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops: no new connection is taken, open ones are closed.
    pub async fn shutdown(mut self) {
        self.accepting.abort();
        // The join error only says that the task was aborted.
        drop((&mut self.accepting).await);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One prepared answer, given once instead of the real one.
#[derive(Clone)]
pub struct Canned {
    status: StatusCode,
    headers: Vec<(String, String)>,
    chunks: VecDeque<(Duration, Bytes)>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Complete,
    CutOff,
    Stall,
}

impl Canned {
    /// An answer with `status` and no body; a status that HTTP does not know becomes 500.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, headers: Vec::new(), chunks: VecDeque::new(), ending: Ending::Complete }
    }

    /// A 200 with content type `application/fhir+json` and this body.
    #[must_use]
    pub fn fhir(body: impl Into<Bytes>) -> Self {
        Self::status(200).header("content-type", "application/fhir+json").body(body)
    }

    /// Adds a header; an invalid name or value is left out. `content-length` may lie.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a piece of the body, sent at once after the one before.
    #[must_use]
    pub fn body(self, piece: impl Into<Bytes>) -> Self {
        self.body_after(Duration::ZERO, piece)
    }

    /// Adds a piece of the body, sent `delay` after the one before.
    #[must_use]
    pub fn body_after(mut self, delay: Duration, piece: impl Into<Bytes>) -> Self {
        self.chunks.push_back((delay, piece.into()));
        self
    }

    /// Breaks the connection where the body should have ended.
    #[must_use]
    pub fn cut_off(mut self) -> Self {
        self.ending = Ending::CutOff;
        self
    }

    /// Neither ends nor sends more after the given pieces; the connection stays open.
    #[must_use]
    pub fn stall(mut self) -> Self {
        self.ending = Ending::Stall;
        self
    }

    fn play(self) -> Answer {
        let played = Playback { chunks: self.chunks, ending: self.ending, waiting: None };
        let mut answer = Response::new(AnswerBody::Played(Box::new(played)));
        *answer.status_mut() = self.status;
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                answer.headers_mut().append(name, value);
            }
        }
        answer
    }
}

impl fmt::Debug for Canned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.chunks.iter().map(|(_, piece)| piece.len()).sum();
        write!(f, "Canned({}, {bytes} bytes, {:?})", self.status, self.ending)
    }
}

/// Prepared answers by path, first in first out. The path `*` stands for any.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<HashMap<String, VecDeque<Canned>>>);

impl Shelf {
    pub(crate) fn put(&self, path: &str, canned: Canned) {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.entry(path.to_owned()).or_default().push_back(canned);
    }

    pub(crate) fn take(&self, path: &str) -> Option<Answer> {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.is_empty() {
            return None;
        }
        for key in [path, "*"] {
            let Some(queue) = shelf.get_mut(key) else { continue };
            let canned = queue.pop_front();
            if queue.is_empty() {
                shelf.remove(key);
            }
            if canned.is_some() {
                return canned.map(Canned::play);
            }
        }
        None
    }
}

pub(crate) type Answer = Response<AnswerBody>;

/// A reply body: whole, or played piece by piece.
pub(crate) enum AnswerBody {
    Whole(Option<Bytes>),
    Played(Box<Playback>),
}

pub(crate) struct Playback {
    chunks: VecDeque<(Duration, Bytes)>,
    ending: Ending,
    waiting: Option<Pin<Box<Sleep>>>,
}

/// The body was broken off on purpose.
#[derive(Debug)]
pub(crate) struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut off on purpose")
    }
}

impl std::error::Error for CutOff {}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Played(playback) => playback.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Played(_) => SizeHint::default(),
        }
    }
}

impl Playback {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let Some((delay, _)) = self.chunks.front() else {
            return match self.ending {
                Ending::Complete => Poll::Ready(None),
                Ending::CutOff => Poll::Ready(Some(Err(CutOff))),
                // Nothing will wake this task but the connection going away, which is the point.
                Ending::Stall => Poll::Pending,
            };
        };
        if !delay.is_zero() {
            let delay = *delay;
            let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.waiting = None;
        Poll::Ready(self.chunks.pop_front().map(|(_, piece)| Ok(Frame::data(piece))))
    }
}

/// A reply with a body in one piece.
pub(crate) fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(Some(body.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A reply whose body is sent piece by piece.
pub(crate) fn streamed(content_type: &'static str, pieces: impl Iterator<Item = Bytes>) -> Answer {
    let chunks = pieces.map(|piece| (Duration::ZERO, piece)).collect();
    let played = Playback { chunks, ending: Ending::Complete, waiting: None };
    let mut answer = Response::new(AnswerBody::Played(Box::new(played)));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A reply without a body.
pub(crate) fn bare(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(None));
    *answer.status_mut() = status;
    answer
}

/// Binds `address` (loopback, port 0 for any).
///
/// # Errors
/// `NotLoopback`, or `Bind` when the operating system refuses.
pub(crate) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    let listener = TcpListener::bind(address).await.map_err(ServeError::Bind)?;
    let address = listener.local_addr().map_err(ServeError::Bind)?;
    Ok((listener, address))
}

/// Serves `handle` on a bound listener. `handle` gives `None` to drop the connection without an answer.
pub(crate) fn serve<H, F>(listener: TcpListener, address: SocketAddr, handle: H) -> Server
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Option<Answer>> + Send + 'static,
{
    let accepting = tokio::spawn(async move {
        // Aborting this task drops the set, which closes every connection.
        let mut open = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            while open.try_join_next().is_some() {}
            open.spawn(connection(stream, handle.clone()));
        }
    });
    Server { address, accepting }
}

async fn connection<H, F>(stream: TcpStream, handle: H)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Option<Answer>>,
{
    drop(stream.set_nodelay(true));
    let service = service_fn(|request| {
        let answering = handle(request);
        async move { answering.await.ok_or(CutOff) }
    });
    let serving =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // A client that goes away is no failure of ours.
    drop(serving.await);
}

/// Reads a request body whole, up to `bytes_max`; `None` when longer or broken.
pub(crate) async fn collect(body: Incoming, bytes_max: usize) -> Option<Bytes> {
    use http_body_util::{BodyExt, Limited};
    Limited::new(body, bytes_max).collect().await.ok().map(http_body_util::Collected::to_bytes)
}
