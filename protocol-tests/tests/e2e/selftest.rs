//! `weir selftest --upstream`: holds on a server that does what it should, and on none that does not.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use weir_protocol_tests::demo::{Place, binary};
use weir_protocol_tests::gate::free_address;
use weir_protocol_tests::world::World;
use weir_sandbox::scenario::{Rule, Scenario, Step};

use crate::memory::scripted;

/// What the self-test must not ask the sandbox in vain.
const ASKED: [&str; 10] = [
    "one row",
    "types",
    "big values",
    "several result sets",
    "errors",
    "parameters",
    "transactions",
    "bulk load",
    "a long result",
    "cancellation",
];

/// Encryption modes, on either side.
const MODES: [&str; 4] = ["none", "login-only", "on", "strict"];

/// Runs it; the password is the demo's.
fn selftest(server: SocketAddr, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "demo\n").expect("a file");
    Command::new(binary("weir"))
        .args(["selftest", "--upstream", &server.to_string(), "--login", "demo"])
        .arg("--password-file")
        .arg(&password)
        .args(more)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("weir starts")
}

/// Exit code and last line.
fn verdict(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default().to_owned();
    (output.status.code(), last)
}

fn ca(directory: &Path) -> String {
    directory
        .join("tls")
        .join("cert.pem")
        .to_str()
        .expect("UTF-8")
        .to_owned()
}

#[test]
fn the_sandbox_passes_every_check() {
    let place = Place::new();
    let demo = place.start("1.00");
    let before = demo.settled_balance();
    let output = selftest(
        demo.address("sandbox"),
        &["--database", "demo", "--ca", &ca(demo.directory()), "--json"],
    );
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{errors}"));
    println!("{report:#}");
    assert_eq!(report["ok"], json!(true), "{report:#}");
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let checks = report["checks"].as_array().expect("checks");
    let holds = |name: &str| {
        checks
            .iter()
            .any(|check| check["check"] == name && check["ok"] == true && check["left_out"] == false)
    };
    for name in ASKED {
        assert!(holds(&format!("through Weir, {name}")), "{name}: {report:#}");
    }
    for client in MODES {
        for server in MODES {
            assert!(
                holds(&format!("client {client}, server {server}")),
                "client {client}, server {server}"
            );
        }
    }
    for name in [
        "metered as received",
        "cut off at the row, and open again",
        "Weir's books add up",
    ] {
        assert!(holds(name), "{name}");
    }
    // The Weir that it starts is its own: nothing was booked in this one.
    assert_eq!(demo.settled_balance(), before);
    demo.stop();
}

#[test]
fn the_last_line_is_the_verdict() {
    let place = Place::new();
    let demo = place.start("1.00");
    let server = demo.address("sandbox");
    let (code, last) = verdict(&selftest(server, &["--database", "demo", "--trust"]));
    assert_eq!(code, Some(0), "{last}");
    assert!(
        last.starts_with("ok: ") && last.contains(&server.to_string()),
        "{last}"
    );
    demo.stop();
}

/// A server of which the self-test may think this of "SELECT 1 AS one".
fn answering(steps: impl IntoIterator<Item = Step>) -> SocketAddr {
    scripted(Scenario::new().rule(Rule::text_is("SELECT 1 AS one").steps(steps)))
}

#[test]
fn a_server_that_gives_a_row_too_many_fails() {
    let (code, last) = verdict(&selftest(
        answering([
            Step::columns(&[("one", "int")]),
            Step::rows(2, [json!(1)]),
            Step::done(0x10, 0xC1, 2),
        ]),
        &[],
    ));
    assert_eq!(code, Some(1), "{last}");
    assert!(last.starts_with("NOT OK: "), "{last}");
}

#[test]
fn a_server_whose_tokens_cannot_be_read_fails() {
    let output = selftest(answering([Step::Hex("0b0b0b".to_owned())]), &[]);
    let (code, last) = verdict(&output);
    assert_eq!(code, Some(1), "{last}");
    assert!(last.starts_with("NOT OK: "), "{last}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("unknown token 0x0b"), "{said}");
}

#[test]
fn a_server_that_refuses_everything_fails() {
    let no = Step::error(262, "no permission");
    let server = scripted(Scenario::new().otherwise([no, Step::done(0x02, 0, 0)]));
    let (code, last) = verdict(&selftest(server, &[]));
    assert_eq!(code, Some(1), "{last}");
    assert!(last.starts_with("NOT OK: "), "{last}");
}

#[test]
fn a_server_that_is_not_there_cannot_be_tested() {
    let output = selftest(free_address(), &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot be tested"), "{said}");
}
