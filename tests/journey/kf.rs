//! Failures that other gates and servers had (the project's list of known failures), each with its number in a test's
//! name. Those with a world of their own are elsewhere: KF-30 in `rows`, KF-32 and KF-33 in `histories`, KF-53 in `bundles`,
//! KF-57 in `writes`.
//!
//! Owns: one table for each failure, asked of one shared hospital; and the closure: what we ask of the EMR would be
//! understood at our own door.
//! Must never: call a failure absent because the request is refused for another reason: codes are compared.
//! Look next: `requests`, bad input of all kinds.

use std::sync::atomic::{AtomicUsize, Ordering};

use chartgate::domain::fhir::classify::{Expects, Head, classify, expects};
use chartgate::domain::fhir::path::PublicBase;
use chartgate::domain::fhir::search::Registry;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::harness::{Hospital, Reply, run};
use crate::paging::next;
use crate::writes::{observation, patient};

/// Who asks, what, and the refusal.
type Row = (&'static str, &'static str, u16, &'static str);

/// Each is refused as told, recorded, and the EMR is not asked.
fn refused_before_the_emr_is_asked(rows: &[Row]) {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    run(async {
        let hospital = Hospital::doors().await;
        let mut replies = Vec::new();
        for (who, path, status, code) in rows {
            let place = ASKED.fetch_add(1, Ordering::Relaxed);
            let marked = if path.contains("KFMARK") {
                path.replace("KFMARK", &format!("kfmark{place}x"))
            } else {
                (*path).to_owned()
            };
            let reply = hospital.change(who, ("GET", &marked), &[], "").await;
            assert!(
                reply.status == *status && (*code == "*" || reply.code() == *code),
                "{who} {path}: {} {}",
                reply.status,
                reply.text()
            );
            assert_eq!(
                hospital.upstream_saw(&format!("kfmark{place}x")),
                0,
                "{who} {path}: the EMR was asked"
            );
            let code = reply.code();
            reply.check_refusal(*status, &code);
            replies.push(reply);
        }
        hospital.check_recorded(&replies);
    });
}

fn ids(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}: {}", reply.what, reply.text());
    let bundle = reply.json();
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn kf03_kf25_the_launch_patient_holds_for_every_form() {
    run(async {
        let hospital = Hospital::doors().await;
        let mut missing = Vec::new();
        for path in [
            "Patient/p2",
            "Observation/obs-p2-glucose",
            "Patient/p2/_history",
            "Patient/p2/_history/1",
            "Observation/obs-p2-glucose/_history",
        ] {
            for method in ["GET", "HEAD"] {
                let reply = hospital.change("patient", (method, path), &[("if-none-match", "*")], "").await;
                assert_eq!(reply.status, 404, "{method} {path}");
                missing.push(reply);
            }
        }
        for path in [
            "Observation?patient=p2",
            "Observation?subject=Patient/p2",
            "Patient?_id=p2",
            "Patient/p2/Observation",
            "Patient?_id=p2&_revinclude=Observation:patient",
            "?_type=Patient&_id=p2",
            "Condition?subject=Patient/p2",
        ] {
            assert!(ids(&hospital.change("patient", ("GET", path), &[], "").await).is_empty(), "{path}");
        }
        let body = json!({"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/p2"}}, {"request": {"method": "GET", "url": "Patient/p1"}}]});
        let batch = hospital.change("patient", ("POST", ""), &[], &body.to_string()).await.json();
        assert_eq!(
            (&batch["entry"][0]["response"]["status"], &batch["entry"][1]["response"]["status"]),
            (&json!("404"), &json!("200"))
        );
    });
}

