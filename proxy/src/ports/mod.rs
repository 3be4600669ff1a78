//! What the proxy's domain asks of the outside: billing and the outbox.

pub mod billing;
pub mod clock;
pub mod outbox;
