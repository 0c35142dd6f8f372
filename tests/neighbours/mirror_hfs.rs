//! What helios-hfs can be asked, and where the gate answers otherwise.
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
    get("Patient/p1/_history/1"),
    get("Patient/none"),
    get("Patient/p1/_history/99"),
    ask("HEAD", "Patient/p1", &[], ""),
    ask("GET", "Patient/p1", &[("if-none-match", "W/\"3\"")], ""),
    ask("GET", "Patient/p1", &[("if-none-match", "W/\"2\"")], ""),
    // What a record of a summary holds is decided here, from the full record.
    get("Patient/p1?_elements=name").own_body(),
    get("Patient?_summary=true").own_body(),
    get("Patient/p1/_history"),
    get("Patient/p1/_history?_count=2"),
    get("Observation/_history?_count=7"),
    get("_history?_count=20"),
    get("Patient?_count=3&_sort=family"),
    get("Observation?patient=p1&_count=4"),
    get("Observation?patient=p1&status=final&_sort=-date"),
    get("Observation?code=http%3A%2F%2Floinc.org%7C29463-7"),
    get("Observation?value-quantity=gt10&_count=2"),
    get("Observation?subject:Patient.family=Beispiel"),
    get("Patient?_has:Observation:patient:code=29463-7"),
    get("MedicationRequest?patient=p1&_include=MedicationRequest:patient"),
    get("Patient?_id=p1&_revinclude=Observation:patient"),
    get("Patient?family=none"),
    get("Patient/p1/Observation?_count=5"),
    ask("POST", "Observation/_search", &[FORM], "patient=p1&_count=4"),
    // A shared appointment tells of others: in one patient's whole record nothing comes that names another.
    get("Patient/p1/$everything").about_one("p1"),
    get("Patient/p2/$everything").about_one("p2"),
    get("Patient/p4/$everything"),
];

