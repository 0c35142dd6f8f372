//! Rows (T-012, T-016 to T-019, T-027, T-028, T-033 to T-035, T-061): searches over types and compartments, what of a
//! record is asked for, counts, and pages that tell nothing of withheld rows.
//!
//! Owns: lists beyond one plain search. Must never: exempt a page from the comparison of two worlds.
//! Look next: `search` and `paging`, one plain search; `twins`, every parameter in two worlds.

use serde_json::{Value, json};

use crate::harness::{Hospital, Reply, run, with_integration};
use crate::paging::next;
use crate::writes::{observation, patient};

fn names(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}: {}", reply.what, reply.text());
    let bundle = reply.json();
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let name = |entry: &Value| {
        format!(
            "{}/{}",
            entry["resource"]["resourceType"].as_str().unwrap(),
            entry["resource"]["id"].as_str().unwrap()
        )
    };
    entries.iter().map(name).collect()
}

fn labelled(mut record: Value) -> Value {
    record["meta"] = json!({"security": [{"code": "R"}]});
    record
}

/// T-027, T-028: a compartment is the official one, judged by what the caller sees of each row.
#[test]
fn t027_t028_compartments() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("comp"));
        hospital.store(&patient("comp-other"));
        hospital.store(&observation("comp-subject", "Patient/comp"));
        let mut performs = observation("comp-performer", "Patient/comp-other");
        performs["performer"] = json!([{"reference": "Patient/comp"}]);
        hospital.store(&performs);
        let mut focus = observation("comp-focus", "Patient/comp-other");
        focus["focus"] = json!([{"reference": "Patient/comp"}]);
        hospital.store(&focus);
        hospital.store(&labelled(observation("comp-hidden", "Patient/comp")));
        let sorted = |reply: &Reply| {
            let mut found = names(reply);
            found.sort();
            found
        };
        let nurse = hospital.get("nurse", "Patient/comp/Observation").await;
        assert_eq!(sorted(&nurse), ["Observation/comp-performer", "Observation/comp-subject"]);
        // A researcher does not see performers: what is only in the compartment by one is not shown, nor counted.
        let researcher = hospital.get("researcher", "Patient/comp/Observation").await;
        assert_eq!(sorted(&researcher), ["Observation/comp-subject"]);
        let counted = hospital.get("researcher", "Patient/comp/Observation?_summary=count").await;
        assert_eq!(counted.json()["total"], 1, "{}", counted.text());
        // The star leaves out what the caller may not ask about; the owner itself is in it.
        let all = hospital.get("nurse", "Patient/comp/*").await;
        assert!(names(&all).contains(&"Observation/comp-subject".to_owned()), "{}", all.text());
        assert!(!all.text().contains("comp-hidden") && !all.text().contains("comp-focus"), "{}", all.text());
        hospital.get("front-desk", "Patient/comp/Observation").await.check_refusal(403, "type-not-permitted");
        // Withheld, missing and empty owners sound alike.
        let empty = hospital.get("nurse", "Patient/p6/Observation").await;
        let never = hospital.get("nurse", "Patient/px/Observation").await;
        assert_eq!((names(&empty), names(&never)), (vec![], vec![]));
        let other = hospital.get("patient", "Patient/comp/Observation").await;
        assert!(names(&other).is_empty());
        hospital.check_recorded([&nurse, &researcher, &counted, &all, &empty, &never, &other]);
    });
}

/// T-012: one forbidden type among those that were named refuses all; types that nobody named are left out.
#[test]
fn t012_searches_over_types() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("many"));
        hospital.store(&observation("many", "Patient/many"));
        hospital.store(&json!({"resourceType": "Claim", "id": "many", "status": "active", "type": {"text": "x"}, "use": "claim", "patient": {"reference": "Patient/many"}, "created": "2026-01-01", "provider": {"display": "x"}, "priority": {"text": "x"}, "insurance": [{"sequence": 1, "focal": true, "coverage": {"display": "x"}}]}));
        let named = hospital.get("nurse", "?_type=Patient,Observation&_id=many").await;
        let mut found = names(&named);
        found.sort();
        assert_eq!(found, ["Observation/many", "Patient/many"]);
        let refused = hospital.get("nurse", "?_type=Patient,Claim&_id=many").await;
        refused.check_refusal(403, "type-not-permitted");
        let token = hospital.token("nurse");
        let unnamed = hospital.get_with(&token, "?_id=many").await;
        let (mut found, mut page) = (names(&unnamed), unnamed.clone());
        // One answer looks into a bounded number of types; the next goes on.
        while let Some(link) = next(&page) {
            page = hospital.get_with(&token, &link).await;
            found.extend(names(&page));
        }
        found.sort();
        assert_eq!(found, ["Observation/many", "Patient/many"]);
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let posted = hospital.change("nurse", ("POST", "_search"), &form, "_type=Patient&_id=many").await;
        assert_eq!(names(&posted), ["Patient/many"]);
        hospital.check_recorded([&named, &refused, &unnamed, &posted]);
    });
}

