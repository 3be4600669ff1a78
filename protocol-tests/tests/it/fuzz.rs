//! The short fuzz run of CI: every target on its seeds, its corpus and seeded mutations of both.

use fastrand::Rng;
use weir_protocol_tests::fuzz::{TARGETS, Target, corpus, oracle};

/// Mutations of each target; `WEIR_FUZZ_MUTATIONS` sets another number. All targets together stay below a minute in release.
const MUTATIONS: u32 = 20_000;
/// Of a build without optimisation: enough to see that nothing is broken.
const MUTATIONS_UNOPTIMISED: u32 = 500;
const SEED: u64 = 0xF0_22;

pub(crate) fn mutations() -> u32 {
    let said = std::env::var("WEIR_FUZZ_MUTATIONS")
        .ok()
        .and_then(|n| n.parse().ok());
    said.unwrap_or(if cfg!(debug_assertions) {
        MUTATIONS_UNOPTIMISED
    } else {
        MUTATIONS
    })
}

fn mutate(rng: &mut Rng, input: &mut Vec<u8>, others: &[Vec<u8>], most: usize) {
    for _ in 0..rng.u32(1..=4) {
        if input.is_empty() {
            input.push(rng.u8(..));
        }
        let at = rng.usize(..input.len());
        match rng.u32(..8) {
            0 => input[at] ^= 1 << rng.u32(..8),
            1 => input[at] = rng.u8(..),
            2 => input.truncate(at),
            3 => {
                let width = 1 << rng.u32(..4);
                let value = *rng.choice(&[0xFF, 0x7F, 0x00]).expect("three");
                input[at..].iter_mut().take(width).for_each(|b| *b = value);
            }
            4 => drop(input.drain(at..(at + rng.usize(..32)).min(input.len()))),
            5 => {
                let other = &others[rng.usize(..others.len())];
                let from = rng.usize(..=other.len());
                let to = (from + rng.usize(..64)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            6 => {
                let piece: Vec<u8> = input[at..(at + rng.usize(..64)).min(input.len())].to_vec();
                input.extend_from_slice(&piece);
            }
            _ => input[at] = input[at].wrapping_add(rng.u8(..4).wrapping_sub(2)),
        }
    }
    input.truncate(most);
}

fn short_run(target: &Target) {
    let run = |input: &[u8]| oracle::nothing_kept(|| (target.run)(input));
    run_all(target, mutations(), run);
}

/// Runs a target's seeds, its corpus and so many mutations of both.
pub(crate) fn run_all(target: &Target, mutations: u32, run: impl Fn(&[u8])) {
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty(), "{} has no seed", target.name);
    let kept = corpus(target);
    assert!(!kept.is_empty(), "{} has no corpus", target.name);
    inputs.extend(kept);
    for input in &inputs {
        run(input);
    }
    let mut rng = Rng::with_seed(SEED);
    let mut last = Vec::new();
    for round in 0..mutations {
        last.clear();
        last.extend_from_slice(&inputs[rng.usize(..inputs.len())]);
        mutate(&mut rng, &mut last, &inputs, target.input_max);
        let run = std::panic::AssertUnwindSafe(|| run(&last));
        if std::panic::catch_unwind(run).is_err() {
            panic!("{} does not hold, round {round}: {}", target.name, hex(&last));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! short_runs {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            short_run(&weir_protocol_tests::fuzz::named(stringify!($name)).expect("a target"));
        })*

        #[test]
        fn every_target_has_a_short_run() {
            let run = [$(stringify!($name)),*];
            let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(all, run);
            assert!(all.len() >= 9, "rustls has nine");
        }
    };
}

short_runs!(
    framer, message, walker, tokens, prelogin, login7, request, smp, session, browser, tls, builder
);
