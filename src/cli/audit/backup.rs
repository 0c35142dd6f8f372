//! `chartgate audit backup` and `chartgate audit restore`.
//!
//! Owns: what these commands print. Must never: put something in place that was not verified.
//! Look next: `edge::journal`, which copies and verifies.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::{PROBLEM, complain, print_lines};
use crate::domain::audit::{self, escape};
use crate::edge::journal::{self, BackupError, Inspection, Settings};

/// Copies the trail, as far as it is published, into `to`, and verifies the copy.
pub fn backup(settings: &Settings, to: &Path, as_json: bool, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let done = journal::back_up(settings, to);
    tell(done, "copied and verified", as_json, out, err)
}

/// Puts a copy in place, verified before; or only verifies it.
pub fn restore(
    settings: &Settings,
    from: &Path,
    against: Option<&[u8]>,
    only_verify: bool,
    as_json: bool,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> u8 {
    if only_verify {
        return tell(journal::verify_copy(settings, from, against), "verified", as_json, out, err);
    }
    tell(journal::restore(settings, from, against), "verified and put in place", as_json, out, err)
}

fn tell(
    done: Result<Inspection, BackupError>,
    what: &str,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let found = match done {
        Ok(found) => found,
        Err(error) if as_json => {
            print_lines(out, &[audit::json(&json!({"verified": false, "why": error.to_string()}))]);
            return PROBLEM;
        }
        Err(error) => return complain(err, &error),
    };
    let line = if as_json {
        audit::json(
            &json!({"verified": true, "origin": found.origin, "size": found.size, "root": found.root}),
        )
    } else {
        format!("{what}: {} entries of {}, root {}", found.size, escape(&found.origin), found.root)
    };
    print_lines(out, &[line])
}
