//! See `tests/fuzzing/src/conditions.rs`.

#![no_main]

use std::{panic, process, sync::Once};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static ONCE: Once = Once::new();
    ONCE.call_once(let_the_parser_panic);
    fanfare_fuzzing::conditions::run(input);
});

/// Panics of the library that reads expressions are caught by us, and are no mistake; the fuzzer
/// takes every panic for one.
fn let_the_parser_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map(|location| location.file()).unwrap_or_default();
        if !["cel-", "antlr"].iter().any(|library| file.contains(library)) {
            report(panic);
            process::abort();
        }
    }));
}
