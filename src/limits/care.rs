//! The bounds of what knows the patient: relations looked up in the EMR, and emergency access.
//!
//! Owns: as its parent, each bound with its reason. Must never: hold a bound of anything else.
//! Look next: `limits`.

use super::SEARCH_COUNT_MAX;
use jiff::SignedDuration;
use std::time::Duration;

/// Patients that one search asks about: a page of rows is rarely about more, and a form of this many ids is 13 KiB.
pub const RELATION_PATIENTS_MAX: usize = 200;
/// Patients of one page that are looked up; those beyond stand in no relation. As many as a page has rows.
pub const RELATION_PATIENTS_OF_PAGE_MAX: usize = SEARCH_COUNT_MAX as usize;
/// Lines of a bulk file that are looked up together: about as many patients as one search takes, and some are about
/// the same one.
pub const RELATION_LINES: usize = 200;
/// Records that one page of a search may bring: for each patient the caller is seldom in more than one that counts.
pub const RELATION_RECORDS_MAX: usize = 200;
/// Pages of one search that are read: beyond them a relation is absent. A caller with more records about one page of
/// patients than these hold works in a system whose search does not narrow.
pub const RELATION_PAGES_MAX: usize = 5;
/// Bytes of one page.
pub const RELATION_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// All searches of one page together: who treats whom is not worth keeping a patient waiting for longer.
pub const RELATION_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Caller and patient pairs that are kept: a thousand callers with a ward of fifty each, at about 200 bytes.
pub const RELATIONS_CACHE_MAX: u64 = 50_000;
/// Callers whose roles are kept.
pub const RELATION_PARTIES_MAX: u64 = 10_000;
/// Patients whose Consents are kept: those of a few wards' pages, at some KiB each.
pub const CONSENTS_CACHE_MAX: u64 = 20_000;
/// Active Consents of one patient that are weighed; with more, nothing is known. People have a handful.
pub const CONSENTS_OF_PATIENT_MAX: usize = 50;
/// Values of one Consent, at every depth: each record of a page is weighed by all of them. Those in use have some hundred.
pub const CONSENT_VALUES_MAX: usize = 4_000;
/// Provisions within provisions: examples of the standard and of IHE have two or three.
pub const CONSENT_DEPTH_MAX: usize = 8;
/// How far a day somewhere may lie from the same day in UTC.
pub const CONSENT_DAY_DOUBT: SignedDuration = SignedDuration::from_hours(14);
/// A relation found counts for this long unless configured: a shift handed over shows within minutes.
pub const RELATION_AGE_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// The longest that may be configured.
pub const RELATION_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// A relation not found counts as absent for this long: who has just been assigned should not wait.
pub const RELATION_ABSENT_AGE_DEFAULT: Duration = Duration::from_secs(30);
/// A finished encounter counts for this long after its end, a planned one as long before its start.
pub const RELATION_ENCOUNTER_WINDOW_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// An appointment counts this long before its start and after its end.
pub const RELATION_APPOINTMENT_WINDOW_DEFAULT: Duration = Duration::from_secs(12 * 3600);
/// The longest window that may be configured.
pub const RELATION_WINDOW_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// How fresh the second factor must be: long enough to log in and write the reason, too short for a screen left open.
pub const EMERGENCY_FRESH_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// The longest that may be configured.
pub const EMERGENCY_FRESH_MAX: Duration = Duration::from_secs(30 * 60);
/// How long a grant lasts: an emergency is over, or has become an encounter, within the hour.
pub const EMERGENCY_DEFAULT: Duration = Duration::from_secs(3600);
/// The longest a grant may last.
pub const EMERGENCY_MAX: Duration = Duration::from_secs(4 * 3600);
/// The shortest a caller may ask for.
pub const EMERGENCY_SECONDS_MIN: i64 = 60;
/// Grants a person may begin within an hour: more is no emergency but a habit, or a script (T-195).
pub const EMERGENCY_PER_HOUR_DEFAULT: u32 = 3;
/// The most that may be configured.
pub const EMERGENCY_PER_HOUR_MAX: u32 = 60;
/// A reason is a code, or a few words: shorter is none.
pub const EMERGENCY_REASON_CHARS_MIN: usize = 8;
/// The longest reason.
pub const EMERGENCY_REASON_BYTES_MAX: usize = 500;
/// Grants that are kept at once, ended ones of the last hour included: a big house has some hundred a day.
pub const EMERGENCY_GRANTS_MAX: usize = 10_000;
/// The smallest reserve of the journal: room for a dozen answers, since a small one takes 4 KiB.
pub const RESERVE_BYTES_MIN: u64 = 64 * 1024;
/// The largest: it is taken over in one commit, which memory holds twice. Room for some four thousand answers.
pub const RESERVE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What is written in place at once or not at all: the sector of present disks, and the page of file systems.
pub const RESERVE_BLOCK_BYTES: usize = 4096;
/// What every disk writes at once or not at all, older ones too.
pub const SECTOR_BYTES: usize = 512;

/// How often grants are read from the store: for those of other proxies, and for those whose end is to be recorded.
/// Twice within the second in which one proxy knows what another granted or ended.
pub const EMERGENCY_SWEEP_INTERVAL: Duration = Duration::from_millis(500);
