//! Bulk export (T-094 to T-099, KF-38, KF-26): kick-off, status and files go through the gate, or not at all.
//!
//! Owns: that a file holds what reading each record would give, that links are their creator's own, and that what is
//! released is in the trail first, unit by unit.
//! Must never: trust a manifest, or a file that ended well.
//! Look next: `tests/filter.rs`, where every case of the filter is; `src/gateway/export.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use chartgate_sandbox::charts;
use chartgate_sandbox::listen::Canned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::child::until;
use crate::harness::{Hospital, Reply, run};
use crate::wire;

const JOB: &str = "/fhir/export-jobs/1";
const PATIENTS: &str = "/fhir/export-files/1/Patient.ndjson";
/// Until the beginning of an answer has left the EMR.
const SOON: Duration = Duration::from_millis(200);
/// More than fits into one unit, by number.
const MANY: usize = 1_200;
/// More than fits between a gate and a client that does not read.
const ALL: usize = 8_000;

/// A hospital whose interface engine has a role.
async fn ward() -> Hospital {
    let roles = (
        "\"portal-patient\" = \"patient\"",
        "\"portal-patient\" = \"patient\", \"engine\" = \"integration\"",
    );
    let replace = vec![(roles.0.to_owned(), roles.1.to_owned())];
    let hospital = Hospital::open(Script { replace, ..Script::default() }).await;
    hospital.stage.emr().load_extras().unwrap();
    hospital
}

impl Hospital {
    fn engine(&self) -> String {
        self.stage.issuer().token_with("physician", |claims| claims["roles"] = json!(["engine"])).unwrap()
    }

