//! Searchsets of any length: read batch by batch, released unit by unit.
//!
//! Owns: that a long answer is a short one but for its length, that every unit has its record before it leaves, and
//! that one that broke off does not look whole.
//! Must never: take a bound from the gate; what a client and an auditor see is judged.
//! Look next: `export`, the same for files.

use crate::export::{drain, named, request_id};
use crate::harness::{Hospital, Reply, run, with_integration};
use chartgate_sandbox::listen::Canned;
use serde_json::Value;
use std::time::Duration;

const ROWS: usize = 3_000;
/// What nobody may see of the patients below, but those who see all.
const CANARY: &str = "CANARY-7731";

/// A patient of about four kilobytes. Every 50th is labelled, so that a nurse must not know of it.
fn row(number: usize) -> String {
    let label = if number % 50 == 49 { r#""security":[{"code":"R"}],"# } else { "" };
    format!(
        "{{\"fullUrl\":\"urn:x:{number}\",\"resource\":{{\"resourceType\":\"Patient\",\"id\":\"x{number}\",\
         \"meta\":{{{label}\"versionId\":\"1\"}},\"gender\":\"female\",\
         \"identifier\":[{{\"value\":\"{CANARY}-{number}\"}}],\
         \"name\":[{{\"family\":\"Row{number}\",\"text\":\"{}\"}}]}},\"search\":{{\"mode\":\"match\"}}}}",
        "a ], }\\\" ".repeat(400)
    )
}

/// The EMR's page. Its type, links and total stand behind the rows.
fn page(rows: &[String]) -> String {
    format!(
        "{{\"resourceType\":\"Bundle\",\"entry\":[{}],\"total\":{},\"type\":\"searchset\",\
         \"link\":[{{\"relation\":\"self\",\"url\":\"urn:x:self\"}}]}}",
        rows.join(" , "),
        rows.len()
    )
}

async fn hospital(rows: &[String]) -> Hospital {
    let hospital = Hospital::open(with_integration()).await;
    hospital.stage.emr().next_answer("/fhir/Patient", Canned::status(200).body(page(rows)));
    hospital
}

fn ids(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().unwrap().iter();
    entries.map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned()).collect()
}

fn check_units(reply: &Reply, units: &[Value], ids: &[String]) {
    assert!(units.len() > 1, "{}: {} units", reply.what, units.len());
    for (place, unit) in units.iter().enumerate() {
        assert_eq!(unit["unit"], place, "{}", reply.what);
        assert_eq!((&unit["decision"], &unit["outcome"]), (&Value::from("permit"), &Value::from("complete")));
        assert_eq!(unit["interaction"], "search-type");
    }
    let released = units.iter().flat_map(|unit| unit["released"].as_array().unwrap());
    let released: Vec<String> =
        released.map(|one| one["reference"].as_str().unwrap()["Patient/".len()..].to_owned()).collect();
    assert_eq!(released, ids, "{}", reply.what);
}

/// Whoever sees all gets every row of the EMR's page, each byte for byte, and its total.
#[test]
fn a_long_page_is_whole() {
    run(async {
        let rows: Vec<String> = (0..ROWS).map(row).collect();
        let hospital = hospital(&rows).await;
        let reply = hospital.get_with(&hospital.writer("integration"), "Patient").await;
        reply.check_ok();
        assert_eq!(reply.header("content-length"), None);
        let bundle = reply.json();
        assert_eq!((&bundle["type"], &bundle["total"]), (&Value::from("searchset"), &Value::from(ROWS)));
        assert_eq!(bundle["link"].as_array().unwrap().len(), 1, "{}", bundle["link"]);
        assert_eq!(ids(&bundle), (0..ROWS).map(|number| format!("x{number}")).collect::<Vec<_>>());
        for number in [0, 1_017, ROWS - 1] {
            let name = format!("\"name\":[{{\"family\":\"Row{number}\",\"text\":\"a ], }}\\\" a ], }}\\\" ");
            assert!(reply.text().contains(&name), "row {number}");
        }
        let units = hospital.ended_units(reply.header("x-request-id").unwrap()).await;
        check_units(&reply, &units, &ids(&bundle));
    });
}

