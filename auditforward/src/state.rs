//! The forwarder's own directory: a cursor for each receiver, and what is wrong with it just now.
//!
//! Owns: that a cursor on disk never says more than the receiver confirmed, and that one process alone moves it.
//! Must never: write a cursor before the receiver confirmed; write into the trail's directory.
//! Look next: `pump` and `s3`, which move cursors; `status`, which shows them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How far a receiver has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cursor {
    /// The log it is of.
    pub(crate) origin: String,
    /// The entry that comes next: all before it are confirmed, or in a gap.
    pub(crate) next: u64,
    /// The leaf hash of the entry before, in hexadecimal: another history of the same length has another one.
    pub(crate) last: Option<String>,
    /// When the receiver confirmed last.
    pub(crate) confirmed: Option<Timestamp>,
    /// Entries that could not be read, and were reported as gaps.
    pub(crate) gaps: u64,
    /// Items that the receiver refused for good.
    pub(crate) rejected: u64,
    /// Of a bucket: the size of the last right edge it holds.
    pub(crate) edge: Option<u64>,
}

/// Why a receiver does not get on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Ailment {
    /// Since when.
    pub(crate) since: Timestamp,
    /// What is wrong: one line, no patient data.
    pub(crate) what: String,
}

/// The directory, held by this process alone.
#[derive(Debug)]
pub(crate) struct State {
    directory: PathBuf,
    /// Held as long as this value.
    _lock: File,
}

impl State {
    /// Makes the directory where there is none, and takes its lock.
    ///
    /// # Errors
    /// A sentence: it cannot be made, or another forwarder is at work.
    pub(crate) fn open(directory: &Path) -> Result<Self, String> {
        let fault = |error: io::Error| format!("`{}`: {error}", directory.display());
        DirBuilder::new().mode(0o700).recursive(true).create(directory).map_err(fault)?;
        let path = directory.join("forward.lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let lock = lock.map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(format!("another forwarder is at work in `{}`", directory.display()))
            }
            Err(fs::TryLockError::Error(error)) => Err(fault(error)),
        }
    }

    /// A receiver's cursor; nothing where it has none yet.
    pub(crate) fn cursor(&self, name: &str) -> Result<Option<Cursor>, String> {
        cursor(&self.directory, name)
    }

    /// Writes a cursor so that it lasts, whole or not at all.
    pub(crate) fn keep(&self, name: &str, cursor: &Cursor) -> Result<(), String> {
        let path = cursor_path(&self.directory, name);
        let kept = self.replace(&path, cursor, true);
        kept.map_err(|error| format!("`{}`: {error}", path.display()))
    }

    /// Says what is wrong with a receiver, or that nothing is any more. For people only: it need not last.
    pub(crate) fn tell(&self, name: &str, ailment: Option<&Ailment>) {
        let path = ailment_path(&self.directory, name);
        let told = match ailment {
            Some(ailment) => self.replace(&path, ailment, false),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        };
        if let Err(error) = told {
            tracing::warn!(%error, receiver = name, "what is wrong could not be noted");
        }
    }

    fn replace(&self, path: &Path, value: &impl Serialize, lasting: bool) -> io::Result<()> {
        let staged = path.with_extension("part");
        let text = serde_json::to_vec(value).map_err(io::Error::other)?;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(&text)?;
        if lasting {
            file.sync_data()?;
        }
        fs::rename(&staged, path)?;
        if lasting { File::open(&self.directory)?.sync_all() } else { Ok(()) }
    }
}

/// A receiver's cursor, for whoever only looks.
pub(crate) fn cursor(directory: &Path, name: &str) -> Result<Option<Cursor>, String> {
    read(&cursor_path(directory, name))
}

/// What is wrong with a receiver, for whoever only looks.
pub(crate) fn ailment(directory: &Path, name: &str) -> Result<Option<Ailment>, String> {
    read(&ailment_path(directory, name))
}

fn cursor_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.cursor"))
}

fn ailment_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.trouble"))
}

/// A file that is there and cannot be read is no reason to begin anew.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let fault = |what: String| format!("`{}`: {what}", path.display());
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| fault(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: u64) -> Cursor {
        Cursor {
            origin: "chartgate/x".to_owned(),
            next,
            last: None,
            confirmed: None,
            gaps: 0,
            rejected: 0,
            edge: None,
        }
    }

    #[test]
    fn a_cursor_is_read_back_and_one_process_alone_moves_it() {
        let place = tempfile::TempDir::new().unwrap();
        let state = State::open(place.path()).unwrap();
        assert_eq!(state.cursor("a").unwrap(), None);
        for next in [7, 9] {
            state.keep("a", &at(next)).unwrap();
            assert_eq!(state.cursor("a").unwrap(), Some(at(next)));
        }
        assert!(State::open(place.path()).unwrap_err().contains("another forwarder"));
        drop(state);
        State::open(place.path()).unwrap();
    }

    #[test]
    fn a_cursor_that_cannot_be_read_is_no_new_beginning() {
        let place = tempfile::TempDir::new().unwrap();
        let state = State::open(place.path()).unwrap();
        for text in ["", "{", r#"{"origin":"x","next":1}"#, r#"{"next":"1"}"#] {
            fs::write(place.path().join("a.cursor"), text).unwrap();
            assert!(state.cursor("a").is_err(), "{text}");
        }
    }
}
