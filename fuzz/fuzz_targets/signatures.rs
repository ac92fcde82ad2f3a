//! See `tests/fuzzing/src/signatures.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::signatures::run(input));
