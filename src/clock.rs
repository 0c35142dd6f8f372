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

/// By how many seconds a neighbour's clock is ahead of ours, from the `Date` of an answer that came just now
/// (RFC 9110 section 6.6.1); negative when it is behind. The header is exact to a second.
#[must_use]
pub fn ahead_seconds(date: &str) -> Option<i64> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(date.as_second().saturating_sub(now().as_second()))
}
