//! The `Wallets` service.

use std::{collections::BTreeSet, pin::Pin};

use futures_util::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use weir_contracts::{
    money::{Amount, Currency},
    proto::wallet::{self as proto, wallets_server::Wallets},
};

use super::convert::{self, bounded, field, key, refused};
use crate::{
    ports::event_store::READ_ROWS_MAX,
    service::Service,
    wallet::{
        Command, HoldId, Status as WalletStatus, UserId, WalletId,
        command::{DESCRIPTION_BYTES_MAX, REFERENCE_BYTES_MAX},
    },
    writer::{Answer, Key, board::Watching},
};

/// Most wallets that one watch may name; to watch more, name none.
const WATCH_NAMES_MAX: usize = 10_000;

/// The service behind the `Wallets` interface.
pub struct WalletsApi {
    service: Service,
    stop: CancellationToken,
}

impl WalletsApi {
    /// Over the service; watches end when `stop` is cancelled.
    #[must_use]
    pub fn new(service: Service, stop: CancellationToken) -> Self {
        Self { service, stop }
    }

    async fn command(&self, wallet: WalletId, key: Option<Key>, command: Command) -> Result<Answer, Status> {
        self.service.command(wallet, key, command).await.map_err(refused)
    }

    async fn movement(
        &self,
        request: proto::MoveRequest,
        command: impl FnOnce(crate::wallet::Move) -> Command,
    ) -> Result<Response<proto::MoveReply>, Status> {
        let wallet = field("wallet_id", &request.wallet_id)?;
        let key = key(&request.key)?;
        let answer = self
            .command(wallet, Some(key), command(convert::movement(request)?))
            .await?;
        Ok(move_reply(answer))
    }
}

fn move_reply(answer: Answer) -> Response<proto::MoveReply> {
    Response::new(proto::MoveReply {
        wallet: Some(convert::wallet(&answer.wallet)),
        txn_id: answer.txn_id.unwrap_or_default(),
    })
}

