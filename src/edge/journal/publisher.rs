//! The publisher: writes tiles behind the writer's back, so that commits need not wait for them.
//!
//! Owns: the files below `tile/`, the file `published`, and the removal of segments that tiles replace.
//! Must never: remove a segment before its entries are synced in bundles and `published` says so.
//! Look next: `writer`, which feeds it; `snapshot`, which reads what it writes.
//!
//! One publication, and what a crash leaves after each step:
//!
//! 1. Full tiles, bundles and partial tiles are written, each beside its name, synced, renamed; then their
//!    directories are synced. Crash: tiles beyond `published` stand there, each right for the entries, which
//!    are still in the segments. The next publication finds them equal and goes on.
//! 2. Both files of `checkpoint` are synced, so that it is never older than `published`; `published` is replaced, synced, and the
//!    audit directory synced. Crash: partial tiles of the publication
//!    before, and segments that are no longer needed, stand there. They are still right; the next one removes them.
//! 3. Partial tiles of the publication before and segments wholly below the last full bundle are removed.
//!    Removal needs no sync: what reappears after a power cut is what step 2 leaves.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::layout::{PUBLISHED, make_parents, remove, replace, segment_path, sync_directory};
use super::newest::{self, Newest};
use super::witnessed::Publication;
use super::{JournalError, State};
use crate::domain::ledger::{Tile, TileKind, Tiles, leaf_hash, write_entry};
use crate::limits::{PUBLISH_BYTES, PUBLISH_IDLE_MS};

/// What the writer tells the publisher.
pub(super) enum News {
    /// These entries were committed; the signed checkpoint after them.
    Committed { entries: Vec<Vec<u8>>, note: Vec<u8> },
    /// A segment was closed: its first entry and its end.
    Closed { first: u64, end: u64 },
}

/// The publisher's state.
pub(super) struct Publisher {
    pub(super) directory: PathBuf,
    pub(super) newest: Arc<Mutex<Newest>>,
    pub(super) state: Arc<State>,
    /// Entries taken so far.
    pub(super) size: u64,
    pub(super) tiles: Tiles,
    /// The incomplete bundle.
    pub(super) bundle: Vec<u8>,
    /// Full tiles that wait to be written.
    pub(super) ready: Vec<(Tile, Vec<u8>)>,
    /// The newest checkpoint; `None` when it is published.
    pub(super) note: Option<Vec<u8>>,
    pub(super) waiting_bytes: u64,
    /// Partial tiles that are on disk.
    pub(super) partial: Vec<Tile>,
    /// Closed segments, oldest first.
    pub(super) closed: VecDeque<(u64, u64)>,
}

impl Publisher {
    /// Runs until the writer is gone, then publishes a last time.
    pub(super) fn run(mut self, news: &Receiver<News>) {
        loop {
            match news.recv_timeout(Duration::from_millis(PUBLISH_IDLE_MS)) {
                Ok(News::Committed { entries, note }) => self.take(&entries, note),
                Ok(News::Closed { first, end }) => self.closed.push_back((first, end)),
                Err(RecvTimeoutError::Timeout) => self.publish_or_fail(),
                Err(RecvTimeoutError::Disconnected) => return self.publish_or_fail(),
            }
            if self.waiting_bytes >= PUBLISH_BYTES {
                self.publish_or_fail();
            }
        }
    }

    /// Adds committed entries to the tiles in memory.
    pub(super) fn take(&mut self, entries: &[Vec<u8>], note: Vec<u8>) {
        for entry in entries {
            self.ready.extend(self.tiles.push(leaf_hash(entry)));
            // The writer refused entries that are too long.
            let _fits = write_entry(&mut self.bundle, entry);
            self.waiting_bytes += bytes_of(entry);
            self.size += 1;
            if self.size.is_multiple_of(256) {
                let tile = Tile::full(TileKind::Entries, self.size / 256 - 1);
                self.ready.push((tile, std::mem::take(&mut self.bundle)));
            }
        }
        self.note = Some(note);
    }

    fn publish_or_fail(&mut self) {
        if self.state.failure().is_some() {
            return;
        }
        if let Err(error) = self.publish() {
            self.state.fail("tiles", &error);
        }
    }

    fn publish(&mut self) -> io::Result<()> {
        let Some(note) = self.note.take() else { return Ok(()) };
        let partial = self.partial_tiles();
        let mut changed = BTreeSet::new();
        for (tile, bytes) in self.ready.drain(..).chain(partial.iter().cloned()) {
            write_tile(&self.directory, tile, &bytes, &mut changed)?;
        }
        changed.iter().try_for_each(|directory| sync_directory(directory))?;
        newest::hold(&self.newest).settle()?;
        replace(&self.directory.join(PUBLISHED), &note)?;
        sync_directory(&self.directory)?;
        self.tell(note);
        self.remove_partial(partial.into_iter().map(|(tile, _)| tile).collect())?;
        self.remove_segments()?;
        self.state.backlog_bytes.fetch_sub(self.waiting_bytes, Ordering::Relaxed);
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Lets witnesses be shown the state that `note` signs, whose tiles are all there.
    pub(super) fn tell(&self, note: Vec<u8>) {
        let last = self.tiles.last_leaves().to_vec();
        let publication = Publication { note, size: self.size, last };
        self.state.publications.send_replace(Some(Arc::new(publication)));
    }

    fn partial_tiles(&self) -> Vec<(Tile, Vec<u8>)> {
        let mut partial = self.tiles.partial();
        if let Some(width) = u16::try_from(self.size % 256).ok().filter(|width| *width > 0) {
            let tile = Tile { kind: TileKind::Entries, index: self.size / 256, width };
            partial.push((tile, self.bundle.clone()));
        }
        partial
    }

    fn remove_partial(&mut self, current: Vec<Tile>) -> io::Result<()> {
        for tile in std::mem::take(&mut self.partial) {
            if current.contains(&tile) {
                continue;
            }
            let path = self.directory.join(tile.path());
            remove(&path)?;
            if let Some(parent) = path.parent() {
                // Fails, and should, while another partial tile is in it.
                let _not_empty = fs::remove_dir(parent);
            }
        }
        self.partial = current;
        Ok(())
    }

    fn remove_segments(&mut self) -> io::Result<()> {
        let floor = self.size / 256 * 256;
        while let Some((first, _)) = self.closed.front().filter(|(_, end)| *end <= floor) {
            remove(&self.directory.join(segment_path(*first)))?;
            self.closed.pop_front();
        }
        Ok(())
    }
}

/// What an entry counts in the backlog.
pub(super) fn bytes_of(entry: &[u8]) -> u64 {
    u64::try_from(entry.len()).unwrap_or(u64::MAX)
}

fn write_tile(root: &Path, tile: Tile, bytes: &[u8], changed: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let name = tile.path();
    let path = root.join(&name);
    match fs::read(&path) {
        // Left by a publication that did not end. Perhaps never synced: written again below.
        Ok(stored) if stored == bytes => {}
        Ok(_) => return Err(io::Error::other(JournalError::Failed(format!("`{name}` was changed").into()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    make_parents(root, &name, changed)?;
    replace(&path, bytes)
}
