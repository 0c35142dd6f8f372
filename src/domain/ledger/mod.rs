//! The ledger: how tampering shows.
//!
//! Owns: RFC 6962 hashing and proofs, C2SP tlog-tiles coordinates and bundles, C2SP checkpoints and signed notes.
//! Must never: know what an entry means, read a file, or make a key: bytes and keys are arguments.
//! Look next: `tree` for the hashes, `tile` for the layout, `note` for the signature; `edge::journal` uses them.

mod note;
mod proof;
#[cfg(test)]
mod tests;
mod tile;
mod tree;

pub use note::{Checkpoint, LogKey, LogSigner, NoteError, sign, verify};
pub use proof::{ProofError, check_consistency, check_inclusion, prove_consistency, prove_inclusion};
pub use tile::{BundleError, Tile, TileKind, Tiles, read_bundle, write_entry};
pub use tree::{Frontier, Hash, leaf_hash, node_hash};
