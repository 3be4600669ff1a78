//! Vectors and captures through a whole session of the proxy: what both sides are told and what the usage record says is
//! the known truth, however the stream is cut.

mod captured;
mod logins;
mod multiplexed;
mod requests;
mod responses;

use fastrand::Rng;
use weir_tds::packet::{HEADER_LEN, PacketStatus, PacketType};
use weir_tds::request::{RequestOptions, sql_batch};
use weir_tds::version::TdsVersion;

/// Divisions of each stream at random, beside every division into two and that into single bytes.
fn random_splits() -> usize {
    let long = std::env::var("WEIR_TEST_LONG").is_ok_and(|v| v == "1");
    if long { 2000 } else { 100 }
}

/// Body bytes of a full packet of the size that the logins here agree on, 4096.
const BODY_MAX: usize = 4088;

/// Every division of `len` bytes that is tried: none, each into two, single bytes, and random ones.
fn divisions(len: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    all.extend((1..len).map(|at| vec![at]));
    all.push((1..len).collect());
    all.extend((0..random_splits()).map(|_| random_cuts(len, rng)));
    all
}

fn random_cuts(len: usize, rng: &mut Rng) -> Vec<usize> {
    let count = rng.usize(..=len.min(40));
    let mut cuts: Vec<usize> = (0..count).map(|_| rng.usize(..=len)).collect();
    cuts.sort_unstable();
    cuts
}

/// One message in packets whose bodies end at `ends` (ascending) and at the body's end; [MS-TDS 2.2.3.1].
fn packets(kind: PacketType, first: PacketStatus, body: &[u8], ends: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut from = 0;
    let mut ends: Vec<usize> = ends
        .iter()
        .copied()
        .filter(|end| (1..body.len()).contains(end))
        .collect();
    ends.dedup();
    ends.push(body.len());
    for (nth, &to) in ends.iter().enumerate() {
        let eom = if to == body.len() { PacketStatus::EOM.0 } else { 0 };
        let first = if nth == 0 {
            first.0 & !PacketStatus::EOM.0
        } else {
            0
        };
        let length = u16::try_from(HEADER_LEN + to - from).expect("one packet");
        out.extend([kind.byte(), first | eom]);
        out.extend(length.to_be_bytes());
        out.extend([0, 51, u8::try_from((nth + 1) % 256).expect("a byte"), 0]);
        out.extend_from_slice(&body[from..to]);
        from = to;
    }
    out
}

/// A response.
fn answer(body: &[u8], ends: &[usize]) -> Vec<u8> {
    packets(PacketType::TabularResult, PacketStatus::NORMAL, body, ends)
}

/// Some request.
fn request(version: TdsVersion) -> Vec<u8> {
    let body = sql_batch::encode("select something", 0, RequestOptions::new(version));
    packets(PacketType::SqlBatch, PacketStatus::NORMAL, &body, &[])
}

/// Where full packets end.
fn full_packets(body: &[u8]) -> Vec<usize> {
    (1..body.len()).filter(|at| at % BODY_MAX == 0).collect()
}
