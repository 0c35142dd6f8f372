//! Short curves of the whole thing, a small point each: what is asserted is that they are checked and told, never how fast
//! they are.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

mod program;

use program::{loadtest, shown};
use serde_json::Value;
use std::fs;
use std::process::Output;

fn growth(arguments: &[&str]) -> Output {
    loadtest().arg("growth").args(arguments).output().unwrap()
}

/// A curve must pass, and its file and page hold all of it.
fn curve(what: &str, points: &str, more: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let (json, page) = (folder.path().join("found.json"), folder.path().join("page.html"));
    let mut arguments = vec![what, "--points", points, "--seconds", "1"];
    arguments.extend(["--json", json.to_str().unwrap(), "--html", page.to_str().unwrap()]);
    arguments.extend(more);
    let output = growth(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let found: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(found["points"].as_array().unwrap().len(), points.split(',').count(), "{found}");
    for point in found["points"].as_array().unwrap() {
        let audit = &point["audit"];
        let requests =
            point["open"]["requests"].as_u64().unwrap() + point["closed"]["requests"].as_u64().unwrap();
        assert!(audit["verifies"] == true && audit["missing"] == 0 && audit["surplus"] == 0, "{audit}");
        assert!(requests > 0 && audit["answered"].as_u64().unwrap() > requests, "{point}");
        assert!(point["open"]["peakKib"].as_u64().unwrap() > 1_000, "{point}");
    }
    let told = shown(&output);
    let verdicts = found["verdicts"].as_array().unwrap();
    assert!(verdicts.len() >= 3, "{told}");
    assert!(verdicts.iter().all(|verdict| told.contains(verdict["said"].as_str().unwrap())), "{told}");
    let page = fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 4);
    found
}

#[test]
fn connections_are_held_and_used_in_turn() {
    let found = curve("connections", "12", &["--rate", "24/s", "--http", "2"]);
    // The gate counts them, and for a moment what was closed just before.
    let held = found["points"][0]["open"]["connections"].as_u64().unwrap();
    assert!((12..=14).contains(&held), "{found}");
    assert_eq!(found["points"][0]["closed"]["clients"], 12, "{found}");
}

#[test]
fn an_answer_larger_than_a_batch_is_passed_on() {
    let found = curve("size", "3mb", &["--rate", "2/s", "--clients", "1"]);
    let bytes = found["points"][0]["open"]["answerBytes"].as_u64().unwrap();
    // What is withheld is not in them.
    assert!((2_000_000..3_000_000).contains(&bytes), "{found}");
}

#[test]
fn generated_policies_are_taken() {
    // Fewer people than come in turn: they come again.
    curve("policies", "60", &["--rate", "20/s", "--clients", "2"]);
}

#[test]
fn a_trail_that_is_long_already_is_verified_whole() {
    curve("trail", "6000", &["--rate", "20/s", "--clients", "2"]);
}

#[test]
fn wrong_use_is_told_with_a_hint() {
    let cases: [(&[&str], &str); 9] = [
        (&["nothing"], "possible values: connections, size, policies, people, trail"),
        (&["size", "--points", "1.5kb"], "write `250`, `10k` or `80mb`"),
        (&["size", "--points", "999"], "hint: between 1000 and 100000000: a page has 1,000 records"),
        (&["people", "--points", "10,100001"], "hint: between 1 and 100000"),
        (&["policies", "--points", "100,10"], "each larger than the one before (hint: `10,100,1k`)"),
        (&["connections", "--points", "0"], "hint: between 1 and"),
        (
            &["connections", "--points", "4000", "--rate", "5/s"],
            "hint: --rate 160/s or more, or fewer connections",
        ),
        (&["trail", "--points", "11M"], "ten million entries"),
        (&["trail", "--seconds", "0"], "0 is not in 1..=600"),
    ];
    for (arguments, told) in cases {
        let output = growth(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", shown(&output));
        assert!(shown(&output).contains(told), "{arguments:?}: {}", shown(&output));
    }
}
