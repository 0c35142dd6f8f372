//! Every bound of the forwarder, with its reason.
//!
//! Owns: the numbers. Must never: be changed without a look at docs/forwarding.md, which names some of them.
//! Look next: `pump`, which most of them bound.

use std::time::Duration;

/// Items of one delivery: what is sent again when it is not confirmed.
pub(crate) const BATCH_ITEMS_MAX: usize = 512;
/// Bytes of one delivery, unless a single item is larger: with `BATCH_ITEMS_MAX` what a receiver that hangs costs in memory.
pub(crate) const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How often it is looked whether the trail grew.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The first wait after a failure; it doubles up to `BACKOFF_MAX`.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest wait of our own choosing.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// The longest wait that a receiver's `Retry-After` can ask for: it must not be able to silence us.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Connecting, TLS included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// One delivery from its first byte to its confirmation: a receiver that never reads is given up then.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long entries must have been unreadable before they are reported as a gap and passed over.
pub(crate) const GAP_PATIENCE: Duration = Duration::from_secs(5);
/// Entries of one gap; a longer one is told in several.
pub(crate) const GAP_ENTRIES_MAX: u64 = 65_536;
/// Sequence numbers that are sent to a syslog receiver again when it failed: it may have held that much in memory.
pub(crate) const SYSLOG_AGAIN_ENTRIES: u64 = 2_000;
/// RFC 5425 section 4.3.1: what a receiver should be able to take; what a message is cut to unless told otherwise.
pub(crate) const SYSLOG_MESSAGE_BYTES_DEFAULT: u64 = 8_192;
/// RFC 5425 section 4.3.1: what every receiver must be able to take.
pub(crate) const SYSLOG_MESSAGE_BYTES_MIN: u64 = 2_048;
/// A longer message serves nobody.
pub(crate) const SYSLOG_MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
/// The part of an HTTP answer that is read: a collector's answer says little.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// An object: a bundle of 256 entries of 65,535 bytes has 17 MB.
pub(crate) const OBJECT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How often the right edge is shipped, unless told otherwise: each time costs about 256 entries' bytes.
pub(crate) const SHIP_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
/// A copy that is older than this is no live copy.
pub(crate) const SHIP_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// Entries whose full tiles are shipped before the cursor is written.
pub(crate) const SHIP_STEP_ENTRIES: u64 = 64 * 256;
/// Six years (45 CFR 164.316(b)(2)(i)), unless told otherwise.
pub(crate) const RETENTION_DAYS_DEFAULT: u64 = 2_190;
/// A hundred years: more is a mistake.
pub(crate) const RETENTION_DAYS_MAX: u64 = 36_525;
/// How often a forwarder at work says in the trail that it reads it.
pub(crate) const READING_INTERVAL: Duration = Duration::from_secs(86_400);
/// A receiver's name: it becomes a file name.
pub(crate) const NAME_BYTES_MAX: usize = 40;
/// A secret in a file: a key, or the value of a header.
pub(crate) const SECRET_BYTES_MAX: usize = 8_192;
