//! The gate's gRPC: starts, logins, leases, notices.

use std::time::Duration;

use serde_json::json;
use tonic::Code;
use weir_contracts::proto::billing::{
    self as proto, DenialReason, notice::What, resolve_tenant_reply::Outcome,
};

use crate::{
    fake_wallet::Fault,
    world::{Gate, Journal, PATIENCE, World, signed},
};

async fn register(gate: &mut Gate, epoch: u64, nonce: &str, previous: &str) -> Result<(), tonic::Status> {
    let message = proto::RegisterRequest {
        proxy: Journal::new(1).proxy.to_string(),
        epoch,
        boot_nonce: nonce.into(),
        previous_boot_nonce: previous.into(),
    };
    gate.0.register(signed(message)).await.map(|_| ())
}

#[tokio::test]
async fn a_copied_journal_directory_is_noticed() {
    let world = World::demo().await;
    let mut gate = world.gate().await;
    register(&mut gate, 1, "a", "").await.unwrap();
    register(&mut gate, 1, "a", "").await.unwrap();
    register(&mut gate, 2, "b", "a").await.unwrap();
    let copied = register(&mut gate, 2, "c", "a").await.unwrap_err();
    assert_eq!(copied.code(), Code::FailedPrecondition);
    assert!(copied.message().contains("copy"), "{}", copied.message());
    let old = register(&mut gate, 1, "a", "").await.unwrap_err();
    assert_eq!(old.code(), Code::FailedPrecondition);
    // A start that never reached billing leaves a hole, which is believed.
    register(&mut gate, 4, "d", "unseen").await.unwrap();
}

#[tokio::test]
async fn only_the_start_that_is_registered_is_lent_to() {
    let world = World::demo().await;
    let mut gate = world.gate().await;
    let mut journal = Journal::new(1);
    let first = journal.lease(1);
    let stranger = gate.ask(first, 0, 1_000_000).await.unwrap_err();
    assert_eq!(stranger.code(), Code::FailedPrecondition);
    assert!(
        stranger.message().contains("register it"),
        "{}",
        stranger.message()
    );
    gate.register(journal.proxy, 1).await.unwrap();
    gate.ask(first, 0, 1_000_000).await.unwrap();
    gate.register(journal.proxy, 2).await.unwrap();
    let over = gate.ask(first, 1_000_000, 1_000_000).await.unwrap_err();
    assert_eq!(over.code(), Code::FailedPrecondition);
    assert!(over.message().contains("is over"), "{}", over.message());
    journal.epoch = 2;
    gate.ask(journal.lease(1), 0, 1_000_000).await.unwrap();
}

