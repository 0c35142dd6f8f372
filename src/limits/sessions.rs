//! The bounds of sessions, revocations and what issuers tell.
//!
//! Owns: these numbers and how they relate. Must never: hold a bound that nobody enforces.
//! Look next: `limits`, every other bound; `edge::sessions`.

use std::time::Duration;

use super::{TOKEN_LEEWAY_SECONDS, TOKEN_LIFETIME_SECONDS_MAX};

/// NIST SP 800-63B-4 section 2.2.3: a session at AAL2 should not outlast 24 hours.
pub const SESSION_ABSOLUTE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A long shift.
pub const SESSION_ABSOLUTE_DEFAULT: Duration = Duration::from_secs(12 * 3600);

/// Sessions that are listed to an operator at once, and looked through in the store.
pub const SESSIONS_LISTED_MAX: usize = 10_000;

/// How long a revocation is kept that does not hold until it is lifted: longer than any session or token it ends
/// could last (`SESSION_ABSOLUTE_MAX`, `TOKEN_LIFETIME_SECONDS_MAX`, and the leeway of both clocks).
pub const REVOCATION_KEPT: Duration = Duration::from_secs(25 * 3600);

/// How often each proxy asks the store for revocations made elsewhere: four looks within the second that is promised.
pub const REVOCATION_POLL: Duration = Duration::from_millis(250);

/// How long requests are answered while the store cannot be asked for revocations. Longer would let a revoked person
/// in; shorter would refuse everyone for a checkpoint of the database.
pub const STORE_SILENCE_MAX: Duration = Duration::from_secs(5);

/// Waiting for another program that writes to the same SQLite file.
pub const STORE_BUSY_MAX: Duration = Duration::from_secs(3);

/// One statement of a database server, connecting included.
pub const STORE_ANSWER_MAX: Duration = Duration::from_secs(3);

/// Making a database server's tables at the start, or sealing those of an older version: a hundred thousand rows.
pub const STORE_PREPARED_MAX: Duration = Duration::from_secs(60);

/// How often a session's last activity is written down, at most; and never less often than twenty times in the idle
/// limit, so that a restart shortens sessions by less than a twentieth.
pub const ACTIVITY_WRITE_INTERVAL: Duration = Duration::from_secs(30);

/// NIST SP 800-63B-4 section 2.2.3: inactivity should end a session after at most an hour. Longer is warned of.
pub const SESSION_IDLE_ADVISED_MAX: Duration = Duration::from_secs(3600);

/// Sessions of one person at once that a configuration may ask for.
pub const SESSIONS_CONCURRENT_MAX: u32 = 1_000;

/// How often the store is rid of what cannot matter any more.
pub const STORE_PRUNE_INTERVAL: Duration = Duration::from_secs(600);

/// Proofs that are looked up in the session store at the same time; the rest wait for their turn. It takes them one
/// after the other anyway, and threads that may block serve others too.
pub const REPLAYS_ASKED_MAX: usize = 32;

/// How far apart the clocks of two gates of one session store may be before one could forget what the other would still
/// accept.
pub const REPLAY_CLOCKS_APART_MAX: Duration = Duration::from_secs(120);

/// The name of a document in the session store.
pub const STORE_DOCUMENT_NAME_BYTES_MAX: usize = 256;

/// Its content: a grant, a review, a marker.
pub const STORE_DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// Why something is revoked, in an operator's words.
pub const REVOCATION_REASON_BYTES_MAX: usize = 500;

/// A request to the operations listener that has a body.
pub const OPERATIONS_BODY_BYTES_MAX: usize = 8 * 1024;

/// A security event or logout token with the form around it: as a token, with room for a list of subjects.
pub const EVENT_BYTES_MAX: usize = 16 * 1024;

/// Events in one security event token; the specification advises one.
pub const EVENTS_MAX: usize = 8;

/// How old a security event may be when it comes: transmitters keep trying over a weekend.
pub const EVENT_AGE_SECONDS_MAX: i64 = 7 * 24 * 3600;

/// How old a logout token may be: it is sent while the person waits.
pub const LOGOUT_AGE_SECONDS_MAX: i64 = 10 * 60;

const _: () = assert!(REVOCATION_KEPT.as_secs() > SESSION_ABSOLUTE_MAX.as_secs());
const _: () = assert!(
    REVOCATION_KEPT.as_secs() > (TOKEN_LIFETIME_SECONDS_MAX + 2 * TOKEN_LEEWAY_SECONDS).unsigned_abs()
);
const _: () = assert!(3 * REVOCATION_POLL.as_millis() < 1_000);
