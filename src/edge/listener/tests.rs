//! The listener against real clients on loopback: well-behaved ones, rude ones, slow ones.
//!
//! Owns: proof that each bound of a connection holds. Must never: sleep longer than a bound it shortened.
//! Look next: `tls::fixture`, which makes the certificates.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::edge::tls::fixture::Authority;
use crate::edge::tls::{ClientFiles, ServerFiles, client_config};

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// A listener with a handler that does what the path says.
struct House {
    authority: Authority,
    tls: Arc<ServerTls>,
    address: SocketAddr,
    telemetry: Telemetry,
    calls: Arc<AtomicUsize>,
    go_on: Arc<Semaphore>,
    peers: Arc<Mutex<Vec<Peer>>>,
    stopper: Stopper,
    served: JoinHandle<Drained>,
}

fn short() -> Bounds {
    Bounds {
        connections: 16,
        handshake: Duration::from_millis(400),
        header_read: Duration::from_millis(400),
        idle: Duration::from_secs(20),
        write_stall: Duration::from_millis(400),
        reply_stall: Duration::from_secs(20),
        shutdown: Duration::from_secs(5),
    }
}

async fn house(bounds: Bounds) -> House {
    let authority = Authority::new();
    let own = authority.issue("server", "localhost");
    let tls = ServerTls::load(ServerFiles { own, client_ca: Some(authority.ca()) }).unwrap();
    let telemetry = Telemetry::new();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let security = Security::Tls(Arc::clone(&tls));
    let listener = Listener::bind(any, security, bounds, telemetry.clone()).await.unwrap();
    let address = listener.address();
    let (stopper, stop) = stop_signal();
    let calls = Arc::new(AtomicUsize::new(0));
    let go_on = Arc::new(Semaphore::new(0));
    let peers = Arc::new(Mutex::new(Vec::new()));
    let shared = (Arc::clone(&calls), Arc::clone(&go_on), Arc::clone(&peers));
    let handler = move |request: Request<Incoming>, peer: Peer| {
        shared.0.fetch_add(1, Ordering::SeqCst);
        shared.2.lock().unwrap().push(peer.clone());
        handle(request, peer, Arc::clone(&shared.1))
    };
    let served = tokio::spawn(listener.serve(handler, stop));
    House { authority, tls, address, telemetry, calls, go_on, peers, stopper, served }
}

async fn handle(request: Request<Incoming>, peer: Peer, go_on: Arc<Semaphore>) -> Response<Answer> {
    let body = match request.uri().path() {
        "/wait" => {
            let _waited = go_on.acquire().await.unwrap();
            whole("waited")
        }
        "/panic" => panic!("a planted secret"),
        "/panic-later" => PanicAfterOne(true).boxed_unsync(),
        "/endless" => whole_bytes(vec![b'x'; 64 << 20]),
        "/never" => std::future::pending().await,
        "/watched" => match peer.read_body(request.into_body(), 1000).await {
            Ok(bytes) => Full::new(bytes).boxed_unsync(),
            Err(refusal) => whole(&refusal.to_string()),
        },
        "/steps" => {
            for _ in 0..15 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                peer.progressed();
            }
            whole("fine")
        }
        "/echo" => match read_body(request.into_body(), 1000).await {
            Ok(bytes) => Full::new(bytes).boxed_unsync(),
            Err(refusal) => whole(&refusal.to_string()),
        },
        _ => whole("fine"),
    };
    Response::new(body)
}

fn whole(text: &str) -> Answer {
    whole_bytes(text.as_bytes().to_vec())
}

fn whole_bytes(bytes: Vec<u8>) -> Answer {
    Full::new(Bytes::from(bytes)).boxed_unsync()
}

/// A body of one piece that panics when asked for the second.
struct PanicAfterOne(bool);

impl Body for PanicAfterOne {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        assert!(std::mem::take(&mut self.0), "a planted secret");
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"first")))))
    }
}

impl House {
    fn client(&self, own: Option<crate::edge::tls::CertificateFiles>) -> ClientConfig {
        client_config(&ClientFiles { ca: Some(self.authority.ca()), own }).unwrap()
    }

