//! The writer's desk over a real store: keys, groups, and random commands beside the trial balance.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use weir_contracts::money::{Amount, Currency};
use weir_wallet::{
    adapters::sqlite::SqliteEventStore,
    ledger::{LedgerAccount, TrialBalance},
    ports::{clock::Clock, event_store::EventStore},
    wallet::{Command, HoldId, Move, UserId, WalletId},
    writer::{Answer, Ask, Board, CommandError, Desk, Key, Parts},
};

pub(crate) struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }
}

pub(crate) type Request = (WalletId, Option<Key>, Command);

pub(crate) fn desk_over(store: Arc<dyn EventStore>) -> (Desk, Arc<Board>) {
    let board = Arc::<Board>::default();
    let parts = Parts {
        store,
        clock: Arc::new(StoppedClock),
        board: Arc::clone(&board),
        meters: Arc::default(),
    };
    (Desk::open(parts).unwrap(), board)
}

pub(crate) fn open(path: &Path) -> Arc<SqliteEventStore> {
    Arc::new(SqliteEventStore::open(&path.join("events.db")).unwrap())
}

/// Has a group decided in one commit.
pub(crate) fn work(desk: &mut Desk, requests: Vec<Request>) -> Vec<Result<Answer, CommandError>> {
    let (asks, answers): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .map(|(wallet, key, command)| Ask::new(wallet, key, command))
        .unzip();
    desk.work(asks);
    answers.into_iter().map(|mut a| a.try_recv().unwrap()).collect()
}

pub(crate) fn one(desk: &mut Desk, request: Request) -> Result<Answer, CommandError> {
    work(desk, vec![request]).remove(0)
}

fn user() -> UserId {
    "demo".parse().unwrap()
}

pub(crate) fn wallet() -> WalletId {
    WalletId::of_user(&user())
}

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

pub(crate) fn create(key: &str, initial: &str) -> Request {
    let command = Command::Create {
        user: user(),
        currency: Currency::USD,
        initial: amount(initial),
    };
    (wallet(), Some(Key::of_service(key).unwrap()), command)
}

pub(crate) fn top_up(key: &str, text: &str) -> Request {
    let movement = Move {
        amount: amount(text),
        currency: None,
        reference_id: String::new(),
        reference_type: String::new(),
        description: String::new(),
    };
    (
        wallet(),
        Some(Key::of_service(key).unwrap()),
        Command::TopUp(movement),
    )
}

pub(crate) fn place(hold: &str, total: &str) -> Request {
    let hold: HoldId = hold.parse().unwrap();
    let command = Command::PlaceHold {
        hold,
        total: amount(total),
    };
    (wallet(), None, command)
}

pub(crate) fn capture(key: &str, hold: &str, text: &str) -> Request {
    let command = Command::Capture {
        hold: Some(hold.parse().unwrap()),
        amount: amount(text),
        reference_id: key.to_owned(),
        description: String::new(),
    };
    (wallet(), Some(Key::of_service(key).unwrap()), command)
}

pub(crate) fn release(hold: &str) -> Request {
    let hold: HoldId = hold.parse().unwrap();
    (
        wallet(),
        Some(Key::of_release(wallet(), &hold)),
        Command::ReleaseHold { hold },
    )
}

/// Sums of all stored postings.
pub(crate) fn ledger(store: &dyn EventStore) -> TrialBalance {
    let mut balance = TrialBalance::default();
    let mut position = 0;
    loop {
        let posted = store.postings_after(position, 100).unwrap();
        let Some(last) = posted.last() else {
            return balance;
        };
        position = last.position;
        for one in posted {
            balance.add(one.currency, one.posting);
        }
    }
}

