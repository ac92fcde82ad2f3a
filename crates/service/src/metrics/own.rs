//! What the process itself takes, as Linux tells it in `/proc`; elsewhere there are no such numbers.
//!
//! They go by the names that Prometheus's own clients give them, so that dashboards know them.

use std::fs;

use super::{Metric, Metrics, as_f64};

/// How many times a second the kernel counts processor time: `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Has everything read.
pub(super) fn register(metrics: &Metrics) {
    let help = "Processor time that this process has used, user and system together.";
    metrics.seconds(Metric::new("process.cpu", "s", help), || {
        ticks(&fs::read_to_string("/proc/self/stat").ok()?).map(|ticks| ticks / TICKS_PER_SECOND)
    });
    let help = "When this process was started, in seconds since 1970.";
    // Read once: a clock that is set would move it, and it would look like another start.
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let started = started(&read("/proc/self/stat"), &read("/proc/stat"));
    metrics.gauge(Metric::new("process.start_time", "s", help), move || started);
    let help = "Memory of this process that is in use, in bytes.";
    metrics.gauge(Metric::new("process.resident_memory", "By", help), || {
        resident(&fs::read_to_string("/proc/self/status").ok()?)
    });
    let help = "Files, sockets and pipes that this process has open.";
    metrics.gauge(Metric::new("process.open_fds", "{descriptor}", help), || {
        // The directory itself is open while it is read.
        Some(as_f64(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1)))
    });
    let help = "How many of them it may have open. At the limit, connections are refused.";
    metrics.gauge(Metric::new("process.max_fds", "{descriptor}", help), || {
        descriptors_max(&fs::read_to_string("/proc/self/limits").ok()?)
    });
}

/// The ticks of user and system time in `proc_pid_stat(5)`.
fn ticks(stat: &str) -> Option<f64> {
    Some(field(stat, 14)? + field(stat, 15)?)
}

/// When a process was started, from `proc_pid_stat(5)` and, for when the machine was, `proc_stat(5)`.
fn started(stat: &str, kernel: &str) -> Option<f64> {
    let boot = kernel.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + field(stat, 22)? / TICKS_PER_SECOND)
}

/// A number in `proc_pid_stat(5)`, counted from 1 as it is there.
fn field(stat: &str, number: usize) -> Option<f64> {
    // The second field is the program's name in brackets, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// The resident memory in `proc_pid_status(5)`, in bytes.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024.0)
}

/// The soft limit of open files in `proc_pid_limits(5)`; `None` if there is none.
fn descriptors_max(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 900 0 3 0 250 50 0 0 20 0 4 0 1 1 1";
        assert_eq!(ticks(stat), Some(300.0));
        let kernel = "cpu  1 2 3\nbtime 1790000000\nprocesses 9\n";
        assert_eq!(started(stat, kernel), Some(1_790_000_000.01));
        assert_eq!(started(stat, ""), None);
        assert_eq!(resident("VmPeak: 9 kB\nVmRSS:\t   2048 kB\n"), Some(2_097_152.0));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        assert_eq!(descriptors_max(limits), Some(1_024.0));
        assert_eq!(descriptors_max("Max open files  unlimited  unlimited  files"), None);
        assert_eq!((ticks(""), resident(""), descriptors_max("")), (None, None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_takes_something() {
        let text = Metrics::default().text();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0, "{text}");
        assert!(value("process_open_fds") > 2.0, "{text}");
        assert!(value("process_start_time_seconds") > 1_000_000_000.0, "{text}");
        assert!(text.contains("# TYPE process_cpu_seconds_total counter"), "{text}");
    }
}
