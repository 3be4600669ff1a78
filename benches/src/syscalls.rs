//! System calls of a proxy while it works, counted by strace in a run that nobody times.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Trying};
use crate::process::pause;

/// From its start until strace holds every thread; its first lines say so.
const ATTACHED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Calls by name, those that failed (mostly because there was nothing to read) counted apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Name → calls, and how many of them failed.
    pub by_name: BTreeMap<String, (u64, u64)>,
}

impl Calls {
    /// What `strace -c` prints.
    #[must_use]
    pub fn of_summary(summary: &str) -> Self {
        let lines = summary.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (share, name) = (words.first()?, words.last()?);
            share.parse::<f64>().ok()?;
            let calls = words.get(3)?.parse().ok()?;
            let failed = if words.len() > 5 {
                words.get(4)?.parse().ok()?
            } else {
                0
            };
            (*name != "total").then(|| ((*name).to_owned(), (calls, failed)))
        });
        Self {
            by_name: lines.collect(),
        }
    }

    /// All calls.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.by_name.values().map(|(calls, _)| calls).sum()
    }

    /// Reads from sockets that brought something.
    #[must_use]
    pub fn received(&self) -> u64 {
        let reads = ["recvfrom", "recvmsg", "read", "readv"]
            .iter()
            .filter_map(|name| self.by_name.get(*name));
        reads.map(|(calls, failed)| calls - failed).sum()
    }

    /// The most frequent ones, as `name count`.
    #[must_use]
    pub fn most(&self, count: usize) -> String {
        let mut names: Vec<_> = self
            .by_name
            .iter()
            .map(|(name, (calls, _))| (*calls, name))
            .collect();
        names.sort_unstable_by(|one, other| other.cmp(one));
        let words: Vec<String> = names
            .into_iter()
            .take(count)
            .map(|(calls, name)| format!("{name} {calls}"))
            .collect();
        words.join(", ")
    }
}

/// A strace that counts a process' calls. Dropped, it is killed, and the process goes on.
pub struct Tracer {
    child: std::process::Child,
    summary: PathBuf,
}

impl Tracer {
    /// Attaches to all threads; `None` where there is no strace or it may not.
    ///
    /// # Errors
    /// Of the file for its summary.
    pub fn attach(process: u32, directory: &Path) -> Result<Option<Self>, Failure> {
        let (summary, log) = (directory.join("strace.summary"), directory.join("strace.log"));
        let file = std::fs::File::create(&log).trying(log.display())?;
        let mut command = Command::new("strace");
        command
            .args(["-c", "-f", "-p", &process.to_string(), "-o"])
            .arg(&summary);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn();
        let Ok(mut child) = child else {
            return Ok(None);
        };
        let end = Instant::now() + ATTACHED_WITHIN;
        while !std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains("attached")
        {
            if Instant::now() > end || child.try_wait()?.is_some() {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(None);
            }
            pause(LOOK);
        }
        Ok(Some(Self { child, summary }))
    }

    /// Detaches and reads what it counted.
    ///
    /// # Errors
    /// It leaves no summary.
    pub fn detach(mut self) -> Result<Calls, Failure> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-INT", &id]).status().trying("kill")?;
        let _ = self.child.wait();
        let text = std::fs::read_to_string(&self.summary).trying(self.summary.display())?;
        Ok(Calls::of_summary(&text))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