/// T-034, T-035, T-061: what is asked of a record is a part of what may be seen, and is cut here.
#[test]
fn t034_t035_elements_and_summaries() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("shape"));
        let members = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .filter(|name| !["resourceType", "id", "meta"].contains(name))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for (query, expected) in [
            ("_elements=name,identifier", "active name"),
            ("_elements=multipleBirth", "active multipleBirthInteger"),
            ("_summary=text", "active"),
            ("_summary=data", "active name gender birthDate _birthDate multipleBirthInteger photo contact"),
            ("_summary=false", "active name gender birthDate _birthDate multipleBirthInteger photo contact"),
        ] {
            let read = hospital.get("nurse", &format!("Patient/shape?{query}")).await;
            read.check_ok();
            let mut seen = members(&read.json());
            let mut granted: Vec<String> = expected.split(' ').map(str::to_owned).collect();
            seen.sort();
            granted.sort();
            assert_eq!(seen, granted, "{query}: {}", read.text());
            assert!(read.text().contains("SUBSETTED"), "{query}");
            let searched = hospital.get("nurse", &format!("Patient?_id=shape&{query}")).await;
            assert_eq!(searched.json()["entry"][0]["resource"], read.json(), "{query}");
        }
        let summary = hospital.get("nurse", "Patient/shape?_summary=true").await.json();
        assert!(
            summary["name"].is_array() && summary["photo"].is_null() && summary["identifier"].is_null(),
            "{summary}"
        );
        let count = hospital.get("nurse", "Patient?_id=shape&_summary=count").await.json();
        assert_eq!((&count["total"], count.get("entry")), (&json!(1), None));
        hospital.get("nurse", "Patient?_id=shape&_total=accurate").await.check_ok();
        let asked = hospital.stage.emr().requests();
        let own = asked.iter().filter(|one| one.target.contains("shape"));
        assert!(
            own.clone().count() > 5
                && own.clone().all(|one| !one.target.contains("_elements")
                    && !one.target.contains("_summary=t")
                    && !one.target.contains("_summary=d")),
            "{:?}",
            own.collect::<Vec<_>>()
        );
    });
}

/// T-016, T-017, KF-30: two worlds, one with withheld rows between: the same pages, counts and links.
#[test]
fn t016_t017_kf30_withheld_rows_leave_no_trace() {
    run(async {
        let plain = Hospital::open(with_integration()).await;
        let crowded = Hospital::open(with_integration()).await;
        for (hospital, hidden) in [(&plain, 0), (&crowded, 7)] {
            hospital.stage.emr().set_time("2026-03-01T00:00:00Z".parse().ok());
            hospital.store(&patient("rows"));
            for row in 0..10 {
                hospital.store(&observation(&format!("row-{row}-a"), "Patient/rows"));
                for other in 0..hidden {
                    hospital
                        .store(&labelled(observation(&format!("row-{row}-hidden-{other}"), "Patient/rows")));
                }
            }
        }
        for query in [
            "Observation?patient=rows&_sort=_id&_count=3",
            "Patient/rows/Observation?_sort=_id&_count=3",
            "?_type=Observation&_count=3",
            "Observation?patient=rows&_sort=_id&_count=5",
            "Observation?patient=rows&_sort=_id&_count=10",
        ] {
            let mut pages = Vec::new();
            for hospital in [&plain, &crowded] {
                let token = hospital.token("nurse");
                let mut page = hospital.get_with(&token, query).await;
                let mut found = vec![names(&page)];
                while let Some(link) = next(&page) {
                    page = hospital.get_with(&token, &link).await;
                    found.push(names(&page));
                }
                pages.push(found);
            }
            assert_eq!(pages[0], pages[1], "{query}");
            let rows = pages[0].iter().flatten().filter(|name| name.contains("/row-")).count();
            assert_eq!(rows, 10, "{query}");
            assert!(pages[0].iter().all(|page| !page.is_empty()), "{query}: {pages:?}");
        }
        for query in [
            "Observation?patient=rows&_summary=count",
            "Observation?patient=rows&_total=accurate&_count=4",
            "Observation?patient=rows&_id=row-1-hidden-1",
            "Observation/row-1-hidden-1",
        ] {
            let answers = [plain.get("nurse", query).await, crowded.get("nurse", query).await];
            let bodies: Vec<(u16, String)> = [(&answers[0], &plain), (&answers[1], &crowded)]
                .map(|(reply, hospital)| {
                    let (status, _, body) = reply.without_request_id();
                    let body = body.replace(hospital.stage.base_url(), "BASE");
                    (status, body.split("~page=").next().unwrap().to_owned())
                })
                .to_vec();
            assert_eq!(bodies[0], bodies[1], "{query}");
        }
        assert_eq!(crowded.get("nurse", "Observation?patient=rows&_summary=count").await.json()["total"], 10);
    });
}

