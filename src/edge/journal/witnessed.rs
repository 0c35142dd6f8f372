//! What witnesses said of the trail: their newest cosigned checkpoint, kept in the audit directory as evidence.
//!
//! Owns: the files below `witness/`, and what verification says of them. A file is named after the witness's public key
//! and holds the log's signature and that witness's cosignature, so that every byte of it and its name can be checked
//! without any configuration.
//! Must never: write a file that does not verify; take an older cosignature for a newer one.
//! Look next: `edge::cosigning`, which asks the witnesses; `inspect`, which checks.

use std::fs;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::inspect::Finding;
use super::layout::{WITNESSED, make_directory, replace, sync_directory};
use crate::domain::ledger::{
    Checkpoint, Hash, KeyKind, LogKey, NoteError, SignedCheckpoint, VerifierKey, prove_consistency, subtree,
};

/// A checkpoint that a witness cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// The witness.
    pub witness: VerifierKey,
    /// When it cosigned, by its own clock.
    pub at: Timestamp,
    /// The checkpoint with the log's signature and the cosignature.
    pub note: SignedCheckpoint,
}

impl Witnessed {
    /// Checks both signatures, and keeps these two alone.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn new(log: &VerifierKey, witness: &VerifierKey, note: &SignedCheckpoint) -> Result<Self, NoteError> {
        if note.checkpoint().origin != log.name() {
            return Err(NoteError::NotOurs);
        }
        note.signed_by(log)?;
        let seconds = i64::try_from(note.cosigned_by(witness)?).map_err(|_| NoteError::BadSignature)?;
        let at = Timestamp::from_second(seconds).map_err(|_| NoteError::BadSignature)?;
        Ok(Self { witness: witness.clone(), at, note: note.only(&[log, witness]) })
    }

    /// What was cosigned.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        self.note.checkpoint()
    }

    /// Reads a kept file, in the only spelling there is. Its name must be that of the witness's key.
    pub(super) fn read(key: [u8; 32], bytes: &[u8], log: &LogKey) -> Result<Self, NoteError> {
        let note = SignedCheckpoint::parse(bytes)?;
        let log =
            VerifierKey::new(&note.checkpoint().origin, KeyKind::Log, log).ok_or(NoteError::Malformed)?;
        let witness = VerifierKey::new(note.last_name(), KeyKind::Witness, &LogKey::new(key));
        let read = Self::new(&log, &witness.ok_or(NoteError::Malformed)?, &note)?;
        if read.note.to_string().as_bytes() == bytes { Ok(read) } else { Err(NoteError::Malformed) }
    }

    /// Keeps it in the audit directory, in place of an older one by the same witness.
    ///
    /// # Errors
    /// When the file cannot be written; what stood there before then still does.
    pub fn keep(&self, directory: &Path) -> io::Result<()> {
        let folder = directory.join(WITNESSED);
        match make_directory(&folder) {
            Ok(()) => sync_directory(directory)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        replace(&directory.join(path(&self.witness.public())), self.note.to_string().as_bytes())?;
        sync_directory(&folder)
    }

    /// What is kept of this witness, if anything is.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what was written.
    pub fn kept(directory: &Path, log: &LogKey, witness: &VerifierKey) -> io::Result<Option<Self>> {
        match fs::read(directory.join(path(&witness.public()))) {
            Ok(bytes) => {
                let read = Self::read(witness.public().public(), &bytes, log).map_err(io::Error::other)?;
                Ok(Some(read).filter(|read| read.witness == *witness))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where a witness's file is.
fn path(witness: &LogKey) -> String {
    let key = witness.public();
    key.iter().fold(format!("{WITNESSED}/"), |path, byte| format!("{path}{byte:02x}"))
}

/// The key after which a file is named.
pub(super) fn key_of(name: &str) -> Option<[u8; 32]> {
    let digits = name.strip_prefix(WITNESSED)?.strip_prefix('/')?;
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let key: Vec<u8> = digits.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?;
    let key = key.try_into().ok()?;
    (path(&LogKey::new(key)) == name).then_some(key)
}

/// What a configuration demands of the trail's witnesses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand<'r> {
    /// Each of these must have cosigned.
    pub witnesses: &'r [VerifierKey],
    /// By how much a record may be younger than the newest cosignature that does not cover it.
    pub age_max: Option<SignedDuration>,
}

impl Demand<'_> {
    /// What is missing. `latest` is the time of the newest record, `size` the number of entries.
    pub(super) fn missing(&self, kept: &[Witnessed], size: u64, latest: Option<Timestamp>) -> Vec<Finding> {
        let finding = |witness: &VerifierKey, what: String| Finding {
            place: format!("{} ({})", path(&witness.public()), witness.name()),
            what,
        };
        let mut findings = Vec::new();
        for witness in self.witnesses {
            let Some(kept) = kept.iter().find(|kept| kept.witness == *witness) else {
                findings.push(finding(witness, "is missing: this witness has cosigned nothing".to_owned()));
                continue;
            };
            let (covered, at) = (kept.checkpoint().size, kept.at);
            let is_late =
                latest.zip(self.age_max).is_some_and(|(latest, most)| latest.duration_since(at) > most);
            if covered < size && is_late {
                let what = format!(
                    "is too old: it covers {covered} of {size} entries and is of {at}, the newest record of {}",
                    latest.unwrap_or_default()
                );
                findings.push(finding(witness, what));
            }
        }
        findings
    }
}

/// A state of the log whose tiles are all there, with what proofs need that is in no full tile.
#[derive(Debug)]
pub struct Publication {
    /// The signed checkpoint.
    pub(super) note: Vec<u8>,
    /// Entries.
    pub(super) size: u64,
    /// The leaf hashes behind the last full tile.
    pub(super) last: Vec<Hash>,
}

impl Publication {
    /// Entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The checkpoint with the log's signature.
    ///
    /// # Errors
    /// [`NoteError`], when it is not what the log writes.
    pub fn checkpoint(&self) -> Result<SignedCheckpoint, NoteError> {
        SignedCheckpoint::parse(&self.note)
    }

    /// The proof that the state of `old` entries is a beginning of this one, read from the tiles in `directory`. What it
    /// is worth depends on the tiles: the one who is given it checks it.
    #[must_use]
    pub fn consistency(&self, directory: &Path, old: u64) -> Option<Vec<Hash>> {
        let floor = self.size / 256 * 256;
        let mut leaf = |index: u64| {
            let place = usize::try_from(index.checked_sub(floor)?).ok()?;
            self.last.get(place).copied()
        };
        prove_consistency(&mut subtrees(directory, &mut leaf), old, self.size)
    }
}

/// Subtrees out of the full tiles in `directory`, and out of `leaf` where there are none.
pub(super) fn subtrees<'r>(
    directory: &'r Path,
    leaf: &'r mut dyn FnMut(u64) -> Option<Hash>,
) -> impl FnMut(u8, u64) -> Option<Hash> + 'r {
    move |level, index| {
        let mut tile = |tile: crate::domain::ledger::Tile| fs::read(directory.join(tile.path())).ok();
        subtree(level, index, &mut tile, leaf)
    }
}
