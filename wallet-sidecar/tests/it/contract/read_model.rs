//! What every read model must do: forward only, once only, never the same id with other content.

use weir_contracts::event::{TransactionCreated, WalletUpdated};
use weir_wallet::{
    adapters::sqlite::SqliteReadModel,
    ports::read_model::{Applied, Change, Filter, ReadModel},
};

pub(crate) fn wallet(user: &str, balance: &str, position: u64) -> WalletUpdated {
    WalletUpdated {
        wallet_id: format!("w-{user}"),
        user_id: user.to_owned(),
        currency: "USD".to_owned(),
        status: "ACTIVE".to_owned(),
        balance: balance.to_owned(),
        held: "0.00".to_owned(),
        available: balance.to_owned(),
        receivable: "0.00".to_owned(),
        created_at: "2026-11-21T10:00:00Z".to_owned(),
        updated_at: "2026-11-21T10:00:00Z".to_owned(),
        position,
    }
}

pub(crate) fn transaction(id: &str, kind: &str, at: &str, position: u64) -> TransactionCreated {
    TransactionCreated {
        txn_id: id.to_owned(),
        wallet_id: "w-a".to_owned(),
        amount: "1.00".to_owned(),
        r#type: kind.to_owned(),
        description: "'; DROP TABLE wallets; --".to_owned(),
        reference_id: String::new(),
        reference_type: String::new(),
        status: "COMPLETED".to_owned(),
        created_at: at.to_owned(),
        balance_after: "1.00".to_owned(),
        position,
    }
}

