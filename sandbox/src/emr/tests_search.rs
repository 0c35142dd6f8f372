//! Tests of search beyond the first table: every parameter reads, modifiers, composites, compartments, `_filter`.

use serde_json::Value;

use super::ask::Ask;
use super::tests::{charted, found};
use super::*;

fn stocked() -> Emr {
    let emr = charted();
    emr.load_extras().unwrap();
    emr
}

/// The references of a Bundle that a GET of `target` answers, or its status.
fn looked(emr: &Emr, target: &str, prefer: &str) -> String {
    let asked = Ask { prefer, ..Ask::new("http://h/fhir", emr.now(), "GET", target) };
    let reply = reading::look(&emr.store(), &asked).unwrap();
    if reply.status != 200 {
        return reply.status.as_str().to_owned();
    }
    let bundle: Value = serde_json::from_slice(&reply.body.unwrap()).unwrap();
    let empty = Vec::new();
    let name = |entry: &Value| {
        let mark = if entry["search"]["mode"] == "include" { "+" } else { "" };
        format!("{mark}{}", entry["fullUrl"].as_str().unwrap().strip_prefix("http://h/fhir/").unwrap())
    };
    bundle["entry"].as_array().unwrap_or(&empty).iter().map(name).collect::<Vec<_>>().join(" ")
}

/// Type, question, and the ids it finds.
const QUESTIONS: &[(&str, &str, &str)] = &[
    // Composites: both parts of one element.
    ("Observation", "code-value-quantity=2339-0$gt100", "obs-p2-glucose"),
    ("Observation", "code-value-quantity=http://loinc.org|4548-4$lt7.2", "obs-hba1c obs-p2-hba1c"),
    ("Observation", "component-code-value-quantity=8462-4$gt100", ""),
    ("Observation", "component-code-value-quantity=8480-6$118.5", "obs-p2-panel"),
    ("Observation", "combo-code-value-quantity=8480-6$lt120,29463-7$gt80", "obs-p3-weight obs-p2-panel"),
    (
        "Observation",
        "code-value-quantity=2339-0",
        "refused: search parameter code-value-quantity not understood",
    ),
    // Numbers.
    ("RiskAssessment", "probability=0.25", "risk-p3"),
    ("RiskAssessment", "probability=gt0.3", ""),
    // Modifiers.
    (
        "Observation",
        "code:in=http://hospital.example/fhir/ValueSet/glucose&subject=Patient/p2",
        "obs-p2-glucose obs-p2-hba1c",
    ),
    ("Observation", "code:not-in=ValueSet/vs-glucose&subject=Patient/p2", "obs-p2-panel"),
    ("Observation", "code:in=ValueSet/none", "refused: search parameter code:in not understood"),
    ("Group", "code:below=http://hospital.example/fhir/CodeSystem/wards|medical", "group-ward"),
    ("Group", "code:above=http://hospital.example/fhir/CodeSystem/wards|m1", "group-ward"),
    ("Group", "code:below=http://hospital.example/fhir/CodeSystem/wards|surgical", ""),
    ("Patient", "identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|0000-2222", "p2"),
    ("Patient", "identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|0000-9999", ""),
    ("CodeSystem", "url:below=http://hospital.example/fhir", "cs-wards"),
    ("CodeSystem", "url:above=http://hospital.example/fhir/CodeSystem/wards/more", "cs-wards"),
    ("CodeSystem", "url=http://hospital.example/fhir", ""),
    ("Provenance", "agent:text=testnurse", "prov-p2"),
    ("Observation", "value-quantity:missing=true&subject=Patient/p2", "obs-p2-panel"),
    // Everywhere.
    ("Patient", "_list=list-round", "p1 p3"),
    ("Condition", "_list=list-problems", "cond-diabetes cond-depression"),
    ("Condition", "_text=mellitus", "cond-diabetes"),
    ("Patient", "_content=sampleton", "p3"),
    ("Observation", "_source:missing=false", ""),
    // Nested chains.
    ("Patient", "_has:Observation:patient:_has:Provenance:target:agent=pr-nurse", "p2"),
    ("Observation", "based-on:ServiceRequest.requester.identifier=S-100", "obs-p2-panel"),
    ("Observation", "has-member.code=2339-0", "obs-p2-panel"),
    ("Observation", "subject._has:Group:member:_id=group-ward&code=4548-4", "obs-hba1c obs-p2-hba1c"),
    ("Observation", "patient.shoe-size=43", "refused: unknown search parameter patient.shoe-size"),
    ("Observation", "patient.birthdate=never", "refused: search parameter patient.birthdate not understood"),
    // Includes that go on.
    ("CarePlan", "_include=CarePlan:goal&_include:iterate=Goal:patient", "plan-p2 +goal-p2 +p2"),
    // Filters.
    ("Patient", "_filter=family eq \"Beispiel\" and gender eq female", "p1"),
    ("Patient", "_filter=family eq \"Beispiel\" or birthdate lt 1940", "p1 p5 p6"),
    ("Patient", "_filter=not (family sw \"beis\" or gender ne male)", "p3 p6"),
    ("Patient", "_filter=family ew \"tius\" and deceased pr false", "p3"),
    ("Patient", "_filter=name co \"acid\"", "p2"),
    ("Observation", "_filter=subject.family eq \"Exemplo\" and value-quantity gt 100", "obs-p2-glucose"),
    ("Patient", "_filter=family xx 1", "refused: search parameter _filter not understood"),
    ("Patient", "_filter=(family eq \"x\"", "refused: search parameter _filter not understood"),
    ("Patient", "_filter=shoe-size eq 43", "refused: unknown search parameter _filter"),
];