#[test]
fn the_same_key_answers_as_the_first_time_and_never_does_two_things() {
    let dir = tempfile::tempdir().unwrap();
    let (mut desk, _) = desk_over(open(dir.path()));
    let created = one(&mut desk, create("c", "1")).unwrap();
    let first = one(&mut desk, top_up("t", "2")).unwrap();
    one(&mut desk, top_up("t2", "4")).unwrap();
    assert_eq!(one(&mut desk, top_up("t", "2")).unwrap(), first);
    assert_eq!(
        one(&mut desk, top_up("t", "2.000")).unwrap(),
        first,
        "the same amount, written otherwise"
    );
    assert_eq!(one(&mut desk, create("c", "1")).unwrap(), created);
    for other in [
        top_up("t", "3"),
        capture("t", "h", "2"),
        create("c", "2"),
        create("t", "1"),
    ] {
        assert_eq!(one(&mut desk, other), Err(CommandError::KeyReused));
    }
    // A refusal is no answer to keep: the key can still be used.
    let (mut desk, board) = desk_over(open(dir.path()));
    assert_eq!(
        one(&mut desk, top_up("t", "2")).unwrap(),
        first,
        "also after a restart"
    );
    assert_eq!(board.wallet(wallet()).unwrap().balance, "7.00");
}

#[test]
fn in_one_group_each_command_sees_those_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut desk, board) = desk_over(store.clone());
    let group = vec![
        place("h", "1"),
        create("c", "1"),
        top_up("t", "2"),
        top_up("t", "2"),
        top_up("t", "9"),
        place("h", "5"),
        capture("x", "h", "1"),
        release("h"),
        place("h", "5"),
        place("i", "5"),
    ];
    let answers = work(&mut desk, group);
    let codes: Vec<_> = answers
        .iter()
        .map(|a| a.as_ref().map_or_else(CommandError::code, |_| "ok"))
        .collect();
    assert_eq!(
        codes,
        [
            "WALLET_NOT_FOUND",
            "ok",
            "ok",
            "ok",
            "KEY_REUSED",
            "ok",
            "ok",
            "ok",
            "HOLD_RELEASED",
            "ok"
        ]
    );
    assert_eq!(answers[2], answers[3]);
    assert_eq!(answers[5].as_ref().unwrap().held_total, Some(amount("3")));
    assert_eq!(answers[9].as_ref().unwrap().held_total, Some(amount("2")));
    let shown = board.wallet(wallet()).unwrap();
    assert_eq!((shown.balance.as_str(), shown.held.as_str()), ("2.00", "2.00"));
    assert_eq!(shown.position, store.head().unwrap());
    // Every change is told, in commit order, a transaction before the wallet that it made.
    let sent = store.outbox(100).unwrap();
    let positions: Vec<&str> = sent
        .iter()
        .filter_map(|i| i.message.id.strip_prefix("wallet/"))
        .collect();
    assert_eq!(positions, ["2", "3", "4", "5", "6", "7"]);
    assert_eq!(
        sent.iter()
            .filter(|i| i.message.id.starts_with("transaction/"))
            .count(),
        3
    );
}

#[test]
fn random_groups_leave_postings_that_agree_with_the_wallet_also_after_reopening() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        random_groups(seed, &|| open(dir.path()));
    }
}

/// `again` opens the same store each time it is called; it is empty at first.
pub(crate) fn random_groups(seed: u64, again: &dyn Fn() -> Arc<dyn EventStore>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let store = again();
    let (mut desk, board) = desk_over(store.clone());
    one(&mut desk, create("c", "3")).unwrap();
    for round in 0..20 {
        let group = (0..rng.usize(1..12))
            .map(|n| {
                let key = format!("{round}-{n}");
                let (id, text) = (format!("h{}", rng.u8(0..9)), format!("0.{}1", rng.u32(0..1000)));
                match rng.u8(0..5) {
                    0 => top_up(&key, &text),
                    1 | 2 => place(&id, &text),
                    3 => capture(&key, &id, &text),
                    _ => release(&id),
                }
            })
            .collect();
        work(&mut desk, group);
        let shown = board.wallet(wallet()).unwrap();
        let total = |account| ledger(store.as_ref()).total(Currency::USD, account);
        assert!(ledger(store.as_ref()).is_zero(), "seed {seed} round {round}");
        assert_eq!(
            total(LedgerAccount::Wallet).negated().to_string(),
            shown.available
        );
        assert_eq!(total(LedgerAccount::Held).negated().to_string(), shown.held);
        assert_eq!(total(LedgerAccount::Receivable).to_string(), shown.receivable);
        assert!(!amount(&shown.balance).is_negative());
    }
    let shown = board.wallet(wallet()).unwrap();
    drop((desk, store));
    let (_, reopened) = desk_over(again());
    assert_eq!(reopened.wallet(wallet()).unwrap(), shown, "seed {seed}");
}
