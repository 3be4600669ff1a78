//! What breaks while the load goes on: each process in turn, and the transport's memory. One stack each, one after the other.

mod faults;
mod redis;
