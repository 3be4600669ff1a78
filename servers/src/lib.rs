//! Clients of the real servers, as several services share them: Redis streams, RabbitMQ queues, a PostgreSQL pool. The embedded
//! counterparts of the first two are in `weir-embedded`. Each client sits behind a feature of its name; without features this crate
//! is only the address type that every configuration can hold.

#[cfg(feature = "testing")]
pub mod chaos_proxy;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "testing")]
pub mod redis_process;
mod url;

pub use url::{ServerUrl, UrlError};