    async fn shake(&self, config: ClientConfig, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = config;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn connect(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        self.shake(self.client(None), alpn).await.unwrap()
    }

    async fn http2(&self) -> http2::SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(self.connect(&[b"h2"]).await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn http1(&self) -> http1::SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(self.connect(&[b"http/1.1"]).await);
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Sends bytes over HTTP/1.1 and reads until the listener closes, or `patience` is over.
    async fn raw(&self, bytes: &[u8], patience: Duration) -> String {
        let mut stream = self.connect(&[b"http/1.1"]).await;
        stream.write_all(bytes).await.unwrap();
        let mut got = Vec::new();
        let _over = timeout(patience, stream.read_to_end(&mut got)).await;
        String::from_utf8_lossy(&got).into_owned()
    }

    fn metric(&self, line: &str) -> bool {
        self.telemetry.render().lines().any(|l| l == line)
    }
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::builder().uri(format!("https://localhost{path}")).body(Empty::new()).unwrap()
}

const LONG: Duration = Duration::from_secs(8);
const SHORT: Duration = Duration::from_millis(400);

#[tokio::test]
async fn alpn_and_version_decide_the_protocol() {
    let house = house(short()).await;
    type Case<'a> = (&'a [&'static [u8]], &'static SupportedProtocolVersion, Option<Protocol>);
    let cases: [Case<'_>; 6] = [
        (&[b"h2", b"http/1.1"], &rustls::version::TLS13, Some(Protocol::Http2)),
        (&[b"http/1.1", b"h2"], &rustls::version::TLS12, Some(Protocol::Http2)),
        (&[b"http/1.1"], &rustls::version::TLS13, Some(Protocol::Http1)),
        (&[], &rustls::version::TLS12, Some(Protocol::Http1)),
        (&[b"h2c"], &rustls::version::TLS13, None),
        (&[b"spdy/3", b"http/1.0"], &rustls::version::TLS12, None),
    ];
    for (alpn, version, expected) in cases {
        let config = ClientConfig::builder_with_provider(crate::edge::tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots_of(&house))
            .with_no_client_auth();
        let Ok(stream) = house.shake(config, alpn).await else {
            assert_eq!(expected, None, "{alpn:?}");
            continue;
        };
        let suite = format!("{:?}", stream.get_ref().1.negotiated_cipher_suite().unwrap().suite());
        assert!(suite.contains("GCM") || suite.contains("POLY1305"), "{suite}");
        let io = TokioIo::new(stream);
        let status = if expected == Some(Protocol::Http2) {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(get("/")).await.unwrap().status()
        } else {
            let (mut sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(get("/")).await.unwrap().status()
        };
        assert_eq!(status, StatusCode::OK);
        let peer = house.peers.lock().unwrap().pop().unwrap();
        assert_eq!(Some(peer.protocol), expected, "{alpn:?}");
        assert_eq!(peer.server_name.as_deref(), Some("localhost"));
        assert!(peer.address.ip().is_loopback());
    }
}

fn roots_of(house: &House) -> rustls::RootCertStore {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(house.authority.ca()).unwrap()).unwrap();
    roots
}

#[tokio::test]
async fn client_certificates_are_optional_and_verified() {
    use rustls_pki_types::pem::PemObject as _;
    let house = house(short()).await;
    let stranger = Authority::new();
    let good = house.authority.issue("client", "client.test");
    let der = rustls_pki_types::CertificateDer::from_pem_file(&good.certificate).unwrap();
    let hash: [u8; 32] =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref().try_into().unwrap();
    let cases = [
        (None, Some(None)),
        (Some(good), Some(Some(hash))),
        (Some(stranger.issue("client", "client.test")), None),
        (Some(house.authority.issue_until("old", "client.test", 2021)), None),
    ];
    for (own, expected) in cases {
        let mut stream = house.shake(house.client(own.clone()), &[b"http/1.1"]).await.unwrap();
        let mut got = Vec::new();
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        let read = stream.read_to_end(&mut got).await;
        if let Some(certificate) = expected {
            assert!(got.starts_with(b"HTTP/1.1 200"), "{own:?}");
            assert_eq!(house.peers.lock().unwrap().pop().unwrap().certificate_sha256, certificate);
        } else {
            assert!(asked.is_err() || read.is_err(), "{own:?}");
            assert!(house.peers.lock().unwrap().is_empty());
        }
    }
    assert!(house.metric("chartgate_handshake_failures_total 2"), "{}", house.telemetry.render());
}

#[tokio::test]
async fn a_new_certificate_is_used_without_dropping_open_connections() {
    let house = house(short()).await;
    let before = house.connect(&[b"http/1.1"]).await;
    let old = before.get_ref().1.peer_certificates().unwrap()[0].clone();
    let (mut sender, connection) = http1::handshake(TokioIo::new(before)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(get("/")).await.unwrap().collect().await.unwrap();
    house.authority.issue("server", "localhost");
    house.tls.reload().unwrap();
    let after = house.connect(&[b"http/1.1"]).await;
    assert_ne!(old, after.get_ref().1.peer_certificates().unwrap()[0]);
    assert_eq!(sender.send_request(get("/")).await.unwrap().status(), StatusCode::OK, "still open");
}

#[tokio::test]
async fn shutdown_finishes_what_is_under_way_and_cuts_what_does_not() {
    for (path, cut_off) in [("/wait", 0), ("/never", 1)] {
        let house = house(Bounds { shutdown: Duration::from_secs(1), ..short() }).await;
        let mut one = house.http1().await;
        let mut two = house.http2().await;
        let first = tokio::spawn(async move { one.send_request(get("/wait")).await });
        let second = {
            let request = get(path);
            tokio::spawn(async move { two.send_request(request).await })
        };
        while house.calls.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        house.stopper.stop();
        while TcpStream::connect(house.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.go_on.add_permits(1);
        let body = first.await.unwrap().unwrap().collect().await.unwrap().to_bytes();
        assert_eq!(body, "waited");
        assert_eq!(second.await.unwrap().is_ok(), cut_off == 0, "{path}");
        let drained = house.served.await.unwrap();
        assert_eq!(drained, Drained { cut_off }, "{path}");
    }
}

#[tokio::test]
async fn heads_that_are_odd_or_large_are_refused() {
    let house = house(short()).await;
    let many: String = (0..100).map(|n| format!("x-{n}: 1\r\n")).collect();
    let large = format!("x: {}\r\n", "a".repeat(limits::HEADER_BYTES_MAX));
    let head = |rest: &str| format!("GET / HTTP/1.1\r\nhost: localhost\r\n{rest}\r\n");
    let cases: BTreeMap<&str, (String, &str)> = BTreeMap::from([
        ("many headers", (head(&many), "431")),
        ("large header", (head(&large), "431")),
        ("long target", (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)), "4")),
        ("two lengths", (head("content-length: 1\r\ncontent-length: 2\r\n"), "400")),
        ("signed length", (head("content-length: +1\r\n"), "400")),
        ("coding after chunked", (head("transfer-encoding: chunked, gzip\r\n"), "400")),
        ("1.0 with coding", ("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".into(), "400")),
        ("folded header", (head("x: 1\r\n y\r\n"), "400")),
        ("space before colon", (head("x : 1\r\n"), "400")),
        ("HTTP/2 preface", ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), "")),
        ("no HTTP", ("\u{1}\u{2}\u{3}\r\n\r\n".into(), "400")),
    ]);
    for (name, (bytes, status)) in cases {
        let got = house.raw(bytes.as_bytes(), LONG).await;
        let expected = if status.is_empty() { String::new() } else { format!("HTTP/1.1 {status}") };
        assert!(got.starts_with(&expected) && !got.contains("200 OK"), "{name}: {got}");
    }
    assert_eq!(house.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nothing_is_smuggled_behind_a_chunked_request() {
    let house = house(short()).await;
    let behind = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for framing in [
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        house.calls.store(0, Ordering::SeqCst);
        let bytes = format!("POST / HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n0\r\n\r\n{behind}");
        let got = house.raw(bytes.as_bytes(), LONG).await;
        assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{got}");
        assert!(got.contains("connection: close"), "{got}");
        assert_eq!(house.calls.load(Ordering::SeqCst), 1);
    }
    let plain = format!("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n{behind}");
    let got = house.raw(plain.as_bytes(), LONG).await;
    assert_eq!(got.matches("HTTP/1.1 200").count(), 2, "an unambiguous one keeps the connection: {got}");
}

#[tokio::test]
async fn upgrades_and_tunnels_are_not_served() {
    let house = house(short()).await;
    let upgrade = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let got = house.raw(upgrade.as_bytes(), LONG).await;
    assert!(got.starts_with("HTTP/1.1 200") && !got.contains("101"), "{got}");
}

#[tokio::test]
async fn http2_headers_are_counted_and_resets_end_the_connection() {
    let house = house(short()).await;
    let mut sender = house.http2().await;
    let mut request = get("/");
    for number in 0..limits::HEADERS_MAX + 1 {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        request.headers_mut().insert(name, http::HeaderValue::from_static("1"));
    }
    let status = sender.send_request(request).await.unwrap().status();
    assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(house.calls.load(Ordering::SeqCst), 0);
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1_u32..4000).step_by(2) {
        // GET https /, authority `a`; then RST_STREAM with CANCEL (RFC 9113, sections 6.2 and 6.4).
        flood.extend_from_slice(b"\0\0\x06\x01\x05");
        flood.extend_from_slice(&stream.to_be_bytes());
        flood.extend_from_slice(b"\x82\x84\x87\x41\x01a");
        flood.extend_from_slice(b"\0\0\x04\x03\0");
        flood.extend_from_slice(&stream.to_be_bytes());
        flood.extend_from_slice(&8_u32.to_be_bytes());
    }
    let mut stream = house.connect(&[b"h2"]).await;
    let _cut = stream.write_all(&flood).await;
    let mut got = Vec::new();
    let ended = timeout(LONG, stream.read_to_end(&mut got)).await;
    assert!(ended.is_ok(), "the connection was ended");
    let calls = house.calls.load(Ordering::SeqCst);
    assert!(calls <= limits::HTTP2_PENDING_RESETS_MAX, "{calls} requests were begun");
}

/// Pings as fast as they go, and how many of them were answered before the connection ended or all were.
async fn pinged(house: &House, pings: u32) -> (usize, bool) {
    let (mut from, mut to) = tokio::io::split(house.connect(&[b"h2"]).await);
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    flood.extend(b"\0\0\x08\x06\0\0\0\0\0chartgat".repeat(pings as usize));
    let asking = async {
        let _cut = to.write_all(&flood).await;
        std::future::pending::<()>().await;
    };
    let mut got = Vec::new();
    let answers = |got: &[u8]| got.windows(8).filter(|eight| eight == b"chartgat").count();
    let listening = async {
        // Each answer is a frame of 17 bytes; settings and their acknowledgement come before.
        while got.len() < 17 * pings as usize || answers(&got) < pings as usize {
            if from.read_buf(&mut got).await.unwrap_or(0) == 0 {
                return true;
            }
        }
        false
    };
    let ended = tokio::select! {
        ended = timeout(LONG, listening) => ended.unwrap(),
        () = asking => false,
    };
    (answers(&got), ended)
}

#[tokio::test]
async fn a_flood_of_pings_ends_the_connection() {
    let house = house(short()).await;
    assert_eq!(pinged(&house, 50).await, (50, false), "a few are answered");
    let most = limits::HTTP2_CONTROL_FRAMES_PER_SECOND_MAX / limits::HTTP2_RARE_FRAME_WEIGHT;
    let (answered, ended) = pinged(&house, 20 * most).await;
    assert!(ended && answered <= most as usize, "{answered} answered");
    let sent = house.http2().await.send_request(get("/")).await;
    assert_eq!(sent.unwrap().status(), StatusCode::OK, "others are served");
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_unheard() {
    let house = house(Bounds { connections: 1, ..short() }).await;
    let mut first = house.http1().await;
    first.send_request(get("/")).await.unwrap().collect().await.unwrap();
    let refused = house.shake(house.client(None), &[b"http/1.1"]).await;
    assert!(refused.is_err());
    assert!(house.metric("chartgate_connections_refused_total 1"));
    assert_eq!(first.send_request(get("/")).await.unwrap().status(), StatusCode::OK);
    drop(first);
    for _ in 0..200 {
        if house.shake(house.client(None), &[b"http/1.1"]).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place was not given back");
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let house = house(short()).await;
    // Before the handshake.
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    assert_eq!(timeout(LONG, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    // Before, in and after a head.
    for bytes in ["", "GET / HTTP/1.1\r\nhost: loc", "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let mut stream = house.connect(&[b"http/1.1"]).await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        assert!(timeout(LONG, stream.read_to_end(&mut got)).await.is_ok(), "`{bytes}`");
    }
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let house = house(Bounds { idle: SHORT, shutdown: SHORT, ..short() }).await;
    // HTTP/2 that is never spoken, and HTTP/2 with nothing under way.
    let mut stream = house.connect(&[b"h2"]).await;
    assert!(timeout(LONG, stream.read_to_end(&mut Vec::new())).await.is_ok());
    let mut sender = house.http2().await;
    sender.send_request(get("/")).await.unwrap().collect().await.unwrap();
    for _ in 0..400 {
        if sender.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the connection is still open");
}

#[tokio::test]
async fn a_panic_ends_its_own_request_alone() {
    let house = house(short()).await;
    let mut sender = house.http2().await;
    let waiting = tokio::spawn(sender.send_request(get("/wait")));
    let panicked = sender.send_request(get("/panic")).await.unwrap();
    assert_eq!(panicked.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(panicked.headers()["cache-control"], "no-store");
    assert!(panicked.collect().await.unwrap().to_bytes().is_empty());
    // The reset may overtake the head of the answer.
    if let Ok(broken) = sender.send_request(get("/panic-later")).await {
        assert!(broken.collect().await.is_err(), "a body that panicked did not end");
    }
    house.go_on.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
    let got = house.raw(b"GET /panic-later HTTP/1.1\r\nhost: localhost\r\n\r\n", LONG).await;
    assert!(!got.ends_with("0\r\n\r\n"), "{got}");
    assert!(house.metric("chartgate_handler_panics_total 3"), "{}", house.telemetry.render());
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_dropped() {
    let house = house(Bounds { reply_stall: Duration::from_secs(1), ..short() }).await;
    // HTTP/1.1: the socket fills up.
    let mut stream = house.connect(&[b"http/1.1"]).await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut got = Vec::new();
    assert!(timeout(LONG, stream.read_to_end(&mut got)).await.is_ok());
    assert!(got.len() < 64 << 20, "cut off after {} bytes", got.len());
    // HTTP/2: the socket is read, the stream's window is not opened.
    let mut sender = house.http2().await;
    let stuck = sender.send_request(get("/endless")).await.unwrap();
    for _ in 0..400 {
        if sender.is_closed() {
            assert!(house.metric("chartgate_stalled_connections_total 1"));
            drop(stuck);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the stalled HTTP/2 connection is still open");
}

/// A request that takes longer than a stall, but goes on: its body comes in pieces, or it has many steps.
#[tokio::test]
async fn what_goes_on_is_not_stalled() {
    let house = house(Bounds { reply_stall: Duration::from_secs(1), ..short() }).await;
    for (path, is_heard) in [("/watched", true), ("/steps", true), ("/echo", false)] {
        let mut stream = house.connect(&[b"http/1.1"]).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 15\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _closed_by_then = stream.write_all(b"x").await;
        }
        let mut got = Vec::new();
        let _over = timeout(LONG, stream.read_to_end(&mut got)).await;
        let got = String::from_utf8_lossy(&got);
        assert_eq!(got.contains("200 OK"), is_heard, "{path}: {got}");
    }
}

#[tokio::test]
async fn large_replies_arrive_whole() {
    let house = house(short()).await;
    let one = house.http1().await.send_request(get("/endless")).await.unwrap();
    assert_eq!(one.headers()["content-length"], (64 << 20).to_string());
    assert_eq!(one.collect().await.unwrap().to_bytes().len(), 64 << 20);
    let two = house.http2().await.send_request(get("/endless")).await.unwrap();
    assert_eq!(two.collect().await.unwrap().to_bytes().len(), 64 << 20);
}

#[tokio::test]
async fn request_bodies_are_bounded() {
    let house = house(short()).await;
    let post = |rest: &str| format!("POST /echo HTTP/1.1\r\nhost: localhost\r\n{rest}");
    let exact = format!("content-length: 1000\r\n\r\n{}", "a".repeat(1000));
    let chunks: String = (0..101).map(|_| "a\r\n0123456789\r\n").collect();
    let cases = [
        (post(&exact), "aaaa"),
        (post("content-length: 1001\r\n\r\n"), "too large"),
        (post(&format!("transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")), "too large"),
        (post("transfer-encoding: chunked\r\n\r\nxyz\r\n"), "broke off"),
    ];
    for (bytes, part) in cases {
        let got = house.raw(bytes.as_bytes(), LONG).await;
        assert!(got.contains(part), "{got}");
    }
}

#[tokio::test]
async fn plain_http_stays_on_loopback() {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let telemetry = Telemetry::new();
    let refused = Listener::bind(any, Security::PlainLoopback, short(), telemetry.clone()).await;
    assert_eq!(refused.unwrap_err(), ListenerError::PlainBeyondLoopback(any));
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let taken = Listener::bind(local, Security::PlainLoopback, short(), telemetry.clone()).await.unwrap();
    let again = Listener::bind(taken.address(), Security::PlainLoopback, short(), telemetry).await;
    assert!(matches!(again.unwrap_err(), ListenerError::Bind(_, io::ErrorKind::AddrInUse)));
}
