//! The checklist over the sandbox's EMR and issuer, well and with something broken.

use std::fs;
use std::path::Path;
use std::process::Command;

use chartgate_sandbox::listen::Canned;
use serde_json::{Value, json};

use crate::town::Town;

/// Runs the doctor: exit code, and what it said.
fn doctor(config: &Path, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chartgate"));
    let output = command.args(["doctor", "--config"]).arg(config).args(more).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// The same as JSON: exit code, and each line's group, status and code.
fn lines(config: &Path, token: Option<&str>) -> (i32, Vec<(String, String, String)>) {
    let file = config.with_extension("token");
    let mut more = vec!["--json"];
    if let Some(token) = token {
        fs::write(&file, format!("{token}\n")).unwrap();
        more.extend(["--token-file", file.to_str().unwrap()]);
    }
    let (code, out) = doctor(config, &more);
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(!text(&line, "what").is_empty());
        assert_eq!(line.get("hint").is_none(), line["status"] == "pass", "{line}");
        (text(&line, "group"), text(&line, "status"), text(&line, "code"))
    };
    (code, out.lines().map(read).collect())
}

fn failed(lines: &[(String, String, String)]) -> Vec<&str> {
    lines.iter().filter(|(_, status, _)| status == "fail").map(|(_, _, code)| code.as_str()).collect()
}

fn has(lines: &[(String, String, String)], group: &str, status: &str, code: &str) -> bool {
    lines.iter().any(|line| line.0.starts_with(group) && line.1 == status && line.2 == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_gate_passes_and_each_break_is_named() {
    let town = Town::open().await;
    let config = town.stage.config_file();
    let issuer = town.stage.issuer();

    let (code, sound) = lines(&config, Some(&town.token("nurse")));
    assert_eq!((code, failed(&sound)), (0, vec![]), "{sound:#?}");
    for (group, status, code) in [
        ("EMR", "pass", "emr-version"),
        ("EMR", "warn", "emr-open"),
        ("EMR", "pass", "clock"),
        ("TLS", "pass", "certificate-end"),
        ("issuer http", "pass", "discovery"),
        ("issuer http", "pass", "keys"),
        ("issuer http", "pass", "clock"),
        ("sessions", "pass", "session-store"),
        ("trail", "pass", "trail"),
        ("token", "pass", "token"),
    ] {
        assert!(has(&sound, group, status, code), "{group} {status} {code}: {sound:#?}");
    }

    let strange = issuer.token_with("nurse", |claims| {
        claims["aud"] = "https://else.test/fhir".into();
        claims.as_object_mut().unwrap().remove("auth_time");
        claims["sub"] = "SECRET-SUBJECT".into();
        claims["patient"] = "SECRET-PATIENT".into();
    });
    let strange = strange.unwrap();
    let (code, found) = lines(&config, Some(&strange));
    assert_eq!((code, failed(&found)), (1, vec!["token-audience-refused", "mfa-too-old"]), "{found:#?}");
    let file = config.with_extension("token");
    let (code, said) = doctor(&config, &["--token-file", file.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(said.contains("`https://else.test/fhir`") && said.contains("2 failed"), "{said}");
    assert!(!said.contains("SECRET") && strange.split('.').all(|part| !said.contains(part)), "{said}");

    let other = json!({"issuer": "https://else.test", "jwks_uri": format!("{}/jwks", issuer.url())});
    let path = "/.well-known/openid-configuration";
    issuer.next_answer(path, Canned::status(200).body(other.to_string()));
    assert_eq!(failed(&lines(&config, None).1), ["discovery-issuer"]);
    issuer.next_answer("/jwks", Canned::status(503));
    assert_eq!(failed(&lines(&config, None).1), ["keys"]);
    let late =
        Canned::status(200).header("date", "Sun, 06 Nov 1994 08:49:37 GMT").body(issuer.jwks().to_string());
    issuer.next_answer("/jwks", late);
    assert_eq!(failed(&lines(&config, None).1), ["clock"]);
    town.stage.emr().next_answer("/fhir/metadata", Canned::fhir(r#"{"fhirVersion":"5.0.0"}"#));
    let (_, old) = lines(&config, None);
    assert_eq!(failed(&old), ["emr-version"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_a_failure_and_not_a_fault() {
    let town = Town::open().await;
    let config = town.stage.config_file();
    let text = fs::read_to_string(&config).unwrap();
    let other = config.with_file_name("broken.toml");
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        fs::write(&other, text.replace(from, to)).unwrap();
        lines(&other, None)
    };
    let (code, unknown) = with("[session]", "[session]\nidle = 1");
    assert_eq!((code, failed(&unknown)), (1, vec!["check"]));
    assert!(has(&unknown, "configuration", "fail", "check"));
    let (code, none) = with("directory = \"audit\"", "directory = \"nowhere\"");
    assert_eq!((code, failed(&none)), (1, vec!["session-store", "trail-missing"]));
    let base = text.lines().skip_while(|line| *line != "[upstream]").nth(1).unwrap();
    let (code, away) = with(base, "base_url = \"http://127.0.0.1:9/fhir\"");
    assert_eq!((code, failed(&away)), (1, vec!["emr-unreachable"]));
    let missing = lines(&config, Some("")).1;
    assert_eq!(failed(&missing), ["token-file"]);
    let wrong = Command::new(env!("CARGO_BIN_EXE_chartgate")).arg("doctor").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "no configuration named");
}
