//! Patches (T-071 to T-075, KF-48): what they read must be open, what they write writable, and the rest stays.
//!
//! Owns: JSON Patch and FHIRPath Patch through the door.
//! Must never: accept that the EMR is asked about a patch that touches what is withheld.
//! Look next: `tests/data/change`, every operation without a socket.

use serde_json::{Value, json};

use crate::harness::{Hospital, run};
use crate::writes::{patient, record_of};

/// FHIRPath Patch of one operation.
fn fhirpath(parts: &Value) -> String {
    json!({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}).to_string()
}

/// T-071 to T-073, KF-48: what a patch reads must be open to its sender, and what it writes writable, before the EMR is
/// asked: in no other way could its answer keep quiet about what is withheld.
#[test]
fn t071_t072_t073_a_patch_that_touches_what_is_withheld_is_refused_before_the_emr_is_asked() {
    run(async {
        let hospital = Hospital::doors().await;
        // There is no such record: nobody looks.
        let operations = [
            (json!([{"op": "test", "path": "/multipleBirthInteger", "value": 3}]), "element-withheld"),
            (json!([{"op": "test", "path": "/photo/0/title", "value": "x"}]), "element-withheld"),
            (json!([{"op": "test", "path": "", "value": {}}]), "element-withheld"),
            (json!([{"op": "copy", "from": "/photo/0/title", "path": "/name/0/text"}]), "element-withheld"),
            (
                json!([{"op": "copy", "from": "/extension/0/valueString", "path": "/name/0/text"}]),
                "element-withheld",
            ),
            (json!([{"op": "move", "from": "/photo/0/title", "path": "/name/0/text"}]), "element-withheld"),
            (json!([{"op": "copy", "from": "/photo", "path": "/photo"}]), "element-withheld"),
            (json!([{"op": "remove", "path": "/photo"}]), "element-not-writable"),
            (json!([{"op": "replace", "path": "/multipleBirthInteger", "value": 1}]), "element-not-writable"),
            (json!([{"op": "add", "path": "/photo/-", "value": {}}]), "element-not-writable"),
            (json!([{"op": "replace", "path": "/deceasedBoolean", "value": true}]), "element-not-writable"),
            (
                json!([{"op": "replace", "path": "", "value": {"resourceType": "Patient"}}]),
                "element-not-writable",
            ),
        ];
        let mut replies = Vec::new();
        let json_patch = [("content-type", "application/json-patch+json")];
        for (patch, code) in &operations {
            let mut reply = hospital
                .change("front-desk", ("PATCH", "Patient/patched-blind"), &json_patch, &patch.to_string())
                .await;
            reply.what = patch.to_string();
            replies.push((reply, 403, *code));
        }
        let paths = [
            (
                json!([{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": "Patient.photo"}]),
                "element-not-writable",
            ),
            (
                json!([{"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": "Patient.multipleBirth"}, {"name": "value", "valueInteger": 1}]),
                "element-not-writable",
            ),
            (
                json!([{"name": "type", "valueCode": "add"}, {"name": "path", "valueString": "Patient"}, {"name": "name", "valueString": "photo"}, {"name": "value", "valueAttachment": {"title": "x"}}]),
                "element-not-writable",
            ),
        ];
        for (parts, code) in &paths {
            let mut reply = hospital
                .change("front-desk", ("PATCH", "Patient/patched-blind"), &[], &fhirpath(parts))
                .await;
            reply.what = parts.to_string();
            replies.push((reply, 403, *code));
        }
        // T-073: a selector reads what it compares.
        for selector in
            ["Patient.photo.where(title = 'SECRET-photo')", "Patient.where(multipleBirth = 3).name"]
        {
            let parts =
                json!([{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": selector}]);
            let mut reply = hospital
                .change("front-desk", ("PATCH", "Patient/patched-blind"), &[], &fhirpath(&parts))
                .await;
            reply.what = selector.to_owned();
            assert!([400, 403].contains(&reply.status), "{selector}: {}", reply.text());
            let code: &'static str =
                if reply.status == 400 { "change-malformed" } else { "element-withheld" };
            let status = reply.status;
            replies.push((reply, status, code));
        }
        assert_eq!(hospital.upstream_saw("patched-blind"), 0, "the EMR was asked");
        hospital.check_refusals(&replies);
    });
}

/// What a patch is and what becomes of the record; applied to the caller's view, the rest stays (T-075).
#[test]
fn t075_patches_change_what_they_name_and_nothing_else() {
    run(async {
        let hospital = Hospital::doors().await;
        let json_patch = [("content-type", "application/json-patch+json")];
        let fhir: [(&str, &str); 0] = [];
        type After = fn(&mut Value);
        type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], String, After);
        let cases: Vec<Case<'_>> = vec![
            ("replace", &json_patch, json!([{"op": "test", "path": "/gender", "value": "female"}, {"op": "replace", "path": "/telecom/0/value", "value": "555-7"}]).to_string(), |r| r["telecom"][0]["value"] = json!("555-7")),
            ("add", &json_patch, json!([{"op": "add", "path": "/telecom/-", "value": {"system": "phone", "value": "555-8"}}]).to_string(), |r| r["telecom"].as_array_mut().unwrap().push(json!({"system": "phone", "value": "555-8"}))),
            ("remove", &json_patch, json!([{"op": "remove", "path": "/telecom/0"}]).to_string(), |r| { r.as_object_mut().unwrap().remove("telecom"); }),
            ("copy", &json_patch, json!([{"op": "copy", "from": "/name/0/family", "path": "/name/0/text"}]).to_string(), |r| r["name"][0]["text"] = json!("Doors")),
            ("move", &json_patch, json!([{"op": "move", "from": "/name/0/family", "path": "/name/0/text"}]).to_string(), |r| r["name"][0] = json!({"text": "Doors", "given": ["Open"]})),
            ("fhirpath replace", &fhir, fhirpath(&json!([{"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": "Patient.telecom[0].value"}, {"name": "value", "valueString": "555-9"}])), |r| r["telecom"][0]["value"] = json!("555-9")),
            ("fhirpath delete", &fhir, fhirpath(&json!([{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": "Patient.gender"}])), |r| { r.as_object_mut().unwrap().remove("gender"); }),
            ("fhirpath add", &fhir, fhirpath(&json!([{"name": "type", "valueCode": "add"}, {"name": "path", "valueString": "Patient"}, {"name": "name", "valueString": "telecom"}, {"name": "value", "valueContactPoint": {"value": "555-10"}}])), |r| r["telecom"].as_array_mut().unwrap().push(json!({"value": "555-10"}))),
        ];
        for (place, (name, headers, patch, expected)) in cases.into_iter().enumerate() {
            let id = format!("patched-{place}");
            hospital.store(&patient(&id));
            let mut before = hospital.stored("Patient", &id);
            let reply =
                hospital.change("front-desk", ("PATCH", &format!("Patient/{id}")), headers, &patch).await;
            assert_eq!(reply.status, 200, "{name}: {}", reply.text());
            assert!(!reply.text().contains("SECRET-photo"), "{name}");
            let mut after = hospital.stored("Patient", &id);
            expected(&mut before);
            after["meta"] = before["meta"].clone();
            assert_eq!(after, before, "{name}");
            let record = record_of(&hospital, &reply);
            assert_eq!(record["interaction"], "patch", "{name}");
        }
        hospital.store(&patient("patched-not"));
        let before = hospital.stored("Patient", "patched-not");
        for (patch, status, code) in [
            (json!([{"op": "test", "path": "/gender", "value": "male"}]), 422, "patch-test-failed"),
            (
                json!([{"op": "replace", "path": "/telecom/7/value", "value": "x"}]),
                422,
                "patch-place-missing",
            ),
            (
                json!([{"op": "replace", "path": "/gender", "value": "male"}, {"op": "test", "path": "/gender", "value": "female"}]),
                422,
                "patch-test-failed",
            ),
            (json!([{"op": "nonsense", "path": "/gender"}]), 400, "change-malformed"),
            (json!([{"op": "replace", "path": "/id", "value": "p1"}]), 0, "*"),
            (json!([{"op": "replace", "path": "/gender", "value": 7}]), 400, "*"),
        ] {
            let reply = hospital
                .change("front-desk", ("PATCH", "Patient/patched-not"), &json_patch, &patch.to_string())
                .await;
            let stays = hospital.stored("Patient", "patched-not");
            if status == 0 {
                assert_eq!(stays["id"], "patched-not", "{patch}");
                continue;
            }
            assert_eq!(
                (reply.status, code == "*" || reply.code() == code),
                (status, true),
                "{patch}: {}",
                reply.text()
            );
            assert_eq!(stays["gender"], before["gender"], "{patch}");
        }
    });
}
