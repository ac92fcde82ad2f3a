//! See `tests/fuzzing/src/filters.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::filters::run(input));
