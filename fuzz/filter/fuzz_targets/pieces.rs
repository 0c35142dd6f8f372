//! See `laws::pieces`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chartgate::laws::pieces(bytes));
