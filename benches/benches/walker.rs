//! How fast the walker counts rows, beside a copy of the same bytes. Every run checks its own count.
//!
//! `cargo bench -p weir-benches --bench walker`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir_benches::{Response, Shape};
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Walker, WalkerOptions};

/// Bytes of a response: more than a core's own caches hold together with its copy.
const RESPONSE: usize = 8 * 1024 * 1024;
/// Pieces as a proxy reads them.
const PIECE: usize = 256 * 1024;
/// Pieces of the smallest usual packets.
const SMALL_PIECE: usize = 4096 - 8;

fn walk(walker: &mut Walker, response: &Response, piece: usize) {
    walker.begin_message();
    let mut budget = Budget::UNLIMITED;
    for piece in response.bytes.chunks(piece) {
        let mut at = 0;
        while let Some(rest) = piece.get(at..).filter(|rest| !rest.is_empty()) {
            at += walker.walk(rest, &mut budget).expect("a valid stream").consumed;
        }
    }
    assert_eq!(walker.rows(), response.rows, "rows were lost or made up");
    assert!(walker.at_boundary());
}

fn walker(c: &mut Criterion) {
    for shape in Shape::ALL {
        let response = shape.response(RESPONSE);
        let per_row = response.bytes.len() as u64 / response.rows;
        let mut group = c.benchmark_group(format!("walker/{} ({per_row} B rows)", shape.name()));
        group.throughput(Throughput::Bytes(response.bytes.len() as u64));
        let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
        group.bench_function("256 KiB pieces", |b| {
            b.iter(|| walk(&mut walker, &response, PIECE))
        });
        group.bench_function("4 KiB pieces", |b| {
            b.iter(|| walk(&mut walker, &response, SMALL_PIECE))
        });
        let mut copy = vec![0u8; PIECE];
        group.bench_function("memcpy", |b| {
            b.iter(|| {
                for piece in response.bytes.chunks(PIECE) {
                    copy[..piece.len()].copy_from_slice(piece);
                    black_box(&copy);
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, walker);
criterion_main!(benches);
