//! `chartgate audit init`, `verify`, `index`, `search`, `summary`, `export`, `backup`, `restore`, `prove`, `check-proof` and `key`.
//!
//! Owns: what these commands print, and their exit codes: 0 good, 1 no or problems found.
//! Must never: take the journal's lock (so that they work while the gateway serves); print text of an audit
//! record to a terminal unescaped.
//! Look next: `search` for the one that prints records, `prove` for proofs, `edge::journal`, which does the work.

mod backup;
#[cfg(test)]
mod backup_tests;
pub mod export;
mod index;
#[cfg(test)]
mod index_tests;
pub mod item;
mod keep;
#[cfg(test)]
mod keep_tests;
mod page;
mod prove;
mod reading;
mod rotate;
mod search;
mod summary;
#[cfg(test)]
mod tests;
mod told;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::clock;
use crate::domain::audit::{self, escape};
use crate::edge::journal::{self, Inspection, Keys, Request, Settings, generate_missing, inspect};

pub use crate::domain::audit::Filter;
pub use backup::{backup, restore};
pub use export::{Export, Format, export};
pub use index::index;
pub use keep::{Retention, hold_add, hold_lift, hold_list, ordered, retain};
pub use prove::{Wish, check_proof, key, prove};
pub use rotate::rotate_key;
pub use search::{search, search_with};
pub use summary::summary;

/// The command did what was asked.
pub const GOOD: u8 = 0;
/// The answer is no, or problems were found.
pub const PROBLEM: u8 = 1;

/// A time as people write it: RFC 3339, or a date, which means its first moment in UTC.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let date = |date: Date| date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    text.parse::<Timestamp>()
        .or_else(|_| text.parse::<Date>().and_then(date))
        .map_err(|_| "expected a time such as 2026-03-01T08:00:00Z or a date such as 2026-03-01".to_owned())
}

/// Makes the keys that are missing, and the audit directory. Prints what it made.
pub fn init(settings: &Settings, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let keys = match generate_missing(settings) {
        Ok(keys) => keys,
        Err(error) => return complain(err, &error),
    };
    let mut lines = Vec::new();
    if keys.signing {
        lines.push(format!("made the signing key `{}`", settings.signing_key.display()));
    }
    if keys.encryption {
        lines.push(format!("made the encryption key `{}`", settings.encryption_key.display()));
        lines.push("keep a copy of the encryption key: without it the trail cannot be read".to_owned());
    }
    if let Err(error) = journal::create(settings, clock::now()) {
        print_lines(out, &lines);
        return complain(err, &error);
    }
    lines.push(format!("made the audit trail `{}`", settings.directory.display()));
    print_lines(out, &lines)
}

/// The keys of a trail that is there, or what is missing.
fn keys_of_trail(settings: &Settings) -> Result<Keys, String> {
    let keys = Keys::load(settings).map_err(|error| error.to_string())?;
    if settings.directory.is_dir() {
        Ok(keys)
    } else {
        Err(format!("there is no audit trail in `{}`", settings.directory.display()))
    }
}

/// Verifies the trail as `request` asks: every byte of every file of evidence.
pub fn verify(
    settings: &Settings,
    request: Request<'_>,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    let found = match inspect(&settings.directory, &keys, request) {
        Ok(found) => found,
        Err(error) => {
            return complain(err, &format!("audit directory `{}`: {error}", settings.directory.display()));
        }
    };
    let lines = if as_json { vec![verdict_json(&found)] } else { verdict_lines(&found) };
    let printed = print_lines(out, &lines);
    if found.findings.is_empty() { printed } else { PROBLEM }
}

fn verdict_json(found: &Inspection) -> String {
    let findings: Vec<Value> =
        found.findings.iter().map(|finding| json!({"place": finding.place, "what": finding.what})).collect();
    audit::json(&json!({
        "verified": found.findings.is_empty(),
        "origin": found.origin,
        "verifier": found.verifier,
        "size": found.size,
        "root": found.root,
        "checkpointSize": found.checkpoint_size,
        "publishedSize": found.published_size,
        "records": found.records,
        "firstTime": found.times.map(|(first, _)| first.to_string()),
        "lastTime": found.times.map(|(_, last)| last.to_string()),
        "witnessed": witnessed_json(found),
        "findings": findings,
        "notes": found.notes,
    }))
}

fn witnessed_json(found: &Inspection) -> Vec<Value> {
    let kept = found.witnessed.iter().map(|kept| {
        json!({"witness": kept.witness.name(), "size": kept.checkpoint().size, "time": kept.at.to_string()})
    });
    kept.collect()
}

fn verdict_lines(found: &Inspection) -> Vec<String> {
    let mut lines: Vec<String> =
        found.findings.iter().map(|finding| format!("problem: {}", escape(&finding.to_string()))).collect();
    lines.extend(found.notes.iter().map(|note| format!("note: {}", escape(note))));
    lines.push(format!("log      {}", escape(&found.origin)));
    lines.push(format!("entries  {} ({} records)", found.size, found.records));
    lines.push(format!("root     {}", found.root));
    if let Some((first, last)) = found.times {
        lines.push(format!("time     {first} to {last}"));
    }
    lines.extend(found.witnessed.iter().map(|kept| {
        let (name, size) = (escape(kept.witness.name()), kept.checkpoint().size);
        format!("witness  {name}: {size} entries at {}", kept.at)
    }));
    lines.push(match found.findings.len() {
        0 => "the trail verifies: nothing was changed".to_owned(),
        count => format!("the trail DOES NOT verify: {count} problems"),
    });
    lines
}

/// Hands every record that `filter` takes to `each`, in sequence; `index`: where an index may be. Gives the exit code.
pub(super) fn each_record(
    settings: &Settings,
    index: Option<&Path>,
    filter: &Filter,
    err: &mut dyn Write,
    each: &mut dyn FnMut(&audit::Record) -> io::Result<()>,
) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    let amiss = reading::read(settings, &keys, index, filter, &mut |_, record, _| each(record));
    if let Some(why) = &amiss.note {
        note(err, &format!("{why}; the whole trail is read instead"));
    }
    amiss.faults.iter().map(|fault| complain(err, fault)).max().unwrap_or(GOOD)
}

fn print_lines(out: &mut dyn Write, lines: &[String]) -> u8 {
    let printed = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    if printed.is_ok() { GOOD } else { PROBLEM }
}

/// Says what is worth knowing and not wrong, on one line.
fn note(err: &mut dyn Write, what: &str) {
    let _nowhere_else_to_say_it = writeln!(err, "chartgate: note: {}", escape(what));
}

/// Says what is wrong, on one line.
fn complain(err: &mut dyn Write, error: &dyn Display) -> u8 {
    let _nowhere_else_to_say_it = writeln!(err, "chartgate: {}", escape(&error.to_string()));
    PROBLEM
}
