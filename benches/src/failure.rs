//! Why a measurement could not be made: what was tried, and what the system or a peer said.

use std::fmt::Display;

/// Ends a measurement. Its text names what was tried and what came of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl Failure {
    /// From what was seen.
    pub fn new(what: impl Display) -> Self {
        Self(what.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Says what was tried when it fails.
pub trait Trying<T> {
    /// Puts `what` before the cause.
    ///
    /// # Errors
    /// The same, with its circumstances.
    fn trying(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Trying<T> for Result<T, E> {
    fn trying(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|cause| Failure(format!("{what}: {cause}")))
    }
}

impl<T> Trying<T> for Option<T> {
    fn trying(self, what: impl Display) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::new(what))
    }
}
