//! Tests of the judgement on one record: a truth table, the laws of time, and what the expressions say.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Search;
use super::judge::Holds::{self, CannotSay, No, Yes};
use super::registry::Registry;
use super::span::{Prefix, Span};
use super::tests::{plain_value, resource, search_one, search_text};
use crate::domain::fhir::r4::{ResourceType, SearchType, search_parameter};

const HERE: [&str; 2] = ["https://emr.test/r4", "https://fhir.test"];

fn search(kind: &str, query: &str) -> Search {
    search_text(resource(kind), query, &Registry::empty())
        .unwrap_or_else(|refusal| panic!("{query}: {refusal}"))
}

#[track_caller]
fn check(record: &Value, cases: &[(&str, Holds)]) {
    let kind = record["resourceType"].as_str().unwrap();
    for (query, expected) in cases {
        assert_eq!(search(kind, query).holds_for(record, &HERE), *expected, "{kind}?{query}");
    }
}

fn observation() -> Value {
    json!({
        "resourceType": "Observation", "id": "o1", "status": "final",
        "meta": {
            "lastUpdated": "2024-05-06T07:08:09.5Z", "profile": ["http://p|1"],
            "tag": [{"system": "http://t", "code": "a"}], "security": [{"code": "R"}],
        },
        "category": [
            {"coding": [{"system": "http://c", "code": "laboratory"}, {"code": "own"}], "text": "Lab"},
            {"coding": [{"system": "http://d", "code": "vital"}]},
        ],
        "code": {"coding": [{"system": "http://loinc.org", "code": "1-1"}]},
        "subject": {"reference": "Patient/p1"},
        "performer": [{"reference": "https://emr.test/r4/Practitioner/d1/_history/3"}, {"display": "x"}],
        "encounter": {"reference": "https://elsewhere.test/Encounter/e1"},
        "effectiveDateTime": "2024-01-31T23:30:00+02:00",
        "valueCodeableConcept": {"coding": [{"system": "http://v", "code": "x"}]},
    })
}

#[test]
fn tokens_are_told() {
    check(
        &observation(),
        &[
            ("category=laboratory", Yes),
            ("category=http://c|laboratory", Yes),
            ("category=http://c|Laboratory", CannotSay),
            ("category=http://c|own", No),
            ("category=|own", Yes),
            ("category=|laboratory", No),
            ("category=http://d|", Yes),
            ("category=http://e|", No),
            ("category=http://C|laboratory", No),
            ("category=none,vital", Yes),
            ("category=none,other", No),
            ("category=vital&category=laboratory", Yes),
            ("category=vital&category=none", No),
            ("category:not=vital", No),
            ("category:not=none", Yes),
            ("category:not=Vital", CannotSay),
            ("category:missing=true", No),
            ("category:missing=false", Yes),
            ("method:missing=true", Yes),
            ("method:not=x", Yes),
            ("method=x", No),
            ("category:text=Lab", CannotSay),
            ("category:in=http://vs", CannotSay),
            ("status=final", Yes),
            ("status=http://hl7.org/fhir/observation-status|final", CannotSay),
            ("status=http://hl7.org/fhir/observation-status|amended", No),
            ("status=final,amended", Yes),
            ("value-concept=http://v|x", Yes),
            ("value-concept:missing=false", CannotSay),
            ("_id=o1", Yes),
            ("_id=o2", No),
            ("_tag=http://t|a", Yes),
            ("_security=R", Yes),
            ("_security=HIV", No),
            ("_profile=http://p", CannotSay),
            ("_profile=http://q", No),
        ],
    );
    check(
        &json!({"resourceType": "Observation", "valueBoolean": true}),
        &[("value-concept=true", CannotSay), ("value-concept=false", No)],
    );
    check(
        &json!({"resourceType": "Patient", "active": true, "gender": "male", "deceasedBoolean": true,
            "identifier": [{"system": "http://mrn", "value": "7"}], "telecom": [{"system": "phone", "value": "5"}]}),
        &[
            ("active=true", Yes),
            ("active=false", No),
            ("active=http://x|true", CannotSay),
            ("identifier=http://mrn|7", Yes),
            ("identifier=7", Yes),
            ("identifier=http://mrn|8", No),
            ("identifier:of-type=http://x|MR|7", CannotSay),
            ("telecom=5", CannotSay),
            ("phone=5", CannotSay),
            ("deceased=true", CannotSay),
        ],
    );
}

