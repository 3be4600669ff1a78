//! Memory stays flat while much passes through, and a client that stops reading stops the server.

use std::io::Read;
use std::time::Duration;

use weir_protocol_tests::deadline::pause;
use weir_protocol_tests::demo::Place;
use weir_protocol_tests::money::DEMO_ROW;
use weir_protocol_tests::raw::Raw;
use weir_protocol_tests::rows::Rows;

/// Rows of `events`.
const EVENTS: u64 = 1_000_000;

/// What the whole demo may hold in memory more than before: sandbox, proxy, billing and wallet together.
const GROWTH_MAX: u64 = 64 * 1024 * 1024;

/// How long the client reads nothing.
const STALL: Duration = Duration::from_secs(3);

/// CPU time that the demo may use in a stall: its timers, and what fills the sockets' buffers.
const STALL_CPU_MAX: Duration = Duration::from_millis(900);

#[test]
fn memory_stays_flat_while_a_million_rows_pass() {
    let place = Place::new();
    let demo = place.start("20.00");
    let mut raw = Raw::login(&demo.tenant()).expect("a login");
    raw.batch("select top 1000 * from events").expect("a request");
    let _ = read_response(&mut raw);
    let before = demo.memory("VmRSS");
    raw.batch("select * from events").expect("a request");
    let rows = read_response(&mut raw);
    assert_eq!(rows, EVENTS);
    let most = demo.memory("VmHWM");
    println!("memory before {before}, at most {most}");
    assert!(
        most - before < GROWTH_MAX,
        "it grew from {before} to {most} bytes"
    );
    let cost = i64::try_from(EVENTS + 1000).expect("few") * DEMO_ROW;
    assert_eq!(demo.settled_balance(), 20_000_000_000 - cost);
    demo.stop();
}

#[test]
fn a_client_that_stops_reading_stops_the_server() {
    let place = Place::new();
    let demo = place.start("20.00");
    let mut raw = Raw::login(&demo.tenant()).expect("a login");
    raw.batch("select * from events").expect("a request");
    let mut rows = Rows::new();
    let mut buffer = vec![0; 1 << 20];
    raw.socket().read_exact(&mut buffer).expect("a megabyte");
    rows.feed(&buffer);
    // The sockets' buffers between server, gate and client fill first.
    pause(STALL / 3);
    let (before, cpu) = (demo.memory("VmRSS"), demo.cpu_time());
    pause(STALL);
    let (after, used) = (demo.memory("VmRSS"), demo.cpu_time() - cpu);
    println!("stalled: {used:?} of CPU, memory {before} to {after}");
    assert!(
        used < STALL_CPU_MAX,
        "the server went on: {used:?} of CPU in {STALL:?}"
    );
    assert!(
        after < before + GROWTH_MAX / 4,
        "memory took the rows: {before} to {after}"
    );
    while rows.counted().messages == 0 {
        let count = raw.socket().read(&mut buffer).expect("the rest");
        assert!(count > 0, "the stream ended early: {:?}", rows.counted());
        rows.feed(&buffer[..count]);
    }
    assert_eq!(rows.counted().rows, EVENTS);
    demo.stop();
}

fn read_response(raw: &mut Raw) -> u64 {
    let mut rows = Rows::new();
    let mut buffer = vec![0; 256 * 1024];
    while rows.counted().messages == 0 {
        let count = raw.socket().read(&mut buffer).expect("a response");
        assert!(count > 0, "the stream ended early: {:?}", rows.counted());
        rows.feed(&buffer[..count]);
    }
    rows.counted().rows
}
