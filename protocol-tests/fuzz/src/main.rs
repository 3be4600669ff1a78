//! libFuzzer over one target of `weir_protocol_tests::fuzz`, named by `WEIR_FUZZ_TARGET`; with
//! `WEIR_FUZZ_SEEDS=DIR` it writes the target's seeds and corpus there, prints the most bytes of an input, and ends.
#![no_main]

#[path = "../peers/mod.rs"]
mod peers;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::{Corpus, fuzz_target};
use weir_protocol_tests::allocation::Counting;
use weir_protocol_tests::fuzz::{Target, corpus, named, oracle};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static TARGET: OnceLock<Target> = OnceLock::new();

/// Executions of `peers` between two lines that say how many responses the clients accepted.
const TOLD_EACH: u64 = 1 << 18;

fn find(name: &str) -> Option<Target> {
    if name == peers::TARGET.name {
        return Some(peers::TARGET);
    }
    named(name)
}

/// What other clients keep is theirs; this only asks what they see.
fn run_peers(data: &[u8]) {
    static RUN: AtomicU64 = AtomicU64::new(0);
    (peers::TARGET.run)(data);
    let run = RUN.fetch_add(1, Ordering::Relaxed) + 1;
    if run.is_multiple_of(TOLD_EACH) {
        eprintln!(
            "peers: of {run} inputs responses offered, and accepted by: {:?}",
            peers::accepted()
        );
    }
}

fn begin() {
    let name = std::env::var("WEIR_FUZZ_TARGET").unwrap_or_default();
    let target =
        *TARGET.get_or_init(|| find(&name).unwrap_or_else(|| panic!("WEIR_FUZZ_TARGET={name} is no target")));
    if let Ok(dir) = std::env::var("WEIR_FUZZ_SEEDS") {
        let kept = (target.seeds)().into_iter().chain(corpus(&target));
        for (number, seed) in kept.enumerate() {
            let path = std::path::Path::new(&dir).join(format!("seed-{number:04}"));
            std::fs::write(&path, seed).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        println!("{}", target.input_max);
        std::process::exit(0);
    }
}

fuzz_target!(init: begin(), |data: &[u8]| -> Corpus {
    let Some(target) = TARGET.get() else {
        return Corpus::Reject;
    };
    if data.len() > target.input_max {
        return Corpus::Reject;
    }
    if target.name == peers::TARGET.name {
        run_peers(data);
    } else {
        oracle::nothing_kept(|| (target.run)(data));
    }
    Corpus::Keep
});
