//! What is remembered of a long text counts at its place only: the same bytes are another thing elsewhere.
//!
//! Owns: the law that the place of an object has a say, on made records that hold the same bytes at several places.
//! Must never: compare with anything but the record alone, which is too short for anything to be remembered.
//! Look next: `domain::filter::pattern`, whose `Setting` is the place; `again`, for what differs at one place.

use super::again::{each_first, each_is_written_as_alone, mask, nothing_hidden, said, searchset};
use super::*;

/// So much of one record is not remembered that others may be compared in vain.
const LONG: usize = 4000;

/// Each record among the others says what it says alone.
fn each_says_as_alone(records: &[String]) -> BTreeSet<Vec<String>> {
    let bundle = searchset(records);
    let among = filter::parse(bundle.as_bytes(), &BASES).unwrap();
    let entries = among.bundle().unwrap().entries.iter().map(|entry| entry.record.unwrap());
    let compared = entries.zip(records).map(|(entry, record)| {
        let alone = said(&filter::parse(record.as_bytes(), &BASES).unwrap(), 0);
        assert_eq!(said(&among, entry), alone, "{record}");
        alone
    });
    compared.collect()
}

/// The same bytes are another thing under another name: a mask decides them there, and they are said of somebody else.
#[test]
fn the_same_text_is_what_its_place_makes_of_it() {
    const POINT: &str = r#"{"id":"made-up","use":"work","system":"http://a.example","value":"made up"}"#;
    const NAMED: &str = r#"{"reference":"Patient/p1","type":"Patient","display":"made up"}"#;
    let places = |members: &[(&str, &str)], value: &str| -> Vec<String> {
        members.iter().map(|(open, close)| format!("{open}{value}{close}")).collect()
    };
    let points = places(
        &[
            (r#""identifier":["#, "]"),
            (r#""telecom":["#, "]"),
            (r#""contact":[{"telecom":["#, "]}]"),
            (r#""unheard":["#, "]"),
            (r#""extension":[{"url":"http://a.example","valueIdentifier":"#, "}]"),
        ],
        POINT,
    );
    let named = places(
        &[
            (r#""subject":"#, ""),
            (r#""focus":["#, "]"),
            (r#""performer":["#, "]"),
            (r#""contained":[{"resourceType":"Flag","status":"active","code":{"text":"a"},"author":"#, "}]"),
            (r#""unheard":"#, ""),
        ],
        NAMED,
    );
    let shut = ["telecom", "identifier.value", "contact.telecom.value", "extension", "identifier"];
    let seen = ["subject", "focus.display", "performer.reference", "contained", "focus"];
    for (kind, members, hidden) in [("Patient", points, shut), ("Observation", named, seen)] {
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        for turns in each_first(&members) {
            let record = |(at, member): (usize, &str)| {
                // Nothing around it is known.
                let space = " ".repeat(at % 89);
                format!(
                    r#"{{"resourceType":"{kind}",{space}"id":"a{at}","status":"final",{member},"language":"en"}}"#
                )
            };
            let records: Vec<String> = turns.into_iter().enumerate().map(record).collect();
            each_says_as_alone(&records);
            for path in hidden.map(|name| format!("{kind}.{name}")) {
                let few = mask(kind, &[(kind, true), (&path, false)]);
                let flag = mask("Flag", &[("Flag", true)]);
                let sight = |_: usize, record: &filter::Record| {
                    Verdict::whole(if record.contained { &flag } else { &few })
                };
                each_is_written_as_alone(&records, &sight, &nothing_hidden);
            }
        }
    }
}

/// On the way of a compartment a patient is whose record it is; beside it, one who is named. The two ways are equally
/// deep, in as many resources: only what the way is differs.
#[test]
fn whose_it_is_depends_on_the_way() {
    const SAME: &str = r#"{"reference":"Patient/p1","type":"Patient","display":"made up"}"#;
    let record = |at: usize| {
        let (space, long) = (" ".repeat(at), "a".repeat(LONG));
        let head = r#""resourceType":"RequestGroup","status":"active","intent":"plan""#;
        let inner = if (at / 10).is_multiple_of(2) {
            format!(
                r#"{{"resourceType":"Bundle","type":"batch-response","entry":[{{"response":{{"status":"200",
                "outcome":{{{head},"action":[{{"title":"a","participant":[{SAME}]}}]}}}}}}]}}"#
            )
        } else {
            format!(
                r#"{{"resourceType":"Basic","code":{{"text":"a"}},"contained":[{{{head},
                "action":[{{"title":"a","action":[{{"title":"b","participant":[{SAME}]}}]}}]}}]}}"#
            )
        };
        // A Bundle alone is an envelope, not a record.
        format!(
            r#"{{"resourceType":"Parameters",{space}"id":"{long}","parameter":[{{"name":"a","resource":{inner}}}]}}"#
        )
    };
    let said = each_says_as_alone(&(0..40).map(record).collect::<Vec<_>>());
    assert!(said.len() > 1, "both ways said the same");
}

