//! A policies directory on disk, read into memory.
//!
//! Owns: which files of the directory count: every `*.cedar`, `groups.toml`, `schema.cedarschema`; for the workbench
//! `tests/*.toml`, `tests/records/*.json` and `tables/*.txt`; for a signed bundle every file whose name does not begin
//! with a dot.
//! Must never: judge their content (`domain::access` does); load a file other than the bytes that were compared.
//! Look next: `reload`, which watches the same directory; `policy_bundle`, its signature.

use crate::domain::access::{PolicySet, Problem, Source};
use crate::limits;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Reads and loads the policies directory.
///
/// # Errors
/// Every problem found; one about the directory itself has the directory as its file.
pub fn load(directory: &Path) -> Result<PolicySet, Vec<Problem>> {
    Folder::read(directory, Extent::Policies).map_err(|problem| vec![problem])?.load()
}

/// Which files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What a set is loaded from.
    Policies,
    /// That, and its cases with their records.
    Cases,
    /// Every file whose name does not begin with a dot, at any depth.
    Everything,
}

/// A policies directory as it was at one moment: what is checked is what is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    directory: PathBuf,
    /// By the path below the directory, with `/`.
    files: BTreeMap<String, Vec<u8>>,
}

impl Folder {
    /// Reads it once.
    ///
    /// # Errors
    /// The first thing that cannot be read, with the directory as its file.
    pub fn read(directory: &Path, extent: Extent) -> Result<Self, Problem> {
        let mut folder = Self { directory: directory.to_owned(), files: BTreeMap::new() };
        let mut bytes = 0;
        folder.gather(extent, "", 0, &mut bytes).map_err(|error| about_directory(directory, &error))?;
        Ok(folder)
    }

    /// Reads it until two readings `limits::POLICY_SETTLE` apart are the same, so that a directory that is being
    /// written is not taken half (T-204). Sleeps.
    ///
    /// # Errors
    /// As [`Folder::read`], and when it does not hold still.
    pub fn settled(directory: &Path, extent: Extent) -> Result<Self, Problem> {
        let mut before = Self::read(directory, extent);
        for _ in 0..limits::POLICY_SETTLE_READINGS_MAX {
            std::thread::sleep(limits::POLICY_SETTLE);
            // A file may also vanish between listing and reading: what is wrong twice is wrong.
            let now = Self::read(directory, extent);
            if now == before {
                return now;
            }
            before = now;
        }
        let problem = about_directory(directory, &io::ErrorKind::ResourceBusy.into());
        let message = "the policies kept changing while they were read".to_owned();
        Err(Problem { message, ..problem })
    }

    /// The set in it.
    ///
    /// # Errors
    /// Every problem found.
    pub fn load(&self) -> Result<PolicySet, Vec<Problem>> {
        let sources = self.texts("", ".cedar")?;
        let one = |name: &str| self.files.get(name).map(|bytes| self.text(name, bytes)).transpose();
        let (groups, schema) = (one("groups.toml"), one("schema.cedarschema"));
        let wrong = |problem: Problem| vec![problem];
        PolicySet::load(&sources, groups.map_err(wrong)?.as_ref(), schema.map_err(wrong)?.as_ref())
    }

    /// The files of cases in it.
    ///
    /// # Errors
    /// Files that are no text.
    pub fn cases(&self) -> Result<Vec<Source>, Vec<Problem>> {
        self.texts("tests/", ".toml")
    }

    /// The records that its cases may name, without their ending.
    #[must_use]
    pub fn records(&self) -> BTreeMap<String, Vec<u8>> {
        let of = |(path, bytes): (&String, &Vec<u8>)| {
            let name = below("tests/records/", path)?.strip_suffix(".json")?;
            Some((name.to_owned(), bytes.clone()))
        };
        self.files.iter().filter_map(of).collect()
    }

    /// The bytes of a file, by its path below the directory.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// Every file that was read.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    fn texts(&self, folder: &str, ending: &str) -> Result<Vec<Source>, Vec<Problem>> {
        let (mut sources, mut problems) = (Vec::new(), Vec::new());
        for (path, bytes) in &self.files {
            let Some(name) = below(folder, path).filter(|name| name.ends_with(ending)) else { continue };
            match self.text(name, bytes) {
                Ok(source) => sources.push(source),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(sources) } else { Err(problems) }
    }

    fn text(&self, name: &str, bytes: &[u8]) -> Result<Source, Problem> {
        let wrong = |_| Problem {
            message: "is no text in UTF-8".to_owned(),
            ..about_directory(Path::new(name), &io::ErrorKind::InvalidData.into())
        };
        let text = std::str::from_utf8(bytes).map_err(wrong)?;
        Ok(Source { name: name.to_owned(), text: text.to_owned() })
    }

