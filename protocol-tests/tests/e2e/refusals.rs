//! What goes wrong at the gate ends in a clear TDS error, or in a clean close before the login, within a deadline.

use std::io::Read;
use std::time::{Duration, Instant};

use weir_protocol_tests::deadline::wait_for;
use weir_protocol_tests::demo::{Demo, Place};
use weir_protocol_tests::drivers::{self, Driver, ServerError, Target};
use weir_protocol_tests::gate::{Gate, free_address};
use weir_protocol_tests::raw::{Raw, prelogin};
use weir_protocol_tests::world::World;
use weir_tds::packet::PacketType;
use weir_tds::prelogin::Encryption;

use crate::{fleet, mock};

/// Longest way to any refusal.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// From the operator's command to its effect at the gate.
const EFFECT_WITHIN: Duration = Duration::from_secs(1);

/// Longest life of a connection that sends nonsense before its login.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn a_wrong_password_is_the_servers_refusal() {
    let place = Place::new();
    let demo = place.start("1.00");
    for driver in fleet::all() {
        let errors = refused(driver.as_ref(), &demo.tenant().with_login("demo", "wrong"));
        assert_eq!(errors[0].number, 18456, "{}: {errors:?}", driver.name());
    }
    demo.stop();
}

#[test]
fn an_unknown_tenant_is_not_allowed() {
    let place = Place::new();
    let demo = place.start("1.00");
    for driver in fleet::all() {
        let errors = refused(driver.as_ref(), &demo.tenant().with_login("nobody", "demo"));
        assert_eq!(errors[0].number, 50403, "{}: {errors:?}", driver.name());
    }
    demo.stop();
}

#[test]
fn a_frozen_wallet_shuts_the_gate_and_opens_it_again() {
    let place = Place::new();
    let demo = place.start("1.00");
    for driver in fleet::all() {
        let mut session = fleet::connected(driver.as_ref(), &demo.tenant());
        let mut numbers = || session.query("select count(*) from orders").numbers();
        assert!(numbers().is_empty());
        let _ = demo.json(&["account", "freeze", "demo"]);
        let shut = wait_for(EFFECT_WITHIN, || (numbers() == [50403]).then_some(()));
        assert!(
            shut.is_some(),
            "{}: open {EFFECT_WITHIN:?} after the freeze: {:?}",
            driver.name(),
            numbers()
        );
        let _ = demo.json(&["account", "unfreeze", "demo"]);
        let open = wait_for(EFFECT_WITHIN, || numbers().is_empty().then_some(()));
        assert!(
            open.is_some(),
            "{}: shut {EFFECT_WITHIN:?} after the unfreeze: {:?}",
            driver.name(),
            numbers()
        );
    }
    let _ = demo.settled_balance();
    demo.reconcile();
    demo.stop();
}

#[test]
fn a_server_that_is_down_is_named_as_the_reason() {
    let place = Place::new();
    let demo = place.start("1.00");
    let gate = Gate::start(&demo, free_address());
    for driver in fleet::all() {
        let errors = refused(driver.as_ref(), &Target::demo(gate.address()));
        assert_eq!(errors[0].number, 50504, "{}: {errors:?}", driver.name());
    }
}

#[test]
fn without_billing_the_gate_denies_and_never_hangs() {
    let place = Place::new();
    let demo = place.start("1.00");
    let gate = Gate::start(&demo, mock::start());
    let mut sessions: Vec<_> = fleet::all()
        .iter()
        .filter(|driver| driver.name() != "tedious")
        .map(|driver| {
            (
                driver.name(),
                fleet::connected(driver.as_ref(), &Target::demo(gate.address())),
            )
        })
        .collect();
    demo.kill();
    // Who is behind `demo` the gate knows for a while; of others it can say nothing.
    for driver in fleet::all() {
        let stranger = Target::demo(gate.address()).with_login("stranger", "demo");
        let errors = refused(driver.as_ref(), &stranger);
        assert_eq!(errors[0].number, 50503, "{}: {errors:?}", driver.name());
    }
    for (name, session) in &mut sessions {
        let started = Instant::now();
        let numbers = session.query("SELECT 1").numbers();
        assert!(
            started.elapsed() < REFUSED_WITHIN,
            "{name}: {:?}",
            started.elapsed()
        );
        // What the lease still holds may be spent; beyond it nothing is given away.
        assert!(numbers.is_empty() || numbers == [50503], "{name}: {numbers:?}");
    }
}

