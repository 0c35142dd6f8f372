//! SMART on FHIR through the door: granular scopes on every way to a record (T-190, KF-46), mixed scopes (T-189), and
//! what clients are told (SMART App Launch 2.2).
//!
//! Owns: that a scope's condition holds of the record itself, not of the question.
//! Must never: be satisfied by a search alone: a read by id is where it usually leaks.
//! Look next: `tests/data/scopes/scopes.toml`, the grammar.

use std::collections::BTreeSet;
use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use serde_json::{Value, json};

use crate::harness::{Hospital, Reply, run};

const LABORATORY: &str = "category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory";

fn bearer(hospital: &Hospital, who: &str, scope: &str) -> String {
    let token = hospital.stage.issuer().token_with(who, |claims| {
        claims["scope"] = json!(scope);
        if scope.contains("patient/") {
            claims["patient"] = json!("p1");
        }
    });
    format!("Bearer {}", token.unwrap())
}

async fn ask(hospital: &Hospital, bearer: &str, (method, path): (&str, &str), body: &str) -> Reply {
    let mut headers = vec![("authorization", bearer)];
    if !body.is_empty() {
        headers.push(("content-type", "application/fhir+json"));
    }
    hospital.ask(method, path, &headers, body).await
}

/// `Type/id` of each entry.
fn rows(reply: &Reply) -> BTreeSet<String> {
    let bundle = reply.json();
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let name = |entry: &Value| {
        let (kind, id) = (&entry["resource"]["resourceType"], &entry["resource"]["id"]);
        format!("{}/{}", kind.as_str().unwrap(), id.as_str().unwrap())
    };
    entries.iter().map(name).collect()
}

fn observations(reply: &Reply) -> BTreeSet<String> {
    rows(reply).into_iter().filter(|row| row.starts_with("Observation/")).collect()
}

#[test]
fn t190_a_condition_holds_however_a_record_is_asked_for() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let laboratory =
            bearer(&hospital, "physician", &format!("user/Observation.rs?{LABORATORY} user/Patient.rs"));
        let get = async |path: &str| ask(&hospital, &laboratory, ("GET", path), "").await;

        get("Observation/obs-troponin").await.check_ok();
        get("Observation/obs-troponin/_history").await.check_ok();
        let mut refused = Vec::new();
        for path in
            ["Observation/obs-weight", "Observation/obs-weight/_history", "Observation/obs-weight/_history/1"]
        {
            refused.push((get(path).await, 404, "not-found"));
        }

        let all = get("Observation?patient=p1&_count=200").await;
        all.check_ok();
        let found = observations(&all);
        assert!(
            found.contains("Observation/obs-troponin") && found.contains("Observation/obs-hba1c"),
            "{found:?}"
        );
        assert!(
            !found.iter().any(|row| row.contains("weight") || row.contains("bp") || row.contains("smoking"))
        );
        let counted = get("Observation?patient=p1&_total=accurate&_count=200").await;
        let total = counted.json()["total"].as_u64();
        assert!(
            total.is_none_or(|total| total == found.len() as u64),
            "the total counts judged rows: {total:?}"
        );
        let one = get("Observation?_id=obs-weight").await;
        assert!(
            observations(&one).is_empty() && one.json()["total"].as_u64().unwrap_or(0) == 0,
            "{:?}",
            one.body
        );
        let vital = get("Observation?category=vital-signs&patient=p1").await;
        assert!(observations(&vital).is_empty(), "a search for what is outside");
        let included = get("Patient?_id=p1&_revinclude=Observation:subject").await;
        included.check_ok();
        assert!(observations(&included).is_subset(&found) && !observations(&included).is_empty());
        let everything = get("Patient/p1/$everything?_type=Observation,Patient&_count=200").await;
        everything.check_ok();
        assert!(observations(&everything).is_subset(&found), "{:?}", observations(&everything));
        let history = get("Observation/_history?_count=200").await;
        if history.status == 200 {
            assert!(!observations(&history).iter().any(|row| row.contains("weight")));
        }
        refused.push((get("Condition?patient=p1").await, 403, "scope-insufficient"));
        refused.push((get("Patient?_has:Observation:subject:code=29463-7").await, 403, "criterion-withheld"));
        hospital.check_refusals(&refused);

        let patient = bearer(&hospital, "patient", &format!("patient/Observation.rs?{LABORATORY}"));
        ask(&hospital, &patient, ("GET", "Observation/obs-troponin"), "").await.check_ok();
        let weight = ask(&hospital, &patient, ("GET", "Observation/obs-weight"), "").await;
        let other = ask(&hospital, &patient, ("GET", "Observation/obs-p2-glucose"), "").await;
        hospital.check_refusals(&[(weight, 404, "not-found"), (other, 404, "not-found")]);
    });
}

