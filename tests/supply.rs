//! The floor of dependency versions: below these, a published advisory applies (or, for jsonwebtoken, one
//! that the advisory database does not list). Read from Cargo.lock, so that it holds for what is built.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail where it stands")]

use std::fs;
use std::path::Path;

/// Crate, lowest good version, why.
const FLOOR: &[(&str, [u64; 3], &str)] = &[
    ("jsonwebtoken", [10, 3, 0], "CVE-2026-25537: malformed exp and nbf were treated as absent"),
    ("h2", [0, 4, 16], "RUSTSEC-2026-0258, RUSTSEC-2024-0332, RUSTSEC-2024-0003: floods"),
    ("rustls", [0, 23, 18], "RUSTSEC-2024-0399, RUSTSEC-2024-0336"),
    ("rustls-webpki", [0, 103, 13], "RUSTSEC-2026-0104, -0098, -0099, -0049, RUSTSEC-2023-0053"),
    ("aws-lc-sys", [0, 39, 0], "RUSTSEC-2026-0044, RUSTSEC-2026-0048"),
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007"),
    ("time", [0, 3, 47], "RUSTSEC-2026-0009"),
    ("tracing-subscriber", [0, 3, 20], "RUSTSEC-2025-0055: terminal escapes"),
    ("crossbeam-epoch", [0, 9, 20], "RUSTSEC-2026-0204"),
    ("idna", [1, 0, 0], "RUSTSEC-2024-0421"),
];

/// Stacks that must not enter (deny.toml says the same of what is built; the lock file also lists `ring`,
/// which an optional feature nobody turns on would bring).
const BANNED: &[&str] = &["openssl", "openssl-sys", "native-tls", "boring", "boring-sys"];

fn locked() -> Vec<(String, [u64; 3])> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let lock: toml::Table = toml::from_str(&text).unwrap();
    lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            (package["name"].as_str().unwrap().to_owned(), numbers(package["version"].as_str().unwrap()))
        })
        .collect()
}

/// `1.2.3-rc+meta` as its three numbers.
fn numbers(version: &str) -> [u64; 3] {
    let core = version.split(['-', '+']).next().unwrap();
    let mut parts = core.split('.').map(|part| part.parse().unwrap());
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[test]
fn no_dependency_is_below_its_floor() {
    let locked = locked();
    for (name, floor, why) in FLOOR {
        for (_, version) in locked.iter().filter(|(locked, _)| locked == name) {
            assert!(version >= floor, "{name} {version:?} is below {floor:?}: {why}");
        }
    }
}

#[test]
fn one_tls_stack_and_one_crypto_provider() {
    for (name, _) in locked() {
        assert!(!BANNED.contains(&name.as_str()), "{name} is a second TLS or crypto stack");
    }
}

/// What a hospital serves with carries no solver's crate, no test EMR and no test issuer.
#[test]
fn the_serving_binary_carries_no_workbench_of_others() {
    let tree = |arguments: &[&str]| {
        let common = [
            "tree",
            "--offline",
            "--locked",
            "--package",
            "chartgate",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ];
        let output = std::process::Command::new(env!("CARGO"))
            .args(common)
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (serving, whole) = (tree(&["--no-default-features"]), tree(&[]));
    for name in ["cedar-policy-symcc ", "chartgate-sandbox ", "rcgen "] {
        assert!(whole.lines().any(|line| line.starts_with(name)), "{name}is in the default build");
        assert!(!serving.lines().any(|line| line.starts_with(name)), "{name}is in the serving binary");
    }
}
