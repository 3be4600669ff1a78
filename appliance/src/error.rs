//! Why a command failed, whose fault it was, and the exit code that says so: 1 for a failure, 2 for usage or config.

use crate::{client::ClientError, demo::DemoError, endpoint::EndpointError, selftest::SelftestError};

/// Exit code of a failure.
const EXIT_FAILURE: u8 = 1;
/// Exit code of wrong usage or configuration; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// What `main` prints and exits with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// No server, no token: the caller must say which.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The service did not answer, refused, or answered what we cannot read.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The demo did not start or did not stop cleanly.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The self-test of a server could not be begun.
    #[error(transparent)]
    Selftest(#[from] SelftestError),
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// 1 failure, 2 usage or config.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Endpoint(_) => EXIT_USAGE,
            Self::Demo(error) if error.is_config() => EXIT_USAGE,
            Self::Selftest(error) if error.is_config() => EXIT_USAGE,
            Self::Client(_) | Self::Demo(_) | Self::Selftest(_) | Self::Output(_) => EXIT_FAILURE,
        }
    }
}
