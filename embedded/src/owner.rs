//! Who claims: a process named so that a later process of the same number is not taken for it. Also the one clock reading of this crate.

use std::time::UNIX_EPOCH;

/// Wall clock, Unix milliseconds: claims and delays are compared between processes, which share no other clock.
#[allow(clippy::disallowed_methods, reason = "this is the clock adapter of the crate")]
pub(crate) fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `pid:start:number`; `number` tells several claimants of one process apart.
pub(crate) fn name(number: u64) -> String {
    let pid = std::process::id();
    format!("{pid}:{}:{number}", started(pid).unwrap_or_default())
}

/// False only when the process is surely gone.
pub(crate) fn is_alive(name: &str) -> bool {
    let mut parts = name.split(':');
    let (Some(pid), Some(start)) = (parts.next().and_then(|p| p.parse().ok()), parts.next()) else {
        return false;
    };
    match started(pid) {
        Some(now) => now.to_string() == start,
        // Without /proc nothing is known: the claim's time limit decides.
        None => !std::path::Path::new("/proc/self/stat").exists(),
    }
}

/// The process's start time in clock ticks (field 22 of `/proc/PID/stat`; the name before it may hold spaces and brackets).
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}
