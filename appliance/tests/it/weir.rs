//! Runs the built binary in a home of its own, without the caller's `WEIR_…` variables.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// The binary with nothing inherited that could lead it elsewhere.
pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEIR_") {
            command.env_remove(name);
        }
    }
    command.env("XDG_DATA_HOME", home).env("HOME", home);
    command
}

/// Runs a command to its end.
pub(crate) fn run(home: &Path, args: &[&str]) -> Output {
    command(home).args(args).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Standard output as JSON; shows standard error when the command failed.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", stdout(output), stderr(output)))
}
