//! See `tests/fuzzing/src/numbers.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::numbers::run(input));
