//! The wallet's whole line on PostgreSQL, RabbitMQ and MongoDB: commands, events in commit order, documents; over restarts, kills and
//! a read model that is away.

use std::{collections::BTreeSet, process::Command, time::Duration};

use tokio::time::{Instant, sleep};
use weir_contracts::{
    event::{CloudEvent, TRANSACTION_CREATED_TOPIC, TransactionCreated, WALLET_UPDATED_TOPIC, WalletUpdated},
    proto::wallet as proto,
};
use weir_servers::rabbitmq::{DEFAULT_NAME, Queue};

use super::{address, database::Database, read_model::Place};
use crate::{
    kill::{TRANSACTIONS, killed_under_load},
    rest::Rest,
    world::{Client, Servers, World, amounts, capture, create, hold, movement, release},
};

/// Longest wait for something that must happen; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at something that tells of no change.
const LOOK: Duration = Duration::from_millis(50);
/// A queue of the test's own beside the read model's.
const TAP: &str = "tap";

/// A virtual host of its own, removed at the end.
struct VirtualHost(String);

impl VirtualHost {
    fn new() -> Self {
        let host = Self(format!("t{:016x}", fastrand::u64(..)));
        let url = host.url();
        let user = url.split_once("://").unwrap().1.split_once(':').unwrap().0;
        host.ctl(&["add_vhost", &host.0]);
        host.ctl(&["set_permissions", "-p", &host.0, user, ".*", ".*", ".*"]);
        host
    }

    fn url(&self) -> String {
        let address = address("AMQP_URL");
        let (server, _) = address.rsplit_once('/').unwrap();
        format!("{server}/{}", self.0)
    }

    fn ctl(&self, arguments: &[&str]) {
        let status = Command::new(address("RABBITMQCTL"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            status.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&status.stderr)
        );
    }
}

impl Drop for VirtualHost {
    fn drop(&mut self) {
        let _ = Command::new(address("RABBITMQCTL"))
            .args(["delete_vhost", &self.0])
            .output();
    }
}

/// A place of its own on each server. The service is stopped before it is dropped.
struct Line {
    mongo: Place,
    broker: VirtualHost,
    database: Database,
}

impl Line {
    fn new() -> Self {
        Self {
            mongo: Place::new(),
            broker: VirtualHost::new(),
            database: Database::new(),
        }
    }

    fn servers(&self) -> Servers {
        Servers {
            amqp_url: Some(self.broker.url()),
            database_url: Some((address("DATABASE_URL"), self.database.schema.clone())),
            mongodb_url: Some(self.mongo.url().reveal().to_owned()),
        }
    }

    /// Sees all that the service sends from now on.
    async fn tap(&self) -> Queue {
        let queue = Queue::connect(&self.broker.url().as_str().into(), DEFAULT_NAME)
            .await
            .unwrap();
        for topic in [WALLET_UPDATED_TOPIC, TRANSACTION_CREATED_TOPIC] {
            queue.bind(TAP, topic).await.unwrap();
        }
        queue
    }
}

/// What was sent, in the order of the queue, each message once: as its sender's order was.
#[derive(Default)]
struct Seen {
    ids: BTreeSet<String>,
    /// Per message not seen before.
    positions: Vec<u64>,
    wallets: Vec<WalletUpdated>,
    transactions: Vec<TransactionCreated>,
}

impl Seen {
    /// Takes messages until a wallet's state at `position` was seen and nothing is left.
    async fn until(&mut self, tap: &Queue, position: u64) {
        let by = Instant::now() + PATIENCE;
        while self.wallets.iter().all(|w| w.position < position) {
            assert!(Instant::now() < by, "position {position} was not sent");
            let claimed = tap.claim(TAP, 100).await.unwrap();
            let tags: Vec<u64> = claimed.iter().map(|d| d.tag).collect();
            for delivery in claimed {
                self.take(&delivery.topic, &delivery.id, &delivery.body);
            }
            tap.ack(TAP, &tags).await.unwrap();
        }
    }

    fn take(&mut self, topic: &str, id: &str, body: &[u8]) {
        if !self.ids.insert(format!("{topic}/{id}")) {
            return;
        }
        if topic == WALLET_UPDATED_TOPIC {
            let event: CloudEvent<WalletUpdated> = serde_json::from_slice(body).unwrap();
            self.positions.push(event.data.position);
            self.wallets.push(event.data);
        } else {
            let event: CloudEvent<TransactionCreated> = serde_json::from_slice(body).unwrap();
            self.positions.push(event.data.position);
            self.transactions.push(event.data);
        }
    }
}

async fn ready(rest: &Rest) {
    let by = Instant::now() + PATIENCE;
    loop {
        let (status, said) = rest.get("/ready").await;
        if status == 200 {
            return;
        }
        assert!(Instant::now() < by, "{said}");
        sleep(LOOK).await;
    }
}

/// The read model shows the wallet as committed, and so many transactions.
async fn shown(rest: &Rest, wallet: &proto::Wallet, transactions: usize) {
    let by = Instant::now() + PATIENCE;
    let page = format!("/wallets/{}/transactions?limit=200", wallet.wallet_id);
    loop {
        let (status, said) = rest.get(&page).await;
        let total = said["pagination"]["total"].as_u64();
        if status == 200 && total == Some(transactions as u64) {
            break;
        }
        assert!(Instant::now() < by, "{status} {said}");
        sleep(LOOK).await;
    }
    let (status, said) = rest.get(&format!("/wallets/{}", wallet.user_id)).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(said["balance"], wallet.balance, "{said}");
}

