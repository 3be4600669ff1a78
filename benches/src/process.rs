//! A process under measurement: started on one core, its CPU time in nanoseconds, its memory, its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Trying};

/// From the start of a program until it accepts connections.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// From SIGTERM until SIGKILL.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// CPU time between two looks below which a process is at rest: timers tick on.
const AT_REST: Duration = Duration::from_millis(2);
/// Looks at rest one behind the other.
const LOOKS_AT_REST: u32 = 3;
/// Bytes of a log that are shown when its process fails.
const LOG_SHOWN: usize = 2000;
/// A tick of /proc/PID/stat.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A program on one core, which ends with who started it and sees no variable of Weir.
#[must_use]
pub fn on_core(core: usize, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", &core.to_string()]);
    command.arg(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command
}

/// The same, giving way to everybody else on that core: what in production stands on other machines.
#[must_use]
pub fn giving_way_on_core(core: usize, program: &Path) -> Command {
    let mut command = on_core(core, Path::new("nice"));
    command.args(["-n", "19"]).arg(program);
    command
}

impl Process {
    /// Starts it; what it says goes to `DIRECTORY/NAME.log`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Result<Self, Failure> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log).trying(log.display())?;
        command.stderr(file.try_clone()?);
        if !name.starts_with("end-") {
            command.stdin(Stdio::null()).stdout(file);
        }
        let child = command.spawn().trying(format!(
            "cannot start {name} (setpriv and taskset of util-linux are needed)"
        ))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// The process' number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it takes a connection.
    ///
    /// # Errors
    /// It has ended, or does not within 20 s; with the end of its log.
    pub fn listens(&mut self, at: SocketAddr) -> Result<(), Failure> {
        let end = Instant::now() + READY_WITHIN;
        while TcpStream::connect(at).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let shown = self.last_words();
                return Err(Failure(format!("{} does not listen at {at}: {shown}", self.name)));
            }
            pause(LOOK);
        }
        Ok(())
    }

    /// The end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let end = log.get(log.len().saturating_sub(LOG_SHOWN)..).unwrap_or(&log);
        String::from_utf8_lossy(end).into_owned()
    }

    /// Binds all its threads to a core.
    ///
    /// # Errors
    /// `taskset` fails.
    pub fn move_to(&self, core: usize) -> Result<(), Failure> {
        let mut command = Command::new("taskset");
        command.args(["-a", "-c", "-p", &core.to_string(), &self.id().to_string()]);
        let status = command.stdout(Stdio::null()).status().trying("taskset")?;
        if status.success() {
            return Ok(());
        }
        Err(Failure(format!(
            "taskset cannot move {} to core {core}",
            self.name
        )))
    }

    /// Its lines in and out, if it is an end.
    ///
    /// # Errors
    /// It is none, or they are taken.
    pub fn lines(&mut self) -> Result<Lines, Failure> {
        let (input, output) = (self.child.stdin.take(), self.child.stdout.take());
        Ok(Lines {
            input: input.trying("no standard input")?,
            output: BufReader::new(output.trying("no standard output")?),
        })
    }

    /// SIGTERM, and waits for an orderly end.
    ///
    /// # Errors
    /// It does not end in time; it is killed then.
    pub fn stop(mut self) -> Result<(), Failure> {
        let id = self.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let end = Instant::now() + STOP_WITHIN;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                return Err(Failure(format!(
                    "{} did not end: {}",
                    self.name,
                    self.last_words()
                )));
            }
            pause(LOOK);
        }
        Ok(())
    }

    /// Waits for its own end.
    ///
    /// # Errors
    /// It ends with a failure; with the end of its log.
    pub fn wait(mut self) -> Result<(), Failure> {
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(Failure(format!("{}: {status}: {}", self.name, self.last_words())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an end is told and says.
pub struct Lines {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Lines {
    /// Tells it.
    ///
    /// # Errors
    /// It is gone.
    pub fn tell(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.input, "{line}").trying("an end is gone")?;
        self.input.flush().trying("an end is gone")
    }

    /// Its next line; empty when it is gone.
    ///
    /// # Errors
    /// Of the pipe.
    pub fn hear(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

/// An address of loopback that nobody listens on.
///
/// # Errors
/// There is none.
pub fn free_address() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).trying("a free port")?;
    Ok(listener.local_addr()?)
}

/// CPU time of a process up to a moment.
#[derive(Debug, Clone)]
pub struct CpuMark {
    process: u32,
    /// Nanoseconds of each thread.
    threads: BTreeMap<String, u64>,
    /// Ticks of all, ended ones included.
    ticks: u64,
}

impl CpuMark {
    /// Up to now; zero when it is gone.
    #[must_use]
    pub fn of(process: u32) -> Self {
        let mut threads = BTreeMap::new();
        let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
            if let Some(nanos) = nanos {
                threads.insert(task.file_name().to_string_lossy().into_owned(), nanos);
            }
        }
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything, utime and stime are the 12th and 13th field.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks = fields
            .skip(11)
            .take(2)
            .filter_map(|word| word.parse::<u64>().ok())
            .sum();
        Self {
            process,
            threads,
            ticks,
        }
    }

    /// From this mark to a later one. A thread that ended between took its nanoseconds with it: then the ticks stand.
    #[must_use]
    pub fn until(&self, later: &Self) -> Duration {
        let ended = self
            .threads
            .keys()
            .any(|thread| !later.threads.contains_key(thread));
        if ended {
            let ticks = later.ticks.saturating_sub(self.ticks);
            return TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
        }
        let used = later
            .threads
            .iter()
            .map(|(thread, nanos)| nanos.saturating_sub(self.threads.get(thread).copied().unwrap_or(0)));
        Duration::from_nanos(used.sum())
    }

    /// From this mark to now.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.until(&Self::of(self.process))
    }
}

/// Waits until these processes have nothing to do; false if they still have at the deadline.
#[must_use]
pub fn at_rest(processes: &[u32], within: Duration) -> bool {
    let end = Instant::now() + within;
    let mut rested = 0;
    while rested < LOOKS_AT_REST {
        if Instant::now() > end {
            return false;
        }
        let marks: Vec<CpuMark> = processes.iter().map(|process| CpuMark::of(*process)).collect();
        pause(LOOK);
        let busy = marks.iter().any(|mark| mark.elapsed() > AT_REST);
        rested = if busy { 0 } else { rested + 1 };
    }
    true
}

/// Resident memory, bytes; 0 when it is gone.
#[must_use]
pub fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Lets others run before the next look at what tells nobody.
pub(crate) fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}
