//! See `tests/fuzzing/src/texts.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::texts::run(input));
