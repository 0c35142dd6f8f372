//! The project's own charts: a few synthetic patients, made by hand, for demo, tests and load.
//!
//! Owns: the transaction Bundles in `data/`.
//! Must never: hold anything about a real person.
//! Look next: `data/`, `emr::Emr::load_transaction`.

use crate::emr::{Emr, LoadError};

/// The Bundles, in loading order: short name and JSON text. `Patient/p1` is the rich chart and has three versions.
pub const BUNDLES: &[(&str, &str)] = &[
    ("places", include_str!("../data/places.json")),
    ("p1-person-first", include_str!("../data/p1-person-first.json")),
    ("p1-person-second", include_str!("../data/p1-person-second.json")),
    ("p1-person", include_str!("../data/p1-person.json")),
    ("p1-clinical", include_str!("../data/p1-clinical.json")),
    ("p1-billing", include_str!("../data/p1-billing.json")),
    ("others", include_str!("../data/others.json")),
];

/// Loads all charts and gives the number of records.
///
/// # Errors
/// `LoadError` when a Bundle of ours is broken, which a test excludes.
pub fn load(emr: &Emr) -> Result<usize, LoadError> {
    BUNDLES.iter().map(|(_, text)| emr.load_transaction(text.as_bytes())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_load_as_they_are_written() {
        let emr = Emr::new();
        assert_eq!(load(&emr).unwrap(), 55);
        assert_eq!(emr.ids("Patient"), ["p1", "p2", "p3", "p4", "p5", "p6"]);
        // Every chart has its stamps, so nothing is set by the server and every start gives the same bytes.
        let all: String = BUNDLES.iter().map(|(_, text)| *text).collect();
        for (name, _) in emr.census() {
            for id in emr.ids(&name) {
                let text = String::from_utf8(emr.read(&name, &id).unwrap().to_vec()).unwrap();
                assert!(all.contains(&text), "{name}/{id} changed while loading");
            }
        }
    }

    #[test]
    fn references_of_the_charts_exist() {
        let emr = Emr::new();
        load(&emr).unwrap();
        for (_, text) in BUNDLES {
            for part in text.split("\"reference\":").skip(1) {
                let reference = part.trim_start().trim_start_matches('"').split('"').next().unwrap();
                let known = reference.starts_with('#')
                    || reference.split_once('/').is_some_and(|(name, id)| emr.read(name, id).is_some());
                assert!(known, "{reference}");
            }
        }
    }
}