/// A write must be inside the condition before and after (T-190, KF-46).
#[test]
fn kf_46_a_write_stays_inside_the_condition() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let scope = format!("user/Observation.cru?{LABORATORY}");
        let writer = bearer(&hospital, "physician", &scope);
        let inside = json!({
            "resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/p1"},
            "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
            "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
        });
        let mut outside = inside.clone();
        outside["category"][0]["coding"][0]["code"] = json!("vital-signs");
        let created = ask(&hospital, &writer, ("POST", "Observation"), &inside.to_string()).await;
        assert_eq!(created.status, 201, "{:?}", created.body);
        let refused = ask(&hospital, &writer, ("POST", "Observation"), &outside.to_string()).await;
        let mut refusals = vec![(refused, 403, "write-not-permitted")];

        let location = created.header("location").unwrap().to_owned();
        let id = location.split("/Observation/").nth(1).unwrap().split('/').next().unwrap().to_owned();
        let path = format!("Observation/{id}");
        let mut leaves = hospital.stored("Observation", &id);
        leaves["category"] = outside["category"].clone();
        let left = ask(&hospital, &writer, ("PUT", &path), &leaves.to_string()).await;
        refusals.push((left, 403, "write-not-permitted"));
        let mut enters = hospital.stored("Observation", "obs-weight");
        enters["category"] = inside["category"].clone();
        let entered = ask(&hospital, &writer, ("PUT", "Observation/obs-weight"), &enters.to_string()).await;
        refusals.push((entered, 404, "not-found"));
        hospital.check_refusals(&refusals);
        assert_eq!(
            hospital.stored("Observation", "obs-weight")["category"][0]["coding"][0]["code"],
            "vital-signs"
        );
        let mut stays = hospital.stored("Observation", &id);
        stays["status"] = json!("amended");
        let stayed = ask(&hospital, &writer, ("PUT", &path), &stays.to_string()).await;
        assert_eq!(stayed.status, 200, "{:?}", stayed.body);
    });
}

#[test]
fn t189_mixed_and_unjudgeable_scopes_open_nothing() {
    run(async {
        let hospital = Hospital::shared().await;
        let cases = [
            ("user/Observation.read user/Patient.rs", "scopes-mixed"),
            ("user/*.rs system/*.rs", "scopes-mixed"),
            ("user/Observation.rs?nonsense=x", "scope-insufficient"),
            ("user/Observation.rs?subject.name=x", "scope-insufficient"),
            ("user/Observation.read?status=final", "scope-insufficient"),
            ("user/*.rs?nonsense=x", "scope-insufficient"),
        ];
        let mut refusals = Vec::new();
        for (scope, code) in cases {
            let bearer = bearer(&hospital, "physician", scope);
            let mut reply = ask(&hospital, &bearer, ("GET", "Observation/obs-troponin"), "").await;
            reply.what = scope.to_owned();
            refusals.push((reply, 403, code));
        }
        hospital.check_refusals(&refusals);
    });
}

/// What discovery says, and nothing else.
#[test]
fn the_smart_configuration_is_from_discovery() {
    run(async {
        let hospital = Hospital::shared().await;
        let issuer = hospital.stage.issuer().url().to_owned();
        let mut told = Value::Null;
        for _ in 0..50 {
            told = hospital.ask("GET", ".well-known/smart-configuration", &[], "").await.json();
            if told.get("token_endpoint").is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for (name, path) in [
            ("jwks_uri", "/jwks"),
            ("authorization_endpoint", "/authorize"),
            ("token_endpoint", "/token"),
            ("introspection_endpoint", "/introspect"),
        ] {
            assert_eq!(told[name], json!(format!("{issuer}{path}")), "{told}");
        }
        assert_eq!(told["issuer"], json!(issuer));
        assert_eq!(told["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(told["grant_types_supported"], json!(["authorization_code"]));
        assert_eq!(told["response_types_supported"], json!(["code"]));
        assert_eq!(told["token_endpoint_auth_methods_supported"], json!(["none"]));
        assert!(told["capabilities"].as_array().unwrap().contains(&json!("permission-v2")));
        assert!(told.get("revocation_endpoint").is_none(), "the issuer has none");
    });
}
