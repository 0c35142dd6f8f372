//! A system of the hospital's own: a gate under the shipped policies, asked by the `integration` role.
//!
//! Owns: its configuration, its token, and reading the trail once the gate is closed.
//! Must never: widen a policy: `policies/integration.cedar` permits everything, as it ships.
//! Look next: `clients` and `mirror`, who ask.

use std::path::Path;

use chartgate::cli::audit;
use chartgate::cli::demo::stage::{Script, Stage};
use chartgate::{app, config};
use serde_json::{Value, json};

/// A gate before `upstream`, or before the sandbox's EMR with its charts.
pub(crate) async fn open(upstream: Option<&str>) -> Stage {
    let roles = (r#""hosp-rn" = "nurse""#, r#""hosp-rn" = "nurse", "hosp-interfaces" = "integration""#);
    let untried = ("[policies]\n", "[policies]\ntests = false\n");
    let script = Script {
        policies: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")),
        upstream: upstream.map(str::to_owned),
        empty: upstream.is_some(),
        replace: [roles, untried].map(|(from, to)| (from.to_owned(), to.to_owned())).into(),
        ..Script::default()
    };
    Stage::open(script).await.unwrap_or_else(|error| panic!("{error}"))
}

/// A token of the system, with a fresh second factor.
pub(crate) fn token(stage: &Stage) -> String {
    let change = |claims: &mut Value| {
        let claims = claims.as_object_mut().unwrap();
        claims.remove("fhirUser");
        claims.insert("sub".to_owned(), json!("interface-engine"));
        claims.insert("roles".to_owned(), json!(["hosp-interfaces"]));
        claims.insert("purpose_of_use".to_owned(), json!("HOPERAT"));
        claims.insert("scope".to_owned(), json!("system/*.cruds"));
    };
    stage.issuer().token_with("physician", change).unwrap()
}

/// Every record of the closed gate's trail as `audit search --json` prints it; the trail verifies.
pub(crate) fn trail(stage: &Stage) -> Vec<Value> {
    let settings = app::journal_settings(&config::load(&stage.config_file()).unwrap());
    let (mut verdict, mut complaint) = (Vec::new(), Vec::new());
    let code = audit::verify(
        &settings,
        chartgate::edge::journal::Request { decode: true, ..Default::default() },
        false,
        &mut verdict,
        &mut complaint,
    );
    assert_eq!(code, audit::GOOD, "{}", String::from_utf8_lossy(&verdict));
    let mut lines = Vec::new();
    audit::search(&settings, &audit::Filter::default(), true, &mut lines, &mut complaint);
    assert!(complaint.is_empty(), "{}", String::from_utf8_lossy(&complaint));
    let lines = String::from_utf8(lines).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
