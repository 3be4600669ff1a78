//! Promises about what operators and proxies say of themselves: accounts, logins, tariffs, starts.

use weir_billing::{
    domain::proxies::{KnownStart, Registration, StartRefused},
    domain::tariffs::PricedTariff,
    ports::billing_store::{RateOutcome, Stored},
};
use weir_contracts::{
    entry::EntryBody,
    money::{Amount, Currency, MAX_NANOS},
    tariff::Tariff,
};

use super::{Home, NOW, account, batch, furnished, prices};
use crate::world::{Journal, proxy, record};

pub(crate) async fn an_account_is_added_once_and_its_login_means_nobody_else(home: &dyn Home) {
    let store = home.open().await;
    let mut rich = account("rich");
    rich.login = "Ｒｉｃｈ".into();
    rich.initial_credit = Amount::from_nanos(MAX_NANOS);
    rich.row_credit_bytes = u64::try_from(i64::MAX).unwrap();
    rich.currency = Currency::INR;
    assert_eq!(
        store.add_account(rich.clone()).await.unwrap(),
        Stored::New(rich.clone())
    );
    store.set_wallet(&rich.id, "w-1").await.unwrap();
    // Asked again, after a restart: as it is by now, wallet and all.
    let store = home.open().await;
    let with_wallet = weir_billing::domain::accounts::Account {
        wallet_id: Some("w-1".into()),
        ..rich.clone()
    };
    assert_eq!(
        store.add_account(rich.clone()).await.unwrap(),
        Stored::Same(with_wallet.clone())
    );
    let mut other = rich.clone();
    other.initial_credit = Amount::from_nanos(MAX_NANOS - 1);
    let there = "account rich exists with other terms".to_owned();
    assert_eq!(store.add_account(other).await.unwrap(), Stored::Other(there));
    let mut taken = account("a.thief");
    taken.login = "RICH  ".into();
    let means = "login `RICH  ` means account rich".to_owned();
    assert_eq!(
        store.add_account(taken.clone()).await.unwrap(),
        Stored::Other(means)
    );
    assert_eq!(store.account(&taken.id).await.unwrap(), None);
    assert_eq!(
        store.account_by_login("rich").await.unwrap(),
        Some(with_wallet.clone())
    );
    assert_eq!(store.account_by_login("Rich").await.unwrap(), None);
    // By name, as bytes are ordered: no language's order.
    for name in ["b_1", "b-1", "b.1", "a", "b1"] {
        store.add_account(account(name)).await.unwrap();
    }
    let all = store.accounts().await.unwrap();
    let names: Vec<_> = all.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(names, ["a", "b-1", "b.1", "b1", "b_1", "rich"]);
    assert_eq!(all[5], with_wallet);
}

pub(crate) async fn a_tariff_version_never_changes(home: &dyn Home) {
    let store = home.open().await;
    let dearest = PricedTariff {
        tariff: Tariff {
            version: "dear@1".into(),
            per_request_nanos: i64::MAX,
            per_row_nanos: 1,
            per_kib_out_nanos: i64::MAX - 1,
            per_kib_in_nanos: 0,
            per_bulk_row_nanos: 7,
            per_server_second_nanos: i64::MAX,
        },
        currency: Currency::EUR,
    };
    assert_eq!(
        store.add_tariff(dearest.clone()).await.unwrap(),
        Stored::New(dearest.clone())
    );
    let store = home.open().await;
    assert_eq!(
        store.add_tariff(dearest.clone()).await.unwrap(),
        Stored::Same(dearest.clone())
    );
    let mut other = dearest.clone();
    other.tariff.per_row_nanos = 2;
    let named = "tariff dear@1 exists with other prices: a version never changes, name a new one".to_owned();
    assert_eq!(
        store.add_tariff(other.clone()).await.unwrap(),
        Stored::Other(named.clone())
    );
    other = dearest.clone();
    other.currency = Currency::USD;
    assert_eq!(store.add_tariff(other).await.unwrap(), Stored::Other(named));
    store.add_tariff(prices().tariff("_@1").unwrap()).await.unwrap();
    store.add_tariff(prices().tariff("d@1").unwrap()).await.unwrap();
    let versions = store.tariffs().await.unwrap();
    let names: Vec<_> = versions.iter().map(|t| t.tariff.version.as_str()).collect();
    assert_eq!(names, ["_@1", "d@1", "dear@1"]);
    assert_eq!(versions[2], dearest);
    assert_eq!(store.prices("dear@1").await.unwrap(), Some(dearest.tariff));
    assert_eq!(store.tariff("dear@2").await.unwrap(), None);
}

fn start(epoch: u64, nonce: &str, previous: &str) -> Registration {
    Registration {
        proxy: proxy(1),
        epoch,
        boot_nonce: nonce.into(),
        previous_boot_nonce: previous.into(),
    }
}

