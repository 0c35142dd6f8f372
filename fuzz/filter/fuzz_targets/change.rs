//! See `chartgate_fuzz::change`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chartgate_fuzz::change(bytes));
