//! Questions (P4): what may be asked, what is asked instead, and what never gets to the EMR.
//!
//! Owns: what a search may ask and what comes back of it, end to end.
//! Must never: count a refusal as proof when the EMR was asked first.
//! Look next: `tests/data/journey/withheld.toml`; `twins`, for answers that must not differ.

use serde::Deserialize;

use crate::harness::{Hospital, cases, run};

#[derive(Deserialize)]
struct Withheld {
    role: Vec<Role>,
}

#[derive(Deserialize)]
struct Role {
    who: String,
    queries: Vec<String>,
}

/// T-001 to T-016. Each query carries a mark of its own in `{mark}`, and no request with it reaches the EMR.
#[test]
fn p4_a_withheld_criterion_is_refused_before_the_emr_is_asked() {
    let roles: Withheld = cases("withheld.toml");
    run(async {
        let hospital = Hospital::shared().await;
        let (mut replies, mut wrong) = (Vec::new(), Vec::new());
        for role in &roles.role {
            let token = hospital.token(&role.who);
            for (number, query) in role.queries.iter().enumerate() {
                let mark = format!("mark-{}-{number}", role.who);
                let (kind, query) = query.split_once('?').unwrap();
                let marked = format!("{query}&_id={mark}");
                let bearer = format!("Bearer {token}");
                let get = hospital.get_with(&token, &format!("{kind}?{marked}")).await;
                let headers = [
                    ("authorization", bearer.as_str()),
                    ("content-type", "application/x-www-form-urlencoded"),
                ];
                let post = hospital.ask("POST", &format!("{kind}/_search"), &headers, &marked).await;
                for mut reply in [get, post] {
                    reply.what = format!("{} {}", role.who, reply.what);
                    if (reply.status, reply.code().as_str()) != (403, "criterion-withheld") {
                        wrong.push(format!("{} {marked}: {} {}", reply.what, reply.status, reply.code()));
                    } else {
                        replies.push((reply, 403, "criterion-withheld"));
                    }
                }
                assert_eq!(hospital.upstream_saw(&mark), 0, "{} {marked}: the EMR was asked", role.who);
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        hospital.check_refusals(&replies);
    });
}

/// What is permitted is asked and answered, and what is asked is built anew.
#[test]
fn permitted_questions_are_answered() {
    run(async {
        let hospital = Hospital::shared().await;
        let cases: &[(&str, &str, &[&str])] = &[
            ("nurse", "Patient?gender=female&birthdate=1980-02-29", &["p1"]),
            ("nurse", "Observation?patient=p1&code=http://loinc.org%7C29463-7", &["obs-weight"]),
            ("front-desk", "Patient?identifier=urn:example:mrn%7C0000-1111", &["p1"]),
            ("physician", "Patient?name=Beispiel&_sort=-birthdate", &["p5", "p1"]),
            (
                "physician",
                "Condition?patient=p1&_sort=_id",
                &["cond-depression", "cond-diabetes", "cond-refuted"],
            ),
            ("patient", "Observation?code=http://loinc.org%7C4548-4", &["obs-hba1c"]),
            ("researcher", "Observation?date=2026-01-05&_sort=_id", &["obs-p2-glucose", "obs-p2-hba1c"]),
            ("nurse", "Patient?_id=nobody", &[]),
            ("nurse", "Patient?_id=p6", &[]),
        ];
        let mut replies = Vec::new();
        for (who, path, ids) in cases {
            let reply = hospital.get(who, path).await;
            reply.check_ok();
            let bundle = reply.json();
            let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
            let found: Vec<&str> = entries.iter().map(|e| e["resource"]["id"].as_str().unwrap()).collect();
            assert_eq!(found, *ids, "{who} {path}");
            assert_eq!(bundle["type"], "searchset");
            // Only where nothing of the type can be withheld is there a total.
            let total = bundle.get("total").and_then(serde_json::Value::as_u64);
            let fits = total.is_none_or(|total| *who == "physician" && total == ids.len() as u64);
            assert!(fits, "{who} {path}: a total counts what is withheld");
            let link = bundle["link"][0]["url"].as_str().unwrap();
            assert!(link.starts_with(hospital.stage.base_url()), "{link}");
            replies.push(reply);
        }
        hospital.check_recorded(&replies);
    });
}

/// Nothing of the client's head goes upstream (T-141 to T-143), and identity is asked for.
#[test]
fn what_goes_upstream_is_built_from_scratch() {
    run(async {
        let hospital = Hospital::shared().await;
        let bearer = format!("Bearer {}", hospital.token("physician"));
        let headers = [
            ("authorization", bearer.as_str()),
            ("cookie", "CANARY=1"),
            ("x-forwarded-for", "CANARY"),
            ("x-http-method-override", "DELETE"),
            ("forwarded", "for=CANARY"),
            ("if-none-match", "W/\"3\""),
            ("range", "bytes=0-10"),
            ("accept-encoding", "gzip, br"),
            ("x-request-id", "CANARY"),
            ("prefer", "return=minimal"),
            ("traceparent", "CANARY"),
        ];
        let reply =
            hospital.ask("GET", "Patient?_id=scratch&gender=male&birthdate=ge1900", &headers, "").await;
        reply.check_ok();
        assert_ne!(reply.header("x-request-id"), Some("CANARY"), "the client chose its request id");
        let requests = hospital.stage.emr().requests();
        let asked = requests.iter().find(|request| request.target.contains("_id=scratch")).unwrap();
        assert_eq!(asked.method, "GET");
        for (name, value) in &asked.headers {
            assert!(
                ["host", "accept", "accept-encoding", "prefer", "user-agent"].contains(&name.as_str()),
                "`{name}: {value}` went upstream"
            );
            assert!(!value.contains("CANARY"), "{name}");
        }
        assert_eq!(asked.header("accept-encoding"), Some("identity"));
        assert!(reply.headers.get("content-encoding").is_none());
    });
}
