//! Passing over what is old when a trail is opened: full hash tiles stand for the entries below them.
//!
//! Owns: which entries are not read. Must never: pass over one that anything but the tree is judged by.
//! Look next: `verifier`, which reads them while the gate answers; `inspect`.

use std::io;

use super::super::withheld::hashes;
use super::{Trust, Walk};
use crate::domain::ledger::{Tile, TileKind};

impl Walk<'_> {
    /// Takes the next full tile of the row in the place of the entries below it, where that may be. What it says is held to the signed
    /// roots like everything else. Answers whether it did.
    pub(super) fn pass_over(&mut self, trust: Trust) -> io::Result<bool> {
        let first = self.report.resume.frontier.size();
        let span = 256_u64.saturating_pow(u32::from(trust.level).saturating_add(1));
        let tile = Tile::full(TileKind::Hashes(trust.level), first / span);
        if !first.is_multiple_of(span) || !self.may_pass(first, tile.entries_needed(), trust.newest) {
            return Ok(false);
        }
        // Where it cannot be read, the entries are.
        let Ok(hashes) = hashes(&self.snapshot.directory, tile) else { return Ok(false) };
        let Some(completed) = self.tiles.push_tile(trust.level, &hashes) else { return Ok(false) };
        let resume = &mut self.report.resume;
        let is_added =
            hashes.iter().all(|hash| resume.frontier.push_subtree(8 * u32::from(trust.level), *hash));
        if !is_added {
            return Err(io::Error::other("the tree ends inside a tile"));
        }
        resume.unread = resume.unread.saturating_add(span);
        // Which of them seal something is not known: those that could stay.
        let end = resume.frontier.size();
        let keys = self.key_files.files.iter().filter(|file| file.first < end);
        resume.used_keys.extend(keys.map(|file| file.id));
        for (tile, bytes) in completed {
            self.check_full(tile, &bytes)?;
        }
        self.check_at(end);
        Ok(true)
    }

    /// Whether nothing but the tree is judged by the entries from `first` to below `end`.
    fn may_pass(&self, first: u64, end: u64, newest: u64) -> bool {
        let is_old =
            end.saturating_add(newest) <= self.floor && end <= self.edge.start && end <= self.bundled;
        // The creation, and the record of a prune.
        let is_named = first == 0 || (first..end).contains(&self.withheld.sequence);
        let inside = first.saturating_add(1)..end;
        let is_signed = self.marks.range(inside.clone()).next().is_some();
        let is_stored = self.partial.range(inside).next().is_some();
        is_old && !is_named && !is_signed && !is_stored && !self.decode
    }
}
