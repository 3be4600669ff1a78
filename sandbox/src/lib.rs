//! An embedded server that speaks SQL Server's protocol, for the demo, tests and benches: a `sqlite` backend that runs
//! T-SQL, and a `scenario` backend that plays scripted token streams. No production data belongs here.

pub mod config;
pub mod scenario;
mod server;
mod tsql;

pub use config::{Backend, Config, EncryptionPolicy, Login, TlsFiles};
pub use server::{Running, StartError, start};
