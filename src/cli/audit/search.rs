//! `chartgate audit search`: the trail's records, each told once and with its end.
//!
//! Owns: the command, and the table. Must never: decide what a record means.
//! Look next: `reading`, which finds the records; `page` for one of them.

use std::io::{self, Write};
use std::path::Path;

use comfy_table::{Table, presets};

use super::page::{as_json, as_row};
use super::reading;
use super::told::Told;
use super::{Filter, GOOD, complain, keys_of_trail, note};
use crate::domain::audit::{self, Record};
use crate::edge::journal::{Finding, Settings};
use crate::edge::trail_index;

/// Prints the records that `filter` takes, in sequence: a table, or one JSON object a line. Parts of a record
/// are joined, and a request's outcome is told with its release. The index in the trail's directory is used if there is one.
pub fn search(
    settings: &Settings,
    filter: &Filter,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let index = trail_index::default_path(&settings.directory);
    search_with(settings, Some(&index), filter, as_json, out, err)
}

/// As [`search`], with the index at `index`; without one the whole trail is read.
pub fn search_with(
    settings: &Settings,
    index: Option<&Path>,
    filter: &Filter,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    let mut page = Page { as_json, rows: Vec::new(), out };
    let mut amiss = reading::read(settings, &keys, index, filter, &mut |sequence, record, told| {
        page.print(sequence, record, told)
    });
    amiss.faults.extend(page.flush().err().map(output_fault));
    if let Some(why) = &amiss.note {
        note(err, &format!("{why}; the whole trail is read instead"));
    }
    amiss.faults.iter().map(|fault| complain(err, fault)).max().unwrap_or(GOOD)
}

/// What is printed, and how.
struct Page<'o> {
    as_json: bool,
    rows: Vec<[String; 8]>,
    out: &'o mut dyn Write,
}

/// Rows of one table: a table is laid out as a whole, a trail is not held in memory.
const ROWS_MAX: usize = 500;

impl Page<'_> {
    fn print(&mut self, sequence: u64, record: &Record, told: &Told) -> io::Result<()> {
        if self.as_json {
            return writeln!(self.out, "{}", audit::json(&as_json(sequence, record, told)));
        }
        self.rows.push(as_row(sequence, record, told));
        if self.rows.len() >= ROWS_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.rows.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::UTF8_BORDERS_ONLY);
            table.set_header([
                "seq",
                "time",
                "who",
                "interaction",
                "decision",
                "reason",
                "released or written",
                "outcome",
            ]);
            table.add_rows(self.rows.drain(..));
            writeln!(self.out, "{table}")?;
        }
        self.out.flush()
    }
}

fn output_fault(error: io::Error) -> Finding {
    Finding { place: "output".to_owned(), what: error.to_string() }
}
