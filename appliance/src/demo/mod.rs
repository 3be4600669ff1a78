//! `weir demo`: all of Weir in one process on embedded defaults.

mod directory;
mod tls;

use std::path::PathBuf;

use crate::cli::DemoArgs;

/// Why the demo did not start or did not stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// Something of the directory.
    #[error(transparent)]
    Directory(#[from] directory::DirectoryError),
    /// The services are not built yet.
    #[error("the demo is not wired yet")]
    NotWired,
}

impl DemoError {
    /// True when the caller can put it right by other flags.
    pub(crate) fn is_config(&self) -> bool {
        matches!(self, Self::Directory(_))
    }
}

/// Starts everything, prints how to connect, and runs until SIGINT or SIGTERM.
pub(crate) fn run(_args: &DemoArgs, data_dir: Option<PathBuf>) -> Result<(), DemoError> {
    let directory = directory::Directory::open(data_dir)?;
    tls::certificate(directory.path())?;
    Err(DemoError::NotWired)
}
