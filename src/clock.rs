//! The one source of time.
//!
//! Owns: reading the system clock, as a value that is handed on.
//! Must never: be called from `domain`, which is told the time.
//! Look next: `edge` and `gateway`, which pass `now` along.

use jiff::Timestamp;

/// The wall-clock time now, to the nanosecond, in UTC.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
