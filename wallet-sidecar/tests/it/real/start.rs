//! The program before it runs: servers that are there, away, or set up so that they cannot be used.

use std::{
    net::TcpListener,
    process::{Command, Output},
    time::{Duration, Instant},
};

use super::address;
use crate::world::TOKEN;

/// Longest answer of `check --connect` about one server that is away, and of a start that waits for none.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

fn program(arguments: &[&str], servers: &[(&str, &str)]) -> (i32, String) {
    let began = Instant::now();
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_weir-wallet"))
        .args(arguments)
        .args(["--start-wait-ms", "0"])
        .args(["--rest-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"])
        .env("WEIR_TOKEN", TOKEN)
        .envs(servers.iter().copied())
        .output()
        .unwrap();
    assert!(began.elapsed() < ANSWER_WAIT);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    (status.code().unwrap(), said)
}

/// Nobody listens there.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The address with another password.
fn other_password(url: &str) -> String {
    let (start, end) = url.rsplit_once('@').unwrap();
    let (start, _) = start.rsplit_once(':').unwrap();
    format!("{start}:wrongsecret@{end}")
}

#[test]
fn servers_that_are_well_are_told_one_by_one() {
    let servers = ["AMQP_URL", "DATABASE_URL", "MONGODB_URL"].map(address);
    let (code, said) = program(
        &["check", "--connect", "--database-schema", "checked_only"],
        &[
            ("WEIR_AMQP_URL", &servers[0]),
            ("WEIR_DATABASE_URL", &servers[1]),
            ("WEIR_MONGODB_URL", &servers[2]),
        ],
    );
    assert_eq!(code, 0, "{said}");
    for key in ["amqp_url: ok", "database_url: ok", "mongodb_url: ok"] {
        assert!(said.contains(key), "{said}");
    }
}

#[test]
fn a_server_that_is_away_is_a_failure_that_names_it() {
    let at = closed();
    let dir = tempfile::tempdir().unwrap();
    for (key, variable, url) in [
        (
            "mongodb_url",
            "WEIR_MONGODB_URL",
            format!("mongodb://weir:wrongsecret@{at}/weir"),
        ),
        (
            "database_url",
            "WEIR_DATABASE_URL",
            format!("postgres://weir:wrongsecret@{at}/weir"),
        ),
        (
            "amqp_url",
            "WEIR_AMQP_URL",
            format!("amqp://weir:wrongsecret@{at}/weir"),
        ),
    ] {
        let run = ["run", "--data-dir", dir.path().to_str().unwrap()];
        let broker = dir.path().join("broker.db");
        let run = [&run[..], &["--broker-path", broker.to_str().unwrap()]].concat();
        for arguments in [&run[..], &["check", "--connect"]] {
            let (code, said) = program(arguments, &[(variable, &url)]);
            assert_eq!(code, 1, "{key}: {said}");
            assert!(
                said.contains(key) && said.contains("start_wait_ms"),
                "{key}: {said}"
            );
            assert!(!said.contains("wrongsecret"), "{said}");
        }
    }
}

#[test]
fn a_login_or_a_place_that_is_wrong_is_a_setting() {
    let amqp = address("AMQP_URL");
    let (server, _) = amqp.rsplit_once('/').unwrap();
    for (variable, url) in [
        ("WEIR_DATABASE_URL", other_password(&address("DATABASE_URL"))),
        ("WEIR_AMQP_URL", other_password(&amqp)),
        ("WEIR_AMQP_URL", format!("{server}/no-such-host")),
    ] {
        let (code, said) = program(&["check", "--connect"], &[(variable, &url)]);
        assert_eq!(code, 2, "{said}");
        assert!(!said.contains("wrongsecret"), "{said}");
    }
}
