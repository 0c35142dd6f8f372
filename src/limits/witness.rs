//! Bounds of proofs, witnesses and what is asked of them.
//!
//! Owns: numbers with their reasons. Must never: hold a bound that nobody enforces.
//! Look next: `domain::ledger`, `edge::witness`, `edge::cosigning`.

use std::time::Duration;

/// A signed note by anyone: 16 signatures, which verifiers must take (signed-note), of up to 5 KB where they are of the
/// post-quantum kind.
pub const NOTE_BYTES_MAX: usize = 128 * 1024;

/// Hashes of one proof: C2SP tlog-witness allows 63, and no tree of fewer than 2^63 entries needs more.
pub const CONSISTENCY_HASHES_MAX: usize = 63;

/// A request to a witness: the line of the old size, 63 hashes of 45 bytes, a note.
pub const WITNESS_REQUEST_BYTES_MAX: usize = NOTE_BYTES_MAX + 4 * 1024;

/// A witness's answer: a few signature lines, the longest of the post-quantum kind.
pub const WITNESS_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Logs that one witness follows: each is a line of the state, which is written anew for every cosignature.
pub const WITNESSED_LOGS_MAX: usize = 1_000;

/// A witness's state: an origin, a size and a root for each log.
pub const WITNESS_STATE_BYTES_MAX: usize = 1024 * 1024;

/// Longest origin of a log that a witness takes up, and longest name of a key.
pub const ORIGIN_BYTES_MAX: usize = 256;

/// Witnesses of one trail: every one is asked for every state.
pub const WITNESSES_MAX: usize = 16;

/// How long one exchange with a witness may take. It runs beside the requests and holds nothing up.
pub const WITNESS_TIMEOUT: Duration = Duration::from_secs(10);

/// The same while the program starts: people wait for it.
pub const WITNESS_START_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two submissions to a witness, and after one that failed. What is written within it is not yet witnessed.
pub const WITNESS_PAUSE: Duration = Duration::from_secs(5);

/// How old a cosignature may become before somebody should look: a witness's machine is restarted now and then.
pub const WITNESS_AGE_DEFAULT: Duration = Duration::from_secs(3600);

/// The longest age that may be configured. After a week an unwitnessed trail is a trail without a witness.
pub const WITNESS_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

const _: () = assert!(WITNESSED_LOGS_MAX * (ORIGIN_BYTES_MAX + 70) <= WITNESS_STATE_BYTES_MAX);
