//! See `laws::again`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chartgate::laws::again(bytes));
