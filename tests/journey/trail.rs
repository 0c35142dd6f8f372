//! Evidence (P2): no bytes without a durable record, whatever happens to the journal or the process.
//!
//! Owns: what every answer leaves in the trail, end to end.
//! Must never: read the trail through the gate that wrote it.
//! Look next: `src/edge/journal/tests`, the same in small.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::child::{Gate, chartgate, operations_of, until, verify};
use crate::harness::{Hospital, Reply, ask, check_recorded, run, trail};
use crate::wire;

/// The first byte is only there when the record is.
#[test]
fn p2_the_record_is_durable_before_the_first_byte() {
    run(async {
        let hospital = Hospital::shared().await;
        let port = hospital.stage.running().unwrap().address().port();
        for path in ["Patient/p1", "Observation?patient=p1&_count=100", "Patient/nobody", "Claim/claim1"] {
            let request = format!(
                "GET /fhir/{path} HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
                hospital.token("physician")
            );
            let mut stream = wire::connect(&hospital.stage.ca_file(), port).await;
            stream.write_all(request.as_bytes()).await.unwrap();
            let first = stream.read_u8().await.unwrap();
            // Nothing more has been read when the trail is.
            let records = hospital.trail();
            let mut rest = vec![first];
            stream.read_to_end(&mut rest).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&rest);
            let id = text.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
            let found = records.iter().filter(|r| r["requestId"] == id && r["decision"].is_string()).count();
            assert_eq!(found, 1, "{path}");
        }
    });
}

fn segment(hospital: &Hospital) -> PathBuf {
    let mut files = Vec::new();
    let mut folders = vec![hospital.stage.folder().join("audit")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let in_segments = |path: &PathBuf| path.parent().unwrap().ends_with("segment");
    files.into_iter().find(in_segments).expect("a segment")
}

/// What is done to the journal's files, and to which.
#[test]
fn p2_no_record_no_bytes() {
    run(async {
        type Harm = fn(&Hospital);
        let harms: [(&str, Harm); 3] = [
            ("the tail is cut", |h| {
                let file = fs::OpenOptions::new().write(true).open(segment(h)).unwrap();
                file.set_len(file.metadata().unwrap().len() - 10).unwrap();
            }),
            ("the segment is replaced by its copy", |h| {
                let copy = h.stage.folder().join("copy");
                fs::copy(segment(h), &copy).unwrap();
                fs::rename(copy, segment(h)).unwrap();
            }),
            ("the directory is moved away", |h| {
                fs::rename(h.stage.folder().join("audit"), h.stage.folder().join("gone")).unwrap();
            }),
        ];
        for (what, harm) in harms {
            let hospital = Hospital::open(Script::default()).await;
            let token = hospital.token("physician");
            hospital.get_with(&token, "Patient/p1").await.check_ok();
            harm(&hospital);
            for path in ["Patient/p1", "Observation?patient=p1", "Patient/nobody", "Claim/claim1", "metadata"]
            {
                let mut reply = hospital.get_with(&token, path).await;
                reply.what = format!("{what}: {path}");
                reply.check_refusal(503, "audit-unavailable");
                assert!(!reply.text().contains("Beispiel"), "{what}");
                assert!(reply.body.len() < 600, "{what}: more than a refusal left");
            }
            let ready = operations_of(&hospital.stage, "/readyz");
            assert!(
                ready.starts_with("HTTP/1.1 503") && ready.contains("\"journal\":false"),
                "{what}: {ready}"
            );
        }
    });
}

/// A full disk: nothing is released, and what was acknowledged before stays and verifies.
#[test]
fn p2_a_full_disk_releases_nothing() {
    run(async {
        // Files may grow to 64 blocks of 512 bytes; the signal that would end the process is ignored.
        let gate = Gate::start(Script::default(), Some("trap '' XFSZ; ulimit -f 64")).await;
        let hospital = &gate.hospital;
        let token = hospital.token("physician");
        let (mut seen, mut refused) = (Vec::new(), 0);
        for _ in 0..400 {
            let reply = hospital.get_with(&token, "Patient/p1").await;
            match reply.status {
                200 => {
                    assert_eq!(refused, 0, "it released again after it had failed");
                    seen.push(reply);
                }
                _ => {
                    reply.check_refusal(503, "audit-unavailable");
                    refused += 1;
                }
            }
            if refused == 5 {
                break;
            }
        }
        assert!(refused == 5 && seen.len() > 3, "{} released, {refused} refused", seen.len());
        assert!(gate.operations("/readyz").starts_with("HTTP/1.1 503"));
        let config = hospital.stage.config_file();
        check_recorded(&trail(&config), &seen);
    });
}

/// kill -9 while many ask: every answer that a client saw has its record, and the trail verifies and goes on.
#[test]
fn p2_a_killed_gate_has_recorded_all_that_was_seen() {
    run(async {
        let mut gate = Gate::start(Script::default(), None).await;
        let config = gate.hospital.stage.config_file();
        let seen: Arc<Mutex<Vec<Reply>>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for who in ["physician", "nurse", "researcher", "patient", "front-desk", "billing-clerk"] {
            let bearer = format!("Bearer {}", gate.hospital.token(who));
            let (client, base) = (gate.hospital.client.clone(), gate.hospital.stage.base_url().to_owned());
            let (seen, over) = (Arc::clone(&seen), Arc::clone(&over));
            clients.push(tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let headers = [("authorization", bearer.as_str())];
                    // A broken connection ends the task; what it saw before stays.
                    for path in ["Patient/p1", "Observation?patient=p1&_count=5", "Coverage/cov1"] {
                        let reply = ask(&client, &base, "GET", path, &headers, "").await;
                        seen.lock().unwrap().push(reply);
                    }
                }
            }));
        }
        let busy = until(Duration::from_secs(30), || seen.lock().unwrap().len() > 60).await;
        assert!(busy, "{} answers", seen.lock().unwrap().len());
        gate.signal("KILL");
        assert!(!gate.wait().success());
        over.store(true, Ordering::Relaxed);
        for client in clients {
            let _broken_connection = client.await;
        }
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let verified = verify(&config);
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
        check_recorded(&trail(&config), &seen);
        assert!(seen.iter().filter(|reply| reply.status == 200).count() > 20);
        gate.restart(None).await;
        gate.hospital.get("nurse", "Patient/p1").await.check_ok();
        check_recorded(&trail(&config), &seen);
        gate.signal("TERM");
        assert_eq!(gate.wait().code(), Some(0));
        assert_eq!(verify(&config).status.code(), Some(0));
        tampering_is_found(&gate.hospital);
    });
}

/// A flipped bit in any file of evidence, and a file that is gone: exit 1, and the place is named.
fn tampering_is_found(hospital: &Hospital) {
    let config = hospital.stage.config_file();
    let path = segment(hospital);
    let whole = fs::read(&path).unwrap();
    for place in [0, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        fs::write(&path, &changed).unwrap();
        let verdict = verify(&config);
        let said = String::from_utf8_lossy(&verdict.stdout).into_owned();
        assert_eq!(verdict.status.code(), Some(1), "byte {place}: {said}");
        assert!(said.contains("problem: "), "byte {place}: {said}");
        let json = chartgate(&["audit", "verify", "--json", "--config", config.to_str().unwrap()]);
        assert!(String::from_utf8_lossy(&json.stdout).contains("\"verified\":false"));
    }
    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    assert_eq!(verify(&config).status.code(), Some(1), "a cut tail");
    fs::write(&path, &whole).unwrap();
    assert_eq!(verify(&config).status.code(), Some(0));
}
