//! Bounds of keeping the trail for years: its keys, what is withheld, and how long.
//!
//! Owns: numbers, each with its reason. Must never: hold a bound that nobody enforces.
//! Look next: `edge::journal`, `domain::audit::retention`.

/// The file of a wrapped data key: seven lines and a signature need about 500 bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 2_048;
/// The keys a data key is wrapped for at once: the configured one, and the next while keys are changed.
pub const KEY_WRAPS_MAX: usize = 2;
/// How hard entries are compressed: more than 1 saves a twentieth of the room and costs a commit its time.
pub const ENTRY_ZSTD_LEVEL: i32 = 1;
/// A segment with so many entries is closed when the journal is opened: they fill a bundle, and what is opened next has a
/// data key of its own.
pub const SEGMENT_ENTRIES_AT_OPEN_MAX: u64 = 256;
/// Of the published entries, so many of the newest are read and compared before the first answer: what a crash could have touched, and
/// less than two seconds' work. Older ones are held to the signed root by their hashes, and read while the gate answers.
pub const ENTRIES_READ_AT_OPEN_MIN: u64 = 65_536;
/// For each moment of verifying older entries, so many of rest: a quarter of one processor and of the disk at most.
pub const VERIFIER_REST: u32 = 3;
/// How often older entries are read anew because a prune took a bundle away meanwhile. A prune comes once a day.
pub const VERIFIER_TRIES_MAX: u32 = 10;
/// How long documentation must be kept: 45 CFR 164.316(b)(2)(i). Shorter only where the configuration says so.
pub const RETENTION_YEARS_LAW: u16 = 6;
/// The longest policy: beyond a century nobody means it.
pub const RETENTION_YEARS_MAX: u16 = 100;
/// The shortest policy, whatever the hospital's rule: a month, or a typing mistake could withhold what is being looked into.
pub const RETENTION_DAYS_MIN: u32 = 30;
/// Ranges of withheld bundles: one record names them all, twelve in a detail of `RECORD_TEXT_BYTES_MAX`.
pub const WITHHELD_RANGES_MAX: usize = 500;
/// The statement of what is withheld: ranges of 42 bytes at most, and a signature.
pub const WITHHELD_BYTES_MAX: u64 = 32 * 1024;
/// An order for the gate, sealed: a reason, names and times, each bounded.
pub const ORDER_BYTES_MAX: u64 = 16 * 1024;
/// A reason for a hold, in bytes.
pub const HOLD_REASON_BYTES_MAX: usize = 400;

const _: () = assert!(WITHHELD_RANGES_MAX.div_ceil(12) + 8 < super::RECORD_ROLES_MAX);
const _: () = assert!(WITHHELD_RANGES_MAX as u64 * 42 + 1_024 < WITHHELD_BYTES_MAX);