#[test]
fn references_are_told() {
    check(
        &observation(),
        &[
            ("subject=Patient/p1", Yes),
            ("subject=p1", Yes),
            ("subject=https://fhir.test/Patient/p1", Yes),
            ("subject:Patient=p1", Yes),
            ("subject:Group=p1", No),
            ("subject=Group/p1", No),
            ("subject=Patient/p11", No),
            ("patient=p1", Yes),
            ("performer=Practitioner/d1", Yes),
            ("performer=Practitioner/d2,Practitioner/d1", Yes),
            ("encounter=Encounter/e1", CannotSay),
            ("encounter=https://elsewhere.test/Encounter/e1", Yes),
            ("encounter=https://elsewhere.test/Encounter/e2", No),
            ("specimen=s1", No),
            ("subject:missing=false", CannotSay),
            ("subject:identifier=7", CannotSay),
            ("subject:Patient.name=x", CannotSay),
            ("patient.name=x&status=amended", No),
        ],
    );
    let group = json!({"resourceType": "Observation", "subject": {"reference": "Group/p1"}});
    check(&group, &[("patient=p1", No), ("subject=p1", Yes), ("subject=Group/p1", Yes)]);
    let answers = json!({"resourceType": "QuestionnaireResponse", "questionnaire": "http://q|2"});
    check(
        &answers,
        &[
            ("questionnaire=http://q", Yes),
            ("questionnaire=http://q|2", Yes),
            ("questionnaire=http://q|1", No),
        ],
    );
}

#[test]
fn texts_are_told() {
    check(
        &json!({"resourceType": "Patient", "name": [{"family": "Müller  Łé", "given": ["Ada", "B"], "use": "official"}],
            "address": [{"city": "Gent", "line": ["Kouter 1"]}]}),
        &[
            ("family=mull", Yes),
            ("family=M%C3%9CLLER", Yes),
            ("family=muller%20%C5%82e", Yes),
            ("family=ller", No),
            ("family:contains=LLER", Yes),
            ("family:contains=x", No),
            ("family:exact=M%C3%BCller%20%20%C5%81%C3%A9", Yes),
            ("family:exact=m%C3%BCller%20%20%C5%81%C3%A9", No),
            ("given=b", Yes),
            ("name=ada", Yes),
            ("name=official", No),
            ("address=kouter", Yes),
            ("address-city=ge,xx", Yes),
            ("phonetic=mull", CannotSay),
            ("_text=mull", CannotSay),
            ("family:missing=false", Yes),
            ("address-state:missing=true", Yes),
        ],
    );
    let twin = json!({"resourceType": "Patient", "_birthDate": {"extension": [{"url": "http://x"}]}});
    check(&twin, &[("birthdate:missing=true", CannotSay), ("birthdate=2000", No)]);
}

#[test]
fn dates_are_told() {
    check(
        &observation(),
        &[
            // 21:30 in UTC, of the last of January.
            ("date=2024-01-31T21:30Z", Yes),
            ("date=2024-01-31T21:30:00Z", Yes),
            ("date=2024-01-31T21:30:00.0Z", No),
            ("date=2024-01-31T21:31Z", No),
            ("date=2024-01-31", CannotSay),
            ("date=2024", Yes),
            ("date=2023", No),
            ("date=ne2023", Yes),
            ("date=gt2024-01-29", Yes),
            ("date=gt2024-02-02", No),
            ("date=lt2024-02-02", Yes),
            ("date=ge2024-01-31T21:30:00Z&date=le2024-01-31T21:30:00Z", Yes),
            ("date=sa2024-01-31T21:29Z", Yes),
            ("date=eb2024-01-31T21:30Z", No),
            ("date=ap2024", CannotSay),
            ("date=ap2024,2023", CannotSay),
            ("_lastUpdated=ge2024-05-06T07:08:09.5Z", Yes),
            ("_lastUpdated=gt2024-05-06T07:08:09.5Z", No),
            ("_lastUpdated=2024-05-06T07:08:09Z", Yes),
        ],
    );
    let at = |key: &str, value: Value| json!({"resourceType": "Observation", key: value});
    let period = at("effectivePeriod", json!({"start": "2024-01-02", "end": "2024-01-04"}));
    check(
        &period,
        &[
            ("date=2024-01", Yes),
            ("date=2024-01-03", No),
            ("date=ge2024-01-04", Yes),
            ("date=ge2024-01-05", No),
            ("date=sa2024-01-01", Yes),
            ("date=sa2024-01-02", No),
            ("date=le2024-01-02", Yes),
            ("date=eb2024-01-05", Yes),
        ],
    );
    let open = at("effectivePeriod", json!({"start": "2024-01-02"}));
    check(
        &open,
        &[("date=gt2999", Yes), ("date=2024", No), ("date=lt2024-01-02", No), ("date=lt2024-01-03", Yes)],
    );
    let odd = at("effectivePeriod", json!({"start": "soon", "end": "2024-01-04"}));
    check(&odd, &[("date=lt2024", CannotSay)]);
    check(&at("effectiveTiming", json!({"event": ["2024"]})), &[("date=2024", CannotSay)]);
    check(
        &json!({"resourceType": "Condition", "onsetString": "2024"}),
        &[("onset-date=2024", No), ("onset-info=20", Yes)],
    );
    check(
        &json!({"resourceType": "Condition", "onsetDateTime": "2024-02-03"}),
        &[("onset-date=2024-02-03", Yes), ("onset-date=2024-02", Yes), ("onset-info=20", No)],
    );
}

