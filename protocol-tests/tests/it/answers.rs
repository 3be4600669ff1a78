//! The gate's own answers against what real servers say in the same place, and against the naive decoder.

use weir_protocol_tests::naive_decoder::decode;
use weir_protocol_tests::vectors::{Vector, load};
use weir_tds::answer::{
    Refusal, RequestKind, ResultSet, Stage, acknowledge_attention, acknowledge_ignored, deny_login, refuse,
    result_set, succeed,
};
use weir_tds::build::TokenBuf;
use weir_tds::token::TokenKind;
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

fn vector(name: &str) -> Vector {
    load()
        .into_iter()
        .find(|v| v.name == name)
        .unwrap_or_else(|| panic!("no vector {name}"))
}

/// What an answer of version 7.4 looks like.
fn answer(make: impl FnOnce(&mut TokenBuf)) -> Vec<u8> {
    let mut out = TokenBuf::new(TdsVersion::V7_4);
    make(&mut out);
    out.take().to_vec()
}

#[test]
fn acknowledgements_are_those_of_a_real_server() {
    assert_eq!(
        answer(acknowledge_attention),
        vector("real-sql2025-attention-ack-idle").bytes
    );
    assert_eq!(
        answer(acknowledge_ignored),
        vector("real-sql2025-ignore-eom-response").bytes
    );
}

#[test]
fn a_cut_has_the_shape_of_its_vector() {
    let refusal = Refusal {
        number: 50_000,
        state: 1,
        class: 16,
        message: "proxy: blocked",
        server_name: "proxy",
    };
    for (name, kind) in [
        ("token-cut-batch-mid-resultset", RequestKind::Batch),
        ("token-cut-rpc-mid-resultset", RequestKind::Rpc),
    ] {
        let cut = answer(|out| refuse(out, &refusal, kind, Stage::Cut));
        assert!(vector(name).bytes.ends_with(&cut), "{name}");
    }
}

#[test]
fn a_denied_login_ends_as_a_real_one() {
    let refusal = Refusal {
        number: 18_456,
        state: 1,
        class: 14,
        message: "no",
        server_name: "weir",
    };
    let denied = answer(|out| deny_login(out, &refusal));
    assert!(denied.ends_with(&vector("real-sql2022-login-failed-done").bytes));
}

/// Every token of an answer, read by somebody else.
fn tokens(bytes: &[u8], version: TdsVersion) -> Vec<u8> {
    let (tokens, error) = decode(bytes, WalkerOptions::new(version));
    assert_eq!(error, None);
    tokens.iter().map(|t| t.token).collect()
}

#[test]
fn every_answer_in_every_version_can_be_read() {
    let refusal = Refusal {
        number: 50_402,
        state: 1,
        class: 16,
        message: "credit spent",
        server_name: "weir",
    };
    let set = ResultSet {
        columns: &["account", "balance", "currency"],
        rows: vec![vec![Some("demo".into()), Some("5.000000000".into()), None]],
    };
    let kinds = [
        RequestKind::Batch,
        RequestKind::Rpc,
        RequestKind::Bulk,
        RequestKind::Transaction,
    ];
    let versions = [
        TdsVersion::V7_0,
        TdsVersion::V7_1,
        TdsVersion::V7_1Rev1,
        TdsVersion::V7_2,
        TdsVersion::V7_3B,
        TdsVersion::V8_0,
    ];
    for version in versions {
        for kind in kinds {
            let mut out = TokenBuf::new(version);
            refuse(&mut out, &refusal, kind, Stage::NotStarted);
            let end = if kind == RequestKind::Rpc {
                TokenKind::DoneProc
            } else {
                TokenKind::Done
            };
            assert_eq!(
                tokens(&out.take(), version),
                [TokenKind::Error.byte(), end.byte()]
            );
            result_set(&mut out, &set, kind).unwrap();
            let wanted: &[u8] = match kind {
                RequestKind::Rpc => &[0x81, 0xD1, 0xFF, 0x79, 0xFE],
                _ => &[0x81, 0xD1, 0xFD],
            };
            assert_eq!(tokens(&out.take(), version), wanted);
            succeed(&mut out, kind);
            assert_eq!(tokens(&out.take(), version).last(), Some(&end.byte()));
        }
    }
}
