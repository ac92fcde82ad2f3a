//! See `tests/fuzzing/src/cloudevents.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fanfare_fuzzing::cloudevents::run(input));
