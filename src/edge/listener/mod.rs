//! The door for clients: accept, TLS handshake, HTTP/1.1 or HTTP/2, and an orderly end.
//!
//! Owns: every bound of a client connection (T-136 to T-139, T-146, T-241 to T-245); the end of a request
//! whose handler panicked; graceful shutdown.
//! Must never: serve h2c, an upgrade or a tunnel; decide anything about a request; import `gateway`: it is
//! given a function to call.
//! Look next: `gateway`, which is that function; `activity` and `paced` for peers that stand still.
//!
//! What hyper refuses before the handler sees it: malformed heads (400), too many or too large headers
//! (431), differing `Content-Length` lines and `Transfer-Encoding` that does not end in `chunked` (400).
//! With both `Transfer-Encoding` and `Content-Length` it reads chunks and hides the length, so a
//! connection ends after any HTTP/1.1 request with a `Transfer-Encoding`: nothing can be smuggled behind it.

mod activity;
mod body;
mod connection;
mod fragment;
mod frames;
mod paced;
mod places;
mod stop;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

pub use body::{BodyFault, BodyRefusal, read_body};
pub use stop::{Stop, Stopper, stop_signal};

use crate::edge::telemetry::Telemetry;
use crate::edge::tls::ServerTls;
use crate::limits;
use activity::Progress;
use places::{Place, Places};

/// Who is at the other end, as far as the transport knows.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The socket's other end. Nothing a client sends changes it.
    pub address: SocketAddr,
    /// The protocol agreed on by ALPN.
    pub protocol: Protocol,
    /// The host name the client asked for in the handshake (SNI), lower case.
    pub server_name: Option<Arc<str>>,
    /// SHA-256 of the client's certificate (DER), only if it presented one and it was verified.
    pub certificate_sha256: Option<[u8; 32]>,
    /// The request this was handed out with.
    progress: Option<Progress>,
}

impl Peer {
    /// Notes that the request it was handed out with goes on: a handler that takes many steps before its answer
    /// (a batch, a write with its reads) says so after each, or is taken for one that hangs after
    /// `REPLY_STALL_SECONDS_MAX`.
    pub fn progressed(&self) {
        if let Some(progress) = &self.progress {
            progress.made();
        }
    }

    /// Reads this peer's request body whole, as [`read_body`] does; each piece counts as progress.
    ///
    /// # Errors
    /// As [`read_body`].
    pub async fn read_body<B>(&self, body: B, bytes_max: usize) -> Result<Bytes, BodyRefusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        body::read(body, bytes_max, || self.progressed()).await
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 (and 1.0, which the handler refuses by the request's version).
    Http1,
    /// HTTP/2.
    Http2,
}

/// How a listener is secured.
#[derive(Clone, Debug)]
pub enum Security {
    /// TLS on any address.
    Tls(Arc<ServerTls>),
    /// Plain HTTP/1.1, on loopback addresses only.
    PlainLoopback,
}

/// The bounds of a listener that tests shorten. All others are taken from `limits` where they apply.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections open at once; one address may hold `limits::CONNECTIONS_OF_ADDRESS_QUARTERS` of them.
    pub connections: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of an HTTP/1.1 request, and between two requests.
    pub header_read: Duration,
    /// Without a request under way.
    pub idle: Duration,
    /// For the peer to take `limits::WRITE_STALL_BYTES_MIN`.
    pub write_stall: Duration,
    /// For a request to make any progress.
    pub reply_stall: Duration,
    /// For requests under way when told to stop.
    pub shutdown: Duration,
}

/// A bound socket that does not accept yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    doorway: Doorway,
}

/// How a listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// Connections that had to be cut because they did not finish in time.
    pub cut_off: usize,
}

/// Why a listener cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerError {
    /// Plain HTTP was asked for on an address that is not loopback.
    PlainBeyondLoopback(SocketAddr),
    /// The operating system refused the address.
    Bind(SocketAddr, io::ErrorKind),
}

/// What every connection of a listener shares.
#[derive(Clone, Debug)]
struct Doorway {
    security: Security,
    bounds: Bounds,
    telemetry: Telemetry,
}