const WRITES: &[Question] = &[
    ask(
        "PUT",
        "Patient/{id}",
        &[JSON],
        r#"{"resourceType":"Patient","id":"{id}","identifier":[{"system":"urn:twin","value":"{id}"}],"active":true,
            "name":[{"family":"Twin\u00fc","given":["A","B"]}],"multipleBirthInteger":2,
            "extension":[{"url":"urn:e","valueDecimal":0.0100}],"_birthDate":{"extension":[{"url":"urn:x","valueCode":"y"}]},
            "generalPractitioner":[{"reference":"Practitioner/pr-nurse"}]}"#,
    ),
    get("Patient/{id}"),
    get("Patient/{id}/_history/{version}"),
    ask(
        "PUT",
        "Patient/{id}",
        &[JSON],
        r#"{"resourceType":"Patient","id":"{id}","identifier":[{"system":"urn:twin","value":"{id}"}],"active":false}"#,
    ),
    ask("PUT", "Patient/{id}", &[JSON, STALE], r#"{"resourceType":"Patient","id":"{id}","active":false}"#),
    ask("PUT", "Patient/{id}", &[JSON], r#"{"resourceType":"Patient","id":"other","active":false}"#),
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
    ask("PATCH", "Patient/{id}", &[JSON_PATCH], r#"[{"op":"test","path":"/active","value":true}]"#),
    ask(
        "PATCH",
        "Patient/{id}",
        &[JSON],
        r#"{"resourceType":"Parameters","parameter":[{"name":"operation","part":[
            {"name":"type","valueCode":"replace"},{"name":"path","valueString":"Patient.birthDate"},
            {"name":"value","valueDate":"1971-02-03"}]}]}"#,
    ),
    // Without an id in the record the gate, which updates the one record that was found, puts it first and hfs last.
    ask(
        "PUT",
        "Patient?identifier=urn:twin%7C{id}",
        &[JSON],
        r#"{"resourceType":"Patient","id":"{id}","identifier":[{"system":"urn:twin","value":"{id}"}],"active":true}"#,
    ),
    ask(
        "PUT",
        "Patient/{id}",
        &[JSON, ("prefer", "return=minimal")],
        r#"{"resourceType":"Patient","id":"{id}",
        "identifier":[{"system":"urn:twin","value":"{id}"}],"active":true,"gender":"other"}"#,
    ),
    ask("POST", "Patient", &[JSON, NONE_EXIST], r#"{"resourceType":"Patient","active":false}"#),
    ask(
        "POST",
        "Patient",
        &[JSON],
        r#"{"resourceType":"Patient","identifier":[{"system":"urn:twin","value":"{id}-2"}],"active":true}"#,
    ),
    ask("POST", "Patient", &[JSON], r#"{"resourceType":"Observation","status":"final","code":{"text":"x"}}"#),
    ask("POST", "Patient", &[JSON], r#"{"resourceType":"Patient","#),
    ask(
        "POST",
        "",
        &[JSON, WITH_RECORDS],
        r#"{"resourceType":"Bundle","type":"batch","entry":[
        {"request":{"method":"GET","url":"Patient/{id}"}},
        {"request":{"method":"GET","url":"Patient/none"}},
        {"request":{"method":"POST","url":"Patient"},"resource":{"resourceType":"Patient","active":true}},
        {"request":{"method":"PUT","url":"Patient/{id}-3"},
         "resource":{"resourceType":"Patient","id":"{id}-3","active":true}},
        {"request":{"method":"DELETE","url":"Patient/{id}-3"}}]}"#,
    ),
    ask(
        "POST",
        "",
        &[JSON, WITH_RECORDS],
        r#"{"resourceType":"Bundle","type":"transaction","entry":[
        {"fullUrl":"urn:uuid:11111111-1111-4111-8111-111111111111","request":{"method":"PUT","url":"Patient/{id}-4"},
         "resource":{"resourceType":"Patient","id":"{id}-4","active":true}},
        {"request":{"method":"PUT","url":"Observation/{id}-o"},
         "resource":{"resourceType":"Observation","id":"{id}-o","status":"final","code":{"text":"x"},
                     "subject":{"reference":"urn:uuid:11111111-1111-4111-8111-111111111111"}}},
        {"request":{"method":"PUT","url":"Patient/{id}"},
         "resource":{"resourceType":"Patient","id":"{id}","active":true,"birthDate":"1999-09-09"}}]}"#,
    ),
    get("Observation/{id}-o"),
    // The gate looks for what is to be deleted before the EMR is asked for anything, and says so as it would alone.
    ask(
        "POST",
        "",
        &[JSON],
        r#"{"resourceType":"Bundle","type":"transaction","entry":[
        {"request":{"method":"PUT","url":"Patient/{id}"},
         "resource":{"resourceType":"Patient","id":"{id}","active":false}},
        {"request":{"method":"DELETE","url":"Patient/{id}-none"}}]}"#,
    )
    .but(404),
    get("Patient/{id}"),
    get("Patient/{id}/_history"),
    // What was found is told in codes; the EMR's own words stay behind.
    ask("POST", "Patient/$validate", &[JSON], r#"{"resourceType":"Patient","active":true}"#).own_body(),
    ask("DELETE", "Patient/{id}", &[], ""),
    // Deleted, missing and withheld are one (T-161).
    get("Patient/{id}").but(404),
    get("Patient/{id}/_history"),
    ask("DELETE", "Patient/{id}", &[], ""),
    ask("DELETE", "Patient?identifier=urn:twin%7C{id}-2", &[], ""),
    get("Patient?identifier=urn:twin%7C{id}-2"),
];

/// Everything hfs can do.
pub(crate) async fn through_the_gate(server: &str) {
    let mut mirror = Mirror::open(server).await;
    for question in READS {
        mirror.read(*question).await;
    }
    mirror.write(WRITES).await;
    mirror.close().await;
}
