//! The machine that the figures are of: they mean nothing without it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde::Serialize;

/// What is known of the machine and of what runs on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// How many threads can run at once.
    pub(crate) cores: usize,
    /// What the processor calls itself.
    pub(crate) processor: String,
    /// All of the memory, in bytes.
    pub(crate) memory_bytes: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The load average of the last minute, before the benchmark began.
    pub(crate) load_before: f64,
    /// What nats-server says its version is.
    pub(crate) nats_server: String,
    /// This program's version.
    pub(crate) fanfare: &'static str,
    /// How it was built: only the figures of `release` say much.
    pub(crate) build: &'static str,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look(nats_server: &Path) -> Self {
        let version = Command::new(nats_server).arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let version = version.unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            processor: processor(&read("/proc/cpuinfo")),
            memory_bytes: memory(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: first_number(&read("/proc/loadavg")),
            nats_server: version_of(&version),
            fanfare: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }

    /// One line about it, for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} cores ({}), {} GiB, load {:.1} before, nats-server {}, fanfare {} ({} build)",
            self.cores,
            self.processor,
            self.memory_bytes >> 30,
            self.load_before,
            self.nats_server,
            self.fanfare,
            self.build,
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The version in what `nats-server --version` says, `nats-server: v2.15.1`.
fn version_of(said: &str) -> String {
    let last = said.split_whitespace().next_back().unwrap_or_default();
    last.strip_prefix('v').unwrap_or(last).to_owned()
}

fn first_number(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

fn processor(text: &str) -> String {
    let names: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "model name")
        .map(|(_, name)| name.trim())
        .collect();
    names.into_iter().next().unwrap_or("unknown").to_owned()
}

fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next());
    kibibytes.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        assert_eq!(processor("processor : 0\nmodel name\t: Fast 9000\nflags : a"), "Fast 9000");
        assert_eq!(memory("MemTotal:       2048 kB\nMemFree: 1 kB"), 2_097_152);
        assert_eq!(first_number("0.52 0.40 0.30").to_string(), "0.52");
        assert!(first_number("").is_nan());
        assert_eq!(version_of("nats-server: v2.15.1\n"), "2.15.1");
    }
}
