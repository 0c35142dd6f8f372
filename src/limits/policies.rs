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
/// The longest that a candidate is asked beside the set in force: a month. Whoever wants more says so again.
pub const SHADOW_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// Questions that wait to be put to a candidate; further ones are counted and not put.
pub const SHADOW_QUEUE_MAX: usize = 1_024;
/// Records among them: some 500 bytes each.
pub const SHADOW_RECORDS_WAITING_MAX: usize = 20_000;
/// Differences that are told apart: roles, interaction and type.
pub const SHADOW_DIFFERENCES_MAX: usize = 1_000;
/// Elements, and policies, that are named with each.
pub const SHADOW_NAMES_MAX: usize = 64;
/// Differences in one record of the trail, which holds 64 details.
pub const SHADOW_ROWS_IN_RECORD_MAX: usize = 40;
/// How often it is said that a candidate is asked, and at most a record says what is new.
pub const SHADOW_NOTICE_INTERVAL: Duration = Duration::from_secs(60);
/// How often a record says how it stands although nothing is new.
pub const SHADOW_SUMMARY_INTERVAL: Duration = Duration::from_secs(3600);

const _: () = assert!(SHADOW_ROWS_IN_RECORD_MAX + 12 < super::RECORD_ROLES_MAX);
const _: () =
    assert!(((MANIFEST_PATH_BYTES_MAX + 72) * (super::WATCHED_FILES_MAX + 16)) as u64 <= MANIFEST_BYTES_MAX);
