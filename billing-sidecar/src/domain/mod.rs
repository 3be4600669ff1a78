//! Pure decisions: facts and `now` come in, decisions come out. No tokio, no clock, no files, no chance.

pub mod lease;
