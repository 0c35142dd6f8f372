//! A full disk in an emergency: what is answered all the same, and what becomes of its record (T-216).
//!
//! Owns: the reserve as an operator and a clinician see it. Must never: take a record for kept that `audit` does not show.
//! Look next: `src/edge/journal/tests/reserve.rs`, every byte of it; `trail`, a full disk without one.

use std::fs;

use chartgate::cli::demo::stage::Script;
use serde_json::{Value, json};

use crate::child::{Gate, verify};
use crate::emergency::{HEADER, PHYSICIANS, ask, break_glass, parameters, session};
use crate::harness::{Hospital, check_recorded, run, trail};
use crate::relations::TREATING;

const RESERVE: &str = include_str!("../../policies/optional/break-glass/emergency-reserve.cedar");
/// Files may grow to so many blocks of 512 bytes; the signal that would end the process is ignored.
const SMALL_DISK: &str = "trap '' XFSZ; ulimit -f 384";

async fn gate(reserve: Option<&str>) -> Gate {
    let replace = ("directory = \"audit\"".to_owned(), "directory = \"audit\"\nreserve_kib = 128".to_owned());
    let mut gate = Gate::start(Script { replace: vec![replace], ..Script::default() }, None).await;
    gate.signal("TERM");
    let _ended = gate.wait();
    for (file, text) in [
        ("emergency.cedar", Some(PHYSICIANS)),
        ("treating.cedar", Some(TREATING)),
        ("reserve.cedar", reserve),
    ] {
        if text.is_some() {
            gate.hospital.edit(file, text);
        }
    }
    for patient in ["p3", "p4"] {
        gate.hospital.store(&json!({"resourceType": "Observation", "id": format!("btg-{patient}"),
            "meta": {"versionId": "1"}, "status": "final", "code": {"text": "x"},
            "performer": [{"reference": "Practitioner/pr-nurse"}],
            "subject": {"reference": format!("Patient/{patient}")}}));
    }
    gate.restart(Some(SMALL_DISK)).await;
    gate
}

/// Asks until the trail takes no more.
async fn fill_up(hospital: &Hospital) {
    let token = hospital.token("physician");
    for _ in 0..2000 {
        let reply = hospital.get_with(&token, "Patient/p1").await;
        if reply.status != 200 {
            return reply.check_refusal(503, "audit-unavailable");
        }
    }
    panic!("the disk did not get full");
}

#[test]
fn an_emergency_goes_on_while_the_disk_is_full() {
    run(async {
        let mut gate = gate(Some(RESERVE)).await;
        let hospital = &gate.hospital;
        assert!(gate.operations("/readyz").contains("\"reserve\":\"ready\""));
        let doctor = session(hospital, "physician", "doc-1", 10);
        break_glass(hospital, &doctor, &parameters("p3", &[])).await.check_ok();
        let before = ask(hospital, &doctor, ("GET", "Observation/btg-p3"), "").await;
        assert_eq!((before.status, before.header("x-chartgate-journal")), (200, None));
        fill_up(hospital).await;

        let mut kept = Vec::new();
        for path in
            ["Observation/btg-p3", "Observation?patient=p3", "Patient/p3", "AllergyIntolerance?patient=p3"]
        {
            let reply = ask(hospital, &doctor, ("GET", path), "").await;
            assert_eq!((reply.status, reply.header("x-chartgate-journal")), (200, Some("reserve")), "{path}");
            assert!(reply.header(HEADER).is_some(), "{path}");
            kept.push(reply);
        }
        assert!(kept[0].text().contains("btg-p3") && kept[1].text().contains("btg-p3"));
        nothing_else_is_answered(hospital, &doctor).await;
        // Another emergency may begin; the review of it waits for the trail.
        let other = session(hospital, "physician", "doc-2", 10);
        let began = break_glass(hospital, &other, &parameters("p4", &[])).await;
        assert_eq!(
            (began.status, began.header("x-chartgate-journal")),
            (200, Some("reserve")),
            "{}",
            began.text()
        );
        kept.push(ask(hospital, &other, ("GET", "Observation/btg-p4"), "").await);
        assert_eq!(kept[4].status, 200);
        let ready = gate.operations("/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\"reserve\":\"in-use\""), "{ready}");
        let metrics = gate.operations("/metrics");
        let used =
            metrics.lines().find_map(|line| line.strip_prefix("chartgate_journal_reserve_used_bytes "));
        assert!(used.unwrap().parse::<u64>().unwrap() > 12_288 + 5 * 4096, "{used:?}");
        assert!(gate.log_text().contains("recorded in the reserve"));

        // The trail verifies with its reserve, and the reserve cannot be changed.
        let config = hospital.stage.config_file();
        let verified = verify(&config);
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert_eq!(verified.status.code(), Some(0), "{said}");
        assert!(said.contains("stand in the reserve"), "{said}");
        gate.signal("KILL");
        let _killed = gate.wait();
        a_changed_reserve_is_found(&gate.hospital);

        gate.restart(None).await;
        let verified = verify(&config);
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
        let records = trail(&config);
        check_recorded(&records, &kept);
        let of = |event: &str| -> Vec<&Value> {
            records.iter().filter(|record| record["event"] == event).collect()
        };
        assert_eq!((of("reserve-taken-over").len(), of("emergency-began").len()), (1, 2));
        let ids: Vec<&str> = kept.iter().map(|reply| reply.header("x-request-id").unwrap()).collect();
        for id in ids {
            let found: Vec<&Value> = records.iter().filter(|record| record["requestId"] == id).collect();
            assert_eq!((found.len(), &found[0]["outcome"]), (1, &json!("complete")), "{id}");
            assert_eq!(found[0]["emergencies"].as_array().unwrap().len(), 1, "{id}");
        }
        // The grant that began then is in force.
        let open = ask(&gate.hospital, &other, ("GET", "Observation/btg-p4"), "").await;
        assert_eq!((open.status, open.header("x-chartgate-journal")), (200, None));
        assert!(gate.operations("/readyz").contains("\"reserve\":\"ready\""));
    });
}

