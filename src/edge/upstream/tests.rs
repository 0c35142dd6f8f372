//! The EMR client against EMRs that are broken, slow, redirecting, compressed or lying.
//!
//! Owns: proof that nothing odd gets past the client. Must never: ask a machine other than this one.
//! Look next: `answer`.

use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::domain::audit;
use crate::edge::journal;
use crate::edge::listener::{Bounds, Listener, Peer, Protocol, Security, Stopper, stop_signal};
use crate::edge::tls::fixture::Authority;
use crate::edge::tls::{ClientFiles, ServerFiles, ServerTls};

const SHORT: Duration = Duration::from_millis(300);

/// An EMR that reads one head per connection, writes `answer` and then closes, or holds still.
async fn emr(answer: &'static [u8], close: bool) -> (SocketAddr, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let shared = (Arc::clone(&count), Arc::clone(&heads));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            shared.0.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(speak(stream, answer, close, Arc::clone(&shared.1)));
        }
    });
    (address, count, heads)
}

async fn speak(mut stream: TcpStream, answer: &'static [u8], close: bool, heads: Arc<Mutex<Vec<String>>>) {
    let mut buffer = vec![0; 65536];
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer).await else { return };
        heads.lock().unwrap().push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        stream.write_all(answer).await.unwrap();
        if close {
            return;
        }
    }
}

fn settings(base: &str, tls: ClientFiles, bearer: Option<PathBuf>, timeout: Duration) -> Settings {
    Settings::new(BaseUrl::parse(base).unwrap(), tls, bearer, timeout).unwrap()
}

fn plain(authority: &Authority, address: SocketAddr) -> Upstream {
    let base = format!("http://{address}/fhir");
    Upstream::new(settings(&base, authority.client(), None, SHORT), Telemetry::new()).unwrap()
}

fn patient() -> UpstreamRequest {
    UpstreamRequest::new(Method::GET, "Patient/p1")
}

async fn outcome(upstream: &Upstream, bytes_max: usize) -> Result<(u16, Bytes), UpstreamError> {
    let answer = upstream.send(patient()).await?;
    Ok((answer.status.as_u16(), answer.body.read(bytes_max).await?))
}

#[tokio::test]
async fn odd_answers_are_errors() {
    use UpstreamError as E;
    let authority = Authority::new();
    let big: &'static [u8] = Box::leak(
        format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(70_000))
            .into_bytes()
            .into_boxed_slice(),
    );
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many: &'static [u8] =
        Box::leak(format!("HTTP/1.1 200 OK\r\n{many}\r\n").into_bytes().into_boxed_slice());
    type Case = (&'static [u8], bool, Result<(u16, &'static str), UpstreamError>);
    let cases: Vec<Case> = vec![
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", false, Ok((200, "{}"))),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nx: t\r\n\r\n", false, Ok((200, "{}"))),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 2\r\n\r\n{}", false, Ok((200, "{}"))),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false, Ok((404, ""))),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", false, Ok((304, ""))),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 10\r\n\r\n0123456789", false, Ok((500, "0123456789"))),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n01234567890", false, Err(E::TooLarge)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n01234\r\n0\r\n\r\n", false, Err(E::TooLarge)),
        (b"HTTP/1.1 301 Moved\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n", false, Err(E::Redirected)),
        (b"HTTP/1.1 302 Found\r\nlocation: /fhir/Patient/p2\r\ncontent-length: 0\r\n\r\n", false, Err(E::Redirected)),
        (b"HTTP/1.1 307 Again\r\ncontent-length: 0\r\n\r\n", false, Err(E::Redirected)),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", false, Err(E::Encoded)),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: identity, br\r\ncontent-length: 2\r\n\r\n{}", false, Err(E::Encoded)),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-encoding: zstd\r\ncontent-length: 2\r\n\r\n{}", false, Err(E::Encoded)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", false, Err(E::Encoded)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n", false, Err(E::Garbled)),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", false, Err(E::Garbled)),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", false, Err(E::Garbled)),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", false, Err(E::Garbled)),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", false, Err(E::Garbled)),
        (b"", true, Err(E::CutOff)),
        (b"", false, Err(E::TimedOut)),
        (b"HTTP/1.1 200 OK\r\ncontent-le", false, Err(E::TimedOut)),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\"", false, Err(E::TimedOut)),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\"", true, Err(E::CutOff)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n", true, Err(E::CutOff)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}", false, Err(E::CutOff)),
        (big, false, Err(E::TooLarge)),
        (many, false, Err(E::TooLarge)),
    ];
    for (bytes, close, expected) in cases {
        let (address, ..) = emr(bytes, close).await;
        let got = outcome(&plain(&authority, address), 10).await;
        let expected = expected.map(|(status, body)| (status, Bytes::from_static(body.as_bytes())));
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]);
        assert_eq!(got, expected, "{shown}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_only_after_a_proper_end() {
    let authority = Authority::new();
    let cases: [(&[u8], usize); 4] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 1),
        // Too large for us, but whole and well framed: nothing of it is left on the connection.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n01234567890", 1),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 3),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", 3),
    ];
    for (bytes, connections) in cases {
        let (address, count, _) = emr(bytes, false).await;
        let upstream = plain(&authority, address);
        for _ in 0..3 {
            let _outcome = outcome(&upstream, 10).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(count.load(Ordering::SeqCst), connections, "{shown}");
    }
}

