//! How a policy set comes into force: tried out, signed, versioned, and only then (T-204, T-205, T-206, KF-60).
//!
//! Owns: what becomes of a set that is good, broken, untested, unsigned, tampered with or old, now and after a restart.
//! Must never: wait longer than the contract's eight seconds for what is good.
//! Look next: `policy`, what policies decide; `chartgate::cli::demo::stage`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chartgate::cli::demo::stage::{POLICIES, Script, Stage};
use serde_json::Value;
use tempfile::TempDir;

use crate::child::until;
use crate::harness::{Hospital, run};

const NAME: &str = "town-policies";

/// Ready or not, what `/readyz` says.
async fn readiness(hospital: &Hospital) -> Value {
    let at = hospital.stage.running().unwrap().operations_address();
    let text = reqless::get(at, "/readyz").await;
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
}

async fn metrics(hospital: &Hospital) -> String {
    reqless::get(hospital.stage.running().unwrap().operations_address(), "/metrics").await
}

/// The operations door speaks plain HTTP on loopback.
mod reqless {
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    pub(super) async fn get(at: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }
}

fn chartgate(arguments: &[&str]) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_chartgate")).args(arguments).output().unwrap();
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (done.status.code().unwrap(), text)
}

fn last<'t>(trail: &'t [Value], event: &str) -> &'t Value {
    trail.iter().rfind(|record| record["event"] == event).unwrap_or_else(|| panic!("no {event}"))
}

#[test]
fn a_set_that_is_rejected_is_told_of_and_changes_nothing() {
    run(async {
        let tried = ("[policies]\n".to_owned(), "[policies]\ntests = true\n".to_owned());
        let hospital = Hospital::open(Script { replace: vec![tried], ..Script::default() }).await;
        let first = readiness(&hospital).await;
        assert_eq!((&first["policyEpoch"], &first["policyRejected"]), (&Value::from(1), &Value::Null));
        let read = hospital.get("nurse", "Patient/p1").await;
        let record = &hospital.check_recorded([&read])[0];
        assert_eq!((&record["policySet"], &record["policyEpoch"]), (&first["policyHash"], &Value::from(1)));

        // A case that fails: the set is what somebody wrote and not what they meant.
        let case = |expect: &str| {
            format!(
                "[[case]]\nname = \"a nurse reads claims\"\nrole = \"nurse\"\npurpose = \"TREAT\"\ntype = \"Claim\"\nexpect = \"{expect}\"\n"
            )
        };
        fs::create_dir(hospital.stage.folder().join("policies/tests")).unwrap();
        hospital.edit("tests/nurse.toml", Some(&case("permit")));
        hospital.edit("more.cedar", Some("@id(\"more\") @why(\"more (none)\") permit(principal in Role::\"nobody\", action == Action::\"read\", resource is FHIR::Patient);"));
        hospital.edited("policies-rejected", 0).await;
        let told = last(&hospital.trail(), "policies-rejected")["details"].to_string();
        assert!(told.contains("tests/nurse.toml:1") && told.contains("a nurse reads claims"), "{told}");
        let now = readiness(&hospital).await;
        assert_eq!(now["policyHash"], first["policyHash"]);
        assert!(now["policyRejected"].as_str().unwrap().contains("a nurse reads claims"), "{now}");
        assert!(metrics(&hospital).await.contains("chartgate_policy_rejected 1\n"));
        hospital.get("nurse", "Patient/p1").await.check_ok();
        let (code, said) = chartgate(&["check", "--config", hospital.stage.config_file().to_str().unwrap()]);
        assert!(code == 1 && said.contains("tests/nurse.toml:1"), "{code}: {said}");

        // The case is set right: the set is what was meant.
        hospital.edit("tests/nurse.toml", Some(&case("deny")));
        hospital.edited("policies-loaded", 0).await;
        let now = readiness(&hospital).await;
        assert_eq!((&now["policyEpoch"], &now["policyRejected"]), (&Value::from(2), &Value::Null));
        assert_ne!(now["policyHash"], first["policyHash"]);
        let read = hospital.get("nurse", "Patient/p1").await;
        let record = &hospital.check_recorded([&read])[0];
        assert_eq!((&record["policySet"], &record["policyEpoch"]), (&now["policyHash"], &Value::from(2)));
        let told = metrics(&hospital).await;
        let hash = now["policyHash"].as_str().unwrap();
        assert!(
            told.contains(&format!("chartgate_policy_set{{hash=\"{hash}\",version=\"\"}} 1\n")),
            "{told}"
        );
        assert!(
            told.contains("chartgate_policy_rejected 0\n") && told.contains("chartgate_policy_epoch 2\n")
        );
        assert_eq!(told.matches("chartgate_policy_set{").count(), 1, "the old set is no longer in force");
    });
}

