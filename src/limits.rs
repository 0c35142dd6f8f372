//! Every bound of the program, in one place, each with its reason.
//!
//! Owns: numbers and how they relate (checked when compiling).
//! Must never: depend on anything else; hold a bound that nobody enforces.
//! Units stand last in the names. Look next: the room named in each section's heading.

mod care;
mod doctor;
mod index;
mod keeping;
mod listener;
mod policies;
mod refusals;
mod sessions;
mod witness;

pub use care::*;
pub use doctor::*;
pub use index::*;
pub use keeping::*;
pub use listener::*;
pub use policies::*;
pub use refusals::*;
pub use sessions::*;
pub use witness::*;

use std::time::Duration;

// --- upstream -----------------------------------------------------------------------------------

/// The longest `upstream.timeout` an operator may set; shorter than the patience for a stalled request.
pub const UPSTREAM_TIMEOUT_SECONDS_MAX: u64 = 90;
/// Connecting to the EMR, inside one network.
pub const UPSTREAM_CONNECT_SECONDS_MAX: u64 = 5;
/// Requests under way at the EMR at once; the next ones wait within their own time-out.
pub const UPSTREAM_REQUESTS_MAX: usize = 256;
/// Idle connections kept to the EMR.
pub const UPSTREAM_IDLE_CONNECTIONS_MAX: usize = 128;
/// Below the keep-alive of the usual servers, so that we are the ones who close.
pub const UPSTREAM_IDLE_SECONDS_MAX: u64 = 15;
/// Header lines of an answer.
pub const UPSTREAM_HEADERS_MAX: usize = 100;
/// Header bytes of an answer.
pub const UPSTREAM_HEADER_BYTES_MAX: u32 = 64 * 1024;
/// A whole answer body, however steadily it drips.
pub const UPSTREAM_BODY_SECONDS_MAX: u64 = 300;
/// A file of a bulk export on its way through, at the client's pace. A gigabyte at 300 KB a second.
pub const UPSTREAM_DOWNLOAD_SECONDS_MAX: u64 = 60 * 60;
/// The longest wait we ask a client for when the EMR names one (`Retry-After` of an export).
pub const RETRY_AFTER_SECONDS_MAX: u64 = 60 * 60;
/// Flow-control window of one HTTP/2 answer.
pub const UPSTREAM_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// And of all answers on one HTTP/2 connection: what the EMR may make us hold unread.
pub const UPSTREAM_CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// A bearer token file.
pub const BEARER_BYTES_MAX: u64 = 16 * 1024;
/// The request line we send: base path and query.
pub const UPSTREAM_TARGET_BYTES_MAX: usize = 16 * 1024;

const _: () = assert!(UPSTREAM_CONNECT_SECONDS_MAX < UPSTREAM_TIMEOUT_SECONDS_MAX);
const _: () = assert!(UPSTREAM_STREAM_WINDOW_BYTES <= UPSTREAM_CONNECTION_WINDOW_BYTES);
const _: () = assert!(SEALED_BYTES_MAX < UPSTREAM_TARGET_BYTES_MAX);

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
/// Longest DPoP proof looked at: a key of 4096 bits, its signature and the claims take under 2 KiB.
pub const DPOP_PROOF_BYTES_MAX: usize = 4 * 1024;
/// How long after it was made a proof is taken (RFC 9449 section 11.1 speaks of seconds or minutes).
pub const DPOP_PROOF_AGE_SECONDS_MAX: i64 = 60;
/// A nonce is given out for this long, and taken for as long again.
pub const DPOP_NONCE_SECONDS: i64 = 120;
/// Proofs remembered at once, of 32 bytes each; more are refused rather than forgotten. Five thousand a second for
/// as long as a proof is good.
pub const REPLAYS_REMEMBERED_MAX: usize = 5_000 * 91;
/// Actors that `act` may nest: an application for a scribe for a resident, and one more (T-197).
pub const TOKEN_ACTORS_MAX: usize = 4;
/// Longest opaque token; every one seen so far is a reference of under 200 characters.
pub const OPAQUE_TOKEN_BYTES_MAX: usize = 2 * 1024;
/// Largest introspection answer read: a token's claims, spelt out.
pub const INTROSPECTION_BYTES_MAX: usize = 32 * 1024;
/// One whole introspection, connecting included.
pub const INTROSPECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an assertion of ours is good: it is used at once, and the issuer's clock may be behind (RFC 7523 section 3).
pub const CLIENT_ASSERTION_SECONDS: i64 = 60;
/// How long an answer about a token is kept unless the configuration says less (L-66: a short time).
pub const INTROSPECTION_KEPT_DEFAULT: Duration = Duration::from_secs(15);
/// The longest the configuration may say: what is revoked at the issuer stays good here for this long.
pub const INTROSPECTION_KEPT_MAX: Duration = Duration::from_secs(60);
/// How long an outage is remembered, so that those who waited do not all ask again.
pub const INTROSPECTION_RETRY: Duration = Duration::from_secs(1);
/// Answers kept at once.
pub const INTROSPECTIONS_KEPT_MAX: u64 = 10_000;
/// Introspections under way at once: tokens made up by the thousand must not flood the issuer (T-252).
pub const INTROSPECTIONS_MAX: usize = 16;
/// Registered clients.
pub const CLIENTS_MAX: usize = 1_024;
/// The days left of agreements are counted again this often.
pub const AGREEMENTS_LOOKED_AT_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Days before an agreement's end on which it is called out.
pub const AGREEMENT_WARNING_DAYS: [i64; 3] = [60, 30, 7];

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
const _: () = assert!(DPOP_PROOF_BYTES_MAX < HEADER_BYTES_MAX && OPAQUE_TOKEN_BYTES_MAX < TOKEN_BYTES_MAX);
const _: () = assert!(INTROSPECTION_KEPT_DEFAULT.as_secs() <= INTROSPECTION_KEPT_MAX.as_secs());

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

