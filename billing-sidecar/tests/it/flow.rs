//! From the outbox to the financial items, and back to the gate: settling, closing, recalling, reconciling.

use std::sync::{Arc, atomic::AtomicU64};

use serde_json::json;
use weir_contracts::{
    entry::{EntryBody, LeaseClosed, Outcome},
    event::{CloudEvent, Place, USAGE_TOPIC, UsageBatch},
    proto::billing::DenialReason,
};

use crate::{
    fake_wallet::Fault,
    world::{Journal, World, record},
};

/// A lease of 2.00, 100 000 rows used in two requests, closed.
async fn used(world: &World, journal: &mut Journal) {
    let lease = journal.lease(1);
    world.gate().await.granted(lease, 0, 2_000_000_000).await;
    journal.usage(record(Some(lease), 1, 60_000));
    journal.usage(record(Some(lease), 2, 40_000));
    journal.close(lease);
    journal.ship(&world.outbox, 0).await;
}

#[tokio::test]
async fn usage_becomes_charges_captures_and_items_and_the_rest_is_released() {
    let world = World::demo().await;
    let mut journal = Journal::new(1);
    used(&world, &mut journal).await;
    let account = world
        .until("/api/accounts/demo", |a| a["available"] == "4.00")
        .await;
    assert_eq!(
        (&account["balance"], &account["held"]),
        (&json!("4.00"), &json!("0.00"))
    );
    let verdict = world.get("/api/reconcile").await;
    assert_eq!(verdict["ok"], true, "{verdict}");
    for sum in ["usage", "charges", "captures", "read_model", "items"] {
        assert_eq!(verdict["sums"][sum], "1.00", "{sum}");
    }
    let statement = world.get("/api/accounts/demo/statement").await;
    assert_eq!(statement["closing"], "4.00");
    assert_eq!(
        statement["usage"],
        json!({"requests": 2, "rows": 100_000, "bytes": 10_000_000, "cost": "1.00"})
    );
}

/// After a failure a broker may bring messages in any order: those behind a gap come again, and must let pass the one that fills it.
#[tokio::test]
async fn batches_that_come_in_the_wrong_order_are_all_rated() {
    let mut world = World::demo().await;
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    world.gate().await.granted(lease, 0, 2_000_000_000).await;
    for request in 1..=40 {
        journal.usage(record(Some(lease), request, 1_000));
    }
    journal.close(lease);
    world.stop().await;
    let broker = weir_embedded::Queue::open(&world.dir.path().join("broker.db")).unwrap();
    for (at, entry) in journal.entries.iter().enumerate().rev() {
        let place = |e: &weir_contracts::entry::Entry| Place {
            epoch: e.id.epoch,
            sequence: e.id.sequence,
        };
        let batch = UsageBatch {
            after: at.checked_sub(1).map(|before| place(&journal.entries[before])),
            entries: vec![entry.clone()],
        };
        let id = entry.id.to_string();
        let event = CloudEvent::new(USAGE_TOPIC, "test".to_owned(), id.clone(), String::new(), batch);
        let body = serde_json::to_vec(&event).unwrap();
        broker.publish(USAGE_TOPIC, &id, body).await.unwrap();
    }
    world.restart().await;
    world
        .until("/api/accounts/demo", |a| a["available"] == "4.60")
        .await;
    let verdict = world.get("/api/reconcile").await;
    assert_eq!(verdict["ok"], true, "{verdict}");
}

#[tokio::test]
async fn waiting_for_settlement_closes_leases_and_sees_the_last_record() {
    let world = World::demo().await;
    let mut journal = Journal::new(1);
    let last = Arc::new(AtomicU64::new(3));
    world
        .gate()
        .await
        .answer_closes(journal.proxy, 1, last, false)
        .await;
    used(&world, &mut journal).await;
    let account = world.get("/api/accounts/demo?wait_settled=1").await;
    assert_eq!(
        (&account["balance"], &account["held"]),
        (&json!("4.00"), &json!("0.00"))
    );
}

#[tokio::test]
async fn waiting_names_what_is_missing_at_its_deadline() {
    let world = World::configured(|config| config.settle_wait_ms = 1_000)
        .await
        .with_demo()
        .await;
    let mut journal = Journal::new(1);
    // The proxy says that its journal goes to 4, but only 3 entries ever arrive.
    let last = Arc::new(AtomicU64::new(4));
    world
        .gate()
        .await
        .answer_closes(journal.proxy, 1, last, false)
        .await;
    used(&world, &mut journal).await;
    let (status, body) = world.call("GET", "/api/accounts/demo?wait_settled=1", None).await;
    assert_eq!(status, 504, "{body}");
    assert_eq!(body["error"]["code"], "NOT_SETTLED");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("not rated up to 1-4"), "{message}");
}

