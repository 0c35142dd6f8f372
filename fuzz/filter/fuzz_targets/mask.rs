//! See `chartgate_fuzz::mask_compiler`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chartgate_fuzz::mask_compiler(bytes));
