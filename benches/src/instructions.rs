//! Instructions of each kernel as callgrind counts them, against the limits in `instructions.toml`.
//!
//! The `kernels` program runs itself under callgrind twice, with few turns and with more: what start, inputs and end cost is in
//! both, and the difference is that of the turns alone.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Trying};
use crate::kernels::{ALL, Kernel};

/// A kernel may take this much more than its limit.
const SLACK: f64 = 0.03;
/// Turns of the shorter run: what only the first ones do, such as filling caches of the allocator, is in both.
const TURNS_BEFORE: u32 = 2;
/// Runs at once.
const AT_ONCE: usize = 2;
/// Instructions per row of the anchors' shape (six columns, 78 bytes), whatever its limit says.
const MIXED_MAX: f64 = 110.0;
const MIXED: &str = "walker/mixed";
/// What stands before the limits in their file.
const HEAD: &str = "# Instructions per unit of each kernel, release profile, as callgrind counts them: CI fails when one takes 3 % more.\n\
    # Written by `target/release/kernels update`; the change belongs to the commit that causes it, whose message says why.\n";

/// A limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Instructions per unit.
    pub instructions: f64,
    /// What a unit is.
    pub unit: String,
}

/// The limits by kernel.
pub type Limits = BTreeMap<String, Limit>;

/// Of one kernel.
#[derive(Debug, Clone)]
pub struct Count {
    /// Which.
    pub kernel: &'static Kernel,
    /// Per unit.
    pub instructions: f64,
}

/// Where the limits are.
#[must_use]
pub fn limits_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

/// The limits as committed.
///
/// # Errors
/// They cannot be read.
pub fn limits() -> Result<Limits, Failure> {
    let path = limits_path();
    let text = std::fs::read_to_string(&path).trying(path.display())?;
    toml::from_str(&text).trying(path.display())
}

/// Makes these counts the limits; those of other kernels stay.
///
/// # Errors
/// They cannot be written.
pub fn update(counts: &[Count]) -> Result<(), Failure> {
    let mut limits = limits().unwrap_or_default();
    limits.retain(|name, _| Kernel::named(name).is_some());
    for count in counts {
        let limit = Limit {
            instructions: rounded(count.instructions),
            unit: count.kernel.unit.to_owned(),
        };
        limits.insert(count.kernel.name.to_owned(), limit);
    }
    let mut text = HEAD.to_owned();
    for (name, limit) in limits {
        let _ = write!(
            text,
            "\n[\"{name}\"]\ninstructions = {:?}\nunit = \"{}\"\n",
            limit.instructions, limit.unit
        );
    }
    let path = limits_path();
    std::fs::write(&path, text).trying(path.display())
}

/// Tenths, or a file of limits would change with every run.
fn rounded(instructions: f64) -> f64 {
    (instructions * 10.0).round() / 10.0
}

/// Counts every kernel that has `only` in its name; `program` is the `kernels` program.
///
/// # Errors
/// There is no valgrind, or a kernel fails under it.
pub fn count(program: &Path, only: &str) -> Result<Vec<Count>, Failure> {
    if cfg!(debug_assertions) {
        return Err(Failure::new(
            "instructions are counted in the release profile: cargo build --release",
        ));
    }
    let valgrind = Valgrind::find()?;
    let kernels: Vec<&'static Kernel> = ALL.iter().filter(|kernel| kernel.name.contains(only)).collect();
    if kernels.is_empty() {
        return Err(Failure(format!("no kernel has '{only}' in its name")));
    }
    let next = AtomicUsize::new(0);
    let counts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = valgrind.count(program, kernel);
                    counts.lock().unwrap_or_else(PoisonError::into_inner).push(count);
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut counts = counts.into_iter().collect::<Result<Vec<Count>, Failure>>()?;
    counts.sort_by_key(|count| ALL.iter().position(|kernel| kernel.name == count.kernel.name));
    Ok(counts)
}

/// A table of counts beside their limits, and whether all hold.
#[must_use]
pub fn judge(counts: &[Count], limits: &Limits) -> (String, bool) {
    let mut text = format!(
        "{:<28} {:>12} {:>12} {:>8}  per\n",
        "kernel", "instructions", "limit", ""
    );
    let mut all_hold = true;
    for count in counts {
        let Kernel { name, unit, .. } = count.kernel;
        let limit = limits.get(*name).map(|limit| limit.instructions);
        let most = |limit: f64| limit * (1.0 + SLACK);
        let mut holds = limit.is_some_and(|limit| count.instructions <= most(limit));
        holds &= *name != MIXED || count.instructions <= MIXED_MAX;
        all_hold &= holds;
        let _ = writeln!(
            text,
            "{name:<28} {:>12.1} {:>12} {:>8}  {unit}{}",
            count.instructions,
            limit.map_or("none".to_owned(), |limit| format!("{limit:.1}")),
            limit.map_or(String::new(), |limit| format!(
                "{:+.1} %",
                (count.instructions / limit - 1.0) * 100.0
            )),
            if holds { "" } else { "  OVER ITS LIMIT" },
        );
    }
    (text, all_hold)
}

/// A valgrind and, if it was unpacked, where its tools are.
struct Valgrind {
    program: PathBuf,
    tools: Option<PathBuf>,
}

impl Valgrind {
    /// That of PATH, or the one that `scripts/valgrind` unpacks below `.weir`.
    fn find() -> Result<Self, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let output = Command::new("bash")
            .arg("scripts/valgrind")
            .current_dir(&root)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .trying("scripts/valgrind")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines();
        let program = lines.next().filter(|_| output.status.success());
        let program = program.trying("scripts/valgrind found no valgrind and could not unpack it")?;
        Ok(Self {
            program: PathBuf::from(program),
            tools: lines.next().filter(|line| !line.is_empty()).map(PathBuf::from),
        })
    }

    fn count(&self, program: &Path, kernel: &'static Kernel) -> Result<Count, Failure> {
        let before = self.run(program, kernel, TURNS_BEFORE)?;
        let after = self.run(program, kernel, TURNS_BEFORE + kernel.turns)?;
        let units = after.units.saturating_sub(before.units) as f64;
        let instructions = after.instructions.saturating_sub(before.instructions) as f64 / units;
        Ok(Count { kernel, instructions })
    }

    fn run(&self, program: &Path, kernel: &Kernel, turns: u32) -> Result<Turned, Failure> {
        let mut command = Command::new(&self.program);
        if let Some(tools) = &self.tools {
            command.env("VALGRIND_LIB", tools);
        }
        // Without options of the user's.
        command.env_remove("VALGRIND_OPTS");
        command.args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--fair-sched=yes",
        ]);
        command
            .arg(program)
            .args(["run", kernel.name, &turns.to_string()]);
        let output = command
            .stdin(Stdio::null())
            .output()
            .trying(self.program.display())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(Failure(format!("{} under callgrind: {said}", kernel.name)));
        }
        let collected = said.lines().find_map(|line| line.split_once("Collected : "));
        let instructions = collected.and_then(|(_, count)| count.trim().parse().ok());
        let units = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
        Ok(Turned {
            units: units.trying("the kernel does not say its units")?,
            instructions: instructions.trying(format!("callgrind does not say what it collected: {said}"))?,
        })
    }
}

/// Turns of a kernel.
struct Turned {
    units: u64,
    instructions: u64,
}
