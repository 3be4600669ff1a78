//! Integration tests of the billing service: one binary. The wallet here is a scripted stand-in; the real one is met in
//! the end-to-end tests, since services never import each other.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod contract;
mod fake_wallet;
mod flow;
mod gate;
mod items;
mod program;
mod property;
mod rating;
#[cfg(feature = "servers")]
mod real;
mod relay;
mod rest;
mod settle;
mod world;