#[tokio::test]
async fn calls_without_the_token_are_refused() {
    let world = World::demo().await;
    let mut gate = world.gate().await;
    let message = proto::WatchRequest::default();
    let refused = gate.0.watch(tonic::Request::new(message)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_login_is_resolved_in_its_canonical_form() {
    let world = World::demo().await;
    let mut gate = world.gate().await;
    for (login, known) in [
        ("demo", true),
        ("DEMO ", true),
        ("ｄｅｍｏ", true),
        ("demo2", false),
        ("demo\0", false),
    ] {
        let message = proto::ResolveTenantRequest {
            login: login.into(),
            ..Default::default()
        };
        let reply = gate.0.resolve_tenant(signed(message)).await.unwrap().into_inner();
        match reply.outcome.unwrap() {
            Outcome::Terms(terms) => {
                assert!(known, "{login:?}");
                assert_eq!(
                    (terms.account.as_str(), terms.mode()),
                    ("demo", proto::Mode::Enforce)
                );
                assert_eq!(terms.tariff.unwrap().per_row_nanos, 10_000);
            }
            Outcome::Unknown(_) => assert!(!known, "{login:?}"),
        }
    }
}

#[tokio::test]
async fn leases_are_granted_cumulatively_partly_and_once() {
    let world = World::demo().await;
    let mut gate = world.gate().await;
    let journal = Journal::new(1);
    let lease = journal.lease(1);
    assert_eq!(gate.granted(lease, 0, 3_000_000_000).await, 3_000_000_000);
    // The reply was lost: the same ask again answers the recorded total and holds nothing more.
    let before = world.wallet.wallet.calls("place_hold");
    assert_eq!(gate.granted(lease, 0, 3_000_000_000).await, 3_000_000_000);
    assert_eq!(world.wallet.wallet.calls("place_hold"), before);
    // More than there is: what there is.
    assert_eq!(
        gate.granted(lease, 3_000_000_000, 3_000_000_000).await,
        5_000_000_000
    );
    let denial = gate.denied(lease, 5_000_000_000, 10_000).await;
    assert_eq!(denial.reason(), DenialReason::CreditSpent);
    assert_eq!(
        (denial.balance.as_str(), denial.available.as_str()),
        ("5.00", "0.00")
    );
    // A top-up is lent at once.
    world
        .post(
            "/api/accounts/demo/top-up",
            json!({"amount": "1.00", "key": "k1"}),
        )
        .await;
    assert_eq!(gate.granted(lease, 5_000_000_000, 10_000).await, 5_000_010_000);
}

#[tokio::test]
async fn asks_at_one_time_never_lend_more_than_there_is() {
    let world = World::demo().await;
    let gate = world.gate().await;
    let journal = Journal::new(1);
    let asks = (1..=8).map(|number| {
        let (mut gate, lease) = (gate.clone(), journal.lease(number));
        tokio::spawn(async move { gate.lease(lease, 0, 1_000_000_000).await.unwrap() })
    });
    let mut lent = 0;
    for ask in asks.collect::<Vec<_>>() {
        if let proto::lease_reply::Outcome::Grant(grant) = ask.await.unwrap() {
            lent += grant.granted_total_nanos;
        }
    }
    assert_eq!(lent, 5_000_000_000);
}

#[tokio::test]
async fn a_frozen_wallet_and_an_unknown_account_are_denied_as_such() {
    let world = World::demo().await;
    let mut gate = world.gate().await;
    let lease = Journal::new(1).lease(1);
    world
        .put("/api/accounts/demo/status", json!({"status": "FROZEN"}))
        .await;
    assert_eq!(gate.denied(lease, 0, 10_000).await.reason(), DenialReason::Frozen);
    world
        .put("/api/accounts/demo/status", json!({"status": "ACTIVE"}))
        .await;
    assert_eq!(gate.granted(lease, 0, 10_000).await, 10_000);
    let message = proto::LeaseRequest {
        proxy: lease.proxy.to_string(),
        epoch: 1,
        account: "nobody".into(),
        lease_id: lease.to_string(),
        known_grant_nanos: 0,
        want_nanos: 1,
    };
    let reply = gate.0.lease(signed(message)).await.unwrap().into_inner();
    let Some(proto::lease_reply::Outcome::Denial(denial)) = reply.outcome else {
        panic!("{reply:?}");
    };
    assert_eq!(denial.reason(), DenialReason::UnknownAccount);
}

#[tokio::test]
async fn a_wallet_that_is_away_slow_or_loses_its_answer_never_makes_a_double_hold() {
    let world = World::demo().await;
    let mut gate = world.gate().await;
    let lease = Journal::new(1).lease(1);
    let wallet = &world.wallet.wallet;
    wallet.script(
        "place_hold",
        [Fault::Away, Fault::LostReply, Fault::Slow(Duration::from_secs(5))],
    );
    for _ in 0..3 {
        let status = gate.lease(lease, 0, 2_000_000_000).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    assert_eq!(gate.granted(lease, 0, 2_000_000_000).await, 2_000_000_000);
    let account = world.get("/api/accounts/demo").await;
    assert_eq!(account["held"], "2.00");
}

#[tokio::test]
async fn every_wallet_change_reaches_a_watching_proxy_and_a_new_stream_starts_with_everything() {
    let world = World::demo().await;
    let mut gate = world.gate().await;
    let mut notices = gate.watch(Journal::new(1).proxy, 1).await;
    let first = next_account(&mut notices).await;
    assert_eq!(
        (first.account.as_str(), first.available.as_str(), first.frozen),
        ("demo", "5.00", false)
    );
    world
        .put("/api/accounts/demo/status", json!({"status": "FROZEN"}))
        .await;
    while !next_account(&mut notices).await.frozen {}
    world
        .put("/api/accounts/demo/status", json!({"status": "ACTIVE"}))
        .await;
    while next_account(&mut notices).await.frozen {}
    world
        .post("/api/accounts/demo/top-up", json!({"amount": "2.00", "key": "k"}))
        .await;
    while next_account(&mut notices).await.available != "7.00" {}
    drop(notices);
    let mut again = gate.watch(Journal::new(1).proxy, 1).await;
    assert_eq!(next_account(&mut again).await.available, "7.00");
}

#[tokio::test]
async fn a_wallet_that_restarts_is_watched_again() {
    let mut world = World::demo().await;
    let mut gate = world.gate().await;
    let mut notices = gate.watch(Journal::new(1).proxy, 1).await;
    next_account(&mut notices).await;
    world.wallet.down();
    let at = world.wallet.addr;
    world.wallet = world.wallet.wallet.clone().serve(Some(at)).await;
    // A change that billing did not make itself.
    let url = format!("http://{at}");
    let mut direct = weir_contracts::proto::wallet::wallets_client::WalletsClient::connect(url)
        .await
        .unwrap();
    let wallet_id = world.get("/api/accounts").await[0]["wallet_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let message = weir_contracts::proto::wallet::MoveRequest {
        key: "elsewhere".into(),
        wallet_id,
        amount: "3.00".into(),
        ..Default::default()
    };
    direct.top_up(message).await.unwrap();
    while next_account(&mut notices).await.available != "8.00" {}
}

#[tokio::test]
async fn a_proxy_that_falls_behind_is_told_everything_anew() {
    let world = World::demo().await;
    let mut gate = world.gate().await;
    let mut notices = gate.watch(Journal::new(1).proxy, 1).await;
    next_account(&mut notices).await;
    // Nobody reads: the stream's window and the queue behind it fill up, and the rest is dropped.
    let last = world.wallet.wallet.announce(6_000);
    let mut heard = 0;
    while next_account(&mut notices).await.available != last {
        heard += 1;
    }
    assert!(
        heard < 6_000,
        "{heard}: nothing was dropped, so nothing was tested"
    );
}

async fn next_account(notices: &mut tonic::Streaming<proto::Notice>) -> proto::AccountState {
    loop {
        let notice = tokio::time::timeout(PATIENCE, notices.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if let Some(What::Account(state)) = notice.what {
            return state;
        }
    }
}
