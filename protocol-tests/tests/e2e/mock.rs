//! Microsoft's own mock server behind the gate: a backend that is not ours.

use std::net::SocketAddr;

use mssql_mock_tds::MockTdsServer;
use weir_protocol_tests::drivers::{self, Driver, Target};

use crate::tiberius_driver::Tiberius;

/// Starts the mock on a thread of its own; it ends with the test's process.
fn start_mock() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let server = MockTdsServer::new("127.0.0.1:0").await.expect("the mock binds");
            sender.send(server.local_addr()).expect("the test waits");
            server.run().await.expect("the mock runs");
        });
    });
    receiver
        .recv_timeout(std::time::Duration::from_secs(10))
        .expect("the mock starts")
}

#[test]
fn the_drivers_talk_to_the_mock_itself() {
    let address = start_mock();
    let drivers: [Box<dyn Driver>; 2] = [Box::new(Tiberius), Box::new(drivers::python())];
    for driver in drivers {
        let mut session = driver
            .connect(&Target::demo(address))
            .unwrap_or_else(|errors| panic!("{}: {errors:?}", driver.name()));
        let reply = session.query("SELECT 1").ok();
        assert_eq!(
            (reply.rows, reply.scalar().as_str()),
            (1, "1"),
            "{}",
            driver.name()
        );
    }
}
