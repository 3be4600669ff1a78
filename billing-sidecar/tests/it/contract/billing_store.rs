//! What every billing store promises. `billing_store_contract!` makes one test of each promise for one kind of store.

mod leases;
mod people;
mod races;
mod rating;
mod settling;
mod shown;

use std::sync::Arc;

use async_trait::async_trait;
use weir_billing::{
    adapters::SqliteStore,
    domain::{
        accounts::{Account, Cut, Mode},
        rating::Batch,
        tariffs::Prices,
    },
    ports::billing_store::{BillingStore, RateOutcome},
};
use weir_contracts::{
    entry::Entry,
    event::{Place, UsageBatch},
    money::{Amount, Currency},
};

pub(crate) use self::{leases::*, people::*, races::*, rating::*, settling::*, shown::*};

/// When everything here is rated.
pub(crate) const NOW: &str = "2026-01-01T00:00:00Z";

/// Where a store keeps its things: opened as often as one likes, one after the other or at once.
#[async_trait]
pub(crate) trait Home: Send + Sync {
    async fn open(&self) -> Arc<dyn BillingStore>;
}

/// A file that is removed at the end.
pub(crate) struct InFile(tempfile::TempDir);

impl InFile {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl Home for InFile {
    async fn open(&self) -> Arc<dyn BillingStore> {
        Arc::new(SqliteStore::open(&self.0.path().join("billing.db")).unwrap())
    }
}

/// An account of that name, with no wallet yet.
pub(crate) fn account(name: &str) -> Account {
    Account {
        id: name.parse().unwrap(),
        login: name.into(),
        currency: Currency::USD,
        mode: Mode::Enforce,
        cut: Cut::Row,
        tariff: "t@1".into(),
        row_credit_bytes: 0,
        initial_credit: Amount::ZERO,
        wallet_id: None,
    }
}

/// Prices of 0.00001 a row.
pub(crate) fn prices() -> Prices {
    serde_json::from_str(r#"{"currency":"USD","per_row":"0.00001"}"#).unwrap()
}

/// With tariff `t@1` and account `demo`.
pub(crate) async fn furnish(store: &dyn BillingStore) {
    store.add_tariff(prices().tariff("t@1").unwrap()).await.unwrap();
    store.add_account(account("demo")).await.unwrap();
}

/// An opened store, furnished.
pub(crate) async fn furnished(home: &dyn Home) -> Arc<dyn BillingStore> {
    let store = home.open().await;
    furnish(&*store).await;
    store
}

pub(crate) fn batch(after: Option<Place>, entries: &[Entry]) -> Arc<Batch> {
    let entries = entries.to_vec();
    Arc::new(UsageBatch { after, entries }.try_into().unwrap())
}

pub(crate) fn place(epoch: u64, sequence: u64) -> Place {
    Place { epoch, sequence }
}

pub(crate) fn was_rated(outcome: &RateOutcome) -> bool {
    matches!(outcome, RateOutcome::Rated { .. })
}

/// One test of each promise, over the homes that `$home().await` makes.
macro_rules! billing_store_contract {
    ($home:path) => {
        $crate::contract::billing_store::promises!($home:
            an_account_is_added_once_and_its_login_means_nobody_else,
            a_tariff_version_never_changes,
            a_start_is_believed_once_and_a_copy_is_refused,
            of_copies_that_start_at_once_one_is_believed,
            of_accounts_added_at_once_one_is_new,
            texts_that_a_database_may_choke_on_come_back,
            a_grant_never_goes_down,
            a_lease_settles_only_when_it_is_closing,
            a_lease_opened_while_its_first_batch_is_rated_keeps_both,
            a_batch_is_rated_once_however_it_is_cut_and_repeated,
            a_gap_blocks_and_moves_nothing,
            the_missing_end_of_an_epoch_blocks_the_next_epoch,
            the_same_id_with_other_content_is_rejected,
            an_unknown_tariff_or_account_blocks_until_it_is_added,
            free_usage_is_counted_and_not_charged_and_closes_its_lease,
            a_closing_that_differs_blocks_its_lease,
            the_largest_costs_are_kept_exactly,
            the_longest_batch_is_rated_and_shown,
            the_same_batch_from_several_tasks_is_booked_once,
            batches_cut_differently_at_once_are_booked_once,
            numbers_become_visible_in_order_and_without_a_gap,
            one_lease_named_by_several_proxies_at_once_counts_them_all,
            a_pending_charge_tells_all_that_its_capture_needs,
            charges_go_forward_only,
            a_hold_is_released_after_its_last_capture,
            a_failed_charge_keeps_its_hold,
            work_is_handed_out_in_order_and_bounded,
            parts_of_a_request_add_up_and_pages_join,
            a_request_of_very_many_parts_is_one_request,
            totals_and_booked_charges_agree,
            book_facts_name_mistakes_and_wallets,
        );
    };
}
pub(crate) use billing_store_contract;

macro_rules! promises {
    ($home:path: $($promise:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            let home = $home().await;
            $crate::contract::billing_store::$promise(&home).await;
        }
    )*};
}
pub(crate) use promises;

mod sqlite {
    async fn file() -> super::InFile {
        super::InFile::new()
    }

    super::billing_store_contract!(file);
}