#[test]
fn kf10_kf11_kf13_kf17_one_spelling_of_a_path_or_none() {
    let rows: Vec<Row> = [
        "Patient/../Patient/KFMARK",
        "Patient//KFMARK",
        "Patient/%2e%2e/KFMARK",
        "Patient%2FKFMARK",
        "Patient/KFMARK;x=1",
        "patient/KFMARK",
        "Patient/KFMARK/",
        "Patient/KFMARK%2F_history",
        "Patient/p1?KFMARK=/metadata",
        "Patient/KFMARK%00",
        "Patient/KFMARK%5Cx",
        "metadata/../Patient/KFMARK",
        "Patient/KFMARK%23/metadata",
    ]
    .into_iter()
    .map(|path| ("physician", path, 0, "*"))
    .collect();
    run(async {
        let hospital = Hospital::doors().await;
        for (_, path, ..) in &rows {
            let path = path.replace("KFMARK", "kfmark10");
            let reply = hospital.change("physician", ("GET", &path), &[], "").await;
            let unseen = hospital.upstream_saw("kfmark10") == 0;
            assert!(
                [400, 404].contains(&reply.status) && unseen,
                "{path}: {} {}",
                reply.status,
                reply.text()
            );
        }
    });
}

#[test]
fn kf12_a_repeated_header_has_one_meaning_or_none() {
    run(async {
        let hospital = Hospital::doors().await;
        let body =
            json!({"resourceType": "Observation", "status": "final", "code": {"text": "kf12"}}).to_string();
        let bearer = format!("Bearer {}", hospital.writer("nurse"));
        let cases: [(&str, &str, &str); 5] = [
            ("if-none-exist", "_id=a", "_id=b"),
            ("prefer", "return=minimal", "return=representation"),
            ("if-match", "W/\"1\"", "W/\"2\""),
            ("content-type", "application/fhir+json", "application/json"),
            ("authorization", &bearer, &bearer),
        ];
        for (name, one, other) in cases {
            let headers = [(name, one), (name, other)];
            let (method, path) =
                if name == "if-match" { ("PUT", "Observation/kf12") } else { ("POST", "Observation") };
            let body = if name == "if-match" {
                body.replace("\"status\"", "\"id\":\"kf12\",\"status\"")
            } else {
                body.clone()
            };
            let mut all =
                if name == "authorization" { Vec::new() } else { vec![("authorization", bearer.as_str())] };
            if name != "content-type" {
                all.push(("content-type", "application/fhir+json"));
            }
            all.extend(headers);
            let reply = hospital.ask(method, path, &all, &body).await;
            assert!([400, 401].contains(&reply.status), "{name}: {} {}", reply.status, reply.text());
        }
        assert_eq!(hospital.upstream_saw("kf12"), 0);
    });
}

#[test]
fn kf21_kf22_every_hop_of_a_chain_is_a_read() {
    refused_before_the_emr_is_asked(&[
        ("front-desk", "Patient?_has:Observation:patient:code=KFMARK", 403, "*"),
        ("front-desk", "Patient?_has:Condition:subject:code=KFMARK", 403, "*"),
        ("nurse", "Observation?subject:Patient.identifier=KFMARK", 403, "criterion-withheld"),
        ("nurse", "Observation?patient.identifier=KFMARK", 403, "criterion-withheld"),
        ("nurse", "Patient?_has:Claim:patient:identifier=KFMARK", 403, "*"),
        ("nurse", "Patient?_has:Observation:patient:_has:AuditEvent:entity:agent=KFMARK", 403, "*"),
        ("researcher", "Observation?subject:Patient.name=KFMARK", 403, "criterion-withheld"),
        ("researcher", "Observation?performer:Practitioner.name=KFMARK", 403, "criterion-withheld"),
        ("patient", "Observation?performer:Practitioner.name=KFMARK", 403, "criterion-withheld"),
    ]);
}

