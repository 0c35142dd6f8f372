//! Journeys beside neighbours that nobody here wrote: FHIR servers (helios-hfs, Medplum's router), an identity provider
//! (npm oidc-provider) and FHIR clients (npm, PyPI), installed by `tests/neighbours/install.sh` and
//! `tests/clients/install.sh`.
//!
//! Owns: the evidence that the gate's promises hold with an EMR whose answers, cursors and errors are its own, and
//! with tokens from a real login. Must never: be skipped silently; with `CHARTGATE_REQUIRE_NEIGHBOURS` it fails instead.
//! Look next: `tests/neighbours/town.rs` (the servers), `visit.rs` (what is checked of every answer, and the trail).
#![cfg(feature = "demo")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "a failing test panics, and a skipped one says so"
)]

#[path = "neighbours/clients.rs"]
mod clients;
#[path = "neighbours/interfaces.rs"]
mod interfaces;
#[path = "neighbours/mirror.rs"]
mod mirror;
#[path = "neighbours/mirror_hfs.rs"]
mod mirror_hfs;
#[path = "neighbours/mirror_medplum.rs"]
mod mirror_medplum;
#[path = "neighbours/sign_in.rs"]
mod sign_in;
#[path = "neighbours/town.rs"]
mod town;
#[path = "neighbours/visit.rs"]
mod visit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::Value;
use sign_in::{claims, sign_in};
use tempfile::TempDir;
use town::{Town, UNKNOWN, link, records_of};
use visit::{Visit, Visitor};

/// Permits one role everything there is.
const EVERYTHING: &str = r#"
@id("all-records")
permit (principal in Role::"physician", action in Action::"view", resource);
@id("all-elements")
permit (principal in Role::"physician", action == Action::"disclose", resource);
"#;

