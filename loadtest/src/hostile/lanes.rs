//! Attackers over HTTP/1.1 and below: slow ones, loud ones, many.
//!
//! Owns: what one attacker does until time is up.
//! Must never: stop by itself, or keep a connection whose end was not told.
//! Look next: `floods`, the same over HTTP/2; `attacks`, which ways there are.

use super::attacks::Way;
use super::floods;
use super::ground::{BOMB, Ground, LARGE, SMALL};
use super::tally::Held;
use chartgate_sandbox::listen::Canned;
use http::HeaderValue;
use std::future::pending;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

/// Between two bytes of somebody slow.
const DRIP: Duration = Duration::from_millis(250);
/// A slow reader reads this much each time, from as small a buffer as the system gives.
const SIP_BYTES: usize = 512;
const SMALL_BUFFER_BYTES: u32 = 4 * 1024;
/// For the answer to something that was sent whole.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection on which nothing is ever said is left after this.
const SILENCE: Duration = Duration::from_secs(1);
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A record that is nested deeper than anybody nests.
const NESTED_LEVELS: usize = 200_000;

type Stream = TlsStream<TcpStream>;
/// Status and request id.
type Head = (u16, Option<u128>);

/// One attacker, until it is dropped.
pub(super) async fn attack(way: Way, ground: &Ground, number: usize) {
    loop {
        match way {
            Way::SlowHeads => slow_head(ground).await,
            Way::SlowBodies => slow_body(ground, number).await,
            Way::SlowReaders => slow_reader(ground, number).await,
            Way::Headers => headers(ground, number).await,
            Way::Handshakes => handshake(ground, number).await,
            Way::GiantTokens => tokens(ground, &ground.giant, number).await,
            Way::BadTokens => tokens(ground, &ground.bad, number).await,
            Way::BombsIn => bomb_in(ground, number).await,
            Way::BombsOut => bombs_out(ground, number).await,
            Way::Connections => hold(ground).await,
            Way::OnePerson => insist(ground).await,
            Way::ZeroWindow
            | Way::Headers2
            | Way::Continuations
            | Way::RapidReset
            | Way::MadeYouReset
            | Way::EmptyData
            | Way::Settings
            | Way::Pings => floods::connection(way, ground, number).await,
        }
    }
}

/// A head that is never finished.
async fn slow_head(ground: &Ground) {
    let Some((stream, held)) = ground.raw(&ground.http1, None).await else { return };
    let head = format!("GET {SMALL} HTTP/1.1\r\nHost: {}\r\nX-Slow: ", ground.http1.authority());
    drip(ground, stream, held, head.as_bytes()).await;
}

/// A form that is never finished.
async fn slow_body(ground: &Ground, number: usize) {
    let Some((stream, held)) = ground.raw(&ground.http1, None).await else { return };
    let mut head = post("/fhir/Patient/_search", "application/x-www-form-urlencoded", 2_000, ground, number);
    head.extend_from_slice(b"\r\nname=");
    drip(ground, stream, held, &head).await;
}

/// The head of a POST up to its last line.
fn post(path: &str, content_type: &str, length: usize, ground: &Ground, number: usize) -> Vec<u8> {
    let token = ground.token(number);
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nAuthorization: ",
        ground.http1.authority()
    )
    .into_bytes();
    head.extend_from_slice(token.as_bytes());
    head.extend_from_slice(b"\r\n");
    head
}

/// Sends `start`, then a byte now and then, until the other side says or does something.
async fn drip(ground: &Ground, stream: Stream, held: Held<'_>, start: &[u8]) {
    let (from, mut to) = tokio::io::split(stream);
    let writing = async {
        to.write_all(start).await?;
        loop {
            to.flush().await?;
            sleep(DRIP).await;
            to.write_all(b"a").await?;
            ground.tally.sent("bytes, one at a time", 1);
        }
    };
    let mut reading = std::pin::pin!(head_of(from));
    let heard = tokio::select! {
        heard = reading.as_mut() => heard,
        // It cannot be written to any more: perhaps it was said why.
        _broken = async { let ended: std::io::Result<()> = writing.await; ended } =>
            timeout(PATIENCE, reading.as_mut()).await.ok().flatten(),
    };
    tell(ground, held, heard);
}

