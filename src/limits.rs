//! Every bound of the program, in one place, each with its reason.
//!
//! Owns: numbers and how they relate (checked when compiling).
//! Must never: depend on anything else; hold a bound that nobody enforces.
//! Units stand last in the names. Look next: the room named in each section's heading.

// --- listener and TLS -------------------------------------------------------------------------

// --- upstream -----------------------------------------------------------------------------------

// --- identity -----------------------------------------------------------------------------------

/// Longest access token looked at. Common servers cap a header line at 8 KiB, so no token that works
/// elsewhere is longer; everything below is bounded by it before any cryptography (T-186).
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest JOSE header after decoding: `alg`, `typ`, `kid` and room to spare.
pub const TOKEN_HEADER_BYTES_MAX: usize = 1024;
/// Nesting of arrays and objects in a token; claims are flat, real ones nest three deep.
pub const TOKEN_JSON_DEPTH_MAX: usize = 8;
/// Longest `kid`; thumbprints take 43 characters, certificate-style names about 100.
pub const TOKEN_KID_BYTES_MAX: usize = 128;
/// Longest single identifier in a token (`sub`, `jti`, `sid`, a role, a scope); OpenID Connect Core 2 gives
/// `sub` 255 characters.
pub const TOKEN_NAME_BYTES_MAX: usize = 255;
/// Most values in one list claim (roles, scopes, `amr`, `aud`): more is a claim bomb, not a person.
pub const TOKEN_LIST_MAX: usize = 256;
/// How far our clock and the issuer's may differ (contract: at most 30 s).
pub const TOKEN_LEEWAY_SECONDS: i64 = 30;
/// Longest `exp - iat` accepted: NIST SP 800-63B-4 2.2.3 ends a session after at most 24 h.
pub const TOKEN_LIFETIME_SECONDS_MAX: i64 = 24 * 60 * 60;
/// Latest NumericDate accepted (9999-12-30), so that time arithmetic cannot overflow.
pub const TOKEN_TIME_SECONDS_MAX: i64 = 253_402_200_000;
/// Longest `issuer.mfa.max_age` a configuration may ask for: same source as the lifetime.
pub const MFA_AGE_SECONDS_MAX: i64 = 24 * 60 * 60;
/// Weight of all verified tokens kept, estimated from token lengths: about 10,000 sessions of usual size.
pub const VERIFIED_TOKENS_BYTES_MAX: u64 = 24 * 1024 * 1024;
/// Fixed part of the weight of one verified token, beside twice its length.
pub const VERIFIED_TOKEN_OVERHEAD_BYTES: usize = 1024;
/// Largest key set or discovery document read; 32 keys with certificate chains fit.
pub const KEY_SET_BYTES_MAX: usize = 128 * 1024;
/// Most keys in one set, ignored ones included.
pub const KEY_SET_KEYS_MAX: usize = 64;
/// Shortest RSA modulus trusted (RFC 7518 3.3).
pub const RSA_MODULUS_BITS_MIN: usize = 2048;
/// Longest RSA modulus: verifying grows with its square, and aws-lc stops here too.
pub const RSA_MODULUS_BITS_MAX: usize = 8192;
/// Longest issuer or key set URL.
pub const ISSUER_URL_BYTES_MAX: usize = 512;
/// Between two fetches from one issuer, so that unknown `kid`s cannot make us flood it (T-182).
pub const KEYS_REFRESH_INTERVAL_MS_MIN: u64 = 10_000;
/// The same while there is no key set at all: become ready soon after the issuer does.
pub const KEYS_RETRY_INTERVAL_MS_MIN: u64 = 1_000;
/// Between two background refreshes: a removed key is dropped, and a rotated one known, within it.
pub const KEYS_REFRESH_PERIOD_MS: u64 = 20_000;
/// One whole fetch: discovery and key set, connecting included.
pub const KEYS_FETCH_TIMEOUT_MS_MAX: u64 = 5_000;
/// How long the last good set is trusted while the issuer is down; after it, callers are refused.
pub const KEYS_STALE_MS_MAX: u64 = 60 * 60 * 1000;

const _: () = assert!(TOKEN_LEEWAY_SECONDS <= 30, "the contract's upper bound");
const _: () =
    assert!(TOKEN_HEADER_BYTES_MAX < TOKEN_BYTES_MAX && TOKEN_KID_BYTES_MAX < TOKEN_HEADER_BYTES_MAX);
const _: () = assert!(
    KEYS_REFRESH_PERIOD_MS + KEYS_REFRESH_INTERVAL_MS_MIN + KEYS_FETCH_TIMEOUT_MS_MAX <= 40_000,
    "the contract accepts a rotated key within 40 s"
);
const _: () = assert!(KEYS_REFRESH_PERIOD_MS < KEYS_STALE_MS_MAX);

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

/// Steps taken while following untyped chains, so that fan-out cannot multiply without end.
pub const CHAIN_STEPS_MAX: usize = 1024;

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

/// Files in a policies directory: more is a mistake (a wrong directory), not a hospital.
pub const POLICY_FILES_MAX: usize = 2_000;
/// Longest single policy file; the longest shipped one has about 10 KB.
pub const POLICY_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// All policy text together: Cedar sets no bound itself (L-105), and every reload holds it twice.
pub const POLICY_SET_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most policies in a set; the growth goal of design.md section 9 is 10,000.
pub const POLICIES_MAX: usize = 20_000;
/// Longest single policy, comments included: reading it recurses, and this bounds the stack it takes.
pub const POLICY_STATEMENT_BYTES_MAX: usize = 8 * 1024;
/// Stack for loading policies: a statement of the longest kind holds some 1,400 terms, and an unoptimised
/// build takes up to 40 KiB for each.
pub const POLICY_LOAD_STACK_BYTES: usize = 128 * 1024 * 1024;
/// Deepest nesting of a policy's conditions, chains of `&&` and `||` balanced: Cedar evaluates by recursion
/// and gives up 100 KiB before the end of the stack; an unoptimised build takes about 40 KiB a level of 2 MiB.
pub const POLICY_DEPTH_MAX: usize = 24;
/// Longest `@id`: it is written into audit records.
pub const POLICY_ID_BYTES_MAX: usize = 128;
/// Most element groups.
pub const POLICY_GROUPS_MAX: usize = 1_000;
/// Most elements in one group.
pub const POLICY_GROUP_PATHS_MAX: usize = 2_000;
/// Weight of the cached decisions (bytes, estimated from key lengths and path counts): some 10,000 different
/// situations, far more than roles x types x label sets of one hospital.
pub const DECISIONS_CACHE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Longest `X-Purpose-Of-Use`; the longest HL7 v3-ActReason code has 14 characters.
pub const PURPOSE_BYTES_MAX: usize = 64;

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