#[test]
fn kf23_kf24_includes_and_references_confer_nothing() {
    run(async {
        let hospital = Hospital::doors().await;
        let mut other = observation("kf23", "Patient/p1");
        other["performer"] = json!([{"reference": "Patient/p2"}]);
        other["focus"] = json!([{"reference": "Patient/p3"}]);
        hospital.store(&other);
        let mut focus = observation("kf24", "Patient/p2");
        focus["focus"] = json!([{"reference": "Patient/p1"}]);
        hospital.store(&focus);
        for path in [
            "Observation?_id=kf23&_include=Observation:performer",
            "Observation?_id=kf23&_include=Observation:focus",
            "Observation?_id=kf23&_include:iterate=Observation:performer",
            "Patient?_id=p1&_revinclude=Observation:focus",
            "Patient/p1/Observation?_include=Observation:performer",
        ] {
            let reply = hospital.change("patient", ("GET", path), &[], "").await;
            if reply.status == 200 {
                let found = ids(&reply);
                assert!(
                    !found.iter().any(|id| ["p2", "p3", "kf24"].contains(&id.as_str())),
                    "{path}: {found:?}"
                );
            }
        }
        for path in ["Observation/kf24", "Group/group-course"] {
            assert!(
                [403, 404].contains(&hospital.change("patient", ("GET", path), &[], "").await.status),
                "{path}"
            );
        }
    });
    refused_before_the_emr_is_asked(&[
        ("nurse", "Patient?_id=KFMARK&_include=*", 400, "include-not-supported"),
        ("nurse", "Patient?_id=KFMARK&_revinclude=*", 400, "include-not-supported"),
        ("nurse", "Patient?_id=KFMARK&_revinclude=Claim:patient", 403, "*"),
        ("front-desk", "Patient?_id=KFMARK&_revinclude=Observation:subject", 403, "*"),
    ]);
}

#[test]
fn kf26_kf27_kf28_operations_are_named_or_refused() {
    refused_before_the_emr_is_asked(&[
        ("integration", "Patient/KFMARK/$summary", 403, "operation-not-supported"),
        ("integration", "Patient/KFMARK/$meta", 403, "operation-not-supported"),
        ("integration", "$graphql?query=KFMARK", 403, "graphql-not-supported"),
        ("integration", "Patient/$match?x=KFMARK", 403, "operation-not-supported"),
        ("integration", "Observation/$stats?x=KFMARK", 403, "operation-not-supported"),
        ("front-desk", "Observation/$lastn?patient=KFMARK&category=vital-signs", 403, "*"),
        ("nurse", "Patient/KFMARK/$everything", 403, "*"),
    ]);
}

#[test]
fn kf29_a_page_is_judged_for_whoever_asks_for_it() {
    run(async {
        let hospital = Hospital::doors().await;
        let first = hospital.get("physician", "Observation?patient=p1&_count=2").await;
        let link = next(&first).unwrap();
        for who in ["nurse", "patient", "front-desk"] {
            hospital.get(who, &link).await.check_refusal(400, "page-link-not-valid");
        }
        hospital.get("physician", &link).await.check_ok();
    });
}

#[test]
fn kf31_withheld_and_missing_look_alike() {
    run(async {
        let hospital = Hospital::doors().await;
        let lists =
            ["Condition?_id=cond-depression", "Condition?_id=never", "Patient?_id=p6", "Patient?_id=never"];
        let mut heard = Vec::new();
        for path in lists {
            let reply = hospital.get("nurse", path).await;
            assert!(ids(&reply).is_empty(), "{path}");
            let (_, query) = path.split_once('?').unwrap();
            let kind = path.split('?').next().unwrap();
            let (status, headers, body) = reply.without_request_id();
            let headers: Vec<_> = headers.into_iter().filter(|(name, _)| name != "content-length").collect();
            heard.push((status, headers, body.replace(query, "Q").replace(kind, "K")));
        }
        assert!(heard.windows(2).all(|pair| pair[0] == pair[1]), "{heard:#?}");
    });
}

