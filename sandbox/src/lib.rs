//! An embedded server that speaks SQL Server's protocol, for the demo, tests and benches: a `sqlite` backend that runs
//! T-SQL, and a `scenario` backend that plays scripted token streams. No production data belongs here.

mod backend;
pub mod certificate;
mod clock;
pub mod config;
mod conn;
mod demo;
pub mod scenario;
mod server;
mod sql;
mod tokens;
mod tsql;

pub use config::{Backend, Config, EncryptionPolicy, Login, TlsFiles};
pub use server::{Running, StartError, start};