#[test]
fn deeper_search_semantics() {
    let emr = stocked();
    for (resource_type, question, expected) in QUESTIONS {
        let coded = question.replace(' ', "%20").replace('"', "%22");
        assert_eq!(found(&emr, resource_type, &coded), *expected, "{resource_type}?{question}");
    }
}

/// Targets below the base, and what they find.
const TARGETS: &[(&str, &str)] = &[
    ("?_type=Group,List&_sort=_id", "Group/group-course Group/group-ward List/list-problems List/list-round"),
    ("?_type=Patient&_id=p1,p2", "Patient/p1 Patient/p2"),
    ("?_id=p2", "Patient/p2"),
    ("?_type=Patient,Observation&family=x", "400"),
    ("?_type=patient", "400"),
    ("Patient/p2/Condition", "Condition/cond-p2"),
    ("Patient/p2/Patient", "Patient/p2"),
    ("Patient/p2/Observation?code=4548-4", "Observation/obs-p2-hba1c"),
    // Whoever recorded it: the compartment is more than the subject.
    ("Patient/p1/AllergyIntolerance", "AllergyIntolerance/allergy-penicillin AllergyIntolerance/allergy-p3"),
    ("Patient/p4/Appointment", "Appointment/appt-pair"),
    ("Patient/p4/*?_type=Communication,Patient", "Communication/comm-p4 Patient/p4"),
    ("Encounter/enc2/Observation?code=29463-7", "Observation/obs-weight"),
    ("Practitioner/pr-nurse/Provenance", "Provenance/prov-p2"),
    ("Patient/p2/Organization", ""),
    ("Organization/org-hospital/Patient", "404"),
    (
        "Observation/$lastn?subject=Patient/p2&code=2339-0,4548-4",
        "Observation/obs-p2-glucose Observation/obs-p2-hba1c",
    ),
    ("Observation/$lastn?patient=p1&code=29463-7", "Observation/obs-weight"),
    ("Observation/$lastn?patient=p1&max=x", "400"),
    ("Patient/p3/$everything?_type=Patient,Consent", "Patient/p3 Consent/consent-p3"),
    ("Patient/p3/$everything?_type=Observation&start=2026-01-07", ""),
    ("Patient/p3/$everything?_type=Observation&end=2026-01-07", "Observation/obs-p3-weight"),
    ("Patient/none/$everything", "404"),
    ("Patient/$everything", "404"),
    ("Patient/p1/$purge", "404"),
];

