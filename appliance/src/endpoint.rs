//! Which server a command talks to, and with which token: flags, then variables, then the running demo.

use std::{fs, path::PathBuf};

use crate::{
    cli::Invocation,
    client::Client,
    running::{self, Running},
};

/// Why there is nobody to talk to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    /// Neither a server was named nor is a demo running.
    #[error(
        "no demo is running{0}; start one with `weir demo`, or name a server with --server URL and --token-file FILE"
    )]
    NoServer(String),
    /// More than one demo is running and none was named.
    #[error("{} demos are running; name one with --data-dir: {}", .0.len(), .0.join(", "))]
    Several(Vec<String>),
    /// A server was named but no token.
    #[error(
        "no token for {0}: name its file with --token-file or WEIR_TOKEN_FILE, or the demo's directory with --data-dir"
    )]
    NoToken(String),
    /// The token's file cannot be read.
    #[error("cannot read the token in {}: {error}", path.display())]
    TokenFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// The client for billing's REST API that the flags and the running demo lead to.
pub(crate) fn client(invocation: &Invocation) -> Result<Client, EndpointError> {
    let global = &invocation.cli.global;
    let found = match (&global.server, &global.data_dir) {
        (Some(_), _) => None,
        (None, Some(dir)) => Some(recorded(dir.clone())?),
        (None, None) => Some(running_demo()?),
    };
    let server = match (&global.server, &found) {
        (Some(url), _) => url.clone(),
        (None, Some(running)) => running.server(),
        (None, None) => return Err(EndpointError::NoServer(String::new())),
    };
    let file =
        token_file(invocation, found.as_ref()).ok_or_else(|| EndpointError::NoToken(server.clone()))?;
    let token = fs::read_to_string(&file).map_err(|error| EndpointError::TokenFile { path: file, error })?;
    Ok(Client::new(&server, token.trim()))
}

/// `--token-file`, `--data-dir`, `WEIR_TOKEN_FILE`, `WEIR_DATA_DIR`, the running demo's, the default directory's.
fn token_file(invocation: &Invocation, found: Option<&Running>) -> Option<PathBuf> {
    let global = &invocation.cli.global;
    let in_data_dir = global.data_dir.as_ref().map(|dir| dir.join("token"));
    let from_flag = in_data_dir.clone().filter(|_| invocation.data_dir_is_flag);
    global
        .token_file
        .clone()
        .or(from_flag)
        .or_else(|| std::env::var_os("WEIR_TOKEN_FILE").map(PathBuf::from))
        .or(in_data_dir)
        .or_else(|| found.map(|running| running.data_dir.join("token")))
        .or_else(|| {
            running::default_data_dir()
                .map(|dir| dir.join("token"))
                .filter(|file| file.exists())
        })
}

fn recorded(dir: PathBuf) -> Result<Running, EndpointError> {
    let running =
        Running::read(&dir).ok_or_else(|| EndpointError::NoServer(format!(" on {}", dir.display())))?;
    if running.is_alive() {
        return Ok(running);
    }
    let gone = format!(
        " on {} (process {} did not stop cleanly)",
        dir.display(),
        running.pid
    );
    Err(EndpointError::NoServer(gone))
}

/// The one demo that is running: on the default directory, or wherever its pointer says.
fn running_demo() -> Result<Running, EndpointError> {
    let default = running::default_data_dir().and_then(|dir| Running::read(&dir));
    if let Some(running) = default.filter(Running::is_alive) {
        return Ok(running);
    }
    let mut found = running::alive();
    match found.len() {
        0 => Err(EndpointError::NoServer(String::new())),
        1 => Ok(found.remove(0)),
        _ => Err(EndpointError::Several(
            found
                .iter()
                .map(|running| running.data_dir.display().to_string())
                .collect(),
        )),
    }
}