/// HEAD, `_pretty`, media types and conditional reads (T-153): all answered here, of what may be seen.
#[test]
fn t153_forms_of_an_answer() {
    run(async {
        let hospital = Hospital::doors().await;
        hospital.store(&patient("forms"));
        for path in ["Patient/forms", "Patient?_id=forms", "Patient/never", "Claim/x"] {
            let get = hospital.change("nurse", ("GET", path), &[], "").await;
            let head = hospital.change("nurse", ("HEAD", path), &[], "").await;
            assert_eq!((get.status, head.body.len()), (head.status, 0), "{path}");
            if get.status == 200 {
                assert_eq!(head.header("content-length").unwrap(), get.body.len().to_string(), "{path}");
                assert_eq!(head.header("etag"), get.header("etag"));
            }
        }
        let plain = hospital.get("nurse", "Patient/forms").await;
        let pretty = hospital.get("nurse", "Patient/forms?_pretty=true").await;
        assert!(pretty.text().contains("\n  ") && pretty.json() == plain.json());
        assert!(!pretty.text().contains("SECRET-maiden"));
        let tag = plain.header("etag").unwrap().to_owned();
        let same = hospital.change("nurse", ("GET", "Patient/forms"), &[("if-none-match", &tag)], "").await;
        assert_eq!((same.status, same.body.len()), (304, 0));
        let other =
            hospital.change("nurse", ("GET", "Patient/forms"), &[("if-none-match", "W/\"9\"")], "").await;
        other.check_ok();
        for path in ["Patient/p6", "Patient/never"] {
            let any = hospital.change("nurse", ("GET", path), &[("if-none-match", "*")], "").await;
            any.check_refusal(404, "not-found");
        }
        let since = hospital
            .change(
                "nurse",
                ("GET", "Patient/forms"),
                &[("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")],
                "",
            )
            .await;
        assert_eq!(since.status, 304);
        let records = hospital.check_recorded([&same, &other, &since]);
        assert_eq!(
            (
                records[0]["released"].as_array().unwrap().len(),
                records[1]["released"].as_array().unwrap().len()
            ),
            (0, 1)
        );
        let mut refused = Vec::new();
        for (path, accept) in [
            ("Patient/forms", "application/fhir+xml"),
            ("Patient?_id=forms", "text/turtle"),
            ("Patient/forms/_history", "application/xml"),
            ("Patient/forms?_format=xml", "*/*"),
            ("?_type=Patient&_format=ttl", "*/*"),
            ("Patient/forms/Observation?_format=xml", "*/*"),
        ] {
            let reply = hospital.change("nurse", ("GET", path), &[("accept", accept)], "").await;
            reply.check_refusal(406, "not-acceptable");
            refused.push(reply);
        }
        hospital.check_recorded(&refused);
    });
}

/// T-017: what a page tells of withheld rows is bounded as docs/interactions.md says: 16 of the EMR's pages, each a row
/// longer than the client's.
#[test]
fn t017_the_bound_of_a_page_is_what_is_documented() {
    run(async {
        let hospital = Hospital::doors().await;
        let documented = 16 * 2;
        for (mark, withheld, shown_at_once) in
            [("below", documented - 1, true), ("beyond", documented, false)]
        {
            let subject = format!("Patient/bound-{mark}");
            hospital.store(&patient(&format!("bound-{mark}")));
            for row in 0..withheld {
                hospital.store(&labelled(observation(&format!("bound-{mark}-{row:03}"), &subject)));
            }
            hospital.store(&observation(&format!("bound-{mark}-visible"), &subject));
            let visible = vec![format!("Observation/bound-{mark}-visible")];
            let token = hospital.token("nurse");
            let question = format!("Observation?patient=bound-{mark}&_sort=_id&_count=1");
            let page = hospital.get_with(&token, &question).await;
            if shown_at_once {
                assert_eq!((names(&page), next(&page)), (visible, None), "{}", page.text());
                continue;
            }
            assert_eq!(names(&page), [""; 0], "{}", page.text());
            let follows = next(&page).unwrap();
            let page = hospital.get_with(&token, &follows).await;
            assert_eq!((names(&page), next(&page)), (visible, None), "{}", page.text());
        }
    });
}
