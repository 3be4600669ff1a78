//! The one writer: a thread that decides commands on the wallets in memory and commits them in groups.
//!
//! Why one thread: the decisions of a group are made one after another on the latest state, so commit order is position order and a
//! later position is never visible before an earlier one. While a group is being committed (one fsync) the next one gathers.

pub mod answer;
pub mod board;
pub mod desk;
pub mod snapshot;

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use answer::{Answer, CommandError, Key};
pub use board::Board;
pub use desk::Desk;

use crate::wallet::{Command, WalletId};

/// Commands that may wait for the writer; beyond it callers wait for a place, within their deadline.
pub const ASKS_MAX: usize = 1024;
/// Commands in one commit: at 5 events each still far below a megabyte.
pub const GROUP_MAX: usize = 128;
/// Longest wait for an answer. The command may still be done after it: ask again with the same key.
pub const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// A command on its way to the writer.
pub struct Ask {
    /// Which wallet.
    pub wallet: WalletId,
    /// Under which key; `None` for commands that are idempotent by themselves.
    pub key: Option<Key>,
    /// What to do.
    pub command: Command,
    reply: oneshot::Sender<Result<Answer, CommandError>>,
}

impl Ask {
    /// A command and where its answer will be.
    #[must_use]
    pub fn new(
        wallet: WalletId,
        key: Option<Key>,
        command: Command,
    ) -> (Self, oneshot::Receiver<Result<Answer, CommandError>>) {
        let (reply, answer) = oneshot::channel();
        let ask = Self {
            wallet,
            key,
            command,
            reply,
        };
        (ask, answer)
    }

    fn answer(self, outcome: Result<Answer, CommandError>) {
        // A caller that has gone away needs no answer.
        let _ = self.reply.send(outcome);
    }
}

enum Message {
    Ask(Box<Ask>),
    Stop,
}

/// Where commands are handed in; clones share the writer.
#[derive(Clone)]
pub struct Writer {
    asks: mpsc::Sender<Message>,
}

impl Writer {
    /// Starts the thread. `ended` is cancelled when it ends, for whatever reason.
    pub fn start(mut desk: Desk, ended: CancellationToken) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (asks, mut inbox) = mpsc::channel(ASKS_MAX);
        let thread = std::thread::Builder::new()
            .name("weir-wallet-writer".to_owned())
            .spawn(move || {
                let _ended = ended.drop_guard();
                work(&mut desk, &mut inbox);
            })?;
        Ok((Self { asks }, thread))
    }

    /// Has a command decided and committed.
    pub async fn ask(
        &self,
        wallet: WalletId,
        key: Option<Key>,
        command: Command,
    ) -> Result<Answer, CommandError> {
        let (ask, answer) = Ask::new(wallet, key, command);
        let done = async {
            self.asks
                .send(Message::Ask(Box::new(ask)))
                .await
                .map_err(|_| CommandError::Stopped)?;
            answer.await.map_err(|_| CommandError::Stopped)?
        };
        tokio::time::timeout(ASK_DEADLINE, done)
            .await
            .unwrap_or(Err(CommandError::Late))
    }

    /// Ends the thread after what was handed in before.
    pub async fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.asks.send(Message::Stop).await;
    }
}

fn work(desk: &mut Desk, inbox: &mut mpsc::Receiver<Message>) {
    loop {
        let mut group = Vec::new();
        let mut next = inbox.blocking_recv();
        let stop = loop {
            match next {
                Some(Message::Ask(ask)) => group.push(*ask),
                Some(Message::Stop) | None => break true,
            }
            if group.len() >= GROUP_MAX {
                break false;
            }
            next = match inbox.try_recv() {
                Ok(message) => Some(message),
                Err(_) => break false,
            };
        };
        desk.work(group);
        if stop {
            return;
        }
    }
}

/// The parts that a desk works with.
pub struct Parts {
    /// The truth.
    pub store: Arc<dyn crate::ports::event_store::EventStore>,
    /// For people.
    pub clock: Arc<dyn crate::ports::clock::Clock>,
    /// Where committed states are shown.
    pub board: Arc<Board>,
    /// Counters.
    pub meters: Arc<crate::meters::Meters>,
}
