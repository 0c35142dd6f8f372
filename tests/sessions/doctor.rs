//! The checklist over the sandbox's EMR and issuer, well and with something broken.

use std::fs;
use std::path::Path;
use std::process::Command;

use chartgate::edge::sessions::{Document, SessionStore as _, SqliteStore};
use chartgate_sandbox::issuer::INTROSPECTOR;
use chartgate_sandbox::listen::Canned;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::contract::store_key;
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
        ("trail", "warn", "trail-backup"),
        ("emergencies", "pass", "emergency-reviews"),
        ("clients", "warn", "clients-unregistered"),
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

/// A certificate for the listener that ends in so many days.
fn short_certificate(folder: &Path, days: i64) {
    let end = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date() + jiff::Span::new().days(days);
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    let (month, day) = (u8::try_from(end.month()).unwrap(), u8::try_from(end.day()).unwrap());
    params.not_after = date_time_ymd(i32::from(end.year()), month, day);
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("short.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.join("short.key"), key.serialize_pem()).unwrap();
}

/// What stands in the session store of a stream that was last heard of so many hours ago.
fn heard(folder: &Path, issuer: &str, hours: i64) {
    let now = jiff::Timestamp::now();
    let store = SqliteStore::open(&folder.join("heard.sqlite"), &store_key(), now).unwrap();
    let body = (now - jiff::SignedDuration::from_hours(hours)).to_string().into_bytes();
    let expires_at = jiff::Timestamp::MAX;
    store.put("event-stream", &Document { name: issuer.to_owned(), body, expires_at }).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// Each check, with what it looks at broken on purpose: text of the configuration and by what it is replaced, something
/// done in the folder, and what is said.
#[tokio::test(flavor = "multi_thread")]
async fn each_check_notices_what_it_is_for() {
    let town = Town::open().await;
    let config = town.stage.config_file();
    let (text, folder) = (fs::read_to_string(&config).unwrap(), town.stage.folder().to_owned());
    let issuer = town.stage.issuer().url().to_owned();
    fs::write(folder.join("secret"), INTROSPECTOR.1).unwrap();
    let table = |lines: &str| format!("{lines}\n\n[session]\n");
    let events = |more: &str| table(&format!("[issuer.events]\naudience = \"gate\"\n{more}"));
    let listened = events("heartbeat = \"1h\"") + "store = \"heard.sqlite\"\nkey = \"session.aes\"\n";
    let asked = |id: &str| {
        table(&format!(
            "[issuer.introspection]\nendpoint = \"{issuer}/introspect\"\nclient_id = \"{id}\"\nclient_secret_file = \"secret\""
        ))
    };
    let session = ("[session]\n", String::new());
    let replaced = |by: String| (session.0, by);
    let listen = (
        "certificate = \"server.pem\"\nprivate_key = \"server.key\"",
        "certificate = \"short.pem\"\nprivate_key = \"short.key\"".to_owned(),
    );
    let nothing = ("", String::new());
    type Case<'d> = ((&'d str, String), &'d dyn Fn(), (&'d str, &'d str, &'d str));
    let (lock, away) = (folder.join("audit/journal.lock"), folder.join("journal.away"));
    #[rustfmt::skip]
    let cases: [Case<'_>; 16] = [
        (("absolute_timeout = \"12h\"", "absolute_timeout = \"20h\"".into()), &|| {}, ("sessions", "warn", "session-absolute")),
        (("idle_timeout = \"15m\"", "idle_timeout = \"2h\"".into()), &|| {}, ("sessions", "warn", "check")),
        (replaced("[session]\nkey = \"session.aes\"\n".into()), &|| {}, ("sessions", "fail", "session-store")),
        (nothing.clone(), &|| mode(&folder.join("audit.aes"), 0o640), ("trail", "warn", "file-mode")),
        (nothing.clone(), &|| mode(&folder.join("audit"), 0o755), ("trail", "warn", "file-mode")),
        (replaced(listened.clone()), &|| mode(&folder.join("session.aes"), 0o644), ("sessions", "warn", "file-mode")),
        (replaced(asked("chartgate")), &|| mode(&folder.join("secret"), 0o644), ("issuer", "warn", "file-mode")),
        (replaced(asked("chartgate")), &|| {}, ("issuer", "pass", "introspection")),
        (replaced(asked("stranger")), &|| {}, ("issuer", "fail", "introspection")),
        (replaced(events("")), &|| {}, ("issuer", "warn", "event-heartbeat")),
        (replaced(listened.clone()), &|| {}, ("issuer", "warn", "event-stream")),
        (replaced(listened.clone()), &|| heard(&folder, &issuer, 0), ("issuer", "pass", "event-stream")),
        (replaced(listened.clone()), &|| heard(&folder, &issuer, 2), ("issuer", "fail", "event-stream")),
        (listen.clone(), &|| short_certificate(&folder, 10), ("TLS", "warn", "certificate-end")),
        (listen.clone(), &|| short_certificate(&folder, -10), ("TLS", "fail", "certificate-end")),
        (nothing.clone(), &|| { fs::rename(&lock, &away).unwrap(); fs::create_dir(&lock).unwrap(); }, ("trail", "fail", "trail-lock")),
    ];
    let other = config.with_file_name("broken.toml");
    for name in ["audit.aes", "audit", "session.aes", "secret"] {
        mode(&folder.join(name), 0o700);
    }
    for (at, ((from, to), doing, (group, status, code))) in cases.iter().enumerate() {
        assert!(text.contains(from), "{from}");
        fs::write(&other, if from.is_empty() { text.clone() } else { text.replacen(from, to, 1) }).unwrap();
        doing();
        let (_, found) = lines(&other, None);
        assert!(has(&found, group, status, code), "{at}: {group} {status} {code}: {found:#?}");
        for name in ["audit.aes", "audit", "session.aes", "secret"] {
            mode(&folder.join(name), 0o700);
        }
    }
}
