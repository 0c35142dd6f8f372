//! The bounds of the listener and of TLS.
//!
//! Owns: as its parent, each bound with its reason. Must never: hold a bound of anything else.
//! Look next: `limits`.

use super::{UPSTREAM_IDLE_CONNECTIONS_MAX, UPSTREAM_REQUESTS_MAX, UPSTREAM_TIMEOUT_SECONDS_MAX};
use std::time::Duration;

/// Client connections open at once; the next one is closed unheard. Eight times the load the product is measured at, and
/// more than a large hospital has workstations at work; open and idle each takes some 40 KiB, with buffers full about 100.
pub const CONNECTIONS_MAX: usize = 8_192;
/// What one address may hold of those places, in quarters: a load balancer or a whole site behind one address must not be
/// starved by it, nor starve everybody else.
pub const CONNECTIONS_OF_ADDRESS_QUARTERS: usize = 3;
/// Open files kept for what is no client connection: requests at the EMR and idle connections to it, operations, issuers,
/// witnesses, the trail with its index and tiles, policies while they are read.
pub const FILES_BESIDE_CONNECTIONS: usize = 768;
/// Connections to the operations listener: a scraper, a probe and a person.
pub const OPERATIONS_CONNECTIONS_MAX: usize = 32;
/// A TLS handshake takes two round trips; ten seconds is generous even over a satellite.
pub const HANDSHAKE_SECONDS_MAX: u64 = 10;
/// From the end of one HTTP/1.1 answer to the last byte of the next head: also the keep-alive wait.
pub const HEADER_READ_SECONDS_MAX: u64 = 30;
/// Header lines in a request. Browsers send about 20, gateways in front add a few.
pub const HEADERS_MAX: usize = 64;
/// All header bytes of a request: room for the largest token, a paging link and the rest.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Read buffer of an HTTP/1.1 connection. At least twice the header bytes, so that a whole head fits.
pub const HTTP1_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 100;
/// Streams the peer reset before we took them up (CVE-2023-44487); one more ends the connection.
pub const HTTP2_PENDING_RESETS_MAX: usize = 20;
/// Streams we had to reset because of what the peer sent (CVE-2025-8671); one more ends the connection.
pub const HTTP2_LOCAL_RESETS_MAX: usize = 64;
/// Frames that carry nothing which a peer may send in a second: a download of 100 MB a second into the smallest window takes
/// some 6,000 WINDOW_UPDATE. One more ends the connection.
pub const HTTP2_CONTROL_FRAMES_PER_SECOND_MAX: u32 = 10_000;
/// A SETTINGS, PING, PRIORITY or unknown frame counts as so many: 500 a second, where a client that measures its line sends
/// some ten.
pub const HTTP2_RARE_FRAME_WEIGHT: u32 = 20;
/// Request body bytes a peer may send on one stream before we read them.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all streams of a connection together: what one connection may make us hold.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// Answer bytes held for a stream whose client does not read yet.
pub const HTTP2_SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// An HTTP/2 peer that is silent this long is asked for a sign of life.
pub const HTTP2_PING_SECONDS: u64 = 20;
/// It has this long to give it.
pub const HTTP2_PING_ANSWER_SECONDS_MAX: u64 = 20;
/// A connection without a request under way for this long is closed.
pub const IDLE_SECONDS_MAX: u64 = 60;
/// While the peer does not read, it must take `WRITE_STALL_BYTES_MIN` in every window of this length.
pub const WRITE_STALL_SECONDS_MAX: u64 = 30;
/// About 550 bytes a second: slower than any network a clinician uses.
pub const WRITE_STALL_BYTES_MIN: usize = 16 * 1024;
/// A request that makes no step for this long (no head, no piece of a body taken) ends its connection.
pub const REPLY_STALL_SECONDS_MAX: u64 = 120;
/// Pieces in which an answer is handed to the connection, so that a stalled reader is noticed.
pub const REPLY_FRAME_BYTES_MAX: usize = 64 * 1024;
/// A request body must have arrived whole after this long.
pub const REQUEST_BODY_SECONDS_MAX: u64 = 30;
/// And never pause for longer than this.
pub const REQUEST_BODY_IDLE_SECONDS_MAX: u64 = 10;
/// At shutdown, requests under way may take this long to finish.
pub const SHUTDOWN_SECONDS_MAX: u64 = 30;
/// After a failed accept (no file handle left) the listener waits, so as not to spin.
pub const ACCEPT_PAUSE_MILLIS: u64 = 100;
/// A PEM file: the largest public CA bundle is a quarter of this.
pub const PEM_BYTES_MAX: u64 = 1024 * 1024;
/// Watched files are looked at this often; a change is applied after two equal looks, so within 8 s.
pub const WATCH_SECONDS: u64 = 2;
/// What could not be applied is tried again after this long, even if it did not change.
pub const WATCH_RETRY_SECONDS: u64 = 30;
/// Files under one watched directory.
pub const WATCHED_FILES_MAX: usize = 4_096;
/// Bytes read of one watched file to tell whether it changed.
pub const WATCHED_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Directories below a watched directory.
pub const WATCHED_DEPTH_MAX: usize = 4;
/// Links of an export are sealed in multiples of this: their length tells of the question roughly, and of nothing else.
pub const EXPORT_LINK_STEP_BYTES: usize = 256;
/// What may be sealed into one token: an upstream's paging link with a long cursor.
pub const SEALED_BYTES_MAX: usize = 8 * 1024;

