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
