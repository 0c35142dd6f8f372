//! Who treats whom, asked of the EMR: the treating relationship at the bedside.
//!
//! Owns: that relations open and close charts as the EMR's records say, that doubt is absence, and what is recorded.
//! Must never: wait for a cache to age; hospitals here keep what they find for a second.
//! Look next: `src/domain/access/relation/tests.rs`, which record proves what.

use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use serde_json::{Value, json};

use crate::child::operations_of;
use crate::harness::{Hospital, run};

pub(crate) const TREATING: &str =
    include_str!("../../policies/optional/treating-relationship/treating-relationship.cedar");

/// A hospital that demands a treating relationship and looks every second.
pub(crate) async fn treating(more: &[(&str, &str)]) -> Hospital {
    let settings = "\n[relations]\nmax_age = \"1s\"\nabsent_max_age = \"1s\"\n";
    let hospital = Hospital::open(Script { more: settings.to_owned(), ..Script::default() }).await;
    hospital.stage.emr().load_extras().unwrap();
    for (file, text) in more.iter().chain(&[("treating.cedar", TREATING)]) {
        let before = hospital.events("policies-loaded");
        hospital.edit(file, Some(text));
        hospital.edited("policies-loaded", before).await;
    }
    hospital
}

async fn aged() {
    tokio::time::sleep(Duration::from_millis(2100)).await;
}

fn observation(id: &str, patient: &str) -> Value {
    json!({"resourceType": "Observation", "id": id, "meta": {"versionId": "1"}, "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": format!("Patient/{patient}")}})
}

fn basis(record: &Value) -> Vec<&str> {
    record["basis"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn now_plus(hours: i64) -> String {
    let at = chartgate::clock::now() + jiff::SignedDuration::from_hours(hours);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

const NOT_OWN: &str = r#"
@id("not-ones-own-chart")
forbid (principal in Role::"nurse", action in Action::"view", resource) when { context.relations.contains("self") };
"#;

/// A forbid where a relation holds is not switched off by a token that leaves out who the caller is (T-188).
#[test]
fn t188_a_forbid_by_relation_needs_the_claim() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let without = hospital.stage.issuer().token_with("nurse", |claims| {
            claims.as_object_mut().unwrap().remove("fhirUser");
        });
        let without = without.unwrap();
        hospital.get_with(&without, "Patient/p1").await.check_ok();
        let before = hospital.events("policies-loaded");
        hospital.edit("not-own.cedar", Some(NOT_OWN));
        hospital.edited("policies-loaded", before).await;
        let mut refused = Vec::new();
        for path in ["Patient/p1", "Patient?name=x", "Observation?patient=p1"] {
            refused.push((hospital.get_with(&without, path).await, 403, "fhir-user-missing"));
        }
        hospital.check_refusals(&refused);
        hospital.get("nurse", "Patient/p1").await.check_ok();
    });
}

#[test]
fn a_chart_is_open_to_those_who_treat() {
    run(async {
        let hospital = treating(&[]).await;
        for patient in ["p2", "p3", "p5"] {
            hospital.store(&observation(&format!("rel-{patient}"), patient));
        }
        // p1: on the care team, and an encounter under way. p2, p3, p5: nobody's.
        let own = hospital.get("nurse", "Observation/obs-weight").await;
        own.check_ok();
        let found = basis(&hospital.check_recorded([&own])[0]).join(" ");
        assert!(found.contains("care-team") && found.contains("encounter"), "{found}");
        let refused = [
            (hospital.get("nurse", "Observation/rel-p2").await, 404, "not-found"),
            (hospital.get("nurse", "Observation/rel-p3").await, 404, "not-found"),
            (hospital.get("nurse", "Observation/none-such").await, 404, "not-found"),
        ];
        hospital.check_refusals(&refused);
        // Who somebody is stays visible, and a list holds what is open.
        hospital.get("nurse", "Patient/p2").await.check_ok();
        let list = hospital.get("nurse", "Observation?_id=rel-p2,rel-p3,obs-weight").await;
        let ids: Vec<String> = list.json()["entry"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids, ["obs-weight"]);
        // The physician is p2's general practitioner and not p3's.
        let own = hospital.get("physician", "Observation/rel-p2").await;
        own.check_ok();
        assert_eq!(basis(&hospital.check_recorded([&own])[0]), ["general-practitioner"]);
        let other = hospital.get("physician", "Observation/rel-p3").await;
        hospital.check_refusals(&[(other, 404, "not-found")]);
        relations_come_and_go(&hospital).await;
        a_page_is_asked_about_together(&hospital).await;
        nobody_writes_themselves_in(&hospital).await;
        nobody_in_particular_treats_nobody(&hospital).await;
    });
}

