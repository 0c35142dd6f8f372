//! DuckDB reads what the command writes: the second opinion on the Parquet files, by the program people will use.
//!
//! DuckDB comes from PyPI. Where it cannot be had the test is skipped with a line; with CHARTGATE_REQUIRE_NEIGHBOURS=1 it fails.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail where it stands")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use chartgate::domain::audit::{Caller, Decision, Record, Released, Verdict};
use chartgate::edge::journal::{self, Journal, create, generate_missing};
use jiff::{SignedDuration, Timestamp};

const GATE: &str = include_str!("../../tests/data/config/least.toml");

/// Counts by day, the time of one row, and a value with everything that could be spelled wrong.
const QUESTION: &str = r#"
import duckdb, sys
rows = f"read_parquet('{sys.argv[1]}/*/*.parquet', hive_partitioning = true)"
print(duckdb.sql(f"SELECT CAST(day AS VARCHAR), count(*) FROM {rows} WHERE kind = 'release' GROUP BY day ORDER BY day").fetchall())
print(duckdb.sql(f"SELECT subject, CAST(epoch_us(time) AS VARCHAR), patients FROM {rows} WHERE reference = 'Observation/o-1-0'").fetchall())
print(duckdb.sql(f"SELECT count(*), count(DISTINCT sequence) FROM {rows} WHERE subject IS NOT NULL").fetchall())
"#;

const SUBJECT: &str = "dr=\"x\"/\u{1F600}";

/// The place for PYTHONPATH.
fn duckdb() -> Option<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut install = Command::new("bash");
    install.arg(here.join("../tests/python/install.sh")).arg(here.join("tests/duckdb/requirements.txt"));
    let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("duckdb");
    let output = install.arg("import duckdb").arg(into).output().unwrap();
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let required = std::env::var_os("CHARTGATE_REQUIRE_NEIGHBOURS").is_some_and(|value| value == "1");
    assert!(!required, "DuckDB cannot be had: {why}");
    eprintln!("SKIPPED DuckDB: {why}");
    None
}

/// Answer `number`, which released two records of one patient.
fn answer(number: i64) -> Record {
    let time = Timestamp::from_second(1_772_323_200).unwrap() + SignedDuration::from_hours(number * 7);
    let time = time + SignedDuration::from_micros(123_456);
    let mut decision = Decision::new(time, format!("r{number}"), Verdict::Permit);
    decision.caller = Some(Caller {
        issuer: "https://idp.hospital.example".to_owned(),
        subject: SUBJECT.to_owned(),
        ..Caller::default()
    });
    decision.interaction = "search-type".to_owned();
    decision.request = "GET Observation".to_owned();
    let mask = Arc::new(vec!["Observation.code".to_owned()]);
    let released = (0..2).map(|place| Released {
        reference: format!("Observation/o-{number}-{place}"),
        version: None,
        patients: BTreeSet::from([format!("p{number}")]),
        mask: Arc::clone(&mask),
    });
    decision.released = released.collect();
    Record::Decision(Box::new(decision))
}

#[test]
fn duckdb_reads_the_files() {
    let Some(packages) = duckdb() else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("chartgate.toml"), GATE).unwrap();
    let trail = journal::Settings {
        directory: at("audit"),
        signing_key: at("audit.key"),
        encryption_key: at("audit.aes"),
    };
    generate_missing(&trail).unwrap();
    create(&trail, Timestamp::from_second(1_772_323_200).unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let journal = Journal::open(&trail).unwrap();
    let answers: Vec<Record> = (0..10).map(answer).collect();
    let _receipt = runtime.block_on(journal.append(&answers)).unwrap();
    runtime.block_on(journal.close()).unwrap();
    let mut export = Command::new(env!("CARGO_BIN_EXE_chartgate-auditparquet"));
    export.arg("--config").arg(at("chartgate.toml")).arg("--out").arg(at("out"));
    assert!(export.status().unwrap().success());
    let mut python = Command::new("python3");
    if !packages.is_empty() {
        python.env("PYTHONPATH", packages);
    }
    let told = python.args(["-c", QUESTION]).arg(at("out")).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    // Ten answers, seven hours apart, two rows each; 2026-03-01T07:00:00.123456Z is the second one's time.
    assert_eq!(
        String::from_utf8(told.stdout).unwrap().lines().collect::<Vec<_>>(),
        [
            "[('2026-03-01', 8), ('2026-03-02', 6), ('2026-03-03', 6)]",
            &format!("[('{SUBJECT}', '1772348400123456', 'p1')]"),
            "[(20, 10)]",
        ]
    );
}
