//! Every bound of the program, in one place, each with its reason.
//!
//! Owns: numbers and how they relate (checked when compiling).
//! Must never: depend on anything else; hold a bound that nobody enforces.
//! Units stand last in the names. Look next: the room named in each section's heading.

use std::time::Duration;

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

/// Port of the operations listener when the configuration does not say.
pub const OPERATIONS_PORT_DEFAULT: u16 = 9443;

/// How long the EMR may take to begin an answer when the configuration does not say.
pub const UPSTREAM_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Longer than this is a hung EMR, not a slow one; a clinician has given up by then.
pub const UPSTREAM_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// NIST SP 800-63B-4 section 2.2.3: a session at AAL2 should not outlast 24 hours.
pub const SESSION_ABSOLUTE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A long shift.
pub const SESSION_ABSOLUTE_DEFAULT: Duration = Duration::from_secs(12 * 3600);

/// NIST SP 800-63B-4 section 2.3.3 asks for at most 15 minutes at AAL3; ward stations are shared.
pub const SESSION_IDLE_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// As long as a session may last by default, so that a login covers a shift.
pub const MFA_AGE_DEFAULT: Duration = SESSION_ABSOLUTE_DEFAULT;

/// Asymmetric signatures only (RFC 8725 section 3.1): a shared secret would let the proxy forge tokens.
pub const SIGNATURE_ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

const _: () = assert!(SESSION_IDLE_DEFAULT.as_secs() <= SESSION_ABSOLUTE_DEFAULT.as_secs());
const _: () = assert!(SESSION_ABSOLUTE_DEFAULT.as_secs() <= SESSION_ABSOLUTE_MAX.as_secs());
const _: () = assert!(UPSTREAM_TIMEOUT_DEFAULT.as_secs() <= UPSTREAM_TIMEOUT_MAX.as_secs());
