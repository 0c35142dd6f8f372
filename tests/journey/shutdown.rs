//! Coming and going: stopping with requests under way, and certificates read again.
//!
//! Owns: an end without a lost record, end to end.
//! Must never: cut a request off to make a test quick.
//! Look next: `src/edge/listener/tests.rs`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chartgate::cli::demo::client::Client;
use chartgate::cli::demo::stage::Script;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncWriteExt as _;

use crate::child::{Gate, until, verify};
use crate::harness::{Hospital, ask, check_recorded, run, trail};
use crate::wire;

/// SIGTERM: the request under way is finished and recorded, new ones are not taken, the exit code is 0.
#[test]
fn a_stopping_gate_finishes_what_it_began() {
    run(async {
        let mut gate = Gate::start(Script::default(), None).await;
        let hospital = &gate.hospital;
        hospital.get("physician", "Patient/p1").await.check_ok();
        hospital.stage.emr().set_delay(Duration::from_millis(1_500));
        let bearer = format!("Bearer {}", hospital.token("physician"));
        let (client, base) = (hospital.client.clone(), hospital.stage.base_url().to_owned());
        let asked = hospital.stage.emr().served();
        let slow = tokio::spawn(async move {
            ask(&client, &base, "GET", "Observation?patient=p1", &[("authorization", &bearer)], "").await
        });
        assert!(until(Duration::from_secs(10), || hospital.stage.emr().served() > asked).await);
        gate.signal("TERM");
        let reply = slow.await.unwrap();
        reply.check_ok();
        let address = gate
            .hospital
            .stage
            .base_url()
            .trim_start_matches("https://")
            .trim_end_matches("/fhir")
            .to_owned();
        assert_eq!(gate.wait().code(), Some(0), "{}", gate.log_text());
        assert!(std::net::TcpStream::connect(address).is_err(), "somebody still listens");
        let config = gate.hospital.stage.config_file();
        let records = trail(&config);
        let record = &check_recorded(&records, [&reply])[0];
        assert_eq!(record["outcome"], "complete", "{record}");
        assert_eq!(records.last().unwrap()["event"], "stopped");
        assert_eq!(verify(&config).status.code(), Some(0));
    });
}

/// The client who left early does not lose the record of what was released.
#[test]
fn an_answer_nobody_waits_for_is_recorded() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        hospital.stage.emr().set_delay(Duration::from_millis(400));
        let port = hospital.stage.running().unwrap().address().port();
        let mut stream = wire::connect(&hospital.stage.ca_file(), port).await;
        let request = format!(
            "GET /fhir/Patient/p1 HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {}\r\n\r\n",
            hospital.token("physician")
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(until(Duration::from_secs(10), || hospital.stage.emr().served() > 0).await);
        drop(stream);
        let read = |record: &serde_json::Value| record["interaction"] == "read";
        assert!(until(Duration::from_secs(10), || hospital.trail().iter().any(read)).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let record = hospital.trail().into_iter().find(read).unwrap();
        assert_eq!(record["decision"], "permit");
        assert_ne!(record["outcome"], "complete", "nobody took it: {record}");
    });
}

/// Gives the certificate authority's PEM.
fn write_new_certificate(folder: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("server.pem"), server.pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    authority.pem()
}

#[test]
fn certificates_are_read_again_without_dropping_anybody() {
    run(async {
        let hospital = Hospital::open(Script::default()).await;
        let port = hospital.stage.running().unwrap().address().port();
        let request = format!(
            "GET /fhir/Patient/p1 HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {}\r\n\r\n",
            hospital.token("physician")
        );
        let mut held = wire::connect(&hospital.stage.ca_file(), port).await;
        held.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(wire::read(&mut held, Duration::from_secs(1)).await.answers[0].status, 200);

        let new_ca = hospital.stage.folder().join("new-ca.pem");
        fs::write(&new_ca, write_new_certificate(hospital.stage.folder())).unwrap();
        hospital.stage.running().unwrap().reload();
        let url = format!("{}/metadata", hospital.stage.base_url());
        let mut answer = Err(String::new());
        for _ in 0..100 {
            answer = Client::new(&new_ca).unwrap().get(&url, None).await;
            if answer.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(answer.unwrap().status(), 200);
        assert!(Client::new(&hospital.stage.ca_file()).unwrap().get(&url, None).await.is_err());
        held.write_all(request.as_bytes()).await.unwrap();
        let again = wire::read(&mut held, Duration::from_secs(1)).await;
        assert_eq!(again.answers[0].status, 200, "the connection from before is still served");

        // A broken pair keeps the last good one.
        fs::write(hospital.stage.folder().join("server.pem"), "nonsense").unwrap();
        hospital.stage.running().unwrap().reload();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(Client::new(&new_ca).unwrap().get(&url, None).await.unwrap().status(), 200);
    });
}
