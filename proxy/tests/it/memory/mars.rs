//! The same for sessions that share connections (MARS).

use std::sync::Arc;

use super::{
    ALONE, IDLE_MAX, Legs, Proxy, SESSIONS, STREAMING_MAX,
    sandbox::{self, ONE_ROW, ROWS},
};
use crate::mars_sockets::{Wire, client};

/// Sessions on each connection; the gate and drivers take up to 64.
const PER_CONNECTION: u16 = 50;
/// Of these, how many stream.
const STREAMING: u16 = 10;
/// Packet size that both legs agree on.
const PACKET: u64 = 4096;

async fn connect(proxy: &Proxy) -> Wire {
    let mut wire = client(proxy.address, 0..PER_CONNECTION).await;
    work(&mut wire).await;
    wire
}

/// Every session asks, and every one is answered.
async fn work(wire: &mut Wire) {
    for sid in 0..PER_CONNECTION {
        wire.ask(sid, "select 1").await;
    }
    for sid in 0..PER_CONNECTION {
        wire.answer(sid).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_on_twenty_connections_hold_little() {
    let _alone = ALONE.lock().await;
    let server = sandbox::start(None).await;
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&server.addr.to_string(), Legs::Clear, dir, Arc::default()).await;
    let warm = connect(&proxy).await;
    let before = proxy.settled().await;
    let mut wires = Vec::new();
    for _ in 0..SESSIONS / u64::from(PER_CONNECTION) {
        wires.push(connect(&proxy).await);
    }
    let mut held = proxy.settled().await;
    let each = (held - before) / SESSIONS;
    println!("MARS: an idle session holds {each} bytes");
    assert!(each <= IDLE_MAX, "an idle session holds {each} bytes");
    for wire in &mut wires {
        work(wire).await;
    }
    let each = proxy.each(before, SESSIONS).await;
    println!("MARS: after all worked again it holds {each} bytes");
    assert!(each <= IDLE_MAX, "an idle session holds {each} bytes");
    let mut stalled = Vec::new();
    for text in [ROWS, ONE_ROW] {
        let mut streaming = wires.split_off(wires.len() / 2);
        let count = streaming.len() as u64 * u64::from(STREAMING);
        for wire in &mut streaming {
            for sid in 0..STREAMING {
                wire.ask(sid, text).await;
            }
        }
        let each = proxy.each(held, count).await;
        println!("MARS: a session that streams {text} to nobody holds {each} bytes");
        let most = STREAMING_MAX + 2 * PACKET;
        assert!(each <= most, "{text}: {each} bytes of {most}");
        // They stay: what they would give back would hide what the next ones take.
        held = proxy.settled().await;
        stalled.push(streaming);
    }
    drop((warm, wires));
}
