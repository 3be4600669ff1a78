//! The drivers: they carry facts between ports and the domain's decisions. All that waits, retries or runs beside is here.

pub mod books;
pub mod confirmed;
pub mod desk;
pub mod hub;
pub mod live;
pub mod meters;
pub mod rater;
pub mod relay;
pub mod settled;
pub mod settler;
pub mod tenants;
pub mod wallet_watch;
