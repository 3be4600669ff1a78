//! The program's flags, variables and exit codes (0 ok, 1 failure, 2 usage or settings).

use std::process::{Command, Output};

use crate::world::TOKEN;

fn run(arguments: &[&str], token: Option<&str>) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-wallet"));
    command
        .args(arguments)
        .env_remove("WEIR_TOKEN")
        .env_remove("WEIR_CONFIG");
    if let Some(token) = token {
        command.env("WEIR_TOKEN", token);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn settings_that_cannot_work_exit_with_2_and_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wallet.toml");
    std::fs::write(
        &file,
        "token = \"0123456789abcdef\"\ngrpc_listen = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for (arguments, token, why) in [
        (vec!["check"], None, "token"),
        (vec!["check"], Some("short"), "token"),
        (vec!["run"], None, "token"),
        (vec!["check", "--config", "/nowhere.toml"], None, "/nowhere.toml"),
        (vec!["check", "--token-file", "/nowhere"], None, "/nowhere"),
        (vec!["check", "--rest-listen", "x"], None, "--rest-listen"),
        (
            vec!["check", "--config", file, "--rest-listen", "127.0.0.1:1"],
            None,
            "grpc_listen",
        ),
    ] {
        let (code, _, error) = run(&arguments, token);
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains(why), "{arguments:?}: {error}");
    }
    assert_eq!(run(&["check", "--config", file], None).0, 0);
    assert_eq!(run(&["check"], Some(TOKEN)).0, 0);
}

#[test]
fn the_settings_are_printed_as_they_resolve_without_the_token() {
    let arguments = ["print-config", "--grpc-listen", "127.0.0.1:9", "--data-dir", "/d"];
    let (code, out, _) = run(&arguments, Some(TOKEN));
    assert_eq!(code, 0);
    assert!(
        out.contains("grpc_listen = \"127.0.0.1:9\"") && out.contains("data_dir = \"/d\""),
        "{out}"
    );
    assert!(!out.contains(TOKEN));
}

#[test]
fn what_fails_at_the_start_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("file");
    std::fs::write(&data, "not a directory").unwrap();
    let listen = ["--rest-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"];
    let mut arguments = vec!["run", "--data-dir", data.to_str().unwrap()];
    arguments.extend(listen);
    let (code, _, error) = run(&arguments, Some(TOKEN));
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("make the directory"), "{error}");
}
