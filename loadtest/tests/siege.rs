//! Short sieges and soaks of the whole thing: they must pass, tell what was done, and say no to what they do not know.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod program;

use program::{loadtest, shown};
use serde_json::Value;
use std::fs;
use std::process::Output;
use tempfile::TempDir;

struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Runs it, with both reports.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = loadtest();
        command.args(arguments).args(["--patients", "4"]);
        command.arg("--json").arg(self.0.path().join("found.json"));
        command.arg("--html").arg(self.0.path().join("page.html"));
        command.output().unwrap()
    }

    fn found(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.path().join("found.json")).unwrap()).unwrap()
    }

    fn page(&self) -> String {
        fs::read_to_string(self.0.path().join("page.html")).unwrap()
    }
}

#[test]
fn callers_who_behave_are_answered_while_others_attack() {
    let bench = Bench::new();
    let output =
        bench.run(&["hostile", "bad-tokens,pings", "--seconds", "1", "--rate", "3/s", "--strength", "20"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let found = bench.found();
    assert_eq!(found["misses"], Value::Array(Vec::new()), "{}", shown(&output));
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        for when in ["calm", "under"] {
            assert!(row[when]["answered"].as_u64().unwrap() > 0 && row[when]["bad"] == 0, "{row}");
            assert!(row[when]["peakMib"].as_f64().unwrap() > 1.0, "{row}");
        }
    }
    assert!(rows[0]["ended"]["401"].as_u64().unwrap() > 0, "{}", rows[0]);
    assert!(rows[1]["sent"]["frames"].as_u64().unwrap() > 0, "{}", rows[1]);
    assert!(rows[1]["ended"]["closed"].as_u64().unwrap() > 0, "a flood of pings is ended: {}", rows[1]);
    let evidence = &found["evidence"];
    assert!(evidence["verifies"] == true && evidence["heard"].as_u64().unwrap() > 0, "{evidence}");
    assert!(bench.page().contains("bad-tokens") && shown(&output).contains("| pings"), "{}", shown(&output));
}

#[test]
fn a_soak_sees_what_was_promised_and_nothing_else() {
    let bench = Bench::new();
    let soak = ["soak", "--minutes", "0.08", "--rate", "4/s", "--connections", "6"];
    let output = bench.run(&[&soak[..], &["--faults", "upstream-down,certificate"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let found = bench.found();
    let phases = found["phases"].as_array().unwrap();
    let names: Vec<&str> = phases.iter().map(|phase| phase["what"].as_str().unwrap()).collect();
    assert_eq!(names, ["calm", "upstream-down", "after upstream-down", "certificate", "after certificate"]);
    let met = |phase: &Value, kind: &str| phase[kind].as_object().unwrap().len();
    assert!(met(&phases[1], "meant") > 0, "the fault was felt: {}", phases[1]);
    assert!(phases.iter().all(|phase| met(phase, "unmeant") == 0), "{}", shown(&output));
    assert!(found["audit"]["verifies"] == true && found["audit"]["missing"] == 0, "{}", found["audit"]);
    assert!(found["memory"]["looks"].as_array().unwrap().len() > 5, "{}", found["memory"]);
    assert_eq!(bench.page().matches("<svg").count(), 2);
}

#[test]
fn what_is_unknown_is_told() {
    let bench = Bench::new();
    for (arguments, hint) in
        [(["hostile", "ping"], "made-you-reset"), (["soak", "--faults=quake"], "upstream-hangs")]
    {
        let output = bench.run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
        assert!(shown(&output).contains(hint), "{}", shown(&output));
    }
}
