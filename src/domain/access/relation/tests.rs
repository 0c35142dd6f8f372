//! Which record proves which relation: cases as data.

use super::*;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const BASE: &str = "https://emr.test/fhir";
const WINDOWS: Windows =
    Windows { encounter: SignedDuration::from_hours(24), appointment: SignedDuration::from_hours(12) };

fn now() -> Timestamp {
    "2026-03-10T12:00:00Z".parse().unwrap()
}

fn evidence(record: &Value) -> Evidence {
    Evidence::read(record.to_string().as_bytes()).unwrap()
}

fn nurse() -> Party {
    let mut party = Party::new("Practitioner/n1").unwrap();
    let role = json!({"resourceType": "PractitionerRole", "id": "r1", "active": true,
        "practitioner": {"reference": "Practitioner/n1"}, "organization": {"reference": "Organization/o1"}});
    party.take_on(&evidence(&role), BASE, now());
    party
}

/// `change` puts a value at a JSON pointer of the record; `null` takes the member away.
#[track_caller]
fn check(name: &str, record: &Value, change: (&str, Value), expected: &[(&str, Relation)]) {
    let mut record = record.clone();
    let (pointer, value) = change;
    if let Some((parent, member)) = pointer.rsplit_once('/') {
        let holder = record.pointer_mut(parent).unwrap();
        match (holder, value) {
            (Value::Object(holder), Value::Null) => drop(holder.remove(member)),
            (Value::Object(holder), value) => drop(holder.insert(member.to_owned(), value)),
            (holder, value) => holder[member.parse::<usize>().unwrap()] = value,
        }
    }
    let mut found = evidence(&record).proves(&nurse(), BASE, now(), WINDOWS);
    found.sort();
    let expected: Vec<(String, Relation)> =
        expected.iter().map(|(id, relation)| ((*id).to_owned(), *relation)).collect();
    assert_eq!(found, expected, "{name}");
}

fn same() -> (&'static str, Value) {
    ("", Value::Null)
}

#[test]
fn care_teams() {
    let team = json!({"resourceType": "CareTeam", "id": "t", "status": "active",
        "subject": {"reference": "Patient/p1"}, "period": {"start": "2026-01-01"},
        "participant": [{"member": {"reference": "Practitioner/other"}},
            {"member": {"reference": "Practitioner/n1"}, "period": {"start": "2026-01", "end": "2026-03-10"}}]});
    let yes: &[_] = &[("p1", Relation::CareTeam)];
    check("as it is", &team, same(), yes);
    check(
        "in full",
        &team,
        ("/participant/1/member/reference", json!("https://emr.test/fhir/Practitioner/n1")),
        yes,
    );
    check("a version", &team, ("/participant/1/member/reference", json!("Practitioner/n1/_history/3")), yes);
    check("by role", &team, ("/participant/1/member/reference", json!("PractitionerRole/r1")), yes);
    let managers = json!([{"reference": "Organization/o1"}, {"reference": "Organization/o2"}]);
    check("with managers", &team, ("/managingOrganization", managers), yes);
    check("no period", &team, ("/participant/1/period", Value::Null), yes);
    check(
        "another EMR's",
        &team,
        ("/participant/1/member/reference", json!("https://x.test/Practitioner/n1")),
        &[],
    );
    check("somebody else", &team, ("/participant/1/member/reference", json!("Practitioner/n12")), &[]);
    check("another type", &team, ("/participant/1/member/reference", json!("Patient/n1")), &[]);
    for status in ["proposed", "suspended", "inactive", "entered-in-error", "ACTIVE"] {
        check(status, &team, ("/status", json!(status)), &[]);
    }
    check("no status", &team, ("/status", Value::Null), &[]);
    check("over", &team, ("/period/end", json!("2026-03-09")), &[]);
    check("not begun", &team, ("/period/start", json!("2026-03-11")), &[]);
    check("not a date", &team, ("/period/start", json!("soon")), &[]);
    check("left the team", &team, ("/participant/1/period/end", json!("2026-03-10T11:59:59Z")), &[]);
    check("no subject", &team, ("/subject", Value::Null), &[]);
    check("about a group", &team, ("/subject/reference", json!("Group/p1")), &[]);
    check(
        "another patient",
        &team,
        ("/subject/reference", json!("Patient/p2")),
        &[("p2", Relation::CareTeam)],
    );
}

#[test]
fn encounters() {
    let visit = json!({"resourceType": "Encounter", "id": "e", "status": "in-progress",
        "subject": {"reference": "Patient/p1"}, "period": {"start": "2026-03-09"},
        "participant": [{"individual": {"reference": "Practitioner/n1"}}]});
    let yes: &[_] = &[("p1", Relation::Encounter)];
    for status in ["arrived", "triaged", "in-progress", "onleave"] {
        check(status, &visit, ("/status", json!(status)), yes);
    }
    for status in ["cancelled", "entered-in-error", "unknown", "finished"] {
        check(status, &visit, ("/status", json!(status)), &[]);
    }
    check("not there", &visit, ("/participant", json!([])), &[]);
    check("went home", &visit, ("/participant/0/period", json!({"end": "2026-03-01"})), &[]);
    check("forgotten to close", &visit, ("/period/end", json!("2026-03-08")), &[]);
    let over = |end: &str| json!({"start": "2026-03-01", "end": end});
    let mut finished = visit.clone();
    finished["status"] = json!("finished");
    check("just over", &finished, ("/period", over("2026-03-09T12:00:00Z")), yes);
    check("long over", &finished, ("/period", over("2026-03-09T11:59:59Z")), &[]);
    check("over in the future", &finished, ("/period", over("2026-03-10T13:00:00Z")), &[]);
    let mut planned = visit.clone();
    planned["status"] = json!("planned");
    check("today", &planned, ("/period", json!({"start": "2026-03-10T18:00:00+02:00"})), yes);
    check("tomorrow night", &planned, ("/period", json!({"start": "2026-03-11T12:00:01Z"})), &[]);
    check("never came", &planned, ("/period", json!({"start": "2026-03-08"})), &[]);
    let employer = ("/serviceProvider", json!({"reference": "Organization/o1"}));
    check("the employer's", &visit, employer, &[("p1", Relation::Encounter), ("p1", Relation::Organization)]);
    let stranger = ("/serviceProvider", json!({"reference": "Organization/o2"}));
    check("another house's", &visit, stranger, yes);
}

