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

// --- configuration ------------------------------------------------------------------------------