#[test]
fn nonsense_before_the_login_is_closed() {
    let place = Place::new();
    let demo = place.start("1.00");
    for (what, bytes) in nonsense() {
        let started = Instant::now();
        let mut raw = Raw::connect(demo.address("listen")).expect("a connection");
        // The gate may have closed before all was sent.
        let _ = raw.send_bytes(&bytes);
        let answer = raw.to_end();
        assert!(
            started.elapsed() < CLOSED_WITHIN,
            "{what}: {:?}",
            started.elapsed()
        );
        assert!(answer.len() < 512, "{what}: {} bytes of answer", answer.len());
    }
    still_works(&demo);
    demo.stop();
}

#[test]
fn an_oversized_packet_after_the_login_closes_that_connection_only() {
    let place = Place::new();
    let demo = place.start("1.00");
    let mut raw = Raw::login(&demo.tenant()).expect("a login");
    let mut packet = vec![PacketType::SqlBatch.byte(), 1, 0x7f, 0xff, 0, 0, 1, 0];
    packet.resize(0x7fff, 0);
    let started = Instant::now();
    let _ = raw.send_bytes(&packet);
    let mut rest = Vec::new();
    let _ = raw.socket().read_to_end(&mut rest);
    assert!(started.elapsed() < CLOSED_WITHIN, "{:?}", started.elapsed());
    still_works(&demo);
    demo.stop();
}

fn still_works(demo: &Demo) {
    let mut session = fleet::connected(fleet::named("tiberius"), &demo.tenant());
    assert_eq!(
        session.query("select count(*) from orders").ok().scalar(),
        "100000"
    );
}

/// The errors of a login that must be refused, in time.
fn refused(driver: &dyn Driver, to: &Target) -> Vec<ServerError> {
    // pymssql keeps the number of the worst failed login of its process, so each gets a process of its own.
    let fresh = (driver.name() == "pymssql").then(drivers::python);
    let driver = fresh.as_ref().map_or(driver, |process| process);
    let started = Instant::now();
    let errors = driver
        .connect(to)
        .err()
        .unwrap_or_else(|| panic!("{} was let in", driver.name()));
    assert!(
        started.elapsed() < REFUSED_WITHIN,
        "{}: {:?}",
        driver.name(),
        started.elapsed()
    );
    errors
}

/// First bytes of connections that are none.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let good = prelogin(Encryption::NotSup).encode();
    let packet = |length: u16, body: &[u8]| {
        let mut bytes = vec![PacketType::Prelogin.byte(), 1];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0, 1, 0]);
        bytes.extend(body);
        bytes
    };
    let whole = |body: &[u8]| packet(u16::try_from(body.len() + 8).expect("a packet"), body);
    let mut beyond = good.clone();
    beyond[1..3].copy_from_slice(&0xfff0_u16.to_be_bytes());
    let login_first = [&[PacketType::Login7.byte(), 1, 0, 16, 0, 0, 1, 0][..], &[0; 8]].concat();
    vec![
        (
            "another protocol",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        ("an option that lies beyond the message", whole(&beyond)),
        ("an empty PRELOGIN", whole(&[])),
        ("a PRELOGIN without its end", whole(&good[..3])),
        ("a packet shorter than its header", packet(7, &[])),
        ("a packet of 65 535 bytes", packet(0xffff, &vec![0; 0x1_0000])),
        (
            "a PRELOGIN that never ends",
            [1; 20].iter().flat_map(|_| endless()).collect(),
        ),
        ("a login before the PRELOGIN", login_first),
        (
            "an unknown packet type",
            [&[0x77, 1, 0, 16, 0, 0, 1, 0][..], &[0; 8]].concat(),
        ),
    ]
}

/// A full PRELOGIN packet without end of message.
fn endless() -> Vec<u8> {
    let mut bytes = vec![PacketType::Prelogin.byte(), 0, 0x10, 0, 0, 0, 1, 0];
    bytes.resize(0x1000, 0);
    bytes
}
