//! The project's own charts: a few synthetic patients, made by hand, for demo, tests and load.
//!
//! Owns: the transaction Bundles in `data/`.
//! Must never: hold anything about a real person.
//! Look next: `data/`, `emr::Emr::load_transaction`.

use crate::emr::{Emr, LoadError};

/// The Bundles, in loading order: short name and JSON text.
pub const BUNDLES: &[(&str, &str)] = &[];

/// Loads all charts and gives the number of records.
///
/// # Errors
/// `LoadError` when a Bundle of ours is broken, which a test excludes.
pub fn load(emr: &Emr) -> Result<usize, LoadError> {
    BUNDLES.iter().map(|(_, text)| emr.load_transaction(text.as_bytes())).sum()
}
