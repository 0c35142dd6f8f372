//! Every bound of the program, in one place, each with its reason.
//!
//! Owns: numbers and how they relate (checked when compiling).
//! Must never: depend on anything else; hold a bound that nobody enforces.
//! Units stand last in the names. Look next: the room named in each section's heading.

// --- listener and TLS -------------------------------------------------------------------------

// --- upstream -----------------------------------------------------------------------------------

// --- identity -----------------------------------------------------------------------------------

// --- fhir: requests -----------------------------------------------------------------------------

/// A request target. Common servers stop at 8 KiB; a longer query belongs into `POST _search`.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;

/// The form of `POST _search`. Lists of some hundred ids fit; it is read into memory whole.
pub const FORM_BYTES_MAX: usize = 64 * 1024;

/// Path segments below the base. The deepest known route has five: room to recognise, no more.
pub const PATH_SEGMENTS_MAX: usize = 8;

/// R4's own bound on `id`.
pub const ID_BYTES_MAX: usize = 64;

/// A sealed page link; it holds upstream's `next` query with our seal, and must fit a target.
pub const PAGE_TOKEN_BYTES_MAX: usize = 6 * 1024;

/// Parameters of one search, URL and form together. A form with 20 fields is already large.
pub const SEARCH_PARAMETERS_MAX: usize = 64;

/// A decoded parameter name. The longest useful chain is well under this.
pub const PARAMETER_NAME_BYTES_MAX: usize = 256;

/// A decoded parameter value: 200 references of 80 bytes.
pub const PARAMETER_VALUE_BYTES_MAX: usize = 16 * 1024;

/// Values in one comma list; `_id` lists of a worklist page fit.
pub const SEARCH_ALTERNATIVES_MAX: usize = 200;

/// Links followed by one chain or nested `_has`; upstream cost grows with each.
pub const CHAIN_LINKS_MAX: usize = 4;

/// Types one criterion may look into. An untyped chain can fan out over every type with the name.
pub const HOPS_MAX: usize = 160;

/// Steps taken while following all chains of one search: an untyped chain branches at every link, and
/// each step may look at all 146 types.
pub const CHAIN_STEPS_MAX: usize = 512;

/// `_sort` keys.
pub const SORT_KEYS_MAX: usize = 8;

/// `_include` and `_revinclude` together.
pub const INCLUDES_MAX: usize = 16;

/// Records on one page. A larger `_count` is lowered to this, as R4 allows.
pub const SEARCH_COUNT_MAX: u32 = 1000;

/// A search query sent upstream as GET; a longer one goes as a form. Below common URL bounds.
pub const UPSTREAM_QUERY_BYTES_MAX: usize = 2 * 1024;

/// Media ranges in one `Accept`. Browsers send about eight.
pub const ACCEPT_RANGES_MAX: usize = 32;

const _: () = assert!(PAGE_TOKEN_BYTES_MAX + 1024 <= TARGET_BYTES_MAX);
const _: () = assert!(PARAMETER_VALUE_BYTES_MAX < FORM_BYTES_MAX);
const _: () = assert!(CHAIN_LINKS_MAX < CHAIN_STEPS_MAX && HOPS_MAX < CHAIN_STEPS_MAX);

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
