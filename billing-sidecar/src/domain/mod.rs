//! Pure decisions: facts and `now` come in, decisions come out. No tokio, no clock, no files, no chance.

pub mod accounts;
pub mod lease;
pub mod proxies;
pub mod rating;
pub mod reconcile;
pub mod settle;
pub mod tariffs;
