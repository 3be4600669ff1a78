//! What the service needs from outside, as traits. Synchronous ones are called off the runtime, on threads that may block.

pub mod broker;
pub mod clock;
pub mod event_store;
pub mod read_model;
