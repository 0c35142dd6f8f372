//! What is remembered of a long text counts at its place only: the same bytes are another thing elsewhere.
//!
//! Owns: the law that the place of an object has a say, on made records that hold the same bytes at several places.
//! Must never: compare with anything but the record alone, which is too short for anything to be remembered.
//! Look next: `domain::filter::pattern`, whose `Setting` is the place; `again`, for what differs at one place.

use super::again::{
    each_first, each_is_written_as_alone, each_says_as_alone, mask, nothing_hidden, searchset,
};
use super::*;

/// A record that is built like none before, so that what is in it is looked up itself. It is long: so much more may be
/// compared in vain.
fn unlike_others(kind: &str, at: usize, members: &str) -> String {
    let (space, long) = (" ".repeat(at), "a".repeat(4000));
    format!(r#"{{"resourceType":"{kind}",{space}"id":"{long}",{members}}}"#)
}

/// A record with that `last` is refused after others in which the same was good.
fn is_refused_after(good: &[String], last: String, fault: &str) {
    assert!(filter::parse(searchset(good).as_bytes(), &BASES).is_ok());
    let records: Vec<String> = good.iter().cloned().chain([last]).collect();
    let found = filter::parse(searchset(&records).as_bytes(), &BASES).map(drop).map_err(fault_name);
    assert_eq!(found, Err(fault.to_owned()));
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
        unlike_others("Parameters", at, &format!(r#""parameter":[{{"name":"a","resource":{inner}}}]"#))
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
        unlike_others("Parameters", at, &format!(r#""parameter":[{parameter}]"#))
    };
    // A part is two levels of JSON, a resource in a parameter three.
    let good: Vec<String> = (0..20).map(|at| record(at, &parts(1 + 6))).collect();
    let last = format!(r#"{{"resourceType":"Parameters","parameter":[{}]}}"#, parts(1));
    let nested = group(&group(&group(&last)));
    let last = record(20, &format!(r#"{{"name":"made-up","resource":{nested}}}"#));
    is_refused_after(&good, last, "Nesting");
}

/// What was within the bound before may be beyond it at another place.
#[test]
fn t_123_depth_is_bounded_where_a_value_comes_back() {
    let open = r#"{"url":"http://a.example","extension":["#;
    let nested =
        |levels: usize, inner: &str| format!("{}{inner}{}", open.repeat(levels), "]}".repeat(levels));
    let value = nested(4, r#"{"url":"http://b.example","valueCode":"same","id":"same"}"#);
    let record =
        |at: usize, extension: &str| unlike_others("Basic", at, &format!(r#""extension":[{extension}]"#));
    let good: Vec<String> = (0..20).map(|at| record(at, &value)).collect();
    // Each level of an extension is two of JSON; the Bundle around it takes a few.
    let deepest = (chartgate::limits::JSON_DEPTH_MAX - 4) / 2;
    is_refused_after(&good, record(20, &nested(deepest - 3, &value)), "Depth");
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
