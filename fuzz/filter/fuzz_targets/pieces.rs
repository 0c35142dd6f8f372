//! See `chartgate_fuzz::pieces`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chartgate_fuzz::pieces(bytes));
