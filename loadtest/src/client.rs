//! One client's connection: TLS, HTTP/1.1 or HTTP/2, kept open, one request at a time.
//!
//! Owns: [`Place`], where to connect, and [`Link`], an open connection.
//! Must never: skip certificate verification, or keep an answer's body unless asked to.
//! Look next: `load`, which runs many of these.

use crate::writes::How;
use bytes::Bytes;
use chartgate::edge::tls::{ClientFiles, client_config};
use clap::ValueEnum;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name in the certificate of everything that is measured.
const NAME: &str = "localhost";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What a caller of a FHIR API would grant an answer of 1 MB: more than hyper's 64 KiB of HTTP/2.
const HTTP2_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Connections being opened at once: more handshakes would only make each other late.
pub(crate) const HANDSHAKES_AT_ONCE: usize = 64;

/// The next of these that is done; `None` when all are.
///
/// # Errors
/// Its own, or that it was ended.
pub(crate) async fn joined<T: 'static>(
    opening: &mut JoinSet<Result<T, String>>,
) -> Result<Option<T>, String> {
    match opening.join_next().await {
        None => Ok(None),
        Some(done) => done.map_err(text)?.map(Some),
    }
}

/// The protocol spoken over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// HTTP/1.1, keep-alive
    #[value(name = "1.1", alias = "1")]
    Http1,
    /// HTTP/2; `baseline` has one stream at a time on each connection
    #[value(name = "2")]
    Http2,
}

/// Somewhere to send requests.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    address: SocketAddr,
    authority: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    protocol: Protocol,
    source: Ipv4Addr,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'q> {
    /// Path and query, with a slash at the beginning.
    pub(crate) path: &'q str,
    pub(crate) token: &'q HeaderValue,
    /// `Prefer: respond-async`, as a bulk export wants it.
    pub(crate) prefers_async: bool,
    /// What is sent with it; `None` for a question.
    pub(crate) write: Option<(How, &'q Bytes)>,
}

/// What is kept of an answer.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: StatusCode,
    /// `Content-Location`: where the status of an export is.
    pub(crate) location: Option<String>,
    /// `Location`: where a created record is.
    pub(crate) created: Option<String>,
    /// `X-Request-Id`, where it is 128 bits in hex, as the gate's is.
    pub(crate) request_id: Option<u128>,
    pub(crate) bytes: u64,
    /// The body, if it was to be kept.
    pub(crate) body: Vec<u8>,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Place {
    /// A TLS server on this loopback port, whose certificate `ca_file` vouches for.
    ///
    /// # Errors
    /// When the file holds no certificate.
    pub(crate) fn secure(port: u16, ca_file: &Path, protocol: Protocol) -> Result<Self, String> {
        let files = ClientFiles { ca: Some(ca_file.to_owned()), own: None };
        let mut config = client_config(&files).map_err(text)?;
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (authority, source) = (format!("{NAME}:{port}"), Ipv4Addr::LOCALHOST);
        Ok(Self { address, authority, tls: Some(Arc::new(config)), protocol, source })
    }

    /// The same, asked from another address of loopback.
    pub(crate) fn coming_from(self, source: Ipv4Addr) -> Self {
        Self { source, ..self }
    }

    /// Host and port, as requests name them.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The port, where the authority names one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.authority.rsplit(':').next()?.parse().ok()
    }

    /// Whether a connection takes several requests at once.
    pub(crate) fn is_shared(&self) -> bool {
        self.protocol == Protocol::Http2
    }

    /// A plain HTTP/1.1 server.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        let (authority, source) = (address.to_string(), Ipv4Addr::LOCALHOST);
        Self { address, authority, tls: None, protocol: Protocol::Http1, source }
    }

    /// A connection on which nothing was said yet; `receive_bytes` bounds what the system takes in before it is read.
    ///
    /// # Errors
    /// When there is no connection.
    pub(crate) async fn reach(&self, receive_bytes: Option<u32>) -> Result<TcpStream, String> {
        let socket = TcpSocket::new_v4().map_err(text)?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).map_err(text)?;
        }
        if self.source != Ipv4Addr::LOCALHOST {
            socket.bind(SocketAddr::from((self.source, 0))).map_err(text)?;
        }
        let stream = socket.connect(self.address).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        Ok(stream)
    }

    /// The TLS handshake on such a connection.
    ///
    /// # Errors
    /// When it fails, this place has no TLS, or the server does not speak the protocol that was asked for.
    pub(crate) async fn shake_hands(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let tls = self.tls.as_ref().ok_or("no TLS here")?;
        let name = ServerName::try_from(NAME).map_err(text)?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(text)?;
        let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        if agreed.is_none() || agreed.as_ref() != tls.alpn_protocols.first() {
            return Err("the server does not speak the protocol that was asked for".to_owned());
        }
        Ok(stream)
    }

    /// The first bytes of a TLS handshake, as they would be sent; none where there is no TLS.
    ///
    /// # Errors
    /// When the library cannot make them.
    pub(crate) fn client_hello(&self) -> Result<Vec<u8>, String> {
        let mut hello = Vec::new();
        if let Some(tls) = &self.tls {
            let name = ServerName::try_from(NAME).map_err(text)?;
            let mut session = rustls::ClientConnection::new(Arc::clone(tls), name).map_err(text)?;
            session.write_tls(&mut hello).map_err(text)?;
        }
        Ok(hello)
    }

    /// Connects.
    ///
    /// # Errors
    /// When there is no connection, or not with the protocol that was asked for.
    pub(crate) async fn connect(&self) -> Result<Link, String> {
        let stream = self.reach(None).await?;
        if self.tls.is_none() {
            return self.over(stream).await;
        }
        self.over(self.shake_hands(stream).await?).await
    }

    async fn over<S>(&self, stream: S) -> Result<Link, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        let way = match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.map_err(text)?;
                tokio::spawn(connection);
                Way::Http1(sender)
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.initial_stream_window_size(HTTP2_WINDOW_BYTES);
                builder.initial_connection_window_size(HTTP2_WINDOW_BYTES);
                let (sender, connection) = builder.handshake(stream).await.map_err(text)?;
                tokio::spawn(connection);
                Way::Http2(sender)
            }
        };
        Ok(Link { way, authority: self.authority.clone() })
    }
}

