//! Raw bytes over TLS: requests that no HTTP library would send.
//!
//! Owns: sending bytes as they are, and reading what comes back.
//! Must never: correct anything.
//! Look next: `requests`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chartgate::edge::tls::{ClientFiles, client_config};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What came back: whole answers in the order they came.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) answers: Vec<Raw>,
    /// Whether the gate closed the connection.
    pub(crate) closed: bool,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) async fn connect(ca: &Path, port: u16) -> TlsStream<TcpStream> {
    secure(ca, TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await
}

/// A client with little room for what it has not read yet.
pub(crate) async fn connect_narrow(ca: &Path, port: u16) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    secure(ca, socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()).await
}

async fn secure(ca: &Path, stream: TcpStream) -> TlsStream<TcpStream> {
    let mut config = client_config(&ClientFiles { ca: Some(ca.to_owned()), own: None }).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Sends `bytes` and reads until the gate closes or is quiet.
pub(crate) async fn exchange(ca: &Path, port: u16, bytes: &[u8], quiet: Duration) -> Heard {
    let mut stream = connect(ca, port).await;
    let _refused_early = stream.write_all(bytes).await;
    let _refused_early = stream.flush().await;
    read(&mut stream, quiet).await
}

pub(crate) async fn read(stream: &mut TlsStream<TcpStream>, quiet: Duration) -> Heard {
    let (mut heard, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let closed = loop {
        match timeout(quiet, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break true,
            Ok(Ok(length)) => heard.extend_from_slice(&buffer[..length]),
            Err(_quiet) => break false,
        }
    };
    Heard { answers: split(&String::from_utf8_lossy(&heard)), closed }
}

fn split(mut text: &str) -> Vec<Raw> {
    let mut answers = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
        });
        let (body, rest) = rest.split_at(length.unwrap_or(0).min(rest.len()));
        answers.push(Raw { status, head: head.to_owned(), body: body.to_owned() });
        text = rest;
    }
    answers
}
