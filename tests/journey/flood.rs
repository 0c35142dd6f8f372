//! A flood of refusals neither fills nor buries the trail (T-232).
//!
//! Owns: what strangers and known callers leave in the trail when they are refused again and again, while others work.
//! Must never: look into the gate. Look next: `edge::counting`; docs/decisions/0013.

use std::sync::Arc;
use std::time::Duration;

use chartgate::cli::demo::client::Client;
use chartgate::cli::demo::stage::Script;
use serde_json::Value;

use crate::child::{Gate, until, verify};
use crate::harness::{Reply, ask, check_recorded, run, trail};

/// Few enough that a test exceeds them.
const BUDGETS: &str =
    "encryption_key = \"audit.aes\"\nrefusals_per_minute = 40\nknown_refusals_per_minute = 60";

fn script() -> Script {
    let budgets = ("encryption_key = \"audit.aes\"".to_owned(), BUDGETS.to_owned());
    Script { replace: vec![budgets], ..Script::default() }
}

/// Asks so many times, from several connections; answers what was heard.
async fn flood(client: &Client, base: &str, path: &str, header: &str, times: usize) -> Vec<Reply> {
    const AT_ONCE: usize = 8;
    let mut tasks = Vec::new();
    for _ in 0..AT_ONCE {
        let (client, base, path, header) =
            (client.clone(), base.to_owned(), path.to_owned(), header.to_owned());
        tasks.push(tokio::spawn(async move {
            let mut heard = Vec::new();
            for _ in 0..times / AT_ONCE {
                heard.push(ask(&client, &base, "GET", &path, &[("authorization", &header)], "").await);
            }
            heard
        }));
    }
    let mut heard = Vec::new();
    for task in tasks {
        heard.extend(task.await.unwrap());
    }
    heard
}

fn is_decision(record: &&Value) -> bool {
    record["decision"].is_string()
}

/// How many with this code have a record each, and how many are counted.
fn told(records: &[Value], code: &str) -> (usize, u64) {
    let alone = records.iter().filter(is_decision).filter(|record| record["reason"] == code).count();
    let name = format!("code:{code}");
    let number = |record: &Value| record["details"][&name].as_str()?.parse::<u64>().ok();
    (alone, records.iter().filter_map(number).sum())
}

/// What a nurse asks meanwhile, a third of it in vain.
async fn reads(client: Client, base: String, bearer: Arc<String>) -> Vec<Reply> {
    let mut seen = Vec::new();
    for _ in 0..50 {
        for path in ["Patient/p1", "Observation?patient=p1&_count=2", "Claim/claim1"] {
            seen.push(ask(&client, &base, "GET", path, &[("authorization", &bearer)], "").await);
        }
    }
    seen
}

/// Each count was begun before, and says whose it is.
fn counts_were_begun(records: &[Value], windows: usize) {
    let begun = records.iter().filter(|record| record["event"] == "refusals-counting");
    for record in begun.clone() {
        assert_eq!(record["outcome"], "counted", "{record}");
        let of = record["details"]["of"].as_str().unwrap();
        match of {
            "address" => assert_eq!(record["details"]["source"], "127.0.0.1"),
            _ => assert!(of == "caller" && record["details"]["subject"].is_string(), "{record}"),
        }
    }
    assert_eq!(begun.count(), windows);
}