async fn now(client: &mut Client, wallet: &proto::Wallet) -> proto::Wallet {
    let wallet_id = wallet.wallet_id.clone();
    let asked = proto::GetWalletRequest { wallet_id };
    client.get_wallet(asked).await.unwrap().into_inner()
}

/// Two users' commands at once; each user's are done in order. 1 + 3 × `rounds` transactions per user.
async fn both_live(client: &Client, first: usize, rounds: usize) -> Vec<proto::Wallet> {
    let lives = ["ann", "bob"].map(|user| {
        let mut client = client.clone();
        async move {
            let wallet = create(&mut client, user, "10").await;
            for n in first..first + rounds {
                let key = |what: &str| format!("{user}-{what}-{n}");
                client
                    .top_up(movement(&wallet, &key("in"), "0.30"))
                    .await
                    .unwrap();
                client
                    .place_hold(hold(&wallet, &key("hold"), "0.20"))
                    .await
                    .unwrap();
                client
                    .capture(capture(&wallet, &key("use"), &key("hold"), "0.10"))
                    .await
                    .unwrap();
                client.release_hold(release(&wallet, &key("hold"))).await.unwrap();
                client
                    .withdraw(movement(&wallet, &key("out"), "0.000000001"))
                    .await
                    .unwrap();
            }
            now(&mut client, &wallet).await
        }
    });
    futures_util::future::join_all(lives).await
}

#[test]
fn commands_become_events_in_commit_order_and_then_documents_over_restarts() {
    const ROUNDS: usize = 5;
    let line = Line::new();
    line.mongo.runtime.block_on(async {
        let mut world = World::start_on(line.servers()).await;
        let tap = line.tap().await;
        let mut seen = Seen::default();
        for restart in 0..3 {
            let done = (restart + 1) * ROUNDS;
            let wallets = both_live(&world.client().await, restart * ROUNDS, ROUNDS).await;
            let last = wallets.iter().map(|w| w.position).max().unwrap();
            seen.until(&tap, last).await;
            assert_eq!(seen.transactions.len(), 2 * (1 + 3 * done));
            let rest = Rest::of(&world);
            ready(&rest).await;
            for wallet in &wallets {
                shown(&rest, wallet, 1 + 3 * done).await;
                let latest = seen.wallets.iter().rfind(|w| w.wallet_id == wallet.wallet_id);
                assert_eq!(latest.unwrap().balance, wallet.balance);
            }
            world.restart().await;
        }
        assert!(
            seen.positions.is_sorted(),
            "in commit order: {:?}",
            seen.positions
        );
        // After the last restart, with nothing new to send.
        ready(&Rest::of(&world)).await;
        world.stop().await;
    });
}

#[test]
fn killed_under_load_on_real_servers_it_keeps_what_it_answered_and_tells_all_of_it_in_order() {
    let line = Line::new();
    line.mongo.runtime.block_on(async {
        let tap = line.tap().await;
        let survivor = killed_under_load(&line.servers().variables()).await;
        let wallet = &survivor.wallet;
        let mut seen = Seen::default();
        seen.until(&tap, wallet.position).await;
        assert_eq!(seen.transactions.len(), TRANSACTIONS);
        assert!(
            seen.positions.is_sorted(),
            "in commit order: {:?}",
            seen.positions
        );
        let ids: BTreeSet<_> = seen.transactions.iter().map(|t| &t.txn_id).collect();
        assert_eq!(ids.len(), TRANSACTIONS);
        let rest = Rest::at(survivor.program.rest);
        ready(&rest).await;
        shown(&rest, wallet, TRANSACTIONS).await;
    });
}

#[test]
fn while_the_read_model_is_away_commands_go_on_and_reads_are_refused() {
    let place = Place::new();
    let proxy = place.proxy();
    place.runtime.block_on(async {
        let servers = Servers {
            mongodb_url: Some(place.url_at(&proxy.addr.to_string()).reveal().to_owned()),
            ..Servers::default()
        };
        let world = World::start_on(servers).await;
        let (rest, mut client) = (Rest::of(&world), world.client().await);
        let wallet = create(&mut client, "demo", "1").await;
        ready(&rest).await;
        // Away, and then hanging.
        for (n, hangs) in [false, true].into_iter().enumerate() {
            proxy.freeze(hangs);
            proxy.refuse(!hangs);
            if !hangs {
                proxy.cut_now();
            }
            for part in 0..3 {
                let key = format!("{n}-{part}");
                client.top_up(movement(&wallet, &key, "1")).await.unwrap();
            }
            let page = format!("/wallets/{}/transactions", wallet.wallet_id);
            assert_eq!(rest.get(&page).await.0, 503);
            let by = Instant::now() + PATIENCE;
            loop {
                let (status, said) = rest.get("/ready").await;
                let checks = said["checks"].as_array().unwrap();
                let told = checks
                    .iter()
                    .any(|c| c["name"] == "projection" && c["ok"] == false);
                if status == 503 && told {
                    break;
                }
                assert!(Instant::now() < by, "{said}");
                sleep(LOOK).await;
            }
            proxy.freeze(false);
            proxy.refuse(false);
            let wallet = now(&mut client, &wallet).await;
            shown(&rest, &wallet, 1 + (n + 1) * 3).await;
            ready(&rest).await;
        }
        assert_eq!(amounts(&now(&mut client, &wallet).await).0, "7.00");
        world.stop().await;
    });
}