/// Others, other patients, what goes beyond the emergency, changes, counts and batches.
async fn nothing_else_is_answered(hospital: &Hospital, doctor: &str) {
    let batch = r#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","url":"Observation/btg-p3"}}]}"#;
    let vital = r#"{"resourceType":"Observation","id":"btg-p3","status":"final","code":{"text":"y"},"subject":{"reference":"Patient/p3"}}"#;
    let cases = [
        (("GET", "Patient/p1"), ""),
        (("GET", "Observation/btg-p4"), ""),
        (("GET", "Observation/none-such"), ""),
        (("GET", "Observation?code=x"), ""),
        // Nobody's chart is in it, but somebody who is not the patient.
        (("GET", "Observation?patient=p3&_include=Observation:performer"), ""),
        (("GET", "Observation?patient=p3&_summary=count"), ""),
        (("GET", "Claim?patient=p3"), ""),
        (("PUT", "Observation/btg-p3"), vital),
        (("POST", ""), batch),
    ];
    for (request, body) in cases {
        let mut reply = ask(hospital, doctor, request, body).await;
        reply.what = format!("{request:?}");
        assert_eq!(reply.status, 503, "{request:?}: {}", reply.text());
        reply.check_refusal(503, "audit-unavailable");
    }
    let nurse = session(hospital, "nurse", "nurse-1", 10);
    let reply = ask(hospital, &nurse, ("GET", "Observation/btg-p3"), "").await;
    reply.check_refusal(503, "audit-unavailable");
    assert_eq!(hospital.stored("Observation", "btg-p3")["code"]["text"], "x");
}

fn a_changed_reserve_is_found(hospital: &Hospital) {
    let path = hospital.stage.folder().join("audit/reserve");
    let whole = fs::read(&path).unwrap();
    for place in [3, 4096, 12_288 + 100, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        fs::write(&path, &changed).unwrap();
        let verdict = verify(&hospital.stage.config_file());
        let said = String::from_utf8_lossy(&verdict.stdout).into_owned();
        assert!(
            verdict.status.code() == Some(1) && said.contains("problem: reserve"),
            "byte {place}: {said}"
        );
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(verify(&hospital.stage.config_file()).status.code(), Some(1), "deleted");
    fs::write(&path, &whole).unwrap();
}

/// A reserve that no policy may use changes nothing.
#[test]
fn without_a_policy_an_emergency_is_refused_too() {
    run(async {
        let gate = gate(None).await;
        let doctor = session(&gate.hospital, "physician", "doc-1", 10);
        break_glass(&gate.hospital, &doctor, &parameters("p3", &[])).await.check_ok();
        fill_up(&gate.hospital).await;
        let refused = [
            ask(&gate.hospital, &doctor, ("GET", "Observation/btg-p3"), "").await,
            break_glass(&gate.hospital, &doctor, &parameters("p4", &[])).await,
        ];
        refused.iter().for_each(|reply| reply.check_refusal(503, "audit-unavailable"));
        assert!(gate.operations("/readyz").contains("\"reserve\":\"ready\""), "unused");
    });
}
