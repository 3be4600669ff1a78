//! The embedded outbox and broker, with the unhappy half: reopened in the middle, same id again, other content, broken order, other processes.

mod log;
mod queue;
