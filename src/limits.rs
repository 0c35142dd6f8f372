//! Every bound of the program, in one place, each with its reason.
//!
//! Owns: numbers and how they relate (checked when compiling).
//! Must never: depend on anything else; hold a bound that nobody enforces.
//! Units stand last in the names. Look next: the room named in each section's heading.

// --- listener and TLS -------------------------------------------------------------------------

// --- upstream -----------------------------------------------------------------------------------

// --- identity -----------------------------------------------------------------------------------

// --- fhir: requests -----------------------------------------------------------------------------

// --- fhir: R4 tables and element paths ----------------------------------------------------------

/// Longest element path read, the URL of an extension included. The longest official path has 105
/// bytes; extension URLs rarely pass 150.
pub const ELEMENT_PATH_BYTES_MAX: usize = 512;

/// Most segments of an element path. The deepest official element of a resource has 6; data types
/// recurse (`Reference.identifier.assigner`), so a bound is needed.
pub const ELEMENT_PATH_SEGMENTS_MAX: usize = 24;

// --- access -------------------------------------------------------------------------------------

// --- filter -------------------------------------------------------------------------------------

/// Longest upstream answer that is taken apart in one piece. Offsets are kept in 32 bits.
pub const DOCUMENT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Longest single resource. Inline attachments are the large ones in practice.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest string value, quotes not counted: base64 data inside a record of the size above.
pub const STRING_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Longest property name. The longest in R4 has 52 letters; escapes take six bytes a letter.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest number text. R4 decimals carry 18 digits; measuring devices print a few more.
pub const NUMBER_BYTES_MAX: usize = 256;
/// Deepest nesting of objects and arrays: 30 levels of `QuestionnaireResponse.item.answer.item` in a Bundle.
pub const JSON_DEPTH_MAX: usize = 128;
/// Deepest nesting of resources in resources (Bundle, Bundle in Bundle, contained, Parameters).
pub const RECORD_DEPTH_MAX: usize = 6;
/// How often contained resources are weighed again because another one of them fell away.
pub const CONTAINED_ROUNDS_MAX: usize = 8;

const _: () = assert!(DOCUMENT_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(RECORD_BYTES_MAX <= DOCUMENT_BYTES_MAX);
const _: () = assert!(STRING_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);

// --- audit, ledger and journal ------------------------------------------------------------------

// --- configuration ------------------------------------------------------------------------------
