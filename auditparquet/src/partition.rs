//! One Parquet file after the other, each in the directory of its day.
//!
//! Owns: the schema; `day=YYYY-MM-DD/part-N.parquet`. Must never: give a file its name before it is whole.
//! Look next: <https://parquet.apache.org/docs/file-format>.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chartgate::cli::audit::export::{COLUMNS, Row};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

/// Rows of one row group: about 30 MB in memory.
const ROWS_IN_GROUP: usize = 50_000;
/// Days that are open at once: a trail is nearly in the order of its times. A day that comes again gets a further part.
const DAYS_OPEN_MAX: usize = 8;

/// The files of an export.
pub(crate) struct Partitions {
    root: PathBuf,
    open: BTreeMap<Date, Part>,
    /// How many parts each day has had.
    parts: BTreeMap<Date, u32>,
    rows: u64,
}

struct Part {
    rows: Vec<Row>,
    writer: SerializedFileWriter<File>,
    staged: PathBuf,
    path: PathBuf,
    used: u64,
}

impl Partitions {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: BTreeMap::new(), parts: BTreeMap::new(), rows: 0 }
    }

    /// Adds a row to the file of its day, in UTC.
    pub(crate) fn write(&mut self, row: Row) -> io::Result<()> {
        let day = row.time.to_zoned(TimeZone::UTC).date();
        self.rows += 1;
        if !self.open.contains_key(&day) {
            self.make_room()?;
            let number = self.parts.entry(day).or_default();
            let part = Part::create(&self.root.join(format!("day={day}")), *number)?;
            *number += 1;
            self.open.insert(day, part);
        }
        let rows = self.rows;
        let Some(part) = self.open.get_mut(&day) else { return Ok(()) };
        part.used = rows;
        part.rows.push(row);
        if part.rows.len() >= ROWS_IN_GROUP { part.flush().map_err(io::Error::other) } else { Ok(()) }
    }

    /// Writes what is left; answers how many rows there were.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        while let Some((_, part)) = self.open.pop_first() {
            part.keep()?;
        }
        Ok(self.rows)
    }

    /// Ends the day that was not written to for longest.
    fn make_room(&mut self) -> io::Result<()> {
        if self.open.len() < DAYS_OPEN_MAX {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, part)| part.used).map(|(day, _)| *day);
        oldest.and_then(|day| self.open.remove(&day)).map_or(Ok(()), Part::keep)
    }
}

