//! `chartgate audit export`: the trail's records for other tools, as files.
//!
//! Owns: the formats, and that a file is whole or not there under its name.
//! Must never: write over what is there; write to the trail. What is exported is patient data in clear: for its owner only.
//! Look next: `balp` for FHIR, `flat` and `table` for spreadsheets; the member `auditparquet` for Parquet.

mod balp;
mod flat;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde_json::json;

use super::page::as_json;
use super::{PROBLEM, complain, keys_of_trail, note, print_lines, reading};
use crate::domain::audit::{self, Filter};
use crate::edge::journal::{Finding, Keys, Reader, Settings};

pub use flat::{COLUMNS, Row};

use balp::Site;
use table::Table;

/// As what records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line, as `audit search --json` prints them
    Ndjson,
    /// A table for spreadsheets: a row for each FHIR record released or written
    Csv,
    /// FHIR R4 AuditEvents in IHE's BALP profiles, one a line
    Fhir,
}

impl Format {
    fn file(self) -> &'static str {
        match self {
            Self::Ndjson => "audit.ndjson",
            Self::Csv => "audit.csv",
            Self::Fhir => "AuditEvent.ndjson",
        }
    }
}

/// What is exported, and where to.
#[derive(Debug)]
pub struct Export<'x> {
    /// Which records.
    pub filter: &'x Filter,
    /// As what.
    pub format: Format,
    /// The directory; made if it is not there, and never written over.
    pub out: &'x Path,
    /// The base URL clients use, which AuditEvents name as their source.
    pub base: &'x str,
}

/// Writes the records into a file, and `export.json` beside it: which log and checkpoint they are from, how many, and the
/// file's SHA-256.
pub fn export(
    settings: &Settings,
    index: Option<&Path>,
    order: &Export<'_>,
    as_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let keys = match keys_of_trail(settings) {
        Ok(keys) => keys,
        Err(why) => return complain(err, &why),
    };
    let done = match run(settings, &keys, index, order, err) {
        Ok(done) => done,
        Err(why) => return complain(err, &why),
    };
    let line = if as_json {
        done.manifest.clone()
    } else {
        format!("exported {} records to `{}`", done.records, order.out.display())
    };
    let printed = print_lines(out, &[line]);
    if done.faults == 0 { printed } else { PROBLEM }
}

/// Hands the rows of every record that `filter` takes to `each`; answers what was amiss.
pub fn rows(
    settings: &Settings,
    index: Option<&Path>,
    filter: &Filter,
    each: &mut dyn FnMut(Row) -> io::Result<()>,
) -> Result<Vec<Finding>, String> {
    let keys = keys_of_trail(settings)?;
    let amiss = reading::read(settings, &keys, index, filter, &mut |sequence, record, told| {
        flat::rows(sequence, record, told).into_iter().try_for_each(&mut *each)
    });
    Ok(amiss.faults)
}

struct Done {
    records: u64,
    faults: usize,
    manifest: String,
}

fn run(
    settings: &Settings,
    keys: &Keys,
    index: Option<&Path>,
    order: &Export<'_>,
    err: &mut dyn Write,
) -> Result<Done, String> {
    let trail = Reader::open(&settings.directory, keys).map_err(|finding| finding.to_string())?;
    let (log, finding) = (trail.checkpoint().clone(), |error: io::Error| fault(order.out, &error));
    drop(trail);
    let mut file = Whole::create(order.out, order.format.file()).map_err(finding)?;
    let site = Site { base: order.base.to_owned(), origin: log.origin.clone() };
    let (records, amiss) = fill(settings, keys, index, order, &site, &mut file).map_err(finding)?;
    if let Some(why) = &amiss.note {
        note(err, &format!("{why}; the whole trail is read instead"));
    }
    for fault in &amiss.faults {
        complain(err, fault);
    }
    let sha256 = file.keep().map_err(finding)?;
    let manifest = audit::json(&json!({
        "origin": log.origin,
        "size": log.size,
        "root": log.root.to_string(),
        "records": records,
        "damaged": amiss.faults.len(),
        "file": order.format.file(),
        "sha256": sha256,
    }));
    let mut about = Whole::create(order.out, "export.json").map_err(finding)?;
    writeln!(about, "{manifest}").map_err(finding)?;
    about.keep().map_err(finding)?;
    Ok(Done { records, faults: amiss.faults.len(), manifest })
}

fn fill(
    settings: &Settings,
    keys: &Keys,
    index: Option<&Path>,
    order: &Export<'_>,
    site: &Site,
    file: &mut Whole,
) -> io::Result<(u64, reading::Amiss)> {
    let mut records = 0;
    let mut table = None;
    let mut plain = None;
    match order.format {
        Format::Csv => table = Some(Table::new(file)?),
        Format::Ndjson | Format::Fhir => plain = Some(file),
    }
    let amiss = reading::read(settings, keys, index, order.filter, &mut |sequence, record, told| {
        records += 1;
        match (&mut table, &mut plain, order.format) {
            (Some(table), _, _) => {
                flat::rows(sequence, record, told).iter().try_for_each(|row| table.write(row))
            }
            (None, Some(file), Format::Fhir) => balp::events(sequence, record, told, site)
                .iter()
                .try_for_each(|event| writeln!(file, "{}", audit::json(event))),
            (None, Some(file), _) => writeln!(file, "{}", audit::json(&as_json(sequence, record, told))),
            (None, None, _) => Ok(()),
        }
    });
    table.map_or(Ok(()), Table::finish)?;
    Ok((records, amiss))
}

fn fault(path: &Path, error: &dyn Display) -> String {
    format!("`{}`: {error}", path.display())
}

/// A file that has its name only when all of it is on disk.
struct Whole {
    file: BufWriter<File>,
    sum: digest::Context,
    staged: PathBuf,
    path: PathBuf,
}

impl Whole {
    fn create(directory: &Path, name: &str) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("there is a `{name}` already")));
        }
        let staged = directory.join(format!("{name}.part"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        Ok(Self { file: BufWriter::new(file), sum: digest::Context::new(&digest::SHA256), staged, path })
    }

    /// Gives it its name; answers its SHA-256.
    fn keep(mut self) -> io::Result<String> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.staged, &self.path)?;
        Ok(self.sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.file.write(bytes)?;
        self.sum.update(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
