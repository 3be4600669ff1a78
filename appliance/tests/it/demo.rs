//! The demo from outside: started, asked, stopped and continued on the same directory; and what it refuses.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use serde_json::Value;

use crate::weir;

/// From the start of the binary to the ready line, in a test build on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// A demo of the test's own on free ports; killed when dropped.
struct Demo {
    child: Child,
    /// What it printed before the ready line.
    said: String,
}

fn demo(home: &Path, credit: &str) -> Command {
    let mut command = weir::command(home);
    command
        .args([
            "demo",
            "--listen",
            "127.0.0.1:0",
            "--console",
            "127.0.0.1:0",
            "--wallet",
            "127.0.0.1:0",
        ])
        .args(["--credit", credit, "--data-dir"])
        .arg(home.join("data"))
        .stdin(Stdio::null());
    command
}

impl Demo {
    fn start(home: &Path, credit: &str) -> Self {
        let mut child = demo(home, credit).stdout(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(&mut child);
        let mut said = String::new();
        loop {
            let line = lines
                .recv_timeout(READY)
                .unwrap_or_else(|_| panic!("not ready; it said: {said}"));
            if line == "weir demo ready" {
                return Self { child, said };
            }
            said.push_str(&line);
            said.push('\n');
        }
    }

    fn stop(mut self) -> ExitStatus {
        let signal = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(signal.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(child: &mut Child) -> Receiver<String> {
    let output = child.stdout.take().unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

fn account(home: &Path) -> Value {
    let output = weir::run(home, &["account", "show", "demo", "--json"]);
    assert!(output.status.success(), "{}", weir::stderr(&output));
    weir::json(&output)
}

#[test]
fn a_demo_is_found_by_itself_stopped_cleanly_and_continued() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let first = Demo::start(home.path(), "1.25");
    assert!(
        first.said.contains("sqlcmd") && first.said.contains("tiberius"),
        "{}",
        first.said
    );
    let shown = account(home.path());
    assert_eq!(
        [&shown["account"], &shown["balance"], &shown["currency"]],
        ["demo", "1.25", "USD"]
    );
    assert!(
        weir::run(home.path(), &["top-up", "demo", "0.50"])
            .status
            .success()
    );

    let second = demo(home.path(), "9").output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(
        weir::stderr(&second).contains("another demo is running"),
        "{}",
        weir::stderr(&second)
    );

    let token = std::fs::read(data.join("token")).unwrap();
    let certificate = std::fs::read(data.join("tls/cert.pem")).unwrap();
    assert!(first.stop().success());
    assert!(!data.join("running.json").exists());
    let gone = weir::run(home.path(), &["account", "list"]);
    assert_eq!(gone.status.code(), Some(2));

    let again = Demo::start(home.path(), "9.00");
    assert_eq!(account(home.path())["balance"], "1.75");
    assert_eq!(std::fs::read(data.join("token")).unwrap(), token);
    assert_eq!(std::fs::read(data.join("tls/cert.pem")).unwrap(), certificate);
    let books = weir::run(home.path(), &["reconcile", "--json"]);
    assert_eq!(weir::json(&books)["ok"], true, "{}", weir::stdout(&books));
    assert!(again.stop().success());
}

#[test]
fn a_demo_that_was_killed_starts_again() {
    let home = tempfile::tempdir().unwrap();
    drop(Demo::start(home.path(), "1.00"));
    assert!(home.path().join("data/running.json").exists());
    let again = Demo::start(home.path(), "9.00");
    assert_eq!(account(home.path())["balance"], "1.00");
    assert!(again.stop().success());
}

#[test]
fn wrong_flags_and_directories_are_named() {
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = weir::command(home.path())
        .args([
            "demo",
            "--console",
            "127.0.0.1:0",
            "--wallet",
            "127.0.0.1:0",
            "--listen",
            &address,
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        weir::stderr(&output).contains("--listen"),
        "{}",
        weir::stderr(&output)
    );
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = weir::run(home.path(), &["demo", "--data-dir", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        weir::stderr(&output).contains("--data-dir"),
        "{}",
        weir::stderr(&output)
    );
}
