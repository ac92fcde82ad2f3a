//! Every seed of every target, and changes of them that chance makes: the same in every run.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use fanfare_fuzzing::{TARGETS, Target};

/// The least number of seeds of a target, and the longest one in bytes.
const SEEDS_MIN: usize = 10;
const BYTES_MAX: usize = 4 * 1_024;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// A target's seeds with their names, in order.
fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder().join("seeds").join(name);
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().display().to_string(), fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

/// Runs a target, and says with which input it failed.
fn run(target: &Target, input: &[u8], what: &str) {
    let run = AssertUnwindSafe(|| (target.run)(input));
    assert!(
        catch_unwind(run).is_ok(),
        "{} fails with {what}: \"{}\"",
        target.name,
        input.escape_ascii()
    );
}

/// Chance that is the same in every run (xorshift).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap()
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() % end.max(1)
    }

    /// Changes an input in one to four places; `other` is another input of the same target.
    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        const TOKENS: [&[u8]; 12] =
            [b"\0", b"\xff", b"\n", b"\"", b"{", b"}", b"%", b":", b".", b"0", b"-", b"\n---\n"];
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            let end = at + self.below(16.min(input.len() - at) + 1);
            match self.below(6) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => input[at] = u8::try_from(self.below(256)).unwrap(),
                2 => drop(input.drain(at..end)),
                3 => {
                    let again = input[at..end].to_vec();
                    input.splice(at..at, again);
                }
                4 => {
                    let from = self.below(other.len() + 1);
                    let until = from + self.below(32.min(other.len() - from) + 1);
                    input.splice(at..end, other[from..until].iter().copied());
                }
                _ => {
                    let token = TOKENS[self.below(TOKENS.len())];
                    input.splice(at..at, token.iter().copied());
                }
            }
        }
    }
}

/// Plays a target's seeds, and changes of them.
fn play(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = seeds(name);
    assert!(seeds.len() >= SEEDS_MIN, "{name} has {} seeds", seeds.len());
    for (file, seed) in &seeds {
        assert!(seed.len() <= BYTES_MAX, "the seed {file} of {name} has {} bytes", seed.len());
        run(target, seed, file);
    }
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for number in 0..target.changes {
        let (file, seed) = &seeds[chance.below(seeds.len())];
        let other = &seeds[chance.below(seeds.len())].1;
        let mut input = seed.clone();
        chance.change(&mut input, other);
        run(target, &input, &format!("change {number}, of {file}"));
    }
}

macro_rules! each {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            play(stringify!($name));
        })*

        #[test]
        fn every_target_is_played_and_is_a_program_that_is_fuzzed() {
            let played = [$(stringify!($name)),*];
            assert_eq!(played, TARGETS.map(|target| target.name));
            let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
            let manifest: toml::Table = manifest.parse().unwrap();
            let programs = manifest["bin"].as_array().unwrap();
            let names: Vec<_> = programs.iter().map(|it| it["name"].as_str().unwrap()).collect();
            assert_eq!(names, played);
            for name in played {
                let program = folder().join("fuzz_targets").join(name).with_extension("rs");
                let text = fs::read_to_string(program).unwrap();
                assert!(text.contains(&format!("fanfare_fuzzing::{name}::run")), "{name}");
            }
        }
    };
}

each! {
    addresses cloudevents conditions filters json numbers profiles records signatures snapshots
    texts urls
}