    async fn follow(&self, method: &str, token: &str, url: &str) -> Reply {
        self.ask(method, url, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    async fn kick_off(&self, token: &str, path: &str) -> Reply {
        let bearer = format!("Bearer {token}");
        self.ask("GET", path, &[("authorization", &bearer), ("prefer", "respond-async")], "").await
    }

    /// The status link of an export that began.
    async fn begin(&self, token: &str, path: &str) -> String {
        let begun = self.kick_off(token, path).await;
        assert_eq!((begun.status, begun.text().as_str()), (202, ""), "{path}: {}", begun.text());
        let link = begun.header("content-location").unwrap().to_owned();
        assert!(link.starts_with(&format!("{}/~export/", self.stage.base_url())), "{link}");
        link
    }

    /// The manifest, when the export is over.
    async fn finish(&self, token: &str, link: &str) -> Reply {
        for _ in 0..5 {
            let status = self.follow("GET", token, link).await;
            if status.status != 202 {
                return status;
            }
            assert_eq!((status.header("retry-after"), status.header("x-progress")), (Some("1"), None));
            assert_eq!(status.text(), "");
        }
        panic!("the export does not end");
    }

    /// The links to files, by type.
    pub(crate) async fn export(&self, token: &str, path: &str) -> BTreeMap<String, String> {
        let link = self.begin(token, path).await;
        let manifest = self.finish(token, &link).await;
        manifest.check_ok();
        files(&manifest)
    }

    /// Decisions about the units of an answer, in their order.
    pub(crate) fn units(&self, request_id: &str) -> Vec<Value> {
        let of_request = |record: &Value| record["requestId"] == request_id && record["unit"].is_u64();
        self.trail().into_iter().filter(of_request).collect()
    }

    /// The same once it is known how the answer ended.
    pub(crate) async fn ended_units(&self, request_id: &str) -> Vec<Value> {
        let over = || self.units(request_id).iter().all(|unit| unit["outcome"] != "unknown");
        assert!(until(Duration::from_secs(10), over).await, "no outcome");
        self.units(request_id)
    }

    pub(crate) async fn raw(&self, url: &str, token: &str, narrow: bool) -> TlsStream<TcpStream> {
        let port = self.stage.running().unwrap().address().port();
        let ca = self.stage.ca_file();
        let mut stream =
            if narrow { wire::connect_narrow(&ca, port).await } else { wire::connect(&ca, port).await };
        let path = url.split_once(&format!(":{port}")).unwrap().1;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

fn files(manifest: &Reply) -> BTreeMap<String, String> {
    let manifest = manifest.json();
    let file =
        |file: &Value| (file["type"].as_str().unwrap().to_owned(), file["url"].as_str().unwrap().to_owned());
    manifest["output"].as_array().unwrap().iter().map(file).collect()
}

/// All that comes until the gate closes or is quiet; whether the body ended as it should.
pub(crate) async fn drain(stream: &mut TlsStream<TcpStream>) -> (String, bool) {
    let (mut heard, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(Ok(length @ 1..)) = timeout(Duration::from_secs(5), stream.read(&mut buffer)).await {
        heard.extend_from_slice(&buffer[..length]);
        if heard.ends_with(b"\r\n0\r\n\r\n") {
            break;
        }
    }
    let ended = heard.ends_with(b"\r\n0\r\n\r\n");
    (String::from_utf8(heard).unwrap(), ended)
}

pub(crate) fn request_id(head: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
    line.unwrap_or_else(|| panic!("{head}")).trim().to_owned()
}

fn patient(id: &str) -> String {
    format!(
        "{{\"resourceType\":\"Patient\",\"id\":\"{id}\",\"gender\":\"male\",\"name\":[{{\"family\":\"CANARY\"}}]}}\n"
    )
}

fn patients(from: usize, to: usize) -> String {
    (from..to).map(|number| patient(&format!("x{number}"))).collect()
}

/// The oracle: a file holds, byte for byte, what reading each record of the type gives, and nothing else.
#[test]
fn kf_38_a_file_holds_what_reading_each_record_gives() {
    run(async {
        let hospital = ward().await;
        let emr = hospital.stage.emr();
        for (token, path, named) in [
            (hospital.token("researcher"), "$export", 9),
            (hospital.token("researcher"), "$export?_type=Observation,Patient", 2),
            // All but Binary, which leaves only by way of the record that owns it.
            (hospital.engine(), "$export", emr.census().len() - 1),
        ] {
            let files = hospital.export(&token, path).await;
            assert_eq!(files.len(), named, "{path}: {:?}", files.keys());
            let mut released = 0;
            for (kind, url) in &files {
                let file = hospital.get_with(&token, url).await;
                file.check_ok();
                assert_eq!(file.header("content-type"), Some("application/fhir+ndjson"));
                assert_eq!(file.header("content-length"), None);
                let mut expected = String::new();
                for id in emr.ids(kind) {
                    let read = hospital.get_with(&token, &format!("{kind}/{id}")).await;
                    if read.status == 200 {
                        let flat = read.text().replace(['\n', '\r'], " ");
                        expected.push_str(&flat);
                        expected.push('\n');
                    }
                }
                assert_eq!(file.text(), expected, "{path} {kind}");
                let [unit] = &hospital.ended_units(file.request_id()).await[..] else {
                    panic!("{path} {kind}")
                };
                assert_eq!((&unit["unit"], &unit["outcome"]), (&json!(0), &json!("complete")), "{unit}");
                assert_eq!(unit["sentBytes"], file.body.len(), "{unit}");
                assert!(unit["request"].as_str().unwrap().ends_with(&format!(" of {path}")), "{unit}");
                released += file.text().lines().count();
            }
            assert!(released > 10, "{path}: {released} records");
        }
        let kick_offs: Vec<_> =
            emr.requests().into_iter().filter(|asked| asked.target.contains("$export")).collect();
        assert_eq!(kick_offs.len(), 3);
        for asked in kick_offs {
            assert!(asked.target.contains("?_type="), "{}", asked.target);
            assert!(asked.target.ends_with("&_outputFormat=application%2Ffhir%2Bndjson"), "{}", asked.target);
            assert_eq!(asked.header("prefer"), Some("respond-async"));
        }
    });
}

/// A kick-off by POST is the same question as one by GET (Bulk Data Access IG, kick-off).
#[test]
fn an_export_may_be_asked_for_by_post() {
    run(async {
        let hospital = ward().await;
        let token = hospital.token("researcher");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("prefer", "respond-async"),
            ("content-type", "application/fhir+json"),
        ];
        let body = json!({"resourceType": "Parameters", "parameter": [
            {"name": "_type", "valueString": "Patient,Observation"},
            {"name": "_since", "valueInstant": "2020-01-01T00:00:00Z"},
            {"name": "_outputFormat", "valueString": "application/fhir+ndjson"},
        ]});
        let got =
            hospital.kick_off(&token, "$export?_type=Observation,Patient&_since=2020-01-01T00:00:00Z").await;
        let posted = hospital.ask("POST", "$export", &headers, &body.to_string()).await;
        assert_eq!((got.status, posted.status), (202, 202), "{}", posted.text());
        let targets: Vec<String> =
            hospital.stage.emr().requests().into_iter().map(|asked| asked.target).collect();
        assert!(targets.len() == 2 && targets[0] == targets[1], "{targets:?}");
        let link = posted.header("content-location").unwrap().to_owned();
        hospital.finish(&token, &link).await.check_ok();
        let twice = json!({"resourceType": "Parameters", "parameter": [
            {"name": "_since", "valueInstant": "2020-01-01T00:00:00Z"},
            {"name": "_since", "valueInstant": "2020-01-01T00:00:00Z"},
        ]});
        let twice = hospital.ask("POST", "Patient/$export", &headers, &twice.to_string()).await;
        let plain = [headers[0], headers[2]];
        let at_once = hospital.ask("POST", "$export", &plain, &body.to_string()).await;
        hospital.check_refusals(&[(twice, 400, "repeated-parameter"), (at_once, 400, "async-required")]);
    });
}

/// Withheld records leave no trace in a manifest: a type is named whether or not the EMR has a file of it.
#[test]
fn a_manifest_does_not_tell_of_withheld_records() {
    run(async {
        let hospital = ward().await;
        let emr = hospital.stage.emr();
        let path = "$export?_type=Patient,Immunization";
        let token = hospital.token("researcher");
        let labelled =
            br#"{"resourceType":"Immunization","id":"withheld","meta":{"security":[{"code":"HIV"}]},
            "status":"completed","vaccineCode":{"text":"CANARY"},"patient":{"reference":"Patient/p1"}}"#;
        for id in emr.ids("Immunization") {
            emr.delete("Immunization", &id);
        }
        let mut seen = Vec::new();
        for _ in 0..2 {
            let files = hospital.export(&token, path).await;
            let file = hospital.get_with(&token, &files["Immunization"]).await;
            file.check_ok();
            seen.push((files.keys().cloned().collect::<Vec<_>>(), file.text()));
            emr.put(labelled).unwrap();
        }
        assert_eq!(seen[0], (vec!["Immunization".to_owned(), "Patient".to_owned()], String::new()));
        assert_eq!(seen[0], seen[1]);
        let files = hospital.export(&hospital.engine(), path).await;
        let whole = hospital.get_with(&hospital.engine(), &files["Immunization"]).await;
        assert!(whole.text().contains("CANARY"), "nothing was there to be withheld");
    });
}

/// P4: `_since` and `_typeFilter` are judged on each record, so that an EMR that ignores them gives no more; what a record
/// does not tell by itself is not asked.
#[test]
#[expect(clippy::too_many_lines, reason = "cases as data")]
fn p4_an_export_holds_what_was_asked_for() {
    run(async {
        let hospital = ward().await;
        let emr = hospital.stage.emr();
        let token = hospital.engine();
        let filters = [
            "Observation?category=http://c|laboratory&date=ge2026-01-01T00:00:00Z",
            "Observation?code=http://loinc.org|1-1&subject=Patient/p2",
        ];
        let filters: Vec<String> = filters.iter().map(|filter| crate::harness::encoded(filter)).collect();
        let path = format!(
            "$export?_type=Observation,Patient&_since=2026-01-01T00:00:00Z&_typeFilter={}&_typeFilter={}",
            filters[0], filters[1]
        );
        let link = hospital.begin(&token, &path).await;
        let output = ["Observation", "Patient"].map(|kind| {
            json!({"type": kind, "url": format!("/fhir/export-files/1/{kind}.ndjson")}).to_string()
        });
        for _ in 0..3 {
            emr.next_answer(JOB, manifest(&output.join(",")));
        }
        let files = files(&hospital.finish(&token, &link).await);
        let observation = |id: &str, changed: Option<&str>, change: Value| {
            let mut record = json!({"resourceType": "Observation", "id": id, "status": "final",
                "category": [{"coding": [{"system": "http://c", "code": "laboratory"}]}],
                "code": {"coding": [{"system": "http://loinc.org", "code": "2-2"}]},
                "subject": {"reference": "Patient/p1"}, "effectiveDateTime": "2026-01-05T08:00:00Z"});
            if let Some(changed) = changed {
                record["meta"] = json!({"lastUpdated": changed});
            }
            let Value::Object(change) = change else { panic!("{change}") };
            record.as_object_mut().unwrap().extend(change);
            record.to_string() + "\n"
        };
        let (new, old) = (Some("2026-01-02T00:00:00Z"), Some("2025-12-31T23:59:59Z"));
        let other = json!([{"coding": [{"system": "http://c", "code": "vital-signs"}]}]);
        let second = json!({"category": other, "code": {"coding": [{"system": "http://loinc.org", "code": "1-1"}]},
            "subject": {"reference": "Patient/p2"}});
        let rows = [
            (true, observation("both", new, json!({}))),
            (false, observation("old", old, json!({}))),
            (true, observation("unsaid", None, json!({}))),
            (false, observation("other-category", new, json!({"category": other}))),
            (
                false,
                observation(
                    "other-system",
                    new,
                    json!({"category": [{"coding": [{"system": "http://d", "code": "laboratory"}]}]}),
                ),
            ),
            (false, observation("earlier", new, json!({"effectiveDateTime": "2025-12-31T23:00:00Z"}))),
            (true, observation("zoneless", new, json!({"effectiveDateTime": "2025-12-31"}))),
            (true, observation("second", new, second.clone())),
            (false, observation("second-old", old, second)),
        ];
        let all: String = rows.iter().map(|(_, row)| row.as_str()).collect();
        emr.next_answer("/fhir/export-files/1/Observation.ndjson", Canned::status(200).body(all));
        let file = hospital.get_with(&token, &files["Observation"]).await;
        let expected: String = rows.iter().filter(|(kept, _)| *kept).map(|(_, row)| row.as_str()).collect();
        assert_eq!(file.text(), expected);
        let released = &hospital.ended_units(file.request_id()).await[0]["released"];
        assert_eq!(released.as_array().unwrap().len(), rows.iter().filter(|(kept, _)| *kept).count());
        // A type without a filter is asked for whole, but for what did not change.
        let old = r#"{"resourceType":"Patient","id":"old","meta":{"lastUpdated":"2025-01-01T00:00:00Z"}}"#;
        let lines = format!("{old}\n{}", patient("x"));
        emr.next_answer("/fhir/export-files/1/Patient.ndjson", Canned::status(200).body(lines));
        assert_eq!(hospital.get_with(&token, &files["Patient"]).await.text(), patient("x"));
        let mut refused = Vec::new();
        for filter in [
            "Observation?subject:Patient.gender=female",
            "Observation?value-quantity=gt5",
            "Observation?date=ap2026",
            "Observation?code:in=http://vs",
            "Observation?code-value-quantity=1$2",
            "Patient?phone=555",
            "Patient?_has:Observation:patient:code=1",
            "Patient?_content=x",
        ] {
            let path = format!("$export?_typeFilter={}", crate::harness::encoded(filter));
            refused.push((hospital.kick_off(&token, &path).await, 400, "parameter-not-supported"));
        }
        hospital.check_refusals(&refused);
        // Links tell nothing by their lengths.
        let all = hospital.export(&token, "$export").await;
        let lengths: std::collections::BTreeSet<usize> = all.values().map(String::len).collect();
        assert!(all.len() > 10 && lengths.len() == 1, "{lengths:?}");
    });
}

/// T-095: whatever is wrong with a link, and whoever follows another's, hears the same 404.
#[test]
fn kf_38_links_are_their_creators_own() {
    run(async {
        let hospital = ward().await;
        let issuer = hospital.stage.issuer();
        let token = hospital.token("researcher");
        let link = hospital.begin(&token, "$export?_type=Patient").await;
        hospital.finish(&token, &link).await.check_ok();
        let manifest = hospital.finish(&token, &link).await;
        let file = files(&manifest)["Patient"].clone();
        let sealed = link.rsplit_once('/').unwrap().1;
        let file_sealed = file.rsplit_once('/').unwrap().1;
        for word in ["export-jobs", "Patient", "127.0.0.1"] {
            assert!(!sealed.contains(word) && !manifest.text().contains("export-jobs"), "{word}");
        }
        let another = issuer.token_with("researcher", |claims| claims["sub"] = "another".into()).unwrap();
        let application = issuer.token_with("researcher", |claims| {
            claims["client_id"] = "other-app".into();
            claims["azp"] = "other-app".into();
        });
        let mut missing = Vec::new();
        for other in [another, application.unwrap(), hospital.token("nurse"), hospital.engine()] {
            missing.push(hospital.follow("GET", &other, &link).await);
            missing.push(hospital.follow("DELETE", &other, &link).await);
            missing.push(hospital.follow("GET", &other, &file).await);
        }
        for place in [0, sealed.len() / 2, sealed.len() - 2] {
            let mut letters: Vec<char> = sealed.chars().collect();
            letters[place] = if letters[place] == 'A' { 'B' } else { 'A' };
            let changed: String = letters.into_iter().collect();
            missing.push(hospital.follow("GET", &token, &link.replace(sealed, &changed)).await);
        }
        missing.push(hospital.follow("GET", &token, &link.replace(sealed, "1")).await);
        missing.push(hospital.follow("GET", &token, &link.replace(sealed, file_sealed)).await);
        missing.push(hospital.follow("GET", &token, &file.replace(file_sealed, sealed)).await);
        // A new session of the same person goes on; then the export ends, and with it its links.
        let again = hospital.token("researcher");
        hospital.follow("GET", &again, &file).await.check_ok();
        let ended = hospital.follow("DELETE", &again, &link).await;
        assert_eq!((ended.status, ended.text().as_str()), (202, ""));
        missing.push(hospital.follow("GET", &token, &link).await);
        missing.push(hospital.follow("GET", &token, &file).await);
        missing.push(hospital.follow("DELETE", &token, &link).await);
        let one = missing[0].without_request_id();
        let same = missing.iter().all(|reply| reply.without_request_id() == one);
        assert!(same, "{missing:#?}");
        let missing: Vec<_> = missing.into_iter().map(|reply| (reply, 404, "not-found")).collect();
        hospital.check_refusals(&missing);
        hospital.check_recorded([&ended]);
        let ends =
            hospital.stage.emr().requests().into_iter().filter(|asked| asked.method == "DELETE").count();
        assert_eq!(ends, 2, "only the owner's reached the EMR");
    });
}

/// A link holds all that is known of an export: a restart of the gate does not end it, nor open it to anybody else.
#[test]
fn an_export_outlasts_the_gate() {
    run(async {
        let mut hospital = ward().await;
        let token = hospital.token("researcher");
        let link = hospital.begin(&token, "$export?_type=Patient").await;
        let first = files(&hospital.finish(&token, &link).await)["Patient"].clone();
        let before = hospital.get_with(&token, &first).await;
        before.check_ok();
        let port = |hospital: &Hospital| hospital.stage.running().unwrap().address().port();
        let old = port(&hospital);
        hospital.stage.stop().await.unwrap();
        hospital.stage.start().await.unwrap();
        let moved = |url: &str| url.replace(&format!(":{old}/"), &format!(":{}/", port(&hospital)));
        let again = hospital.token("researcher");
        let manifest = hospital.follow("GET", &again, &moved(&link)).await;
        manifest.check_ok();
        for url in [moved(&first), files(&manifest)["Patient"].clone()] {
            assert_eq!(hospital.get_with(&again, &url).await.text(), before.text());
        }
        for url in [&link, &first] {
            hospital.follow("GET", &hospital.engine(), &moved(url)).await.check_refusal(404, "not-found");
        }
        assert_eq!(hospital.follow("DELETE", &again, &moved(&link)).await.status, 202);
    });
}

/// T-094, T-098, T-099: what is not open to the caller is refused before the EMR hears of it.
#[test]
fn an_export_is_a_right_of_its_own() {
    run(async {
        let hospital = ward().await;
        let (researcher, engine) = (hospital.token("researcher"), hospital.engine());
        let mut refused = Vec::new();
        for (token, path, status, code) in [
            (hospital.token("nurse"), "$export", 403, "type-not-permitted"),
            (hospital.token("nurse"), "Patient/$export", 403, "type-not-permitted"),
            (hospital.token("patient"), "Patient/$export", 403, "type-not-permitted"),
            (researcher.clone(), "$export?_type=Patient,Coverage", 403, "type-not-permitted"),
            (researcher.clone(), "Group/group-ward/$export", 403, "type-not-permitted"),
            (researcher.clone(), "$export?_typeFilter=Patient%3Fname%3DBeispiel", 403, "criterion-withheld"),
            (researcher.clone(), "$export?_outputFormat=application/parquet", 400, "malformed-value"),
            (researcher.clone(), "$export?_elements=id", 400, "parameter-not-supported"),
            (engine.clone(), "Group/nobody/$export", 404, "not-found"),
            (engine.clone(), "$export?_type=Patient,Binary", 403, "type-not-permitted"),
        ] {
            let reply = hospital.kick_off(&token, path).await;
            refused.push((reply, status, code));
        }
        refused.push((hospital.follow("GET", &researcher, "$export").await, 400, "async-required"));
        hospital.check_refusals(&refused);
        let bearer = format!("Bearer {researcher}");
        let headers = [("authorization", bearer.as_str()), ("prefer", "respond-async")];
        assert_eq!(hospital.ask("HEAD", "$export", &headers, "").await.status, 405, "a HEAD begins nothing");
        assert_eq!(hospital.upstream_saw("$export"), 0);
        let files = hospital.export(&engine, "Group/group-ward/$export?_type=Patient").await;
        let group = hospital.get_with(&engine, &files["Patient"]).await;
        assert_eq!(group.text().lines().count(), 3, "{}", group.text());
        // The group is gone: what rested on it is, too.
        hospital.stage.emr().delete("Group", "group-ward");
        hospital.get_with(&engine, &files["Patient"]).await.check_refusal(404, "not-found");
        let filtered =
            "$export?_type=Patient&_typeFilter=Patient%3Fgender%3Dfemale&_since=2020-01-01T00:00:00Z";
        let files = hospital.export(&researcher, filtered).await;
        let women = hospital.get_with(&researcher, &files["Patient"]).await.text();
        let is_one = |line: &str| serde_json::from_str::<Value>(line).unwrap()["gender"] == "female";
        assert!(!women.is_empty() && women.lines().all(is_one), "{women}");
        assert_eq!(hospital.ask("HEAD", &files["Patient"], &headers[..1], "").await.status, 405);
    });
}

/// KF-26: a token for one patient exports that patient's records, whatever the export was asked for.
#[test]
fn kf_26_the_launch_patient_bounds_an_export() {
    run(async {
        let hospital = ward().await;
        let launched = hospital.stage.issuer().token_with("researcher", |claims| {
            claims["scope"] = "launch/patient patient/Patient.rs patient/Observation.rs".into();
            claims["patient"] = "p2".into();
        });
        let token = launched.unwrap();
        let files = hospital.export(&token, "$export").await;
        assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), ["Observation", "Patient"]);
        let people = hospital.get_with(&token, &files["Patient"]).await.text();
        let ids: Vec<Value> = people.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(ids.iter().map(|one: &Value| one["id"].clone()).collect::<Vec<_>>(), ["p2"]);
        let seen = hospital.get_with(&token, &files["Observation"]).await.text();
        assert!(!seen.is_empty() && seen.lines().all(|line| line.contains("Patient/p2")), "{seen}");
    });
}

/// T-150: each link is judged by the policies of the moment.
#[test]
fn a_right_that_was_withdrawn_ends_an_export() {
    run(async {
        let hospital = ward().await;
        let token = hospital.token("researcher");
        let link = hospital.begin(&token, "$export?_type=Patient").await;
        hospital.follow("GET", &token, &link).await;
        let file = files(&hospital.finish(&token, &link).await)["Patient"].clone();
        hospital.get_with(&token, &file).await.check_ok();
        let before = hospital.events("policies-loaded");
        hospital.edit("researcher.cedar", None);
        hospital.edited("policies-loaded", before).await;
        let mut refused = Vec::new();
        for (method, url) in [("GET", &link), ("GET", &file), ("DELETE", &link)] {
            refused.push((hospital.follow(method, &token, url).await, 403, "type-not-permitted"));
        }
        hospital.check_refusals(&refused);
    });
}

fn manifest(output: &str) -> Canned {
    let text = format!(
        r#"{{"transactionTime":"2026-01-15T08:30:00Z","request":"http://CANARY/$export","requiresAccessToken":false,
        "output":[{output}],"error":[{{"type":"OperationOutcome","url":"http://CANARY/e"}}],
        "deleted":[{{"type":"Bundle","url":"http://CANARY/d"}}],"extension":{{"CANARY":1}}}}"#
    );
    Canned::status(200).header("content-type", "application/json").header("x-progress", "CANARY").body(text)
}

