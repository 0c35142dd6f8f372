//! Bounds of keeping the trail for years: its keys, what is withheld, and how long.
//!
//! Owns: numbers. Look next: `edge::journal`, `domain::audit::retention`.

/// The file of a wrapped data key: seven lines and a signature need about 500 bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 2_048;
/// The keys a data key is wrapped for at once: the configured one, and the next while keys are changed.
pub const KEY_WRAPS_MAX: usize = 2;
/// How hard entries are compressed: more than 1 saves a twentieth of the room and costs a commit its time.
pub const ENTRY_ZSTD_LEVEL: i32 = 1;
/// A segment with so many entries is closed when the journal is opened: they fill a bundle, and what is opened next has a
/// data key of its own.
pub const SEGMENT_ENTRIES_AT_OPEN_MAX: u64 = 256;
