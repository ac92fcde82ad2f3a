//! What processes cost: processor time and memory, as the kernel counts them.

use std::fs;

use anyhow::{Context as _, Result};

/// Ticks per second of the counts in `/proc`: the kernel's `USER_HZ`, 100 on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the processor seconds, user and system, that a process has used so far.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The second field is the name in brackets, and may hold anything.
    let (_, rest) = text.rsplit_once(')').context("find the end of the process's name")?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || -> Result<f64> {
        Ok(fields.next().context("find the process's ticks")?.parse::<u32>()?.into())
    };
    Ok((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// Returns the resident memory of a process, in bytes. A page that processes share, as those of one
/// program do, counts for each of them by its part, so that the sum over processes is what they
/// take together: `Pss` in proc_pid_smaps(5).
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kibibytes = kibibytes.with_context(|| format!("find the resident memory in {path}"))?;
    Ok(kibibytes.trim().parse::<u64>()? * 1_024)
}

/// Processor time of several processes between two moments.
#[derive(Debug)]
pub(crate) struct Meter {
    pids: Vec<u32>,
    before: f64,
}

impl Meter {
    /// Begins to count.
    pub(crate) fn start(pids: &[u32]) -> Result<Self> {
        Ok(Self { pids: pids.to_vec(), before: total(pids)? })
    }

    /// Returns the processor seconds used since the start.
    pub(crate) fn seconds(&self) -> Result<f64> {
        Ok(total(&self.pids)? - self.before)
    }
}

fn total(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| cpu_seconds(*pid)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_costs_something() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
    }
}