enum Way {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An open connection.
pub(crate) struct Link {
    way: Way,
    authority: String,
}

impl Link {
    /// Asks and reads the whole answer. `path` begins with a slash; `keep` keeps the body.
    ///
    /// # Errors
    /// When no whole answer came.
    pub(crate) async fn get(&mut self, path: &str, token: &HeaderValue, keep: bool) -> Result<Heard, String> {
        let mut body = Vec::new();
        let question = Question { path, token, prefers_async: false, write: None };
        let mut heard = self
            .ask(question, &mut |piece| {
                if keep {
                    body.extend_from_slice(piece);
                }
            })
            .await?;
        heard.body = body;
        Ok(heard)
    }

    /// Asks and shows the answer's body piece by piece; [`Heard::body`] stays empty.
    ///
    /// # Errors
    /// When no whole answer came.
    pub(crate) async fn ask(
        &mut self,
        question: Question<'_>,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Heard, String> {
        let answer = self.send(question).await?;
        let (parts, mut body) = answer.into_parts();
        let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let request_id = header(REQUEST_ID).and_then(|id| u128::from_str_radix(id, 16).ok());
        let location = header(header::CONTENT_LOCATION).map(str::to_owned);
        let created = header(header::LOCATION).map(str::to_owned);
        let mut heard =
            Heard { status: parts.status, location, created, request_id, bytes: 0, body: Vec::new() };
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(text)?.into_data() else { continue };
            heard.bytes += data.len() as u64;
            see(&data);
        }
        Ok(heard)
    }

    /// Whether another request can go over it.
    pub(crate) fn is_open(&self) -> bool {
        match &self.way {
            Way::Http1(sender) => !sender.is_closed(),
            Way::Http2(sender) => !sender.is_closed(),
        }
    }

    /// The same connection once more, where it takes several requests at once.
    pub(crate) fn share(&self) -> Option<Self> {
        match &self.way {
            Way::Http1(_) => None,
            Way::Http2(sender) => {
                Some(Self { way: Way::Http2(sender.clone()), authority: self.authority.clone() })
            }
        }
    }

    async fn send(&mut self, question: Question<'_>) -> Result<Response<Incoming>, String> {
        let Question { path, token, prefers_async, write } = question;
        let method = write.map_or(Method::GET, |(how, _)| how.method());
        let request = Request::builder().method(method).uri(match self.way {
            Way::Http1(_) => path.to_owned(),
            Way::Http2(_) => format!("https://{}{path}", self.authority),
        });
        let request =
            request.header(header::AUTHORIZATION, token).header(header::ACCEPT, "application/fhir+json");
        let request = match self.way {
            Way::Http1(_) => request.header(header::HOST, self.authority.as_str()),
            Way::Http2(_) => request,
        };
        let request = if prefers_async { request.header("prefer", "respond-async") } else { request };
        let request = match write {
            Some((how, _)) => request.header(header::CONTENT_TYPE, how.content_type()),
            None => request,
        };
        let body = write.map_or_else(Bytes::new, |(_, body)| body.clone());
        let request = request.body(Full::new(body)).map_err(text)?;
        match &mut self.way {
            Way::Http1(sender) => {
                sender.ready().await.map_err(text)?;
                sender.send_request(request).await.map_err(text)
            }
            Way::Http2(sender) => {
                sender.ready().await.map_err(text)?;
                sender.send_request(request).await.map_err(text)
            }
        }
    }
}
