//! See `chartgate_fuzz::oracle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chartgate_fuzz::oracle(bytes));
