//! Paging links (T-148 to T-152) and includes.
//!
//! Owns: that a link works for its caller only, tells nothing, and is judged anew.
//! Must never: follow a link without looking at what it says.
//! Look next: `policy`, where a link outlives its permission.

use crate::harness::{Hospital, Reply, run};

/// The `next` link of a searchset.
pub(crate) fn next(reply: &Reply) -> Option<String> {
    let bundle = reply.json();
    let link = bundle["link"].as_array().unwrap().iter().find(|link| link["relation"] == "next").cloned();
    link.map(|link| link["url"].as_str().unwrap().to_owned())
}

fn ids(reply: &Reply) -> Vec<String> {
    let bundle = reply.json();
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pages_follow_each_other_to_the_end() {
    run(async {
        let hospital = Hospital::shared().await;
        let token = hospital.token("physician");
        let whole = hospital.get_with(&token, "Observation?patient=p1&_sort=_id&_count=100").await;
        let mut page = hospital.get_with(&token, "Observation?patient=p1&_sort=_id&_count=2").await;
        let (mut found, mut replies) = (Vec::new(), Vec::new());
        loop {
            page.check_ok();
            found.extend(ids(&page));
            let link = next(&page);
            replies.push(page);
            let Some(link) = link else { break };
            assert!(link.starts_with(&format!("{}/Observation?~page=", hospital.stage.base_url())), "{link}");
            page = hospital.get_with(&token, &link).await;
        }
        assert_eq!(found, ids(&whole));
        assert!(replies.len() >= 5, "{} pages", replies.len());
        let records = hospital.check_recorded(&replies);
        assert!(records.iter().all(|record| record["interaction"] == "search-type"));
        assert!(records.iter().all(|record| !record["released"].as_array().unwrap().is_empty()));
    });
}

#[test]
fn a_page_link_is_sealed_and_its_callers_own() {
    run(async {
        let hospital = Hospital::shared().await;
        let issuer = hospital.stage.issuer();
        let first = hospital.get("physician", "Observation?patient=p1&_count=2&code:not=zz-secret").await;
        let link = next(&first).unwrap();
        let token = link.split_once("~page=").unwrap().1.to_owned();
        // Words of two letters stand in every twentieth sealed link by chance: only longer ones tell something.
        for word in ["patient", "zz-secret", "_count", "127.0.0.1", "Observation", "cursor", "offset"] {
            assert!(!token.contains(word), "the link says {word}");
        }
        // A new session of the same person: the link is the person's.
        hospital.get("physician", &link).await.check_ok();
        let mut others = Vec::new();
        let nurse = hospital.get("nurse", &link).await;
        let same_name = issuer.token_with("nurse", |claims| claims["sub"] = "physician".into()).unwrap();
        hospital.get_with(&same_name, &link).await.check_ok();
        let application = issuer.token_with("physician", |claims| {
            claims["client_id"] = "other-app".into();
            claims["azp"] = "other-app".into();
        });
        others.push(nurse);
        others.push(hospital.get_with(&application.unwrap(), &link).await);
        others.push(hospital.get("physician", &link.replace("/Observation?", "/Condition?")).await);
        for place in [0, 5, token.len() / 2, token.len() - 1] {
            let mut letters: Vec<char> = token.chars().collect();
            letters[place] = if letters[place] == 'A' { 'B' } else { 'A' };
            let changed: String = letters.into_iter().collect();
            others.push(hospital.get("physician", &link.replace(&token, &changed)).await);
        }
        others.push(hospital.get("physician", &link.replace(&token, &token[..token.len() - 4])).await);
        let others: Vec<(Reply, u16, &str)> =
            others.into_iter().map(|reply| (reply, 400, "page-link-not-valid")).collect();
        hospital.check_refusals(&others);
        let added = hospital.get("physician", &format!("{link}&_include=Observation:patient")).await;
        hospital.check_refusals(&[(added, 400, "malformed-page-token")]);
    });
}

/// An EMR's `next` that leads elsewhere is not followed, and nothing of it is shown.
#[test]
fn a_next_link_to_another_place_is_not_followed() {
    use chartgate_sandbox::listen::Canned;
    run(async {
        let hospital = Hospital::shared().await;
        let elsewhere =
            ["http://127.0.0.1:1/fhir/Flag?CANARY=1", "file:///etc/CANARY", "//CANARY/x", "../../CANARY"];
        for url in elsewhere {
            let bundle = format!(
                r#"{{"resourceType":"Bundle","type":"searchset","link":[{{"relation":"next","url":"{url}"}}]}}"#
            );
            hospital.stage.emr().next_answer("/fhir/Flag", Canned::fhir(bundle));
            let reply = hospital.get("physician", "Flag?patient=p1").await;
            assert!(!reply.text().contains("CANARY"), "{}", reply.text());
            if reply.status == 200
                && let Some(link) = next(&reply)
            {
                let followed = hospital.get("physician", &link).await;
                hospital.check_refusals(&[(followed, 502, "upstream-answer-unsound")]);
            }
        }
        assert_eq!(hospital.upstream_saw("CANARY"), 0);
    });
}

#[test]
fn includes_are_decided_like_any_record() {
    run(async {
        let hospital = Hospital::shared().await;
        let reply = hospital.get("nurse", "Encounter?patient=p1&_include=Encounter:patient&_count=50").await;
        reply.check_ok();
        let bundle = reply.json();
        let entries = bundle["entry"].as_array().unwrap();
        let included: Vec<_> = entries.iter().filter(|entry| entry["search"]["mode"] == "include").collect();
        let [patient] = included.as_slice() else { panic!("{} included", included.len()) };
        assert_eq!(patient["resource"]["id"], "p1");
        assert_eq!(
            patient["resource"].get("identifier"),
            None,
            "an included record is masked like a read one"
        );
        assert!(patient["fullUrl"].as_str().unwrap().starts_with(hospital.stage.base_url()));
        let reverse = hospital.get("nurse", "Patient?_id=p1&_revinclude=Condition:patient").await;
        reverse.check_ok();
        assert!(reverse.text().contains("cond-diabetes"));
        assert!(!reverse.text().contains("cond-depression"), "a labelled record came along");
        hospital.check_recorded([&reply, &reverse]);
        let refused = hospital.get("front-desk", "Patient?_id=p1&_revinclude=Condition:patient").await;
        assert_eq!(refused.status, 403, "{}", refused.text());
    });
}