/// For a nurse the same page is put together here: rows that are withheld leave no hole, and more follow.
#[test]
fn a_long_page_is_trimmed_on_its_way() {
    run(async {
        let rows: Vec<String> = (0..ROWS).map(row).collect();
        let hospital = hospital(&rows).await;
        let token = hospital.token("nurse");
        let reply = hospital.get_with(&token, "Patient?_count=700").await;
        reply.check_ok();
        assert!(!reply.text().contains(CANARY));
        let bundle = reply.json();
        let visible: Vec<String> =
            (0..ROWS).filter(|number| number % 50 != 49).map(|n| format!("x{n}")).take(700).collect();
        assert_eq!(ids(&bundle), visible);
        assert_eq!(bundle.get("total"), None);
        let link = bundle["link"].as_array().unwrap().iter().find(|link| link["relation"] == "next").unwrap();
        let units = hospital.ended_units(reply.header("x-request-id").unwrap()).await;
        check_units(&reply, &units, &visible);
        hospital.stage.emr().next_answer("/fhir/Patient", Canned::status(200).body(page(&rows)));
        let next = hospital.get_with(&token, link["url"].as_str().unwrap()).await;
        next.check_ok();
        assert_eq!(ids(&next.json())[0], "x714", "behind the last row that was shown");
    });
}

/// What must be whole before it can be formed is not cut.
#[test]
fn an_indented_answer_is_one_piece() {
    run(async {
        let rows: Vec<String> = (0..700).map(row).collect();
        let hospital = hospital(&rows).await;
        let reply = hospital.get_with(&hospital.writer("integration"), "Patient?_pretty=true").await;
        reply.check_ok();
        assert!(reply.header("content-length").is_some() && reply.text().starts_with("{\n"));
        assert_eq!(ids(&reply.json()).len(), 700);
    });
}

/// A fault far down the page breaks the answer off: it does not look whole, and what left before is on record.
#[test]
fn a_fault_behind_the_first_unit_breaks_the_answer_off() {
    run(async {
        let mut rows: Vec<String> = (0..ROWS).map(row).collect();
        rows[2_600] =
            rows[2_600].replace("\"gender\":\"female\"", "\"gender\":\"female\",\"gender\":\"male\"");
        let hospital = hospital(&rows).await;
        let port = hospital.stage.running().unwrap().address().port();
        let token = hospital.writer("integration");
        let mut stream = hospital.raw(&format!("https://localhost:{port}/fhir/Patient"), &token, false).await;
        let (heard, ended) = drain(&mut stream).await;
        assert!(heard.starts_with("HTTP/1.1 200") && !ended, "it looks whole");
        assert!(!heard.contains("\"id\":\"x2600\""));
        let units = hospital.ended_units(&request_id(&heard)).await;
        let recorded = named(&units);
        assert!((500..2_600).contains(&recorded), "{recorded}");
        assert!(heard.contains(&format!("\"id\":\"x{}\"", recorded - 1)), "recorded, and not sent");
        assert!(!heard.contains(&format!("\"id\":\"x{recorded}\"")), "sent without a record");
        assert!(units.iter().all(|unit| unit["outcome"] == "failed"), "{:#?}", units[0]["outcome"]);
    });
}

/// A client that leaves stops the work, and its record says how far it came.
#[test]
fn a_client_that_leaves_is_not_read_for() {
    run(async {
        let rows: Vec<String> = (0..2 * ROWS).map(row).collect();
        let hospital = hospital(&rows).await;
        let port = hospital.stage.running().unwrap().address().port();
        let token = hospital.writer("integration");
        let url = format!("https://localhost:{port}/fhir/Patient");
        let mut stream = hospital.raw(&url, &token, true).await;
        let mut head = [0; 1024];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await.unwrap();
        let id = request_id(&String::from_utf8_lossy(&head));
        drop(stream);
        let units = hospital.ended_units(&id).await;
        assert!(units.iter().all(|unit| unit["outcome"] == "cut-off"), "{:#?}", units[0]["outcome"]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(named(&hospital.units(&id)) < 2 * ROWS, "nobody is left to read for");
    });
}
