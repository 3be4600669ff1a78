//! Integration tests of the billing service: one binary.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]
