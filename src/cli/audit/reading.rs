//! The records somebody asks for, in sequence, each with what is told of its request.
//!
//! Owns: the two ways to them, which find the same: by the index, or by reading the whole trail.
//! Must never: show a record that was not decrypted from the log; take the journal's lock.
//! Look next: `told`; `edge::trail_index`.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::told::Told;
use crate::domain::audit::{Assembly, Filter, Record};
use crate::edge::journal::{Entry, Finding, Keys, Reader, Settings, read_entries};
use crate::edge::trail_index::{Index, IndexError};

/// What is done with a record.
pub(super) type Each<'e> = dyn FnMut(u64, &Record, &Told) -> io::Result<()> + 'e;

/// What was amiss while records were read.
#[derive(Debug, Default)]
pub(super) struct Amiss {
    /// Faults of the trail, or of whoever takes the records.
    pub(super) faults: Vec<Finding>,
    /// Why the index that is there was not used.
    pub(super) note: Option<IndexError>,
}

/// Hands every record that `filter` takes to `each`. `index`: where an index may be.
pub(super) fn read(
    trail: &Settings,
    keys: &Keys,
    index: Option<&Path>,
    filter: &Filter,
    each: &mut Each<'_>,
) -> Amiss {
    let mut amiss = Amiss::default();
    let found = index.map_or(Err(IndexError::Missing), |index| by_index(trail, keys, index, filter));
    let ended = match found {
        Ok(Some(mut found)) => found.show(filter, each, &mut amiss.faults),
        Ok(None) | Err(IndexError::Missing) => scan(trail, keys, filter, each, &mut amiss.faults),
        Err(error) => {
            amiss.note = Some(error);
            scan(trail, keys, filter, each, &mut amiss.faults)
        }
    };
    amiss.faults.extend(ended.err());
    amiss.faults.dedup();
    amiss
}

/// Where the index says that records may be.
struct Found<'k> {
    index: Index,
    reader: Reader<'k>,
    places: Vec<u64>,
}

/// Nothing when the index cannot tell.
fn by_index<'k>(
    trail: &Settings,
    keys: &'k Keys,
    path: &Path,
    filter: &Filter,
) -> Result<Option<Found<'k>>, IndexError> {
    let mut index = Index::open(path, trail)?;
    let (reader, _) = index.current(trail, keys, &mut |_| {})?;
    index.freeze()?;
    let places = index.find(filter)?;
    Ok(places.map(|places| Found { index, reader, places }))
}

impl Found<'_> {
    fn show(
        &mut self,
        filter: &Filter,
        each: &mut Each<'_>,
        faults: &mut Vec<Finding>,
    ) -> Result<(), Finding> {
        let broken = |error: IndexError| Finding { place: "index".to_owned(), what: error.to_string() };
        faults.extend(self.index.faults().map_err(broken)?);
        let end = self.reader.checkpoint().size;
        let mut told = Told::default();
        let mut known = BTreeSet::new();
        for place in std::mem::take(&mut self.places).into_iter().filter(|place| *place < end) {
            let record = match self.reader.record(place) {
                Ok(Some(record)) if filter.takes(&record) => record,
                Ok(_) => continue,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            if let Some(request) = record.request_id()
                && known.insert(request.to_owned())
            {
                for other in
                    self.index.of_request(request).map_err(broken)?.into_iter().filter(|at| *at < end)
                {
                    match self.reader.record(other) {
                        Ok(Some(other)) => told.learn(other),
                        Ok(None) => {}
                        Err(fault) => faults.push(fault),
                    }
                }
            }
            if told.prints(&record) {
                each(place, &record, &told).map_err(output_fault)?;
            }
        }
        self.reader.finding().cloned().map_or(Ok(()), Err)
    }
}

/// Reads everything, twice: first how requests ended, then the records.
fn scan(
    trail: &Settings,
    keys: &Keys,
    filter: &Filter,
    each: &mut Each<'_>,
    faults: &mut Vec<Finding>,
) -> Result<(), Finding> {
    let (told, end) = everything_told(trail, keys);
    let mut assembly = Assembly::default();
    read_entries(&trail.directory, keys, &mut |entry: Entry| {
        let sequence = entry.sequence;
        if sequence >= end {
            return Ok(());
        }
        match join(&mut assembly, entry) {
            Ok(Some((first, record))) if filter.takes(&record) && told.prints(&record) => {
                each(first, &record, &told)
            }
            Ok(_) => Ok(()),
            Err(mut fault) => {
                if fault.place.is_empty() {
                    fault.place = format!("entry {sequence}");
                }
                faults.push(fault);
                Ok(())
            }
        }
    })
}

/// What a first reading of the trail says about how requests ended, and where it ended: entries from there on were not there
/// yet. The second reading leaves them out, so that no intent is printed as one whose decision is missing when it came in
/// between.
fn everything_told(trail: &Settings, keys: &Keys) -> (Told, u64) {
    let (mut told, mut end) = (Told::default(), 0);
    let mut assembly = Assembly::default();
    // Faults are reported by the second reading; here they only lose an outcome, which then reads `unknown`.
    let read = read_entries(&trail.directory, keys, &mut |entry| {
        end = entry.sequence.saturating_add(1);
        if let Ok(Some((_, record))) = join(&mut assembly, entry) {
            told.learn(record);
        }
        Ok(())
    });
    (told, if read.is_err() { u64::MAX } else { end })
}

fn join(assembly: &mut Assembly, entry: Entry) -> Result<Option<(u64, Record)>, Finding> {
    let part = entry.part?;
    assembly
        .push(entry.sequence, part)
        .map_err(|error| Finding { place: String::new(), what: error.to_string() })
}

fn output_fault(error: io::Error) -> Finding {
    Finding { place: "output".to_owned(), what: error.to_string() }
}
