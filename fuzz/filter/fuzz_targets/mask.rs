//! See `laws::mask_compiler`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chartgate::laws::mask_compiler(bytes));
