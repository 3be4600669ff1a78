//! Microsoft's own mock server behind the gate: a backend that is not ours.

use std::net::SocketAddr;

use mssql_mock_tds::{MockTdsServer, QueryResponse};
use weir_protocol_tests::demo::Place;
use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::gate::Gate;
use weir_protocol_tests::money::{DEMO_ROW, UNIT};
use weir_protocol_tests::world::World;

use crate::fleet;

/// Starts the mock on a thread of its own; it ends with the test's process.
pub(crate) fn start() -> SocketAddr {
    start_with(Vec::new())
}

/// The same with more answers than its own, each to a batch of exactly this text.
pub(crate) fn start_with(answers: Vec<(String, QueryResponse)>) -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let server = MockTdsServer::new("127.0.0.1:0").await.expect("the mock binds");
            let registry = server.query_registry();
            for (text, answer) in answers {
                registry.lock().await.register(text, answer);
            }
            sender.send(server.local_addr()).expect("the test waits");
            server.run().await.expect("the mock runs");
        });
    });
    receiver
        .recv_timeout(std::time::Duration::from_secs(10))
        .expect("the mock starts")
}

#[test]
fn the_mock_answers_by_itself() {
    answers(&Target::demo(start()));
}

#[test]
fn the_mock_answers_through_the_gate() {
    let place = Place::new();
    let demo = place.start("1.00");
    let gate = Gate::start(&demo, start());
    let rows = answers(&Target::demo(gate.address()));
    let cost = i64::try_from(rows).expect("few") * DEMO_ROW;
    assert_eq!(demo.settled_balance(), UNIT - cost);
    demo.reconcile();
}

/// Rows that the drivers saw.
fn answers(to: &Target) -> u64 {
    let mut rows = 0;
    for name in ["tiberius", "pymssql"] {
        let mut session = fleet::connected(fleet::named(name), to);
        for _ in 0..3 {
            let reply = session.query("SELECT 1").ok();
            assert_eq!((reply.rows, reply.scalar().as_str()), (1, "1"), "{name}");
            rows += reply.rows;
        }
    }
    rows
}
