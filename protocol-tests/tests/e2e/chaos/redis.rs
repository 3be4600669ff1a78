//! The outbox forgets: Redis is flushed, and fails over to a replica that had lost its tail, with appends going on. Every usage record
//! still arrives once.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Commands, Connection};
use tempfile::TempDir;
use weir_protocol_tests::deadline::{pause, wait_for};
use weir_protocol_tests::gate::free_address;
use weir_protocol_tests::money::UNIT;
use weir_protocol_tests::process;
use weir_protocol_tests::stack::Stack;
use weir_protocol_tests::world::World;

use crate::fleet;
use crate::load::{Load, under_load};
use crate::mixed::{assert_books, assert_ids_are_unique};
use crate::outage::{assert_charged, assert_served, cost_of};

/// More than the load can spend.
const CREDIT: i64 = 500 * UNIT;

/// Times that everything in Redis is dropped.
const FLUSHES: usize = 12;

/// Between the end of the one and the promotion of the other.
const AWAY: Duration = Duration::from_secs(5);
const AWAY_LONG: Duration = Duration::from_secs(60);

/// For a command, for the replica to start and to have caught up.
const REDIS_DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn after_a_flush_in_mid_load_every_usage_record_arrives_once() {
    let stack = Stack::up();
    arrives_once(&stack, 41, |load| {
        let mut redis = connect(stack.line("REDIS_URL"));
        for _ in 0..FLUSHES {
            load.served(3);
            let _: () = redis::cmd("FLUSHALL").query(&mut redis).expect("FLUSHALL");
        }
        load.served(5);
    });
}

#[test]
fn after_a_fail_over_to_a_replica_that_lost_its_tail_every_usage_record_arrives_once() {
    let stack = Stack::up();
    let url = redis::Client::open(stack.line("REDIS_URL")).expect("an address");
    let mut master = connect(stack.line("REDIS_URL"));
    let replica = Replica::of(&stack, &url);
    arrives_once(&stack, 42, |load| {
        load.served(10);
        let mut promoted = replica.connect(&url);
        let _: () = redis::cmd("REPLICAOF")
            .arg("NO")
            .arg("ONE")
            .query(&mut promoted)
            .expect("REPLICAOF NO ONE");
        load.served(10);
        assert!(
            entries(&mut promoted) < entries(&mut master) || ids(&mut promoted) != ids(&mut master),
            "the replica has lost nothing"
        );
        stack.kill("redis");
        // Nobody notices, however long it takes.
        pause(if fleet::long() { AWAY_LONG } else { AWAY });
        // The address that the services know leads to the replica from now on.
        let address = url.get_connection_info().addr().to_string();
        let port = address.rsplit(':').next().expect("a port");
        let moved = wait_for(REDIS_DEADLINE, || {
            redis::cmd("CONFIG")
                .arg("SET")
                .arg("port")
                .arg(port)
                .query::<()>(&mut promoted)
                .ok()
        });
        assert!(moved.is_some(), "the replica cannot take over port {port}");
        load.served(20);
    });
}

/// Runs the load beside `meanwhile`: nobody is told an error, and every sum is what was received.
fn arrives_once(stack: &Stack, seed: u64, meanwhile: impl FnOnce(&Load)) {
    let before = stack.settled_balance();
    stack.top_up(CREDIT);
    let ((), seen) = under_load(&stack.tenant(), seed, meanwhile);
    assert_served(&seen, &[]);
    let balance = stack.settled_balance();
    let usage = stack.usage();
    assert_ids_are_unique(&usage);
    let rows = assert_charged(&seen, &usage);
    let received: u64 = seen.events.iter().map(|event| event.received).sum();
    assert_eq!(rows, received);
    assert_eq!(balance, before + CREDIT - cost_of(rows));
    assert_books(stack, cost_of(rows));
}

fn connect(url: &str) -> Connection {
    let client = redis::Client::open(url).expect("an address");
    connection_of(&client)
}

fn connection_of(client: &redis::Client) -> Connection {
    let connection = wait_for(REDIS_DEADLINE, || {
        client.get_connection_with_timeout(REDIS_DEADLINE).ok()
    });
    let connection = connection.expect("a connection to Redis");
    connection
        .set_read_timeout(Some(REDIS_DEADLINE))
        .expect("a deadline");
    connection
}

/// Keys and what they hold, as far as a stale copy differs from the newer one.
fn entries(redis: &mut Connection) -> usize {
    streams(redis)
        .iter()
        .map(|key| redis.xlen::<_, usize>(key).expect("a length"))
        .sum()
}

/// The last entry of each stream.
fn ids(redis: &mut Connection) -> Vec<String> {
    streams(redis)
        .iter()
        .map(|key| {
            let last: redis::Value = redis::cmd("XREVRANGE")
                .arg(key)
                .arg("+")
                .arg("-")
                .arg("COUNT")
                .arg(1)
                .query(redis)
                .expect("the last entry");
            format!("{last:?}")
        })
        .collect()
}

fn streams(redis: &mut Connection) -> Vec<String> {
    let mut keys: Vec<String> = redis.keys("*").expect("the keys");
    keys.retain(|key| {
        let kind: String = redis::cmd("TYPE").arg(key).query(redis).expect("a type");
        kind == "stream"
    });
    keys.sort_unstable();
    keys
}

/// A second server that follows the stack's. Dropped, it is killed.
struct Replica {
    child: Child,
    port: u16,
    holder: TempDir,
}

impl Replica {
    /// Starts one of the same program, and waits until it has what the other has.
    fn of(stack: &Stack, master: &redis::Client) -> Self {
        let holder = tempfile::tempdir().expect("a directory");
        let port = free_address().port();
        let address = master.get_connection_info().addr().to_string();
        let (host, master_port) = address.rsplit_once(':').expect("host and port");
        let password = password(master);
        let log = std::fs::File::create(holder.path().join("log")).expect("a log");
        let child = Command::new(stack.line("REDIS_SERVER"))
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--replicaof", host, master_port])
            .args(["--masterauth", &password, "--requirepass", &password])
            .args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""])
            .args(["--maxmemory-policy", "noeviction"])
            .arg("--dir")
            .arg(holder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("a second Redis");
        let replica = Self { child, port, holder };
        let mut connection = replica.connect(master);
        let up = wait_for(REDIS_DEADLINE, || {
            let info: String = redis::cmd("INFO")
                .arg("replication")
                .query(&mut connection)
                .ok()?;
            info.contains("master_link_status:up").then_some(())
        });
        assert!(up.is_some(), "the replica does not follow");
        replica
    }

    fn connect(&self, master: &redis::Client) -> Connection {
        let url = format!("redis://:{}@127.0.0.1:{}/0", password(master), self.port);
        connect(&url)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            process::show_log(&self.holder.path().join("log"));
        }
    }
}

fn password(of: &redis::Client) -> String {
    let info = of.get_connection_info();
    info.redis_settings().password().unwrap_or_default().to_owned()
}
