//! The wallet port over gRPC: one lazily connected channel, a bearer token, a deadline on every call.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream::BoxStream};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use uuid::Uuid;
use weir_contracts::{
    money::{Amount, Currency},
    proto::wallet::{self as proto, wallets_client::WalletsClient},
};

use crate::{
    config::{Config, ConfigError},
    ports::wallet_client::{Capture, LedgerSum, WalletClient, WalletError, WalletState, WalletTransaction},
};

/// Longest wait for one answer.
const CALL_DEADLINE: Duration = Duration::from_millis(1_500);
/// Longest wait for an answer that lists much.
const LIST_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// A watch whose wallet does not answer pings this long is broken, not idle.
const PING_EVERY: Duration = Duration::from_secs(2);

/// The wallet service.
#[derive(Debug, Clone)]
pub struct WalletGrpc {
    client: WalletsClient<Channel>,
    bearer: MetadataValue<Ascii>,
}

impl WalletGrpc {
    /// A client for the configured address; connects when first used.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Url {
            key: "wallet_url",
            value: config.wallet_url.clone(),
        };
        let endpoint = Endpoint::from_shared(config.wallet_url.clone())
            .map_err(|_| bad())?
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .tcp_nodelay(true);
        let bearer = format!("Bearer {}", config.token.reveal());
        let mut bearer: MetadataValue<Ascii> = bearer.parse().map_err(|_| ConfigError::NoToken)?;
        bearer.set_sensitive(true);
        Ok(Self {
            client: WalletsClient::new(endpoint.connect_lazy()),
            bearer,
        })
    }

    fn request<T>(&self, message: T, deadline: Duration) -> Request<T> {
        let mut request = self.stream_request(message);
        request.set_timeout(deadline);
        request
    }

    fn stream_request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.bearer.clone());
        request
    }
}

/// Waits for an answer no longer than its deadline, whatever the other side does.
async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, WalletError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(error(&status)),
        Err(_) => Err(WalletError::Unavailable(format!("no answer within {deadline:?}"))),
    }
}

fn error(status: &Status) -> WalletError {
    let text = status.message().to_owned();
    match status.code() {
        Code::AlreadyExists => WalletError::OtherContent(text),
        Code::NotFound => WalletError::NotFound(text),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented => {
            WalletError::Refused(text)
        }
        code => WalletError::Unavailable(format!("{code:?}: {text}")),
    }
}

fn amount(text: &str) -> Result<Amount, WalletError> {
    let bad = |e| WalletError::Unavailable(format!("the wallet answered with amount `{text}`: {e}"));
    text.parse().map_err(bad)
}

fn state(wallet: proto::Wallet) -> Result<WalletState, WalletError> {
    let currency = wallet.currency.parse();
    Ok(WalletState {
        currency: currency
            .map_err(|_| WalletError::Unavailable(format!("unknown currency `{}`", wallet.currency)))?,
        balance: amount(&wallet.balance)?,
        held: amount(&wallet.held)?,
        available: amount(&wallet.available)?,
        receivable: amount(&wallet.receivable)?,
        wallet_id: wallet.wallet_id,
        user_id: wallet.user_id,
        status: wallet.status,
        position: wallet.position,
    })
}

fn state_of(wallet: Option<proto::Wallet>) -> Result<WalletState, WalletError> {
    let none = || WalletError::Unavailable("the wallet answered without its state".to_owned());
    state(wallet.ok_or_else(none)?)
}

fn transaction(t: proto::Transaction) -> Result<WalletTransaction, WalletError> {
    Ok(WalletTransaction {
        amount: amount(&t.amount)?,
        balance_after: amount(&t.balance_after)?,
        txn_id: t.txn_id,
        wallet_id: t.wallet_id,
        kind: t.r#type,
        description: t.description,
        reference_id: t.reference_id,
        reference_type: t.reference_type,
        status: t.status,
        created_at: t.created_at,
        position: t.position,
    })
}

#[async_trait]
impl WalletClient for WalletGrpc {
    async fn create(
        &self,
        key: &str,
        user_id: Uuid,
        currency: Currency,
        initial: Amount,
    ) -> Result<WalletState, WalletError> {
        let message = proto::CreateWalletRequest {
            key: key.to_owned(),
            user_id: user_id.to_string(),
            currency: currency.code().to_owned(),
            initial_balance: initial.to_string(),
        };
        let mut client = self.client.clone();
        let call = client.create_wallet(self.request(message, CALL_DEADLINE));
        state(within(CALL_DEADLINE, call).await?)
    }

