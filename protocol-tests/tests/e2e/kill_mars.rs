//! SIGKILL while the sessions of a MARS connection stream: each is charged what its client received, and at most one chunk more.

use fastrand::Rng;
use weir_protocol_tests::demo::Place;
use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::gate::Gate;
use weir_protocol_tests::money::{DEMO_ROW, UNIT};
use weir_protocol_tests::multiplexed::Multiplexed;
use weir_protocol_tests::rows::Counted;
use weir_protocol_tests::world::World;
use weir_sandbox::scenario::{Rule, Scenario, Step};

use crate::memory::scripted;

/// Kills, each at a moment of its own.
const KILLS: usize = 6;

/// Sessions that stream on the connection.
const SESSIONS: u16 = 4;

/// Bytes of one chunk (`chunk_bytes`): what may be paid for in each session and not yet written.
const CHUNK: u64 = 64 * 1024;

/// The kill comes when the client has read up to this many bytes.
const KILL_AFTER_MAX: usize = 8 * 1024 * 1024;

/// A request, and rows without end for it: of another length for each session.
const REQUEST: &str = "SELECT rows of session";

fn endless_rows() -> Scenario {
    let rules = (0..SESSIONS).map(|sid| {
        Rule::text_is(&format!("{REQUEST} {sid}")).steps([
            Step::columns(&[("number", "int"), ("text", "nvarchar(200)")]),
            Step::rows(
                u64::MAX,
                [sid.into(), "x".repeat(20 + 30 * usize::from(sid)).into()],
            ),
        ])
    });
    rules.fold(Scenario::new(), Scenario::rule)
}

/// Streams in all sessions, kills the gate once `after` bytes have come, and reads to the end.
fn stream_until_killed(gate: &mut Gate, after: usize) -> Vec<Counted> {
    let mut client = Multiplexed::login(&Target::demo(gate.address())).expect("a login with MARS");
    for sid in 0..SESSIONS {
        client.batch(sid, &format!("{REQUEST} {sid}")).expect("a request");
    }
    let mut came = 0;
    while came < after {
        let read = client.read().expect("the stream");
        assert!(read > 0, "the stream ended by itself");
        came += read;
    }
    gate.kill();
    while client.read().expect("the rest of the stream") > 0 {}
    client.counted()
}

#[test]
fn killed_under_mars_it_charged_each_session_what_was_received_and_one_chunk_at_most() {
    let mut random = Rng::with_seed(10);
    let place = Place::new();
    let demo = place.start("100.00");
    let mut gate = Gate::start(&demo, scripted(endless_rows()));
    let (mut seen, mut charged) = (0, 0);
    for round in 0..KILLS {
        let mut received = stream_until_killed(&mut gate, random.usize(1..KILL_AFTER_MAX));
        gate.restart();
        let balance = demo.settled_balance();
        demo.reconcile();
        let usage = demo.usage();
        // Which request was which session's nobody says. If every session is charged at least what it received, and at
        // most so much more, then so is the nth of both lists in their order.
        let mut rows: Vec<u64> = usage[seen..]
            .iter()
            .map(|request| request["rows"].as_u64().expect("rows"))
            .collect();
        seen = usage.len();
        rows.sort_unstable();
        received.sort_unstable_by_key(|counted| counted.rows);
        println!("round {round}: received {received:?}, charged {rows:?}");
        // A session whose request had not come to the gate has no record.
        let without = received.len() - rows.len();
        assert!(received[..without].iter().all(|counted| counted.rows == 0));
        let shortest = received.iter().map(|counted| counted.shortest_row).min();
        let chunk = CHUNK / shortest.expect("sessions") + 1;
        for (counted, rows) in received[without..].iter().zip(&rows) {
            assert!(
                counted.rows <= *rows && *rows <= counted.rows + chunk,
                "round {round}: {counted:?}, {rows} rows were charged"
            );
        }
        assert_eq!(received.iter().filter(|counted| counted.messages > 0).count(), 0);
        charged += rows.iter().sum::<u64>();
        assert_eq!(
            balance,
            100 * UNIT - i64::try_from(charged).expect("few rows") * DEMO_ROW,
            "round {round}"
        );
    }
    assert!(charged > 0, "nothing was streamed");
    demo.stop();
}