/// Status and request id of an answer; `None` when the connection ended without one.
async fn head_of(mut from: impl tokio::io::AsyncRead + Unpin) -> Option<Head> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = from.read_buf(&mut head).await.ok()?;
        if read == 0 || head.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    parse(&String::from_utf8_lossy(&head))
}

fn parse(head: &str) -> Option<Head> {
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let lines = head.lines().take_while(|line| !line.is_empty());
    let mut ids = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-request-id").then(|| u128::from_str_radix(value.trim(), 16).ok())?
    });
    Some((status, ids.next()))
}

fn tell(ground: &Ground, held: Held<'_>, heard: Option<Head>) {
    match heard {
        Some((status, id)) => {
            held.ended("closed after an answer");
            ground.tally.answered(id, status);
        }
        None => held.ended("closed"),
    }
}

/// Asks for a large answer, and reads it a little at a time; every second one does not read at all.
async fn slow_reader(ground: &Ground, number: usize) {
    let Some((mut stream, held)) = ground.raw(&ground.http1, Some(SMALL_BUFFER_BYTES)).await else { return };
    let token = ground.token(number);
    let mut head = format!("GET {LARGE} HTTP/1.1\r\nHost: {}\r\nAuthorization: ", ground.http1.authority());
    head.push_str(token.to_str().unwrap_or_default());
    head.push_str("\r\n\r\n");
    ground.tally.sent("large answers asked for", 1);
    if stream.write_all(head.as_bytes()).await.is_err() || stream.flush().await.is_err() {
        return held.ended("closed");
    }
    if number % 2 == 1 {
        // Only whether it was closed can be asked without reading, and writing tells that.
        while stream.get_ref().0.writable().await.is_ok() {
            sleep(DRIP).await;
        }
        return held.ended("closed");
    }
    let mut sip = [0; SIP_BYTES];
    loop {
        match stream.read(&mut sip).await {
            Ok(0) | Err(_) => return held.ended("closed"),
            Ok(read) => ground.tally.sent("bytes read slowly", read as u64),
        }
        sleep(DRIP).await;
    }
}

/// Too many header lines, or too large a one.
async fn headers(ground: &Ground, number: usize) {
    let Some((stream, held)) = ground.raw(&ground.http1, None).await else { return };
    let mut head = format!("GET {SMALL} HTTP/1.1\r\nHost: {}\r\n", ground.http1.authority());
    if number.is_multiple_of(2) {
        (0..1_000).for_each(|line| head.push_str(&format!("X-{line}: a\r\n")));
    } else {
        head.push_str(&format!("X-Large: {}\r\n", "a".repeat(60_000)));
    }
    head.push_str("\r\n");
    ground.tally.sent("requests", 1);
    exchange(ground, stream, held, head.as_bytes()).await;
}

/// Sends a request whole and reads the answer's head, whichever comes to an end.
async fn exchange(ground: &Ground, stream: Stream, held: Held<'_>, request: &[u8]) {
    let (from, mut to) = tokio::io::split(stream);
    let writing = async {
        let written = to.write_all(request).await;
        let flushed = to.flush().await;
        // An answer may come although the request was not taken whole.
        drop((written, flushed));
        pending::<()>().await;
    };
    let heard = tokio::select! {
        heard = timeout(PATIENCE, head_of(from)) => heard,
        () = writing => return,
    };
    match heard {
        Ok(heard) => tell(ground, held, heard),
        Err(_) => held.ended("no answer in 5 s"),
    }
}