#[test]
fn every_address_finds_its_own() {
    let emr = stocked();
    for (target, expected) in TARGETS {
        assert_eq!(looked(&emr, target, "handling=strict"), *expected, "{target}");
    }
    let all = looked(&emr, "Patient/p2/$everything", "");
    for part in ["Patient/p2", "Observation/obs-p2-panel", "Appointment/appt1", "+Practitioner/pr-nurse"] {
        assert!(all.split(' ').any(|one| one == part), "{part} in {all}");
    }
    assert!(!all.contains("Patient/p1"), "{all}");
    let total: usize = emr.census().iter().map(|(_, count)| count).sum();
    assert_eq!(looked(&emr, "?_count=1000", "").split(' ').count(), total);
}

#[test]
fn every_parameter_of_every_type_is_read() {
    assert_eq!(parameters::unread(), &[] as &[&str], "expressions that are not understood");
    let emr = stocked();
    let mut asked = 0;
    for name in operations::type_names() {
        for parameter in parameters::of(name) {
            let plain = match parameter.kind {
                parameters::Kind::Date => "2026",
                parameters::Kind::Number | parameters::Kind::Quantity => "1",
                parameters::Kind::Composite => continue,
                _ => "x",
            };
            for question in
                [format!("{}={plain}", parameter.code), format!("{}:missing=true", parameter.code)]
            {
                let answer = found(&emr, name, &question);
                assert!(!answer.starts_with("refused"), "{name}?{question}: {answer}");
                asked += 1;
            }
        }
    }
    assert!(asked > 3_000, "{asked}");
}

/// Shapes that need a choice, a guard or a part of an expression to be read right.
#[test]
fn expressions_read_choices_and_guards() {
    let emr = Emr::new();
    let records = [
        r#"{"resourceType":"Condition","id":"c","onsetAge":{"value":52,"unit":"years","system":"http://unitsofmeasure.org","code":"a"},"abatementString":"healed"}"#,
        r#"{"resourceType":"Observation","id":"o","effectiveTiming":{"event":["2020-02-03"]},"valueCodeableConcept":{"text":"Found it"}}"#,
        r#"{"resourceType":"Bundle","id":"b","entry":[{"resource":{"resourceType":"Composition"}},{"resource":{"resourceType":"Patient"}}]}"#,
        r#"{"resourceType":"Observation","id":"r","subject":{"identifier":{"system":"s","value":"7"},"type":"Patient","display":"Somebody"}}"#,
        r#"{"resourceType":"MedicationRequest","id":"m","medicationReference":{"reference":"Medication/1"}}"#,
        r#"{"resourceType":"ActivityDefinition","id":"a","useContext":[{"code":{"code":"age"},"valueRange":{"low":{"value":1},"high":{"value":5}}}]}"#,
    ];
    for record in records {
        emr.put(record.as_bytes()).unwrap();
    }
    let cases = [
        ("Condition", "onset-age=52", "c"),
        ("Condition", "onset-date:missing=true", "c"),
        ("Condition", "abatement-string=heal", "c"),
        ("Observation", "date=2020-02-03", "o"),
        ("Observation", "value-string=found", "o"),
        ("Observation", "value-concept:missing=false", "o"),
        ("Observation", "subject:identifier=s|7", "r"),
        ("Observation", "patient:text=some", "r"),
        ("Observation", "patient:missing=false", "r"),
        ("MedicationRequest", "medication=Medication/1", "m"),
        ("MedicationRequest", "code:missing=true", "m"),
        ("ActivityDefinition", "context-type-quantity=age$gt2", "a"),
    ];
    for (name, question, expected) in cases {
        assert_eq!(found(&emr, name, question), expected, "{name}?{question}");
    }
}

/// Every official example can be stored, and what it refers to is in the index that searches begin with.
#[test]
fn official_examples_are_stored_and_indexed() {
    let folder =
        std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/hl7-r4-examples");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED official_examples_are_stored_and_indexed: {} is not there", folder.display());
        return;
    };
    let emr = Emr::new();
    for entry in entries {
        emr.put(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
    }
    let store = emr.store();
    let (mut types, mut found) = (0, 0);
    for (name, ward) in store.types() {
        types += 1;
        for record in &ward.records {
            for reference in record.terms.references() {
                let back = ward.referring(&reference).is_some_and(|at| !at.is_empty());
                assert!(back, "{name}/{} refers to {reference}", record.id);
                found += 1;
            }
        }
    }
    assert!(types > 100 && found > 500, "{types} {found}");
}
