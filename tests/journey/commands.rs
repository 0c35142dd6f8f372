//! The command line, as processes: exit codes, what is printed, and what is not done.
//!
//! Owns: what people type, and what programs read of it.
//! Must never: look at colours or widths.
//! Look next: `src/cli`.

use std::fs;
use std::path::PathBuf;

use chartgate::cli::demo::stage::Script;
use serde_json::Value;

use crate::child::{chartgate, verify};
use crate::harness::{Hospital, run};

/// What every record of a request has (design: section 8).
const MEMBERS: &[&str] = &[
    "sequence",
    "time",
    "requestId",
    "issuer",
    "subject",
    "interaction",
    "decision",
    "reason",
    "policies",
    "released",
    "outcome",
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn wrong_use_is_told_apart_from_problems() {
    for arguments in
        [&[][..], &["nonsense"], &["check"], &["serve", "--nonsense"], &["audit"], &["audit", "verify"]]
    {
        let output = chartgate(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [["check", "--config", "/nonexistent.toml"], ["serve", "--config", "/nonexistent.toml"]]
    {
        let output = chartgate(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains("/nonexistent.toml"), "{}", text(&output.stderr));
    }
    assert_eq!(chartgate(&["--version"]).status.code(), Some(0));
}

#[test]
fn check_finds_every_problem_and_serve_starts_with_none() {
    run(async {
        let mut hospital = Hospital::open(Script::default()).await;
        hospital.stage.stop().await.unwrap();
        let config = hospital.stage.config_file();
        let file = config.to_str().unwrap();
        let good = chartgate(&["check", "--config", file]);
        assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
        let original = fs::read_to_string(&config).unwrap();
        let broken = original.replace("idle_timeout = \"15m\"", "idle_timeout = \"soon\"\nnonsense = 1");
        fs::write(&config, broken).unwrap();
        for command in ["check", "serve"] {
            let output = chartgate(&[command, "--config", file]);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(
                said.contains("idle_timeout")
                    && said.contains("nonsense")
                    && said.contains("chartgate.toml:"),
                "{said}"
            );
        }
        let json = text(&chartgate(&["check", "--json", "--config", file]).stdout);
        assert!(json.lines().count() >= 2, "{json}");
        for line in json.lines() {
            assert!(serde_json::from_str::<Value>(line).unwrap()["line"].is_u64(), "{line}");
        }
        fs::write(&config, &original).unwrap();
        let policy = hospital.stage.folder().join("policies/nurse.cedar");
        let shipped = fs::read_to_string(&policy).unwrap();
        fs::write(&policy, shipped.replace("FHIR::Element::\"Goal\"", "FHIR::Element::\"Gaol\"")).unwrap();
        for command in ["check", "serve"] {
            let output = chartgate(&[command, "--config", file]);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("nurse.cedar:") && said.contains("Gaol"), "{said}");
        }
        fs::write(&policy, shipped).unwrap();
        serve_makes_no_trail(&original, &config);
    });
}

/// A trail is made by `audit init` and by nothing else.
fn serve_makes_no_trail(original: &str, config: &PathBuf) {
    let file = config.to_str().unwrap();
    fs::write(config, original.replace("directory = \"audit\"", "directory = \"other\"")).unwrap();
    let other = config.with_file_name("other");
    for arguments in [
        &["serve", "--config", file][..],
        &["audit", "verify", "--config", file],
        &["audit", "search", "--config", file],
    ] {
        let output = chartgate(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("other"), "{}", text(&output.stderr));
        assert!(!other.exists(), "{arguments:?} made a trail");
    }
    assert_eq!(chartgate(&["audit", "init", "--config", file]).status.code(), Some(0));
    assert!(other.is_dir());
    let again = chartgate(&["audit", "init", "--config", file]);
    assert_eq!(again.status.code(), Some(1), "a trail was made over another");
    assert_eq!(verify(config).status.code(), Some(0));
    fs::write(config, original).unwrap();
}

#[test]
fn the_trail_is_searched_while_the_gate_serves() {
    run(async {
        let mut hospital = Hospital::open(Script::default()).await;
        hospital.get("nurse", "Patient/p1").await.check_ok();
        hospital.get("physician", "Observation?patient=p2").await.check_ok();
        hospital.get("front-desk", "Condition?patient=p1").await.check_refusal(403, "type-not-permitted");
        hospital.ask("GET", "Patient/p1", &[], "").await.check_refusal(401, "token-missing");
        let config = hospital.stage.config_file();
        let search = |filter: &[&str]| -> Vec<Value> {
            let fixed = ["audit", "search", "--json", "--config", config.to_str().unwrap()];
            let output = chartgate(&[&fixed[..], filter].concat());
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let all = search(&[]);
        let requests: Vec<&Value> = all.iter().filter(|record| record["decision"].is_string()).collect();
        assert_eq!(requests.len(), 4, "{all:#?}");
        for record in &requests {
            for member in MEMBERS {
                assert!(record.get(*member).is_some(), "no `{member}` in {record}");
            }
        }
        assert!(all.iter().any(|record| record["event"] == "started"));
        let sequences: Vec<u64> = all.iter().map(|record| record["sequence"].as_u64().unwrap()).collect();
        assert!(sequences.is_sorted(), "{sequences:?}");
        let cases: &[(&[&str], usize)] = &[
            (&["--person", "nurse"], 1),
            (&["--subject", "physician"], 1),
            (&["--patient", "p2"], 1),
            (&["--patient", "p1"], 3),
            (&["--decision", "refuse"], 2),
            (&["--reason", "token-missing"], 1),
            (&["--interaction", "search-type"], 2),
            (&["--resource", "Patient/p1", "--decision", "permit"], 1),
            (&["--since", "2999-01-01"], 0),
            (&["--until", "2000-01-01"], 0),
            (&["--request-id", requests[0]["requestId"].as_str().unwrap()], 1),
        ];
        for (filter, count) in cases {
            let found = search(filter);
            let found = found.iter().filter(|record| record["decision"].is_string()).count();
            assert_eq!(found, *count, "{filter:?}");
        }
        assert_eq!(verify(&config).status.code(), Some(0), "verify while serving");
        let folder = hospital.stage.folder().join("audit");
        leaks_nothing(&folder, &["Patient/p1", "nurse", "front-desk", "token-missing"]);
        hospital.stage.stop().await.unwrap();
        readings_are_in_the_trail(&search(&[]));
    });
}

/// Who looks is looked at (KF-62): the gate took up, at its end at the latest, what the searches left behind.
fn readings_are_in_the_trail(records: &[Value]) {
    let readings: Vec<&Value> = records.iter().filter(|record| record["event"] == "trail-read").collect();
    let told = |name: &str, value: &str| readings.iter().any(|one| one["details"][name] == value);
    assert!(told("command", "search") && told("filter patient", "p2"), "{readings:#?}");
}

/// Records hold patient data and are encrypted at rest, and so are the names in the session store.
fn leaks_nothing(folder: &std::path::Path, words: &[&str]) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            leaks_nothing(&path, words);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for word in words {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{} says {word}", path.display());
        }
    }
}
