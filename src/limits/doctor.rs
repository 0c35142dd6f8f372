//! The bounds of `chartgate doctor`: from when on it warns.
//!
//! Owns: these numbers and how they relate. Must never: hold a bound that nobody enforces.
//! Look next: `limits`, every other bound; `cli::doctor`.

use std::time::Duration;

use super::TOKEN_LEEWAY_SECONDS;

/// Days before a certificate's end at which it is warned of: time to order a new one.
pub const CERTIFICATE_WARNING_DAYS: i64 = 30;

/// Seconds between a neighbour's clock and ours at which it is warned of: a synchronised clock is off by less, and a
/// `Date` header is exact to a second only. Beyond `TOKEN_LEEWAY_SECONDS` tokens are refused.
pub const CLOCK_SKEW_ADVISED_SECONDS_MAX: i64 = 5;

/// How long an emergency may wait for its review before it is warned of: a long weekend.
pub const EMERGENCY_REVIEW_HOURS_ADVISED_MAX: i64 = 72;

/// How long a session may last before it is warned of: NIST SP 800-63B-4 section 2.2.3 advises at most 24 hours, and
/// one shift is half of that.
pub const SESSION_ABSOLUTE_ADVISED_MAX: Duration = Duration::from_secs(12 * 3600);

/// What the EMR says about itself; servers with every resource type and profile write a few megabytes.
pub const STATEMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Claim names, audiences or methods of a token that are listed in one line.
pub const LISTED_IN_WORDS_MAX: usize = 16;

/// Characters of one of them.
pub const SHOWN_IN_WORDS_CHARS_MAX: usize = 120;

const _: () = assert!(CLOCK_SKEW_ADVISED_SECONDS_MAX < TOKEN_LEEWAY_SECONDS);