#[test]
fn appointments() {
    let with = json!({"resourceType": "Appointment", "id": "a", "status": "booked",
        "start": "2026-03-10T20:00:00Z", "end": "2026-03-10T20:30:00Z",
        "participant": [{"actor": {"reference": "Patient/p1"}, "status": "accepted"},
            {"actor": {"reference": "Practitioner/n1"}, "status": "accepted"}]});
    let yes: &[_] = &[("p1", Relation::Appointment)];
    check("as it is", &with, same(), yes);
    for status in ["arrived", "checked-in"] {
        check(status, &with, ("/status", json!(status)), yes);
    }
    for status in ["proposed", "pending", "cancelled", "noshow", "fulfilled", "entered-in-error", "waitlist"]
    {
        check(status, &with, ("/status", json!(status)), &[]);
    }
    check("declined by the caller", &with, ("/participant/1/status", json!("declined")), &[]);
    check("declined by the patient", &with, ("/participant/0/status", json!("declined")), &[]);
    check("far off", &with, ("/start", json!("2026-03-11T00:00:01Z")), &[]);
    check("without a time", &with, ("/start", Value::Null), &[]);
    let mut past = with.clone();
    past["start"] = json!("2026-03-09T20:00:00Z");
    check("long past", &past, ("/end", json!("2026-03-09T23:59:59Z")), &[]);
    check("just past", &past, ("/end", json!("2026-03-10T00:00:00Z")), yes);
    check("an end that is none", &past, ("/end", json!("later")), &[]);
}

#[test]
fn charts_and_kin() {
    let chart = json!({"resourceType": "Patient", "id": "p1",
        "generalPractitioner": [{"reference": "Practitioner/n1"}],
        "managingOrganization": {"reference": "Organization/o1"}});
    let both: &[_] = &[("p1", Relation::Organization), ("p1", Relation::GeneralPractitioner)];
    check("both", &chart, same(), both);
    check("inactive", &chart, ("/active", json!(false)), &[]);
    check(
        "another doctor",
        &chart,
        ("/generalPractitioner/0/reference", json!("Practitioner/n2")),
        &both[..1],
    );
    check("the role", &chart, ("/generalPractitioner/0/reference", json!("PractitionerRole/r1")), both);
    check("another house", &chart, ("/managingOrganization/reference", json!("Organization/o2")), &both[1..]);
    let mother = Party::new("RelatedPerson/m1").unwrap();
    let kin = |change: Value| {
        let mut record = json!({"resourceType": "RelatedPerson", "id": "m1", "active": true,
            "patient": {"reference": "Patient/p1"}, "period": {"start": "2020"}});
        for (name, value) in change.as_object().unwrap() {
            record[name] = value.clone();
        }
        evidence(&record).proves(&mother, BASE, now(), WINDOWS).len()
    };
    for (change, expected) in [
        (json!({}), 1),
        (json!({"active": false}), 0),
        (json!({"period": {"end": "2025"}}), 0),
        (json!({"id": "m2"}), 0),
        (json!({"patient": {"reference": "Group/p1"}}), 0),
    ] {
        assert_eq!(kin(change.clone()), expected, "{change}");
    }
}

#[test]
fn roles_are_taken_on_only_when_they_are_the_callers() {
    let role = json!({"resourceType": "PractitionerRole", "id": "r2", "active": true,
        "practitioner": {"reference": "Practitioner/n1"}, "organization": {"reference": "Organization/o2"}});
    for (pointer, value, roles) in [
        ("", Value::Null, 2),
        ("active", json!(false), 1),
        ("practitioner", json!({"reference": "Practitioner/n2"}), 1),
        ("practitioner", Value::Null, 1),
        ("period", json!({"end": "2026-03-09"}), 1),
        ("resourceType", json!("HealthcareService"), 1),
    ] {
        let mut party = Party::new("Practitioner/n1").unwrap();
        let mut changed = role.clone();
        if !pointer.is_empty() {
            changed[pointer] = value;
        }
        party.take_on(&evidence(&changed), BASE, now());
        assert_eq!(party.names().count(), roles, "{changed}");
        assert_eq!(party.organizations().count(), roles - 1, "{changed}");
    }
    for user in ["Patient/p1", "Practitioner", "Practitioner/", "Practitioner/a,b", "Person/x"] {
        assert!(Party::new(user).is_none(), "{user}");
    }
}

#[test]
fn what_is_not_known_is_not_there() {
    let mut known = Relations::none();
    known.note("p1", Relation::CareTeam);
    assert!(known.holds("p1", Relation::CareTeam));
    assert!(!known.holds("p1", Relation::Encounter) && !known.holds("p2", Relation::CareTeam));
    for relation in Relation::ALL {
        assert_eq!(Relation::from_name(relation.name()), Some(relation));
    }
}
