//! Proofs that can be handed out and checked without the log: C2SP tlog-proof.
//!
//! Owns: the text form of an inclusion proof, files that hold several proofs, and checking them.
//! Must never: believe the extra line before the proof has tied it to a signed root.
//! Look next: `witness::AddCheckpoint`, the form of consistency proofs; <https://c2sp.org/tlog-proof>.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra …                                         here: the entry as stored, or its leaf hash alone (32 bytes)
//! index 73
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=    inclusion proof, from the leaf up
//!
//! chartgate/0b1c…                                 the checkpoint with its signatures
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::note::{Checkpoint, NoteError};
use super::proof::{check_consistency, check_inclusion};
use super::signed::{SignedCheckpoint, VerifierKey};
use super::tree::{Hash, leaf_hash};
use super::witness::{AddCheckpoint, hashes, number, write_hashes};
use crate::limits::{CONSISTENCY_HASHES_MAX, ENTRY_BYTES_MAX, NOTE_BYTES_MAX};

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// An inclusion proof with everything that checking it needs but the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// The entry as stored (encrypted), or its leaf hash: 32 bytes, shorter than any entry.
    pub extra: Vec<u8>,
    /// The entry's index.
    pub index: u64,
    /// From the leaf's sibling up.
    pub hashes: Vec<Hash>,
    /// The state of the log it is in.
    pub note: SignedCheckpoint,
}

impl InclusionProof {
    fn read(text: &str) -> Option<Self> {
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        lines.next().filter(|line| *line == HEADER)?;
        let extra = STANDARD.decode(lines.next()?.strip_prefix("extra ")?).ok()?;
        let index = number(lines.next()?.strip_prefix("index ")?)?;
        let hashes = hashes(lines).filter(|hashes| hashes.len() <= CONSISTENCY_HASHES_MAX)?;
        let note = SignedCheckpoint::parse(note.as_bytes()).ok()?;
        (extra.len() <= ENTRY_BYTES_MAX).then_some(Self { extra, index, hashes, note })
    }

    /// The leaf hash it is about.
    #[must_use]
    pub fn leaf(&self) -> Hash {
        Hash::from_slice(&self.extra).unwrap_or_else(|| leaf_hash(&self.extra))
    }
}

impl fmt::Display for InclusionProof {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{HEADER}\nextra {}\nindex {}", STANDARD.encode(&self.extra), self.index)?;
        write_hashes(out, &self.hashes)?;
        write!(out, "\n{}", self.note)
    }
}

/// One proof of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// An entry is in the log.
    Inclusion(InclusionProof),
    /// A later state of the log contains an earlier one.
    Consistency(AddCheckpoint),
}

/// What a proof that holds has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The state of the log that the log signed.
    pub checkpoint: Checkpoint,
    /// The witnesses that cosigned it, with the time in seconds since 1970.
    pub cosigned: Vec<(String, u64)>,
}

/// Why a proof does not prove anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofFault {
    /// Not a file of proofs.
    Malformed,
    /// The checkpoint is not to be believed.
    Note(NoteError),
    /// A witness that was asked for has not cosigned it, or its cosignature is wrong.
    Witness(String, NoteError),
    /// The hashes do not lead to the signed root.
    Hashes,
    /// The earlier checkpoint, which this kind of proof needs, was not given, or is of another size or log.
    Earlier,
}

impl fmt::Display for ProofFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => out.write_str("proof is malformed"),
            Self::Note(error) => fmt::Display::fmt(error, out),
            Self::Witness(name, error) => write!(out, "cosignature of `{name}`: {error}"),
            Self::Hashes => out.write_str("hashes do not lead to the signed root"),
            Self::Earlier => out.write_str("the earlier checkpoint of this log, of that size, is needed"),
        }
    }
}

impl std::error::Error for ProofFault {}

/// The proofs in a file, one after the other. A proof ends with its last signature line.
///
/// # Errors
/// [`ProofFault::Malformed`].
pub fn pieces(text: &str) -> Result<Vec<Piece>, ProofFault> {
    let mut found = Vec::new();
    let mut piece = String::new();
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        piece.push_str(line);
        let is_last = line.starts_with("— ") && lines.peek().is_none_or(|next| !next.starts_with("— "));
        if is_last {
            found.push(one_piece(&std::mem::take(&mut piece)).ok_or(ProofFault::Malformed)?);
        }
    }
    if piece.is_empty() && !found.is_empty() { Ok(found) } else { Err(ProofFault::Malformed) }
}

fn one_piece(text: &str) -> Option<Piece> {
    if text.len() > NOTE_BYTES_MAX + 2 * ENTRY_BYTES_MAX {
        return None;
    }
    if text.starts_with(HEADER) {
        return InclusionProof::read(text).map(Piece::Inclusion);
    }
    AddCheckpoint::parse(text.as_bytes()).ok().map(Piece::Consistency)
}

impl Piece {
    /// Checks it: the log's signature, that of every witness asked for, and the hashes. `earlier` is the checkpoint from
    /// which a consistency proof leads.
    ///
    /// # Errors
    /// [`ProofFault`].
    pub fn check(
        &self,
        log: &VerifierKey,
        witnesses: &[VerifierKey],
        earlier: Option<&SignedCheckpoint>,
    ) -> Result<Checked, ProofFault> {
        let note = match self {
            Self::Inclusion(proof) => &proof.note,
            Self::Consistency(proof) => &proof.note,
        };
        note.signed_by(log).map_err(ProofFault::Note)?;
        let mut cosigned = Vec::new();
        for witness in witnesses {
            let at = note.cosigned_by(witness);
            let at = at.map_err(|error| ProofFault::Witness(witness.name().to_owned(), error))?;
            cosigned.push((witness.name().to_owned(), at));
        }
        let checkpoint = note.checkpoint().clone();
        let (size, root) = (checkpoint.size, checkpoint.root);
        match self {
            Self::Inclusion(proof) => check_inclusion(&proof.hashes, proof.index, proof.leaf(), size, root),
            Self::Consistency(proof) => {
                let earlier = earlier.filter(|earlier| {
                    let from = earlier.checkpoint();
                    from.origin == checkpoint.origin && from.size == proof.old
                });
                let earlier = earlier.ok_or(ProofFault::Earlier)?;
                earlier.signed_by(log).map_err(ProofFault::Note)?;
                check_consistency(&proof.proof, (proof.old, earlier.checkpoint().root), (size, root))
            }
        }
        .map_err(|_| ProofFault::Hashes)?;
        Ok(Checked { checkpoint, cosigned })
    }
}