#[tokio::test]
async fn a_get_is_sent_again_when_its_pooled_connection_was_closed() {
    let authority = Authority::new();
    // Keep-alive is promised, and the second request on the connection meets a close.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _head = stream.read(&mut buffer).await;
                let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
                let _second = stream.read(&mut buffer).await;
            });
        }
    });
    let upstream = plain(&authority, address);
    for _ in 0..4 {
        assert_eq!(outcome(&upstream, 10).await.map(|(status, _)| status), Ok(200));
    }
}

/// A journal's word that something is on disk, as a write needs it.
struct Trail {
    _place: tempfile::TempDir,
    receipt: Receipt,
}

async fn trail() -> Trail {
    let place = tempfile::TempDir::new().unwrap();
    let settings = journal::Settings {
        directory: place.path().join("audit"),
        signing_key: place.path().join("audit.key"),
        encryption_key: place.path().join("audit.aes"),
    };
    journal::generate_missing(&settings).unwrap();
    let time = jiff::Timestamp::UNIX_EPOCH;
    journal::create(&settings, time).unwrap();
    let journal = journal::Journal::open(&settings).unwrap();
    let intent = audit::Decision::new(time, "r1".to_owned(), audit::Verdict::Permit);
    let receipt = journal.append(&[audit::Record::Intent(Box::new(intent))]).await.unwrap();
    Trail { _place: place, receipt }
}

fn json(method: Method, target: &str) -> UpstreamRequest {
    UpstreamRequest::new(method, target)
        .body(HeaderValue::from_static("application/fhir+json"), Bytes::from_static(b"{}"))
}

/// An EMR that answers the first request of each connection and drops the connection at the second.
async fn forgetful() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let heads = Arc::clone(&shared);
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                for is_second in [false, true] {
                    let Ok(count @ 1..) = stream.read(&mut buffer).await else { return };
                    heads.lock().unwrap().push(String::from_utf8_lossy(&buffer[..count]).into_owned());
                    if !is_second {
                        let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
                    }
                }
            });
        }
    });
    (address, heads)
}

