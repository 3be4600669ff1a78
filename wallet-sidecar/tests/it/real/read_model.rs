//! The read model on MongoDB: the port's contract, and what a connection that breaks at each place leaves.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use mongodb::{Client, Database};
use tokio::runtime::Runtime;
use weir_servers::{ServerUrl, chaos_proxy::ChaosProxy};
use weir_wallet::{
    adapters::mongo::{CALL_WAIT, CALLS_MAX, MongoReadModel, read_model::PART_CHANGES_MAX},
    ports::{
        event_store::StoreError,
        read_model::{Applied, Change, Filter, ReadModel},
    },
};

use super::address;
use crate::contract::read_model::{read_model_contract, transaction, wallet, writers_racing};

/// Beyond the deadline of a call: for threads to be woken on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// Longest wait for the driver to see that a server is back.
const BACK_WAIT: Duration = Duration::from_secs(30);

/// A database of its own, dropped at the end.
pub(crate) struct Place {
    pub(crate) runtime: Runtime,
    host: String,
    name: String,
    database: Database,
}

impl Place {
    pub(crate) fn new() -> Self {
        let address = address("MONGODB_URL");
        let (start, _) = address.rsplit_once('/').unwrap();
        let runtime = Runtime::new().unwrap();
        let name = format!("t{:016x}", fastrand::u64(..));
        let client = runtime.block_on(Client::with_uri_str(&address)).unwrap();
        Self {
            database: client.database(&name),
            host: start.rsplit_once(['/', '@']).unwrap().1.to_owned(),
            name,
            runtime,
        }
    }

    fn server(&self) -> SocketAddr {
        self.host.to_socket_addrs().unwrap().next().unwrap()
    }

    pub(crate) fn url(&self) -> ServerUrl {
        self.url_at(&self.host)
    }

    pub(crate) fn url_at(&self, host: &str) -> ServerUrl {
        let name = &self.name;
        address("MONGODB_URL")
            .replacen(&self.host, host, 1)
            .rsplit_once('/')
            .map(|(start, _)| format!("{start}/{name}"))
            .unwrap()
            .into()
    }

    fn open(&self) -> MongoReadModel {
        self.runtime.block_on(MongoReadModel::open(&self.url())).unwrap()
    }

    pub(crate) fn proxy(&self) -> ChaosProxy {
        let _in = self.runtime.enter();
        ChaosProxy::start(self.server()).unwrap()
    }

    fn open_through(&self, proxy: &ChaosProxy) -> MongoReadModel {
        let url = self.url_at(&proxy.addr.to_string());
        self.runtime.block_on(MongoReadModel::open(&url)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.database.drop().into_future());
    }
}

#[test]
fn mongodb_keeps_the_contract() {
    let place = Place::new();
    read_model_contract(&|| Box::new(place.open()));
}

#[test]
fn writers_racing_on_one_wallet_never_move_it_backwards() {
    let place = Place::new();
    writers_racing(&|| Box::new(place.open()));
    let left = place.runtime.block_on(async {
        let states = place.database.collection::<mongodb::bson::Document>("wallets");
        states.count_documents(mongodb::bson::doc! {}).await.unwrap()
    });
    assert_eq!(left, 1, "what is superseded is removed");
}

/// A wallet and its transaction at a position.
fn pair(position: u64) -> [Change; 2] {
    [
        Change::Transaction(transaction(
            &format!("t{position}"),
            "CREDIT",
            "2026-11-21T10:00:00Z",
            position,
        )),
        Change::Wallet(wallet("a", &format!("{position}.00"), position)),
    ]
}

fn all() -> Filter {
    Filter {
        page: 1,
        limit: 200,
        ..Filter::default()
    }
}

/// Applies until it succeeds, as the projector does; returns how often it failed.
fn apply_until_done(model: &dyn ReadModel, changes: &[Change]) -> usize {
    let began = Instant::now();
    let mut failures = 0;
    loop {
        match model.apply(changes) {
            Ok(applied) => {
                assert!(!applied.contains(&Applied::OtherContent), "{applied:?}");
                return failures;
            }
            Err(e) => assert!(matches!(e, StoreError::Unavailable(_)), "{e}"),
        }
        failures += 1;
        assert!(began.elapsed() < BACK_WAIT, "it never came back");
    }
}

#[test]
fn a_connection_cut_before_in_or_after_any_write_loses_nothing_and_doubles_nothing() {
    let place = Place::new();
    let proxy = place.proxy();
    let model = place.open_through(&proxy);
    let cuts: [(&str, &dyn Fn()); 11] = [
        ("before", &|| proxy.cut_before_request()),
        ("in the request", &|| proxy.cut_in_request(30)),
        ("deep in the request", &|| proxy.cut_in_request(300)),
        ("in the answer", &|| proxy.cut_in_answer(10)),
        ("now", &|| proxy.cut_now()),
        ("after 1", &|| proxy.cut_after_request(1)),
        ("after 2", &|| proxy.cut_after_request(2)),
        ("after 3", &|| proxy.cut_after_request(3)),
        ("after 4", &|| proxy.cut_after_request(4)),
        ("after 5", &|| proxy.cut_after_request(5)),
        ("after 6", &|| proxy.cut_after_request(6)),
    ];
    let (mut position, mut failures) = (0, 0);
    for (what, cut) in cuts {
        position += 1;
        cut();
        failures += apply_until_done(&model, &pair(position));
        // Again, as after an acknowledgement that was lost.
        apply_until_done(&model, &pair(position));
        let now = model.wallet("w-a").unwrap().unwrap();
        assert_eq!(now, wallet("a", &format!("{position}.00"), position), "{what}");
        assert_eq!(
            model.transactions("w-a", &all()).unwrap().total,
            position,
            "{what}"
        );
        // And one that is late.
        if position > 1 {
            let late = model.apply(&pair(position - 1)).unwrap();
            assert_eq!(late, [Applied::Known; 2], "{what}");
        }
    }
    assert!(failures > 0, "no cut was felt");
    // What is left of an interrupted change is removed by the next one.
    drop(model);
    let other = place.open();
    assert_eq!(other.position().unwrap(), position);
}

