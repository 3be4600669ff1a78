//! Rows cost no allocation, whatever their types and however they are cut.

use fastrand::Rng;
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Step, Walker, WalkerOptions};

use crate::allocation::peak;

/// INT, INTN, NVARCHAR, sql_variant, TEXT, NVARCHAR(MAX), XML: every framing that a row can have.
fn metadata() -> Vec<u8> {
    let types: [&[u8]; 7] = [
        &[0x38],
        &[0x26, 4],
        &[0xE7, 100, 0, 9, 4, 0xD0, 0, 0x34],
        &[0x62, 0x49, 0x1F, 0, 0],
        &[0x22, 0xFF, 0xFF, 0xFF, 0x7F, 1, 1, 0, b't', 0],
        &[0xE7, 0xFF, 0xFF, 9, 4, 0xD0, 0, 0x34],
        &[0xF1, 0],
    ];
    let mut out = vec![0x81, 7, 0];
    for info in types {
        out.extend([0, 0, 0, 0, 9, 0]);
        out.extend_from_slice(info);
        out.push(0);
    }
    out
}

fn rows() -> Vec<u8> {
    let mut row = vec![
        0xD1, 1, 2, 3, 4, 4, 1, 2, 3, 4, 2, 0, b'a', 0, 3, 0, 0, 0, 0x30, 0, 7,
    ];
    row.push(16);
    row.extend([7; 24]);
    row.extend([3, 0, 0, 0, 1, 2, 3]);
    let plp: [&[u8]; 4] = [
        &5u64.to_le_bytes(),
        &[2, 0, 0, 0, 1, 2],
        &[3, 0, 0, 0, 1, 2, 3],
        &[0; 4],
    ];
    plp.iter().for_each(|part| row.extend_from_slice(part));
    row.extend((u64::MAX - 1).to_le_bytes());
    row.extend([1, 0, 0, 0, 9, 0, 0, 0, 0]);
    let nbc = [0xD2, 0b0111_1100, 1, 2, 3, 4, 0];
    (0..200)
        .flat_map(|i| if i % 3 == 0 { nbc.to_vec() } else { row.clone() })
        .collect()
}

#[test]
fn rows_cost_no_allocation() {
    let (metadata, rows) = (metadata(), rows());
    let mut rng = Rng::with_seed(5);
    for most in [1, 3, 50, 1000, rows.len()] {
        let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
        let mut budget = Budget::UNLIMITED;
        let first = walker.walk(&metadata, &mut budget).expect("metadata");
        assert!(matches!(first.step, Step::Token(_)));
        assert_eq!(first.consumed, metadata.len());
        let ((), bytes) = peak(|| {
            let mut at = 0;
            while at < rows.len() {
                let to = (at + rng.usize(1..=most)).min(rows.len());
                at += walker.walk(&rows[at..to], &mut budget).expect("rows").consumed;
            }
        });
        assert_eq!(walker.rows(), 200);
        assert!(walker.at_boundary());
        assert_eq!(bytes, 0, "pieces of up to {most} bytes");
    }
}

#[test]
fn a_split_token_takes_no_more_than_its_bytes() {
    // INFO of 60 KB, byte by byte: the scratch grows by doubling.
    let mut token = vec![0xAB, 0x60, 0xEA];
    token.resize(3 + 0xEA60, 0);
    let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
    let ((), bytes) = peak(|| {
        let mut budget = Budget::UNLIMITED;
        for byte in &token {
            assert_eq!(
                walker
                    .walk(std::slice::from_ref(byte), &mut budget)
                    .expect("a token")
                    .consumed,
                1
            );
        }
    });
    assert!(walker.at_boundary());
    assert!(bytes <= token.len() * 4, "{bytes}");
}

#[test]
fn a_return_value_of_any_size_is_not_kept() {
    // 16 MiB of VARBINARY(MAX), four times what a token may have.
    let mut head = vec![0xAC, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xA5, 0xFF, 0xFF];
    head.extend((u64::MAX - 1).to_le_bytes());
    let chunk = [&65_536u32.to_le_bytes()[..], &[7; 65_536]].concat();
    let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
    let mut budget = Budget::UNLIMITED;
    let ((), bytes) = peak(|| {
        let mut at = 0;
        while at < head.len() {
            at += walker.walk(&head[at..], &mut budget).expect("the head").consumed;
        }
        for _chunk in 0..256 {
            assert_eq!(
                walker.walk(&chunk, &mut budget).expect("a chunk").consumed,
                chunk.len()
            );
        }
        assert!(!walker.at_boundary());
        walker.walk(&[0; 4], &mut budget).expect("the end");
    });
    assert!(walker.at_boundary());
    assert_eq!(walker.end_message(), Ok(()));
    assert_eq!(bytes, 0);
}

#[test]
fn a_token_beyond_the_bound_is_an_error_at_once() {
    use weir_tds::error::WireErrorKind;
    // SESSIONSTATE that claims 2 GB: refused by its length, before anything is kept.
    let token = [0xE4, 0xFF, 0xFF, 0xFF, 0x7F, 0];
    let mut walker = Walker::new(WalkerOptions::new(TdsVersion::V7_4));
    let error = walker
        .walk(&token, &mut Budget::UNLIMITED.clone())
        .expect_err("too large");
    assert!(matches!(error.kind, WireErrorKind::TooLarge { .. }), "{error}");
    assert_eq!(error.offset, 0);
}