/// Finished and left; begun and left; never begun.
async fn handshake(ground: &Ground, number: usize) {
    match number % 3 {
        0 => {
            if let Some((_stream, held)) = ground.raw(&ground.http1, None).await {
                held.ended("shaken hands, then left");
            }
        }
        1 => {
            let (Ok(mut stream), Ok(hello)) = (ground.http1.reach(None).await, ground.http1.client_hello())
            else {
                return ground.turned_away().await;
            };
            let held = Held::new(&ground.tally);
            let greeted = stream.write_all(&hello).await;
            held.ended(if greeted.is_ok() { "greeted, then left" } else { "closed" });
        }
        _ => {
            let Ok(mut stream) = ground.http1.reach(None).await else { return ground.turned_away().await };
            let held = Held::new(&ground.tally);
            let ended = timeout(SILENCE, stream.read(&mut [0; 1])).await;
            held.ended(if ended.is_ok() { "closed" } else { "silent, then left" });
        }
    }
}

/// Tokens one after the other over one connection.
async fn tokens(ground: &Ground, tokens: &[HeaderValue], number: usize) {
    let Some((mut link, held)) = ground.link().await else { return };
    for token in tokens.iter().cycle().skip(number * 7) {
        ground.tally.sent("requests", 1);
        match link.get(SMALL, token, false).await {
            Ok(heard) => ground.tally.answered(heard.request_id, heard.status.as_u16()),
            Err(_) => return held.ended("closed"),
        }
    }
}

/// A body that unfolds a thousandfold.
async fn bomb_in(ground: &Ground, number: usize) {
    let Some((stream, held)) = ground.raw(&ground.http1, None).await else { return };
    let (path, content_type) = match number % 2 {
        0 => ("/fhir/Patient/_search", "application/x-www-form-urlencoded"),
        _ => ("/fhir/Observation", "application/fhir+json"),
    };
    let mut request = post(path, content_type, ground.bomb.len(), ground, number);
    request.extend_from_slice(b"Content-Encoding: gzip\r\n\r\n");
    request.extend_from_slice(&ground.bomb);
    ground.tally.sent("bombs", 1);
    exchange(ground, stream, held, &request).await;
}

/// Asks for what the record system answers with a bomb.
async fn bombs_out(ground: &Ground, number: usize) {
    let Some((mut link, held)) = ground.link().await else { return };
    loop {
        let canned = match number % 2 {
            0 => Canned::fhir(ground.bomb.clone()).header("content-encoding", "gzip"),
            _ => Canned::fhir("[".repeat(NESTED_LEVELS)),
        };
        ground.emr.next_answer(BOMB, canned);
        ground.tally.sent("bombs", 1);
        match link.get(BOMB, &ground.token(number), false).await {
            Ok(heard) => ground.tally.answered(heard.request_id, heard.status.as_u16()),
            Err(_) => return held.ended("closed"),
        }
    }
}

/// One request, and then the connection is kept.
async fn hold(ground: &Ground) {
    let Some((mut link, held)) = ground.link().await else { return };
    ground.tally.sent("requests", 1);
    match link.get(SMALL, &ground.token(0), false).await {
        Ok(heard) => ground.tally.answered(heard.request_id, heard.status.as_u16()),
        Err(_) => return held.ended("closed"),
    }
    while link.is_open() {
        sleep(DRIP).await;
    }
    held.ended("closed");
}

/// Large answers, one after the other.
async fn insist(ground: &Ground) {
    let Some((mut link, held)) = ground.link().await else { return };
    loop {
        ground.tally.sent("large answers asked for", 1);
        match link.get(LARGE, &ground.token(0), false).await {
            Ok(heard) => ground.tally.answered(heard.request_id, heard.status.as_u16()),
            Err(_) => return held.ended("closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_head_of_an_answer_is_read_whole_or_not_at_all() {
        let cases: [(&[u8], Option<Head>); 5] = [
            (
                b"HTTP/1.1 401 Unauthorized\r\nX-Request-Id: 0000000000000000000000000000000a\r\n\r\nbody",
                Some((401, Some(10))),
            ),
            (b"HTTP/1.1 431 Too large\r\ncontent-length: 0\r\n\r\n", Some((431, None))),
            (b"HTTP/1.1 200 OK\r\n", None),
            (b"noise\r\n\r\n", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(head_of(bytes).await, expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
