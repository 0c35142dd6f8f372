//! What makes the gate quick at the bedside, as counts: nothing here is timed.
//!
//! Owns: P8's structural half: many requests share a commit, a request asks the EMR once, keys are fetched once.
//! Must never: assert a duration; `loadtest` measures.
//! Look next: `loadtest`, `docs/performance.md`.

use std::sync::Arc;

use chartgate::cli::demo::stage::Script;
use chartgate_sandbox::web;

use crate::harness::{Hospital, run};

const REQUESTS: u64 = 200;

/// Sixteen nurses at once: fewer commits than requests, one question to the EMR for each, no further key fetch.
#[test]
fn p8_requests_share_commits_and_ask_once() {
    run(async {
        let hospital = Arc::new(Hospital::open(Script::default()).await);
        hospital.get("nurse", "Patient/p1").await.check_ok();
        let (asked, fetched) = (hospital.stage.emr().served(), hospital.stage.issuer().hits("/jwks"));
        let before = commits(&hospital).await;
        let nurses = (0..16).map(|nurse| {
            let hospital = Arc::clone(&hospital);
            tokio::spawn(async move {
                for _ in (0..REQUESTS).filter(|request| request % 16 == nurse) {
                    hospital.get("nurse", "Patient/p1").await.check_ok();
                }
            })
        });
        for nurse in nurses.collect::<Vec<_>>() {
            nurse.await.unwrap();
        }
        assert_eq!(hospital.stage.emr().served() - asked, REQUESTS);
        assert!(
            hospital.stage.issuer().hits("/jwks") - fetched <= 1,
            "keys are fetched in the background only"
        );
        let made = commits(&hospital).await - before;
        // Each request has a release and an outcome: without sharing they would make two commits. How many are
        // shared depends on how busy the machine is; that some are does not.
        assert!(made < REQUESTS * 2, "{made} commits for {REQUESTS} requests");
    });
}

/// Group commits so far, as an operator sees them.
async fn commits(hospital: &Hospital) -> u64 {
    let operations = hospital.stage.running().unwrap().operations_address();
    let answer = web::exchange("GET", &format!("http://{operations}/metrics"), &[], "").await.unwrap();
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("chartgate_journal_commit_seconds_count "));
    line.unwrap().trim().parse().unwrap()
}
