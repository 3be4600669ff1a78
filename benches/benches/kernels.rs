//! How long each kernel takes: framer, walker, meter, gate, lease, journal, rating, ledger. Every turn checks its own answer.
//!
//! `cargo bench -p weir-benches --bench kernels -- gate/`; with `-- --test` each runs once and nothing is measured.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir_benches::kernels::ALL;

fn kernels(c: &mut Criterion) {
    for kernel in ALL {
        let mut group = c.benchmark_group("kernels");
        let mut work = kernel.prepare().expect("the inputs of a kernel");
        let units = work().expect("the answer of a kernel");
        group.throughput(Throughput::Elements(units));
        group.bench_function(kernel.name, |b| {
            b.iter(|| work().expect("the answer of a kernel"));
        });
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