#[test]
fn t232_a_flood_is_counted_exactly_while_a_nurse_reads() {
    run(async {
        let mut gate = Gate::start(script(), None).await;
        let config = gate.hospital.stage.config_file();
        let (client, base) = (gate.hospital.client.clone(), gate.hospital.stage.base_url().to_owned());
        let nurse = Arc::new(format!("Bearer {}", gate.hospital.token("nurse")));
        let reading = tokio::spawn(reads(client.clone(), base.clone(), Arc::clone(&nurse)));
        let bad = flood(&client, &base, "Patient/p1", "Bearer e30.e30.e30", 2400).await;
        let none = flood(&client, &base, "Patient/p1", "Basic xyz", 400).await;
        let seen = reading.await.unwrap();
        // What is heard is what is always heard.
        for reply in bad.iter().chain(&none) {
            let code = reply.code();
            reply.check_refusal(401, &code);
        }
        let (first, other) = (bad[0].code(), none[0].code());
        assert_ne!(first, other);
        assert!(
            bad.iter().all(|reply| reply.code() == first) && none.iter().all(|reply| reply.code() == other)
        );
        // A known caller has a larger budget of their own; a document that anybody may have ends in a refusal.
        let probing = flood(
            &client,
            &base,
            "Claim/claim1",
            &format!("Bearer {}", gate.hospital.token("front-desk")),
            160,
        )
        .await;
        let denied = probing[0].code();
        assert!(probing.iter().all(|reply| reply.status == 403 && reply.code() == denied));
        let documents = flood(&client, &base, "metadata", "none", 80).await;
        let had: Vec<&Reply> = documents.iter().filter(|reply| reply.status == 200).collect();
        documents
            .iter()
            .filter(|reply| reply.status != 200)
            .for_each(|reply| reply.check_refusal(503, "busy"));
        let metrics = gate.operations("/metrics");
        gate.signal("TERM");
        assert!(gate.wait().success());

        let records = trail(&config);
        // The nurse's, and every document's, are all there, each by itself.
        check_recorded(&records, seen.iter().chain(had.iter().copied()));
        assert!(seen.iter().filter(|reply| reply.status == 200).count() >= 100);
        // Windows of a minute: the flood may have met two or three of them.
        let windows = records.iter().filter(|record| record["event"] == "refusals-counted").count();
        let mut alone_all = 0;
        let mut counted_all = 0;
        for (code, times) in
            [(&first, 2400), (&other, 400), (&denied, 160), (&"busy".to_owned(), 80 - had.len())]
        {
            let own = seen.iter().filter(|reply| reply.code() == *code).count();
            let (alone, counted) = told(&records, code);
            assert_eq!(
                alone as u64 + counted,
                (times + own) as u64,
                "{code}: {alone} alone, {counted} counted"
            );
            alone_all += alone - own.min(alone);
            counted_all += counted;
        }
        assert!(counted_all > 2500, "{counted_all}");
        // The flood may have met the end of a minute; in each it had the budget and no more.
        let minutes = 1 + records
            .iter()
            .filter(|record| record["event"] == "refusals-counted" && record["details"]["of"] == "address")
            .count();
        assert!(alone_all <= minutes * (40 + 60), "{alone_all} in {minutes} minutes");
        assert!(had.len() <= minutes * 40 && had.len() >= 40, "{} documents", had.len());
        assert!(metrics.contains(&format!("chartgate_refusals_counted_total {counted_all}")), "{metrics}");
        counts_were_begun(&records, windows);
        let verified = verify(&config);
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    });
}

#[test]
fn t232_a_gate_killed_in_a_flood_says_that_it_was_counting() {
    run(async {
        let mut gate = Gate::start(script(), None).await;
        let config = gate.hospital.stage.config_file();
        let (client, base) = (gate.hospital.client.clone(), gate.hospital.stage.base_url().to_owned());
        let nurse = gate.hospital.token("nurse");
        let before = gate.hospital.get_with(&nurse, "Patient/p1").await;
        let heard = flood(&client, &base, "Patient/p1", "Bearer e30.e30.e30", 320).await;
        let after = gate.hospital.get_with(&nurse, "Patient/p1").await;
        let counting = || {
            trail(&config)
                .iter()
                .any(|record| record["event"] == "refusals-counting" && record["outcome"] == "unknown")
        };
        assert!(until(Duration::from_secs(5), counting).await, "the last window counts");
        gate.signal("KILL");
        assert!(!gate.wait().success());
        let verified = verify(&config);
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
        let records = trail(&config);
        check_recorded(&records, [&before, &after]);
        let (alone, counted) = told(&records, &heard[0].code());
        assert!(alone >= 40 && (alone as u64 + counted) < 320, "{alone} {counted}: the rest is not known");
        // Going on adds nothing to what is not known.
        gate.restart(None).await;
        gate.hospital.get_with(&nurse, "Patient/p1").await.check_ok();
        gate.signal("TERM");
        assert!(gate.wait().success());
        let unknown =
            |record: &&Value| record["event"] == "refusals-counting" && record["outcome"] == "unknown";
        assert_eq!(trail(&config).iter().filter(unknown).count(), records.iter().filter(unknown).count());
    });
}
