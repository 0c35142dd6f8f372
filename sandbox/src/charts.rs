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

/// More records of the same hospital, as a transaction Bundle: code and value sets, lists, a ward's group, binaries and the
/// documents that own them, plans, consents. Apart from `BUNDLES`, because many tests count those.
#[must_use]
pub fn ward_extras() -> &'static str {
    include_str!("../data/ward-extras.json")
}

/// Loads all charts and gives the number of records.
///
/// # Errors
/// `LoadError` when a Bundle of ours is broken, which a test excludes.
pub fn load(emr: &Emr) -> Result<usize, LoadError> {
    BUNDLES.iter().map(|(_, text)| emr.load_transaction(text.as_bytes())).sum()
}

/// Loads a crowd for load tests: patients `c1` to `c{patients}`, each a record of about 2 KB, with `observations` weights
/// each (`c1-o1`, …, about 0.6 KB). The same call gives the same bytes. Gives the number of records.
///
/// # Errors
/// `LoadError` when a template of ours is broken, which a test excludes.
pub fn load_crowd(emr: &Emr, patients: u32, observations: u32) -> Result<usize, LoadError> {
    for patient in 1..=patients {
        emr.put(crowd_patient(patient).as_bytes())?;
        for observation in 1..=observations {
            emr.put(crowd_observation(patient, observation).as_bytes())?;
        }
    }
    Ok(patients as usize * (observations as usize + 1))
}

const CROWD_META: &str = "\"meta\":{\"versionId\":\"1\",\"lastUpdated\":\"2026-01-15T08:30:00.000Z\"}";

fn crowd_patient(number: u32) -> String {
    let (month, day) = (number % 12 + 1, number % 28 + 1);
    let contacts: Vec<String> = (1..=4)
        .map(|at| {
            format!(
                "{{\"relationship\":[{{\"coding\":[{{\"system\":\"http://terminology.hl7.org/CodeSystem/v2-0131\",\
                 \"code\":\"N\",\"display\":\"Next-of-Kin\"}}]}}],\"name\":{{\"family\":\"Crowd{number}\",\
                 \"given\":[\"Contact{at}\"]}},\"telecom\":[{{\"system\":\"phone\",\"value\":\"555-{number:06}-{at}\"}}],\
                 \"address\":{{\"line\":[\"{at} Placeholder Road\"],\"city\":\"Sampletown\",\"country\":\"ZZ\"}}}}"
            )
        })
        .collect();
    format!(
        "{{\"resourceType\":\"Patient\",\"id\":\"c{number}\",{CROWD_META},\"identifier\":[{{\"use\":\"usual\",\
         \"system\":\"urn:example:mrn\",\"value\":\"1{number:07}\"}},{{\"use\":\"official\",\
         \"system\":\"urn:example:national-id\",\"value\":\"ZZ-{number:08}\"}}],\"active\":true,\
         \"name\":[{{\"use\":\"official\",\"family\":\"Crowd{number}\",\"given\":[\"Test\",\"Sample\"]}}],\
         \"telecom\":[{{\"system\":\"phone\",\"value\":\"555-{number:06}\",\"use\":\"home\"}},{{\"system\":\"email\",\
         \"value\":\"crowd{number}@beispiel.example\"}}],\"gender\":\"unknown\",\"birthDate\":\"1970-{month:02}-{day:02}\",\
         \"address\":[{{\"use\":\"home\",\"line\":[\"{number} Example Street\"],\"city\":\"Sampletown\",\
         \"postalCode\":\"00001\",\"country\":\"ZZ\"}}],\"contact\":[{}],\
         \"generalPractitioner\":[{{\"reference\":\"Practitioner/pr-physician\"}}]}}",
        contacts.join(",")
    )
}

fn crowd_observation(patient: u32, number: u32) -> String {
    let (day, grams) = (number % 28 + 1, number % 1000);
    format!(
        "{{\"resourceType\":\"Observation\",\"id\":\"c{patient}-o{number}\",{CROWD_META},\"status\":\"final\",\
         \"category\":[{{\"coding\":[{{\"system\":\"http://terminology.hl7.org/CodeSystem/observation-category\",\
         \"code\":\"vital-signs\",\"display\":\"Vital Signs\"}}]}}],\"code\":{{\"coding\":[{{\"system\":\"http://loinc.org\",\
         \"code\":\"29463-7\",\"display\":\"Body weight\"}}],\"text\":\"Body weight\"}},\
         \"subject\":{{\"reference\":\"Patient/c{patient}\"}},\"effectiveDateTime\":\"2026-01-{day:02}T08:00:00Z\",\
         \"performer\":[{{\"reference\":\"Practitioner/pr-nurse\"}}],\"valueQuantity\":{{\"value\":70.{grams:03},\
         \"unit\":\"kg\",\"system\":\"http://unitsofmeasure.org\",\"code\":\"kg\"}}}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_the_same_every_time() {
        let (one, two) = (Emr::new(), Emr::new());
        assert_eq!(load_crowd(&one, 3, 2).unwrap(), 9);
        load_crowd(&two, 3, 2).unwrap();
        for (name, id) in [("Patient", "c3"), ("Observation", "c3-o2")] {
            assert_eq!(one.read(name, id), two.read(name, id));
        }
        assert_eq!(one.read("Patient", "c3").unwrap(), crowd_patient(3).as_bytes(), "stored as made");
        assert!((1_800..2_600).contains(&crowd_patient(1).len()), "{}", crowd_patient(1).len());
        assert_eq!(one.ids("Observation").len(), 6);
    }

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
    fn extras_load_beside_the_charts() {
        let emr = Emr::new();
        load(&emr).unwrap();
        let before = emr.census().iter().map(|(_, count)| count).sum::<usize>();
        assert_eq!(emr.load_extras().unwrap(), 22);
        let after = emr.census().iter().map(|(_, count)| count).sum::<usize>();
        assert_eq!((before, after), (53, 75), "no record of the charts is replaced");
        for id in emr.ids("Binary") {
            let stored = emr.read("Binary", &id).unwrap();
            assert!(
                ward_extras().contains(std::str::from_utf8(&stored).unwrap()),
                "{id} changed while loading"
            );
        }
    }

    #[test]
    fn references_of_the_charts_exist() {
        let emr = Emr::new();
        load(&emr).unwrap();
        emr.load_extras().unwrap();
        for text in BUNDLES.iter().map(|(_, text)| *text).chain([ward_extras()]) {
            for part in text.split("\"reference\":").skip(1) {
                let reference = part.trim_start().trim_start_matches('"').split('"').next().unwrap();
                let known = reference.starts_with('#')
                    || reference.split_once('/').is_some_and(|(name, id)| emr.read(name, id).is_some());
                assert!(known, "{reference}");
            }
        }
    }
}
