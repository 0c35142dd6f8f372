//! Proofs about single entries of a trail, for people who have nothing but the log's public key.
//!
//! Owns: finding the entries, making the proofs from tiles and segments, and checking each before it is handed out.
//! Must never: put anything decrypted into a proof; take the journal's lock.
//! Look next: `domain::ledger::pieces`, which reads them again; `cli::audit`, which prints.

use std::collections::BTreeSet;
use std::path::Path;

use super::inspect::Finding;
use super::keys::Keys;
use super::layout::CHECKPOINT;
use super::newest;
use super::segments::Edge;
use super::snapshot::{Entry, Snapshot, read_entries};
use super::withheld::{Withheld, leaves};
use super::witnessed::{Witnessed, subtrees};
use crate::domain::audit::Assembly;
use crate::domain::ledger::{
    AddCheckpoint, Hash, InclusionProof, KeyKind, Piece, SignedCheckpoint, Tile, TileKind, VerifierKey,
    leaf_hash, prove_consistency, prove_inclusion, read_bundle, verify,
};

/// What a proof should show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The leaf hash in place of the encrypted entry.
    pub hash_only: bool,
    /// Against the largest cosigned checkpoint, not the newest one.
    pub witnessed: bool,
    /// Also that the log of this checkpoint only grew.
    pub from: Option<&'a SignedCheckpoint>,
}

/// The entries of all records of a request, in sequence.
///
/// # Errors
/// What is wrong with the trail.
pub fn entries_of_request(directory: &Path, keys: &Keys, request_id: &str) -> Result<BTreeSet<u64>, Finding> {
    let mut found = BTreeSet::new();
    let mut assembly = Assembly::default();
    let mut fault = None;
    read_entries(directory, keys, &mut |Entry { sequence, part }| {
        let record = part.and_then(|part| {
            let place = format!("entry {sequence}");
            assembly.push(sequence, part).map_err(|error| Finding { place, what: error.to_string() })
        });
        match record {
            Ok(Some((first, record))) if record.request_id() == Some(request_id) => {
                found.extend(first..=sequence);
            }
            Ok(_) => {}
            Err(finding) => fault = fault.take().or(Some(finding)),
        }
        Ok(())
    })?;
    fault.map_or(Ok(found), Err)
}

/// The log's verifier key, as its newest checkpoint names it.
///
/// # Errors
/// When there is no checkpoint by this key.
pub fn verifier(directory: &Path, keys: &Keys) -> Result<VerifierKey, Finding> {
    let fault = |what: String| Finding { place: CHECKPOINT.to_owned(), what };
    let note = newest::read(directory).map_err(|error| fault(error.to_string()))?;
    let note = note.ok_or_else(|| fault("is missing".to_owned()))?;
    let checkpoint = verify(keys.signer.key(), &note).map_err(|error| fault(error.to_string()))?;
    VerifierKey::new(&checkpoint.origin, KeyKind::Log, keys.signer.key())
        .ok_or_else(|| fault("names no log".to_owned()))
}

/// A proof for each entry of `sequences`, and one of consistency where that was asked for. Each was checked.
///
/// # Errors
/// An entry that is not there or not yet covered, or a trail that does not prove what it should: `audit verify` tells more.
pub fn prove(
    directory: &Path,
    keys: &Keys,
    sequences: &BTreeSet<u64>,
    asked: Asked<'_>,
) -> Result<Vec<Piece>, Finding> {
    let fault = |what: String| Finding { place: CHECKPOINT.to_owned(), what };
    let log = verifier(directory, keys)?;
    let snapshot = Snapshot::take(directory).map_err(|error| fault(error.to_string()))?;
    let edge = Edge::read(&snapshot.segments, keys.signer.key());
    let note = if asked.witnessed {
        cosigned(&snapshot, keys).ok_or_else(|| fault("no witness has cosigned one".to_owned()))?
    } else {
        let bytes = snapshot.checkpoint.as_deref().unwrap_or_default();
        SignedCheckpoint::parse(bytes).map_err(|error| fault(error.to_string()))?
    };
    let withheld = Withheld::load(directory, log.name(), keys).map_err(|error| fault(error.to_string()))?;
    let prover = Prover { snapshot: &snapshot, edge: &edge, note, withheld };
    let mut pieces = Vec::new();
    for sequence in sequences {
        pieces.push(Piece::Inclusion(prover.inclusion(*sequence, asked.hash_only)?));
    }
    if let Some(from) = asked.from {
        pieces.push(Piece::Consistency(prover.consistency(from.checkpoint().size)?));
    }
    for piece in &pieces {
        piece.check(&log, &[], asked.from).map_err(|error| fault(format!("{error}; see `audit verify`")))?;
    }
    Ok(pieces)
}

