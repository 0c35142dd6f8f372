//! Any bytes as a DPoP proof, as a token and as a scope: no panic.
#![no_main]

use chartgate::domain::access::is_scope;
use chartgate::domain::identity::{fuzz_proof, fuzz_token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzz_proof(bytes);
    fuzz_token(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = is_scope(text);
    }
});