#[test]
fn kf35_conditions_need_the_right_to_search() {
    run(async {
        let hospital = Hospital::doors().await;
        let body =
            json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}}).to_string();
        let patch = [("content-type", "application/json-patch+json")];
        let nothing: [(&str, &str); 0] = [];
        let condition = [("if-none-exist", "subject:Patient.identifier=kfmark35")];
        let change = r#"[{"op":"replace","path":"/status","value":"amended"}]"#;
        let withheld = "Observation?subject:Patient.identifier=kfmark35";
        for (method, path, headers, body) in [
            ("POST", "Observation", &condition[..], body.as_str()),
            ("PUT", withheld, &nothing[..], body.as_str()),
            ("PATCH", withheld, &patch[..], change),
        ] {
            let reply = hospital.change("nurse", (method, path), headers, body).await;
            reply.check_refusal(403, "criterion-withheld");
        }
        assert_eq!(hospital.upstream_saw("kfmark35"), 0);
        for (method, headers, body) in [
            ("PUT", &nothing[..], body.as_str()),
            ("PATCH", &patch[..], change),
            ("DELETE", &nothing[..], ""),
        ] {
            let reply = hospital.change("integration", (method, "Observation?"), headers, body).await;
            assert!(
                [400, 405].contains(&reply.status),
                "{method} without criteria: {} {}",
                reply.status,
                reply.text()
            );
        }
    });
}

#[test]
fn kf36_kf37_elements_hold_at_any_depth_and_in_every_form() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("kf36"));
        let bundle = json!({"resourceType": "Bundle", "type": "batch", "entry": [
            {"request": {"method": "GET", "url": "Patient/kf36"}}, {"request": {"method": "GET", "url": "Patient?_id=kf36"}},
            {"request": {"method": "GET", "url": "Patient/kf36/_history"}}, {"request": {"method": "GET", "url": "Patient/kf36/_history/1"}}]});
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let replies = [
            hospital.change("nurse", ("GET", "Patient/kf36"), &[], "").await,
            hospital.change("nurse", ("GET", "Patient?_id=kf36"), &[], "").await,
            hospital.change("nurse", ("POST", "Patient/_search"), &form, "_id=kf36").await,
            hospital.change("nurse", ("GET", "Patient/kf36/*"), &[], "").await,
            hospital.change("nurse", ("GET", "?_type=Patient&_id=kf36"), &[], "").await,
            hospital.change("nurse", ("GET", "Patient/kf36/_history"), &[], "").await,
            hospital.change("nurse", ("POST", ""), &[], &bundle.to_string()).await,
            hospital
                .change(
                    "nurse",
                    ("POST", ""),
                    &[],
                    &bundle
                        .to_string()
                        .replace("\"batch\"", "\"transaction\"")
                        .replace(",{\"request\":{\"method\":\"GET\",\"url\":\"Patient/kf36/_history\"}}", ""),
                )
                .await,
        ];
        for reply in &replies {
            reply.check_ok();
            assert!(reply.text().contains("Doors"), "{}: {}", reply.what, reply.text());
            for secret in ["SECRET-maiden", "SECRET-marital", "555-0001", "mrn-kf36"] {
                assert!(!reply.text().contains(secret), "{}: {secret}", reply.what);
            }
        }
        hospital.check_recorded(&replies);
    });
}

#[test]
fn kf43_a_parameter_nobody_knows_is_refused() {
    refused_before_the_emr_is_asked(&[
        ("integration", "Patient?nonsense=KFMARK", 400, "unknown-parameter"),
        ("integration", "Patient?_nonsense=KFMARK", 400, "unknown-parameter"),
        ("integration", "Patient/KFMARK?nonsense=1", 400, "unknown-parameter"),
        ("integration", "Patient/KFMARK/_history?nonsense=1", 400, "unknown-parameter"),
        ("integration", "Patient?name:nonsense=KFMARK", 400, "*"),
    ]);
}

