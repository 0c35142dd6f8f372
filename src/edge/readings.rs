//! Readings of the trail, on their way into it: who searched it, when, and for what.
//!
//! Owns: the slips that reading commands leave in the trail's directory, sealed, and taking them up again. Whoever reads has no
//! lock, and must neither wait for one nor repair anything; the gate, which alone writes the trail, takes the slips up.
//! Must never: hold what was asked for in clear; stand in the way of somebody who may only read.
//! Look next: `app::readings`, which records them; `docs/audit.md`, section "Who read the trail".

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::audit::{Control, Event, Record};
use crate::edge::journal::{Settings, lasting_seal};
use crate::edge::seal::Seal;
use crate::limits::{READING_SLIP_BYTES_MAX, READING_TEXT_BYTES_MAX, READINGS_IN_ROUND_MAX};

/// By their names no evidence (design: section 8): what was taken up stands in the trail.
const BEFORE: &str = "reading-";
const AFTER: &str = ".tmp";
/// Slips are sealed for this reader only.
const FOR: &[u8] = b"the gate";
const PURPOSE: &str = "readings of the trail";

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reading {
    /// When, by the reader's clock.
    pub time: Timestamp,
    /// `search`, `export`, `summary`, `emergency list`.
    pub command: String,
    /// The machine it was run on.
    pub host: String,
    /// Who the reader says they are, if they say.
    pub operator: Option<String>,
    /// What was asked for. May name patients: it is sealed here, and encrypted in the trail.
    pub filter: BTreeMap<String, String>,
}

impl Reading {
    /// A reading on this machine, now.
    #[must_use]
    pub fn new(
        command: &str,
        operator: Option<&str>,
        filter: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let bounded = |(name, value): (String, String)| (name, bound(&value));
        Self {
            time: now,
            command: command.to_owned(),
            host: bound(host.trim()),
            operator: operator.map(bound),
            filter: filter.into_iter().map(bounded).collect(),
        }
    }
}

fn bound(text: &str) -> String {
    text.char_indices().take_while(|(at, _)| *at < READING_TEXT_BYTES_MAX).map(|(_, c)| c).collect()
}

/// Leaves a slip for the gate. It lasts when this returns.
///
/// # Errors
/// A sentence that says why there is none.
pub fn leave(trail: &Settings, reading: &Reading) -> Result<(), String> {
    let seal = lasting_seal(trail, PURPOSE).map_err(|error| error.to_string())?;
    let text = serde_json::to_vec(reading).map_err(|error| error.to_string())?;
    let slip = seal.seal(&text, FOR, Timestamp::MAX).map_err(|_| "it could not be sealed".to_owned())?;
    let written = write_slip(&trail.directory, BEFORE, &slip);
    written.map(drop).map_err(|error| format!("`{}`: {error}", trail.directory.display()))
}

/// Leaves a slip whose name begins like this. It lasts when this returns.
pub(super) fn write_slip(directory: &Path, before: &str, slip: &str) -> io::Result<PathBuf> {
    let mut name = [0; 8];
    rand::fill(&mut name).map_err(io::Error::other)?;
    let path = directory.join(format!("{before}{:016x}{AFTER}", u64::from_be_bytes(name)));
    // Under another name until it is whole, so that the gate never takes up half of one.
    let staged = path.with_extension("part.tmp");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    file.write_all(slip.as_bytes())?;
    file.sync_all()?;
    fs::rename(&staged, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(path)
}

/// Slips that were taken up, as records; and their files, which may go once the records are durable.
#[derive(Debug, Default)]
pub struct Taken {
    /// Equal readings are one record, which says how many and when the first and the last were.
    pub records: Vec<Record>,
    files: Vec<PathBuf>,
}

/// Takes up what lies in the directory. What is no slip of ours is told as such: it is removed like the others.
///
/// # Errors
/// When the directory cannot be read.
pub fn take_up(trail: &Settings, now: Timestamp) -> io::Result<Taken> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&trail.directory)? {
        let path = entry?.path();
        if is_slip(&path, BEFORE) && files.len() < READINGS_IN_ROUND_MAX {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Ok(Taken::default());
    }
    let seal = lasting_seal(trail, PURPOSE).map_err(io::Error::other)?;
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for path in &files {
        let details = details(&seal, path, now)?;
        let key = format!("{:?}", details.names);
        let group = groups.entry(key).or_insert_with(|| Group {
            first: details.time,
            last: details.time,
            ..Group::default()
        });
        group.first = group.first.min(details.time);
        group.last = group.last.max(details.time);
        group.times += 1;
        group.names = details.names;
    }
    Ok(Taken { records: groups.into_values().map(|group| group.record(now)).collect(), files })
}

impl Taken {
    /// Removes the files. Only once the records are durable.
    pub fn forget(&self) {
        for file in &self.files {
            if let Err(error) = fs::remove_file(file) {
                tracing::warn!(error = %error.kind(), "a slip of a reading could not be removed; it will be recorded again");
            }
        }
    }
}

#[derive(Debug, Default)]
struct Group {
    first: Timestamp,
    last: Timestamp,
    times: u64,
    names: BTreeMap<String, String>,
}

impl Group {
    fn record(self, now: Timestamp) -> Record {
        let mut details = self.names;
        details.insert("times".to_owned(), self.times.to_string());
        details.insert("first".to_owned(), self.first.to_string());
        details.insert("last".to_owned(), self.last.to_string());
        Record::Control(Control { time: now, event: Event::TrailRead, details })
    }
}

