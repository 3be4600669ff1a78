//! How long a slice of one account's lease takes while several threads want one. Every run checks that no nano-unit is lost.
//!
//! `cargo bench -p weir-benches --bench lease`

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use weir_benches::kernels::{Account, tariff};

/// Threads at once: more than there are cores, too.
const THREADS: [u64; 4] = [1, 2, 4, 8];

/// The longest of the threads' times.
fn contend(account: &Account, threads: u64, slices: u64) -> Duration {
    let before = account.credit.state().leftover_nanos;
    let start = Barrier::new(usize::try_from(threads).expect("a count of threads"));
    let (spent, took) = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let credit = Arc::clone(&account.credit);
                    start.wait();
                    let began = Instant::now();
                    let spent = (0..slices).map(|_| Account::turn(&credit).expect("credit"));
                    (spent.sum::<i64>(), began.elapsed())
                })
            })
            .collect();
        running
            .into_iter()
            .fold((0, Duration::ZERO), |(spent, took), thread| {
                let (more, time) = thread.join().expect("a thread that takes slices");
                (spent + more, took.max(time))
            })
    });
    let after = account.credit.state();
    assert_eq!(
        (after.leftover_nanos, after.outstanding_nanos),
        (before - spent, 0)
    );
    took
}

fn lease(c: &mut Criterion) {
    let account = Account::rich(tariff()).expect("an account with a lease");
    let mut group = c.benchmark_group("lease, slices of one account");
    for threads in THREADS {
        group.bench_function(format!("{threads} threads"), |b| {
            b.iter_custom(|slices| contend(&account, threads, slices));
        });
    }
    group.finish();
}

criterion_group!(benches, lease);
criterion_main!(benches);
