//! CSV for spreadsheets (RFC 4180).
//!
//! Owns: that no cell is taken for a formula. Must never: change a cell that no spreadsheet would run.
//! Look next: `flat`, the rows.

use std::io::{self, Write};

use super::flat::{COLUMNS, Row};

/// Writes rows with a head.
pub(super) struct Table<W: Write> {
    writer: csv::Writer<W>,
}

impl<W: Write> Table<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(["sequence", "time"].into_iter().chain(COLUMNS))?;
        Ok(Self { writer })
    }

    pub(super) fn write(&mut self, row: &Row) -> io::Result<()> {
        let first = [row.sequence.to_string(), row.time.to_string()];
        let cells = row.cells.iter().map(|cell| harmless(cell.as_deref().unwrap_or_default()));
        Ok(self.writer.write_record(first.into_iter().chain(cells))?)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A cell that a spreadsheet would run as a formula gets an apostrophe before it, which spreadsheets do not show (OWASP, CSV
/// injection).
fn harmless(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}