/// What one slip says.
struct Slip {
    time: Timestamp,
    names: BTreeMap<String, String>,
}

fn details(seal: &Seal, path: &Path, now: Timestamp) -> io::Result<Slip> {
    // The owner of the file is who wrote it, by the operating system; the slip itself could say anything.
    let file = fs::symlink_metadata(path)?;
    let mut names = BTreeMap::from([("user".to_owned(), user(file.uid()))]);
    // A link, a pipe or something endless is told of, and not read.
    let readable = file.is_file() && file.len() <= READING_SLIP_BYTES_MAX;
    let text = if readable { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    let opened = seal.open(text.trim(), FOR, now).ok();
    let Some(reading) = opened.and_then(|text| serde_json::from_slice::<Reading>(&text).ok()) else {
        names.insert("command".to_owned(), "unknown: the slip could not be read".to_owned());
        return Ok(Slip { time: now, names });
    };
    names.insert("command".to_owned(), reading.command);
    names.insert("host".to_owned(), reading.host);
    names.extend(reading.operator.map(|operator| ("operator".to_owned(), operator)));
    names.extend(reading.filter.into_iter().map(|(name, value)| (format!("filter {name}"), value)));
    Ok(Slip { time: reading.time, names })
}

/// The account's name and number.
fn user(id: u32) -> String {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = id.to_string();
    let is_it = |line: &&str| line.split(':').nth(2) == Some(number.as_str());
    let name = accounts.lines().find(is_it).and_then(|line| line.split(':').next()).unwrap_or_default();
    if name.is_empty() { number } else { format!("{name} ({number})") }
}

/// Whether a file is a slip whose name begins like this.
pub(super) fn is_slip(path: &Path, before: &str) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let middle = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(AFTER));
    middle.is_some_and(|middle| middle.len() == 16 && middle.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::journal::generate_missing;

    fn trail() -> (tempfile::TempDir, Settings) {
        let place = tempfile::TempDir::new().unwrap();
        let settings = Settings {
            directory: place.path().to_owned(),
            signing_key: place.path().join("secrets/audit.key"),
            encryption_key: place.path().join("secrets/audit.aes"),
        };
        generate_missing(&settings).unwrap();
        (place, settings)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn reading(patient: &str, second: i64) -> Reading {
        let filter = BTreeMap::from([("patient".to_owned(), patient.to_owned())]);
        Reading::new("search", Some("privacy officer"), filter, at(second))
    }

    fn told(records: &[Record]) -> Vec<BTreeMap<String, String>> {
        let details = |record: &Record| match record {
            Record::Control(control) if control.event == Event::TrailRead => control.details.clone(),
            other => panic!("{other:?}"),
        };
        records.iter().map(details).collect()
    }

    #[test]
    fn readings_are_taken_up_once_and_equal_ones_together() {
        let (_place, trail) = trail();
        for (patient, second) in [("zaphod", 10), ("zaphod", 30), ("arthur", 20)] {
            leave(&trail, &reading(patient, second)).unwrap();
        }
        for entry in fs::read_dir(&trail.directory).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                assert_eq!(entry.metadata().unwrap().mode() & 0o077, 0);
                assert!(!fs::read_to_string(entry.path()).unwrap().contains("zaphod"), "in clear");
            }
        }
        let taken = take_up(&trail, at(99)).unwrap();
        let told = told(&taken.records);
        assert_eq!(told.len(), 2);
        let zaphod = told.iter().find(|details| details["filter patient"] == "zaphod").unwrap();
        assert_eq!((zaphod["times"].as_str(), zaphod["command"].as_str()), ("2", "search"));
        assert_eq!(
            (zaphod["first"].as_str(), zaphod["last"].as_str()),
            ("1970-01-01T00:00:10Z", "1970-01-01T00:00:30Z")
        );
        assert_eq!(zaphod["operator"], "privacy officer");
        assert!(!zaphod["user"].is_empty());
        // Not yet durable: they are still there. Then they are gone.
        assert_eq!(take_up(&trail, at(99)).unwrap().records.len(), 2);
        taken.forget();
        assert!(take_up(&trail, at(99)).unwrap().records.is_empty());
    }

    #[test]
    fn a_forged_slip_is_told_and_other_files_are_left_alone() {
        let (_place, trail) = trail();
        for name in [
            "reading-0123456789abcdef.tmp",
            "checkpoint.tmp",
            "reading-1.tmp",
            "reading-0123456789abcdef.part.tmp",
        ] {
            fs::write(trail.directory.join(name), "anything").unwrap();
        }
        let taken = take_up(&trail, at(5)).unwrap();
        assert!(told(&taken.records)[0]["command"].contains("could not be read"));
        taken.forget();
        assert!(
            trail.directory.join("checkpoint.tmp").exists() && trail.directory.join("reading-1.tmp").exists()
        );
        assert!(!trail.directory.join("reading-0123456789abcdef.tmp").exists());
    }

    #[test]
    fn what_has_no_end_is_told_and_not_read() {
        let (_place, trail) = trail();
        let link = trail.directory.join("reading-0123456789abcdef.tmp");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let taken = take_up(&trail, at(5)).unwrap();
        assert!(told(&taken.records)[0]["command"].contains("could not be read"));
        taken.forget();
        assert!(!link.is_symlink());
    }

    #[test]
    fn who_may_only_read_is_told_why() {
        let (_place, mut trail) = trail();
        trail.directory = trail.directory.join("not-there");
        assert!(leave(&trail, &reading("p", 1)).unwrap_err().contains("not-there"));
    }
}
