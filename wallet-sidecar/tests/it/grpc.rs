//! The gRPC face: the life of a prepaid wallet, keys, refusals, watches, lists and the trial balance.

use tonic::Code;
use weir_contracts::proto::wallet as proto;

use crate::world::{World, amounts, capture, create, hold, movement, release};

#[tokio::test]
async fn a_prepaid_wallet_is_held_captured_and_released_to_the_last_digit() {
    let mut world = World::start().await;
    let mut client = world.client().await;
    let wallet = create(&mut client, "demo", "5.00").await;
    assert_eq!(amounts(&wallet), ("5.00", "0.00", "5.00", "0.00"));

    let reply = client
        .place_hold(hold(&wallet, "p.1.1", "2"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reply.held_total, "2.00");
    assert_eq!(amounts(&reply.wallet.unwrap()), ("5.00", "2.00", "3.00", "0.00"));

    // Only what is available is granted; nothing available is a grant of nothing more.
    let reply = client
        .place_hold(hold(&wallet, "p.1.1", "9"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reply.held_total, "5.00");
    let reply = client
        .place_hold(hold(&wallet, "p.1.2", "1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reply.held_total, "0.00");

    let reply = client
        .capture(capture(&wallet, "charge-1", "p.1.1", "1.5"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(amounts(&reply.wallet.unwrap()), ("3.50", "3.50", "0.00", "0.00"));
    // The row in hand: beyond hold and balance it is owed.
    let reply = client
        .capture(capture(&wallet, "charge-2", "p.1.1", "3.75"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(amounts(&reply.wallet.unwrap()), ("0.00", "0.00", "0.00", "0.25"));
    client.release_hold(release(&wallet, "p.1.1")).await.unwrap();
    let late = client.place_hold(hold(&wallet, "p.1.1", "9")).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert_eq!(late.metadata().get("weir-code").unwrap(), "HOLD_RELEASED");

    let reply = client
        .top_up(movement(&wallet, "top-1", "1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(amounts(&reply.wallet.unwrap()), ("0.75", "0.00", "0.75", "0.00"));

    world.restart().await;
    let mut client = world.client().await;
    let again = client
        .get_wallet(proto::GetWalletRequest {
            wallet_id: wallet.wallet_id.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(amounts(&again), ("0.75", "0.00", "0.75", "0.00"));
    let late = client.place_hold(hold(&wallet, "p.1.1", "9")).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    world.stop().await;
}

#[tokio::test]
async fn keys_refusals_and_tokens_have_their_codes() {
    let world = World::start().await;
    let mut client = world.client().await;
    let wallet = create(&mut client, "demo", "5").await;
    assert_eq!(
        create(&mut client, "demo", "5").await,
        wallet,
        "the same key answers the same"
    );
    let mut other = proto::CreateWalletRequest {
        key: "create-demo".to_owned(),
        user_id: "demo".to_owned(),
        currency: "EUR".to_owned(),
        initial_balance: "5".to_owned(),
    };
    let status = client.create_wallet(other.clone()).await.unwrap_err();
    assert_eq!(
        (status.code(), name(&status)),
        (Code::AlreadyExists, "KEY_REUSED")
    );
    other.key = "another".to_owned();
    let status = client.create_wallet(other).await.unwrap_err();
    assert_eq!(
        (status.code(), name(&status)),
        (Code::AlreadyExists, "WALLET_EXISTS")
    );
    let status = client.withdraw(movement(&wallet, "w", "6")).await.unwrap_err();
    assert_eq!(
        (status.code(), name(&status)),
        (Code::FailedPrecondition, "INSUFFICIENT_FUNDS")
    );
    let status = client.top_up(movement(&wallet, "t", "1e3")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = client.top_up(movement(&wallet, "", "1")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let nobody = proto::GetWalletRequest {
        wallet_id: "00000000-0000-0000-0000-000000000000".to_owned(),
    };
    assert_eq!(
        client.get_wallet(nobody).await.unwrap_err().code(),
        Code::NotFound
    );
    let freeze = proto::SetStatusRequest {
        key: "f".to_owned(),
        wallet_id: wallet.wallet_id.clone(),
        status: "FROZEN".to_owned(),
        reason: "test".to_owned(),
    };
    let frozen = client.set_status(freeze).await.unwrap().into_inner();
    assert_eq!(frozen.status, "FROZEN");
    let status = client.place_hold(hold(&wallet, "h", "1")).await.unwrap_err();
    assert_eq!(
        (status.code(), name(&status)),
        (Code::FailedPrecondition, "WALLET_FROZEN")
    );
    client.capture(capture(&wallet, "late", "h", "1")).await.unwrap();
    let mut stranger = world.client_with("another-token-000000").await;
    let status = stranger
        .trial_balance(proto::TrialBalanceRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    world.stop().await;
}

fn name(status: &tonic::Status) -> &str {
    status.metadata().get("weir-code").unwrap().to_str().unwrap()
}

async fn next(stream: &mut tonic::Streaming<proto::Wallet>) -> Result<Option<proto::Wallet>, tonic::Status> {
    tokio::time::timeout(std::time::Duration::from_secs(10), stream.message())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_watch_shows_the_states_now_and_then_each_change_in_order_until_the_service_stops() {
    let world = World::start().await;
    let mut client = world.client().await;
    let (a, b) = (
        create(&mut client, "a", "1").await,
        create(&mut client, "b", "2").await,
    );
    let watch = |ids: Vec<String>| proto::WatchRequest { wallet_ids: ids };
    let mut all = client.watch(watch(vec![])).await.unwrap().into_inner();
    let mut only_b = client
        .watch(watch(vec![b.wallet_id.clone()]))
        .await
        .unwrap()
        .into_inner();
    let mut seen = [
        next(&mut all).await.unwrap().unwrap(),
        next(&mut all).await.unwrap().unwrap(),
    ];
    seen.sort_by(|x, y| x.user_id.cmp(&y.user_id));
    assert_eq!(seen, [a.clone(), b.clone()]);
    assert_eq!(next(&mut only_b).await.unwrap().unwrap(), b);
    client.top_up(movement(&a, "1", "1")).await.unwrap();
    client.place_hold(hold(&b, "h", "1")).await.unwrap();
    client.top_up(movement(&a, "2", "1")).await.unwrap();
    let mut positions = Vec::new();
    for (user, available) in [("a", "2.00"), ("b", "1.00"), ("a", "3.00")] {
        let change = next(&mut all).await.unwrap().unwrap();
        assert_eq!(
            (change.user_id.as_str(), change.available.as_str()),
            (user, available)
        );
        positions.push(change.position);
    }
    assert!(positions.is_sorted());
    assert_eq!(next(&mut only_b).await.unwrap().unwrap().held, "1.00");
    world.stop().await;
    assert_eq!(next(&mut all).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn transactions_and_trial_balance_add_up() {
    let world = World::start().await;
    let mut client = world.client().await;
    let (a, b) = (
        create(&mut client, "a", "5").await,
        create(&mut client, "b", "1").await,
    );
    client.place_hold(hold(&a, "h", "3")).await.unwrap();
    let paid = client
        .capture(capture(&a, "charge-1", "h", "2.5"))
        .await
        .unwrap()
        .into_inner();
    client.withdraw(movement(&b, "w", "0.4")).await.unwrap();
    let list = |wallet: &str, after, limit| proto::ListTransactionsRequest {
        wallet_id: wallet.to_owned(),
        after_position: after,
        limit,
    };
    let found = client
        .list_transactions(list("", 0, 1000))
        .await
        .unwrap()
        .into_inner()
        .transactions;
    let amounts: Vec<_> = found.iter().map(|t| t.amount.as_str()).collect();
    assert_eq!(amounts, ["5.00", "1.00", "-2.50", "-0.40"]);
    assert_eq!(
        (found[2].reference_id.as_str(), found[2].reference_type.as_str()),
        ("charge-1", "charge")
    );
    assert_eq!(found[2].txn_id, paid.txn_id);
    let rest = client
        .list_transactions(list(&a.wallet_id, found[0].position, 1))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(rest.transactions, found[2..3]);
    assert_eq!(
        client.list_transactions(list("", 0, 0)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    for _ in 0..2 {
        let balance = client
            .trial_balance(proto::TrialBalanceRequest {})
            .await
            .unwrap()
            .into_inner();
        let totals: Vec<_> = balance
            .accounts
            .iter()
            .map(|a| (a.ledger_account.as_str(), a.total.as_str()))
            .collect();
        assert_eq!(
            totals,
            [
                ("wallet", "-2.60"),
                ("held", "-0.50"),
                ("revenue", "-2.50"),
                ("cash", "5.60")
            ]
        );
    }
    world.stop().await;
}
