//! One process of a driver's program: started with the contract's arguments, read line by line, ended in time.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_protocol_tests::drivers::Target;

use super::encryption::Encryption;
use super::programs::Program;

/// Longest life of one process: all scenarios take a second or two, and a driver that waits for an answer gives up
/// after 60 s by itself.
const PROCESS_DEADLINE: Duration = Duration::from_secs(120);

/// What a program told of one scenario.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) scenario: String,
    pub(super) ok: bool,
    pub(super) result: Value,
    pub(super) error: Value,
    pub(super) unsupported: Option<String>,
}

/// What a process is to do, and where.
pub(super) struct Order<'a> {
    pub(super) program: &'a Program,
    pub(super) to: &'a Target,
    pub(super) encryption: Encryption,
    pub(super) certificate: &'a Path,
    pub(super) scenarios: &'a [String],
    /// Where they are described.
    pub(super) list: &'a Path,
    /// Standard error goes here.
    pub(super) log: &'a Path,
}

impl Order<'_> {
    /// Runs it. `awaited` is called for each word that the program waits at, and lets it go on.
    pub(super) fn run(&self, awaited: &mut dyn FnMut(&str)) -> Vec<Told> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        // The letters keep it apart from every number and from every hex digit around it.
        let tag = format!("run{}x", RUNS.fetch_add(1, Ordering::Relaxed));
        let mut child = self.start(&tag);
        let mut input = child.stdin.take().expect("its input is a pipe");
        let lines = lines_of(&mut child);
        let end = Instant::now() + PROCESS_DEADLINE;
        let mut told = Vec::new();
        let ended = loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let Ok(line) = serde_json::from_str::<Value>(&line.replace(&tag, "TAG")) else {
                        continue;
                    };
                    if let Some(word) = line["await"].as_str() {
                        awaited(word);
                        let _ = input.write_all(b"go on\n").and_then(|()| input.flush());
                    } else {
                        told.push(read(&line));
                    }
                }
                Err(error) => break error.to_string(),
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        println!(
            "{}: {} scenarios in {:.1} s",
            self.log.file_name().unwrap_or_default().display(),
            self.scenarios.len(),
            (PROCESS_DEADLINE - end.saturating_duration_since(Instant::now())).as_secs_f32()
        );
        self.complete(told, &ended)
    }

    fn start(&self, tag: &str) -> Child {
        let log = File::create(self.log).expect("a log");
        let to = self.to;
        self.program
            .command()
            .args(["--host", "localhost", "--port", &to.address.port().to_string()])
            .args([
                "--user",
                &to.user,
                "--password",
                &to.password,
                "--database",
                &to.database,
            ])
            .args(["--encryption", self.encryption.name(), "--tag", tag])
            .arg("--ca")
            .arg(self.certificate)
            .arg("--file")
            .arg(self.list)
            .args(["--scenarios", &self.scenarios.join(",")])
            // Some drivers take the roots that they trust from the system only.
            .env("SSL_CERT_FILE", self.certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.driver))
    }

    /// One answer for each scenario, in order; of those that it told nothing about, that it did not.
    fn complete(&self, mut told: Vec<Told>, ended: &str) -> Vec<Told> {
        for name in &self.scenarios[told.len().min(self.scenarios.len())..] {
            let log = std::fs::read_to_string(self.log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            told.push(Told {
                scenario: name.clone(),
                ok: false,
                result: Value::Null,
                error: Value::from(format!("the program told nothing ({ended}): {last:?}")),
                unsupported: None,
            });
        }
        told
    }
}

fn read(line: &Value) -> Told {
    Told {
        scenario: line["scenario"].as_str().unwrap_or_default().to_owned(),
        ok: line["ok"] == true,
        result: line["result"].clone(),
        error: line["error"].clone(),
        unsupported: line["unsupported"].as_str().map(str::to_owned),
    }
}

fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let output = child.stdout.take().expect("its output is a pipe");
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
