//! The billing adapter against a real gRPC server: every message there and back, the token, status codes, a server that is away.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status, transport::Server};
use uuid::Uuid;
use weir_contracts::{
    ids::{LeaseId, ProxyId},
    proto::billing::{
        self as wire, Notice as WireNotice,
        gate_server::{Gate, GateServer},
        lease_reply, notice, resolve_tenant_reply,
    },
};
use weir_proxy::{
    adapters::billing_grpc::BillingGrpc,
    ports::billing::{
        Billing, BillingError, CloseReport, Cut, DenialReason, LeaseAnswer, LeaseAsk, Login, Mode, Notice,
        Resolved, Start,
    },
};

use crate::fake_billing::account;

pub(crate) const TOKEN: &str = "s3cret";
const LIMIT: Duration = Duration::from_millis(300);

struct Desk {
    reports: tokio::sync::mpsc::UnboundedSender<wire::CloseReport>,
}

#[allow(clippy::result_large_err, reason = "tonic's status")]
fn check<T>(request: &Request<T>) -> Result<(), Status> {
    let token = request
        .metadata()
        .get("authorization")
        .and_then(|v| v.to_str().ok());
    if token == Some("Bearer s3cret") {
        Ok(())
    } else {
        Err(Status::unauthenticated("who are you?"))
    }
}

fn terms() -> wire::Terms {
    wire::Terms {
        account: "demo".into(),
        currency: "USD".into(),
        mode: wire::Mode::Observe.into(),
        cut: wire::Cut::AtResult.into(),
        tariff: Some(wire::Tariff {
            version: "demo@1".into(),
            per_row_nanos: 10_000,
            ..wire::Tariff::default()
        }),
        row_credit_bytes: 77,
    }
}

