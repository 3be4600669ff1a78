//! The tests that need no running service: the tidiness of the tree, and the protocol against vectors and captures.
//! The ones that start servers are in `tests/e2e`.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod allocation;
mod answers;
mod arrows;
mod built_rpc;
mod built_tables;
mod built_tokens;
mod built_values;
mod captures;
mod citations;
mod client_captures;
mod client_vectors;
mod dependencies;
mod documents;
mod fuzz;
mod messages;
mod mutations;
mod names;
mod other_clients;
mod session_streams;
mod smp;
mod sources;
mod steady_state;
mod token_fields;
mod tree;
mod value_lengths;
mod walker_allocations;
mod walker_random;
mod walker_vectors;