#[tokio::test]
async fn a_busy_response_keeps_its_lease_and_what_ended_is_settled() {
    let world = World::demo().await;
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    world.gate().await.granted(lease, 0, 2_000_000_000).await;
    journal.usage(record(Some(lease), 1, 60_000));
    journal.ship(&world.outbox, 0).await;
    let last = Arc::new(AtomicU64::new(1));
    world
        .gate()
        .await
        .answer_closes(journal.proxy, 1, last, true)
        .await;
    let account = world.get("/api/accounts/demo?wait_settled=1").await;
    assert_eq!(
        (&account["balance"], &account["held"]),
        (&json!("4.40"), &json!("1.40"))
    );
}

#[tokio::test]
async fn waiting_right_after_a_proxys_restart_waits_for_what_its_last_start_left() {
    let world = World::configured(|config| config.settle_wait_ms = 1_000)
        .await
        .with_demo()
        .await;
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    world.gate().await.granted(lease, 0, 2_000_000_000).await;
    // Start 2 has no entry of its own yet, and what start 1 left is not shipped yet.
    let last = Arc::new(AtomicU64::new(0));
    world
        .gate()
        .await
        .answer_closes(journal.proxy, 2, last, false)
        .await;
    let (status, body) = world.call("GET", "/api/accounts/demo?wait_settled=1", None).await;
    assert_eq!(status, 504, "{body}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("of an earlier start"), "{message}");
    journal.usage(record(Some(lease), 1, 60_000));
    journal.close(lease);
    journal.ship(&world.outbox, 0).await;
    let account = world.get("/api/accounts/demo?wait_settled=1").await;
    assert_eq!(
        (&account["balance"], &account["held"]),
        (&json!("4.40"), &json!("0.00"))
    );
}

#[tokio::test]
async fn captures_survive_a_wallet_that_fails_and_a_restart_of_billing() {
    let mut world = World::demo().await;
    let mut journal = Journal::new(1);
    world
        .wallet
        .wallet
        .script("capture", [Fault::Away, Fault::LostReply, Fault::Away]);
    world.wallet.wallet.script("release", [Fault::LostReply]);
    used(&world, &mut journal).await;
    world
        .until("/api/live", |live| live["charges_pending"] == 0)
        .await;
    world.restart().await;
    world.until("/api/accounts/demo", |a| a["held"] == "0.00").await;
    assert_eq!(world.wallet.wallet.captured(), 1_000_000_000);
    assert_eq!(world.get("/api/reconcile").await["ok"], true);
}

#[tokio::test]
async fn a_wallet_that_is_down_delays_settlement_and_loses_nothing() {
    let mut world = World::demo().await;
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    world.gate().await.granted(lease, 0, 2_000_000_000).await;
    world.wallet.down();
    journal.usage(record(Some(lease), 1, 100_000));
    journal.close(lease);
    journal.ship(&world.outbox, 0).await;
    world
        .until("/api/live", |live| live["charges_pending"] == 1)
        .await;
    let at = world.wallet.addr;
    world.wallet = world.wallet.wallet.clone().serve(Some(at)).await;
    world
        .until("/api/live", |live| live["charges_pending"] == 0)
        .await;
    world
        .until("/api/accounts/demo", |a| a["available"] == "4.00")
        .await;
}

#[tokio::test]
async fn a_refused_capture_is_a_difference_and_keeps_the_hold() {
    let world = World::demo().await;
    let mut journal = Journal::new(1);
    world.wallet.wallet.script("capture", [Fault::Refused]);
    used(&world, &mut journal).await;
    world.until("/api/live", |live| live["charges_failed"] == 1).await;
    let verdict = world.get("/api/reconcile").await;
    assert_eq!(verdict["ok"], false);
    let difference = verdict["first_difference"].as_str().unwrap();
    assert!(difference.contains("capture is missing"), "{difference}");
    assert_eq!(world.wallet.wallet.open_holds(), 1);
}

#[tokio::test]
async fn a_closing_record_that_does_not_add_up_blocks_the_lease() {
    let world = World::demo().await;
    let mut journal = Journal::new(1);
    let lease = journal.lease(1);
    world.gate().await.granted(lease, 0, 2_000_000_000).await;
    journal.usage(record(Some(lease), 1, 60_000));
    journal.append(EntryBody::LeaseClosed(LeaseClosed {
        lease,
        account: "demo".parse().unwrap(),
        records: 2,
        cost_nanos: 600_000_000,
        last_sequence: 1,
    }));
    journal.ship(&world.outbox, 0).await;
    world
        .until("/api/accounts/demo", |a| a["balance"] == "4.40")
        .await;
    let verdict = world.get("/api/reconcile").await;
    assert_eq!(verdict["ok"], false);
    assert!(
        verdict["first_difference"]
            .as_str()
            .unwrap()
            .contains("2 records, 1 were rated")
    );
    assert_eq!(world.wallet.wallet.open_holds(), 1);
}

#[tokio::test]
async fn a_tampered_wallet_and_a_wrong_cost_are_named() {
    let world = World::demo().await;
    let mut journal = Journal::new(1);
    used(&world, &mut journal).await;
    world
        .until("/api/accounts/demo", |a| a["available"] == "4.00")
        .await;
    world.wallet.wallet.tamper(|t| {
        if t.reference_type == "charge" {
            t.amount = "-0.99".into();
        }
    });
    let verdict = world.get("/api/reconcile").await;
    assert!(
        verdict["first_difference"]
            .as_str()
            .unwrap()
            .contains("capture is 0.99"),
        "{verdict}"
    );

    let world = World::demo().await;
    let mut journal = Journal::new(2);
    let mut wrong = record(None, 1, 10);
    wrong.cost_nanos -= 1;
    journal.usage(wrong);
    journal.ship(&world.outbox, 0).await;
    world
        .until("/api/accounts/demo", |a| a["balance"] == "4.9999")
        .await;
    let verdict = world.get("/api/reconcile").await;
    assert!(
        verdict["first_difference"]
            .as_str()
            .unwrap()
            .contains("took 99999"),
        "{verdict}"
    );
}

#[tokio::test]
async fn a_read_model_that_never_shows_a_capture_is_a_difference() {
    let world = World::demo().await;
    let mut journal = Journal::new(1);
    used(&world, &mut journal).await;
    world
        .until("/api/accounts/demo", |a| a["available"] == "4.00")
        .await;
    world.wallet.wallet.hide_newest_charge();
    let verdict = world.get("/api/reconcile").await;
    assert_eq!(
        (&verdict["ok"], &verdict["sums"]["read_model"]),
        (&json!(false), &json!("0.00"))
    );
    let difference = verdict["first_difference"].as_str().unwrap();
    assert!(difference.contains("read model is missing"), "{difference}");
}

#[tokio::test]
async fn credit_that_another_proxy_holds_unused_is_called_back_before_a_denial() {
    let world = World::demo().await;
    let gate = world.gate().await;
    let mut idle = Journal::new(1);
    let held = idle.lease(1);
    gate.clone().granted(held, 0, 5_000_000_000).await;
    // The idle proxy closes its lease when asked.
    let mut notices = gate.clone().watch(idle.proxy, 1).await;
    let outbox = world.outbox.clone();
    tokio::spawn(async move {
        while let Ok(Some(notice)) = notices.message().await {
            if let Some(weir_contracts::proto::billing::notice::What::CloseLeases(_)) = notice.what {
                idle.close(held);
                idle.ship(&outbox, 0).await;
                return;
            }
        }
    });
    let hungry = Journal::new(2);
    let mut asking = gate.clone();
    assert_eq!(
        asking.granted(hungry.lease(1), 0, 1_000_000_000).await,
        1_000_000_000
    );
    // Now the rest is with the wallet; a second proxy that holds all of it in use cannot give back.
    assert_eq!(
        asking
            .granted(hungry.lease(1), 1_000_000_000, 9_000_000_000)
            .await,
        5_000_000_000
    );
    let third = Journal::new(3);
    let denial = asking.denied(third.lease(1), 0, 10_000).await;
    assert_eq!(denial.reason(), DenialReason::CreditSpent);
}

#[tokio::test]
async fn usage_is_one_object_per_request_with_its_parts_added_up() {
    let world = World::demo().await;
    let mut journal = Journal::new(1);
    let part = |request, rows, outcome| {
        let mut part = record(None, request, rows);
        part.requests = u64::from(outcome != Outcome::Continued);
        part.outcome = outcome;
        part
    };
    journal.usage(part(1, 10, Outcome::Continued));
    journal.usage(part(2, 5, Outcome::Completed));
    journal.usage(part(1, 20, Outcome::Continued));
    let last = journal.usage(part(1, 30, Outcome::CutOff));
    journal.ship(&world.outbox, 0).await;
    let path = "/api/accounts/demo/usage";
    let usage = world.until(path, |u| u.as_array().unwrap().len() == 2).await;
    assert_eq!(usage[0]["id"], last.id.to_string());
    assert_eq!(
        (&usage[0]["rows"], &usage[0]["cost"]),
        (&json!(60), &json!("0.0006"))
    );
    assert_eq!(
        (&usage[0]["outcome"], &usage[0]["parts"]),
        (&json!("cut_off"), &json!(3))
    );
    assert_eq!(usage[1]["rows"], 5);
    let first = world.get(&format!("{path}?limit=1")).await;
    let after = first[0]["id"].as_str().unwrap();
    let rest = world.get(&format!("{path}?limit=1&after={after}")).await;
    assert_eq!(rest[0]["rows"], 5);
    let after = rest[0]["id"].as_str().unwrap();
    assert_eq!(
        world.get(&format!("{path}?limit=1&after={after}")).await,
        json!([])
    );
    let cut_offs = world.get("/api/live").await["accounts"][0]["cut_offs"].clone();
    assert_eq!(cut_offs, 1);
}