/// The closure property: what the gate asks the EMR would itself be understood at the front door, but for the EMR's own
/// page links, which are opaque to anybody.
#[test]
fn what_is_asked_upstream_would_be_understood_at_the_front_door() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("closure"));
        hospital.store(&observation("closure", "Patient/closure"));
        for path in [
            "Patient/closure",
            "Patient/closure/_history",
            "Patient/closure/_history/1",
            "Observation?patient=closure&_sort=-date&_include=Observation:subject",
            "Patient?_has:Observation:patient:code=29463-7&_count=3",
            "Patient/closure/*",
            "?_type=Patient,Observation&_id=closure",
            "_history?_count=3",
            "Observation?subject:Patient.name=Doors",
            "Observation?code:in=http://example.org/vs",
            "Observation?combo-code-value-quantity=29463-7$gt5",
            "Patient?_summary=count",
            "Observation/_history?_since=2020-01-01T00:00:00Z",
        ] {
            hospital.change("integration", ("GET", path), &[], "").await;
        }
        let mut sent = observation("closure", "Patient?_id=closure");
        sent["note"] = json!([{"text": "closed"}]);
        let put =
            hospital.change("integration", ("PUT", "Observation/closure"), &[], &sent.to_string()).await;
        assert_eq!(put.status, 200, "{}", put.text());
        let body = json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": {"resourceType": "Patient", "active": true}, "request": {"method": "POST", "url": "Patient", "ifNoneExist": "_id=nobody"}}]});
        assert_eq!(hospital.change("integration", ("POST", ""), &[], &body.to_string()).await.status, 200);
        hospital.change("integration", ("DELETE", "Observation/closure"), &[], "").await;
        let (mut understood, mut wrong) = (0, Vec::new());
        for one in hospital.stage.emr().requests().iter().filter(|one| !one.target.contains("_cursor=")) {
            let mut headers = HeaderMap::new();
            for (name, value) in one.headers.iter().filter(|(name, _)| name != "authorization") {
                headers.append(
                    HeaderName::try_from(name.as_str()).unwrap(),
                    HeaderValue::try_from(value.as_str()).unwrap(),
                );
            }
            let host = one.header("host").unwrap().to_owned();
            let base = PublicBase::parse(&format!("https://{host}/fhir")).unwrap();
            let head = Head { method: &one.method, target: &one.target, authority: None, headers: &headers };
            let asked = expects(&head, &base).and_then(|expected| {
                let form = matches!(expected, Expects::Form | Expects::Parameters).then_some(&*one.body);
                classify(&head, form, &base, &Registry::default())
            });
            match asked {
                Ok(_) => understood += 1,
                Err(refusal) => wrong.push(format!("{} {}: {refusal}", one.method, one.target)),
            }
        }
        wrong.sort();
        wrong.dedup();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(understood > 20, "{understood}");
    });
}

/// KF-46 to KF-49 are in `writes`; the names say which.
#[test]
fn kf46_a_record_outside_of_what_the_scopes_allow_is_not_created() {
    run(async {
        let hospital = Hospital::doors().await;
        let token = hospital.stage.issuer().token_with("nurse", |claims| {
            claims["scope"] = Value::from("openid user/Patient.cruds user/Observation.rs")
        });
        let bearer = format!("Bearer {}", token.unwrap());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/fhir+json")];
        let body = json!({"resourceType": "Observation", "status": "final", "code": {"text": "kfmark46"}})
            .to_string();
        let reply = hospital.ask("POST", "Observation", &headers, &body).await;
        reply.check_refusal(403, "scope-insufficient");
        let bundle = json!({"resourceType": "Bundle", "type": "batch", "entry": [{"resource": serde_json::from_str::<Value>(&body).unwrap(), "request": {"method": "POST", "url": "Observation"}}]});
        let batch = hospital.ask("POST", "", &headers, &bundle.to_string()).await;
        assert_eq!(batch.json()["entry"][0]["response"]["status"], "403", "{}", batch.text());
        assert_eq!(hospital.upstream_saw("kfmark46"), 0);
    });
}
