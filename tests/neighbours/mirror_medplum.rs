//! What Medplum's router can be asked, and where the gate answers otherwise.
//!
//! Owns: the questions, and the reason of every difference. Must never: leave a difference without its reason.
//! Look next: `mirror`, which asks and compares.

use crate::mirror::{Mirror, Question, ask, get};

const JSON: (&str, &str) = ("content-type", "application/fhir+json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON_PATCH: (&str, &str) = ("content-type", "application/json-patch+json");
const IF_MATCH: (&str, &str) = ("if-match", "W/\"{version}\"");
const STALE: (&str, &str) = ("if-match", "W/\"77\"");
const NONE_EXIST: (&str, &str) = ("if-none-exist", "identifier=urn:twin|{id}");
/// Else the gate leaves the records out of a Bundle's answer, as R4 lets it.
const WITH_RECORDS: (&str, &str) = ("prefer", "return=representation");

const READS: &[Question] = &[
    get("Patient/p1"),
    get("Patient/none"),
    get("Patient/p1/_history/99"),
    // Medplum has no HEAD; the gate serves it wherever there is GET.
    ask("HEAD", "Patient/p1", &[], "").but(200),
    // Medplum's history entries have no `request`, without which a history is no FHIR (bdl-3): the gate writes one.
    get("Patient/p1/_history").own_envelope(),
    // Medplum gives no `next` links: what does not fit is not to be had from it, with the gate or without.
    get("Patient?_count=3&_sort=family"),
    get("Observation?patient=Patient/p1&_count=100"),
    get("Observation?subject=Patient/p1&status=final&_sort=-date"),
    get("Observation?code=http%3A%2F%2Floinc.org%7C29463-7"),
    get("Patient?family=none"),
    get("MedicationRequest?_include=MedicationRequest:subject"),
    get("Patient?_id=p1&_revinclude=Observation:subject"),
    ask("POST", "Observation/_search", &[FORM], "subject=Patient/p1&_count=4"),
    // What Medplum has no such address for, the gate says it does not support.
    get("Observation/_history?_count=7").but(400),
    get("Patient/p1/Observation?_count=5").but(400),
    // Medplum answers this with a searchset, which is no history.
    get("_history?_count=50").but(502),
];

const WRITES: &[Question] = &[
    // A record that was not there is created (R4 http.html, update as create), which Medplum does not say.
    ask(
        "PUT",
        "Patient/{id}",
        &[JSON],
        r#"{"resourceType":"Patient","id":"{id}","identifier":[{"system":"urn:twin","value":"{id}"}],"active":true,
            "name":[{"family":"Twin","given":["A","B"]}],"multipleBirthInteger":2,
            "generalPractitioner":[{"reference":"Practitioner/pr-nurse"}]}"#,
    )
    .but(201),
    get("Patient/{id}"),
    get("Patient/{id}/_history/{version}"),
    ask(
        "PUT",
        "Patient/{id}",
        &[JSON],
        r#"{"resourceType":"Patient","id":"{id}","identifier":[{"system":"urn:twin","value":"{id}"}],"active":false}"#,
    ),
    ask("PUT", "Patient/{id}", &[JSON, STALE], r#"{"resourceType":"Patient","id":"{id}","active":true}"#),
    ask("PUT", "Patient/{id}", &[JSON], r#"{"resourceType":"Patient","id":"other","active":true}"#),
    get("Patient/{id}"),
    ask(
        "PUT",
        "Patient/{id}",
        &[JSON, IF_MATCH],
        r#"{"resourceType":"Patient","id":"{id}","identifier":[{"system":"urn:twin","value":"{id}"}],"active":true}"#,
    ),
    ask(
        "PATCH",
        "Patient/{id}",
        &[JSON_PATCH],
        r#"[{"op":"replace","path":"/active","value":false},{"op":"add","path":"/birthDate","value":"1970-01-01"}]"#,
    ),
    // The gate applies the patch itself; a test that fails is 422 with it, as with hfs.
    ask("PATCH", "Patient/{id}", &[JSON_PATCH], r#"[{"op":"test","path":"/active","value":true}]"#).but(422),
    // Without an id in the record the gate, which updates the one that was found, puts it first and Medplum last.
    ask(
        "PUT",
        "Patient?identifier=urn:twin%7C{id}",
        &[JSON],
        r#"{"resourceType":"Patient","id":"{id}","identifier":[{"system":"urn:twin","value":"{id}"}],"active":true}"#,
    ),
    ask("POST", "Patient", &[JSON, NONE_EXIST], r#"{"resourceType":"Patient","active":false}"#),
    ask(
        "POST",
        "Patient",
        &[JSON],
        r#"{"resourceType":"Patient","identifier":[{"system":"urn:twin","value":"{id}-2"}],"active":true}"#,
    ),
    ask("POST", "Patient", &[JSON], r#"{"resourceType":"Observation","status":"final","code":{"text":"x"}}"#),
    ask(
        "POST",
        "",
        &[JSON, WITH_RECORDS],
        r#"{"resourceType":"Bundle","type":"batch","entry":[
        {"request":{"method":"GET","url":"Patient/{id}"}},
        {"request":{"method":"GET","url":"Patient/none"}},
        {"request":{"method":"POST","url":"Patient"},"resource":{"resourceType":"Patient","active":true}}]}"#,
    ),
    ask(
        "POST",
        "",
        &[JSON, WITH_RECORDS],
        r#"{"resourceType":"Bundle","type":"transaction","entry":[
        {"fullUrl":"urn:uuid:11111111-1111-4111-8111-111111111111","request":{"method":"POST","url":"Patient"},
         "resource":{"resourceType":"Patient","active":true}},
        {"request":{"method":"PUT","url":"Patient/{id}"},
         "resource":{"resourceType":"Patient","id":"{id}","active":true,"birthDate":"1999-09-09"}}]}"#,
    ),
    // The gate looks for what is to be deleted before the EMR is asked for anything, as Medplum does.
    ask(
        "POST",
        "",
        &[JSON],
        r#"{"resourceType":"Bundle","type":"transaction","entry":[
        {"request":{"method":"PUT","url":"Patient/{id}"},
         "resource":{"resourceType":"Patient","id":"{id}","active":false}},
        {"request":{"method":"DELETE","url":"Patient/{id}-none"}}]}"#,
    ),
    get("Patient/{id}"),
    get("Patient/{id}/_history").own_envelope(),
    // The gate has nothing to say of a deletion; Medplum says `All OK`.
    ask("DELETE", "Patient/{id}", &[], "").but(204),
    get("Patient/{id}"),
    ask("DELETE", "Patient/{id}", &[], ""),
    ask("DELETE", "Patient?identifier=urn:twin%7C{id}-2", &[], "").but(204),
    get("Patient?identifier=urn:twin%7C{id}-2"),
];

/// Everything Medplum's router can do.
pub(crate) async fn through_the_gate(server: &str) {
    let mut mirror = Mirror::open(server).await;
    for question in READS {
        mirror.read(*question).await;
    }
    mirror.write(WRITES).await;
    mirror.close().await;
}
