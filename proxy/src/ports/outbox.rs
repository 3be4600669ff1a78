//! The outbox port: an ordered stream with conditional appends, and the cursor that the broker's confirmations move.

use futures_util::future::BoxFuture;

use crate::journal::Position;

/// Why the outbox did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// Away or failing: the same call may be made again.
    #[error("outbox: {0}")]
    Unavailable(String),
    /// It holds the same place with other content: two journals claim to be one. Asking again does not help.
    #[error("outbox: {0}")]
    Conflict(String),
}

/// Answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// All of it is there.
    Done,
    /// Nothing was added: the stream ends here (`None`: it is empty).
    LastIs(Option<Position>),
}

/// One proxy's stream in the outbox.
pub trait Outbox: Send + Sync + 'static {
    /// Adds `entries` if the stream ends at `after`.
    fn append_after(
        &self,
        after: Option<Position>,
        entries: Vec<(Position, Vec<u8>)>,
    ) -> BoxFuture<'_, Result<Appended, OutboxError>>;
    /// Where the stream ends.
    fn last(&self) -> BoxFuture<'_, Result<Option<Position>, OutboxError>>;
    /// The longest prefix that the broker has confirmed.
    fn confirmed(&self) -> BoxFuture<'_, Result<Option<Position>, OutboxError>>;
    /// Returns when the cursor may have moved, or after a short time.
    fn changed(&self) -> BoxFuture<'_, ()>;
}
