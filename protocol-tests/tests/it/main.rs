//! The tests that need no running service: the tidiness of the tree, and the protocol against vectors and captures.
//! The ones that start servers are in `tests/e2e`.

mod arrows;
mod dependencies;
mod documents;
mod names;
mod sources;
mod tree;