#[tokio::test]
async fn a_write_is_sent_once() {
    let authority = Authority::new();
    let trail = trail().await;
    for (method, target) in [
        (Method::POST, "Patient"),
        (Method::PUT, "Patient/p1"),
        (Method::DELETE, "Patient/p1"),
        (Method::POST, ""),
    ] {
        let (address, heads) = forgetful().await;
        let upstream = plain(&authority, address);
        assert_eq!(outcome(&upstream, 10).await.map(|(status, _)| status), Ok(200));
        let fault = upstream.write(json(method.clone(), target), &trail.receipt).await.err();
        assert_eq!(fault, Some(UpstreamError::CutOff), "{method}");
        assert!(!fault.unwrap().outcome_is_known(), "{method}: it was sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sent = heads.lock().unwrap().iter().filter(|head| head.starts_with(method.as_str())).count();
        assert_eq!(sent, 1, "{method}");
    }
}

/// Without a receipt only questions are sent.
#[tokio::test]
async fn a_write_needs_a_receipt() {
    let authority = Authority::new();
    let trail = trail().await;
    let (address, _, heads) = emr(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    let upstream = plain(&authority, address);
    let cases = [
        (Method::GET, "Patient/p1", true),
        (Method::POST, "Patient/_search", true),
        (Method::POST, "_search?x=y", true),
        (Method::POST, "Patient/$validate", true),
        (Method::POST, "Patient", false),
        (Method::POST, "Patient?x=/_search", false),
        (Method::POST, "", false),
        (Method::PUT, "Patient/p1", false),
        (Method::PUT, "Patient/_search", false),
        (Method::PATCH, "Patient/p1", false),
        (Method::DELETE, "Patient/p1", false),
        (Method::HEAD, "Patient/p1", false),
    ];
    for (method, target, is_question) in cases {
        let asked = upstream.send(json(method.clone(), target)).await;
        assert_eq!(asked.is_ok(), is_question, "{method} {target}");
        if !is_question {
            assert_eq!(asked.err(), Some(UpstreamError::Unplanned), "{method} {target}");
        }
    }
    let sent = heads.lock().unwrap().len();
    assert_eq!(sent, 4, "what is not planned does not leave");
    let put = json(Method::PUT, "Patient/p1")
        .header(header::IF_MATCH, HeaderValue::from_static("W/\"3\""))
        .header(HeaderName::from_static("prefer"), HeaderValue::from_static("return=representation"));
    assert!(upstream.write(put, &trail.receipt).await.is_ok());
    let create = json(Method::POST, "Patient")
        .header(HeaderName::from_static("if-none-exist"), HeaderValue::from_static("identifier=x"));
    assert!(upstream.write(create, &trail.receipt).await.is_ok());
    let heads = heads.lock().unwrap();
    for (head, line) in heads[4..].iter().zip(["if-match: W/\"3\"", "if-none-exist: identifier=x"]) {
        assert!(head.contains(&format!("{line}\r\n")) && head.ends_with("\r\n\r\n{}"), "{head}");
        assert!(head.contains("accept: application/fhir+json\r\n"), "{head}");
    }
}

/// What a fault says about a write: only what never left is known not to have happened.
#[tokio::test]
async fn a_write_without_a_sound_answer_is_unknown() {
    use UpstreamError as E;
    let authority = Authority::new();
    let trail = trail().await;
    let cases: [(&'static [u8], bool, UpstreamError); 7] = [
        (b"", false, E::TimedOut),
        (b"", true, E::CutOff),
        (b"HTTP/1.1 201 Crea", false, E::TimedOut),
        (b"HTTP/1.1 201 Crea", true, E::CutOff),
        (
            b"HTTP/1.1 303 See\r\nlocation: /fhir/Patient/p2\r\ncontent-length: 0\r\n\r\n",
            false,
            E::Redirected,
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", false, E::Garbled),
        (b"HTTP/1.1 201 Created\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx", false, E::Encoded),
    ];
    for (bytes, close, fault) in cases {
        let (address, ..) = emr(bytes, close).await;
        let answer = plain(&authority, address).write(json(Method::PUT, "Patient/p1"), &trail.receipt).await;
        assert_eq!(answer.err(), Some(fault), "{}", String::from_utf8_lossy(bytes));
        assert!(!fault.outcome_is_known(), "{fault:?}");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = plain(&authority, free).write(json(Method::PUT, "Patient/p1"), &trail.receipt).await;
    assert_eq!(answer.err(), Some(E::Unreachable));
    for fault in [E::Unreachable, E::Busy, E::Untrusted, E::Unplanned] {
        assert!(fault.outcome_is_known(), "{fault:?}");
    }
    assert!(!E::TooLarge.outcome_is_known());
}

#[tokio::test]
async fn what_an_answer_says_of_itself() {
    type Said = (Option<&'static str>, Option<&'static str>, Option<&'static str>, Option<u64>);
    let authority = Authority::new();
    let cases: [(&str, Said); 12] = [
        ("", (None, None, None, None)),
        ("etag: W/\"3\"\r\n", (Some("3"), None, None, None)),
        ("etag: \"a-1.B\"\r\n", (Some("a-1.B"), None, None, None)),
        ("etag: 3\r\n", (None, None, None, None)),
        ("etag: W/\"\"\r\n", (None, None, None, None)),
        ("etag: W/\"a b\"\r\n", (None, None, None, None)),
        ("etag: W/\"3\"\r\netag: W/\"4\"\r\n", (None, None, None, None)),
        ("location: Patient/p1/_history/1\r\n", (None, Some("Patient/p1/_history/1"), None, None)),
        ("content-location: http://emr/status/1\r\n", (None, None, Some("http://emr/status/1"), None)),
        ("retry-after: 120\r\n", (None, None, None, Some(120))),
        ("retry-after: 99999999999999999999999\r\n", (None, None, None, Some(3600))),
        ("retry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n", (None, None, None, None)),
    ];
    for (headers, should) in cases {
        let text = format!("HTTP/1.1 202 Accepted\r\n{headers}content-length: 0\r\n\r\n");
        let (address, ..) = emr(Box::leak(text.into_bytes().into_boxed_slice()), false).await;
        let answer = plain(&authority, address).send(patient()).await.unwrap();
        let said =
            (answer.etag_version(), answer.location(), answer.content_location(), answer.retry_after());
        assert_eq!(said, should, "{headers}");
    }
}

#[tokio::test]
async fn a_download_is_bounded_by_its_own_bound() {
    let authority = Authority::new();
    let pieces =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{}\r\n\r\n4\r\n{}\r\n\r\n0\r\n\r\n";
    for (bytes_max, should) in
        [(8, Ok(8)), (7, Err(UpstreamError::TooLarge)), (3, Err(UpstreamError::TooLarge))]
    {
        let (address, _, heads) = emr(pieces, false).await;
        let file = UpstreamRequest::new(Method::GET, "files/1").accept(Accept::FhirNdjson);
        let mut body = plain(&authority, address).send(file).await.unwrap().body.download(bytes_max);
        assert!(heads.lock().unwrap()[0].contains("accept: application/fhir+ndjson\r\n"));
        let mut read = Ok(0);
        while let Ok(count) = read {
            match body.chunk().await {
                Ok(Some(piece)) => read = Ok(count + piece.len()),
                Ok(None) => break,
                Err(fault) => read = Err(fault),
            }
        }
        assert_eq!(read, should, "{bytes_max}");
    }
}

#[tokio::test]
async fn the_head_we_send_is_ours() {
    let authority = Authority::new();
    fs::write(authority.path("token"), "first\n").unwrap();
    let (address, _, heads) = emr(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    let base = format!("http://{address}/fhir/");
    let settings = settings(&base, authority.client(), Some(authority.path("token")), SHORT);
    let upstream = Upstream::new(settings, Telemetry::new()).unwrap();
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    let post =
        UpstreamRequest::new(Method::POST, "Patient/_search").body(form, Bytes::from_static(b"name=x"));
    upstream.send(post).await.unwrap().body.read(10).await.unwrap();
    let mut lines: Vec<String> = heads.lock().unwrap()[0].lines().map(str::to_owned).collect();
    lines[1..7].sort();
    let expected = [
        "POST /fhir/Patient/_search HTTP/1.1",
        "accept-encoding: identity",
        "accept: application/fhir+json",
        "authorization: Bearer first",
        "content-length: 6",
        "content-type: application/x-www-form-urlencoded",
        &format!("host: {address}"),
        "",
        "name=x",
    ];
    assert_eq!(lines, expected);
    // The token file changes; a broken one keeps the last good token.
    for (text, token) in [("second", "second"), ("", "second"), ("two words", "second"), ("third", "third")] {
        fs::write(authority.path("token"), text).unwrap();
        assert_eq!(upstream.reload().is_ok(), text == token, "`{text}`");
        upstream.send(patient()).await.unwrap().body.read(10).await.unwrap();
        let last = heads.lock().unwrap().last().unwrap().clone();
        assert!(last.contains(&format!("authorization: Bearer {token}\r\n")), "{last}");
    }
    let odd = patient().header(header::AUTHORIZATION, HeaderValue::from_static("Bearer client"));
    assert_eq!(upstream.send(odd).await.err(), Some(UpstreamError::Unplanned));
    assert!(!format!("{upstream:?}").contains("third"));
    assert_eq!(upstream.files(), [authority.ca(), authority.path("token")]);
}

/// An EMR over TLS: our own listener with a handler that says which protocol it was asked in.
async fn secure(tls: Arc<ServerTls>) -> (SocketAddr, Stopper) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(any, Security::Tls(tls), Bounds::CLIENTS, Telemetry::new()).await.unwrap();
    let address = listener.address();
    let (stopper, stop) = stop_signal();
    let handler = async |_request, peer: Peer| {
        let protocol = if peer.protocol == Protocol::Http2 { "h2" } else { "h1" };
        let certificate = if peer.certificate_sha256.is_some() { " known" } else { "" };
        Response::new(Full::new(Bytes::from(format!("{protocol}{certificate}"))))
    };
    tokio::spawn(listener.serve(handler, stop));
    (address, stopper)
}

#[tokio::test]
async fn only_a_verified_emr_is_asked() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let own = authority.issue("client", "proxy.test");
    let trusting = authority.client();
    let with_own = ClientFiles { own: Some(own), ..trusting.clone() };
    let strangers = ClientFiles { own: Some(stranger.issue("client", "x.test")), ..trusting.clone() };
    let good = || authority.issue("good", "localhost");
    let cases = [
        (good(), trusting.clone(), Ok("h2")),
        (good(), with_own, Ok("h2 known")),
        (good(), ClientFiles { ca: Some(stranger.ca()), own: None }, Err(UpstreamError::Untrusted)),
        (stranger.issue("s", "localhost"), trusting.clone(), Err(UpstreamError::Untrusted)),
        (authority.issue("n", "emr.test"), trusting.clone(), Err(UpstreamError::Untrusted)),
        (authority.issue_until("old", "localhost", 2021), trusting, Err(UpstreamError::Untrusted)),
    ];
    for (number, (server, client, expected)) in cases.into_iter().enumerate() {
        let tls = ServerTls::load(ServerFiles { own: server, client_ca: Some(authority.ca()) }).unwrap();
        let (address, _stopper) = secure(tls).await;
        let base = format!("https://localhost:{}/fhir", address.port());
        let settings = settings(&base, client, None, Duration::from_secs(5));
        let upstream = Upstream::new(settings, Telemetry::new()).unwrap();
        let got = outcome(&upstream, 100).await.map(|(_, body)| body);
        assert_eq!(got, expected.map(|text| Bytes::from_static(text.as_bytes())), "case {number}");
    }
    // An EMR that refuses our certificate says so after the TLS 1.3 handshake, where HTTP/2 hides why.
    let server = ServerFiles { own: good(), client_ca: Some(authority.ca()) };
    let (address, _stopper) = secure(ServerTls::load(server).unwrap()).await;
    let base = format!("https://localhost:{}/fhir", address.port());
    let upstream = Upstream::new(settings(&base, strangers, None, SHORT), Telemetry::new()).unwrap();
    let refused = outcome(&upstream, 100).await;
    assert!(matches!(refused, Err(UpstreamError::CutOff | UpstreamError::Unreachable)), "{refused:?}");
    let (address, ..) = emr(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", false).await;
    let base = format!("https://localhost:{}", address.port());
    let settings = settings(&base, authority.client(), None, SHORT);
    let upstream = Upstream::new(settings, Telemetry::new()).unwrap();
    assert_eq!(outcome(&upstream, 100).await, Err(UpstreamError::Untrusted), "plain text on an https base");
}

#[tokio::test]
async fn no_emr_is_unreachable() {
    let authority = Authority::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = plain(&authority, free);
    assert_eq!(upstream.send(patient()).await.err(), Some(UpstreamError::Unreachable));
    assert!(upstream.telemetry.render().contains(r#"outcome="unreachable"} 1"#));
}

#[tokio::test]
async fn places_are_given_back_and_bounded() {
    let authority = Authority::new();
    let (address, ..) = emr(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", false).await;
    let mut upstream = plain(&authority, address);
    upstream.places = Arc::new(Semaphore::new(1));
    let held = upstream.send(patient()).await.unwrap();
    assert_eq!(upstream.send(patient()).await.err(), Some(UpstreamError::Busy));
    assert_eq!(held.status, StatusCode::OK);
    assert_eq!(held.body.announced_bytes(), Some(2));
    drop(held);
    assert!(upstream.send(patient()).await.is_ok());
}

#[test]
fn base_urls_are_https_or_loopback_and_plain() {
    use SettingsError as E;
    let cases = [
        ("https://emr.internal/fhir/R4", Ok("https://emr.internal/fhir/R4")),
        ("https://emr.internal:8443/", Ok("https://emr.internal:8443")),
        ("http://127.0.0.1:8080/fhir", Ok("http://127.0.0.1:8080/fhir")),
        ("http://[::1]/fhir", Ok("http://[::1]/fhir")),
        ("http://localhost/fhir", Ok("http://localhost/fhir")),
        ("http://emr.internal/fhir", Err(E::NotHttps)),
        ("http://127.0.0.1.evil.test/", Err(E::NotHttps)),
        ("http://localhost.evil.test/", Err(E::NotHttps)),
        ("ftp://127.0.0.1/", Err(E::NotHttps)),
        ("https://u:p@emr/fhir", Err(E::Credentials)),
        ("https://emr/fhir?x=1", Err(E::Query)),
        ("https://emr/fhir#x", Err(E::Query)),
        ("https://emr/a/../b", Err(E::Path)),
        ("https://emr/a//b", Err(E::Path)),
        ("https://emr/a/%2e%2E/b", Err(E::Path)),
        ("/fhir", Err(E::NotAbsolute)),
        ("emr.internal", Err(E::NotAbsolute)),
        ("", Err(E::NotAbsolute)),
    ];
    for (text, expected) in cases {
        let got = BaseUrl::parse(text).map(|base| base.to_string());
        assert_eq!(got, expected.map(str::to_owned), "{text}");
    }
    let base = BaseUrl::parse("https://emr/fhir").unwrap();
    for seconds in [0, limits::UPSTREAM_TIMEOUT_SECONDS_MAX + 1] {
        let timeout = Duration::from_secs(seconds);
        let got = Settings::new(base.clone(), ClientFiles::default(), None, timeout);
        assert_eq!(got.err(), Some(E::Timeout));
    }
}

#[test]
fn targets_stay_below_the_base() {
    let base = BaseUrl::parse("https://emr/fhir").unwrap();
    let cases = [
        ("Patient/p1", Some("/fhir/Patient/p1")),
        ("Patient?name=a%2Fb&x=..", Some("/fhir/Patient?name=a%2Fb&x=..")),
        ("?_getpages=1", Some("/fhir?_getpages=1")),
        ("", Some("/fhir")),
        ("/Patient", None),
        ("../admin", None),
        ("Patient/../../admin", None),
        ("Patient/%2e%2e/x", None),
        ("Patient/a%2fb", None),
        ("Patient/a%5cb", None),
        ("Patient//p1", None),
        ("Patient/p1#x", None),
        ("Patient/a b", None),
        ("Patient/a\r\nx: y", None),
    ];
    for (target, expected) in cases {
        let got = base.join(target).ok().map(|uri| uri.path_and_query().unwrap().to_string());
        assert_eq!(got.as_deref(), expected, "{target}");
    }
    let long = format!("Patient?x={}", "a".repeat(limits::UPSTREAM_TARGET_BYTES_MAX));
    assert_eq!(base.join(&long), Err(UpstreamError::Unplanned));
    let root = BaseUrl::parse("https://emr/").unwrap();
    assert_eq!(root.join("Patient").unwrap(), "https://emr/Patient");
    assert_eq!(root.join("?x=1").unwrap(), "https://emr/?x=1");
}

#[test]
fn links_of_the_emr_become_targets_only_below_the_base() {
    let base = BaseUrl::parse("https://emr.internal/fhir").unwrap();
    let cases = [
        ("https://emr.internal/fhir/Patient?page=2", Some("Patient?page=2")),
        ("https://EMR.internal/fhir?_getpages=x", Some("?_getpages=x")),
        ("/fhir/Patient?page=2", Some("Patient?page=2")),
        ("https://emr.internal/fhir", Some("")),
        ("https://emr.internal/fhirx/Patient", None),
        ("https://emr.internal/other", None),
        ("http://emr.internal/fhir/Patient", None),
        ("https://emr.internal:444/fhir/Patient", None),
        ("https://169.254.169.254/fhir/Patient", None),
        ("https://emr.internal/fhir/../admin", None),
        ("//evil.test/fhir/Patient", None),
        ("Patient?page=2", None),
        ("", None),
    ];
    for (link, expected) in cases {
        assert_eq!(base.relative(link).as_deref(), expected, "{link}");
    }
}
