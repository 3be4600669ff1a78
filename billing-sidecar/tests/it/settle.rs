//! Settling step by step, with ports that fail after having done what was asked: a crash at each point.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use weir_billing::{
    adapters::{SqliteItems, WalletGrpc},
    flow::{hub::Hub, meters::Meters, settler::Settler},
    ports::{
        PortError,
        billing_store::BillingStore,
        items::{FinancialItem, Items},
        wallet_client::WalletClient,
    },
};
use weir_contracts::{ids::AccountId, money::Amount};

use crate::{
    contract::billing_store::{NOW, batch},
    fake_wallet::{FakeWallet, Fault},
    rating::store,
    world::{Journal, TOKEN, record},
};

/// Writes the item, then fails: as a process that dies before it hears that the item is there.
struct Dying {
    items: SqliteItems,
    deaths: AtomicU32,
}

#[async_trait]
impl Items for Dying {
    async fn write(&self, item: &FinancialItem) -> Result<(), PortError> {
        self.items.write(item).await?;
        let dies = self
            .deaths
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match dies {
            Ok(_) => Err(PortError::Unavailable("the items", "scripted".into())),
            Err(_) => Ok(()),
        }
    }

    async fn amounts_after(&self, after: &str, limit: usize) -> Result<Vec<(String, Amount)>, PortError> {
        self.items.amounts_after(after, limit).await
    }
}

#[tokio::test]
async fn a_crash_after_each_step_repeats_it_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let served = FakeWallet::new().serve(None).await;
    let config = weir_billing::Config {
        token: TOKEN.into(),
        wallet_url: format!("http://{}", served.addr),
        ..Default::default()
    };
    let account: AccountId = "demo".parse().unwrap();
    let wallet = Arc::new(WalletGrpc::new(&config).unwrap());
    let credit = "5.00".parse().unwrap();
    let user = uuid::Uuid::from_u128(7);
    let made = wallet
        .create("k", user, "USD".parse().unwrap(), credit)
        .await
        .unwrap();
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    journal.usage(record(Some(lease), 1, 100));
    journal.close(lease);
    store(dir.path())
        .await
        .set_wallet(&account, &made.wallet_id)
        .await
        .unwrap();
    store(dir.path())
        .await
        .rate(batch(None, &journal.entries), NOW)
        .await
        .unwrap();
    served.wallet.script("capture", [Fault::LostReply]);
    served.wallet.script("release", [Fault::LostReply]);
    let items = Arc::new(Dying {
        items: SqliteItems::open(&dir.path().join("items.db")).unwrap(),
        deaths: AtomicU32::new(1),
    });
    // Each pass is a new life of the process: capture lost; item lost; release lost; done.
    for dies in [true, true, true, false] {
        let store = Arc::new(store(dir.path()).await);
        let settler = Settler {
            store: store.clone(),
            wallet: wallet.clone(),
            items: items.clone(),
            hub: Arc::new(Hub::default()),
            meters: Arc::new(Meters::default()),
            charged: Arc::default(),
        };
        let (_, ended) = settler.pass(&account).await;
        assert_eq!(ended.is_err(), dies, "{ended:?}");
        assert_eq!(store.accounts_with_work(10).await.unwrap().is_empty(), !dies);
    }
    assert_eq!(served.wallet.captured(), 1_000_000);
    assert_eq!(served.wallet.open_holds(), 0);
    let written = items.amounts_after("", 10).await.unwrap();
    assert_eq!(
        written,
        [(journal.entries[0].id.to_string(), Amount::from_nanos(1_000_000))]
    );
}

#[tokio::test]
async fn an_item_is_written_once_and_never_with_other_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("items.db");
    let item = FinancialItem {
        id: "p.1.1".into(),
        account: "demo".parse().unwrap(),
        lease: None,
        tariff: "t@1".into(),
        amount: Amount::from_nanos(5),
        currency: "USD".parse().unwrap(),
        requests: 1,
        rows: 1,
        bytes_out: 1,
        txn_id: "t".into(),
        rated_at: NOW.into(),
    };
    SqliteItems::open(&path).unwrap().write(&item).await.unwrap();
    let reopened = SqliteItems::open(&path).unwrap();
    reopened.write(&item).await.unwrap();
    let other = FinancialItem {
        amount: Amount::from_nanos(6),
        ..item
    };
    assert!(matches!(
        reopened.write(&other).await,
        Err(PortError::OtherContent(..))
    ));
}
