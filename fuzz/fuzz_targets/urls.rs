//! See `tests/fuzzing/src/urls.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::urls::run(input));
