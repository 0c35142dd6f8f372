//! Bodies of changes (KF-57, KF-34, T-070, T-082): one sound record in JSON, whose references are what they say.
//!
//! Owns: media types, codings, unsound bodies, references by search, and headers that would carry a record.
//! Must never: let a body through that two readers could read differently.
//! Look next: `tests/data/filter/sent.toml`, unsound bodies without a socket.

use serde_json::json;

use crate::harness::{Hospital, run};
use crate::writes::{fresh, observation, patient, record_of};

/// Bodies that are not one sound record in JSON (KF-57, T-114, T-164); none of them reaches the EMR.
#[test]
#[expect(clippy::too_many_lines, reason = "cases as data")]
fn kf57_a_body_is_one_sound_record_or_refused() {
    run(async {
        let hospital = Hospital::doors().await;
        let good = r#"{"resourceType":"Observation","status":"final","code":{"text":"kf57-mark"}}"#;
        let fhir = ("content-type", "application/fhir+json");
        let bom = format!("\u{feff}{good}");
        let big = format!(
            r#"{{"resourceType":"Observation","status":"final","code":{{"text":"kf57-mark{}"}}}}"#,
            "x".repeat(17 * 1024 * 1024)
        );
        let deep = format!(
            r#"{{"resourceType":"Observation","status":"final","code":{{"text":"kf57-mark"}},"x":{}{}}}"#,
            "[".repeat(400),
            "]".repeat(400)
        );
        let twice = good.replace("\"final\"", "\"final\",\"status\":\"amended\"");
        let escaped = good.replace("\"final\"", "\"final\",\"st\\u0061tus\":\"amended\"");
        type Case<'c> = (&'c str, &'c str, Vec<(&'c str, &'c str)>, u16, &'c str);
        let cases: Vec<Case<'_>> = vec![
            ("no type", good, vec![("content-type", "")], 415, "unsupported-media-type"),
            (
                "xml",
                "<Observation/>",
                vec![("content-type", "application/fhir+xml")],
                415,
                "unsupported-media-type",
            ),
            ("turtle", good, vec![("content-type", "text/turtle")], 415, "unsupported-media-type"),
            (
                "a form",
                good,
                vec![("content-type", "application/x-www-form-urlencoded")],
                415,
                "unsupported-media-type",
            ),
            ("two types", good, vec![fhir, ("content-type", "application/json")], 400, "*"),
            (
                "utf-16",
                good,
                vec![("content-type", "application/fhir+json;charset=utf-16")],
                415,
                "unsupported-media-type",
            ),
            ("nothing", " ", vec![fhir], 400, "body-unsound"),
            ("a list", "[]", vec![fhir], 400, "body-unsound"),
            ("no resourceType", r#"{"status":"final"}"#, vec![fhir], 400, "body-unsound"),
            (
                "another type",
                r#"{"resourceType":"Patient","active":true}"#,
                vec![fhir],
                400,
                "body-of-other-type",
            ),
            ("twice", &twice, vec![fhir], 400, "body-unsound"),
            ("twice, escaped", &escaped, vec![fhir], 400, "body-unsound"),
            ("a BOM", &bom, vec![fhir], 400, "body-unsound"),
            ("cut short", &good[..40], vec![fhir], 400, "body-unsound"),
            (
                "something behind",
                "{\"resourceType\":\"Observation\",\"status\":\"final\",\"code\":{}}{}",
                vec![fhir],
                400,
                "body-unsound",
            ),
            ("too deep", &deep, vec![fhir], 400, "body-unsound"),
            ("a Bundle", r#"{"resourceType":"Bundle","type":"batch"}"#, vec![fhir], 400, "*"),
            ("too large", &big, vec![fhir], 413, "body-too-large"),
            ("brotli", good, vec![fhir, ("content-encoding", "br")], 415, "unsupported-encoding"),
            ("not gzip", good, vec![fhir, ("content-encoding", "gzip")], 400, "body-coding-unsound"),
        ];
        let mut replies = Vec::new();
        for (name, body, headers, status, code) in &cases {
            let mut reply = hospital.change("nurse", ("POST", "Observation"), headers, body).await;
            reply.what = (*name).to_owned();
            assert_eq!(
                (reply.status, *code == "*" || reply.code() == *code),
                (*status, true),
                "{name}: {} {}",
                reply.status,
                reply.text()
            );
            let code = reply.code();
            reply.check_refusal(*status, &code);
            replies.push(reply);
        }
        let xml_patch = hospital
            .change(
                "nurse",
                ("PATCH", "Observation/x"),
                &[("content-type", "application/xml-patch+xml")],
                "<diff/>",
            )
            .await;
        xml_patch.check_refusal(415, "unsupported-media-type");
        replies.push(xml_patch);
        let merge_patch = hospital
            .change(
                "nurse",
                ("PATCH", "Observation/x"),
                &[("content-type", "application/merge-patch+json")],
                "{}",
            )
            .await;
        merge_patch.check_refusal(415, "unsupported-media-type");
        replies.push(merge_patch);
        assert_eq!(hospital.upstream_saw("kf57-mark"), 0);
        hospital.check_recorded(&replies);
    });
}

