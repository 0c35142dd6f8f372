//! Short runs of the whole thing: the generator, the sandbox, the gate as a process of its own, and the trail read
//! afterwards. Each is a run that must pass, or one with a fault planted that must fail.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

mod program;

use program::{loadtest, shown};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

/// A chart opened twice a second, a search that is refused, and pages that are followed.
const SCENARIO: &str = r#"title = "Short"
about = "All kinds of visits, for two seconds."

[load]
pace = "poisson"
rate = "6/s"
seconds = 2
warm_up_seconds = 1
connections = 12

[[visit]]
name = "chart"
role = "nurse"
weight = 3
think_seconds = 5

[[visit.step]]
name = "patient"
get = "/Patient/{patient}"

[[visit.step]]
name = "vital signs"
get = "/Observation?patient=Patient/{patient}&category=vital-signs&_sort=-date&_count=10"
after_ms = 10

[[visit]]
name = "portal"
role = "patient"
weight = 2
new_connection = true

[[visit.step]]
name = "own chart"
get = "/Patient/{patient}"

[[visit.step]]
name = "another patient"
get = "/Patient/{other}"
status = 404

[[visit]]
name = "sign in"
role = "front-desk"
weight = 2
new_session = true
new_connection = true

[[visit.step]]
name = "not theirs"
get = "/Condition?patient=Patient/{patient}"
status = 403

[[visit]]
name = "claims"
role = "billing-clerk"
weight = 3

[[visit.step]]
name = "pages"
get = "/Claim?created=ge2026-01-01&_count=10"
follow = "pages"
"#;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn scenario(&self, text: &str) -> PathBuf {
        let path = self.file("short.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, scenario: &Path, more: &[&str]) -> Output {
        let mut command = loadtest();
        command.arg("run").arg(scenario).args(["--patients", "8"]);
        command.arg("--json").arg(self.file("found.json")).args(more);
        command.output().unwrap()
    }

    fn found(&self) -> Value {
        serde_json::from_slice(&fs::read(self.file("found.json")).unwrap()).unwrap()
    }
}

#[test]
fn a_sound_run_passes_every_check_and_tells_everything() {
    let bench = Bench::new();
    let page = bench.file("page.html");
    let output =
        bench.run(&bench.scenario(SCENARIO), &["--beside", "stages", "--html", page.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let found = bench.found();
    assert_eq!(found["misses"], Value::Array(Vec::new()), "{}", shown(&output));
    let audit = &found["audit"];
    assert!(audit["verifies"] == true && audit["missing"] == 0 && audit["surplus"] == 0, "{audit}");
    assert!(audit["refusals"].as_u64().unwrap() > 2, "{audit}");
    let gate = &found["sides"][0];
    steps_do_their_part(&found);
    for row in gate["rows"].as_array().unwrap() {
        let statuses = row["statuses"].as_object().unwrap();
        let expected = match row["step"].as_str().unwrap() {
            "another patient" => "404",
            "not theirs" => "403",
            _ => "200",
        };
        assert!(statuses.keys().all(|status| status == expected), "{row}");
    }
    let pages =
        gate["rows"].as_array().unwrap().iter().find(|row| row["step"] == "pages: next page").unwrap();
    assert!(pages["response"]["count"].as_u64().unwrap() >= 2, "{pages}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("<svg") && page.contains("the trail verifies"), "{page}");
    compares(&bench);
}

/// Each step that is switched on does what it is for: policy refuses, the filter takes out.
fn steps_do_their_part(found: &Value) {
    let sides = found["sides"].as_array().unwrap();
    let names: Vec<&str> = sides.iter().map(|side| side["who"].as_str().unwrap()).collect();
    assert_eq!(names, ["chartgate", "+ identity", "+ policy", "+ filter"]);
    let row = |side: usize, step: &str| {
        sides[side]["rows"].as_array().unwrap().iter().find(|row| row["step"] == step).unwrap()
    };
    let status =
        |side| row(side, "not theirs")["statuses"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((status(1), status(2)), (vec!["200".to_owned()], vec!["403".to_owned()]));
    let bytes = |side| row(side, "patient")["bytes"].as_u64().unwrap();
    assert!(bytes(1) == bytes(2) && bytes(3) < bytes(2) && bytes(3) > 0, "{} {}", bytes(2), bytes(3));
    assert!(sides.iter().all(|side| side["bad"] == 0), "{names:?}");
}

/// A run is comparable with itself unless its numbers are in doubt, which an unoptimised build's always are.
fn compares(bench: &Bench) {
    let file = bench.file("found.json");
    let output = loadtest().arg("compare").args([&file, &file]).output().unwrap();
    let optimised = bench.found()["machine"]["optimised"] == true;
    assert!(optimised || output.status.code() == Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("p99 ms"), "{}", shown(&output));
}

#[test]
fn a_value_that_crosses_fails_the_run() {
    let bench = Bench::new();
    let policies = bench.file("policies");
    fs::create_dir(&policies).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    for name in ["nurse", "everyone", "front-desk", "billing-clerk", "patient"] {
        fs::copy(shipped.join(format!("{name}.cedar")), policies.join(format!("{name}.cedar"))).unwrap();
    }
    fs::copy(shipped.join("groups.toml"), policies.join("groups.toml")).unwrap();
    let leak = "@id(\"leak\")\npermit (principal in Role::\"nurse\", action == Action::\"disclose\", \
                resource in FHIR::Element::\"Patient.telecom\");\n";
    fs::write(policies.join("leak.cedar"), leak).unwrap();
    let output = bench.run(&bench.scenario(SCENARIO), &["--policies", policies.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        shown(&output).contains("chart, patient: the withheld value `zkmail` crossed"),
        "{}",
        shown(&output)
    );
    let audit = &bench.found()["audit"];
    assert!(
        audit["verifies"] == true && audit["missing"] == 0,
        "what leaked has its record all the same: {audit}"
    );
}

#[test]
fn a_refusal_that_was_not_meant_fails_the_run() {
    let bench = Bench::new();
    let output = bench.run(&bench.scenario(&SCENARIO.replace("status = 403\n", "")), &["--seconds", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("not theirs: answered with 403 instead of 200"), "{}", shown(&output));
}

#[test]
fn wrong_use_is_told_with_its_line() {
    let bench = Bench::new();
    let scenario = bench.scenario(&SCENARIO.replace("pace = ", "pase = "));
    let output = bench.run(&scenario, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert!(shown(&output).contains("short.toml:5:1: unknown key `load.pase` (hint: did you mean `pace`?)"));
    let output = loadtest().args(["run", "no-such-thing"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let output = loadtest().args(["compare", "/nonexistent.json", "/nonexistent.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let output = loadtest().args(["list", "--json"]).output().unwrap();
    assert!(
        output.status.success() && shown(&output).contains("\"name\":\"ward-round\""),
        "{}",
        shown(&output)
    );
}
