//! The gRPC face of the wallets (`contracts/proto/wallet.proto`).

pub mod auth;
mod convert;
mod wallets;

pub use wallets::WalletsApi;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};
use weir_contracts::proto::wallet::wallets_server::WalletsServer;

use self::auth::BearerToken;
use crate::service::Service;

/// Largest request message; the longest is a watch that names many wallets.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// A peer that does not answer a ping in this time is gone: its watch ends.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Serves until `stop` is cancelled and the calls in hand are answered.
pub async fn serve(listener: TcpListener, service: Service, guard: BearerToken, stop: CancellationToken) {
    let api = WalletsServer::new(WalletsApi::new(service, stop.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    // Holds are small answers on the gate's path: they must not wait for more to send.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(tonic::service::interceptor::InterceptedService::new(api, guard))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await;
    if let Err(e) = served {
        tracing::error!(error = %e, "the gRPC listener ended");
    }
}
