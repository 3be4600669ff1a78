//! The whole proxy session without its sockets: client, server, billing and time do what the input says.
//!
//! Nothing reaches the server before the tenant is known; memory before login is bounded; rows delivered are rows metered;
//! no money is lost or made; each record costs what its counts come to; and all is the same however the bytes are cut.

pub(super) mod conversation;
mod peer;
mod purse;
mod rig;
mod script;

use weir_contracts::entry::Outcome;
use weir_tds::packet::{HEADER_LEN, PacketHeader};
use weir_tds::walker::WalkerOptions;

use super::oracle;
use crate::naive_decoder::{NaiveError, decode};
pub(super) use rig::Rig;
pub(super) use script::{MARS, Opening, Script, Step};

/// The input is a [`Script`]. One in four is played again in pieces: a session costs more than all other targets.
pub(super) fn target(input: &[u8]) {
    let script = Script::read(input);
    let whole = Rig::play(&script, false);
    whole.money_adds_up();
    rows_add_up(&whole, &script);
    if oracle::fingerprint(input) & 0x300 != 0 {
        return;
    }
    let pieced = Rig::play(&script, true);
    assert_eq!(
        pieced.told(),
        whole.told(),
        "the client or the server was told something else in pieces"
    );
    // Under MARS a fault in one session ends the others, which had their turn before it or not.
    let (_, end) = whole.told();
    if !(script.mars && end.is_some_and(|end| !end.starts_with("closed"))) {
        assert_eq!(pieced.usage(), whole.usage(), "other usage in pieces");
    }
    pieced.money_adds_up();
}

/// Rows in what the client got are rows in the records. The gate's own result sets are not metered: no script asks for
/// them, or this is not looked at.
fn rows_add_up(rig: &Rig, script: &Script<'_>) {
    if script.opening == Opening::FromInput
        || !rig.sees_all()
        || script.asks_the_gate()
        || rig.records().iter().any(|r| r.unparsed)
    {
        return;
    }
    let options = WalkerOptions::new(script.version);
    let (mut rows, mut begun) = (0, 0);
    for body in rig.messages_to(rig::CLIENT) {
        let (tokens, error) = decode(&body, options);
        rows += oracle::rows(&tokens);
        let rest = tokens.last().map_or(0, |t| t.end);
        let row = body.get(rest).is_some_and(|b| (0xD1..=0xD3).contains(b));
        begun += u64::from(row && error == Some(NaiveError::Short));
    }
    let metered: u64 = rig.records().iter().map(|r| r.rows).sum();
    assert!(rows <= metered, "{rows} rows delivered, {metered} metered");
    if rig.records().iter().all(|r| r.outcome == Outcome::Completed) {
        assert!(
            metered <= rows + begun,
            "{rows} rows delivered, {metered} metered"
        );
    }
}

/// Bodies of the messages in a stream of packets, the last one perhaps not whole.
fn messages(mut packets: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut body) = (Vec::new(), Vec::new());
    while let Ok(Some(header)) = PacketHeader::parse(packets) {
        let end = usize::from(header.length).min(packets.len());
        body.extend_from_slice(&packets[HEADER_LEN.min(end)..end]);
        packets = &packets[end..];
        if header.status.is_eom() {
            all.push(std::mem::take(&mut body));
        }
    }
    if !body.is_empty() {
        all.push(body);
    }
    all
}
