//! Seeded: random usage, duplicates, wallet faults and restarts → Σ usage = Σ charges = Σ captures =
//! Σ read-model transactions = Σ items.

use serde_json::json;
use weir_contracts::{entry::Outcome, ids::LeaseId};
use weir_servers::chaos_proxy::ChaosProxy;

use crate::{
    fake_wallet::Fault,
    world::{Journal, PATIENCE, World, record},
};

/// Another seed: `WEIR_TEST_SEED=7 cargo test -p weir-billing`.
pub(crate) fn seed() -> u64 {
    std::env::var("WEIR_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(20_261_121)
}

/// Random faults for the next calls of the settler.
fn faults(random: &mut fastrand::Rng) -> Vec<Fault> {
    (0..random.usize(0..4))
        .map(|_| {
            random
                .choice([Fault::Away, Fault::LostReply])
                .unwrap_or(Fault::Away)
        })
        .collect()
}

#[tokio::test]
async fn whatever_happens_the_books_agree() {
    books_agree(World::demo().await, None).await;
}

/// Asks for a lease; a store whose connection is being cut is asked again.
async fn lend(world: &World, lease: LeaseId, want: i64, chaos: Option<&ChaosProxy>) {
    let began = std::time::Instant::now();
    loop {
        match world.gate().await.lease(lease, 0, want).await {
            Ok(_) => return,
            Err(e) => assert!(
                chaos.is_some() && e.code() == tonic::Code::Unavailable && began.elapsed() < PATIENCE,
                "{e}"
            ),
        }
    }
}

/// Random usage in a world of tariff and account `demo`; `chaos` stands before its billing store and cuts connections.
pub(crate) async fn books_agree(mut world: World, chaos: Option<&ChaosProxy>) {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut journals = [Journal::new(1), Journal::new(2), Journal::new(3)];
    let mut shipped = [0_usize; 3];
    let mut expected = 0_i128;
    for round in 1..=12_u64 {
        for (journal, shipped) in journals.iter_mut().zip(&mut shipped) {
            if random.u8(0..4) == 0 {
                journal.epoch += 1;
            }
            let number = u32::try_from(round).unwrap();
            let lease = journal.lease(number);
            let want = random.i64(1..400_000_000);
            lend(&world, lease, want, chaos).await;
            for request in 0..random.u64(0..40) {
                let paid = random.bool().then_some(lease);
                let mut part = record(paid, round * 100 + request, random.u64(0..500));
                if random.u8(0..5) == 0 {
                    part.requests = 0;
                    part.outcome = Outcome::Continued;
                }
                expected += i128::from(part.cost_nanos);
                journal.usage(part);
            }
            journal.close(lease);
            world.wallet.wallet.script_if_well("capture", faults(&mut random));
            world.wallet.wallet.script_if_well("release", faults(&mut random));
            if let Some(chaos) = chaos {
                // Rating alone asks more often than that.
                chaos.cut_after_request(random.u32(1..12));
            }
            journal.ship(&world.outbox, *shipped).await;
            *shipped = journal.entries.len();
        }
        if random.u8(0..3) == 0 {
            world.restart().await;
        }
    }
    if let Some(chaos) = chaos {
        tokio::time::timeout(PATIENCE, chaos.sprung()).await.unwrap();
    }
    world.until("/api/accounts/demo", |a| a["held"] == "0.00").await;
    let verdict = world.until("/api/reconcile", |v| v["ok"] == true).await;
    let expected = weir_contracts::money::Amount::from_nanos(expected).to_string();
    for sum in ["usage", "charges", "captures", "read_model", "items"] {
        assert_eq!(verdict["sums"][sum], json!(expected), "{sum}, seed {}", seed());
    }
    assert_eq!(world.wallet.wallet.open_holds(), 0);
}