/// The largest cosigned checkpoint, with the cosignatures of all who cosigned the same.
fn cosigned(snapshot: &Snapshot, keys: &Keys) -> Option<SignedCheckpoint> {
    let read =
        |(_, key, bytes): &(String, [u8; 32], Vec<u8>)| Witnessed::read(*key, bytes, keys.signer.key()).ok();
    let kept: Vec<Witnessed> = snapshot.witnessed.iter().filter_map(read).collect();
    let largest = kept.iter().max_by_key(|kept| kept.checkpoint().size)?;
    let mut note = largest.note.clone();
    let text = note.text().to_owned();
    for other in kept.iter().filter(|other| other.note.text() == text && other.witness != largest.witness) {
        let lines = other.note.only(&[&other.witness]).signature_lines();
        note = note.with_lines(lines.as_bytes()).ok()?;
    }
    Some(note)
}

struct Prover<'p> {
    snapshot: &'p Snapshot,
    edge: &'p Edge<'p>,
    note: SignedCheckpoint,
    withheld: Withheld,
}

impl Prover<'_> {
    fn size(&self) -> u64 {
        self.note.checkpoint().size
    }

    fn inclusion(&self, sequence: u64, hash_only: bool) -> Result<InclusionProof, Finding> {
        let fault = |what: &str| Finding { place: format!("entry {sequence}"), what: what.to_owned() };
        if sequence >= self.size() {
            return Err(fault("is not covered by that checkpoint, or not there at all"));
        }
        let entry = self.entry(sequence);
        if entry.is_none() && !hash_only && self.is_withheld(sequence) {
            return Err(fault("is withheld: only its hash can be proved (--hash-only)"));
        }
        let own = self.leaf(sequence).ok_or_else(|| fault("cannot be read"))?;
        let mut leaf = |index| self.leaf(index);
        let mut read = subtrees(&self.snapshot.directory, &mut leaf);
        let hashes = prove_inclusion(&mut read, sequence, self.size());
        let hashes = hashes.ok_or_else(|| fault("tiles for its proof are missing"))?;
        let extra = match entry.filter(|_| !hash_only) {
            Some(entry) => entry,
            None => own.as_bytes().to_vec(),
        };
        Ok(InclusionProof { extra, index: sequence, hashes, note: self.note.clone() })
    }

    fn consistency(&self, old: u64) -> Result<AddCheckpoint, Finding> {
        let mut leaf = |index| self.leaf(index);
        let mut read = subtrees(&self.snapshot.directory, &mut leaf);
        let proof = prove_consistency(&mut read, old, self.size()).ok_or_else(|| Finding {
            place: "the earlier checkpoint".to_owned(),
            what: "is of no earlier state of this trail".to_owned(),
        })?;
        Ok(AddCheckpoint { old, proof, note: self.note.clone() })
    }

    /// The hash of an entry; of one that is withheld, from the tile above it.
    fn leaf(&self, sequence: u64) -> Option<Hash> {
        if let Some(entry) = self.entry(sequence) {
            return Some(leaf_hash(&entry));
        }
        let hashes =
            self.is_withheld(sequence).then(|| leaves(&self.snapshot.directory, sequence / 256).ok());
        hashes.flatten()?.get(usize::try_from(sequence % 256).ok()?).copied()
    }

    fn is_withheld(&self, sequence: u64) -> bool {
        self.withheld.bundles.contains(sequence / 256)
    }

    /// An entry as stored.
    fn entry(&self, sequence: u64) -> Option<Vec<u8>> {
        if let Some(entry) = self.edge.entry(sequence) {
            return Some(entry.to_vec());
        }
        let bundle = self.snapshot.read_tile(Tile::full(TileKind::Entries, sequence / 256)).ok()?;
        let entries = read_bundle(&bundle).ok()?;
        entries.get(usize::try_from(sequence % 256).ok()?).map(|entry| entry.to_vec())
    }
}