pub(crate) async fn a_start_is_believed_once_and_a_copy_is_refused(home: &dyn Home) {
    for (start, verdict) in [
        (start(3, "c", "b"), Ok(())),
        (start(3, "c", "b"), Ok(())),
        (start(3, "x", "b"), Err(StartRefused::Copied)),
        (start(4, "d", "c"), Ok(())),
        (start(4, "y", "c"), Err(StartRefused::Copied)),
        (start(5, "z", "y"), Err(StartRefused::Copied)),
        (start(3, "c", "b"), Err(StartRefused::Stale { got: 3, known: 4 })),
        (start(9, "i", "h"), Ok(())),
    ] {
        let store = home.open().await;
        assert_eq!(store.register(start.clone()).await.unwrap(), verdict, "{start:?}");
    }
    let store = home.open().await;
    let known = KnownStart {
        epoch: 9,
        boot_nonce: "i".into(),
    };
    assert_eq!(store.known_start(proxy(1)).await.unwrap(), Some(known));
    assert_eq!(store.known_start(proxy(2)).await.unwrap(), None);
}

pub(crate) async fn of_copies_that_start_at_once_one_is_believed(home: &dyn Home) {
    let store = home.open().await;
    let mut before = String::new();
    for epoch in 1..=6 {
        let mut starting = Vec::new();
        for copy in 0..6 {
            let store = home.open().await;
            let start = start(epoch, &format!("copy {copy} of {epoch}"), &before);
            starting.push(tokio::spawn(async move {
                let verdict = store.register(start.clone()).await.unwrap();
                (start.boot_nonce, verdict)
            }));
        }
        let mut believed = Vec::new();
        for one in starting {
            match one.await.unwrap() {
                (nonce, Ok(())) => believed.push(nonce),
                (_, Err(refused)) => assert_eq!(refused, StartRefused::Copied),
            }
        }
        let known = store.known_start(proxy(1)).await.unwrap().unwrap();
        assert_eq!(believed, std::slice::from_ref(&known.boot_nonce));
        before = known.boot_nonce;
    }
}

pub(crate) async fn of_accounts_added_at_once_one_is_new(home: &dyn Home) {
    for round in 0..5 {
        let mut adding = Vec::new();
        for n in 0..6 {
            let store = home.open().await;
            // Two names, one login.
            let mut new = account(&format!("a{round}.{}", n % 2));
            new.login = format!("login {round}");
            adding.push(tokio::spawn(async move { store.add_account(new).await.unwrap() }));
        }
        let (mut new, mut same, mut other) = (0, 0, 0);
        for one in adding {
            match one.await.unwrap() {
                Stored::New(_) => new += 1,
                Stored::Same(_) => same += 1,
                Stored::Other(_) => other += 1,
            }
        }
        assert_eq!((new, same, other), (1, 2, 3));
    }
}

pub(crate) async fn texts_that_a_database_may_choke_on_come_back(home: &dyn Home) {
    let store = furnished(home).await;
    let odd = "'; DROP TABLE accounts; -- \\ \" % \u{1F600} \u{10FFFF} \u{2028} \r\n\t";
    let mut named = account("odd");
    named.login = odd.into();
    store.add_account(named.clone()).await.unwrap();
    assert_eq!(store.account(&named.id).await.unwrap().unwrap().login, odd);
    let mut journal = Journal::new(1);
    let mut with_nul = record(None, 1, 3);
    with_nul.principal = format!("\0{odd}\0");
    journal.usage(with_nul.clone());
    assert!(super::was_rated(
        &store.rate(batch(None, &journal.entries), NOW).await.unwrap()
    ));
    let shown = store.usage(&with_nul.account, None, 9).await.unwrap();
    assert_eq!(shown[0].principal, with_nul.principal);
    // A name that no store can know.
    with_nul.tariff = "t@1\0".into();
    let entry = journal.usage(with_nul);
    let outcome = store
        .rate(batch(Some(super::place(1, 1)), std::slice::from_ref(&entry)), NOW)
        .await
        .unwrap();
    assert!(matches!(outcome, RateOutcome::Blocked(_)), "{outcome:?}");
    assert!(matches!(entry.body, EntryBody::Usage(_)));
    assert_eq!(store.account_by_login("demo\0").await.unwrap(), None);
    assert_eq!(store.tariff("t@1\0").await.unwrap(), None);
    assert_eq!(store.register(start(1, "a\0b", "")).await.unwrap(), Ok(()));
    assert_eq!(store.register(start(1, "a\0b", "")).await.unwrap(), Ok(()));
    assert_eq!(store.register(start(2, "c", "a\0b")).await.unwrap(), Ok(()));
    let charge = journal.entries[0].id.to_string();
    store.set_failed(&charge, "the wallet said \0").await.unwrap();
    store.set_captured("no such\0", "t").await.unwrap();
    assert_eq!(store.charges_open().await.unwrap().failed, 1);
    for after in [
        "",
        "x",
        "a.b.c",
        "..",
        "\0",
        &format!("{charge}.1"),
        "00000000000000000000000000000001.1.99",
    ] {
        let page = store
            .usage(&"demo".parse().unwrap(), Some(after), 9)
            .await
            .unwrap();
        assert_eq!(page, [], "{after:?}");
    }
}