impl Bounds {
    /// The bounds of `limits` for clients.
    pub const CLIENTS: Bounds = Bounds {
        connections: limits::CONNECTIONS_MAX,
        handshake: Duration::from_secs(limits::HANDSHAKE_SECONDS_MAX),
        header_read: Duration::from_secs(limits::HEADER_READ_SECONDS_MAX),
        idle: Duration::from_secs(limits::IDLE_SECONDS_MAX),
        write_stall: Duration::from_secs(limits::WRITE_STALL_SECONDS_MAX),
        reply_stall: Duration::from_secs(limits::REPLY_STALL_SECONDS_MAX),
        shutdown: Duration::from_secs(limits::SHUTDOWN_SECONDS_MAX),
    };
    /// The same for the operations listener, with few connections.
    pub const OPERATIONS: Bounds =
        Bounds { connections: limits::OPERATIONS_CONNECTIONS_MAX, ..Bounds::CLIENTS };
}

impl Listener {
    /// Takes the address. Nothing is accepted before [`Listener::serve`].
    ///
    /// # Errors
    /// [`ListenerError`]: plain HTTP beyond loopback, or the address is not to be had.
    pub async fn bind(
        address: SocketAddr,
        security: Security,
        bounds: Bounds,
        telemetry: Telemetry,
    ) -> Result<Self, ListenerError> {
        if matches!(security, Security::PlainLoopback) && !address.ip().is_loopback() {
            return Err(ListenerError::PlainBeyondLoopback(address));
        }
        let refused = |error: io::Error| ListenerError::Bind(address, error.kind());
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        Ok(Self { socket, address, doorway: Doorway { security, bounds, telemetry } })
    }

    /// The address taken: the port is real even if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections and calls `handler` for each request, until `stop`; then accepts no more, lets
    /// requests under way finish within `bounds.shutdown`, and returns.
    ///
    /// A handler's future is dropped when its client leaves. One that panics ends as an empty 500. A reply
    /// body that fails or panics breaks its stream off, which the client can tell from an end.
    pub async fn serve<H, F, B>(self, handler: H, mut stop: Stop) -> Drained
    where
        H: Fn(http::Request<Incoming>, Peer) -> F + Send + Sync + 'static,
        F: Future<Output = http::Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyFault>,
    {
        let handler = Arc::new(handler);
        let places = Places::new(self.doorway.bounds.connections);
        let mut open = JoinSet::new();
        let end = stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => break,
                Some(ended) = open.join_next(), if !open.is_empty() => self.doorway.note_end(ended),
                accepted = self.socket.accept() => {
                    if let Some((stream, address, place)) = self.doorway.admit(accepted, &places).await {
                        let doorway = self.doorway.clone();
                        let handler = Arc::clone(&handler);
                        let end = end.clone();
                        open.spawn(async move {
                            connection::serve(stream, address, doorway, handler, end).await;
                            drop(place);
                        });
                    }
                }
            }
        }
        drop(self.socket);
        self.doorway.drain(open).await
    }
}

impl Doorway {
    /// The connection with its place, unless there is no place.
    async fn admit(
        &self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        places: &Arc<Places>,
    ) -> Option<(TcpStream, SocketAddr, Place)> {
        let Ok((stream, address)) = accepted else {
            self.telemetry.accept_failed();
            sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MILLIS)).await;
            return None;
        };
        let Some(place) = places.take(address.ip()) else {
            self.telemetry.connection_refused();
            return None;
        };
        Some((stream, address, place))
    }

    fn note_end(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.telemetry.handler_panicked();
        }
    }

    async fn drain(&self, mut open: JoinSet<()>) -> Drained {
        let all = async {
            while let Some(ended) = open.join_next().await {
                self.note_end(ended);
            }
        };
        let in_time = timeout(self.bounds.shutdown, all).await.is_ok();
        let cut_off = if in_time { 0 } else { open.len() };
        open.shutdown().await;
        Drained { cut_off }
    }
}

impl fmt::Display for ListenerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenerError::PlainBeyondLoopback(address) => {
                write!(f, "`{address}` is not a loopback address, so it needs a certificate")
            }
            ListenerError::Bind(address, kind) => write!(f, "cannot listen on `{address}`: {kind}"),
        }
    }
}

impl std::error::Error for ListenerError {}
