//! The judge: which side of a floor a ratio is on, and what is not judged at all.

use std::collections::BTreeMap;

use weir_benches::ends::client::Outcome;
use weir_benches::ends::encryption::Encryption;
use weir_benches::figures::{Figure, RULES, judge};
use weir_benches::peers::Peer;
use weir_benches::rounds::{Plan, Samples, median};
use weir_benches::stage::Sample;
use weir_benches::syscalls::Calls;
use weir_benches::workload::{Size, Workload};

fn sample(cpu: f64, seconds: f64, busy: f64, p50: u64) -> Sample {
    Sample {
        outcome: Outcome {
            statements: 1_000,
            rows: 1_000,
            bytes: 1_000_000_000,
            nanos: (seconds * 1e9) as u64,
            p50,
            p99: 2 * p50,
            ..Outcome::default()
        },
        cpu,
        busy,
        resident: 10.0 * 1024.0,
    }
}

fn judged(cell: &'static str, samples: [(Peer, Vec<Sample>); 3], size: Size) -> Vec<Figure> {
    let samples: Samples = samples.into_iter().collect();
    judge(&BTreeMap::from([((cell, Encryption::Plain), samples)]), size)
}

fn stream(weir: Sample, size: Size) -> Vec<Figure> {
    judged(
        "stream-1",
        [
            (Peer::Haproxy, vec![sample(0.5, 1.0, 0.5, 1)]),
            (Peer::HaproxySplice, vec![sample(0.3, 1.0, 0.5, 1)]),
            (Peer::Enforcing, vec![weir]),
        ],
        size,
    )
}

#[test]
fn a_dearer_proxy_misses_its_floors() {
    let figures = stream(sample(0.7, 1.5, 0.95, 1), Size::Full);
    let verdicts: Vec<_> = figures.iter().map(|figure| (figure.ok, figure.aimed)).collect();
    // 1.4 times the CPU of HAProxy, 2.33 times that with splice, two thirds of the throughput.
    assert_eq!(
        verdicts,
        [(false, false), (false, false), (false, false)],
        "{figures:#?}"
    );
    let figures = stream(sample(0.55, 1.0, 0.95, 1), Size::Full);
    let verdicts: Vec<_> = figures.iter().map(|figure| (figure.ok, figure.aimed)).collect();
    assert_eq!(
        verdicts,
        [(true, false), (true, false), (true, true)],
        "{figures:#?}"
    );
}

#[test]
fn throughput_is_not_judged_where_the_ends_are_the_limit() {
    let figures = stream(sample(0.5, 9.0, 0.6, 1), Size::Full);
    let throughput = &figures[2];
    assert!(throughput.ok && throughput.floor.is_none(), "{throughput:?}");
    assert!(throughput.figure.contains("60 % busy"), "{throughput:?}");
    let tiny = stream(sample(9.0, 9.0, 1.0, 1), Size::Tiny);
    assert!(tiny.iter().all(|figure| figure.ok && figure.floor.is_none()));
}

#[test]
fn latency_is_what_is_added_and_five_microseconds_are_none() {
    let latency = |weir: u64, size| {
        judged(
            "latency",
            [
                (Peer::Direct, vec![sample(0.0, 1.0, 0.0, 20_000)]),
                (Peer::Haproxy, vec![sample(1.0, 1.0, 1.0, 22_000)]),
                (Peer::Enforcing, vec![sample(1.0, 1.0, 1.0, weir)]),
            ],
            size,
        )
    };
    let near = latency(24_000, Size::Full);
    assert!((near[0].weir - 4.0).abs() < 1e-9 && near[0].ok, "{near:?}");
    let far = latency(26_000, Size::Full);
    assert!(
        (far[0].ratio - 3.0).abs() < 1e-9 && !far[0].ok && !far[1].ok,
        "{far:?}"
    );
    let quick = latency(26_000, Size::Quick);
    assert!(
        !quick[0].ok && quick[1].ok && quick[1].floor.is_none(),
        "{quick:?}"
    );
}

#[test]
fn memory_is_judged_by_its_kib() {
    let figures = judged(
        "idle",
        [
            (Peer::Direct, vec![]),
            (Peer::Haproxy, vec![sample(1.0, 1.0, 1.0, 1)]),
            (Peer::Enforcing, vec![sample(1.0, 1.0, 1.0, 1)]),
        ],
        Size::Full,
    );
    assert_eq!((figures[0].ok, figures[0].aimed), (true, false), "{figures:?}");
}

#[test]
fn every_rule_is_about_something_that_is_measured() {
    for size in [Size::Full, Size::Quick, Size::Tiny] {
        let plan = Plan {
            size,
            rounds: 1,
            only: None,
        };
        for rule in RULES {
            let cells = plan.cells();
            let of_rule = |(workload, encryption, _): &&(Workload, Encryption, Vec<Peer>)| {
                (workload.name, *encryption) == rule.cell
            };
            let cell = cells.iter().find(of_rule);
            let (_, _, peers) = cell.unwrap_or_else(|| panic!("{rule:?} in {size:?}"));
            assert!(
                peers.contains(&rule.peer) && peers.contains(&Peer::Enforcing),
                "{rule:?}"
            );
            assert!(
                !rule.metric.is_added() || peers.contains(&Peer::Direct),
                "{rule:?}"
            );
        }
    }
}

#[test]
fn a_median_is_the_middle() {
    assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
    assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    assert!(median([]).is_nan());
}

#[test]
fn a_summary_of_strace_is_read() {
    let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                   ------ ----------- ----------- --------- --------- ----------------\n\
                    61.30    0.000250           2       100        40 recvfrom\n\
                    38.70    0.000158           3        50           sendto\n\
                   ------ ----------- ----------- --------- --------- ----------------\n\
                   100.00    0.000408           2       150        40 total\n";
    let calls = Calls::of_summary(summary);
    assert_eq!((calls.all(), calls.received()), (150, 60));
    assert_eq!(calls.most(1), "recvfrom 100");
}
