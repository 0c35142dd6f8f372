//! The file `checkpoint`: the newest state that was acknowledged.
//!
//! Owns: two files that change places. The one behind the name `checkpoint` is never touched; the next note is written over
//! the other, behind `checkpoint.tmp`, and then the two names are exchanged in one step (`renameat2(2)`).
//! Must never: leave a note in two pieces behind the name, or after a power cut one older than `published`.
//! Look next: `writer`, step 3 and 5 of a commit; `publisher`, which has both files settled before `published` is replaced.
//!
//! No commit waits for a second sync. A kill leaves what was written. After a power cut `checkpoint` holds a whole note, if an
//! older one: it is overwritten at its length and within one sector, which a disk writes whole or not at all; a note of
//! another length gets a new file, synced before it has the name. Recovery takes the newer note from the frame, which is synced and
//! signed. Where a filesystem cannot exchange names, each note gets a new file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::layout::{CHECKPOINT, remove, stage, staged};
use super::publisher::bytes_of;
use super::snapshot::{READINGS_MAX, read_if_there};
use super::writer::Held;
use crate::limits::SECTOR_BYTES;

/// Both files.
pub(super) struct Newest {
    path: PathBuf,
    /// What `held` holds.
    note: Vec<u8>,
    /// The file behind the name.
    held: Held,
    /// The file behind the other name, and its length.
    spare: Option<(Held, usize)>,
}

impl Newest {
    /// The checkpoint of an audit directory, as it was left.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(CHECKPOINT);
        let note = fs::read(&path)?;
        let held = Held::new(path.clone(), File::options().read(true).write(true).open(&path)?)?;
        Ok(Self { path, note, held, spare: None })
    }

    /// Whether the name still leads to the file we hold, as we left it.
    pub(super) fn check(&self) -> io::Result<()> {
        self.held.check(Some(bytes_of(&self.note)))
    }

    /// Has the name lead to `note`. `check` is asked last before that.
    pub(super) fn replace(
        &mut self,
        note: Vec<u8>,
        check: impl FnOnce(&Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let next = self.write(&note)?;
        check(self)?;
        let is_kept = exchange(&self.path)?;
        let earlier = std::mem::replace(&mut self.held, next.at(self.path.clone()));
        let bytes = std::mem::replace(&mut self.note, note).len();
        self.spare = is_kept.then(|| (earlier.at(staged(&self.path)), bytes));
        Ok(())
    }

    /// Has the newest note last, whichever of the two files has the name after a power cut.
    pub(super) fn settle(&self) -> io::Result<()> {
        if let Some((spare, _)) = self.spare.as_ref().filter(|(_, bytes)| is_over(*bytes, &self.note)) {
            spare.file.write_all_at(&self.note, 0)?;
            spare.file.sync_data()?;
        }
        self.held.file.sync_data()
    }

    /// Leaves nothing beside the newest note. What cannot be removed harms nobody: it is no evidence.
    pub(super) fn clear(&mut self) {
        self.spare = None;
        let _harmless = remove(&staged(&self.path));
    }

    /// Writes a note beside the newest one.
    fn write(&mut self, note: &[u8]) -> io::Result<Held> {
        let spare = self.spare.take().filter(|(_, bytes)| is_over(*bytes, note));
        // Nobody else has business with it: if it was touched it is not used again.
        if let Some((spare, _)) = spare.filter(|(spare, _)| spare.check(Some(bytes_of(note))).is_ok()) {
            spare.file.write_all_at(note, 0)?;
            return Ok(spare);
        }
        // On the disk the file beside may still have the name: it is left as it is.
        remove(&staged(&self.path))?;
        Held::new(staged(&self.path), stage(&self.path, note)?)
    }
}

/// The checkpoint of an audit directory that a writer may be at work in: read until two readings agree, since a file that has
/// lost the name to the next note may be written over while it is still being read. `None` if there is none.
pub(super) fn read(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = directory.join(CHECKPOINT);
    let mut note = read_if_there(&path)?;
    for _ in 0..READINGS_MAX {
        let again = read_if_there(&path)?;
        if again == note {
            break;
        }
        note = again;
    }
    Ok(note)
}

/// Takes it for a moment: writer and publisher both have it. What panicked with it left it whole or told of a fault.
pub(super) fn hold(newest: &Mutex<Newest>) -> MutexGuard<'_, Newest> {
    newest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a note can be written over a file of this length: at once, or not at all.
fn is_over(bytes: usize, note: &[u8]) -> bool {
    bytes == note.len() && bytes <= SECTOR_BYTES
}

/// Exchanges `path` and the staged file beside it; where that cannot be, the staged one takes the name. Whether the earlier
/// file is still there.
fn exchange(path: &Path) -> io::Result<bool> {
    let beside = staged(path);
    match renameat_with(CWD, &beside, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
            fs::rename(beside, path).map(|()| false)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn begin(directory: &Path) -> Newest {
        fs::write(directory.join(CHECKPOINT), b"0").unwrap();
        fs::set_permissions(directory.join(CHECKPOINT), fs::Permissions::from_mode(0o600)).unwrap();
        Newest::open(directory).unwrap()
    }

    #[test]
    fn the_name_holds_each_note_and_two_files_take_turns() {
        let directory = tempfile::tempdir().unwrap();
        let (mut newest, path) = (begin(directory.path()), directory.path().join(CHECKPOINT));
        let mut files = Vec::new();
        for note in ["1", "2", "3", "04", "05", "06"] {
            newest.replace(note.into(), Newest::check).unwrap();
            newest.check().unwrap();
            newest.settle().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), note);
            files.push(fs::metadata(&path).unwrap().ino());
        }
        assert_eq!((files[0], files[3]), (files[2], files[5]), "over the one before the last");
        assert_ne!(files[2], files[3], "no file is overwritten by a longer note");
        newest.clear();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    /// What may have the name after a power cut is never older than what was settled.
    #[test]
    fn settled_is_settled_in_both_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut newest = begin(directory.path());
        newest.replace(b"1".to_vec(), Newest::check).unwrap();
        newest.settle().unwrap();
        assert_eq!(fs::read(staged(&directory.path().join(CHECKPOINT))).unwrap(), b"1");
    }

    #[test]
    fn a_file_beside_that_was_touched_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let (mut newest, path) = (begin(directory.path()), directory.path().join(CHECKPOINT));
        let touches: [fn(&Path); 3] = [
            |beside| fs::set_permissions(beside, fs::Permissions::from_mode(0o666)).unwrap(),
            |beside| fs::write(beside, b"longer").unwrap(),
            |beside| fs::remove_file(beside).unwrap(),
        ];
        for (touch, note) in touches.into_iter().zip(["1", "2", "3"]) {
            newest.replace(b"a".to_vec(), Newest::check).unwrap();
            touch(&staged(&path));
            newest.replace(note.into(), Newest::check).unwrap();
            let mode = fs::metadata(&path).unwrap().mode() & 0o777;
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode), (note, 0o600));
        }
    }

    #[test]
    fn what_fails_the_check_does_not_get_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut newest = begin(directory.path());
        assert!(newest.replace(b"1".to_vec(), |_| Err(io::Error::other("touched"))).is_err());
        assert_eq!(fs::read(directory.path().join(CHECKPOINT)).unwrap(), b"0");
    }
}
