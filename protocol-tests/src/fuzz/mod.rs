//! Fuzz targets: plain functions over bytes that panic when something does not hold. `protocol-tests/fuzz` runs them under
//! libFuzzer with coverage, `tests/it/fuzz.rs` runs the corpora and seeded mutations in CI (RFD 21, docs/fuzzing.md).
//!
//! Three oracles: memory before login is bounded by what was received and all is given back; rows are those that the
//! naive decoder sees; the answer is the same however the bytes are cut.

mod browser;
mod builder;
mod framer;
mod login7;
mod message;
pub mod oracle;
mod prelogin;
mod request;
pub mod seeds;
mod session;
mod smp;
pub mod source;
mod tls;
mod tokens;
mod values;
mod walker;

use std::path::Path;

pub use session::conversation::Conversation;

use crate::vectors::unhex;

pub use builder::built_response;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its corpus.
    pub name: &'static str,
    /// Runs one input; panics when an oracle is hurt.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made of vectors and captures.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Most bytes of an input: long enough for every structure, short enough for many executions.
    pub input_max: usize,
}

/// Every target.
pub const TARGETS: [Target; 12] = [
    Target {
        name: "framer",
        run: framer::target,
        seeds: seeds::framer,
        input_max: 600,
    },
    Target {
        name: "message",
        run: message::target,
        seeds: seeds::message,
        input_max: 1200,
    },
    Target {
        name: "walker",
        run: walker::target,
        seeds: seeds::walker,
        input_max: 600,
    },
    Target {
        name: "tokens",
        run: tokens::target,
        seeds: seeds::tokens,
        input_max: 400,
    },
    Target {
        name: "prelogin",
        run: prelogin::target,
        seeds: seeds::prelogin,
        input_max: 300,
    },
    Target {
        name: "login7",
        run: login7::target,
        seeds: seeds::login7,
        input_max: 700,
    },
    Target {
        name: "request",
        run: request::target,
        seeds: seeds::request,
        input_max: 600,
    },
    Target {
        name: "smp",
        run: smp::target,
        seeds: seeds::smp,
        input_max: 600,
    },
    Target {
        name: "session",
        run: session::target,
        seeds: seeds::session,
        input_max: 600,
    },
    Target {
        name: "browser",
        run: browser::target,
        seeds: seeds::browser,
        input_max: 64,
    },
    Target {
        name: "tls",
        run: tls::target,
        seeds: tls::seeds,
        input_max: 400,
    },
    Target {
        name: "builder",
        run: builder::target,
        seeds: seeds::builder,
        input_max: 140,
    },
];

/// Inputs that are kept of a target: finds, and the fewest that reach what its runs have reached. One hexadecimal line each.
///
/// # Panics
/// When the file is not there or not hexadecimal.
#[must_use]
pub fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/corpus/{}.hex", target.name));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(unhex).collect()
}

/// The target of this name.
#[must_use]
pub fn named(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
