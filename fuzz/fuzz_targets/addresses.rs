//! See `tests/fuzzing/src/addresses.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::addresses::run(input));
