//! Short runs of what is written, of the peer that does equal work, and of more refusals than are recorded one by one.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod program;

use program::{loadtest, shown};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

const PEER: &str = "nginx, decisions asked for, bodies filtered";

/// What every role may and may not see and write, in a second.
const SCENARIO: &str = r#"title = "Roles"
about = "Reads, searches and writes of all kinds of people, and what they are refused."

[load]
pace = "constant"
rate = "16/s"
seconds = 1
connections = 12

[[visit]]
name = "nurse"
role = "nurse"

[[visit.step]]
name = "patient"
get = "/Patient/{patient}"

[[visit.step]]
name = "therapy notes"
get = "/Observation/{patient}-therapy"
status = 404

[[visit.step]]
name = "by a withheld number"
get = "/Patient?identifier=ZKMRN1"
status = 403

[[visit.step]]
name = "written"
post = "/Observation"
body = '''{"resourceType": "Observation", "status": "final", "code": {"text": "zknote {number}"},
 "subject": {"reference": "Patient/{patient}"}}'''
status = 201
after_ms = 10

[[visit.step]]
name = "not theirs to write"
post = "/Patient"
body = '''{"resourceType": "Patient", "active": true}'''
status = 403
after_ms = 10

[[visit]]
name = "front desk"
role = "front-desk"

[[visit.step]]
name = "diagnoses"
get = "/Condition?patient=Patient/{patient}"
status = 403

[[visit.step]]
name = "a death written"
post = "/Patient"
body = '''{"resourceType": "Patient", "active": true, "deceasedBoolean": true}'''
status = 403

[[visit.step]]
name = "reached otherwise"
patch = "/Patient/{patient}"
body = '''[{"op": "replace", "path": "/telecom/0/value", "value": "zkmail-{number}@beispiel.example"}]'''
after_ms = 20

[[visit]]
name = "physician"
role = "physician"

[[visit.step]]
name = "everything"
get = "/Patient/{patient}/$everything"

[[visit.step]]
name = "revised"
put = "/Condition/{patient}-c1"
body = '''{"resourceType": "Condition", "id": "{patient}-c1", "code": {"text": "zknote {number}"},
 "subject": {"reference": "Patient/{patient}"}}'''
after_ms = 20

[[visit]]
name = "patient"
role = "patient"

[[visit.step]]
name = "another patient"
get = "/Patient/{other}"
status = 404

[[visit.step]]
name = "own"
get = "/Patient/{patient}"

[[visit.step]]
name = "another chart"
get = "/Patient/{other}/$everything"
status = 404

[[visit.step]]
name = "own results"
get = "/Observation?patient=Patient/{patient}&_count=10"

[[visit]]
name = "researcher"
role = "researcher"

[[visit.step]]
name = "conditions"
get = "/Condition?_count=20"

[[visit]]
name = "one factor"
role = "nurse"
token = "password-only"

[[visit.step]]
name = "patient"
get = "/Patient/{patient}"
status = 401

[[visit]]
name = "forged"
role = "physician"
token = "tampered"

[[visit.step]]
name = "patient"
get = "/Patient/{patient}"
status = 401
"#;

fn run(folder: &Path, scenario: &str, more: &[&str]) -> (Output, Value) {
    let found = folder.join("found.json");
    let mut command = loadtest();
    command.args(["run", scenario, "--patients", "6", "--json"]).arg(&found).args(more);
    let output = command.output().unwrap();
    (output, serde_json::from_slice(&fs::read(found).unwrap_or_default()).unwrap_or_default())
}

#[test]
fn what_is_written_is_found_and_the_equal_peer_answers_as_the_gate_does() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("roles.toml");
    fs::write(&scenario, SCENARIO).unwrap();
    let (output, found) = run(folder.path(), scenario.to_str().unwrap(), &["--beside", "nginx-authz"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(found["written"].as_u64().unwrap() >= 3, "{}", shown(&output));
    assert!(shown(&output).contains("the EMR holds what was sent"), "{}", shown(&output));
    let sides = found["sides"].as_array().unwrap();
    let Some(peer) = sides.iter().find(|side| side["who"] == PEER) else {
        // Without nginx's module there is no row, and the report says so.
        assert!(found["notes"].to_string().contains("no row for it"), "{}", found["notes"]);
        return;
    };
    assert_eq!(peer["errors"], serde_json::json!({}), "it decides and filters as the gate does");
    let answers = |side: &Value| -> Vec<Value> {
        side["rows"].as_array().unwrap().iter().map(|row| row["statuses"].clone()).collect()
    };
    assert_eq!(answers(peer), answers(&sides[0]));
    let everything = |side: &Value| {
        let rows = side["rows"].as_array().unwrap();
        rows.iter().find(|row| row["step"] == "everything").unwrap()["bytes"].as_u64().unwrap()
    };
    // It lets out what the gate lets out, not an empty answer.
    assert!(
        everything(peer) * 10 > everything(&sides[0]) * 8,
        "{} {}",
        everything(peer),
        everything(&sides[0])
    );
}

/// More bad tokens from one address than have a record each in a minute (`audit.refusals`, 600), and one good question.
const FLOOD: &str = r#"title = "Flood"
about = "Forged tokens, a good one now and then."

[load]
pace = "constant"
rate = "55/s"
seconds = 4
connections = 24

[[visit]]
name = "forged"
role = "physician"
token = "tampered"
weight = 10

[[visit.step]]
name = "one"
get = "/Patient/{patient}"
status = 401

[[visit.step]]
name = "two"
get = "/Patient/{other}"
status = 401

[[visit.step]]
name = "three"
get = "/Patient"
status = 401

[[visit.step]]
name = "four"
get = "/Condition"
status = 401

[[visit]]
name = "good"
role = "nurse"

[[visit.step]]
name = "patient"
get = "/Patient/{patient}"
"#;

#[test]
fn refusals_beyond_their_budget_are_counted_and_the_count_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("flood.toml");
    fs::write(&scenario, FLOOD).unwrap();
    let (output, found) = run(folder.path(), scenario.to_str().unwrap(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let audit = &found["audit"];
    let number = |name: &str| audit[name].as_u64().unwrap();
    assert!(number("counted") > 0 && number("missing") == 0, "{audit}");
    assert!(number("refusals") > number("counted") && number("answered") > number("refusals"), "{audit}");
}