async fn relations_come_and_go(hospital: &Hospital) {
    let visit = |status: &str| {
        json!({"resourceType": "Encounter", "id": "rel-visit", "meta": {"versionId": "1"}, "status": status,
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
            "subject": {"reference": "Patient/p3"}, "period": {"start": now_plus(-1)},
            "participant": [{"individual": {"reference": "Practitioner/pr-nurse"}}]})
    };
    let meeting = |status: &str| {
        json!({"resourceType": "Appointment", "id": "rel-meeting", "meta": {"versionId": "1"}, "status": status,
            "start": now_plus(1), "end": now_plus(2),
            "participant": [{"actor": {"reference": "Patient/p3"}, "status": "accepted"},
                {"actor": {"reference": "Practitioner/pr-nurse"}, "status": "accepted"}]})
    };
    for (record, open) in [
        (visit("cancelled"), None),
        (visit("in-progress"), Some("encounter")),
        (visit("entered-in-error"), None),
        (meeting("booked"), Some("appointment")),
        (meeting("cancelled"), None),
    ] {
        hospital.store(&record);
        aged().await;
        let reply = hospital.get("nurse", "Observation/rel-p3").await;
        assert_eq!(reply.status, if open.is_some() { 200 } else { 404 }, "{record}");
        let recorded = hospital.check_recorded([&reply]);
        assert_eq!(basis(&recorded[0]), open.into_iter().collect::<Vec<_>>(), "{record}");
    }
    // A write is judged alike.
    let body = observation("rel-new", "p3").to_string();
    let refused = hospital.change("nurse", ("POST", "Observation"), &[], &body).await;
    hospital.check_refusals(&[(refused, 403, "write-not-permitted")]);
    hospital.store(&visit("arrived"));
    aged().await;
    let written = hospital.change("nurse", ("POST", "Observation"), &[], &body).await;
    assert_eq!(written.status, 201, "{:?}", written.body);
    assert_eq!(basis(&hospital.check_recorded([&written])[0]), ["encounter"]);
}

/// One search a relation for all patients of a page, and none while what was found counts.
async fn a_page_is_asked_about_together(hospital: &Hospital) {
    aged().await;
    let asked = |hospital: &Hospital| {
        let requests = hospital.stage.emr().requests();
        requests.iter().filter(|request| request.target.contains("CareTeam?patient=")).count()
    };
    let before = asked(hospital);
    hospital.get("nurse", "Observation?_id=rel-p2,rel-p3,rel-p5,obs-weight").await.check_ok();
    assert_eq!(asked(hospital), before + 1, "one search for four patients");
    hospital.get("nurse", "Observation/rel-p5").await;
    assert_eq!(asked(hospital), before + 1, "what was found lately is not asked again");
}

/// A physician may write encounters, and still not one that gives them a part in the care of a stranger.
async fn nobody_writes_themselves_in(hospital: &Hospital) {
    let own = json!({"resourceType": "Encounter", "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": {"reference": "Patient/p5"}, "period": {"start": now_plus(-1)},
        "participant": [{"individual": {"reference": "Practitioner/pr-physician"}}]});
    let written = hospital.change("physician", ("POST", "Encounter"), &[], &own.to_string()).await;
    hospital.check_refusals(&[(written, 403, "write-not-permitted")]);
    // Nor by moving a record of a patient of theirs to the stranger.
    let mut theirs = own.clone();
    theirs["id"] = json!("rel-mine");
    theirs["meta"] = json!({"versionId": "1"});
    theirs["subject"] = json!({"reference": "Patient/p2"});
    hospital.store(&theirs);
    aged().await;
    let mut moved = theirs.clone();
    moved["subject"] = json!({"reference": "Patient/p5"});
    let moved = hospital.change("physician", ("PUT", "Encounter/rel-mine"), &[], &moved.to_string()).await;
    hospital.check_refusals(&[(moved, 403, "write-not-permitted")]);
    assert_eq!(hospital.stored("Encounter", "rel-mine")["subject"]["reference"], "Patient/p2");
}

/// Records that prove nothing stand before the one that does: pages are followed, up to a bound (five of 200).
#[test]
fn a_relation_is_found_behind_many_records() {
    run(async {
        let hospital = treating(&[]).await;
        hospital.store(&observation("rel-many", "p3"));
        let encounter = |id: &str, status: &str, hours: i64| {
            json!({"resourceType": "Encounter", "id": id, "meta": {"versionId": "1"}, "status": status,
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                "subject": {"reference": "Patient/p3"}, "period": {"start": now_plus(hours)},
                "participant": [{"individual": {"reference": "Practitioner/pr-nurse"}}]})
        };
        let planned =
            |number: usize| hospital.store(&encounter(&format!("rel-far-{number}"), "planned", 9_000));
        (0..450).for_each(planned);
        hospital.store(&encounter("rel-now", "in-progress", -1));
        let found = hospital.get("nurse", "Observation/rel-many").await;
        found.check_ok();
        assert_eq!(basis(&hospital.check_recorded([&found])[0]), ["encounter"]);
        let pages = |hospital: &Hospital| {
            let requests = hospital.stage.emr().requests();
            requests.iter().filter(|request| request.target.contains("Encounter?_cursor=")).count()
        };
        assert_eq!(pages(&hospital), 2, "451 records are on three pages");
        // The one that proves it is now the first of the sixth page.
        assert!(hospital.stage.emr().delete("Encounter", "rel-now"));
        (450..1000).for_each(planned);
        hospital.store(&encounter("rel-last", "in-progress", -1));
        aged().await;
        let beyond = hospital.get("nurse", "Observation/rel-many").await;
        hospital.check_refusals(&[(beyond, 404, "not-found")]);
        assert_eq!(pages(&hospital), 2 + 4, "no more than five pages are read");
        let metrics = operations_of(&hospital.stage, "/metrics");
        assert!(metrics.contains("chartgate_relation_lookups_total{outcome=\"cut-off\"} 1"), "{metrics}");
    });
}

