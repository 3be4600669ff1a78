//! SIGKILL in the middle of a stream: what the client received is charged, and at most one chunk more.

use std::io::Read;

use fastrand::Rng;
use serde_json::Value;
use weir_protocol_tests::demo::{Demo, Place};
use weir_protocol_tests::money::{DEMO_ROW, UNIT};
use weir_protocol_tests::raw::Raw;
use weir_protocol_tests::rows::{Counted, Rows};
use weir_protocol_tests::world::World;

/// Kills, each at a moment of its own.
const KILLS: usize = 10;

/// Of these, how many must have hit inside a response.
const INSIDE_MIN: usize = 6;

/// Bytes of one chunk (`meter.chunk`): what may be paid for and not yet written.
const CHUNK: u64 = 240 * 1024;

/// The kill comes when the client has read up to this many bytes.
const KILL_AFTER_MAX: usize = 24 * 1024 * 1024;

#[test]
fn killed_in_mid_stream_it_charged_what_was_received_and_one_chunk_at_most() {
    let mut random = Rng::with_seed(9);
    let place = Place::new();
    let credit = 100 * UNIT;
    let mut charged = 0;
    let mut inside = 0;
    let mut seen = 0;
    for round in 0..KILLS {
        let demo = place.start("100.00");
        let received = stream_until_ended(demo, random.usize(1..KILL_AFTER_MAX), Demo::kill);
        let demo = place.start("100.00");
        let balance = demo.settled_balance();
        demo.reconcile();
        let usage = demo.usage();
        let rows = rows_of(&usage[seen..]);
        seen = usage.len();
        println!("round {round}: received {received:?}, charged {rows} rows");
        assert!(
            received.rows <= rows,
            "round {round}: {received:?}, but only {rows} rows were charged"
        );
        let chunk = CHUNK / received.shortest_row + 1;
        assert!(
            rows <= received.rows + chunk,
            "round {round}: {received:?}, {rows} rows were charged"
        );
        charged += rows;
        assert_eq!(
            balance,
            credit - i64::try_from(charged).expect("few rows") * DEMO_ROW,
            "round {round}"
        );
        if received.rows > 0 && received.messages == 0 {
            inside += 1;
        }
        demo.stop();
    }
    assert!(
        inside >= INSIDE_MIN,
        "only {inside} of {KILLS} kills hit inside a response"
    );
}

#[test]
fn stopped_in_mid_stream_it_ends_in_time_and_charged_what_was_received() {
    let place = Place::new();
    let demo = place.start("100.00");
    let received = stream_until_ended(demo, KILL_AFTER_MAX / 8, Demo::stop);
    let demo = place.start("100.00");
    let balance = demo.settled_balance();
    demo.reconcile();
    let rows = rows_of(&demo.usage());
    println!("received {received:?}, charged {rows} rows");
    assert!(received.rows <= rows && rows <= received.rows + CHUNK / received.shortest_row + 1);
    assert_eq!(
        balance,
        100 * UNIT - i64::try_from(rows).expect("few rows") * DEMO_ROW
    );
    demo.stop();
}

#[test]
fn a_client_that_does_not_read_holds_no_stop_up() {
    let place = Place::new();
    let demo = place.start("100.00");
    let mut raw = Raw::login(&demo.tenant()).expect("a login");
    raw.batch("select * from events").expect("a request");
    let mut buffer = vec![0; KILL_AFTER_MAX / 8];
    raw.socket().read_exact(&mut buffer).expect("some megabytes");
    let mut rows = Rows::new();
    rows.feed(&buffer);
    demo.stop();
    rows.feed(&raw.to_end());
    let received = rows.counted();
    let demo = place.start("100.00");
    let _ = demo.settled_balance();
    demo.reconcile();
    let rows = rows_of(&demo.usage());
    println!("received {received:?}, charged {rows} rows");
    assert!(received.rows <= rows && rows <= received.rows + CHUNK / received.shortest_row + 1);
    demo.stop();
}

fn rows_of(usage: &[Value]) -> u64 {
    usage
        .iter()
        .map(|request| request["rows"].as_u64().expect("rows"))
        .sum()
}

/// Streams, ends the demo once `after` bytes have come, drains the socket to its end and says what came.
fn stream_until_ended(demo: Demo, after: usize, end: fn(Demo)) -> Counted {
    let mut raw = Raw::login(&demo.tenant()).expect("a login");
    raw.batch("select * from events").expect("a request");
    let mut rows = Rows::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut came = 0;
    let mut demo = Some(demo);
    let mut ending = None;
    loop {
        let count = match raw.socket().read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            // A reset, because the killed side had unread input: what came before it was read.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the socket: {error}"),
        };
        rows.feed(&buffer[..count]);
        came += count;
        if came >= after
            && let Some(demo) = demo.take()
        {
            // Beside the reading: an orderly end waits for its clients.
            ending = Some(std::thread::spawn(move || end(demo)));
        }
        if rows.counted().messages > 0 {
            break;
        }
    }
    ending.expect("the demo was ended").join().expect("it ended");
    rows.counted()
}
