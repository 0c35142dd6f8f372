//! Bounds of policies while they are in force: reading them again, signed bundles, a candidate in the shadow.
//!
//! Owns: numbers, each with its reason. Must never: hold a bound that nobody enforces.
//! Look next: `limits` for the bounds of a set itself; `app::policies`.

use std::time::Duration;

/// Between two readings of a policies directory that must be the same: longer than a copy takes from file to file.
pub const POLICY_SETTLE: Duration = Duration::from_millis(250);
/// Readings before a directory that keeps changing is given up; it is tried again `WATCH_RETRY_SECONDS` later.
pub const POLICY_SETTLE_READINGS_MAX: u32 = 20;
/// Everything in a policies directory together, cases, records and tables among it.
pub const POLICY_FOLDER_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// A bundle's manifest: a line of some 330 bytes at most for each of `WATCHED_FILES_MAX` files.
pub const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The path of a file in a bundle.
pub const MANIFEST_PATH_BYTES_MAX: usize = 256;
/// Keys that may sign bundles: a team's, and the next one's while it is changed.
pub const POLICY_SIGNERS_MAX: usize = 16;
/// A reason for taking an older version again, in bytes.
pub const ROLLBACK_REASON_BYTES_MAX: usize = 400;

const _: () = assert!((MANIFEST_PATH_BYTES_MAX + 72) * (super::WATCHED_FILES_MAX + 16) < MANIFEST_BYTES_MAX as usize);