async fn nobody_in_particular_treats_nobody(hospital: &Hospital) {
    let without = hospital.stage.issuer().token_with("nurse", |claims| {
        claims.as_object_mut().unwrap().remove("fhirUser");
    });
    let reply = hospital.get_with(&without.unwrap(), "Observation/obs-weight").await;
    hospital.check_refusals(&[(reply, 404, "not-found")]);
}

const WARD_EXPORT: &str = r#"
@id("ward-export")
permit (principal in Role::"nurse", action == Action::"export", resource is FHIR::Observation)
when { context.relations.contains("care-team") };
"#;

/// The lines of a bulk file are decided as reading each record is, and looked up together.
#[test]
fn an_export_holds_the_charts_of_those_who_treat() {
    run(async {
        let hospital = treating(&[("ward-export.cedar", WARD_EXPORT)]).await;
        // Between the ward's own, so many others that several lookups are needed.
        for number in 0..700 {
            hospital.store(&observation(
                &format!("bulk-{number:03}"),
                if number % 100 == 7 { "p1" } else { "p5" },
            ));
        }
        let path = "$export?_type=Observation";
        let token = hospital.token("nurse");
        let url = hospital.export(&token, path).await["Observation"].clone();
        let asked = |hospital: &Hospital| {
            let requests = hospital.stage.emr().requests();
            requests.iter().filter(|request| request.target.contains("CareTeam?patient=")).count()
        };
        let before = asked(&hospital);
        let file = hospital.get_with(&token, &url).await;
        file.check_ok();
        let held: Vec<Value> = file.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(held.iter().all(|record| record["subject"]["reference"] == "Patient/p1"), "{}", file.text());
        let own =
            |text: &str| (0..700).filter(|number| text.contains(&format!("\"bulk-{number:03}\""))).count();
        assert_eq!(own(&file.text()), 7);
        assert!(file.text().contains("obs-weight"));
        let lookups = asked(&hospital) - before;
        assert!((1..=8).contains(&lookups), "{lookups} searches for {} records", 700);
        let units = hospital.ended_units(file.request_id()).await;
        assert_eq!(basis(&units[0]), ["care-team"]);
        // They are off the team: the same link opens an empty file, when what was found is stale.
        let ids = hospital.stage.emr().ids("CareTeam");
        assert!(!ids.is_empty());
        ids.iter().for_each(|id| assert!(hospital.stage.emr().delete("CareTeam", id)));
        aged().await;
        let file = hospital.get_with(&token, &url).await;
        file.check_ok();
        assert_eq!(file.text(), "");
    });
}

/// What the EMR cannot say is not so, for lines as for pages.
#[test]
fn an_export_without_lookups_holds_nothing_of_others() {
    run(async {
        let settings = "\n[relations]\nlookups = [\"related-person\"]\n";
        let hospital = Hospital::open(Script { more: settings.to_owned(), ..Script::default() }).await;
        let before = hospital.events("policies-loaded");
        hospital.edit("ward-export.cedar", Some(WARD_EXPORT));
        hospital.edited("policies-loaded", before).await;
        let token = hospital.token("nurse");
        let url = hospital.export(&token, "$export?_type=Observation").await["Observation"].clone();
        let file = hospital.get_with(&token, &url).await;
        file.check_ok();
        assert_eq!(file.text(), "");
    });
}

#[test]
fn shipped_policies_ask_the_emr_nothing() {
    run(async {
        let hospital = Hospital::shared().await;
        hospital.get("nurse", "Observation/obs-weight").await.check_ok();
        let requests = hospital.stage.emr().requests();
        assert!(!requests.iter().any(|request| request.target.contains("participant=")), "it was asked");
    });
}

/// Who treats whom cannot be asked: decided without.
#[test]
fn doubt_is_absence() {
    run(async {
        let settings = "\n[relations]\nlookups = [\"related-person\"]\n";
        let hospital = Hospital::open(Script { more: settings.to_owned(), ..Script::default() }).await;
        let before = hospital.events("policies-loaded");
        hospital.edit("treating.cedar", Some(TREATING));
        hospital.edited("policies-loaded", before).await;
        let reply = hospital.get("nurse", "Observation/obs-weight").await;
        hospital.check_refusals(&[(reply, 404, "not-found")]);
    });
}