    fn gather(&mut self, extent: Extent, under: &str, depth: usize, bytes: &mut u64) -> io::Result<()> {
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(self.directory.join(under))? {
            // A name that is no text is nobody's policy.
            names.extend(entry?.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
        }
        for name in names {
            let path = format!("{under}{name}");
            let place = self.directory.join(&path);
            let about = match std::fs::metadata(&place) {
                Ok(about) => about,
                Err(_) if !extent.takes(&path) => continue,
                Err(error) => return Err(error),
            };
            if about.is_dir() {
                if depth < limits::WATCHED_DEPTH_MAX && extent.enters(&path) {
                    self.gather(extent, &format!("{path}/"), depth + 1, bytes)?;
                }
                continue;
            }
            if !extent.takes(&path) {
                continue;
            }
            *bytes = bytes.saturating_add(about.len());
            let too_large = about.len() > limits::POLICY_FILE_BYTES_MAX as u64
                || *bytes > limits::POLICY_FOLDER_BYTES_MAX
                || self.files.len() >= limits::WATCHED_FILES_MAX;
            // A pipe, say, could make reading wait for ever.
            if too_large || !about.is_file() {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.files.insert(path, std::fs::read(place)?);
        }
        Ok(())
    }
}

impl Extent {
    fn enters(self, folder: &str) -> bool {
        match self {
            Self::Policies => false,
            Self::Cases => matches!(folder, "tests" | "tests/records"),
            Self::Everything => true,
        }
    }

    fn takes(self, path: &str) -> bool {
        let own = below("", path).is_some_and(|name| name.ends_with(".cedar"))
            || matches!(path, "groups.toml" | "schema.cedarschema");
        let case = below("tests/", path).is_some_and(|name| name.ends_with(".toml"));
        let record = below("tests/records/", path).is_some_and(|name| name.ends_with(".json"));
        match self {
            Self::Policies => own,
            Self::Cases => own || case || record,
            Self::Everything => true,
        }
    }
}

/// The name of a file that stands in this folder and no deeper.
fn below<'p>(folder: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(folder).filter(|name| !name.contains('/'))
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
    let groups = match read(directory, "groups.toml") {
        Ok(groups) => Some(groups),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(about_directory(directory, &error)),
    };
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

fn about_directory(directory: &Path, error: &io::Error) -> Problem {
    Problem {
        file: directory.display().to_string(),
        line: 1,
        column: 1,
        message: format!("the policies cannot be read: {}", error.kind()),
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const PERMIT: &str = "@why(\"why (ground)\") permit(principal in Role::\"nurse\", action == Action::\"read\", resource is FHIR::Patient);";

    fn write(directory: &Path, path: &str, text: &str) {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn each_extent_reads_its_files_and_no_other() {
        let place = tempfile::tempdir().unwrap();
        for path in [
            "nurse.cedar",
            "groups.toml",
            "README.md",
            ".hidden.cedar",
            "tests/nurse.toml",
            "tests/records/a.json",
            "tests/records/deep/b.json",
            "tables/nurse.txt",
            "more/x.cedar",
            ".git/config",
        ] {
            write(place.path(), path, "");
        }
        std::os::unix::fs::symlink("nowhere", place.path().join("dangling")).unwrap();
        let read = |extent| {
            let folder = Folder::read(place.path(), extent)?;
            Ok::<_, Problem>(folder.files().map(|(path, _)| path.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(Extent::Policies).unwrap(), ["groups.toml", "nurse.cedar"]);
        let cases = ["groups.toml", "nurse.cedar", "tests/nurse.toml", "tests/records/a.json"];
        assert_eq!(read(Extent::Cases).unwrap(), cases);
        assert!(read(Extent::Everything).is_err(), "what cannot be read cannot be signed");
        std::fs::remove_file(place.path().join("dangling")).unwrap();
        assert_eq!(read(Extent::Everything).unwrap().len(), 8);
    }

    #[test]
    fn what_is_loaded_is_what_was_read() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "nurse.cedar", PERMIT);
        let folder = Folder::read(place.path(), Extent::Policies).unwrap();
        write(place.path(), "nurse.cedar", "permit (principal, action");
        assert_eq!(folder.load().unwrap().len(), 1);
        assert!(load(place.path()).is_err());
        std::fs::write(place.path().join("nurse.cedar"), [0xFF]).unwrap();
        let problems = load(place.path()).unwrap_err();
        assert!(problems[0].to_string().contains("nurse.cedar:1:1: is no text"), "{problems:?}");
    }

    /// Never half of what is being written, and never what does not hold still.
    #[test]
    fn a_directory_is_taken_when_it_holds_still() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().to_owned();
        write(&directory, "a.cedar", "0");
        let written = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=6 {
                    std::thread::sleep(limits::POLICY_SETTLE / 2);
                    write(&directory, &format!("{number}.cedar"), "x");
                }
                written.store(true, Ordering::SeqCst);
            });
            let folder = Folder::settled(&directory, Extent::Policies).unwrap();
            assert!(written.load(Ordering::SeqCst), "it was still being written");
            assert_eq!(folder.files().count(), 7);
        });
    }
}
