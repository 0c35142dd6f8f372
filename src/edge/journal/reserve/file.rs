//! The reserve as a file: made in advance, written in place.
//!
//! Owns: the order of writes and syncs that `reserve` argues with. Nothing here makes the file longer, so that a full
//! disk does not stop it.
//! Must never: answer before the mark is synced; write again behind a write that failed.
//! Look next: `writer`, which decides when it is used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use aws_lc_rs::rand;

use super::super::entry::Cipher;
use super::super::keys::Keys;
use super::super::layout::{RESERVE, staged, sync_directory};
use super::super::writer::Held;
use super::{
    Contents, GENERATION_BYTES, Generation, Level, after, empty, frame, header, hex, mark, place_of, read,
};
use crate::domain::ledger::{Hash, write_entry};
use crate::limits::RESERVE_BLOCK_BYTES;

/// A reserve that stands ready, or is in use.
pub(in super::super) struct Reserve {
    held: Held,
    generation: Generation,
    origin: String,
    bytes: u64,
    level: Level,
    /// A write failed: nothing more is written.
    broken: bool,
}

/// What is in the file now, if it is there.
pub(in super::super) fn look(directory: &Path, origin: &str, keys: &Keys) -> io::Result<Option<Contents>> {
    match fs::read(directory.join(RESERVE)) {
        Ok(bytes) => read(&bytes, origin, &keys.reserve).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the file away.
pub(in super::super) fn remove(directory: &Path) -> io::Result<()> {
    fs::remove_file(directory.join(RESERVE))?;
    sync_directory(directory)
}

impl Reserve {
    /// Makes a new one of so many bytes, all of them written and synced, in the place of an unused one.
    pub(in super::super) fn make(
        directory: &Path,
        origin: &str,
        keys: &Keys,
        bytes: u64,
    ) -> io::Result<Self> {
        let mut random = [0; GENERATION_BYTES];
        rand::fill(&mut random).map_err(io::Error::other)?;
        let generation = Generation(random);
        let head = header(&keys.reserve, origin, generation, bytes);
        let level = empty(&keys.reserve, &head);
        let mark = |place| mark(&keys.reserve, generation, place, &level);
        let made = stage_whole(directory, &[head, mark(1), mark(0)], bytes);
        // Half of one would take the place that the journal lacks.
        made.inspect_err(|_| drop(fs::remove_file(staged(&directory.join(RESERVE)))))?;
        Self::hold(directory, origin, generation, bytes, level)
    }

    /// Takes up the one that is there, if it is unused, of so many bytes, and all of them have their place on the disk.
    pub(in super::super) fn reopen(
        directory: &Path,
        origin: &str,
        keys: &Keys,
        bytes: u64,
    ) -> io::Result<Option<Self>> {
        let Some(contents) = look(directory, origin, keys)? else { return Ok(None) };
        let found = fs::metadata(directory.join(RESERVE))?;
        // `blocks` counts units of 512 bytes, whatever the file system's own are.
        let is_placed = found.blocks().saturating_mul(512) >= bytes;
        if contents.is_used() || found.len() != bytes || !is_placed {
            return Ok(None);
        }
        Self::hold(directory, origin, contents.generation, bytes, contents.level).map(Some)
    }

    fn hold(
        directory: &Path,
        origin: &str,
        generation: Generation,
        bytes: u64,
        level: Level,
    ) -> io::Result<Self> {
        let path = directory.join(RESERVE);
        let file = OpenOptions::new().write(true).open(&path)?;
        let held = Held::new(path, file)?;
        Ok(Self { held, generation, origin: origin.to_owned(), bytes, level, broken: false })
    }

    /// Which reserve it is, and how long.
    pub(in super::super) fn name(&self) -> (Generation, u64) {
        (self.generation, self.bytes)
    }

    /// Bytes that are taken, of how many.
    pub(in super::super) fn used_bytes(&self) -> (u64, u64) {
        (self.level.end, self.bytes)
    }

    /// The chain over everything in it, in hexadecimal: a line of the log that is kept elsewhere finds a reserve that was
    /// put back.
    pub(in super::super) fn chain(&self) -> String {
        hex(&self.level.chain)
    }

    /// Whether it takes no more.
    pub(in super::super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Writes parts of records, in order, and syncs them. `base`: size and root of the log as it was last acknowledged.
    /// Gives the number of the first one in the reserve.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] where they find no room: others may. Anything else: the reserve takes no more.
    pub(in super::super) fn append(
        &mut self,
        keys: &Keys,
        parts: &[&[u8]],
        base: (u64, Hash),
    ) -> io::Result<u64> {
        if self.broken {
            return Err(io::Error::other("the reserve is out of service"));
        }
        let (head, tail, next) = self.sealed(keys, parts, base)?;
        if next.end > self.bytes {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let first = self.level.entries;
        self.write(keys, &head, &tail, &next).inspect_err(|_| self.broken = true)?;
        self.level = next;
        Ok(first)
    }

    /// The two pieces of a frame, and the level after it.
    fn sealed(
        &self,
        keys: &Keys,
        parts: &[&[u8]],
        base: (u64, Hash),
    ) -> io::Result<(Vec<u8>, Vec<u8>, Level)> {
        let mut body = Vec::new();
        for (part, index) in parts.iter().zip(self.level.entries..) {
            let entry = seal(&keys.cipher, &self.generation.name(&self.origin), index, part)?;
            write_entry(&mut body, &entry).map_err(io::Error::other)?;
        }
        let length = |length: usize| u32::try_from(length).map_err(io::Error::other);
        let counts = (length(parts.len())?, length(body.len())?);
        let head = frame(&keys.reserve, self.generation, &self.level, counts, base);
        let next = after(&keys.reserve, &self.level, &head, u64::from(counts.0), &body);
        let next = next.ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
        body.extend(next.chain);
        Ok((head, body, next))
    }

    /// In place, each step synced before the next: see `reserve`.
    fn write(&self, keys: &Keys, head: &[u8], tail: &[u8], next: &Level) -> io::Result<()> {
        self.check()?;
        let file: &File = &self.held.file;
        file.write_all_at(head, self.level.end)?;
        file.sync_data()?;
        file.write_all_at(tail, self.level.end.saturating_add(head.len() as u64))?;
        file.sync_data()?;
        let (place, at) = place_of(next.frames);
        file.write_all_at(&mark(&keys.reserve, self.generation, place, next), at)?;
        file.sync_data()?;
        self.check()
    }

    /// The name must still lead to this file, with its length.
    pub(in super::super) fn check(&self) -> io::Result<()> {
        self.held.check(Some(self.bytes))
    }
}

/// Writes the first blocks, and zeros behind them, beside the name, syncs all, and renames.
fn stage_whole(directory: &Path, first: &[Vec<u8>], bytes: u64) -> io::Result<()> {
    let path = directory.join(RESERVE);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(staged(&path))?;
    let mut left = usize::try_from(bytes).map_err(io::Error::other)?;
    let mut blocks = first.iter();
    while left > 0 {
        let mut block = blocks.next().cloned().unwrap_or_default();
        block.resize(RESERVE_BLOCK_BYTES.min(left), 0);
        file.write_all(&block)?;
        left = left.saturating_sub(block.len());
    }
    file.sync_all()?;
    fs::rename(staged(&path), &path)?;
    sync_directory(directory)
}

fn seal(cipher: &Cipher, name: &str, index: u64, part: &[u8]) -> io::Result<Vec<u8>> {
    cipher.seal(name, index, part).map_err(io::Error::other)
}