#[test]
fn a_gzipped_body_is_unpacked_and_judged() {
    run(async {
        let hospital = Hospital::doors().await;
        let mut body = observation("x", "Patient/p1");
        body.as_object_mut().unwrap().remove("id");
        let packed = |text: &str| {
            chartgate::edge::coding::encode(chartgate::edge::coding::Coding::Gzip, text.as_bytes()).unwrap()
        };
        let bearer = format!("Bearer {}", hospital.writer("nurse"));
        for (with_secret, status) in [(true, 403), (false, 201)] {
            let mut sent = body.clone();
            if !with_secret {
                sent.as_object_mut().unwrap().remove("extension");
            }
            let mut headers = http::HeaderMap::new();
            for (name, value) in [
                ("authorization", bearer.as_str()),
                ("content-type", "application/fhir+json"),
                ("content-encoding", "gzip"),
            ] {
                headers.insert(name, value.parse().unwrap());
            }
            let url = format!("{}/Observation", hospital.stage.base_url());
            let answer =
                hospital.client.ask("POST", &url, headers, packed(&sent.to_string()).into()).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{:?}", answer.body());
        }
    });
}

/// T-070 and KF-34: a reference by search is a search: with the caller's eyes, or refused.
#[test]
fn t070_references_by_search_are_resolved_with_the_callers_eyes() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("by-search"));
        let mut hidden = patient("by-search-hidden");
        hidden["meta"] = json!({"security": [{"code": "R"}]});
        hospital.store(&hidden);
        let body = |subject: &str| fresh(observation("x", subject));
        let physician = hospital
            .change(
                "physician",
                ("POST", "Observation"),
                &[],
                &body("Patient?identifier=urn:example:mrn%7Cmrn-by-search"),
            )
            .await;
        assert_eq!(physician.status, 201, "{}", physician.text());
        let id = physician.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(hospital.stored("Observation", &id)["subject"]["reference"], "Patient/by-search");
        assert_eq!(record_of(&hospital, &physician)["released"][0]["patients"], json!(["by-search"]));
        let mut replies = Vec::new();
        // A nurse does not see identifiers; a family name she sees, but not of everyone.
        for (who, subject, status, code) in [
            ("nurse", "Patient?identifier=urn:example:mrn%7Cmrn-by-search", 403, "criterion-withheld"),
            ("nurse", "Patient?_id=by-search-hidden", 412, "reference-unresolved"),
            ("nurse", "Patient?_id=never", 412, "reference-unresolved"),
            ("nurse", "Patient?gender=female", 412, "reference-unresolved"),
            ("nurse", "Claim?status=active", 403, "type-not-permitted"),
            ("nurse", "Patient?nonsense=1", 400, "unknown-parameter"),
            ("nurse", "Patient/$match?x=1", 0, "*"),
            ("nurse", "http://elsewhere.example/Patient?_id=p1", 0, "*"),
        ] {
            let reply = hospital.change(who, ("POST", "Observation"), &[], &body(subject)).await;
            assert!(
                reply.status >= 400 && (status == 0 || reply.status == status),
                "{subject}: {}",
                reply.text()
            );
            assert!(code == "*" || reply.code() == code, "{subject}: {}", reply.text());
            replies.push(reply);
        }
        let visible =
            hospital.change("nurse", ("POST", "Observation"), &[], &body("Patient?_id=by-search")).await;
        assert_eq!(visible.status, 201, "{}", visible.text());
        assert_eq!(
            replies[1].without_request_id(),
            replies[2].without_request_id(),
            "withheld and never there"
        );
        hospital.check_recorded(&replies);
        let asked = hospital.stage.emr().requests();
        assert!(
            asked
                .iter()
                .all(|one| !(one.method == "POST"
                    && String::from_utf8_lossy(&one.body).contains("\"Patient?")))
        );
    });
}

/// Absolute references of ours become local, so that they are judged as what they are.
#[test]
fn absolute_references_are_local() {
    run(async {
        let hospital = Hospital::doors().await;
        let subject = format!("{}/Patient/p1", hospital.stage.base_url());
        let reply =
            hospital.change("nurse", ("POST", "Observation"), &[], &fresh(observation("x", &subject))).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(hospital.stored("Observation", &id)["subject"]["reference"], "Patient/p1");
    });
}

/// T-082, and what subscribes: not ours to judge, so dropped and refused.
#[test]
fn t082_what_cannot_be_judged_is_dropped_or_refused() {
    run(async {
        let hospital = Hospital::doors().await;
        let provenance = r#"{"resourceType":"Provenance","agent":[{"who":{"display":"CANARY-provenance"}}]}"#;
        let headers = [("x-provenance", provenance), ("x-security-context", "CANARY-context")];
        let reply = hospital
            .change("nurse", ("POST", "Observation"), &headers, &fresh(observation("x", "Patient/p1")))
            .await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        for one in hospital.stage.emr().requests() {
            assert!(one.headers.iter().all(|(_, value)| !value.contains("CANARY")), "{one:?}");
        }
        let body = r#"{"resourceType":"Subscription","status":"requested","reason":"x","criteria":"Observation?","channel":{"type":"rest-hook"}}"#;
        let mut replies = Vec::new();
        for request in [("POST", "Subscription"), ("PUT", "Subscription/s")] {
            let reply = hospital
                .change("integration", request, &[], &body.replace("\"status\"", "\"id\":\"s\",\"status\""))
                .await;
            assert_eq!(reply.status, 403, "{}", reply.text());
            replies.push(reply);
        }
        hospital.check_recorded(&replies);
    });
}