fn wallet_reply(answer: &Answer) -> Response<proto::Wallet> {
    Response::new(convert::wallet(&answer.wallet))
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::Wallet, Status>> + Send>>;

/// The states now, then each change; the last item is the reason why the watch ended.
fn watch_stream(watching: Watching, stop: CancellationToken) -> WatchStream {
    let current: Vec<_> = watching
        .current
        .iter()
        .map(|view| Ok(convert::wallet(view)))
        .collect();
    let changes = stream::unfold(Some((watching, stop)), |state| async move {
        let (mut watching, stop) = state?;
        let change = tokio::select! {
            change = watching.changes.recv() => change,
            () = stop.cancelled() => None,
        };
        match change {
            Some(view) => Some((Ok(convert::wallet(&view)), Some((watching, stop)))),
            None if watching.was_too_slow() => {
                let slow = convert::status(Code::ResourceExhausted, "WATCH_TOO_SLOW", "watch again");
                Some((Err(slow), None))
            }
            None => Some((
                Err(convert::status(Code::Unavailable, "STOPPING", "watch again")),
                None,
            )),
        }
    });
    Box::pin(stream::iter(current).chain(changes))
}

#[tonic::async_trait]
impl Wallets for WalletsApi {
    async fn create_wallet(
        &self,
        request: Request<proto::CreateWalletRequest>,
    ) -> Result<Response<proto::Wallet>, Status> {
        let request = request.into_inner();
        let user: UserId = field("user_id", &request.user_id)?;
        let initial = match request.initial_balance.as_str() {
            "" => Amount::ZERO,
            text => field("initial_balance", text)?,
        };
        let currency: Currency = field("currency", &request.currency)?;
        let key = key(&request.key)?;
        let wallet = WalletId::of_user(&user);
        let command = Command::Create {
            user,
            currency,
            initial,
        };
        Ok(wallet_reply(&self.command(wallet, Some(key), command).await?))
    }

    async fn get_wallet(
        &self,
        request: Request<proto::GetWalletRequest>,
    ) -> Result<Response<proto::Wallet>, Status> {
        let id: WalletId = field("wallet_id", &request.into_inner().wallet_id)?;
        match self.service.wallet(id) {
            Some(view) => Ok(Response::new(convert::wallet(&view))),
            None => Err(refused(crate::wallet::Refusal::UnknownWallet.into())),
        }
    }

    async fn top_up(
        &self,
        request: Request<proto::MoveRequest>,
    ) -> Result<Response<proto::MoveReply>, Status> {
        self.movement(request.into_inner(), Command::TopUp).await
    }

    async fn withdraw(
        &self,
        request: Request<proto::MoveRequest>,
    ) -> Result<Response<proto::MoveReply>, Status> {
        self.movement(request.into_inner(), Command::Withdraw).await
    }

    async fn set_status(
        &self,
        request: Request<proto::SetStatusRequest>,
    ) -> Result<Response<proto::Wallet>, Status> {
        let request = request.into_inner();
        let wallet = field("wallet_id", &request.wallet_id)?;
        let key = key(&request.key)?;
        let command = Command::SetStatus {
            status: field::<WalletStatus>("status", &request.status)?,
            reason: bounded("reason", request.reason, DESCRIPTION_BYTES_MAX)?,
        };
        Ok(wallet_reply(&self.command(wallet, Some(key), command).await?))
    }

    async fn place_hold(
        &self,
        request: Request<proto::PlaceHoldRequest>,
    ) -> Result<Response<proto::PlaceHoldReply>, Status> {
        let request = request.into_inner();
        let wallet = field("wallet_id", &request.wallet_id)?;
        let command = Command::PlaceHold {
            hold: field::<HoldId>("hold_id", &request.hold_id)?,
            total: field("total", &request.total)?,
        };
        let answer = self.command(wallet, None, command).await?;
        Ok(Response::new(proto::PlaceHoldReply {
            held_total: answer.held_total.unwrap_or_default().to_string(),
            wallet: Some(convert::wallet(&answer.wallet)),
        }))
    }

    async fn capture(
        &self,
        request: Request<proto::CaptureRequest>,
    ) -> Result<Response<proto::MoveReply>, Status> {
        let request = request.into_inner();
        let wallet = field("wallet_id", &request.wallet_id)?;
        let hold = match request.hold_id.as_str() {
            "" => None,
            text => Some(field::<HoldId>("hold_id", text)?),
        };
        let key = key(&request.key)?;
        let command = Command::Capture {
            hold,
            amount: field("amount", &request.amount)?,
            reference_id: bounded("key", request.key, REFERENCE_BYTES_MAX)?,
            description: bounded("description", request.description, DESCRIPTION_BYTES_MAX)?,
        };
        Ok(move_reply(self.command(wallet, Some(key), command).await?))
    }

    async fn release_hold(
        &self,
        request: Request<proto::ReleaseHoldRequest>,
    ) -> Result<Response<proto::Wallet>, Status> {
        let request = request.into_inner();
        let wallet = field("wallet_id", &request.wallet_id)?;
        let hold: HoldId = field("hold_id", &request.hold_id)?;
        let key = Key::of_release(wallet, &hold);
        let answer = self
            .command(wallet, Some(key), Command::ReleaseHold { hold })
            .await?;
        Ok(wallet_reply(&answer))
    }

    async fn list_transactions(
        &self,
        request: Request<proto::ListTransactionsRequest>,
    ) -> Result<Response<proto::ListTransactionsReply>, Status> {
        let request = request.into_inner();
        let wallet = match request.wallet_id.as_str() {
            "" => None,
            text => Some(field("wallet_id", text)?),
        };
        let limit = usize::try_from(request.limit).unwrap_or(READ_ROWS_MAX);
        if !(1..=READ_ROWS_MAX).contains(&limit) {
            return Err(convert::invalid("limit", format!("1 to {READ_ROWS_MAX}")));
        }
        let found = self
            .service
            .transactions_after(wallet, request.after_position, limit)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::ListTransactionsReply {
            transactions: found.into_iter().map(convert::transaction).collect(),
        }))
    }

    async fn trial_balance(
        &self,
        _request: Request<proto::TrialBalanceRequest>,
    ) -> Result<Response<proto::TrialBalanceReply>, Status> {
        let balance = self.service.trial_balance().await.map_err(refused)?;
        let accounts = balance
            .totals()
            .map(|(currency, account, total)| proto::LedgerAccount {
                ledger_account: account.name().to_owned(),
                currency: currency.to_owned(),
                total: total.to_string(),
            })
            .collect();
        Ok(Response::new(proto::TrialBalanceReply { accounts }))
    }

    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<WatchStream>, Status> {
        let names = request.into_inner().wallet_ids;
        if names.len() > WATCH_NAMES_MAX {
            return Err(convert::invalid(
                "wallet_ids",
                format!("at most {WATCH_NAMES_MAX}; name none to watch all"),
            ));
        }
        let only: BTreeSet<WalletId> = names
            .iter()
            .map(|name| field("wallet_ids", name))
            .collect::<Result<_, _>>()?;
        match self.service.watch(only) {
            Some(watching) => Ok(Response::new(watch_stream(watching, self.stop.clone()))),
            None => Err(convert::status(
                Code::ResourceExhausted,
                "TOO_MANY_WATCHES",
                "end another watch first",
            )),
        }
    }
}