/// `max` of `Observation/$lastn`: how many observations of each code; more is a search.
pub const LASTN_MAX: u32 = 100;

/// Searches in the `_typeFilter` of one export; each is judged and sent on its own.
pub const TYPE_FILTERS_MAX: usize = 32;

/// Entity tags in one `If-None-Match`; a client holds one or two versions of a record.
pub const ENTITY_TAGS_MAX: usize = 16;

/// Depth of parentheses and brackets in a `_filter`. Reading it recurses; people nest two or three deep.
pub const FILTER_DEPTH_MAX: usize = 8;

/// Comparisons in one `_filter`; a form with 20 fields is already large.
pub const FILTER_LEAVES_MAX: usize = 32;

/// Search parameters and named queries that a configuration may declare: every EMR known has fewer than 100.
pub const DECLARED_MAX: usize = 512;

/// The code of a declared search parameter or the name of a query. The longest official one has 34 bytes.
pub const DECLARED_CODE_BYTES_MAX: usize = 64;

/// A search query sent upstream as GET; a longer one goes as a form. Below common URL bounds.
pub const UPSTREAM_QUERY_BYTES_MAX: usize = 2 * 1024;

/// Media ranges in one `Accept`. Browsers send about eight.
pub const ACCEPT_RANGES_MAX: usize = 32;

const _: () = assert!(PAGE_TOKEN_BYTES_MAX + 1024 <= TARGET_BYTES_MAX);
const _: () = assert!(PARAMETER_VALUE_BYTES_MAX < FORM_BYTES_MAX);
const _: () = assert!(CHAIN_LINKS_MAX < CHAIN_STEPS_MAX && HOPS_MAX < CHAIN_STEPS_MAX);

// --- fhir: R4 tables and element paths ----------------------------------------------------------

/// Longest element path read, the URL of an extension included. The longest official path has 105
/// bytes; extension URLs rarely pass 150.
pub const ELEMENT_PATH_BYTES_MAX: usize = 512;