/// What was within the bound of resources in resources before may be beyond it at another place that is as deep.
#[test]
fn resources_nest_to_a_bound_where_a_value_comes_back() {
    const BASIC: &str = r#"{"resourceType":"Basic","id":"b","code":{"text":"made up"}}"#;
    let group = |inner: &str| {
        format!(r#"{{"resourceType":"Parameters","parameter":[{{"name":"made-up","resource":{inner}}}]}}"#)
    };
    let same = format!(r#"{{"name":"made-up","resource":{}}}"#, group(BASIC));
    let parts = |levels: usize| {
        (0..levels).fold(same.clone(), |part, _| format!(r#"{{"name":"made-up","part":[{part}]}}"#))
    };
    let record = |at: usize, parameter: &str| {
        let (space, long) = (" ".repeat(at), "a".repeat(LONG));
        format!(
            r#"{{"resourceType":"Parameters",{space}"id":"{long}","language":"en","parameter":[{parameter}]}}"#
        )
    };
    // A part is two levels of JSON, a resource in a parameter three.
    let mut records: Vec<String> = (0..20).map(|at| record(at, &parts(1 + 6))).collect();
    assert!(filter::parse(searchset(&records).as_bytes(), &BASES).is_ok());
    let last = format!(r#"{{"resourceType":"Parameters","parameter":[{}]}}"#, parts(1));
    let nested = group(&group(&group(&last)));
    records.push(record(20, &format!(r#"{{"name":"made-up","resource":{nested}}}"#)));
    let found = filter::parse(searchset(&records).as_bytes(), &BASES).map(drop).map_err(fault_name);
    assert_eq!(found, Err("Nesting".to_owned()));
}

/// So many members hold the same that some of them are looked up as if they were one.
#[test]
fn every_member_is_its_own_where_all_hold_the_same() {
    const SAME: &str =
        r#"{"coding":[{"system":"http://a.example","code":"a","display":"made up"}],"text":"made up"}"#;
    let mut members = Vec::new();
    for kind in ResourceType::all() {
        let named = r4::properties(r4::root(kind)).filter(|(key, property)| {
            *key == property.element.name && r4::type_name(property.structure) == "CodeableConcept"
        });
        members.extend(named.map(|(key, property)| (kind, key, property.element.many)));
    }
    assert!(members.len() > 300, "{}", members.len());
    let hidden: BTreeMap<ResourceType, Mask> = ResourceType::all()
        .map(|kind| {
            let name = kind.name();
            let own = members.iter().filter(|(of, ..)| *of == kind).map(|(_, key, _)| key);
            // Of each type every other member loses its text.
            let paths: Vec<String> = own.step_by(2).map(|key| format!("{name}.{key}.text")).collect();
            let decided = paths.iter().map(|path| (path.as_str(), false)).chain([(name, true)]);
            (kind, mask(name, &decided.collect::<Vec<_>>()))
        })
        .collect();
    let record = |at: usize| {
        let (kind, key, many) = members[at / 4 % members.len()];
        let (kind, space) = (kind.name(), " ".repeat(at % 4));
        let [open, close] = if many { ["[", "]"] } else { ["", ""] };
        format!(r#"{{"resourceType":"{kind}",{space}"id":"a{at}","{key}":{open}{SAME}{close}}}"#)
    };
    let records: Vec<String> = (0..8 * members.len()).map(record).collect();
    each_says_as_alone(&records);
    let sight = |_: usize, record: &filter::Record| Verdict::whole(&hidden[&record.facts.resource_type]);
    each_is_written_as_alone(&records, &sight, &nothing_hidden);
}
