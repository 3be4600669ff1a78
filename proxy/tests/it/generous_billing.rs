//! A billing behind gRPC that grants whatever it is asked for, to everybody: for tests in which credit never ends.

use std::{net::SocketAddr, pin::Pin};

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status, transport::Server};
use weir_contracts::proto::billing::{
    self as wire, Notice,
    gate_server::{Gate, GateServer},
    lease_reply, resolve_tenant_reply,
};

/// Serves until the test's runtime ends.
pub(crate) async fn serve() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = Server::builder().add_service(GateServer::new(Generous));
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

struct Generous;

fn terms() -> wire::Terms {
    wire::Terms {
        account: "acme".into(),
        currency: "USD".into(),
        mode: wire::Mode::Enforce.into(),
        cut: wire::Cut::AtRow.into(),
        tariff: Some(wire::Tariff {
            version: "generous@1".into(),
            per_row_nanos: 1,
            ..wire::Tariff::default()
        }),
        row_credit_bytes: 8 << 20,
    }
}

#[tonic::async_trait]
impl Gate for Generous {
    async fn register(
        &self,
        _: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterReply>, Status> {
        Ok(Response::new(wire::RegisterReply {}))
    }

    async fn resolve_tenant(
        &self,
        _: Request<wire::ResolveTenantRequest>,
    ) -> Result<Response<wire::ResolveTenantReply>, Status> {
        let outcome = Some(resolve_tenant_reply::Outcome::Terms(terms()));
        Ok(Response::new(wire::ResolveTenantReply { outcome }))
    }

    async fn lease(&self, r: Request<wire::LeaseRequest>) -> Result<Response<wire::LeaseReply>, Status> {
        let ask = r.into_inner();
        let outcome = Some(lease_reply::Outcome::Grant(wire::Grant {
            lease_id: ask.lease_id,
            granted_total_nanos: ask.known_grant_nanos + ask.want_nanos.max(1 << 40),
            terms: Some(terms()),
            valid_ms: 600_000,
        }));
        Ok(Response::new(wire::LeaseReply { outcome }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<Notice, Status>> + Send>>;

    async fn watch(&self, _: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(futures_util::stream::pending().boxed()))
    }

    async fn report_closed(
        &self,
        _: Request<wire::CloseReport>,
    ) -> Result<Response<wire::CloseReportReply>, Status> {
        Ok(Response::new(wire::CloseReportReply {}))
    }
}
