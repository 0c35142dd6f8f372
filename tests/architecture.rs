//! The house's rules that a compiler does not check: who may import whom, what the pure rooms may not
//! mention, that every file says what it is, and that nothing grows without a reason.
//!
//! A room that is not in the table fails the test. Sizes are a ratchet: a file over the bound is listed
//! with its size, and may only shrink.
#![expect(clippy::unwrap_used, clippy::string_slice, reason = "a test may fail where it stands")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Room -> the rooms it may import from. A room may always import from itself.
const IMPORTS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    ("cli", &["app", "config", "gateway", "edge", "domain", "limits", "clock"]),
    ("app", &["config", "gateway", "edge", "domain", "limits", "clock"]),
    ("config", &["gateway", "edge", "domain", "limits", "clock"]),
    ("gateway", &["edge", "domain", "limits", "clock"]),
    ("edge", &["domain", "limits", "clock"]),
    ("domain", &[]),
    ("domain::narrow", &["domain::access", "domain::fhir", "limits"]),
    ("domain::workbench", &["domain::access", "domain::filter", "domain::fhir", "limits"]),
    ("domain::audit", &["domain::access", "domain::identity", "domain::fhir", "limits"]),
    ("domain::access", &["domain::identity", "domain::fhir", "limits"]),
    ("domain::change", &["domain::filter", "domain::fhir", "limits"]),
    ("domain::filter", &["domain::fhir", "limits"]),
    ("domain::identity", &["limits"]),
    ("domain::fhir", &["limits"]),
    ("domain::ledger", &["limits"]),
    ("limits", &[]),
    ("clock", &[]),
];

/// What a pure room may not mention (design: `domain` decides and is pure).
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "async fn",
    "async move",
    ".await",
    "std::fs",
    "std::net::Tcp",
    "std::env",
    "std::thread",
    "std::process",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "clock::",
    "rand::",
    "SystemRandom",
    "tracing",
    "println!",
    "eprintln!",
    "print!",
];

/// Words that say nothing about what a thing is.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "misc", "stuff"];

const FILE_LINES_MAX: usize = 600;

/// Files over the bound, with the size they may not exceed. Shrink them; never add to this list lightly.
const RATCHET: &[(&str, usize)] = &[];

struct Source {
    path: PathBuf,
    room: String,
    text: String,
}

impl Source {
    /// The part before the file's tests, with comments and string contents kept out of import checks.
    fn production(&self) -> String {
        let code = self.text.split("\n#[cfg(test)]").next().unwrap_or_default();
        code.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| line.split(" // ").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn is_test_file(&self) -> bool {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        name == "tests" || name.ends_with("_tests") || self.path.iter().any(|part| part == "tests")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    found
        .into_iter()
        .map(|path| Source {
            room: room_of(path.strip_prefix(&root).unwrap()),
            text: fs::read_to_string(&path).unwrap(),
            path,
        })
        .collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn room_of(path: &Path) -> String {
    let parts: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["domain", "mod"] => "domain".to_owned(),
        ["domain", room, ..] => format!("domain::{room}"),
        [room, ..] => (*room).to_owned(),
        [] => String::new(),
    }
}

/// Every `crate::a::b` (or `chartgate::a`) a file mentions, as room names.
fn imported_rooms(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for marker in ["crate::", "chartgate::"] {
        for (at, _) in code.match_indices(marker) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            rooms.extend(rooms_named(&code[at + marker.len()..]));
        }
    }
    rooms
}

fn rooms_named(rest: &str) -> Vec<String> {
    let first: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if first != "domain" {
        return vec![first];
    }
    let after = rest["domain".len()..].trim_start_matches("::");
    if let Some(list) = after.strip_prefix('{') {
        let inner = list.split('}').next().unwrap_or_default();
        return inner.split(',').filter_map(|item| room_word(item.trim())).collect();
    }
    room_word(after).into_iter().collect()
}

fn room_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then(|| format!("domain::{word}"))
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn imports_point_down() {
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test_file()) {
        let Some(allowed) = table.get(source.room.as_str()) else {
            problems.push(format!("{}: room `{}` is not in the table", source.path.display(), source.room));
            continue;
        };
        for room in imported_rooms(&source.production()) {
            let parent = room.split("::").next().unwrap_or_default();
            let known = allowed.contains(&room.as_str()) || allowed.contains(&parent);
            if room != source.room && !known && !room.is_empty() {
                problems.push(format!(
                    "{}: `{}` may not import `{room}`",
                    source.path.display(),
                    source.room
                ));
            }
        }
    }
    report(&problems);
}

#[test]
fn domain_is_pure() {
    let mut problems = Vec::new();
    for source in
        sources().iter().filter(|source| source.room.starts_with("domain") && !source.is_test_file())
    {
        let code = source.production();
        for word in IMPURE.iter().filter(|word| code.contains(**word)) {
            problems.push(format!("{}: a pure room mentions `{word}`", source.path.display()));
        }
    }
    report(&problems);
}

#[test]
fn every_file_says_what_it_is() {
    let mut problems = Vec::new();
    for source in sources() {
        let header: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
        let is_short = source.is_test_file() || source.room == "main" || source.room == "lib";
        if header.is_empty() {
            problems.push(format!("{}: no header", source.path.display()));
        } else if !is_short && !["Owns", "ust never", "ook next"].iter().all(|word| header.contains(word)) {
            problems.push(format!(
                "{}: the header must say what it owns, must never do, and where to look next",
                source.path.display()
            ));
        }
    }
    report(&problems);
}

#[test]
fn files_stay_small() {
    let ratchet: BTreeMap<&str, usize> = RATCHET.iter().copied().collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut problems = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let name = source.path.strip_prefix(root).unwrap().display().to_string();
        let bound = ratchet.get(name.as_str()).copied().unwrap_or(FILE_LINES_MAX);
        if lines > bound {
            problems.push(format!("{name}: {lines} lines, at most {bound}"));
        }
    }
    report(&problems);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut problems = Vec::new();
    for source in sources() {
        let stem = source.path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        if EMPTY_NAMES.contains(&stem.as_str()) {
            problems.push(format!("{}: a name that says nothing", source.path.display()));
        }
    }
    report(&problems);
}

#[test]
fn nothing_is_left_to_finish_silently() {
    let marks = [concat!("FIX", "ME"), concat!("TO", "DO")];
    let mut problems = Vec::new();
    for source in sources() {
        for mark in marks.iter().filter(|mark| source.text.contains(**mark)) {
            problems.push(format!("{}: `{mark}`", source.path.display()));
        }
    }
    report(&problems);
}

#[test]
fn the_checks_themselves_can_fail() {
    assert_eq!(
        imported_rooms("use crate::domain::{access, filter::Mask};"),
        ["domain::access", "domain::filter"]
    );
    assert_eq!(imported_rooms("crate::edge::tls::x(); mycrate::gateway"), ["edge"]);
    assert_eq!(room_of(Path::new("domain/fhir/r4/mod.rs")), "domain::fhir");
    assert_eq!(room_of(Path::new("gateway/mod.rs")), "gateway");
}
