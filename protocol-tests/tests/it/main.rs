//! The tests that need no running service: the tidiness of the tree, and the protocol against vectors and captures.
//! The ones that start servers are in `tests/e2e`.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod arrows;
mod captures;
mod dependencies;
mod documents;
mod names;
mod sources;
mod token_fields;
mod tree;
mod walker_random;
mod walker_vectors;