    async fn get(&self, wallet_id: &str) -> Result<WalletState, WalletError> {
        let message = proto::GetWalletRequest {
            wallet_id: wallet_id.to_owned(),
        };
        let mut client = self.client.clone();
        let call = client.get_wallet(self.request(message, CALL_DEADLINE));
        state(within(CALL_DEADLINE, call).await?)
    }

    async fn top_up(
        &self,
        key: &str,
        wallet_id: &str,
        amount: Amount,
        description: &str,
    ) -> Result<WalletState, WalletError> {
        let message = proto::MoveRequest {
            key: key.to_owned(),
            wallet_id: wallet_id.to_owned(),
            amount: amount.to_string(),
            reference_id: key.to_owned(),
            reference_type: "top_up".to_owned(),
            description: description.to_owned(),
        };
        let mut client = self.client.clone();
        let call = client.top_up(self.request(message, CALL_DEADLINE));
        state_of(within(CALL_DEADLINE, call).await?.wallet)
    }

    async fn set_status(&self, key: &str, wallet_id: &str, status: &str) -> Result<WalletState, WalletError> {
        let message = proto::SetStatusRequest {
            key: key.to_owned(),
            wallet_id: wallet_id.to_owned(),
            status: status.to_owned(),
            reason: "set by an operator through billing".to_owned(),
        };
        let mut client = self.client.clone();
        let call = client.set_status(self.request(message, CALL_DEADLINE));
        state(within(CALL_DEADLINE, call).await?)
    }

    async fn place_hold(
        &self,
        wallet_id: &str,
        hold_id: &str,
        total: Amount,
    ) -> Result<(Amount, WalletState), WalletError> {
        let message = proto::PlaceHoldRequest {
            wallet_id: wallet_id.to_owned(),
            hold_id: hold_id.to_owned(),
            total: total.to_string(),
        };
        let mut client = self.client.clone();
        let call = client.place_hold(self.request(message, CALL_DEADLINE));
        let reply = within(CALL_DEADLINE, call).await?;
        Ok((amount(&reply.held_total)?, state_of(reply.wallet)?))
    }

    async fn capture(&self, capture: &Capture) -> Result<(String, WalletState), WalletError> {
        let message = proto::CaptureRequest {
            key: capture.key.clone(),
            wallet_id: capture.wallet_id.clone(),
            hold_id: capture.hold_id.clone(),
            amount: capture.amount.to_string(),
            description: capture.description.clone(),
        };
        let mut client = self.client.clone();
        let call = client.capture(self.request(message, CALL_DEADLINE));
        let reply = within(CALL_DEADLINE, call).await?;
        Ok((reply.txn_id, state_of(reply.wallet)?))
    }

    async fn release(&self, wallet_id: &str, hold_id: &str) -> Result<WalletState, WalletError> {
        let message = proto::ReleaseHoldRequest {
            wallet_id: wallet_id.to_owned(),
            hold_id: hold_id.to_owned(),
        };
        let mut client = self.client.clone();
        let call = client.release_hold(self.request(message, CALL_DEADLINE));
        state(within(CALL_DEADLINE, call).await?)
    }

    async fn transactions(
        &self,
        wallet_id: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<WalletTransaction>, WalletError> {
        let message = proto::ListTransactionsRequest {
            wallet_id: wallet_id.to_owned(),
            after_position: after,
            limit,
        };
        let mut client = self.client.clone();
        let call = client.list_transactions(self.request(message, LIST_DEADLINE));
        let reply = within(LIST_DEADLINE, call).await?;
        reply.transactions.into_iter().map(transaction).collect()
    }

    async fn trial_balance(&self) -> Result<Vec<LedgerSum>, WalletError> {
        let mut client = self.client.clone();
        let message = proto::TrialBalanceRequest {};
        let call = client.trial_balance(self.request(message, LIST_DEADLINE));
        let reply = within(LIST_DEADLINE, call).await?;
        let sum = |a: proto::LedgerAccount| {
            Ok(LedgerSum {
                total: amount(&a.total)?,
                ledger_account: a.ledger_account,
                currency: a.currency,
            })
        };
        reply.accounts.into_iter().map(sum).collect()
    }

    async fn watch(
        &self,
        wallet_ids: Vec<String>,
    ) -> Result<BoxStream<'static, Result<WalletState, WalletError>>, WalletError> {
        let mut client = self.client.clone();
        let call = client.watch(self.stream_request(proto::WatchRequest { wallet_ids }));
        let stream = within(CALL_DEADLINE, call).await?;
        Ok(stream
            .map(|item| item.map_err(|status| error(&status)).and_then(state))
            .boxed())
    }
}