fn micros(at: &str) -> i64 {
    at.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

/// Runs the whole suite. `open` opens the same read model again each time it is called.
pub(crate) fn read_model_contract(open: &dyn Fn() -> Box<dyn ReadModel>) {
    let model = open();
    assert_eq!(model.position().unwrap(), 0);
    assert_eq!(model.wallet("w-a").unwrap(), None);
    documents_move_only_forward(model.as_ref());
    transactions_are_inserted_once(model.as_ref());
    pages_are_filtered_and_counted(model.as_ref());
    answers_are_in_the_order_of_the_changes(model.as_ref());
    assert_eq!(model.swept().unwrap(), 0);
    model.set_swept(7).unwrap();
    drop(model);
    let model = open();
    assert_eq!(model.swept().unwrap(), 7);
    assert_eq!(
        model.wallet_of_user("a").unwrap().unwrap().balance,
        "3.00",
        "it survives"
    );
    let again = transaction("t2", "DEBIT", "2026-11-15T12:00:00.5Z", 6);
    assert_eq!(
        model.apply(&[Change::Transaction(again)]).unwrap(),
        [Applied::Known]
    );
    two_of_one_database_see_each_other(model.as_ref(), open().as_ref());
    model.clear().unwrap();
    assert_eq!((model.position().unwrap(), model.swept().unwrap()), (0, 0));
    assert_eq!(model.wallet_of_user("a").unwrap(), None);
    assert_eq!(
        model.apply(&[Change::Wallet(wallet("a", "1.00", 1))]).unwrap(),
        [Applied::Stored]
    );
}

fn documents_move_only_forward(model: &dyn ReadModel) {
    let rows = [
        (wallet("a", "2.00", 5), Applied::Stored, "2.00"),
        (wallet("a", "1.00", 4), Applied::Known, "2.00"),
        (wallet("a", "2.00", 5), Applied::Known, "2.00"),
        (wallet("a", "9.00", 5), Applied::OtherContent, "2.00"),
        (wallet("a", "3.00", 9), Applied::Stored, "3.00"),
    ];
    for (document, applied, balance) in rows {
        assert_eq!(
            model.apply(&[Change::Wallet(document.clone())]).unwrap(),
            [applied],
            "{document:?}"
        );
        assert_eq!(model.wallet("w-a").unwrap().unwrap().balance, balance);
    }
    assert_eq!(model.position().unwrap(), 9);
    // In one commit: each change sees the one before it.
    let two = [
        Change::Wallet(wallet("b", "1.00", 11)),
        Change::Wallet(wallet("b", "2.00", 10)),
    ];
    assert_eq!(model.apply(&two).unwrap(), [Applied::Stored, Applied::Known]);
    assert_eq!(model.wallet_of_user("b").unwrap().unwrap().balance, "1.00");
}

fn transactions_are_inserted_once(model: &dyn ReadModel) {
    let first = transaction("t1", "CREDIT", "2026-11-01T00:00:00Z", 2);
    let other = TransactionCreated {
        amount: "2.00".to_owned(),
        ..first.clone()
    };
    let changes = [&first, &first, &other].map(|t| Change::Transaction(t.clone()));
    assert_eq!(
        model.apply(&changes).unwrap(),
        [Applied::Stored, Applied::Known, Applied::OtherContent]
    );
    let more = [
        transaction("t3", "DEBIT", "2026-11-30T23:59:59.9Z", 7),
        transaction("t2", "DEBIT", "2026-11-15T12:00:00.5Z", 6),
    ];
    model.apply(&more.map(Change::Transaction)).unwrap();
}

fn pages_are_filtered_and_counted(model: &dyn ReadModel) {
    let all = Filter {
        page: 1,
        limit: 10,
        ..Filter::default()
    };
    let of = |filter: &Filter| {
        let page = model.transactions("w-a", filter).unwrap();
        let ids: Vec<String> = page.transactions.iter().map(|t| t.txn_id.clone()).collect();
        (ids.join(" "), page.total)
    };
    assert_eq!(
        of(&all),
        ("t3 t2 t1".to_owned(), 3),
        "newest first, however they arrived"
    );
    let second = Filter {
        page: 2,
        limit: 2,
        ..all.clone()
    };
    assert_eq!(of(&second), ("t1".to_owned(), 3));
    let debits = Filter {
        r#type: Some("DEBIT".to_owned()),
        ..all.clone()
    };
    assert_eq!(of(&debits), ("t3 t2".to_owned(), 2));
    let failed = Filter {
        status: Some("FAILED".to_owned()),
        ..all.clone()
    };
    assert_eq!(of(&failed), (String::new(), 0));
    let middle = Filter {
        from_micros: Some(micros("2026-11-15T12:00:00.5Z")),
        until_micros: Some(micros("2026-11-30T23:59:59.9Z")),
        ..all.clone()
    };
    assert_eq!(of(&middle), ("t2".to_owned(), 1), "from is in, until is out");
    assert_eq!(model.transactions("w-none", &all).unwrap().total, 0);
}

fn answers_are_in_the_order_of_the_changes(model: &dyn ReadModel) {
    let of = |id: &str, position| {
        let mut made = transaction(id, "CREDIT", "2026-11-21T10:00:00Z", position);
        made.wallet_id = "w-c".to_owned();
        Change::Transaction(made)
    };
    let changes = [
        Change::Wallet(wallet("c", "1.00", 20)),
        of("t20", 20),
        Change::Wallet(wallet("c", "2.00", 21)),
        Change::Wallet(wallet("c", "2.00", 21)),
        of("t20", 20),
        Change::Wallet(wallet("c", "9.00", 21)),
        of("t20", 21),
        Change::Wallet(wallet("d", "1.00", 19)),
    ];
    use Applied::{Known, OtherContent, Stored};
    assert_eq!(
        model.apply(&changes).unwrap(),
        [
            Stored,
            Stored,
            Stored,
            Known,
            Known,
            OtherContent,
            OtherContent,
            Stored
        ]
    );
    assert_eq!(model.wallet("w-c").unwrap(), Some(wallet("c", "2.00", 21)));
    assert_eq!(model.position().unwrap(), 21);
    assert_eq!(model.apply(&[]).unwrap(), []);
}

fn two_of_one_database_see_each_other(one: &dyn ReadModel, other: &dyn ReadModel) {
    let at = |position| [Change::Wallet(wallet("e", &format!("{position}.00"), position))];
    assert_eq!(one.apply(&at(31)).unwrap(), [Applied::Stored]);
    assert_eq!(other.apply(&at(30)).unwrap(), [Applied::Known]);
    assert_eq!(other.apply(&at(31)).unwrap(), [Applied::Known]);
    assert_eq!(other.apply(&at(32)).unwrap(), [Applied::Stored]);
    assert_eq!(one.wallet_of_user("e").unwrap().unwrap().position, 32);
}

/// Writers that apply one wallet's states in any order, each its own opening: the wallet is never seen going backwards, and ends at
/// the last. Both find a transaction stored once.
pub(crate) fn writers_racing(open: &dyn Fn() -> Box<dyn ReadModel>) {
    const STATES: u64 = 60;
    let writers = [open(), open(), open()];
    let reader = open();
    let ends = std::sync::atomic::AtomicUsize::new(0);
    let stored = std::thread::scope(|scope| {
        let writing: Vec<_> = writers
            .iter()
            .enumerate()
            .map(|(seed, model)| {
                let ends = &ends;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed as u64);
                    let mut positions: Vec<u64> = (1..=STATES).collect();
                    // Near their order, as deliveries are; each writer in another one.
                    positions.chunks_mut(8).for_each(|some| random.shuffle(some));
                    let mut stored = 0;
                    for position in positions {
                        let changes = [
                            Change::Wallet(wallet("r", &format!("{position}.00"), position)),
                            Change::Transaction(transaction(
                                &format!("r{position}"),
                                "CREDIT",
                                "2026-11-21T10:00:00Z",
                                position,
                            )),
                        ];
                        let applied = model.apply(&changes).unwrap();
                        assert!(!applied.contains(&Applied::OtherContent), "{applied:?}");
                        stored += usize::from(applied[1] == Applied::Stored);
                    }
                    ends.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    stored
                })
            })
            .collect();
        let mut seen = 0;
        while ends.load(std::sync::atomic::Ordering::SeqCst) < writing.len()
            && writing.iter().any(|w| !w.is_finished())
        {
            let now = reader.wallet("w-r").unwrap().map_or(0, |w| w.position);
            assert!(now >= seen, "the wallet went back from {seen} to {now}");
            seen = now;
        }
        writing
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum::<usize>()
    });
    assert_eq!(
        reader.wallet("w-r").unwrap(),
        Some(wallet("r", &format!("{STATES}.00"), STATES))
    );
    assert_eq!(
        stored as u64, STATES,
        "each transaction is stored by exactly one writer"
    );
}

#[test]
fn sqlite_writers_racing_on_one_wallet_never_move_it_backwards() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("read-model.db");
    writers_racing(&|| Box::new(SqliteReadModel::open(&path).unwrap()));
}

#[test]
fn sqlite_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("read-model.db");
    read_model_contract(&|| Box::new(SqliteReadModel::open(&path).unwrap()));
}