/// T-096: nothing of the EMR's manifest is passed on, and one that leads elsewhere is not followed.
#[test]
fn kf_38_a_manifest_is_the_gates_own() {
    run(async {
        let hospital = ward().await;
        let emr = hospital.stage.emr();
        let token = hospital.token("researcher");
        let link = hospital.begin(&token, "$export?_type=Patient").await;
        let mut refused = Vec::new();
        for (output, status, code) in [
            (
                r#"{"type":"Patient","url":"https://files.example/CANARY.ndjson"}"#,
                502,
                "upstream-answer-unsound",
            ),
            (
                r#"{"type":"Coverage","url":"https://files.example/CANARY.ndjson"}"#,
                502,
                "upstream-answer-unsound",
            ),
            (
                r#"{"type":"Patient","url":"//files.example/fhir/CANARY.ndjson"}"#,
                502,
                "upstream-answer-unsound",
            ),
            (r#"{"type":"Patient","url":"/fhir/../CANARY.ndjson"}"#, 502, "upstream-answer-unsound"),
            (r#"{"type":"Patient","url":"/fhir/%2e%2e/CANARY.ndjson"}"#, 502, "upstream-answer-unsound"),
            (r#"{"type":"Patient","url":"/other/CANARY.ndjson"}"#, 502, "upstream-answer-unsound"),
            (r#"{"type":"CANARY","url":"/fhir/export-files/1/x"}"#, 502, "upstream-answer-unsound"),
            (r#"{"type":"Patient"}"#, 502, "upstream-answer-unsound"),
            ("CANARY", 502, "upstream-answer-unsound"),
        ] {
            emr.next_answer(JOB, manifest(output));
            refused.push((hospital.follow("GET", &token, &link).await, status, code));
        }
        for (canned, status, code) in [
            (404, 404, "not-found"),
            (410, 404, "not-found"),
            (429, 503, "upstream-busy"),
            (500, 502, "upstream-answer-unsound"),
            (302, 502, "upstream-redirected"),
        ] {
            emr.next_answer(JOB, Canned::status(canned).header("location", "http://CANARY/").body("CANARY"));
            refused.push((hospital.follow("GET", &token, &link).await, status, code));
        }
        assert!(refused.iter().all(|(reply, ..)| !reply.text().contains("CANARY")), "{refused:#?}");
        hospital.check_refusals(&refused);
        what_is_shown_is_the_gates_own(&hospital, &token, &link).await;
    });
}

async fn what_is_shown_is_the_gates_own(hospital: &Hospital, token: &str, link: &str) {
    let emr = hospital.stage.emr();
    let two = r#"{"type":"Patient","url":"/fhir/export-files/1/Patient.ndjson","count":7},
        {"type":"Patient","url":"/fhir/export-files/1/Patient.ndjson"},
        {"type":"Coverage","url":"/fhir/export-files/1/Coverage.ndjson"}"#;
    emr.next_answer(JOB, manifest(two));
    let shown = hospital.follow("GET", token, link).await;
    shown.check_ok();
    assert_eq!(shown.header("content-type"), Some("application/json"));
    assert!(!format!("{:?} {}", shown.headers, shown.text()).contains("CANARY"), "{}", shown.text());
    assert!(
        !shown.text().contains("http://127.0.0.1") && !shown.text().contains("count"),
        "{}",
        shown.text()
    );
    let json = shown.json();
    assert_eq!(json["request"], format!("{}/$export?_type=Patient", hospital.stage.base_url()));
    assert_eq!(
        (&json["requiresAccessToken"], &json["error"], &json["deleted"]),
        (&json!(true), &json!([]), &json!([]))
    );
    assert_eq!(json["transactionTime"], "2026-01-15T08:30:00Z");
    assert_eq!(json["output"].as_array().unwrap().len(), 1, "one file for each type");
    // Both files of the EMR's come as one.
    let file = files(&shown)["Patient"].clone();
    emr.next_answer(JOB, manifest(two));
    let both = hospital.get_with(token, &file).await.text();
    emr.next_answer(JOB, manifest(r#"{"type":"Patient","url":"/fhir/export-files/1/Patient.ndjson"}"#));
    let once = hospital.get_with(token, &file).await.text();
    assert!(!once.is_empty());
    assert_eq!(both, once.repeat(2));
    emr.next_answer(JOB, manifest(r#"{"type":"Patient","url":"https://files.example/CANARY.ndjson"}"#));
    hospital.get_with(token, &file).await.check_refusal(502, "upstream-answer-unsound");
}

/// A status link that the EMR puts elsewhere, or on a record, is not followed.
#[test]
fn a_kick_off_must_say_where_its_status_is() {
    run(async {
        let hospital = ward().await;
        let emr = hospital.stage.emr();
        let token = hospital.token("researcher");
        let mut refused = Vec::new();
        let place = |place: &str| Canned::status(202).header("content-location", place);
        for (canned, status, code) in [
            (place("https://elsewhere.example/fhir/jobs/1"), 502, "upstream-answer-unsound"),
            (place("/fhir/Patient/p1"), 502, "upstream-answer-unsound"),
            (place("/fhir"), 502, "upstream-answer-unsound"),
            (
                place("/fhir/jobs/1").header("content-location", "/fhir/jobs/2"),
                502,
                "upstream-answer-unsound",
            ),
            (Canned::status(202), 502, "upstream-answer-unsound"),
            (Canned::fhir("{}"), 502, "upstream-answer-unsound"),
            (Canned::status(501), 400, "query-refused-upstream"),
            (Canned::status(429), 503, "upstream-busy"),
        ] {
            emr.next_answer("/fhir/$export", canned);
            refused.push((hospital.kick_off(&token, "$export").await, status, code));
        }
        hospital.check_refusals(&refused);
    });
}

/// P2 for long answers: each unit is in the trail with what it releases, and all of them are one answer.
#[test]
fn a_long_file_is_released_in_units() {
    run(async {
        let hospital = ward().await;
        charts::load_crowd(hospital.stage.emr(), 1_300, 0).unwrap();
        let token = hospital.token("researcher");
        let files = hospital.export(&token, "$export?_type=Patient").await;
        let file = hospital.get_with(&token, &files["Patient"]).await;
        file.check_ok();
        let lines = file.text();
        assert!(
            !lines.contains("Crowd") && !lines.contains("555-"),
            "names and numbers are nobody's to export"
        );
        let units = hospital.ended_units(file.request_id()).await;
        assert!(units.len() >= 3, "{} units", units.len());
        let places: Vec<u64> = units.iter().map(|unit| unit["unit"].as_u64().unwrap()).collect();
        assert_eq!(places, (0..units.len() as u64).collect::<Vec<_>>());
        let released = |unit: &Value| -> Vec<String> {
            let list = unit["released"].as_array().unwrap();
            list.iter().map(|one| one["reference"].as_str().unwrap().to_owned()).collect()
        };
        let named: Vec<String> = units.iter().flat_map(released).collect();
        let sent: Vec<String> = lines
            .lines()
            .map(|line| {
                format!("Patient/{}", serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap())
            })
            .collect();
        assert_eq!(named, sent);
        assert!(units.iter().all(|unit| unit["released"].as_array().unwrap().len() <= 500));
        for unit in &units {
            assert_eq!((&unit["decision"], &unit["status"]), (&json!("permit"), &json!(200)), "{unit}");
            assert_eq!((&unit["outcome"], &unit["sentBytes"]), (&json!("complete"), &json!(lines.len())));
        }
    });
}

/// T-097: a line that is no sound record of the type ends the file, with nothing behind it.
#[test]
fn kf_38_a_broken_line_ends_a_file() {
    run(async {
        let hospital = ward().await;
        let emr = hospital.stage.emr();
        let token = hospital.token("researcher");
        let file = hospital.export(&token, "$export?_type=Patient").await["Patient"].clone();
        let condition = r#"{"resourceType":"Condition","id":"after","subject":{"reference":"Patient/p1"}}"#;
        let bundle = format!(
            r#"{{"resourceType":"Bundle","type":"searchset","entry":[{{"resource":{}}}]}}"#,
            patient("after").trim()
        );
        let huge = patient("after").replace("CANARY", &"CANARY".repeat(3_000_000));
        for (name, line) in [
            ("not JSON", "{\"resourceType\":\"Patient\",\"id\":\"after\""),
            ("another type", condition),
            ("an envelope", &bundle),
            ("two records", &patient("after").replace('\n', &patient("after"))),
            ("too long", &huge),
        ] {
            let canned = |before: usize| {
                Canned::status(200)
                    .body(patients(0, before))
                    .body(line.trim_end().to_owned() + "\n")
                    .body(patient("after").repeat(MANY))
            };
            emr.next_answer(PATIENTS, canned(10));
            hospital.get_with(&token, &file).await.check_refusal(502, "upstream-answer-unsound");
            emr.next_answer(PATIENTS, canned(MANY));
            check_broken_off(&hospital, &token, &file, name).await;
        }
        emr.next_answer(
            PATIENTS,
            Canned::status(200).body(patients(0, MANY)).body_after(SOON, "\n").cut_off(),
        );
        check_broken_off(&hospital, &token, &file, "cut off").await;
        emr.next_answer(PATIENTS, Canned::status(200).body(patients(0, MANY)));
        let mut stream = hospital.raw(&file, &token, false).await;
        let (heard, ended) = drain(&mut stream).await;
        assert!(ended && heard.contains(&format!("\"x{}\"", MANY - 1)), "the same without a fault");
    });
}

async fn check_broken_off(hospital: &Hospital, token: &str, file: &str, name: &str) {
    let mut stream = hospital.raw(file, token, false).await;
    let (heard, ended) = drain(&mut stream).await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{name}: {heard}");
    assert!(!ended, "{name}: the file looks whole");
    assert!(!heard.contains("after") && !heard.contains("CANARY"), "{name}");
    let id = request_id(&heard);
    let units = hospital.ended_units(&id).await;
    assert!(units.len() > 1, "{name}: {} units", units.len());
    assert!(units.iter().all(|unit| unit["outcome"] == "failed"), "{name}: {units:#?}");
    assert!(named(&units) < MANY, "{name}: {} records", named(&units));
}

/// A client that does not read holds the EMR's file back; one that leaves is told from one that had all.
#[test]
fn a_client_sets_the_pace_and_may_leave() {
    run(async {
        let hospital = ward().await;
        let (stream, id, before) = stand_still(&hospital).await;
        assert!(before < ALL, "all was read for a client that takes nothing");
        drop(stream);
        let left = || hospital.units(&id).iter().all(|unit| unit["outcome"] == "cut-off");
        assert!(until(Duration::from_secs(10), left).await, "{:#?}", hospital.units(&id)[0]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(named(&hospital.units(&id)) < ALL, "nobody is left to read for");
    });
}

/// T-193: a download ends when whoever it is for is revoked, and so does an answer that is already all made.
#[test]
fn a_revocation_cuts_a_download_short() {
    run(async {
        let hospital = ward().await;
        let (mut stream, id, before) = stand_still(&hospital).await;
        let address = hospital.stage.running().unwrap().operations_address();
        let order = json!({"client": "research-app", "reason": "no agreement any more"});
        let client = hospital.stage.issuer().persona("researcher").unwrap().client;
        let order = order.to_string().replace("research-app", client);
        let head = format!(
            "POST /revocation HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{order}",
            order.len()
        );
        let mut operations = TcpStream::connect(address).await.unwrap();
        operations.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        operations.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        let (_, ended) = drain(&mut stream).await;
        assert!(!ended, "the file looks whole");
        let units = hospital.ended_units(&id).await;
        assert!(units.iter().all(|unit| unit["outcome"] == "cut-off"), "{:#?}", units[0]["outcome"]);
        assert_eq!(named(&units), before, "nothing more was recorded as released, nor left");
        let again = hospital.get("researcher", "Patient").await;
        again.check_refusal(401, "session-revoked");
    });
}

/// No unit leaves that the trail could not take.
#[test]
fn p2_no_record_no_unit() {
    run(async {
        let hospital = ward().await;
        let (mut stream, id, _) = stand_still(&hospital).await;
        let (audit, gone) = (hospital.stage.folder().join("audit"), hospital.stage.folder().join("gone"));
        std::fs::rename(&audit, &gone).unwrap();
        let (heard, ended) = drain(&mut stream).await;
        assert!(!ended, "the file looks whole");
        std::fs::rename(&gone, &audit).unwrap();
        let units = hospital.units(&id);
        let recorded = named(&units);
        assert!(recorded < ALL, "the trail was whole");
        let last = units.last().unwrap()["released"].as_array().unwrap().last().unwrap()["reference"].clone();
        assert_eq!(last, format!("Patient/x{}", recorded - 1));
        let next = format!("\"id\":\"x{recorded}\"");
        assert!(heard.contains("\"gender\"") && !heard.contains(&next), "a unit left without a record");
    });
}

/// Asks for a long file, reads its beginning and no more: the stream, the request's id, and how many records were
/// recorded as released when nothing moved any more.
async fn stand_still(hospital: &Hospital) -> (TlsStream<TcpStream>, String, usize) {
    let token = hospital.token("researcher");
    let file = hospital.export(&token, "$export?_type=Patient").await["Patient"].clone();
    let state = format!("\"address\":[{{\"state\":\"{}\"}}],\"name\"", "Placeholdia ".repeat(160));
    let long = patients(0, ALL).replace("\"name\"", &state);
    hospital.stage.emr().next_answer(PATIENTS, Canned::status(200).body(long));
    let mut stream = hospital.raw(&file, &token, true).await;
    let mut head = [0; 2 * 1024];
    stream.read_exact(&mut head).await.unwrap();
    let id = request_id(&String::from_utf8_lossy(&head));
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let now = named(&hospital.units(&id));
        if now == before && now > 0 {
            return (stream, id, before);
        }
        before = now;
    }
}

pub(crate) fn named(units: &[Value]) -> usize {
    units.iter().map(|unit| unit["released"].as_array().unwrap().len()).sum()
}
