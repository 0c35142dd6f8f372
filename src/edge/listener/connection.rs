//! One client connection, from its handshake to its end.
//!
//! Owns: the HTTP settings of a connection; calling the handler so that its panic stays its own.
//! Must never: keep a connection whose peer stands still.
//! Look next: `limits`, for the numbers.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::activity::{self, Activity, Verdict};
use super::body::{BodyFault, Reply};
use super::fragment::Marked;
use super::frames::Counted;
use super::paced::Paced;
use super::{Bounds, Doorway, Peer, Protocol, Security, Stop};
use crate::edge::telemetry::Telemetry;
use crate::edge::tls::{ALPN_HTTP2, ServerTls};
use crate::limits;

/// Serves one accepted socket until it is over.
pub(super) async fn serve<H, F, B>(
    stream: TcpStream,
    address: SocketAddr,
    doorway: Doorway,
    handler: Arc<H>,
    stop: Stop,
) where
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyFault>,
{
    let _counted = doorway.telemetry.connection_opened();
    // Without it small frames wait for an acknowledgement; a socket that refuses is served all the same.
    let _slower = stream.set_nodelay(true);
    let stream = Paced::new(stream, doorway.bounds.write_stall, limits::WRITE_STALL_BYTES_MIN);
    match doorway.security.clone() {
        Security::PlainLoopback => {
            let peer = Peer {
                address,
                protocol: Protocol::Http1,
                server_name: None,
                certificate_sha256: None,
                progress: None,
            };
            Http { doorway, handler, peer, stop }.serve(stream).await;
        }
        Security::Tls(tls) => {
            let mut stop = stop;
            let shaken = tokio::select! {
                shaken = shake_hands(stream, &tls, doorway.bounds.handshake) => shaken,
                () = stop.requested() => return,
            };
            let Some(stream) = shaken else { return doorway.telemetry.handshake_failed() };
            let peer = peer(address, stream.get_ref().1);
            Http { doorway, handler, peer, stop }.serve(stream).await;
        }
    }
}

async fn shake_hands(
    stream: Paced<TcpStream>,
    tls: &ServerTls,
    bound: Duration,
) -> Option<tokio_rustls::server::TlsStream<Paced<TcpStream>>> {
    timeout(bound, TlsAcceptor::from(tls.current()).accept(stream)).await.ok()?.ok()
}

fn peer(address: SocketAddr, session: &ServerConnection) -> Peer {
    let http2 = session.alpn_protocol() == Some(ALPN_HTTP2);
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    Peer {
        address,
        protocol: if http2 { Protocol::Http2 } else { Protocol::Http1 },
        server_name: session.server_name().map(Arc::from),
        certificate_sha256: certificate.and_then(|der| digest(&SHA256, der).as_ref().try_into().ok()),
        progress: None,
    }
}

/// A connection whose peer is known.
struct Http<H> {
    doorway: Doorway,
    handler: Arc<H>,
    peer: Peer,
    stop: Stop,
}

impl<H> Http<H> {
    async fn serve<S, F, B>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyFault>,
    {
        let Http { doorway: Doorway { bounds, telemetry, .. }, handler, peer, stop } = self;
        let protocol = peer.protocol;
        let activity = Activity::new();
        let calls = (activity.clone(), telemetry.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (activity, telemetry) = &calls;
            let under_way = activity.begin();
            let peer = Peer { progress: Some(under_way.progress()), ..peer.clone() };
            let handler = Arc::clone(&handler);
            let telemetry = telemetry.clone();
            async move {
                if request.headers().len() > limits::HEADERS_MAX {
                    return Ok(bare(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, under_way, telemetry));
                }
                let close = must_close(&request);
                let reply = answer(async move { handler(request, peer).await }, under_way, telemetry).await;
                Ok::<_, Infallible>(if close { closing(reply) } else { reply })
            }
        });
        let watch = Watch { activity, bounds, telemetry, stop };
        match protocol {
            Protocol::Http1 => {
                let stream = TokioIo::new(Marked::new(stream));
                watch.drive(http1_settings(&bounds).serve_connection(stream, service)).await;
            }
            Protocol::Http2 => {
                let stream = TokioIo::new(Counted::new(stream));
                watch.drive(http2_settings().serve_connection(stream, service)).await;
            }
        }
    }
}

fn http1_settings(bounds: &Bounds) -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_read)
        .max_headers(limits::HEADERS_MAX)
        .max_header_size(limits::HEADER_BYTES_MAX)
        .max_buf_size(limits::HTTP1_BUFFER_BYTES_MAX)
        .half_close(false)
        .keep_alive(true);
    settings
}

fn http2_settings() -> http2::Builder<TokioExecutor> {
    let mut settings = http2::Builder::new(TokioExecutor::new());
    settings
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .max_header_list_size(HTTP2_HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(limits::HTTP2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(limits::HTTP2_LOCAL_RESETS_MAX)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(limits::HTTP2_SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(Duration::from_secs(limits::HTTP2_PING_SECONDS))
        .keep_alive_timeout(Duration::from_secs(limits::HTTP2_PING_ANSWER_SECONDS_MAX));
    settings
}

/// HTTP/2 counts 32 bytes more for each header (RFC 9113, section 6.5.2).
#[expect(clippy::cast_possible_truncation, reason = "the sum of two small constants")]
const HTTP2_HEADER_LIST_BYTES_MAX: u32 = (limits::HEADER_BYTES_MAX + 32 * limits::HEADERS_MAX) as u32;

/// An HTTP/1.x request after which the bytes that follow may not be what they seem.
fn must_close(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_10
        || (request.version() == Version::HTTP_11 && request.headers().contains_key(TRANSFER_ENCODING))
}

fn closing<B>(mut reply: Response<B>) -> Response<B> {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// The handler's answer, or an empty 500 if it panicked: other requests of the connection go on.
async fn answer<B>(
    handled: impl Future<Output = Response<B>>,
    under_way: activity::Request,
    telemetry: Telemetry,
) -> Response<Reply<B>> {
    let mut handled = pin!(handled);
    let outcome = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_panic) => Poll::Ready(None),
    })
    .await;
    under_way.progressed();
    if let Some(response) = outcome {
        return response.map(|body| Reply::new(body, under_way, telemetry));
    }
    telemetry.handler_panicked();
    bare(StatusCode::INTERNAL_SERVER_ERROR, under_way, telemetry)
}

/// An answer without a body, for what must not or can not reach the handler.
fn bare<B>(status: StatusCode, under_way: activity::Request, telemetry: Telemetry) -> Response<Reply<B>> {
    let mut response = Response::new(Reply::empty(under_way, telemetry));
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Ends a connection when it is time.
struct Watch {
    activity: Activity,
    bounds: Bounds,
    telemetry: Telemetry,
    stop: Stop,
}

impl Watch {
    async fn drive<C: GracefulConnection>(mut self, connection: C) {
        let mut connection = pin!(connection);
        let verdict = tokio::select! {
            // How a connection ended is the peer's affair; what was released is recorded elsewhere.
            _ended = connection.as_mut() => return,
            () = self.stop.requested() => None,
            verdict = self.activity.watch(self.bounds.idle, self.bounds.reply_stall) => Some(verdict),
        };
        if verdict == Some(Verdict::Stalled) {
            return self.telemetry.connection_stalled();
        }
        connection.as_mut().graceful_shutdown();
        if verdict == Some(Verdict::Idle) {
            // A peer that is gone would never answer the farewell.
            let _in_time = timeout(self.bounds.shutdown, connection).await;
        } else {
            // The listener cuts what has not ended in time, and counts it.
            let _ended = connection.await;
        }
    }
}
