//! See `tests/fuzzing/src/json.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::json::run(input));
