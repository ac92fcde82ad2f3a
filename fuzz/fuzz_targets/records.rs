//! See `tests/fuzzing/src/records.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::records::run(input));
