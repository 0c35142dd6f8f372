//! What fuzzers ask of tokens, proofs and notes; `tests/fuzz.rs` asks the same of the seeds and of what is near them.
//!
//! Owns: the laws of what needs the whole program; those of the filter, masks and changes are in `laws`.
//! Must never: depend on a fuzzer, or accept less than the law because the bytes are odd.
//! Look next: `fuzz_targets`, a line for each; `seeds`, where a search begins.

#[path = "ledger.rs"]
mod ledger;

pub use ledger::{accepted, entry, ledger};

use chartgate::domain::access::is_scope;
use chartgate::domain::identity::{fuzz_proof, fuzz_token};

/// Any bytes as a DPoP proof, as a token and as a scope: an answer, and no panic.
pub fn dpop(bytes: &[u8]) {
    fuzz_proof(bytes);
    fuzz_token(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = is_scope(text);
    }
}
