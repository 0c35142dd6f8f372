//! Syslog over TLS: RFC 5424 messages, counted as RFC 5425 section 4.3 says.
//!
//! Owns: the messages' bytes, cutting long ones into parts, and what counts as a confirmation.
//! Must never: send a byte a client chose unescaped (T-226); take a write that did not fail for a delivery.
//! Look next: `pump`; docs/forwarding.md, "What syslog confirms".
//!
//! Syslog confirms nothing. What TCP and TLS can tell: we close our side after the last message and read until the receiver
//! closes its side. It does that once it has read our `close_notify`, and so everything before; a receiver that ends or breaks with
//! unread bytes resets the connection. So one connection is one delivery.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use chartgate::edge::tls::{ClientFiles, client_config};
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::follow::{Item, Level};
use crate::limits::{CONNECT_TIMEOUT, DELIVERY_TIMEOUT};
use crate::pump::Trouble;
use crate::settings::Syslog;

/// Facility "log audit", RFC 5424 section 6.2.1.
const FACILITY: u8 = 13;

/// A syslog receiver.
#[derive(Debug)]
pub(crate) struct SyslogSender {
    settings: Syslog,
    hostname: String,
}

impl SyslogSender {
    pub(crate) fn new(settings: Syslog) -> Self {
        Self { settings, hostname: hostname() }
    }

    /// Whether patients' ids go along.
    pub(crate) fn patients(&self) -> bool {
        self.settings.patients
    }

    /// Sends the items over one connection; see the header for what is waited for.
    ///
    /// # Errors
    /// What failed; nothing counts as delivered then.
    pub(crate) async fn send(&mut self, origin: &str, items: &[Item]) -> Result<(), Trouble> {
        let (host, port) = (self.settings.host.as_str(), self.settings.port);
        let stream = timed(CONNECT_TIMEOUT, "connecting", TcpStream::connect((host, port))).await?;
        match &self.settings.tls {
            None => self.deliver(origin, items, stream).await,
            // Read for each delivery: a certificate that was replaced is taken up.
            Some(files) => {
                let connector = connector(files)?;
                let name = ServerName::try_from(host.to_owned());
                let name = name
                    .map_err(|_| Trouble::receiver(format!("`{host}` is no name a certificate can have")))?;
                let stream = timed(CONNECT_TIMEOUT, "TLS", connector.connect(name, stream)).await?;
                self.deliver(origin, items, stream).await
            }
        }
    }

    async fn deliver(
        &self,
        origin: &str,
        items: &[Item],
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(), Trouble> {
        timed(DELIVERY_TIMEOUT, "delivery", self.exchange(origin, items, stream)).await
    }

    async fn exchange(
        &self,
        origin: &str,
        items: &[Item],
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> io::Result<()> {
        for item in items {
            for message in messages(item, origin, &self.hostname, self.settings.message_bytes_max) {
                stream.write_all(format!("{} ", message.len()).as_bytes()).await?;
                stream.write_all(message.as_bytes()).await?;
            }
        }
        stream.flush().await?;
        stream.shutdown().await?;
        until_closed(&mut stream).await
    }
}

/// Reads until the other side has closed. A side that closes without a word of TLS has closed all the same: many do.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut nothing = [0; 256];
    loop {
        match stream.read(&mut nothing).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn connector(files: &ClientFiles) -> Result<TlsConnector, Trouble> {
    let config = client_config(files).map_err(|error| Trouble::ours(error.to_string()))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn timed<T>(
    bound: Duration,
    what: &str,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(bound, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Trouble::receiver(format!("{what}: {error}"))),
        Err(_) => Err(Trouble::receiver(format!("{what}: no end within {} s", bound.as_secs()))),
    }
}

/// The messages of one item: one, or as many as it takes when it is longer than `bytes_max`.
fn messages(item: &Item, origin: &str, hostname: &str, bytes_max: usize) -> Vec<String> {
    let head = head(item, hostname);
    let whole = body(origin, &item.line);
    if head.len() + whole.len() <= bytes_max {
        return vec![head + &whole];
    }
    let frame = part(origin, item.sequence, usize::MAX, usize::MAX, "").len();
    let room = bytes_max.saturating_sub(head.len() + frame);
    let texts = cut(&item.line, room);
    let count = texts.len();
    let parts = (1..).zip(texts).map(|(number, text)| part(origin, item.sequence, number, count, text));
    parts.map(|part| format!("{head}{part}")).collect()
}

/// `PRI VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA` and a space (RFC 5424 section 6).
fn head(item: &Item, hostname: &str) -> String {
    let severity = match item.level {
        Level::Error => 3,
        Level::Warning => 4,
        Level::Information => 6,
    };
    let time = item.time.map_or_else(|| "-".to_owned(), rfc3339);
    format!("<{}>1 {time} {hostname} chartgate - {} - ", FACILITY * 8 + severity, item.kind)
}

/// At most six digits of a second (RFC 5424 section 6.2.3).
fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The item with the log's name first; the line is an object of JSON.
fn body(origin: &str, line: &str) -> String {
    let rest = line.strip_prefix('{').unwrap_or(line);
    format!("{{\"log\":{},{rest}", json!(origin))
}

fn part(origin: &str, sequence: u64, number: usize, count: usize, text: &str) -> String {
    json!({"log": origin, "sequence": sequence, "part": number, "parts": count, "text": text}).to_string()
}

/// `line`, which is ASCII, in pieces that take at most `room` bytes inside a JSON string each.
fn cut(line: &str, room: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let mut left = room.max(2);
        let end = rest.bytes().position(|byte| {
            let cost = if byte == b'"' || byte == b'\\' { 2 } else { 1 };
            let fits = cost <= left;
            left = left.saturating_sub(cost);
            !fits
        });
        let (piece, after) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, ""));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// This machine's name, printable and bounded (RFC 5424 section 6.2.4); `-` where it has none.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn item(line: String) -> Item {
        let time = "2026-03-01T08:00:00.1234567Z".parse().unwrap();
        Item { sequence: 7, kind: "refusal".to_owned(), level: Level::Warning, time: Some(time), line }
    }

    #[test]
    fn a_message_is_what_the_standard_says() {
        let item = item(r#"{"sequence":7}"#.to_owned());
        assert_eq!(
            messages(&item, "chartgate/x", "gate-1", 2_048),
            [
                r#"<108>1 2026-03-01T08:00:00.123456Z gate-1 chartgate - refusal - {"log":"chartgate/x","sequence":7}"#
            ]
        );
    }

    proptest! {
        /// Nothing is lost in cutting, and no part is too long.
        #[test]
        fn parts_fit_and_join_to_the_whole(text in "[ -~]{0,9000}", bytes_max in 2048_usize..5000) {
            let line = json!({"sequence": 7, "request": text}).to_string();
            let sent = messages(&item(line.clone()), "chartgate/x", "gate-1", bytes_max);
            let mut joined = String::new();
            for (message, number) in sent.iter().zip(1..) {
                prop_assert!(message.len() <= bytes_max, "{} of {bytes_max}", message.len());
                let json: Value = serde_json::from_str(message.split_once(" - refusal - ").unwrap().1).unwrap();
                prop_assert_eq!(&json["sequence"], 7);
                match json["text"].as_str() {
                    Some(text) => {
                        prop_assert_eq!((&json["part"], &json["parts"]), (&json!(number), &json!(sent.len())));
                        joined.push_str(text);
                    }
                    None => joined = message.split_once("\"chartgate/x\",").map(|(_, rest)| format!("{{{rest}")).unwrap(),
                }
            }
            prop_assert_eq!(joined, line);
        }
    }
}
