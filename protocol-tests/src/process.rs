//! What the system says of a process: its memory, its CPU time, the log that it wrote; whose it is.

use std::path::Path;
use std::time::Duration;

/// Lines of a log that are shown when a test fails.
const LOG_LINES: usize = 60;

/// Bytes under a field of `/proc/PID/status`: VmRSS now, VmHWM at most.
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn memory(process: u32, field: &str) -> u64 {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = status.lines().find(|line| line.starts_with(field));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {field} in {path}")) * 1024
}

/// CPU time used so far, of all its threads.
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn cpu_time(process: u32) -> Duration {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // Behind the name, which may hold anything, utime and stime are the 12th and 13th field, in 1/100 s.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// The processes that have `NAME=VALUE` in the environment they began with.
///
/// # Panics
/// When the system does not list its processes.
#[must_use]
pub fn with_variable(variable: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap_or_else(|error| panic!("/proc: {error}"));
    let ids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|word| word == variable.as_bytes())
    })
    .collect()
}

/// Whether it runs: a zombie does not.
#[must_use]
pub fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default();
    !state.is_empty() && !state.trim_start().starts_with('Z')
}

/// Prints the last lines of a log.
pub fn show_log(path: &Path) {
    let log = std::fs::read_to_string(path).unwrap_or_default();
    eprintln!("── the last lines of {} ──", path.display());
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        eprintln!("{line}");
    }
}
