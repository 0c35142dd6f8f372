//! A trail that another department witnesses, with both programs as processes of their own.
//!
//! Owns: the way from `witness init` to a proof that a stranger checks, and the start that is refused after a rollback.
//! Must never: look into either program. Look next: `edge::witness::tests`, `tests/second_verifier.rs`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chartgate::cli::demo::stage::Script;
use serde_json::Value;

use crate::child::{Gate, chartgate, until, verify};
use crate::harness::{check_recorded, run, trail};

/// A witness in a process of its own.
struct Witness {
    folder: PathBuf,
    process: Option<Child>,
}

impl Witness {
    fn init(folder: PathBuf, log: &str) -> (Self, String) {
        fs::create_dir(&folder).unwrap();
        let witness = Self { folder, process: None };
        witness.configure(log, 0);
        let made = witness.command("init");
        (witness, made)
    }

    fn configure(&self, log: &str, port: u16) {
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:{port}\"\n[witness]\nname = \"witness.example/privacy\"\n\
             signing_key = \"cosign.key\"\nstate = \"state/witness.state\"\n[[log]]\nkey = \"{log}\"\n"
        );
        fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.join("witness.toml")
    }

    fn command(&self, name: &str) -> String {
        let output = chartgate(&["witness", name, "--config", self.file().to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Starts it; answers its port.
    async fn serve(&mut self) -> u16 {
        let log = self.folder.join("stderr.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chartgate"));
        command.args(["witness", "serve", "--config"]).arg(self.file()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        self.process = Some(command.spawn().unwrap());
        let said = || fs::read_to_string(&log).unwrap_or_default();
        assert!(until(Duration::from_secs(30), || said().contains(" witnessing ")).await, "{}", said());
        let said = said();
        let port = said.split_once("address=127.0.0.1:").unwrap().1.split_whitespace().next().unwrap();
        port.parse().unwrap()
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _already_over = process.kill();
            let _already_over = process.wait();
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn told(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_witnessed_trail_from_the_first_key_to_a_refused_rollback() {
    run(async {
        let mut gate = Gate::start(Script::default(), None).await;
        let config = gate.hospital.stage.config_file();
        let file = config.to_str().unwrap().to_owned();
        let folder = gate.hospital.stage.folder().to_owned();
        gate.signal("TERM");
        assert!(gate.wait().success());

        let log = told(&chartgate(&["audit", "key", "--config", &file])).trim().to_owned();
        let (mut witness, key) = Witness::init(folder.join("witness"), &log);
        assert_eq!(witness.command("key"), key);
        let port = witness.serve().await;
        let text = fs::read_to_string(&config).unwrap();
        let table = format!("\n[[audit.witness]]\nurl = \"http://127.0.0.1:{port}\"\nkey = \"{key}\"\n");
        fs::write(&config, format!("{text}{table}")).unwrap();
        let before = verify(&config);
        assert_eq!(before.status.code(), Some(1), "nothing is witnessed yet: {}", told(&before));

        gate.restart(None).await;
        let seen = gate.hospital.get("nurse", "Patient/p1").await;
        seen.check_ok();
        let metrics = gate.operations("/metrics");
        assert!(metrics.contains("witness_age_seconds{witness=\"witness.example/privacy\"}"), "{metrics}");
        gate.signal("TERM");
        assert!(gate.wait().success());
        let after = verify(&config);
        assert_eq!(after.status.code(), Some(0), "{}", told(&after));
        let told_by_doctor = told(&chartgate(&["doctor", "--config", &file]));
        assert!(told_by_doctor.contains("`witness.example/privacy` cosigned"), "{told_by_doctor}");

        a_stranger_checks_a_proof(&folder, &file, (&log, &key), seen.request_id());

        let (trail, copy) = (folder.join("audit"), folder.join("copy"));
        copy_all(&trail, &copy);
        gate.restart(None).await;
        gate.hospital.get("nurse", "Patient/p1").await.check_ok();
        gate.signal("TERM");
        assert!(gate.wait().success());
        fs::remove_dir_all(&trail).unwrap();
        copy_all(&copy, &trail);
        assert_eq!(verify(&config).status.code(), Some(0), "nothing inside the directory tells");
        let refused = chartgate(&["serve", "--config", &file]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(told(&refused).contains("the trail was put back to an older state"), "{}", told(&refused));

        // T-224: without its witness it starts, and says so.
        witness.kill();
        gate.restart(None).await;
        gate.hospital.get("nurse", "Patient/p1").await.check_ok();
        assert!(gate.log_text().contains("was not cosigned"), "{}", gate.log_text());
        gate.signal("TERM");
        assert!(gate.wait().success());
    });
}

/// With public keys alone.
fn a_stranger_checks_a_proof(folder: &Path, file: &str, (log, key): (&str, &str), id: &str) {
    let proof = folder.join("proof");
    let out = proof.to_str().unwrap();
    let made =
        ["audit", "prove", "--config", file, "--request-id", id, "--hash-only", "--witnessed", "--out", out];
    let made = chartgate(&made);
    assert!(made.status.success(), "{}", told(&made));
    let check =
        |key: &str| chartgate(&["audit", "check-proof", out, "--key", log, "--witness", key, "--json"]);
    let checked = check(key);
    assert!(checked.status.success(), "{}", told(&checked));
    let lines = told(&checked);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&first["holds"], &first["proof"]), (&Value::from(true), &Value::from("inclusion")));
    assert!(lines.lines().count() >= 2, "the release and its outcome: {lines}");
    let stranger = key.replace("witness.example", "witness.exampel");
    assert_eq!(check(&stranger).status.code(), Some(2), "a key with a typing mistake");
}

/// T-224: where the operator set an age for it, nothing is answered while nobody witnesses, and everything again after.
#[test]
fn an_age_without_a_witness_can_end_all_answers() {
    run(async {
        let mut gate = Gate::start(Script::default(), None).await;
        let config = gate.hospital.stage.config_file();
        let file = config.to_str().unwrap().to_owned();
        gate.signal("TERM");
        assert!(gate.wait().success());
        let log = told(&chartgate(&["audit", "key", "--config", &file])).trim().to_owned();
        let (mut witness, key) = Witness::init(gate.hospital.stage.folder().join("witness"), &log);
        let port = witness.serve().await;
        witness.configure(&log, port);
        let ages = "[audit]\nwitness_max_age = \"2s\"\nwitness_refuse_after = \"8s\"\n";
        let text = fs::read_to_string(&config).unwrap().replacen("[audit]\n", ages, 1);
        let table = format!("\n[[audit.witness]]\nurl = \"http://127.0.0.1:{port}\"\nkey = \"{key}\"\n");
        fs::write(&config, format!("{text}{table}")).unwrap();

        gate.restart(None).await;
        let nurse = gate.hospital.token("nurse");
        let before = gate.hospital.get_with(&nurse, "Patient/p1").await;
        before.check_ok();
        witness.kill();
        let is_ready = |gate: &Gate| gate.operations("/readyz").starts_with("HTTP/1.1 200");
        assert!(is_ready(&gate), "not yet");
        assert!(until(Duration::from_secs(30), || !is_ready(&gate)).await);
        let said = gate.operations("/readyz");
        assert!(said.contains("\"journal\":true") && said.contains("\"witnesses\":false"), "{said}");
        let asked = gate.hospital.stage.emr().requests().len();
        let mut refused = Vec::new();
        for path in ["Patient/p1", "Observation?patient=p1", "Claim/claim1"] {
            let reply = gate.hospital.get_with(&nurse, path).await;
            reply.check_refusal(503, "audit-unavailable");
            refused.push(reply);
        }
        // Who nobody knows hears what they always hear, and the EMR hears nothing.
        let stranger = gate.hospital.get_with("e30.e30.e30", "Patient/p1").await;
        assert_eq!(stranger.status, 401);
        assert_eq!(gate.hospital.stage.emr().requests().len(), asked);

        assert_eq!(witness.serve().await, port);
        assert!(until(Duration::from_secs(30), || is_ready(&gate)).await);
        let after = gate.hospital.get_with(&nurse, "Patient/p1").await;
        after.check_ok();
        gate.signal("TERM");
        assert!(gate.wait().success());
        // The trail takes records all the time: also of who was refused.
        let all = refused.iter().chain([&before, &stranger, &after]);
        check_recorded(&trail(&config), all);
    });
}