#[tonic::async_trait]
impl Gate for Desk {
    async fn register(
        &self,
        r: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterReply>, Status> {
        check(&r)?;
        let first = r.into_inner().previous_boot_nonce.is_empty();
        if first {
            Ok(Response::new(wire::RegisterReply {}))
        } else {
            Err(Status::failed_precondition("a copy"))
        }
    }

    async fn resolve_tenant(
        &self,
        r: Request<wire::ResolveTenantRequest>,
    ) -> Result<Response<wire::ResolveTenantReply>, Status> {
        let outcome = match r.into_inner().login.as_str() {
            "demo" => Some(resolve_tenant_reply::Outcome::Terms(terms())),
            "strange" => None,
            "slow" => std::future::pending().await,
            _ => Some(resolve_tenant_reply::Outcome::Unknown(wire::Unknown {
                message: "nobody".into(),
            })),
        };
        Ok(Response::new(wire::ResolveTenantReply { outcome }))
    }

    async fn lease(&self, r: Request<wire::LeaseRequest>) -> Result<Response<wire::LeaseReply>, Status> {
        let ask = r.into_inner();
        let outcome = if ask.want_nanos == 1 {
            lease_reply::Outcome::Denial(wire::Denial {
                reason: wire::DenialReason::Frozen.into(),
                message: "frozen".into(),
                balance: "1.00".into(),
                available: "0.50".into(),
                currency: "USD".into(),
            })
        } else {
            let lease_id = if ask.want_nanos == 2 {
                "another".into()
            } else {
                ask.lease_id
            };
            lease_reply::Outcome::Grant(wire::Grant {
                lease_id,
                granted_total_nanos: ask.known_grant_nanos + ask.want_nanos,
                terms: Some(terms()),
                valid_ms: 1_500,
            })
        };
        Ok(Response::new(wire::LeaseReply {
            outcome: Some(outcome),
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WireNotice, Status>> + Send>>;

    async fn watch(&self, r: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        check(&r)?;
        let state = wire::AccountState {
            account: "demo".into(),
            frozen: true,
            balance: "2.00".into(),
            available: "1.00".into(),
            terms: Some(terms()),
        };
        let close = wire::CloseLeases {
            account: "demo".into(),
            request_id: "r".into(),
        };
        let told = [notice::What::Account(state), notice::What::CloseLeases(close)]
            .map(|what| Ok(WireNotice { what: Some(what) }));
        Ok(Response::new(futures_util::stream::iter(told).boxed()))
    }

    async fn report_closed(
        &self,
        r: Request<wire::CloseReport>,
    ) -> Result<Response<wire::CloseReportReply>, Status> {
        self.reports
            .send(r.into_inner())
            .map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(wire::CloseReportReply {}))
    }
}

pub(crate) async fn serve() -> (
    SocketAddr,
    tokio::sync::mpsc::UnboundedReceiver<wire::CloseReport>,
) {
    let (reports, told) = tokio::sync::mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        Server::builder()
            .add_service(GateServer::new(Desk { reports }))
            .serve_with_incoming(incoming),
    );
    (address, told)
}

fn client(address: SocketAddr, token: &str) -> BillingGrpc {
    BillingGrpc::new(&format!("http://{address}"), token, LIMIT).unwrap()
}

fn proxy() -> ProxyId {
    ProxyId(Uuid::from_u128(7))
}

fn ask(want_nanos: i64) -> LeaseAsk {
    let lease = LeaseId {
        proxy: proxy(),
        epoch: 3,
        number: 4,
    };
    LeaseAsk {
        account: account(),
        lease,
        known_grant_nanos: 5,
        want_nanos,
    }
}

#[tokio::test]
async fn answers_keep_their_meaning() {
    let (address, mut reports) = serve().await;
    let billing = client(address, TOKEN);
    let Ok(Resolved::Terms(found)) = billing.resolve_tenant(login("demo")).await else {
        panic!("not known")
    };
    assert_eq!(
        (found.mode, found.cut, found.row_credit_bytes),
        (Mode::Observe, Cut::AtResult, 77)
    );
    assert_eq!(
        (found.tariff.version.as_str(), found.tariff.per_row_nanos),
        ("demo@1", 10_000)
    );
    assert_eq!(
        billing.resolve_tenant(login("eve")).await,
        Ok(Resolved::Unknown("nobody".into()))
    );
    let granted = billing.lease(ask(10)).await;
    let Ok(LeaseAnswer::Grant {
        granted_total_nanos: 15,
        valid,
        ..
    }) = granted
    else {
        panic!("{granted:?}")
    };
    assert_eq!(valid, Duration::from_millis(1_500));
    let Ok(LeaseAnswer::Denial(denial)) = billing.lease(ask(1)).await else {
        panic!("not denied")
    };
    assert_eq!(
        (denial.reason, denial.available.as_str()),
        (DenialReason::Frozen, "0.50")
    );
    assert!(
        billing.lease(ask(2)).await.is_err(),
        "a grant under another lease was believed"
    );
    let notices: Vec<_> = billing
        .watch(proxy(), 3)
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    assert!(matches!(
        &notices[0],
        Notice::Account {
            frozen: true,
            terms: Some(_),
            ..
        }
    ));
    assert_eq!(
        notices[1],
        Notice::CloseLeases {
            account: account(),
            request_id: "r".into()
        }
    );
    let report = CloseReport {
        request_id: "r".into(),
        account: account(),
        last_sequence: 9,
        busy: true,
    };
    billing.report_closed(proxy(), 3, report).await.unwrap();
    let told = reports.recv().await.unwrap();
    assert_eq!((told.last_sequence, told.busy, told.epoch), (9, true, 3));
}

fn login(login: &str) -> Login {
    Login {
        login: login.into(),
        ..Login::default()
    }
}

#[tokio::test]
async fn what_helps_to_ask_again_is_told_from_what_does_not() {
    let (address, _reports) = serve().await;
    let start = |previous_boot_nonce| Start {
        proxy: proxy(),
        epoch: 3,
        boot_nonce: Uuid::nil(),
        previous_boot_nonce,
    };
    let billing = client(address, TOKEN);
    assert_eq!(billing.register(start(None)).await, Ok(()));
    assert_eq!(
        billing.register(start(Some(Uuid::nil()))).await,
        Err(BillingError::Refused("a copy".into()))
    );
    assert!(matches!(
        client(address, "wrong").register(start(None)).await,
        Err(BillingError::Refused(_))
    ));
    assert!(matches!(
        billing.resolve_tenant(login("strange")).await,
        Err(BillingError::Unavailable(_))
    ));
    let began = std::time::Instant::now();
    assert!(matches!(
        billing.resolve_tenant(login("slow")).await,
        Err(BillingError::Unavailable(_))
    ));
    assert!(began.elapsed() < 4 * LIMIT);
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_and_is_found_when_it_comes() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let billing: Arc<dyn Billing> = Arc::new(client(address, TOKEN));
    assert!(matches!(
        billing.resolve_tenant(login("demo")).await,
        Err(BillingError::Unavailable(_))
    ));
    let (reports, _told) = tokio::sync::mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        Server::builder()
            .add_service(GateServer::new(Desk { reports }))
            .serve_with_incoming(incoming),
    );
    while billing.resolve_tenant(login("demo")).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_bad_address_or_token_is_told_at_the_start() {
    assert!(BillingGrpc::new("not a url", TOKEN, LIMIT).is_err());
    assert!(BillingGrpc::new("http://127.0.0.1:1", "two\nlines", LIMIT).is_err());
    let shown = format!(
        "{:?}",
        BillingGrpc::new("http://127.0.0.1:1", TOKEN, LIMIT).unwrap()
    );
    assert!(!shown.contains(TOKEN), "{shown}");
}
