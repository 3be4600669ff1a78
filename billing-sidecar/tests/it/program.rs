//! The program from outside: checking and printing its configuration.

use std::process::{Command, Output};

fn billing(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-billing"));
    command.env_clear().args(args).output().unwrap()
}

#[test]
fn a_wrong_configuration_is_told_with_exit_code_2() {
    let none = billing(&["check"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("token"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("billing.toml");
    std::fs::write(&file, "token = \"t\"\nwalet_url = \"http://h:1\"\n").unwrap();
    let typo = billing(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(typo.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&typo.stderr).contains("walet_url"));
}

#[test]
fn flags_win_over_the_file_and_the_token_is_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (file, token) = (dir.path().join("billing.toml"), dir.path().join("token"));
    std::fs::write(
        &file,
        "rest_listen = \"127.0.0.1:1\"\nwallet_url = \"http://file:1\"\n",
    )
    .unwrap();
    std::fs::write(&token, "very-secret\n").unwrap();
    let (file, token) = (file.to_str().unwrap(), token.to_str().unwrap());
    let args = [
        "print-config",
        "--config",
        file,
        "--token-file",
        token,
        "--wallet-url",
        "http://flag:2",
    ];
    let printed = billing(&args);
    let text = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed.status.code(), Some(0), "{text}");
    assert!(
        text.contains("http://flag:2") && text.contains("127.0.0.1:1"),
        "{text}"
    );
    assert!(!text.contains("very-secret"), "{text}");
}