/// Most segments of an element path. The deepest official element of a resource has 6; data types
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
/// Most cases of one policy test file, lists taken each by each: 200 roles with 500 questions each.
pub const POLICY_CASES_MAX: usize = 100_000;
/// Most pairs of changes that `policy explain` tries for one question: some ten seconds on a slow machine.
pub const EXPLAIN_TRIES_MAX: usize = 4_000;
/// Most different situations of a recorded day whose outcome `policy replay` keeps: beyond, they are asked again.
pub const REPLAY_SITUATIONS_MAX: usize = 100_000;
/// After how many decisions `policy replay` tells a terminal how far it is.
pub const REPLAY_PROGRESS_EVERY: u64 = 1_000;
/// Most lines of the table of `policy replay`: more are not read by anybody.
pub const REPLAY_ROWS_MAX: usize = 10_000;
/// Most patients named in one line of it.
pub const REPLAY_PATIENTS_MAX: usize = 20;
/// Most cases that `policy explain` explains at once: more are not read by anybody.
pub const EXPLAIN_CASES_MAX: usize = 20;
/// How long ago somebody in a rehearsal proved their second factor unless told otherwise, in seconds.
pub const REHEARSED_FACTOR_AGE_SECONDS: i64 = 60;
/// Most elements in one group.
pub const POLICY_GROUP_PATHS_MAX: usize = 2_000;
/// Kinds of counterexamples that a proof tells of one invariant: more would be read by nobody.
pub const PROOF_EXAMPLES_MAX: usize = 2;
/// Reasons that a proof gives for not knowing.
pub const PROOF_DOUBTS_MAX: usize = 5;
/// Wall time the solver has for one question. The shipped ones take some hundredths of a second.
pub const SOLVER_QUESTION_MILLIS: u64 = 30_000;
/// And for all that is beyond it: a solver that does not even say that it gave up is given up.
pub const SOLVER_SILENCE_SECONDS: u64 = 60;
/// Weight of the cached decisions (bytes, estimated from key lengths and the masks' branches): two thousand and more, a mask
/// of fifty branches takes some 30 KB. A decision that was dropped is made again.
pub const DECISIONS_CACHE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Numbers for situations in keys of cached decisions (bytes): some 10,000, each of a policy set, roles, purpose and login.
pub const SITUATIONS_CACHE_BYTES_MAX: u64 = 8 * 1024 * 1024;
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
/// Labels and patients that contained resources take over from what contains them into sets of their own, together. A
/// dozen of each in a hundred contained resources are 2,400; at the bound they take some 30 MB.
pub const INHERITED_TEXTS_MAX: usize = 256 * 1024;
/// How often contained resources are weighed again because another one of them fell away.
pub const CONTAINED_ROUNDS_MAX: usize = 8;
/// Elements named in one `_elements`. The type with the most has 58 of its own.
pub const SHAPE_ELEMENTS_MAX: usize = 64;
/// Content of a Binary that is sent as it is: in base64 it is a string of the size above, with room for line ends.
pub const BINARY_CONTENT_BYTES_MAX: usize = STRING_BYTES_MAX / 4 * 3;
/// One line of an NDJSON file, its end not counted: one record of the size above.
pub const NDJSON_LINE_BYTES_MAX: usize = RECORD_BYTES_MAX;

const _: () = assert!(DOCUMENT_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(RECORD_BYTES_MAX <= DOCUMENT_BYTES_MAX);
const _: () = assert!(STRING_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);

// --- change -------------------------------------------------------------------------------------

/// Most operations of one patch. Editors send a handful; a migration belongs into an update.
pub const PATCH_OPERATIONS_MAX: usize = 256;
/// Longest path of a patch operation, in bytes: the deepest R4 path with an extension URL or two in it.
pub const PATCH_PATH_BYTES_MAX: usize = 2_048;
/// Most steps of such a path: every level of the deepest JSON we read, each with an index.
pub const PATCH_PATH_STEPS_MAX: usize = 2 * JSON_DEPTH_MAX;

// --- audit, ledger and journal ------------------------------------------------------------------

/// One stored entry: C2SP tlog-tiles gives an entry a 16-bit length.
pub const ENTRY_BYTES_MAX: usize = 65_535;
/// What encryption adds to an entry: version 1, key id 8, nonce 12, random bits 16, coding 1, tag 16.
pub const ENTRY_OVERHEAD_BYTES: usize = 54;
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
/// How long outcomes wait for a release to be committed with. A crash loses as much of them: `unknown` is what they then read as.
pub const OUTCOME_LINGER_MS: u64 = 20;
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
        + (14 + 2 * TOKEN_ACTORS_MAX) * RECORD_TEXT_BYTES_MAX
        + (2 + 2 * RECORD_ROLES_MAX + RECORD_POLICIES_MAX) * (RECORD_ITEM_BYTES_MAX + 3)
        + 2_000
        < RECORD_PART_BYTES_MAX
);
const _: () = assert!(
    RECORD_ITEM_PATIENTS_MAX * (RECORD_ITEM_BYTES_MAX + 3) + 2 * RECORD_TEXT_BYTES_MAX + 3_000
        < RECORD_PART_BYTES_MAX
);

// --- configuration ------------------------------------------------------------------------------

/// Port of the operations listener when the configuration does not say.
pub const OPERATIONS_PORT_DEFAULT: u16 = 9443;

/// How long the EMR may take to begin an answer when the configuration does not say.
pub const UPSTREAM_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Longer than this is a hung EMR, not a slow one; a clinician has given up by then.
pub const UPSTREAM_TIMEOUT_MAX: Duration = Duration::from_secs(UPSTREAM_TIMEOUT_SECONDS_MAX);

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

// --- gateway ------------------------------------------------------------------------------------

/// Sessions remembered at once: ten times the staff of a large hospital on shift; about 200 bytes each.
pub const SESSIONS_MAX: u64 = 100_000;

/// How often counts kept elsewhere are carried over to the metrics: well below a usual scrape interval.
pub const METRICS_CARRY_INTERVAL: Duration = Duration::from_secs(5);

