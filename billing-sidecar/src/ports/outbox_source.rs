//! The outbox that proxies append their journals to; the relay reads it.

use async_trait::async_trait;
use weir_contracts::event::Place;

use super::PortError;

/// One outbox with a stream per proxy.
#[async_trait]
pub trait OutboxSource: Send + Sync {
    /// The streams there are.
    async fn streams(&self) -> Result<Vec<String>, PortError>;
    /// Entries after a place, oldest first, at most `limit`.
    async fn read_after(
        &self,
        stream: &str,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<(Place, Vec<u8>)>, PortError>;
    /// Says that the broker has everything up to here: the longest prefix that is confirmed.
    async fn confirm(&self, stream: &str, up_to: Place) -> Result<(), PortError>;
    /// Up to where was confirmed.
    async fn confirmed(&self, stream: &str) -> Result<Option<Place>, PortError>;
    /// The last place in the stream.
    async fn last(&self, stream: &str) -> Result<Option<Place>, PortError>;
    /// Returns when something may have been appended; at the latest after the adapter's poll interval.
    async fn changed(&self);
}
