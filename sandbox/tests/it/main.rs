//! The sandbox seen from a socket.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

#[tokio::test]
async fn it_starts_on_a_free_port_and_stops() {
    let running = weir_sandbox::start(weir_sandbox::Config::default())
        .await
        .unwrap();
    assert_ne!(running.addr.port(), 0);
    running.stop().await;
}
