//! What is withheld of the trail: entry bundles that a recorded prune removed, and whose hashes stay.
//!
//! Owns: the file `withheld`, a statement of the log: which bundles, and which entry records it.
//! Must never: be believed without its signature; be all there is (`inspect` reads the record it names).
//! Look next: `retention`, which writes it; `domain::audit::retention` for the record.

use std::fs;
use std::io;
use std::path::Path;

use super::keys::Keys;
use super::layout::{WITHHELD, replace, sync_directory};
use super::snapshot::read_if_there;
use crate::domain::audit::{Bundles, Control, Event, Pruned};
use crate::domain::ledger::{Hash, Tile, TileKind, sign_statement, verify_statement};
use crate::limits::WITHHELD_BYTES_MAX;

const KIND: &str = "chartgate audit withheld";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Withheld {
    /// The entry that records the prune.
    pub(super) sequence: u64,
    /// Every bundle that is withheld.
    pub(super) bundles: Bundles,
}

impl Withheld {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(bytes: &[u8], origin: &str, keys: &Keys) -> Result<Self, &'static str> {
        if u64::try_from(bytes.len()).is_ok_and(|length| length > WITHHELD_BYTES_MAX) {
            return Err("is too long");
        }
        let lines = verify_statement(keys.signer.key(), KIND, origin, bytes);
        let lines = lines.map_err(|_| "is not a statement that this log signed")?;
        let read = match lines.as_slice() {
            [sequence, bundles] => sequence.parse().ok().zip(Bundles::parse(bundles)),
            _ => None,
        };
        let read = read.map(|(sequence, bundles)| Self { sequence, bundles });
        read.filter(|read| read.lines() == lines).ok_or("is not written as a statement of what is withheld")
    }

    fn lines(&self) -> Vec<String> {
        vec![self.sequence.to_string(), self.bundles.to_string()]
    }

    /// What the directory says now. Nothing, where there is no file.
    pub(super) fn load(directory: &Path, origin: &str, keys: &Keys) -> io::Result<Self> {
        match read_if_there(&directory.join(WITHHELD))? {
            None => Ok(Self::default()),
            Some(bytes) => Self::read(&bytes, origin, keys)
                .map_err(|what| io::Error::other(format!("`{WITHHELD}` {what}"))),
        }
    }

    /// Puts it in the place of the one before. It lasts when this returns.
    pub(super) fn write(&self, directory: &Path, origin: &str, keys: &Keys) -> io::Result<()> {
        let bytes = sign_statement(&keys.signer, KIND, origin, &self.lines()).map_err(io::Error::other)?;
        replace(&directory.join(WITHHELD), &bytes)?;
        sync_directory(directory)
    }

    /// Whether a full bundle of entries may be missing.
    pub(super) fn covers(&self, tile: Tile) -> bool {
        tile.kind == TileKind::Entries && tile.is_full() && self.bundles.contains(tile.index)
    }
}

/// What the records of a trail say of prunes.
#[derive(Debug, Default)]
pub(super) struct Prunes {
    /// Bundles that are withheld and not there.
    pub(super) missing: u64,
    newest: Option<(u64, Pruned)>,
    /// The record that the file names, where it records what the file says.
    confirmed: Option<Pruned>,
}

impl Prunes {
    /// Takes the next control record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn learn(
        &mut self,
        sequence: u64,
        control: &Control,
        withheld: &Withheld,
    ) -> Result<(), &'static str> {
        if control.event != Event::Pruned {
            return Ok(());
        }
        let pruned = Pruned::read(control)?;
        if sequence == withheld.sequence && pruned.bundles == withheld.bundles {
            self.confirmed = Some(pruned.clone());
        }
        self.newest = Some((sequence, pruned));
        Ok(())
    }

    /// What is wrong (`Err`), or worth knowing.
    pub(super) fn judge(&self, withheld: Option<&Withheld>) -> Result<Option<String>, String> {
        let unfinished = self
            .newest
            .as_ref()
            .filter(|(sequence, _)| withheld.is_none_or(|withheld| *sequence > withheld.sequence));
        let unfinished = unfinished.map(|(sequence, _)| {
            format!("the prune that entry {sequence} records was not carried out; the next one does it")
        });
        let Some(withheld) = withheld else { return Ok(unfinished) };
        let Some(pruned) = &self.confirmed else {
            return Err(format!("entry {} does not record such a prune", withheld.sequence));
        };
        let (entries, policy) = (self.missing.saturating_mul(256), pruned.keep);
        let left = match withheld.bundles.count().saturating_sub(self.missing) {
            0 => String::new(),
            left => format!("; {left} bundles that may go are still there"),
        };
        let told = format!(
            "{entries} entries are withheld under the policy {policy}, as entry {} records{left}",
            withheld.sequence
        );
        Ok(Some(unfinished.map_or(told.clone(), |unfinished| format!("{told}; {unfinished}"))))
    }
}

/// The leaf hashes of a bundle, from the tile above it.
pub(super) fn leaves(directory: &Path, bundle: u64) -> io::Result<Vec<Hash>> {
    hashes(directory, Tile::full(TileKind::Hashes(0), bundle))
}

/// What a full hash tile says.
pub(super) fn hashes(directory: &Path, tile: Tile) -> io::Result<Vec<Hash>> {
    let bytes = fs::read(directory.join(tile.path()))?;
    let hashes: Option<Vec<Hash>> = bytes.chunks(32).map(Hash::from_slice).collect();
    let hashes = hashes.filter(|hashes| hashes.len() == 256);
    hashes.ok_or_else(|| io::Error::other(format!("`{}` does not hold 256 hashes", tile.path())))
}
