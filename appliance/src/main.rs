//! The weir command: reads the command line, runs one command, turns its outcome into an exit code. Nothing else.

mod cli;
mod client;
mod commands;
mod demo;
mod endpoint;
mod error;
mod running;
mod selftest;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    let invocation = cli::parse();
    if let Err(error) = weir_proxy::core_dumps::forbid() {
        eprintln!("weir: core dumps cannot be switched off: {error}");
    }
    match commands::run(&invocation) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("weir: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
