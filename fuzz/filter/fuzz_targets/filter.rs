//! See `chartgate_fuzz::filter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chartgate_fuzz::filter(bytes));