#[test]
fn another_type_is_not_what_is_asked() {
    let record = json!({"resourceType": "Patient", "id": "1"});
    assert_eq!(search("Observation", "_id=1").holds_for(&record, &HERE), No);
    assert_eq!(search("Observation", "_id=1").holds_for(&json!({"id": "1"}), &HERE), No);
}

/// HL7's own expressions, as the sandbox has them: type, code, kind, targets, expression.
fn expressions() -> Vec<(ResourceType, &'static str, &'static str)> {
    let rows = include_str!("../../../../sandbox/data/r4-search.txt").lines();
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.split('\t').collect();
        ResourceType::from_name(cells[0]).map(|resource| (resource, cells[1], cells[4]))
    };
    rows.filter_map(row).collect()
}

/// A parameter whose expression picks among the values of an element is none that a record alone answers, and of a
/// choice no other date or text counts than the expression takes.
#[test]
fn expressions_with_conditions_are_not_judged() {
    let (mut judged, mut conditional) = (0, 0);
    for (resource, code, expression) in expressions() {
        let parameter = search_parameter(resource, code).unwrap();
        let Ok(search) = search_one(resource, code, &plain_value(resource, parameter)) else { continue };
        let at = format!("{}?{code}: {expression}", resource.name());
        let picks =
            ["extension(", "hasExtension", "exists()", "[0]"].iter().any(|word| expression.contains(word))
                || expression.replace("where(resolve() is", "").contains("where(");
        if picks {
            conditional += 1;
            assert!(!search.is_judgeable(), "{at}");
        }
        judged += usize::from(search.is_judgeable());
        let narrow = expression.contains("as dateTime") && !expression.contains("Period");
        let alone = ["Condition", "Goal", "Patient"].contains(&resource.name());
        if parameter.kind == SearchType::Date && narrow && !alone {
            assert!(!search.is_judgeable(), "{at}");
        }
    }
    assert!(conditional > 60 && judged > 900, "{conditional} of {judged}");
}

/// All prefixes.
const PREFIXES: [&str; 9] = ["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"];

fn day_and_time() -> impl Strategy<Value = String> {
    (1..=28u8, 0..24u8, 0..60u8)
        .prop_map(|(day, hour, minute)| format!("2024-03-{day:02}T{hour:02}:{minute:02}:00"))
}

proptest! {
    /// Where a zone is unsaid, what is said holds in every zone.
    #[test]
    fn what_is_said_without_a_zone_holds_in_all(
        one in day_and_time(), other in day_and_time(), prefix in proptest::sample::select(&PREFIXES[..]),
        zone in -14..=14i8,
    ) {
        let (prefix, _) = Prefix::split(prefix);
        let asked = Span::read(&format!("{other}Z")).unwrap();
        let unsaid = Span::read(&one).unwrap().lies(prefix, asked);
        let sign = if zone < 0 { '-' } else { '+' };
        let said = Span::read(&format!("{one}{sign}{:02}:00", zone.abs())).unwrap().lies(prefix, asked);
        prop_assert!(unsaid == CannotSay || unsaid == said);
        prop_assert!(said != CannotSay || prefix == Prefix::Approximately);
    }

    /// R4 search.html 3.1.1.4.6: of two spans one is asked for, exactly one of each pair holds.
    #[test]
    fn prefixes_come_in_pairs(one in day_and_time(), other in day_and_time()) {
        let lies = |prefix| {
            let (prefix, _) = Prefix::split(prefix);
            Span::read(&format!("{one}Z")).unwrap().lies(prefix, Span::read(&format!("{other}Z")).unwrap())
        };
        prop_assert_eq!(lies("eq").not(), lies("ne"));
        prop_assert_eq!(lies("sa"), lies("gt"));
        prop_assert_eq!(lies("eb"), lies("lt"));
        prop_assert_eq!(lies("ge"), lies("gt").or(lies("eq")));
        prop_assert_eq!(lies("le"), lies("lt").or(lies("eq")));
    }
}
