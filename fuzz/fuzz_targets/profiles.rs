//! See `tests/fuzzing/src/profiles.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::profiles::run(input));