/// Requests of one caller (issuer and subject) under way at once, from when they are known until their answer is taken:
/// an eighth of what the EMR is asked at once, and more than a browser's or an interface engine's connections ask.
pub const CALLER_REQUESTS_MAX: usize = 32;
/// How long one more waits for a place: longer than an EMR that is in trouble takes for most answers, and shorter than
/// the patience of a client.
pub const CALLER_WAIT: Duration = Duration::from_secs(10);
/// Work on an answer of so many bytes waits for a turn on the processors; what is shorter takes less than a millisecond, which costs
/// others less than waiting would cost it.
pub const LONG_WORK_BYTES: usize = 64 * 1024;
/// For so many milliseconds after several callers had something under way at once, long work leaves room for those who come next: people at
/// a ward's screens ask every few seconds. Longer, and an export at night would have half of an idle machine.
pub const COMPANY_MS: u64 = 10_000;
/// When whoever met a full gate may try again (`Retry-After`, RFC 9110 section 10.2.3).
pub const BUSY_RETRY_SECONDS: u64 = 2;
/// Conditions (`If-None-Exist`, conditional update) that may be under way at once; each is a search's text. Far more than
/// an interface engine's connections, and some megabytes at the most.
pub const TURNS_MAX: usize = 1_024;
/// How long a conditional change waits for another one under the same condition. The EMR is asked a few times in a turn.
pub const TURN_WAIT: Duration = Duration::from_secs(30);
/// After the first `REQUEST_BODY_SECONDS_MAX` a body must have come at this rate on average: a transaction of
/// 64 MiB over a slow line may take two and a half minutes, a client that drips may not.
pub const REQUEST_BODY_BYTES_PER_SECOND_MIN: u64 = 512 * 1024;
/// A request body that may be larger than this counts as a large one.
pub const LARGE_BODY_BYTES_MIN: usize = 1024 * 1024;
/// Large bodies in memory at once, each of up to `CHANGE_BYTES_MAX` and as much again while it is unfolded. Others wait to be
/// read, for `REQUEST_BODY_SECONDS_MAX` at the most.
pub const LARGE_BODIES_MAX: usize = 8;
/// Folding and unfolding of more bytes than this (about a millisecond) is left to threads that may block.
pub const CODING_INLINE_BYTES_MAX: usize = 64 * 1024;
/// A gzip body may unfold to this many times its size. FHIR JSON reaches 10 to 20; Deflate itself ends at 1,032.
pub const GZIP_RATIO_MAX: usize = 100;
/// The ratio is not asked for below this size: short bodies of one repeated form compress very well.
pub const GZIP_RATIO_FREE_BYTES: usize = 1024 * 1024;

const _: () = assert!(HTTP1_BUFFER_BYTES_MAX >= 2 * HEADER_BYTES_MAX);
const _: () = assert!(HTTP2_STREAM_WINDOW_BYTES <= HTTP2_CONNECTION_WINDOW_BYTES);
const _: () = assert!(REQUEST_BODY_IDLE_SECONDS_MAX < REQUEST_BODY_SECONDS_MAX);
const _: () = assert!(REPLY_STALL_SECONDS_MAX > UPSTREAM_TIMEOUT_SECONDS_MAX);
const _: () = assert!(3 * WATCH_SECONDS < 8);
// A sealed link, base64 and the rest of the request line fit into a request's head.
const _: () = assert!(SEALED_BYTES_MAX / 3 * 4 + 4 * 1024 < HEADER_BYTES_MAX);
const _: () = assert!(
    UPSTREAM_REQUESTS_MAX + UPSTREAM_IDLE_CONNECTIONS_MAX + OPERATIONS_CONNECTIONS_MAX
        < FILES_BESIDE_CONNECTIONS
);
const _: () = assert!(CONNECTIONS_OF_ADDRESS_QUARTERS < 4);
