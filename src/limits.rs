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

/// Longest element path read, the URL of an extension included. The longest official path has 90
/// bytes; extension URLs rarely pass 150.
pub const ELEMENT_PATH_BYTES_MAX: usize = 512;

/// Most segments of an element path. The deepest official element of a resource has 9; data types
/// recurse (`Reference.identifier.assigner`), so a bound is needed.
pub const ELEMENT_PATH_SEGMENTS_MAX: usize = 24;

// --- access -------------------------------------------------------------------------------------

// --- filter -------------------------------------------------------------------------------------

// --- audit, ledger and journal ------------------------------------------------------------------

// --- configuration ------------------------------------------------------------------------------
