//! See `chartgate_fuzz::ledger`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chartgate_fuzz::ledger(bytes));
