//! What must hold of every input that strangers send, as functions that panic where it does not.
//!
//! Each target takes bytes. `fuzz/` has `libFuzzer` look for bytes that break one; `cargo test` plays
//! all seeds of `fuzz/seeds`, and some changes of each, through the same functions. A target checks
//! against something else than what it tests: another parser, another way to count, or the way back.

#![expect(clippy::missing_panics_doc, reason = "to panic is how a target says what is wrong")]

mod input;
mod sample;

pub mod addresses;
pub mod cloudevents;
pub mod conditions;
pub mod filters;
pub mod json;
pub mod numbers;
pub mod profiles;
pub mod records;
pub mod signatures;
pub mod snapshots;
pub mod texts;
pub mod urls;

/// Something that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the module here, of the program in `fuzz/fuzz_targets` and of the folder in
    /// `fuzz/seeds`.
    pub name: &'static str,
    /// Panics if the input shows a mistake.
    pub run: fn(&[u8]),
    /// How many changed inputs `cargo test` plays: few where one takes long.
    pub changes: u32,
}

/// Every target.
pub const TARGETS: [Target; 12] = [
    Target { name: "addresses", run: addresses::run, changes: 10_000 },
    Target { name: "cloudevents", run: cloudevents::run, changes: 5_000 },
    Target { name: "conditions", run: conditions::run, changes: 1_000 },
    Target { name: "filters", run: filters::run, changes: 2_500 },
    Target { name: "json", run: json::run, changes: 5_000 },
    Target { name: "numbers", run: numbers::run, changes: 2_000 },
    Target { name: "profiles", run: profiles::run, changes: 500 },
    Target { name: "records", run: records::run, changes: 5_000 },
    Target { name: "signatures", run: signatures::run, changes: 1_000 },
    Target { name: "snapshots", run: snapshots::run, changes: 5_000 },
    Target { name: "texts", run: texts::run, changes: 5_000 },
    Target { name: "urls", run: urls::run, changes: 5_000 },
];
