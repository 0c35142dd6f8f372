//! `chartgate audit index`: makes the index of the trail, or brings it up to date.
//!
//! Owns: the command. Must never: write to the trail.
//! Look next: `edge::trail_index`.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::{complain, keys_of_trail, print_lines};
use crate::domain::audit;
use crate::edge::journal::{Keys, Settings};
use crate::edge::trail_index::{Index, IndexError, Updated};

/// Makes the index at `path`, or brings it up to date; from nothing when `rebuild` is said.
pub fn index(
    settings: &Settings,
    path: &Path,
    rebuild: bool,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    let done = match make(settings, path, &keys, rebuild) {
        Ok(done) => done,
        Err(error) => return complain(err, &error),
    };
    let line = if as_json { done.as_json() } else { done.as_text() };
    print_lines(out, &[line])
}

struct Done {
    updated: Updated,
    entries: u64,
    shards: u64,
    faults: usize,
}

fn make(settings: &Settings, path: &Path, keys: &Keys, rebuild: bool) -> Result<Done, IndexError> {
    let mut index = Index::create(path, settings)?;
    if rebuild {
        index.clear()?;
    }
    let (_, updated) = index.current(settings, keys, &mut |_| {})?;
    let (entries, shards) = index.shape()?;
    Ok(Done { updated, entries, shards, faults: index.faults()?.len() })
}

impl Done {
    fn as_json(&self) -> String {
        audit::json(&json!({
            "entries": self.entries,
            "read": self.updated.entries,
            "anew": self.updated.anew,
            "shards": self.shards,
            "damagedEntries": self.faults,
        }))
    }

    fn as_text(&self) -> String {
        let anew = if self.updated.anew {
            "; what was there was of another log or history, or of what is withheld now"
        } else {
            ""
        };
        let faults = match self.faults {
            0 => String::new(),
            count => format!("; {count} entries do not decrypt: run `chartgate audit verify`"),
        };
        format!("indexed {} entries, {} of them now{anew}{faults}", self.entries, self.updated.entries)
    }
}
