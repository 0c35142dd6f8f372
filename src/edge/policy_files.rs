//! A policies directory on disk, read into memory.
//!
//! Owns: which files of the directory count: every `*.cedar`, `groups.toml`, `schema.cedarschema`; for the workbench
//! `tests/*.toml`, `tests/records/*.json` and `tables/*.txt`.
//! Must never: judge their content; `domain::access` does.
//! Look next: `reload`, which watches the same directory.

use crate::domain::access::{PolicySet, Problem, Source};
use crate::limits;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Reads and loads the policies directory.
///
/// # Errors
/// Every problem found; one about the directory itself has the directory as its file.
pub fn load(directory: &Path) -> Result<PolicySet, Vec<Problem>> {
    let unreadable = |error: io::Error| vec![about_directory(directory, &error)];
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .map_err(unreadable)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".cedar") && !name.starts_with('.'))
        .collect();
    names.sort();
    let sources = names.iter().map(|name| read(directory, name)).collect::<io::Result<Vec<Source>>>();
    let sources = sources.map_err(unreadable)?;
    let groups = optional(directory, "groups.toml").map_err(unreadable)?;
    let schema = optional(directory, "schema.cedarschema").map_err(unreadable)?;
    PolicySet::load(&sources, groups.as_ref(), schema.as_ref())
}

/// What stands beside the policies for the workbench.
#[derive(Debug, Default)]
pub struct Workbench {
    /// Files of cases, by name.
    pub cases: Vec<Source>,
    /// Records by name, without the ending.
    pub records: BTreeMap<String, Vec<u8>>,
    /// Tables by file name.
    pub tables: BTreeMap<String, String>,
}

/// Reads cases, records and tables; a folder that is not there is empty.
///
/// # Errors
/// A problem with the first folder or file that cannot be read.
pub fn workbench(directory: &Path) -> Result<Workbench, Problem> {
    let folder =
        |path: &Path, ending: &str| files(path, ending).map_err(|error| about_directory(path, &error));
    let (tests, tables) = (directory.join("tests"), directory.join("tables"));
    let records = folder(&tests.join("records"), ".json")?;
    Ok(Workbench {
        cases: folder(&tests, ".toml")?,
        records: records
            .into_iter()
            .map(|file| (file.name.trim_end_matches(".json").to_owned(), file.text.into_bytes()))
            .collect(),
        tables: folder(&tables, ".txt")?.into_iter().map(|file| (file.name, file.text)).collect(),
    })
}

/// The invariants beside the policies (`invariants/*.cedar`), and the groups that they may name; a folder that is not
/// there is empty.
///
/// # Errors
/// A problem with the first folder or file that cannot be read.
#[cfg(feature = "prove")]
pub fn invariants(directory: &Path) -> Result<(Vec<Source>, Option<Source>), Problem> {
    let folder = directory.join("invariants");
    let found = files(&folder, ".cedar").map_err(|error| about_directory(&folder, &error))?;
    let groups = optional(directory, "groups.toml").map_err(|error| about_directory(directory, &error))?;
    Ok((found, groups))
}

/// Writes the tables, and takes away those of roles that are gone.
///
/// # Errors
/// The first that cannot be written.
pub fn write_tables(directory: &Path, tables: &BTreeMap<String, String>) -> io::Result<()> {
    let folder = directory.join("tables");
    std::fs::create_dir_all(&folder)?;
    for file in files(&folder, ".txt")?.iter().filter(|file| !tables.contains_key(&file.name)) {
        std::fs::remove_file(folder.join(&file.name))?;
    }
    tables.iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
}

/// The files of a folder by ending, sorted by name; none where there is no folder.
fn files(folder: &Path, ending: &str) -> io::Result<Vec<Source>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(ending) && !name.starts_with('.'))
        .collect();
    names.sort();
    names.iter().map(|name| read(folder, name)).collect()
}

fn read(directory: &Path, name: &str) -> io::Result<Source> {
    let path = directory.join(name);
    let bytes = std::fs::metadata(&path)?.len();
    if bytes > limits::POLICY_FILE_BYTES_MAX as u64 {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(Source { name: name.to_owned(), text: std::fs::read_to_string(path)? })
}

fn optional(directory: &Path, name: &str) -> io::Result<Option<Source>> {
    match read(directory, name) {
        Ok(source) => Ok(Some(source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn about_directory(directory: &Path, error: &io::Error) -> Problem {
    Problem {
        file: directory.display().to_string(),
        line: 1,
        column: 1,
        message: format!("the policies cannot be read: {}", error.kind()),
        hint: None,
    }
}
