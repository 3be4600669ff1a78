//! The program itself, killed (SIGKILL) under load and started again: what was answered is there, once.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use weir_contracts::proto::wallet as proto;

use crate::world::{Client, TOKEN, amounts, capture, connect, create, hold, movement};

const ROUNDS: usize = 3;
const COMMANDS: usize = 40;
/// With the initial balance.
pub(crate) const TRANSACTIONS: usize = 1 + ROUNDS * COMMANDS;

pub(crate) struct Program {
    child: Child,
    client: Client,
    pub(crate) rest: SocketAddr,
}

/// Free ports of our own: the program cannot tell which ones it took.
fn free() -> [SocketAddr; 2] {
    let free = [0; 2].map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
    free.map(|listener| listener.local_addr().unwrap())
}

impl Program {
    async fn start(dir: &Path, settings: &[(&str, String)]) -> Self {
        let [address, rest] = free();
        let child = Command::new(env!("CARGO_BIN_EXE_weir-wallet"))
            .arg("run")
            .args([
                "--rest-listen",
                &rest.to_string(),
                "--grpc-listen",
                &address.to_string(),
            ])
            .arg("--data-dir")
            .arg(dir.join("wallet"))
            .arg("--broker-path")
            .arg(dir.join("broker.db"))
            .env("WEIR_TOKEN", TOKEN)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let connected = async {
            loop {
                match connect(address, TOKEN).await {
                    Ok(client) => break client,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let client = tokio::time::timeout(Duration::from_secs(30), connected)
            .await
            .unwrap();
        Self { child, client, rest }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn command(
    client: &mut Client,
    wallet: &proto::Wallet,
    round: usize,
    n: usize,
) -> Result<(), tonic::Status> {
    let key = format!("{round}-{n}");
    match n % 3 {
        0 => client.top_up(movement(wallet, &key, "0.03")).await.map(|_| ()),
        1 => client
            .capture(capture(wallet, &key, "h", "0.01"))
            .await
            .map(|_| ()),
        _ => client.withdraw(movement(wallet, &key, "0.01")).await.map(|_| ()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_keeps_what_it_answered_and_repeats_do_nothing_twice() {
    killed_under_load(&[]).await;
}

/// What is left after the kills: the program, running.
pub(crate) struct Survivor {
    pub(crate) program: Program,
    /// As it is committed.
    pub(crate) wallet: proto::Wallet,
    _dir: tempfile::TempDir,
}

/// With these variables in the program's environment. The wallet ends with [`TRANSACTIONS`].
pub(crate) async fn killed_under_load(settings: &[(&str, String)]) -> Survivor {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), settings).await;
    let wallet = create(&mut program.client, "demo", "10").await;
    client_hold(&mut program.client, &wallet).await;
    for round in 0..ROUNDS {
        let mut load = tokio::task::JoinSet::new();
        let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..COMMANDS {
            let (mut client, wallet, answered) = (program.client.clone(), wallet.clone(), answered.clone());
            load.spawn(async move {
                if command(&mut client, &wallet, round, n).await.is_ok() {
                    let _ = answered.send(());
                }
            });
        }
        // In the middle of it: some are answered, some are on their way.
        for _ in 0..=(round * 10) {
            answers.recv().await.unwrap();
        }
        program.kill();
        load.join_all().await;
        program = Program::start(dir.path(), settings).await;
        for n in 0..COMMANDS {
            command(&mut program.client, &wallet, round, n).await.unwrap();
        }
    }
    let all = proto::ListTransactionsRequest {
        limit: 1000,
        ..Default::default()
    };
    let found = program
        .client
        .list_transactions(all)
        .await
        .unwrap()
        .into_inner()
        .transactions;
    assert_eq!(found.len(), TRANSACTIONS, "each command is one transaction");
    let got = proto::GetWalletRequest {
        wallet_id: wallet.wallet_id.clone(),
    };
    let now = program.client.get_wallet(got).await.unwrap().into_inner();
    // Per round 14 top-ups of 0.03, 13 captures and 13 withdrawals of 0.01.
    assert_eq!(amounts(&now), ("10.48", "4.61", "5.87", "0.00"));
    Survivor {
        program,
        wallet: now,
        _dir: dir,
    }
}

async fn client_hold(client: &mut Client, wallet: &proto::Wallet) {
    client.place_hold(hold(wallet, "h", "5")).await.unwrap();
}
