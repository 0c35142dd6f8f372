//! Bounds of what refused requests may write into the trail.
//!
//! Owns: numbers with their reasons. Must never: hold a bound that nobody enforces.
//! Look next: `domain::audit::Window`, `edge::counting`.

use std::time::Duration;

use super::RECORD_ROLES_MAX;

/// How long refusals of one source are counted into one record: what a killed process leaves uncounted, against how many
/// records a flood of a day makes.
pub const REFUSALS_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked whether that time is over.
pub const REFUSALS_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Refusals of one address, in that time, that have a record each although nobody was established behind them: ten a second,
/// which a clinic behind one address does not make even when its tokens end all at once. A flood of a day then takes some
/// 400 MB of the trail.
pub const REFUSALS_DEFAULT: u64 = 600;

/// The same for a person or program that was established: each may tell of an attempt to see a chart, so they are many. Fifty
/// a second is a script's work.
pub const REFUSALS_KNOWN_DEFAULT: u64 = 3_000;

/// The fewest that may be configured.
pub const REFUSALS_MIN: u64 = 10;

/// The most: sixteen thousand a second, more than the journal takes.
pub const REFUSALS_MAX: u64 = 1_000_000;

/// All sources of a kind together may have this many times what one may have, so that many addresses do not do what one may
/// not.
pub const REFUSALS_TOGETHER_FACTOR: u64 = 4;

/// Sources of a kind that are told apart in that time; the refusals of all others are one source. Each takes some hundred bytes
/// of memory, and two records where it is counted.
pub const REFUSAL_SOURCES_MAX: usize = 256;

/// Codes in one record of counted refusals; more make a further record.
pub const REFUSAL_CODES_MAX: usize = 48;

// Beside the codes such a record has at most ten details, and what is beyond the bound of a record would be left out.
const _: () = assert!(REFUSAL_CODES_MAX + 10 <= RECORD_ROLES_MAX);
const _: () = assert!(REFUSALS_DEFAULT <= REFUSALS_KNOWN_DEFAULT && REFUSALS_KNOWN_DEFAULT <= REFUSALS_MAX);
