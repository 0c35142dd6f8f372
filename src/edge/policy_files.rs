//! A policies directory on disk, read into memory.
//!
//! Owns: which files of the directory count: every `*.cedar`, `groups.toml`, `schema.cedarschema`.
//! Must never: judge their content; `domain::access` does.
//! Look next: `reload`, which watches the same directory.

use crate::domain::access::{PolicySet, Problem, Source};
use crate::limits;
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