/// The folder of what `install` brings, or why this test is skipped.
fn installed(test: &str, install: fn() -> Result<PathBuf, String>) -> Option<PathBuf> {
    install()
        .inspect_err(|reason| {
            let required = std::env::var_os("CHARTGATE_REQUIRE_NEIGHBOURS").is_some_and(|value| value == "1");
            assert!(!required, "the neighbours cannot be had: {reason}");
            eprintln!("SKIPPED {test}: {reason}");
        })
        .ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients() {
    let Some(folder) = installed("real_clients", town::install_clients) else { return };
    clients::through_the_gate(&folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hfs_is_the_same_through_the_gate() {
    let Some(folder) = installed("hfs_is_the_same_through_the_gate", town::install) else { return };
    let (server, _running) = town::hfs(&folder).await;
    town::load_charts(&server, Vec::new()).await;
    mirror_hfs::through_the_gate(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn medplum_is_the_same_through_the_gate() {
    let Some(folder) = installed("medplum_is_the_same_through_the_gate", town::install_clients) else {
        return;
    };
    let (server, _running) = town::medplum(&folder).await;
    town::load_charts(&server, Vec::new()).await;
    mirror_medplum::through_the_gate(&server).await;
}

/// Both, or the reason why not.
#[tokio::test(flavor = "multi_thread")]
async fn real_neighbours() {
    let Some(folder) = installed("real_neighbours", town::install) else { return };
    let began = Instant::now();
    let town = Town::open(&folder).await;
    town.move_in().await;
    eprintln!("neighbours ready after {:?}", began.elapsed());
    shipped_policies(&town).await;
    eprintln!("shipped policies done after {:?}", began.elapsed());
    everything_permitted(&town).await;
    eprintln!("all done after {:?}", began.elapsed());
}

async fn shipped_policies(town: &Town) {
    let visit = Visit::open(town, None).await;
    let nurse = a_login_with_one_factor_is_stepped_up(&visit).await;
    let physician = signed_in(town, "physician").await;
    reads(&visit, &nurse, &physician).await;
    versions(&visit, &nurse, &physician).await;
    searches_by_get_and_post(&visit, &nurse, &physician).await;
    pages_to_the_end(&visit, &nurse, &physician).await;
    cursors_stay_inside(&visit, &nurse, &physician).await;
    includes(&visit, &nurse).await;
    withheld_criteria_are_refused(&visit, &nurse, &physician).await;
    other_doors_are_shut(&visit, &physician).await;
    the_unknown_is_not_released(&visit, &nurse, &physician).await;
    missing_deleted_and_withheld_are_one(&visit, &nurse).await;
    the_emr_speaks_to_nobody(&visit, &physician).await;
    the_tenant_header_stays_outside(&visit, &physician).await;
    visit.close().await;
}

async fn signed_in(town: &Town, name: &'static str) -> Visitor {
    Visitor { name, token: sign_in(&town.issuer, name, true, None).await }
}

fn json(answer: &Response<Bytes>) -> Value {
    assert_eq!(answer.status(), 200, "{}", String::from_utf8_lossy(answer.body()));
    serde_json::from_slice(answer.body()).unwrap()
}

fn refusal(answer: &Response<Bytes>) -> (u16, String) {
    let outcome: Value = serde_json::from_slice(answer.body()).unwrap();
    let code = outcome.pointer("/issue/0/details/coding/0/code").and_then(Value::as_str).unwrap_or_default();
    (answer.status().as_u16(), code.to_owned())
}

/// `Type/id` of every entry, with its search mode.
fn entries(bundle: &[u8]) -> BTreeMap<String, String> {
    let bundle: Value = serde_json::from_slice(bundle).unwrap();
    let entry = |entry: &Value| {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
        (format!("{}/{}", text("/resource/resourceType"), text("/resource/id")), text("/search/mode"))
    };
    bundle["entry"].as_array().map(|all| all.iter().map(entry).collect()).unwrap_or_default()
}

fn reference(record: &str) -> String {
    let record: Value = serde_json::from_str(record).unwrap();
    format!("{}/{}", record["resourceType"].as_str().unwrap(), record["id"].as_str().unwrap())
}

/// Sensitive by label: withheld from nurses (policies/everyone.cedar).
fn is_sensitive(record: &str) -> bool {
    let record: Value = serde_json::from_str(record).unwrap();
    let labels = record.pointer("/meta/security").and_then(Value::as_array).cloned().unwrap_or_default();
    labels.iter().any(|label| matches!(label["code"].as_str(), Some("R" | "V" | "PSY" | "HIV" | "ETH")))
}

/// RFC 9470: the challenge says what is missing, and a login that does what it says opens the gate.
async fn a_login_with_one_factor_is_stepped_up(visit: &Visit<'_>) -> Visitor {
    let issuer = &visit.town.issuer;
    let weak = Visitor { name: "nurse", token: sign_in(issuer, "nurse", false, None).await };
    assert_eq!(claims(&weak.token)["amr"], serde_json::json!(["pwd"]));
    let answer = visit.get(&weak, "Patient/p1").await;
    assert_eq!(answer.status(), 401);
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Bearer error=\"insufficient_user_authentication\""), "{challenge}");
    assert!(challenge.contains("max_age=\"43200\""), "{challenge}");
    let acr = challenge.split("acr_values=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let strong = Visitor { name: "nurse", token: sign_in(issuer, "nurse", true, Some(acr)).await };
    let said = claims(&strong.token);
    assert_eq!((&said["acr"], &said["amr"]), (&acr.into(), &serde_json::json!(["pwd", "otp", "mfa"])));
    assert_eq!(visit.get(&strong, "Patient/p1").await.status(), 200);
    strong
}

async fn reads(visit: &Visit<'_>, nurse: &Visitor, physician: &Visitor) {
    let direct = visit.town.ask("GET", "Patient/p1", "").await;
    let whole: Value = serde_json::from_slice(direct.body()).unwrap();
    let answer = visit.get(nurse, "Patient/p1").await;
    assert_eq!(answer.headers()["etag"], direct.headers()["etag"]);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["content-type"], "application/fhir+json");
    let seen = json(&answer);
    for (name, value) in seen.as_object().unwrap().iter().filter(|(name, _)| *name != "meta") {
        assert_eq!(Some(value), whole.get(name), "{name} is as the EMR has it");
    }
    for name in ["identifier", "telecom", "address", "text", "extension", "maritalStatus"] {
        assert!(seen.get(name).is_none(), "nurses do not see {name}");
    }
    assert!(seen.get("name").is_some() && seen.get("birthDate").is_some());
    assert_eq!(seen["meta"]["tag"][0]["code"], "SUBSETTED");
    let seen = json(&visit.get(physician, "Patient/p1").await);
    for (name, value) in whole.as_object().unwrap().iter().filter(|(name, _)| !is_digest(name)) {
        assert_eq!(Some(value), seen.get(name), "physicians see {name}");
    }
}

/// The Patient's own extensions are released by name, which makes its narrative and tags differ too.
fn is_digest(name: &str) -> bool {
    matches!(name, "meta" | "text" | "extension")
}

async fn versions(visit: &Visit<'_>, nurse: &Visitor, physician: &Visitor) {
    for version in ["1", "2", "3"] {
        let path = format!("Patient/p1/_history/{version}");
        let direct: Value = serde_json::from_slice(&visit.town.read(&path).await).unwrap();
        assert_eq!(json(&visit.get(physician, &path).await)["telecom"], direct["telecom"]);
        let seen = visit.get(nurse, &path).await;
        assert_eq!(seen.headers()["etag"], format!("W/\"{version}\""));
        let seen = json(&seen);
        assert_eq!(seen["meta"]["versionId"], version);
        assert!(seen.get("telecom").is_none() && seen.get("name").is_some());
    }
    assert_eq!(refusal(&visit.get(physician, "Patient/p1/_history/9").await), (404, "not-found".to_owned()));
}

async fn searches_by_get_and_post(visit: &Visit<'_>, nurse: &Visitor, physician: &Visitor) {
    for query in [
        "patient=p1&_count=50",
        "code=http%3A%2F%2Floinc.org%7C29463-7",
        "patient=p1&status=final&_sort=-date",
    ] {
        let direct = visit.town.all(&format!("Observation?{query}")).await;
        assert!(!direct.is_empty(), "{query}");
        for who in [nurse, physician] {
            let visible = direct.iter().filter(|record| who.name == "physician" || !is_sensitive(record));
            let visible: Vec<String> = visible.map(|record| reference(record)).collect();
            let got: Vec<Bytes> = visit.pages(who, &format!("Observation?{query}")).await;
            let seen: Vec<String> =
                got.iter().flat_map(|page| records_of(page)).map(|record| reference(&record)).collect();
            assert_eq!(seen, visible, "{} {query}: all of them, in the EMR's order", who.name);
            let form = [("content-type", "application/x-www-form-urlencoded")];
            let posted = visit.ask(Some(who), "POST", "Observation/_search", &form, query).await;
            assert_eq!(entries(posted.body()), entries(&got[0]), "{query} by POST");
            assert_eq!(records_of(posted.body()), records_of(&got[0]), "{query} by POST");
        }
    }
    let direct = visit.town.all("Observation?patient=p1").await;
    assert!(direct.iter().any(|record| is_sensitive(record)), "the chart holds what is withheld");
}

async fn pages_to_the_end(visit: &Visit<'_>, nurse: &Visitor, physician: &Visitor) {
    for name in ["Observation", "Patient", "Encounter", "Condition"] {
        let direct = visit.town.all(&format!("{name}?_count=11")).await;
        for who in [nurse, physician] {
            let visible = direct.iter().filter(|record| who.name == "physician" || !is_sensitive(record));
            let visible: BTreeSet<String> = visible.map(|record| reference(record)).collect();
            let pages = visit.pages(who, &format!("{name}?_count=7")).await;
            let seen: BTreeSet<String> = pages.iter().flat_map(|page| entries(page).into_keys()).collect();
            assert_eq!(seen, visible, "{} {name}: every id once", who.name);
        }
    }
}

/// hfs's cursors are base64 of the sort values: here, family names.
async fn cursors_stay_inside(visit: &Visit<'_>, nurse: &Visitor, physician: &Visitor) {
    let query = "Patient?_sort=family&_count=2";
    let cursor = link(&visit.town.read(query).await, "next").unwrap();
    let cursor = cursor.split("_cursor=").nth(1).unwrap().to_owned();
    let mut next = Some(query.to_owned());
    while let Some(path) = next {
        let page = visit.get(nurse, &path).await;
        assert_eq!(page.status(), 200);
        assert!(!String::from_utf8_lossy(page.body()).contains(&cursor[..12]));
        next = link(page.body(), "next");
        let Some(sealed) = &next else { continue };
        assert!(sealed.starts_with(&format!("{}/Patient?", visit.stage.base_url())), "{sealed}");
        assert_eq!(refusal(&visit.get(physician, sealed).await), (400, "page-link-not-valid".to_owned()));
    }
    let forged = visit.get(nurse, &format!("Patient?_cursor={cursor}")).await;
    assert!(forged.status().is_client_error(), "{}", forged.status());
}

async fn includes(visit: &Visit<'_>, nurse: &Visitor) {
    let answer = visit.get(nurse, "MedicationRequest?patient=p1&_include=MedicationRequest:patient").await;
    let found = entries(answer.body());
    assert_eq!(found.get("Patient/p1").map(String::as_str), Some("include"), "{found:?}");
    assert_eq!(found.get("MedicationRequest/medreq-metformin").map(String::as_str), Some("match"));
    let records = records_of(answer.body());
    let patient = records.iter().find(|record| reference(record) == "Patient/p1").unwrap();
    let read = visit.get(nurse, "Patient/p1").await;
    assert_eq!(patient.as_bytes(), read.body(), "an included record is filtered as a read one");
    let answer = visit.get(nurse, "Patient?_id=p1&_revinclude=Observation:patient").await;
    let found = entries(answer.body());
    assert!(found.contains_key("Observation/obs-weight"), "{found:?}");
    assert!(!found.contains_key("Observation/obs-hiv"), "{found:?}");
}

async fn withheld_criteria_are_refused(visit: &Visit<'_>, nurse: &Visitor, physician: &Visitor) {
    for query in [
        "identifier=0000-1111",
        "phone=555-0123",
        "address-city=Sampletown",
        "_sort=phone",
        "name=Testa&telecom=555-0123",
        "identifier:not=x",
    ] {
        let answer = visit.get(nurse, &format!("Patient?{query}")).await;
        assert_eq!(refusal(&answer), (403, "criterion-withheld".to_owned()), "{query}");
    }
    let chained = visit.get(nurse, "Observation?patient.identifier=0000-1111").await;
    assert_eq!(refusal(&chained), (403, "criterion-withheld".to_owned()));
    let found = visit.get(physician, "Patient?identifier=0000-1111").await;
    assert_eq!(entries(found.body()).into_keys().collect::<Vec<_>>(), ["Patient/p1"]);
    let coverage = visit.get(nurse, "Coverage?patient=Patient/p1").await;
    assert_eq!(refusal(&coverage), (403, "type-not-permitted".to_owned()));
    let filter = visit.get(nurse, "Patient?_filter=identifier%20eq%20%220000-1111%22").await;
    assert_eq!(refusal(&filter), (403, "criterion-withheld".to_owned()));
    let filter = visit.get(physician, "Patient?_filter=family%20eq%20%22Beispiel%22").await;
    assert_eq!(records_of(filter.body()).len(), visit.town.all("Patient?family:exact=Beispiel").await.len());
}

/// What else hfs serves on its port, and how else it can be asked.
async fn other_doors_are_shut(visit: &Visit<'_>, physician: &Visitor) {
    for path in [
        "health",
        "metrics",
        "$versions",
        "$reindex",
        "Patient/$everything",
        "Patient/../metrics",
        "Patient/p1%2F_history%2F1",
        "Patient;x=1",
        "patient/p1",
    ] {
        let answer = visit.get(physician, path).await;
        assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
    }
    for (method, path) in [("DELETE", "Patient/p1"), ("DELETE", "Patient?family=Beispiel"), ("POST", "")] {
        let json = [("content-type", "application/fhir+json")];
        let body = r#"{"resourceType":"Patient","id":"p1"}"#;
        let answer = visit.ask(Some(physician), method, path, &json, body).await;
        assert!(answer.status().is_client_error(), "{method} {path}: {}", answer.status());
    }
    let nobody = visit.ask(None, "GET", "Patient/p1", &[], "").await;
    assert_eq!(nobody.status(), 401);
    let metadata = visit.ask(None, "GET", "metadata", &[], "").await;
    assert_eq!(json(&metadata)["resourceType"], "CapabilityStatement");
    let version: Value = serde_json::from_slice(&visit.town.read("Patient/p1").await).unwrap();
    assert_eq!(version["meta"]["versionId"], "3", "nothing was written");
}

/// hfs stores and serves elements that R4 does not know.
async fn the_unknown_is_not_released(visit: &Visit<'_>, nurse: &Visitor, physician: &Visitor) {
    let direct = visit.town.read("Patient/odd").await;
    assert_eq!(String::from_utf8_lossy(&direct).matches(UNKNOWN).count(), 3);
    for who in [nurse, physician] {
        for path in ["Patient/odd", "Patient/odd/_history/1", "Patient?_id=odd", "Patient?family=Oddling"] {
            let answer = visit.get(who, path).await;
            assert_eq!(answer.status(), 200);
            let text = String::from_utf8_lossy(answer.body()).into_owned();
            assert!(text.contains("Oddling") && !text.contains("anary"), "{} {path}: {text}", who.name);
        }
    }
}

/// The body without its request id, and the headers that do not differ between any two answers.
fn as_heard(answer: &Response<Bytes>) -> (u16, String, HeaderMap) {
    let mut headers = answer.headers().clone();
    let id = headers.remove("x-request-id").unwrap();
    headers.remove("date");
    let body = String::from_utf8_lossy(answer.body()).replace(id.to_str().unwrap(), "");
    (answer.status().as_u16(), body, headers)
}

async fn missing_deleted_and_withheld_are_one(visit: &Visit<'_>, nurse: &Visitor) {
    assert_eq!(visit.town.ask("GET", "Patient/none", "").await.status(), 404);
    assert_eq!(visit.town.ask("GET", "Patient/gone", "").await.status(), 410);
    assert_eq!(visit.town.ask("GET", "Patient/p6", "").await.status(), 200);
    let missing = as_heard(&visit.get(nurse, "Patient/none").await);
    assert_eq!(missing.0, 404);
    for path in [
        "Patient/gone",
        "Patient/p6",
        "Patient/p6/_history/1",
        "Patient/p6/_history/77",
        "Condition/cond-depression",
        "Condition/none",
        "Observation/obs-hiv/_history/1",
    ] {
        assert_eq!(as_heard(&visit.get(nurse, path).await), missing, "{path}");
    }
}

/// Whatever hfs says when it refuses, `Visit::note` sees that none of it passes.
async fn the_emr_speaks_to_nobody(visit: &Visit<'_>, physician: &Visitor) {
    let mut refused_upstream = 0;
    for query in [
        "Observation?value-quantity=1e999",
        "Observation?_sort=code-value-quantity",
        "Observation?date=2020-02-31",
        "Observation?date=notadate",
        "Observation?code:in=http://x.example/vs",
        "Patient?_lastUpdated=gt",
        "Patient?birthdate=1980-13-45",
        "Patient?unknownx=1",
        "Observation?code-value-quantity=x",
    ] {
        let answer = visit.get(physician, query).await;
        assert!(answer.status().is_client_error(), "{query}: {}", answer.status());
        refused_upstream += usize::from(refusal(&answer).1 == "query-refused-upstream");
    }
    assert!(refused_upstream > 0, "the gate understood each of these better than hfs");
}

async fn the_tenant_header_stays_outside(visit: &Visit<'_>, physician: &Visitor) {
    let tenant = ("x-tenant-id", "elsewhere");
    let url = format!("{}/Patient/p1", visit.town.emr);
    let direct = chartgate_sandbox::web::exchange("GET", &url, &[tenant], "").await.unwrap();
    assert_eq!(direct.status(), 404, "hfs looks into another tenant");
    let more = [tenant, ("x-forwarded-host", "evil.example"), ("prefer", "return=minimal")];
    let answer = visit.ask(Some(physician), "GET", "Patient/p1", &more, "").await;
    assert_eq!(json(&answer)["id"], "p1");
}

/// P3 at full width: what is kept is what hfs sends, byte by byte, but for the base URL.
async fn everything_permitted(town: &Town) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("everything.cedar"), EVERYTHING).unwrap();
    let visit = Visit::open(town, Some(folder.path().to_owned())).await;
    let physician = signed_in(town, "physician").await;
    let mut compared = 0;
    for name in [
        "AllergyIntolerance",
        "Appointment",
        "CarePlan",
        "CareTeam",
        "Claim",
        "Condition",
        "Coverage",
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "ExplanationOfBenefit",
        "Goal",
        "Group",
        "Immunization",
        "Location",
        "MedicationRequest",
        "Observation",
        "Organization",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "Procedure",
        "Questionnaire",
        "QuestionnaireResponse",
        "RelatedPerson",
    ] {
        let direct = town.all(&format!("{name}?_count=100")).await;
        let pages = visit.pages(&physician, &format!("{name}?_count=40")).await;
        let seen: Vec<String> = pages.iter().flat_map(|page| records_of(page)).collect();
        let direct = direct.iter().filter(|record| !record.contains(UNKNOWN));
        let direct: Vec<String> =
            direct.map(|record| record.replace(&town.emr, visit.stage.base_url())).collect();
        let seen: Vec<String> =
            seen.into_iter().filter(|record| reference(record) != "Patient/odd").collect();
        assert_eq!(seen.len(), direct.len(), "{name}");
        for (seen, direct) in seen.iter().zip(&direct) {
            assert_eq!(seen, direct, "{name}");
        }
        compared += seen.len();
    }
    eprintln!("{compared} records are byte for byte what hfs serves");
    assert!(compared > 50, "{compared}");
    visit.close().await;
}
