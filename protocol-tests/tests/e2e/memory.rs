//! Memory stays flat while much passes through, and a client that stops reading stops the server.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use weir_protocol_tests::deadline::pause;
use weir_protocol_tests::demo::{Demo, Place};
use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::gate::Gate;
use weir_protocol_tests::money::DEMO_ROW;
use weir_protocol_tests::raw::Raw;
use weir_protocol_tests::rows::{Counted, Rows};
use weir_protocol_tests::world::World;
use weir_sandbox::Backend;
use weir_sandbox::scenario::{Rule, Scenario, Step};

/// Rows of `events`.
const EVENTS: u64 = 1_000_000;

/// What the whole demo may hold in memory more than before: sandbox, proxy, billing and wallet together.
const GROWTH_MAX: u64 = 32 * 1024 * 1024;

/// What the gate alone may hold in memory, its program included.
const GATE_MEMORY_MAX: u64 = 48 * 1024 * 1024;

/// Bytes of the big value.
const BIG: u64 = 1 << 30;

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
    assert_eq!(read_response(&mut raw).rows, EVENTS);
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
fn a_value_of_a_gibibyte_passes_without_being_held() {
    let server = scripted(Scenario::new().rule(Rule::text_is("SELECT big").steps([
        Step::columns(&[("value", "varbinary(max)")]),
        Step::RowStart,
        Step::Plp {
            length: BIG,
            known: true,
            chunk: 65_536,
            fill: 0x41,
        },
        Step::done(0x10, 0xC1, 1),
    ])));
    let place = Place::new();
    let demo = place.start("1.00");
    let gate = Gate::start(&demo, server);
    let mut raw = Raw::login(&Target::demo(gate.address())).expect("a login");
    raw.batch("SELECT big").expect("a request");
    let counted = read_response(&mut raw);
    assert_eq!(counted.rows, 1);
    assert!(counted.payload > BIG, "{counted:?}");
    let most = gate.memory_most();
    println!("the gate held {most} bytes at most");
    assert!(most < GATE_MEMORY_MAX, "the gate held {most} bytes");
    let usage = settled_usage(&demo);
    let bytes = usage
        .iter()
        .find(|request| request["rows"] == 1)
        .map(|request| &request["bytes"]);
    assert_eq!(bytes, Some(&counted.payload.into()), "{usage:?}");
    demo.reconcile();
}

/// A server that plays a script; it ends with the test's process.
pub(crate) fn scripted(scenario: Scenario) -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let config = weir_sandbox::Config {
                backend: Backend::Scenario(scenario),
                ..weir_sandbox::Config::default()
            };
            let running = weir_sandbox::start(config).await.expect("the server starts");
            sender.send(running.addr).expect("the test waits");
            std::future::pending::<()>().await;
        });
    });
    receiver
        .recv_timeout(Duration::from_secs(10))
        .expect("the server starts")
}

fn settled_usage(demo: &Demo) -> Vec<serde_json::Value> {
    let _ = demo.settled_balance();
    demo.usage()
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

fn read_response(raw: &mut Raw) -> Counted {
    let mut rows = Rows::new();
    let mut buffer = vec![0; 256 * 1024];
    while rows.counted().messages == 0 {
        let count = raw.socket().read(&mut buffer).expect("a response");
        assert!(count > 0, "the stream ended early: {:?}", rows.counted());
        rows.feed(&buffer[..count]);
    }
    rows.counted()
}
