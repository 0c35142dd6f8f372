//! The ledger: how tampering shows.
//!
//! Owns: RFC 6962 hashing and proofs, C2SP tlog-tiles coordinates and bundles, C2SP checkpoints, signed notes, cosignatures
//! and proofs, and what a witness answers.
//! Must never: know what an entry means, read a file, or make a key: bytes and keys are arguments.
//! Look next: `tree` for the hashes, `tile` for the layout, `note` for the signature; `edge::journal` uses them.

mod note;
mod proof;
mod signed;
mod statement;
#[cfg(test)]
mod tests;
mod tile;
mod tlog_proof;
mod tree;
mod witness;
#[cfg(test)]
mod witness_tests;

pub use note::{Checkpoint, LogKey, LogSigner, NoteError, sign, verify};
pub use proof::{
    ProofError, Subtrees, check_consistency, check_inclusion, prove_consistency, prove_inclusion, subtree,
};
pub use signed::{KeyKind, KeyTextError, SignedCheckpoint, VerifierKey, cosign};
pub use statement::{sign_statement, verify_statement};
pub use tile::{BundleError, Tile, TileKind, Tiles, read_bundle, write_entry};
pub use tlog_proof::{Checked, InclusionProof, Piece, ProofFault, pieces};
pub use tree::{Frontier, Hash, leaf_hash, node_hash};
pub use witness::{AddCheckpoint, Known, Refusal, TrustedLog, judge};
