//! See `tests/fuzzing/src/snapshots.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::snapshots::run(input));