/// A hospital whose policies are signed.
struct Signed {
    place: TempDir,
    signer: String,
}

impl Signed {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let directory = place.path().join("policies");
        fs::create_dir(&directory).unwrap();
        for (name, text) in POLICIES {
            fs::write(directory.join(name), text).unwrap();
        }
        let key = place.path().join("bundle.key");
        let (code, signer) = chartgate(&["policy", "key", "--name", NAME, "--key", key.to_str().unwrap()]);
        assert_eq!(code, 0, "{signer}");
        Self { place, signer: signer.trim().to_owned() }
    }

    fn directory(&self) -> PathBuf {
        self.place.path().join("policies")
    }

    /// Signs the directory; gives the hash of its set.
    fn sign(&self, version: u64) -> String {
        let (key, directory) = (self.place.path().join("bundle.key"), self.directory());
        let (version, key) = (version.to_string(), key.to_str().unwrap());
        let directory = directory.to_str().unwrap();
        let arguments =
            ["policy", "sign", directory, "--name", NAME, "--key", key, "--version", &version, "--json"];
        let (code, said) = chartgate(&arguments);
        assert_eq!(code, 0, "{said}");
        serde_json::from_str::<Value>(&said).unwrap()["hash"].as_str().unwrap().to_owned()
    }

    /// A copy of the directory as it is, put back at once by renaming.
    fn keep(&self, name: &str) -> PathBuf {
        let to = self.place.path().join(name);
        copy(&self.directory(), &to);
        to
    }

    fn put_back(&self, kept: &Path) {
        let aside = self.place.path().join("aside");
        fs::rename(self.directory(), &aside).unwrap();
        copy(kept, &self.directory());
        fs::remove_dir_all(aside).unwrap();
    }

    fn add(&self, name: &str) {
        let text = format!(
            "@id(\"{name}\") @why(\"more (none)\") permit(principal in Role::\"{name}\", action == Action::\"read\", resource is FHIR::Patient);"
        );
        fs::write(self.directory().join(format!("{name}.cedar")), text).unwrap();
    }

    fn script(&self) -> Script {
        let replace = ("[policies]\n".to_owned(), format!("[policies]\nsigners = [\"{}\"]\n", self.signer));
        Script { policies: Some(self.directory()), replace: vec![replace], ..Script::default() }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

impl Hospital {
    /// A directory may be seen between two steps of whoever writes it, and rejected for that first.
    async fn rejected_because(&self, part: &str) {
        let mut why = Value::Null;
        for _ in 0..250 {
            why = readiness(self).await["policyRejected"].clone();
            if why.as_str().is_some_and(|why| why.contains(part)) {
                let told = last(&self.trail(), "policies-rejected")["details"].to_string();
                assert!(told.contains(part), "{part}: {told}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{part}: {why}");
    }

    async fn until_epoch(&self, epoch: u64) -> Value {
        let mut now = Value::Null;
        for _ in 0..250 {
            now = readiness(self).await;
            if now["policyEpoch"] == epoch {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("epoch {epoch} never came: {now}");
    }
}

#[test]
fn only_a_signed_bundle_that_is_not_older_comes_into_force() {
    run(async {
        let signed = Signed::new();
        let unsigned = Stage::open(signed.script()).await.unwrap_err().to_string();
        assert!(unsigned.contains("bundle.note") && unsigned.contains("not signed"), "{unsigned}");
        let third = signed.sign(3);
        let of_three = signed.keep("three");
        let mut hospital = Hospital::open(signed.script()).await;
        let now = readiness(&hospital).await;
        assert_eq!(
            (&now["policyVersion"], &now["policyHash"]),
            (&Value::from(3), &Value::from(third.clone()))
        );
        hospital.get("nurse", "Patient/p1").await.check_ok();

        tampered(&signed, &hospital).await;
        // A higher version.
        signed.add("fourth");
        let fourth = signed.sign(4);
        let now = hospital.until_epoch(2).await;
        assert_eq!(
            (&now["policyVersion"], &now["policyHash"]),
            (&Value::from(4), &Value::from(fourth.clone()))
        );
        assert_eq!(
            last(&hospital.trail(), "policies-loaded")["details"]["policyHighest"],
            format!("4 {fourth}")
        );
        let told = metrics(&hospital).await;
        assert!(
            told.contains(&format!("chartgate_policy_set{{hash=\"{fourth}\",version=\"4\"}} 1\n")),
            "{told}"
        );
        let of_four = signed.keep("four");

        // The version before, signed as it is; and the same version with another content.
        signed.put_back(&of_three);
        hospital.rejected_because("version 3 of the policies is older than 4").await;
        assert_eq!(readiness(&hospital).await["policyVersion"], 4);
        signed.put_back(&of_four);
        signed.add("other");
        let _other = signed.sign(4);
        hospital.rejected_because("version 4 of the policies was in force with another content").await;

        // After a restart it is still known, also by `check`.
        signed.put_back(&of_three);
        hospital.stage.stop().await.unwrap();
        let refused = hospital.stage.start().await.unwrap_err().to_string();
        assert!(refused.contains("version 3 of the policies is older than 4"), "{refused}");
        let config = hospital.stage.config_file();
        let (code, said) = chartgate(&["check", "--config", config.to_str().unwrap()]);
        assert!(code == 1 && said.contains("is older than 4") && said.contains("policy rollback"), "{said}");

        rolled_back(&signed, &mut hospital, (&third, &of_three, &of_four)).await;
    });
}

async fn tampered(signed: &Signed, hospital: &Hospital) {
    let nurse = signed.directory().join("nurse.cedar");
    let text = fs::read_to_string(&nurse).unwrap();
    fs::write(&nurse, text.replace("Role::\"nurse\"", "Role::\"billing-clerk\"")).unwrap();
    hospital.rejected_because("nurse.cedar:1:1: was changed after it was signed").await;
    hospital.get("nurse", "Patient/p1").await.check_ok();
    fs::write(&nurse, text).unwrap();
    for _ in 0..250 {
        if readiness(hospital).await["policyRejected"].is_null() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("what was set right is still rejected");
}

async fn rolled_back(
    signed: &Signed,
    hospital: &mut Hospital,
    (third, of_three, of_four): (&str, &Path, &Path),
) {
    let config = hospital.stage.config_file();
    let config = config.to_str().unwrap().to_owned();
    let order = |version: &str, hash: &str, reason: &str| {
        chartgate(&[
            "policy",
            "rollback",
            "--config",
            &config,
            "--version",
            version,
            "--hash",
            hash,
            "--reason",
            reason,
            "--as",
            "jdoe",
        ])
    };
    assert_eq!(order("3", "abc", "why").0, 2);
    assert_eq!(order("3", third, " ").0, 2);
    let (code, said) = order("3", &third.replace(|c: char| c != '0', "0"), "another hash");
    assert_eq!(code, 0, "{said}");
    let refused = hospital.stage.start().await.unwrap_err().to_string();
    assert!(refused.contains("older than 4"), "the very set that is named: {refused}");
    let (code, said) = order("3", third, "4 withholds allergies");
    assert!(code == 0 && said.contains("version 3 may be taken again"), "{said}");
    hospital.stage.start().await.unwrap();
    assert_eq!(readiness(hospital).await["policyVersion"], 3);
    let trail = hospital.trail();
    let ordered = &last(&trail, "policies-rollback")["details"];
    assert_eq!(
        (&ordered["reason"], &ordered["operator"]),
        (&Value::from("4 withholds allergies"), &Value::from("jdoe"))
    );
    assert_eq!(last(&trail, "started")["details"]["policyVersion"], "3");
    hospital.get("nurse", "Patient/p1").await.check_ok();

    // Another restart keeps it; what goes on counts from the highest.
    hospital.stage.stop().await.unwrap();
    hospital.stage.start().await.unwrap();
    signed.put_back(of_four);
    signed.add("fifth");
    let _fifth = signed.sign(5);
    let now = hospital.until_epoch(2).await;
    assert_eq!(now["policyVersion"], 5);
    signed.put_back(of_three);
    hospital.rejected_because("version 3 of the policies is older than 5").await;
}

/// The commands by themselves: what is signed verifies, what is not does not, and each way is said.
#[test]
fn bundles_are_signed_and_verified_by_commands() {
    let signed = Signed::new();
    let directory = signed.directory();
    let directory = directory.to_str().unwrap();
    let (code, said) = chartgate(&["policy", "verify", directory]);
    assert!(code == 2 && said.contains("--signer"), "{said}");
    let (code, said) = chartgate(&["policy", "verify", directory, "--signer", &signed.signer]);
    assert!(code == 1 && said.contains("not signed") && said.contains("policy sign"), "{said}");
    let hash = signed.sign(7);
    let (code, said) = chartgate(&["policy", "verify", directory, "--signer", &signed.signer, "--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert!(code == 0 && told["version"] == 7 && told["hash"] == hash && told["name"] == NAME, "{said}");
    let (code, said) = chartgate(&["policy", "verify", directory, "--signer", &signed.signer]);
    assert!(code == 0 && said.contains("version 7") && said.contains(&hash), "{said}");
    signed.add("more");
    let (code, said) = chartgate(&["policy", "verify", directory, "--signer", &signed.signer, "--json"]);
    assert!(code == 1 && said.contains("is not in the signed bundle"), "{said}");
    fs::write(signed.directory().join("more.cedar"), "permit (").unwrap();
    let key = signed.place.path().join("bundle.key");
    let key = key.to_str().unwrap();
    let arguments = ["policy", "sign", directory, "--name", NAME, "--key", key, "--version", "8"];
    let (code, said) = chartgate(&arguments);
    assert!(code == 1 && said.contains("more.cedar:1"), "{said}");
    let (code, said) = chartgate(&["policy", "key", "--name", "two words", "--key", key]);
    assert!(code == 1 && said.contains("spaces"), "{said}");
}

/// A candidate that shows a nurse no birth dates and refuses front desks, until so many seconds from now.
fn candidate(seconds: i64) -> (TempDir, Script) {
    let place = TempDir::new().unwrap();
    for (name, text) in POLICIES.iter().filter(|(name, _)| *name != "front-desk.cedar") {
        fs::write(place.path().join(name), text).unwrap();
    }
    let forbid = "@id(\"no-birth-dates\") forbid(principal in Role::\"nurse\", action == Action::\"disclose\", resource in FHIR::Element::\"Patient.birthDate\");";
    fs::write(place.path().join("candidate.cedar"), forbid).unwrap();
    let until = chartgate::clock::now() + jiff::SignedDuration::from_secs(seconds);
    let more = format!("[policies.shadow]\ndirectory = {:?}\nuntil = \"{until}\"\n", place.path());
    (place, Script { more, ..Script::default() })
}

#[test]
fn a_candidate_in_the_shadow_is_reported_and_changes_no_answer() {
    run(async {
        let (_candidate, script) = candidate(3600);
        let mut hospital = Hospital::open(script).await;
        let config = hospital.stage.config_file();
        let config = config.to_str().unwrap().to_owned();
        let (code, said) = chartgate(&["check", "--config", &config]);
        assert!(code == 0 && said.contains("is asked beside the policies in force, until"), "{said}");
        hospital.edited("shadow-began", 0).await;
        let now = readiness(&hospital).await;
        let shadow = &now["policyShadow"];
        assert_ne!(shadow["candidate"], now["policyHash"]);
        assert!(shadow["until"].is_string(), "{now}");

        for _ in 0..3 {
            let read = hospital.get("nurse", "Patient/p1").await;
            read.check_ok();
            assert!(read.json()["birthDate"].is_string(), "the candidate decides nothing");
        }
        let found = hospital.get("front-desk", "Patient?_id=p1").await;
        found.check_ok();
        let recorded = hospital.check_recorded([&found])[0]["policySet"].clone();
        assert_eq!(recorded, now["policyHash"]);
        let mut told = Value::Null;
        for _ in 0..300 {
            told = readiness(&hospital).await["policyShadow"].clone();
            if told["different"].as_u64() >= Some(4) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(told["different"].as_u64() >= Some(4) && told["dropped"] == 0, "{told}");
        let text = metrics(&hospital).await;
        assert!(text.contains("chartgate_policy_shadow 1\n"), "{text}");
        assert!(text.contains("chartgate_policy_shadow_questions_total{outcome=\"different\"}"), "{text}");

        hospital.stage.stop().await.unwrap();
        let (code, said) = chartgate(&["policy", "shadow", "--config", &config, "--json"]);
        assert_eq!(code, 0, "{said}");
        let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let row = |roles: &str| {
            let found = rows.iter().find(|row| row["roles"] == roles && row["type"] == "Patient");
            found.unwrap_or_else(|| panic!("{roles}: {said}"))
        };
        assert_eq!(row("nurse")["lost"], serde_json::json!({ "Patient.birthDate": 3 }));
        assert!(
            row("nurse")["gained"].as_object().unwrap().is_empty() && row("nurse")["refused"] == 0,
            "{said}"
        );
        assert!(row("front-desk")["refused"].as_u64() >= Some(1), "{said}");
        let numbers = rows.last().unwrap();
        assert_eq!(
            (&numbers["event"], &numbers["candidate"]),
            (&Value::from("shadow-ended"), &shadow["candidate"])
        );
        for id in ["p1", "Patient/"] {
            assert!(!said.contains(id), "a report names no patient: {said}");
        }
        let (code, said) = chartgate(&["policy", "shadow", "--config", &config]);
        assert!(
            code == 0 && said.contains("withholds Patient.birthDate") && said.contains("newly refused"),
            "{said}"
        );
    });
}

#[test]
fn a_candidate_is_asked_no_more_when_its_time_is_over() {
    run(async {
        let (_candidate, script) = candidate(40);
        let hospital = Hospital::open(script).await;
        hospital.edited("shadow-began", 0).await;
        hospital.get("nurse", "Patient/p1").await.check_ok();
        let ended = until(Duration::from_secs(90), || hospital.events("shadow-ended") == 1).await;
        assert!(ended, "it went on");
        let told = last(&hospital.trail(), "shadow-ended")["details"]["because"].clone();
        assert_eq!(told, "its time is over");
        assert_eq!(readiness(&hospital).await["policyShadow"], Value::Null);
        let text = metrics(&hospital).await;
        assert!(text.contains("chartgate_policy_shadow 0\n"), "{text}");
        let asked = |text: &str| {
            let lines =
                text.lines().filter(|line| line.starts_with("chartgate_policy_shadow_questions_total"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        hospital.get("nurse", "Patient/p1").await.check_ok();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(asked(&metrics(&hospital).await), asked(&text), "it was asked after its end");
        let config = hospital.stage.config_file();
        let (code, said) = chartgate(&["check", "--config", config.to_str().unwrap()]);
        assert!(code == 0 && said.contains("its time was over"), "{said}");
    });
}
