//! What leaves: elements (P1), bytes (P3), modifiers (P7 is in `policy`), and what is stored but unknown.
//!
//! Owns: masks on real answers, end to end.
//! Must never: compare with anything but the bytes the EMR holds.
//! Look next: `tests/filter.rs`, where every case of the filter is.

use serde_json::Value;

use crate::harness::{Hospital, run};

/// Role, and the members of `Patient/p1` it sees. Nobody granted the others.
const VIEWS: &[(&str, &str)] = &[
    (
        "nurse",
        "resourceType id meta language active name gender birthDate _birthDate deceasedBoolean \
               multipleBirthInteger contact communication generalPractitioner managingOrganization",
    ),
    (
        "front-desk",
        "resourceType id meta language identifier active name telecom gender birthDate _birthDate \
                    deceasedBoolean address maritalStatus contact communication generalPractitioner \
                    managingOrganization",
    ),
    (
        "billing-clerk",
        "resourceType id meta language identifier active name gender birthDate _birthDate \
                       deceasedBoolean address managingOrganization",
    ),
    (
        "researcher",
        "resourceType id meta language active gender birthDate _birthDate deceasedBoolean address \
                    maritalStatus multipleBirthInteger",
    ),
];

#[test]
fn p1_an_element_nobody_granted_is_not_released() {
    run(async {
        let hospital = Hospital::shared().await;
        for (who, members) in VIEWS {
            let reply = hospital.get(who, "Patient/p1").await;
            assert_eq!(reply.status, 200, "{who}: {}", reply.text());
            let seen = reply.json();
            let mut seen: Vec<&str> = seen.as_object().unwrap().keys().map(String::as_str).collect();
            let mut granted: Vec<&str> = members.split_whitespace().collect();
            seen.sort_unstable();
            granted.sort_unstable();
            assert_eq!(seen, granted, "{who}");
            assert!(reply.text().contains(r#""code":"SUBSETTED"}"#), "{who}");
        }
        let address = hospital.get("researcher", "Patient/p1").await.json()["address"].clone();
        assert_eq!(address, serde_json::json!([{"use": "home", "state": "Placeholdia", "country": "ZZ"}]));
    });
}

/// T-130: what R4 does not know is dropped, whoever asks; the gate does not pass on what nobody can have granted.
#[test]
fn p1_elements_unknown_to_r4_never_leave() {
    run(async {
        let hospital = Hospital::shared().await;
        let stored = r#"{"resourceType":"Patient","id":"odd","meta":{"versionId":"1","lastUpdated":"2026-01-15T08:30:00Z"},
            "CANARY-1":"CANARY-2","name":[{"family":"Odd","nick":"CANARY-3"}],"fhir_comments":["CANARY-4"],
            "gender":"male","Gender":"CANARY-5","generalPractitioner":[{"reference":"Practitioner/pr-nurse"}]}"#;
        hospital.stage.emr().put(stored.as_bytes()).unwrap();
        for who in ["nurse", "physician", "researcher"] {
            for path in ["Patient/odd", "Patient?_id=odd"] {
                let reply = hospital.get(who, path).await;
                assert!(!reply.text().contains("CANARY"), "{who} {path}: {}", reply.text());
            }
        }
    });
}

/// Who sees a record whole sees the EMR's bytes and no other.
#[test]
fn p3_a_whole_record_is_the_emrs_bytes() {
    run(async {
        let hospital = Hospital::shared().await;
        let emr = hospital.stage.emr();
        let mut compared = 0;
        let token = hospital.token("patient");
        for (name, _) in emr.census() {
            for id in emr.ids(&name) {
                let reply = hospital.get_with(&token, &format!("{name}/{id}")).await;
                if reply.status == 200 {
                    assert_eq!(reply.body, emr.read(&name, &id).unwrap(), "{name}/{id}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 20, "{compared}");
        let p1 = hospital.get_with(&token, "Patient/p1").await.text();
        assert!(p1.contains("\"valueDecimal\": 0.010}") && p1.contains("J\\u00fcrgenine"), "{p1}");
        assert!(hospital.get_with(&token, "Observation/obs-wrong").await.text().contains("\"value\":1e2,"));
    });
}

/// Of a masked record every token is the EMR's, in the EMR's order, but for the marks.
#[test]
fn p3_kept_tokens_are_the_emrs_in_its_order() {
    run(async {
        let hospital = Hospital::shared().await;
        let emr = hospital.stage.emr();
        let mut compared = 0;
        for who in ["nurse", "physician", "front-desk", "billing-clerk", "researcher"] {
            let token = hospital.token(who);
            for (name, _) in emr.census() {
                for id in emr.ids(&name) {
                    let reply = hospital.get_with(&token, &format!("{name}/{id}")).await;
                    if reply.status == 403 {
                        break;
                    }
                    if reply.status == 200 {
                        let stored = String::from_utf8(emr.read(&name, &id).unwrap().to_vec()).unwrap();
                        check_subsequence(&format!("{who} {name}/{id}"), &stored, &reply.text());
                        compared += 1;
                    }
                }
            }
        }
        assert!(compared > 60, "{compared}");
        let troponin = hospital.get("researcher", "Observation/obs-troponin").await.text();
        assert!(troponin.contains("\"value\":0.010,"), "{troponin}");
    });
}

/// What the filter adds.
const MARKS: &[&str] = &[
    r#","tag":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}]"#,
    r#""tag":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}]"#,
    r#","extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]"#,
    r#""extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]"#,
];

fn check_subsequence(what: &str, stored: &str, released: &str) {
    let mut released = released.to_owned();
    for mark in MARKS {
        released = released.replace(mark, "");
    }
    let (stored, released) = (tokens(stored), tokens(&released));
    let (mut rest, mut masked) = (stored.as_slice(), 0);
    for token in released {
        match rest.iter().position(|candidate| *candidate == token) {
            Some(place) => rest = &rest[place + 1..],
            // The name of a mandatory element that is marked as masked.
            None => masked += 1,
        }
    }
    assert!(masked < 4, "{what}: {masked} tokens are not the EMR's");
}

/// Strings and numbers as they are written.
fn tokens(text: &str) -> Vec<&str> {
    let (bytes, mut at, mut found) = (text.as_bytes(), 0, Vec::new());
    while at < bytes.len() {
        let begin = at;
        match bytes[at] {
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'0'..=b'9' | b'-' | b't' | b'f' => {
                while !b",]} \n\r\t".contains(&bytes[at]) {
                    at += 1;
                }
            }
            _ => {
                at += 1;
                continue;
            }
        }
        found.push(&text[begin..at]);
    }
    found
}

/// The trail names what was released, and by which mask.
#[test]
fn the_record_names_what_was_released() {
    run(async {
        let hospital = Hospital::shared().await;
        let read = hospital.get("nurse", "Patient/p1").await;
        let search = hospital.get("nurse", "Observation?patient=p1&_count=100").await;
        let contained = hospital.get("physician", "DiagnosticReport/report-lab").await;
        let vread = hospital.get("physician", "Patient/p1/_history/1").await;
        for reply in [&read, &search, &contained, &vread] {
            reply.check_ok();
        }
        let records = hospital.check_recorded([&read, &search, &contained, &vread]);
        assert_eq!(records[0]["released"][0]["reference"], "Patient/p1");
        assert_eq!(records[0]["released"][0]["patients"], serde_json::json!(["p1"]));
        let mask: Vec<&str> = texts(&records[0]["released"][0]["mask"]);
        assert!(mask.contains(&"Patient.name") && !mask.contains(&"Patient.identifier"), "{mask:?}");
        assert!(texts(&records[0]["policies"]).contains(&"nurse-elements"), "{}", records[0]["policies"]);
        let in_bundle = search.json()["entry"].as_array().unwrap().len();
        assert_eq!(records[1]["released"].as_array().unwrap().len(), in_bundle);
        assert_eq!(
            (&records[1]["interaction"], &records[3]["interaction"]),
            (&"search-type".into(), &"vread".into())
        );
        let inside: Vec<Value> = records[2]["released"].as_array().unwrap().clone();
        assert!(
            inside.iter().any(|item| item["reference"] == "DiagnosticReport/report-lab#res1"),
            "{inside:?}"
        );
        assert!(vread.text().contains("\"versionId\": \"1\""), "{}", vread.text());
    });
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}