/// How long a paging link may be followed. Long enough to read a page, short enough to lose its use.
pub const PAGE_LINK_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// What is sealed into a page link is filled up to a multiple of this. An EMR's cursor may hold the value that the last row
/// was sorted by: the link's length must not tell how long it is.
pub const PAGE_LINK_STEP_BYTES: usize = 1_024;

/// The largest answer of the EMR that is judged whole in memory. Synthea's largest patient has 3 MB.
pub const UPSTREAM_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

// ---- Lists of rows, and changes ----

/// Rows on a page where the client does not say and the gate puts pages together itself. Enough for a chart's section,
/// small enough that a page is judged in a moment.
pub const PAGE_ROWS_DEFAULT: usize = 50;

/// Pages of the EMR's that one page of ours, or one count, may be put together from. It bounds the work a question can
/// cause; a caller from whom more rows in a row are withheld than fit in so many pages can tell that much from a short
/// page (T-017).
pub const REFILL_REQUESTS_MAX: usize = 16;

/// Rows on a page of the EMR's while rows are only counted.
pub const COUNT_PAGE_ROWS: usize = 1_000;

/// Body of a change, or of a batch or transaction, unpacked. A Synthea patient's whole history is 1 to 3 MB.
pub const CHANGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Entries of a batch or transaction; each may cost several requests to the EMR.
pub const BUNDLE_ENTRIES_MAX: usize = 1_000;

/// How often a change is merged anew when the record changed under it: twice is bad luck, more is a hot record.
pub const WRITE_TRIES_MAX: usize = 4;

// ---- Operations, content of binaries, capabilities ----

/// Issues of a validation that are passed on: more is a body that is of another kind altogether.
pub const FINDINGS_MAX: usize = 100;

/// How long the EMR's own `CapabilityStatement` is taken for true: it changes when the EMR is upgraded.
pub const CAPABILITIES_KEPT: Duration = Duration::from_secs(5 * 60);

/// How soon the EMR is asked again for a statement it did not give: `/metadata` is open to anyone, who must not be
/// able to make us flood it.
pub const CAPABILITIES_RETRY: Duration = Duration::from_secs(20);

/// The EMR's `CapabilityStatement`. HAPI's, which lists every parameter with its text, has 2 MB.
pub const CAPABILITIES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers shorter than this fit into one packet as they are.
pub const COMPRESS_BYTES_MIN: usize = 1_400;

// ---- Bulk export ----

/// How long an export can be followed from its kick-off: overnight and the day after, no longer than a login may last.
pub const EXPORT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The canonical address of an export's question. It travels in every link of the export.
pub const EXPORT_QUESTION_BYTES_MAX: usize = 3 * 1024;

/// Where the EMR keeps an export's status or file, below its base. Those of the servers we know have under 200 bytes.
pub const EXPORT_PLACE_BYTES_MAX: usize = 1024;

/// The EMR's manifest: some 10,000 files.
pub const EXPORT_MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One file of the EMR's. Servers cut files at some gigabyte.
pub const EXPORT_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Entries of a searchset or history are read in batches of this size, so that an answer of any length needs the memory of
/// one batch and its largest record. Shorter answers are one batch.
pub const BATCH_BYTES: usize = 1024 * 1024;

/// Everything of such an answer but its entries: type, total, links.
pub const BUNDLE_FRAME_BYTES_MAX: usize = 256 * 1024;

/// The longest searchset or history that is passed on in batches. A page of the largest EMRs has some 100 MB.
pub const STREAMED_ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A list leaves in units of so many bytes of shown rows: most pages are one unit, with one record in the trail. Two units
/// and a batch are held in memory for each list.
pub const LIST_UNIT_BYTES: usize = 2 * 1024 * 1024;

/// A unit of a download is released when it has so many bytes. Each unit waits for one commit of the trail, and three
/// are held in memory for each download.
pub const EXPORT_UNIT_BYTES: usize = 256 * 1024;

/// And when it has so many records: their list is one part of the trail, or two.
pub const EXPORT_UNIT_RECORDS: usize = 500;

// A link holds question, place and some 200 bytes more, with 28 bytes of seal, in base64.
const _: () = assert!(
    (EXPORT_QUESTION_BYTES_MAX + EXPORT_PLACE_BYTES_MAX + 256).div_ceil(3) * 4 <= PAGE_TOKEN_BYTES_MAX
);
const _: () = assert!(EXPORT_PLACE_BYTES_MAX < UPSTREAM_TARGET_BYTES_MAX);

/// Records that one `$everything` reads beside the patient's own: staff, places, medications. More is no chart.
pub const EVERYTHING_BROUGHT_MAX: usize = 1_000;
