//! Every bound of the program, in one place, each with its reason.
//!
//! Owns: numbers and how they relate (checked when compiling).
//! Must never: depend on anything else; hold a bound that nobody enforces.
//! Units stand last in the names. Look next: the room named in each section's heading.

// --- listener and TLS -------------------------------------------------------------------------

// --- upstream -----------------------------------------------------------------------------------

// --- identity -----------------------------------------------------------------------------------

// --- fhir: requests -----------------------------------------------------------------------------

// --- access -------------------------------------------------------------------------------------

// --- filter -------------------------------------------------------------------------------------

// --- audit, ledger and journal ------------------------------------------------------------------

/// One stored entry: C2SP tlog-tiles gives an entry a 16-bit length.
pub const ENTRY_BYTES_MAX: usize = 65_535;
/// What encryption adds to an entry: version 1, key id 8, nonce 12, random bits 16, tag 16.
pub const ENTRY_OVERHEAD_BYTES: usize = 53;
/// One part of an audit record before encryption. A little under what fits, so that the envelope may grow.
pub const RECORD_PART_BYTES_MAX: usize = 65_000;
/// Parts of one audit record: 29 MB, more than 100,000 released records. Larger answers are released in units.
pub const RECORD_PARTS_MAX: usize = 448;
/// The request line in a record, in bytes as escaped JSON; more is cut and its digest kept.
pub const RECORD_REQUEST_BYTES_MAX: usize = 8_192;
/// Any other text in a record, in bytes as escaped JSON: an issuer URL or a session id is far shorter.
pub const RECORD_TEXT_BYTES_MAX: usize = 512;
/// A role, purpose or policy id in a record, in bytes as escaped JSON.
pub const RECORD_ITEM_BYTES_MAX: usize = 128;
/// Roles or purposes in one record; more are counted, not listed.
pub const RECORD_ROLES_MAX: usize = 64;
/// Policies that decided, in one record; more are counted, not listed.
pub const RECORD_POLICIES_MAX: usize = 192;
/// Patients of one released item; more continue in a further item with the same reference.
pub const RECORD_ITEM_PATIENTS_MAX: usize = 256;
/// Entries in a full bundle and hashes in a full tile: C2SP tlog-tiles, height 8.
pub const TILE_WIDTH: usize = 256;
/// A checkpoint: four lines and one signature need about 250 bytes; cosignatures of 16 witnesses still fit.
pub const CHECKPOINT_BYTES_MAX: usize = 8_192;
/// Records waiting to be written, in KiB: what memory may hold while the disk is slow.
pub const JOURNAL_QUEUE_KIB_MAX: u32 = 65_536;
/// How long an append may wait for room in the queue before it is refused.
pub const JOURNAL_QUEUE_WAIT_MS_MAX: u64 = 5_000;
/// Places kept for outcomes: one for each answer in flight, reserved with its release.
pub const JOURNAL_SLOTS_MAX: usize = 65_536;
/// One group commit in bytes, unless a single record is larger: bounds the wait of those who come next.
pub const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A segment is closed when it is longer than this.
pub const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of entries that wait for their tiles; beyond it commits wait for the publisher.
pub const PUBLISH_BACKLOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of entries after which tiles are written although the journal is busy.
pub const PUBLISH_BYTES: u64 = 4 * 1024 * 1024;
/// Quiet time after which tiles are written for the newest checkpoint.
pub const PUBLISH_IDLE_MS: u64 = 500;
/// Files in an audit directory that one verification will list: 16 million tiles hold two thousand million entries.
pub const AUDIT_FILES_MAX: usize = 16_000_000;

// Half the queue takes the largest record.
const _: () = assert!(RECORD_PARTS_MAX * RECORD_PART_BYTES_MAX < JOURNAL_QUEUE_KIB_MAX as usize * 512);
const _: () = assert!(RECORD_PART_BYTES_MAX + ENTRY_OVERHEAD_BYTES <= ENTRY_BYTES_MAX);
// The head of a record always fits into one part (key names and numbers: under 2,000 bytes), and so does one released item.
const _: () = assert!(
    RECORD_REQUEST_BYTES_MAX
        + 14 * RECORD_TEXT_BYTES_MAX
        + (2 * RECORD_ROLES_MAX + RECORD_POLICIES_MAX) * (RECORD_ITEM_BYTES_MAX + 3)
        + 2_000
        < RECORD_PART_BYTES_MAX
);
const _: () = assert!(
    RECORD_ITEM_PATIENTS_MAX * (RECORD_ITEM_BYTES_MAX + 3) + 2 * RECORD_TEXT_BYTES_MAX + 3_000
        < RECORD_PART_BYTES_MAX
);

// --- configuration ------------------------------------------------------------------------------