impl Part {
    fn create(directory: &Path, number: u32) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
        let path = directory.join(format!("part-{number}.parquet"));
        let staged = directory.join(format!("part-{number}.parquet.part"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let schema = schema().map_err(io::Error::other)?;
        let writer =
            SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(io::Error::other)?;
        Ok(Self { rows: Vec::new(), writer, staged, path, used: 0 })
    }

    /// Writes the rows that are held as one row group.
    fn flush(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        let mut place = 0;
        while let Some(mut column) = group.next_column()? {
            match place {
                0 => {
                    let values: Vec<i64> =
                        rows.iter().map(|row| i64::try_from(row.sequence).unwrap_or(i64::MAX)).collect();
                    column.typed::<Int64Type>().write_batch(&values, None, None)?;
                }
                1 => {
                    let values: Vec<i64> = rows.iter().map(|row| row.time.as_microsecond()).collect();
                    column.typed::<Int64Type>().write_batch(&values, None, None)?;
                }
                _ => {
                    let cells = rows.iter().map(|row| row.cells.get(place - 2).and_then(Option::as_deref));
                    let levels: Vec<i16> = cells.clone().map(|cell| i16::from(cell.is_some())).collect();
                    let values: Vec<ByteArray> = cells.flatten().map(ByteArray::from).collect();
                    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
                }
            }
            column.close()?;
            place += 1;
        }
        group.close()?;
        Ok(())
    }

    fn keep(mut self) -> io::Result<()> {
        self.flush().map_err(io::Error::other)?;
        let file = self.writer.into_inner().map_err(io::Error::other)?;
        file.sync_all()?;
        fs::rename(&self.staged, &self.path)
    }
}

/// `sequence`, `time`, and the columns of the flat export, which may be null.
fn schema() -> Result<TypePtr, ParquetError> {
    let number = |name: &'static str| {
        Type::primitive_type_builder(name, Physical::INT64).with_repetition(Repetition::REQUIRED)
    };
    let time = LogicalType::timestamp(true, TimeUnit::MICROS);
    let mut fields = vec![
        Arc::new(number("sequence").build()?),
        Arc::new(number("time").with_logical_type(Some(time)).build()?),
    ];
    for name in COLUMNS {
        let text = Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::String));
        fields.push(Arc::new(text.build()?));
    }
    Ok(Arc::new(Type::group_type_builder("audit").with_fields(fields).build()?))
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::RowAccessor as _;

    use super::*;

    fn row(sequence: u64, time: &str, subject: Option<&str>) -> Row {
        let mut cells = [const { None }; COLUMNS.len()];
        let place = COLUMNS.iter().position(|name| *name == "subject").unwrap();
        *cells.get_mut(place).unwrap() = subject.map(str::to_owned);
        Row { sequence, time: time.parse().unwrap(), cells }
    }

    /// A file, then sequence, time and subject of each row.
    type Read = (String, Vec<(i64, i64, Option<String>)>);

    /// What is read back by the library's own reader.
    fn read(root: &Path) -> Vec<Read> {
        let mut files: Vec<PathBuf> = fs::read_dir(root)
            .unwrap()
            .flat_map(|day| fs::read_dir(day.unwrap().path()).unwrap().map(|file| file.unwrap().path()))
            .collect();
        files.sort();
        let rows = |path: &PathBuf| {
            let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
            let place = 2 + COLUMNS.iter().position(|name| *name == "subject").unwrap();
            let rows = reader.get_row_iter(None).unwrap().map(|row| {
                let row = row.unwrap();
                let time = row.get_timestamp_micros(1).unwrap();
                (row.get_long(0).unwrap(), time, row.get_string(place).ok().cloned())
            });
            (path.strip_prefix(root).unwrap().display().to_string(), rows.collect())
        };
        files.iter().map(rows).collect()
    }

    #[test]
    fn rows_are_read_back_from_the_file_of_their_day() {
        let place = tempfile::TempDir::new().unwrap();
        let mut partitions = Partitions::new(place.path());
        let subject = Some("dr=x/\u{1F600}");
        partitions.write(row(1, "2026-03-01T23:59:59.999999Z", subject)).unwrap();
        partitions.write(row(2, "2026-03-02T00:00:00Z", None)).unwrap();
        partitions.write(row(3, "2026-03-01T10:00:00Z", None)).unwrap();
        assert_eq!(partitions.finish().unwrap(), 3);
        let micros = |time: &str| time.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let first = vec![
            (1, micros("2026-03-01T23:59:59.999999Z"), subject.map(str::to_owned)),
            (3, micros("2026-03-01T10:00:00Z"), None),
        ];
        assert_eq!(
            read(place.path()),
            [
                ("day=2026-03-01/part-0.parquet".to_owned(), first),
                ("day=2026-03-02/part-0.parquet".to_owned(), vec![(2, micros("2026-03-02T00:00:00Z"), None)]),
            ]
        );
    }

    /// Days far apart and back again: no row is lost, and no file is left open or unnamed.
    #[test]
    fn a_day_that_comes_again_gets_a_further_part() {
        let place = tempfile::TempDir::new().unwrap();
        let mut partitions = Partitions::new(place.path());
        for sequence in 0..40_u64 {
            let day = sequence % 20 + 1;
            partitions.write(row(sequence, &format!("2026-03-{day:02}T10:00:00Z"), Some("a"))).unwrap();
        }
        partitions.finish().unwrap();
        let files = read(place.path());
        assert_eq!(files.len(), 40);
        assert!(files.iter().all(|(name, rows)| name.ends_with(".parquet") && rows.len() == 1));
        assert!(files.iter().any(|(name, _)| name == "day=2026-03-01/part-1.parquet"));
    }
}
