//! Changing the key that data keys are wrapped for.
//!
//! Owns: the order in which files are wrapped again, and which of two keys opens a trail in between.
//! Must never: leave a trail that neither key opens; remove a wrapping before every file has the next one.
//! Look next: `datakeys` for the files; `docs/audit.md`, section "Keys", for operators.
//!
//! What a crash leaves after each step:
//!
//! 1. A `key-rotated` record is committed under the old key. Crash: the old key opens the trail; the record says that it was
//!    begun. It is done again.
//! 2. Where entries were sealed with the old key itself (version 1), it becomes a data key, in a file like the others.
//! 3. Each file is replaced by one with the data key wrapped for the old key and for the new one. Crash: some files have one
//!    wrapping, some have two: the old key opens the trail, and its next opening drops the second ones.
//! 4. The last file was replaced: now the new key opens the trail. The old one still reads it, but writes no more: a data
//!    key made from now on would be wrapped for the old key alone.
//! 5. The first opening with the new key drops the wrappings for the old one. Crash: some files have both, some the new one
//!    alone: the new key opens the trail.
//!
//! Files are synced before they are renamed into place, so that a power cut leaves each of them old or new, in any mixture: those
//! of step 3 or of step 5.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use super::datakeys::{KeyFile, KeyFiles, hex, keep, path, sync_keys};
use super::entry::{Cipher, KeyId};
use super::keys::Keys;
use super::layout::DATA_KEYS;
use super::writer::Writer;
use super::{Append, JournalError};
use crate::clock;
use crate::domain::audit::{self, Control, Event, Record};

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The key the configuration still names, by its id.
    pub from: String,
    /// The key it must name from now on.
    pub to: String,
    /// How many data keys were wrapped.
    pub keys: usize,
}

/// Drops what an earlier change of keys left, and keys that seal nothing; both last when this returns. `used`: the keys of every
/// entry there is.
pub(super) fn settle(
    directory: &Path,
    origin: &str,
    keys: &Keys,
    files: &KeyFiles,
    used: &BTreeSet<KeyId>,
) -> io::Result<()> {
    let mut changed = false;
    for file in &files.files {
        if !used.contains(&file.id) {
            // Made, and then nothing was acknowledged under it.
            fs::remove_file(directory.join(path(file.id)))?;
            changed = true;
        } else if !file.is_only_for(keys.cipher.id()) {
            let key = file.unwrap(origin, &keys.cipher).map_err(io::Error::other)?;
            let alone = file.wrapped_for(origin, &key, &[&keys.cipher]).map_err(io::Error::other)?;
            alone.write(directory, origin, keys)?;
            changed = true;
        }
    }
    if changed { sync_keys(directory) } else { Ok(()) }
}

impl Writer {
    /// Wraps every data key for `next` too. From the last one on the trail is opened with `next`.
    pub(super) fn rotate_key(&mut self, next: Cipher) -> Result<Rotated, JournalError> {
        // The reserve is made with the old key. What is in it was taken over when the trail was opened.
        self.keep_reserve(None)?;
        let rotated = self.wrap_all(next);
        rotated.map_err(|error| JournalError::Failed(format!("changing the key: {error}").into()))
    }

    fn wrap_all(&mut self, next: Cipher) -> io::Result<Rotated> {
        let (from, to) = (self.keys.cipher.id(), next.id());
        if from == to {
            return Err(io::Error::other("the new key is the one in use"));
        }
        self.record_rotation(from, to)?;
        let mut files = self.key_files()?;
        if files.iter().all(|file| file.first > 0) {
            // Old entries were sealed with the configured key itself.
            keep(&self.directory, &self.origin, &self.keys, (&self.keys.direct.0, 0), None)?;
            files = self.key_files()?;
        }
        for file in &files {
            let key = file.unwrap(&self.origin, &self.keys.cipher).map_err(io::Error::other)?;
            let outer = [&self.keys.cipher, &next];
            let both = file.wrapped_for(&self.origin, &key, &outer).map_err(io::Error::other)?;
            both.write(&self.directory, &self.origin, &self.keys)?;
        }
        sync_keys(&self.directory)?;
        for file in self.key_files()? {
            // As it stands on the disk now: without this nobody would know before the old key is gone.
            file.unwrap(&self.origin, &next).map_err(io::Error::other)?;
        }
        self.next_key = Some(next);
        // The file of the key in use is another one now, under the same name.
        self.sealer.look_again(&self.directory)?;
        Ok(Rotated { from: hex(from), to: hex(to), keys: files.len() })
    }

    fn record_rotation(&mut self, from: KeyId, to: KeyId) -> io::Result<()> {
        let details = BTreeMap::from([("from".to_owned(), hex(from)), ("to".to_owned(), hex(to))]);
        let record = Record::Control(Control { time: clock::now(), event: Event::KeyRotated, details });
        let parts = audit::encode(&record).map_err(io::Error::other)?;
        self.commit_one(Append { parts, done: None, room: None, reserve: false })
            .inspect_err(|error| self.state.fail("key-rotated", error))
    }

    /// Every key file of this trail. It was verified when it was opened.
    fn key_files(&self) -> io::Result<Vec<KeyFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory.join(DATA_KEYS))? {
            let entry = entry?;
            let name = format!("{DATA_KEYS}/{}", entry.file_name().to_string_lossy());
            let Some(id) = super::datakeys::id_of(&name) else { continue };
            let file = KeyFile::read(id, &fs::read(entry.path())?, &self.origin, &self.keys);
            files.push(file.map_err(|what| io::Error::other(format!("`{name}` {what}")))?);
        }
        files.sort_by_key(|file| file.first);
        Ok(files)
    }
}