#[test]
fn a_server_that_hangs_ends_every_call_within_its_deadline() {
    let place = Place::new();
    let proxy = place.proxy();
    let model = place.open_through(&proxy);
    model.apply(&pair(1)).unwrap();
    proxy.freeze(true);
    let calls: [&(dyn Fn() -> Result<(), StoreError> + Sync); 3] = [
        &|| model.apply(&pair(2)).map(drop),
        &|| model.wallet_of_user("a").map(drop),
        &|| model.position().map(drop),
    ];
    let began = Instant::now();
    std::thread::scope(|scope| {
        for call in calls {
            scope.spawn(move || {
                let error = call().unwrap_err();
                assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
            });
        }
    });
    assert!(began.elapsed() < CALL_WAIT + SLACK, "{:?}", began.elapsed());
    proxy.freeze(false);
    apply_until_done(&model, &pair(2));
    assert_eq!(model.wallet("w-a").unwrap().unwrap().position, 2);
    assert_eq!(model.transactions("w-a", &all()).unwrap().total, 2);
}

#[test]
fn calls_beyond_the_limit_are_refused_at_once() {
    let place = Place::new();
    let proxy = place.proxy();
    let model = place.open_through(&proxy);
    proxy.freeze(true);
    let refused = std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..CALLS_MAX + 8)
            .map(|_| scope.spawn(|| model.position()))
            .collect();
        let ends: Vec<_> = waiting.into_iter().map(|call| call.join().unwrap()).collect();
        ends.iter()
            .filter(|end| matches!(end, Err(StoreError::Unavailable(e)) if e.contains("wait for MongoDB already")))
            .count()
    });
    assert_eq!(refused, 8);
    proxy.freeze(false);
}

#[test]
fn a_server_that_is_away_is_an_error_and_used_again_when_it_is_back() {
    let place = Place::new();
    let proxy = place.proxy();
    let model = place.open_through(&proxy);
    proxy.refuse(true);
    proxy.cut_now();
    let began = Instant::now();
    let error = model.apply(&pair(1)).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(began.elapsed() < CALL_WAIT + SLACK);
    let url = place.url_at(&proxy.addr.to_string());
    let opened = place.runtime.block_on(MongoReadModel::open(&url));
    assert!(matches!(opened.err(), Some(StoreError::Unavailable(_))));
    proxy.refuse(false);
    apply_until_done(&model, &pair(1));
    assert_eq!(model.position().unwrap(), 1);
}

#[test]
fn more_than_one_part_is_applied_and_answered_in_order() {
    let place = Place::new();
    let model = place.open();
    let count = PART_CHANGES_MAX as u64 + 20;
    let changes: Vec<Change> = (1..=count).flat_map(pair).collect();
    let applied = model.apply(&changes).unwrap();
    assert_eq!(applied, vec![Applied::Stored; changes.len()]);
    let mut again = changes.clone();
    let Change::Transaction(other) = &mut again[100] else {
        panic!("a transaction stands first in each pair");
    };
    other.amount = "9.00".to_owned();
    let mut expected = vec![Applied::Known; changes.len()];
    expected[100] = Applied::OtherContent;
    assert_eq!(model.apply(&again).unwrap(), expected);
    assert_eq!(model.position().unwrap(), count);
    assert_eq!(model.transactions("w-a", &all()).unwrap().total, count);
}

#[test]
fn what_can_never_be_stored_is_refused_and_its_neighbours_are_stored() {
    let place = Place::new();
    let model = place.open();
    let changes = [
        Change::Transaction(transaction("t1", "CREDIT", "yesterday", 1)),
        Change::Wallet(wallet("a", "1.00", u64::MAX)),
        Change::Transaction(transaction("t2", "CREDIT", "2026-11-21T10:00:00Z", u64::MAX)),
        Change::Wallet(wallet("b", "1.00", 1)),
    ];
    let applied = model.apply(&changes).unwrap();
    use Applied::{OtherContent, Stored};
    assert_eq!(applied, [OtherContent, OtherContent, OtherContent, Stored]);
}

/// PostgreSQL, behind FerretDB, keeps no NUL in its JSON.
#[test]
fn any_text_comes_back_as_it_was() {
    let place = Place::new();
    let model = place.open();
    let mut odd = transaction("t1", "CREDIT", "2026-11-21T10:00:00Z", 1);
    odd.description = "a\u{0}b\u{241b}0\u{241b}\u{241b}ü$.{}'".to_owned();
    odd.reference_id = "\u{0}".to_owned();
    odd.reference_type = "$where".to_owned();
    let changes = [Change::Transaction(odd.clone())];
    assert_eq!(model.apply(&changes).unwrap(), [Applied::Stored]);
    assert_eq!(model.apply(&changes).unwrap(), [Applied::Known]);
    assert_eq!(model.transactions("w-a", &all()).unwrap().transactions, [odd]);
}

#[test]
fn a_database_dropped_under_a_running_service_is_filled_again() {
    let place = Place::new();
    let model = place.open();
    model.apply(&pair(1)).unwrap();
    model.set_swept(1).unwrap();
    place
        .runtime
        .block_on(place.database.drop().into_future())
        .unwrap();
    assert_eq!((model.position().unwrap(), model.swept().unwrap()), (0, 0));
    assert_eq!(model.apply(&pair(1)).unwrap(), [Applied::Stored; 2]);
}
