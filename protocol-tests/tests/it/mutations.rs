//! Broken input: every vector of the client's side, damaged in seeded ways, through every parser of that side. No parser
//! may panic, and none may allocate more than 64 KiB and four times its input.

use weir_tds::error::WireError;
use weir_tds::framer::{Frame, Framer};
use weir_tds::login7::Login7;
use weir_tds::packet::PacketType;
use weir_tds::prelogin::Prelogin;
use weir_tds::request::RequestOptions;
use weir_tds::request::all_headers::AllHeaders;
use weir_tds::request::bulk_load::{BulkKind, BulkWalker};
use weir_tds::request::fed_auth::FedAuthToken;
use weir_tds::request::rpc::RpcReader;
use weir_tds::request::rpc_walk::RpcWalker;
use weir_tds::request::sql_batch::SqlBatch;
use weir_tds::request::transaction::TransactionRequest;
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

use crate::allocation::peak;
use crate::messages::client_messages;

/// Damaged forms of each vector. Enough that each byte of most is hit; `scripts/test --long` is for more.
const ROUNDS: u32 = 600;
const SEED: u64 = 0x005E_ED07_D5AA;

fn damage(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..rng.u32(1..=3) {
        if bytes.is_empty() {
            bytes.push(rng.u8(..));
        }
        let at = rng.usize(..bytes.len());
        match rng.u32(..7) {
            0 => bytes[at] ^= 1 << rng.u32(..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes.truncate(at),
            3 => {
                // A length field blown up: most are 1, 2, 4 or 8 bytes.
                let width = 1 << rng.u32(..4);
                let value = if rng.bool() { 0xFF } else { 0x7F };
                bytes[at..].iter_mut().take(width).for_each(|b| *b = value);
            }
            4 => {
                let end = (at + rng.usize(..64)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let other = &others[rng.usize(..others.len())];
                let from = rng.usize(..=other.len());
                let to = (from + rng.usize(..64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let piece: Vec<u8> = bytes[at..(at + rng.usize(..256)).min(bytes.len())].to_vec();
                bytes.extend_from_slice(&piece);
            }
        }
    }
}

/// Everything that reads what a client sends.
fn parse_all(bytes: &[u8], version: TdsVersion, enclave: bool, encryption: bool) {
    let options = RequestOptions { version, enclave };
    let framer = Framer::new(32767);
    let mut rest = bytes;
    while let Ok(Frame::Packet(header)) = framer.next(rest) {
        rest = &rest[usize::from(header.length)..];
    }
    if let Ok(prelogin) = Prelogin::parse(bytes) {
        assert_eq!(Prelogin::parse(&prelogin.encode()), Ok(prelogin));
    }
    if let Ok(headers) = AllHeaders::parse(bytes, version) {
        let _ = TransactionRequest::parse(bytes, &headers);
    }
    if let Ok(batch) = SqlBatch::parse(bytes, options) {
        let _ = batch.text();
    }
    rpc(bytes, options);
    let _ = FedAuthToken::parse(bytes);
    for kind in [BulkKind::Rows, BulkKind::Text] {
        let walker = WalkerOptions {
            version,
            column_encryption: encryption,
            data_classification: 0,
        };
        let mut walker = BulkWalker::new(walker, kind);
        let _ = bytes.chunks(7).try_for_each(|piece| walker.walk(piece));
        let _ = walker.end_message();
    }
}

/// Both readers of RPCs; what the one that sees all accepts, the one that sees pieces accepts too.
fn rpc(bytes: &[u8], options: RequestOptions) {
    let read = || {
        let mut rpc = RpcReader::new(bytes, options)?;
        let mut calls = 0;
        while let Some(call) = rpc.next_call()? {
            let _ = call.procedure.id();
            while let Some(parameter) = rpc.next_parameter()? {
                let _ = (parameter.text(), parameter.integer());
            }
            calls += 1;
        }
        Ok::<u32, WireError>(calls)
    };
    let mut walker = RpcWalker::new(options);
    let mut copy = bytes.to_vec();
    let walked = copy
        .chunks_mut(5)
        .try_for_each(|piece| walker.walk(piece))
        .and_then(|()| walker.end_message());
    if let Ok(calls) = read() {
        assert_eq!(walked, Ok(()));
        assert_eq!(walker.calls(), calls);
    }
}

#[test]
fn no_parser_panics_or_takes_more_memory_than_it_may() {
    let vectors = client_messages();
    let bodies: Vec<Vec<u8>> = vectors.iter().map(|(_, m)| m.body.clone()).collect();
    let mut rng = fastrand::Rng::with_seed(SEED);
    for (vector, message) in &vectors {
        for round in 0..ROUNDS {
            let mut bytes = message.body.clone();
            damage(&mut rng, &mut bytes, &bodies);
            let versions = [
                vector.version,
                TdsVersion::V7_0,
                TdsVersion::V7_1,
                TdsVersion::V7_4,
            ];
            let version = versions[rng.usize(..versions.len())];
            let (enclave, encryption) = (rng.u32(..4) == 0, rng.u32(..4) == 0);
            let ((), most) = peak(|| parse_all(&bytes, version, enclave, encryption));
            let limit = 64 * 1024 + 4 * bytes.len();
            assert!(
                most <= limit,
                "{} round {round}: {most} bytes for {}",
                vector.name,
                bytes.len()
            );
            if message.kind == PacketType::Login7 {
                // Its Length must be right, or nothing else is looked at.
                let len = u32::try_from(bytes.len()).unwrap();
                bytes.iter_mut().zip(len.to_le_bytes()).for_each(|(b, l)| *b = l);
                let (_, most) = peak(|| Login7::parse(&bytes).map(|login| login.encode()));
                assert!(
                    most <= limit,
                    "{} round {round}: {most} bytes for {}",
                    vector.name,
                    bytes.len()
                );
            }
        }
    }
}

#[test]
fn noise_is_refused_in_peace() {
    let mut rng = fastrand::Rng::with_seed(SEED + 1);
    for _ in 0..20_000 {
        let len = rng.usize(..300);
        let mut bytes: Vec<u8> = (0..len)
            .map(|_| if rng.u32(..3) == 0 { 0 } else { rng.u8(..) })
            .collect();
        // Headers of ALL_HEADERS that hold, so that what is behind them is reached.
        if rng.bool() && len > 22 {
            bytes[..22].copy_from_slice(&AllHeaders::encode(0));
        }
        let ((), most) = peak(|| parse_all(&bytes, TdsVersion::V7_4, rng.bool(), rng.bool()));
        assert!(most <= 64 * 1024 + 4 * len, "{most} bytes for {len}");
    }
}
